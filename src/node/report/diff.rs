//! What is asked and answered when two versions are compared.
//!
//! Owns, must not know, invariant: those of `report`, which is the name that all of this is used by.
//! Trust: requests come from this machine's user and are checked where they are used. Threads: pure values.

use serde::{Deserialize, Serialize};

/// Two versions, by reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DiffRequest {
    pub before: String,
    pub after: String,
    /// Count how much of it is new, and give no rows.
    #[serde(default)]
    pub stat: bool,
}

/// One name that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffRow {
    /// From the root of the dataset, in the text form of `node::text`; empty for the root itself.
    pub path: String,
    /// `added`, `removed` or `changed`.
    pub change: String,
    /// Of what changed: `content`, `target`, `mode`, `owner`, `time`, `attributes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aspects: Vec<String>,
    pub before: Option<DiffSide>,
    pub after: Option<DiffSide>,
}

/// What a name is in one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffSide {
    /// `file`, `dir` or `link`.
    pub kind: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    /// Bytes of a file, and their BLAKE3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// All differences together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffTotals {
    /// The snapshots that were compared.
    pub before: String,
    pub after: String,
    /// Names.
    pub added: u64,
    pub removed: u64,
    pub changed: u64,
    /// Sizes of the files that were added or are changed in content, as they are after; and those that were removed or
    /// changed, as they were before.
    pub bytes_after: u64,
    pub bytes_before: u64,
    /// What is new in them; only with `stat`.
    pub new: Option<DiffNew>,
}

/// Chunks of files that were added or changed, which no file that was removed or changed had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffNew {
    pub chunks: u64,
    pub bytes: u64,
    /// There were so many that some may be counted though they are not new.
    pub at_most: bool,
}
