//! What can go wrong in the store, in words for the person who has to do something about it.
//!
//! Owns: `StoreError`. Must not know: how an error is printed or mapped to an errno.
//! Invariant: each text names the path, the cause and, where there is one, the remedy.
//! Trust, threads: pure values.

use std::io;
use std::path::{Path, PathBuf};

use crate::codec::CodecError;
use crate::pack::PackError;
use crate::store::index::is_damage;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The user's mistake, or a race to be first: another process (or this one) has the store open.
    #[error("the store {} is in use by process {pid}: talk to that process, or stop it first", .path.display())]
    Locked { path: PathBuf, pid: u32 },
    /// The user's mistake: another program version wrote this.
    #[error(
        "{} has store format {found}, this bcai reads format {supported}: use the bcai that wrote it, or another directory",
        .path.display()
    )]
    Version { path: PathBuf, found: u64, supported: u64 },
    /// Retry once there is room. Nothing of the object was recorded.
    #[error("no space left for {needed} bytes in {}: free some, and try again; `bcai gc --dry-run` shows what of the store could go", .path.display())]
    Full { path: PathBuf, needed: u64 },
    /// The operating system refused; its cause says whether a retry helps.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// The index could not be read or written. An index that does not open is rebuilt from the packs.
    #[error("the index {} failed: {cause}: restart bcai, which recovers it", .path.display())]
    Index { path: PathBuf, cause: String, damaged: bool },
    /// The file of a log could not be read or written.
    #[error(
        "the log in {} failed: {cause}{}", .path.display(),
        if *.damaged { "; move the file away and the log is fetched again from peers (on the only validator of a network, restore it from a backup)" } else { "" }
    )]
    Log { path: PathBuf, cause: String, damaged: bool },
    /// An earlier write failed. Reads go on; nothing is written until the store is opened again.
    #[error("the store {} takes no more writes, because an earlier one failed ({cause}): mend that and restart bcai", .path.display())]
    Stopped { path: PathBuf, cause: String },
    /// Corrupt: an object on disk is not what its id says.
    #[error("{}: {cause}", .path.display())]
    Corrupt { path: PathBuf, cause: PackError },
    /// Corrupt: a file that was published in place is not what was published.
    #[error("{} is published in place, but {cause}: publish it again, or restore the file", .path.display())]
    Outside { path: PathBuf, cause: String },
    /// Corrupt: a snapshot record in the index does not decode.
    #[error("{}: {cause}", .path.display())]
    Record { path: PathBuf, cause: CodecError },
    /// The user's to decide: pins have a share of the cache's budget.
    #[error(
        "pins would hold {needed} bytes in {}, and may hold {max}: raise cache.max_bytes, or pin less",
        .path.display()
    )]
    PinsFull { path: PathBuf, needed: u64, max: u64 },
    /// The user's to decide: pins are few.
    #[error("{} has {max} pins, and no more are kept: remove some with `bcai unpin`", .path.display())]
    TooManyPins { path: PathBuf, max: u64 },
    /// A caller's mistake: log heights have no gaps and are never rewritten.
    #[error("{} expects block {expected} next, not {height}", .path.display())]
    Height { path: PathBuf, height: u64, expected: u64 },
    /// The user's mistake: this file holds the log of another network.
    #[error("{} belongs to another genesis document: use another directory for this network", .path.display())]
    OtherGenesis { path: PathBuf },
}

impl StoreError {
    /// Whether an object is here, but is not what its id says: a good copy may take its place ([`Store::replace`]).
    ///
    /// [`Store::replace`]: super::Store::replace
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Outside { .. })
    }

    /// For `map_err` on an operation of the operating system.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// For `map_err` on an operation of the log at `path`.
    pub(super) fn log<E: Into<redb::Error>>(path: &Path) -> impl FnOnce(E) -> Self {
        move |error| {
            let error = error.into();
            Self::Log { path: path.to_owned(), cause: error.to_string(), damaged: is_damage(&error) }
        }
    }

    /// For `map_err` on an operation of the index at `path`.
    pub(super) fn index<E: Into<redb::Error>>(path: &Path) -> impl FnOnce(E) -> Self {
        move |error| {
            let error = error.into();
            Self::Index { path: path.to_owned(), cause: error.to_string(), damaged: is_damage(&error) }
        }
    }
}
