//! The document that founds a network; its hash is the network's name and the root of all trust in it.
//!
//! Owns: the document, its parameters and its text of errors. Must not know: anything that came later.
//! Invariant: a document that decodes can found a network: its set is valid and fits its policy.
//! Trust: a document is foreign until its hash equals a `Genesis` that the user named. Threads: pure values.

use minicbor::{Decode, Encode};

use super::digest::{Digest, Of};
use super::names::Label;
use super::validators::ValidatorSet;
use crate::codec::{self, CodecError};
use crate::id::Genesis;

/// Version of the log format that this program reads and writes.
pub const LOG_VERSION: u32 = 1;
/// Longest encoded genesis document, in bytes: a full validator set and room to spare.
pub const MAX_GENESIS_LEN: usize = 128 << 10;
/// How often, by default, a height is decided with nothing in it to prove that the log is fresh.
pub const DEFAULT_HEARTBEAT_MS: u64 = 30_000;

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
    Weight { key: crate::crypto::PublicKey, weight: u64 },
    /// The founder's mistake.
    #[error("a heartbeat of {0} ms is outside 1,000 to 86,400,000")]
    Heartbeat(u64),
    /// The peer answered for another network.
    #[error("this document founds network {found}, not {expected}")]
    Other { expected: Genesis, found: Genesis },
}

/// How validators are weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Policy {
    /// One each.
    #[n(0)]
    Equal,
}

/// What every validator must agree on besides the validators.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Params {
    #[n(0)]
    pub policy: Policy,
    /// Longest time without a height, in milliseconds.
    #[n(1)]
    pub heartbeat_ms: u64,
}

impl Params {
    /// What a header says of these parameters.
    pub fn digest(&self) -> Digest {
        Digest::of(Of::Params, &codec::encode(self))
    }
}

impl Default for Params {
    fn default() -> Self {
        Self { policy: Policy::Equal, heartbeat_ms: DEFAULT_HEARTBEAT_MS }
    }
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
    /// Who votes at height 1.
    #[n(4)]
    pub validators: ValidatorSet,
    #[n(5)]
    pub params: Params,
}

impl GenesisDoc {
    /// A network with the default parameters. `salt` is 16 random bytes.
    pub fn new(label: Label, salt: [u8; 16], time_ms: u64, validators: ValidatorSet) -> Self {
        Self { version: LOG_VERSION, time_ms, label, salt, validators, params: Params::default() }
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
        if !(1_000..=86_400_000).contains(&self.params.heartbeat_ms) {
            return Err(GenesisError::Heartbeat(self.params.heartbeat_ms));
        }
        match self.params.policy {
            Policy::Equal => match self.validators.members().iter().find(|v| v.weight != 1) {
                Some(v) => Err(GenesisError::Weight { key: v.key, weight: v.weight }),
                None => Ok(()),
            },
        }
    }
}
