//! What is reported of origins.
//!
//! Owns, must not know, invariant: those of `report`, which is the name that all of this is used by.
//! Trust: none needed. Threads: pure values.

use serde::{Deserialize, Serialize};

/// An object store that is asked when no peer has an object. Counts are since the start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OriginStatus {
    pub url: String,
    pub requests: u64,
    pub failed: u64,
    pub bytes_in: u64,
}

/// What it took to put a snapshot into an origin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UploadReport {
    pub origin: String,
    /// All of it was there before.
    pub already: bool,
    /// Objects of the snapshot.
    pub objects: u64,
    /// Packs of what former versions had not put there, and how many of those were sent now.
    pub packs: u64,
    pub sent_packs: u64,
    pub sent_bytes: u64,
    pub seconds: f64,
}
