//! From an object to those that it refers to.
//!
//! Owns: which field of which object is a reference. Must not know: why somebody follows them.
//! Invariant: who follows all references from a snapshot meets all of its objects, as they are stored: those of an
//! encrypted one by its inventory, without a key.
//! Trust: objects were verified; what they say is foreign, and bounded by their own length. Threads: pure functions.

use super::error::Error;
use crate::id::{Kind, ObjectId};
use crate::manifest::{BlobNode, Content, Entry, Node as Inode, Snapshot, TreeNode};
use crate::pack::Checked;

/// What an object refers to, in its order; a chunk refers to nothing.
pub(super) fn below(object: &Checked) -> Result<Vec<ObjectId>, Error> {
    let plain = object.plain();
    Ok(match object.id().kind {
        Kind::Chunk => Vec::new(),
        Kind::Snapshot => vec![Snapshot::decode(plain)?.tree.into()],
        Kind::Tree => match TreeNode::decode(plain)? {
            TreeNode::Leaf(entries) => entries.iter().filter_map(content).collect(),
            TreeNode::Branch(children) => children.iter().map(|child| child.tree.into()).collect(),
        },
        Kind::Blob => match BlobNode::decode(plain)? {
            BlobNode::Leaf(extents) => {
                extents.iter().filter_map(|extent| Some(extent.chunk?.into())).collect()
            }
            BlobNode::Branch(children) => children.iter().map(|child| child.blob.into()).collect(),
        },
    })
}

/// What an entry's content hangs on.
fn content(entry: &Entry) -> Option<ObjectId> {
    match &entry.node {
        Inode::Dir { tree, .. } => Some((*tree).into()),
        Inode::File { content: Content::Chunk { id, .. }, .. } => Some((*id).into()),
        Inode::File { content: Content::Blob { id, .. }, .. } => Some((*id).into()),
        Inode::File { content: Content::Empty, .. } | Inode::Symlink { .. } | Inode::Link { .. } => None,
    }
}
