//! The cache at a glance.
//!
//! Owns: which figures of the store and of fetching say what about the cache.
//! Must not know: how either keeps them.
//! Invariant: reading the figures changes none of them. Trust: none needed. Threads: any; blocks for the index.

use super::Node;
use super::error::Error;
use super::report::CacheStatus;
use crate::store::Options;

impl Node {
    /// What fills the cache, and what it was good for.
    pub fn cache(&self) -> Result<CacheStatus, Error> {
        let (stats, fetch) = (self.store.stats()?, self.fetcher.stats());
        let published: u64 = self.store.snapshots()?.iter().map(|record| record.bytes).sum();
        let looked = fetch.local_hits + fetch.awaited;
        let apart = stats.pinned_bytes + stats.blob_file_bytes;
        Ok(CacheStatus {
            max_bytes: stats.cache_max_bytes,
            used_bytes: stats.cached_bytes,
            cached_bytes: stats.cached_bytes.saturating_sub(apart),
            pinned_bytes: stats.pinned_bytes,
            blob_file_bytes: stats.blob_file_bytes,
            blob_files: stats.blob_files,
            published_bytes: stats.published_bytes,
            in_place_bytes: stats.outside_bytes,
            free_bytes: stats.evicts_above.saturating_sub(stats.cached_bytes),
            pins_max_bytes: Options { cache_max_bytes: stats.cache_max_bytes }.pins_max_bytes(),
            pins: self.pins()?,
            hits: fetch.local_hits,
            misses: fetch.awaited,
            hit_ratio: (looked > 0).then(|| fetch.local_hits as f64 / looked as f64),
            evicted: stats.evicted,
            evicted_bytes: stats.evicted_bytes,
            bypassed: stats.bypassed + fetch.bypassed,
            saved_bytes: fetch.local_bytes.saturating_sub(fetch.fetched_bytes),
            deduplicated_bytes: published.saturating_sub(stats.published_bytes + stats.outside_bytes),
            hints: self.hints.status(),
            snapshots: self.kept_snapshots()?,
        })
    }
}
