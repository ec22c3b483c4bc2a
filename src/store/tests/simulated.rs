//! A disk that keeps account of what a power cut at any moment would leave of it, and fails when it is told to.
//!
//! What a cut leaves is what POSIX promises and no more: a change of a file's content or length is there for certain
//! after the file was synced, and a name after its directory was. Of what is not synced, any part may be there: each
//! change of a file by itself, a write also torn at a sector, and names as far as the journal of the file system came.
//! Directories are taken to be there once they have been made.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Bound;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use redb::backends::FileBackend;
use redb::{BackendError, Builder, Database, DatabaseError, StorageBackend};
use rustix::io::Errno;

use super::disk::{Disk, Real};
use super::lock;

/// A file, whatever its name.
pub(super) type FileId = usize;

/// What disks write whole or not at all, in bytes.
const SECTOR: u64 = 512;

/// One change of a file.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
    Punch(u64, u64),
}

/// One change of a directory.
#[derive(Debug, Clone)]
pub(super) enum Naming {
    Create(PathBuf, FileId),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// What happened, in order.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Change(FileId, Change),
    Naming(Naming),
    Sync(FileId),
    SyncDir(PathBuf),
    SyncAll,
    /// The store has kept this many promises of the test's list.
    Promised(usize),
}

#[derive(Debug, Default)]
struct Tape {
    steps: Vec<Step>,
    /// By inode number; the number of a removed file may come again.
    ids: HashMap<u64, FileId>,
    next: FileId,
    /// After how many more changes and syncs which error comes.
    fault: Option<(usize, Errno)>,
    failed: bool,
    /// Inode and offset of bytes that cannot be read.
    bad_sectors: Vec<(u64, u64)>,
}

impl Tape {
    fn id(&self, file: &File) -> io::Result<FileId> {
        Ok(self.ids[&file.metadata()?.ino()])
    }

    fn created(&mut self, path: &Path, file: &File) -> io::Result<FileId> {
        let id = self.next;
        self.next += 1;
        self.ids.insert(file.metadata()?.ino(), id);
        self.steps.push(Step::Naming(Naming::Create(path.to_owned(), id)));
        Ok(id)
    }

    /// Counts a change or sync; the error if this is the one to fail, as do all after it.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.fault {
            Some((0, errno)) => {
                self.failed = true;
                Err((*errno).into())
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Changes are made to real files at once; nothing is ever synced but on the tape.
#[derive(Debug, Clone, Default)]
pub(super) struct Simulated(Arc<Mutex<Tape>>);

impl Simulated {
    pub fn promised(&self, promises: usize) {
        lock(&self.0).steps.push(Step::Promised(promises));
    }

    pub fn steps(&self) -> Vec<Step> {
        lock(&self.0).steps.clone()
    }

    /// Every change and sync fails so from the `after`th on, as on a disk that has died or is full.
    pub fn fail(&self, after: usize, errno: Errno) {
        lock(&self.0).fault = Some((after, errno));
    }

    /// Whether the fault has come.
    pub fn has_failed(&self) -> bool {
        lock(&self.0).failed
    }

    /// The disk does not give what holds this byte.
    pub fn bad_sector(&self, path: &Path, offset: u64) {
        let ino = std::fs::metadata(path).expect("is there").ino();
        lock(&self.0).bad_sectors.push((ino, offset));
    }

    fn change(&self, file: &File, change: Change, apply: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut tape = lock(&self.0);
        tape.step()?;
        apply()?;
        let id = tape.id(file)?;
        tape.steps.push(Step::Change(id, change));
        Ok(())
    }

    fn note(&self, step: Step) -> io::Result<()> {
        let mut tape = lock(&self.0);
        tape.step()?;
        tape.steps.push(step);
        Ok(())
    }
}

impl Disk for Simulated {
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut tape = lock(&self.0);
        tape.step()?;
        let file = Real.create(path)?;
        tape.created(path, &file)?;
        Ok(file)
    }

    fn open_for_writing(&self, path: &Path) -> io::Result<File> {
        Real.open_for_writing(path)
    }

    fn write_pieces(&self, file: &File, pieces: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.change(file, Change::Write(offset, bytes), || Real.write_pieces(file, pieces, offset))
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.change(file, Change::Len(len), || Real.truncate(file, len))
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let id = lock(&self.0).id(file)?;
        self.note(Step::Sync(id))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.note(Step::SyncDir(dir.to_owned()))
    }

    fn sync_file_system(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        self.note(Step::SyncAll)
    }

    fn clone_file(&self, _: BorrowedFd<'_>, _: &Path) -> io::Result<File> {
        Err(Errno::OPNOTSUPP.into())
    }

    fn punch(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        self.change(file, Change::Punch(offset, len), || Real.punch(file, offset, len))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Step::Naming(Naming::Rename(from.to_owned(), to.to_owned())))?;
        Real.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.note(Step::Naming(Naming::Remove(path.to_owned())))?;
        Real.remove(path)
    }

    fn read(&self, file: &File, len: usize, offset: u64) -> io::Result<Vec<u8>> {
        let ino = file.metadata()?.ino();
        let covers = |bad: &(u64, u64)| bad.0 == ino && (offset..offset + len as u64).contains(&bad.1);
        if lock(&self.0).bad_sectors.iter().any(covers) {
            return Err(Errno::IO.into());
        }
        Real.read(file, len, offset)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        Real.free_bytes(dir)
    }

    fn database(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
        let is_new = !path.exists();
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        if is_new {
            lock(&self.0).created(path, &file)?;
        }
        let inner = FileBackend::new(file.try_clone()?)?;
        builder.create_with_backend(Taped { disk: self.clone(), file, inner })
    }
}

/// A file of redb's on a simulated disk.
#[derive(Debug)]
struct Taped {
    disk: Simulated,
    file: File,
    inner: FileBackend,
}

impl StorageBackend for Taped {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.truncate(&self.file, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync(&self.file)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write(&self.file, data, offset)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }
}

/// What of the changes that are not synced is there after the cut.
#[derive(Debug, Clone, Copy)]
pub(super) enum Left {
    /// None.
    Nothing,
    /// All: a process was killed, and the machine went on.
    Everything,
    /// Some, by this seed.
    Some(u64),
}

/// What would be there, after the steps so far.
#[derive(Debug, Default)]
pub(super) struct Image {
    durable: HashMap<FileId, Vec<u8>>,
    changes: HashMap<FileId, Vec<Change>>,
    names: BTreeMap<PathBuf, FileId>,
    namings: Vec<Naming>,
}

impl Image {
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Change(file, change) => self.changes.entry(*file).or_default().push(change.clone()),
            Step::Naming(naming) => self.namings.push(naming.clone()),
            Step::Sync(file) => self.sync(*file),
            Step::SyncDir(dir) => {
                for naming in std::mem::take(&mut self.namings) {
                    let (Naming::Create(path, _) | Naming::Remove(path) | Naming::Rename(path, _)) = &naming;
                    match path.parent() == Some(dir) {
                        true => name(&mut self.names, &naming),
                        false => self.namings.push(naming),
                    }
                }
            }
            Step::SyncAll => {
                self.changes.keys().copied().collect::<Vec<_>>().into_iter().for_each(|file| self.sync(file));
                self.namings.drain(..).for_each(|naming| name(&mut self.names, &naming));
            }
            Step::Promised(_) => {}
        }
    }

    fn sync(&mut self, file: FileId) {
        let content = self.durable.entry(file).or_default();
        self.changes.remove(&file).unwrap_or_default().iter().for_each(|change| make(content, change));
    }

    /// Writes what a cut leaves to `to`, with the paths that were below `from`.
    pub fn write(&self, left: Left, from: &Path, to: &Path) {
        let mut rng = StdRng::seed_from_u64(if let Left::Some(seed) = left { seed } else { 0 });
        let mut names = self.names.clone();
        let kept = match left {
            Left::Nothing => 0,
            Left::Everything => self.namings.len(),
            Left::Some(_) => rng.random_range(0..=self.namings.len()),
        };
        self.namings[..kept].iter().for_each(|naming| name(&mut names, naming));
        for (path, file) in names {
            let mut content = self.durable.get(&file).cloned().unwrap_or_default();
            for change in self.changes.get(&file).into_iter().flatten() {
                match left {
                    Left::Nothing => {}
                    Left::Everything => make(&mut content, change),
                    Left::Some(_) => {
                        some_of(change, &mut rng).iter().for_each(|part| make(&mut content, part))
                    }
                }
            }
            let path = to.join(path.strip_prefix(from).expect("below the store"));
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("creates");
            let file = File::create(&path).expect("creates");
            file.set_len(content.len() as u64).expect("sets the length");
            // Zeros are left out, as holes.
            for (at, block) in
                content.chunks(4096).enumerate().filter(|(_, block)| block.iter().any(|b| *b != 0))
            {
                file.write_all_at(block, 4096 * at as u64).expect("writes");
            }
        }
    }
}

/// None of a change, all of it, or a part.
fn some_of(change: &Change, rng: &mut StdRng) -> Option<Change> {
    let whole = *[Some(true), Some(true), None, Some(false)].choose(rng).expect("not empty");
    match (whole?, change) {
        (false, Change::Write(at, bytes)) => {
            let sectors = (bytes.len() as u64).div_ceil(SECTOR);
            let cut = (rng.random_range(0..=sectors) * SECTOR).min(bytes.len() as u64) as usize;
            match rng.random() {
                true => Some(Change::Write(*at, bytes[..cut].to_vec())),
                false => Some(Change::Write(at + cut as u64, bytes[cut..].to_vec())),
            }
        }
        _ => Some(change.clone()),
    }
}

fn make(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(_, bytes) if bytes.is_empty() => {}
        Change::Write(at, bytes) => {
            let (begin, end) = (*at as usize, *at as usize + bytes.len());
            content.resize(content.len().max(end), 0);
            content[begin..end].copy_from_slice(bytes);
        }
        Change::Len(len) => content.resize(*len as usize, 0),
        Change::Punch(at, len) => {
            let end = content.len().min((at + len) as usize);
            content[(*at as usize).min(end)..end].fill(0);
        }
    }
}

fn name(names: &mut BTreeMap<PathBuf, FileId>, naming: &Naming) {
    match naming {
        Naming::Create(path, file) => {
            names.insert(path.clone(), *file);
        }
        Naming::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Naming::Remove(path) => {
            names.remove(path);
        }
    }
}
