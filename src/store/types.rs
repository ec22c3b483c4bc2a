//! What callers give to the store and get from it, besides objects.
//!
//! Owns: these plain values, and the encoding of a snapshot record. Must not know: how the store keeps them.
//! Invariant: a snapshot record decodes to what was encoded, and is at most 64 KiB.
//! Trust: a record comes from the index, which may be damaged; decoding is checked and bounded.
//! Threads: pure values.

use minicbor::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::id::{Genesis, SnapshotId};

/// What the owner of a machine decides about its store.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What cache packs and blob files may occupy on disk, in bytes. Published objects and the index are not counted.
    pub cache_max_bytes: u64,
}

/// What a put added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Put {
    /// Objects that were not there before.
    pub objects: u64,
    /// Their bytes as stored.
    pub stored_bytes: u64,
}

/// A snapshot that was made or fetched here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SnapshotRecord {
    #[n(0)]
    pub id: SnapshotId,
    /// Sum of the file sizes.
    #[n(1)]
    pub bytes: u64,
    #[n(2)]
    pub inodes: u64,
    #[n(3)]
    pub chunks: u64,
    /// Milliseconds since 1970, UTC.
    #[n(4)]
    pub created_unix_ms: u64,
    /// Where it came from, for people to read.
    #[n(5)]
    pub source: String,
    /// Networks whose validators were asked to make a version of it. Written before they are.
    #[n(6)]
    pub submitted: Option<Vec<Genesis>>,
}

pub(super) const MAX_SNAPSHOT_RECORD: usize = 64 << 10;

impl SnapshotRecord {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("a snapshot record", bytes, MAX_SNAPSHOT_RECORD)
    }

    /// For a snapshot whose record was lost with the index: its figures are in the snapshot itself.
    pub(super) fn recovered(id: SnapshotId) -> Self {
        let source = "recovered from the packs".to_owned();
        Self { id, bytes: 0, inodes: 0, chunks: 0, created_unix_ms: 0, source, submitted: None }
    }
}

/// Something that is not to be evicted: a snapshot, or what of it is below some paths.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PinRecord {
    #[n(0)]
    pub snapshot: SnapshotId,
    /// Patterns of paths, sorted; none means everything.
    #[n(1)]
    pub paths: Vec<String>,
    /// What the user called it.
    #[n(2)]
    pub reference: String,
    /// Everything is here and held. Until then the pin is being made, or was interrupted.
    #[n(3)]
    pub whole: bool,
    /// Plain bytes and number of the files that it is of.
    #[n(4)]
    pub bytes: u64,
    #[n(5)]
    pub files: u64,
    /// When it was asked for, in milliseconds since 1970, UTC.
    #[n(6)]
    pub pinned_unix_ms: u64,
    /// The network that this node has promised to hold it for; none for a pin of the user's.
    #[n(7)]
    pub replica_of: Option<Genesis>,
}

const MAX_PIN_RECORD: usize = 64 << 10;

impl PinRecord {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("a pin", bytes, MAX_PIN_RECORD)
    }
}

/// The store in figures. Counts of events are since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub objects: u64,
    /// Bytes of the published records.
    pub published_bytes: u64,
    /// Bytes of the objects that lie in files which were published in place.
    pub outside_bytes: u64,
    /// Bytes that cache packs and blob files occupy on disk.
    pub cached_bytes: u64,
    /// Of those, bytes of the records that pins hold, and bytes and number of the blob files.
    pub pinned_bytes: u64,
    pub blob_file_bytes: u64,
    pub blob_files: u64,
    pub packs: u64,
    pub cache_max_bytes: u64,
    /// What the cache may occupy before anything is evicted.
    pub evicts_above: u64,
    pub hits: u64,
    pub misses: u64,
    /// Objects evicted, and their bytes as stored.
    pub evicted: u64,
    pub evicted_bytes: u64,
    /// Objects that could not be cached, for want of disk space or because they are larger than the budget.
    pub bypassed: u64,
}
