//! What a sweep changes in the index, and how somebody else tells it from damage.
//!
//! Owns: no table. Must not know: why something goes.
//! Invariant, trust, threads, what a crash leaves: those of `index`.

use super::{ID_LEN, IndexResult, Key, OBJECTS, Tables, View, key};
use crate::id::ObjectId;
use crate::pack::file::Keep;

impl View {
    /// Whether a walk over all objects comes by one: in a sound index exactly if a look-up finds it.
    pub(in crate::store) fn lists(&self, id: &ObjectId) -> IndexResult<bool> {
        let key = key(id);
        Ok(self.txn.open_table(OBJECTS)?.range::<&Key>(&key..=&key)?.next().transpose()?.is_some())
    }
}

impl Tables<'_> {
    pub(in crate::store) fn forget_snapshot(&mut self, id: &[u8; ID_LEN]) -> IndexResult<()> {
        self.snapshots.remove(id)?;
        Ok(())
    }

    /// Drops those of `ids` that are published.
    pub(in crate::store) fn drop_published(&mut self, ids: &[ObjectId]) -> IndexResult<()> {
        for id in ids {
            if let Some(place) = self.find(id)?.filter(|place| place.keep() == Keep::Published) {
                self.detach(id, &place)?;
            }
        }
        Ok(())
    }
}
