//! The engine's every wish, granted: signatures, timers, the write-ahead log, messages, decisions.
//!
//! Owns: all state of the driver that effects touch, and the exhaustive match over them.
//! Must not know: where inputs come from.
//! Invariant: an effect changes only this struct. Messages and decisions are collected here, and the driver lets them
//! out after the write-ahead log has been flushed; so nothing signed leaves, no round is entered as
//! seen from outside, and no decision is acted on before its reasons are on disk, at one flush a turn.
//! Trust: what the engine asks to verify is foreign, and is verified. Threads: the driver's; nothing here blocks.

use std::collections::{HashMap, HashSet};

use arc_malachitebft_core_consensus as engine;
use arc_malachitebft_core_types as bft;
use bft::{CertificateError, CommitCertificate, ThresholdParams};
use engine::{
    ConsensusMsg, Effect, Input, LivenessMsg, Resumable, Resume, SignedConsensusMsg, VoteExtensionError,
};

use super::accusations::Accusations;
use super::context::{Height, LogContext, number};
use super::signing::{self, Signer};
use super::timers::Timers;
use super::wal::Wal;
use super::wire::{Candidate, InputRecord, Message, Record};
use super::{Now, ValidatorError};
use crate::codec;
use crate::crypto::PublicKey;
use crate::id::{Genesis, HeaderId};

/// What effects act on.
pub struct Shell {
    pub genesis: Genesis,
    pub signer: Signer,
    pub timers: Timers,
    pub wal: Wal,
    pub height: Height,
    /// Whether we vote at this height. If not, nothing is signed and nothing needs to be recorded.
    pub voting: bool,
    /// The blocks that were proposed at this height and execute.
    pub candidates: HashMap<HeaderId, Candidate>,
    /// Encoded inputs that the write-ahead log already holds; not empty only while it is replayed.
    pub replayed: HashSet<Vec<u8>>,
    /// What may leave after the next flush.
    pub outbox: Vec<(Option<PublicKey>, Message)>,
    /// The round for which the engine waits for our proposal.
    pub wanted: Option<u32>,
    /// Who contradicted itself.
    pub accusations: Accusations,
    /// What was decided, to be acted on after the next flush.
    pub decided: Option<CommitCertificate<LogContext>>,
    /// Why an effect could not be granted. The engine only learns that it was not.
    pub fault: Option<ValidatorError>,
}

type Granted = Result<Resume<LogContext>, ValidatorError>;

impl Shell {
    /// Grants `effect`. After an error the engine's state is not to be used again.
    pub fn grant(&mut self, effect: Effect<LogContext>, now: Now) -> Result<Resume<LogContext>, ()> {
        self.answer(effect, now).map_err(|error| self.fault = Some(error))
    }

    fn answer(&mut self, effect: Effect<LogContext>, now: Now) -> Granted {
        match effect {
            Effect::CancelAllTimeouts(_) => self.timers.clear(),
            Effect::CancelTimeout(timeout, _) => self.timers.cancel(timeout),
            Effect::ScheduleTimeout(timeout, _) => self.timers.arm(timeout, now.instant),
            Effect::StartRound(height, round, proposer, role, _) => {
                tracing::debug!(%height, %round, proposer = %proposer.short(), ?role, "round begins");
                self.wanted = None;
            }
            Effect::GetValue(_, round, _, _) => self.wanted = Some(number(round)),
            Effect::PublishConsensusMsg(message, _) => self.publish(message)?,
            Effect::PublishLivenessMsg(message, _) => self.send(match message {
                LivenessMsg::Vote(vote) => Message::Vote { vote, again: false },
                LivenessMsg::PolkaCertificate(certificate) => Message::Polka(certificate),
                LivenessMsg::SkipRoundCertificate(certificate) => Message::Round(certificate),
            }),
            Effect::RepublishVote(vote, _) => self.send(Message::Vote { vote, again: true }),
            Effect::RepublishRoundCertificate(certificate, _) => self.send(Message::Round(certificate)),
            // A proposal always travels with its block, and the engine sends the proposal right after this.
            Effect::RestreamProposal(_, _, _, _, _, _) => {}
            Effect::Decide(certificate, _, _) => self.decided = Some(certificate),
            Effect::Finalize(_, _, evidence, _) => self.accusations.collect(evidence),
            Effect::WalAppend(height, input, _) => self.record(height, input)?,
            Effect::SignVote(vote, r) => return Ok(r.resume_with(self.signer.vote(vote)?)),
            Effect::SignProposal(proposal, r) => return Ok(r.resume_with(self.signer.proposal(proposal)?)),
            Effect::VerifySignature(message, key, r) => {
                let bytes = match &message.message {
                    ConsensusMsg::Vote(vote) => vote.signed_bytes(self.genesis),
                    ConsensusMsg::Proposal(proposal) => proposal.signed_bytes(self.genesis),
                };
                return Ok(r.resume_with(key.verify(&bytes, &message.signature.0).is_ok()));
            }
            Effect::VerifyCommitCertificate(certificate, set, thresholds, r) => {
                let verdict = signing::check_commit(self.genesis, &certificate, &set, thresholds);
                return Ok(r.resume_with(verdict.map_err(|error| *error)));
            }
            Effect::VerifyExtendedCommitCertificate(certificate, set, thresholds, _, r) => {
                let verdict = self.check_extended(&certificate, &set, thresholds);
                return Ok(r.resume_with(verdict.map_err(|error| *error)));
            }
            Effect::VerifyPolkaCertificate(certificate, set, thresholds, r) => {
                let verdict = signing::check_polka(self.genesis, &certificate, &set, thresholds);
                return Ok(r.resume_with(verdict.map_err(|error| *error)));
            }
            Effect::VerifyRoundCertificate(certificate, set, thresholds, r) => {
                let verdict = signing::check_round(self.genesis, &certificate, &set, thresholds);
                return Ok(r.resume_with(verdict.map_err(|error| *error)));
            }
            // Extensions are disabled at every height: there is none to give, and one that is brought is wrong.
            Effect::ExtendVote(_, _, _, _, r) => return Ok(r.resume_with(None)),
            Effect::VerifyVoteExtension(_, _, _, _, _, _, r) => {
                return Ok(r.resume_with(Err(VoteExtensionError::InvalidVoteExtension)));
            }
            // Answers to an input that the driver never gives: blocks decided by others go to the log directly.
            Effect::CertVerifiedSyncValue(_, _, _) | Effect::CertRejectedSyncValue(_, _, _, _) => {
                return Err(ValidatorError::Engine(
                    "the engine answered a question it was not asked".to_owned(),
                ));
            }
        }
        Ok(Resume::Continue)
    }

    fn check_extended(
        &self,
        certificate: &bft::ExtendedCommitCertificate<LogContext>,
        set: &crate::log::ValidatorSet,
        thresholds: ThresholdParams,
    ) -> signing::Verdict {
        if let Some(extended) = certificate.commit_signatures.iter().find(|s| s.extension.is_some()) {
            return Err(CertificateError::UnexpectedVoteExtension(extended.address).into());
        }
        signing::check_commit(self.genesis, &certificate.trim_vote_extensions(), set, thresholds)
    }

    /// Lets a message to all the others out with the next flush.
    pub fn send(&mut self, message: Message) {
        self.outbox.push((None, message));
    }

    fn publish(&mut self, message: SignedConsensusMsg<LogContext>) -> Result<(), ValidatorError> {
        match message {
            SignedConsensusMsg::Vote(vote) => self.send(Message::Vote { vote, again: false }),
            SignedConsensusMsg::Proposal(proposal) => {
                let candidate = self.candidates.get(&proposal.id).cloned().ok_or_else(|| {
                    ValidatorError::Engine(format!("proposed header {} whose block is not here", proposal.id))
                })?;
                self.send(Message::Proposal { proposal, candidate: Box::new(candidate) });
            }
        }
        Ok(())
    }

    fn record(&mut self, height: Height, input: Input<LogContext>) -> Result<(), ValidatorError> {
        if height != self.height || !self.voting {
            return Ok(());
        }
        let unknown = || ValidatorError::Engine("asked to keep an input of an unknown kind".to_owned());
        let record = InputRecord::of(input).ok_or_else(unknown)?;
        if self.replayed.is_empty() || !self.replayed.contains(&codec::encode(&record)) {
            self.wal.append(Record::Input(record));
        }
        Ok(())
    }
}
