//! Storing very many objects that are to be kept: a look-up, a check for space and a write for a group of them.
//!
//! Owns: the groups. Must not know: who publishes.
//! Invariant: as for one object at a time: each is stored once, and those before one that fails are stored.
//! Trust: callers. Threads: any; the writer is locked for one group at a time.
//! A crash leaves: whole records behind the last commit, and perhaps a torn one.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use crate::id::ObjectId;
use crate::pack::Checked;
use crate::pack::file::{Keep, MAX_RECORDS, record_len, trailer_len};
use crate::store::error::StoreError;
use crate::store::{Put, Shared, disk, lock};

/// A group ends after this many objects or stored bytes, so that nobody waits long for the writer. Longer writes than
/// these were measured to be slower on a virtual machine: the kernel takes fresh large pages for them.
const GROUP_OBJECTS: usize = 512;
const GROUP_BYTES: usize = 256 << 10;

impl Shared {
    /// Which of `ids` would be stored by a put with `keep`, in their order.
    pub(super) fn missing(&self, ids: &[ObjectId], keep: Keep) -> Result<Vec<ObjectId>, StoreError> {
        let unknown: Vec<ObjectId> = {
            let pending = self.pending.read().unwrap_or_else(|broken| broken.into_inner());
            let known = |id| pending.get(id).is_some_and(|place| place.is_kept(keep));
            ids.iter().filter(|id| !known(*id)).copied().collect()
        };
        self.view()?.missing(&unknown, keep).map_err(StoreError::index(&self.index_path))
    }

    /// How many bytes each of `ids` is stored as, in their order; nothing for what is not here.
    pub(super) fn stored_lens(&self, ids: &[ObjectId]) -> Result<Vec<Option<u32>>, StoreError> {
        // The index last: what leaves `pending` is in it.
        let pending: Vec<Option<u32>> = {
            let pending = self.pending.read().unwrap_or_else(|broken| broken.into_inner());
            ids.iter().map(|id| pending.get(id).map(|place| place.stored_len)).collect()
        };
        let indexed = self.view()?.stored_lens(ids).map_err(StoreError::index(&self.index_path))?;
        Ok(pending.into_iter().zip(indexed).map(|(pending, indexed)| pending.or(indexed)).collect())
    }

    /// Stores what is not published yet, and adds it to `put`.
    pub(super) fn put_published(&self, mut objects: &[Checked], put: &mut Put) -> Result<(), StoreError> {
        while !objects.is_empty() {
            let mut bytes = 0;
            let fits = |object: &&Checked| {
                let fits = bytes < GROUP_BYTES;
                bytes += object.packed().stored().len();
                fits
            };
            let len = objects.iter().take(GROUP_OBJECTS).take_while(fits).count();
            let (group, rest) = objects.split_at(len);
            self.put_group(group, put)?;
            objects = rest;
        }
        Ok(())
    }

    fn put_group(&self, group: &[Checked], put: &mut Put) -> Result<(), StoreError> {
        self.check_writable()?;
        let mut writer = lock(&self.writer);
        let ids: Vec<ObjectId> = group.iter().map(Checked::id).collect();
        let mut missing: HashSet<ObjectId> = self.missing(&ids, Keep::Published)?.into_iter().collect();
        let new: Vec<&Checked> = group.iter().filter(|object| missing.remove(&object.id())).collect();
        if new.is_empty() {
            return Ok(());
        }
        let records: u64 = new.iter().map(|object| record_len(object.packed().stored().len() as u32)).sum();
        let cost = records + trailer_len(MAX_RECORDS) + 2 * disk::BLOCK;
        if !self.has_space(cost)? {
            drop(writer);
            return self.put_singly(&new, put);
        }
        let mut rest = &new[..];
        while !rest.is_empty() {
            let places = match writer.append(rest, Keep::Published, 0) {
                Ok(places) => places,
                Err(super::packs::WriteFailure::Full) => {
                    drop(writer);
                    return self.put_singly(rest, put);
                }
                Err(failure) => return self.append_failed(failure, Keep::Published, cost).map(|_| ()),
            };
            let (stored, left) = rest.split_at(places.len());
            let mut pending = self.pending.write().unwrap_or_else(|broken| broken.into_inner());
            for (object, place) in stored.iter().zip(places) {
                pending.insert(object.id(), place);
                put.objects += 1;
                put.stored_bytes += object.packed().stored().len() as u64;
            }
            rest = left;
        }
        let (bytes, places) = (writer.uncommitted.bytes, writer.uncommitted.places.len());
        drop(writer);
        self.uses.fetch_add(new.len() as u64, Ordering::Relaxed);
        self.after_put(Keep::Published, bytes, places)
    }

    /// When space is short: as many as there is room for.
    fn put_singly(&self, objects: &[&Checked], put: &mut Put) -> Result<(), StoreError> {
        for object in objects {
            if self.put_one(object, Keep::Published, None)? {
                put.objects += 1;
                put.stored_bytes += object.packed().stored().len() as u64;
            }
        }
        Ok(())
    }
}
