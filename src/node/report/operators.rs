//! What is asked and answered about validators: who they are, who takes part, and with what.
//!
//! Owns, must not know, invariant: those of `report`, which is the name that all of this is used by.
//! Trust: requests come from this machine's user and are checked where they are used. Threads: pure values.

use serde::{Deserialize, Serialize};

use super::Decided;

/// A change that concerns who decides.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorRequest {
    /// This node becomes a validator.
    Join,
    /// It stops being one.
    Leave,
    /// By an admin: the operator with this key may join again.
    Release { operator: String },
    /// By an admin: who has this key has so much stake.
    Stake { holder: String, amount: u64 },
    /// The stake of this node counts for the operator with this key.
    Delegate { operator: String },
    /// By an admin: parameters to change.
    Params(NewParams),
}

/// Parameters of a network; what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NewParams {
    pub policy: Option<String>,
    pub heartbeat_ms: Option<u64>,
    pub block_ms: Option<u64>,
    pub epoch_ms: Option<u64>,
    pub seats: Option<u32>,
    pub replicas: Option<u32>,
    pub audits: Option<u32>,
    pub publishers_only: Option<bool>,
    #[serde(default)]
    pub members_only: Option<bool>,
}

/// That it was decided, and when weights can follow at the earliest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OperatorDecided {
    #[serde(flatten)]
    pub decided: Decided,
    /// The epoch from which on weights can be others.
    pub epoch: u64,
    /// When that begins, if a height is decided then.
    pub earliest_ms: u64,
    pub policy: String,
}

/// Who decides a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ValidatorsReport {
    pub genesis: String,
    pub height: u64,
    pub head_ms: Option<u64>,
    pub params: ParamsReport,
    pub epoch: u64,
    pub epoch_started_ms: u64,
    /// Weight of all who vote now, and the least that decides.
    pub weight: u64,
    pub quorum: u64,
    /// Heights whose signatures were counted, the newest ones.
    pub counted: u64,
    /// Who votes now or next, and all operators that do not.
    pub validators: Vec<ValidatorRow>,
    pub own: OwnPart,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamsReport {
    pub policy: String,
    pub heartbeat_ms: u64,
    pub block_ms: u64,
    pub epoch_ms: u64,
    pub seats: u32,
    pub replicas: u32,
    pub audits: u32,
    pub publishers_only: bool,
    #[serde(default)]
    pub members_only: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ValidatorRow {
    /// The key it votes with; and the first and the present key of who runs it.
    pub voter: String,
    pub operator: String,
    pub operator_key: String,
    /// `active`, `left` or `jailed`.
    pub standing: String,
    /// Now and in the next epoch; 0: it does not vote.
    pub weight: u64,
    pub next_weight: u64,
    /// Own and delegated.
    pub stake: u64,
    pub score: u64,
    /// Of the heights counted: those that it could sign, and those whose certificate it is in. A certificate needs no more
    /// than a quorum, so that who is slow or far is in fewer.
    pub could_sign: u64,
    pub signed: u64,
    /// It is this node, or one that is connected to it.
    pub here: bool,
    pub connected: bool,
}

/// What this node is in a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OwnPart {
    pub key: String,
    pub voter: String,
    pub roles: Vec<String>,
    /// Absent if it is no operator.
    pub standing: Option<String>,
    /// It votes at the next height; and does, in this run.
    pub seated: bool,
    pub deciding: bool,
    pub stake: u64,
    /// Whom the stake counts for, if there is some.
    pub behind: Option<String>,
    /// Validators that are connected, of how many others.
    pub connected: usize,
    pub others: usize,
}
