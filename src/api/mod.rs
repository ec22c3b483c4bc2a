//! The one way into a running node: HTTP with JSON over a unix socket; and a page to look at it, where that is wanted.
//!
//! Owns: the routes (`server`; those that only look in `reading`), a client for them (`client`), and the page (`web`).
//! Must not know: how anything is done (that is `node`) or shown (that is `cli`).
//! Invariant: only the user who runs the daemon, or root, is ever served on the socket. The page changes nothing.
//! Trust: the socket is 0600 in a 0700 folder and each connection's credentials are checked as well; bodies are
//! bounded and parsed strictly.
//! Threads: async tasks of the daemon's runtime; the client runs on the caller's.

mod client;
mod reading;
mod server;
mod web;

pub use client::Client;
pub use server::serve;
pub use web::serve as serve_page;

/// Routes, each named once for both sides.
pub mod route {
    pub const STATUS: &str = "/v1/status";
    pub const SETTINGS: &str = "/v1/settings";
    pub const STOP: &str = "/v1/stop";
    pub const RESTART: &str = "/v1/restart";
    pub const CREATE: &str = "/v1/network/create";
    pub const JOIN: &str = "/v1/network/join";
    pub const SNAPSHOT: &str = "/v1/snapshot";
    pub const PUBLISH: &str = "/v1/publish";
    pub const TAG: &str = "/v1/tag";
    pub const YANK: &str = "/v1/yank";
    pub const MOUNT: &str = "/v1/mount";
    pub const MOUNT_WAIT: &str = "/v1/mount/wait";
    pub const REMOUNT: &str = "/v1/remount";
    pub const UNMOUNT: &str = "/v1/unmount";
    pub const DATASETS: &str = "/v1/datasets";
    pub const LOG: &str = "/v1/log";
    pub const LOG_PROOF: &str = "/v1/log/proof";
    pub const CHECKPOINT: &str = "/v1/log/checkpoint";
    pub const COSIGN: &str = "/v1/log/cosign";
    pub const LS: &str = "/v1/ls";
    pub const RESOLVE: &str = "/v1/resolve";
    pub const DIFF: &str = "/v1/diff";
    pub const READ: &str = "/v1/read";
    pub const EXPORT: &str = "/v1/export";
    pub const BUNDLE_EXPORT: &str = "/v1/bundle/export";
    pub const BUNDLE_IMPORT: &str = "/v1/bundle/import";
    pub const VERIFY: &str = "/v1/verify";
    pub const GC: &str = "/v1/gc";
    pub const TRACE: &str = "/v1/trace";
    pub const CACHE: &str = "/v1/cache";
    pub const PREFETCH: &str = "/v1/prefetch";
    pub const PIN: &str = "/v1/pin";
    pub const UNPIN: &str = "/v1/unpin";
    pub const KEYS: &str = "/v1/keys";
    pub const KEYS_ROTATE: &str = "/v1/keys/rotate";
    pub const KEYS_ROTATE_DATASET: &str = "/v1/keys/rotate-dataset";
    pub const KEYS_RIGHTS: &str = "/v1/keys/rights";
    pub const VALIDATORS: &str = "/v1/validators";
    pub const PEERS: &str = "/v1/peers";
    pub const PEER_ADD: &str = "/v1/peers/add";
    pub const PEER_BLOCK: &str = "/v1/peers/block";
    pub const PEER_ALLOW: &str = "/v1/peers/allow";
    pub const LIMIT: &str = "/v1/peers/limit";
    pub const CERTIFICATES: &str = "/v1/certificates";
    pub const JOBS: &str = "/v1/jobs";
    pub const JOB_EVENTS: &str = "/v1/jobs/events";
    pub const ALERTS: &str = "/v1/alerts";
    pub const ALERTS_ACK: &str = "/v1/alerts/ack";
    /// For Prometheus, and in bug reports.
    pub const METRICS: &str = "/metrics";
    /// For loaders; no command uses it.
    pub const HINTS: &str = "/v1/hints";
}
