//! What the consensus engine reasons about, in the manifest log's own types.
//!
//! Owns: the engine's type family: height, vote, proposal, validator set, and the bytes that are signed.
//! Must not know: how any of it is stored, sent or timed.
//! Invariant: a precommit signs exactly `log::vote_bytes`, so that the precommits of a decision are, unchanged,
//! the signatures of the block's certificate. A value is a header id: the body travels beside the proposal
//! and is judged by us, never by the engine.
//! Trust: these are plain values; a vote or proposal counts for nothing until `signing` has checked it.
//! Threads: pure values.

use std::fmt;

use arc_malachitebft_core_types as bft;
use bft::{NilOrVal, Round, SignedExtension, VoteType};

use crate::crypto::{CryptoError, KEY_LEN, PublicKey, SIGNATURE_LEN, SecretKey, Signature};
use crate::id::{Genesis, HeaderId};
use crate::log::{self, Validator, ValidatorSet, VoteKind};

/// The type family itself.
#[derive(Debug, Clone, Copy)]
pub struct LogContext;

/// A number of blocks since genesis; the first block has height 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Height(pub u64);

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl bft::Height for Height {
    const ZERO: Self = Self(0);
    const INITIAL: Self = Self(1);

    fn increment_by(&self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Self)
    }

    fn as_u64(&self) -> u64 {
        self.0
    }
}

// A validator's address is its key: there is nothing to look up and nothing to collide.
impl bft::Address for PublicKey {}

impl bft::Value for HeaderId {
    type Id = HeaderId;

    fn id(&self) -> HeaderId {
        *self
    }
}

impl bft::Validator<LogContext> for Validator {
    fn address(&self) -> &PublicKey {
        &self.key
    }

    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    fn voting_power(&self) -> u64 {
        self.weight
    }
}

// `log::ValidatorSet` is sorted by key, bounded in weight below a third of `u64` (the engine multiplies weights by
// three), and cheap to clone: all that the engine needs.
impl bft::ValidatorSet<LogContext> for ValidatorSet {
    fn count(&self) -> usize {
        self.members().len()
    }

    fn total_voting_power(&self) -> u64 {
        self.total_weight()
    }

    fn get_by_address(&self, address: &PublicKey) -> Option<&Validator> {
        self.get(address)
    }

    fn get_by_index(&self, index: usize) -> Option<&Validator> {
        self.members().get(index)
    }
}

/// Who proposes in `round` of `height`: each in turn, so that a silent proposer costs one round.
pub fn proposer(set: &ValidatorSet, height: Height, round: u32) -> &Validator {
    let members = set.members();
    let turn = height.0.wrapping_add(u64::from(round)) % members.len() as u64;
    &members[turn as usize]
}

/// A prevote or precommit for a header, or for none in this round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    pub kind: VoteType,
    pub height: Height,
    pub round: u32,
    pub id: NilOrVal<HeaderId>,
    pub voter: PublicKey,
}

impl Vote {
    /// What its signature covers.
    pub fn signed_bytes(&self, genesis: Genesis) -> Vec<u8> {
        let kind = match self.kind {
            VoteType::Prevote => VoteKind::Prevote,
            VoteType::Precommit => VoteKind::Precommit,
        };
        log::vote_bytes(genesis, kind, self.height.0, self.round, header_of(&self.id))
    }
}

impl bft::Vote<LogContext> for Vote {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        Round::new(self.round)
    }

    fn value(&self) -> &NilOrVal<HeaderId> {
        &self.id
    }

    fn take_value(self) -> NilOrVal<HeaderId> {
        self.id
    }

    fn vote_type(&self) -> VoteType {
        self.kind
    }

    fn validator_address(&self) -> &PublicKey {
        &self.voter
    }

    // Vote extensions are disabled at every height, so a vote never has one.
    fn extension(&self) -> Option<&SignedExtension<LogContext>> {
        None
    }

    fn take_extension(&mut self) -> Option<SignedExtension<LogContext>> {
        None
    }

    fn extend(self, _: SignedExtension<LogContext>) -> Self {
        self
    }
}

/// The header voted for, if any.
pub fn header_of(id: &NilOrVal<HeaderId>) -> Option<HeaderId> {
    match id {
        NilOrVal::Nil => None,
        NilOrVal::Val(id) => Some(*id),
    }
}

/// A proposer's word that this header is its candidate for the round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    pub height: Height,
    pub round: u32,
    pub id: HeaderId,
    /// The earlier round in which this header already had two thirds of the prevotes, if any.
    pub locked: Option<u32>,
    pub proposer: PublicKey,
}

impl Proposal {
    /// What its signature covers.
    pub fn signed_bytes(&self, genesis: Genesis) -> Vec<u8> {
        log::proposal_bytes(genesis, self.height.0, self.round, self.locked, self.id)
    }
}

impl bft::Proposal<LogContext> for Proposal {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        Round::new(self.round)
    }

    fn value(&self) -> &HeaderId {
        &self.id
    }

    fn take_value(self) -> HeaderId {
        self.id
    }

    fn pol_round(&self) -> Round {
        self.locked.map_or(Round::Nil, Round::new)
    }

    fn validator_address(&self) -> &PublicKey {
        &self.proposer
    }
}

/// The engine's notion of a streamed piece. Bodies travel whole, beside their proposal, so none is ever made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {}

impl bft::ProposalPart<LogContext> for Part {
    fn is_first(&self) -> bool {
        match *self {}
    }

    fn is_last(&self) -> bool {
        match *self {}
    }
}

/// A signature in the order that the engine asks for: by its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoteSignature(pub Signature);

impl Ord for VoteSignature {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_bytes().cmp(other.0.as_bytes())
    }
}

impl PartialOrd for VoteSignature {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Ed25519, as in `crypto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ed25519;

/// Bytes of the wrong length, or not a point of the curve.
#[derive(Debug, thiserror::Error)]
pub enum DecodingError {
    #[error("{0} bytes cannot be a signature or key")]
    Length(usize),
    #[error(transparent)]
    Key(#[from] CryptoError),
}

impl bft::SigningScheme for Ed25519 {
    type DecodingError = DecodingError;
    type Signature = VoteSignature;
    type PublicKey = PublicKey;
    type PrivateKey = SecretKey;

    fn decode_signature(bytes: &[u8]) -> Result<VoteSignature, DecodingError> {
        let bytes: [u8; SIGNATURE_LEN] = bytes.try_into().map_err(|_| DecodingError::Length(bytes.len()))?;
        Ok(VoteSignature(Signature::from_bytes(bytes)))
    }

    fn encode_signature(signature: &VoteSignature) -> Vec<u8> {
        signature.0.as_bytes().to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, DecodingError> {
        let bytes: &[u8; KEY_LEN] = bytes.try_into().map_err(|_| DecodingError::Length(bytes.len()))?;
        Ok(PublicKey::from_bytes(bytes)?)
    }

    fn encode_public_key(key: &PublicKey) -> Vec<u8> {
        key.as_bytes().to_vec()
    }
}

/// The number of a round that exists. The engine counts from -1, "not begun", which no message carries.
pub fn number(round: Round) -> u32 {
    round.as_u32().unwrap_or_default()
}

impl bft::Context for LogContext {
    type Address = PublicKey;
    type Height = Height;
    type ProposalPart = Part;
    type Proposal = Proposal;
    type Validator = Validator;
    type ValidatorSet = ValidatorSet;
    type Timeouts = bft::LinearTimeouts;
    type Value = HeaderId;
    type Vote = Vote;
    type Extension = ();
    type SigningScheme = Ed25519;

    fn select_proposer<'a>(&self, set: &'a ValidatorSet, height: Height, round: Round) -> &'a Validator {
        proposer(set, height, number(round))
    }

    fn new_proposal(
        &self,
        height: Height,
        round: Round,
        id: HeaderId,
        locked: Round,
        proposer: PublicKey,
    ) -> Proposal {
        Proposal { height, round: number(round), id, locked: locked.as_u32(), proposer }
    }

    fn new_prevote(&self, height: Height, round: Round, id: NilOrVal<HeaderId>, voter: PublicKey) -> Vote {
        Vote { kind: VoteType::Prevote, height, round: number(round), id, voter }
    }

    fn new_precommit(&self, height: Height, round: Round, id: NilOrVal<HeaderId>, voter: PublicKey) -> Vote {
        Vote { kind: VoteType::Precommit, height, round: number(round), id, voter }
    }
}
