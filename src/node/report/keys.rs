//! What is asked and answered about keys and what they may do.
//!
//! Owns, must not know, invariant: those of `report`, which is the name that all of this is used by. No secret is among it.
//! Trust: requests come from this machine's user and are checked where they are used. Threads: pure values.

use serde::{Deserialize, Serialize};

/// The keys of this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeysReport {
    /// Who it is in logs.
    pub key: String,
    /// The key that is about to take its place.
    pub next: Option<String>,
    /// By which it votes and is known to peers in this run.
    pub running: String,
    pub peer_id: String,
    /// `running` and `peer_id` are others from the next start on.
    pub changes_at_start: bool,
    pub networks: Vec<KeyInNetwork>,
}

/// What a key is in one network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyInNetwork {
    pub genesis: String,
    pub default: bool,
    /// The key that this node writes with there.
    pub key: String,
    /// The first key of its identity, under which what it owns is recorded.
    pub first: String,
    pub roles: Vec<String>,
    /// Datasets that belong to it.
    pub owns: Vec<String>,
    /// Datasets in which it was granted something, and what.
    pub granted: Vec<GrantedRoles>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GrantedRoles {
    pub name: String,
    pub roles: Vec<String>,
}

/// That a key took another's place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RotatedKey {
    pub old: String,
    pub new: String,
    /// Where the log says so now, and where it could not be had to.
    pub networks: Vec<RotatedIn>,
    pub failed: Vec<NotRotatedIn>,
    /// The old key goes on voting, and stands for the node to its peers.
    pub votes: bool,
    /// The peer id is another one from the next start on.
    pub changes_at_start: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RotatedIn {
    pub genesis: String,
    pub height: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NotRotatedIn {
    pub genesis: String,
    pub error: super::Error,
}

/// That a dataset's key took another's place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RotatedDataset {
    pub name: String,
    /// The one in use now.
    pub generation: u32,
    /// Who was given it.
    pub readers: u64,
    pub seconds: f64,
}

/// Gives roles to somebody, or takes them back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RightsRequest {
    pub key: String,
    /// None, to take back: all.
    pub roles: Vec<String>,
    /// With this dataset; without, in the whole network.
    #[serde(default)]
    pub dataset: Option<String>,
    #[serde(default)]
    pub revoke: bool,
}

/// That it was decided, and all roles that they have now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RightsDecided {
    #[serde(flatten)]
    pub decided: super::Decided,
    pub roles: Vec<String>,
    /// With an encrypted dataset: they have its key now.
    #[serde(default)]
    pub has_key: bool,
    /// They had it, and later versions are closed to them.
    #[serde(default)]
    pub rotated: Option<RotatedDataset>,
    /// They had it, and this node cannot put another in its place.
    #[serde(default)]
    pub must_rotate: bool,
}
