//! A directory becomes a snapshot in the store.
//!
//! Owns: what of a file system a snapshot keeps, the refusal of what it cannot keep, and the threads that
//! read, cut, hash, compress and put.
//! Must not know: datasets, versions, the log, the network.
//! Invariant: the same tree gives the same snapshot, whatever the threads do; and a snapshot is recorded only
//! when all of it was read without a change and is durable in the store.
//! Trust: the tree may be hostile and may change underfoot. Nothing is opened through a symlink, so nothing
//! outside of the tree is read; what changes while it is read fails the snapshot by name.
//! Threads: called on a thread that may block. It walks the tree itself and starts, for the time of the call,
//! one reader and one compressor for each processor (two at least), one writer and one that commits.
//! A crash leaves objects that no snapshot refers to; the next snapshot of the tree finds and uses them.
//!
//! Kept: names, permission bits, uid and gid, modification times, sizes, contents with their holes, symlink
//! targets, hard links among the names of the tree (`nlink` counts these and no others), and extended
//! attributes called `user.*`. The attributes `security.*` and `system.*` (capabilities, labels, access lists)
//! are rules of this machine about its own users, and `trusted.*` shows itself only to root, so that the id of
//! a snapshot would depend on who takes it; none of them is kept. Nor are access and change times, inode
//! numbers and directory sizes. Other file systems mounted in the tree are entered, as tar and restic do.
//!
//! Pipeline: `scan` lists the tree once for totals and hard links, and refuses early. `walk` lists it again
//! and gives files in batches to the readers (`read`), which cut and hash; what the store lacks goes through
//! `outbox` to the compressors and the writer, or stays in its file (`in_place`). `walk` puts the entries back in order and builds the tree.
//! Every channel is bounded. Held in memory are a few buffers for each thread, the listings of the directories
//! between the root and the present one, and one small record for each directory and hard-linked inode.

mod in_place;
mod inventory;
mod known;
mod outbox;
mod read;
mod scan;
mod source;
#[cfg(test)]
mod tests;
mod walk;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::bounded;

use self::in_place::Sources;
use self::outbox::{Claims, Outbox, Stored};
use crate::chunking::{Chunking, ChunkingError};
use crate::crypto::dataset::Keyring;
use crate::id::{ObjectId, SnapshotId};
use crate::manifest::{ManifestError, Snapshot, Totals};
use crate::pack::sealed::MAX_PLAIN_LEN;
use crate::pack::{Checked, Compression, PackError};
use crate::store::{DirId, Keep, SnapshotRecord, Store, StoreError};

pub use self::in_place::Placed;

/// Why there is no snapshot. Nothing of it is visible in the store.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The user's mistake.
    #[error("{path:?} does not exist")]
    Missing { path: PathBuf },
    /// The user's mistake.
    #[error("{path:?} is not a directory: a snapshot is of a directory")]
    NotADirectory { path: PathBuf },
    /// The user's to decide.
    #[error("{path:?} is a symlink, which is not followed: name the directory it leads to, {target:?}")]
    RootIsSymlink { path: PathBuf, target: PathBuf },
    /// The user's to repair.
    #[error(
        "cannot read {path:?}: {source} (a snapshot keeps all or nothing: make it readable or take it out)"
    )]
    Unreadable { path: PathBuf, source: io::Error },
    /// The user's to decide.
    #[error(
        "{path:?} is a {kind}, which a snapshot cannot keep: take it out, or skip such files (--skip-special)"
    )]
    Special { path: PathBuf, kind: &'static str },
    /// Worth a retry when the tree is at rest.
    #[error("{path:?} changed while it was being read ({what}): try again when nothing writes to it")]
    Changed { path: PathBuf, what: &'static str },
    /// The user's to repair.
    #[error(
        "{path:?} is too deep: a snapshot has at most {} levels of directories",
        crate::manifest::MAX_DEPTH
    )]
    TooDeep { path: PathBuf },
    /// The user's to repair.
    #[error("{path:?} cannot be kept: {source}")]
    Unkeepable { path: PathBuf, source: ManifestError },
    /// The user's mistake.
    #[error(transparent)]
    Chunking(#[from] ChunkingError),
    /// The tree as a whole exceeds the format.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// What the store says of itself.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Retry when the machine has threads to give.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The user's mistake.
    #[error(
        "{0} cannot be encrypted: its chunks may be as long as an object may be, and encryption adds to that; take a smaller size"
    )]
    TooLongToSeal(Chunking),
    /// The user's mistake.
    #[error("files cannot be kept in place when they are encrypted: what is served is not what is in them")]
    SealedInPlace,
    /// Damage of this machine's disk.
    #[error("{0} was stored, and is not there when it is read again: bcai verify --all looks at the disk")]
    Lost(ObjectId),
    /// Damage of this machine's disk.
    #[error("what was stored is not what it was when it is read again: {0}")]
    Damaged(#[from] PackError),
    /// The caller's own wish.
    #[error("the snapshot was cancelled")]
    Cancelled,
}

/// How to take a snapshot.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub chunking: Chunking,
    pub compression: Compression,
    /// Leaves out sockets, FIFOs and devices and lists them, instead of refusing the tree.
    pub skip_special: bool,
    /// Leaves the chunks of larger files where they are, instead of putting them into packs.
    pub in_place: bool,
    /// Reads all files, also those that have not changed since an earlier snapshot.
    pub paranoid: bool,
    /// Seals everything with the newest generation of these; what the store has sealed with an earlier one stays as it is.
    pub keys: Option<Arc<Keyring>>,
}

/// How far a snapshot has come, for another thread to watch; and its off switch.
#[derive(Debug, Default)]
pub struct Progress {
    files_found: AtomicU64,
    bytes_found: AtomicU64,
    files_done: AtomicU64,
    bytes_done: AtomicU64,
    bytes_read: AtomicU64,
    unchanged: AtomicU64,
    stored_bytes: AtomicU64,
    cancelled: AtomicBool,
}

/// A look at a [`Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Names found that are no directories. Grows until the tree has been listed; then nothing is done yet.
    pub files_found: u64,
    /// The sizes of files found, each hard-linked file once.
    pub bytes_found: u64,
    pub files_done: u64,
    pub bytes_done: u64,
    /// Bytes of contents that were read from files; what is known from an earlier snapshot is not.
    pub bytes_read: u64,
    /// Files that were not read because they have not changed since an earlier snapshot.
    pub unchanged: u64,
    /// Bytes that the store has grown by.
    pub stored_bytes: u64,
}

impl Progress {
    /// Makes the snapshot end soon with [`IngestError::Cancelled`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    fn check(&self) -> Result<(), IngestError> {
        if self.cancelled.load(Relaxed) { Err(IngestError::Cancelled) } else { Ok(()) }
    }

    /// The present counts; each is right, but they are not of one moment.
    pub fn counts(&self) -> Counts {
        Counts {
            files_found: self.files_found.load(Relaxed),
            bytes_found: self.bytes_found.load(Relaxed),
            files_done: self.files_done.load(Relaxed),
            bytes_done: self.bytes_done.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            unchanged: self.unchanged.load(Relaxed),
            stored_bytes: self.stored_bytes.load(Relaxed),
        }
    }
}

/// A finished snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub snapshot: SnapshotId,
    /// All below the root directory, itself not counted.
    pub totals: Totals,
    /// Objects that the store did not have before, and their stored size.
    pub new_objects: u64,
    pub new_bytes: u64,
    /// The files whose content was not put into packs.
    pub placed: Placed,
    /// Files that were not read because they have not changed since an earlier snapshot.
    pub unchanged: u64,
    /// What `skip_special` left out, in the order of the walk.
    pub skipped: Vec<PathBuf>,
}

/// Takes a snapshot of `dir` into `store`, durably, and records it there.
pub fn snapshot(
    dir: &Path,
    store: &Store,
    options: &Options,
    progress: &Progress,
) -> Result<Done, IngestError> {
    let processors = thread::available_parallelism().map_or(1, |count| count.get());
    snapshot_with(dir, store, options, progress, processors.max(2))
}

/// What the threads of one snapshot share.
struct Run<'a> {
    store: &'a Store,
    /// The root, by which the store tells what it remembers of this tree.
    tree: DirId,
    options: &'a Options,
    progress: &'a Progress,
    claims: Claims,
    in_place: Option<Sources>,
    stop: AtomicBool,
    failure: Mutex<Option<IngestError>>,
}

impl Run<'_> {
    /// To be called often: tells a thread to end because of a cancellation or of a failure elsewhere.
    fn check(&self) -> Result<(), IngestError> {
        let stop = self.stop.load(Relaxed) || self.progress.cancelled.load(Relaxed);
        if stop { Err(IngestError::Cancelled) } else { Ok(()) }
    }

    /// Stops all threads. The first failure is the one to report: later ones follow from it.
    fn fail(&self, error: IngestError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.store(true, Relaxed);
    }
}

fn snapshot_with(
    dir: &Path,
    store: &Store,
    options: &Options,
    progress: &Progress,
    workers: usize,
) -> Result<Done, IngestError> {
    options.chunking.check()?;
    if options.keys.is_some() {
        if options.chunking.max_len() > MAX_PLAIN_LEN {
            return Err(IngestError::TooLongToSeal(options.chunking));
        }
        if options.in_place {
            return Err(IngestError::SealedInPlace);
        }
    }
    let root = source::Dir::open_root(dir)?;
    let in_place = options.in_place.then(|| Sources::new(dir)).transpose()?;
    let run = Run {
        store,
        tree: root.id(),
        options,
        progress,
        claims: Claims::default(),
        in_place,
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    let (built, mut stored) = match work(&run, root, workers) {
        Ok(done) => done,
        Err(error) => {
            run.fail(error);
            (None, Stored::default())
        }
    };
    let stopped = run.check();
    if built.is_none() || stopped.is_err() {
        // So that the next try goes on from here. What is lost when this fails is only time, and the failure of the
        // run is the one to report.
        let _ = store.commit();
    }
    let placed = run.in_place.as_ref().map(|sources| sources.finish(&mut stored)).unwrap_or_default();
    if let Some(error) = run.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    stopped?;
    let walk::Built { snapshot, skipped, dirs } = built.ok_or(IngestError::Cancelled)?;
    let totals = snapshot.totals;
    let snapshot = match &options.keys {
        None => snapshot,
        Some(keys) => inventory::seal(store, keys, &snapshot, progress, &mut stored)?,
    };
    // This makes all that was put durable.
    store.tidy_listings(run.tree, |dir| dirs.contains(&dir))?;
    // The object that names all others comes last: so that the recovery of a store may take a published snapshot
    // object for a whole snapshot.
    let id = snapshot.id();
    let put = store.put(&[whole(&snapshot, options.compression)], Keep::Published)?;
    stored.objects += put.objects;
    stored.bytes += put.stored_bytes;
    progress.stored_bytes.fetch_add(put.stored_bytes, Relaxed);
    store.keep_snapshot(SnapshotRecord {
        id,
        bytes: totals.bytes,
        inodes: totals.inodes,
        chunks: totals.chunks,
        created_unix_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64),
        source: dir.canonicalize().unwrap_or_else(|_| dir.to_owned()).to_string_lossy().into_owned(),
        submitted: None,
    })?;
    Ok(Done {
        snapshot: id,
        totals,
        new_objects: stored.objects,
        new_bytes: stored.bytes,
        unchanged: progress.counts().unchanged,
        placed,
        skipped,
    })
}

/// The snapshot object as the store takes it.
fn whole(snapshot: &Snapshot, compression: Compression) -> Checked {
    Checked::with_id(snapshot.id().into(), snapshot.encode().into(), compression)
}

/// Starts the threads, walks, and returns when all have ended. `None` if the walk failed; `run` knows why.
fn work(
    run: &Run<'_>,
    root: source::Dir,
    workers: usize,
) -> Result<(Option<walk::Built>, Stored), IngestError> {
    let scan = scan::scan(run, &root)?;
    thread::scope(|scope| {
        let (job_tx, job_rx) = bounded::<walk::Job>(2 * workers);
        let (reads_tx, reads_rx) = bounded(walk::WINDOW);
        let (pack_tx, pack_rx) = bounded(workers);
        let (put_tx, put_rx) = bounded(16);
        let (due_tx, due_rx) = bounded(0);
        let spawn = |name: &str| thread::Builder::new().name(format!("ingest-{name}"));
        for _ in 0..workers {
            let (jobs, reads) = (job_rx.clone(), reads_tx.clone());
            let outbox = Outbox::new(run, pack_tx.clone());
            spawn("read")
                .spawn_scoped(scope, move || read::reader(run, &jobs, &reads, outbox))
                .map_err(IngestError::Thread)?;
            let (packs, puts) = (pack_rx.clone(), put_tx.clone());
            spawn("pack")
                .spawn_scoped(scope, move || outbox::compressor(run, &packs, &puts))
                .map_err(IngestError::Thread)?;
        }
        let writer = spawn("put")
            .spawn_scoped(scope, move || outbox::writer(run, &put_rx, &due_tx))
            .map_err(IngestError::Thread)?;
        spawn("commit")
            .spawn_scoped(scope, move || outbox::committer(run, &due_rx))
            .map_err(IngestError::Thread)?;
        // The threads end when the last sender is gone: keep none but the walk's own.
        drop((job_rx, reads_tx, pack_rx, put_tx));
        let outbox = Outbox::new(run, pack_tx);
        let built =
            walk::walk(run, root, &scan, job_tx, &reads_rx, outbox).map_err(|error| run.fail(error)).ok();
        // A panic of the writer has been reported by its own thread; without its result there is no snapshot.
        let stored = writer.join().map_err(|_| IngestError::Cancelled)?;
        Ok((built, stored))
    })
}
