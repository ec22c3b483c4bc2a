//! How fast names and positions are found in a snapshot, beside a sorted list in memory.
//!
//! Owns: the cases. Must not know: how nodes are split. Invariant: every look-up finds what it looks for.
//! Trust: none needed. Threads: one.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

mod common;

use std::hint::black_box;
use std::sync::Arc;

use bcai::fetch::Fetcher;
use bcai::id::{Kind, ObjectId, TreeId};
use bcai::manifest::{
    Content, Entry, ManifestError, Meta, Name, Node, Snapshot, Totals, TreeBuilder, TreeNode,
};
use bcai::pack::{Checked, Compression};
use bcai::store::{Keep, Options, Store};
use bcai::view::{Cache, ROOT, View};
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;

const NAMES: u64 = 100_000;
const DEPTH: usize = 32;

fn file_name(number: u64) -> String {
    format!("{number:08}.jpg")
}

fn entry(name: &str, node: Node) -> Entry {
    Entry { name: Name::new(name.as_bytes()).unwrap(), node }
}

fn file() -> Node {
    Node::File { meta: Meta::default(), nlink: 1, size: 0, content: Content::Empty }
}

/// A directory of these entries, its nodes into `objects`.
fn directory(entries: Vec<Entry>, objects: &mut Vec<Checked>) -> (TreeId, Totals) {
    let mut sink = |kind: Kind, bytes: Vec<u8>| {
        let object = Checked::pack(kind, bytes.into(), Compression::Lz4);
        let hash = object.id().hash;
        objects.push(object);
        Ok::<_, ManifestError>(hash)
    };
    let mut builder = TreeBuilder::new();
    for entry in entries {
        builder.push(entry, &mut sink).unwrap();
    }
    builder.finish(&mut sink).unwrap()
}

/// A directory of many names, and one that leads down to a file.
fn snapshot(objects: &mut Vec<Checked>) -> Snapshot {
    let (mut tree, mut totals) = directory(vec![entry("file", file())], objects);
    for _ in 0..DEPTH {
        let below = Node::Dir { meta: Meta::default(), tree, totals };
        (tree, totals) = directory(vec![entry("deeper", below)], objects);
    }
    let mut entries: Vec<Entry> = (0..NAMES).map(|number| entry(&file_name(number), file())).collect();
    entries.push(entry("deep", Node::Dir { meta: Meta::default(), tree, totals }));
    let (tree, totals) = directory(entries, objects);
    let snapshot =
        Snapshot { root: Meta::default(), tree, totals, chunking: "auto".parse().unwrap(), sealed: None };
    let id = ObjectId::from(snapshot.id());
    objects.push(Checked::pack(id.kind, snapshot.encode().into(), Compression::Lz4));
    snapshot
}

/// Numbers in an order that no cache foresees.
fn scattered() -> impl FnMut() -> u64 {
    let mut at = 0;
    move || {
        at = (at + 61_803) % NAMES;
        at
    }
}

fn nodes(c: &mut Criterion) {
    let mut group = c.benchmark_group("a tree node of 300 names");
    let node = TreeNode::Leaf((0..300).map(|number| entry(&file_name(number), file())).collect());
    let bytes = node.encode();
    group.bench_function("blake3 alone", |b| b.iter(|| blake3::hash(black_box(&bytes))));
    group.bench_function("encode", |b| b.iter(|| black_box(&node).encode()));
    group.bench_function("decode", |b| b.iter(|| TreeNode::decode(black_box(&bytes)).unwrap()));
    group.finish();
}

fn look_up(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Store::open(&dir.path().join("store"), Options { cache_max_bytes: 1 << 30 }).unwrap();
    let mut objects = Vec::new();
    let snapshot = snapshot(&mut objects);
    store.put(&objects, Keep::Published).unwrap();
    store.commit().unwrap();
    let runtime = Runtime::new().unwrap();
    let open = |cache| {
        let fetcher = Fetcher::new(store.clone(), None);
        runtime.block_on(View::open(fetcher, cache, snapshot.id(), Default::default())).unwrap()
    };
    let view: Arc<View> = open(Cache::default());

    let names: Vec<String> = (0..NAMES).map(file_name).collect();
    let mut next = scattered();
    let mut group = c.benchmark_group("look up in 100,000 names");
    group.bench_function("a sorted list in memory", |b| {
        b.iter(|| names.binary_search(&names[next() as usize]).unwrap());
    });
    group.bench_function("by name", |b| {
        b.iter(|| {
            let found = runtime.block_on(view.find(ROOT, names[next() as usize].as_bytes()));
            found.unwrap().unwrap()
        });
    });
    group.bench_function("by position", |b| {
        // The root is position 1, and its entries follow it in order.
        b.iter(|| runtime.block_on(view.inode(next() + 2)).unwrap());
    });
    group.bench_function("by name, nothing decoded", |b| {
        b.iter_batched(
            || open(Cache::default()),
            |view| runtime.block_on(view.find(ROOT, names[next() as usize].as_bytes())).unwrap().unwrap(),
            criterion::BatchSize::PerIteration,
        );
    });
    let path = format!("deep/{}file", "deeper/".repeat(DEPTH));
    group.bench_function("a path of 34 names", |b| {
        b.iter(|| runtime.block_on(view.resolve(black_box(path.as_bytes()))).unwrap());
    });
    group.finish();
}

criterion_group! { name = benches; config = common::criterion(); targets = nodes, look_up }
criterion_main!(benches);
