//! Reading ahead: what is fetched before the readers of a mount ask for it.
//!
//! Owns: how a file that is read in order is recognised, the tasks that fetch, and their number. Files that follow each
//! other are recognised by `neighbours`, directories that do by `listings`.
//! Must not know: FUSE; how anything is fetched.
//! Invariant: only who had to wait for something is watched, so that a mount whose content is here pays nothing; at
//! most [`TASKS`] tasks of a mount read ahead. Nothing depends on whether reading ahead succeeds.
//! Trust: that of `view`. Threads: called on FUSE threads; fetching is a task of the runtime.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::listings::Listings;
use super::neighbours::Neighbours;
use super::{View, ViewError};

/// Files that are watched for being read in order.
const STREAMS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// Tasks of one mount that read ahead.
const TASKS: usize = 8;

/// How far ahead of a reader chunks are fetched, in bytes: at first, and at most. It doubles each time.
const WINDOWS: (u64, u64) = (512 << 10, 8 << 20);

/// Reads this far from where the last one ended still count as in order: the kernel asks for several at a time.
const SLACK: u64 = 2 << 20;

/// A file that had to be waited for, and how it is being read. Offsets in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stream {
    /// Where the next read begins if it is in order.
    next: u64,
    /// Up to where chunks have been asked for.
    until: u64,
    window: u64,
}

impl Stream {
    fn new(next: u64) -> Self {
        Self { next, until: next, window: WINDOWS.0 }
    }

    /// Takes note of a read. What to fetch ahead of it, if anything.
    fn advance(&mut self, offset: u64, end: u64) -> Option<(u64, u64)> {
        if offset.abs_diff(self.next) > SLACK {
            *self = Self::new(end);
            return None;
        }
        self.next = self.next.max(end);
        if self.until > self.next.saturating_add(self.window / 2) {
            return None;
        }
        let ahead = (self.until.max(self.next), self.next.saturating_add(self.window));
        self.until = ahead.1;
        self.window = (self.window * 2).min(WINDOWS.1);
        Some(ahead)
    }
}

/// What is read ahead for one mount.
pub(super) struct Ahead {
    view: Arc<View>,
    runtime: Handle,
    streams: Mutex<LruCache<u64, Stream>>,
    neighbours: Mutex<Neighbours>,
    listings: Arc<Mutex<Listings>>,
    tasks: Arc<Semaphore>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these is changed in single steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ahead {
    pub(super) fn new(view: Arc<View>, runtime: Handle) -> Self {
        Self {
            view,
            runtime,
            streams: Mutex::new(LruCache::new(STREAMS)),
            neighbours: Mutex::default(),
            listings: Arc::default(),
            tasks: Arc::new(Semaphore::new(TASKS)),
        }
    }

    /// Takes note that a file was read from `offset` up to `end`, and whether that was answered at once.
    pub(super) fn was_read(&self, ino: u64, offset: u64, end: u64, was_here: bool) {
        if let Some((from, to)) = self.rest_of_file(ino, offset, end, was_here) {
            let view = Arc::clone(&self.view);
            self.start(async move { view.read_ahead(ino, from, to).await });
        }
        if offset == 0
            && let Some((from, to)) = lock(&self.neighbours).advance(ino, was_here)
        {
            let view = Arc::clone(&self.view);
            self.start(async move { view.fetch_files(from, to).await });
        }
    }

    fn rest_of_file(&self, ino: u64, offset: u64, end: u64, was_here: bool) -> Option<(u64, u64)> {
        let mut streams = lock(&self.streams);
        match streams.get_mut(&ino) {
            Some(stream) => stream.advance(offset, end),
            None => {
                if !was_here {
                    streams.put(ino, Stream::new(end));
                }
                None
            }
        }
    }

    /// Takes note that a directory was listed from the entry `offset` on, and whether that was answered at once.
    pub(super) fn was_listed(&self, ino: u64, offset: u64, was_here: bool) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_in_order_looks_further_and_further_ahead() {
        const MIB: u64 = 1 << 20;
        let mut stream = Stream::new(MIB);
        let mut asked = Vec::new();
        for block in 1..40 {
            asked.extend(stream.advance(block * MIB, (block + 1) * MIB));
        }
        assert!(asked.windows(2).all(|pair| pair[0].1 <= pair[1].0), "nothing twice: {asked:?}");
        let longest = asked.iter().map(|(from, to)| to - from).max();
        assert!(longest > Some(MIB) && longest <= Some(WINDOWS.1), "{asked:?}");
        assert!(asked.iter().all(|(from, to)| to - from <= WINDOWS.1));
        assert_eq!(stream.window, WINDOWS.1);
    }

    #[test]
    fn jumping_about_stops_it() {
        let mut stream = Stream::new(0);
        assert!(stream.advance(0, 4096).is_some());
        assert_eq!(stream.advance(100 << 20, (100 << 20) + 4096), None);
        assert_eq!(stream, Stream::new((100 << 20) + 4096));
    }
}
