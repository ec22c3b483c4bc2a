//! Signs our votes and proposals, never two that contradict each other, and checks everybody else's.
//!
//! Owns: the validator's secret key, and what has been signed at the height in progress.
//! Must not know: why anything is voted for.
//! Invariant: within a height, at most one id is ever signed per round and kind of message. The engine keeps
//! that rule too; here it holds even if the engine, or the replay of its log, is wrong.
//! Trust: every check takes foreign votes and certificates and answers only "counts" or "does not".
//! Threads: called from the driver's; no interior state is shared.

use std::collections::HashMap;

use arc_malachitebft_core_types as bft;
use bft::{
    CertificateError, CommitCertificate, Context, NilOrVal, PolkaCertificate, RoundCertificate,
    RoundCertificateType, SignedMessage, ThresholdParam, ThresholdParams, VoteType,
};

use super::context::{Height, LogContext, Proposal, Vote, VoteSignature, header_of};
use crate::crypto::{Claim, PublicKey, SecretKey, verify_batch};
use crate::id::{Genesis, HeaderId};
use crate::log::{Entry, EntryBody, ValidatorSet};

pub type SignedVote = bft::SignedVote<LogContext>;
pub type SignedProposal = bft::SignedProposal<LogContext>;

/// What kind of message a signature was given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    Propose,
    Prevote,
    Precommit,
}

impl From<VoteType> for Step {
    fn from(kind: VoteType) -> Self {
        match kind {
            VoteType::Prevote => Self::Prevote,
            VoteType::Precommit => Self::Precommit,
        }
    }
}

/// A second, contradicting signature was asked for. A defect, never the user's mistake: the validator stops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused to sign a second {step:?} at height {height}, round {round}")]
pub struct DoubleSign {
    pub step: Step,
    pub height: u64,
    pub round: u32,
}

/// The secret key with its memory of what it has signed.
pub struct Signer {
    key: SecretKey,
    genesis: Genesis,
    height: Height,
    given: HashMap<(Step, u32), Option<HeaderId>>,
}

impl Signer {
    /// Signs for the network `genesis`, beginning at `height`.
    pub fn new(key: SecretKey, genesis: Genesis, height: Height) -> Self {
        Self { key, genesis, height, given: HashMap::new() }
    }

    /// Forgets what was signed at the last height.
    pub fn begin(&mut self, height: Height) {
        self.height = height;
        self.given.clear();
    }

    /// Whether a proposal has been signed for `round` of this height.
    pub fn proposed(&self, round: u32) -> bool {
        self.given.contains_key(&(Step::Propose, round))
    }

    /// Takes note of what an earlier run signed, as the write-ahead log has it.
    pub fn remember(&mut self, step: Step, round: u32, id: Option<HeaderId>) {
        self.given.entry((step, round)).or_insert(id);
    }

    fn allow(
        &mut self,
        step: Step,
        height: Height,
        round: u32,
        id: Option<HeaderId>,
    ) -> Result<(), DoubleSign> {
        let given = self.given.entry((step, round)).or_insert(id);
        if height == self.height && *given == id {
            Ok(())
        } else {
            Err(DoubleSign { step, height: height.0, round })
        }
    }

    /// Signs `vote`, unless another one was signed in its place.
    pub fn vote(&mut self, vote: Vote) -> Result<SignedVote, DoubleSign> {
        self.allow(vote.kind.into(), vote.height, vote.round, header_of(&vote.id))?;
        let signature = self.key.sign(&vote.signed_bytes(self.genesis));
        Ok(SignedMessage::new(vote, VoteSignature(signature)))
    }

    /// Whose signatures these are.
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Writes an entry of the log in this validator's name.
    pub fn entry(&self, nonce: u64, body: EntryBody) -> Entry {
        Entry::sign(&self.key, self.genesis, nonce, body)
    }

    /// Signs `proposal`, unless another one was signed in its place.
    pub fn proposal(&mut self, proposal: Proposal) -> Result<SignedProposal, DoubleSign> {
        self.allow(Step::Propose, proposal.height, proposal.round, Some(proposal.id))?;
        let signature = self.key.sign(&proposal.signed_bytes(self.genesis));
        Ok(SignedMessage::new(proposal, VoteSignature(signature)))
    }
}

/// Whether `vote` was signed by the one it names.
pub fn vote_counts(genesis: Genesis, vote: &SignedVote) -> bool {
    vote.voter.verify(&vote.signed_bytes(genesis), &vote.signature.0).is_ok()
}

/// Whether `proposal` was signed by the one it names.
pub fn proposal_counts(genesis: Genesis, proposal: &SignedProposal) -> bool {
    proposal.proposer.verify(&proposal.signed_bytes(genesis), &proposal.signature.0).is_ok()
}

/// What is wrong with a certificate, if anything; in a box because the engine's error is large.
pub type Verdict = Result<(), Box<CertificateError<LogContext>>>;

/// Checks that `votes` are by distinct members, signed, and together weigh more than `threshold` asks.
fn check_votes(
    genesis: Genesis,
    set: &ValidatorSet,
    votes: &[SignedVote],
    threshold: ThresholdParam,
) -> Verdict {
    let mut seen: Vec<PublicKey> = Vec::with_capacity(votes.len().min(set.members().len()));
    let mut signed = 0u64;
    for vote in votes {
        let member =
            set.get(&vote.voter).ok_or_else(|| Box::new(CertificateError::UnknownValidator(vote.voter)))?;
        if seen.contains(&vote.voter) {
            return Err(CertificateError::DuplicateVote(vote.voter).into());
        }
        seen.push(vote.voter);
        // Distinct members: the sum is at most the total, which the set has bounded.
        signed += member.weight;
    }
    let total = set.total_weight();
    if !threshold.is_met(signed, total) {
        let expected = threshold.min_expected(total);
        return Err(CertificateError::NotEnoughVotingPower { signed, total, expected }.into());
    }
    let claims: Vec<Claim> = votes
        .iter()
        .map(|vote| Claim {
            key: vote.voter,
            message: vote.signed_bytes(genesis).into(),
            signature: vote.signature.0,
        })
        .collect();
    verify_batch(&claims).map_err(|error| {
        CertificateError::VerificationError(Some(bft::BoxError::new(Box::new(error)))).into()
    })
}

/// Checks that two thirds have precommitted what `certificate` says.
pub fn check_commit(
    genesis: Genesis,
    certificate: &CommitCertificate<LogContext>,
    set: &ValidatorSet,
    thresholds: ThresholdParams,
) -> Verdict {
    let votes: Vec<SignedVote> = certificate
        .commit_signatures
        .iter()
        .map(|signature| {
            let id = NilOrVal::Val(certificate.value_id);
            let vote = LogContext.new_precommit(certificate.height, certificate.round, id, signature.address);
            SignedMessage::new(vote, signature.signature)
        })
        .collect();
    check_votes(genesis, set, &votes, thresholds.quorum)
}

/// Checks that two thirds have prevoted what `certificate` says.
pub fn check_polka(
    genesis: Genesis,
    certificate: &PolkaCertificate<LogContext>,
    set: &ValidatorSet,
    thresholds: ThresholdParams,
) -> Verdict {
    let votes: Vec<SignedVote> = certificate.votes(&LogContext).collect();
    check_votes(genesis, set, &votes, thresholds.quorum)
}

/// Checks that enough have voted in a round to follow them there (one third) or to leave it behind (two
/// thirds, precommits only).
pub fn check_round(
    genesis: Genesis,
    certificate: &RoundCertificate<LogContext>,
    set: &ValidatorSet,
    thresholds: ThresholdParams,
) -> Verdict {
    let votes: Vec<SignedVote> = certificate.votes(&LogContext).collect();
    match certificate.cert_type {
        RoundCertificateType::Skip => check_votes(genesis, set, &votes, thresholds.honest),
        RoundCertificateType::Precommit => {
            if let Some(vote) = votes.iter().find(|vote| vote.kind == VoteType::Prevote) {
                return Err(CertificateError::InvalidVoteType(vote.voter).into());
            }
            check_votes(genesis, set, &votes, thresholds.quorum)
        }
    }
}
