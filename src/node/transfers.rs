//! The long jobs that run now, how fast they go, and how the last ones ended.
//!
//! Owns: the list of running jobs, that of ended ones, and the one place where progress becomes a rate and a remaining time.
//! Must not know: what a job does.
//! Invariant: a job is listed as running exactly while somebody holds it and it has not said how it ended; listing it changes nothing.
//! Trust: none needed. Threads: any; locks are held for arithmetic only.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::job::{Job, Running};
use super::report::{EndedJob, Jobs, Outcome, Progress, TransferStatus};
use crate::swarm::health::Flow;

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    Snapshot,
    Publish,
    Replicate,
    Prefetch,
    Pin,
    Unpin,
    Verify,
    Export,
    Diff,
    Gc,
    BundleExport,
    BundleImport,
    Trace,
}

impl JobKind {
    /// Whether it may need what only peers have.
    pub(super) fn fetches(self) -> bool {
        matches!(
            self,
            Self::Prefetch | Self::Pin | Self::Replicate | Self::Export | Self::Diff | Self::BundleExport
        )
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snapshot => "snapshot",
            Self::Publish => "publish",
            Self::Replicate => "replicate",
            Self::Prefetch => "prefetch",
            Self::Pin => "pin",
            Self::Unpin => "unpin",
            Self::Verify => "verify",
            Self::Export => "export",
            Self::Diff => "diff",
            Self::Gc => "gc",
            Self::BundleExport => "bundle export",
            Self::BundleImport => "bundle import",
            Self::Trace => "trace",
        })
    }
}

/// Ended jobs that are remembered.
const ENDED: usize = 32;

/// The jobs that ended last, the newest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Ended(Arc<(Mutex<VecDeque<EndedJob>>, Notify)>);

impl Ended {
    pub fn add(&self, job: EndedJob) {
        let mut ended = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.truncate(ENDED - 1);
        ended.push_front(job);
        self.0.1.notify_one();
    }

    /// Waits until another has ended. For one who waits.
    pub async fn next(&self) {
        self.0.1.notified().await;
    }

    fn list(&self) -> Vec<EndedJob> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// The jobs of a node.
#[derive(Default)]
pub(super) struct Transfers {
    begun: AtomicU64,
    running: Mutex<Vec<Weak<Running>>>,
    ended: Ended,
}

impl Transfers {
    /// A new job, listed for as long as it is held, which also ends when `stop` is cancelled.
    pub fn begin(&self, stop: &CancellationToken, kind: JobKind, subject: &str) -> Job {
        let id = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let (job, running) = Job::under(stop, (id, kind, subject), self.ended.clone());
        let mut jobs = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|job| job.strong_count() > 0);
        jobs.push(running);
        job
    }

    /// Those that run, the oldest first.
    pub fn list(&self) -> Vec<TransferStatus> {
        let now = Instant::now();
        self.running().iter().map(|job| job.status(now)).collect()
    }

    /// Those that have run for so long already, as kind and subject.
    pub fn lasting(&self, least: Duration) -> Vec<(JobKind, String)> {
        let over = self.ended.list();
        let jobs = self.running().into_iter().filter(|job| job.lasts(least, &over));
        jobs.map(|job| (job.kind(), job.subject().to_owned())).collect()
    }

    pub fn ended(&self) -> &Ended {
        &self.ended
    }

    /// Those that the end of the node before has cut off.
    pub fn interrupted(&self) -> Vec<EndedJob> {
        let mut ended = self.ended.list();
        ended.retain(|job| job.outcome == Outcome::Interrupted);
        ended
    }

    /// Those that run, and those that have ended. One that says how it ended is held a moment longer, and does not run any more.
    pub fn jobs(&self) -> Jobs {
        let (mut running, ended) = (self.list(), self.ended.list());
        running.retain(|job| ended.iter().all(|over| over.id != job.id));
        Jobs { running, ended }
    }

    /// Those that may need what only peers have, for people.
    pub fn fetching(&self) -> Vec<String> {
        self.running().iter().filter(|job| job.kind().fetches()).map(|job| job.name()).collect()
    }

    fn running(&self) -> Vec<Arc<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }
}

/// How fast the bytes of a job advance, smoothed. A pure value.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    phase: String,
    done: u64,
    flow: Flow,
}

/// A remaining time beyond this is no forecast.
const FORECAST: Duration = Duration::from_secs(1000 * 24 * 3600);
/// Slower is standing still, in bytes a second.
const STILL: f64 = 1.0;

impl Pace {
    /// The job says how far it is. A new phase counts from its own beginning, and so does one that begins again.
    pub fn see(&mut self, now: Duration, progress: &Progress) {
        if progress.phase != self.phase || progress.bytes_done < self.done {
            // What a phase has done when it is first seen took no time that is known.
            *self = Pace { phase: progress.phase.clone(), done: progress.bytes_done, flow: Flow::default() };
            self.flow.add(now, 0);
            return;
        }
        self.flow.add(now, progress.bytes_done - self.done);
        self.done = progress.bytes_done;
    }

    /// Bytes a second; 0 when it stands still.
    pub fn rate(&self, now: Duration) -> f64 {
        let rate = self.flow.rate(now);
        if rate < STILL { 0.0 } else { rate }
    }

    /// The time until `total` bytes are done at this rate; nothing while that cannot be said.
    pub fn left(&self, now: Duration, total: u64) -> Option<Duration> {
        if total == 0 {
            return None;
        }
        let rate = self.rate(now);
        let bytes = total.saturating_sub(self.done);
        if bytes == 0 {
            return Some(Duration::ZERO);
        }
        let seconds = bytes as f64 / rate;
        (rate > 0.0 && seconds < FORECAST.as_secs_f64()).then(|| Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Error;
    use super::super::job::cancelled;
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const TOTAL: u64 = 100_000_000;

    fn at(phase: &str, bytes_done: u64) -> Progress {
        Progress { phase: phase.into(), bytes_done, bytes_total: TOTAL, ..Progress::default() }
    }

    /// 1 MB each second, told four times a second, from second 1 to `end`.
    fn steady(pace: &mut Pace, end: u32) {
        (4..=4 * end).for_each(|quarter| {
            pace.see(quarter * S / 4, &at("fetching", u64::from(quarter) * 250_000));
        });
    }

    #[test]
    fn a_steady_job_has_its_rate_and_its_end() {
        let mut pace = Pace::default();
        assert_eq!((pace.rate(S), pace.left(S, TOTAL)), (0.0, None));
        steady(&mut pace, 40);
        let rate = pace.rate(40 * S);
        assert!((rate / 1e6 - 1.0).abs() < 0.1, "{rate}");
        let left = pace.left(40 * S, TOTAL).unwrap().as_secs_f64();
        assert!((left / 60.0 - 1.0).abs() < 0.1, "{left}");
        assert_eq!(pace.left(40 * S, 0), None, "the total is not known");
        assert_eq!(pace.left(40 * S, 40_000_000), Some(Duration::ZERO));
        assert_eq!(pace.left(40 * S, 39_000_000), Some(Duration::ZERO), "a total that was too low");
    }

    #[test]
    fn a_stall_shows_and_passes() {
        let mut pace = Pace::default();
        steady(&mut pace, 20);
        let (soon, later) = (pace.left(21 * S, TOTAL).unwrap(), pace.left(30 * S, TOTAL).unwrap());
        assert!(later > 5 * soon, "{soon:?} {later:?}");
        assert_eq!((pace.rate(120 * S), pace.left(120 * S, TOTAL)), (0.0, None));
        // Told again and again that nothing has come.
        (21..120).for_each(|second| pace.see(second * S, &at("fetching", 20_000_000)));
        assert_eq!(pace.left(120 * S, TOTAL), None);
        pace.see(121 * S, &at("fetching", 23_000_000));
        assert!(pace.left(121 * S, TOTAL).is_some());
    }

    #[test]
    fn going_back_and_a_new_phase_begin_anew() {
        let mut pace = Pace::default();
        steady(&mut pace, 20);
        pace.see(20 * S, &at("fetching", 5_000_000));
        assert_eq!(pace.rate(20 * S), 0.0);
        pace.see(22 * S, &at("fetching", 7_000_000));
        let rate = pace.rate(22 * S);
        assert!((rate / 1e6 - 1.0).abs() < 0.5, "{rate}");
        // What is there already when a phase begins has not come within an instant.
        pace.see(23 * S, &at("checking", 90_000_000));
        assert_eq!((pace.rate(23 * S), pace.left(23 * S, TOTAL)), (0.0, None));
    }

    #[test]
    fn a_job_is_listed_while_it_is_held() {
        let transfers = Transfers::default();
        let job = transfers.begin(&CancellationToken::new(), JobKind::Prefetch, "photos@v1");
        job.set(at("fetching", 10));
        let listed = transfers.list();
        assert_eq!((listed.len(), listed[0].kind.as_str()), (1, "prefetch"));
        assert_eq!((listed[0].subject.as_str(), listed[0].bytes_done), ("photos@v1", 10));
        assert_eq!(transfers.fetching(), ["prefetch photos@v1"]);
        drop(job);
        assert!(transfers.list().is_empty() && transfers.fetching().is_empty());
    }

    #[test]
    fn the_end_of_a_job_is_told_and_the_oldest_is_forgotten() {
        let (transfers, stop) = (Transfers::default(), CancellationToken::new());
        let begin = |kind| transfers.begin(&stop, kind, "photos@v1");
        let job = begin(JobKind::Publish);
        job.end(None);
        let jobs = transfers.jobs();
        assert!(jobs.running.is_empty() && jobs.ended[0].outcome == Outcome::Done, "{jobs:?}");
        let failed = begin(JobKind::Export);
        failed.end(Some(&Error::not_found("no such thing")));
        let given_up = begin(JobKind::Diff);
        given_up.cancellation().cancel();
        given_up.end(Some(&cancelled()));
        let outcomes: Vec<_> =
            transfers.jobs().ended.into_iter().map(|job| (job.outcome, job.error.is_some())).collect();
        assert_eq!(outcomes, [(Outcome::Cancelled, false), (Outcome::Failed, true), (Outcome::Done, false)]);
        (0..2 * ENDED).for_each(|_| begin(JobKind::Verify).end(None));
        let ended = transfers.jobs().ended;
        assert!(
            ended.len() == ENDED && ended.windows(2).all(|pair| pair[0].id == pair[1].id + 1),
            "{ended:?}"
        );
    }
}
