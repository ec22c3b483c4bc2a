//! What an address says, and which addresses are worth telling or believing.
//!
//! Owns: the rules by which addresses are dialled, told to others and taken from them.
//! Must not know: who is connected.
//! Invariant: a node is never made to look up names, or to dial itself, by what a stranger says.
//! Trust: addresses come from users and from strangers; only those of users may be names.
//! Threads: pure functions.

use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// The longest address taken from a stranger, in bytes.
pub(super) const MAX_ADDRESS: usize = 256;

/// Whether there is a transport for it: names are looked up only for addresses that lead somewhere then.
pub(super) fn is_supported(address: &Multiaddr) -> bool {
    let parts: Vec<Protocol> = address.iter().collect();
    let to = match parts.split_last() {
        Some((Protocol::P2p(_), to)) => to,
        _ => &parts,
    };
    match to.split_last() {
        Some((Protocol::P2pCircuit, [relay @ .., Protocol::P2p(_)])) => has_transport(relay),
        _ => has_transport(to),
    }
}

fn has_transport(parts: &[Protocol]) -> bool {
    use Protocol::{Dns, Dns4, Dns6, Ip4, Ip6, QuicV1, Tcp, Udp, Ws};
    match parts {
        [Ip4(_) | Ip6(_) | Dns(_) | Dns4(_) | Dns6(_), way @ ..] => {
            matches!(way, [Tcp(_)] | [Tcp(_), Ws(_)] | [Udp(_), QuicV1])
        }
        [Protocol::Memory(_)] => cfg!(test),
        _ => false,
    }
}

/// Whether a node could listen on `address` now; why not. What it names by a name, or leaves open, is not tried.
pub fn try_to_listen(address: &str) -> io::Result<()> {
    let parsed: Multiaddr =
        address.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let parts: Vec<Protocol> = parsed.iter().collect();
    match (ip_of(&parsed), parts.get(1)) {
        (Some(ip), Some(Protocol::Tcp(port))) => TcpListener::bind((ip, *port)).map(drop),
        (Some(ip), Some(Protocol::Udp(port))) => UdpSocket::bind((ip, *port)).map(drop),
        _ => Ok(()),
    }
}

/// Whether it leads through a relay.
pub(super) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// How long the next best way to a peer waits for a better one to succeed.
pub(super) const HEAD_START: Duration = Duration::from_millis(300);

/// Addresses of one peer by how good a way they are: TCP, which is the fastest on a local network; then all others that
/// are direct; then relays.
pub(super) fn by_rank(addresses: Vec<Multiaddr>) -> Vec<Vec<Multiaddr>> {
    let rank = |address: &Multiaddr| match address.iter().nth(1) {
        _ if is_relayed(address) => 2,
        Some(Protocol::Tcp(_)) if !address.iter().any(|part| matches!(part, Protocol::Ws(_))) => 0,
        _ => 1,
    };
    let mut ranks = vec![Vec::new(); 3];
    for address in addresses {
        ranks[rank(&address)].push(address);
    }
    ranks.retain(|addresses| !addresses.is_empty());
    ranks
}

/// The peer that an address names at its end.
pub(super) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

pub(super) fn with_peer(address: Multiaddr, peer: PeerId) -> Multiaddr {
    // The error is the address unchanged, which ends in another peer: it says what was dialled.
    address.with_p2p(peer).unwrap_or_else(|address| address)
}

/// The IP address that it begins with.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.to_canonical()),
        _ => None,
    }
}

/// Whether it says where a node is. Who is seen through a relay is seen as `/p2p/ID`, which says only who it is.
pub(super) fn is_place(address: &Multiaddr) -> bool {
    !matches!(address.iter().next(), None | Some(Protocol::P2p(_)))
}

/// Whether it only leads anywhere on this machine.
pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    ip_of(address).is_some_and(|ip| ip.is_loopback())
}

/// Whether an address is worth anything to somebody else, who is on this machine too if `near`.
pub(super) fn is_for(near: bool, address: &Multiaddr) -> bool {
    near || !is_loopback(address)
}

/// An address of `peer` as a stranger gave it, who is on this machine if `near`; nothing if it is not to be dialled.
pub(super) fn taken(bytes: &[u8], peer: PeerId, near: bool) -> Option<Multiaddr> {
    if bytes.len() > MAX_ADDRESS {
        return None;
    }
    let address = with_peer(Multiaddr::try_from(bytes.to_vec()).ok()?, peer);
    let dialled = match ip_of(&address)? {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    (dialled && is_supported(&address) && peer_of(&address) == Some(peer) && is_for(near, &address))
        .then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_ways_are_tried_first() {
        let relayed = format!("/ip4/192.0.2.9/tcp/1/p2p/{0}/p2p-circuit/p2p/{0}", PeerId::random());
        let [tcp, ws, quic, relayed] =
            ["/ip4/192.0.2.7/tcp/1", "/ip4/192.0.2.7/tcp/2/ws", "/ip4/192.0.2.7/udp/1/quic-v1", &relayed]
                .map(|text| text.parse::<Multiaddr>().unwrap());
        let all = vec![relayed.clone(), quic.clone(), tcp.clone(), ws.clone()];
        assert_eq!(by_rank(all), [vec![tcp], vec![quic, ws], vec![relayed.clone()]]);
        assert_eq!(by_rank(vec![relayed.clone()]), [vec![relayed]]);
    }

    #[test]
    fn who_a_node_is_says_not_where() {
        let id = format!("/p2p/{}", PeerId::random());
        let is_place = |text: &str| is_place(&text.parse().unwrap());
        assert!(!is_place(&id));
        assert!(
            ["/ip4/192.0.2.1/tcp/1", "/dns/a.example/tcp/1", "/ip6/::1/udp/1/quic-v1"]
                .into_iter()
                .all(is_place)
        );
    }

    #[test]
    fn what_a_stranger_says_is_dialled_only_if_it_can_lead_to_that_peer() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let take = |text: &str, near| taken(&text.parse::<Multiaddr>().unwrap().to_vec(), peer, near);
        let relayed = format!("/ip4/192.0.2.7/tcp/1/p2p/{other}/p2p-circuit");
        for good in [
            "/ip4/192.0.2.7/tcp/4001",
            "/ip4/10.0.0.1/tcp/1/ws",
            "/ip6/2001:db8::1/udp/1/quic-v1",
            relayed.as_str(),
        ] {
            let whole = format!("{good}/p2p/{peer}");
            assert_eq!(take(good, false).unwrap().to_string(), whole);
            assert_eq!(take(&whole, false).unwrap().to_string(), whole);
            assert_eq!(take(&format!("{good}/p2p/{other}"), false), None);
        }
        for bad in [
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/255.255.255.255/tcp/1",
            "/ip4/224.0.0.1/tcp/1",
            "/ip6/::/tcp/1",
            "/ip6/::ffff:127.0.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/dns4/example.org/tcp/1",
            "/ip4/192.0.2.7/udp/1",
            "/ip4/192.0.2.7/tcp/1/p2p-circuit",
            "/p2p-circuit",
            "/ip4/192.0.2.7",
        ] {
            assert_eq!(take(bad, false), None, "{bad}");
        }
        assert!(take("/ip4/127.0.0.1/tcp/1", true).is_some());
        assert_eq!(taken(b"junk", peer, true), None);
        assert_eq!(taken(&[4; 1000], peer, true), None);
    }
}
