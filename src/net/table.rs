//! Who is known: the connected, those to be connected again, and the banned.
//!
//! Owns: addresses, connection counts, measurements and bans of every peer.
//! Must not know: how to connect or how objects travel.
//! Invariant: at most [`MAX_KNOWN`] peers are remembered; a peer that is banned, blocked or does not speak the protocol
//! of objects is never a candidate.
//! Trust: addresses are what we dialled, or what a peer says about itself; the latter are shown, not dialled.
//! Threads: any; the lock is held for bookkeeping only.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use tokio_util::sync::CancellationToken;

use super::addresses::{is_loopback, is_relayed};
use super::gossip::Beacon;
use super::info::{PeerInfo, PeerState};
use super::session::Session;
use crate::swarm::health::{Grade, Health};

/// Peers remembered, connected or not.
const MAX_KNOWN: usize = 1024;
/// Addresses remembered for one peer.
const MAX_ADDRESSES: usize = 8;
/// Trials of own addresses that are so far apart say nothing about the same place.
const TOGETHER: Duration = Duration::from_secs(600);

/// Bytes of objects, with all peers since the start: also with those that are not remembered any more.
#[derive(Default)]
pub(super) struct Traffic {
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
}

/// What several tasks share about one peer.
pub(super) struct Link {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    traffic: Arc<Traffic>,
    pub(super) objects_served: AtomicU64,
    /// The session in which we ask it; opened when first needed, by whoever holds the lock.
    pub(super) session: tokio::sync::Mutex<Option<Arc<Session>>>,
    health: Mutex<Health>,
    epoch: Instant,
    /// Cancelled when the last connection with the peer is lost; then another takes its place.
    up: Mutex<CancellationToken>,
}

impl Link {
    /// Cancelled when the peer is connected no more.
    pub(super) fn up(&self) -> CancellationToken {
        self.up.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of objects have come from it.
    pub(super) fn received(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
        self.traffic.bytes_in.fetch_add(bytes, Ordering::Relaxed);
        self.health(|health, now| health.on_bytes(now, bytes));
    }

    /// Bytes of objects go to it.
    pub(super) fn sent(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
        self.traffic.bytes_out.fetch_add(bytes, Ordering::Relaxed);
        self.health(|health, now| health.on_sent(now, bytes));
    }

    /// Runs `change` on what the health of the peer is told by, with the time since the node started.
    pub(super) fn health<T>(&self, change: impl FnOnce(&mut Health, Duration) -> T) -> T {
        let now = self.epoch.elapsed();
        change(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

struct Peer {
    link: Arc<Link>,
    connections: u32,
    /// Those of them that go through a relay.
    relayed: u32,
    /// Where it was reached by us; not empty means that it is connected again when lost.
    reached: Vec<Multiaddr>,
    /// Where it says that it listens, or connected from.
    told: Vec<Multiaddr>,
    /// Whether it speaks the protocol of objects; not known before identify has told or it was tried.
    speaks: Option<bool>,
    /// What it says of itself, and this machine's clock when it did.
    beacon: Option<(Beacon, u64)>,
    /// Whether it answers announcements of swarms.
    tracks: bool,
    /// Whether it is on this machine.
    near: bool,
    /// A user has named its address; otherwise it was found on the local network, or has found us.
    named: bool,
}

pub(super) struct Table {
    epoch: Instant,
    pub(super) traffic: Arc<Traffic>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    peers: HashMap<PeerId, Peer>,
    /// Those who sent wrong bytes; at most [`MAX_KNOWN`].
    banned: HashSet<PeerId>,
    /// Those that a user wants nothing to do with.
    blocked: HashSet<PeerId>,
    /// Peers that are asked for nothing and told nothing but to relay.
    relays: HashSet<PeerId>,
    listening: Vec<Multiaddr>,
    /// Own addresses that others have tried from outside, the latest last, and whether they got through.
    tried: Vec<(Instant, Multiaddr, bool)>,
}

impl Table {
    pub(super) fn new(epoch: Instant) -> Table {
        Table { epoch, traffic: Arc::default(), inner: Mutex::default() }
    }

    /// Whether a peer is only gone through.
    pub(super) fn is_relay(&self, id: &PeerId) -> bool {
        self.inner().relays.contains(id)
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
        let peer = inner.entry(id, self.epoch, &self.traffic);
        if peer.connections == 0 {
            // It may be another program than before.
            (peer.speaks, peer.tracks) = (None, false);
        }
        peer.near = reached.iter().chain(&from).any(|address| is_loopback(address) && !is_relayed(address));
        peer.connections += 1;
        peer.link.health(|health, now| health.on_connected(now));
        peer.named |= named;
        reached.into_iter().for_each(|address| remember(&mut peer.reached, address));
        from.into_iter().for_each(|address| remember(&mut peer.told, address));
    }

    /// A connection to `peer` has ended and `left` remain. The addresses to try again, if it is to be.
    pub(super) fn closed(&self, id: PeerId, left: u32) -> Vec<Multiaddr> {
        let mut inner = self.inner();
        let refused = inner.refuses(&id);
        let Some(peer) = inner.peers.get_mut(&id) else { return Vec::new() };
        peer.connections = left;
        if left == 0 {
            std::mem::take(&mut *peer.link.up.lock().unwrap_or_else(PoisonError::into_inner)).cancel();
            peer.link.health(|health, now| health.on_disconnected(now));
        }
        if left > 0 || refused {
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
            Some(peer) if !inner.refuses(id) => peer.reached.clone(),
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

    /// What a peer says of itself, heard when this machine's clock was at `now_ms`; of strangers it is not kept.
    pub(super) fn says(&self, id: &PeerId, beacon: Beacon, now_ms: u64) {
        if let Some(peer) = self.inner().peers.get_mut(id) {
            peer.beacon = Some((beacon, now_ms));
        }
    }

    /// Where connected peers that speak the protocol of objects were reached last.
    pub(super) fn reached(&self) -> Vec<Multiaddr> {
        let inner = self.inner();
        let good = inner.peers.values().filter(|peer| peer.connections > 0 && peer.speaks == Some(true));
        good.filter_map(|peer| peer.reached.first().cloned()).collect()
    }

    /// So many of the connections with `peer` go through a relay.
    pub(super) fn relayed(&self, id: &PeerId, connections: u32) {
        if let Some(peer) = self.inner().peers.get_mut(id) {
            peer.relayed = connections;
        }
    }

    #[cfg(test)]
    pub(super) fn goes_through_a_relay(&self, id: &PeerId) -> bool {
        self.inner().peers.get(id).is_some_and(|peer| peer.relayed > 0)
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

    /// Why nothing is to be done with a peer, if so.
    pub(super) fn refusal(&self, id: &PeerId) -> Option<&'static str> {
        let inner = self.inner();
        if inner.blocked.contains(id) {
            return Some("it is blocked; `bcai peers allow` lifts that");
        }
        let banned = "it sent wrong bytes and is banned until this node starts again, or `bcai peers allow`";
        inner.banned.contains(id).then_some(banned)
    }

    pub(super) fn block(&self, id: PeerId) {
        self.inner().blocked.insert(id);
    }

    /// Lifts block and ban.
    pub(super) fn allow(&self, id: &PeerId) {
        let mut inner = self.inner();
        inner.blocked.remove(id);
        inner.banned.remove(id);
    }

    /// Known peers, `but` for some, that may have something and are not connected at the moment.
    pub(super) fn absent(&self, but: impl Fn(&PeerId) -> bool) -> usize {
        let inner = self.inner();
        let away = |(id, peer): &(&PeerId, &Peer)| {
            peer.connections == 0
                && peer.speaks != Some(false)
                && !inner.refuses(id)
                && !inner.relays.contains(id)
                && !but(id)
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

    /// Those who sent wrong bytes.
    pub(super) fn banned(&self) -> Vec<PeerId> {
        self.inner().banned.iter().copied().collect()
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

    /// Somebody outside has tried to connect to this address of this node.
    pub(super) fn tried(&self, address: Multiaddr, got_through: bool) {
        let mut inner = self.inner();
        inner.tried.retain(|(_, known, _)| *known != address);
        inner.tried.push((Instant::now(), address, got_through));
        let old = inner.tried.len().saturating_sub(MAX_ADDRESSES);
        inner.tried.drain(..old);
    }

    /// The latest of them, and those not long before it: what was so at another place is not so here.
    pub(super) fn trials(&self) -> Vec<(Multiaddr, bool)> {
        let inner = self.inner();
        let Some((latest, ..)) = inner.tried.last() else { return Vec::new() };
        let recent = inner.tried.iter().filter(|(at, ..)| latest.saturating_duration_since(*at) < TOGETHER);
        recent.map(|(_, address, got_through)| (address.clone(), *got_through)).collect()
    }

    /// Forgets everybody.
    pub(super) fn clear(&self) {
        self.inner().peers.clear();
    }

    /// Everybody known, by id.
    pub(super) fn list(&self) -> Vec<PeerInfo> {
        let inner = self.inner();
        let known = inner.peers.iter().map(|(id, peer)| peer.info(id, inner.state_of(id, peer.connections)));
        let mut list: Vec<_> = known.collect();
        // Those that were blocked before they were met are known by name only.
        let unmet = inner.blocked.iter().filter(|id| !inner.peers.contains_key(*id));
        list.extend(unmet.map(|id| Peer::new(self.epoch, &self.traffic).info(id, PeerState::Blocked)));
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is one step; a panic leaves no half of one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn state_of(&self, id: &PeerId, connections: u32) -> PeerState {
        match connections {
            _ if self.blocked.contains(id) => PeerState::Blocked,
            _ if self.banned.contains(id) => PeerState::Banned,
            0 => PeerState::Reconnecting,
            _ if self.relays.contains(id) => PeerState::Relay,
            _ => PeerState::Connected,
        }
    }

    fn entry(&mut self, id: PeerId, epoch: Instant, traffic: &Arc<Traffic>) -> &mut Peer {
        if self.peers.len() >= MAX_KNOWN && !self.peers.contains_key(&id) {
            let idle = self.peers.iter().filter(|(_, peer)| peer.connections == 0);
            let scored = idle.map(|(id, peer)| (peer.link.health(|health, now| health.score(now)), *id));
            let gone = scored.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, id)| id);
            // Connection limits keep the number of connected peers far below, so there is always one.
            gone.and_then(|gone| self.peers.remove(&gone));
        }
        self.peers.entry(id).or_insert_with(|| Peer::new(epoch, traffic))
    }

    /// Nothing is asked of it and its connections are refused.
    fn refuses(&self, id: &PeerId) -> bool {
        self.blocked.contains(id) || self.banned.contains(id)
    }
}

impl Peer {
    fn new(epoch: Instant, traffic: &Arc<Traffic>) -> Peer {
        let link = Link {
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            traffic: traffic.clone(),
            objects_served: AtomicU64::new(0),
            session: tokio::sync::Mutex::new(None),
            health: Mutex::default(),
            epoch,
            up: Mutex::default(),
        };
        Peer {
            link: Arc::new(link),
            connections: 0,
            relayed: 0,
            reached: Vec::new(),
            told: Vec::new(),
            speaks: None,
            beacon: None,
            tracks: false,
            near: false,
            named: false,
        }
    }

    fn info(&self, id: &PeerId, state: PeerState) -> PeerInfo {
        let mut addresses = self.reached.clone();
        addresses.extend(self.told.iter().filter(|told| !self.reached.contains(told)).cloned());
        let (health, now) = self.link.health(|health, now| (health.clone(), now));
        let (rate_in, rate_out) = health.flows(now);
        PeerInfo {
            id: id.to_string(),
            addresses: addresses.iter().map(Multiaddr::to_string).collect(),
            rtt: health.latency(),
            bytes_in: self.link.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.link.bytes_out.load(Ordering::Relaxed),
            objects_served: self.link.objects_served.load(Ordering::Relaxed),
            rate_in,
            rate_out,
            failed: health.failed(),
            failure_share: health.failure_share(),
            grade: if state == PeerState::Banned { Grade::Critical } else { health.grade(now) },
            score: if state == PeerState::Banned { 0.0 } else { health.score(now) },
            unusual_latency: health.has_unusual_latency(),
            unusual_failures: health.has_unusual_failures(),
            beacon: self.beacon.clone(),
            relayed: self.connections > 0 && self.relayed == self.connections,
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
mod tests;
