//! Who votes, and with what weight.
//!
//! Owns: the set, its order and its limits, and the two thresholds of the log.
//! Must not know: where weights come from.
//! Invariant: keys ascend strictly, every weight is at least 1, and the total is below `u64::MAX / 3`, so
//! that three times any weight of the set fits a `u64`.
//! Trust: decoding checks all of it. Threads: pure values; clones share the list.

use std::sync::Arc;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use super::digest::{Digest, Of};
use crate::codec;
use crate::crypto::PublicKey;

/// Most validators in one set. A certificate of all of them stays below 70 KiB.
pub const MAX_VALIDATORS: usize = 1024;

/// A set that cannot be: the operator's mistake in a genesis document, or a peer's junk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidatorSetError {
    #[error("a network needs at least one validator")]
    Empty,
    #[error("{0} validators are more than the limit of {MAX_VALIDATORS}")]
    TooMany(usize),
    #[error("validator {0} is listed twice")]
    Duplicate(PublicKey),
    #[error("validator {0} has no weight")]
    NoWeight(PublicKey),
    #[error("the total weight reaches the limit of {}", u64::MAX / 3)]
    TooHeavy,
}

/// One voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Validator {
    #[n(0)]
    pub key: PublicKey,
    /// How much its vote counts.
    #[n(1)]
    pub weight: u64,
}

/// The validators of one height, sorted by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorSet {
    members: Arc<[Validator]>,
    total: u64,
}

impl ValidatorSet {
    /// Sorts and checks `members`.
    pub fn new(mut members: Vec<Validator>) -> Result<Self, ValidatorSetError> {
        if members.is_empty() {
            return Err(ValidatorSetError::Empty);
        }
        if members.len() > MAX_VALIDATORS {
            return Err(ValidatorSetError::TooMany(members.len()));
        }
        members.sort_by_key(|v| v.key);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].key == pair[1].key) {
            return Err(ValidatorSetError::Duplicate(pair[0].key));
        }
        if let Some(idle) = members.iter().find(|v| v.weight == 0) {
            return Err(ValidatorSetError::NoWeight(idle.key));
        }
        let total = members.iter().try_fold(0u64, |sum, v| sum.checked_add(v.weight));
        match total {
            Some(total) if total < u64::MAX / 3 => Ok(Self { members: members.into(), total }),
            _ => Err(ValidatorSetError::TooHeavy),
        }
    }

    /// In ascending order of keys; a certificate's bitmap counts in this order.
    pub fn members(&self) -> &[Validator] {
        &self.members
    }

    /// Sum of all weights.
    pub fn total_weight(&self) -> u64 {
        self.total
    }

    /// Position of `key` in `members`.
    pub fn position(&self, key: &PublicKey) -> Option<usize> {
        self.members.binary_search_by_key(key, |v| v.key).ok()
    }

    /// The member with this key.
    pub fn get(&self, key: &PublicKey) -> Option<&Validator> {
        self.position(key).map(|at| &self.members[at])
    }

    /// Whether `weight` is a quorum: more than two thirds of the total.
    pub fn is_quorum(&self, weight: u64) -> bool {
        weight <= self.total && weight * 3 > self.total * 2
    }

    /// Whether `weight` holds at least one honest vote: more than one third of the total.
    pub fn is_honest(&self, weight: u64) -> bool {
        weight <= self.total && weight * 3 > self.total
    }

    /// What a header says of this set.
    pub fn digest(&self) -> Digest {
        Digest::of(Of::Validators, &codec::encode(self))
    }
}

impl<C> Encode<C> for ValidatorSet {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), encode::Error<W::Error>> {
        self.members.encode(e, c)
    }
}

impl<'b, C> Decode<'b, C> for ValidatorSet {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
        // Unsorted input is sorted here and then refused by the canonical check of `codec::decode`.
        Self::new(Vec::decode(d, c)?).map_err(decode::Error::message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SecretKey;

    fn member(seed: u8, weight: u64) -> Validator {
        Validator { key: SecretKey::from_bytes([seed; 32]).public(), weight }
    }

    #[test]
    fn sets_are_sorted_and_bounded() {
        let set = ValidatorSet::new((1..=5).map(|seed| member(seed, 1)).collect()).unwrap();
        assert!(set.members().is_sorted_by_key(|v| v.key));
        for (at, v) in set.members().iter().enumerate() {
            assert_eq!(set.position(&v.key), Some(at));
        }
        assert_eq!(ValidatorSet::new(vec![]), Err(ValidatorSetError::Empty));
        let twice = member(1, 1).key;
        assert_eq!(
            ValidatorSet::new(vec![member(1, 1), member(1, 2)]),
            Err(ValidatorSetError::Duplicate(twice))
        );
        assert_eq!(ValidatorSet::new(vec![member(1, 0)]), Err(ValidatorSetError::NoWeight(twice)));
        assert_eq!(
            ValidatorSet::new(vec![member(1, 1); MAX_VALIDATORS + 1]),
            Err(ValidatorSetError::TooMany(MAX_VALIDATORS + 1))
        );
    }

    #[test]
    fn thresholds_do_not_overflow_at_the_limit() {
        let limit = u64::MAX / 3;
        assert_eq!(ValidatorSet::new(vec![member(1, limit)]), Err(ValidatorSetError::TooHeavy));
        assert_eq!(
            ValidatorSet::new(vec![member(1, u64::MAX), member(2, 2)]),
            Err(ValidatorSetError::TooHeavy)
        );
        let set = ValidatorSet::new(vec![member(1, limit - 2), member(2, 1)]).unwrap();
        assert!(set.is_quorum(set.total_weight()));
        assert!(!set.is_quorum(set.total_weight() / 3 * 2));
        assert!(!set.is_honest(set.total_weight() / 3));
    }

    #[test]
    fn a_quorum_is_more_than_two_thirds() {
        let set = ValidatorSet::new((1..=3).map(|seed| member(seed, 1)).collect()).unwrap();
        assert_eq!([1, 2, 3].map(|w| set.is_quorum(w)), [false, false, true]);
        assert_eq!([0, 1, 2].map(|w| set.is_honest(w)), [false, false, true]);
        let four = ValidatorSet::new((1..=4).map(|seed| member(seed, 1)).collect()).unwrap();
        assert_eq!([2, 3, 4].map(|w| four.is_quorum(w)), [false, true, true]);
    }

    #[test]
    fn an_unsorted_list_is_not_canonical() {
        let set = ValidatorSet::new(vec![member(1, 1), member(2, 1)]).unwrap();
        let mut members = set.members().to_vec();
        assert_eq!(codec::decode::<ValidatorSet>("validators", &codec::encode(&members), 1000), Ok(set));
        members.reverse();
        assert!(codec::decode::<ValidatorSet>("validators", &codec::encode(&members), 1000).is_err());
    }
}
