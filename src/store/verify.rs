//! Re-hashing everything the store has.
//!
//! Owns: the walk. Must not know: what is to be done about a bad object.
//! Invariant: every object that is in the index from beginning to end of the walk is read and hashed once.
//! Trust: none; that is the point.
//! Threads: the caller's; it holds no lock while it reads.

use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::id::ObjectId;
use crate::pack::file::Keep;
use crate::store::error::StoreError;
use crate::store::index::Place;
use crate::store::{Found, Shared};

/// Objects looked at between two looks into the index; with their places 12 MiB. Within a batch the reads
/// go through the packs in order.
const BATCH: usize = 128 << 10;

/// An object that is not what its id says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrupt {
    pub id: ObjectId,
    pub keep: Keep,
    /// The pack it lies in, or the file that was published in place.
    pub path: PathBuf,
    /// Where it begins in there, in bytes.
    pub offset: u64,
    /// What is wrong, in words.
    pub cause: String,
}

impl Shared {
    pub(super) fn verify_all(
        &self,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Vec<Corrupt>, StoreError> {
        let failed = || StoreError::index::<redb::Error>(&self.index_path);
        let total = self.view()?.object_count().map_err(failed())?;
        let (mut done, mut corrupt, mut last) = (0, Vec::new(), None);
        loop {
            let mut batch = self.view()?.objects_after(last.as_ref(), BATCH).map_err(failed())?;
            let Some((id, _)) = batch.last() else { break };
            last = Some(*id);
            batch.sort_unstable_by_key(|(_, place)| (place.pack, place.offset));
            for (id, place) in batch {
                corrupt.extend(self.verify_one(&id, place)?);
                done += 1;
                if progress(done, total.max(done)).is_break() {
                    return Ok(corrupt);
                }
            }
        }
        Ok(corrupt)
    }

    /// Reads and hashes one object, unless it has been evicted meanwhile. A record that the disk does not give, such
    /// as one on a bad sector, is damaged like one that it gives wrong: the others are still to be looked at.
    fn verify_one(&self, id: &ObjectId, listed: Place) -> Result<Option<Corrupt>, StoreError> {
        let (place, cause) = match self.find_and_read(id) {
            // The walk comes by it, but a look-up does not; nothing evicts what is published.
            Ok(None) if listed.keep() == Keep::Published => (listed, "the index does not find it".to_owned()),
            Ok(None) => return Ok(None),
            Ok(Some(Found { place, packed })) => match packed.map(|packed| packed.verify(id)) {
                Ok(Ok(_)) => return Ok(None),
                Ok(Err(error)) | Err(StoreError::Corrupt { cause: error, .. }) => (place, error.to_string()),
                Err(StoreError::Outside { cause, .. }) => {
                    (place, format!("{cause}; publish it again, or restore the file"))
                }
                Err(error) => return Err(error),
            },
            Err(error @ StoreError::Io { .. }) => (self.find(id)?.unwrap_or(listed), error.to_string()),
            Err(error) => return Err(error),
        };
        let (path, offset) = self.located(&place)?;
        Ok(Some(Corrupt { id: *id, keep: place.keep(), path, offset, cause }))
    }
}
