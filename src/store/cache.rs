//! The cache: one byte budget, least recently used objects go first, space goes back to the file system.
//!
//! Owns: recency, eviction, holes in cache packs, and the thread that does this off the read path.
//! Must not know: what is worth keeping beyond when it was last used.
//! Invariant: cache packs and blob files never occupy more than the budget: what would exceed it evicts first, or
//! is not stored. Published objects are never touched, and pinned ones at most moved (`compact`). A record is punched only after a durable commit has
//! dropped it from the index.
//! Trust: internal state; what packs say about themselves may be damaged.
//! Threads: `Keeper` runs one thread; everything else runs on the caller's.
//! A crash leaves: records that the index has dropped but that still occupy disk. They stay counted, and go
//! with their pack, or when nothing else is left to evict.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::id::ObjectId;
use crate::pack::file::Keep;
use crate::store::commit::Turn;
use crate::store::error::StoreError;
use crate::store::index::{PackRow, Place};
use crate::store::{Shared, disk, lock};

/// Objects evicted in one index transaction.
const EVICT_BATCH: usize = 4096;

impl Shared {
    /// What eviction goes down to: 90% of the budget.
    fn low_water(&self) -> u64 {
        self.options.cache_max_bytes / 10 * 9
    }

    /// Where the keeper begins to evict: 95% of the budget.
    pub(super) fn high_water(&self) -> u64 {
        self.options.cache_max_bytes / 20 * 19
    }

    pub(super) fn over_high_water(&self) -> bool {
        self.cache_used.load(Ordering::SeqCst) > self.high_water()
    }

    /// What may be in use before something is put: all but a 64th of the budget, which is left to the moving of what
    /// is pinned. Without it, a full cache could not be freed of what lies between pinned records.
    fn put_limit(&self) -> u64 {
        self.options.cache_max_bytes - self.options.cache_max_bytes / 64
    }

    /// Whether `cost` more bytes may be put now.
    pub(super) fn has_room(&self, cost: u64) -> bool {
        self.cache_used.load(Ordering::SeqCst).saturating_add(cost) <= self.put_limit()
    }

    /// Whether `cost` more bytes fit in the budget now.
    pub(super) fn has_room_to_move(&self, cost: u64) -> bool {
        self.cache_used.load(Ordering::SeqCst).saturating_add(cost) <= self.options.cache_max_bytes
    }

    /// Evicts until `cost` more bytes may be put; says whether they may.
    pub(super) fn make_room(&self, cost: u64) -> Result<bool, StoreError> {
        if cost > self.put_limit() {
            return Ok(false);
        }
        let goal = self.low_water().min(self.put_limit() - cost);
        while !self.has_room(cost) {
            if !self.evict_batch(goal)? {
                return Ok(self.has_room(cost));
            }
        }
        Ok(true)
    }

    /// Whether the disk takes `cost` more bytes, and has then enough left for the index.
    pub(super) fn has_space(&self, cost: u64) -> Result<bool, StoreError> {
        let free = self.disk.free_bytes(&self.dir).map_err(StoreError::io("examine", &self.dir))?;
        Ok(free >= cost.saturating_add(self.tuning.headroom))
    }

    /// Evicts until the disk takes `cost` more bytes, whatever the budget says: what is cached is the least that can be
    /// lost on a full disk. False when there is nothing to evict, or the disk does not get emptier by it.
    pub(super) fn make_space(&self, cost: u64) -> Result<bool, StoreError> {
        let free = || self.disk.free_bytes(&self.dir).map_err(StoreError::io("examine", &self.dir));
        let wanted = cost.saturating_add(self.tuning.headroom);
        let mut before = free()?;
        while before < wanted {
            let used = self.cache_used.load(Ordering::SeqCst);
            // Somewhat more than is short, so that not every put evicts.
            let short = (wanted - before).saturating_add(self.options.cache_max_bytes / 64);
            let evicted = self.evict_batch(used.saturating_sub(short))?;
            let now = free()?;
            if !evicted || now <= before {
                return Ok(now >= wanted);
            }
            before = now;
        }
        Ok(true)
    }

    /// Evicts down to the low-water mark.
    fn evict_to_low_water(&self) -> Result<(), StoreError> {
        while self.cache_used.load(Ordering::SeqCst) > self.low_water() {
            if !self.evict_batch(self.low_water())? {
                break;
            }
        }
        Ok(())
    }

    /// Evicts one batch towards `goal` bytes in use; false when nothing is left to evict.
    fn evict_batch(&self, goal: u64) -> Result<bool, StoreError> {
        let turn = self.turn();
        let used = self.cache_used.load(Ordering::SeqCst);
        if used <= goal {
            return Ok(true);
        }
        // What waits for a commit cannot be evicted yet, and is newer than all that can.
        self.commit(&turn)?;
        self.store_touches(&turn)?;
        let oldest = self.view()?.oldest_tick().map_err(StoreError::index(&self.index_path))?;
        if self.evict_blob_file(&turn, oldest)? {
            return Ok(true);
        }
        let victims = self.change_index(&turn, |tables| tables.take_oldest(used - goal, EVICT_BATCH))?;
        let found = !victims.is_empty();
        self.count_evicted(victims.len() as u64, victims.iter().map(Place::record_len).sum());
        self.release(&turn, victims)?;
        // Holes free whole blocks only, and not at all on some file systems. Packs that are mostly dead are then dropped
        // with the rest of what is in them, before more is evicted.
        let mut dropped = false;
        while self.cache_used.load(Ordering::SeqCst) > goal && self.drop_worst_pack(&turn, !found)? {
            dropped = true;
        }
        if !found && !dropped && !self.dead_freed.swap(true, Ordering::Relaxed) {
            return self.free_dead(&turn);
        }
        Ok(found || dropped)
    }

    /// Frees what a crash kept from being freed: records that the index had dropped already. Says whether the cache
    /// occupies less than before.
    fn free_dead(&self, turn: &Turn<'_>) -> Result<bool, StoreError> {
        let rows = self.view()?.packs().map_err(StoreError::index(&self.index_path))?;
        let mut all = 0;
        for (number, row) in rows.iter().filter(|(_, row)| row.keep == Keep::Cache && row.sealed) {
            let freed = self.punch_dead(turn, *number, row)?;
            self.cache_used.fetch_sub(freed, Ordering::SeqCst);
            all += freed;
        }
        Ok(all > 0)
    }

    pub(super) fn count_evicted(&self, objects: u64, bytes: u64) {
        self.evicted.fetch_add(objects, Ordering::Relaxed);
        self.evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Frees what cached places occupy, after a commit has dropped them from the index.
    pub(super) fn release(&self, turn: &Turn<'_>, places: Vec<Place>) -> Result<(), StoreError> {
        let mut by_pack: BTreeMap<u32, Vec<Place>> = BTreeMap::new();
        for place in places.into_iter().filter(|place| place.keep() == Keep::Cache) {
            by_pack.entry(place.pack).or_default().push(place);
        }
        if by_pack.is_empty() {
            return Ok(());
        }
        let rows = self.view()?.packs().map_err(StoreError::index(&self.index_path))?;
        // From here on a reader that found one of these places before may read zeros; it looks again.
        self.holes.fetch_add(1, Ordering::SeqCst);
        let mut dead = Vec::new();
        let mut shrunk = Vec::new();
        for (number, places) in by_pack {
            let Some(row) = rows.get(&number) else { continue };
            if row.sealed && row.live == 0 {
                dead.push((number, row.disk));
            } else {
                shrunk.push((number, self.punch_all(number, row, places)));
            }
        }
        self.change_index(turn, |tables| {
            for (number, _) in &dead {
                tables.remove_pack(*number)?;
            }
            for (number, freed) in &shrunk {
                let row = tables.pack(*number, Keep::Cache)?;
                row.disk = row.disk.saturating_sub(*freed);
            }
            Ok(())
        })?;
        for (number, disk) in dead {
            self.remove_file(number);
            self.cache_used.fetch_sub(disk, Ordering::SeqCst);
        }
        for (_, freed) in shrunk {
            self.cache_used.fetch_sub(freed, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Removes a pack file that the index no longer knows.
    pub(super) fn remove_file(&self, number: u32) {
        if let Err(error) = self.files.remove(number) {
            // It is found again at the next opening.
            tracing::warn!(path = %self.files.path(number).display(), %error, "cannot remove an evicted pack");
        }
    }

    /// Punches the places out of one pack; says how many bytes that freed.
    pub(super) fn punch_all(&self, number: u32, row: &PackRow, places: Vec<Place>) -> u64 {
        let path = self.files.path(number);
        let freed = self.disk.open_for_writing(&path).and_then(|file| {
            let before = disk::occupied(&file.metadata()?);
            for (begin, end) in merged(places) {
                let (begin, end) = widened(&file, begin, end, row.len)?;
                self.disk.punch(&file, begin, end - begin)?;
            }
            let after = disk::occupied(&file.metadata()?);
            // For a sealed pack this also corrects what was counted too high before. The other is being
            // appended to, so that only the difference is certain.
            Ok(if row.sealed {
                row.disk.saturating_sub(after)
            } else {
                before.saturating_sub(after).min(row.disk)
            })
        });
        freed.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot free evicted space");
            0
        })
    }

    /// Notes that a cached object was used. Approximate: when the note-book is full or busy, it is let go.
    pub(super) fn touch(&self, id: &ObjectId, place: &Place) {
        if place.keep() == Keep::Published || place.tick + self.tuning.touch_after > self.tick() {
            return;
        }
        if let Ok(mut touched) = self.touched.try_lock()
            && touched.len() < self.tuning.max_touches
        {
            touched.insert(*id);
            if touched.len() == self.tuning.max_touches {
                self.bell.waiting();
            }
        }
    }

    /// Writes the noted uses to the index, all with the present tick.
    fn store_touches(&self, turn: &Turn<'_>) -> Result<(), StoreError> {
        let mut touched: Vec<ObjectId> = lock(&self.touched).drain().collect();
        if touched.is_empty() {
            return Ok(());
        }
        touched.sort_unstable();
        let tick = self.tick();
        self.change_index(turn, |tables| {
            tables.set("tick", tick)?;
            touched.iter().try_for_each(|id| tables.touch(id, tick))
        })
    }
}

/// The byte ranges of places in one pack, adjacent ones joined.
fn merged(mut places: Vec<Place>) -> Vec<(u64, u64)> {
    places.sort_unstable_by_key(|place| place.offset);
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for place in places {
        let (begin, end) = (u64::from(place.offset), u64::from(place.offset) + place.record_len());
        match ranges.last_mut() {
            Some(last) if last.1 >= begin => last.1 = last.1.max(end),
            _ => ranges.push((begin, end)),
        }
    }
    ranges
}

/// Widens a range to whole blocks where the bytes between are zeros already: those of neighbours punched
/// before. Zeros that a live record happens to have stay zeros. Nothing from `limit` on is touched, because
/// it may be written at this moment.
fn widened(file: &File, begin: u64, end: u64, limit: u64) -> io::Result<(u64, u64)> {
    let block_begin = begin / disk::BLOCK * disk::BLOCK;
    let block_end = end.next_multiple_of(disk::BLOCK);
    let begin = if is_zero(file, block_begin, begin)? { block_begin } else { begin };
    let end = if block_end <= limit && is_zero(file, end, block_end)? { block_end } else { end };
    Ok((begin, end))
}

/// Whether a range of less than a block is all zeros.
fn is_zero(file: &File, begin: u64, end: u64) -> io::Result<bool> {
    let mut bytes = [0; disk::BLOCK as usize];
    let bytes = &mut bytes[..(end - begin) as usize];
    file.read_exact_at(bytes, begin)?;
    Ok(bytes.iter().all(|&byte| byte == 0))
}

/// What the keeper has been asked to do.
#[derive(Default)]
pub(super) struct Wishes {
    stop: bool,
    evict: bool,
    commit: bool,
    /// When the oldest object that waits for a commit was put.
    waiting_since: Option<Instant>,
}

/// How putters talk to the keeper.
#[derive(Default)]
pub(super) struct Bell {
    wishes: Mutex<Wishes>,
    rung: Condvar,
}

impl Bell {
    pub(super) fn evict(&self) {
        lock(&self.wishes).evict = true;
        self.rung.notify_one();
    }

    pub(super) fn commit(&self) {
        lock(&self.wishes).commit = true;
        self.rung.notify_one();
    }

    /// Something waits for a commit: it is to come within the batch age.
    pub(super) fn waiting(&self) {
        let mut wishes = lock(&self.wishes);
        if wishes.waiting_since.is_none() {
            wishes.waiting_since = Some(Instant::now());
            self.rung.notify_one();
        }
    }
}

/// The thread that commits cache fills in batches and evicts. Dropping this ends it and makes the last commit.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("store-keeper".into()).spawn(move || own.keep())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        lock(&self.shared.bell.wishes).stop = true;
        self.shared.bell.rung.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported by its own message.
            let _ = thread.join();
        }
        if self.shared.check_writable().is_ok()
            && let Err(error) = self.shared.commit_all()
        {
            tracing::error!(%error, "the last commit of the store failed");
        }
    }
}

impl Shared {
    fn keep(&self) {
        while let Some(wishes) = self.next_wishes() {
            if self.check_writable().is_err() {
                // The error that stopped the writing has been reported; wait to be stopped.
                continue;
            }
            if let Err(error) = self.fulfil(&wishes) {
                tracing::error!(%error, "the cache cannot be kept");
            }
        }
    }

    /// Waits until something is due; `None` when it is time to end.
    fn next_wishes(&self) -> Option<Wishes> {
        let mut wishes = lock(&self.bell.wishes);
        loop {
            let age = wishes.waiting_since.map(|since| since.elapsed());
            let due = age.is_some_and(|age| age >= self.tuning.batch_age);
            if wishes.stop {
                return None;
            }
            if wishes.evict || wishes.commit || due {
                return Some(std::mem::take(&mut *wishes));
            }
            let patience = age.map_or(self.tuning.batch_age, |age| self.tuning.batch_age - age);
            wishes = match wishes.waiting_since {
                Some(_) => {
                    let woken = self.bell.rung.wait_timeout(wishes, patience);
                    woken.unwrap_or_else(|broken| broken.into_inner()).0
                }
                None => self.bell.rung.wait(wishes).unwrap_or_else(|broken| broken.into_inner()),
            };
        }
    }

    fn commit_all(&self) -> Result<(), StoreError> {
        let turn = self.turn();
        self.commit(&turn)?;
        self.store_touches(&turn)
    }

    fn fulfil(&self, wishes: &Wishes) -> Result<(), StoreError> {
        self.commit_all()?;
        if wishes.evict || self.over_high_water() {
            self.evict_to_low_water()?;
        }
        Ok(())
    }
}
