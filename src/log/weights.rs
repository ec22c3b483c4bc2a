//! What a vote weighs: the four policies, the cap, and how far weights may move in an epoch.
//!
//! Owns: the arithmetic from stake and score to weights. Must not know: where stake and score come from, or epochs.
//! Invariant: weights of one distribution add up to `WHOLE`; from four operators on, none holds a third; a step moves
//! no more than a tenth. Integers only: every machine computes the same.
//! Trust: inputs are what the ledger has checked. Threads: pure functions.
//!
//! An operator who may vote weighs at least a little under every policy: where all stakes or scores are
//! zero, all weigh the same, and where a single one has any, the cap gives what is over to the others. Otherwise the
//! first to earn a score would decide alone. With fewer than four operators somebody must hold a third; then all weigh
//! the same, which is the least that the largest can hold.

use crate::crypto::PublicKey;
use crate::log::params::Policy;

/// The sum of all weights of a distribution.
pub const WHOLE: u64 = 1_000_000_000;
/// Most that one operator weighs, from four on: less than a third, also after every rounding.
pub const CAP: u64 = WHOLE / 3 - 4096;
/// Most weight that moves from one epoch to the next.
pub const MAX_STEP: u64 = WHOLE / 10;
/// Most stake of one holder.
pub const MAX_STAKE: u64 = 1 << 50;

/// An operator who may vote, and what its weight may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub operator: PublicKey,
    /// Own and delegated.
    pub stake: u128,
    pub score: u64,
}

/// Somebody's weight.
pub type Share = (PublicKey, u64);

/// What `candidates`, which are sorted by operator, should weigh under `policy`, if at most `seats` of them vote. Empty
/// only when there is no candidate.
pub fn target(policy: Policy, candidates: &[Candidate], seats: usize) -> Vec<Share> {
    let worth = |c: &Candidate| match policy {
        Policy::Equal => 0,
        Policy::Delegated => c.stake,
        Policy::UsefulWork => u128::from(c.score),
        Policy::Hybrid => c.stake.saturating_mul(u128::from(c.score)),
    };
    let mut ranked: Vec<(PublicKey, u128)> = candidates.iter().map(|c| (c.operator, worth(c))).collect();
    // The sort is stable: among equals the lower key comes first.
    ranked.sort_by_key(|candidate| std::cmp::Reverse(candidate.1));
    ranked.truncate(seats);
    ranked.sort_by_key(|(operator, _)| *operator);
    let (operators, worths): (Vec<_>, Vec<_>) = ranked.into_iter().unzip();
    let weights = if operators.len() < 4 { equal(operators.len()) } else { capped(&worths) };
    operators.into_iter().zip(weights).collect()
}

/// `weights` scaled so that they add up to `WHOLE`, each at least 1.
pub fn normalised(weights: &[Share]) -> Vec<Share> {
    let raw: Vec<u128> = weights.iter().map(|(_, weight)| u128::from(*weight)).collect();
    weights.iter().map(|(key, _)| *key).zip(apportion(&raw, WHOLE)).collect()
}

/// The distribution that is `target`, or as far on the way from `before` as may be. Both add up to `WHOLE` and are
/// sorted; whoever ends at nothing is left out.
pub fn step(before: &[Share], target: &[Share]) -> Vec<Share> {
    let of = |shares: &[Share], key| {
        shares.binary_search_by_key(&key, |share: &Share| share.0).map_or(0, |at| shares[at].1)
    };
    let mut keys: Vec<PublicKey> = before.iter().chain(target).map(|share| share.0).collect();
    keys.sort();
    keys.dedup();
    let ends: Vec<(u64, u64)> = keys.iter().map(|key| (of(before, *key), of(target, *key))).collect();
    let distance: u64 = ends.iter().map(|(from, to)| to.saturating_sub(*from)).sum();
    if distance <= MAX_STEP {
        return target.to_vec();
    }
    let part = |of: u64| (u128::from(of) * u128::from(MAX_STEP) / u128::from(distance)) as u64;
    let mut after: Vec<u64> = ends
        .iter()
        .map(|(from, to)| if to >= from { from + part(to - from) } else { from - part(from - to) })
        .collect();
    // Rounding down makes gains and losses differ by less than one for each who gains or loses. Whoever moves at all
    // has not arrived, hence has room for one more.
    let total: u64 = after.iter().sum();
    let moving = ends.iter().zip(&mut after);
    if total < WHOLE {
        let gaining = moving.filter(|((from, to), _)| to > from);
        gaining.take((WHOLE - total) as usize).for_each(|(_, weight)| *weight += 1);
    } else {
        let losing = moving.filter(|((from, to), _)| to < from);
        losing.take((total - WHOLE) as usize).for_each(|(_, weight)| *weight -= 1);
    }
    keys.into_iter().zip(after).filter(|(_, weight)| *weight > 0).collect()
}

fn equal(count: usize) -> Vec<u64> {
    apportion(&vec![1; count], WHOLE)
}

/// Shares of `WHOLE` in proportion to `worths`, of which there are four or more, with nobody above the cap: what is over
/// goes to those below it, in proportion again.
fn capped(worths: &[u128]) -> Vec<u64> {
    let mut shares = apportion(worths, WHOLE);
    let mut full = vec![false; shares.len()];
    loop {
        let over: Vec<usize> = (0..shares.len()).filter(|at| !full[*at] && shares[*at] > CAP).collect();
        if over.is_empty() {
            return shares;
        }
        for at in over {
            (full[at], shares[at]) = (true, CAP);
        }
        // At most three can be full, since three caps are less than the whole and a fourth share is at least 1.
        let below: Vec<usize> = (0..shares.len()).filter(|at| !full[*at]).collect();
        let rest = WHOLE - CAP * (shares.len() - below.len()) as u64;
        let open: Vec<u128> = below.iter().map(|at| worths[*at]).collect();
        for (at, share) in below.iter().zip(apportion(&open, rest)) {
            shares[*at] = share;
        }
    }
}

/// Parts `whole` in proportion to `worths`, each part at least 1; what rounding leaves goes one each to the first.
/// `whole` is at least three times their number.
fn apportion(worths: &[u128], whole: u64) -> Vec<u64> {
    let count = worths.len() as u128;
    // Each below 2^86, so that 1,024 of them times `whole` fit.
    let largest = worths.iter().max().map_or(0, |worth| u128::BITS - worth.leading_zeros());
    let shift = largest.saturating_sub(86);
    let scaled: Vec<u128> = worths.iter().map(|worth| worth >> shift).collect();
    let total: u128 = scaled.iter().sum();
    let free = u128::from(whole) - count;
    let part = |worth: &u128| match total {
        0 => free / count,
        _ => worth * free / total,
    };
    let mut parts: Vec<u64> = scaled.iter().map(|worth| 1 + part(worth) as u64).collect();
    let rest = whole - parts.iter().sum::<u64>();
    parts.iter_mut().take(rest as usize).for_each(|part| *part += 1);
    parts
}

#[cfg(test)]
mod tests;
