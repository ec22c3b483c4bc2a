//! Entries about who decides: validators, stake, and the proof that one of them signed two things.
//!
//! Owns: their fields, and what a voting key signs to agree. Must not know: who may write them, or what they weigh.
//! Invariant: evidence names its two statements in ascending order, so that one offence has one spelling.
//! Trust: foreign until executed. Threads: pure.

use minicbor::{Decode, Encode};

use super::tagged;
use crate::crypto::{Claim, PublicKey, SecretKey, Signature};
use crate::id::{Genesis, HeaderId};
use crate::log::certificate::{VoteKind, proposal_bytes, vote_bytes};

/// Precedes what a voting key signs to vote for an operator.
const VOTER_TAG: &[u8; 16] = b"bcai voter v1\0\0\0";

/// What becomes of an operator's place among the validators.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ValidatorChange {
    /// The author becomes an operator who votes with `voter`, or votes with another key than before.
    #[n(0)]
    Join {
        #[n(0)]
        voter: PublicKey,
        /// By `voter`: nobody can seat a key that is not theirs.
        #[n(1)]
        consent: Signature,
    },
    /// The author stops being an operator.
    #[n(1)]
    Leave,
    /// An admin lifts the jail of an operator, who may then join again, with another voting key.
    #[n(2)]
    Release {
        #[n(0)]
        operator: PublicKey,
    },
}

impl ValidatorChange {
    /// `operator` joins, voting with the key that is given.
    pub fn join(voter: &SecretKey, genesis: Genesis, operator: &PublicKey) -> Self {
        let key = voter.public();
        Self::Join { voter: key, consent: voter.sign(&Self::message(genesis, operator, &key)) }
    }

    /// What a voting key signs.
    pub fn message(genesis: Genesis, operator: &PublicKey, voter: &PublicKey) -> Vec<u8> {
        tagged(VOTER_TAG, &(genesis, operator, voter))
    }
}

/// Says that `holder` has `amount` of stake, whatever it was before. Stake is what the admins vouch for; the log has no
/// coin.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Stake {
    #[n(0)]
    pub holder: PublicKey,
    #[n(1)]
    pub amount: u64,
}

/// Puts all stake of the author behind operator `to`; behind the author where that is the same.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Delegate {
    #[n(0)]
    pub to: PublicKey,
}

/// Two statements of one voter of which an honest one makes only one: proof of equivocation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Evidence {
    #[n(0)]
    pub voter: PublicKey,
    #[n(1)]
    pub height: u64,
    #[n(2)]
    pub round: u32,
    #[n(3)]
    pub offence: Offence,
}

/// What was signed twice.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Offence {
    /// Two votes of one kind for different headers, or for one and for none.
    #[n(0)]
    Votes {
        #[n(0)]
        kind: VoteKind,
        #[n(1)]
        first: (Option<HeaderId>, Signature),
        #[n(2)]
        second: (Option<HeaderId>, Signature),
    },
    /// Two proposals of different headers, each with the round in which the proposer was locked on it.
    #[n(1)]
    Proposals {
        #[n(0)]
        first: (HeaderId, Option<u32>, Signature),
        #[n(1)]
        second: (HeaderId, Option<u32>, Signature),
    },
}

impl Evidence {
    /// Of two votes, in either order.
    pub fn of_votes(
        voter: PublicKey,
        kind: VoteKind,
        height: u64,
        round: u32,
        votes: [(Option<HeaderId>, Signature); 2],
    ) -> Self {
        let [a, b] = votes;
        let (first, second) = if a.0 <= b.0 { (a, b) } else { (b, a) };
        Self { voter, height, round, offence: Offence::Votes { kind, first, second } }
    }

    /// Of two proposals, in either order.
    pub fn of_proposals(
        voter: PublicKey,
        height: u64,
        round: u32,
        proposals: [(HeaderId, Option<u32>, Signature); 2],
    ) -> Self {
        let [a, b] = proposals;
        let (first, second) = if a.0 <= b.0 { (a, b) } else { (b, a) };
        Self { voter, height, round, offence: Offence::Proposals { first, second } }
    }

    /// Whether the two statements exclude each other and stand in their order.
    pub fn is_contradiction(&self) -> bool {
        match &self.offence {
            Offence::Votes { first, second, .. } => first.0 < second.0,
            Offence::Proposals { first, second } => first.0 < second.0,
        }
    }

    /// What must be genuine for the evidence to count.
    pub fn claims(&self, genesis: Genesis) -> [Claim; 2] {
        let (height, round) = (self.height, self.round);
        let claim = |(message, signature): (Vec<u8>, Signature)| Claim {
            key: self.voter,
            message: message.into(),
            signature,
        };
        let vote = |kind, header, signature| (vote_bytes(genesis, kind, height, round, header), signature);
        let proposal =
            |header, locked, signature| (proposal_bytes(genesis, height, round, locked, header), signature);
        let both = match &self.offence {
            Offence::Votes { kind, first, second } => {
                [vote(*kind, first.0, first.1), vote(*kind, second.0, second.1)]
            }
            Offence::Proposals { first, second } => {
                [proposal(first.0, first.1, first.2), proposal(second.0, second.1, second.2)]
            }
        };
        both.map(claim)
    }
}
