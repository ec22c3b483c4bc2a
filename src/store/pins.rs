//! Pins: cached objects that are not evicted, and why.
//!
//! Owns: the records of pins, the marks of what they hold, and how much of the budget they may take.
//! Must not know: which objects a pin is of; whoever makes one walks the snapshot and has them held.
//! Invariant: a held object is in the cache until it is published, or released. Pins never hold more than
//! [`Options::pins_max_bytes`]. A pin whose record says that it is whole has all its objects held.
//! Trust: records come from the index, which may be damaged; decoding is checked and bounded.
//! Threads: any. Holding for one pin while another is released is for the caller to prevent.
//! A crash leaves: marks of a pin that is not whole, or that is gone. The first are taken up when it is gone on with,
//! the others are stale after the next epoch.
//!
//! To release a pin, its record is removed and an epoch begun; what the remaining pins are of is held again, with the
//! mark of that epoch; what still has an earlier mark is nobody's, and is released. That needs neither counts of
//! references nor a set of objects in memory, and it can be interrupted anywhere: then too much is held, until it is
//! done again.

use crate::codec;
use crate::id::{BlobId, ID_LEN, Kind, ObjectId};
use crate::store::error::StoreError;
use crate::store::{Options, PinRecord, Store};

/// Pins of one store, replicas among them. Each is walked when another is released.
const MAX_PINS: u64 = 1024;

/// Objects released in one transaction.
const BATCH: usize = 4096;

impl Options {
    /// What pins may hold: four fifths of the budget of the cache, so that what is read has room too.
    pub fn pins_max_bytes(&self) -> u64 {
        self.cache_max_bytes / 5 * 4
    }
}

impl PinRecord {
    /// Whether both are pins of the same.
    pub fn is_same(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    /// What makes it another pin: the snapshot, and the paths in it; a replica is one besides what the user pins.
    pub(super) fn key(&self) -> [u8; ID_LEN] {
        let key = match &self.replica_of {
            None => codec::encode(&(self.snapshot, &self.paths)),
            Some(network) => codec::encode(&(self.snapshot, &self.paths, network)),
        };
        *blake3::hash(&key).as_bytes()
    }
}

impl Store {
    /// All pins, in no order.
    pub fn pins(&self) -> Result<Vec<PinRecord>, StoreError> {
        let shared = self.shared();
        let records = shared.view()?.pins().map_err(StoreError::index(&shared.index_path))?;
        let damaged = |cause| StoreError::Record { path: shared.index_path.clone(), cause };
        records.iter().map(|bytes| PinRecord::decode(bytes)).collect::<Result<_, _>>().map_err(damaged)
    }

    /// Remembers a pin, durably; the record of a pin of the same is replaced.
    pub fn set_pin(&self, record: &PinRecord) -> Result<(), StoreError> {
        let shared = self.shared();
        let bytes = codec::encode(record);
        PinRecord::decode(&bytes)
            .map_err(|cause| StoreError::Record { path: shared.index_path.clone(), cause })?;
        let known = self.pins()?.iter().any(|known| known.key() == record.key());
        let turn = shared.turn();
        let kept = shared.change_index(&turn, |tables| {
            let room = known || tables.pin_count()? < MAX_PINS;
            if room {
                tables.set_pin(&record.key(), &bytes)?;
            }
            Ok(room)
        })?;
        if kept { Ok(()) } else { Err(StoreError::TooManyPins { path: shared.dir.clone(), max: MAX_PINS }) }
    }

    /// Forgets a pin, durably; says whether there was one. Its objects stay held until what the others hold has been
    /// held again and [`Store::release_stale`] is called.
    pub fn remove_pin(&self, record: &PinRecord) -> Result<bool, StoreError> {
        let shared = self.shared();
        shared.change_index(&shared.turn(), |tables| {
            let removed = tables.remove_pin(&record.key())?;
            if removed {
                tables.begin_epoch()?;
            }
            Ok(removed)
        })
    }

    /// Keeps what is cached of `ids` from being evicted, durably. Those that are not here are returned; published
    /// ones are kept anyway. [`StoreError::PinsFull`], and nothing is changed, if pins would hold too much.
    pub fn hold(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, StoreError> {
        let shared = self.shared();
        let max = shared.options.pins_max_bytes();
        let turn = shared.turn();
        // What waits for a commit has no row to mark.
        shared.commit(&turn)?;
        let held = shared.change_index(&turn, |tables| tables.hold(ids, max))?;
        held.map_err(|needed| StoreError::PinsFull { path: shared.dir.clone(), needed, max })
    }

    /// Whether objects are held for a pin that is gone, because releasing it was interrupted.
    pub fn has_stale_marks(&self) -> Result<bool, StoreError> {
        let shared = self.shared();
        shared.view()?.has_stale_marks().map_err(StoreError::index(&shared.index_path))
    }

    /// Makes evictable again, a batch at a time, what was not held again since the last pin was removed; false when
    /// there is no more.
    pub fn release_stale(&self) -> Result<bool, StoreError> {
        let shared = self.shared();
        let tick = shared.tick();
        let released = shared.change_index(&shared.turn(), |tables| tables.release_stale(BATCH, tick))?;
        Ok(released == BATCH)
    }

    /// Drops those of `ids` that are cached and not pinned, and the blob files of blobs among them that nobody uses.
    /// Says how many bytes of records and files went.
    pub fn evict(&self, ids: &[ObjectId]) -> Result<u64, StoreError> {
        let shared = self.shared();
        shared.check_writable()?;
        let turn = shared.turn();
        shared.commit(&turn)?;
        let mut bytes = 0;
        for id in ids.iter().filter(|id| id.kind == Kind::Blob) {
            if !shared.find(id)?.is_some_and(|place| place.is_pinned()) {
                bytes += shared.drop_unused_blob_file(&turn, &BlobId::from_bytes(id.hash))?;
            }
        }
        let dropped = shared.change_index(&turn, |tables| tables.drop_cached(ids))?;
        let records = dropped.iter().map(|place| place.record_len()).sum::<u64>();
        shared.count_evicted(dropped.len() as u64, records);
        shared.release(&turn, dropped)?;
        Ok(bytes + records)
    }
}
