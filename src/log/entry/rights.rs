//! Entries about who may do what: grants, roles, and an author's change of key.
//!
//! Owns: their fields and what a new key signs to agree. Must not know: who may write them.
//! Invariant: a key enters a role of its own only with its own signature. Trust: foreign until executed. Threads: pure.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::tagged;
use crate::crypto::{PublicKey, SecretKey, Signature};
use crate::id::Genesis;
use crate::log::names::Name;
use crate::log::roles::RoleSet;

/// Longest wrapped key of a grant, in bytes.
pub const MAX_WRAP_LEN: usize = 1 << 10;
/// Precedes what a new key signs to take over from an old one.
const ROTATE_TAG: &[u8; 16] = b"bcai rotate v1\0\0";

/// Gives `to` these roles, and no others, with dataset `name`; none takes back what was given.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Grant {
    #[n(0)]
    pub name: Name,
    #[n(1)]
    pub to: PublicKey,
    /// Reader, publisher, storage or admin: the last may grant further.
    #[n(2)]
    pub roles: RoleSet,
    /// The dataset's key, wrapped for `to`; opaque to the log.
    #[n(3)]
    pub wrap: Option<ByteVec>,
}

/// Gives `to` these roles, and no others, in the whole network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RoleChange {
    #[n(0)]
    pub to: PublicKey,
    #[n(1)]
    pub roles: RoleSet,
}

/// Puts `to` in the author's place: its names, roles, stake and seat are from now on the new key's to use, and the
/// old key can write nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Rotate {
    #[n(0)]
    pub to: PublicKey,
    /// By `to`, so that nobody is made the heir of what they do not want, or of a key that nobody holds.
    #[n(1)]
    pub consent: Signature,
}

impl Rotate {
    /// The rotation from `from` to the holder of `key`.
    pub fn to(key: &SecretKey, genesis: Genesis, from: &PublicKey) -> Self {
        let to = key.public();
        Self { to, consent: key.sign(&Self::message(genesis, from, &to)) }
    }

    /// What the new key signs.
    pub fn message(genesis: Genesis, from: &PublicKey, to: &PublicKey) -> Vec<u8> {
        tagged(ROTATE_TAG, &(genesis, from, to))
    }
}
