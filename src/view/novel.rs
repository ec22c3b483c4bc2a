//! What of the files that differ is new: the chunks that those of the other side do not have.
//!
//! Owns: the walk over the blobs of two contents at once, and the memory of chunks.
//! Must not know: which files are compared. Invariant: nothing below two blob nodes with one id is read. Memory: a few bytes
//! for each chunk up to a limit, and a promise for each blob node that differs.
//! Trust, threads: those of `view`.

use std::collections::HashSet;

use super::diff::CLASS;
use super::nodes::BlobPromise;
use super::{View, ViewError};
use crate::id::{BlobId, ChunkId};
use crate::manifest::{BlobNode, Content, MAX_LEVELS, Node};

/// Most chunks that are remembered: those of 64 GiB, cut as usual.
const MAX_CHUNKS: usize = 1 << 20;

/// Chunks that were met, and how much came that had not been.
#[derive(Debug, Default)]
pub struct Novel {
    /// Half of each id: a statistic can do without the rest.
    known: HashSet<[u8; 16]>,
    /// Chunks that were not known, and their bytes.
    pub chunks: u64,
    pub bytes: u64,
    /// There were more than are remembered, so that some are counted though they were known.
    pub overflowed: bool,
}

impl Novel {
    /// Remembers the chunks that a file had, but for those that it still has in the same blob nodes.
    pub async fn remember_all(
        &mut self,
        view: &View,
        before: Option<&Node>,
        after: Option<&Node>,
    ) -> Result<(), ViewError> {
        only(view, before, after, |id, _| _ = self.remember(id)).await
    }

    /// Counts the chunks of a file that are not remembered.
    pub async fn count(
        &mut self,
        view: &View,
        before: Option<&Node>,
        after: Option<&Node>,
    ) -> Result<(), ViewError> {
        only(view, after, before, |id, len| {
            if self.remember(id) {
                self.chunks += 1;
                self.bytes = self.bytes.saturating_add(len);
            }
        })
        .await
    }

    /// Whether it was not known.
    fn remember(&mut self, id: ChunkId) -> bool {
        let mut half = [0; 16];
        half.copy_from_slice(&id.as_bytes()[..16]);
        if self.known.len() >= MAX_CHUNKS && !self.known.contains(&half) {
            self.overflowed = true;
            return true;
        }
        self.known.insert(half)
    }
}

/// The content of a file that consists of blob nodes; of one that is a single chunk, that chunk.
fn parts(node: Option<&Node>) -> (Vec<BlobPromise>, Option<(ChunkId, u64)>) {
    match node {
        Some(Node::File { size, content: Content::Blob { id, chunks, .. }, .. }) => {
            (vec![BlobPromise { blob: *id, bytes: *size, chunks: *chunks }], None)
        }
        Some(Node::File { size, content: Content::Chunk { id, .. }, .. }) => (Vec::new(), Some((*id, *size))),
        _ => (Vec::new(), None),
    }
}

/// Shows the chunks of `mine` to `see`, without those below blob nodes that `theirs` has at the same level.
async fn only(
    view: &View,
    mine: Option<&Node>,
    theirs: Option<&Node>,
    mut see: impl FnMut(ChunkId, u64),
) -> Result<(), ViewError> {
    let ((mut mine, chunk), (mut theirs, _)) = (parts(mine), parts(theirs));
    if let Some((id, len)) = chunk {
        see(id, len);
    }
    let mut level = 0;
    while let Some(first) = mine.first() {
        if level > MAX_LEVELS {
            return Err(ViewError::unfit(first.blob, format!("its nodes are deeper than {MAX_LEVELS}")));
        }
        level += 1;
        let has = |promises: &[BlobPromise]| {
            promises.iter().map(|promise| promise.blob).collect::<HashSet<BlobId>>()
        };
        let (in_mine, in_theirs) = (has(&mine), has(&theirs));
        mine.retain(|promise| !in_theirs.contains(&promise.blob));
        theirs.retain(|promise| !in_mine.contains(&promise.blob));
        theirs = below(view, &theirs, |_, _| {}).await?;
        mine = below(view, &mine, &mut see).await?;
    }
    Ok(())
}

/// The children of these nodes; chunks in them are shown to `see`.
async fn below(
    view: &View,
    promises: &[BlobPromise],
    mut see: impl FnMut(ChunkId, u64),
) -> Result<Vec<BlobPromise>, ViewError> {
    let mut children = Vec::new();
    for promise in promises {
        let blob = view.nodes.blob(*promise, CLASS).await?;
        match blob.index.node() {
            BlobNode::Leaf(extents) => {
                extents
                    .iter()
                    .filter_map(|extent| Some((extent.chunk?, extent.len)))
                    .for_each(|(id, len)| see(id, len));
            }
            BlobNode::Branch(nodes) => children.extend(nodes.iter().map(|child| BlobPromise {
                blob: child.blob,
                bytes: child.bytes,
                chunks: child.chunks,
            })),
        }
    }
    Ok(children)
}
