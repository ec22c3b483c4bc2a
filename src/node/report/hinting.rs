//! What loaders say about what they will read, and what became of it.
//!
//! Owns, must not know, invariant: those of `report`, which is the name that all of this is used by.
//! Trust: requests come from this machine's user and are checked where they are used. Threads: pure values.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which files a loader will read next, in its order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HintRequest {
    /// Where the dataset is mounted by this node; or its reference.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    #[serde(default)]
    pub reference: Option<String>,
    /// Whose order this is. A newer hint of the same client takes the place of the older one.
    #[serde(default)]
    pub client: String,
    /// From the root of the dataset, or absolute below `dir`; in the text form of `node::text`.
    pub paths: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hinted {
    /// Paths taken.
    pub paths: usize,
    /// Bytes that are fetched for this hint at most.
    pub max_bytes: u64,
}

/// What became of hinted paths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintStatus {
    pub hints: u64,
    pub paths: u64,
    /// Files fetched ahead, and their bytes.
    pub fetched: u64,
    pub fetched_bytes: u64,
    /// Files that were here.
    pub here: u64,
    /// Paths that are no files of the dataset.
    pub unknown: u64,
    /// Left out: too far ahead, or a newer hint came.
    pub dropped: u64,
    /// Could not be had.
    pub failed: u64,
}
