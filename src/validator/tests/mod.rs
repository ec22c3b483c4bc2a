//! What the tests of the validator share: keys, logs in temporary directories, and a driver without a runtime.

mod accusing;
mod alone;
mod bytes;
mod crash;
mod forged;
mod sim;
mod together;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_malachitebft_core_types::{LinearTimeouts, NilOrVal, SignedMessage, VoteType};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::context::{Height, Proposal, Vote, VoteSignature};
use super::driver::{Driver, Event};
use super::link::Outgoing;
use super::signing::{SignedProposal, SignedVote};
use super::wire::{Candidate, Message};
use super::{Now, ValidatorError};
use crate::chain::Chain;
use crate::crypto::{PublicKey, SecretKey};
use crate::id::{HeaderId, SnapshotId};
use crate::log::{
    Block, Certificate, Entry, EntryBody, GenesisDoc, Ledger, Publish, Validator, ValidatorSet,
};
use crate::store::LogStore;

/// A moment when tests begin: long after the founding of their networks.
const START_MS: u64 = 1_800_000_000_000;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes([seed; 32])
}

/// A network of `keys`, whose heartbeat is too slow to be seen.
fn network(keys: &[SecretKey]) -> GenesisDoc {
    let members = keys.iter().map(|key| Validator { key: key.public(), weight: 1 }).collect();
    let label = "test".parse().unwrap();
    let mut doc = GenesisDoc::new(label, [7; 16], 1_700_000_000_000, ValidatorSet::new(members).unwrap());
    doc.params.heartbeat_ms = 86_400_000;
    doc
}

/// Four keys in the order in which they propose at height 1.
fn four() -> Vec<SecretKey> {
    let mut keys: Vec<SecretKey> = (1..=4).map(key).collect();
    keys.sort_by_key(SecretKey::public);
    keys.rotate_left(1);
    keys
}

/// A directory in memory where there is one: thousands of runs sync several times each.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn chain(dir: &Path, doc: &GenesisDoc) -> Arc<Chain> {
    Arc::new(Chain::open(LogStore::open(&dir.join("log")).unwrap(), doc).unwrap())
}

/// Version `version` of the dataset of author `seed`.
fn publish(seed: u8, doc: &GenesisDoc, version: u64) -> Entry {
    publish_snapshot(seed, doc, version, &format!("snapshot {version}"))
}

fn publish_snapshot(seed: u8, doc: &GenesisDoc, version: u64, content: &str) -> Entry {
    let publish = Publish {
        name: format!("data/{seed}").parse().unwrap(),
        version: format!("v{version}").parse().unwrap(),
        snapshot: SnapshotId::of(content.as_bytes()),
        bytes: 1,
        inodes: 1,
        parent: None,
        replicas: Vec::new(),
        copies: None,
    };
    Entry::sign(&key(seed), doc.id(), version, EntryBody::Publish(publish))
}

/// Short enough for a test, long enough for a busy machine.
fn fast() -> LinearTimeouts {
    LinearTimeouts {
        propose: Duration::from_millis(400),
        propose_delta: Duration::from_millis(200),
        prevote: Duration::from_millis(200),
        prevote_delta: Duration::from_millis(100),
        precommit: Duration::from_millis(200),
        precommit_delta: Duration::from_millis(100),
        rebroadcast: Duration::from_millis(300),
        max_timeout: Duration::from_secs(2),
    }
}

/// One driver with its own chain and clock, and the messages that it lets out.
struct Bench {
    dir: TempDir,
    doc: GenesisDoc,
    key: SecretKey,
    chain: Arc<Chain>,
    driver: Driver,
    out: mpsc::Receiver<Outgoing>,
    now: Now,
}

impl Bench {
    fn new(key: &SecretKey, doc: &GenesisDoc) -> Self {
        Self::open(tempfile::tempdir().unwrap(), key, doc, START_MS).unwrap()
    }

    fn open(dir: TempDir, key: &SecretKey, doc: &GenesisDoc, unix_ms: u64) -> Result<Self, ValidatorError> {
        let now = Now { instant: Instant::now(), unix_ms };
        let chain = chain(dir.path(), doc);
        let (tx, out) = mpsc::channel(10_000);
        let driver =
            Driver::open(key.clone(), chain.clone(), &wal(&dir), tx, LinearTimeouts::default(), now)?;
        Ok(Self { dir, doc: doc.clone(), key: key.clone(), chain, driver, out, now })
    }

    /// Kills the driver and opens another on the same files.
    fn restart(self) -> Self {
        let Self { dir, doc, key, chain, driver, now, .. } = self;
        drop((driver, chain));
        Self::open(dir, &key, &doc, now.unix_ms).unwrap()
    }

    /// One turn with these messages; returns what was let out.
    fn turn(&mut self, messages: impl IntoIterator<Item = Message>) -> Vec<Message> {
        let from = key(99).public();
        let events = messages.into_iter().map(|message| Event::Message(from, message)).collect();
        self.driver.turn(events, self.now).unwrap();
        self.sent()
    }

    /// Lets time pass.
    fn wait(&mut self, time: Duration) -> Vec<Message> {
        self.now.instant += time;
        self.now.unix_ms += time.as_millis() as u64;
        self.turn([])
    }

    fn sent(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.out.try_recv().ok())
            .map(|(_, bytes)| Message::decode(&bytes).unwrap())
            .collect()
    }

    fn ledger(&self) -> Arc<Ledger> {
        self.chain.ledger()
    }
}

fn wal(dir: &TempDir) -> PathBuf {
    dir.path().join("wal")
}

fn vote(
    key: &SecretKey,
    doc: &GenesisDoc,
    kind: VoteType,
    height: u64,
    round: u32,
    id: Option<HeaderId>,
) -> Message {
    let id = id.map_or(NilOrVal::Nil, NilOrVal::Val);
    let vote = Vote { kind, height: Height(height), round, id, voter: key.public() };
    let signature = VoteSignature(key.sign(&vote.signed_bytes(doc.id())));
    Message::Vote { vote: SignedVote::new(vote, signature), again: false }
}

fn proposal(key: &SecretKey, doc: &GenesisDoc, round: u32, candidate: Candidate) -> Message {
    let (height, id) = (Height(candidate.header.height), candidate.header.id());
    let proposal = Proposal { height, round, id, locked: None, proposer: key.public() };
    let signature = VoteSignature(key.sign(&proposal.signed_bytes(doc.id())));
    let proposal: SignedProposal = SignedMessage::new(proposal, signature);
    Message::Proposal { proposal, candidate: Box::new(candidate) }
}

/// What `proposer` would propose after `ledger`.
fn candidate(ledger: &Ledger, entries: Vec<Entry>, proposer: &SecretKey) -> Candidate {
    let (header, body) = ledger.propose(entries, START_MS, proposer.public());
    Candidate { header, body }
}

/// A block decided by `keys` without any engine.
fn decided(ledger: &Ledger, entries: Vec<Entry>, keys: &[SecretKey]) -> Block {
    let Candidate { header, body } = candidate(ledger, entries, &keys[0]);
    let id = header.id();
    let bytes =
        crate::log::vote_bytes(ledger.network(), crate::log::VoteKind::Precommit, header.height, 0, Some(id));
    let votes = keys.iter().map(|key| (key.public(), key.sign(&bytes)));
    let certificate = Certificate::assemble(ledger.validators(), header.height, 0, id, votes).unwrap();
    Block { header, body, certificate }
}

/// The votes among `messages`: by whom, of what kind and round, for what.
fn votes(messages: &[Message]) -> Vec<(PublicKey, VoteType, u32, Option<HeaderId>)> {
    let vote = |message: &Message| match message {
        Message::Vote { vote, .. } => {
            Some((vote.voter, vote.kind, vote.round, super::context::header_of(&vote.id)))
        }
        _ => None,
    };
    messages.iter().filter_map(vote).collect()
}
