//! Taking away what was published and is no longer wanted.
//!
//! Owns: the sweep: which objects go, and the freeing of what they occupied. And [`Marks`], by which it is told what stays.
//! Must not know: why something stays.
//! Invariant: an object that was marked stays, and so does what is cached. The record of a snapshot goes before any of
//! its objects.
//! Trust: the marks; nothing may be published between the first mark and the end of the sweep, which is for the caller
//! to see to. What packs say about themselves may be damaged: then less is freed.
//! Threads: the caller's; it can be stopped between two batches.
//! A crash leaves: objects that still have to go, or records without an object that still occupy the disk. The next
//! sweep takes up both.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use crate::id::{ID_LEN, Kind, ObjectId, SnapshotId};
use crate::pack::file::{Keep, trailer_len};
use crate::store::commit::Turn;
use crate::store::error::StoreError;
use crate::store::index::{PackRow, Place};
use crate::store::packs::{WriteFailure, read_trailer};
use crate::store::{Shared, Store, disk, lock};

/// Bits for each object that may be marked. With [`PROBES`] of them set, one in 2,000 objects stays without a mark.
const BITS_PER_OBJECT: u64 = 16;
const PROBES: usize = 8;
/// 2 billion bits are 256 MiB: enough for 8 TiB of chunks of 64 KiB. Beyond that more stays than must.
const MAX_BITS: u64 = 1 << 31;

/// The objects that are to stay.
///
/// A Bloom filter (Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970): what was marked is always
/// found, and of the rest a little by chance, which then stays. The next sweep has another salt, and keeps others.
/// Snapshots are kept exactly: that one is there is how a lost index learns of it.
#[derive(Debug)]
pub struct Marks {
    bits: Vec<u64>,
    salt: [u8; 32],
    snapshots: HashSet<[u8; ID_LEN]>,
}

impl Marks {
    /// For about so many objects. `salt` is random.
    pub(super) fn new(objects: u64, salt: [u8; 32]) -> Self {
        let bits = objects.saturating_mul(BITS_PER_OBJECT).clamp(64, MAX_BITS);
        Self { bits: vec![0; bits.div_ceil(64) as usize], salt, snapshots: HashSet::new() }
    }

    /// An object that is to stay.
    pub fn insert(&mut self, id: &ObjectId) {
        if id.kind == Kind::Snapshot {
            self.snapshots.insert(id.hash);
            return;
        }
        for bit in self.probes(id) {
            self.bits[bit / 64] |= 1 << (bit % 64);
        }
    }

    pub(super) fn contains(&self, id: &ObjectId) -> bool {
        match id.kind {
            Kind::Snapshot => self.snapshots.contains(&id.hash),
            _ => self.probes(id).into_iter().all(|bit| self.bits[bit / 64] & (1 << (bit % 64)) != 0),
        }
    }

    fn probes(&self, id: &ObjectId) -> [usize; PROBES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.salt);
        hasher.update(&[id.kind as u8]).update(&id.hash);
        let mut words = [0; 8 * PROBES];
        hasher.finalize_xof().fill(&mut words);
        let bits = self.bits.len() as u64 * 64;
        let mut probes = [0; PROBES];
        for (probe, word) in probes.iter_mut().zip(words.chunks_exact(8)) {
            let word = word.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
            *probe = (word % bits) as usize;
        }
        probes
    }
}

/// Whether a pack occupies a block more than what is alive in it, and its trailer.
fn is_worth_freeing(row: &PackRow) -> bool {
    row.live == 0 || row.live_bytes + trailer_len(row.records) + 2 * disk::BLOCK < row.disk
}

/// What a sweep has taken away, or would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Objects and the bytes of their records, and of those that are in files outside, which stay where they are.
    pub objects: u64,
    pub bytes: u64,
    pub outside_bytes: u64,
    /// Published objects that stay, and the bytes of their records.
    pub kept_objects: u64,
    pub kept_bytes: u64,
}

impl Swept {
    fn count(&mut self, goes: bool, place: &Place) {
        let (objects, bytes) = match goes {
            true if place.is_outside() => (&mut self.objects, &mut self.outside_bytes),
            true => (&mut self.objects, &mut self.bytes),
            false => (&mut self.kept_objects, &mut self.kept_bytes),
        };
        *objects += 1;
        *bytes += place.record_len();
    }
}

impl Store {
    /// Marks for a sweep of what is published now; `salt` is random.
    pub fn marks(&self, salt: [u8; 32]) -> Result<Marks, StoreError> {
        let shared = self.shared();
        let objects = shared.view()?.object_count().map_err(StoreError::index(&shared.index_path))?;
        Ok(Marks::new(objects, salt))
    }

    /// What [`Store::sweep`] would take away. `progress` is told how many of how many objects are done; when it breaks,
    /// what was counted so far is returned.
    pub fn count_unmarked(
        &self,
        marks: &Marks,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Swept, StoreError> {
        self.commit()?;
        self.shared().walk_published(marks, progress, &mut |_| Ok(()))
    }

    /// Forgets the records of `snapshots` and drops all published objects without a mark, durably, and frees what they
    /// occupy. When `progress` breaks, the rest is left for another time. Sealed packs are freed in blocks of 4 KiB
    /// where the file system can; a pack of which nothing is left is removed.
    pub fn sweep(
        &self,
        marks: &Marks,
        snapshots: &[SnapshotId],
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Swept, StoreError> {
        let shared = self.shared();
        {
            let turn = shared.turn();
            shared.commit(&turn)?;
            shared.change_index(&turn, |tables| {
                snapshots.iter().try_for_each(|id| tables.forget_snapshot(id.as_bytes()))
            })?;
        }
        let mut go_on = true;
        let mut step = |done, total| {
            let step = progress(done, total);
            go_on = step.is_continue();
            step
        };
        let swept = shared.walk_published(marks, &mut step, &mut |ids| {
            shared.change_index(&shared.turn(), |tables| tables.drop_published(ids))
        })?;
        if go_on {
            shared.free_published(progress)?;
            shared.remove_dead_clones()?;
        }
        Ok(swept)
    }
}

impl Shared {
    /// Walks over what is published, and gives what has no mark to `drop`, a batch at a time.
    fn walk_published(
        &self,
        marks: &Marks,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
        drop: &mut dyn FnMut(&[ObjectId]) -> Result<(), StoreError>,
    ) -> Result<Swept, StoreError> {
        let failed = || StoreError::index::<redb::Error>(&self.index_path);
        let total = self.view()?.object_count().map_err(failed())?;
        let (mut swept, mut done, mut last) = (Swept::default(), 0, None);
        loop {
            let batch =
                self.view()?.objects_after(last.as_ref(), self.tuning.sweep_batch).map_err(failed())?;
            let Some((id, _)) = batch.last() else { return Ok(swept) };
            last = Some(*id);
            done += batch.len() as u64;
            let mut unwanted = Vec::new();
            for (id, place) in batch.iter().filter(|(_, place)| place.keep() == Keep::Published) {
                let goes = !marks.contains(id);
                swept.count(goes, place);
                unwanted.extend(goes.then_some(*id));
            }
            if !unwanted.is_empty() {
                drop(&unwanted)?;
            }
            if progress(done, total.max(done)).is_break() {
                return Ok(swept);
            }
        }
    }

    /// Frees what published packs occupy beyond what is alive in them; the one that is appended to last, since it must be sealed
    /// for that, which takes space.
    fn free_published(
        &self,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.free_sealed(progress)?;
        if !self.published_rows()?.iter().any(|(_, row)| is_worth_freeing(row) && !row.sealed) {
            return Ok(());
        }
        {
            let turn = self.turn();
            match lock(&self.writer).seal_current(Keep::Published) {
                Ok(()) => {}
                // Then it is freed another time.
                Err(WriteFailure::Full | WriteFailure::NotBegun(_)) => return Ok(()),
                Err(WriteFailure::Broken(error)) => {
                    return Err(self.stop_writing(StoreError::io("seal a pack in", self.files.dir())(error)));
                }
            }
            self.commit(&turn)?;
        }
        self.free_sealed(progress)
    }

    fn free_sealed(&self, progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>) -> Result<(), StoreError> {
        let mut rows = self.published_rows()?;
        rows.retain(|(_, row)| row.sealed && is_worth_freeing(row));
        let total = rows.len() as u64;
        for (done, (number, row)) in (1..).zip(rows) {
            let turn = self.turn();
            match row.live {
                0 => self.drop_dead_pack(&turn, number)?,
                _ => {
                    self.punch_dead(&turn, number, &row)?;
                }
            }
            drop(turn);
            if progress(done, total).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn published_rows(&self) -> Result<Vec<(u32, PackRow)>, StoreError> {
        let rows = self.view()?.packs().map_err(StoreError::index(&self.index_path))?;
        Ok(rows.into_iter().filter(|(_, row)| row.keep == Keep::Published).collect())
    }

    fn drop_dead_pack(&self, turn: &Turn<'_>, number: u32) -> Result<(), StoreError> {
        self.change_index(turn, |tables| tables.remove_pack(number))?;
        self.holes.fetch_add(1, Ordering::SeqCst);
        self.remove_file(number);
        Ok(())
    }

    /// Punches what no object of the index lies in any more; says how many bytes that freed. A pack that cannot be read,
    /// or whose trailer does not say what is in it, stays as it is: a search for records could find some within others.
    pub(super) fn punch_dead(&self, turn: &Turn<'_>, number: u32, row: &PackRow) -> Result<u64, StoreError> {
        let listed = self.files.file(number).and_then(|file| read_trailer(&file));
        let entries = match listed {
            Ok(Ok((entries, _))) => entries,
            _ => {
                let path = self.files.path(number);
                tracing::warn!(path = %path.display(), "what was dropped of a pack is not freed: it cannot be listed");
                return Ok(0);
            }
        };
        let view = self.view()?;
        let mut dead = Vec::new();
        for entry in entries {
            let header = entry.header;
            let place = Place { pack: number, offset: entry.offset, stored_len: header.stored_len, tick: 0 };
            let now = view.find(&header.id).map_err(StoreError::index(&self.index_path))?;
            if now.is_none_or(|now| !now.is_at(&place)) {
                dead.push(place);
            }
        }
        drop(view);
        // From here on a reader that found one of these places before may read zeros; it looks again.
        self.holes.fetch_add(1, Ordering::SeqCst);
        let freed = self.punch_all(number, row, dead);
        self.change_index(turn, |tables| {
            let row = tables.pack(number, row.keep)?;
            row.disk = row.disk.saturating_sub(freed);
            Ok(())
        })?;
        Ok(freed)
    }
}
