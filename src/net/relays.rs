//! The relays through which this node can be reached.
//!
//! Owns: a reservation with each relay that the user has named, asked for again when it is lost.
//! Must not know: how a circuit works.
//! Invariant: at most one reservation is asked for or held with each relay; pauses between tries grow.
//! Trust: a relay sees who talks to whom and how much, and nothing of what is said: circuits are encrypted end to end.
//! Threads: the driver's task.

use backon::ExponentialBackoff;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm};
use tokio::time::Instant;

use super::dialling::{PAUSES, pauses};
use super::transport::Behaviour;

/// One relay.
pub(super) struct Reservation {
    /// Where the relay is, with its peer id.
    relay: Multiaddr,
    /// The listener, while one is up or being asked for.
    listener: Option<ListenerId>,
    /// When to ask again.
    at: Option<Instant>,
    pauses: ExponentialBackoff,
}

impl Reservation {
    /// Asks for it.
    pub(super) fn new(relay: Multiaddr) -> Reservation {
        Reservation { relay, listener: None, at: Some(Instant::now()), pauses: pauses() }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.at
    }

    /// Asks for the reservation if that is due.
    pub(super) fn ask(&mut self, swarm: &mut Swarm<Behaviour>) {
        if self.at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        match swarm.listen_on(self.address()) {
            Ok(listener) => (self.listener, self.at) = (Some(listener), None),
            Err(error) => {
                tracing::warn!(relay = %self.relay, %error, "no reservation can be asked of this relay");
                self.later();
            }
        }
    }

    /// The reservation has been given, if `listener` is of this one. Where the node can be reached then: where its user
    /// has named the relay, and not where that says that it is.
    pub(super) fn came_up(&mut self, listener: ListenerId) -> Option<Multiaddr> {
        (self.listener == Some(listener)).then(|| {
            self.pauses = pauses();
            self.address()
        })
    }

    /// A listener is gone. If it was this one, the address where the node cannot be reached any more.
    pub(super) fn closed(&mut self, listener: ListenerId) -> Option<Multiaddr> {
        (self.listener == Some(listener)).then(|| {
            tracing::info!(relay = %self.relay, "no reservation with this relay now");
            self.listener = None;
            self.later();
            self.address()
        })
    }

    fn address(&self) -> Multiaddr {
        self.relay.clone().with(Protocol::P2pCircuit)
    }

    fn later(&mut self) {
        self.at = Some(Instant::now() + self.pauses.next().unwrap_or(PAUSES.1));
    }
}
