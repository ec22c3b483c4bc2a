//! Who is in which swarm, for those who ask; and whom a member asks, when, and whom it then dials.
//!
//! Owns: the table of what peers have announced, and the list of members that this node has heard of.
//! Must not know: sockets, messages, how an address looks. `P` names a peer, `A` an address.
//! Invariant: an announcement counts for [`LIFETIME`] and then is gone; nothing that peers announce or name makes a
//! table grow beyond its bound. What others say of third parties is never passed on.
//! Trust: announcements and lists come from strangers; a wrong one costs a dial that leads nowhere.
//! Threads: pure values; the caller locks them. Time comes in as `now`, measured from any fixed start.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::Bound;
use std::time::Duration;

use crate::id::SwarmId;

/// How long an announcement counts.
pub const LIFETIME: Duration = Duration::from_secs(90);
/// Pause between two announcements, once a node has been in its swarms for a while.
pub const EVERY: Duration = Duration::from_secs(30);
/// Members named in one answer.
pub const MAX_NAMED: usize = 50;
/// Addresses of one peer.
pub const MAX_ADDRESSES: usize = 8;
/// Swarms that one peer can be in, as far as it is told to others.
pub const MAX_SWARMS_EACH: usize = 1024;

/// Peers whose announcements are kept.
const MAX_ANNOUNCERS: usize = 1024;
/// Swarms that all of them together can be in, counted once for each.
const MAX_MEMBERSHIPS: usize = 65_536;
/// How often what has expired is looked for: all entries are gone through.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Pauses after joining: others may have joined at the same moment.
const FIRST_PAUSES: [u64; 5] = [1, 2, 4, 8, 15];
/// Members that this node has heard of and may dial.
const MAX_HEARD: usize = 512;
/// How long a member is remembered after it was last named.
const HEARD_FOR: Duration = Duration::from_secs(120);
/// The pause after a dial, twice as long after each further one.
const DIAL_AGAIN: Duration = Duration::from_secs(15);
/// Dials of one member; then it is left alone as long as it is remembered.
const MAX_DIALS: u32 = 4;
/// Dials that begin at the same time.
const MAX_AT_ONCE: usize = 8;

/// What peers have announced to this node.
#[derive(Debug)]
pub struct Tracker<P, A> {
    announcers: HashMap<P, Announcer<A>>,
    swarms: HashMap<SwarmId, Members<P>>,
    memberships: usize,
    swept: Duration,
}

#[derive(Debug)]
struct Announcer<A> {
    addresses: Vec<A>,
    last: Duration,
    swarms: usize,
}

#[derive(Debug)]
struct Members<P> {
    /// When each has last announced itself.
    last: BTreeMap<P, Duration>,
    /// The next answer begins behind this one, so that every member is named as often as every other.
    named: Option<P>,
}

impl<P: Copy + Ord + Hash, A: Clone> Tracker<P, A> {
    pub fn new() -> Self {
        Tracker { announcers: HashMap::new(), swarms: HashMap::new(), memberships: 0, swept: Duration::ZERO }
    }

    /// `peer` is in `swarms` and can be reached at `addresses`. What has no room is passed over.
    pub fn announce(&mut self, now: Duration, peer: P, addresses: Vec<A>, swarms: &[SwarmId]) {
        self.expire(now);
        if self.announcers.len() >= MAX_ANNOUNCERS && !self.announcers.contains_key(&peer) {
            return;
        }
        let announcer =
            self.announcers.entry(peer).or_insert(Announcer { addresses: vec![], last: now, swarms: 0 });
        announcer.addresses = addresses;
        announcer.addresses.truncate(MAX_ADDRESSES);
        announcer.last = now;
        for swarm in swarms {
            let known = self.swarms.get(swarm).is_some_and(|members| members.last.contains_key(&peer));
            if !known {
                if announcer.swarms >= MAX_SWARMS_EACH || self.memberships >= MAX_MEMBERSHIPS {
                    continue;
                }
                announcer.swarms += 1;
                self.memberships += 1;
            }
            let members = self.swarms.entry(*swarm);
            members.or_insert_with(|| Members { last: BTreeMap::new(), named: None }).last.insert(peer, now);
        }
    }

    /// Forgets what is too old to count.
    fn expire(&mut self, now: Duration) {
        if now.saturating_sub(self.swept) < SWEEP_EVERY {
            return;
        }
        self.swept = now;
        let counts = |last: &Duration| counts(now, *last);
        let announcers = &mut self.announcers;
        let memberships = &mut self.memberships;
        self.swarms.retain(|_, members| {
            members.last.retain(|peer, last| {
                let keep = counts(last);
                if !keep {
                    *memberships -= 1;
                    announcers.entry(*peer).and_modify(|announcer| announcer.swarms -= 1);
                }
                keep
            });
            !members.last.is_empty()
        });
        announcers.retain(|_, announcer| announcer.swarms > 0 || counts(&announcer.last));
    }

    /// Up to `most` other members of `swarms` with their addresses, some of each swarm.
    pub fn members(&mut self, now: Duration, asks: &P, swarms: &[SwarmId], most: usize) -> Vec<(P, Vec<A>)> {
        self.expire(now);
        let most = most.min(MAX_NAMED);
        let lists = swarms.iter().map(|swarm| self.next_members(now, swarm, asks));
        let mut lists: Vec<_> = lists.map(Vec::into_iter).collect();
        let mut named: Vec<P> = Vec::new();
        loop {
            let before = lists.iter().map(ExactSizeIterator::len).sum::<usize>();
            for (swarm, list) in swarms.iter().zip(&mut lists) {
                let Some(peer) = list.next() else { continue };
                if !named.contains(&peer) {
                    if named.len() == most {
                        return self.with_addresses(named);
                    }
                    named.push(peer);
                }
                self.swarms.entry(*swarm).and_modify(|members| members.named = Some(peer));
            }
            if before == 0 {
                return self.with_addresses(named);
            }
        }
    }

    fn next_members(&self, now: Duration, swarm: &SwarmId, asks: &P) -> Vec<P> {
        let Some(members) = self.swarms.get(swarm) else { return Vec::new() };
        let after = members.named.map_or(Bound::Unbounded, Bound::Excluded);
        let up_to = members.named.map_or(Bound::Unbounded, Bound::Included);
        let behind = members.last.range((after, Bound::Unbounded));
        // Without a last one, all are behind it.
        let before = members.named.map(|_| members.last.range((Bound::Unbounded, up_to)));
        let all = behind.chain(before.into_iter().flatten());
        let others = all.filter(|(peer, last)| *peer != asks && counts(now, **last));
        others.map(|(peer, _)| *peer).take(MAX_NAMED).collect()
    }

    fn with_addresses(&self, peers: Vec<P>) -> Vec<(P, Vec<A>)> {
        let addresses = |peer: &P| self.announcers.get(peer).map(|announcer| announcer.addresses.clone());
        peers.into_iter().filter_map(|peer| addresses(&peer).map(|addresses| (peer, addresses))).collect()
    }
}

fn counts(now: Duration, last: Duration) -> bool {
    now.saturating_sub(last) < LIFETIME
}

impl<P: Copy + Ord + Hash, A: Clone> Default for Tracker<P, A> {
    fn default() -> Self {
        Self::new()
    }
}

/// When a member announces itself to everybody again.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    done: usize,
    next: Duration,
}

impl Pace {
    /// From the start: at once, and soon again.
    pub fn new(now: Duration) -> Pace {
        Pace { done: 0, next: now }
    }

    /// When the next announcement is due.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// The announcement that was due has been made.
    pub fn announced(&mut self, now: Duration) {
        let pause = FIRST_PAUSES.get(self.done).map_or(EVERY, |seconds| Duration::from_secs(*seconds));
        self.done = (self.done + 1).min(FIRST_PAUSES.len());
        self.next = now + pause;
    }
}

/// Members of this node's swarms that others have named.
#[derive(Debug)]
pub struct Heard<P, A> {
    members: HashMap<P, Member<A>>,
    /// How many there were: of two members the one that was heard of first is dialled first.
    count: u64,
}

#[derive(Debug)]
struct Member<A> {
    addresses: Vec<A>,
    last: Duration,
    number: u64,
    dials: u32,
    not_before: Duration,
}

impl<P: Copy + Ord + Hash, A: Clone> Heard<P, A> {
    pub fn new() -> Self {
        Heard { members: HashMap::new(), count: 0 }
    }

    /// Somebody says that `peer` is a member and can be reached at `addresses`.
    pub fn named(&mut self, now: Duration, peer: P, mut addresses: Vec<A>) {
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return;
        }
        if let Some(member) = self.members.get_mut(&peer) {
            (member.addresses, member.last) = (addresses, now);
            return;
        }
        if self.members.len() >= MAX_HEARD {
            self.expire(now);
        }
        if self.members.len() < MAX_HEARD {
            let member = Member { addresses, last: now, number: self.count, dials: 0, not_before: now };
            self.members.insert(peer, member);
            self.count += 1;
        }
    }

    fn expire(&mut self, now: Duration) {
        self.members.retain(|_, member| now.saturating_sub(member.last) < HEARD_FOR);
    }

    /// Whom to dial now, `room` at most: of those that are not `settled` (connected, or not to be dialled at all) those
    /// that were dialled the fewest times. They count as dialled.
    pub fn to_dial(&mut self, now: Duration, room: usize, settled: impl Fn(&P) -> bool) -> Vec<(P, Vec<A>)> {
        self.expire(now);
        let mut due: Vec<(u32, u64, P)> = Vec::new();
        for (peer, member) in &mut self.members {
            if settled(peer) {
                // When it is lost it is as new.
                member.dials = 0;
            } else if member.dials < MAX_DIALS && member.not_before <= now {
                due.push((member.dials, member.number, *peer));
            }
        }
        due.sort_unstable();
        let due = due.into_iter().take(room.min(MAX_AT_ONCE));
        due.filter_map(|(.., peer)| {
            let member = self.members.get_mut(&peer)?;
            member.not_before = now + DIAL_AGAIN * 2u32.pow(member.dials);
            member.dials += 1;
            Some((peer, member.addresses.clone()))
        })
        .collect()
    }

    /// Forgets everybody: this node is in no swarm any more.
    pub fn clear(&mut self) {
        self.members.clear();
    }
}

impl<P: Copy + Ord + Hash, A: Clone> Default for Heard<P, A> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn swarm(n: u32) -> SwarmId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        SwarmId::from_bytes(bytes)
    }

    fn names(members: Vec<(u32, Vec<u8>)>) -> Vec<u32> {
        members.into_iter().map(|(peer, _)| peer).collect()
    }

    #[test]
    fn members_are_named_to_others_until_their_announcement_is_too_old() {
        let mut tracker = Tracker::new();
        let [a, b] = [swarm(1), swarm(2)];
        tracker.announce(s(0), 1, vec![10], &[a]);
        tracker.announce(s(60), 2, vec![20], &[a, b]);
        assert_eq!(tracker.members(s(60), &2, &[a], MAX_NAMED), [(1, vec![10])]);
        assert_eq!(
            tracker.members(s(60), &1, &[a, b], MAX_NAMED),
            [(2, vec![20])],
            "once, though it is in both"
        );
        assert!(tracker.members(s(60), &1, &[swarm(3)], MAX_NAMED).is_empty());
        assert!(tracker.members(s(90), &2, &[a], MAX_NAMED).is_empty(), "gone after 90 s");
        // It moved, and says so.
        tracker.announce(s(100), 2, vec![21], &[a]);
        assert_eq!(tracker.members(s(100), &1, &[a], MAX_NAMED), [(2, vec![21])]);
        assert_eq!(tracker.members(s(149), &1, &[b], MAX_NAMED), [(2, vec![21])]);
        assert!(
            tracker.members(s(150), &1, &[b], MAX_NAMED).is_empty(),
            "it was in this one for the last time at 60"
        );
        tracker.expire(s(200));
        assert_eq!((tracker.announcers.len(), tracker.swarms.len(), tracker.memberships), (0, 0, 0));
    }

    #[test]
    fn of_many_members_each_is_named_as_often_as_the_others() {
        let mut tracker = Tracker::new();
        for peer in 0..200u32 {
            tracker.announce(s(1), peer, vec![0u8], &[swarm(1)]);
        }
        let mut counts = HashMap::new();
        for _ in 0..8 {
            let named = names(tracker.members(s(2), &1000, &[swarm(1)], MAX_NAMED));
            assert_eq!(named.len(), MAX_NAMED);
            for peer in named {
                *counts.entry(peer).or_insert(0) += 1;
            }
        }
        assert_eq!((counts.len(), counts.values().max()), (200, Some(&2)));
    }

    #[test]
    fn a_small_swarm_is_not_crowded_out_by_a_large_one() {
        let mut tracker = Tracker::new();
        for peer in 0..200u32 {
            tracker.announce(s(1), peer, vec![0u8], &[swarm(1)]);
        }
        tracker.announce(s(1), 500, vec![0], &[swarm(2)]);
        let named = names(tracker.members(s(2), &1000, &[swarm(1), swarm(2)], MAX_NAMED));
        assert!(named.len() == MAX_NAMED && named.contains(&500));
        for most in [0, 1, 7] {
            assert_eq!(tracker.members(s(2), &1000, &[swarm(1), swarm(2)], most).len(), most);
        }
    }

    #[test]
    fn no_announcement_makes_the_tables_grow_beyond_their_bounds() {
        let mut tracker = Tracker::new();
        let swarms: Vec<_> = (0..2 * MAX_SWARMS_EACH as u32).map(swarm).collect();
        for peer in 0..100u32 {
            tracker.announce(s(1), peer, vec![0u8; 100], &swarms);
        }
        assert_eq!(tracker.memberships, MAX_MEMBERSHIPS);
        assert!(
            tracker
                .announcers
                .values()
                .all(|a| a.swarms <= MAX_SWARMS_EACH && a.addresses.len() == MAX_ADDRESSES)
        );
        let listed: usize = tracker.swarms.values().map(|members| members.last.len()).sum();
        assert_eq!(listed, MAX_MEMBERSHIPS);
        // A newcomer has to wait until there is room.
        tracker.announce(s(90), 200, vec![0], &swarms[..1]);
        assert!(!names(tracker.members(s(90), &1, &swarms[..1], MAX_NAMED)).contains(&200));
        tracker.announce(s(91), 200, vec![0], &swarms[..1]);
        assert_eq!(names(tracker.members(s(91), &1, &swarms[..1], MAX_NAMED)), [200]);
        for peer in 1000..1000 + 2 * MAX_ANNOUNCERS as u32 {
            tracker.announce(s(92), peer, vec![0], &swarms[..1]);
        }
        assert_eq!(tracker.announcers.len(), MAX_ANNOUNCERS);
    }

    #[test]
    fn a_new_member_announces_itself_often_and_then_every_half_minute() {
        let mut pace = Pace::new(s(100));
        let mut at = Vec::new();
        for _ in 0..8 {
            let now = pace.next();
            at.push(now.as_secs() - 100);
            pace.announced(now);
        }
        assert_eq!(at, [0, 1, 3, 7, 15, 30, 60, 90]);
    }

    #[test]
    fn members_are_dialled_a_few_times_within_the_room_there_is() {
        let mut heard = Heard::new();
        for peer in 0..20u32 {
            heard.named(s(0), peer, vec![peer as u8]);
        }
        heard.named(s(0), 99, vec![]);
        assert_eq!(names(heard.to_dial(s(0), 3, |peer| *peer < 2)), [2, 3, 4]);
        assert_eq!(names(heard.to_dial(s(0), 100, |peer| *peer < 2)), [5, 6, 7, 8, 9, 10, 11, 12]);
        assert!(heard.to_dial(s(0), 0, |_| false).is_empty());
        // Whoever did not answer comes after those that were not tried.
        assert_eq!(names(heard.to_dial(s(15), 9, |peer| *peer < 2)), [13, 14, 15, 16, 17, 18, 19, 2]);
        let mut heard = Heard::new();
        let mut dials = Vec::new();
        for now in (0..600).step_by(5) {
            heard.named(s(now), 1u32, vec![1u8]);
            dials.extend(heard.to_dial(s(now), 1, |_| false).iter().map(|_| now));
        }
        assert_eq!(dials, [0, 15, 45, 105]);
        // Connected and lost: as new.
        assert!(heard.to_dial(s(600), 1, |_| true).is_empty());
        assert_eq!(names(heard.to_dial(s(600), 1, |_| false)), [1]);
        assert!(heard.to_dial(s(715), 1, |_| false).is_empty(), "nobody has named it for two minutes");
        assert!(heard.members.is_empty());
    }

    #[test]
    fn the_list_of_members_is_bounded() {
        let mut heard = Heard::new();
        for peer in 0..10_000u32 {
            heard.named(s(0), peer, vec![0u8; 1000]);
        }
        assert_eq!(heard.members.len(), MAX_HEARD);
        assert!(heard.members.values().all(|member| member.addresses.len() == MAX_ADDRESSES));
        heard.named(s(300), 20_000, vec![0]);
        assert_eq!(names(heard.to_dial(s(300), 5, |_| false)), [20_000]);
    }
}
