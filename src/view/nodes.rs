//! Objects of a snapshot, decoded, checked against what their parents promised, and kept for a while.
//!
//! Owns: the cache of decoded nodes and of chunks that were used in part, and its bound in bytes.
//! Must not know: inodes, paths, offsets.
//! Invariant: a node that is given out keeps the promises of the parent that led to it. The cache weighs at most
//! what it was given.
//! Trust: the nodes of a publisher are decoded by `manifest`, which refuses what breaks a rule on its own.
//! Threads: any; the locks are held for a look-up or an insertion only.

use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lru::LruCache;

use super::{ViewError, mounted};
use crate::crypto::dataset::Keyring;
use crate::fetch::{Class, FetchError, Fetcher};
use crate::id::{BlobId, ChunkId, KeyId, Kind, ObjectId, SnapshotId, TreeId};
use crate::manifest::{
    BlobNode, Entry, IndexedBlob, IndexedTree, Name, Sealed, Snapshot, Totals, TreeChild, TreeNode, Xattr,
};
use crate::pack::{Checked, sealed};

/// What a cache weighs at most unless told otherwise, in bytes.
const DEFAULT_WEIGHT: usize = 32 << 20;

/// What one object costs in a cache besides itself: keys, links, allocations. Rounded up.
const OVERHEAD: usize = 200;

/// Values by id, the least recently used of which go first when they weigh too much.
struct Shelf<K, V> {
    values: LruCache<K, (V, usize)>,
    weight: usize,
    max_weight: usize,
}

impl<K: Hash + Eq, V: Clone> Shelf<K, V> {
    fn new(max_weight: usize) -> Mutex<Self> {
        Mutex::new(Self { values: LruCache::unbounded(), weight: 0, max_weight })
    }

    fn put(&mut self, key: K, value: V, weight: usize) {
        let weight = weight + OVERHEAD;
        if let Some((_, replaced)) = self.values.put(key, (value, weight)) {
            self.weight -= replaced;
        }
        self.weight += weight;
        while self.weight > self.max_weight {
            let Some((_, (_, dropped))) = self.values.pop_lru() else { break };
            self.weight -= dropped;
        }
    }
}

fn get<K: Hash + Eq, V: Clone>(shelf: &Mutex<Shelf<K, V>>, key: &K) -> Option<V> {
    // No operation on a shelf can leave it half done.
    let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    shelf.values.get(key).map(|(value, _)| value.clone())
}

fn put<K: Hash + Eq, V: Clone>(shelf: &Mutex<Shelf<K, V>>, key: K, value: V, weight: usize) {
    shelf.lock().unwrap_or_else(PoisonError::into_inner).put(key, value, weight);
}

/// Decoded objects, kept in memory for all views that share it. Clones are the same cache.
#[derive(Clone)]
pub struct Cache(Arc<Shelves>);

struct Shelves {
    trees: Mutex<Shelf<Key<TreeId>, Arc<Tree>>>,
    blobs: Mutex<Shelf<Key<BlobId>, Arc<Blob>>>,
    chunks: Mutex<Shelf<Key<ChunkId>, Bytes>>,
}

/// What was opened with a key is kept apart: a snapshot that only names a sealed object must not be shown what is in it.
type Key<T> = (Option<KeyId>, T);

impl Cache {
    /// A cache that weighs at most `max_weight` bytes.
    pub fn new(max_weight: usize) -> Self {
        // Directories are looked at most; of large files only the node being read is needed again.
        Self(Arc::new(Shelves {
            trees: Shelf::new(max_weight / 2),
            blobs: Shelf::new(max_weight / 8),
            chunks: Shelf::new(max_weight / 8 * 3),
        }))
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new(DEFAULT_WEIGHT)
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache")
    }
}

/// A tree node and its sums.
pub(super) struct Tree {
    pub(super) index: IndexedTree,
    totals: Totals,
    entries: u64,
}

/// A blob node and its sums.
pub(super) struct Blob {
    pub(super) index: IndexedBlob,
    bytes: u64,
    chunks: u64,
}

/// What the parent of a tree node said about it.
#[derive(Debug, Clone)]
pub(super) struct TreePromise {
    pub(super) tree: TreeId,
    totals: Totals,
    /// First name and number of entries: what a branch says of a child and a directory's entry does not.
    child: Option<(Name, u64)>,
    /// All names come before this one, the first of what follows in the directory.
    below: Option<Name>,
}

impl TreePromise {
    pub(super) fn of_directory(tree: TreeId, totals: Totals) -> Self {
        Self { tree, totals, child: None, below: None }
    }

    /// What this promise and the branch that keeps it say of one of the branch's children.
    pub(super) fn of_child(&self, branch: &[TreeChild], child: &TreeChild) -> Self {
        // The children of a branch are in order; `manifest` has checked that.
        let next = branch.get(branch.partition_point(|sibling| sibling.first <= child.first));
        let below = next.map(|next| next.first.clone()).or_else(|| self.below.clone());
        let (first, entries) = (child.first.clone(), child.entries);
        Self { tree: child.tree, totals: child.totals, child: Some((first, entries)), below }
    }

    fn is_kept_by(&self, tree: &Tree) -> bool {
        // The last name of a branch is in its last child, which is checked when it is come to.
        let (first, last) = match tree.index.node() {
            TreeNode::Leaf(entries) => (entries.first().map(|e| &e.name), entries.last().map(|e| &e.name)),
            TreeNode::Branch(children) => {
                (children.first().map(|c| &c.first), children.last().map(|c| &c.first))
            }
        };
        let child = self.child.as_ref();
        let in_order = self.below.as_ref().is_none_or(|below| last.is_none_or(|last| last < below));
        in_order
            && tree.totals == self.totals
            && child.is_none_or(|(name, entries)| tree.entries == *entries && first == Some(name))
    }
}

/// What the parent of a blob node said about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlobPromise {
    pub(super) blob: BlobId,
    pub(super) bytes: u64,
    pub(super) chunks: u64,
}

/// Gets the objects of one view.
pub(super) struct Nodes {
    fetcher: Fetcher,
    cache: Cache,
    /// What the objects below the snapshot are sealed with. The cache holds them opened.
    keys: Option<Arc<Keyring>>,
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nodes")
    }
}

impl Nodes {
    pub(super) fn new(fetcher: Fetcher, cache: Cache) -> Self {
        Self { fetcher, cache, keys: None }
    }

    /// Opens a snapshot, and from now on what is below it.
    pub(super) fn unseal(
        &mut self,
        id: SnapshotId,
        (sealed, inventory): (&Sealed, &TreeId),
        keys: Arc<Keyring>,
    ) -> Result<Snapshot, ViewError> {
        let opened = sealed::open_snapshot(&keys, inventory, &id.into(), &sealed.snapshot);
        let bytes = opened.map_err(|error| ViewError::unfit(id, error))?;
        let snapshot = Snapshot::decode(&bytes).map_err(ViewError::malformed(id))?;
        if snapshot.sealed.is_some() {
            return Err(ViewError::unfit(id, "it is encrypted twice"));
        }
        self.keys = Some(keys);
        Ok(snapshot)
    }

    pub(super) fn is_unsealing(&self) -> bool {
        self.keys.is_some()
    }

    /// Under which an object is found in the cache.
    fn key<T>(&self, id: T) -> Key<T> {
        (self.keys.as_ref().map(|keys| keys.first()), id)
    }

    /// What an object is stored and asked for as: what is sealed is a chunk, whatever it is.
    pub(super) fn stored(&self, id: impl Into<ObjectId>) -> ObjectId {
        let id = id.into();
        if self.is_unsealing() { ObjectId { kind: Kind::Chunk, hash: id.hash } } else { id }
    }

    pub(super) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    pub(super) async fn snapshot(&self, id: SnapshotId) -> Result<Snapshot, ViewError> {
        let bytes = self.fetched(id.into(), Class::Fault).await?;
        Snapshot::decode(&bytes).map_err(ViewError::malformed(id))
    }

    pub(super) async fn tree(&self, promise: &TreePromise, class: Class) -> Result<Arc<Tree>, ViewError> {
        let id = promise.tree;
        let tree = match get(&self.cache.0.trees, &self.key(id)) {
            Some(tree) => tree,
            None => {
                let bytes = self.plain(id.into(), class).await?;
                let node = TreeNode::decode(&bytes).map_err(ViewError::malformed(id))?;
                let totals = node.totals().map_err(ViewError::malformed(id))?;
                let (entries, weight) = (node.entries(), tree_weight(&node, bytes.len()));
                let index = IndexedTree::new(node);
                let weight = weight + index.weight();
                let tree = Arc::new(Tree { index, entries, totals });
                put(&self.cache.0.trees, self.key(id), Arc::clone(&tree), weight);
                tree
            }
        };
        let kept = promise.is_kept_by(&tree);
        if kept { Ok(tree) } else { Err(ViewError::unfit(id, "it is not what its directory says")) }
    }

    pub(super) async fn blob(&self, promise: BlobPromise, class: Class) -> Result<Arc<Blob>, ViewError> {
        let id = promise.blob;
        let blob = match get(&self.cache.0.blobs, &self.key(id)) {
            Some(blob) => blob,
            None => {
                let encoded = self.plain(id.into(), class).await?;
                let node = BlobNode::decode(&encoded).map_err(ViewError::malformed(id))?;
                let (bytes, chunks) = node.totals().map_err(ViewError::malformed(id))?;
                let weight = blob_weight(&node);
                let index = IndexedBlob::new(node);
                let weight = weight + index.weight();
                let blob = Arc::new(Blob { index, bytes, chunks });
                put(&self.cache.0.blobs, self.key(id), Arc::clone(&blob), weight);
                blob
            }
        };
        let kept = (blob.bytes, blob.chunks) == (promise.bytes, promise.chunks);
        if kept { Ok(blob) } else { Err(ViewError::unfit(id, "it is not what its file says")) }
    }

    /// The chunk `id`, which must be `len` bytes long. `again`: whether the rest of it is likely to be asked for.
    pub(super) async fn chunk(
        &self,
        id: ChunkId,
        len: u64,
        again: bool,
        class: Class,
    ) -> Result<Bytes, ViewError> {
        let chunk = match get(&self.cache.0.chunks, &self.key(id)) {
            Some(chunk) => chunk,
            None => {
                let chunk = self.plain(id.into(), class).await?;
                if again {
                    put(&self.cache.0.chunks, self.key(id), chunk.clone(), chunk.len());
                }
                chunk
            }
        };
        let fits = chunk.len() as u64 == len;
        if fits { Ok(chunk) } else { Err(ViewError::unfit(id, "it is not as long as its file says")) }
    }

    /// Brings a stored object here as `class`, so that whoever needs it next finds it. Whether it was not here.
    pub(super) async fn bring(&self, id: ObjectId, class: Class) -> Result<bool, FetchError> {
        if self.is_here(&id)? {
            return Ok(false);
        }
        self.fetcher.get(id, class).await?;
        Ok(true)
    }

    /// Whether a stored object is here; what has been decoded and kept in memory may not be.
    pub(super) fn is_here(&self, id: &ObjectId) -> Result<bool, FetchError> {
        Ok(self.fetcher.missing(std::slice::from_ref(id))?.is_empty())
    }

    /// The chunk `id` if it is here, with the proof that it was verified. Waits for the disk.
    pub(super) fn local_chunk(&self, id: ChunkId) -> Result<Option<Checked>, FetchError> {
        self.fetcher.local(&id.into())
    }

    async fn plain(&self, id: ObjectId, class: Class) -> Result<Bytes, ViewError> {
        let bytes = self.fetched(self.stored(id), class).await?;
        let Some(keys) = &self.keys else { return Ok(bytes) };
        sealed::open(keys, id.kind, &id, &bytes).map_err(|error| ViewError::unfit(id, error))
    }

    async fn fetched(&self, id: ObjectId, class: Class) -> Result<Bytes, ViewError> {
        // What the disk cannot give, `get` gets from others, and says what is wrong with the disk if they fail too.
        if mounted::may_block()
            && let Ok(Some(here)) = self.fetcher.local_to_read(&id)
        {
            return Ok(here.plain().clone());
        }
        Ok(self.fetcher.get(id, class).await?.plain().clone())
    }
}

fn tree_weight(node: &TreeNode, encoded: usize) -> usize {
    // Names, targets and attributes are about as long as they were encoded; the rest is the structs.
    let structs = match node {
        TreeNode::Leaf(entries) => {
            let xattrs = entries.iter().filter_map(|entry| entry.node.meta()).map(|meta| meta.xattrs.len());
            size_of_val(entries.as_slice()) + xattrs.sum::<usize>() * size_of::<Xattr>()
        }
        TreeNode::Branch(children) => size_of_val(children.as_slice()),
    };
    structs + encoded
}

fn blob_weight(node: &BlobNode) -> usize {
    match node {
        BlobNode::Leaf(extents) => size_of_val(extents.as_slice()),
        BlobNode::Branch(children) => size_of_val(children.as_slice()),
    }
}

impl Blob {
    /// Bytes in and below it.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Tree {
    /// The entries, if it is a leaf.
    pub(super) fn leaf(&self) -> &[Entry] {
        match self.index.node() {
            TreeNode::Leaf(entries) => entries,
            TreeNode::Branch(_) => &[],
        }
    }

    /// The children, if it is a branch.
    pub(super) fn branch(&self) -> &[TreeChild] {
        match self.index.node() {
            TreeNode::Branch(children) => children,
            TreeNode::Leaf(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_never_weighs_too_much_and_keeps_what_is_used() {
        let shelf = Shelf::new(10 * (100 + OVERHEAD));
        for key in 0..100u32 {
            put(&shelf, key, (), 100);
            assert_eq!(get(&shelf, &0), Some(()), "used all the time");
            assert!(shelf.lock().unwrap().weight <= 10 * (100 + OVERHEAD));
        }
        assert_eq!(shelf.lock().unwrap().values.len(), 10);
        put(&shelf, 0, (), 5);
        put(&shelf, 200, (), 1 << 20);
        assert_eq!((get(&shelf, &200), shelf.lock().unwrap().weight), (None, 0), "too heavy for any shelf");
    }
}
