//! The store: every object this machine has, in packs, with an index to find them.
//!
//! Owns: the store directory. `index.redb` says where each object lies (`index`), `packs/NNNNNNNN.pack` hold
//! them (`packs`), or files outside of it (`outside`), `files/ab/HASH` is a large file at its natural offsets (`blobs`), `lock` keeps a second process out (`lock`). And `LogStore`, a manifest log's file.
//! Must not know: the network, mounts, or what an object means.
//! Invariant: an object is stored only as a `Checked`, so what goes in is right; what comes out is a `Packed`,
//! to be verified again, because disks lie. The index never names a record that was not synced before it.
//! Trust: callers; not the disk.
//! Threads: synchronous, and any thread may call anything. Appending is one at a time (`writer`), changing the
//! index is one at a time (`turn`), reading takes no lock while it waits for the disk. Order of the locks:
//! turn, then the users of blob files or writer, pending. One background thread commits cache fills and evicts.
//! A crash leaves: all that was published before the last `commit` returned; of what came after, whole records
//! are found again at the next opening and torn ones are cut off. Of the cache, at most the last batch is lost.

mod blobs;
mod cache;
mod commit;
mod compact;
mod disk;
mod error;
mod gc;
mod index;
mod listings;
mod lock;
mod log;
mod mend;
mod outside;
mod packs;
mod pins;
mod publish;
mod recover;
mod stats;
#[cfg(test)]
mod tests;
mod types;
mod verify;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};
use std::time::Duration;

use crate::codec;
use crate::id::ObjectId;
use crate::pack::{Checked, Packed};
use blobs::BlobFiles;
use cache::{Bell, Keeper};
use disk::Disk;
use index::{Index, Place, View};
use outside::Outside;
use packs::{PackFiles, WriteFailure, Writer};

pub use crate::pack::file::Keep;
pub use blobs::{BlobFile, BlobWriter, Lease};
pub use error::StoreError;
pub use gc::{Marks, Swept};
pub use listings::{DirId, Listing};
pub use log::LogStore;
pub use outside::{OutsideChunk, OutsideFile, PutOutside};
pub use types::{Options, PinRecord, Put, SnapshotRecord, Stats};
pub use verify::{Corrupt, Scrubbed};

/// Locks a mutex whose holder may have panicked: what these protect is changed in single steps, so it is
/// consistent even then.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// Sizes that are the store's own business. Tests make them small.
#[derive(Debug, Clone, Copy)]
struct Tuning {
    /// Length at which a pack is sealed, by class.
    pack_len: [u64; 2],
    /// Cache fills are committed when they come to this many bytes...
    batch_bytes: u64,
    /// ...or this age.
    batch_age: Duration,
    /// A put commits by itself when this much waits, so that little is lost and memory stays bounded.
    max_pending_bytes: u64,
    max_pending: usize,
    /// A tick of the recency clock: this many objects got or put.
    uses_per_tick: u64,
    /// A cached object is noted as used again when its last note is this many ticks old.
    touch_after: u64,
    max_touches: usize,
    /// Objects that a sweep looks at, and at most drops, in one transaction.
    sweep_batch: usize,
    /// Free space that appends leave to the index, whose failure would be worse.
    headroom: u64,
}

impl Tuning {
    fn new(options: &Options) -> Self {
        // A small cache has small packs, so that a pack that is kept for one object is a small part of it.
        let cache_pack = (options.cache_max_bytes / 16).clamp(1 << 20, 256 << 20);
        Self {
            pack_len: [256 << 20, cache_pack],
            batch_bytes: 8 << 20,
            batch_age: Duration::from_secs(2),
            max_pending_bytes: 64 << 20,
            max_pending: 64 << 10,
            uses_per_tick: 1024,
            touch_after: 4,
            max_touches: 4096,
            sweep_batch: 16 << 10,
            headroom: 16 << 20,
        }
    }
}

/// The store of one machine. Clones are handles on the same store; the last one to go commits and unlocks it.
#[derive(Clone)]
pub struct Store {
    keeper: Arc<Keeper>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.shared().dir.display())
    }
}

/// Everything behind the handles.
struct Shared {
    dir: PathBuf,
    index_path: PathBuf,
    options: Options,
    tuning: Tuning,
    disk: Arc<dyn Disk>,
    index: Index,
    files: PackFiles,
    blob_files: BlobFiles,
    outside: Outside,
    writer: Mutex<Writer>,
    /// Where objects lie that are written but not in the index yet.
    pending: RwLock<HashMap<ObjectId, Place>>,
    turn: Mutex<()>,
    touched: Mutex<HashSet<ObjectId>>,
    /// Listings that are not in the index yet.
    listings: Mutex<listings::Waiting>,
    bell: Bell,
    /// The first write that failed, after which none is tried.
    stopped: OnceLock<String>,
    /// Advances before records are punched or packs removed.
    holes: AtomicU64,
    /// Whether what a crash kept from being freed has been looked for.
    dead_freed: AtomicBool,
    /// Bytes that cache packs and blob files occupy, never too low.
    cache_used: AtomicU64,
    first_tick: u64,
    uses: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    evicted: AtomicU64,
    evicted_bytes: AtomicU64,
    bypassed: AtomicU64,
    /// Whether the last cache fill was refused for want of space: so that this is said once, not each time.
    disk_was_full: AtomicBool,
    /// Last, so that it is released when all else is closed.
    _lock: lock::StoreLock,
}

/// An object as it was read.
struct Found {
    place: Place,
    /// The error is one of damage.
    packed: Result<Packed, StoreError>,
}

impl Store {
    /// Opens the store in `dir`, making it if need be, and recovers what a crash left. The time this takes
    /// depends on the number of packs and on what was not committed, not on the number of objects.
    /// [`StoreError::Locked`] if it is open already, [`StoreError::Version`] if it is not of this version.
    pub fn open(dir: &Path, options: Options) -> Result<Self, StoreError> {
        Self::open_tuned(dir, options, Tuning::new(&options), Arc::new(disk::Real))
    }

    fn open_tuned(
        dir: &Path,
        options: Options,
        tuning: Tuning,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, StoreError> {
        let packs_dir = dir.join("packs");
        disk.create_dir(dir).map_err(StoreError::io("create", dir))?;
        let lock = lock::StoreLock::acquire(dir)?;
        disk.create_dir(&packs_dir).map_err(StoreError::io("create", &packs_dir))?;
        let index_path = dir.join("index.redb");
        let recovered = recover::recover(&*disk, &index_path, &packs_dir)?;
        let (blob_files, blob_bytes) =
            blobs::recover(&*disk, &recovered.index, &index_path, dir.join("files"))?;
        let outside = outside::recover(&*disk, &recovered.index, &index_path, dir)?;
        disk.sync_dir(dir).map_err(StoreError::io("sync", dir))?;
        let writer = Writer::new(
            packs_dir.clone(),
            disk.clone(),
            recovered.current,
            recovered.next_number,
            tuning.pack_len,
        );
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            index_path,
            options,
            tuning,
            index: recovered.index,
            files: PackFiles::new(packs_dir, disk.clone()),
            disk,
            blob_files,
            outside,
            writer: Mutex::new(writer),
            pending: RwLock::default(),
            turn: Mutex::default(),
            touched: Mutex::default(),
            listings: Mutex::default(),
            bell: Bell::default(),
            stopped: OnceLock::new(),
            holes: AtomicU64::new(0),
            dead_freed: AtomicBool::new(false),
            cache_used: AtomicU64::new(recovered.cache_used + blob_bytes),
            first_tick: recovered.first_tick,
            uses: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            evicted_bytes: AtomicU64::new(0),
            bypassed: AtomicU64::new(0),
            disk_was_full: AtomicBool::new(false),
            _lock: lock,
        });
        if shared.over_high_water() {
            shared.bell.evict();
        }
        let keeper = Keeper::start(shared).map_err(StoreError::io("start the thread for", dir))?;
        Ok(Self { keeper: Arc::new(keeper) })
    }

    fn shared(&self) -> &Shared {
        self.keeper.shared()
    }

    /// The object as stored, if it is here. Callers verify it; a damaged one is returned like any other.
    pub fn get(&self, id: &ObjectId) -> Result<Option<Packed>, StoreError> {
        let shared = self.shared();
        let Some(Found { place, packed }) = shared.find_and_read(id)? else {
            shared.misses.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        };
        shared.hits.fetch_add(1, Ordering::Relaxed);
        shared.uses.fetch_add(1, Ordering::Relaxed);
        shared.touch(id, &place);
        packed.map(Some)
    }

    /// Whether the object is here. Does not count as a use.
    pub fn contains(&self, id: &ObjectId) -> Result<bool, StoreError> {
        Ok(self.shared().find(id)?.is_some())
    }

    /// Which of `ids` a put with `keep` would store, in their order: what is not here, and for
    /// [`Keep::Published`] also what is only cached and would be evicted one day, or is in a file outside.
    pub fn missing(&self, ids: &[ObjectId], keep: Keep) -> Result<Vec<ObjectId>, StoreError> {
        self.shared().missing(ids, keep)
    }

    /// How many bytes each of `ids` is stored as, in their order; nothing for what is not here.
    pub fn stored_lens(&self, ids: &[ObjectId]) -> Result<Vec<Option<u32>>, StoreError> {
        self.shared().stored_lens(ids)
    }

    /// Stores what is not there yet; readable at once. Published objects are durable after [`Store::commit`].
    /// A cached object that is put as published moves to a published pack. An object that cannot be cached
    /// for want of space is skipped and counted. On an error, the objects before the failing one are stored.
    pub fn put(&self, objects: &[Checked], keep: Keep) -> Result<Put, StoreError> {
        let mut put = Put::default();
        if keep == Keep::Published {
            self.shared().put_published(objects, &mut put)?;
            return Ok(put);
        }
        for object in objects {
            if self.shared().put_one(object, keep, None)? {
                put.objects += 1;
                put.stored_bytes += object.packed().stored().len() as u64;
            }
        }
        Ok(put)
    }

    /// Makes everything put before durable: it survives the loss of power from here on.
    pub fn commit(&self) -> Result<(), StoreError> {
        let shared = self.shared();
        shared.commit(&shared.turn())
    }

    /// Remembers a snapshot, durably; a record of the same snapshot is replaced, but for where it was submitted.
    pub fn keep_snapshot(&self, record: SnapshotRecord) -> Result<(), StoreError> {
        let shared = self.shared();
        let known = self.snapshots()?.into_iter().find(|known| known.id == record.id);
        let submitted = record.submitted.clone().or(known.and_then(|known| known.submitted));
        let record = SnapshotRecord { submitted, ..record };
        let bytes = codec::encode(&record);
        SnapshotRecord::decode(&bytes)
            .map_err(|cause| StoreError::Record { path: shared.index_path.clone(), cause })?;
        let turn = shared.turn();
        // Whoever sees the record may rely on the objects.
        shared.commit(&turn)?;
        shared.change_index(&turn, |tables| tables.keep_snapshot(record.id.as_bytes(), &bytes))
    }

    /// All remembered snapshots, by id.
    pub fn snapshots(&self) -> Result<Vec<SnapshotRecord>, StoreError> {
        let shared = self.shared();
        let records = shared.view()?.snapshots().map_err(StoreError::index(&shared.index_path))?;
        let decode = |bytes: &Vec<u8>| SnapshotRecord::decode(bytes);
        let damaged = |cause| StoreError::Record { path: shared.index_path.clone(), cause };
        records.iter().map(decode).collect::<Result<_, _>>().map_err(damaged)
    }

    /// Drops one cached object from the index, durably, because its caller found it corrupt; says whether it did.
    /// The object is read again first, and stays if it is sound. A published object stays in any case, for
    /// [`Store::verify_all`] to report, until [`Store::replace`] or for ever.
    pub fn forget(&self, id: &ObjectId) -> Result<bool, StoreError> {
        self.shared().forget(id)
    }

    /// Stores a good copy in the place of one that is damaged or cannot be read, and keeps it as that was kept;
    /// says whether it did. Readable at once, and durable after [`Store::commit`] or soon. What is here and sound
    /// stays as it is; what is not here at all is cached.
    pub fn replace(&self, object: &Checked) -> Result<bool, StoreError> {
        self.shared().replace(object)
    }

    /// The store in figures.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        self.shared().stats()
    }

    /// Re-hashes every object and lists those that are damaged or cannot be read, and blob files that were damaged and have been
    /// removed, since all of each is elsewhere. `progress` is told how many of how many objects are done; when it breaks, what
    /// has been found so far is returned.
    pub fn verify_all(
        &self,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(Vec<Corrupt>, Vec<PathBuf>), StoreError> {
        self.commit()?;
        let corrupt = self.shared().verify_all(progress)?;
        Ok((corrupt, self.shared().verify_blob_files()?))
    }
}

impl Shared {
    fn view(&self) -> Result<View, StoreError> {
        self.index.read().map_err(StoreError::index(&self.index_path))
    }

    fn find(&self, id: &ObjectId) -> Result<Option<Place>, StoreError> {
        let pending = self.pending.read().unwrap_or_else(|broken| broken.into_inner()).get(id).copied();
        match pending {
            Some(place) => Ok(Some(place)),
            None => self.view()?.find(id).map_err(StoreError::index(&self.index_path)),
        }
    }

    fn find_and_read(&self, id: &ObjectId) -> Result<Option<Found>, StoreError> {
        loop {
            let holes = self.holes.load(Ordering::SeqCst);
            let Some(place) = self.find(id)? else { return Ok(None) };
            let packed = if place.is_outside() {
                let Some(packed) = self.read_outside(id, &place)? else { continue };
                Ok(packed)
            } else {
                self.files.read(id, &place)
            };
            // If something was punched meanwhile, it may have been this record, half read.
            if self.holes.load(Ordering::SeqCst) != holes {
                let now = self.find(id)?;
                if now.is_none_or(|now| !now.is_at(&place)) {
                    continue;
                }
            }
            return Ok(Some(Found { place, packed: packed? }));
        }
    }

    /// The file that a place is in, and where in it, in bytes.
    fn located(&self, place: &Place) -> Result<(PathBuf, u64), StoreError> {
        match place.is_outside() {
            true => self.located_outside(place),
            false => Ok((self.files.path(place.pack), place.offset.into())),
        }
    }

    /// Whether an object need not be stored (again) to be kept so. What lies at `bad` is as good as not there.
    fn is_known(&self, id: &ObjectId, keep: Keep, bad: Option<Place>) -> Result<bool, StoreError> {
        let place = self.find(id)?.filter(|place| bad.is_none_or(|bad| !bad.is_at(place)));
        Ok(place.is_some_and(|place| place.is_kept(keep)))
    }

    /// Stores one object, in the place of the record at `bad` if there is one; false if it was known, or could not
    /// be cached.
    fn put_one(&self, object: &Checked, keep: Keep, bad: Option<Place>) -> Result<bool, StoreError> {
        loop {
            self.check_writable()?;
            let mut writer = lock(&self.writer);
            if self.is_known(&object.id(), keep, bad)? {
                return Ok(false);
            }
            let cost = writer.cost(object, keep);
            if keep == Keep::Cache && !self.has_room(cost) {
                drop(writer);
                if self.make_room(cost)? {
                    continue;
                }
                self.bypassed.fetch_add(1, Ordering::Relaxed);
                return Ok(false);
            }
            if !self.has_space(cost)? {
                drop(writer);
                if self.make_space(cost)? {
                    continue;
                }
                return self.no_space(keep, cost);
            }
            let tick = if keep == Keep::Published { 0 } else { self.tick() };
            let appended = writer.append(&[object], keep, tick);
            self.cache_used.fetch_add(std::mem::take(&mut writer.cache_growth), Ordering::SeqCst);
            match appended {
                Ok(places) => {
                    let mut pending = self.pending.write().unwrap_or_else(|broken| broken.into_inner());
                    pending.extend(places.into_iter().map(|place| (object.id(), place)));
                }
                Err(failure) => return self.append_failed(failure, keep, cost),
            }
            let (bytes, places) = (writer.uncommitted.bytes, writer.uncommitted.places.len());
            drop(writer);
            self.uses.fetch_add(1, Ordering::Relaxed);
            self.after_put(keep, bytes, places)?;
            return Ok(true);
        }
    }

    fn append_failed(&self, failure: WriteFailure, keep: Keep, cost: u64) -> Result<bool, StoreError> {
        match failure {
            WriteFailure::Full => self.no_space(keep, cost),
            WriteFailure::NotBegun(error) => Err(StoreError::io("create a pack in", self.files.dir())(error)),
            WriteFailure::Broken(error) => {
                Err(self.stop_writing(StoreError::io("append to", self.files.dir())(error)))
            }
        }
    }

    /// A full disk stops publishing; the cache does without.
    fn no_space(&self, keep: Keep, needed: u64) -> Result<bool, StoreError> {
        let full = StoreError::Full { path: self.dir.clone(), needed };
        if keep == Keep::Published {
            return Err(full);
        }
        self.bypassed.fetch_add(1, Ordering::Relaxed);
        if !self.disk_was_full.swap(true, Ordering::Relaxed) {
            tracing::warn!(error = %full, "the disk is full; fetched objects are not cached");
        }
        Ok(false)
    }

    /// Sees to it that what was put gets committed in time.
    fn after_put(&self, keep: Keep, bytes: u64, places: usize) -> Result<(), StoreError> {
        if keep == Keep::Cache {
            self.disk_was_full.store(false, Ordering::Relaxed);
            if self.over_high_water() {
                self.bell.evict();
            }
            if bytes >= self.tuning.batch_bytes {
                self.bell.commit();
            } else {
                self.bell.waiting();
            }
        }
        if bytes >= self.tuning.max_pending_bytes || places >= self.tuning.max_pending {
            self.commit(&self.turn())?;
        }
        Ok(())
    }
}
