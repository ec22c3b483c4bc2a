//! What is asked and answered when something of the log is proven to others.
//!
//! Owns, must not know, invariant: those of `report`, which is the name that all of this is used by.
//! Trust: requests come from this machine's user and are checked where they are used. Threads: pure values.

use serde::{Deserialize, Serialize};

/// Asks for the proof of a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProofRequest {
    /// `NAME@VERSION`, `NAME@TAG`, `NAME` or a URI.
    pub reference: String,
}

/// A proof, and what it proves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proof {
    /// The file, in base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub proof: String,
    pub proven: Proven,
}

/// What a proof says of a version, as of one head of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    pub genesis: String,
    pub name: String,
    pub version: String,
    pub snapshot: String,
    /// Of all files, and how many files, directories and symbolic links: claims of the publisher's.
    pub bytes: u64,
    pub inodes: u64,
    /// The key that published it; and the first key of whoever the name belongs to.
    pub author: String,
    pub owner: String,
    /// The entry that published it, and its number in the log, from 0.
    pub entry: String,
    pub index: u64,
    pub height: u64,
    pub time_ms: u64,
    /// Absent unless it was withdrawn.
    pub withdrawn: Option<Withdrawn>,
    /// The newest version of the dataset that is not withdrawn.
    pub latest: Option<String>,
    pub head: ProvenHead,
}

/// That, why and when a version was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    pub reason: String,
    pub height: u64,
    pub time_ms: u64,
}

/// A head of the log, and how many signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenHead {
    pub height: u64,
    pub time_ms: u64,
    pub header: String,
    /// Entries in the log.
    pub entries: u64,
    pub signers: usize,
    pub validators: usize,
}

/// Asks for the checkpoint of a network's head.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CheckpointRequest {
    /// Its id or a URI of it; without, the default network.
    #[serde(default)]
    pub network: Option<String>,
}

/// Asks this node to cosign a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CosignRequest {
    /// The signed note.
    pub note: String,
}

/// A checkpoint that this node has signed or cosigned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignedCheckpoint {
    /// The whole note.
    pub note: String,
    /// What others check this node's signature with: `NAME+ID+KEY`.
    pub key: String,
    pub genesis: String,
    /// Entries in the log.
    pub entries: u64,
}

/// What was found under a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedCheckpoint {
    pub origin: String,
    pub entries: u64,
    /// In base64, as in the note.
    pub root: String,
    pub signatures: Vec<NoteSignature>,
}

/// A signature that is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteSignature {
    pub key: String,
    /// When a witness cosigned; absent for who signs for the log.
    pub time_ms: Option<u64>,
}
