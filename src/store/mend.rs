//! What becomes of an object whose record on disk is not what its id says.
//!
//! Owns: the decision to forget a damaged record or to put a good one in its place.
//! Must not know: where a good copy comes from.
//! Invariant: a published or pinned object stays in the index until a good copy takes its place, so that damage to the only
//! copy is seen by whoever verifies; and nothing is given up that reads well.
//! Trust: none in the disk, and none in the caller's opinion of it: a record is read again before it is given up.
//! Threads: any.
//! A crash leaves: the damaged record or the good one. Recovery lets the later of two records win, and the good one
//! is later: the pack that is appended to is the newest of its class.

use crate::id::ObjectId;
use crate::pack::Checked;
use crate::pack::file::Keep;
use crate::store::Shared;
use crate::store::error::StoreError;
use crate::store::index::Place;

impl Shared {
    /// Where the object lies, if what lies there is something else.
    fn damaged(&self, id: &ObjectId) -> Result<Option<Place>, StoreError> {
        let Some(found) = self.find_and_read(id)? else { return Ok(None) };
        let sound = found.packed.is_ok_and(|packed| packed.verify(id).is_ok());
        Ok((!sound).then_some(found.place))
    }

    /// The object, if what is here of it can be read and is right.
    pub(super) fn sound(&self, id: &ObjectId) -> Result<Option<Checked>, StoreError> {
        match self.find_and_read(id) {
            Ok(found) => Ok(found.and_then(|found| found.packed.ok()?.verify(id).ok())),
            // A bad sector, for one.
            Err(StoreError::Io { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Drops a cached object, if it is damaged where it lies now, and nobody holds it.
    pub(super) fn forget(&self, id: &ObjectId) -> Result<bool, StoreError> {
        self.check_writable()?;
        let evictable = |place: &Place| place.keep() == Keep::Cache && !place.is_pinned();
        let Some(bad) = self.damaged(id)?.filter(evictable) else { return Ok(false) };
        let turn = self.turn();
        // It may wait for a commit itself. Once in the index, it is dropped and its bytes freed like any other, so
        // that no recovery finds it again.
        self.commit(&turn)?;
        let freed = self.change_index(&turn, |tables| tables.forget(id, &bad))?;
        let forgotten = freed.is_some();
        self.release(&turn, freed.into_iter().collect())?;
        Ok(forgotten)
    }

    /// Appends a good copy of what is damaged or cannot be read, in the class that it has. What was in a file outside
    /// is in a pack from then on.
    pub(super) fn replace(&self, object: &Checked) -> Result<bool, StoreError> {
        let bad = match self.damaged(&object.id()) {
            // A bad sector, for one. If it was only a moment's trouble, the copy costs space and no more.
            Err(StoreError::Io { .. }) => self.find(&object.id())?,
            damaged => damaged?,
        };
        let replaced = self.put_one(object, bad.map_or(Keep::Cache, |bad| bad.keep()), bad)?;
        if replaced {
            // Nobody commits for its sake.
            self.bell.waiting();
        }
        Ok(replaced)
    }
}
