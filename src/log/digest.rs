//! Hashes that are named only from inside a header, an entry or the state map.
//!
//! Owns: `Digest` and the contexts that keep one use of it from passing for another.
//! Must not know: what is hashed. Invariant and trust: as for the ids in `id`. Threads: pure values.

use std::fmt;

use data_encoding::HEXLOWER_PERMISSIVE;
use minicbor::{Decoder, Encoder, decode, encode};

use crate::id::ID_LEN;

/// 32 bytes of BLAKE3 under a context of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; ID_LEN]);

/// What a `Digest` may be of. The contexts are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Body,
    Certificate,
    Validators,
    Params,
    /// The evidence in a body.
    Evidence,
    /// The key of a storage challenge.
    Challenge,
    /// What a light client has seen of an item.
    Floor,
    /// The key of an item of the state map.
    StateKey,
    /// The value of an item of the state map.
    StateValue,
    StateLeaf,
    StateNode,
}

impl Of {
    const fn context(self) -> &'static str {
        match self {
            Self::Body => "bcai 2026 body v1",
            Self::Certificate => "bcai 2026 certificate v1",
            Self::Validators => "bcai 2026 validators v1",
            Self::Params => "bcai 2026 params v1",
            Self::Evidence => "bcai 2026 evidence v1",
            Self::Challenge => "bcai 2026 challenge v1",
            Self::Floor => "bcai 2026 floor v1",
            Self::StateKey => "bcai 2026 state key v1",
            Self::StateValue => "bcai 2026 state value v1",
            Self::StateLeaf => "bcai 2026 state leaf v1",
            Self::StateNode => "bcai 2026 state node v1",
        }
    }
}

impl Digest {
    /// Stands for "nothing": no previous certificate, no evidence.
    pub const NONE: Self = Self([0; ID_LEN]);

    /// BLAKE3 `derive_key` of `encoded` with the context of `what`.
    pub fn of(what: Of, encoded: &[u8]) -> Self {
        Self(blake3::derive_key(what.context(), encoded))
    }

    /// Takes 32 bytes that are already known to be such a digest.
    pub const fn from_bytes(bytes: [u8; ID_LEN]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; ID_LEN] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", HEXLOWER_PERMISSIVE.encode(&self.0[..5]))
    }
}

impl<C> minicbor::Encode<C> for Digest {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Digest {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let bytes = d.bytes()?.try_into();
        bytes.map(Self).map_err(|_| decode::Error::message("a digest is 32 bytes"))
    }
}
