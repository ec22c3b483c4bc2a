//! The streams of one connection.
//!
//! Owns: negotiating them, in both directions.
//! Must not know: other connections.
//! Invariant: at most [`MAX_OPENING`] streams are negotiated by this side at a time, and at most [`MAX_QUEUED`] requests wait for their turn.
//! Trust: the peer may open what it likes; the swarm bounds what is negotiated at a time, the queues of [`super::Incoming`] the rest.
//! Threads: the task of the connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::sync::PoisonError;
use std::task::{Context, Poll};

use libp2p::core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo};
use libp2p::swarm::SubstreamProtocol;
use libp2p::swarm::handler::FullyNegotiatedOutbound;
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, ConnectionId, StreamUpgradeError};
use libp2p::{PeerId, Stream, StreamProtocol};
use tokio::sync::mpsc::error::TrySendError;

use super::{Accepting, Open, OpenError, Opened};

/// Streams that this side negotiates at a time. libp2p's swarm drops what comes beyond 128, on the other side.
const MAX_OPENING: usize = 32;
/// Requests that wait for their turn.
const MAX_QUEUED: usize = 512;

pub(in crate::net) struct Handler {
    connection: ConnectionId,
    peer: PeerId,
    accepting: Accepting,
    queue: VecDeque<Open>,
    opening: usize,
}

impl Handler {
    pub(super) fn new(connection: ConnectionId, peer: PeerId, accepting: Accepting) -> Handler {
        Handler { connection, peer, accepting, queue: VecDeque::new(), opening: 0 }
    }

    fn on_inbound(&self, protocol: &StreamProtocol, stream: Stream) {
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = accepting.get(protocol) else { return };
        if let Err(TrySendError::Full(_)) = sender.try_send((self.peer, stream)) {
            tracing::warn!(peer = %self.peer, %protocol, "more streams come than are taken; one was refused");
        }
    }

    fn on_outbound(&mut self, open: Open, result: Result<Stream, StreamUpgradeError<Infallible>>) {
        self.opening -= 1;
        let result = match result {
            Ok(stream) => Ok(Opened { stream, connection: self.connection }),
            Err(StreamUpgradeError::NegotiationFailed) => Err(OpenError::Unsupported(open.protocol)),
            Err(StreamUpgradeError::Timeout) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            Err(StreamUpgradeError::Io(error)) => Err(error.into()),
            Err(StreamUpgradeError::Apply(never)) => match never {},
        };
        // Whoever has gone needs no stream.
        let _ = open.reply.send(result);
    }
}

/// The protocols of which streams are taken.
pub(in crate::net) struct Offered(Vec<StreamProtocol>);

impl UpgradeInfo for Offered {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Offered {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offered;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Open;

    fn listen_protocol(&self) -> SubstreamProtocol<Offered> {
        let mut accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        accepting.retain(|_, sender| !sender.is_closed());
        SubstreamProtocol::new(Offered(accepting.keys().cloned().collect()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Open, Infallible>> {
        // Both what is queued and the end of a negotiation come from outside, after which the connection polls again.
        while self.opening < MAX_OPENING
            && let Some(open) = self.queue.pop_front()
        {
            if open.reply.is_closed() {
                continue;
            }
            self.opening += 1;
            let upgrade = ReadyUpgrade::new(open.protocol.clone());
            let protocol = SubstreamProtocol::new(upgrade, open);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, open: Open) {
        match self.queue.len() < MAX_QUEUED {
            true => self.queue.push_back(open),
            false => open.fail(OpenError::Crowded),
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Offered, Self::OutboundProtocol, (), Open>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (protocol, stream),
                info: (),
            }) => self.on_inbound(&protocol, stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                self.on_outbound(info, Ok(protocol));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.on_outbound(info, Err(error));
            }
            _ => {}
        }
    }
}
