//! The document that founds a network; its hash is the network's name and the root of all trust in it.
//!
//! Owns: the document and its rules. Must not know: anything that came later.
//! Invariant: a document that decodes can found a network: its set is valid and fits its policy.
//! Trust: a document is foreign until its hash equals a `Genesis` that the user named. Threads: pure values.

use minicbor::{Decode, Encode};

use super::names::Label;
use super::params::{Params, ParamsError, Policy};
use super::validators::ValidatorSet;
use super::weights::MAX_STAKE;
use crate::codec::{self, CodecError};
use crate::crypto::PublicKey;
use crate::id::Genesis;

/// Version of the log format that this program reads and writes.
pub const LOG_VERSION: u32 = 1;
/// Longest encoded genesis document, in bytes: a full validator set and room to spare.
pub const MAX_GENESIS_LEN: usize = 128 << 10;
/// Most admins that a document can name.
pub const MAX_ADMINS: usize = 64;

/// Why a genesis document was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Corrupt, or the peer's junk.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// From the future: upgrade.
    #[error(
        "the network's log has format {found}; this version of bcai reads format {LOG_VERSION}: upgrade bcai"
    )]
    Version { found: u32 },
    /// The founder's mistake.
    #[error("with equal weights every validator weighs 1, but {key} weighs {weight}")]
    Weight { key: PublicKey, weight: u64 },
    /// The founder's mistake.
    #[error("a validator begins with a stake of at most {MAX_STAKE}, but {key} weighs {weight}")]
    Stake { key: PublicKey, weight: u64 },
    /// The founder's mistake.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The founder's mistake.
    #[error(
        "a network is founded with 1 to {MAX_ADMINS} admins, each named once, in the order of their keys"
    )]
    Admins,
    /// The peer answered for another network.
    #[error("this document founds network {found}, not {expected}")]
    Other { expected: Genesis, found: Genesis },
}

/// What a network begins with.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GenesisDoc {
    /// `LOG_VERSION`.
    #[n(0)]
    pub version: u32,
    /// When it was founded, in milliseconds since 1970. No header is older.
    #[n(1)]
    pub time_ms: u64,
    /// What people call the network.
    #[n(2)]
    pub label: Label,
    /// Random, so that two networks founded alike are not the same network.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub salt: [u8; 16],
    /// Who votes at height 1. Each member is its own operator, and its weight is its first stake.
    #[n(4)]
    pub validators: ValidatorSet,
    #[n(5)]
    pub params: Params,
    /// Who has the role admin at the beginning, in ascending order. An admin decides who may join, and is thus trusted
    /// with more than its weight.
    #[n(6)]
    pub admins: Vec<PublicKey>,
}

impl GenesisDoc {
    /// A network with the default parameters, whose first validators are its admins, as many as can be. `salt` is 16
    /// random bytes.
    pub fn new(label: Label, salt: [u8; 16], time_ms: u64, validators: ValidatorSet) -> Self {
        let admins = validators.members().iter().map(|v| v.key).take(MAX_ADMINS).collect();
        Self { version: LOG_VERSION, time_ms, label, salt, validators, params: Params::default(), admins }
    }

    /// The network's name.
    pub fn id(&self) -> Genesis {
        Genesis::of(&self.encode())
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes and checks a document from anywhere.
    pub fn decode(bytes: &[u8]) -> Result<Self, GenesisError> {
        let doc: Self = codec::decode("a genesis document", bytes, MAX_GENESIS_LEN)?;
        doc.check()?;
        Ok(doc)
    }

    /// Decodes the document of network `expected`, from anywhere.
    pub fn decode_as(bytes: &[u8], expected: Genesis) -> Result<Self, GenesisError> {
        let found = Genesis::of(bytes);
        if found != expected {
            return Err(GenesisError::Other { expected, found });
        }
        Self::decode(bytes)
    }

    /// Checks what the types alone do not.
    pub fn check(&self) -> Result<(), GenesisError> {
        if self.version != LOG_VERSION {
            return Err(GenesisError::Version { found: self.version });
        }
        self.params.check()?;
        let sorted = self.admins.windows(2).all(|pair| pair[0] < pair[1]);
        if !sorted || !(1..=MAX_ADMINS).contains(&self.admins.len()) {
            return Err(GenesisError::Admins);
        }
        match self.params.policy {
            Policy::Equal => match self.validators.members().iter().find(|v| v.weight != 1) {
                Some(v) => Err(GenesisError::Weight { key: v.key, weight: v.weight }),
                None => Ok(()),
            },
            // Weights are first stakes, and what the policy makes of them comes with the first epochs.
            Policy::Delegated | Policy::UsefulWork | Policy::Hybrid => {
                match self.validators.members().iter().find(|v| v.weight > MAX_STAKE) {
                    Some(v) => Err(GenesisError::Stake { key: v.key, weight: v.weight }),
                    None => Ok(()),
                }
            }
        }
    }
}
