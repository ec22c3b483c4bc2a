//! What is asked and answered about contents that are kept here: prefetches, pins, the cache.
//!
//! Owns, must not know, invariant: those of `report`, which is the name that all of this is used by.
//! Trust: requests come from this machine's user and are checked where they are used. Threads: pure values.

use serde::{Deserialize, Serialize};

use super::{HintStatus, KeptSnapshot};

/// Files of a dataset: all, or those that match patterns of paths from its root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PrefetchRequest {
    pub reference: String,
    #[serde(default)]
    pub globs: Vec<String>,
    #[serde(default)]
    pub what: Prefetch,
}

/// What to do with the contents of files without reading them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prefetch {
    #[default]
    Fetch,
    /// Say how much of it is here.
    Check,
    /// Drop it from the cache.
    Evict,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prefetched {
    pub snapshot: String,
    /// Files that were meant and their sizes; and what of that is on this machine now. When they were dropped, only
    /// those are counted that directories on this machine name.
    pub files: u64,
    pub bytes: u64,
    pub files_here: u64,
    pub bytes_here: u64,
    /// Bytes as stored that were dropped from the cache.
    pub evicted_bytes: u64,
    pub seconds: f64,
}

/// What to pin or unpin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PinRequest {
    pub reference: String,
    /// Patterns of paths; none means everything, and to unpin: every pin of the snapshot.
    #[serde(default)]
    pub paths: Vec<String>,
}

/// A pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub reference: String,
    pub snapshot: String,
    pub paths: Vec<String>,
    pub files: u64,
    pub bytes: u64,
    /// Everything is here and held. Otherwise it is being made.
    pub whole: bool,
    pub time_ms: u64,
    /// This node has promised its network to hold it.
    #[serde(default)]
    pub replica: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unpinned {
    pub removed: Vec<Pin>,
    /// Bytes as stored that may be evicted again.
    pub released_bytes: u64,
}

/// The cache: its budget, what fills it, and what it was good for. Counts are since the start of the node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheStatus {
    pub max_bytes: u64,
    /// On disk, of which records that may be evicted (with what is not free yet), records that are pinned, blob files.
    pub used_bytes: u64,
    pub cached_bytes: u64,
    pub pinned_bytes: u64,
    pub blob_file_bytes: u64,
    pub blob_files: u64,
    /// Not part of the budget: published records, and apart from them, objects that lie in files which were published
    /// in place.
    pub published_bytes: u64,
    pub in_place_bytes: u64,
    /// What may be fetched before anything is evicted.
    pub free_bytes: u64,
    pub pins_max_bytes: u64,
    pub pins: Vec<Pin>,
    /// Objects that readers found here, and objects that they had to wait for. What was fetched ahead of a reader in time is found;
    /// what the kernel reads by itself is not seen.
    pub hits: u64,
    pub misses: u64,
    /// `hits / (hits + misses)`; absent before the first.
    pub hit_ratio: Option<f64>,
    pub evicted: u64,
    pub evicted_bytes: u64,
    /// Objects that were fetched and not cached: the disk was full, or did not keep up.
    pub bypassed: u64,
    /// Plain bytes of the hits, less all that was fetched since the start.
    pub saved_bytes: u64,
    /// Bytes of the files of published snapshots that were not stored, since they were there already or were compressed.
    pub deduplicated_bytes: u64,
    pub hints: HintStatus,
    /// What was built here, and what holds it.
    pub snapshots: Vec<KeptSnapshot>,
}
