//! The snapshot object: the root of everything.
//!
//! Owns: `Snapshot` and its rules. Must not know: what lies below.
//! Invariant, trust, threads: those of `manifest`.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::{
    FORMAT_VERSION, MAX_SNAPSHOT_LEN, ManifestError, Meta, SEALED_VERSION, Totals, decode_object,
    encode_object, require,
};
use crate::chunking::Chunking;
use crate::id::{KeyId, SnapshotId, TreeId};

const WHAT: &str = "a snapshot";

/// A directory tree at one moment. It holds no clock and no name: the same tree has the same id anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Snapshot {
    /// Metadata of the root directory, which has position 1.
    #[n(0)]
    pub root: Meta,
    #[n(1)]
    pub tree: TreeId,
    /// Everything below the root directory, itself not counted.
    #[n(2)]
    pub totals: Totals,
    /// How its files were cut.
    #[n(3)]
    pub chunking: Chunking,
    /// What it really is, if it is encrypted: then all else in it is about the sealed objects.
    #[n(4)]
    pub sealed: Option<Sealed>,
}

/// A snapshot that only those can read who have the dataset's key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Sealed {
    /// Of the dataset's key in `generation`. All objects are sealed with that one or with those before it.
    #[n(0)]
    pub key: KeyId,
    #[n(1)]
    pub generation: u32,
    /// The snapshot of what was published, sealed.
    #[n(2)]
    pub snapshot: ByteVec,
}

impl Snapshot {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        encode_object(self.version(), self)
    }

    /// A program that does not know about encryption is to say that a newer one wrote it.
    fn version(&self) -> u32 {
        if self.sealed.is_some() { SEALED_VERSION } else { FORMAT_VERSION }
    }

    /// Decodes and checks a snapshot.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let (version, snapshot) =
            decode_object::<Self>(WHAT, bytes, MAX_SNAPSHOT_LEN, &[FORMAT_VERSION, SEALED_VERSION])?;
        require(version == snapshot.version(), WHAT, "its version is 2 if it is sealed, and else 1")?;
        snapshot.root.check()?;
        let bounded = Totals::default().checked_add(snapshot.totals).is_some();
        require(bounded, WHAT, "totals stay below 2^63")?;
        require(snapshot.chunking.check().is_ok(), WHAT, "the chunking is one that exists")?;
        Ok(snapshot)
    }

    /// The snapshot's id.
    pub fn id(&self) -> SnapshotId {
        SnapshotId::of(&self.encode())
    }
}
