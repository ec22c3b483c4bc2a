//! Making what was put durable: sync the packs and the files outside, then commit the index, in this order and no other.
//!
//! Owns: the commit, and the memory of a write that failed (after which nothing more is written).
//! Must not know: who put what, or why.
//! Invariant: the index never names a record that has not reached the disk before it.
//! Trust: internal state only.
//! Threads: any; `turn` lets one thread at a time change the index. Readers and putters go on meanwhile.
//! A crash leaves: the previous commit, and whole or torn records behind it in the packs.

use std::os::fd::AsFd;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use crate::id::ObjectId;
use crate::pack::file::Keep;
use crate::store::error::StoreError;
use crate::store::index::{IndexResult, Place, Tables};
use crate::store::packs::Uncommitted;
use crate::store::{Shared, lock};

/// The right to change the index. Taken before the writer's lock, never after.
pub(super) type Turn<'a> = MutexGuard<'a, ()>;

impl Shared {
    pub(super) fn turn(&self) -> Turn<'_> {
        lock(&self.turn)
    }

    /// Refuses to write after a write has failed: what is on disk is no longer known.
    pub(super) fn check_writable(&self) -> Result<(), StoreError> {
        match self.stopped.get() {
            None => Ok(()),
            Some(cause) => Err(StoreError::Stopped { path: self.dir.clone(), cause: cause.clone() }),
        }
    }

    /// Remembers the first failed write and passes the error on.
    pub(super) fn stop_writing(&self, error: StoreError) -> StoreError {
        let cause = error.to_string();
        tracing::error!(%cause, "the store stops writing");
        // Only the first cause counts; a later one follows from it.
        let _ = self.stopped.set(cause);
        error
    }

    /// One durable index transaction. Any failure stops all writing.
    pub(super) fn change_index<T>(
        &self,
        _turn: &Turn<'_>,
        change: impl FnOnce(&mut Tables) -> IndexResult<T>,
    ) -> Result<T, StoreError> {
        self.check_writable()?;
        self.index
            .write(change)
            .map_err(|error| self.stop_writing(StoreError::index(&self.index_path)(error)))
    }

    /// Makes everything put so far durable.
    pub(super) fn commit(&self, turn: &Turn<'_>) -> Result<(), StoreError> {
        self.check_writable()?;
        let (taken, next_number) = {
            let mut writer = lock(&self.writer);
            (std::mem::take(&mut writer.uncommitted), writer.next_number())
        };
        let listings = std::mem::take(&mut *lock(&self.listings));
        if taken.packs.is_empty() && taken.places.is_empty() && listings.is_empty() {
            return Ok(());
        }
        self.sync(&taken).map_err(|error| self.stop_writing(error))?;
        let mut places = taken.places;
        // Sorted keys are several times faster to insert. The sort is stable: of two records of one object
        // the later one stays the later one.
        places.sort_by_key(|(id, _)| *id);
        let (packs, outside) = (taken.packs, taken.outside);
        let next_outside = self.outside.next_number();
        let tick = self.tick();
        let freed = self.change_index(turn, |tables| {
            for (number, grown) in &packs {
                let row = tables.pack(*number, grown.keep)?;
                row.len = grown.len;
                row.records = grown.records;
                row.sealed = grown.sealed;
                row.disk += grown.disk;
            }
            tables.set("tick", tick)?;
            tables.set("next_pack", next_number.into())?;
            if !outside.is_empty() {
                tables.set("next_outside", next_outside.into())?;
                outside.iter().try_for_each(|(number, row)| tables.add_outside(*number, row))?;
            }
            tables.keep_listings(&listings)?;
            settle_all(tables, &places)
        })?;
        self.no_longer_pending(&places);
        self.outside.no_longer_pending(&outside);
        self.release(turn, freed)?;
        Ok(())
    }

    fn sync(&self, taken: &Uncommitted) -> Result<(), StoreError> {
        for (number, grown) in &taken.packs {
            self.disk.sync(&grown.file).map_err(StoreError::io("sync", &self.files.path(*number)))?;
        }
        for (file, path) in taken.file_systems.values() {
            self.disk
                .sync_file_system(file.as_fd())
                .map_err(StoreError::io("sync the file system of", path))?;
        }
        if taken.new_files {
            self.disk.sync_dir(self.files.dir()).map_err(StoreError::io("sync", self.files.dir()))?;
        }
        Ok(())
    }

    fn no_longer_pending(&self, places: &[(ObjectId, Place)]) {
        let mut pending = self.pending.write().unwrap_or_else(|broken| broken.into_inner());
        for (id, place) in places {
            // Another put may have given the object a newer place meanwhile; that one is still pending.
            if pending.get(id) == Some(place) {
                pending.remove(id);
            }
        }
    }

    /// The present tick: it advances with use, not with time.
    pub(super) fn tick(&self) -> u64 {
        self.first_tick + self.uses.load(Ordering::Relaxed) / self.tuning.uses_per_tick
    }
}

/// Settles places sorted by id; returns the cached ones that lost.
fn settle_all(tables: &mut Tables, places: &[(ObjectId, Place)]) -> IndexResult<Vec<Place>> {
    let mut freed = Vec::new();
    for (id, place) in places {
        freed.extend(tables.settle(id, *place)?.filter(|lost| lost.keep() == Keep::Cache));
    }
    Ok(freed)
}
