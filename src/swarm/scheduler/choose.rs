//! The choices of the scheduler: which peer for an object, and which object for a peer.
//!
//! Owns: who may be asked for what, in which order, and when nobody may.
//! Must not know: how a choice is carried out.
//! Invariant: nothing here changes anything; the same state gives the same choice.
//! Trust: that of [`super`].
//! Threads: pure functions of the scheduler's state.

use std::time::Duration;

use super::peer::{Kind, Peer};
use super::want::{Asked, Told, Want};
use super::{BULK, Scheduler};
use crate::id::ObjectId;
use crate::swarm::choice::{Failure, Verdict};
use crate::swarm::{Class, Spread};

/// Objects that are looked at to find the best one for a peer, and that are compared if they suit it: in a crowd, where
/// each node has its own to fetch, and before it is known who else there is, when many may fetch the same from one.
const SCAN: usize = 1024;
const COMPARE: (usize, usize) = (16, 256);
/// One request in so many is made for the least urgent class that waits.
const FLOOR: u64 = 20;
/// One fault in so many is asked of the peer of which least is known.
const EXPLORE: u64 = 50;
/// How long is waited for peers to say whether they have an object: for later, and for a reader to come.
const ANSWER: Duration = Duration::from_millis(500);
const ANSWER_READAHEAD: Duration = Duration::from_millis(50);
/// How long an object is left to somebody else to fetch who makes no progress.
const LEFT: Duration = Duration::from_secs(1);
/// How long nothing is asked of a peer while all that it has is left to others. (They need not be able to reach it; and
/// it says itself if it has given an object to somebody else.)
const IDLE: Duration = Duration::from_millis(100);
/// How long is believed that an object is coming to a peer.
const COMING: Duration = Duration::from_secs(10);
/// The same of a peer to which other things have come meanwhile.
const COMING_YET: Duration = Duration::from_secs(30);

/// How a peer stands to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It says so.
    Has,
    /// It may; it has not said.
    May,
    /// Later perhaps: it wants it too, or has sent us elsewhere a moment ago.
    Later,
    /// It has not, or has failed.
    Out,
}

/// How things stand with an object that waits.
struct Outlook<P> {
    /// Peers that have it.
    holders: usize,
    /// To whom it is left to fetch it, unless that is this node, and when something has come to that one last.
    winner: Option<(P, Duration)>,
}

/// Whether an object is left to somebody else to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It falls to this node, or the one to be asked has fetched it itself.
    Ours,
    /// To one that may be about to bring it.
    InTime,
    /// To one that may be, but this node has nothing else to ask for.
    Idle,
    /// To one that makes no progress.
    StandsStill,
}

impl<P: Copy + Eq> Outlook<P> {
    fn left(&self, now: Duration, want: &Want<P>, (from, peer): (P, &Peer)) -> Left {
        let Some((_, gained)) = self.winner else { return Left::Ours };
        match want.told(from) {
            Some(Told::Here { gained: true }) => Left::Ours,
            _ if now >= want.since + LEFT && now >= gained + LEFT => Left::StandsStill,
            // An object store may stand idle: what it gives twice is paid for twice.
            _ if now >= want.since + IDLE && peer.kind != Kind::Origin && peer.is_idle() => Left::Idle,
            _ => Left::InTime,
        }
    }
}

impl<P: Copy + Ord + std::hash::Hash> Scheduler<P> {
    /// Whether more than one can be asked, so that it matters who has what.
    pub(super) fn is_crowd(&self) -> bool {
        self.peers.len() > 1
    }

    fn standing(&self, now: Duration, object: &ObjectId, want: &Want<P>, id: P) -> Standing {
        if want.has_failed(id) || self.suspects.has_failed(object, &id) {
            return Standing::Out;
        }
        match want.told(id) {
            _ if want.is_redirected_by(id, now) => Standing::Later,
            Some(Told::Here { .. }) => Standing::Has,
            Some(Told::Coming(at)) if now < at + COMING => Standing::Later,
            Some(Told::Coming(_) | Told::Absent) => Standing::Out,
            Some(Told::Nothing(_)) | None => Standing::May,
        }
    }

    /// The peer that is expected to deliver first, of those that may have the object and are not asked for it: for a
    /// reader, who does not wait for what peers have to say. Object stores come after the peers, but for silent ones, and
    /// before all when an object is late at a peer that no reader has ever had anything from.
    pub(super) fn quickest(&self, now: Duration, object: &ObjectId, want: &Want<P>) -> Option<P> {
        let possible = self.peers.iter().filter(|(id, _)| {
            !want.is_asked_of(**id)
                && !matches!(self.standing(now, object, want, **id), Standing::Out | Standing::Later)
        });
        if self.asks % EXPLORE == EXPLORE - 1 && want.asked.is_empty() {
            let unmeasured = possible.clone().find(|(_, peer)| peer.speed.rtt().is_none());
            if let Some((id, _)) = unmeasured.filter(|(_, peer)| peer.kind != Kind::Origin) {
                return Some(*id);
            }
        }
        let has_served = |asked: &Asked<P>| self.peers.get(&asked.peer).is_some_and(Peer::has_served_readers);
        let is_doubtful = want.asked.iter().any(|asked| !has_served(asked));
        let turn = |peer: &Peer| match peer.kind {
            Kind::Origin => 1,
            Kind::Node { .. } if is_doubtful || peer.speed.is_silent(now) => 2,
            Kind::Node { .. } => 0,
        };
        possible.min_by_key(|(_, peer)| (turn(peer), peer.expected(now))).map(|(id, _)| *id)
    }

    /// Of whom an object is asked by one who does not wait for what peers have to say: of the quickest, or of the one peer
    /// of whom everything is asked if it can be.
    pub(super) fn first_choice(&self, now: Duration, object: &ObjectId, want: &Want<P>) -> Option<P> {
        let may = |id: &P| {
            !want.is_asked_of(*id)
                && matches!(self.standing(now, object, want, *id), Standing::Has | Standing::May)
        };
        let best = self.best.filter(|id| want.spread == Spread::Best && self.is_well(now, id) && may(id));
        best.or_else(|| self.quickest(now, object, want))
    }

    /// Whether `id` is a peer that can be asked and has not been silent of late.
    pub(super) fn is_well(&self, now: Duration, id: &P) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.kind != Kind::Origin && !peer.speed.is_silent(now))
    }

    /// The best of what waits that `peer` can be asked for now.
    pub(super) fn best_for(&self, now: Duration, id: P) -> Option<ObjectId> {
        let peer = self.peers.get(&id)?;
        let in_turn = self.asks % FLOOR == FLOOR - 1;
        let classes: [usize; 3] = if in_turn { [2, 1, 0] } else { [0, 1, 2] };
        for class in classes {
            let (mut best, mut found) = (None, 0);
            let compare = if self.is_crowd() { COMPARE.0 } else { COMPARE.1 };
            for object in self.waiting[class].values().take(SCAN) {
                let want = &self.wants[object];
                if !peer.has_room(want.bytes) || !self.has_room(want.bytes) {
                    return None;
                }
                let Some(rank) = self.rank(now, object, want, (id, peer)) else { continue };
                // Readers come to it in this order.
                if want.class == Class::Readahead {
                    return Some(*object);
                }
                if best.is_none_or(|(least, _)| rank < least) {
                    best = Some((rank, *object));
                }
                // Those that nobody else fetches are all good.
                found += usize::from(!rank.0);
                if found == compare {
                    break;
                }
            }
            if let Some((_, object)) = best {
                return Some(object);
            }
        }
        None
    }

    /// The best peer with room for one object that waits.
    pub(super) fn best_peer_for(&self, now: Duration, object: &ObjectId) -> Option<P> {
        let want = self.wants.get(object)?;
        if !self.has_room(want.bytes) {
            return None;
        }
        let with_room = self.peers.iter().filter(|(_, peer)| peer.has_room(want.bytes));
        let ranked = with_room.filter_map(|(id, peer)| {
            let (late, _, _) = self.rank(now, object, want, (*id, peer))?;
            Some(((late, peer.kind == Kind::Origin, peer.expected(now)), *id))
        });
        ranked.min().map(|(_, id)| id)
    }

    /// Whether about `bytes` more of a bulk class may be on their way. One object always may.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.bulk == 0 || self.bulk + bytes <= BULK
    }

    /// How things stand with an object, whoever is asked for it; nothing while peers are about to say how they stand to it,
    /// which is worth waiting for: what one of them wants too need be fetched once only.
    fn outlook(&self, now: Duration, object: &ObjectId, want: &Want<P>) -> Option<Outlook<P>> {
        let answer = if want.class == Class::Readahead { ANSWER_READAHEAD } else { ANSWER };
        let (mut holders, mut winner, mut heaviest) = (0, None, weight(self.me, object));
        for (id, told) in want.tellings() {
            let is_member = match told {
                Told::Nothing(at) if now < at + answer => {
                    if self.peers.get(&id).is_some_and(Peer::answers) {
                        return None;
                    }
                    false
                }
                Told::Coming(at) => {
                    let gained = self.peers.get(&id).map_or(at, Peer::gained);
                    now < (gained + COMING).clamp(at + COMING, at + COMING_YET)
                }
                Told::Here { gained } => {
                    holders += 1;
                    gained
                }
                Told::Nothing(_) | Told::Absent => false,
            };
            let Some(peer) = self.peers.get(&id).filter(|_| is_member) else { continue };
            let weight = weight(peer.key, object);
            if weight > heaviest && peer.is_reliable() {
                (winner, heaviest) = (Some((id, peer.gained())), weight);
            }
        }
        // Those who have not even been asked yet.
        if self.watch_at.is_some() && self.is_crowd() && now < want.since + answer {
            let unasked = |(id, peer): (&P, &Peer)| peer.answers() && want.told(*id).is_none();
            if self.peers.iter().any(unasked) {
                return None;
            }
        }
        Some(Outlook { holders, winner })
    }

    /// How well an object suits a peer, less being better; nothing if it is not to be asked for it now. First what
    /// falls to this node, then what few have, then in an order that is different on every node.
    fn rank(
        &self,
        now: Duration,
        object: &ObjectId,
        want: &Want<P>,
        (id, peer): (P, &Peer),
    ) -> Option<(bool, usize, u64)> {
        if !matches!(self.standing(now, object, want, id), Standing::Has | Standing::May) {
            return None;
        }
        let order = u64::MAX - weight(self.me, object);
        if want.spread == Spread::Best {
            return (self.first_choice(now, object, want) == Some(id)).then_some((false, 0, order));
        }
        let outlook = self.outlook(now, object, want)?;
        if peer.kind == Kind::Origin && self.has_holder(now, object, want) {
            return None;
        }
        let left = outlook.left(now, want, (id, peer));
        if left == Left::InTime {
            return None;
        }
        Some((left != Left::Ours, outlook.holders, order))
    }

    /// Whether a peer says that it has an object, and nothing is known that speaks against it.
    fn has_holder(&self, now: Duration, object: &ObjectId, want: &Want<P>) -> bool {
        let has = |id: &P| self.standing(now, object, want, *id) == Standing::Has;
        self.peers.keys().any(|id| self.is_well(now, id) && has(id))
    }

    /// Who has not brought in time what is asked of `from` now.
    pub(super) fn who_failed_to_bring(&self, now: Duration, object: &ObjectId, from: P) -> Option<P> {
        let (want, peer) = (self.wants.get(object)?, self.peers.get(&from)?);
        let outlook = self.outlook(now, object, want)?;
        let late = outlook.left(now, want, (from, peer)) == Left::StandsStill;
        outlook.winner.filter(|_| late).map(|(id, _)| id)
    }

    /// Why it is in vain to go on wanting an object that is asked of nobody, as far as peers are concerned: what an object
    /// store has to say is known to those who asked it. Nothing while it may still come.
    pub(super) fn in_vain(&self, now: Duration, object: &ObjectId, want: &Want<P>) -> Option<Verdict> {
        let standing = |id: &P| self.standing(now, object, want, *id);
        let mut coming = false;
        for standing in self.peers.keys().map(standing) {
            match standing {
                // A reader asks at once, so that nobody who may be asked is left.
                Standing::Has | Standing::May if want.class != Class::Fault => return None,
                Standing::Later if want.class != Class::Fault => return None,
                Standing::Later => coming = true,
                Standing::Has | Standing::May | Standing::Out => {}
            }
        }
        let is_node = |id: &P| self.peers.get(id).is_none_or(|peer| peer.kind != Kind::Origin);
        let failed = want.failed.iter().filter(|(id, _)| is_node(id));
        let mut failures: Vec<Failure<P>> = failed.map(|(_, failure)| *failure).collect();
        let absent = |(_, told): &(P, Told)| *told == Told::Absent;
        failures.extend(want.tellings().filter(absent).map(|_| Failure::Missing));
        if coming {
            failures.push(Failure::Busy);
        }
        Some(Verdict::of(&failures))
    }
}

/// The weight of a node for an object, in which the highest wins. Ids are hashes, so that a few rounds of mixing
/// (splitmix64, Steele and others, 2014) are enough.
fn weight(key: u64, object: &ObjectId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = object.hash;
    let mut z = (u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ key).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
