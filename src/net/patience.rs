//! How long one request to one peer may take.
//!
//! Owns: these times, and waiting within them.
//! Must not know: what is waited for.
//! Invariant: nobody waits longer than twice the patience of a class.
//! Trust: a peer may trickle for as long as it likes; it is not waited for.
//! Threads: async; no state.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::swarm::Class;

/// How long a request of this class may go without a byte before another peer is asked; and, twice that, how long it
/// may take in all.
pub(super) fn attempt(class: Class) -> Duration {
    Duration::from_secs(match class {
        Class::Fault => 5,
        Class::Readahead => 10,
        Class::Prefetch => 30,
        Class::Replicate => 60,
    })
}

/// Waits for `answer` while there is progress within any `patience`, and for twice that in all: a peer that trickles
/// would otherwise hold a reader for as long as it likes.
pub(super) async fn patiently<T>(
    patience: Duration,
    progress: &AtomicU64,
    mut answer: impl Future<Output = T> + Unpin,
) -> Option<T> {
    let until = Instant::now() + 2 * patience;
    let mut seen = 0;
    loop {
        let next = until.min(Instant::now() + patience);
        if let Ok(answer) = timeout_at(next, &mut answer).await {
            return Some(answer);
        }
        let come = progress.load(Ordering::Relaxed);
        if next == until || come == seen {
            return None;
        }
        seen = come;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that sent a byte now and then was waited for without end: each byte began the time anew.
    #[tokio::test]
    async fn a_trickle_does_not_hold_a_reader_for_ever() {
        let progress = AtomicU64::new(0);
        let trickle = async {
            loop {
                progress.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        };
        let patience = Duration::from_millis(20);
        tokio::select! {
            biased;
            answer = patiently(patience, &progress, std::future::pending::<()>()) => assert!(answer.is_none()),
            () = trickle => {}
        }
        // And without a byte it is waited for once, not twice.
        let (begun, patience) = (Instant::now(), Duration::from_millis(200));
        assert!(patiently(patience, &AtomicU64::new(0), std::future::pending::<()>()).await.is_none());
        assert!(begun.elapsed() < 2 * patience);
        assert_eq!(patiently(patience, &progress, std::future::ready(7)).await, Some(7));
    }
}
