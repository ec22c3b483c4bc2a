//! What a snapshot is made of: snapshot, tree and blob objects, as data.
//!
//! Owns: the types and encoding of these objects, every rule that makes one valid, how long directories and
//! files are split into nodes, and the arithmetic of positions and byte offsets inside one node.
//! Must not know: where objects are stored or fetched from, file systems, threads.
//! Invariant: what `decode` accepts is what `encode` writes, byte for byte, and obeys every rule below; one
//! directory or file has exactly one division into nodes.
//! Trust: `decode` takes bytes from anyone. That an object's children keep its promises (totals, order across
//! nodes, a `Link` that points at a file) can only be seen when they are read: readers must check it there.
//! Threads: pure functions and values.
//!
//! An object is `[version, body]` in canonical CBOR. All structs are arrays in field order, all enums arrays
//! that start with the number of the variant.
//!
//! An inode number is a position. The root directory has position 1; the entries of the directory at position
//! `p` start at `p + 1`; each entry that is not a [`Node::Link`] takes one position, plus its `totals.inodes`
//! if it is a directory; a `Link` takes none and has the number it names.

mod blob;
mod children;
mod entry;
mod inventory;
mod lookup;
mod snapshot;
mod split;
#[cfg(test)]
mod tests;
mod tree;

use minicbor::{Decode, Decoder, Encode};

pub use self::blob::{BlobBuilder, BlobChild, BlobNode, BlobStep, Extent};
pub use self::children::{Child, children};
pub use self::entry::{Content, Entry, Meta, Name, Node, Xattr};
pub use self::inventory::Inventory;
pub use self::lookup::{IndexedBlob, IndexedTree};
pub use self::snapshot::{Sealed, Snapshot};
pub use self::tree::{TreeBuilder, TreeChild, TreeNode, TreeStep};
use crate::codec::{self, CodecError};

/// The version that every object carries as its first field, but for the snapshot objects of encrypted datasets.
pub const FORMAT_VERSION: u32 = 1;
/// That of those.
pub const SEALED_VERSION: u32 = 2;
/// Longest encoding of a tree or blob node, in bytes.
pub const MAX_NODE_LEN: usize = 1 << 20;
/// Longest encoding of a snapshot object, in bytes.
pub const MAX_SNAPSHOT_LEN: usize = 128 << 10;
/// Most entries, extents or children in one node.
pub const MAX_NODE_ITEMS: u64 = 1024;
/// Most levels of nodes, leaf included, under one directory or file. The builders need four for 10^9 entries.
pub const MAX_LEVELS: usize = 12;
/// Longest path, in directories below the root.
pub const MAX_DEPTH: usize = 255;
/// Longest symlink target, in bytes (Linux's `PATH_MAX` without its NUL).
pub const MAX_TARGET_LEN: usize = 4095;
/// Most bytes of extended attributes on one inode: names and values, and 8 for each attribute.
pub const MAX_XATTRS_LEN: usize = 64 << 10;
/// Largest file, total of bytes, and number of inodes or chunks: what a signed 64-bit offset can say.
pub const MAX_TOTAL: u64 = i64::MAX as u64;

/// Why an object was refused. Corruption or a newer format; never worth a retry of the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("{what} has format version {found}, which this program does not know: a newer bcai wrote it")]
    Version { what: &'static str, found: u32 },
    #[error("{what} breaks a rule of the format: {rule}")]
    Rule { what: &'static str, rule: &'static str },
}

/// `Ok` if `holds`, else the named rule as an error.
fn require(holds: bool, what: &'static str, rule: &'static str) -> Result<(), ManifestError> {
    if holds { Ok(()) } else { Err(ManifestError::Rule { what, rule }) }
}

#[derive(Encode, Decode)]
struct Versioned<T> {
    #[n(0)]
    version: u32,
    #[n(1)]
    body: T,
}

fn encode_object<T: Encode<()>>(version: u32, body: &T) -> Vec<u8> {
    codec::encode(&Versioned { version, body })
}

fn decode_node<T>(what: &'static str, bytes: &[u8]) -> Result<T, ManifestError>
where
    T: for<'b> Decode<'b, ()> + Encode<()>,
{
    Ok(decode_object(what, bytes, MAX_NODE_LEN, &[FORMAT_VERSION])?.1)
}

/// The object with its version, which is one of those known.
fn decode_object<T>(
    what: &'static str,
    bytes: &[u8],
    max: usize,
    known: &[u32],
) -> Result<(u32, T), ManifestError>
where
    T: for<'b> Decode<'b, ()> + Encode<()>,
{
    // Read on its own first: the body of another version would only look malformed.
    let mut peek = Decoder::new(bytes);
    if let (Ok(Some(2)), Ok(found)) = (peek.array(), peek.u32())
        && !known.contains(&found)
    {
        return Err(ManifestError::Version { what, found });
    }
    let Versioned { version, body } = codec::decode(what, bytes, max)?;
    if known.contains(&version) {
        Ok((version, body))
    } else {
        Err(ManifestError::Version { what, found: version })
    }
}

/// Decodes an array of at most `MAX_NODE_ITEMS`, so that a node cannot expand to many times its encoding.
fn decode_items<'b, Ctx, T: Decode<'b, Ctx>>(
    d: &mut Decoder<'b>,
    ctx: &mut Ctx,
) -> Result<Vec<T>, minicbor::decode::Error> {
    let count = d.array()?.filter(|count| *count <= MAX_NODE_ITEMS);
    let count = count.ok_or_else(|| minicbor::decode::Error::message("more items than a node holds"))?;
    (0..count).map(|_| d.decode_with(ctx)).collect()
}

/// What a directory, node or snapshot holds: sums that are added up the tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Totals {
    /// Directories, files and symlinks. A hard link counts once, where it is first met.
    #[n(0)]
    pub inodes: u64,
    /// Chunks of all files, repeated ones as often as they occur.
    #[n(1)]
    pub chunks: u64,
    /// Sizes of all files, holes included.
    #[n(2)]
    pub bytes: u64,
}

impl Totals {
    /// The sum, or `None` if a member exceeds [`MAX_TOTAL`].
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let add = |a: u64, b: u64| a.checked_add(b).filter(|sum| *sum <= MAX_TOTAL);
        Some(Self {
            inodes: add(self.inodes, other.inodes)?,
            chunks: add(self.chunks, other.chunks)?,
            bytes: add(self.bytes, other.bytes)?,
        })
    }

    fn sum(what: &'static str, parts: impl Iterator<Item = Option<Self>>) -> Result<Self, ManifestError> {
        let sum = parts.into_iter().try_fold(Self::default(), |sum, part| sum.checked_add(part?));
        sum.ok_or(ManifestError::Rule { what, rule: "totals stay below 2^63" })
    }
}
