//! Connections are refused before their handshake when all places are taken.
//!
//! Owns: the count of connections, and of those that others have begun.
//! Must not know: who the peers are, which only a handshake would tell.
//! Invariant: nothing is computed for a connection that could only be closed. (Those that begin at the same moment, and are too
//! many together, are closed after their handshakes by the limits of `transport`.)
//! Trust: none is needed.
//! Threads: the driver's task.
//!
//! A peer that is let in and then closed takes itself for connected, and comes again at once, as to any peer that it has lost. In
//! a crowd of a hundred with twelve connections each, nodes kept dialling those that they had lost so, with no place for them.

use std::collections::HashSet;
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionEstablished, FromSwarm};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

pub(super) struct Behaviour {
    places: usize,
    /// Of these, those for connections that others begin.
    for_others: usize,
    taken: HashSet<ConnectionId>,
    by_others: HashSet<ConnectionId>,
}

#[derive(Debug, thiserror::Error)]
#[error("this node has as many connections as it takes")]
struct Full;

impl Behaviour {
    /// For so many connections, and so many of them that others begin.
    pub(super) fn new(places: u32, for_others: u32) -> Behaviour {
        let (places, for_others) = (places as usize, for_others as usize);
        Behaviour { places, for_others, taken: HashSet::new(), by_others: HashSet::new() }
    }

    fn check(&self, has_place: bool) -> Result<(), ConnectionDenied> {
        if has_place && self.taken.len() < self.places { Ok(()) } else { Err(ConnectionDenied::new(Full)) }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.check(self.by_others.len() < self.for_others)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.check(true).map(|()| Vec::new())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { connection_id, endpoint, .. }) => {
                self.taken.insert(connection_id);
                if endpoint.is_listener() {
                    self.by_others.insert(connection_id);
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.taken.remove(&connection_id);
                self.by_others.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
