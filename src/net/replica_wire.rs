//! The messages of `/bcai/replica/1`: one request and one answer on a stream of their own, framed as in `log_wire`.
//!
//! Owns: their encoding and its limits. Must not know: who may ask, or what is kept where.
//! Invariant: a message has one encoding, and what has been checked keeps its limits.
//! Trust: reads what a stranger sends. Threads: pure values.

use minicbor::{Decode, Encode};

use super::log_wire::clip;
use super::peer_wire::within;
use crate::codec::CodecError;
use crate::id::{Genesis, SnapshotId};
use crate::log::storage::Answered;
use crate::log::{Audit, Label, Name, Replica};
use crate::replicate::Holding;

/// Snapshots that one request asks about.
pub const MAX_SNAPSHOTS: usize = 1024;
/// The longest request and the longest answer, in bytes.
pub(super) const MAX_REQUEST: usize = 64 << 10;
pub(super) const MAX_ANSWER: usize = 8 << 10;
const WHAT: &str = "an answer about replicas";
/// The longest name of a zone, in bytes.
pub const MAX_ZONE: usize = 64;

// What may be said fits the messages.
const _: () = assert!(MAX_SNAPSHOTS * 34 + 64 <= MAX_REQUEST);
const _: () = assert!(MAX_SNAPSHOTS + MAX_ZONE + 32 <= MAX_ANSWER);

/// What one node asks of another about replicas.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ReplicaRequest {
    /// How much room the node has for the network, and which of these snapshots it holds.
    #[n(0)]
    #[cbor(array)]
    State {
        #[n(0)]
        genesis: Genesis,
        #[n(1)]
        snapshots: Vec<SnapshotId>,
    },
    /// To hold a snapshot that the asking node is about to publish as this version, and to say so when it does. Asked again
    /// until it is answered by `Kept`.
    #[n(1)]
    #[cbor(array)]
    Keep {
        #[n(0)]
        genesis: Genesis,
        #[n(1)]
        name: Name,
        #[n(2)]
        version: Label,
        #[n(3)]
        snapshot: SnapshotId,
        /// Of all files, as the publisher counted them.
        #[n(4)]
        bytes: u64,
    },
    /// To confirm an answer of the asking node's.
    #[n(2)]
    #[cbor(array)]
    Audit {
        #[n(0)]
        genesis: Genesis,
        #[n(1)]
        answered: Answered,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ReplicaAnswer {
    #[n(0)]
    #[cbor(array)]
    State {
        /// Bytes that it has room for.
        #[n(0)]
        free: u64,
        /// Where the node is, for its operator; nodes of one zone may be lost together.
        #[n(1)]
        zone: String,
        /// Of each snapshot that was asked about, in that order.
        #[n(2)]
        holds: Vec<Holding>,
    },
    /// All of it is on the node's disk for good.
    #[n(1)]
    #[cbor(array)]
    Kept {
        #[n(0)]
        replica: Replica,
    },
    /// It is being fetched.
    #[n(2)]
    #[cbor(array)]
    Coming {
        #[n(0)]
        bytes: u64,
    },
    #[n(3)]
    #[cbor(array)]
    Audited {
        #[n(0)]
        audit: Audit,
    },
    /// It will not, however often it is asked.
    #[n(4)]
    #[cbor(array)]
    Refused {
        #[n(0)]
        cause: String,
    },
    /// Not now.
    #[n(5)]
    #[cbor(array)]
    Failed {
        #[n(0)]
        cause: String,
    },
}

impl ReplicaRequest {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        match self {
            Self::State { snapshots, .. } => {
                within("a request about replicas", snapshots.len(), MAX_SNAPSHOTS)
            }
            Self::Keep { .. } | Self::Audit { .. } => Ok(()),
        }
    }
}

impl ReplicaAnswer {
    /// Refuses for good.
    pub fn refused(cause: &impl ToString) -> Self {
        Self::Refused { cause: clip(&cause.to_string()) }
    }

    /// Refuses for now.
    pub fn failed(cause: &impl ToString) -> Self {
        Self::Failed { cause: clip(&cause.to_string()) }
    }

    /// Whether it keeps the limits and is an answer to `request`, which is not said of refusals.
    pub(super) fn answers(&self, request: &ReplicaRequest) -> Result<(), CodecError> {
        let malformed = |cause: &str| CodecError::Malformed { what: WHAT, cause: cause.to_owned() };
        match (self, request) {
            (Self::State { zone, holds, .. }, ReplicaRequest::State { snapshots, .. }) => {
                within(WHAT, zone.len(), MAX_ZONE)?;
                let fits = holds.len() == snapshots.len();
                if fits { Ok(()) } else { Err(malformed("it is about other snapshots")) }
            }
            (Self::Kept { .. } | Self::Coming { .. }, ReplicaRequest::Keep { .. })
            | (Self::Audited { .. }, ReplicaRequest::Audit { .. })
            | (Self::Refused { .. } | Self::Failed { .. }, _) => Ok(()),
            _ => Err(malformed("it answers another question")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    fn request(snapshots: usize) -> ReplicaRequest {
        let snapshots = (0..snapshots).map(|at| SnapshotId::of(&at.to_le_bytes())).collect();
        ReplicaRequest::State { genesis: Genesis::from_bytes([7; 32]), snapshots }
    }

    #[test]
    fn the_largest_messages_fit_their_limits_and_no_larger_ones_pass() {
        assert!(codec::encode(&request(MAX_SNAPSHOTS)).len() <= MAX_REQUEST);
        assert_eq!(request(MAX_SNAPSHOTS).check(), Ok(()));
        assert!(request(MAX_SNAPSHOTS + 1).check().is_err());
        let state = |zone: usize, holds| ReplicaAnswer::State {
            free: u64::MAX,
            zone: "z".repeat(zone),
            holds: vec![Holding::Whole; holds],
        };
        assert!(codec::encode(&state(MAX_ZONE, MAX_SNAPSHOTS)).len() <= MAX_ANSWER);
        assert_eq!(state(MAX_ZONE, 3).answers(&request(3)), Ok(()));
        assert!(state(MAX_ZONE + 1, 3).answers(&request(3)).is_err());
        assert!(state(1, 2).answers(&request(3)).is_err(), "of another number of snapshots");
        assert!(ReplicaAnswer::Coming { bytes: 1 }.answers(&request(3)).is_err());
        assert_eq!(ReplicaAnswer::failed(&"full").answers(&request(3)), Ok(()));
        assert!(codec::encode(&ReplicaAnswer::refused(&"no ".repeat(4000))).len() <= MAX_ANSWER);
    }

    proptest! {
        #[test]
        fn junk_is_refused_or_is_the_one_spelling_of_something(bytes: Vec<u8>) {
            if let Ok(request) = codec::decode::<ReplicaRequest>("a request", &bytes, MAX_REQUEST) {
                prop_assert_eq!(codec::encode(&request), bytes.clone());
            }
            if let Ok(answer) = codec::decode::<ReplicaAnswer>("an answer", &bytes, MAX_ANSWER) {
                prop_assert_eq!(codec::encode(&answer), bytes);
            }
        }
    }
}
