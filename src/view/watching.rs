//! What the kernel asks of mounts, and how long the answers take.
//!
//! Owns: the counts of all mounts of a node (`Timings`), and what somebody who watches one is told (`Watch`), such as how far
//! ahead of its readers it fetches.
//! Must not know: what is asked for, beyond an inode number and a range.
//! Invariant: nobody waits for whoever watches: what they do not take in time they miss, and are told how much. What the
//! kernel answers by itself, out of its page cache, is not seen here.
//! Trust: none needed. Threads: any; counting takes no lock. While nobody watches, it costs two looks at the clock and two
//! additions for each question.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bcai_mount::TreeError;
use tokio::sync::broadcast;

use super::ahead::{Ahead, AheadFigures};
use crate::id::SnapshotId;

/// Answers that wait for whoever watches a mount.
const WAITING: usize = 4096;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Operation {
    Lookup,
    Attr,
    ReadLink,
    ReadDir,
    Read,
    Xattr,
    ListXattrs,
    Seek,
}

impl Operation {
    pub const ALL: [Self; 8] = [
        Self::Lookup,
        Self::Attr,
        Self::ReadLink,
        Self::ReadDir,
        Self::Read,
        Self::Xattr,
        Self::ListXattrs,
        Self::Seek,
    ];

    /// As the system call is called that asks for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Attr => "getattr",
            Self::ReadLink => "readlink",
            Self::ReadDir => "readdir",
            Self::Read => "read",
            Self::Xattr => "getxattr",
            Self::ListXattrs => "listxattr",
            Self::Seek => "lseek",
        }
    }
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Source {
    /// Memory or the local disk.
    Here,
    /// Something had to be waited for that peers or origins have.
    Elsewhere,
}

impl Source {
    pub const ALL: [Self; 2] = [Self::Here, Self::Elsewhere];

    pub fn name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// Upper bounds of the buckets, in microseconds; what takes longer is in one more.
const BOUNDS: [u64; 14] = [
    10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000,
    30_000_000,
];

/// How long answers of one kind took.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    failed: AtomicU64,
}

/// A histogram as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    pub operation: Operation,
    pub source: Source,
    /// Upper bound in seconds, the last one infinite, and the number of answers up to it and above the one before.
    pub buckets: Vec<(f64, u64)>,
    pub seconds: f64,
    /// Those of them that said that it could not be had, or not in time.
    pub failed: u64,
}

impl Counts {
    pub fn answers(&self) -> u64 {
        self.buckets.iter().map(|(_, answers)| answers).sum()
    }
}

/// How long the answers of all mounts took, since the start.
#[derive(Debug, Default)]
pub struct Timings([[Histogram; Source::ALL.len()]; Operation::ALL.len()]);

impl Timings {
    fn add(&self, answered: &Answered) {
        let histogram = &self.0[answered.operation as usize][answered.source as usize];
        let micros = u64::try_from(answered.took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        histogram.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        histogram.micros.fetch_add(micros, Ordering::Relaxed);
        if matches!(answered.error, Some(TreeError::Io | TreeError::TimedOut)) {
            histogram.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of them, as they stand.
    pub fn counts(&self) -> Vec<Counts> {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let bounds: Vec<f64> = bounds.collect();
        let all =
            Operation::ALL.into_iter().flat_map(|operation| Source::ALL.map(|source| (operation, source)));
        all.map(|(operation, source)| {
            let histogram = &self.0[operation as usize][source as usize];
            let numbers = histogram.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
            Counts {
                operation,
                source,
                buckets: bounds.iter().copied().zip(numbers).collect(),
                seconds: histogram.micros.load(Ordering::Relaxed) as f64 / 1e6,
                failed: histogram.failed.load(Ordering::Relaxed),
            }
        })
        .collect()
    }
}

/// An answer that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    pub operation: Operation,
    /// The snapshot that was asked, since another may have been mounted meanwhile, and the file or directory in it.
    pub snapshot: SnapshotId,
    pub ino: u64,
    /// In bytes; of a directory, a position in it.
    pub offset: u64,
    /// Bytes asked for, where that is a part of the question.
    pub len: u32,
    pub took: Duration,
    pub source: Source,
    /// Why there is nothing else to tell. That there is no such file is an answer like others.
    pub error: Option<TreeError>,
}

/// What happens on one mount.
pub struct Watch {
    timings: Arc<Timings>,
    /// Of the version that was mounted last.
    ahead: Mutex<Weak<Ahead>>,
    watchers: AtomicUsize,
    answers: broadcast::Sender<Answered>,
}

impl Default for Watch {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Watch {
    /// Of a mount that is counted in `timings`.
    pub fn new(timings: Arc<Timings>) -> Self {
        let (watchers, answers) = (AtomicUsize::new(0), broadcast::Sender::new(WAITING));
        Self { timings, ahead: Mutex::default(), watchers, answers }
    }

    pub(super) fn reads_ahead(&self, ahead: &Arc<Ahead>) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(ahead);
    }

    /// How far ahead of its readers is fetched what is mounted now.
    pub fn ahead(&self) -> Option<AheadFigures> {
        // One value is set at a time.
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        ahead.map(|ahead| ahead.figures())
    }

    pub(super) fn answered(&self, answered: Answered) {
        self.timings.add(&answered);
        if self.watchers.load(Ordering::Relaxed) > 0 {
            // The last one may have gone in this moment.
            let _ = self.answers.send(answered);
        }
    }

    /// Tells from now on what is answered.
    pub fn watch(self: &Arc<Self>) -> Watcher {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watcher { watch: self.clone(), answers: self.answers.subscribe() }
    }
}

/// Somebody who watches a mount.
pub struct Watcher {
    watch: Arc<Watch>,
    answers: broadcast::Receiver<Answered>,
}

impl Watcher {
    /// The next answers, as many as wait and `max` at most, but at least one, and how many were missed before them.
    pub async fn next(&mut self, max: usize) -> (Vec<Answered>, u64) {
        let (mut answers, mut missed) = (Vec::new(), 0);
        // The sender lives as long as `watch`, so there is no other failure.
        while answers.is_empty() {
            match self.answers.recv().await {
                Ok(answer) => answers.push(answer),
                Err(broadcast::error::RecvError::Lagged(lost)) => missed += lost,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
        while answers.len() < max
            && let Ok(answer) = self.answers.try_recv()
        {
            answers.push(answer);
        }
        (answers, missed)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watch.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(took: Duration) -> Answered {
        let (operation, source) = (Operation::Read, Source::Elsewhere);
        let snapshot = SnapshotId::from_bytes([1; 32]);
        Answered { operation, snapshot, ino: 7, offset: 0, len: 4096, took, source, error: None }
    }

    #[test]
    fn an_answer_is_counted_once_in_the_bucket_of_its_time() {
        let watch = Watch::default();
        let micros = [0, 10, 11, 30_000_000, 30_000_001, u64::MAX];
        micros.iter().for_each(|micros| watch.answered(answered(Duration::from_micros(*micros))));
        watch.answered(Answered { error: Some(TreeError::Io), ..answered(Duration::from_micros(20)) });
        let counts = watch.timings.counts();
        assert_eq!(counts.len(), Operation::ALL.len() * Source::ALL.len());
        let read = counts.iter().find(|counts| counts.answers() > 0).unwrap();
        assert_eq!((read.operation, read.source, read.answers()), (Operation::Read, Source::Elsewhere, 7));
        let at = |bound: f64| read.buckets.iter().find(|(upper, _)| *upper == bound).unwrap().1;
        assert_eq!((at(1e-5), at(3e-5), at(30.0), at(f64::INFINITY), read.failed), (2, 2, 1, 2, 1));
        assert_eq!(counts.iter().map(Counts::answers).sum::<u64>(), 7);
    }

    #[tokio::test]
    async fn who_watches_sees_what_comes_and_is_told_what_was_missed() {
        let watch = Arc::new(Watch::default());
        watch.answered(answered(Duration::ZERO));
        let mut watcher = watch.watch();
        (0..3).for_each(|n| watch.answered(Answered { ino: n, ..answered(Duration::ZERO) }));
        let (seen, missed) = watcher.next(2).await;
        assert_eq!((seen.iter().map(|a| a.ino).collect::<Vec<_>>(), missed), (vec![0, 1], 0));
        assert_eq!(watcher.next(2).await.0[0].ino, 2);
        let more = WAITING as u64 + 10;
        (0..more).for_each(|n| watch.answered(Answered { ino: n, ..answered(Duration::ZERO) }));
        let (seen, missed) = watcher.next(WAITING * 2).await;
        assert_eq!((seen[0].ino, seen.len() as u64 + missed), (10, more));
        drop(watcher);
        assert_eq!(watch.watchers.load(Ordering::Relaxed), 0);
    }
}
