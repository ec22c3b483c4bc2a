//! The engine's timeouts: which are armed, and which are due.
//!
//! Owns: the list of armed timeouts. Must not know: what a timeout means, or any clock: it is told the time.
//! Invariant: a timeout is armed at most once; arming it again replaces it. At most a handful are armed,
//! because the engine cancels them all when a round begins.
//! Trust: the engine is the only caller. Threads: the driver's.

use std::time::{Duration, Instant};

use arc_malachitebft_core_types::{LinearTimeouts, Timeout, TimeoutKind};

/// Armed timeouts with the moment each is due.
#[derive(Debug)]
pub struct Timers {
    durations: LinearTimeouts,
    armed: Vec<(Instant, Timeout)>,
}

/// Whether the two are the same timer. The duration that one kind carries does not tell them apart.
fn same(a: &Timeout, b: &Timeout) -> bool {
    let finalize = |t: &Timeout| matches!(t.kind, TimeoutKind::FinalizeHeight(_));
    a.round == b.round && (a.kind == b.kind || finalize(a) && finalize(b))
}

impl Timers {
    /// None armed.
    pub fn new(durations: LinearTimeouts) -> Self {
        Self { durations, armed: Vec::new() }
    }

    /// Arms `timeout`, for as long as its kind and round last.
    pub fn arm(&mut self, timeout: Timeout, now: Instant) {
        self.cancel(timeout);
        // A round that has not begun has no duration, and none is ever asked for.
        let duration =
            if timeout.round.is_nil() { Duration::ZERO } else { self.durations.duration_for(timeout) };
        self.armed.push((now + duration, timeout));
    }

    /// Disarms `timeout`.
    pub fn cancel(&mut self, timeout: Timeout) {
        self.armed.retain(|(_, armed)| !same(armed, &timeout));
    }

    /// Disarms all.
    pub fn clear(&mut self) {
        self.armed.clear();
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.armed.iter().map(|(due, _)| *due).min()
    }

    /// Takes one that is due, the earliest first.
    pub fn take_due(&mut self, now: Instant) -> Option<Timeout> {
        let (at, _) = self.armed.iter().enumerate().min_by_key(|(_, (due, _))| *due)?;
        (self.armed[at].0 <= now).then(|| self.armed.remove(at).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arc_malachitebft_core_types::Round;

    #[test]
    fn due_in_order_once_and_never_when_cancelled() {
        let start = Instant::now();
        let mut timers = Timers::new(LinearTimeouts::default());
        let (propose, prevote) = (Timeout::propose(Round::new(0)), Timeout::prevote(Round::new(0)));
        timers.arm(propose, start);
        timers.arm(prevote, start);
        timers.arm(Timeout::precommit(Round::new(0)), start);
        timers.cancel(Timeout::precommit(Round::new(0)));
        // One second and three seconds are the library's durations for the first round.
        assert_eq!(timers.next(), Some(start + Duration::from_secs(1)));
        assert_eq!(timers.take_due(start), None);
        let later = start + Duration::from_secs(9);
        assert_eq!(timers.take_due(later), Some(prevote));
        assert_eq!(timers.take_due(later), Some(propose));
        assert_eq!(timers.take_due(later), None);
    }

    #[test]
    fn arming_again_replaces() {
        let start = Instant::now();
        let mut timers = Timers::new(LinearTimeouts::default());
        let again = Timeout::rebroadcast(Round::new(1));
        timers.arm(again, start);
        timers.arm(again, start + Duration::from_secs(1));
        assert!(timers.take_due(start + Duration::from_secs(100)).is_some());
        assert_eq!(timers.next(), None);
    }
}
