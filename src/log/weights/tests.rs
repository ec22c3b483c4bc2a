//! Tests of the weights: what each policy gives, and that no input breaks the cap, the sum or the step.

use proptest::prelude::*;

use super::*;
use crate::crypto::SecretKey;

/// Sorted keys, so that candidates are.
fn keys(count: usize) -> Vec<PublicKey> {
    let key =
        |n: usize| SecretKey::from_bytes([(n % 251) as u8 + 1; 32].map(|b| b ^ (n / 251) as u8)).public();
    let mut keys: Vec<PublicKey> = (0..count).map(key).collect();
    keys.sort();
    keys
}

fn candidates(stakes_and_scores: &[(u128, u64)]) -> Vec<Candidate> {
    let keys = keys(stakes_and_scores.len());
    keys.into_iter()
        .zip(stakes_and_scores)
        .map(|(operator, &(stake, score))| Candidate { operator, stake, score })
        .collect()
}

fn weights(policy: Policy, of: &[(u128, u64)], seats: usize) -> Vec<u64> {
    target(policy, &candidates(of), seats).into_iter().map(|share| share.1).collect()
}

/// Within the little that everybody weighs at least, and rounding.
fn close(found: &[u64], expected: &[u64]) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 20)
}

#[test]
fn each_policy_weighs_by_its_own_measure() {
    let of = [(10, 400), (20, 300), (30, 200), (40, 100), (40, 0)];
    let equal = weights(Policy::Equal, &of, 9);
    assert_eq!(equal, vec![WHOLE / 5; 5]);
    let delegated = weights(Policy::Delegated, &of, 9);
    assert!(close(&delegated, &[10, 20, 30, 40, 40].map(|s| s * WHOLE / 140)), "{delegated:?}");
    // Four tenths of the score are over the cap. What is over goes to the others as 3 : 2 : 1 : 0, which lifts the next
    // over it too; then as 2 : 1 : 0.
    let work = weights(Policy::UsefulWork, &of, 9);
    let rest = WHOLE - 2 * CAP;
    assert!(close(&work, &[CAP, CAP, rest / 3 * 2, rest / 3, 1]), "{work:?}");
    let hybrid = weights(Policy::Hybrid, &of, 9);
    assert!(close(&hybrid, &[4, 6, 6, 4, 0].map(|s| s * WHOLE / 20)), "{hybrid:?}");
}

#[test]
fn the_seats_go_to_those_with_most() {
    let of = [(10, 0), (20, 0), (30, 0), (40, 0), (20, 0), (35, 0)];
    let seated = target(Policy::Delegated, &candidates(&of), 4);
    let keys = keys(6);
    // Of the two with 20 the lower key.
    let expected = vec![keys[1], keys[2], keys[3], keys[5]];
    assert_eq!(seated.iter().map(|share| share.0).collect::<Vec<_>>(), expected);
}

#[test]
fn the_first_with_a_score_does_not_decide_alone() {
    let lone = weights(Policy::UsefulWork, &[(0, 9), (0, 0), (0, 0), (0, 0)], 9);
    assert_eq!(lone[0], CAP);
    assert!(lone[1..].iter().all(|w| w.abs_diff((WHOLE - CAP) / 3) <= 1), "{lone:?}");
    assert_eq!(weights(Policy::Hybrid, &[(0, 0); 8], 9), vec![WHOLE / 8; 8]);
}

#[test]
fn fewer_than_four_weigh_the_same() {
    assert_eq!(weights(Policy::Delegated, &[(1, 0)], 9), vec![WHOLE]);
    assert_eq!(weights(Policy::Delegated, &[(1, 0), (99, 0)], 9), vec![WHOLE / 2; 2]);
    let third = WHOLE / 3;
    assert_eq!(weights(Policy::Delegated, &[(1, 0), (99, 0), (5, 0)], 9), vec![third + 1, third, third]);
    assert_eq!(weights(Policy::Delegated, &[(1, 0), (99, 0), (5, 0)], 1), vec![WHOLE]);
    assert_eq!(target(Policy::Equal, &[], 9), vec![]);
}

#[test]
fn a_newcomer_arrives_a_tenth_at_a_time() {
    let keys = keys(2);
    let (mut now, goal) = (vec![(keys[0], WHOLE)], vec![(keys[0], WHOLE / 2), (keys[1], WHOLE / 2)]);
    let mut seen = Vec::new();
    while now != goal {
        now = step(&now, &goal);
        seen.push(now[1].1);
    }
    assert_eq!(seen, [1, 2, 3, 4, 5].map(|tenth| tenth * MAX_STEP));
}

#[test]
fn who_leaves_is_gone_in_the_end() {
    let keys = keys(5);
    let before: Vec<Share> = keys.iter().map(|key| (*key, WHOLE / 5)).collect();
    let goal: Vec<Share> = keys[1..].iter().map(|key| (*key, WHOLE / 4)).collect();
    let half_way = step(&before, &goal);
    assert_eq!(half_way[0], (keys[0], WHOLE / 10));
    assert_eq!(step(&half_way, &goal), goal);
}

fn distribution() -> impl Strategy<Value = Vec<Share>> {
    let worths = proptest::collection::vec((0u128..1 << 40, 0u64..1 << 20), 4..40);
    let policy = prop_oneof![
        Just(Policy::Equal),
        Just(Policy::Delegated),
        Just(Policy::UsefulWork),
        Just(Policy::Hybrid)
    ];
    (worths, policy, 4usize..50).prop_map(|(of, policy, seats)| target(policy, &candidates(&of), seats))
}

fn moved(before: &[Share], after: &[Share]) -> u64 {
    let held = |key| before.iter().find(|share| share.0 == key).map_or(0, |share| share.1);
    after.iter().map(|(key, weight)| weight.saturating_sub(held(*key))).sum()
}

proptest! {
    #[test]
    fn the_sum_is_whole_and_nobody_has_a_third(of in proptest::collection::vec((any::<u128>(), any::<u64>()), 4..80)) {
        for policy in [Policy::Equal, Policy::Delegated, Policy::UsefulWork, Policy::Hybrid] {
            let weights = weights(policy, &of, 1024);
            prop_assert_eq!(weights.iter().sum::<u64>(), WHOLE);
            prop_assert!(weights.iter().all(|w| *w >= 1 && w * 3 < WHOLE), "{:?}", weights);
        }
    }

    #[test]
    fn more_stake_never_weighs_less(of in proptest::collection::vec((0u128..1 << 60, Just(1)), 4..30)) {
        let weights = weights(Policy::Delegated, &of, 1024);
        for (a, x) in of.iter().zip(&weights) {
            for (b, y) in of.iter().zip(&weights) {
                prop_assert!(a.0 <= b.0 || x + 1 >= *y, "{a:?} {x} {b:?} {y}");
            }
        }
    }

    #[test]
    fn a_step_moves_a_tenth_at_most_and_arrives(before in distribution(), goal in distribution()) {
        let mut now = before;
        for _ in 0..11 {
            let next = step(&now, &goal);
            prop_assert_eq!(next.iter().map(|share| share.1).sum::<u64>(), WHOLE);
            prop_assert!(moved(&now, &next) <= MAX_STEP);
            prop_assert!(next.is_sorted_by_key(|share| share.0));
            prop_assert!(next.iter().all(|share| share.1 >= 1 && share.1 * 3 < WHOLE));
            now = next;
        }
        prop_assert_eq!(now, goal);
    }

    #[test]
    fn scaling_keeps_proportions(of in proptest::collection::vec(1u64..1 << 50, 1..60)) {
        let shares: Vec<Share> = keys(of.len()).into_iter().zip(of.iter().copied()).collect();
        let scaled = normalised(&shares);
        prop_assert_eq!(scaled.iter().map(|share| share.1).sum::<u64>(), WHOLE);
        // What has its proportions already is kept to the unit.
        if of.iter().all(|weight| *weight == of[0]) {
            prop_assert_eq!(scaled.iter().map(|share| share.1).collect::<Vec<_>>(), equal(of.len()));
        }
    }
}
