//! The libp2p swarm as bcai uses it: DNS, TCP, what [`secure`] makes of it, and the behaviours.
//!
//! Owns: the stack below the streams, and its limits.
//! Must not know: what the streams carry.
//! Invariant: connections are encrypted and authenticated; their number is bounded, in all, per peer, and of those that
//! others began.
//! Trust: a peer id is proven by TLS or Noise; nothing else that a peer says about itself is.
//! Threads: built on any; driven by the driver's task.

use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{Config, NetworkBehaviour};
use libp2p::{PeerId, Swarm, allow_block_list, connection_limits, dns, identify, mdns, ping, tcp};

use super::error::NetError;
use super::{secure, streams};
use crate::crypto::SecretKey;

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

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(super) banned: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) streams: streams::Behaviour,
}

/// Of `max_peers` connections, those (about three quarters) that others may begin: the rest is left for those that this node needs.
fn max_incoming(max_peers: u32) -> u32 {
    max_peers - (max_peers + 2) / 4
}

/// Makes the swarm of the node whose key is `key`.
pub(super) fn build(key: &SecretKey, mdns: bool, max_peers: u32) -> Result<Swarm<Behaviour>, NetError> {
    let setup = |error: &dyn std::error::Error| NetError::Setup(error.to_string());
    let keypair = Keypair::ed25519_from_bytes(key.to_bytes()).map_err(|error| setup(&error))?;
    let me = keypair.public().to_peer_id();
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
        .with_max_established(Some(max_peers))
        .with_max_established_incoming(Some(max_incoming(max_peers)))
        .with_max_established_per_peer(Some(MAX_CONNECTIONS_EACH));
    let mdns = match mdns {
        true => Some(
            mdns::tokio::Behaviour::new(mdns::Config::default(), me)
                .map_err(|error| NetError::Setup(format!("local discovery (mDNS): {error}")))?,
        ),
        false => None,
    };
    let identify = identify::Config::new("bcai/1".to_owned(), keypair.public())
        .with_agent_version(super::shared::agent());
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        banned: allow_block_list::Behaviour::default(),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING).with_timeout(PING)),
        mdns: mdns.into(),
        streams: streams::Behaviour::new(max_peers),
    };
    let transport = transport(&keypair).map_err(|error| setup(&error))?;
    let config = Config::with_tokio_executor().with_idle_connection_timeout(IDLE);
    Ok(Swarm::new(transport, behaviour, me, config))
}

/// TCP that looks names up as this machine is configured to; where that cannot be told, only numbers are addresses.
fn named_tcp() -> dns::tokio::Transport<tcp::tokio::Transport> {
    let tcp = || tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
    dns::tokio::Transport::system(tcp()).unwrap_or_else(|error| {
        tracing::warn!(%error, "names of hosts cannot be looked up");
        let (nobody, options) = (dns::ResolverConfig::default(), dns::ResolverOpts::default());
        dns::tokio::Transport::custom(tcp(), nobody, options)
    })
}

fn transport(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, secure::SetupError> {
    secure::secured(named_tcp(), keypair)
}
