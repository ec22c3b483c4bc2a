//! Who is known: the connected, those to be connected again, and the banned.
//!
//! Owns: addresses, connection counts, measurements and bans of every peer.
//! Must not know: how to connect or how objects travel.
//! Invariant: at most [`MAX_KNOWN`] peers are remembered; a peer that is banned or does not speak the protocol of
//! objects is never a candidate.
//! Trust: addresses are what we dialled, or what a peer says about itself; the latter are shown, not dialled.
//! Threads: any; the lock is held for bookkeeping only.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

use super::session::Session;

/// Peers remembered, connected or not.
const MAX_KNOWN: usize = 1024;
/// Addresses remembered for one peer.
const MAX_ADDRESSES: usize = 8;

/// What is to be known about a peer from outside.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    pub id: String,
    /// Where it was reached, or says that it listens.
    pub addresses: Vec<String>,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
    /// Bytes of objects received from it and sent to it, as they travel.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Objects sent to it.
    pub objects_served: u64,
    pub state: PeerState,
}

/// How things stand with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    Connected,
    /// The connection was lost; it is tried again from time to time.
    Reconnecting,
    /// It sent wrong bytes; nothing is asked of it and its connections are refused until this node starts again.
    Banned,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerState::Connected => "connected",
            PeerState::Reconnecting => "reconnecting",
            PeerState::Banned => "banned",
        })
    }
}

/// What several tasks share about one peer.
pub(super) struct Link {
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) objects_served: AtomicU64,
    /// The session in which we ask it; opened when first needed, by whoever holds the lock.
    pub(super) session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

struct Peer {
    link: Arc<Link>,
    connections: u32,
    /// Where it was reached by us; not empty means that it is connected again when lost.
    reached: Vec<Multiaddr>,
    /// Where it says that it listens, or connected from.
    told: Vec<Multiaddr>,
    /// Whether it speaks the protocol of objects; not known before identify has told or it was tried.
    speaks: Option<bool>,
    /// A user has named its address; otherwise it was found on the local network, or has found us.
    named: bool,
}

#[derive(Default)]
pub(super) struct Table {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    peers: HashMap<PeerId, Peer>,
    /// Those who sent wrong bytes; at most [`MAX_KNOWN`].
    banned: HashSet<PeerId>,
    listening: Vec<Multiaddr>,
}

impl Table {
    pub(super) fn new() -> Table {
        Table::default()
    }

    /// A connection to `peer` has come about; `reached` at this address if we made it, and `named` if a user asked
    /// for it.
    pub(super) fn connected(
        &self,
        id: PeerId,
        reached: Option<Multiaddr>,
        from: Option<Multiaddr>,
        named: bool,
    ) {
        let mut inner = self.inner();
        let peer = inner.entry(id);
        if peer.connections == 0 {
            // It may be another program than before.
            peer.speaks = None;
        }
        peer.connections += 1;
        peer.named |= named;
        reached.into_iter().for_each(|address| remember(&mut peer.reached, address));
        from.into_iter().for_each(|address| remember(&mut peer.told, address));
    }

    /// A connection to `peer` has ended and `left` remain. The addresses to try again, if it is to be.
    pub(super) fn closed(&self, id: PeerId, left: u32) -> Vec<Multiaddr> {
        let mut inner = self.inner();
        let banned = inner.banned.contains(&id);
        let Some(peer) = inner.peers.get_mut(&id) else { return Vec::new() };
        peer.connections = left;
        if left > 0 || banned {
            return Vec::new();
        }
        let again = peer.reached.clone();
        if again.is_empty() {
            inner.peers.remove(&id);
        }
        again
    }

    /// Where a peer that is to be connected was reached; nothing if it is connected or banned.
    pub(super) fn to_reach(&self, id: &PeerId) -> Vec<Multiaddr> {
        let inner = self.inner();
        let wanted = inner.peers.get(id).filter(|peer| peer.connections == 0);
        match wanted {
            Some(peer) if !inner.banned.contains(id) => peer.reached.clone(),
            _ => Vec::new(),
        }
    }

    /// `peer` says where it listens.
    pub(super) fn told(&self, id: &PeerId, addresses: impl IntoIterator<Item = Multiaddr>) {
        if let Some(peer) = self.inner().peers.get_mut(id) {
            peer.told = addresses.into_iter().take(MAX_ADDRESSES).collect();
        }
    }

    /// Whether a peer speaks the protocol of objects. True if it is to be disconnected: it does not, and nobody but
    /// discovery has named it. Its addresses are forgotten then.
    pub(super) fn speaks(&self, id: &PeerId, speaks: bool) -> bool {
        let mut inner = self.inner();
        let Some(peer) = inner.peers.get_mut(id) else { return false };
        peer.speaks = Some(speaks);
        let unwanted = !speaks && !peer.named && !peer.reached.is_empty();
        if unwanted {
            peer.reached.clear();
        }
        unwanted
    }

    pub(super) fn link(&self, id: &PeerId) -> Option<Arc<Link>> {
        self.inner().peers.get(id).map(|peer| peer.link.clone())
    }

    pub(super) fn is_connected(&self, id: &PeerId) -> bool {
        self.inner().peers.get(id).is_some_and(|peer| peer.connections > 0)
    }

    pub(super) fn is_banned(&self, id: &PeerId) -> bool {
        self.inner().banned.contains(id)
    }

    /// Known peers that may have something and are not connected at the moment.
    pub(super) fn absent(&self) -> usize {
        let inner = self.inner();
        let away = |(id, peer): &(&PeerId, &Peer)| {
            peer.connections == 0 && peer.speaks != Some(false) && !inner.banned.contains(id)
        };
        inner.peers.iter().filter(away).count()
    }

    /// `peer` sent wrong bytes: it is connected to no more.
    pub(super) fn ban(&self, peer: PeerId) {
        let mut inner = self.inner();
        if inner.banned.len() < MAX_KNOWN {
            inner.banned.insert(peer);
        }
    }

    /// Nothing is held against `peer` any more.
    pub(super) fn pardon(&self, peer: &PeerId) {
        self.inner().banned.remove(peer);
    }

    /// The addresses on which this node listens have changed.
    pub(super) fn listening(&self, change: impl FnOnce(&mut Vec<Multiaddr>)) {
        change(&mut self.inner().listening);
    }

    pub(super) fn listening_on(&self) -> Vec<Multiaddr> {
        self.inner().listening.clone()
    }

    /// Forgets everybody.
    pub(super) fn clear(&self) {
        self.inner().peers.clear();
    }

    /// Everybody known, by id.
    pub(super) fn list(&self, rtt: impl Fn(&PeerId) -> Option<Duration>) -> Vec<PeerInfo> {
        let inner = self.inner();
        let info = |(id, peer): (&PeerId, &Peer)| peer.info(id, inner.banned.contains(id), rtt(id));
        let mut list: Vec<_> = inner.peers.iter().map(info).collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is one step; a panic leaves no half of one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn entry(&mut self, id: PeerId) -> &mut Peer {
        if self.peers.len() >= MAX_KNOWN && !self.peers.contains_key(&id) {
            let gone = self.peers.iter().find(|(_, peer)| peer.connections == 0).map(|(id, _)| *id);
            // Connection limits keep the number of connected peers far below, so there is always one.
            gone.and_then(|gone| self.peers.remove(&gone));
        }
        self.peers.entry(id).or_insert_with(|| Peer {
            link: Arc::new(Link {
                bytes_in: AtomicU64::new(0),
                bytes_out: AtomicU64::new(0),
                objects_served: AtomicU64::new(0),
                session: tokio::sync::Mutex::new(None),
            }),
            connections: 0,
            reached: Vec::new(),
            told: Vec::new(),
            speaks: None,
            named: false,
        })
    }
}

impl Peer {
    fn info(&self, id: &PeerId, banned: bool, rtt: Option<Duration>) -> PeerInfo {
        let mut addresses = self.reached.clone();
        addresses.extend(self.told.iter().filter(|told| !self.reached.contains(told)).cloned());
        PeerInfo {
            id: id.to_string(),
            addresses: addresses.iter().map(Multiaddr::to_string).collect(),
            rtt,
            bytes_in: self.link.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.link.bytes_out.load(Ordering::Relaxed),
            objects_served: self.link.objects_served.load(Ordering::Relaxed),
            state: match (banned, self.connections) {
                (true, _) => PeerState::Banned,
                (false, 0) => PeerState::Reconnecting,
                (false, _) => PeerState::Connected,
            },
        }
    }
}

/// The latest are kept, the newest first.
fn remember(addresses: &mut Vec<Multiaddr>, address: Multiaddr) {
    addresses.retain(|known| *known != address);
    addresses.insert(0, address);
    addresses.truncate(MAX_ADDRESSES);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// mDNS connected every node of any program that uses libp2p. Nothing could be asked of them, yet each counted as a
    /// peer that may have what is wanted when it was away.
    #[test]
    fn who_was_only_discovered_and_is_no_node_of_ours_is_forgotten() {
        let table = Table::new();
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let [discovered, named, came] = [(); 3].map(|()| PeerId::random());
        table.connected(discovered, Some(address.clone()), None, false);
        table.connected(named, Some(address.clone()), None, true);
        table.connected(came, None, Some(address.clone()), false);
        for peer in [discovered, named, came] {
            assert_eq!(table.speaks(&peer, false), peer == discovered);
        }
        assert!(table.closed(discovered, 0).is_empty(), "it is not dialled again");
        assert_eq!(table.closed(named, 0), std::slice::from_ref(&address));
        assert_eq!((table.list(|_| None).len(), table.absent()), (2, 0));
        // When it comes back it may be another program.
        table.connected(named, Some(address), None, false);
        assert!(!table.speaks(&named, true));
        table.closed(named, 0);
        assert_eq!(table.absent(), 1);
    }
}
