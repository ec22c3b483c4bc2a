//! What is asked and shown of what is kept in the store: `bcai gc`, the scrub. Rules of `report`.
//!
//! Owns: these shapes. Must not know: how they come about. Invariant, trust and threads: as `report`.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GcRequest {
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// What went, or would go, and what stays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Collected {
    pub dry_run: bool,
    /// All snapshots that were built here.
    pub snapshots: Vec<KeptSnapshot>,
    /// Published objects that went, and bytes of their records.
    pub objects: u64,
    pub bytes: u64,
    /// Of those that went, bytes that lie in files of the user's which were published in place, and stay there.
    pub in_place_bytes: u64,
    /// Those that stay.
    pub kept_objects: u64,
    pub kept_bytes: u64,
}

/// What hashing the store again in the background has come to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Objects hashed in this round.
    pub objects: u64,
    /// When the last whole round ended, in milliseconds since 1970, UTC.
    pub whole_unix_ms: Option<u64>,
    /// Damaged objects that were fetched again since the start.
    pub repaired: u64,
    /// What is damaged, and where, and could not be fetched again.
    pub damaged: Vec<String>,
}

/// A snapshot that was built here, and why it stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSnapshot {
    pub snapshot: String,
    /// The directory it was built of.
    pub source: String,
    pub bytes: u64,
    /// `NAME@VERSION` of every version that it is.
    pub versions: Vec<String>,
    pub held: Held,
    /// From when on a gc takes it away, in milliseconds since 1970, UTC; nothing for what stays.
    pub goes_unix_ms: Option<u64>,
    /// Whether that is now.
    pub goes: bool,
}

/// What holds a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// A version.
    Published,
    /// Validators were asked to make a version of it, and the log here does not have it, or not yet.
    Submitted,
    /// Every version of it was withdrawn, and it stays for a time.
    Withdrawn,
    /// It is in no version, and stays for a time.
    Unpublished,
}
