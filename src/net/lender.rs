//! The node's receive budget, for tasks that can wait.
//!
//! Owns: the one [`Budget`], and who is to be woken when a ticket is served.
//! Must not know: what is received.
//! Invariant: bytes lent are given back exactly once: when their [`Lease`] is dropped.
//! Trust: called by our own code only.
//! Threads: any; the lock is held for bookkeeping only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::swarm::Class;
use crate::swarm::credit::{Budget, Stage, Ticket};

#[derive(Default)]
pub(super) struct Lender(Mutex<State>);

#[derive(Default)]
struct State {
    budget: Budget,
    tickets: Ticket,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
}

impl Lender {
    /// Waits until `bytes` are to be had.
    pub(super) async fn borrow(self: &Arc<Self>, class: Class, stage: Stage, bytes: u32) -> Lease {
        let (served, wait) = oneshot::channel();
        let (ticket, at_once) = {
            let mut state = self.state();
            state.tickets += 1;
            let ticket = state.tickets;
            let at_once = state.budget.ask(ticket, class, stage, bytes);
            if !at_once {
                state.waiting.insert(ticket, served);
            }
            (ticket, at_once)
        };
        let lease = Lease { lender: self.clone(), class, bytes };
        if at_once {
            return lease;
        }
        let waiting = Waiting { ticket, lease: Some(lease) };
        // The sender is dropped only after it was used or by `Waiting`, so this is the time of being served.
        let _ = wait.await;
        waiting.served()
    }

    /// Bytes lent now.
    #[cfg(test)]
    pub(super) fn lent(&self) -> u64 {
        self.state().budget.lent()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The numbers stay consistent whatever panics: each change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, class: Class, bytes: u32) {
        let mut state = self.state();
        let served = state.budget.release(class, bytes);
        state.wake(served);
    }

    /// Whether the ticket was still waiting.
    fn withdraw(&self, ticket: Ticket) -> bool {
        let mut state = self.state();
        let (waited, served) = state.budget.withdraw(ticket);
        state.waiting.remove(&ticket);
        state.wake(served);
        waited
    }
}

impl State {
    fn wake(&mut self, served: Vec<Ticket>) {
        for ticket in served {
            if let Some(waiting) = self.waiting.remove(&ticket) {
                // Whoever has gone in the meantime gives the bytes back when its `Waiting` is dropped.
                let _ = waiting.send(());
            }
        }
    }
}

/// Bytes lent to one request; given back when dropped.
pub(super) struct Lease {
    lender: Arc<Lender>,
    class: Class,
    bytes: u32,
}

impl Lease {
    pub(super) fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Gives `bytes` of it back now.
    pub(super) fn shrink(&mut self, bytes: u32) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.lender.release(self.class, bytes);
    }

    /// Takes over what was lent for the same request later.
    pub(super) fn merge(&mut self, mut other: Lease) {
        debug_assert_eq!(self.class, other.class);
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.lender.release(self.class, self.bytes);
        }
    }
}

/// A place in the queue, left when dropped.
struct Waiting {
    ticket: Ticket,
    lease: Option<Lease>,
}

impl Waiting {
    fn served(mut self) -> Lease {
        // Only this method takes the lease, and it consumes the place.
        self.lease.take().expect("taken here only, and `served` consumes")
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(mut lease) = self.lease.take() else { return };
        if lease.lender.withdraw(self.ticket) {
            // Nothing was lent.
            lease.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::MAX_OBJECT;
    use futures::FutureExt;

    #[tokio::test]
    async fn whoever_waits_is_served_and_whoever_leaves_costs_nothing() {
        let lender = Arc::new(Lender::default());
        let mut leases = Vec::new();
        let start = || lender.borrow(Class::Prefetch, Stage::Start, MAX_OBJECT);
        while let Some(lease) = start().now_or_never() {
            leases.push(lease);
        }
        let full = lender.lent();
        let (mut first, mut second, mut third) = (Box::pin(start()), Box::pin(start()), Box::pin(start()));
        for waiting in [&mut first, &mut second, &mut third] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        // One leaves while waiting, one after it was served but before it has noticed.
        drop(second);
        leases.pop();
        assert_eq!(lender.lent(), full, "the first has got it");
        drop(first);
        let third = third.now_or_never().expect("and then the third");
        assert_eq!((third.bytes(), lender.lent()), (MAX_OBJECT, full));
        drop((third, leases));
        assert_eq!(lender.lent(), 0);
    }

    #[tokio::test]
    async fn a_lease_shrinks_and_grows() {
        let lender = Arc::new(Lender::default());
        let mut lease = lender.borrow(Class::Fault, Stage::Start, 1000).await;
        lease.shrink(400);
        assert_eq!(lender.lent(), 600);
        lease.merge(lender.borrow(Class::Fault, Stage::Finish, 50).await);
        assert_eq!((lease.bytes(), lender.lent()), (650, 650));
        drop(lease);
        assert_eq!(lender.lent(), 0);
    }
}
