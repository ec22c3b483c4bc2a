//! Objects that lie in files outside of the packs: those of a publisher, where they are, or clones of them.
//!
//! Owns: which part of which file has which number, the clones in `outside/`, and the reading of all these files.
//! Must not know: datasets; who reads and cuts a file.
//! Invariant: what is put was in the file at a moment when the file had the stamp that is kept with it. A change of
//! the file afterwards is seen by the hash of what is read; the stamp only tells where to look, and what is to be put
//! again. Nothing here writes to a file that is not the store's own.
//! Trust: none in the files, which are another program's; not even that they are still files.
//! Threads: any. A file is opened for each read, and closed: an open descriptor would keep the space of a file that its
//! owner has removed, and its file system from being unmounted.
//! A crash leaves: clones that the index does not name; the next opening removes them.

mod reading;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use rustix::fs::Stat;
use rustix::io::Errno;

use crate::id::{ChunkId, ObjectId};
use crate::pack::file::Keep;
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::index::{Index, OUTSIDE, OutsideRow, Place, Stamp};
use crate::store::{Put, Shared, Store, View, lock};

/// What one number stands for at most, so that offsets in it have 32 bits.
const PART: u64 = 1 << 32;

/// Where the clones are, below the store.
const CLONES: &str = "outside";

/// Changed files that are remembered by name.
const MAX_CHANGED: usize = 16;

/// Of a file on FUSE. It may come out of this very store, which could then wait for itself.
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;

impl Stamp {
    fn of(stat: &Stat) -> Self {
        // Sizes are never negative, and nanoseconds fit.
        Self {
            ino: stat.st_ino,
            size: stat.st_size as u64,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
        }
    }
}

/// What the store knows of files outside beyond the index.
pub(super) struct Outside {
    next: AtomicU32,
    /// Parts that objects lie in which are not in the index yet.
    pending: RwLock<HashMap<u32, Arc<OutsideRow>>>,
    /// The file systems, by device number, whose files cannot be cloned into the store.
    unclonable: Mutex<HashSet<u64>>,
    /// Files that were found changed when they were read, each with an object that is not in there any more.
    changed: Mutex<BTreeMap<PathBuf, ObjectId>>,
}

impl Outside {
    pub(super) fn next_number(&self) -> u32 {
        self.next.load(Ordering::SeqCst)
    }

    /// The first of as many numbers as a file of this length needs; `None` if there are none left.
    fn take_numbers(&self, len: u64) -> Option<u32> {
        let count = u32::try_from(len / PART + 1).ok()?;
        let taken = self.next.try_update(Ordering::SeqCst, Ordering::SeqCst, |next| next.checked_add(count));
        taken.ok()
    }

    pub(super) fn no_longer_pending(&self, committed: &BTreeMap<u32, Arc<OutsideRow>>) {
        if committed.is_empty() {
            return;
        }
        let mut pending = self.pending.write().unwrap_or_else(|broken| broken.into_inner());
        for (number, row) in committed {
            // Another put may need the part meanwhile.
            if pending.get(number).is_some_and(|now| Arc::ptr_eq(now, row)) {
                pending.remove(number);
            }
        }
    }

    fn note(&self, path: &Path, id: &ObjectId, sound: bool) {
        let mut noted = lock(&self.changed);
        match noted.get(path) {
            Some(bad) if sound && bad == id => drop(noted.remove(path)),
            None if !sound && noted.len() < MAX_CHANGED => drop(noted.insert(path.to_owned(), *id)),
            _ => {}
        }
    }
}

/// A chunk of a file, for [`OutsideFile::put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutsideChunk {
    pub id: ChunkId,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// In bytes.
    pub len: u32,
}

/// What a put of chunks of one file did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PutOutside {
    /// Objects that were not kept before, or not any more, and their bytes.
    pub objects: u64,
    pub bytes: u64,
    /// How many of the chunks lie in files of their owners now, and how many in clones; the others are in packs.
    pub in_place: u64,
    pub cloned: u64,
}

/// A file that is read to be published where it is.
#[derive(Debug)]
pub struct OutsideFile<'a> {
    store: &'a Store,
    path: PathBuf,
    fd: BorrowedFd<'a>,
    device: u64,
    stamp: Stamp,
    home: Option<Home>,
}

/// What becomes the home of the chunks of a file: itself, or a clone.
#[derive(Debug, Clone)]
struct Home {
    /// Number of its first part.
    first: u32,
    path: PathBuf,
    stamp: Stamp,
    device: u64,
}

impl Home {
    fn is_clone(&self) -> bool {
        self.path.is_relative()
    }
}

/// How an object is kept already.
enum Known {
    No,
    Packed,
    Outside { cloned: bool },
}

impl Known {
    /// An object need not be kept in a file where it is published in a pack, or in a file that is as it was: those are
    /// in `fresh`, with whether they are clones.
    fn of(place: Option<Place>, fresh: &HashMap<u32, Option<bool>>) -> Self {
        match place.filter(|place| place.keep() == Keep::Published) {
            None => Self::No,
            Some(place) if !place.is_outside() => Self::Packed,
            Some(place) => {
                let cloned = fresh.get(&place.pack).copied().flatten();
                cloned.map_or(Self::No, |cloned| Self::Outside { cloned })
            }
        }
    }
}

impl Store {
    /// Begins to publish the regular file at the absolute `path` in place, which is open as `fd` and was as `stat` says
    /// before its first byte was read. `None` if it is not to be: where the file is on FUSE, or too many were.
    pub fn outside_file<'a>(
        &'a self,
        path: PathBuf,
        fd: BorrowedFd<'a>,
        stat: &Stat,
    ) -> Result<Option<OutsideFile<'a>>, StoreError> {
        let file_system =
            rustix::fs::fstatfs(fd).map_err(|error| StoreError::io("examine", &path)(error.into()))?;
        let stamp = Stamp::of(stat);
        let left = u64::from(u32::MAX - self.shared().outside.next_number());
        // Half of what is left, since others may be at it too.
        if file_system.f_type == FUSE_SUPER_MAGIC || stamp.size / PART >= left / 2 {
            return Ok(None);
        }
        Ok(Some(OutsideFile { store: self, path, fd, device: stat.st_dev, stamp, home: None }))
    }

    /// Where published objects are, as [`OutsideFile::put`] says it: `None` if one of them is in no pack, and in no file
    /// that is as it was.
    pub fn placed(&self, ids: &[ObjectId]) -> Result<Option<PutOutside>, StoreError> {
        let (mut placed, mut fresh) = (PutOutside::default(), HashMap::new());
        for id in ids {
            match self.shared().known_outside(id, &mut fresh)? {
                Known::No => return Ok(None),
                Known::Packed => {}
                Known::Outside { cloned } => {
                    placed.cloned += u64::from(cloned);
                    placed.in_place += u64::from(!cloned);
                }
            }
        }
        Ok(Some(placed))
    }

    /// Files published in place that were found changed when something was read from them, since the start; some of
    /// them, if they are many.
    pub fn changed_outside(&self) -> Vec<PathBuf> {
        lock(&self.shared().outside.changed).keys().cloned().collect()
    }
}

impl OutsideFile<'_> {
    /// Keeps the chunks as published where they are, but those that are kept so already, and those that are pinned,
    /// which become published ones in a pack; readable at once, and durable after [`Store::commit`]. `None` if the file
    /// has changed since its reading began; nothing is kept in it then.
    pub fn put(&mut self, chunks: &[OutsideChunk]) -> Result<Option<PutOutside>, StoreError> {
        let shared = self.store.shared();
        shared.check_writable()?;
        let mut published = Put::default();
        let fresh = self.look_at(chunks, &mut published)?;
        let (mut put, bytes, places) = loop {
            // All bytes that the chunks were made of are older than this look, and so is the clone.
            let now = rustix::fs::fstat(self.fd).map_err(|error| self.failed(error.into()))?;
            if Stamp::of(&now) != self.stamp {
                return Ok(None);
            }
            let mut writer = lock(&shared.writer);
            match self.put_in(chunks, &fresh, &mut writer.uncommitted)? {
                Some(put) => break (put, writer.uncommitted.bytes, writer.uncommitted.places.len()),
                None => {
                    drop(writer);
                    self.home = Some(self.settle()?);
                }
            }
        };
        put.objects += published.objects;
        put.bytes += published.stored_bytes;
        shared.after_put(Keep::Published, bytes, places)?;
        if put.objects > 0 {
            // Until a commit a descriptor is kept, which must not outlast a snapshot that fails.
            shared.bell.waiting();
        }
        Ok(Some(put))
    }

    /// Which of the files that the chunks lie in already are as they were; asked before the writer is locked, because
    /// other file systems may let one wait. And what is pinned is published in a pack: it is here for its own sake, and
    /// is not to rest on a file of somebody else from now on.
    fn look_at(
        &self,
        chunks: &[OutsideChunk],
        published: &mut Put,
    ) -> Result<HashMap<u32, Option<bool>>, StoreError> {
        let (shared, mut fresh) = (self.store.shared(), HashMap::new());
        for chunk in chunks {
            let id = ObjectId::from(chunk.id);
            shared.known_outside(&id, &mut fresh)?;
            if shared.find(&id)?.is_some_and(|place| place.is_pinned())
                && let Some(object) = shared.sound(&id)?
            {
                shared.put_published(std::slice::from_ref(&object), published)?;
            }
        }
        Ok(fresh)
    }

    /// `None` if there is something to keep, and no home for it yet.
    fn put_in(
        &self,
        chunks: &[OutsideChunk],
        fresh: &HashMap<u32, Option<bool>>,
        uncommitted: &mut super::packs::Uncommitted,
    ) -> Result<Option<PutOutside>, StoreError> {
        let shared = self.store.shared();
        let mut put = PutOutside::default();
        let (mut places, mut parts) = (Vec::new(), BTreeMap::new());
        // Those of this call; what is pending is only told when all of it is sure.
        let mut own = HashSet::new();
        for chunk in chunks {
            let id = ObjectId::from(chunk.id);
            let known = if own.contains(&id) { Known::No } else { Known::of(shared.find(&id)?, fresh) };
            match (known, &self.home) {
                (Known::Packed, _) => {}
                (Known::Outside { cloned: true }, _) => put.cloned += 1,
                (Known::Outside { cloned: false }, _) => put.in_place += 1,
                (Known::No, None) => return Ok(None),
                (Known::No, Some(home)) => {
                    put.cloned += u64::from(home.is_clone());
                    put.in_place += u64::from(!home.is_clone());
                    if !own.insert(id) {
                        continue;
                    }
                    // No more parts than there are numbers for: the chunk is within the file.
                    let part = (chunk.offset / PART) as u32;
                    parts.entry(home.first + part).or_insert_with(|| Arc::new(home.row(part)));
                    let offset = (chunk.offset % PART) as u32;
                    places.push((
                        id,
                        Place { pack: home.first + part, offset, stored_len: chunk.len, tick: 0 },
                    ));
                    put.objects += 1;
                    put.bytes += u64::from(chunk.len);
                }
            }
        }
        if let Some(home) = self.home.as_ref().filter(|_| !places.is_empty()) {
            if let std::collections::btree_map::Entry::Vacant(vacant) =
                uncommitted.file_systems.entry(home.device)
            {
                let descriptor = self.descriptor(home).map_err(|error| self.failed(error))?;
                vacant.insert((descriptor, self.path.clone()));
            }
            // Whoever finds a place finds its part.
            shared
                .outside
                .pending
                .write()
                .unwrap_or_else(|broken| broken.into_inner())
                .extend(parts.iter().map(|(number, row)| (*number, Arc::clone(row))));
            let mut pending = shared.pending.write().unwrap_or_else(|broken| broken.into_inner());
            pending.extend(places.iter().copied());
            drop(pending);
            uncommitted.outside.append(&mut parts);
            uncommitted.places.append(&mut places);
        }
        Ok(Some(put))
    }

    /// A descriptor of something on the file system of the home.
    fn descriptor(&self, home: &Home) -> io::Result<OwnedFd> {
        match home.is_clone() {
            true => Ok(File::open(&self.store.shared().dir)?.into()),
            false => self.fd.try_clone_to_owned(),
        }
    }

    /// Clones the file if that is possible, and numbers its parts.
    fn settle(&self) -> Result<Home, StoreError> {
        let shared = self.store.shared();
        let no_numbers = || io::Error::other("too many files are published in place");
        let first = shared.outside.take_numbers(self.stamp.size).ok_or_else(|| self.failed(no_numbers()))?;
        if let Some((stamp, device)) = self.clone_to(&shared.dir.join(clone_path(first))) {
            return Ok(Home { first, path: clone_path(first), stamp, device });
        }
        Ok(Home { first, path: self.path.clone(), stamp: self.stamp, device: self.device })
    }

    /// `None` if it cannot be done here.
    fn clone_to(&self, clone: &Path) -> Option<(Stamp, u64)> {
        let outside = &self.store.shared().outside;
        if lock(&outside.unclonable).contains(&self.device) {
            return None;
        }
        let stat = self
            .store
            .shared()
            .disk
            .clone_file(self.fd, clone)
            .and_then(|file| Ok(rustix::fs::fstat(&file)?));
        match stat {
            Ok(stat) => Some((Stamp::of(&stat), stat.st_dev)),
            Err(error) => {
                let never = [Errno::XDEV, Errno::OPNOTSUPP, Errno::NOTTY, Errno::NOSYS];
                if never.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) {
                    lock(&outside.unclonable).insert(self.device);
                } else {
                    tracing::warn!(path = %self.path.display(), %error, "a file could not be cloned; it is used where it is");
                }
                None
            }
        }
    }

    fn failed(&self, error: io::Error) -> StoreError {
        StoreError::io("publish in place", &self.path)(error)
    }
}

impl Home {
    fn row(&self, part: u32) -> OutsideRow {
        let base = u64::from(part) * PART;
        OutsideRow { path: self.path.clone(), base, stamp: self.stamp, live: 0, live_bytes: 0 }
    }
}

impl Shared {
    /// Removes the clones that nothing lies in any more. Nothing may be published in place meanwhile.
    pub(super) fn remove_dead_clones(&self) -> Result<(), StoreError> {
        remove_unknown(&*self.disk, &self.view()?, &self.index_path, &self.dir.join(CLONES))
    }

    /// How an object is kept. `fresh` remembers which files are as they were.
    fn known_outside(
        &self,
        id: &ObjectId,
        fresh: &mut HashMap<u32, Option<bool>>,
    ) -> Result<Known, StoreError> {
        let place = self.find(id)?;
        if let Some(place) = place.filter(Place::is_outside)
            && !fresh.contains_key(&place.pack)
        {
            let row = self.outside_row(place.pack)?;
            let is_fresh = |row: &OutsideRow| {
                let stat = rustix::fs::lstat(self.dir.join(&row.path));
                stat.is_ok_and(|stat| Stamp::of(&stat) == row.stamp)
            };
            let cloned = row.filter(|row| is_fresh(row)).map(|row| row.path.is_relative());
            fresh.insert(place.pack, cloned);
        }
        Ok(Known::of(place, fresh))
    }
}

/// The clone with this number, relative to the store.
fn clone_path(number: u32) -> PathBuf {
    Path::new(CLONES).join(number.to_string())
}

/// Removes clones that nothing lies in. Where the index is new or was rebuilt, nothing is known of them: then all are
/// put aside.
pub(super) fn recover(
    disk: &dyn Disk,
    index: &Index,
    index_path: &Path,
    dir: &Path,
) -> Result<Outside, StoreError> {
    let failed = || StoreError::index::<redb::Error>(index_path);
    let clones = dir.join(CLONES);
    let mut next = index.read().and_then(|view| view.number("next_outside")).map_err(failed())?;
    if next == 0 {
        // An empty directory can be removed, another one cannot.
        if fs::remove_dir(&clones).is_err() && clones.exists() {
            let aside = disk.set_aside(&clones).map_err(StoreError::io("rename", &clones))?;
            tracing::warn!(aside = %aside.display(), "what was published in place is forgotten: publish it again");
        }
        next = OUTSIDE.into();
        index.write(|tables| tables.set("next_outside", next)).map_err(failed())?;
    }
    disk.create_dir(&clones).map_err(StoreError::io("create", &clones))?;
    let view = index.read().map_err(failed())?;
    remove_unknown(disk, &view, index_path, &clones)?;
    let next = u32::try_from(next).unwrap_or(u32::MAX).max(OUTSIDE);
    Ok(Outside {
        next: AtomicU32::new(next),
        pending: RwLock::default(),
        unclonable: Mutex::default(),
        changed: Mutex::default(),
    })
}

/// Removes the clones that nothing lies in.
fn remove_unknown(disk: &dyn Disk, view: &View, index_path: &Path, clones: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(clones).map_err(StoreError::io("list", clones))? {
        let path = entry.map_err(StoreError::io("list", clones))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(number) = name.and_then(|name| name.parse::<u32>().ok()) else { continue };
        // The parts of a clone have numbers that follow its own.
        let row = view.outside_from(number).map_err(StoreError::index(index_path))?;
        if row.is_none_or(|row| row.path != clone_path(number)) {
            disk.remove(&path).map_err(StoreError::io("remove", &path))?;
        }
    }
    Ok(())
}
