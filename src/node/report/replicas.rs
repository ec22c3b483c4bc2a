//! What is asked and shown of replicas. Rules of `report`.
//!
//! Owns: these shapes. Must not know: how they come about. Invariant, trust and threads: as `report`.

use serde::{Deserialize, Serialize};

/// How many storage nodes must have a version on disk before it is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    One,
    /// More than half of those that are to hold it.
    #[default]
    Quorum,
    All,
}

/// The replicas of one network, as far as this node has anything to do with them: it stores some, or published some.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplicaStatus {
    pub genesis: String,
    /// Those with the role storage, and those of them that have answered lately.
    pub nodes: usize,
    pub alive: usize,
    /// Versions that are to be on storage nodes.
    pub versions: usize,
    /// Those of them that are on fewer than they should be.
    pub under: Vec<UnderReplicated>,
    /// Snapshots that this node holds for the network, those that it is fetching not counted, and their bytes.
    pub here: usize,
    pub here_bytes: u64,
    /// Snapshots, and their bytes, that this node has begun to hold by itself since it was started: in place of nodes that
    /// were lost, or because its own copy was.
    pub taken_over: u64,
    pub taken_over_bytes: u64,
}

/// A version that is on fewer storage nodes than it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderReplicated {
    /// `NAME@VERSION`.
    pub version: String,
    pub bytes: u64,
    /// Nodes that should hold it, and those that do.
    pub copies: usize,
    pub held: usize,
    /// Nodes that are fetching it.
    pub coming: usize,
}
