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
use super::{BULK, Scheduler, names_others};
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
const ANSWER_SOON: Duration = Duration::from_millis(50);
/// How long an object is left to somebody else to fetch who makes no progress.
const LEFT: Duration = Duration::from_secs(1);
/// How long nothing is asked of those who had an object from the beginning while it is left to others, though nothing is on
/// its way here. (They need not be able to reach each other; and it says itself if it has given an object to somebody else.)
const IDLE: Duration = Duration::from_millis(100);
/// How long is believed that an object is coming to a peer.
const COMING: Duration = Duration::from_secs(10);
/// The same of a peer to which other things have come meanwhile.
const COMING_YET: Duration = Duration::from_secs(30);

/// How long what is known of an object that waits is not looked at again, unless a peer has said something about it. To look
/// costs as much as there are peers, and is done for every object and every peer that has room.
const FRESH: Duration = Duration::from_millis(20);

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

/// How well an object suits a peer: whether it is left to others, is a chunk, until when the peer is not asked for it because it has sent us elsewhere
/// (zero if it has not), how many have it, and an order of this node.
type Rank = (bool, bool, Duration, usize, u64);

/// How things stand with an object that waits.
#[derive(Debug, Clone, Copy)]
pub struct Outlook<P> {
    /// Peers that have it.
    holders: usize,
    fetch: Fetch<P>,
}

/// Who is to fetch an object from those who have had it from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetch<P> {
    /// Nobody: a peer that wanted it too has got it, and gives it.
    Brought,
    /// This node; `late` would have been before it and makes no progress.
    Ours { late: Option<P> },
    /// Somebody else, who brings it.
    Left,
}

impl<P: Copy + Ord + std::hash::Hash> Scheduler<P> {
    /// Whether nothing for later use is on its way from anybody, nor has come lately.
    fn is_starving(&self, now: Duration) -> bool {
        self.bulk == 0 && now >= self.arrived + IDLE
    }

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
            let (late, ..) = self.rank(now, object, want, (*id, peer))?;
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
        want.outlook.get(now, FRESH, || self.look(now, object, want))
    }

    /// The same, looked at now.
    fn look(&self, now: Duration, object: &ObjectId, want: &Want<P>) -> Option<Outlook<P>> {
        let is_soon = want.class == Class::Readahead || names_others(object);
        let answer = if is_soon { ANSWER_SOON } else { ANSWER };
        let (mut holders, mut brought) = (0, false);
        // The heaviest of those who bring what is left to them, and of the others; if heavier than this node.
        let mine = weight(self.me, object);
        let (mut winner, mut late) = ((mine, None), (mine, None));
        for (id, told) in want.tellings() {
            let Some(peer) = self.peers.get(&id) else { continue };
            match told {
                Told::Nothing(at) if now < at + answer && peer.answers() => return None,
                Told::Here { gained } => {
                    holders += 1;
                    brought |= gained && peer.is_reliable();
                }
                Told::Coming(at)
                    if peer.is_reliable()
                        && now < (peer.gained() + COMING).clamp(at + COMING, at + COMING_YET) =>
                {
                    let since = want.since.max(peer.gained());
                    let stands_still = now >= since + LEFT && (self.is_starving(now) || self.arrived > since);
                    let heaviest = if stands_still { &mut late } else { &mut winner };
                    *heaviest = (*heaviest).max((weight(peer.key, object), Some(id)));
                }
                Told::Nothing(_) | Told::Absent | Told::Coming(_) => {}
            }
        }
        // They are about to be asked.
        let is_unasked = self.watch_at.is_some() && want.tellings().next().is_none();
        if is_unasked
            && self.is_crowd()
            && now < want.since + answer
            && self.peers.values().any(Peer::answers)
        {
            return None;
        }
        let fetch = match () {
            () if brought => Fetch::Brought,
            () if winner.1.is_some() => Fetch::Left,
            () => Fetch::Ours { late: late.1 },
        };
        Some(Outlook { holders, fetch })
    }

    /// How well an object suits a peer, less being better; nothing if it is not to be asked for it now. First what
    /// falls to this node, of that what names others, then what the peer has not sent us elsewhere for (or else it would be asked for the same again and again,
    /// and never for the rest), then what few have, then in an order that is different on every node.
    fn rank(&self, now: Duration, object: &ObjectId, want: &Want<P>, (id, peer): (P, &Peer)) -> Option<Rank> {
        let names = names_others(object);
        let order = || u64::MAX - weight(self.me, object);
        if want.spread == Spread::Best {
            return (self.first_choice(now, object, want) == Some(id))
                .then(|| (false, !names, Duration::ZERO, 0, order()));
        }
        // Most of what waits is nothing that this peer could give, which is found out sooner than how things stand.
        let standing = self.standing(now, object, want, id);
        if matches!(standing, Standing::Later | Standing::Out) {
            return None;
        }
        let outlook = self.outlook(now, object, want)?;
        // An object store may stand idle: what it gives twice is paid for twice.
        let spare = peer.kind != Kind::Origin
            && now >= want.since + IDLE
            && (self.is_starving(now) || peer.has_spare(now, self.peers.len()));
        let left = match outlook.fetch {
            Fetch::Ours { .. } => false,
            Fetch::Brought if matches!(want.told(id), Some(Told::Here { gained: true })) => false,
            Fetch::Brought | Fetch::Left if spare => true,
            Fetch::Brought | Fetch::Left => return None,
        };
        // Whoever was not asked whether they have it is not asked for it either while others are known to.
        let can = standing == Standing::Has || outlook.holders == 0 || !peer.answers();
        if !can || peer.kind == Kind::Origin && self.has_holder(now, object, want) {
            return None;
        }
        Some((left, !names, want.redirected_until(id), outlook.holders, order()))
    }

    /// Whether a peer says that it has an object, and nothing is known that speaks against it.
    fn has_holder(&self, now: Duration, object: &ObjectId, want: &Want<P>) -> bool {
        let has = |id: &P| self.standing(now, object, want, *id) == Standing::Has;
        self.peers.keys().any(|id| self.is_well(now, id) && has(id))
    }

    /// Who has not brought in time what this node fetches now.
    pub(super) fn who_failed_to_bring(&self, now: Duration, object: &ObjectId) -> Option<P> {
        match self.outlook(now, object, self.wants.get(object)?)?.fetch {
            Fetch::Ours { late } => late,
            Fetch::Brought | Fetch::Left => None,
        }
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
pub(super) fn weight(key: u64, object: &ObjectId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = object.hash;
    let mut z = (u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ key).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
