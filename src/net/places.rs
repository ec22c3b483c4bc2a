//! Connections that others begin are refused before their handshake when all their places are taken.
//!
//! Owns: the count of those that others have begun.
//! Must not know: who the peers are, which only a handshake would tell.
//! Invariant: nothing is computed for a connection that could only be closed. (Those that begin at the same moment, and are too
//! many together, are closed after their handshakes by the limits of `transport`.)
//! Trust: none is needed.
//! Threads: the driver's task.
//!
//! A peer that is let in and then closed takes itself for connected, and comes again at once, as to any peer that it has lost.

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
    taken: HashSet<ConnectionId>,
}

#[derive(Debug, thiserror::Error)]
#[error("all places for connections from outside are taken")]
struct Full;

impl Behaviour {
    /// For so many connections.
    pub(super) fn new(places: u32) -> Behaviour {
        Behaviour { places: places as usize, taken: HashSet::new() }
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
        if self.taken.len() < self.places { Ok(()) } else { Err(ConnectionDenied::new(Full)) }
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
            FromSwarm::ConnectionEstablished(ConnectionEstablished { connection_id, endpoint, .. })
                if endpoint.is_listener() =>
            {
                self.taken.insert(connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.taken.remove(&connection_id);
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
