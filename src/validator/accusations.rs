//! Equivocation that the engine has met, on its way into the log.
//!
//! Owns: one piece of evidence for each voter who contradicted itself and is not in jail yet, and the entry that files it.
//! Must not know: how the entry is decided.
//! Invariant: nobody is accused who is in jail already, and of each voter one piece of evidence is filed, which is all that
//! the log can use. It is filed anew as long as the log does not have it.
//! Trust: the engine hands over votes and proposals whose signatures it has had checked; the ledger checks them again.
//! Threads: the driver's. A crash forgets what was not decided; the height in progress is replayed with its evidence.

use std::collections::BTreeMap;

use arc_malachitebft_core_consensus::MisbehaviorEvidence;
use arc_malachitebft_core_types::VoteType;

use super::context::{LogContext, header_of};
use super::signing::{SignedProposal, SignedVote, Signer};
use crate::crypto::PublicKey;
use crate::log::{Entry, EntryBody, Evidence, Ledger, VoteKind};

/// Who is accused of what. No more than there are validators, because the engine knows no others.
#[derive(Default)]
pub struct Accusations(BTreeMap<PublicKey, Evidence>);

impl Accusations {
    /// Takes what the engine has collected.
    pub fn collect(&mut self, found: MisbehaviorEvidence<LogContext>) {
        let votes =
            found.votes.iter().flat_map(|(voter, pairs)| pairs.iter().map(|pair| (*voter, of_votes(pair))));
        let proposals = found
            .proposals
            .iter()
            .flat_map(|(voter, pairs)| pairs.iter().map(|pair| (*voter, of_proposals(pair))));
        // One header proposed twice in a round, as locked and as not, is wrong but no offence that the log knows.
        for (voter, evidence) in votes.chain(proposals).filter(|(_, evidence)| evidence.is_contradiction()) {
            self.0.entry(voter).or_insert_with(|| {
                tracing::error!(voter = %voter.short(), height = evidence.height, "a validator contradicted itself");
                evidence
            });
        }
    }

    /// The entries that file what the log does not have yet, the same ones as long as it stays so.
    pub fn entries(&mut self, ledger: &Ledger, signer: &Signer) -> Vec<Entry> {
        self.0.retain(|voter, _| ledger.voter(voter).is_some_and(|voter| voter.jailed.is_none()));
        // The lowest numbers there are, so that no entry of this machine's user comes too late by them.
        let numbers = ledger.nonce(&signer.public()) + 1..;
        let bodies = self.0.values().map(|evidence| EntryBody::Evidence(evidence.clone()));
        numbers.zip(bodies).map(|(nonce, body)| signer.entry(nonce, body)).collect()
    }
}

fn of_votes((a, b): &(SignedVote, SignedVote)) -> Evidence {
    let kind = match a.kind {
        VoteType::Prevote => VoteKind::Prevote,
        VoteType::Precommit => VoteKind::Precommit,
    };
    let said = |vote: &SignedVote| (header_of(&vote.id), vote.signature.0);
    Evidence::of_votes(a.voter, kind, a.height.0, a.round, [said(a), said(b)])
}

fn of_proposals((a, b): &(SignedProposal, SignedProposal)) -> Evidence {
    let said = |proposal: &SignedProposal| (proposal.id, proposal.locked, proposal.signature.0);
    Evidence::of_proposals(a.proposer, a.height.0, a.round, [said(a), said(b)])
}
