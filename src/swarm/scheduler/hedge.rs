//! Second requests: for what the first peer has not delivered in its usual time.
//!
//! Owns: when a second peer is asked, and what that may cost.
//! Must not know: which peer is the quickest (`choose`).
//! Invariant: at most two peers are asked for an object at a time.
//! Trust: that of [`super`].
//! Threads: a part of the scheduler's state.

use std::time::Duration;

use super::want::Asked;
use super::{Action, Scheduler};
use crate::id::ObjectId;
use crate::swarm::choice::Failure;
use crate::swarm::{Class, Spread};

/// Each request adds so much of a second one.
pub(super) const HEDGE_SHARE: f64 = 0.05;
/// Second requests that may be saved up.
pub(super) const HEDGES: f64 = 4.0;
/// The least time after which a second peer is asked for a fault.
pub(super) const HEDGE_AFTER: Duration = Duration::from_millis(10);
/// What is asked for of a bulk class is late after so many times as long as others took of late, within these bounds.
const LATE: u32 = 4;
const LATE_AFTER: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(1));
/// A peer that delivers nothing at all for so long is not waited for.
const SILENT_AFTER: Duration = Duration::from_secs(1);

impl<P: Copy + Ord + std::hash::Hash> Scheduler<P> {
    /// Asks a second peer for what the first has not delivered in its usual time. Of bulk classes only what is left at
    /// the end, when there is nothing else to do; where the first has delivered nothing at all since, that is no extra.
    pub(super) fn hedge(&mut self, now: Duration, object: ObjectId) {
        let Some(want) = self.wants.get_mut(&object) else { return };
        want.hedge_at = None;
        // Whoever wants one peer alone has it asked alone.
        if want.asked.is_empty() || want.spread == Spread::Best {
            return;
        }
        let is_bulk = want.class != Class::Fault;
        let has_others = is_bulk && self.waiting.iter().any(|queue| !queue.is_empty());
        if has_others || !self.ask_second(now, object) && is_bulk {
            self.hedge_later(now + self.late_after(), object);
        }
    }

    /// Asks a second peer, if that may be and there is one; says whether it did.
    fn ask_second(&mut self, now: Duration, object: ObjectId) -> bool {
        self.take_back_silent(now, object);
        let Some(want) = self.wants.get(&object) else { return false };
        let &[asked] = &want.asked[..] else { return false };
        let is_silent = self.is_silent(now, want.class, asked);
        if !is_silent && self.hedge_credit < 1.0 {
            return false;
        }
        let Some(other) = self.quickest(now, &object, want) else { return false };
        match self.peers.get_mut(&asked.peer) {
            Some(first) if is_silent => first.on_failed(now, asked.at, Failure::<P>::TimedOut),
            _ => self.hedge_credit -= 1.0,
        }
        self.ask(now, object, other);
        true
    }

    /// Of two that are asked, takes back what was asked of the first if it delivers nothing.
    fn take_back_silent(&mut self, now: Duration, object: ObjectId) {
        let Some(want) = self.wants.get(&object) else { return };
        let &[first, _] = &want.asked[..] else { return };
        let (class, bytes, peer) = (want.class, want.bytes, first.peer);
        if !self.is_silent(now, class, first) {
            return;
        }
        if let Some(want) = self.wants.get_mut(&object) {
            want.asked.remove(0);
            want.failed.push((peer, Failure::TimedOut));
        }
        self.settle(peer, class, bytes);
        self.actions.push(Action::Cancel { object, peer });
    }

    /// Whether a peer that was asked for a bulk class has delivered nothing at all since.
    fn is_silent(&self, now: Duration, class: Class, asked: Asked<P>) -> bool {
        class != Class::Fault
            && now >= asked.at + SILENT_AFTER
            && self.peers.get(&asked.peer).is_some_and(|peer| peer.is_silent_since(asked.at))
    }

    /// When what is asked for now of a bulk class is late.
    pub(super) fn late_after(&self) -> Duration {
        (self.delay * LATE).clamp(LATE_AFTER.0, LATE_AFTER.1)
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
