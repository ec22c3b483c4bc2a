//! Looking on while mounts are used.
//!
//! Owns: which mount is counted and watched where (`view::Watch`), and what a watcher is told.
//! Must not know: how an answer comes about.
//! Invariant: nobody who uses a mount waits for a watcher; what a watcher missed is told in numbers.
//! Trust: names are a publisher's, and escaped. Threads: the runtime.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::mpsc;

use super::error::Error;
use super::job::Job;
use super::report::{AnswerCounts, TraceRequest, TraceRow, Traced};
use super::text::escape;
use super::{Node, now_ms};
use crate::id::SnapshotId;
use crate::view::{Answered, Counts, Timings, View, Watch};

/// Answers in one batch of rows.
const BATCH: usize = 512;
/// How often is looked whether the mount is there still.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Names of files that are remembered.
const NAMES: NonZeroUsize = NonZeroUsize::new(4096).expect("is not zero");
/// How long a name may take to find.
const NAMING: Duration = Duration::from_millis(500);

/// Where mounts are counted.
#[derive(Default)]
pub(super) struct Watches {
    timings: Arc<Timings>,
    mounts: Mutex<BTreeMap<PathBuf, Weak<Watch>>>,
}

impl Watches {
    /// Of all mounts together.
    pub fn timings(&self) -> Arc<Timings> {
        self.timings.clone()
    }

    /// What happens on a directory, whatever is mounted there in turn.
    pub fn of(&self, dir: &Path) -> Arc<Watch> {
        // One entry is put in its place at a time.
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = mounts.get(dir).and_then(Weak::upgrade) {
            return watch;
        }
        let watch = Arc::new(Watch::new(self.timings.clone()));
        mounts.retain(|_, watch| watch.strong_count() > 0);
        mounts.insert(dir.to_owned(), Arc::downgrade(&watch));
        watch
    }
}

impl Node {
    /// How long the answers of mounts took; only kinds that there were.
    pub(super) fn answers(&self) -> Vec<AnswerCounts> {
        let counts = self.mounts.watches().timings().counts().into_iter();
        let micros = |seconds: f64| seconds.is_finite().then(|| (seconds * 1e6).round() as u64);
        let row = |counts: Counts| AnswerCounts {
            operation: counts.operation.name().into(),
            source: counts.source.name().into(),
            answers: counts.answers(),
            seconds: counts.seconds,
            failed: counts.failed,
            buckets: counts.buckets.iter().map(|(bound, answers)| (micros(*bound), *answers)).collect(),
        };
        counts.filter(|counts| counts.answers() > 0).map(row).collect()
    }

    /// Tells what the kernel asks of a mount, until it ends or nobody listens any more.
    pub async fn trace(
        &self,
        request: &TraceRequest,
        job: &Job,
        rows: mpsc::Sender<Vec<TraceRow>>,
    ) -> Result<Traced, Error> {
        let no_mount = || {
            Error::not_found(format!("nothing is mounted on {} by this node", request.dir.display()))
                .hint("`bcai status` lists the mounts")
        };
        let dir = super::off(|| request.dir.canonicalize()).map_err(|_| no_mount())?;
        self.mounts.view(&dir).ok_or_else(no_mount)?;
        let mut watcher = self.mounts.watches().of(&dir).watch();
        let mut names = Names(LruCache::new(NAMES));
        let (mut answers, mut missed) = (0, 0);
        loop {
            let Some(view) = self.mounts.view(&dir) else { return Ok(Traced { answers, missed }) };
            let next = tokio::time::timeout(LOOK_EVERY, watcher.next(BATCH));
            let Ok((batch, lost)) = job.run(async { Ok(next.await) }).await? else { continue };
            (answers, missed) = (answers + batch.len() as u64, missed + lost);
            let mut told = Vec::with_capacity(batch.len());
            for answered in batch {
                told.push(row(&answered, names.of(&view, &answered).await));
            }
            if let Some(first) = told.first_mut() {
                first.missed = lost;
            }
            if rows.send(told).await.is_err() {
                return Ok(Traced { answers, missed });
            }
        }
    }
}

fn row(answered: &Answered, path: String) -> TraceRow {
    let Answered { operation, ino, offset, len, took, source, error, .. } = *answered;
    TraceRow {
        time_ms: now_ms(),
        operation: operation.name().into(),
        path,
        ino,
        offset,
        len,
        micros: took.as_micros() as u64,
        source: source.name().into(),
        error: error.map(|error| error.to_string()),
        missed: 0,
    }
}

/// The paths of files that have come by, each with the snapshot that it is of.
struct Names(LruCache<(SnapshotId, u64), String>);

impl Names {
    /// As far as what is mounted now tells it: who still reads what was mounted before is shown without a path.
    async fn of(&mut self, view: &Arc<View>, answered: &Answered) -> String {
        let key = (answered.snapshot, answered.ino);
        if let Some(name) = self.0.get(&key) {
            return name.clone();
        }
        let unnamed = format!("inode {}", answered.ino);
        if answered.snapshot != view.id() {
            return unnamed;
        }
        // One that cannot be found in time is not looked for again.
        let name = match tokio::time::timeout(NAMING, view.path(answered.ino)).await {
            Ok(Ok(path)) => escape(&path),
            _ => unnamed,
        };
        self.0.put(key, name.clone());
        name
    }
}
