//! Blob nodes: the extents of one file.
//!
//! Owns: `BlobNode`, its rules, `BlobBuilder`.
//! Must not know: how the other nodes of the file, or its chunks, are got.
//! Invariant, trust, threads: those of `manifest`.

use minicbor::{Decode, Encode};

use super::split::{Part, SplitNode, Splitter};
use super::{FORMAT_VERSION, MAX_TOTAL, ManifestError, decode_items, decode_node, encode_object, require};
use crate::chunking::MAX_CHUNK_LEN;
use crate::id::{BlobId, ChunkId, ID_LEN, Kind};

const WHAT: &str = "a blob node";
/// More than the encoding of an `Extent` or a `BlobChild`.
const PART_WEIGHT: usize = 64;

/// A run of a file's extents, or the nodes that hold them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum BlobNode {
    /// At least one extent. Two holes are never neighbours.
    #[n(0)]
    Leaf(#[cbor(n(0), decode_with = "decode_items")] Vec<Extent>),
    /// At least two children.
    #[n(1)]
    Branch(#[cbor(n(0), decode_with = "decode_items")] Vec<BlobChild>),
}

/// A piece of a file: a chunk of `len` bytes, or a hole that reads as `len` zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Extent {
    /// At least 1; at most 4 MiB for a chunk.
    #[n(0)]
    pub len: u64,
    /// `None`: a hole.
    #[n(1)]
    pub chunk: Option<ChunkId>,
}

/// A blob node as its parent describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct BlobChild {
    #[n(0)]
    pub blob: BlobId,
    /// Length of all extents in and below it; at least 1.
    #[n(1)]
    pub bytes: u64,
    /// Number of them that are not holes.
    #[n(2)]
    pub chunks: u64,
}

/// Where in a node the way to a byte leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobStep<'a> {
    /// The extent that holds it; `start` bytes of the node come before the extent.
    Extent { extent: &'a Extent, start: u64 },
    /// A child to go on in; `start` bytes of the node come before the child.
    Child { child: &'a BlobChild, start: u64 },
}

impl BlobNode {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        encode_object(FORMAT_VERSION, self)
    }

    /// Decodes and checks a node. Everything that the node alone can show is checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let node: Self = decode_node(WHAT, bytes)?;
        node.check()?;
        Ok(node)
    }

    /// The node's id.
    pub fn id(&self) -> BlobId {
        BlobId::of(&self.encode())
    }

    /// Bytes and chunks in and below the node. A reader compares them with what the node's parent promised.
    pub fn totals(&self) -> Result<(u64, u64), ManifestError> {
        let add = |(bytes, chunks): (u64, u64), more: (u64, u64)| {
            let bytes = bytes.checked_add(more.0).filter(|sum| *sum <= MAX_TOTAL)?;
            Some((bytes, chunks.checked_add(more.1)?))
        };
        let sum = match self {
            Self::Leaf(extents) => extents
                .iter()
                .try_fold((0, 0), |sum, extent| add(sum, (extent.len, u64::from(extent.chunk.is_some())))),
            Self::Branch(children) => {
                children.iter().try_fold((0, 0), |sum, child| add(sum, (child.bytes, child.chunks)))
            }
        };
        sum.ok_or(ManifestError::Rule { what: WHAT, rule: "totals stay below 2^63" })
    }

    fn check(&self) -> Result<(), ManifestError> {
        self.totals()?;
        match self {
            Self::Leaf(extents) => {
                require(!extents.is_empty(), WHAT, "a leaf has an extent")?;
                let lengths = extents.iter().all(|extent| match extent.chunk {
                    Some(_) => (1..=u64::from(MAX_CHUNK_LEN)).contains(&extent.len),
                    None => extent.len > 0,
                });
                require(lengths, WHAT, "an extent has at least 1 byte, a chunk at most 4 MiB")?;
                let merged =
                    extents.windows(2).all(|pair| pair[0].chunk.is_some() || pair[1].chunk.is_some());
                require(merged, WHAT, "neighbouring holes are one")
            }
            Self::Branch(children) => {
                require(children.len() >= 2, WHAT, "a branch has at least two children")?;
                let sound = children.iter().all(|child| child.bytes > 0 && child.chunks <= child.bytes);
                require(sound, WHAT, "a child has at least 1 byte and no more chunks than bytes")
            }
        }
    }
}

/// The first 8 bytes of an id, little-endian.
fn mark_of(id: &[u8; ID_LEN]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *id;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl Part for Extent {
    // A node never ends with a hole, except at the end of the file.
    fn mark(&self) -> u64 {
        self.chunk.map_or(u64::MAX, |chunk| mark_of(chunk.as_bytes()))
    }

    fn weight(&self) -> usize {
        PART_WEIGHT
    }
}

impl Part for BlobChild {
    fn mark(&self) -> u64 {
        mark_of(self.blob.as_bytes())
    }

    fn weight(&self) -> usize {
        PART_WEIGHT
    }
}

impl SplitNode for BlobNode {
    type Item = Extent;
    type Child = BlobChild;

    fn leaf(items: Vec<Extent>) -> Self {
        Self::Leaf(items)
    }

    fn branch(children: Vec<BlobChild>) -> Self {
        Self::Branch(children)
    }

    const KIND: Kind = Kind::Blob;

    fn bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        Ok(self.encode())
    }

    fn described(&self, hash: [u8; ID_LEN]) -> Result<BlobChild, ManifestError> {
        let (bytes, chunks) = self.totals()?;
        Ok(BlobChild { blob: BlobId::from_bytes(hash), bytes, chunks })
    }
}

/// Builds the nodes of one file from its extents in order. Holds a few nodes at most.
pub struct BlobBuilder {
    splitter: Splitter<BlobNode>,
}

impl BlobBuilder {
    /// A file without extents so far.
    #[expect(clippy::new_without_default, reason = "there is no default file")]
    pub fn new() -> Self {
        Self { splitter: Splitter::new() }
    }

    /// Adds the next extent. Finished nodes go to `sink`, which returns the hash by which each is found.
    pub fn push<E, S>(&mut self, extent: Extent, sink: &mut S) -> Result<(), E>
    where
        E: From<ManifestError>,
        S: FnMut(Kind, Vec<u8>) -> Result<[u8; ID_LEN], E>,
    {
        self.splitter.push(extent, sink)
    }

    /// Ends the file and describes its root node. A file without extents has none: that is an error.
    pub fn finish<E, S>(self, sink: &mut S) -> Result<BlobChild, E>
    where
        E: From<ManifestError>,
        S: FnMut(Kind, Vec<u8>) -> Result<[u8; ID_LEN], E>,
    {
        let root = self.splitter.finish(sink)?;
        Ok(root.ok_or(ManifestError::Rule { what: WHAT, rule: "a leaf has an extent" })?)
    }
}
