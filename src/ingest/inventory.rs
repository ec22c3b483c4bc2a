//! An encrypted snapshot as everybody may see it: what is sealed in it, beside the list of its objects.
//!
//! Owns: the walk over what was just put into the store. Must not know: how objects are sealed.
//! Invariant: every object that the snapshot leads to is told, those of unchanged files too.
//! Trust: the objects are our own, and verified like all that the store gives. Threads: runs on the caller's thread, after all others.
//! Memory: one node on each level on the way down, and a run of the inventory.
//! A crash leaves objects that no snapshot refers to.
//!
//! Unchanged files are not read, so that nobody but this walk meets their chunks. It costs the reading of the tree and blob nodes, and
//! a look-up for each object.

use bytes::Bytes;

use crate::crypto::dataset::Keyring;
use crate::id::{BlobId, ChunkId, ID_LEN, Kind, ObjectId, TreeId};
use crate::manifest::{BlobNode, Content, Inventory, Node, Sealed, Snapshot, TreeNode};
use crate::pack::sealed::{self, Plain};
use crate::pack::{Checked, Compression};
use crate::store::{Keep, Store};

use super::outbox::Stored;
use super::{IngestError, Progress};

/// Nodes that are put into the store at a time.
const BATCH: usize = 64;

/// What an object of an encrypted snapshot is stored as: a chunk, whatever it is.
pub(super) fn stored(keys: Option<&Keyring>, id: ObjectId) -> ObjectId {
    match keys {
        Some(_) => ObjectId { kind: Kind::Chunk, hash: id.hash },
        None => id,
    }
}

/// Seals `snapshot`, whose objects are all in the store, and returns what everybody may see of it.
pub(super) fn seal(
    store: &Store,
    keys: &Keyring,
    snapshot: &Snapshot,
    progress: &Progress,
    put: &mut Stored,
) -> Result<Snapshot, IngestError> {
    let mut out = Out { store, put, batch: Vec::new() };
    let mut walk = Walk { store, keys, progress, inventory: Inventory::new() };
    walk.tree(snapshot.tree.as_bytes(), &mut out)?;
    let too_long = || IngestError::TooLongToSeal(snapshot.chunking);
    let plain =
        Plain::new(Kind::Snapshot, &snapshot.encode().into(), Compression::None).ok_or_else(too_long)?;
    let generation = keys.generation();
    let seal = |inventory: &TreeId| {
        let sealed = plain.seal_with(keys, generation, inventory).ok_or_else(too_long)?;
        Ok::<_, IngestError>(Sealed { key: keys.key().id(), generation, snapshot: sealed.to_vec().into() })
    };
    let shown = walk.inventory.finish(seal, &mut |kind, bytes| out.node(kind, bytes))?;
    out.flush()?;
    Ok(shown)
}

/// Where the nodes of the inventory go.
struct Out<'a> {
    store: &'a Store,
    put: &'a mut Stored,
    batch: Vec<Checked>,
}

impl Out<'_> {
    fn node(&mut self, kind: Kind, bytes: Vec<u8>) -> Result<[u8; ID_LEN], IngestError> {
        // Hashes and lengths, which do not shrink.
        let node = Checked::pack(kind, bytes.into(), Compression::None);
        let hash = node.id().hash;
        self.batch.push(node);
        if self.batch.len() >= BATCH {
            self.flush()?;
        }
        Ok(hash)
    }

    fn flush(&mut self) -> Result<(), IngestError> {
        let put = self.store.put(&std::mem::take(&mut self.batch), Keep::Published)?;
        self.put.objects += put.objects;
        self.put.bytes += put.stored_bytes;
        Ok(())
    }
}

struct Walk<'a> {
    store: &'a Store,
    keys: &'a Keyring,
    progress: &'a Progress,
    inventory: Inventory,
}

impl Walk<'_> {
    /// A tree node and all below it.
    fn tree(&mut self, hash: &[u8; ID_LEN], out: &mut Out<'_>) -> Result<(), IngestError> {
        let node = TreeNode::decode(&self.open(Kind::Tree, *hash, out)?)?;
        match node {
            TreeNode::Branch(children) => {
                children.iter().try_for_each(|child| self.tree(child.tree.as_bytes(), out))
            }
            TreeNode::Leaf(entries) => {
                // The chunks between two nodes are looked up together.
                let mut chunks = Vec::new();
                for entry in &entries {
                    match &entry.node {
                        Node::File { content: Content::Chunk { id, .. }, .. } => chunks.push(*id),
                        Node::File { content: Content::Blob { id, .. }, .. } => {
                            self.chunks(&std::mem::take(&mut chunks), out)?;
                            self.blob(*id, out)?;
                        }
                        Node::Dir { tree, .. } => {
                            self.chunks(&std::mem::take(&mut chunks), out)?;
                            self.tree(tree.as_bytes(), out)?;
                        }
                        Node::File { content: Content::Empty, .. }
                        | Node::Symlink { .. }
                        | Node::Link { .. } => {}
                    }
                }
                self.chunks(&chunks, out)
            }
        }
    }

    fn blob(&mut self, id: BlobId, out: &mut Out<'_>) -> Result<(), IngestError> {
        match BlobNode::decode(&self.open(Kind::Blob, *id.as_bytes(), out)?)? {
            BlobNode::Branch(children) => children.iter().try_for_each(|child| self.blob(child.blob, out)),
            BlobNode::Leaf(extents) => {
                let chunks: Vec<ChunkId> = extents.iter().filter_map(|extent| extent.chunk).collect();
                self.chunks(&chunks, out)
            }
        }
    }

    /// Tells of chunks, which are not read.
    fn chunks(&mut self, ids: &[ChunkId], out: &mut Out<'_>) -> Result<(), IngestError> {
        let objects: Vec<ObjectId> = ids.iter().map(|id| (*id).into()).collect();
        for (id, len) in ids.iter().zip(self.store.stored_lens(&objects)?) {
            // What is sealed is stored as it is: its stored length is its length.
            let len = len.ok_or(IngestError::Lost((*id).into()))?;
            self.inventory.push(*id, len.into(), &mut |kind, bytes| out.node(kind, bytes))?;
        }
        Ok(())
    }

    /// Tells of a node, and opens it.
    fn open(&mut self, kind: Kind, hash: [u8; ID_LEN], out: &mut Out<'_>) -> Result<Bytes, IngestError> {
        self.progress.check()?;
        let id = ObjectId { kind: Kind::Chunk, hash };
        let packed = self.store.get(&id)?.ok_or(IngestError::Lost(id))?;
        let object = packed.verify(&id)?;
        let len = object.plain().len() as u64;
        self.inventory.push(ChunkId::from_bytes(hash), len, &mut |kind, bytes| out.node(kind, bytes))?;
        Ok(sealed::open(self.keys, kind, &id, object.plain())?)
    }
}
