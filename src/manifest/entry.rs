//! One entry of a directory: its name and what it names.
//!
//! Owns: `Name`, `Meta`, `Entry`, `Node`, `Content` and the rules each obeys on its own.
//! Must not know: other entries, nodes, the tree.
//! Invariant, trust, threads: those of `manifest`.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use minicbor::{Decode, Encode};

use super::{MAX_TARGET_LEN, MAX_TOTAL, MAX_XATTRS_LEN, ManifestError, Totals, require};
use crate::chunking::MAX_CHUNK_LEN;
use crate::id::{BlobId, ChunkId, FileHash, TreeId};

/// Longest name, in bytes (Linux's `NAME_MAX`).
const MAX_NAME_LEN: usize = 255;
/// Bytes that one attribute costs beyond its name and value.
const XATTR_OVERHEAD: usize = 8;
/// More than the encoding of an entry without its name, target and attributes.
const ENTRY_OVERHEAD: usize = 160;

/// The name of a directory entry: 1 to 255 bytes without `/` and NUL, and not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks the rules.
    pub fn new(bytes: &[u8]) -> Result<Self, ManifestError> {
        let what = "a file name";
        require((1..=MAX_NAME_LEN).contains(&bytes.len()), what, "it has 1 to 255 bytes")?;
        require(!bytes.contains(&b'/') && !bytes.contains(&0), what, "it holds neither `/` nor NUL")?;
        require(bytes != b"." && bytes != b"..", what, "it is not `.` or `..`")?;
        Ok(Self(bytes.into()))
    }

    /// The bytes, which need not be UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as paths take it.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_os_str().fmt(f)
    }
}

impl<C> Encode<C> for Name {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Name {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.bytes()?).map_err(|error| minicbor::decode::Error::message(error.to_string()))
    }
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Xattr {
    /// With its namespace (`user.`): 1 to 255 bytes without NUL.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// What every inode has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Meta {
    /// The 12 permission bits (set-id and sticky included), without the file type.
    #[n(0)]
    pub mode: u32,
    /// Time of the last change of content: whole seconds since 1970, rounded down.
    #[n(1)]
    pub mtime_s: i64,
    /// And nanoseconds, below 10^9.
    #[n(2)]
    pub mtime_ns: u32,
    #[n(3)]
    pub uid: u32,
    #[n(4)]
    pub gid: u32,
    /// Sorted by name, names unique.
    #[n(5)]
    pub xattrs: Vec<Xattr>,
}

impl Meta {
    pub(super) fn check(&self) -> Result<(), ManifestError> {
        let what = "metadata";
        require(self.mode <= 0o7777, what, "the mode has 12 bits")?;
        require(self.mtime_ns < 1_000_000_000, what, "nanoseconds are below 10^9")?;
        for xattr in &self.xattrs {
            let good = (1..=MAX_NAME_LEN).contains(&xattr.name.len()) && !xattr.name.contains(&0);
            require(good, what, "an attribute's name has 1 to 255 bytes and no NUL")?;
        }
        let sorted = self.xattrs.windows(2).all(|pair| pair[0].name < pair[1].name);
        require(sorted, what, "attributes are sorted and unique")?;
        require(self.xattrs_len() <= MAX_XATTRS_LEN, what, "attributes take at most 64 KiB")
    }

    fn xattrs_len(&self) -> usize {
        self.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + XATTR_OVERHEAD).sum()
    }
}

/// A name in a directory and what it names.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    #[n(0)]
    pub name: Name,
    #[n(1)]
    pub node: Node,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Node {
    /// A regular file of `size` bytes, with `nlink` names in this snapshot.
    #[n(0)]
    File {
        #[n(0)]
        meta: Meta,
        #[n(1)]
        nlink: u32,
        #[n(2)]
        size: u64,
        #[n(3)]
        content: Content,
    },
    /// A directory. `totals` is everything below it, itself not counted.
    #[n(1)]
    Dir {
        #[n(0)]
        meta: Meta,
        #[n(1)]
        tree: TreeId,
        #[n(2)]
        totals: Totals,
    },
    /// A symbolic link with `nlink` names in this snapshot. The target is 1 to 4095 bytes without NUL.
    #[n(2)]
    Symlink {
        #[n(0)]
        meta: Meta,
        #[n(1)]
        nlink: u32,
        #[cbor(n(2), with = "minicbor::bytes")]
        target: Vec<u8>,
    },
    /// Another name of the inode at position `first`: a `File` or `Symlink` met earlier in the walk.
    #[n(3)]
    Link {
        #[n(0)]
        first: u64,
    },
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Content {
    /// A file of no bytes.
    #[n(0)]
    Empty,
    /// The whole file is one chunk, and no hole.
    #[n(1)]
    Chunk {
        #[n(0)]
        id: ChunkId,
        /// Hash of the file where it differs from the chunk's id; `None` where they are equal.
        #[n(1)]
        hash: Option<FileHash>,
    },
    /// The file is the extents below a blob node, `chunks` of which are not holes.
    #[n(2)]
    Blob {
        #[n(0)]
        id: BlobId,
        #[n(1)]
        chunks: u64,
        #[n(2)]
        hash: FileHash,
    },
}

impl Content {
    /// Number of chunks.
    pub fn chunks(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Chunk { .. } => 1,
            Self::Blob { chunks, .. } => *chunks,
        }
    }

    /// BLAKE3 of the whole file, as `b3sum` prints it; holes count as the zeros they read as.
    pub fn file_hash(&self) -> FileHash {
        match self {
            Self::Empty => FileHash::from_bytes(*ChunkId::of(b"").as_bytes()),
            Self::Chunk { id, hash: None } => FileHash::from_bytes(*id.as_bytes()),
            Self::Chunk { hash: Some(hash), .. } | Self::Blob { hash, .. } => *hash,
        }
    }

    fn check(&self, size: u64) -> Result<(), ManifestError> {
        let what = "file content";
        match self {
            Self::Empty => require(size == 0, what, "only an empty file has none"),
            Self::Chunk { id, hash } => {
                require((1..=u64::from(MAX_CHUNK_LEN)).contains(&size), what, "a chunk has 1 byte to 4 MiB")?;
                let differs = hash.is_none_or(|hash| hash.as_bytes() != id.as_bytes());
                require(differs, what, "a hash equal to the chunk's id is left out")
            }
            Self::Blob { chunks, .. } => {
                require(size > 0 && size <= MAX_TOTAL, what, "a blob has 1 to 2^63 - 1 bytes")?;
                require(*chunks <= size, what, "there are no more chunks than bytes")
            }
        }
    }
}

impl Node {
    /// The metadata; `None` for a `Link`, whose first name has it.
    pub fn meta(&self) -> Option<&Meta> {
        match self {
            Self::File { meta, .. } | Self::Dir { meta, .. } | Self::Symlink { meta, .. } => Some(meta),
            Self::Link { .. } => None,
        }
    }

    /// What the entry adds to the totals of its directory; `None` on overflow.
    pub fn totals(&self) -> Option<Totals> {
        let one = Totals { inodes: 1, ..Totals::default() };
        match self {
            Self::File { size, content, .. } => {
                one.checked_add(Totals { inodes: 0, chunks: content.chunks(), bytes: *size })
            }
            Self::Dir { totals, .. } => one.checked_add(*totals),
            Self::Symlink { .. } => Some(one),
            Self::Link { .. } => Some(Totals::default()),
        }
    }

    /// How many positions the entry takes.
    pub fn span(&self) -> u64 {
        match self {
            Self::File { .. } | Self::Symlink { .. } => 1,
            Self::Dir { totals, .. } => totals.inodes.saturating_add(1),
            Self::Link { .. } => 0,
        }
    }

    /// Checks the rules that the entry alone can break.
    pub fn check(&self) -> Result<(), ManifestError> {
        let what = "an entry";
        if let Some(meta) = self.meta() {
            meta.check()?;
        }
        match self {
            Self::File { nlink, size, content, .. } => {
                require(*nlink > 0, what, "it has at least one name")?;
                content.check(*size)
            }
            Self::Dir { .. } => Ok(()),
            Self::Symlink { nlink, target, .. } => {
                require(*nlink > 0, what, "it has at least one name")?;
                let good = (1..=MAX_TARGET_LEN).contains(&target.len()) && !target.contains(&0);
                require(good, what, "a symlink's target has 1 to 4095 bytes and no NUL")
            }
            Self::Link { first } => require(*first > 1, what, "a hard link names no directory"),
        }
    }
}

impl Entry {
    /// An upper bound of its encoded length, which decides where a leaf is split.
    pub(super) fn weight(&self) -> usize {
        let target = match &self.node {
            Node::Symlink { target, .. } => target.len(),
            _ => 0,
        };
        let xattrs = self.node.meta().map_or(0, Meta::xattrs_len);
        ENTRY_OVERHEAD + self.name.as_bytes().len() + target + xattrs
    }
}
