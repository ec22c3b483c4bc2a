//! The chunk at a place in the order of a walk, which is what storage nodes are asked for.
//!
//! Owns: the descent by sums of chunks. Must not know: why somebody wants to know.
//! Invariant: places count every chunk of every file in the order of positions, each occurrence on its own and holes not
//! at all; a hard link counts with its first name.
//! Trust: that of `view`: nodes keep the promises of their parents, and a descent is bounded in depth.
//! Threads: that of `view`.

use super::nodes::{BlobPromise, TreePromise};
use super::{View, ViewError};
use crate::fetch::Class;
use crate::id::ChunkId;
use crate::manifest::{BlobNode, Content, Entry, MAX_DEPTH, MAX_LEVELS, Node, TreeNode};

/// How many chunks an entry stands for.
fn chunks(entry: &Entry) -> u64 {
    match &entry.node {
        Node::File { content, .. } => content.chunks(),
        Node::Dir { totals, .. } => totals.chunks,
        _ => 0,
    }
}

/// The first of `items` in which the place is, and the place in it.
fn pick<T>(items: &[T], mut place: u64, count: impl Fn(&T) -> u64) -> Option<(&T, u64)> {
    items.iter().find_map(|item| match place.checked_sub(count(item)) {
        None => Some((item, place)),
        Some(rest) => {
            place = rest;
            None
        }
    })
}

impl View {
    /// The chunk at `place`, counted from 0; none if there are not so many. Nodes that are not here are fetched.
    pub async fn nth_chunk(&self, mut place: u64) -> Result<Option<ChunkId>, ViewError> {
        let mut promise = TreePromise::of_directory(self.snapshot.tree, self.snapshot.totals);
        for _ in 0..=MAX_DEPTH * MAX_LEVELS {
            let tree = self.nodes.tree(&promise, Class::Prefetch).await?;
            promise = match tree.index.node() {
                TreeNode::Branch(children) => {
                    let Some((child, rest)) = pick(children, place, |child| child.totals.chunks) else {
                        return Ok(None);
                    };
                    place = rest;
                    promise.of_child(children, child)
                }
                TreeNode::Leaf(entries) => {
                    let Some((entry, rest)) = pick(entries, place, chunks) else { return Ok(None) };
                    place = rest;
                    match &entry.node {
                        Node::Dir { tree, totals, .. } => TreePromise::of_directory(*tree, *totals),
                        Node::File { size, content, .. } => {
                            return self.nth_of_file(*size, content, place).await;
                        }
                        _ => return Ok(None),
                    }
                }
            };
        }
        Err(ViewError::unfit(self.id, format!("its directories are deeper than {MAX_DEPTH}")))
    }

    async fn nth_of_file(
        &self,
        bytes: u64,
        content: &Content,
        mut place: u64,
    ) -> Result<Option<ChunkId>, ViewError> {
        let mut promise = match *content {
            Content::Empty => return Ok(None),
            Content::Chunk { id, .. } => return Ok(Some(id)),
            Content::Blob { id, chunks, .. } => BlobPromise { blob: id, bytes, chunks },
        };
        for _ in 0..=MAX_LEVELS {
            let blob = self.nodes.blob(promise, Class::Prefetch).await?;
            promise = match blob.index.node() {
                BlobNode::Leaf(extents) => {
                    let mut found = extents.iter().filter_map(|extent| extent.chunk);
                    return Ok(found.nth(usize::try_from(place).unwrap_or(usize::MAX)));
                }
                BlobNode::Branch(children) => {
                    let Some((child, rest)) = pick(children, place, |child| child.chunks) else {
                        return Ok(None);
                    };
                    place = rest;
                    BlobPromise { blob: child.blob, bytes: child.bytes, chunks: child.chunks }
                }
            };
        }
        Err(ViewError::unfit(promise.blob, format!("its nodes are deeper than {MAX_LEVELS}")))
    }
}
