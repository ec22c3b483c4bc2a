//! Forks: two decided headers of one height, and what they prove against whom.
//!
//! Owns: the evidence that follows from a fork. Must not know: what becomes of it.
//! Invariant: nobody is accused but by two signatures of theirs that no honest voter makes.
//! Trust: `Trusted::advance` makes a fork only of certificates that it has verified. Threads: pure values.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use super::Signed;
use crate::crypto::{PublicKey, Signature};
use crate::log::certificate::VoteKind;
use crate::log::entry::Evidence;

/// Two decided headers of one height: proof that more than a third of the validators' weight broke the rules.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Fork {
    #[n(0)]
    pub trusted: Signed,
    #[n(1)]
    pub offered: Signed,
}

impl Fork {
    /// What can be filed in the log: the two precommits of everybody who signed both in one round. If the rounds differ
    /// there is none: an honest voter may change its mind between rounds when it is shown two thirds of prevotes, and
    /// whoever showed them is not named in a certificate. Then more than a third of the weight is guilty all the same,
    /// and `suspects` is where to look.
    pub fn evidence(&self) -> Vec<Evidence> {
        let (mine, theirs) = (&self.trusted, &self.offered);
        let round = mine.certificate.round;
        if round != theirs.certificate.round {
            return Vec::new();
        }
        let (mine_id, theirs_id) = (Some(mine.header.id()), Some(theirs.header.id()));
        let pair = |(voter, [a, b]): (PublicKey, [Signature; 2])| {
            let votes = [(mine_id, a), (theirs_id, b)];
            Evidence::of_votes(voter, VoteKind::Precommit, mine.header.height, round, votes)
        };
        self.both().into_iter().map(pair).collect()
    }

    /// Who signed both headers, in the order of their keys.
    pub fn suspects(&self) -> Vec<PublicKey> {
        self.both().into_keys().collect()
    }

    fn both(&self) -> BTreeMap<PublicKey, [Signature; 2]> {
        let theirs: BTreeMap<PublicKey, Signature> = signatures(&self.offered).collect();
        let both = signatures(&self.trusted).filter_map(|(key, a)| Some((key, [a, *theirs.get(&key)?])));
        both.collect()
    }
}

fn signatures(signed: &Signed) -> impl Iterator<Item = (PublicKey, Signature)> + '_ {
    let members = signed.validators.members();
    let keys = signed.certificate.signers().filter_map(|at| members.get(at)).map(|v| v.key);
    keys.zip(signed.certificate.signatures.iter().copied())
}
