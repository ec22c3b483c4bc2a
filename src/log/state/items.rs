//! The items that the state root covers: their keys, values and encodings.
//!
//! Owns: what is kept of each subject. Must not know: how it came to be.
//! Invariant: the number of every kind is part of the format. Trust: a foreign item is believed only with a `StateProof`.
//! Threads: pure values.

use std::collections::BTreeMap;
use std::sync::Arc;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::codec;
use crate::crypto::PublicKey;
use crate::id::{EntryId, HeaderId, ID_LEN, SnapshotId};
use crate::log::digest::{Digest, Of};
use crate::log::names::{LATEST, Label, Name, Reason};
use crate::log::params::Params;
use crate::log::refusal::Refusal;
use crate::log::roles::{Role, RoleSet};

/// Where and when something was decided, and by which entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Stamp {
    /// 0 for what the genesis document says.
    #[n(0)]
    pub height: u64,
    /// The header's time, in milliseconds since 1970.
    #[n(1)]
    pub time_ms: u64,
    /// Zeros for what the genesis document says.
    #[n(2)]
    pub entry: EntryId,
}

impl Stamp {
    /// Of what the genesis document says.
    pub(super) fn genesis(time_ms: u64) -> Self {
        Self { height: 0, time_ms, entry: EntryId::from_bytes([0; ID_LEN]) }
    }
}

/// One published version.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Version {
    #[n(0)]
    pub label: Label,
    #[n(1)]
    pub snapshot: SnapshotId,
    /// Bytes of all files, as claimed by the publisher.
    #[n(2)]
    pub bytes: u64,
    /// Files, directories and symbolic links, as claimed by the publisher.
    #[n(3)]
    pub inodes: u64,
    #[n(4)]
    pub parent: Option<Label>,
    #[n(5)]
    pub author: PublicKey,
    #[n(6)]
    pub published: Stamp,
    #[n(7)]
    pub yanked: Option<Yanked>,
}

/// That, why and when a version was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Yanked {
    #[n(0)]
    pub reason: Reason,
    #[n(1)]
    pub stamp: Stamp,
}

/// Where a tag points.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Target {
    #[n(0)]
    pub version: Label,
    #[n(1)]
    pub stamp: Stamp,
}

/// What somebody was given with one dataset.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Granted {
    #[n(0)]
    pub roles: RoleSet,
    /// The dataset's key, wrapped for them.
    #[n(1)]
    pub wrap: Option<ByteVec>,
    #[n(2)]
    pub stamp: Stamp,
}

/// What somebody was given in the whole network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Roles {
    #[n(0)]
    pub roles: RoleSet,
    #[n(1)]
    pub stamp: Stamp,
}

/// A key that took part in a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// The first key of the same author. All that belongs to the author is recorded under it.
    #[n(0)]
    pub first: PublicKey,
    /// The key that took this one's place; none for the one in use.
    #[n(1)]
    pub successor: Option<PublicKey>,
    #[n(2)]
    pub stamp: Stamp,
}

/// Who may take a seat among the validators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Operator {
    /// The key that votes for it.
    #[n(0)]
    pub voter: PublicKey,
    #[n(1)]
    pub standing: Standing,
    #[n(2)]
    pub stamp: Stamp,
}

/// Whether an operator is seated when its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Standing {
    #[n(0)]
    Active,
    /// By its own wish, or after it was released from jail.
    #[n(1)]
    Left,
    /// One of its voting keys signed two things of which it may sign one.
    #[n(2)]
    Jailed,
}

/// A key that has voted or may vote. It belongs to one operator for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Voter {
    #[n(0)]
    pub operator: PublicKey,
    /// When evidence against this key was decided. It can never vote again.
    #[n(1)]
    pub jailed: Option<Stamp>,
}

/// Somebody's stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Holder {
    #[n(0)]
    pub amount: u64,
    /// The operator that it counts for: at first the holder.
    #[n(1)]
    pub behind: PublicKey,
    #[n(2)]
    pub stamp: Stamp,
}

/// A named history of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    pub name: Name,
    /// Who first published it, by the first key of their identity.
    pub owner: PublicKey,
    /// Oldest first.
    pub versions: Vec<Arc<Version>>,
    pub tags: BTreeMap<Label, Target>,
    /// By the first key of each identity.
    pub grants: Arc<BTreeMap<PublicKey, Granted>>,
}

impl Dataset {
    /// The newest version that is not withdrawn.
    pub fn latest(&self) -> Option<&Version> {
        self.versions.iter().rev().find(|v| v.yanked.is_none()).map(|v| &**v)
    }

    /// The version with exactly this label.
    pub fn version(&self, label: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.label.as_str() == label).map(|v| &**v)
    }

    /// What a reference's part after `@` means: nothing or `latest`, a version, or a tag. No label is both of the last.
    pub fn resolve(&self, label: Option<&str>) -> Result<&Version, Refusal> {
        let Some(label) = label.filter(|label| *label != LATEST) else {
            return self.latest().ok_or_else(|| Refusal::AllYanked { name: self.name.clone() });
        };
        let target = self.tags.get(label).map_or(label, |target| target.version.as_str());
        self.version(target).ok_or_else(|| self.no_version(label))
    }

    /// Whether the identity with this first key has `role` here, as owner or by a grant.
    pub fn allows(&self, first: &PublicKey, role: Role) -> bool {
        self.owner == *first || self.grants.get(first).is_some_and(|grant| grant.roles.allows(role))
    }

    pub(super) fn no_version(&self, label: &str) -> Refusal {
        Refusal::NoVersion {
            name: self.name.clone(),
            label: label.chars().take(80).collect(),
            latest: self.latest().map_or("none".to_owned(), |v| v.label.to_string()),
        }
    }
}

/// Names an item that the state root covers. The key of the state map is the digest of its encoding. Keys of people are
/// the first of their identity, where not said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum StateKey {
    /// A dataset; its value is an `Item::Name`, and so on down.
    #[n(0)]
    Name(#[n(0)] Name),
    #[n(1)]
    Version(#[n(0)] Name, #[n(1)] Label),
    #[n(2)]
    Tag(#[n(0)] Name, #[n(1)] Label),
    /// How far an author's key, of whatever place in its identity, has counted.
    #[n(3)]
    Nonce(#[n(0)] PublicKey),
    #[n(4)]
    Grant(#[n(0)] Name, #[n(1)] PublicKey),
    #[n(5)]
    Roles(#[n(0)] PublicKey),
    /// Any key that took part in a rotation.
    #[n(6)]
    Identity(#[n(0)] PublicKey),
    #[n(7)]
    Operator(#[n(0)] PublicKey),
    /// A voting key.
    #[n(8)]
    Voter(#[n(0)] PublicKey),
    #[n(9)]
    Holder(#[n(0)] PublicKey),
    #[n(10)]
    Score(#[n(0)] PublicKey),
    #[n(11)]
    Params,
    #[n(12)]
    Epoch,
}

impl StateKey {
    /// The key in the state map.
    pub fn digest(&self) -> Digest {
        Digest::of(Of::StateKey, &codec::encode(self))
    }
}

/// A value that the state root covers. The value in the state map is the digest of its encoding.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Item {
    #[n(0)]
    Name {
        #[n(0)]
        owner: PublicKey,
        /// How many were published, withdrawn ones included.
        #[n(1)]
        versions: u64,
        /// What `latest` means.
        #[n(2)]
        latest: Option<Label>,
    },
    #[n(1)]
    Version(#[n(0)] Version),
    #[n(2)]
    Tag(#[n(0)] Target),
    #[n(3)]
    Nonce(#[n(0)] u64),
    #[n(4)]
    Grant(#[n(0)] Granted),
    #[n(5)]
    Roles(#[n(0)] Roles),
    #[n(6)]
    Identity(#[n(0)] Identity),
    #[n(7)]
    Operator(#[n(0)] Operator),
    #[n(8)]
    Voter(#[n(0)] Voter),
    #[n(9)]
    Holder(#[n(0)] Holder),
    #[n(10)]
    Score(#[n(0)] u64),
    #[n(11)]
    Params(#[n(0)] Params),
    #[n(12)]
    Epoch {
        #[n(0)]
        number: u64,
        /// The time of the header that ended the epoch before, in milliseconds since 1970.
        #[n(1)]
        started_ms: u64,
        /// The id of that header; none in epoch 0.
        #[n(2)]
        seed: Option<HeaderId>,
        /// Who votes in this epoch.
        #[n(3)]
        voters: Digest,
        /// Who votes in the next.
        #[n(4)]
        next: Digest,
    },
}

impl Item {
    /// The value in the state map.
    pub fn digest(&self) -> Digest {
        Digest::of(Of::StateValue, &codec::encode(self))
    }
}
