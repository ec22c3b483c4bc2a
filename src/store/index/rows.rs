//! The rows of the index: what is known of an object, a pack, a blob file and a file outside of the store, and the raw
//! form of each.
//!
//! Owns: the translation between rows and tuples of numbers. Must not know: tables, transactions.
//! Invariant: a row and its raw form hold the same. Trust: raw rows are our own file's; a kind that does not exist is
//! damage. Threads: pure values.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::IndexResult;
use crate::id::{ID_LEN, Kind, ObjectId};
use crate::pack::file::{Keep, record_len};

pub(super) type Key = [u8; ID_LEN + 1];
pub(super) type ObjectRow = (u32, u32, u32, u64);
pub(super) type PackRowRaw = (u8, bool, u64, u32, u64, u64, u64);
pub(super) type BlobRowRaw = (u64, u64, u64, [u8; ID_LEN]);
pub(super) type StampRaw = (u64, u64, i64, u32, i64, u32);
pub(super) type OutsideRowRaw<'a> = (u64, StampRaw, u64, u64, &'a [u8]);

/// Numbers from here on are not of packs, but of parts of files outside of the packs.
pub(in crate::store) const OUTSIDE: u32 = 1 << 31;

/// Ticks from here on are those of pinned objects: this and the epoch of the pin. Larger than any tick of use, so that
/// eviction, which goes from the oldest tick up, never comes to them.
pub(in crate::store) const PINNED: u64 = 1 << 63;

/// Where one object lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Place {
    /// A pack, or from [`OUTSIDE`] on a part of a file.
    pub pack: u32,
    /// Where the record begins in the pack; or the plain bytes, which are all there is, in that part of the file.
    pub offset: u32,
    pub stored_len: u32,
    /// When a cached object was last used, in ticks from 1, or from [`PINNED`] if it is pinned; 0 for a published one.
    pub tick: u64,
}

impl Place {
    pub(in crate::store) fn keep(&self) -> Keep {
        if self.tick == 0 { Keep::Published } else { Keep::Cache }
    }

    pub(in crate::store) fn is_pinned(&self) -> bool {
        self.tick >= PINNED
    }

    /// Whether it is in a file outside of the packs.
    pub(in crate::store) fn is_outside(&self) -> bool {
        self.pack >= OUTSIDE
    }

    /// Whether the object need not be stored again to be kept so. What is in a file outside may change at any time: it
    /// is not as safe as a published object is to be.
    pub(in crate::store) fn is_kept(&self, keep: Keep) -> bool {
        keep == Keep::Cache || (self.keep() == Keep::Published && !self.is_outside())
    }

    /// Whether both are one record, whatever has been noted of its use.
    pub(in crate::store) fn is_at(&self, other: &Self) -> bool {
        (self.pack, self.offset) == (other.pack, other.offset)
    }

    pub(in crate::store) fn record_len(&self) -> u64 {
        if self.is_outside() { self.stored_len.into() } else { record_len(self.stored_len) }
    }

    pub(super) fn row(&self) -> ObjectRow {
        (self.pack, self.offset, self.stored_len, self.tick)
    }
}

impl From<ObjectRow> for Place {
    fn from((pack, offset, stored_len, tick): ObjectRow) -> Self {
        Self { pack, offset, stored_len, tick }
    }
}

/// What the index knows of one pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct PackRow {
    pub keep: Keep,
    pub sealed: bool,
    /// Length of the file up to which all is synced and indexed.
    pub len: u64,
    /// Records ever written to it.
    pub records: u32,
    pub live: u64,
    pub live_bytes: u64,
    /// Bytes it occupies on disk, never too low.
    pub disk: u64,
}

impl PackRow {
    pub(in crate::store) fn new(keep: Keep) -> Self {
        Self { keep, sealed: false, len: 0, records: 0, live: 0, live_bytes: 0, disk: 0 }
    }

    pub(super) fn raw(&self) -> PackRowRaw {
        (self.keep as u8, self.sealed, self.len, self.records, self.live, self.live_bytes, self.disk)
    }

    pub(super) fn from_raw((keep, sealed, len, records, live, live_bytes, disk): PackRowRaw) -> Self {
        let keep = if keep == Keep::Published as u8 { Keep::Published } else { Keep::Cache };
        Self { keep, sealed, len, records, live, live_bytes, disk }
    }
}

/// What the index knows of one blob file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct BlobRow {
    pub len: u64,
    pub disk: u64,
    pub tick: u64,
    pub hash: [u8; ID_LEN],
}

impl From<BlobRowRaw> for BlobRow {
    fn from((len, disk, tick, hash): BlobRowRaw) -> Self {
        Self { len, disk, tick, hash }
    }
}

/// What tells one state of a file from another. Without the device: its number may be another after the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Stamp {
    pub ino: u64,
    pub size: u64,
    pub mtime: (i64, u32),
    /// Set by the kernel at each change of content or metadata; programs cannot set it back.
    pub ctime: (i64, u32),
}

/// What the index knows of one part of a file outside of the packs, of 4 GiB at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct OutsideRow {
    /// Relative to the store if the file is the store's own clone.
    pub path: PathBuf,
    /// Where the part begins in the file, in bytes.
    pub base: u64,
    /// The file when it was read.
    pub stamp: Stamp,
    pub live: u64,
    pub live_bytes: u64,
}

impl OutsideRow {
    pub(super) fn raw(&self) -> OutsideRowRaw<'_> {
        let Stamp { ino, size, mtime, ctime } = self.stamp;
        let stamp = (ino, size, mtime.0, mtime.1, ctime.0, ctime.1);
        (self.base, stamp, self.live, self.live_bytes, self.path.as_os_str().as_bytes())
    }

    pub(super) fn from_raw((base, stamp, live, live_bytes, path): OutsideRowRaw<'_>) -> Self {
        let (ino, size, mtime_s, mtime_ns, ctime_s, ctime_ns) = stamp;
        let stamp = Stamp { ino, size, mtime: (mtime_s, mtime_ns), ctime: (ctime_s, ctime_ns) };
        Self { path: OsStr::from_bytes(path).into(), base, stamp, live, live_bytes }
    }
}

pub(super) fn key(id: &ObjectId) -> Key {
    let mut key = [0; ID_LEN + 1];
    key[0] = id.kind as u8;
    key[1..].copy_from_slice(&id.hash);
    key
}

pub(super) fn id_of(key: &Key) -> IndexResult<ObjectId> {
    let kind =
        Kind::try_from(key[0]).map_err(|kind| redb::Error::Corrupted(format!("object kind {kind}")))?;
    let mut hash = [0; ID_LEN];
    hash.copy_from_slice(&key[1..]);
    Ok(ObjectId { kind, hash })
}
