//! Extended attributes: those of the snapshot, and those by which bcai tells about a file.
//!
//! Owns: the names and values of `user.bcai.*`.
//! Must not know: how attributes are asked for.
//! Invariant: the attributes of bcai can be read but are never listed, so that a copy or a comparison of files with
//! their attributes sees those of the snapshot and nothing else.
//! Trust, threads: those of `view`.

use super::{View, ViewError};
use crate::manifest::Node;

/// All names that bcai answers itself begin so.
const OWN: &[u8] = b"user.bcai.";

impl View {
    /// The value of the extended attribute `name` of `ino`. Besides those of the snapshot there are
    /// `user.bcai.hash` (of a file, as `b3sum` prints it; of a directory its tree id), `user.bcai.chunks` (its
    /// number of chunks), `user.bcai.snapshot`, and if the view was opened as a version `user.bcai.version` and
    /// `user.bcai.height`.
    pub async fn xattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>, ViewError> {
        let node = self.inode(ino).await?.node;
        if let Some(own) = name.strip_prefix(OWN) {
            return self.own_xattr(&node, own).map(String::into_bytes).ok_or(ViewError::NoXattr);
        }
        let stored = node.meta().and_then(|meta| {
            let place = meta.xattrs.binary_search_by(|xattr| xattr.name.as_slice().cmp(name)).ok()?;
            Some(meta.xattrs[place].value.clone())
        });
        stored.ok_or(ViewError::NoXattr)
    }

    /// The names of the extended attributes that the snapshot has for `ino`.
    pub async fn list_xattrs(&self, ino: u64) -> Result<Vec<Vec<u8>>, ViewError> {
        let node = self.inode(ino).await?.node;
        let xattrs = node.meta().map(|meta| meta.xattrs.as_slice()).unwrap_or_default();
        // One that was copied along with a file from another mount is not this file's.
        let names = xattrs.iter().map(|xattr| &xattr.name).filter(|name| !name.starts_with(OWN));
        Ok(names.cloned().collect())
    }

    fn own_xattr(&self, node: &Node, name: &[u8]) -> Option<String> {
        let version = self.options.version.as_ref();
        match name {
            b"hash" => match node {
                Node::File { content, .. } => Some(content.file_hash().to_string()),
                Node::Dir { tree, .. } => Some(tree.to_string()),
                Node::Symlink { .. } | Node::Link { .. } => None,
            },
            b"chunks" => match node {
                Node::File { content, .. } => Some(content.chunks().to_string()),
                Node::Dir { totals, .. } => Some(totals.chunks.to_string()),
                Node::Symlink { .. } | Node::Link { .. } => None,
            },
            b"snapshot" => Some(self.id.to_string()),
            b"version" => version.map(|version| version.name.clone()),
            b"height" => version.map(|version| version.height.to_string()),
            _ => None,
        }
    }
}
