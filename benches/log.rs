//! How fast a light client believes a head, a proof is checked, and entries are executed, beside their signatures alone.
//!
//! Owns: the cases. Must not know: how blocks are decided. Invariant: the same keys and entries in every run.
//! Trust: none needed. Threads: one.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

mod common;

use std::hint::black_box;

use bcai::crypto::{self, Claim, SecretKey};
use bcai::id::{LogRoot, SnapshotId};
use bcai::log::light::{Trusted, Update};
use bcai::log::{
    Block, Certificate, Entry, EntryBody, GenesisDoc, Ledger, Publish, StateKey, Validator, ValidatorSet,
    VoteKind, merkle, vote_bytes,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const ENTRIES: usize = 1000;
const LEAVES: usize = 100_000;

fn keys(count: usize) -> Vec<SecretKey> {
    let seed = |n: usize| *blake3::hash(&n.to_be_bytes()).as_bytes();
    (0..count).map(|n| SecretKey::from_bytes(seed(n))).collect()
}

fn document(keys: &[SecretKey]) -> GenesisDoc {
    let members = keys.iter().map(|key| Validator { key: key.public(), weight: 1 }).collect();
    let validators = ValidatorSet::new(members).unwrap();
    GenesisDoc::new("bench".parse().unwrap(), [1; 16], 1_790_000_000_000, validators)
}

/// The next block, signed by the first `signers` keys.
fn block(ledger: &Ledger, entries: Vec<Entry>, keys: &[SecretKey], signers: usize) -> Block {
    let (header, body) = ledger.propose(entries, ledger.time_ms() + 1_000, keys[0].public());
    let (height, id) = (header.height, header.id());
    let message = vote_bytes(ledger.network(), VoteKind::Precommit, height, 0, Some(id));
    let votes = keys[..signers].iter().map(|key| (key.public(), key.sign(&message)));
    let certificate = Certificate::assemble(ledger.validators(), height, 0, id, votes).unwrap();
    Block { header, body, certificate }
}

/// A new version each, of a hundred datasets by as many authors.
fn entries(doc: &GenesisDoc) -> Vec<Entry> {
    let authors = keys(100);
    let entry = |n: usize| {
        let publish = Publish {
            name: format!("dataset-{}", n % 100).parse().unwrap(),
            version: format!("v{n}").parse().unwrap(),
            snapshot: SnapshotId::of(&n.to_be_bytes()),
            bytes: 1 << 30,
            inodes: 1000,
            parent: None,
            replicas: Vec::new(),
            copies: None,
        };
        Entry::sign(&authors[n % 100], doc.id(), n as u64 + 1, EntryBody::Publish(publish))
    };
    (0..ENTRIES).map(entry).collect()
}

/// The target: a head that 67 of 100 validators signed, below 2 ms.
fn light(c: &mut Criterion) {
    let keys = keys(100);
    let doc = document(&keys);
    let start = Ledger::genesis(&doc).unwrap();
    let first = block(&start, vec![], &keys, 67);
    let ledger = start.apply(&first).unwrap();
    let second = block(&ledger, vec![], &keys, 67);
    let update = ledger.apply(&second).unwrap().update(&second).unwrap();
    let (trusted, bytes) = (Trusted::at_genesis(&doc), update.encode());
    let message = vote_bytes(doc.id(), VoteKind::Precommit, 2, 0, Some(second.header.id()));
    let claim = |key: &SecretKey| Claim {
        key: key.public(),
        message: message.clone().into(),
        signature: key.sign(&message),
    };
    let claims: Vec<Claim> = keys[..67].iter().map(claim).collect();
    let mut group = c.benchmark_group("light client, 67 of 100");
    group.bench_function("the signatures alone", |b| b.iter(|| crypto::verify_batch(black_box(&claims))));
    group.bench_function("Trusted::advance", |b| b.iter(|| trusted.advance(black_box(&update)).unwrap()));
    group.bench_function("Update::decode and advance", |b| {
        b.iter(|| trusted.advance(&Update::decode(black_box(&bytes)).unwrap()).unwrap());
    });
    group.finish();
}

fn proofs(c: &mut Criterion) {
    let leaves: Vec<LogRoot> = (0..LEAVES).map(|n| merkle::leaf(&n.to_be_bytes())).collect();
    let mut frontier = merkle::Frontier::default();
    leaves.iter().for_each(|leaf| frontier.append(*leaf));
    let (root, at) = (frontier.root(), LEAVES / 3);
    let inclusion = merkle::prove_inclusion(&leaves, at).unwrap();
    let mut group = c.benchmark_group("proofs");
    group.bench_function("inclusion of one of 100,000", |b| {
        let check = |leaf| merkle::verify_inclusion(root, LEAVES as u64, at as u64, leaf, &inclusion);
        b.iter(|| check(black_box(leaves[at])).unwrap());
    });
    let keys = keys(4);
    let doc = document(&keys);
    let start = Ledger::genesis(&doc).unwrap();
    let ledger = start.apply(&block(&start, entries(&doc), &keys, 4)).unwrap();
    let key = StateKey::Version("dataset-7".parse().unwrap(), "v7".parse().unwrap());
    let (state, digest) = (ledger.prove(&key), key.digest());
    let root = ledger.head().unwrap().state_root;
    group.bench_function("state of one of 1,000 versions", |b| {
        b.iter(|| state.verify(black_box(root), &digest).unwrap());
    });
    group.finish();
}

fn execution(c: &mut Criterion) {
    let keys = keys(4);
    let doc = document(&keys);
    let (start, entries) = (Ledger::genesis(&doc).unwrap(), entries(&doc));
    let whole = block(&start, entries.clone(), &keys, 4);
    assert_eq!(whole.body.entries.len(), ENTRIES);
    let mut group = c.benchmark_group("entries");
    group.throughput(Throughput::Elements(ENTRIES as u64));
    group.bench_function("Entry::verify alone", |b| {
        b.iter(|| entries.iter().for_each(|entry| entry.verify().unwrap()));
    });
    group.bench_function("Ledger::execute", |b| {
        b.iter(|| start.execute(black_box(&whole.header), &whole.body).unwrap().id());
    });
    group.bench_function("Ledger::replay", |b| {
        b.iter(|| start.replay(black_box(std::slice::from_ref(&whole))).unwrap().height());
    });
    group.finish();
}

criterion_group! { name = benches; config = common::criterion(); targets = light, proofs, execution }
criterion_main!(benches);
