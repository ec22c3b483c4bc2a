//! Entries about replicas: acknowledgements, commitments, and receipts for answered challenges.
//!
//! Owns: their fields, and what storage nodes and auditors sign. Must not know: who may write them, or what they earn.
//! Invariant: whatever is signed names its network, so that it counts in no other.
//! Trust: foreign until executed. Threads: pure.

use minicbor::{Decode, Encode};

use super::tagged;
use crate::crypto::{Claim, PublicKey, SecretKey, Signature};
use crate::id::{Genesis, SnapshotId};
use crate::log::names::{Label, Name};
use crate::log::storage::Answered;

/// Most acknowledgements with a version, and most audits with a receipt.
pub const MAX_WITNESSES: usize = 16;
/// Precedes what a storage node signs when it holds a snapshot.
const REPLICA_TAG: &[u8; 16] = b"bcai replica v1\0";
/// Precedes what an auditor signs when an answer was right.
const AUDIT_TAG: &[u8; 16] = b"bcai audit v1\0\0\0";

/// A storage node's word that it holds the whole of a snapshot and will keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Replica {
    #[n(0)]
    pub node: PublicKey,
    #[n(1)]
    pub signature: Signature,
}

impl Replica {
    /// Acknowledges `snapshot`.
    pub fn sign(node: &SecretKey, genesis: Genesis, snapshot: SnapshotId) -> Self {
        let signature = node.sign(&Self::message(genesis, snapshot));
        Self { node: node.public(), signature }
    }

    /// What the node signed, if this is genuine.
    pub fn claim(&self, genesis: Genesis, snapshot: SnapshotId) -> Claim {
        let message = Self::message(genesis, snapshot).into();
        Claim { key: self.node, message, signature: self.signature }
    }

    fn message(genesis: Genesis, snapshot: SnapshotId) -> Vec<u8> {
        tagged(REPLICA_TAG, &(genesis, snapshot))
    }
}

/// The author says that it stores all of `name@version` in `epoch`. In the next epoch it will be challenged to prove it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StorageCommit {
    #[n(0)]
    pub epoch: u64,
    #[n(1)]
    pub name: Name,
    #[n(2)]
    pub version: Label,
}

/// The author has answered the challenge of its commitment, and auditors found the answer right.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StorageReceipt {
    #[n(0)]
    pub answered: Answered,
    #[n(1)]
    pub audits: Vec<Audit>,
}

/// An auditor's word that it holds the chunk that was asked for and computed the same answer from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Audit {
    #[n(0)]
    pub auditor: PublicKey,
    #[n(1)]
    pub signature: Signature,
}

impl Audit {
    /// Confirms an answer of `prover`'s.
    pub fn sign(auditor: &SecretKey, genesis: Genesis, prover: &PublicKey, answered: &Answered) -> Self {
        let signature = auditor.sign(&Self::message(genesis, prover, answered));
        Self { auditor: auditor.public(), signature }
    }

    /// What the auditor signed, if this is genuine.
    pub fn claim(&self, genesis: Genesis, prover: &PublicKey, answered: &Answered) -> Claim {
        let message = Self::message(genesis, prover, answered).into();
        Claim { key: self.auditor, message, signature: self.signature }
    }

    fn message(genesis: Genesis, prover: &PublicKey, answered: &Answered) -> Vec<u8> {
        tagged(AUDIT_TAG, &(genesis, prover, answered))
    }
}
