//! Reading ahead: what is fetched before the readers of a mount ask for it.
//!
//! Owns: how a file that is read in order is recognised, the tasks that fetch, their number, and what is told of all that. How far
//! ahead is decided by `pace`. Files that follow each other are recognised by `neighbours`, directories that do by `listings`.
//! Must not know: FUSE; how anything is fetched.
//! Invariant: only who had to wait for something is watched, so that a mount whose content is here pays nothing; at
//! most [`TASKS`] tasks of a mount read ahead. Nothing depends on whether reading ahead succeeds.
//! Trust: that of `view`. Threads: called on FUSE threads; fetching is a task of the runtime.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::listings::Listings;
use super::neighbours::{self, Neighbours};
use super::pace::{Latency, Pacing, Reader, Rule};
use super::{View, ViewError};

/// Files that are watched for being read in order.
const STREAMS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// Tasks of one mount that read ahead: so many that windows decide what is under way.
const TASKS: usize = 64;

/// How far ahead of a reader of a file chunks are fetched, in bytes. A window of 64 MiB fills 1 Gbit/s for half a second; what
/// is fetched ahead of all readers has to stay in a cache until it is read.
const RULE: Rule =
    Rule { least: 256 << 10, first: 512 << 10, most: 64 << 20, together: 128 << 20, step: 64 << 10 };

/// Reads this far from where the last one ended still count as in order: the kernel asks for several at a time.
const SLACK: u64 = 2 << 20;

/// Reads on end that may come as far behind as [`BEHIND`] before they are a jump: on a busy machine a thread with a read may
/// stand still while others go on.
const LATE: u32 = 8;
const BEHIND: u64 = 32 << 20;

/// How often is looked who has left.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How far ahead of its readers a mount fetches, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AheadFigures {
    /// Bytes ahead of each reader as a user wants them; 0 for none.
    pub fixed: Option<u64>,
    /// Bytes ahead of the reader of a file that has most, or of the next one if there is none.
    pub window: u64,
    /// The same in files, of readers that go from file to file.
    pub files: u64,
    /// Readers in order that have read of late.
    pub readers: u64,
    /// How long it takes to get what nobody has asked for before.
    pub latency: Option<Duration>,
    /// Bytes that were fetched ahead, and of them about those whose readers have left without reading them.
    pub fetched: u64,
    pub unread: u64,
}

/// Counts the bytes that were fetched ahead: of one reader, and of all.
#[derive(Debug, Clone)]
pub(super) struct Tally([Arc<AtomicU64>; 2]);

impl Tally {
    pub(super) fn add(&self, bytes: u64) {
        for counter in &self.0 {
            counter.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// Everybody who reads in order.
struct Readers {
    streams: LruCache<u64, Reader>,
    neighbours: Neighbours,
    bytes: Pacing,
    files: Pacing,
    latency: Latency,
    looked: Duration,
}

impl Readers {
    fn look(&mut self, now: Duration) {
        self.bytes.look(now, self.streams.iter_mut().map(|(_, reader)| reader));
        self.files.look(now, self.neighbours.readers());
        self.looked = now;
    }
}

/// A read of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub(super) ino: u64,
    pub(super) offset: u64,
    pub(super) end: u64,
    /// It was answered at once.
    pub(super) was_here: bool,
}

/// What is read ahead for one mount.
pub(super) struct Ahead {
    view: Arc<View>,
    runtime: Handle,
    started: Instant,
    /// Bytes ahead of each reader, if a user wants that.
    fixed: Option<u64>,
    readers: Mutex<Readers>,
    listings: Arc<Mutex<Listings>>,
    tasks: Arc<Semaphore>,
    fetched: Arc<AtomicU64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these is changed in single steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ahead {
    /// With `fixed`, so many bytes ahead of each reader, and nothing at all if that is 0.
    pub(super) fn new(view: Arc<View>, runtime: Handle, fixed: Option<u64>) -> Self {
        let readers = Readers {
            streams: LruCache::new(STREAMS),
            neighbours: Neighbours::new(view.snapshot().totals.inodes.saturating_add(2)),
            bytes: Pacing::new(RULE, fixed),
            files: Pacing::new(neighbours::RULE, fixed.map(|_| neighbours::FIXED)),
            latency: Latency::default(),
            looked: Duration::ZERO,
        };
        Self {
            view,
            runtime,
            started: Instant::now(),
            fixed,
            readers: Mutex::new(readers),
            listings: Arc::default(),
            tasks: Arc::new(Semaphore::new(TASKS)),
            fetched: Arc::default(),
        }
    }

    fn is_off(&self) -> bool {
        self.fixed == Some(0)
    }

    /// Takes note of a read; `size` says how long its file is, if that is known. Whether it waits for something that was not
    /// asked for ahead: then how long it took is to be told to [`took`](Self::took).
    pub(super) fn was_read(&self, read: Read, size: impl FnOnce() -> Option<u64>) -> bool {
        if self.is_off() {
            return false;
        }
        // Only of one that had to wait, and before the lock: it may be read from the disk.
        let size = if read.was_here { None } else { Some(size().unwrap_or(u64::MAX)) };
        let mut readers = lock(&self.readers);
        let unasked = self.rest_of_file(&mut readers, read, size) && !readers.neighbours.have_asked(read.ino);
        if read.offset == 0 {
            self.next_files(&mut readers, read);
        }
        unasked
    }

    /// Says how long the first chunk of something took that was not asked for ahead.
    pub(super) fn took(&self, took: Duration) {
        lock(&self.readers).latency.add(took);
    }

    /// Whether the read waits, and not for what was asked for ahead of a reader of this file, whose `size` is known if so.
    fn rest_of_file(&self, readers: &mut Readers, read: Read, size: Option<u64>) -> bool {
        let Read { ino, offset, end, was_here } = read;
        let Some(reader) = readers.streams.get_mut(&ino) else {
            // Only one that had to wait is worth watching, if there is more than what it has asked for.
            if let Some(size) = size.filter(|size| *size > end) {
                let begun = readers.bytes.begin(self.started.elapsed(), end, size);
                if let Some((_, mut oldest)) = readers.streams.push(ino, begun) {
                    readers.bytes.leave(&mut oldest);
                }
            }
            return !was_here;
        };
        let now = self.started.elapsed();
        let is_behind = offset.saturating_add(SLACK) < reader.next;
        if is_behind && offset.saturating_add(BEHIND) > reader.next && reader.late < LATE {
            reader.late += 1;
            return !was_here && !reader.has_asked(end);
        }
        if is_behind || offset > reader.next.saturating_add(SLACK).max(reader.until) {
            readers.bytes.leave(reader);
            *reader = readers.bytes.begin(now, end, reader.end());
            return !was_here;
        }
        reader.late = 0;
        let unasked = !was_here && !reader.has_asked(end);
        let (to, latency) = (end.min(reader.end()), readers.latency.usual());
        if let Some((from, to)) = readers.bytes.advance(reader, now, (to, !was_here), latency) {
            let (view, tally) = (Arc::clone(&self.view), self.tally(reader));
            if !self.start(async move { view.read_ahead(ino, (from, to), &tally).await }) {
                reader.until = from;
            }
        }
        if now.saturating_sub(readers.looked) >= LOOK_EVERY {
            readers.look(now);
        }
        unasked
    }

    fn next_files(&self, readers: &mut Readers, read: Read) {
        let Readers { neighbours, files, latency, .. } = readers;
        let now = || self.started.elapsed();
        let Some(reader) = neighbours.reader(files, read.ino, read.was_here, now) else { return };
        let next = (read.ino + 1, !read.was_here);
        let Some((from, to)) = files.advance(reader, now(), next, latency.usual()) else { return };
        let (view, tally) = (Arc::clone(&self.view), self.tally(reader));
        let most = self.fixed.unwrap_or(RULE.most);
        if !self.start(async move { view.fetch_files(from..to, most, &tally).await }) {
            reader.until = from;
        }
    }

    fn tally(&self, reader: &Reader) -> Tally {
        Tally([reader.fetched(), self.fetched.clone()])
    }

    /// How things stand.
    pub(super) fn figures(&self) -> AheadFigures {
        let mut readers = lock(&self.readers);
        readers.look(self.started.elapsed());
        let Readers { streams, neighbours, bytes, files, latency, .. } = &mut *readers;
        let of_bytes = streams.iter().map(|(_, reader)| reader).filter(|reader| reader.is_ahead());
        let of_files = neighbours.readers().filter(|reader| reader.is_ahead());
        let (mut count, mut largest) = (0, (None, None));
        of_bytes.for_each(|reader| (count, largest.0) = (count + 1, largest.0.max(Some(reader.window()))));
        of_files.for_each(|reader| (count, largest.1) = (count + 1, largest.1.max(Some(reader.window()))));
        let window = |largest: Option<u64>, pacing: &Pacing| match self.fixed {
            None => largest.unwrap_or(pacing.start()),
            Some(_) => pacing.start(),
        };
        AheadFigures {
            fixed: self.fixed,
            window: window(largest.0, bytes),
            files: if self.is_off() { 0 } else { window(largest.1, files) },
            readers: count,
            latency: latency.usual(),
            fetched: self.fetched.load(Ordering::Relaxed),
            unread: bytes.unread() + files.unread(),
        }
    }

    /// Takes note that a directory was listed from the entry `offset` on, and whether that was answered at once.
    pub(super) fn was_listed(&self, ino: u64, offset: u64, was_here: bool) {
        if self.is_off() {
            return;
        }
        let view = Arc::clone(&self.view);
        if offset > 0 {
            if lock(&self.listings).goes_on(ino, was_here) {
                self.start(async move { view.fetch_directory(ino).await });
            }
            return;
        }
        let next = lock(&self.listings).advance(ino, was_here);
        let Some(window) = next else { return };
        let listings = Arc::clone(&self.listings);
        let started = self.start(async move {
            let fetched = view.fetch_listings(window.after, window.count).await;
            lock(&listings).fetched(window, fetched.as_deref().unwrap_or_default());
            fetched.map(drop)
        });
        if !started {
            lock(&self.listings).fetched(window, &[]);
        }
    }

    /// Runs `work`, unless too much runs already; whether it does.
    fn start(&self, work: impl Future<Output = Result<(), ViewError>> + Send + 'static) -> bool {
        let Ok(permit) = Arc::clone(&self.tasks).try_acquire_owned() else { return false };
        self.runtime.spawn(async move {
            let _permit = permit;
            if let Err(error) = work.await {
                tracing::debug!(%error, "reading ahead failed");
            }
        });
        true
    }
}
