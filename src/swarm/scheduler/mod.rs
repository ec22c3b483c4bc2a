//! Who is asked for what, and when: the decisions of one node in a swarm.
//!
//! Owns: what is wanted and of whom it was asked, what is known of every peer, windows, hedges, and when to give up.
//! Must not know: streams, clocks, the store; whether an object is right is told.
//! Invariant: a wanted object ends exactly once, by [`Scheduler::delivered`], [`Scheduler::unwant`] or
//! [`Action::GiveUp`]; until then it is asked of somebody, or there is somebody it may still come from. At most two
//! peers are asked for an object at a time, and for at most one request in twenty a second one, but for those that are left
//! at the end with peers that deliver nothing.
//! Trust: what peers say is a hint; what they deliver was verified before it is told here.
//! Threads: a pure value; the caller locks it. Time comes in as `now`, measured from any fixed start. The same calls
//! lead to the same actions.
//!
//! Faults are asked for at once, of the peer that is expected to be done first. Everything else waits until a peer
//! has room in its window, and then the best of what waits is asked of it (`choose`). So that a crowd that wants the same
//! thing does not fetch it from the one who has it as often as there are members, each object is left to the member
//! with the highest rendezvous weight for it (Thaler and Ravishankar, 1998) that makes progress: that one fetches it, the others take it
//! from there, or from any other to which it has come, as soon as they are told so. Only a node to which nothing at all is on its way asks
//! those who have had it from the beginning all the same.

mod choose;
mod hedge;
mod peer;
mod want;
mod watch;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::time::Duration;

pub use peer::{Flow, Kind};
pub use want::Told;

use super::choice::{Failure, Judgement, Suspects, Verdict};
use super::{Class, Spread};
use crate::id::ObjectId;
use hedge::{HEDGE_AFTER, HEDGE_SHARE, HEDGES};
use peer::Peer;
use want::{Asked, Want, Wants};

/// Bytes of bulk classes on their way from all peers together: within what the node lends, with room to spare.
const BULK: u64 = 24 << 20;
/// How long a peer that has sent us elsewhere for the first time is not asked for the same object again.
const ELSEWHERE: Duration = Duration::from_millis(100);
/// The same where it has sent us to somebody whom we do not reach.
const FAR: Duration = Duration::from_millis(200);
/// Taken for the time that an object of a bulk class takes to come before one has, and the share of a new one in the smoothed time.
const UNKNOWN_DELAY: Duration = Duration::from_millis(250);
const DELAY_SHARE: u32 = 16;
/// Number of the first chunk that is wanted. (No node lives to want so many objects.)
const CHUNKS: u64 = 1 << 62;
/// How often what waits is looked at again though nothing has happened.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Objects that wait and are looked at then.
const LOOKED_AT: usize = 256;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<P> {
    /// Ask `peer` for an object; answered by [`Scheduler::delivered`] or [`Scheduler::failed`].
    Ask { object: ObjectId, class: Class, peer: P },
    /// Take that back; nothing is answered.
    Cancel { object: ObjectId, peer: P },
    /// Ask `peer` to say which of these it has; answered by [`Scheduler::told`].
    Watch { peer: P, objects: Vec<ObjectId> },
    /// Nobody is left whom to ask. The verdict is about peers; what an object store has said is known to who asked it.
    GiveUp { object: ObjectId, verdict: Verdict },
}

/// The decisions of one node. `P` names a peer.
#[derive(Debug)]
pub struct Scheduler<P: Ord + Hash> {
    /// Names this node in rendezvous.
    me: u64,
    peers: BTreeMap<P, Peer>,
    suspects: Suspects<P>,
    wants: Wants<P>,
    /// What waits to be asked for, in the order of arrival, for each bulk class.
    waiting: [BTreeMap<u64, ObjectId>; 3],
    /// When a second peer may be asked for what is asked of one.
    hedges: BTreeSet<(Duration, ObjectId)>,
    hedge_credit: f64,
    /// Of whom everything is asked that is to come from one peer.
    best: Option<P>,
    /// Objects about which nobody was asked yet whether they have them, and since when.
    unwatched: Vec<ObjectId>,
    watch_at: Option<Duration>,
    /// Bytes of bulk classes on their way.
    bulk: u64,
    /// When something of a bulk class has come last.
    arrived: Duration,
    /// How long what was asked for of bulk classes took to come, smoothed.
    delay: Duration,
    /// That these were as many as may be has kept peers from being asked.
    full: bool,
    arrivals: u64,
    asks: u64,
    actions: Vec<Action<P>>,
}

impl<P: Copy + Ord + Hash> Scheduler<P> {
    /// Nobody is known. `me` names this node in rendezvous: any number that others are unlikely to have.
    pub fn new(me: u64) -> Scheduler<P> {
        Scheduler {
            me,
            peers: BTreeMap::new(),
            suspects: Suspects::new(),
            wants: Wants::default(),
            waiting: Default::default(),
            hedges: BTreeSet::new(),
            hedge_credit: HEDGES,
            best: None,
            unwatched: Vec::new(),
            watch_at: None,
            bulk: 0,
            arrived: Duration::ZERO,
            delay: UNKNOWN_DELAY,
            full: false,
            arrivals: 0,
            asks: 0,
            actions: Vec::new(),
        }
    }

    /// What has become due to do, in order. To be called after every other call.
    pub fn actions(&mut self) -> Vec<Action<P>> {
        std::mem::take(&mut self.actions)
    }

    /// When to call [`tick`](Self::tick) next, if nothing happens before.
    pub fn wake_at(&self, now: Duration) -> Option<Duration> {
        let hedge = self.hedges.first().map(|(at, _)| *at);
        let waits = self.waiting.iter().any(|queue| !queue.is_empty()).then(|| now + LOOK_AGAIN);
        [hedge, waits, self.watch_at].into_iter().flatten().min()
    }

    /// `peer` can be asked from now on. `key` names it in rendezvous: every node has to give it the same.
    pub fn peer_up(&mut self, now: Duration, peer: P, key: u64, kind: Kind) {
        if self.suspects.is_banned(&peer) {
            return;
        }
        let known = self.peers.entry(peer).or_insert_with(|| Peer::new(key, kind));
        (known.key, known.kind) = (key, kind);
        if self.is_crowd() {
            let waiting = self.waiting.iter().flat_map(BTreeMap::values);
            self.unwatched = waiting.copied().collect();
            self.watch_soon(now, Class::Readahead, false);
        }
        self.fill(now, peer);
    }

    /// `peer` cannot be asked any more, because of `failure`. What was asked of it is taken back and asked of others.
    pub fn peer_down(&mut self, now: Duration, peer: P, failure: Failure<P>) {
        if self.peers.remove(&peer).is_none() {
            return;
        }
        let mut lost = Vec::new();
        for (object, want) in &mut self.wants {
            want.forget(peer);
            if let Some(position) = want.asked.iter().position(|asked| asked.peer == peer) {
                want.asked.remove(position);
                want.failed.push((peer, failure));
                lost.push((want.number, *object));
            }
        }
        lost.sort_unstable();
        for (_, object) in lost {
            self.actions.push(Action::Cancel { object, peer });
            let Want { class, bytes, ref asked, .. } = self.wants[&object];
            let is_asked = !asked.is_empty();
            self.settle(peer, class, bytes);
            if !is_asked {
                self.dispatch(now, object);
            }
        }
        self.look_again(now);
    }

    /// What is asked for later use, of each peer.
    pub fn flows(&self) -> impl Iterator<Item = (P, Flow)> {
        self.peers.iter().map(|(id, peer)| (*id, peer.flow()))
    }

    /// A round trip was measured.
    pub fn on_rtt(&mut self, now: Duration, peer: P, rtt: Duration) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.speed.on_rtt(rtt);
            peer.window.on_rtt(now, rtt);
        }
    }

    /// An object of about `bytes` is wanted; if it is already, nothing changes.
    pub fn want(&mut self, now: Duration, object: ObjectId, class: Class, spread: Spread, bytes: u64) {
        if self.wants.contains_key(&object) {
            return;
        }
        self.arrivals += 1;
        let number = self.arrivals + if names_others(&object) { 0 } else { CHUNKS };
        self.wants.insert(object, Want::new(class, spread, bytes, now, number));
        if class != Class::Fault && self.is_crowd() {
            self.unwatched.push(object);
            self.watch_soon(now, class, names_others(&object));
        }
        self.dispatch(now, object);
    }

    /// Whether an object is wanted here and not yet delivered.
    pub fn wants(&self, object: &ObjectId) -> bool {
        self.wants.contains_key(object)
    }

    /// An object is wanted no longer.
    pub fn unwant(&mut self, now: Duration, object: ObjectId) {
        let freed = self.end(object, None);
        self.refill(now, &freed);
    }

    /// `peer` delivered an object, and it is right.
    pub fn delivered(&mut self, now: Duration, peer: P, object: ObjectId, bytes: u64) {
        let Some(want) = self.wants.get(&object) else { return };
        let (class, gained) = (want.class, matches!(want.told(peer), Some(Told::Here { gained: true })));
        if let (Some(asked), Some(known)) =
            (want.asked.iter().find(|asked| asked.peer == peer), self.peers.get_mut(&peer))
        {
            known.on_delivered(now, asked.at, class, bytes);
            if class != Class::Fault {
                self.delay = (self.delay * (DELAY_SHARE - 1) + now.saturating_sub(asked.at)) / DELAY_SHARE;
                self.arrived = now;
            }
            if gained {
                known.has_brought(true);
            }
            for late in want.asked.iter().filter(|other| class == Class::Fault && other.at < asked.at) {
                self.peers.get_mut(&late.peer).into_iter().for_each(|peer| peer.on_overtaken(now, late.at));
            }
        }
        let freed = self.end(object, Some(peer));
        self.refill(now, &freed);
    }

    /// `peer` did not deliver what it was asked for. Wrong bytes are told by [`wrong`](Self::wrong).
    pub fn failed(&mut self, now: Duration, peer: P, object: ObjectId, failure: Failure<P>) {
        let Some(want) = self.wants.get_mut(&object) else { return };
        let Some(position) = want.asked.iter().position(|asked| asked.peer == peer) else { return };
        let Asked { at, .. } = want.asked.remove(position);
        match failure {
            Failure::Redirected(to) => {
                let to = to.and_then(|to| Some((to, self.peers.get(&to)?)));
                want.on_redirected(now, peer, if to.is_some() { ELSEWHERE } else { FAR });
                match to {
                    // It is being given it, and says when it has it.
                    Some((to, known)) if known.watches() => {
                        if want.told(to).is_none() {
                            self.actions.push(Action::Watch { peer: to, objects: vec![object] });
                        }
                        want.on_sent_to(now, to);
                    }
                    Some((to, _)) => want.on_told(to, Told::Here { gained: true }),
                    None => {}
                }
            }
            _ => want.failed.push((peer, failure)),
        }
        let (class, bytes) = (want.class, want.bytes);
        self.settle(peer, class, bytes);
        if let Some(known) = self.peers.get_mut(&peer) {
            known.on_failed(now, at, failure);
        }
        if self.wants.get(&object).is_some_and(|want| want.asked.is_empty()) {
            self.dispatch(now, object);
        }
        self.refill(now, &[peer]);
    }

    /// No session could be opened with `peer`, which was begun at `asked`.
    pub fn not_opened(&mut self, now: Duration, peer: P, asked: Duration) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.speed.on_not_opened(asked, now);
        }
    }

    /// A session with `peer` was opened, and `watches` or not.
    pub fn opened(&mut self, now: Duration, peer: P, watches: bool) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.speed.on_opened();
            let (key, kind) = (known.key, Kind::Node { watches });
            if known.kind != kind {
                self.peer_up(now, peer, key, kind);
            }
        }
    }

    /// Whether an attempt to open a session with `peer` has failed since `then`.
    pub fn not_opened_since(&self, peer: P, then: Duration) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.speed.not_opened_since(then))
    }

    /// `peer` sent wrong bytes for an object. Whoever is banned is down.
    pub fn wrong(&mut self, now: Duration, peer: P, object: ObjectId) -> Judgement<P> {
        let judgement = self.suspects.wrong(object, peer);
        self.failed(now, peer, object, Failure::Wrong);
        if judgement == Judgement::Ban {
            self.peer_down(now, peer, Failure::Lost);
        }
        judgement
    }

    /// A user holds nothing against `peer` any more.
    pub fn pardon(&mut self, peer: &P) {
        self.suspects.forgive(peer);
    }

    /// Peers that failed on this object, so that they are not asked for it again.
    pub fn failed_on(&self, object: &ObjectId) -> usize {
        self.suspects.failed_on(object)
    }

    /// Whether `peer` failed on this object.
    pub fn has_failed(&self, object: &ObjectId, peer: &P) -> bool {
        self.suspects.has_failed(object, peer)
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        while let Some(&(at, object)) = self.hedges.first()
            && at <= now
        {
            self.hedges.pop_first();
            self.hedge(now, object);
        }
        if self.watch_at.is_some_and(|at| at <= now) {
            self.watch(now);
        }
        self.look_again(now);
    }

    /// Asks somebody for a fault; lets everything else wait for room.
    fn dispatch(&mut self, now: Duration, object: ObjectId) {
        let Some(want) = self.wants.get(&object) else { return };
        match (want.class, self.first_choice(now, &object, want)) {
            (Class::Fault, Some(peer)) => self.ask(now, object, peer),
            (Class::Fault, None) => self.give_up_if_in_vain(now, object),
            (class, _) => {
                self.waiting[queue(class)].insert(want.number, object);
                self.offer(now, object);
                self.give_up_if_in_vain(now, object);
            }
        }
    }

    fn ask(&mut self, now: Duration, object: ObjectId, peer: P) {
        let Some(want) = self.wants.get(&object) else { return };
        if want.spread == Spread::Best && self.best.is_none_or(|best| !self.is_well(now, &best)) {
            self.best = Some(peer);
        }
        let late = self.late_after();
        let Some(want) = self.wants.get_mut(&object) else { return };
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.on_asked(now, want.class, want.bytes);
        if want.class != Class::Fault {
            self.bulk += want.bytes;
            self.waiting[queue(want.class)].remove(&want.number);
        }
        // A second request earns none.
        let is_first = want.asked.is_empty();
        want.asked.push(Asked { peer, at: now });
        let after = match want.class {
            Class::Fault => known.p95().max(HEDGE_AFTER),
            _ => late.max(known.expected(now) * 3),
        };
        let class = want.class;
        self.hedge_later(now + after, object);
        if is_first {
            self.hedge_credit = (self.hedge_credit + HEDGE_SHARE).min(HEDGES);
        }
        self.asks += 1;
        self.actions.push(Action::Ask { object, class, peer });
    }

    /// Looks at everybody's room, and whether what waits still may come.
    fn look_again(&mut self, now: Duration) {
        self.fill_all(now);
        let waiting = self.waiting.iter().flat_map(|queue| queue.values().take(LOOKED_AT));
        for object in waiting.copied().collect::<Vec<_>>() {
            self.give_up_if_in_vain(now, object);
        }
    }

    fn fill_all(&mut self, now: Duration) {
        if self.waiting.iter().any(|queue| !queue.is_empty()) {
            for peer in self.peers.keys().copied().collect::<Vec<_>>() {
                self.fill(now, peer);
            }
        }
    }

    /// Fills the room that `freed` peers have now; that of all if the node had none before.
    fn refill(&mut self, now: Duration, freed: &[P]) {
        if std::mem::take(&mut self.full) {
            self.fill_all(now);
        } else {
            freed.iter().for_each(|peer| self.fill(now, *peer));
        }
    }

    /// Asks `peer` for the best of what waits, while its window and the node's have room.
    fn fill(&mut self, now: Duration, peer: P) {
        while let Some(object) = self.best_for(now, peer) {
            self.ask_waiting(now, object, peer);
        }
    }

    /// Asks whoever has room for one object that waits. (Nobody with room has anything better to do, or it would have
    /// been asked before.)
    fn offer(&mut self, now: Duration, object: ObjectId) {
        if let Some(peer) = self.best_peer_for(now, &object) {
            self.ask_waiting(now, object, peer);
        }
    }

    fn ask_waiting(&mut self, now: Duration, object: ObjectId, peer: P) {
        if let Some(winner) = self.who_failed_to_bring(now, &object) {
            self.peers.get_mut(&winner).into_iter().for_each(|winner| winner.has_brought(false));
        }
        if let Some(want) = self.wants.get(&object) {
            for (silent, _) in want.tellings().filter(|(_, told)| matches!(told, Told::Nothing(_))) {
                self.peers.get_mut(&silent).into_iter().for_each(Peer::on_silent);
            }
        }
        self.ask(now, object, peer);
    }

    fn give_up_if_in_vain(&mut self, now: Duration, object: ObjectId) {
        let Some(want) = self.wants.get(&object) else { return };
        if !want.asked.is_empty() {
            return;
        }
        if let Some(verdict) = self.in_vain(now, &object, want) {
            self.end(object, None);
            self.actions.push(Action::GiveUp { object, verdict });
        }
    }

    /// Forgets a want; all requests for it but that of `but`, which is answered, are taken back. Returns of whom it was
    /// asked.
    fn end(&mut self, object: ObjectId, but: Option<P>) -> Vec<P> {
        let Some(want) = self.wants.remove(&object) else { return Vec::new() };
        if let Some(at) = want.hedge_at {
            self.hedges.remove(&(at, object));
        }
        if want.class != Class::Fault {
            self.waiting[queue(want.class)].remove(&want.number);
        }
        for Asked { peer, .. } in &want.asked {
            self.settle(*peer, want.class, want.bytes);
            if Some(*peer) != but {
                self.actions.push(Action::Cancel { object, peer: *peer });
            }
        }
        want.asked.into_iter().map(|asked| asked.peer).collect()
    }

    /// A request to `peer` is answered or taken back.
    fn settle(&mut self, peer: P, class: Class, bytes: u64) {
        if class != Class::Fault {
            self.full |= !self.has_room(bytes);
            self.bulk = self.bulk.saturating_sub(bytes);
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.on_settled(class, bytes);
        }
    }
}

/// Whether more is to be fetched as soon as it has come.
fn names_others(object: &ObjectId) -> bool {
    object.kind != crate::id::Kind::Chunk
}

/// The queue of a bulk class.
fn queue(class: Class) -> usize {
    match class {
        Class::Fault | Class::Readahead => 0,
        Class::Prefetch => 1,
        Class::Replicate => 2,
    }
}
