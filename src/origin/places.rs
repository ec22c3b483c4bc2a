//! Where an object is in an origin: from its id to a pack and a place in it, by reading little and remembering it.
//!
//! Owns: which snapshots the origin is asked about, and what has been read of their catalogues and packs' trailers.
//! Must not know: how objects are read.
//! Invariant: a place lies within the records of its pack and is for the very object. Memory is bounded whatever the
//! files say.
//! Trust: none in the files; a place may be wrong, which the object's hash shows.
//! Threads: async; locks are held for bookkeeping only.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lru::LruCache;

use super::catalogue::{Front, Header, PackRow};
use super::error::OriginError;
use super::memory::Memory;
use super::remote::Remote;
use crate::id::{ID_LEN, Kind, ObjectId, SnapshotId};
use crate::pack::file::{Entry, Footer, MAX_RECORDS, trailer_len};

/// Snapshots asked about at a time; of more, those that were used least recently are forgotten.
const SNAPSHOTS: NonZeroUsize = NonZeroUsize::new(64).expect("is not zero");
/// Bytes read of a catalogue at first: all of one of 20,000 objects.
const FIRST: u64 = 256 << 10;
/// How long an origin is believed not to have a snapshot.
const ABSENT_FOR: Duration = Duration::from_secs(10);
/// Memory for catalogues without their rows, for shards of rows, and for trailers, in bytes.
const CATALOGUES: usize = 32 << 20;
const SHARDS: usize = 16 << 20;
const TRAILERS: usize = 32 << 20;
/// Packs that an object is looked for in first: its neighbours were there a moment ago.
const RECENT: usize = 8;

/// The path of a pack below the origin.
pub(super) fn pack_name(hash: &[u8; ID_LEN]) -> String {
    format!("packs/{}.pack", blake3::Hash::from_bytes(*hash))
}

/// The path of a catalogue below the origin.
pub(super) fn catalogue_name(snapshot: &SnapshotId) -> String {
    format!("snapshots/{snapshot}.catalogue")
}

/// An object in a pack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub pack: PackRow,
    pub entry: Entry,
}

/// What is in one pack.
struct Trailer {
    pack: PackRow,
    entries: Vec<Entry>,
}

impl Trailer {
    fn find(&self, id: &ObjectId) -> Option<Found> {
        let key = |entry: &Entry| (entry.header.id.hash, entry.header.id.kind);
        let at = self.entries.partition_point(|entry| key(entry) < (id.hash, id.kind));
        let entry = *self.entries.get(at).filter(|entry| entry.header.id == *id)?;
        Some(Found { pack: self.pack, entry })
    }
}

enum Known {
    Here(Catalogue),
    /// Not there, as of then.
    Absent(Instant),
}

struct Catalogue {
    front: Front,
    front_len: usize,
    /// The start of the file, as far as it was read.
    start: Bytes,
}

pub(super) struct Places {
    remote: Arc<Remote>,
    snapshots: Mutex<LruCache<SnapshotId, ()>>,
    catalogues: Memory<SnapshotId, Known>,
    shards: Memory<(SnapshotId, u32), Bytes>,
    trailers: Memory<[u8; ID_LEN], Trailer>,
    /// The trailers that gave a place last, the latest first.
    recent: Mutex<VecDeque<Arc<Trailer>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No operation on what these hold can leave it half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    pub(super) fn new(remote: Arc<Remote>) -> Self {
        Self {
            remote,
            snapshots: Mutex::new(LruCache::new(SNAPSHOTS)),
            catalogues: Memory::new(CATALOGUES),
            shards: Memory::new(SHARDS),
            trailers: Memory::new(TRAILERS),
            recent: Mutex::default(),
        }
    }

    /// Looks for objects in what the origin has of this snapshot, too.
    pub(super) fn attend(&self, snapshot: SnapshotId) {
        locked(&self.snapshots).put(snapshot, ());
    }

    /// Where the object is, if a snapshot that is attended to has it. Of several failures, the last.
    pub(super) async fn find(&self, id: &ObjectId) -> Result<Option<Found>, OriginError> {
        if let Some(found) = self.find_recent(id) {
            return Ok(Some(found));
        }
        if id.kind == Kind::Snapshot {
            self.attend(SnapshotId::from_bytes(id.hash));
        }
        let snapshots: Vec<SnapshotId> = locked(&self.snapshots).iter().map(|(id, ())| *id).collect();
        let mut failed = None;
        for snapshot in snapshots {
            match self.find_in(snapshot, id).await {
                Ok(Some(found)) => {
                    locked(&self.snapshots).promote(&snapshot);
                    return Ok(Some(found));
                }
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// The packs that hold a snapshot, if the origin has it.
    pub(super) async fn packs(&self, snapshot: SnapshotId) -> Result<Option<Vec<PackRow>>, OriginError> {
        Ok(match &*self.catalogue(snapshot).await? {
            Known::Here(catalogue) => Some(catalogue.front.packs.clone()),
            Known::Absent(_) => None,
        })
    }

    fn find_recent(&self, id: &ObjectId) -> Option<Found> {
        let mut recent = locked(&self.recent);
        let (at, found) =
            recent.iter().enumerate().find_map(|(at, trailer)| Some((at, trailer.find(id)?)))?;
        if let Some(trailer) = recent.remove(at) {
            recent.push_front(trailer);
        }
        Some(found)
    }

    async fn find_in(&self, snapshot: SnapshotId, id: &ObjectId) -> Result<Option<Found>, OriginError> {
        let known = self.catalogue(snapshot).await?;
        let Known::Here(catalogue) = &*known else { return Ok(None) };
        let shard = catalogue.front.shard(&id.hash);
        let load = self.load_shard(snapshot, catalogue, shard);
        let rows = self.shards.get((snapshot, shard), load).await?;
        let mut failed = None;
        for pack in catalogue.front.candidates(&id.hash, &rows) {
            match self.trailers.get(pack.hash, self.load_trailer(pack)).await {
                Ok(trailer) => {
                    if let Some(found) = trailer.find(id) {
                        self.remember(trailer);
                        return Ok(Some(found));
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    fn remember(&self, trailer: Arc<Trailer>) {
        let mut recent = locked(&self.recent);
        recent.retain(|known| known.pack != trailer.pack);
        recent.push_front(trailer);
        recent.truncate(RECENT);
    }

    async fn catalogue(&self, snapshot: SnapshotId) -> Result<Arc<Known>, OriginError> {
        let known = self.catalogues.get(snapshot, self.load_catalogue(snapshot)).await?;
        match &*known {
            Known::Absent(since) if since.elapsed() > ABSENT_FOR => {
                self.catalogues.forget(&snapshot);
                self.catalogues.get(snapshot, self.load_catalogue(snapshot)).await
            }
            _ => Ok(known),
        }
    }

    async fn load_catalogue(&self, snapshot: SnapshotId) -> Result<(Known, usize), OriginError> {
        let name = catalogue_name(&snapshot);
        let damaged = |cause: &str| self.remote.damaged(&name, cause);
        let Some(mut start) = self.remote.read(&name, 0..FIRST).await? else {
            if self.remote.is_away() {
                let cause = "the folder is not there; is its file system mounted?".into();
                return Err(OriginError::Unreachable { url: self.remote.url().clone(), name, cause });
            }
            return Ok((Known::Absent(Instant::now()), size_of::<Known>()));
        };
        let header = Header::decode(&start).map_err(damaged)?;
        let front_len = header.front_len();
        if start.len() < front_len {
            start = self.remote.read(&name, 0..front_len as u64).await?.unwrap_or_default();
        }
        let front = Front::decode(&header, &start).map_err(damaged)?;
        let weight = front.weight() + start.len();
        Ok((Known::Here(Catalogue { front, front_len, start }), weight))
    }

    async fn load_shard(
        &self,
        snapshot: SnapshotId,
        catalogue: &Catalogue,
        shard: u32,
    ) -> Result<(Bytes, usize), OriginError> {
        let range = catalogue.front.rows_of(shard, catalogue.front_len);
        let len = (range.end - range.start) as usize;
        if range.end <= catalogue.start.len() as u64 {
            // A part of what is kept anyway.
            return Ok((catalogue.start.slice(range.start as usize..range.end as usize), size_of::<Bytes>()));
        }
        let name = catalogue_name(&snapshot);
        match self.remote.read(&name, range).await? {
            Some(rows) if rows.len() == len => Ok((rows, len)),
            _ => Err(self.remote.damaged(&name, "it ends before its rows do")),
        }
    }

    async fn load_trailer(&self, pack: PackRow) -> Result<(Trailer, usize), OriginError> {
        let name = pack_name(&pack.hash);
        let len = u64::from(pack.len.saturating_sub(pack.start));
        if !(trailer_len(0)..=trailer_len(MAX_RECORDS)).contains(&len) {
            return Err(self.remote.damaged(&name, "the catalogue gives it impossible lengths"));
        }
        let trailer = self.remote.read(&name, pack.start.into()..pack.len.into()).await?;
        let Some(trailer) = trailer else {
            return Err(self.remote.damaged(&name, "a catalogue names it, but it is not there"));
        };
        let footer = Footer::decode(&trailer, pack.len.into());
        let entries = footer.and_then(|footer| {
            let end = trailer.len().min(footer.entries_len());
            // Where the records end, the catalogue and the pack must agree.
            let bytes = if footer.start() == u64::from(pack.start) { &trailer[..end] } else { &[] };
            footer.decode_entries(bytes)
        });
        let entries = entries.map_err(|error| self.remote.damaged(&name, error))?;
        let weight = entries.len() * size_of::<Entry>();
        Ok((Trailer { pack, entries }, weight))
    }
}
