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
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

use super::addresses::{is_loopback, is_relayed};
use super::gossip::Beacon;
use super::session::Session;
use crate::id::ObjectId;
use crate::swarm::choice::{Judgement, Speed, Suspects};

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
    /// What it says that it is able to, if it has lately.
    pub beacon: Option<Beacon>,
}

/// How things stand with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    Connected,
    /// Connected, but only to go through it: this node is anonymous, and the relay knows where it is.
    Relay,
    /// The connection was lost; it is tried again from time to time.
    Reconnecting,
    /// It sent wrong bytes; nothing is asked of it and its connections are refused until this node starts again.
    Banned,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerState::Connected => "connected",
            PeerState::Relay => "relay",
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
    speed: Mutex<Speed>,
    epoch: Instant,
}

impl Link {
    /// Runs `change` on the measurements, with the time since the node started.
    pub(super) fn speed<T>(&self, change: impl FnOnce(&mut Speed, Duration) -> T) -> T {
        let now = self.epoch.elapsed();
        change(&mut self.speed.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
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
    /// What it says of itself.
    beacon: Option<Beacon>,
    /// Whether it answers announcements of swarms.
    tracks: bool,
    /// Whether it is on this machine.
    near: bool,
    /// A user has named its address; otherwise it was found on the local network, or has found us.
    named: bool,
}

pub(super) struct Table {
    epoch: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    peers: HashMap<PeerId, Peer>,
    suspects: Suspects<PeerId>,
    /// Peers that are asked for nothing and told nothing but to relay.
    relays: HashSet<PeerId>,
    listening: Vec<Multiaddr>,
}

/// Who may be asked for an object, and who else might be worth waiting for.
pub(super) struct Candidates {
    /// With the expected time until the object would be here.
    pub(super) peers: Vec<(PeerId, Duration)>,
    /// Known peers that are not connected at the moment.
    pub(super) absent: usize,
    /// Connected peers that failed on this very object before.
    pub(super) failed: usize,
}

impl Table {
    pub(super) fn new(epoch: Instant) -> Table {
        let inner = Inner {
            peers: HashMap::new(),
            suspects: Suspects::new(),
            relays: HashSet::new(),
            listening: Vec::new(),
        };
        Table { epoch, inner: Mutex::new(inner) }
    }

    /// These peers are only gone through from now on.
    pub(super) fn only_relays(&self, peers: impl IntoIterator<Item = PeerId>) {
        self.inner().relays.extend(peers);
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
        let peer = inner.entry(id, self.epoch);
        if peer.connections == 0 {
            // It may be another program than before.
            (peer.speaks, peer.tracks) = (None, false);
        }
        peer.near = reached.iter().chain(&from).any(|address| is_loopback(address) && !is_relayed(address));
        peer.connections += 1;
        peer.named |= named;
        reached.into_iter().for_each(|address| remember(&mut peer.reached, address));
        from.into_iter().for_each(|address| remember(&mut peer.told, address));
    }

    /// A connection to `peer` has ended and `left` remain. The addresses to try again, if it is to be.
    pub(super) fn closed(&self, id: PeerId, left: u32) -> Vec<Multiaddr> {
        let mut inner = self.inner();
        let banned = inner.suspects.is_banned(&id);
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
            Some(peer) if !inner.suspects.is_banned(id) => peer.reached.clone(),
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
        let relay = inner.relays.contains(id);
        let Some(peer) = inner.peers.get_mut(id) else { return false };
        peer.speaks = Some(speaks);
        let unwanted = !relay && !speaks && !peer.named && !peer.reached.is_empty();
        if unwanted {
            peer.reached.clear();
        }
        unwanted
    }

    /// A peer answers announcements. False if it is not connected any more.
    pub(super) fn tracks(&self, id: &PeerId) -> bool {
        let mut inner = self.inner();
        let peer = inner.peers.get_mut(id).filter(|peer| peer.connections > 0);
        peer.map(|peer| peer.tracks = true).is_some()
    }

    /// Connected peers that answer announcements.
    pub(super) fn trackers(&self) -> Vec<PeerId> {
        let inner = self.inner();
        let tracks =
            |id: &PeerId, peer: &Peer| peer.tracks && peer.connections > 0 && !inner.relays.contains(id);
        inner.peers.iter().filter(|(id, peer)| tracks(id, peer)).map(|(id, _)| *id).collect()
    }

    /// Whether a peer is on this machine.
    pub(super) fn is_near(&self, id: &PeerId) -> bool {
        self.inner().peers.get(id).is_some_and(|peer| peer.near)
    }

    /// What a peer says of itself; of strangers it is not kept.
    pub(super) fn says(&self, id: &PeerId, beacon: Beacon) {
        if let Some(peer) = self.inner().peers.get_mut(id) {
            peer.beacon = Some(beacon);
        }
    }

    /// Where connected peers that speak the protocol of objects were reached last.
    pub(super) fn reached(&self) -> Vec<Multiaddr> {
        let inner = self.inner();
        let good = inner.peers.values().filter(|peer| peer.connections > 0 && peer.speaks == Some(true));
        good.filter_map(|peer| peer.reached.first().cloned()).collect()
    }

    #[cfg(test)]
    pub(super) fn connections(&self, id: &PeerId) -> u32 {
        self.inner().peers.get(id).map_or(0, |peer| peer.connections)
    }

    pub(super) fn connected_count(&self) -> usize {
        self.inner().peers.values().filter(|peer| peer.connections > 0).count()
    }

    /// Forgets a lost peer, unless a user has named it; says whether it did.
    pub(super) fn forget_unnamed(&self, id: &PeerId) -> bool {
        let mut inner = self.inner();
        let gone = inner.peers.get(id).is_some_and(|peer| !peer.named && peer.connections == 0);
        if gone {
            inner.peers.remove(id);
        }
        gone
    }

    pub(super) fn link(&self, id: &PeerId) -> Option<Arc<Link>> {
        self.inner().peers.get(id).map(|peer| peer.link.clone())
    }

    pub(super) fn is_connected(&self, id: &PeerId) -> bool {
        self.inner().peers.get(id).is_some_and(|peer| peer.connections > 0)
    }

    pub(super) fn is_banned(&self, id: &PeerId) -> bool {
        self.inner().suspects.is_banned(id)
    }

    pub(super) fn candidates(&self, object: &ObjectId) -> Candidates {
        let inner = self.inner();
        let mut candidates = Candidates { peers: Vec::new(), absent: 0, failed: 0 };
        for (id, peer) in &inner.peers {
            if inner.suspects.has_failed(object, id) {
                candidates.failed += 1;
            } else if inner.suspects.is_banned(id) || peer.speaks == Some(false) || inner.relays.contains(id)
            {
                continue;
            } else if peer.connections == 0 {
                candidates.absent += 1;
            } else {
                candidates.peers.push((*id, peer.link.speed(|speed, now| speed.expected(now))));
            }
        }
        candidates
    }

    /// `peer` sent wrong bytes for `object`.
    pub(super) fn accuse(&self, object: ObjectId, peer: PeerId) -> Judgement<PeerId> {
        self.inner().suspects.wrong(object, peer)
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
    pub(super) fn list(&self) -> Vec<PeerInfo> {
        let inner = self.inner();
        let mut list: Vec<_> =
            inner.peers.iter().map(|(id, peer)| peer.info(id, inner.state_of(id, peer))).collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is one step; a panic leaves no half of one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn state_of(&self, id: &PeerId, peer: &Peer) -> PeerState {
        match peer.connections {
            _ if self.suspects.is_banned(id) => PeerState::Banned,
            0 => PeerState::Reconnecting,
            _ if self.relays.contains(id) => PeerState::Relay,
            _ => PeerState::Connected,
        }
    }

    fn entry(&mut self, id: PeerId, epoch: Instant) -> &mut Peer {
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
                speed: Mutex::default(),
                epoch,
            }),
            connections: 0,
            reached: Vec::new(),
            told: Vec::new(),
            speaks: None,
            beacon: None,
            tracks: false,
            near: false,
            named: false,
        })
    }
}

impl Peer {
    fn info(&self, id: &PeerId, state: PeerState) -> PeerInfo {
        let mut addresses = self.reached.clone();
        addresses.extend(self.told.iter().filter(|told| !self.reached.contains(told)).cloned());
        PeerInfo {
            id: id.to_string(),
            addresses: addresses.iter().map(Multiaddr::to_string).collect(),
            rtt: self.link.speed(|speed, _| speed.rtt()),
            bytes_in: self.link.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.link.bytes_out.load(Ordering::Relaxed),
            objects_served: self.link.objects_served.load(Ordering::Relaxed),
            beacon: self.beacon.clone(),
            state,
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
    use crate::id::Kind;

    /// mDNS connected every node of any program that uses libp2p. Nothing could be asked of them, yet each was asked
    /// for every object, and counted as a peer that may have it when it was away.
    #[test]
    fn who_was_only_discovered_and_is_no_node_of_ours_is_forgotten() {
        let table = Table::new(Instant::now());
        let object = ObjectId::of(Kind::Chunk, b"");
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let [discovered, named, came] = [(); 3].map(|()| PeerId::random());
        table.connected(discovered, Some(address.clone()), None, false);
        table.connected(named, Some(address.clone()), None, true);
        table.connected(came, None, Some(address.clone()), false);
        assert_eq!(table.candidates(&object).peers.len(), 3, "as long as nothing is known");
        for peer in [discovered, named, came] {
            assert_eq!(table.speaks(&peer, false), peer == discovered);
        }
        assert!(table.candidates(&object).peers.is_empty());
        assert!(table.closed(discovered, 0).is_empty(), "it is not dialled again");
        assert_eq!(table.closed(named, 0), std::slice::from_ref(&address));
        assert_eq!((table.list().len(), table.candidates(&object).absent), (2, 0));
        // When it comes back it may be another program.
        table.connected(named, Some(address), None, false);
        assert_eq!(table.candidates(&object).peers.len(), 1);
        assert!(!table.speaks(&named, true));
        assert_eq!(table.candidates(&object).peers.len(), 1);
    }
}
