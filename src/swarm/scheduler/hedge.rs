//! Second requests: for what the first peer has not delivered in its usual time.
//!
//! Owns: when a second peer is asked, and what that may cost.
//! Must not know: which peer is the quickest (`choose`).
//! Invariant: at most two peers are asked for an object at a time.
//! Trust: that of [`super`].
//! Threads: a part of the scheduler's state.

use std::time::Duration;

use super::Scheduler;
use super::want::Asked;
use crate::id::ObjectId;
use crate::swarm::choice::Failure;
use crate::swarm::{Class, Spread};

/// Each request adds so much of a second one.
pub(super) const HEDGE_SHARE: f64 = 0.05;
/// Second requests that may be saved up.
pub(super) const HEDGES: f64 = 4.0;
/// The least time after which a second peer is asked.
pub(super) const HEDGE_AFTER: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

impl<P: Copy + Ord + std::hash::Hash> Scheduler<P> {
    /// Asks a second peer for what the first has not delivered in its usual time. Of bulk classes only what is left at
    /// the end, when there is nothing else to do; where the first has delivered nothing at all since, that is no extra.
    pub(super) fn hedge(&mut self, now: Duration, object: ObjectId) {
        let Some(want) = self.wants.get_mut(&object) else { return };
        want.hedge_at = None;
        let want = &self.wants[&object];
        let &[Asked { peer: first, at }] = &want.asked[..] else { return };
        // Whoever wants one peer alone has it asked alone.
        if want.spread == Spread::Best {
            return;
        }
        let is_bulk = want.class != Class::Fault;
        if is_bulk && self.waiting.iter().any(|queue| !queue.is_empty()) {
            return self.hedge_later(now + HEDGE_AFTER.1, object);
        }
        let is_silent = is_bulk && self.peers.get(&first).is_some_and(|first| first.is_silent_since(at));
        if !is_silent && self.hedge_credit < 1.0 {
            return;
        }
        if let Some(other) = self.quickest(now, &object, want) {
            match self.peers.get_mut(&first) {
                Some(first) if is_silent => first.on_failed(now, at, Failure::<P>::TimedOut),
                _ => self.hedge_credit -= 1.0,
            }
            self.ask(now, object, other);
        }
    }

    /// What is asked of one peer may be asked of a second one at `at`.
    pub(super) fn hedge_later(&mut self, at: Duration, object: ObjectId) {
        let Some(want) = self.wants.get_mut(&object) else { return };
        if let Some(before) = want.hedge_at.replace(at) {
            self.hedges.remove(&(before, object));
        }
        self.hedges.insert((at, object));
    }
}
