//! The snapshot object: the root of everything.
//!
//! Owns: `Snapshot` and its rules. Must not know: what lies below.
//! Invariant, trust, threads: those of `manifest`.

use minicbor::{Decode, Encode};

use super::{MAX_SNAPSHOT_LEN, ManifestError, Meta, Totals, decode_object, encode_object, require};
use crate::chunking::Chunking;
use crate::id::{SnapshotId, TreeId};

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
}

impl Snapshot {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        encode_object(self)
    }

    /// Decodes and checks a snapshot.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let snapshot: Self = decode_object(WHAT, bytes, MAX_SNAPSHOT_LEN)?;
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
