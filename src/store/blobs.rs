//! Blob files: large files as one file each, at their natural offsets, for the kernel to read by itself.
//!
//! Owns: `files/`: how a blob file comes to be, who uses which, and how it goes.
//! Must not know: what the files are called in a dataset, or for which of them this is worth the space.
//! Invariant: what `blob_file` opens is as long as its blob to the byte and was written from `Checked` chunks only;
//! it was synced before the index named it, and is never written again. All of them count against the budget of the
//! cache. One that is in use is not evicted: its space would not come back.
//! Trust: the writer gives the chunks of the blob in their order. A blob id commits to them; the hash of a file in a
//! manifest, which nobody has checked, would not do as a name. What lies in `files/` unnamed by the index is garbage.
//! Threads: any. Order of the locks: `turn`, then the users.
//! A crash leaves: a file that the index does not name, or names and which is not whole: the next opening removes it.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::id::{BlobId, Kind, ObjectId};
use crate::pack::Checked;
use crate::store::commit::Turn;
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::index::{BlobRow, Index, Tables};
use crate::store::{Shared, Store, disk, lock};

/// Bytes written between two syncs, so that the last one does not take long.
const SYNC_EVERY: u64 = 64 << 20;

/// Of the blob files that would push out another one, every so many is made: files that are read in turn and do not
/// all fit would otherwise push each other out before any is read twice, and be written again each time.
const CROWDED: u64 = 16;

/// Bytes hashed at a time when a blob file is verified.
const VERIFY_STEP: usize = 1 << 20;

/// How many use a blob file; whoever writes it counts, and is the only one then.
type Users = Arc<Mutex<HashMap<BlobId, usize>>>;

/// The directory, and what of it is in use.
pub(super) struct BlobFiles {
    dir: PathBuf,
    users: Users,
    /// How often there was one that would have pushed out another.
    crowded: AtomicU64,
}

impl BlobFiles {
    fn path(&self, blob: &BlobId) -> PathBuf {
        let name = blob.to_string();
        self.dir.join(&name[..2]).join(name)
    }
}

/// A blob file, open for reading.
#[derive(Debug)]
pub struct BlobFile {
    pub file: File,
    /// Its length, in bytes.
    pub len: u64,
    pub lease: Lease,
}

/// Keeps one blob file from being evicted until it is dropped.
#[derive(Debug)]
pub struct Lease {
    blob: BlobId,
    users: Users,
}

impl Lease {
    fn new(blob: BlobId, users: &Users) -> Self {
        *lock(users).entry(blob).or_default() += 1;
        Self { blob, users: Arc::clone(users) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut users = lock(&self.users);
        if let Some(count) = users.get_mut(&self.blob) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.blob);
            }
        }
    }
}

/// A blob file being written. Dropped before `finish`, it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    lease: Lease,
    path: PathBuf,
    len: u64,
    written: u64,
    unsynced: u64,
    hasher: blake3::Hasher,
    /// Counted as used in the cache.
    reserved: u64,
    file: Option<File>,
}

impl Store {
    /// The blob file of `blob`, if there is one. Counts as a use.
    pub fn blob_file(&self, blob: &BlobId) -> Result<Option<BlobFile>, StoreError> {
        let shared = self.shared();
        let row = || shared.view()?.blob(blob).map_err(StoreError::index(&shared.index_path));
        // Whoever finds none holds no lease, which would keep another from writing it.
        if row()?.is_none() {
            return Ok(None);
        }
        // From here on the file is not evicted, if it has not been just now.
        let lease = Lease::new(*blob, &shared.blob_files.users);
        let Some(row) = row()? else { return Ok(None) };
        let path = shared.blob_files.path(blob);
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((len, file)) if len == row.len => {
                lock(&shared.touched).insert(object(blob));
                Ok(Some(BlobFile { file, len, lease }))
            }
            Ok((len, _)) => {
                tracing::warn!(path = %path.display(), len, expected = row.len, "a blob file was changed; removed");
                shared.drop_blob_file(&shared.turn(), blob)?;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                shared.drop_blob_file(&shared.turn(), blob)?;
                Ok(None)
            }
            Err(error) => Err(StoreError::io("open", &path)(error)),
        }
    }

    /// Begins to write the blob file of `blob`, which has `len` bytes. `None` if there is one or somebody is
    /// writing it, and if it does not fit: it may take up half the budget of the cache at most, and not often push out
    /// another one.
    pub fn begin_blob_file(&self, blob: BlobId, len: u64) -> Result<Option<BlobWriter>, StoreError> {
        let shared = self.shared();
        shared.check_writable()?;
        if len > shared.options.cache_max_bytes / 2 {
            return Ok(None);
        }
        let lease = Lease::new(blob, &shared.blob_files.users);
        let alone = lock(&shared.blob_files.users).get(&blob) == Some(&1);
        let exists = || {
            let row = shared.view()?.blob(&blob).map_err(StoreError::index(&shared.index_path))?;
            Ok::<_, StoreError>(row.is_some())
        };
        let reserved = len.next_multiple_of(disk::BLOCK);
        let free = shared.disk.free_bytes(&shared.dir).map_err(StoreError::io("examine", &shared.dir))?;
        let possible = alone && !exists()? && free >= reserved + shared.tuning.headroom;
        if !possible || !shared.may_crowd(reserved)? || !shared.reserve(reserved)? {
            return Ok(None);
        }
        let path = shared.blob_files.path(&blob);
        let (written, unsynced, hasher) = (0, 0, blake3::Hasher::new());
        let store = self.clone();
        let mut writer =
            BlobWriter { store, lease, path, len, written, unsynced, hasher, reserved, file: None };
        // An eviction of this very file is over when the turn is ours; from then on the lease keeps others away.
        let _turn = shared.turn();
        if exists()? {
            return Ok(None);
        }
        writer.create()?;
        Ok(Some(writer))
    }
}

impl BlobWriter {
    fn create(&mut self) -> Result<(), StoreError> {
        let disk = &self.store.shared().disk;
        let dir = self.path.parent().unwrap_or(&self.path);
        disk.create_dir(dir).map_err(StoreError::io("create", dir))?;
        // Left over from an eviction that could not remove it.
        disk.remove(&self.path).map_err(StoreError::io("remove", &self.path))?;
        self.file = Some(disk.create(&self.path).map_err(StoreError::io("create", &self.path))?);
        Ok(())
    }

    /// Appends a chunk.
    pub fn write(&mut self, chunk: &Checked) -> Result<(), StoreError> {
        let at = self.written;
        self.advance(chunk.plain().len() as u64)?;
        self.hasher.update(chunk.plain());
        self.apply("write", |disk, file| disk.write(file, chunk.plain(), at))?;
        self.unsynced += chunk.plain().len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.apply("sync", |disk, file| disk.sync(file))?;
        }
        Ok(())
    }

    /// Appends a hole of `len` bytes.
    pub fn skip(&mut self, len: u64) -> Result<(), StoreError> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        self.advance(len)?;
        let mut left = len;
        while left > 0 {
            let step = left.min(ZEROS.len() as u64);
            self.hasher.update(&ZEROS[..step as usize]);
            left -= step;
        }
        Ok(())
    }

    fn advance(&mut self, len: u64) -> Result<(), StoreError> {
        let end = self.written.checked_add(len).filter(|end| *end <= self.len);
        self.written = end.ok_or_else(|| self.wrong_length())?;
        Ok(())
    }

    fn wrong_length(&self) -> StoreError {
        let cause = format!("the chunks of blob {} are not {} bytes", self.lease.blob, self.len);
        StoreError::io("write", &self.path)(io::Error::new(io::ErrorKind::InvalidData, cause))
    }

    fn apply(
        &self,
        action: &'static str,
        change: impl FnOnce(&dyn Disk, &File) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let Some(file) = &self.file else { return Ok(()) };
        change(&*self.store.shared().disk, file).map_err(|error| match disk::is_full(&error) {
            true => StoreError::Full { path: self.path.clone(), needed: self.len - self.written },
            false => StoreError::io(action, &self.path)(error),
        })
    }

    /// Makes the file durable and then known; it can be opened from here on.
    pub fn finish(mut self) -> Result<(), StoreError> {
        if self.written != self.len {
            return Err(self.wrong_length());
        }
        self.apply("cut", |disk, file| disk.truncate(file, self.len))?;
        self.apply("sync", |disk, file| disk.sync(file))?;
        let dir = self.path.parent().unwrap_or(&self.path);
        self.store.shared().disk.sync_dir(dir).map_err(StoreError::io("sync", dir))?;
        let stat = fs::metadata(&self.path).map_err(StoreError::io("examine", &self.path))?;
        let shared = self.store.shared();
        // Holes cost nothing. More than was set aside it cannot be.
        let disk = disk::occupied(&stat).min(self.reserved);
        let row =
            BlobRow { len: self.len, disk, tick: shared.tick(), hash: *self.hasher.finalize().as_bytes() };
        shared.change_index(&shared.turn(), |tables| tables.set_blob(&self.lease.blob, row))?;
        shared.cache_used.fetch_sub(self.reserved - disk, Ordering::SeqCst);
        (self.reserved, self.file) = (0, None);
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if self.file.take().is_some()
            && let Err(error) = self.store.shared().disk.remove(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove an unfinished blob file");
        }
        self.store.shared().cache_used.fetch_sub(self.reserved, Ordering::SeqCst);
    }
}

impl Shared {
    /// Sets `bytes` of the budget of the cache aside, evicting if need be; says whether they could be had.
    fn reserve(&self, bytes: u64) -> Result<bool, StoreError> {
        loop {
            {
                // Under this lock nobody else takes what was free.
                let _writer = lock(&self.writer);
                if self.has_room(bytes) {
                    self.cache_used.fetch_add(bytes, Ordering::SeqCst);
                    return Ok(true);
                }
            }
            if !self.make_room(bytes)? {
                return Ok(false);
            }
        }
    }

    /// Whether `bytes` for a blob file are free, or may be had by evicting something.
    fn may_crowd(&self, bytes: u64) -> Result<bool, StoreError> {
        if self.has_room(bytes) {
            return Ok(true);
        }
        let oldest = self.view()?.oldest_tick().map_err(StoreError::index(&self.index_path))?;
        let pushes_out = self.oldest_blob_file(oldest)?.is_some();
        Ok(!pushes_out || self.blob_files.crowded.fetch_add(1, Ordering::Relaxed).is_multiple_of(CROWDED))
    }

    /// The blob file that was used least recently of those nobody uses now, unless it was used after the tick `oldest`.
    fn oldest_blob_file(&self, oldest: Option<u64>) -> Result<Option<BlobId>, StoreError> {
        let rows = self.view()?.blobs().map_err(StoreError::index(&self.index_path))?;
        let users = lock(&self.blob_files.users);
        let unused = rows.into_iter().filter(|(blob, _)| !users.contains_key(blob));
        let victim = unused.min_by_key(|(_, row)| row.tick);
        Ok(victim.filter(|(_, row)| oldest.is_none_or(|oldest| row.tick <= oldest)).map(|(blob, _)| blob))
    }

    /// Removes the blob file that was used least recently, if it was not used after the tick `oldest` and nobody
    /// uses it now; says whether there was one.
    pub(super) fn evict_blob_file(&self, turn: &Turn<'_>, oldest: Option<u64>) -> Result<bool, StoreError> {
        let Some(blob) = self.oldest_blob_file(oldest)? else { return Ok(false) };
        let bytes = self.drop_blob_file(turn, &blob)?;
        self.count_evicted(1, bytes);
        Ok(true)
    }

    /// Removes a blob file that nobody uses now; says how many bytes that freed.
    pub(super) fn drop_unused_blob_file(&self, turn: &Turn<'_>, blob: &BlobId) -> Result<u64, StoreError> {
        if lock(&self.blob_files.users).contains_key(blob) {
            return Ok(0);
        }
        let bytes = self.drop_blob_file(turn, blob)?;
        self.count_evicted(u64::from(bytes > 0), bytes);
        Ok(bytes)
    }

    /// Drops a blob file from the index, and then removes it; says how many bytes that freed. Whoever has it open
    /// reads on.
    fn drop_blob_file(&self, turn: &Turn<'_>, blob: &BlobId) -> Result<u64, StoreError> {
        let Some(row) = self.change_index(turn, |tables| tables.remove_blob(blob))? else { return Ok(0) };
        let path = self.blob_files.path(blob);
        if let Err(error) = self.disk.remove(&path) {
            // It is found again at the next opening.
            tracing::warn!(path = %path.display(), %error, "cannot remove an evicted blob file");
        }
        self.cache_used.fetch_sub(row.disk, Ordering::SeqCst);
        Ok(row.disk)
    }

    /// Re-hashes all blob files, and removes those that are not what was written; says which.
    pub(super) fn verify_blob_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut removed = Vec::new();
        for (blob, row) in self.view()?.blobs().map_err(StoreError::index(&self.index_path))? {
            let lease = Lease::new(blob, &self.blob_files.users);
            let path = self.blob_files.path(&blob);
            let sound = hash(&path).is_ok_and(|(len, hash)| len == row.len && hash == row.hash);
            drop(lease);
            // It may also have been evicted before the lease.
            let known = self.view()?.blob(&blob).map_err(StoreError::index(&self.index_path))?;
            if !sound && known.is_some_and(|known| known.hash == row.hash) {
                tracing::warn!(path = %path.display(), "a blob file is damaged; removed");
                self.drop_blob_file(&self.turn(), &blob)?;
                removed.push(path);
            }
        }
        Ok(removed)
    }
}

/// The object that the recency of a blob file is noted under.
fn object(blob: &BlobId) -> ObjectId {
    ObjectId { kind: Kind::Blob, hash: *blob.as_bytes() }
}

fn hash(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let file = File::open(path)?;
    let (mut hasher, mut len, mut buffer) = (blake3::Hasher::new(), 0, vec![0; VERIFY_STEP]);
    loop {
        let read = disk::read_up_to(&file, &mut buffer, len)?;
        if read == 0 {
            return Ok((len, *hasher.finalize().as_bytes()));
        }
        hasher.update(&buffer[..read]);
        len += read as u64;
    }
}

/// Brings `dir` and the index into step: what either has alone, and what is not as long as it must be, goes.
/// Says how many bytes the rest occupies.
pub(super) fn recover(
    disk: &dyn Disk,
    index: &Index,
    index_path: &Path,
    dir: PathBuf,
) -> Result<(BlobFiles, u64), StoreError> {
    let failed = || StoreError::index::<redb::Error>(index_path);
    disk.create_dir(&dir).map_err(StoreError::io("create", &dir))?;
    let files = BlobFiles { dir, users: Users::default(), crowded: AtomicU64::new(0) };
    // An index from before there was the table gets it now.
    index.write(|_| Ok(())).map_err(failed())?;
    let rows = index.read().and_then(|view| view.blobs()).map_err(failed())?;
    let (mut kept, mut lost, mut grown, mut used) = (BTreeSet::new(), Vec::new(), Vec::new(), 0);
    for (blob, row) in rows {
        let path = files.path(&blob);
        match fs::metadata(&path) {
            Ok(stat) if stat.len() == row.len && stat.is_file() => {
                let occupied = disk::occupied(&stat);
                if occupied != row.disk {
                    grown.push((blob, BlobRow { disk: occupied, ..row }));
                }
                used += occupied;
                kept.insert(path);
            }
            _ => lost.push(blob),
        }
    }
    for blob in &lost {
        tracing::warn!(%blob, "a blob file is missing or not whole; forgotten");
    }
    let correct = |tables: &mut Tables| {
        lost.iter().try_for_each(|blob| tables.remove_blob(blob).map(drop))?;
        grown.iter().try_for_each(|(blob, row)| tables.set_blob(blob, *row))
    };
    index.write(correct).map_err(failed())?;
    remove_unknown(disk, &files.dir, &kept).map_err(StoreError::io("clean", &files.dir))?;
    Ok((files, used))
}

/// Removes everything two levels below `dir` that is not in `kept`.
fn remove_unknown(disk: &dyn Disk, dir: &Path, kept: &BTreeSet<PathBuf>) -> io::Result<()> {
    for below in fs::read_dir(dir)? {
        let below = below?.path();
        if !below.is_dir() {
            continue;
        }
        for file in fs::read_dir(below)? {
            let path = file?.path();
            if !kept.contains(&path) {
                tracing::info!(path = %path.display(), "removed an unfinished blob file");
                disk.remove(&path)?;
            }
        }
    }
    Ok(())
}
