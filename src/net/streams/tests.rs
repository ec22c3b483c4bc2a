//! Two swarms on loopback, with nothing but streams.

use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::Swarm;
use libp2p::identity::Keypair;
use libp2p::swarm::{Config, SwarmEvent};
use tokio::task::AbortHandle;

use super::*;
use crate::net::secure;

const ECHO: StreamProtocol = StreamProtocol::new("/echo/1");
/// No test comes near these limits unless it says so.
const ROOM: u32 = 64;

type Told = Box<dyn FnOnce(&mut Swarm<Behaviour>) + Send>;

/// A swarm with its own task. What it reports is sent on.
struct Side {
    peer: PeerId,
    address: Multiaddr,
    control: Control,
    events: mpsc::UnboundedReceiver<SwarmEvent<()>>,
    tell: mpsc::Sender<Told>,
    task: AbortHandle,
}

impl Drop for Side {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn side(max_connections: u32) -> Side {
    let keypair = Keypair::generate_ed25519();
    let peer = keypair.public().to_peer_id();
    let tcp = libp2p::tcp::tokio::Transport::default();
    let transport = secure::secured(tcp, &keypair).unwrap();
    let config = Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
    let mut swarm = Swarm::new(transport, Behaviour::new(max_connections), peer, config);
    let control = swarm.behaviour().control();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let (sender, events) = mpsc::unbounded_channel();
    let (tell, mut told) = mpsc::channel::<Told>(1);
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                event = swarm.select_next_some() => drop(sender.send(event)),
                Some(told) = told.recv() => told(&mut swarm),
            }
        }
    });
    Side { peer, address, control, events, tell, task: task.abort_handle() }
}

impl Side {
    async fn next(&mut self) -> SwarmEvent<()> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.events.recv());
        next.await.expect("something happens").unwrap()
    }

    /// The id of the next connection.
    async fn connected(&mut self) -> ConnectionId {
        loop {
            if let SwarmEvent::ConnectionEstablished { connection_id, .. } = self.next().await {
                return connection_id;
            }
        }
    }

    /// The id of the next connection that has ended.
    async fn closed(&mut self) -> ConnectionId {
        loop {
            if let SwarmEvent::ConnectionClosed { connection_id, .. } = self.next().await {
                return connection_id;
            }
        }
    }

    async fn tell(&self, what: impl FnOnce(&mut Swarm<Behaviour>) + Send + 'static) {
        assert!(self.tell.send(Box::new(what)).await.is_ok());
    }

    /// The ids that this side and the other one give to a new connection.
    async fn dial(&mut self, other: &mut Side) -> (ConnectionId, ConnectionId) {
        let address = other.address.clone();
        self.tell(|swarm| swarm.dial(address).unwrap()).await;
        (self.connected().await, other.connected().await)
    }

    /// The connection on which a stream is opened.
    async fn route(&self, other: &Side, route: Route) -> ConnectionId {
        self.control.request(other.peer, ECHO, route).await.unwrap().connection
    }
}

/// Gives back what comes on each stream, until its end.
async fn echo(mut incoming: Incoming) {
    while let Some((_, stream)) = incoming.next().await {
        tokio::spawn(async move {
            let (reader, mut writer) = stream.split();
            futures::io::copy(reader, &mut writer).await.unwrap();
            writer.close().await.unwrap();
        });
    }
}

async fn echoed(mut stream: Stream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.close().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, bytes);
}

/// libp2p-stream dropped a stream when another one had come just before.
#[tokio::test]
async fn streams_that_come_at_once_are_all_taken() {
    let (mut here, mut there) = (side(ROOM).await, side(ROOM).await);
    let mut incoming = there.control.accept(ECHO);
    here.dial(&mut there).await;
    let opening = (0..40).map(|_| here.control.open(there.peer, ECHO, Route::Shared));
    let opened = futures::future::try_join_all(opening).await.unwrap();
    for _ in &opened {
        assert_eq!(incoming.next().await.unwrap().0, here.peer, "nobody took them before");
    }
    drop(opened);
    // More than a connection may have at a time wait for their turn.
    tokio::spawn(echo(incoming));
    let calls = (0..300_u32).map(|number| {
        let (control, peer) = (here.control.clone(), there.peer);
        async move {
            let stream = control.open(peer, ECHO, Route::Shared).await.unwrap();
            echoed(stream, &number.to_le_bytes()).await;
        }
    });
    futures::future::join_all(calls).await;
}

#[tokio::test]
async fn who_speaks_another_protocol_and_who_is_away_are_told_apart() {
    let (mut here, mut there) = (side(ROOM).await, side(ROOM).await);
    let stranger = here.control.open(there.peer, ECHO, Route::Shared).await;
    assert!(matches!(stranger, Err(OpenError::NotConnected)), "{stranger:?}");
    here.dial(&mut there).await;
    for route in [Route::Shared, Route::Urgent] {
        let unknown = here.control.open(there.peer, ECHO, route).await;
        assert!(matches!(&unknown, Err(OpenError::Unsupported(what)) if *what == ECHO), "{unknown:?}");
    }
    // And so it is again when nobody takes them any more.
    let incoming = there.control.accept(ECHO);
    here.control.open(there.peer, ECHO, Route::Shared).await.unwrap();
    drop(incoming);
    let unknown = here.control.open(there.peer, ECHO, Route::Shared).await;
    assert!(matches!(&unknown, Err(OpenError::Unsupported(what)) if *what == ECHO), "{unknown:?}");
}

#[tokio::test]
async fn urgent_streams_have_a_connection_of_their_own() {
    let (mut here, mut there) = (side(ROOM).await, side(ROOM).await);
    tokio::spawn(echo(there.control.accept(ECHO)));
    tokio::spawn(echo(here.control.accept(ECHO)));
    let (first, first_there) = here.dial(&mut there).await;
    // Who was dialled does not know where to dial.
    assert_eq!(there.route(&here, Route::Urgent).await, first_there);

    let urgent = here.route(&there, Route::Urgent).await;
    let (second, second_there) = (here.connected().await, there.connected().await);
    assert_eq!((urgent, here.route(&there, Route::Urgent).await), (second, second));
    assert_ne!(second, first);
    assert_eq!(here.route(&there, Route::Shared).await, first);
    // Now it has one to choose.
    assert_eq!(there.route(&here, Route::Urgent).await, second_there);
    assert_eq!(there.route(&here, Route::Shared).await, first_there);
    for route in [Route::Shared, Route::Urgent] {
        echoed(here.control.open(there.peer, ECHO, route).await.unwrap(), &[7; 300_000]).await;
    }
}

#[tokio::test]
async fn one_connection_serves_when_the_other_is_lost() {
    let (mut here, mut there) = (side(ROOM).await, side(ROOM).await);
    tokio::spawn(echo(there.control.accept(ECHO)));
    let (first, _) = here.dial(&mut there).await;
    let second = here.route(&there, Route::Urgent).await;
    assert_eq!(here.connected().await, second);
    here.tell(move |swarm| assert!(swarm.close_connection(second))).await;
    assert_eq!(here.closed().await, second);
    for route in [Route::Shared, Route::Urgent] {
        assert_eq!(here.route(&there, route).await, first, "no other is dialled at once");
    }
    let (third, _) = here.dial(&mut there).await;
    assert_eq!(here.route(&there, Route::Urgent).await, third);
    here.tell(move |swarm| assert!(swarm.close_connection(first))).await;
    assert_eq!(here.closed().await, first);
    for route in [Route::Shared, Route::Urgent] {
        assert_eq!(here.route(&there, route).await, third);
    }
}

/// Each peer would need two of a node's connections, and half as many could have one.
#[tokio::test]
async fn second_connections_leave_room_for_first_ones() {
    for (room_here, room_there) in [(ROOM, 2), (2, ROOM)] {
        let (mut here, mut there) = (side(room_here).await, side(room_there).await);
        tokio::spawn(echo(there.control.accept(ECHO)));
        let (first, _) = here.dial(&mut there).await;
        for _ in 0..3 {
            let stream = here.control.open(there.peer, ECHO, Route::Urgent).await.unwrap();
            echoed(stream, b"on the first one").await;
        }
        assert_eq!(here.route(&there, Route::Urgent).await, first);
    }
}

#[tokio::test]
async fn who_has_gone_is_noticed() {
    let (mut here, mut there) = (side(ROOM).await, side(ROOM).await);
    let _incoming = there.control.accept(ECHO);
    here.dial(&mut there).await;
    let mut stream = here.control.open(there.peer, ECHO, Route::Shared).await.unwrap();
    let peer = there.peer;
    drop(there);
    here.closed().await;
    assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
    for route in [Route::Shared, Route::Urgent] {
        let gone = here.control.open(peer, ECHO, route).await;
        assert!(matches!(gone, Err(OpenError::NotConnected)), "{gone:?}");
    }
    // And when this node's own swarm has ended.
    let control = here.control.clone();
    drop(here);
    let gone = control.open(peer, ECHO, Route::Shared).await;
    assert!(matches!(gone, Err(OpenError::NotConnected | OpenError::Lost)), "{gone:?}");
}
