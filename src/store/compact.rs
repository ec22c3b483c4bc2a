//! Dropping whole packs of the cache: those that are mostly dead, once what pins hold in them has been copied.
//!
//! Owns: the choice of the pack, and the copies.
//! Must not know: what is to be evicted of a pack that stays (`cache`), nor which objects a pin is of.
//! Invariant: a pinned record goes only when a later one of the same object is in the index. One that cannot be read
//! keeps its pack, so that its damage is seen, and mended, as that of an object which is here.
//! Trust: what packs say about themselves may be damaged; what is copied is verified.
//! Threads: those that evict, one at a time (`turn`).
//! A crash leaves: two records of what was being copied, of which the later counts, or a pack file that the index does
//! not know. Both are freed with their packs.

use std::sync::atomic::Ordering;

use crate::id::ObjectId;
use crate::pack::Checked;
use crate::pack::file::Keep;
use crate::store::commit::Turn;
use crate::store::error::StoreError;
use crate::store::index::{PackRow, Place};
use crate::store::packs::WriteFailure;
use crate::store::{Shared, disk, lock};

/// Packs tried in one go. Some may hold what cannot be moved.
const MAX_TRIES: usize = 8;

/// What moving must free at least, as a part of what the pack occupies.
const WORTH: u64 = 8;

/// What became of the pinned records of a pack.
struct Moved {
    /// None is left in it.
    all: bool,
    /// Bytes that the copies take.
    bytes: u64,
}

impl Shared {
    /// Drops the cache pack of which the least is alive, if it is worth it: less must be lost than was dead already,
    /// and what is pinned is copied before. With `whatever`, because nothing is left to evict, this may be the pack
    /// that is appended to. Says whether the cache occupies less than before.
    pub(super) fn drop_worst_pack(&self, turn: &Turn<'_>, whatever: bool) -> Result<bool, StoreError> {
        let view = self.view()?;
        let pinned = view.number("pinned_bytes").map_err(StoreError::index(&self.index_path))?;
        let rows = view.packs().map_err(StoreError::index(&self.index_path))?;
        drop(view);
        let any = whatever && pinned == 0;
        let may_go = |row: &PackRow| {
            let dead = row.disk.saturating_sub(row.live_bytes);
            row.keep == Keep::Cache && (row.sealed || whatever) && (any || dead >= row.disk / WORTH)
        };
        let mut packs: Vec<(u32, PackRow)> = rows.into_iter().filter(|(_, row)| may_go(row)).collect();
        packs.sort_by_key(|(_, row)| (!row.sealed, row.live_bytes.saturating_mul(1000) / row.disk.max(1)));
        for (number, row) in packs.into_iter().take(MAX_TRIES) {
            if self.drop_pack(turn, number, row, any)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Drops a pack if that is worth it, or if it is to go in `any` case; says whether the cache occupies less.
    fn drop_pack(
        &self,
        turn: &Turn<'_>,
        number: u32,
        mut row: PackRow,
        any: bool,
    ) -> Result<bool, StoreError> {
        let mut places = match self.places_in(number, &row) {
            Ok(places) => places,
            Err(StoreError::Io { .. }) if any => Vec::new(),
            // What is pinned in there cannot be told.
            Err(StoreError::Io { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let ids: Vec<ObjectId> = places.iter().map(|(id, _)| *id).collect();
        places.retain(|(_, place)| place.is_pinned());
        let kept: u64 = places.iter().map(|(_, place)| place.record_len()).sum();
        let lost = row.live_bytes.saturating_sub(kept);
        // The copies may begin a pack, and another.
        let overhead = if places.is_empty() { 0 } else { 2 * disk::BLOCK };
        let gained = row.disk.saturating_sub(kept + overhead);
        let worth = lost < row.disk.saturating_sub(row.live_bytes) && gained >= row.disk / WORTH;
        if !any && !worth {
            return Ok(false);
        }
        if !row.sealed {
            lock(&self.writer).retire_cache();
            self.commit(turn)?;
            let Some(now) = self.pack_row(number)?.filter(|now| now.sealed && now.len == row.len) else {
                // It has grown meanwhile: it is looked at anew.
                return Ok(false);
            };
            row = now;
        }
        let moved = self.move_pinned(turn, places)?;
        let Some(now) = self.pack_row(number)? else {
            // Nothing else was in it.
            return Ok(row.disk > moved.bytes);
        };
        if !moved.all {
            return Ok(row.disk.saturating_sub(now.disk) > moved.bytes);
        }
        let Some(dropped) = self.change_index(turn, |tables| tables.drop_pack(number, &ids))? else {
            let path = self.files.path(number);
            tracing::warn!(path = %path.display(), "an evicted pack is kept: it does not list all that is pinned in it");
            return Ok(false);
        };
        self.count_evicted(dropped, now.live_bytes);
        self.holes.fetch_add(1, Ordering::SeqCst);
        self.remove_file(number);
        self.cache_used.fetch_sub(now.disk, Ordering::SeqCst);
        Ok(row.disk > moved.bytes)
    }

    fn pack_row(&self, number: u32) -> Result<Option<PackRow>, StoreError> {
        let rows = self.view()?.packs().map_err(StoreError::index(&self.index_path))?;
        Ok(rows.get(&number).copied())
    }

    /// What lies in a pack, as far as the pack names it.
    fn places_in(&self, number: u32, row: &PackRow) -> Result<Vec<(ObjectId, Place)>, StoreError> {
        let entries = self.files.entries(number, row.len);
        let entries = entries.map_err(StoreError::io("list", &self.files.path(number)))?;
        let view = self.view()?;
        let mut places = Vec::new();
        for id in entries.iter().map(|entry| entry.header.id) {
            let place = view.find(&id).map_err(StoreError::index(&self.index_path))?;
            places.extend(place.filter(|place| place.pack == number).map(|place| (id, place)));
        }
        // Two records of one object are listed, and one of them counts.
        places.sort_unstable_by_key(|(_, place)| place.offset);
        places.dedup();
        Ok(places)
    }

    /// Copies pinned records to the current pack, in their order until there is no room; those copied are freed.
    /// Where the file system can, that makes room for more of them the next time.
    fn move_pinned(&self, turn: &Turn<'_>, pinned: Vec<(ObjectId, Place)>) -> Result<Moved, StoreError> {
        let mut moved = Moved { all: true, bytes: 0 };
        for (id, place) in pinned {
            let Some(object) = self.sound(&id)? else {
                // The others can be moved still.
                moved.all = false;
                continue;
            };
            match self.append_copy(&object, place.tick)? {
                Some(bytes) => moved.bytes += bytes,
                None => {
                    moved.all = false;
                    break;
                }
            }
        }
        self.commit(turn)?;
        Ok(moved)
    }

    /// Appends another record of a cached object, if that fits; says by how many bytes the cache has grown.
    fn append_copy(&self, object: &Checked, tick: u64) -> Result<Option<u64>, StoreError> {
        let mut writer = lock(&self.writer);
        let cost = writer.cost(object, Keep::Cache);
        if !self.has_room_to_move(cost) || !self.has_space(cost)? {
            return Ok(None);
        }
        let appended = writer.append(&[object], Keep::Cache, tick);
        let grown = std::mem::take(&mut writer.cache_growth);
        self.cache_used.fetch_add(grown, Ordering::SeqCst);
        match appended {
            Ok(places) => {
                let mut pending = self.pending.write().unwrap_or_else(|broken| broken.into_inner());
                pending.extend(places.into_iter().map(|place| (object.id(), place)));
                Ok(Some(grown))
            }
            Err(WriteFailure::Full | WriteFailure::NotBegun(_)) => Ok(None),
            Err(WriteFailure::Broken(error)) => {
                Err(self.stop_writing(StoreError::io("append to", self.files.dir())(error)))
            }
        }
    }
}
