//! Pins in the index: the table of them, and the marks of the objects that they hold.
//!
//! Owns: `pins.v1`, the epochs of marks, and the count of pinned bytes.
//! Must not know: which objects a pin is of.
//! Invariant: a cached object is held while its tick is [`PINNED`] or more; `pinned_bytes` is the sum of such records.
//! Trust, threads, crash: those of `index`.

use std::collections::HashSet;

use redb::ReadableTable;

#[cfg(test)]
use super::OBJECTS;
use super::{ID_LEN, IndexResult, Key, META, PINNED, PINS, Place, RECENCY, Tables, View, id_of, key};
use crate::id::ObjectId;
use crate::pack::file::Keep;

impl View {
    pub(in crate::store) fn pins(&self) -> IndexResult<Vec<Vec<u8>>> {
        let pins = self.txn.open_table(PINS)?;
        let mut records = Vec::new();
        for row in pins.iter()? {
            records.push(row?.1.value().to_vec());
        }
        Ok(records)
    }

    /// Sum of the records that are held, counted anew.
    #[cfg(test)]
    pub(in crate::store) fn count_pinned(&self) -> IndexResult<u64> {
        let mut bytes = 0;
        for row in self.txn.open_table(OBJECTS)?.iter()? {
            let place = Place::from(row?.1.value());
            bytes += if place.is_pinned() { place.record_len() } else { 0 };
        }
        Ok(bytes)
    }

    /// Whether some object is held only by the mark of an earlier epoch.
    pub(in crate::store) fn has_stale_marks(&self) -> IndexResult<bool> {
        let epoch = self.txn.open_table(META)?.get("pin_epoch")?.map_or(0, |value| value.value());
        let none: Key = [0; ID_LEN + 1];
        let recency = self.txn.open_table(RECENCY)?;
        let mut marks = recency.range::<(u64, &Key)>((PINNED, &none)..(PINNED + epoch, &none))?;
        Ok(marks.next().transpose()?.is_some())
    }
}

impl Tables<'_> {
    pub(in crate::store) fn set_pin(&mut self, key: &[u8; ID_LEN], record: &[u8]) -> IndexResult<()> {
        self.pins.insert(key, record)?;
        Ok(())
    }

    pub(in crate::store) fn remove_pin(&mut self, key: &[u8; ID_LEN]) -> IndexResult<bool> {
        Ok(self.pins.remove(key)?.is_some())
    }

    pub(in crate::store) fn pin_count(&self) -> IndexResult<u64> {
        use redb::ReadableTableMetadata;
        Ok(self.pins.len()?)
    }

    fn number(&self, name: &str) -> IndexResult<u64> {
        Ok(self.meta.get(name)?.map_or(0, |value| value.value()))
    }

    /// Marks from here on outlive [`release_stale`](Self::release_stale); those before do not.
    pub(in crate::store) fn begin_epoch(&mut self) -> IndexResult<()> {
        let next = self.number("pin_epoch")? + 1;
        self.set("pin_epoch", next)
    }

    /// Holds what is cached of `ids`, unless more than `max_bytes` would then be held in all. Those that are not
    /// here; or nothing is changed, and the error is how many bytes would be held.
    pub(in crate::store) fn hold(
        &mut self,
        ids: &[ObjectId],
        max_bytes: u64,
    ) -> IndexResult<Result<Vec<ObjectId>, u64>> {
        let tick = PINNED + self.number("pin_epoch")?;
        let (mut found, mut missing, mut added) = (Vec::new(), Vec::new(), 0);
        // Whoever walks a snapshot meets equal content as often as it is there; its record is one.
        let mut seen = HashSet::new();
        for id in ids.iter().filter(|id| seen.insert(**id)) {
            match self.find(id)? {
                None => missing.push(*id),
                Some(place) if place.keep() == Keep::Cache && place.tick != tick => {
                    added += if place.is_pinned() { 0 } else { place.record_len() };
                    found.push((*id, place));
                }
                Some(_) => {}
            }
        }
        let held = self.number("pinned_bytes")? + added;
        if added > 0 && held > max_bytes {
            return Ok(Err(held));
        }
        for (id, place) in found {
            self.set_tick(&id, place, tick)?;
        }
        Ok(Ok(missing))
    }

    fn set_tick(&mut self, id: &ObjectId, place: Place, tick: u64) -> IndexResult<()> {
        let key = key(id);
        let new = Place { tick, ..place };
        self.recency.remove((place.tick, &key))?;
        self.recency.insert((tick, &key), ())?;
        self.objects.insert(&key, new.row())?;
        self.pinned.0 += if new.is_pinned() { new.record_len() } else { 0 };
        self.pinned.1 += if place.is_pinned() { place.record_len() } else { 0 };
        Ok(())
    }

    /// Makes up to `limit` objects that are held by marks of earlier epochs evictable, as used at `tick`; says how
    /// many there were.
    pub(in crate::store) fn release_stale(&mut self, limit: usize, tick: u64) -> IndexResult<usize> {
        let none: Key = [0; ID_LEN + 1];
        let until = PINNED + self.number("pin_epoch")?;
        let mut stale = Vec::new();
        for row in self.recency.range::<(u64, &Key)>((PINNED, &none)..(until, &none))?.take(limit) {
            stale.push(id_of(row?.0.value().1)?);
        }
        for id in &stale {
            if let Some(place) = self.find(id)?.filter(Place::is_pinned) {
                self.set_tick(id, place, tick)?;
            }
        }
        Ok(stale.len())
    }

    /// Drops those of `ids` that are cached and not held; says where they were.
    pub(in crate::store) fn drop_cached(&mut self, ids: &[ObjectId]) -> IndexResult<Vec<Place>> {
        let mut dropped = Vec::new();
        for id in ids {
            let place = self.find(id)?;
            if let Some(place) = place.filter(|place| place.keep() == Keep::Cache && !place.is_pinned()) {
                self.detach(id, &place)?;
                dropped.push(place);
            }
        }
        Ok(dropped)
    }

    pub(super) fn store_pinned(&mut self) -> IndexResult<()> {
        let (added, taken) = std::mem::take(&mut self.pinned);
        if added != taken {
            let now = (self.number("pinned_bytes")? + added).saturating_sub(taken);
            self.set("pinned_bytes", now)?;
        }
        Ok(())
    }
}
