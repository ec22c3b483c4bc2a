//! What a node tells about its peers, its running jobs and what is wrong, as plain data.
//!
//! Owns: the shape of these reports. Must not know: how any of it is obtained or shown.
//! Invariant: that of `report`. Trust: peers' addresses are what they say of themselves. Threads: pure values.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A peer, and what was measured of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerStatus {
    pub peer_id: String,
    pub address: String,
    pub addresses: Vec<String>,
    pub state: String,
    /// Connected, but through a relay only.
    pub relayed: bool,
    /// `excellent`, `good`, `fair`, `poor` or `critical`.
    pub grade: String,
    /// From 0 to 1: 40 % bandwidth, 40 % reputation, 20 % availability.
    pub score: f64,
    pub rtt_ms: Option<f64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Bytes a second, of late.
    pub rate_in: f64,
    pub rate_out: f64,
    /// Requests that it failed, and their smoothed share.
    pub failures: u64,
    pub failure_share: f64,
    /// Bytes read ahead, prefetched or replicated that may be on their way from it, as the delay allows, and those that are.
    /// Absent while it cannot be asked.
    pub window_bytes: Option<u64>,
    pub under_way_bytes: u64,
    /// How long these wait in queues on their way, of late; the window aims at 40.
    pub queueing_ms: Option<f64>,
    /// Its program and version, as it says.
    pub agent: Option<String>,
}

/// How the clocks of connected peers stand to this machine's, as they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// How far this one is ahead of them, in the middle, in milliseconds; negative if it is behind.
    pub ahead_ms: i64,
    /// Peers that have told theirs.
    pub peers: usize,
}

/// Whether an address of this node can be reached from outside, as somebody there has tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    pub address: String,
    pub reached: bool,
}

/// Which peer is meant: its id, or a part from the beginning or end of it that no other has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerRequest {
    pub peer: String,
}

/// Where a peer is, as a multiaddress.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddPeerRequest {
    pub address: String,
}

/// The peer that a request was about, by its whole id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerOf {
    pub peer_id: String,
}

/// A limit to set: `None` leaves it as it is. Within, bytes a second, or nothing for no limit.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct LimitRequest {
    #[serde(default)]
    pub upload: Option<NewLimit>,
    #[serde(default)]
    pub download: Option<NewLimit>,
}

/// What a limit shall be.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewLimit {
    Unlimited,
    /// Bytes a second.
    Rate(u64),
}

/// The limits as they are now, in bytes a second; absent where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub upload: Option<u64>,
    pub download: Option<u64>,
    /// A setting names it, and will again after the next start.
    #[serde(default)]
    pub upload_set: bool,
    #[serde(default)]
    pub download_set: bool,
}

/// A job that runs now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferStatus {
    /// Counts from the start of the node.
    #[serde(default)]
    pub id: u64,
    pub kind: String,
    /// The reference or directory that it is about.
    pub subject: String,
    pub phase: String,
    pub files_done: u64,
    pub files_total: u64,
    pub bytes_done: u64,
    pub bytes_total: u64,
    /// Smoothed bytes a second; 0 while it stands still.
    pub rate: f64,
    /// Seconds until it is done at this rate; absent while that cannot be said.
    pub eta_s: Option<f64>,
    pub running_s: f64,
}

/// The jobs that run, oldest first, and those that have ended last, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Jobs {
    pub running: Vec<TransferStatus>,
    pub ended: Vec<EndedJob>,
}

/// A job that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndedJob {
    pub id: u64,
    pub kind: String,
    pub subject: String,
    pub outcome: Outcome,
    /// Why it failed.
    pub error: Option<super::Error>,
    pub ended_ms: u64,
    pub seconds: f64,
}

/// How a job has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Done,
    Failed,
    /// Whoever asked for it went away, or the node was stopped.
    Cancelled,
    /// The node before this one ended while it ran; the time is when it was last known to run, and how long it had run is not known.
    Interrupted,
}

/// Where the node shows itself on a web page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageStatus {
    /// As it listens; if it cannot, as it was set.
    pub address: String,
    /// Why it cannot.
    pub error: Option<String>,
}

/// How bad something is, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Info,
    Warning,
    Error,
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        })
    }
}

/// Whether an alert still holds, and whether somebody has taken note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertState {
    Active,
    /// It holds, and somebody has said that they know.
    Acknowledged,
    /// It does not hold any more.
    Cleared,
}

impl fmt::Display for AlertState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Acknowledged => "acknowledged",
            Self::Cleared => "cleared",
        })
    }
}

/// Something that is wrong, or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The same for the same cause: its kind, and what it is about.
    pub id: String,
    pub severity: Severity,
    pub state: AlertState,
    /// When it first came, and when it was last seen to hold.
    pub first_ms: u64,
    pub last_ms: u64,
    /// How often it has come.
    pub count: u64,
    /// What is wrong, on what, and why; and what to do.
    pub text: String,
    pub remedy: String,
}

/// Which alerts somebody takes note of: one, or all.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AckRequest {
    One(String),
    All,
}

/// How many alerts were taken note of.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Acknowledged {
    pub alerts: usize,
}
