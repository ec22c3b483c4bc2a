//! The store in figures.
//!
//! Owns: where each figure comes from. Must not know: who asks.
//! Invariant: counting changes nothing. What waits for a commit is counted as if it were in the index.
//! Trust: internal state. Threads: any.

use std::sync::atomic::Ordering;

use crate::pack::file::Keep;
use crate::store::error::StoreError;
use crate::store::{Shared, Stats};

impl Shared {
    pub(super) fn stats(&self) -> Result<Stats, StoreError> {
        let failed = || StoreError::index::<redb::Error>(&self.index_path);
        let view = self.view()?;
        let rows = view.packs().map_err(failed())?;
        let blob_files = view.blobs().map_err(failed())?;
        let mut objects = view.object_count().map_err(failed())?;
        let mut published_bytes: u64 =
            rows.values().filter(|row| row.keep == Keep::Published).map(|row| row.live_bytes).sum();
        let mut outside_bytes = view.number("outside_bytes").map_err(failed())?;
        for (id, place) in &*self.pending.read().unwrap_or_else(|broken| broken.into_inner()) {
            objects += u64::from(view.find(id).map_err(failed())?.is_none());
            match place.keep() {
                Keep::Published if place.is_outside() => outside_bytes += place.record_len(),
                Keep::Published => published_bytes += place.record_len(),
                Keep::Cache => {}
            }
        }
        Ok(Stats {
            objects,
            published_bytes,
            outside_bytes,
            cached_bytes: self.cache_used.load(Ordering::SeqCst),
            pinned_bytes: view.number("pinned_bytes").map_err(failed())?,
            blob_file_bytes: blob_files.iter().map(|(_, row)| row.disk).sum(),
            blob_files: blob_files.len() as u64,
            packs: rows.len() as u64,
            cache_max_bytes: self.options.cache_max_bytes,
            evicts_above: self.high_water(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            evicted_bytes: self.evicted_bytes.load(Ordering::Relaxed),
            bypassed: self.bypassed.load(Ordering::Relaxed),
        })
    }
}
