//! What is asked for and reported of mounts.
//!
//! Owns, must not know, invariant: those of `report`, which is the name that all of this is used by.
//! Trust: as `report`. Threads: pure values.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::VersionOf;
use crate::config::{Fetch, Io, Readahead};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    pub reference: String,
    pub dir: PathBuf,
    #[serde(default)]
    pub allow_other: bool,
    #[serde(default)]
    pub io: Io,
    #[serde(default)]
    pub fetch: Fetch,
    #[serde(default)]
    pub readahead: Readahead,
    /// The reference means what is known here, however old; nobody is asked.
    #[serde(default)]
    pub offline: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mounted {
    pub dir: PathBuf,
    pub reference: String,
    pub snapshot: String,
    pub inodes: u64,
    pub bytes: u64,
    /// Absent when a snapshot id was mounted, which needs no log.
    pub version: Option<VersionOf>,
    /// How contents reach their readers now: `passthrough`, `zero-open` or `cached`; and why so, for people.
    #[serde(default)]
    pub io: String,
    #[serde(default)]
    pub io_reason: String,
    /// Where what is not here comes from.
    #[serde(default)]
    pub fetch: Fetch,
    /// How far ahead of its readers is fetched, and what came of that since this version was mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<AheadStatus>,
    /// Whether it changes to another version when the tag that it was mounted by names another.
    #[serde(default)]
    pub follows: bool,
    /// Whether its users notice nothing but a pause when the daemon crashes or is restarted.
    #[serde(default)]
    pub kept: bool,
    /// Why its publisher has withdrawn the version, as far as the log here says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
    /// Who was asked which version is meant, with `fetch=quorum` and a reference that needs a log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<Quorum>,
}

/// Reading ahead, of one mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AheadStatus {
    /// Bytes ahead of each reader as they were fixed by hand; 0: nothing is fetched ahead. Absent where they follow what is measured.
    pub fixed_bytes: Option<u64>,
    /// Bytes that are fetched ahead of the reader of a file, of the one that has most; if there is none, of the next one.
    pub window_bytes: u64,
    /// Files that are fetched ahead of a reader of file after file, in the same way.
    pub window_files: u64,
    /// Readers in order that something was fetched ahead of and that have read in the last three seconds.
    pub readers: u64,
    /// How long it takes to get what nobody has asked for before: the lower quartile of the last reads. Absent before the first.
    pub latency_ms: Option<f64>,
    /// Plain bytes that were fetched ahead of readers.
    pub fetched_bytes: u64,
    /// Of these, about those whose reader has not read for three seconds or has gone elsewhere before it came to them.
    pub unread_bytes: u64,
}

/// Another version for a mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemountRequest {
    pub dir: PathBuf,
    /// None: what the mount's own reference means now.
    pub reference: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Remounted {
    /// Whether the content is another than before.
    pub changed: bool,
    /// What was mounted before.
    pub before: Option<VersionOf>,
    pub before_snapshot: String,
    #[serde(flatten)]
    pub mounted: Mounted,
}

/// What peers have said about how far a log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// Peers that have answered.
    pub peers: usize,
    /// Those for whom the newest block is the one that it was for this node after it had asked them all.
    pub agreed: usize,
    /// The height of that block.
    pub height: u64,
}
