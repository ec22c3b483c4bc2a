//! A long piece of work that reports how far it is and can be cancelled.
//!
//! Owns: the progress of one job, its pace, and its cancellation.
//! Must not know: what the work is.
//! Invariant: a cancelled job ends at its next step, with what it had stored kept for the next try.
//! Trust: none needed. Threads: shared between the work and whoever watches it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::report::{EndedJob, Outcome, Progress, TransferStatus};
use super::transfers::{Ended, JobKind, Pace};
use super::{Error, Kind, now_ms};

/// Cheap to clone; all clones are the same job.
#[derive(Debug, Clone)]
pub struct Job {
    cancelled: CancellationToken,
    running: Arc<Running>,
}

/// A job as others see it.
#[derive(Debug)]
pub(super) struct Running {
    id: u64,
    kind: JobKind,
    /// The reference or directory that it is about.
    subject: String,
    begun: Instant,
    state: Mutex<(Progress, Pace)>,
    ended: Ended,
}

impl Job {
    /// A job that also ends when `stop` is cancelled, and what others see it by. Its end is told to `ended`.
    pub(super) fn under(
        stop: &CancellationToken,
        (id, kind, subject): (u64, JobKind, &str),
        ended: Ended,
    ) -> (Self, Weak<Running>) {
        let (subject, begun) = (subject.into(), Instant::now());
        let running = Running { id, kind, subject, begun, state: Mutex::default(), ended };
        let job = Self { cancelled: stop.child_token(), running: Arc::new(running) };
        let seen = Arc::downgrade(&job.running);
        (job, seen)
    }

    pub fn progress(&self) -> Progress {
        self.running.state().0.clone()
    }

    pub fn set(&self, progress: Progress) {
        let now = self.running.begun.elapsed();
        let mut state = self.running.state();
        state.1.see(now, &progress);
        state.0 = progress;
    }

    /// Waits for `work` while the job goes on; once it was cancelled, `work` ends where it waits.
    pub async fn run<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.cancelled.run_until_cancelled(work).await.unwrap_or_else(|| Err(cancelled()))
    }

    /// Says how the job has ended, for those who watch it.
    pub fn end(&self, failed: Option<&Error>) {
        let running = &self.running;
        let outcome = match failed {
            None => Outcome::Done,
            Some(_) if self.cancelled.is_cancelled() => Outcome::Cancelled,
            Some(_) => Outcome::Failed,
        };
        running.ended.add(EndedJob {
            id: running.id,
            kind: running.kind.to_string(),
            subject: running.subject.clone(),
            outcome,
            error: failed.filter(|_| outcome == Outcome::Failed).cloned(),
            ended_ms: now_ms(),
            seconds: running.begun.elapsed().as_secs_f64(),
        });
    }

    /// Cancels the job when it is cancelled.
    pub fn cancellation(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    /// An error once the job was cancelled: called between steps.
    pub fn check(&self) -> Result<(), Error> {
        if self.cancelled.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }
}

impl Running {
    pub fn kind(&self) -> JobKind {
        self.kind
    }

    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Whether it has run for so long and is not among those that are over.
    pub fn lasts(&self, least: Duration, over: &[EndedJob]) -> bool {
        self.begun.elapsed() >= least && over.iter().all(|job| job.id != self.id)
    }

    pub fn name(&self) -> String {
        format!("{} {}", self.kind, self.subject)
    }

    pub fn status(&self, now: Instant) -> TransferStatus {
        let since = now.saturating_duration_since(self.begun);
        let state = self.state();
        let (progress, pace) = &*state;
        TransferStatus {
            id: self.id,
            kind: self.kind.to_string(),
            subject: self.subject.clone(),
            phase: progress.phase.clone(),
            files_done: progress.files_done,
            files_total: progress.files_total,
            bytes_done: progress.bytes_done,
            bytes_total: progress.bytes_total,
            rate: pace.rate(since),
            eta_s: pace.left(since, progress.bytes_total).map(|left| left.as_secs_f64()),
            running_s: since.as_secs_f64(),
        }
    }

    fn state(&self) -> MutexGuard<'_, (Progress, Pace)> {
        // Two values of one report; a panic between them leaves a rate that is a step behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of a job that was cancelled.
pub fn cancelled() -> Error {
    Error::new(Kind::Failed, "cancelled").hint("run it again: it goes on where it stopped")
}
