//! Work that waits for the disk, on the threads that may.
//!
//! Owns: how its end, or its panic, comes to whoever waits for it.
//! Must not know: what the work is.
//! Invariant: a panic of the work goes on in whoever waits for it.
//! Trust: none is needed.
//! Threads: those of the runtime's blocking pool.

use tokio::task::JoinError;

/// Runs `work` where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    outcome_of(tokio::task::spawn_blocking(work).await).await
}

pub(super) async fn outcome_of<T>(joined: Result<T, JoinError>) -> T {
    match joined {
        Ok(value) => value,
        // Nobody cancels these tasks, except the end of the runtime; then nobody polls this.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
