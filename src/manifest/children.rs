//! What an object refers to, whatever it is of: for those who follow a whole snapshot and read none of it.
//!
//! Owns: that list and its order. Must not know: where objects are.
//! Invariant: every object that a reader of the whole snapshot needs is named by one that comes before it, in the order of the
//! walk.
//! Trust: the bytes are anyone's; decoding is checked and bounded, so a list has 1,024 items at most.
//! Threads: pure functions.

use super::{BlobNode, Content, Entry, ManifestError, Node, Snapshot, TreeNode};
use crate::id::{Kind, ObjectId};

/// An object that another one refers to, and the bytes of files that are in it: 0 of a node.
pub type Child = (ObjectId, u64);

/// The objects that the plain bytes of an object of this kind refer to, in the order of the walk.
pub fn children(kind: Kind, plain: &[u8]) -> Result<Vec<Child>, ManifestError> {
    Ok(match kind {
        Kind::Chunk => Vec::new(),
        Kind::Snapshot => vec![(Snapshot::decode(plain)?.tree.into(), 0)],
        Kind::Tree => match TreeNode::decode(plain)? {
            TreeNode::Leaf(entries) => entries.iter().filter_map(content).collect(),
            TreeNode::Branch(children) => children.iter().map(|child| (child.tree.into(), 0)).collect(),
        },
        Kind::Blob => match BlobNode::decode(plain)? {
            BlobNode::Leaf(extents) => {
                extents.iter().filter_map(|extent| Some((extent.chunk?.into(), extent.len))).collect()
            }
            BlobNode::Branch(children) => children.iter().map(|child| (child.blob.into(), 0)).collect(),
        },
    })
}

/// What an entry's content hangs on.
fn content(entry: &Entry) -> Option<Child> {
    match &entry.node {
        Node::Dir { tree, .. } => Some(((*tree).into(), 0)),
        Node::File { content: Content::Chunk { id, .. }, size, .. } => Some(((*id).into(), *size)),
        Node::File { content: Content::Blob { id, .. }, .. } => Some(((*id).into(), 0)),
        Node::File { content: Content::Empty, .. } | Node::Symlink { .. } | Node::Link { .. } => None,
    }
}
