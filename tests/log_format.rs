//! Golden bytes of the manifest log: what is written here must be read for ever, and written the same.
//!
//! Each fixture in `tests/fixtures/log` is one encoded object in hexadecimal. `ids.txt` holds the hashes that follow
//! from them. All of it is made from the fixed keys below: Ed25519 signatures are deterministic.
//! Once there has been a release, a change of format needs new fixtures beside these, never in their place; to write the
//! files of a new format:
//! `cargo test --test log_format -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use bcai::codec;
use bcai::crypto::SecretKey;
use bcai::id::{ChunkId, Genesis, HeaderId, LogRoot, SnapshotId};
use bcai::log::checkpoint::Checkpoint;
use bcai::log::light::{Trusted, Update};
use bcai::log::note::Note;
use bcai::log::proof::VersionProof;
use bcai::log::storage::{Answered, Challenge};
use bcai::log::{
    Audit, Block, Body, Certificate, Delegate, Entry, EntryBody, Evidence, GenesisDoc, Grant, Header, Item,
    Ledger, Params, Publish, Replica, Role, RoleChange, RoleSet, Rotate, Stake, StateKey, StateProof,
    StorageCommit, StorageReceipt, Tag, Validator, ValidatorChange, ValidatorSet, VoteKind, Yank, merkle,
    proposal_bytes, vote_bytes,
};
use data_encoding::HEXLOWER;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes([seed; 32])
}

fn document() -> GenesisDoc {
    let members = (1..=4).map(|seed| Validator { key: key(seed).public(), weight: 1 }).collect();
    let validators = ValidatorSet::new(members).unwrap();
    GenesisDoc::new("golden".parse().unwrap(), [0xab; 16], 1_790_000_000_000, validators)
}

fn entries(doc: &GenesisDoc) -> [Entry; 4] {
    let publish = |version: &str, parent: Option<&str>| {
        EntryBody::Publish(Publish {
            name: "team/photos".parse().unwrap(),
            version: version.parse().unwrap(),
            snapshot: SnapshotId::of(version.as_bytes()),
            bytes: 1_000_000_007,
            inodes: 1_234,
            parent: parent.map(|p| p.parse().unwrap()),
            replicas: Vec::new(),
            copies: None,
        })
    };
    let (name, v1) = ("team/photos".parse().unwrap(), "v1".parse().unwrap());
    let reason = "the labels of class 7 were wrong".parse().unwrap();
    let tag =
        EntryBody::Tag(Tag { name, tag: "good".parse().unwrap(), version: "2026-11-21".parse().unwrap() });
    let yank = EntryBody::Yank(Yank { name: "team/photos".parse().unwrap(), version: v1, reason });
    let bodies = [publish("v1", None), publish("2026-11-21", Some("v1")), tag, yank];
    let mut nonce = 0;
    bodies.map(|body| {
        nonce += 1;
        Entry::sign(&key(50), doc.id(), nonce, body)
    })
}

fn certify(ledger: &Ledger, header: &Header, signers: &[u8], round: u32) -> Certificate {
    let message = vote_bytes(ledger.network(), VoteKind::Precommit, header.height, round, Some(header.id()));
    let votes = signers.iter().map(|&seed| (key(seed).public(), key(seed).sign(&message)));
    Certificate::assemble(ledger.validators(), header.height, round, header.id(), votes).unwrap()
}

/// Height 1 with the first two entries, height 2 with the others; three of four sign.
fn blocks(doc: &GenesisDoc) -> (Vec<Block>, Ledger) {
    let [first, second, third, fourth] = entries(doc);
    let mut ledger = Ledger::genesis(doc).unwrap();
    let mut blocks = Vec::new();
    for (entries, signers, round) in
        [(vec![first, second], [1, 2, 3], 0), (vec![third, fourth], [2, 3, 4], 1)]
    {
        let (header, body) = ledger.propose(entries, ledger.time_ms() + 1_000, key(1).public());
        let certificate = certify(&ledger, &header, &signers, round);
        let block = Block { header, body, certificate };
        ledger = ledger.apply(&block).unwrap();
        blocks.push(block);
    }
    (blocks, ledger)
}

fn update(ledger: &Ledger, block: &Block) -> Update {
    ledger.update(block).unwrap()
}

/// The kinds that are not in the blocks, each under a name. What others sign in them is genuine.
fn other_kinds(genesis: Genesis) -> Vec<(&'static str, EntryBody)> {
    let (author, two) = (key(50).public(), key(2).public());
    let (name, version) = ("team/photos".parse().unwrap(), "v1".parse().unwrap());
    let snapshot = SnapshotId::of(b"v1");
    let answered = Answered {
        epoch: 7,
        seed: HeaderId::of(b"seed"),
        snapshot,
        bytes: 1_000_000_007,
        chunk: ChunkId::of(b"chunk"),
        answer: Challenge::new(HeaderId::of(b"seed"), &author, snapshot).answer(b"chunk"),
    };
    let audits = vec![Audit::sign(&key(3), genesis, &author, &answered)];
    let vote = |id: Option<HeaderId>| (id, key(2).sign(&vote_bytes(genesis, VoteKind::Precommit, 9, 1, id)));
    let proposal = |id: HeaderId, locked: Option<u32>| {
        (id, locked, key(2).sign(&proposal_bytes(genesis, 9, 1, locked, id)))
    };
    let [a, b] = [b"a", b"b"].map(|bytes| HeaderId::of(bytes));
    let replicated = Publish {
        name: "team/photos".parse().unwrap(),
        version: "v2".parse().unwrap(),
        snapshot,
        bytes: 1,
        inodes: 2,
        parent: None,
        replicas: vec![Replica::sign(&key(4), genesis, snapshot)],
        copies: None,
    };
    let to_be_replicated = Publish { copies: Some(3), ..replicated.clone() };
    let roles: RoleSet = [Role::Reader, Role::Publisher].into_iter().collect();
    let grant = Grant { name, to: two, roles, wrap: Some(vec![0xcd; 48].into()) };
    let name = grant.name.clone();
    vec![
        ("publish-with-replica", EntryBody::Publish(replicated)),
        ("publish-with-copies", EntryBody::Publish(to_be_replicated)),
        ("grant", EntryBody::Grant(grant)),
        (
            "grant-taken-back",
            EntryBody::Grant(Grant { name: name.clone(), to: two, roles: RoleSet::NONE, wrap: None }),
        ),
        ("role", EntryBody::Role(RoleChange { to: two, roles: Role::ALL.into_iter().collect() })),
        ("rotate", EntryBody::Rotate(Rotate::to(&key(51), genesis, &author))),
        ("validator-join", EntryBody::Validator(ValidatorChange::join(&key(52), genesis, &author))),
        ("validator-leave", EntryBody::Validator(ValidatorChange::Leave)),
        ("validator-release", EntryBody::Validator(ValidatorChange::Release { operator: two })),
        ("stake", EntryBody::Stake(Stake { holder: two, amount: 1_000_000 })),
        ("delegate", EntryBody::Delegate(Delegate { to: two })),
        ("storage-commit", EntryBody::StorageCommit(StorageCommit { epoch: 7, name, version })),
        ("storage-receipt", EntryBody::StorageReceipt(StorageReceipt { answered, audits })),
        (
            "evidence-votes",
            EntryBody::Evidence(Evidence::of_votes(
                two,
                VoteKind::Precommit,
                9,
                1,
                [vote(Some(a)), vote(None)],
            )),
        ),
        (
            "evidence-proposals",
            EntryBody::Evidence(Evidence::of_proposals(two, 9, 1, [proposal(a, None), proposal(b, Some(0))])),
        ),
        ("params", EntryBody::Params(Params::default())),
    ]
}

/// The proof of the first version.
fn proof(ledger: &Ledger, blocks: &[Block]) -> VersionProof {
    let entries: Vec<&Entry> = blocks.iter().flat_map(|block| &block.body.entries).collect();
    let leaves: Vec<LogRoot> = entries.iter().map(|entry| merkle::leaf(&entry.encode())).collect();
    let what = (&"team/photos".parse().unwrap(), &"v1".parse().unwrap());
    let steps = vec![update(ledger, &blocks[1])];
    VersionProof::new(ledger, what, steps, &leaves, (0, entries[0].clone())).unwrap()
}

/// What a light client keeps that was shown a tag.
fn observed(ledger: &Ledger) -> Trusted {
    let key = StateKey::Tag("team/photos".parse().unwrap(), "good".parse().unwrap());
    let target = ledger.dataset("team/photos").unwrap().tags["good"].clone();
    let mut trusted = ledger.trusted().at_time(1_790_000_009_999);
    trusted.observe(&key, Some(&Item::Tag(target)), &ledger.prove(&key)).unwrap();
    trusted
}

/// The head as a checkpoint, signed by the first validator and cosigned by a witness.
fn checkpoint(ledger: &Ledger) -> Note {
    let (mut note, _) = Checkpoint::of(ledger.head().unwrap()).signed(&key(1)).unwrap();
    note.cosign("witness.example/golden", &key(60), 1_790_000_010).unwrap();
    note
}

/// Name of each fixture, its bytes as this program makes them, and whether given bytes decode and encode to themselves.
type Golden = (String, Vec<u8>, Reencode);
type Reencode = fn(&[u8]) -> Option<Vec<u8>>;

fn golden() -> Vec<Golden> {
    let doc = document();
    let [publish, with_parent, tag, yank] = entries(&doc);
    let (blocks, ledger) = blocks(&doc);
    let entry: Reencode = |bytes| Some(Entry::decode(bytes).ok()?.encode());
    let name = StateKey::Name("team/photos".parse().unwrap());
    let absent = StateKey::Name("videos".parse().unwrap());
    let state_proof: Reencode =
        |bytes| Some(codec::encode(&codec::decode::<StateProof>("a state proof", bytes, 1 << 16).ok()?));
    let id = blocks[0].header.id();
    let of_blocks: Vec<(&str, Vec<u8>, Reencode)> = vec![
        ("genesis", doc.encode(), |b| Some(GenesisDoc::decode(b).ok()?.encode())),
        ("entry-publish", publish.encode(), entry),
        ("entry-publish-with-parent", with_parent.encode(), entry),
        ("entry-tag", tag.encode(), entry),
        ("entry-yank", yank.encode(), entry),
        ("header", blocks[1].header.encode(), |b| Some(Header::decode(b).ok()?.encode())),
        ("body", blocks[1].body.encode(), |b| Some(Body::decode(b).ok()?.encode())),
        ("certificate", blocks[1].certificate.encode(), |b| Some(Certificate::decode(b).ok()?.encode())),
        ("block", blocks[1].encode(), |b| Some(Block::decode(b).ok()?.encode())),
        ("block-first", blocks[0].encode(), |b| Some(Block::decode(b).ok()?.encode())),
        ("trusted", ledger.trusted().encode(), |b| Some(Trusted::decode(b).ok()?.encode())),
        ("trusted-at-genesis", Trusted::at_genesis(&doc).encode(), |b| {
            Some(Trusted::decode(b).ok()?.encode())
        }),
        ("update", update(&ledger, &blocks[1]).encode(), |b| Some(Update::decode(b).ok()?.encode())),
        ("state-proof", codec::encode(&ledger.prove(&name)), state_proof),
        ("state-proof-of-absence", codec::encode(&ledger.prove(&absent)), state_proof),
        ("vote", vote_bytes(doc.id(), VoteKind::Precommit, 1, 0, Some(id)), |b| Some(b.to_vec())),
        ("vote-for-nothing", vote_bytes(doc.id(), VoteKind::Prevote, 7, 2, None), |b| Some(b.to_vec())),
        ("proposal", proposal_bytes(doc.id(), 7, 2, Some(1), id), |b| Some(b.to_vec())),
        ("trusted-with-floor", observed(&ledger).encode(), |b| Some(Trusted::decode(b).ok()?.encode())),
        ("version-proof", proof(&ledger, &blocks).encode(), |b| Some(VersionProof::decode(b).ok()?.encode())),
        ("checkpoint", checkpoint(&ledger).to_string().into_bytes(), |b| {
            Some(Note::parse(b).ok()?.to_string().into_bytes())
        }),
    ];
    let of_blocks = of_blocks.into_iter().map(|(name, bytes, reencode)| (name.to_owned(), bytes, reencode));
    let other_kinds = other_kinds(doc.id()).into_iter().map(|(kind, body)| {
        (format!("entry-{kind}"), Entry::sign(&key(50), doc.id(), 9, body).encode(), entry)
    });
    of_blocks.chain(other_kinds).collect()
}

fn ids() -> String {
    let doc = document();
    let (blocks, ledger) = blocks(&doc);
    let mut lines = vec![
        format!("genesis {}", doc.id()),
        format!("validators {}", doc.validators.digest()),
        format!("params {}", doc.params.digest()),
    ];
    lines.extend(entries(&doc).iter().map(|entry| format!("entry {}", entry.id())));
    for block in &blocks {
        let Header { height, log_root, state_root, body, .. } = &block.header;
        let (id, certificate) = (block.header.id(), block.certificate.digest());
        lines.push(format!("height {height} header {id}"));
        lines.push(format!("height {height} certificate {certificate}"));
        lines.push(format!("height {height} body {body}"));
        lines.push(format!("height {height} log {log_root}"));
        lines.push(format!("height {height} state {state_root}"));
    }
    lines.push(format!("state key {}", StateKey::Nonce(key(50).public()).digest()));
    lines.push(format!("nonce {}", ledger.nonce(&key(50).public())));
    lines.join("\n") + "\n"
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log").join(name)
}

fn read(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(fixture(&format!("{name}.hex"))).expect(name);
    HEXLOWER.decode(text.trim_end().as_bytes()).expect(name)
}

#[test]
fn every_object_is_still_written_and_read_the_same() {
    for (name, bytes, reencode) in golden() {
        let held = read(&name);
        assert_eq!(HEXLOWER.encode(&bytes), HEXLOWER.encode(&held), "{name}");
        assert_eq!(reencode(&held).as_ref(), Some(&held), "{name}");
    }
}

#[test]
fn every_hash_is_still_the_same() {
    assert_eq!(ids(), fs::read_to_string(fixture("ids.txt")).expect("ids.txt"));
}

/// From the committed bytes alone, as a program of another day would have to.
#[test]
fn the_committed_log_is_accepted_by_ledger_and_light_client() {
    let doc = GenesisDoc::decode(&read("genesis")).unwrap();
    let blocks = ["block-first", "block"].map(|name| Block::decode(&read(name)).unwrap());
    let ledger = Ledger::genesis(&doc).unwrap().replay(&blocks).unwrap();
    assert_eq!(ledger.resolve("team/photos", None).unwrap().label.as_str(), "2026-11-21");
    let yanked = ledger.resolve("team/photos", Some("v1")).unwrap().yanked.clone().unwrap();
    assert_eq!(yanked.reason.as_str(), "the labels of class 7 were wrong");
    let update = Update::decode(&read("update")).unwrap();
    let start = Trusted::decode(&read("trusted-at-genesis")).unwrap();
    assert_eq!(start.advance(&update), Ok(Trusted::decode(&read("trusted")).unwrap()));
    let proven = VersionProof::verify(&read("version-proof"), doc.id()).unwrap();
    assert_eq!(proven.version.snapshot, SnapshotId::of(b"v1"));
    assert_eq!(update.signed.header.previous, Some(HeaderId::of(&blocks[0].header.encode())));
}

#[test]
#[ignore = "on demand: rewrites the golden files"]
fn write_the_fixtures() {
    fs::create_dir_all(fixture("")).unwrap();
    for (name, bytes, _) in golden() {
        fs::write(fixture(&format!("{name}.hex")), HEXLOWER.encode(&bytes) + "\n").unwrap();
    }
    fs::write(fixture("ids.txt"), ids()).unwrap();
}
