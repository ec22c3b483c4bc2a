//! Whom this node connects with, by its mode.
//!
//! Owns: the modes, and the wrapper of all transports that holds dials and connections to them.
//! Must not know: who asks for a dial, or what travels.
//! Invariant: no dial that the mode forbids reaches a transport or a name server, whichever part of the program, or
//! which peer, has asked for it; nor is a connection that it forbids taken.
//! Trust: relays are those that the user has named, with their addresses: no URI and no peer can add one.
//! Threads: driven by the driver's task.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::addresses::{ip_of, is_relayed};

/// How a node connects with others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// In every way there is; a direct connection is preferred to a relayed one.
    #[default]
    Hybrid,
    /// Without relays.
    Direct,
    /// Only on the local network.
    Mesh,
    /// Only through relays, and under another peer id in each run.
    Anonymous,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "hybrid" => Ok(Self::Hybrid),
            "direct" => Ok(Self::Direct),
            "mesh" => Ok(Self::Mesh),
            "anonymous" => Ok(Self::Anonymous),
            _ => Err("hybrid, direct, mesh or anonymous".into()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Hybrid => "hybrid",
            Mode::Direct => "direct",
            Mode::Mesh => "mesh",
            Mode::Anonymous => "anonymous",
        })
    }
}

/// What is allowed.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) mode: Mode,
    /// Addresses of relays, each with its peer id.
    pub(super) relays: Vec<Multiaddr>,
}

impl Rules {
    pub(super) fn may_dial(&self, address: &Multiaddr) -> bool {
        match self.mode {
            Mode::Hybrid => true,
            Mode::Direct => !is_relayed(address),
            Mode::Mesh => !is_relayed(address) && is_local(address),
            Mode::Anonymous => self.relays.contains(&relay_of(address)),
        }
    }

    fn may_accept(&self, from: &Multiaddr) -> bool {
        self.mode != Mode::Mesh || is_local(from)
    }

    /// The addresses to dial for one that was given: where only relays may be dialled, those lead to its peer.
    pub(super) fn routes(&self, address: Multiaddr) -> Vec<Multiaddr> {
        match address.iter().last() {
            Some(Protocol::P2p(peer)) if self.mode == Mode::Anonymous && !self.may_dial(&address) => {
                let via =
                    |relay: &Multiaddr| relay.clone().with(Protocol::P2pCircuit).with(Protocol::P2p(peer));
                self.relays.iter().map(via).collect()
            }
            _ => vec![address],
        }
    }
}

/// The address of the relay that a relayed address goes through; any other address as it is.
pub(super) fn relay_of(address: &Multiaddr) -> Multiaddr {
    address.iter().take_while(|part| *part != Protocol::P2pCircuit).collect()
}

/// Whether an address is one of this machine or its local network. Names are none: they may lead anywhere.
fn is_local(address: &Multiaddr) -> bool {
    match ip_of(address) {
        Some(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Some(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        None => false,
    }
}

/// All transports, held to the rules.
pub(super) struct Guarded {
    pub(super) rules: Rules,
    pub(super) inner: Boxed<(PeerId, StreamMuxerBox)>,
}

impl Transport for Guarded {
    type Output = (PeerId, StreamMuxerBox);
    type Error = std::io::Error;
    type ListenerUpgrade = <Boxed<Self::Output> as Transport>::ListenerUpgrade;
    type Dial = <Boxed<Self::Output> as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        match self.rules.may_dial(&address) {
            true => self.inner.dial(address, opts),
            false => Err(TransportError::MultiaddrNotSupported(address)),
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        loop {
            match Pin::new(&mut self.inner).poll(context) {
                Poll::Ready(TransportEvent::Incoming { send_back_addr, .. })
                    if !self.rules.may_accept(&send_back_addr) =>
                {
                    tracing::debug!(from = %send_back_addr, "not a connection of the local network");
                }
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(mode: Mode) -> Rules {
        Rules { mode, relays: vec![address(&format!("/ip4/192.0.2.1/tcp/1/p2p/{RELAY}"))] }
    }

    const RELAY: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    const PEER: &str = "12D3KooWQCjKR8ck4Zx1VxMYJW7p9i54XBWaEpDHr1MVzS2qqFgF";

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_mode_dials_what_it_says() {
        let may = |text: &str| {
            [Mode::Hybrid, Mode::Direct, Mode::Mesh, Mode::Anonymous]
                .map(|mode| rules(mode).may_dial(&address(text)))
        };
        assert_eq!(may(&format!("/ip4/203.0.113.1/tcp/1/p2p/{PEER}")), [true, true, false, false]);
        assert_eq!(may(&format!("/ip4/192.168.1.2/tcp/1/p2p/{PEER}")), [true, true, true, false]);
        assert_eq!(may(&format!("/ip6/fe80::1/udp/1/quic-v1/p2p/{PEER}")), [true, true, true, false]);
        assert_eq!(may("/dns4/example.org/tcp/1"), [true, true, false, false]);
        // The relay that the user has named, where they have named it, and nothing else.
        let relay = format!("/ip4/192.0.2.1/tcp/1/p2p/{RELAY}");
        assert_eq!(may(&relay), [true, true, false, true]);
        assert_eq!(may(&format!("{relay}/p2p-circuit/p2p/{PEER}")), [true, false, false, true]);
        let elsewhere = format!("/ip4/192.0.2.2/tcp/1/p2p/{RELAY}");
        assert_eq!(may(&elsewhere), [true, true, false, false]);
        assert_eq!(may(&format!("{elsewhere}/p2p-circuit/p2p/{PEER}")), [true, false, false, false]);
        assert_eq!(may("/ip4/192.0.2.1/tcp/1"), [true, true, false, false]);
        let private = format!("/ip4/10.0.0.1/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{PEER}");
        assert_eq!(may(&private), [true, false, false, false]);
    }

    #[test]
    fn a_mesh_takes_connections_of_the_local_network_only() {
        for (from, local) in [("/ip4/10.1.2.3/tcp/1", true), ("/ip4/203.0.113.1/tcp/1", false)] {
            assert_eq!(rules(Mode::Mesh).may_accept(&address(from)), local);
            assert!(rules(Mode::Hybrid).may_accept(&address(from)));
        }
    }

    #[test]
    fn an_anonymous_node_goes_to_a_peer_through_its_relays() {
        let direct = address(&format!("/ip4/203.0.113.1/tcp/1/p2p/{PEER}"));
        let through = address(&format!("/ip4/192.0.2.1/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{PEER}"));
        assert_eq!(rules(Mode::Anonymous).routes(direct.clone()), std::slice::from_ref(&through));
        assert_eq!(rules(Mode::Anonymous).routes(through.clone()), [through]);
        assert_eq!(rules(Mode::Hybrid).routes(direct.clone()), [direct]);
    }
}
