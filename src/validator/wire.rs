//! How consensus messages and write-ahead records are written down.
//!
//! Owns: the encoding of what validators send each other, and of what the write-ahead log keeps.
//! Must not know: who sends what when, or where the bytes go.
//! Invariant: `Message::decode(m.encode()) == m`, and one message has one encoding (`codec`).
//! Trust: `Message::decode` takes bytes from anyone, up to `MAX_MESSAGE_LEN`. What it returns is well formed
//! and nothing more: signatures are checked by whoever acts on it.
//! Threads: pure functions.

use arc_malachitebft_core_consensus::{Input, ProposedValue};
use arc_malachitebft_core_types as bft;
use bft::{
    NilOrVal, PolkaSignature, Round, RoundCertificateType, RoundSignature, SignedMessage, Timeout,
    TimeoutKind, Validity, ValueOrigin, VoteType,
};
use minicbor::{Decode, Encode};

use super::context::{Height, LogContext, Proposal, Vote, VoteSignature, header_of, number};
use super::signing::{SignedProposal, SignedVote};
use crate::codec::{self, CodecError};
use crate::crypto::{PublicKey, Signature};
use crate::id::{Genesis, HeaderId};
use crate::log::{Block, Body, Entry, Header, MAX_BLOCK_LEN};

pub type PolkaCertificate = bft::PolkaCertificate<LogContext>;
pub type RoundCertificate = bft::RoundCertificate<LogContext>;

/// The longest message, in bytes: a block and what is said about it.
pub const MAX_MESSAGE_LEN: usize = MAX_BLOCK_LEN + (64 << 10);

/// A header and the body that its digest is of: a block that nobody has decided yet.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Candidate {
    #[n(0)]
    pub header: Header,
    #[n(1)]
    pub body: Body,
}

/// What one validator tells another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A vote; `again` when its height has not moved for a while and the vote is sent once more.
    Vote { vote: SignedVote, again: bool },
    /// A proposal together with the block proposed.
    Proposal { proposal: SignedProposal, candidate: Box<Candidate> },
    /// Two thirds of the prevotes of a round, for one header.
    Polka(PolkaCertificate),
    /// Why a round was entered.
    Round(RoundCertificate),
    /// An entry that was submitted to the sender.
    Entry(Box<Entry>),
    /// "Send me the block at this height."
    Want { height: u64 },
    /// A decided block, for one who has fallen behind.
    Decided(Box<Block>),
}

#[derive(Encode, Decode)]
struct VoteWire {
    #[n(0)]
    precommit: bool,
    #[n(1)]
    height: u64,
    #[n(2)]
    round: u32,
    #[n(3)]
    id: Option<HeaderId>,
    #[n(4)]
    voter: PublicKey,
    #[n(5)]
    signature: Signature,
}

#[derive(Encode, Decode)]
struct ProposalWire {
    #[n(0)]
    height: u64,
    #[n(1)]
    round: u32,
    #[n(2)]
    id: HeaderId,
    #[n(3)]
    locked: Option<u32>,
    #[n(4)]
    proposer: PublicKey,
    #[n(5)]
    signature: Signature,
}

#[derive(Encode, Decode)]
struct PolkaWire {
    #[n(0)]
    height: u64,
    #[n(1)]
    round: u32,
    #[n(2)]
    id: HeaderId,
    #[n(3)]
    signatures: Vec<(PublicKey, Signature)>,
}

#[derive(Encode, Decode)]
struct RoundWire {
    #[n(0)]
    height: u64,
    #[n(1)]
    round: u32,
    #[n(2)]
    skip: bool,
    #[n(3)]
    signatures: Vec<RoundVoteWire>,
}

#[derive(Encode, Decode)]
struct RoundVoteWire {
    #[n(0)]
    precommit: bool,
    #[n(1)]
    id: Option<HeaderId>,
    #[n(2)]
    voter: PublicKey,
    #[n(3)]
    signature: Signature,
}

#[derive(Encode, Decode)]
enum MessageWire {
    #[n(0)]
    Vote(#[n(0)] VoteWire, #[n(1)] bool),
    #[n(1)]
    Proposal(#[n(0)] ProposalWire, #[n(1)] Candidate),
    #[n(2)]
    Polka(#[n(0)] PolkaWire),
    #[n(3)]
    Round(#[n(0)] RoundWire),
    #[n(4)]
    Entry(#[n(0)] Entry),
    #[n(5)]
    Want(#[n(0)] u64),
    #[n(6)]
    Decided(#[n(0)] Block),
}

fn kind(precommit: bool) -> VoteType {
    if precommit { VoteType::Precommit } else { VoteType::Prevote }
}

fn choice(id: Option<HeaderId>) -> NilOrVal<HeaderId> {
    id.map_or(NilOrVal::Nil, NilOrVal::Val)
}

impl From<&SignedVote> for VoteWire {
    fn from(vote: &SignedVote) -> Self {
        Self {
            precommit: vote.kind == VoteType::Precommit,
            height: vote.height.0,
            round: vote.round,
            id: header_of(&vote.id),
            voter: vote.voter,
            signature: vote.signature.0,
        }
    }
}

impl From<VoteWire> for SignedVote {
    fn from(wire: VoteWire) -> Self {
        let VoteWire { precommit, height, round, id, voter, signature } = wire;
        let vote = Vote { kind: kind(precommit), height: Height(height), round, id: choice(id), voter };
        SignedMessage::new(vote, VoteSignature(signature))
    }
}

impl From<&SignedProposal> for ProposalWire {
    fn from(proposal: &SignedProposal) -> Self {
        let Proposal { height, round, id, locked, proposer } = proposal.message;
        Self { height: height.0, round, id, locked, proposer, signature: proposal.signature.0 }
    }
}

impl From<ProposalWire> for SignedProposal {
    fn from(wire: ProposalWire) -> Self {
        let ProposalWire { height, round, id, locked, proposer, signature } = wire;
        let proposal = Proposal { height: Height(height), round, id, locked, proposer };
        SignedMessage::new(proposal, VoteSignature(signature))
    }
}

impl From<&PolkaCertificate> for PolkaWire {
    fn from(certificate: &PolkaCertificate) -> Self {
        let signatures = &certificate.polka_signatures;
        Self {
            height: certificate.height.0,
            round: number(certificate.round),
            id: certificate.value_id,
            signatures: signatures.iter().map(|s| (s.address, s.signature.0)).collect(),
        }
    }
}

impl From<PolkaWire> for PolkaCertificate {
    fn from(wire: PolkaWire) -> Self {
        let signatures = wire.signatures.into_iter();
        Self {
            height: Height(wire.height),
            round: Round::new(wire.round),
            value_id: wire.id,
            polka_signatures: signatures.map(|(key, s)| PolkaSignature::new(key, VoteSignature(s))).collect(),
        }
    }
}

impl From<&RoundCertificate> for RoundWire {
    fn from(certificate: &RoundCertificate) -> Self {
        let signatures = certificate.round_signatures.iter().map(|s| RoundVoteWire {
            precommit: s.vote_type == VoteType::Precommit,
            id: header_of(&s.value_id),
            voter: s.address,
            signature: s.signature.0,
        });
        Self {
            height: certificate.height.0,
            round: number(certificate.round),
            skip: certificate.cert_type == RoundCertificateType::Skip,
            signatures: signatures.collect(),
        }
    }
}

impl From<RoundWire> for RoundCertificate {
    fn from(wire: RoundWire) -> Self {
        let signatures = wire.signatures.into_iter().map(|s| {
            RoundSignature::new(kind(s.precommit), choice(s.id), s.voter, VoteSignature(s.signature))
        });
        Self {
            height: Height(wire.height),
            round: Round::new(wire.round),
            cert_type: if wire.skip { RoundCertificateType::Skip } else { RoundCertificateType::Precommit },
            round_signatures: signatures.collect(),
        }
    }
}

impl Message {
    /// The canonical encoding.
    pub fn encode(self) -> Vec<u8> {
        codec::encode(&match self {
            Self::Vote { vote, again } => MessageWire::Vote((&vote).into(), again),
            Self::Proposal { proposal, candidate } => MessageWire::Proposal((&proposal).into(), *candidate),
            Self::Polka(certificate) => MessageWire::Polka((&certificate).into()),
            Self::Round(certificate) => MessageWire::Round((&certificate).into()),
            Self::Entry(entry) => MessageWire::Entry(*entry),
            Self::Want { height } => MessageWire::Want(height),
            Self::Decided(block) => MessageWire::Decided(*block),
        })
    }

    /// Reads a message that anybody may have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(match codec::decode("consensus message", bytes, MAX_MESSAGE_LEN)? {
            MessageWire::Vote(vote, again) => Self::Vote { vote: vote.into(), again },
            MessageWire::Proposal(proposal, candidate) => {
                Self::Proposal { proposal: proposal.into(), candidate: Box::new(candidate) }
            }
            MessageWire::Polka(certificate) => Self::Polka(certificate.into()),
            MessageWire::Round(certificate) => Self::Round(certificate.into()),
            MessageWire::Entry(entry) => Self::Entry(Box::new(entry)),
            MessageWire::Want(height) => Self::Want { height },
            MessageWire::Decided(block) => Self::Decided(Box::new(block)),
        })
    }
}

/// One record of the write-ahead log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// The first record of a file: whose votes these are, on which network.
    #[n(0)]
    Owner(#[n(0)] Genesis, #[n(1)] PublicKey),
    /// What follows belongs to this height, at which we vote, or (`false`) must not.
    #[n(1)]
    Height(#[n(0)] u64, #[n(1)] bool),
    /// A block that was proposed and judged.
    #[n(2)]
    Candidate(#[n(0)] Box<Candidate>),
    /// An input of the engine, in its own encoding (`InputWire`).
    #[n(3)]
    Input(#[n(0)] InputRecord),
}

/// An engine input as the write-ahead log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRecord(pub Input<LogContext>);

#[derive(Encode, Decode)]
enum InputWire {
    #[n(0)]
    Vote(#[n(0)] VoteWire),
    #[n(1)]
    Proposal(#[n(0)] ProposalWire),
    #[n(2)]
    Polka(#[n(0)] PolkaWire),
    /// Step (0 propose, 1 prevote, 2 precommit) and round.
    #[n(3)]
    Timeout(#[n(0)] u8, #[n(1)] u32),
    #[n(4)]
    Value(#[n(0)] ValueWire),
}

#[derive(Encode, Decode)]
struct ValueWire {
    #[n(0)]
    height: u64,
    #[n(1)]
    round: u32,
    #[n(2)]
    locked: Option<u32>,
    #[n(3)]
    proposer: PublicKey,
    #[n(4)]
    id: HeaderId,
    #[n(5)]
    valid: bool,
}

impl InputRecord {
    /// `input`, if it is of a kind that the engine wants persisted.
    pub fn of(input: Input<LogContext>) -> Option<Self> {
        InputWire::of(&input).map(|_| Self(input))
    }
}

impl InputWire {
    fn of(input: &Input<LogContext>) -> Option<Self> {
        match input {
            Input::Vote(vote) => Some(Self::Vote(vote.into())),
            Input::Proposal(proposal) => Some(Self::Proposal(proposal.into())),
            Input::PolkaCertificate(certificate) => Some(Self::Polka(certificate.into())),
            Input::TimeoutElapsed(timeout) => {
                let step = match timeout.kind {
                    TimeoutKind::Propose => 0,
                    TimeoutKind::Prevote => 1,
                    TimeoutKind::Precommit => 2,
                    TimeoutKind::Rebroadcast | TimeoutKind::FinalizeHeight(_) => return None,
                };
                Some(Self::Timeout(step, number(timeout.round)))
            }
            Input::ProposedValue(value, _) => Some(Self::Value(ValueWire {
                height: value.height.0,
                round: number(value.round),
                locked: value.valid_round.as_u32(),
                proposer: value.proposer,
                id: value.value,
                valid: value.validity.is_valid(),
            })),
            // Rebuilt by the driver, or taken apart into votes, which are kept.
            Input::StartHeight(..)
            | Input::RoundCertificate(_)
            | Input::Propose(_)
            | Input::SyncValueResponse(_) => None,
        }
    }

    fn into_input(self) -> Option<Input<LogContext>> {
        Some(match self {
            Self::Vote(vote) => Input::Vote(vote.into()),
            Self::Proposal(proposal) => Input::Proposal(proposal.into()),
            Self::Polka(certificate) => Input::PolkaCertificate(certificate.into()),
            Self::Timeout(step, round) => {
                let kind = match step {
                    0 => TimeoutKind::Propose,
                    1 => TimeoutKind::Prevote,
                    2 => TimeoutKind::Precommit,
                    _ => return None,
                };
                Input::TimeoutElapsed(Timeout::new(Round::new(round), kind))
            }
            Self::Value(value) => Input::ProposedValue(
                ProposedValue {
                    height: Height(value.height),
                    round: Round::new(value.round),
                    valid_round: value.locked.map_or(Round::Nil, Round::new),
                    proposer: value.proposer,
                    value: value.id,
                    validity: Validity::from_bool(value.valid),
                },
                ValueOrigin::Consensus,
            ),
        })
    }
}

impl<C> Encode<C> for InputRecord {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match InputWire::of(&self.0) {
            Some(wire) => wire.encode(e, ctx),
            None => Err(minicbor::encode::Error::message("this input is not kept")),
        }
    }
}

impl<'b, C> Decode<'b, C> for InputRecord {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let wire = InputWire::decode(d, ctx)?;
        let unknown = || minicbor::decode::Error::message("no such timeout");
        wire.into_input().map(Self).ok_or_else(unknown)
    }
}
