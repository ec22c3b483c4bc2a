//! Re-hashing everything the store has.
//!
//! Owns: the walk. Must not know: what is to be done about a bad object.
//! Invariant: every object that is in the index from beginning to end of the walk is read and hashed once.
//! Trust: none; that is the point.
//! Threads: the caller's; it holds no lock while it reads.

use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::id::{ID_LEN, ObjectId};
use crate::pack::file::Keep;
use crate::store::error::StoreError;
use crate::store::index::Place;
use crate::store::{Found, Shared, Store};

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

/// A part of the store that was hashed again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scrubbed {
    pub corrupt: Vec<Corrupt>,
    pub objects: u64,
    /// Where to go on; nothing at the end.
    pub next: Option<u64>,
}

/// Where an object is among all: its kind, and the first seven bytes of its hash.
fn position(id: &ObjectId) -> u64 {
    id.hash[..7].iter().fold(id.kind as u64, |position, byte| position << 8 | u64::from(*byte))
}

/// The least that may be at a position or behind it, in the order of the index.
fn first_at(position: u64) -> Option<ObjectId> {
    let [kind, bytes @ ..] = position.to_be_bytes();
    let mut hash = [0; ID_LEN];
    hash[..7].copy_from_slice(&bytes);
    Some(ObjectId { kind: kind.try_into().ok()?, hash })
}

impl Store {
    /// Re-hashes up to `limit` objects from a position on, which is 0 for the first, and in all what it was told to go on
    /// with. Lists those that are damaged or cannot be read.
    pub fn verify_from(&self, from: u64, limit: usize) -> Result<Scrubbed, StoreError> {
        let shared = self.shared();
        let Some(first) = first_at(from) else { return Ok(Scrubbed::default()) };
        let batch = shared.view()?.objects_after(Some(&first), limit);
        let batch = batch.map_err(StoreError::index(&shared.index_path))?;
        let mut scrubbed = Scrubbed { objects: batch.len() as u64, ..Scrubbed::default() };
        // Fewer than there may be are the last. Of two objects at one position, the second is passed over: one in 2^56.
        scrubbed.next = batch.last().filter(|_| batch.len() == limit).map(|(id, _)| position(id) + 1);
        for (id, place) in batch {
            scrubbed.corrupt.extend(shared.verify_one(&id, place)?);
        }
        Ok(scrubbed)
    }

    /// Re-hashes all blob files; damaged ones are removed, since all of each is elsewhere. Says which.
    pub fn verify_blob_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        self.shared().verify_blob_files()
    }
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

    /// Whether the walk still comes by it: a sweep may have taken it away meanwhile.
    fn is_listed(&self, id: &ObjectId) -> Result<bool, StoreError> {
        self.view()?.lists(id).map_err(StoreError::index(&self.index_path))
    }

    /// Reads and hashes one object, unless it has been evicted meanwhile. A record that the disk does not give, such
    /// as one on a bad sector, is damaged like one that it gives wrong: the others are still to be looked at.
    fn verify_one(&self, id: &ObjectId, listed: Place) -> Result<Option<Corrupt>, StoreError> {
        let (place, cause) = match self.find_and_read(id) {
            // The walk comes by it, but a look-up does not.
            Ok(None) if listed.keep() == Keep::Published && self.is_listed(id)? => {
                (listed, "the index does not find it".to_owned())
            }
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
