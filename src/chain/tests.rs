//! Tests of the chain: what survives, what is refused, and in which words.

use std::path::{Path, PathBuf};

use super::*;
use crate::crypto::SecretKey;
use crate::log::{
    Body, Certificate, Entry, EntryBody, Header, Publish, Validator, ValidatorSet, VoteKind, vote_bytes,
};

fn key() -> SecretKey {
    SecretKey::from_bytes([1; 32])
}

fn document(salt: u8) -> GenesisDoc {
    let validators = ValidatorSet::new(vec![Validator { key: key().public(), weight: 1 }]).unwrap();
    GenesisDoc::new("test".parse().unwrap(), [salt; 16], 1_000, validators)
}

fn signed(ledger: &Ledger, header: Header, body: Body, round: u32) -> Block {
    let (genesis, height, id) = (ledger.network(), header.height, header.id());
    let vote = key().sign(&vote_bytes(genesis, VoteKind::Precommit, height, round, Some(id)));
    let votes = [(key().public(), vote)];
    let certificate = Certificate::assemble(ledger.validators(), height, round, id, votes).unwrap();
    Block { header, body, certificate }
}

/// The next block: one more version of one dataset.
fn next(ledger: &Ledger) -> Block {
    let version = format!("v{}", ledger.height() + 1);
    let body = EntryBody::Publish(Publish {
        name: "photos".parse().unwrap(),
        version: version.parse().unwrap(),
        snapshot: crate::id::SnapshotId::of(version.as_bytes()),
        bytes: 1,
        inodes: 1,
        parent: None,
        replicas: Vec::new(),
        copies: None,
    });
    let entry = Entry::sign(&key(), ledger.network(), ledger.height() + 1, body);
    let (header, body) = ledger.propose(vec![entry], ledger.time_ms() + 1, key().public());
    signed(ledger, header, body, 0)
}

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("log.redb")
    }

    fn open(&self, document: &GenesisDoc) -> Result<Chain, ChainError> {
        Chain::open(LogStore::open(&self.file()).unwrap(), document)
    }

    /// A log of `heights` heights, closed again.
    fn with_heights(heights: u64) -> (Self, Vec<Block>) {
        let home = Self::new();
        let chain = home.open(&document(1)).unwrap();
        let mut blocks = Vec::new();
        for _ in 0..heights {
            blocks.push(next(&chain.ledger()));
            chain.commit(blocks[blocks.len() - 1].clone()).unwrap();
        }
        (home, blocks)
    }
}

/// Writes a log file by hand: these blocks, and this as what was trusted last.
fn write(file: &Path, blocks: &[Vec<u8>], trust: &[u8]) {
    let store = LogStore::open(file).unwrap();
    store.set_genesis(&document(1).encode()).unwrap();
    for (at, block) in blocks.iter().enumerate() {
        store.append(at as u64 + 1, block, trust).unwrap();
    }
}

#[test]
fn what_was_committed_is_there_after_opening_again() {
    let (home, blocks) = Home::with_heights(5);
    let chain = home.open(&document(1)).unwrap();
    assert_eq!((chain.ledger().height(), chain.genesis()), (5, document(1).id()));
    assert_eq!(chain.ledger().resolve("photos", None).unwrap().label.as_str(), "v5");
    let encoded: Vec<Vec<u8>> = blocks.iter().map(Block::encode).collect();
    assert_eq!(chain.blocks(0, usize::MAX).unwrap(), encoded);
    assert_eq!(chain.blocks(4, usize::MAX).unwrap(), encoded[3..]);
    assert_eq!(chain.blocks(2, 0).unwrap(), encoded[1..2], "one block, however long");
    let two = encoded[0].len() + encoded[1].len();
    assert_eq!(chain.blocks(1, two).unwrap(), encoded[..2]);
    assert_eq!(chain.blocks(6, usize::MAX).unwrap(), Vec::<Vec<u8>>::new());
    let chain = Arc::new(chain);
    let registry = Registry::default();
    registry.clone().insert(chain.clone());
    assert_eq!(registry.get(&chain.genesis()).unwrap().ledger().height(), 5);
    assert!(registry.get(&document(2).id()).is_none());
    assert_eq!(registry.all().len(), 1);
}

#[test]
fn subscribers_see_a_height_only_once_it_is_on_disk() {
    let home = Home::new();
    let chain = home.open(&document(1)).unwrap();
    let mut seen = chain.subscribe();
    assert!(!seen.has_changed().unwrap());
    chain.commit(next(&chain.ledger())).unwrap();
    assert_eq!(seen.borrow_and_update().height(), 1);
    assert_eq!(chain.store.tip().unwrap(), 1);
    // A refused block changes nothing for anybody.
    let mut bad = next(&chain.ledger());
    bad.header.time_ms = 0;
    assert!(matches!(chain.commit(bad), Err(ChainError::Refused(LogError::Time { .. }))));
    assert!(!seen.has_changed().unwrap());
    assert_eq!(chain.store.tip().unwrap(), 1);
}

#[test]
fn a_committed_block_may_come_again_and_another_may_not() {
    let (home, blocks) = Home::with_heights(3);
    let chain = home.open(&document(1)).unwrap();
    assert_eq!(chain.commit(blocks[1].clone()).unwrap().height(), 3);
    let other_round = signed(&chain.ledger(), blocks[1].header.clone(), blocks[1].body.clone(), 9);
    assert_eq!(chain.commit(other_round).unwrap().height(), 3);

    let header = Header { time_ms: 9_999, ..blocks[1].header.clone() };
    let fork = signed(&chain.ledger(), header, blocks[1].body.clone(), 0);
    let error = chain.commit(fork.clone()).unwrap_err();
    assert!(matches!(error, ChainError::Fork { height: 2, .. }), "{error}");
    let text = error.to_string();
    let (held, offered) = (blocks[1].header.id().to_string(), fork.header.id().to_string());
    assert!(text.contains(&held) && text.contains(&offered) && text.contains("tell the operators"), "{text}");
    let unsigned = Block { certificate: blocks[1].certificate.clone(), ..fork };
    let error = chain.commit(unsigned).unwrap_err();
    assert!(matches!(error, ChainError::Refused(LogError::Certificate { height: 2, .. })), "{error}");
}

#[test]
fn blocks_out_of_order_are_refused() {
    let (home, _) = Home::with_heights(2);
    let chain = home.open(&document(1)).unwrap();
    let third = next(&chain.ledger());
    let fourth = next(&chain.ledger().apply(&third).unwrap());
    let error = chain.commit(fourth.clone()).unwrap_err();
    assert!(matches!(error, ChainError::Refused(LogError::Height { expected: 3, found: 4 })), "{error}");
    chain.commit(third).unwrap();
    assert_eq!(chain.commit(fourth).unwrap().height(), 4);
}

#[test]
fn the_log_of_another_network_is_not_opened() {
    let (home, _) = Home::with_heights(1);
    let text = home.open(&document(2)).unwrap_err().to_string();
    let (ours, theirs) = (document(1).id().to_string(), document(2).id().to_string());
    assert!(text.contains(&ours) && text.contains(&theirs), "{text}");
    assert!(text.contains(&home.file().display().to_string()), "{text}");
}

#[test]
fn a_damaged_log_names_the_height_the_file_and_the_remedy() {
    let (home, blocks) = Home::with_heights(4);
    let trust = home.open(&document(1)).unwrap().ledger().trusted().encode();
    let encoded: Vec<Vec<u8>> = blocks.iter().map(Block::encode).collect();
    // Every byte of a block is covered by something: one that changed is always noticed.
    let len = encoded[2].len();
    for at in (0..len).step_by(7).chain([len - 1]) {
        let mut bent = encoded.clone();
        bent[2][at] ^= 1;
        let home = Home::new();
        write(&home.file(), &bent, &trust);
        let error = home.open(&document(1)).unwrap_err();
        let ChainError::Damaged { height, .. } = &error else { panic!("byte {at}: {error}") };
        // A certificate that is only missed by the next block's hash of it is reported there.
        assert!((3..=4).contains(height), "byte {at}: {error}");
        let text = error.to_string();
        assert!(text.contains(&home.file().display().to_string()), "{text}");
        assert!(text.contains("move the file away"), "{text}");
    }
}

/// A file restored from an old copy would let this machine accept a second history of the heights it lost.
#[test]
fn a_log_that_lost_its_end_is_noticed() {
    let (home, blocks) = Home::with_heights(4);
    let trust = home.open(&document(1)).unwrap().ledger().trusted().encode();
    let encoded: Vec<Vec<u8>> = blocks.iter().map(Block::encode).collect();
    let short = Home::new();
    write(&short.file(), &encoded[..3], &trust);
    let text = short.open(&document(1)).unwrap_err().to_string();
    assert!(text.contains("height 4 was committed before, but the blocks end at 3"), "{text}");
    let junk = Home::new();
    write(&junk.file(), &encoded, b"junk");
    assert!(matches!(junk.open(&document(1)), Err(ChainError::Damaged { height: 4, .. })));
}
