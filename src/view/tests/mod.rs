//! Views against naive models, with and without a network that fails.

mod contents;
mod fetching;
mod large;
mod listings;
mod model;
mod positions;
mod reading;

use std::future::Future;
use std::sync::Arc;

use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::*;
use crate::id::Kind;
use crate::manifest::{BlobChild, BlobNode, Entry, Extent, Totals, TreeChild, TreeNode};
use crate::pack::{Checked, Compression};
use crate::store::{Keep, Store};

/// A store of its own for one test.
struct Home {
    store: Store,
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), crate::store::Options { cache_max_bytes: 1 << 30 }).unwrap();
        Self { store, dir }
    }

    fn put(&self, objects: Vec<Checked>) {
        self.store.put(&objects, Keep::Published).unwrap();
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher::new(self.store.clone(), None)
    }

    async fn view(&self, built: Built) -> Arc<View> {
        let id = built.id;
        self.put(built.objects);
        View::open(self.fetcher(), Cache::default(), id, Options::default()).await.unwrap()
    }
}

/// A snapshot in memory.
struct Built {
    id: SnapshotId,
    objects: Vec<Checked>,
}

/// Builds nodes of `fan` items, so that small trees have branches.
struct Builder {
    fan: usize,
    objects: Vec<Checked>,
}

impl Builder {
    fn new(fan: usize) -> Self {
        Self { fan, objects: Vec::new() }
    }

    fn object(&mut self, kind: Kind, bytes: Vec<u8>) -> [u8; 32] {
        let checked = Checked::pack(kind, bytes.into(), Compression::None);
        let hash = checked.id().hash;
        self.objects.push(checked);
        hash
    }

    fn chunk(&mut self, bytes: Vec<u8>) -> Extent {
        let len = bytes.len() as u64;
        Extent { len, chunk: Some(crate::id::ChunkId::from_bytes(self.object(Kind::Chunk, bytes))) }
    }

    fn directory(&mut self, entries: &[Entry]) -> TreeChild {
        let mut level: Vec<TreeChild> =
            entries.chunks(self.fan).map(|run| self.tree(TreeNode::Leaf(run.to_vec()))).collect();
        if level.is_empty() {
            let tree =
                crate::id::TreeId::from_bytes(self.object(Kind::Tree, TreeNode::Leaf(Vec::new()).encode()));
            let first = crate::manifest::Name::new(b"none").unwrap();
            return TreeChild { first, tree, entries: 0, totals: Totals::default() };
        }
        while level.len() > 1 {
            level = level
                .chunks(self.fan)
                .map(|run| match run {
                    [only] => only.clone(),
                    _ => self.tree(TreeNode::Branch(run.to_vec())),
                })
                .collect();
        }
        level.remove(0)
    }

    fn tree(&mut self, node: TreeNode) -> TreeChild {
        let first = match &node {
            TreeNode::Leaf(entries) => entries[0].name.clone(),
            TreeNode::Branch(children) => children[0].first.clone(),
        };
        let (entries, totals) = (node.entries(), node.totals().unwrap());
        let tree = crate::id::TreeId::from_bytes(self.object(Kind::Tree, node.encode()));
        TreeChild { first, tree, entries, totals }
    }

    fn file(&mut self, extents: &[Extent]) -> BlobChild {
        let mut level: Vec<BlobChild> =
            extents.chunks(self.fan).map(|run| self.blob(BlobNode::Leaf(run.to_vec()))).collect();
        while level.len() > 1 {
            level = level
                .chunks(self.fan)
                .map(|run| match run {
                    [only] => *only,
                    _ => self.blob(BlobNode::Branch(run.to_vec())),
                })
                .collect();
        }
        level.remove(0)
    }

    fn blob(&mut self, node: BlobNode) -> BlobChild {
        let (bytes, chunks) = node.totals().unwrap();
        let blob = crate::id::BlobId::from_bytes(self.object(Kind::Blob, node.encode()));
        BlobChild { blob, bytes, chunks }
    }

    fn finish(mut self, root: Meta, entries: &[Entry]) -> Built {
        let top = self.directory(entries);
        let chunking = "cdc:64K".parse().unwrap();
        let snapshot = Snapshot { root, tree: top.tree, totals: top.totals, chunking, sealed: None };
        self.object(Kind::Snapshot, snapshot.encode());
        Built { id: snapshot.id(), objects: self.objects }
    }
}

fn entry(name: &str, node: Node) -> Entry {
    Entry { name: crate::manifest::Name::new(name.as_bytes()).unwrap(), node }
}

fn meta(mode: u32) -> Meta {
    Meta { mode, mtime_s: 1_700_000_000, mtime_ns: 5, uid: 1234, gid: 5678, xattrs: vec![] }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Runs `test` on `cases` random values.
fn check<S: proptest::strategy::Strategy>(
    cases: u32,
    strategy: S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&strategy, test).unwrap();
}
