//! What of an encrypted snapshot everybody may know: which objects there are, and how long.
//!
//! Owns: the order in which they are told, and the snapshot that tells them.
//! Must not know: how objects are sealed.
//! Invariant: depends on the sequence of objects alone; one added or removed changes only the nodes near it and those above.
//! Trust: objects are our own. Threads: pure values; finished nodes go to a closure of the caller.

use super::{
    BlobBuilder, Content, Entry, Extent, ManifestError, Meta, Name, Node, Sealed, Snapshot, TreeBuilder,
};
use crate::chunking::Chunking;
use crate::id::{ChunkId, FileHash, ID_LEN, Kind, TreeId};

/// The name of the one file that an encrypted snapshot shows to those who have no key.
const SEALED_NAME: &[u8] = b"sealed";

/// The objects of an encrypted snapshot, as everybody may know them: a file that would consist of all of them, one behind the
/// other. So nodes without a key find them by the same rules as those of any other snapshot.
///
/// They are told in the order of the walk, in which neighbours stay neighbours from version to version. Which of them is what is
/// not to be seen from their order: runs of them are sorted.
pub struct Inventory {
    blob: BlobBuilder,
    run: Vec<Extent>,
    objects: Extents,
}

/// How many, and their bytes.
#[derive(Default)]
struct Extents {
    count: u64,
    bytes: u64,
}

/// A run ends after an object with which it has this many, and the last byte of whose id is 0; or which is the last of so many.
const RUN: (usize, usize) = (64, 4096);

impl Inventory {
    /// Of nothing so far.
    #[expect(clippy::new_without_default, reason = "there is no default snapshot")]
    pub fn new() -> Self {
        Self { blob: BlobBuilder::new(), run: Vec::new(), objects: Extents::default() }
    }

    /// Adds the next object, of `len` sealed bytes. Finished nodes go to `sink`, which returns the hash by which each is found.
    pub fn push<E, S>(&mut self, id: ChunkId, len: u64, sink: &mut S) -> Result<(), E>
    where
        E: From<ManifestError>,
        S: FnMut(Kind, Vec<u8>) -> Result<[u8; ID_LEN], E>,
    {
        self.run.push(Extent { len, chunk: Some(id) });
        let marked = id.as_bytes()[ID_LEN - 1] == 0;
        let ends = (marked && self.run.len() >= RUN.0) || self.run.len() >= RUN.1;
        if ends { self.end_run(sink) } else { Ok(()) }
    }

    fn end_run<E, S>(&mut self, sink: &mut S) -> Result<(), E>
    where
        E: From<ManifestError>,
        S: FnMut(Kind, Vec<u8>) -> Result<[u8; ID_LEN], E>,
    {
        let mut run = std::mem::take(&mut self.run);
        run.sort_by_key(|extent| extent.chunk);
        run.dedup();
        for extent in run {
            self.objects.count += 1;
            self.objects.bytes += extent.len;
            self.blob.push(extent, sink)?;
        }
        Ok(())
    }

    /// The snapshot that everybody may see. `seal` is given the tree of the inventory, which what it seals is to go with.
    pub fn finish<E, S>(
        mut self,
        seal: impl FnOnce(&TreeId) -> Result<Sealed, E>,
        sink: &mut S,
    ) -> Result<Snapshot, E>
    where
        E: From<ManifestError>,
        S: FnMut(Kind, Vec<u8>) -> Result<[u8; ID_LEN], E>,
    {
        self.end_run(sink)?;
        let root = self.blob.finish(sink)?;
        let Extents { count, bytes } = self.objects;
        // Nobody reads it as a file, so nobody needs its hash, which would cost reading all of it.
        let hash = FileHash::from_bytes([0; ID_LEN]);
        let content = Content::Blob { id: root.blob, chunks: count, hash };
        let node = Node::File { meta: Meta::default(), nlink: 1, size: bytes, content };
        let mut directory = TreeBuilder::new();
        directory.push(Entry { name: Name::new(SEALED_NAME)?, node }, sink)?;
        let (tree, totals) = directory.finish(sink)?;
        let sealed = Some(seal(&tree)?);
        Ok(Snapshot { root: Meta::default(), tree, totals, chunking: Chunking::default(), sealed })
    }
}
