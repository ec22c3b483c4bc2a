//! The libp2p swarm as bcai uses it: every transport, their encryption, and the behaviours of each mode.
//!
//! Owns: the stack below the streams, and its limits.
//! Must not know: what the streams carry.
//! Invariant: connections are encrypted and authenticated; their number is bounded, in all, per peer, and of those that
//! others began. What a mode does not allow is not there.
//! Trust: a peer id is proven by TLS or Noise; nothing else that a peer says about itself is.
//! Threads: built on any; driven by the driver's task.

use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, OrTransport, Transport};
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{Config, NetworkBehaviour};
use libp2p::{
    Multiaddr, PeerId, Swarm, allow_block_list, autonat, connection_limits, dcutr, dns, gossipsub, identify,
    mdns, ping, quic, relay, tcp, websocket,
};

use super::Options;
use super::addresses::{is_loopback, is_relayed, is_supported, peer_of};
use super::dht::{self, Kad};
use super::error::NetError;
use super::gossip;
use super::rules::{Guarded, Mode, Rules};
use super::{capacity, secure, streams};

/// How long a connection may take to come about, handshakes included.
pub(super) const CONNECTING: Duration = Duration::from_secs(10);
/// Connections of one peer: two when both dial at once, and those it has not noticed to be dead.
const MAX_CONNECTIONS_EACH: u32 = 4;
/// Connections in either direction that are not established yet.
const MAX_PENDING: u32 = 32;
/// An idle connection costs little, and keeps later requests from waiting for a handshake.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// A peer that has gone without a word is noticed within this time twice.
const PING: Duration = Duration::from_secs(15);

/// Bytes that the kernel has taken on a TCP connection and cannot send yet, about. It would take megabytes, which nothing can overtake
/// and which look sent to whoever serves many.
const UNSENT: u32 = 128 << 10;

/// What a relay carries for others. The defaults of libp2p allow 128 KiB a circuit, which no object of data fits.
const CIRCUITS: usize = 64;
const CIRCUITS_EACH: usize = 8;
const CIRCUIT_BYTES: u64 = 16 << 30;
const CIRCUIT_TIME: Duration = Duration::from_secs(2 * 3600);

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    capacity: capacity::Behaviour,
    limits: connection_limits::Behaviour,
    pub(super) banned: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(super) blocked: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    /// Absent when everybody is allowed.
    pub(super) allowed: Toggle<allow_block_list::Behaviour<allow_block_list::AllowedPeers>>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    relay_client: Toggle<relay::client::Behaviour>,
    pub(super) relay: Toggle<relay::Behaviour>,
    dcutr: Toggle<dcutr::Behaviour>,
    reachable: Toggle<autonat::v2::client::Behaviour>,
    dial_back: Toggle<autonat::v2::server::Behaviour>,
    pub(super) kad: Toggle<Kad>,
    pub(super) gossip: Toggle<gossipsub::Behaviour>,
    pub(super) streams: streams::Behaviour,
}

/// Of `max_peers` connections, those (about three quarters) that others may begin: the rest is left for those that this node needs.
fn max_incoming(max_peers: u32) -> u32 {
    max_peers - (max_peers + 2) / 4
}

/// Makes the swarm of a node, and the rules that it keeps to.
pub(super) fn build(options: &Options) -> Result<(Swarm<Behaviour>, Rules), NetError> {
    let setup = |error: &dyn std::error::Error| NetError::Setup(error.to_string());
    let rules = Rules { mode: options.mode, relays: relays(&options.relays)? };
    let keypair = keypair(options)?;
    let me = keypair.public().to_peer_id();
    let (relayed, relay_client) = relay::client::new(me);
    let transport = transport(&keypair, relayed, rules.clone()).map_err(|error| setup(&error))?;
    let behaviour = behaviour(options, &keypair, relay_client)?;
    let config = Config::with_tokio_executor().with_idle_connection_timeout(IDLE);
    Ok((Swarm::new(transport, behaviour, me, config), rules))
}

/// The key of the node. An anonymous one has another in each run, so that no two runs can be told to be of one node.
fn keypair(options: &Options) -> Result<Keypair, NetError> {
    let mut seed = options.key.to_bytes();
    if options.mode == Mode::Anonymous {
        let failed = |error| NetError::Setup(format!("the kernel gave no random bytes: {error}"));
        getrandom::fill(&mut seed).map_err(failed)?;
    }
    Keypair::ed25519_from_bytes(seed).map_err(|error| NetError::Setup(error.to_string()))
}

fn relays(texts: &[String]) -> Result<Vec<Multiaddr>, NetError> {
    let parse = |text: &String| {
        let wrong = |cause: String| NetError::Relay { address: text.clone(), cause };
        let address: Multiaddr = text.parse().map_err(|error| wrong(format!("{error}")))?;
        match peer_of(&address) {
            Some(_) if is_supported(&address) && !is_relayed(&address) => Ok(address),
            Some(_) => Err(wrong("there is no way to connect to it".to_owned())),
            None => Err(wrong("it does not end in /p2p/ and the peer id of the relay".to_owned())),
        }
    };
    texts.iter().map(parse).collect()
}

fn behaviour(
    options: &Options,
    keypair: &Keypair,
    relay_client: relay::client::Behaviour,
) -> Result<Behaviour, NetError> {
    let me = keypair.public().to_peer_id();
    let (mode, max_peers) = (options.mode, options.max_peers);
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
        .with_max_established(Some(max_peers))
        .with_max_established_incoming(Some(max_incoming(max_peers)))
        .with_max_established_per_peer(Some(MAX_CONNECTIONS_EACH));
    let mdns = match options.mdns && mode != Mode::Anonymous {
        true => Some(
            mdns::tokio::Behaviour::new(mdns::Config::default(), me)
                .map_err(|error| NetError::Setup(format!("local discovery (mDNS): {error}")))?,
        ),
        false => None,
    };
    // An anonymous node tells only where its relays are.
    let identify = identify::Config::new("bcai/1".to_owned(), keypair.public())
        .with_agent_version(super::shared::agent())
        .with_hide_listen_addrs(mode == Mode::Anonymous);
    let gossip = match mode {
        Mode::Anonymous => None,
        _ => Some(gossip::behaviour(keypair)?),
    };
    let internet = matches!(mode, Mode::Hybrid | Mode::Direct);
    // Whether others reach it is no question for a node that listens on the loopback alone.
    let asks = internet && !is_near(options);
    Ok(Behaviour {
        capacity: capacity::Behaviour::new(max_peers, max_incoming(max_peers)),
        limits: connection_limits::Behaviour::new(limits),
        banned: allow_block_list::Behaviour::default(),
        blocked: blocked(&options.block)?,
        allowed: allowed(&options.allow)?.into(),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING).with_timeout(PING)),
        mdns: mdns.into(),
        relay_client: matches!(mode, Mode::Hybrid | Mode::Anonymous).then_some(relay_client).into(),
        relay: (options.relay && internet).then(|| carrier(me)).into(),
        dcutr: (mode == Mode::Hybrid).then(|| dcutr::Behaviour::new(me)).into(),
        reachable: asks.then(autonat::v2::client::Behaviour::default).into(),
        dial_back: asks.then(autonat::v2::server::Behaviour::default).into(),
        kad: internet.then(|| dht::behaviour(me)).into(),
        gossip: gossip.into(),
        streams: streams::Behaviour::new(max_peers),
    })
}

/// Whether a node listens on the loopback alone.
pub(super) fn is_near(options: &Options) -> bool {
    let loopback = |text: &String| text.parse().is_ok_and(|address| is_loopback(&address));
    options.listen.iter().all(loopback)
}

fn peer_id(text: &str) -> Result<PeerId, NetError> {
    text.parse().map_err(|_| NetError::PeerId(text.to_owned()))
}

fn blocked(
    peers: &[String],
) -> Result<allow_block_list::Behaviour<allow_block_list::BlockedPeers>, NetError> {
    let mut list = allow_block_list::Behaviour::<allow_block_list::BlockedPeers>::default();
    for peer in peers {
        list.block_peer(peer_id(peer)?);
    }
    Ok(list)
}

fn allowed(
    peers: &[String],
) -> Result<Option<allow_block_list::Behaviour<allow_block_list::AllowedPeers>>, NetError> {
    if peers.is_empty() {
        return Ok(None);
    }
    let mut list = allow_block_list::Behaviour::<allow_block_list::AllowedPeers>::default();
    for peer in peers {
        list.allow_peer(peer_id(peer)?);
    }
    Ok(Some(list))
}

/// A relay for others.
fn carrier(me: PeerId) -> relay::Behaviour {
    let config = relay::Config {
        max_circuits: CIRCUITS,
        max_circuits_per_peer: CIRCUITS_EACH,
        max_circuit_duration: CIRCUIT_TIME,
        max_circuit_bytes: CIRCUIT_BYTES,
        ..relay::Config::default()
    };
    let mut relay = relay::Behaviour::new(me, config);
    // Its user says that it can be reached: nobody need prove that first.
    relay.set_status(Some(relay::Status::Enable));
    relay
}

/// Every transport.
fn transport(
    keypair: &Keypair,
    relayed: relay::client::Transport,
    rules: Rules,
) -> Result<Connections, secure::SetupError> {
    let by_number = || {
        let tcp = || {
            tcp::tokio::Transport::new(tcp::Config::new().nodelay(true)).map(|stream, _| held_back(stream))
        };
        #[cfg(test)]
        let tcp = || super::tests::links::linked(tcp(), keypair);
        let quic = quic::tokio::Transport::new(quic::Config::new(keypair))
            .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
        let all = either(quic.boxed(), secure::secured(websocket::Config::new(tcp()), keypair)?);
        let all = either(all, secure::secured(tcp(), keypair)?);
        #[cfg(test)]
        let all = either(all, secure::secured(libp2p::core::transport::MemoryTransport::default(), keypair)?);
        Ok(all)
    };
    let inner = either(secure::secured(relayed, keypair)?, named(by_number)?);
    Ok(Guarded { rules, inner }.boxed())
}

/// Lets the kernel take no more than [`UNSENT`] ahead of what the link carries.
fn held_back(stream: tcp::tokio::TcpStream) -> tcp::tokio::TcpStream {
    // Without it everything works; what is to be sent only waits where nothing can be done about it.
    if let Err(error) = socket2::SockRef::from(&stream.0).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "the kernel takes as much as it likes of what is sent");
    }
    stream
}

type Connections = Boxed<(PeerId, StreamMuxerBox)>;

fn either(first: Connections, second: Connections) -> Connections {
    OrTransport::new(first, second).map(|either, _| either.into_inner()).boxed()
}

/// Looks names up as this machine is configured to; where that cannot be told, only numbers are addresses.
fn named(
    inner: impl Fn() -> Result<Connections, secure::SetupError>,
) -> Result<Connections, secure::SetupError> {
    Ok(match dns::tokio::Transport::system(inner()?) {
        Ok(named) => named.boxed(),
        Err(error) => {
            tracing::warn!(%error, "names of hosts cannot be looked up");
            let (nobody, options) = (dns::ResolverConfig::default(), dns::ResolverOpts::default());
            dns::tokio::Transport::custom(inner()?, nobody, options).boxed()
        }
    })
}
