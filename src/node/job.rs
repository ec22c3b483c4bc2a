//! A long piece of work that reports how far it is and can be cancelled.
//!
//! Owns: the progress of one job and its cancellation.
//! Must not know: what the work is.
//! Invariant: a cancelled job ends at its next step, with what it had stored kept for the next try.
//! Trust: none needed. Threads: shared between the work and whoever watches it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::report::Progress;
use super::{Error, Kind};

/// Cheap to clone; all clones are the same job.
#[derive(Debug, Clone)]
pub struct Job {
    cancelled: CancellationToken,
    progress: Arc<Mutex<Progress>>,
}

impl Job {
    /// A job that also ends when `stop` is cancelled.
    pub fn under(stop: &CancellationToken) -> Self {
        Self { cancelled: stop.child_token(), progress: Arc::default() }
    }

    pub fn progress(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    /// Waits for `work` while the job goes on; once it was cancelled, `work` ends where it waits.
    pub async fn run<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.cancelled.run_until_cancelled(work).await.unwrap_or_else(|| Err(cancelled()))
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

/// The error of a job that was cancelled.
pub fn cancelled() -> Error {
    Error::new(Kind::Failed, "cancelled").hint("run it again: it goes on where it stopped")
}
