//! What a node is asked and what it answers, as plain data.
//!
//! Owns: the shape of every request and report of the API, and so of every `--json` output.
//! Must not know: how any of it is obtained or shown.
//! Invariant: fields are only ever added; scripts depend on the names. Ids are hex, times are Unix milliseconds,
//! sizes are bytes.
//! Trust: requests come from this machine's user and are still checked where they are used.
//! Threads: pure values.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::Error;

mod caching;
mod carrying;
mod certifying;
mod diff;
mod hinting;
mod keys;
mod mounting;
mod naming;
mod operators;
mod origins;
mod proving;
mod replicas;
mod storing;
mod tracing;
mod watching;

pub use caching::*;
pub use carrying::*;
pub use certifying::*;
pub use diff::*;
pub use hinting::*;
pub use keys::*;
pub use mounting::{AheadStatus, MountRequest, Mounted, Quorum, RemountRequest, Remounted};
pub use naming::*;
pub use operators::*;
pub use origins::{OriginStatus, UploadReport};
pub use proving::*;
pub use replicas::*;
pub use storing::*;
pub use tracing::*;
pub use watching::*;

/// One line of a streamed job: any number of `progress` and `rows`, then one `done` or `error`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event<T, R = ()> {
    Progress(Progress),
    Rows(Vec<R>),
    Done(T),
    Error(Error),
}

/// How far a long job is. Totals are 0 while they are not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub phase: String,
    pub files_done: u64,
    pub files_total: u64,
    pub bytes_done: u64,
    pub bytes_total: u64,
}

/// How a directory becomes a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotRequest {
    pub dir: PathBuf,
    pub chunking: String,
    pub compress: String,
    #[serde(default)]
    pub skip_special: bool,
    /// Serve larger files from where they are, instead of storing their content.
    #[serde(default)]
    pub in_place: bool,
    /// Reads files again that have not changed since an earlier snapshot.
    #[serde(default)]
    pub paranoid: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshotted {
    pub snapshot: String,
    pub inodes: u64,
    pub chunks: u64,
    pub bytes: u64,
    /// Objects and stored bytes that the store did not have before.
    pub new_objects: u64,
    pub new_bytes: u64,
    /// Files that are served from where they are, and files of which the store has a clone; both only in place.
    #[serde(default)]
    pub in_place_files: u64,
    #[serde(default)]
    pub cloned_files: u64,
    /// Files that were stored like any other all the same, because of their file system.
    #[serde(default)]
    pub copied_files: u64,
    /// Files that were not read because they have not changed since an earlier snapshot.
    #[serde(default)]
    pub unchanged: u64,
    /// Sockets, FIFOs and devices left out on request.
    pub skipped: Vec<String>,
    pub seconds: f64,
}

/// What to publish.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Dir(SnapshotRequest),
    Snapshot(String),
    /// A version that was published before.
    Version(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PublishRequest {
    pub source: Source,
    /// `NAME@VERSION`.
    pub target: String,
    /// Where to upload it to as well.
    #[serde(default)]
    pub origin: Option<String>,
    /// Encrypt it, as all later versions of the dataset.
    #[serde(default)]
    pub encrypt: bool,
    /// In plain, also if earlier versions are encrypted.
    #[serde(default)]
    pub plaintext: bool,
    /// How many storage nodes are to hold it; three if nobody says and there are so many.
    #[serde(default)]
    pub replicas: Option<u32>,
    /// How many of them are waited for.
    #[serde(default)]
    pub ack: Ack,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Published {
    pub name: String,
    pub version: String,
    pub snapshot: String,
    pub genesis: String,
    /// Height and round whose certificate covers the version.
    pub height: u64,
    pub round: u32,
    pub signers: usize,
    /// The version was there before, with this very snapshot.
    pub already: bool,
    /// From submitting the entry to its durable certificate.
    pub commit_ms: f64,
    pub uri: String,
    /// Absent when an existing snapshot was published.
    pub ingest: Option<Snapshotted>,
    /// What was uploaded, if an origin was named.
    #[serde(default)]
    pub upload: Option<UploadReport>,
    /// Storage nodes that are to hold it, and those that had it on disk before it was published.
    #[serde(default)]
    pub copies: usize,
    #[serde(default)]
    pub acknowledged: usize,
}

/// What a reference means now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resolved {
    pub snapshot: String,
    /// Absent for a plain snapshot id.
    pub version: Option<VersionOf>,
}

/// Which version a reference meant, and the height that certifies it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionOf {
    pub genesis: String,
    pub name: String,
    pub version: String,
    /// Where it was published.
    pub height: u64,
    /// How far the log had come when the name meant this version.
    #[serde(default)]
    pub as_of: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnmountRequest {
    pub dir: PathBuf,
    #[serde(default)]
    pub lazy: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dataset {
    pub name: String,
    pub genesis: String,
    pub owner: String,
    pub versions: Vec<Version>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Version {
    pub version: String,
    pub tags: Vec<String>,
    pub snapshot: String,
    pub bytes: u64,
    pub height: u64,
    pub time_ms: u64,
    /// The reason given, when the version was withdrawn.
    pub yanked: Option<String>,
}

/// One committed height of the manifest log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogRow {
    pub height: u64,
    pub header: String,
    pub time_ms: u64,
    pub round: u32,
    pub signers: usize,
    pub validators: usize,
    pub entries: Vec<LogEntry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogEntry {
    pub id: String,
    pub author: String,
    /// For people: "publish photos@v1 as 0123456789 (3.1 GiB)".
    pub summary: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PathRequest {
    pub reference: String,
    /// Inside the dataset, in the text form of `node::text`; empty is the root.
    #[serde(default)]
    pub path: String,
    #[serde(default)]
    pub recursive: bool,
}

/// One row of `bcai ls`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listed {
    pub path: String,
    pub kind: String,
    pub mode: u32,
    pub size: u64,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    pub target: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadRequest {
    pub reference: String,
    pub path: String,
    pub offset: u64,
    pub len: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// `None` re-hashes everything in the store.
    pub reference: Option<String>,
    /// Fetch what is bad or absent from peers.
    #[serde(default)]
    pub repair: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verified {
    /// The height whose certificate was checked again, when a version was named.
    pub height: Option<u64>,
    pub objects: u64,
    pub bytes: u64,
    /// Objects of the dataset that are not on this machine; fetched when read.
    pub absent: u64,
    /// Objects that failed, each with its cause. None were left after a successful repair.
    pub corrupt: Vec<String>,
    pub repaired: u64,
    /// Files of large blobs that were damaged and removed; they are made again from their chunks.
    #[serde(default)]
    pub removed: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateRequest {
    /// Keys of its validators; if there are none, that of the node alone.
    pub validators: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    pub uri: String,
}

/// The network a node now belongs to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkOf {
    pub genesis: String,
    pub height: u64,
    /// The node did not belong to it before.
    pub new: bool,
}

/// The node at a glance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    /// The process that starts the node again when it dies.
    #[serde(default)]
    pub supervisor: Option<u32>,
    pub uptime_s: u64,
    pub resident_bytes: u64,
    pub peer_id: String,
    pub public_key: String,
    pub addresses: Vec<String>,
    /// Addresses that others have tried from outside of late, the latest last.
    #[serde(default)]
    pub trials: Vec<Trial>,
    pub networks: Vec<NetworkStatus>,
    pub mounts: Vec<Mounted>,
    pub store: StoreStatus,
    pub fetch: FetchStatus,
    #[serde(default)]
    pub cache: CacheStatus,
    pub peers: Vec<PeerStatus>,
    /// The jobs that run now.
    #[serde(default)]
    pub transfers: Vec<TransferStatus>,
    /// What is wrong and nobody has taken note of; and how much of what is wrong somebody has.
    #[serde(default)]
    pub alerts: Vec<Alert>,
    #[serde(default)]
    pub alerts_acknowledged: usize,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub origins: Vec<OriginStatus>,
    #[serde(default)]
    pub replicas: Vec<ReplicaStatus>,
    #[serde(default)]
    pub scrub: ScrubStatus,
    #[serde(default)]
    pub web: Option<PageStatus>,
    /// Absent while no connected peer has told its clock.
    #[serde(default)]
    pub clock: Option<ClockStatus>,
    /// Jobs that the end of the node before has cut off, and that nobody goes on with by itself.
    #[serde(default)]
    pub interrupted: Vec<EndedJob>,
    /// Answers of all mounts; what the kernel reads by itself is not seen.
    #[serde(default)]
    pub answers: Vec<AnswerCounts>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkStatus {
    pub genesis: String,
    pub default: bool,
    pub validator: bool,
    pub height: u64,
    /// The newest block, as `@HEIGHT:HASH`: what follows the network's id in a URI to pin it.
    #[serde(default)]
    pub pin: Option<String>,
    pub head_age_s: Option<u64>,
    /// How far the newest block is in the future of this machine's clock.
    #[serde(default)]
    pub head_ahead_ms: u64,
    /// After so long without an entry there is a block all the same.
    #[serde(default)]
    pub heartbeat_s: u64,
    pub datasets: usize,
    /// How its validators were seen to break the rules, after which nothing new of it is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoreStatus {
    pub objects: u64,
    pub published_bytes: u64,
    pub cached_bytes: u64,
    pub cache_max_bytes: u64,
    pub evicted: u64,
    /// Bytes of objects that lie in files which were published in place.
    #[serde(default)]
    pub in_place_bytes: u64,
    /// Such files that were found changed or gone since the start when they were read; the first few.
    #[serde(default)]
    pub in_place_changed: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FetchStatus {
    /// Objects that readers found here.
    pub local_hits: u64,
    /// Objects that were fetched, also ahead of readers, and their plain bytes.
    pub fetched: u64,
    pub fetched_bytes: u64,
    pub corrupt: u64,
    pub retries: u64,
    /// What each class got of what was fetched, the most urgent first.
    #[serde(default)]
    pub classes: Vec<ClassStatus>,
}

/// What is fetched for one reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassStatus {
    /// `fault` (a reader waits), `readahead`, `prefetch` or `replicate`.
    pub class: String,
    /// Plain bytes, since the start.
    pub bytes: u64,
    /// Bytes a second, in the last five seconds.
    pub rate: f64,
}
