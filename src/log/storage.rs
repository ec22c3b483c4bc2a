//! Challenges to those who say that they store something, and the score that answers earn.
//!
//! Owns: which chunk is asked for, what the right answer is, who audits, and how a score moves.
//! Must not know: where chunks are, or how questions and answers travel.
//! Invariant: integers only, so that every machine computes the same score; nothing here can be answered without all
//! bytes of the chunk, and no answer serves another prover, seed or chunk.
//! Trust: an answer is foreign until compared with one's own. Threads: pure functions.
//!
//! What this does not prove: that copies are physically apart (one disk may serve two provers), that provers are
//! independent of each other, or that anybody else is served. A prover that fetches the chunk within the epoch
//! passes too. Chunks that several snapshots share count for each.

use minicbor::{Decode, Encode};

use super::digest::{Digest, Of};
use crate::codec;
use crate::crypto::PublicKey;
use crate::id::{ChunkId, HeaderId, ID_LEN, SnapshotId};

/// A score moves by one part in so many towards what the epoch was worth.
const SMOOTHING: u128 = 8;
/// What a mebibyte that is always proven scores in the long run.
pub const SCORE_PER_MIB: u64 = 256;
/// Most mebibytes that one commitment counts, whatever its publisher claimed.
const MAX_WORK_MIB: u64 = 1 << 30;

/// What one commitment is asked: of the snapshot's chunks, the one at a position that nobody knew when committing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    key: [u8; ID_LEN],
}

impl Challenge {
    /// `seed` is the id of the last header of the epoch in which `prover` (the first key of its identity) committed
    /// itself to `snapshot`.
    pub fn new(seed: HeaderId, prover: &PublicKey, snapshot: SnapshotId) -> Self {
        let key = Digest::of(Of::Challenge, &codec::encode(&(seed, prover, snapshot)));
        Self { key: *key.as_bytes() }
    }

    /// Which of the snapshot's `chunks` is asked for, counted from 0 in the order of a walk over its files, each
    /// occurrence on its own. None of no chunks.
    pub fn position(&self, chunks: u64) -> Option<u64> {
        let mut number = [0; 16];
        number.copy_from_slice(&self.key[..16]);
        // 128 bits against 64: no position is preferred by more than one part in 2^64.
        (chunks > 0).then(|| (u128::from_be_bytes(number) % u128::from(chunks)) as u64)
    }

    /// The right answer for the chunk with these bytes: BLAKE3 keyed with the challenge, over all of it. A part of the
    /// chunk, or any hash of it computed beforehand, is of no use.
    pub fn answer(&self, chunk: &[u8]) -> Digest {
        Digest::from_bytes(*blake3::keyed_hash(&self.key, chunk).as_bytes())
    }

    /// Where an auditor stands in the queue for this challenge: the lowest are asked.
    pub fn rank(&self, auditor: &PublicKey) -> Digest {
        Digest::from_bytes(*blake3::keyed_hash(&self.key, auditor.as_bytes()).as_bytes())
    }
}

/// A challenge and the answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Answered {
    /// The epoch of the commitment.
    #[n(0)]
    pub epoch: u64,
    /// The challenge's seed.
    #[n(1)]
    pub seed: HeaderId,
    #[n(2)]
    pub snapshot: SnapshotId,
    /// Bytes of all files, as the snapshot has it: auditors sign it, so that a publisher alone cannot claim more.
    #[n(3)]
    pub bytes: u64,
    #[n(4)]
    pub chunk: ChunkId,
    #[n(5)]
    pub answer: Digest,
}

/// How many of the auditors that a receipt may name are asked, when `needed` must sign: twice as many and one, so that
/// some may be off.
pub fn panel(needed: usize) -> usize {
    needed * 2 + 1
}

/// What a commitment of so many bytes is worth.
pub fn work(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20).min(MAX_WORK_MIB)
}

/// The score after an epoch in which commitments worth `proven` were answered and such worth `missed` were not. A
/// missed one takes as much as a proven one gives.
pub fn score(before: u64, proven: u64, missed: u64) -> u64 {
    let earned = u128::from(proven.saturating_sub(missed)) * u128::from(SCORE_PER_MIB);
    let after = (u128::from(before) * (SMOOTHING - 1) + earned) / SMOOTHING;
    u64::try_from(after).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::SecretKey;

    fn challenge(seed: u8, prover: u8, snapshot: u8) -> Challenge {
        let prover = SecretKey::from_bytes([prover; 32]).public();
        Challenge::new(HeaderId::of(&[seed]), &prover, SnapshotId::of(&[snapshot]))
    }

    #[test]
    fn an_answer_serves_nothing_but_its_own_question() {
        let chunk = vec![7; 70_000];
        let right = challenge(1, 1, 1).answer(&chunk);
        for other in [challenge(2, 1, 1), challenge(1, 2, 1), challenge(1, 1, 2)] {
            assert_ne!(other.answer(&chunk), right);
        }
        assert_ne!(challenge(1, 1, 1).answer(&chunk[1..]), right);
        assert_ne!(right.as_bytes(), ChunkId::of(&chunk).as_bytes());
    }

    /// The published test vector of BLAKE3's keyed mode, so that another program computes the same.
    #[test]
    fn the_answer_is_blake3_keyed() {
        let key = *b"whats the Elvish word for friend";
        let input: Vec<u8> = (0..=250u8).cycle().take(1023).collect();
        let expected = "c951ecdf03288d0fcc96ee3413563d8a6d3589547f2c2fb36d9786470f1b9d6e";
        assert_eq!(Challenge { key }.answer(&input).to_string(), expected);
    }

    #[test]
    fn every_position_is_asked_for_and_none_of_nothing() {
        assert_eq!(challenge(1, 1, 1).position(0), None);
        let seen: std::collections::BTreeSet<u64> =
            (0..200).filter_map(|seed| challenge(seed, 1, 1).position(10)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_score_rises_to_what_is_stored_and_falls_without_it() {
        let steps =
            |start: u64, proven: u64, missed: u64| (0..100).fold(start, |s, _| score(s, proven, missed));
        let full = steps(0, 1_000, 0);
        assert!((1_000 * SCORE_PER_MIB - 8..=1_000 * SCORE_PER_MIB).contains(&full), "{full}");
        assert!(score(full, 1_000, 0).abs_diff(full) <= 1);
        assert!(score(full, 0, 0) < full);
        assert_eq!(steps(full, 500, 500), 0, "half of it missed earns nothing");
        assert_eq!((work(0), work(1), work(1 << 20), work((1 << 20) + 1)), (0, 1, 1, 2));
        assert_eq!(work(u64::MAX), MAX_WORK_MIB);
    }

    proptest! {
        #[test]
        fn a_score_never_overshoots(before: u64, proven: u64, missed: u64) {
            let after = score(before, proven, missed);
            let worth = u128::from(proven.saturating_sub(missed)) * u128::from(SCORE_PER_MIB);
            prop_assert!(u128::from(after) <= u128::from(before).max(worth));
            prop_assert!(u128::from(after) + 1 >= u128::from(before).min(worth) * 7 / 8);
        }

        #[test]
        fn a_position_is_one_of_the_chunks(seed: u8, chunks in 1u64..) {
            prop_assert!(challenge(seed, 1, 1).position(chunks).is_some_and(|at| at < chunks));
        }
    }
}
