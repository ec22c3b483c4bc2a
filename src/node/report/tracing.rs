//! What is asked and shown of the use of a mount. Rules of `report`.
//!
//! Owns: these shapes. Must not know: how they come about. Invariant, trust and threads: as `report`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TraceRequest {
    /// Absolute.
    pub dir: PathBuf,
}

/// One answer that a mount has given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TraceRow {
    pub time_ms: u64,
    /// As the system call is called: `lookup`, `getattr`, `readlink`, `readdir`, `read`, `getxattr`, `listxattr` or `lseek`.
    pub operation: String,
    /// From the root of the dataset; of a look-up the directory.
    pub path: String,
    pub ino: u64,
    pub offset: u64,
    /// Bytes asked for; 0 where that is no part of the question.
    pub len: u32,
    pub micros: u64,
    /// `here` (memory or the local disk) or `elsewhere` (it was waited for peers or origins).
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Answers before this one that came too fast to be told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How much was told, at the end of the mount.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Traced {
    pub answers: u64,
    pub missed: u64,
}

/// How long the answers of mounts took, of one kind, since the start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AnswerCounts {
    pub operation: String,
    /// `here` or `elsewhere`.
    pub source: String,
    pub answers: u64,
    pub seconds: f64,
    /// Those that said that something could not be had, or not in time.
    pub failed: u64,
    /// Upper bound in microseconds, absent for the last one, and the number of answers up to it and above the one before.
    pub buckets: Vec<(Option<u64>, u64)>,
}
