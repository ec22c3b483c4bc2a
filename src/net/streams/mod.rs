//! Streams of named protocols, each on the connection that it is meant for.
//!
//! Owns: which connection with a peer a stream is opened on, the second connection that keeps urgent streams from standing behind bulk data, and
//! the queues of streams that come.
//! Must not know: what the streams carry.
//! Invariant: every request for a stream is answered, at the latest by the end of its connection; nothing is queued beyond the bounds below, and no stream that
//! came is dropped while fewer than [`MAX_INCOMING`] of its protocol wait.
//! Trust: a peer may open what it likes; what is too much is refused. It cannot make this node dial.
//! Threads: the swarm's tasks; [`Control`] and [`Incoming`] are for any.

mod handler;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::{ConnectionEstablished, FromSwarm};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionClosed, ConnectionDenied, ConnectionId, DialFailure, NetworkBehaviour};
use libp2p::swarm::{NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use tokio::sync::{mpsc, oneshot};

use handler::Handler;

/// Streams of one protocol that may have come and not been taken yet.
const MAX_INCOMING: usize = 256;
/// Requests for streams that the swarm has not seen yet; who asks for more waits.
const MAX_REQUESTS: usize = 64;
/// Requests that may wait for the second connection with a peer; what is more takes the first.
const MAX_WAITING: usize = 16;
/// How long a stream waits for a connection of its own before it shares one. A session must be open within four seconds.
const DEDICATING: Duration = Duration::from_millis(1500);
/// How long one connection is enough after a second one was lost, or did not come about.
const SINGLE: Duration = Duration::from_secs(60);

/// Which connection a stream is opened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// The first one.
    Shared,
    /// Another one than [`Route::Shared`] is on, if that can be had.
    Urgent,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the peer does not speak {0}")]
    Unsupported(StreamProtocol),
    #[error("the peer is not connected")]
    NotConnected,
    #[error("the connection was lost")]
    Lost,
    #[error("too many streams are being opened with the peer at once")]
    Crowded,
    #[error("the stream broke while it was opened: {0}")]
    Io(#[from] io::Error),
}

/// One request for a stream. Dropping it says that the connection was lost.
#[derive(Debug)]
pub(super) struct Open {
    protocol: StreamProtocol,
    reply: oneshot::Sender<Result<Opened, OpenError>>,
}

impl Open {
    fn fail(self, error: OpenError) {
        // Whoever has gone needs no answer.
        let _ = self.reply.send(Err(error));
    }
}

#[derive(Debug)]
struct Opened {
    stream: Stream,
    connection: ConnectionId,
}

struct Request {
    peer: PeerId,
    route: Route,
    open: Open,
}

type Accepting = Arc<Mutex<HashMap<StreamProtocol, mpsc::Sender<(PeerId, Stream)>>>>;

/// Opens and accepts streams. Clones are handles on the same swarm.
#[derive(Clone)]
pub(super) struct Control {
    requests: mpsc::Sender<Request>,
    accepting: Accepting,
}

impl Control {
    /// Opens a stream with a connected peer. A stream with [`Route::Urgent`] shares the first connection if there is no other within
    /// [`DEDICATING`].
    pub(super) async fn open(
        &self,
        peer: PeerId,
        protocol: StreamProtocol,
        route: Route,
    ) -> Result<Stream, OpenError> {
        let opened = match route {
            Route::Shared => self.request(peer, protocol, route).await,
            Route::Urgent => {
                let dedicated = self.request(peer, protocol.clone(), route);
                match tokio::time::timeout(DEDICATING, dedicated).await {
                    Ok(Err(OpenError::Lost | OpenError::Io(_))) | Err(_) => {
                        self.request(peer, protocol, Route::Shared).await
                    }
                    Ok(opened) => opened,
                }
            }
        }?;
        tracing::debug!(%peer, ?route, connection = %opened.connection, "a stream was opened");
        Ok(opened.stream)
    }

    async fn request(
        &self,
        peer: PeerId,
        protocol: StreamProtocol,
        route: Route,
    ) -> Result<Opened, OpenError> {
        let (reply, opened) = oneshot::channel();
        let request = Request { peer, route, open: Open { protocol, reply } };
        // Without a swarm there is no connection.
        self.requests.send(request).await.map_err(|_| OpenError::NotConnected)?;
        opened.await.unwrap_or(Err(OpenError::Lost))
    }

    /// The streams of `protocol` that peers open, from now on and in place of whoever took them before. Dropping it refuses them again.
    pub(super) fn accept(&self, protocol: StreamProtocol) -> Incoming {
        let (sender, receiver) = mpsc::channel(MAX_INCOMING);
        // Inserting cannot be left half done.
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner).insert(protocol, sender);
        Incoming(receiver)
    }
}

/// The streams of one protocol, in the order in which they came.
pub(super) struct Incoming(mpsc::Receiver<(PeerId, Stream)>);

impl Incoming {
    /// The next one; nothing when the swarm has ended.
    pub(super) async fn next(&mut self) -> Option<(PeerId, Stream)> {
        self.0.recv().await
    }
}

/// The part of the swarm that gives each stream its connection.
pub(super) struct Behaviour {
    control: Control,
    requests: mpsc::Receiver<Request>,
    peers: HashMap<PeerId, Peer>,
    actions: VecDeque<ToSwarm<(), Open>>,
    connections: usize,
    max_connections: usize,
}

#[derive(Default)]
struct Peer {
    /// In the order in which they came about.
    connections: Vec<Connection>,
    /// The dial of the second one.
    dialling: Option<ConnectionId>,
    /// Who waits for it.
    waiting: Vec<Open>,
    /// Until then no second one is dialled.
    single: Option<Instant>,
}

struct Connection {
    id: ConnectionId,
    /// Where the peer was reached, if this node dialled and no relay is in between.
    reached: Option<Multiaddr>,
    relayed: bool,
}

impl Peer {
    /// The connections that streams may use, the first being the shared one: the direct ones, or else those through relays.
    fn usable(&self) -> impl Iterator<Item = &Connection> {
        let direct = self.connections.iter().any(|connection| !connection.relayed);
        self.connections.iter().filter(move |connection| connection.relayed != direct)
    }

    fn connection(&self, route: Route) -> Option<ConnectionId> {
        let position = if route == Route::Shared { 0 } else { 1 };
        self.usable().nth(position).map(|connection| connection.id)
    }
}

impl Behaviour {
    /// Of `max_connections` in all, the second half is kept for first ones.
    pub(super) fn new(max_connections: u32) -> Behaviour {
        let (sender, requests) = mpsc::channel(MAX_REQUESTS);
        Behaviour {
            control: Control { requests: sender, accepting: Accepting::default() },
            requests,
            peers: HashMap::new(),
            actions: VecDeque::new(),
            connections: 0,
            max_connections: max_connections as usize,
        }
    }

    pub(super) fn control(&self) -> Control {
        self.control.clone()
    }

    fn handler(&self, connection: ConnectionId, peer: PeerId) -> Handler {
        Handler::new(connection, peer, self.control.accepting.clone())
    }

    /// Whether second connections would be at the expense of peers that have none.
    fn is_crowded(&self) -> bool {
        2 * self.connections >= self.max_connections
    }

    fn route(&mut self, Request { peer: id, route, open }: Request) {
        if open.reply.is_closed() {
            return;
        }
        let crowded = self.is_crowded();
        let Some(peer) = self.peers.get_mut(&id) else { return open.fail(OpenError::NotConnected) };
        if let Some(connection) = peer.connection(route) {
            self.actions.push_back(notify(id, connection, open));
            return;
        }
        // Who has given up no longer counts.
        peer.waiting.retain(|open| !open.reply.is_closed());
        let reached = peer.usable().next().and_then(|connection| connection.reached.clone());
        let single = crowded || peer.single.is_some_and(|until| Instant::now() < until);
        let room = peer.waiting.len() < MAX_WAITING && !single;
        match (peer.dialling, reached) {
            (Some(_), _) if room => peer.waiting.push(open),
            (None, Some(address)) if room => {
                let opts = DialOpts::peer_id(id)
                    .addresses(vec![address])
                    .condition(PeerCondition::Always)
                    .allocate_new_port()
                    .build();
                peer.dialling = Some(opts.connection_id());
                peer.waiting.push(open);
                self.actions.push_back(ToSwarm::Dial { opts });
            }
            _ => self.share(id, open),
        }
    }

    /// Opens on the first connection what might have had one of its own.
    fn share(&mut self, id: PeerId, open: Open) {
        match self.peers.get(&id).and_then(|peer| peer.connection(Route::Shared)) {
            Some(connection) => self.actions.push_back(notify(id, connection, open)),
            None => open.fail(OpenError::NotConnected),
        }
    }

    fn on_established(&mut self, id: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let relayed = endpoint.is_relayed();
        let reached = (endpoint.is_dialer() && !relayed).then(|| endpoint.get_remote_address().clone());
        self.connections += 1;
        let peer = self.peers.entry(id).or_default();
        peer.connections.push(Connection { id: connection, reached, relayed });
        // It is the one that was dialled for them, or one that the peer dialled meanwhile.
        if let Some(connection) = peer.connection(Route::Urgent) {
            let waiting = std::mem::take(&mut peer.waiting);
            self.actions.extend(waiting.into_iter().map(|open| notify(id, connection, open)));
        }
        self.on_dialled(id, connection);
    }

    fn on_closed(&mut self, id: PeerId, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let before = peer.connections.len();
        peer.connections.retain(|other| other.id != connection);
        self.connections -= before - peer.connections.len();
        peer.single = Some(Instant::now() + SINGLE);
        if peer.connections.is_empty() {
            // Dropping those who wait tells them.
            self.peers.remove(&id);
        }
    }

    /// A dial has ended, well or not: who still waits for it shares the first connection.
    fn on_dialled(&mut self, id: PeerId, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.dialling != Some(connection) {
            return;
        }
        peer.dialling = None;
        for open in std::mem::take(&mut peer.waiting) {
            self.share(id, open);
        }
    }
}

fn notify(peer_id: PeerId, connection: ConnectionId, event: Open) -> ToSwarm<(), Open> {
    ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event }
}

/// A second connection was refused; the first one serves.
#[derive(Debug, thiserror::Error)]
#[error("half of the connections are in use: a peer may have one")]
struct Crowded;

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.is_crowded() && self.peers.contains_key(&peer) {
            return Err(ConnectionDenied::new(Crowded));
        }
        Ok(self.handler(connection, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection, peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => self.on_established(peer_id, connection_id, endpoint),
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.on_closed(peer_id, connection_id);
            }
            FromSwarm::DialFailure(DialFailure { peer_id: Some(id), connection_id, .. }) => {
                if let Some(peer) =
                    self.peers.get_mut(&id).filter(|peer| peer.dialling == Some(connection_id))
                {
                    peer.single = Some(Instant::now() + SINGLE);
                }
                self.on_dialled(id, connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Poll::Ready(action);
            }
            match self.requests.poll_recv(cx) {
                Poll::Ready(Some(request)) => self.route(request),
                // This holds a sender, so it never ends.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}
