//! Which storage nodes hold a snapshot: where it goes, who takes the place of one that is lost, and who may let go.
//!
//! Owns: these decisions, as functions of what is known of the nodes. Must not know: how it came to be known, or what is
//! done about it.
//! Invariant: nodes that know the same decide the same, without asking each other: none is told to let go of a copy that
//! others count on.
//! Trust: what nodes say of themselves is believed, within reason; nothing is released on the word of one.
//! Threads: pure functions.
//!
//! A node's place for a snapshot is that of rendezvous hashing (Thaler and Ravishankar 1998), weighted where a publisher
//! chooses, as in Schindelhauer and Schomaker 2005: of *n* nodes each gets its share, and when one goes, only what it held
//! moves.

use minicbor::{Decode, Encode};

use crate::crypto::PublicKey;
use crate::id::SnapshotId;

/// Begins what a node's place is hashed from.
const CONTEXT: &str = "bcai 2026 replica placement v1";
/// A node whose reliability is not known, or is worse, counts as much as this part of a perfect one.
const LEAST_RELIABLE: f64 = 0.05;
/// More room than this, in bytes, makes no node a better one.
const ROOM_ENOUGH: u64 = 16 << 40;

/// What a node has of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Holding {
    /// It has promised nothing.
    #[n(0)]
    Nothing,
    /// It is fetching it.
    #[n(1)]
    Coming,
    /// All of it, for good.
    #[n(2)]
    Whole,
}

/// A storage node that could hold something new.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub node: PublicKey,
    /// Nodes of one zone may be lost together.
    pub zone: String,
    /// Bytes that it has room for.
    pub free: u64,
    /// The share of requests that it does not fail, 0 to 1.
    pub reliability: f64,
}

/// What is known of a storage node and one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub node: PublicKey,
    /// It has answered lately, or it is too early to say that it has not.
    pub alive: bool,
    pub free: u64,
    pub holding: Holding,
}

/// What is to be held, and who has promised to.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub snapshot: SnapshotId,
    pub bytes: u64,
    /// On so many nodes.
    pub copies: usize,
    /// Those whose acknowledgements are in the log.
    pub acknowledged: &'a [PublicKey],
}

impl Wanted<'_> {
    /// Whether a node is counted on: it lives, and holds it or has promised to.
    fn counts_on(&self, seen: &Seen) -> bool {
        seen.alive && (seen.holding != Holding::Nothing || self.acknowledged.contains(&seen.node))
    }

    /// How many nodes are known to hold it now.
    pub fn held(&self, nodes: &[Seen]) -> usize {
        nodes.iter().filter(|seen| seen.alive && seen.holding == Holding::Whole).count()
    }

    /// Whether `me` should hold it: because it is counted on, or in place of a node that is lost.
    pub fn is_for(&self, me: &PublicKey, nodes: &[Seen]) -> bool {
        if nodes.iter().any(|seen| seen.node == *me && self.counts_on(seen)) {
            return true;
        }
        let missing = self.copies.saturating_sub(nodes.iter().filter(|seen| self.counts_on(seen)).count());
        let able = |seen: &&Seen| seen.alive && !self.counts_on(seen) && seen.free >= self.bytes;
        let mut spare: Vec<&PublicKey> = nodes.iter().filter(able).map(|seen| &seen.node).collect();
        spare.sort_by_key(|node| place(self.snapshot, node));
        spare.iter().take(missing).any(|node| *node == me)
    }

    /// Whether `me` may let go of it: it has promised nothing in the log, and as many others as there are to be hold all
    /// of it. Of several that could, only the last in the order of places does, so that not all go at once.
    pub fn may_release(&self, me: &PublicKey, nodes: &[Seen]) -> bool {
        if self.acknowledged.contains(me) {
            return false;
        }
        let whole = |seen: &&Seen| seen.alive && seen.holding == Holding::Whole;
        let mut extra: Vec<&PublicKey> = nodes.iter().filter(whole).map(|seen| &seen.node).collect();
        let surplus = extra.len() > self.copies;
        extra.retain(|node| !self.acknowledged.contains(node));
        surplus && extra.into_iter().max_by_key(|node| place(self.snapshot, node)) == Some(me)
    }
}

/// Where a node stands in the queue for a snapshot: the lowest come first.
fn place(snapshot: SnapshotId, node: &PublicKey) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(snapshot.as_bytes()).update(node.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Those with room for `bytes`, in the order in which they are to be asked to hold `snapshot`: the more room a node has
/// and the more reliable it is, the more it is given; and no zone comes twice before each has come once.
pub fn order(snapshot: SnapshotId, bytes: u64, candidates: &[Candidate]) -> Vec<PublicKey> {
    let mut able: Vec<(f64, &Candidate)> = candidates
        .iter()
        .filter(|candidate| candidate.free >= bytes)
        .map(|candidate| (score(snapshot, candidate), candidate))
        .collect();
    able.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let mut ordered: Vec<&Candidate> = Vec::with_capacity(able.len());
    while !able.is_empty() {
        let times = |zone: &str| ordered.iter().filter(|candidate| candidate.zone == zone).count();
        // The first of those whose zone has come least often; `able` is in order.
        let least = able.iter().map(|(_, candidate)| times(&candidate.zone)).min().unwrap_or(0);
        let next = able.iter().position(|(_, candidate)| times(&candidate.zone) == least).unwrap_or(0);
        ordered.push(able.remove(next).1);
    }
    ordered.into_iter().map(|candidate| candidate.node).collect()
}

fn score(snapshot: SnapshotId, candidate: &Candidate) -> f64 {
    let mut number = [0; 8];
    number.copy_from_slice(&place(snapshot, &candidate.node)[..8]);
    // Between 0 and 1, and neither: so the logarithm is below 0, and finite.
    let uniform = ((u64::from_be_bytes(number) >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    let room = candidate.free.min(ROOM_ENOUGH) as f64;
    let reliability =
        if candidate.reliability >= LEAST_RELIABLE { candidate.reliability } else { LEAST_RELIABLE };
    -(room * reliability) / uniform.ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::SecretKey;

    fn node(seed: u8) -> PublicKey {
        SecretKey::from_bytes([seed; 32]).public()
    }

    fn snapshot(seed: u16) -> SnapshotId {
        SnapshotId::of(&seed.to_le_bytes())
    }

    fn candidate(seed: u8, zone: &str, free: u64) -> Candidate {
        Candidate { node: node(seed), zone: zone.into(), free, reliability: 1.0 }
    }

    fn seen(seed: u8, alive: bool, holding: Holding) -> Seen {
        Seen { node: node(seed), alive, free: 1 << 40, holding }
    }

    const BYTES: u64 = 1 << 30;

    #[test]
    fn room_and_reliability_decide_how_much_a_node_gets() {
        let mut nodes =
            vec![candidate(1, "", 10 << 30), candidate(2, "", 20 << 30), candidate(3, "", 20 << 30)];
        nodes[2].reliability = 0.5;
        nodes.push(candidate(4, "", BYTES - 1));
        let mut first = [0; 5];
        for seed in 0..2000 {
            let order = order(snapshot(seed), BYTES, &nodes);
            assert_eq!(order.len(), 3, "the fourth has no room");
            first[(1..=4).find(|seed| node(*seed) == order[0]).unwrap() as usize] += 1;
        }
        assert!((400..600).contains(&first[1]) && (400..600).contains(&first[3]), "{first:?}");
        assert!((900..1100).contains(&first[2]), "{first:?}");
    }

    #[test]
    fn each_zone_comes_once_before_one_comes_twice() {
        let nodes: Vec<Candidate> = (0..9)
            .map(|at| candidate(at + 1, ["a", "a", "a", "a", "b", "b", "b", "c", "c"][at as usize], 1 << 40))
            .collect();
        for seed in 0..200 {
            let order = order(snapshot(seed), BYTES, &nodes);
            let zone =
                |key: &PublicKey| nodes.iter().find(|candidate| candidate.node == *key).unwrap().zone.clone();
            let mut zones: Vec<String> = order[..3].iter().map(zone).collect();
            zones.sort();
            assert_eq!(zones, ["a", "b", "c"]);
            assert_eq!(order.len(), 9);
        }
    }

    #[test]
    fn when_a_node_goes_only_what_it_held_moves() {
        let nodes: Vec<Candidate> = (1..=6).map(|seed| candidate(seed, "", 1 << 40)).collect();
        for seed in 0..200 {
            let before = order(snapshot(seed), BYTES, &nodes);
            let gone = before[1];
            let left: Vec<Candidate> =
                nodes.iter().filter(|candidate| candidate.node != gone).cloned().collect();
            let after = order(snapshot(seed), BYTES, &left);
            assert_eq!(after, before.into_iter().filter(|node| *node != gone).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_that_is_lost_is_replaced_by_exactly_one_and_the_replacement_goes_when_it_is_back() {
        use Holding::*;
        let acknowledged = [node(1), node(2), node(3)];
        let wanted = Wanted { snapshot: snapshot(1), bytes: BYTES, copies: 3, acknowledged: &acknowledged };
        let mut nodes: Vec<Seen> = (1..=3).map(|seed| seen(seed, true, Whole)).collect();
        nodes.extend((4..=6).map(|seed| seen(seed, true, Nothing)));
        let takers = |nodes: &[Seen]| -> Vec<u8> {
            (4..=6).filter(|seed| wanted.is_for(&node(*seed), nodes)).collect()
        };
        assert_eq!(takers(&nodes), Vec::<u8>::new());
        nodes[1].alive = false;
        let [taker] = takers(&nodes)[..] else { panic!() };
        assert_eq!(wanted.held(&nodes), 2);
        // While it fetches, and when it has it, nobody else begins.
        for holding in [Coming, Whole] {
            nodes[usize::from(taker) - 1].holding = holding;
            assert_eq!(takers(&nodes), vec![taker]);
            assert!(!wanted.may_release(&node(taker), &nodes));
        }
        nodes[1].alive = true;
        assert_eq!(wanted.held(&nodes), 4);
        assert!(wanted.may_release(&node(taker), &nodes));
        assert!(!wanted.may_release(&node(1), &nodes), "what was promised in the log is kept");
        // Without room nobody takes it, and one that has lost its disk brings it back by itself.
        nodes[1].alive = false;
        nodes.iter_mut().filter(|seen| seen.holding == Nothing).for_each(|seen| seen.free = 1);
        nodes[usize::from(taker) - 1] = Seen { free: 1, ..seen(taker, true, Nothing) };
        assert_eq!(takers(&nodes), Vec::<u8>::new());
        nodes[0].holding = Nothing;
        assert!(wanted.is_for(&node(1), &nodes));
    }

    proptest! {
        #[test]
        fn nobody_lets_go_of_what_is_needed(copies in 1usize..5, states in prop::collection::vec((any::<bool>(), 0u8..3), 1..8), promised in 0usize..4) {
            let nodes: Vec<Seen> = states.iter().enumerate().map(|(at, (alive, holding))| {
                let holding = [Holding::Nothing, Holding::Coming, Holding::Whole][usize::from(*holding)];
                seen(at as u8 + 1, *alive, holding)
            }).collect();
            let acknowledged: Vec<PublicKey> = nodes.iter().take(promised.min(copies)).map(|seen| seen.node).collect();
            let wanted = Wanted { snapshot: snapshot(3), bytes: 1, copies, acknowledged: &acknowledged };
            let releasing: Vec<&Seen> = nodes.iter().filter(|seen| wanted.may_release(&seen.node, &nodes)).collect();
            prop_assert!(releasing.len() <= 1);
            if !releasing.is_empty() {
                prop_assert!(wanted.held(&nodes) > copies);
            }
            // All who should hold it are enough, if there are enough nodes.
            let holders = nodes.iter().filter(|seen| seen.alive && wanted.is_for(&seen.node, &nodes)).count();
            let alive = nodes.iter().filter(|seen| seen.alive).count();
            prop_assert!(holders >= copies.min(alive));
        }
    }
}
