//! What is asked and answered when a version is named or withdrawn.
//!
//! Owns, must not know, invariant: those of `report`, which is the name that all of this is used by.
//! Trust: requests come from this machine's user and are checked where they are used. Threads: pure values.

use serde::{Deserialize, Serialize};

/// Moves a tag.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TagRequest {
    pub name: String,
    pub tag: String,
    pub version: String,
}

/// Withdraws a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct YankRequest {
    /// `NAME@VERSION`.
    pub target: String,
    pub reason: String,
}

/// That an entry was decided.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decided {
    /// Height and round whose certificate covers it.
    pub height: u64,
    pub round: u32,
    /// It was so before.
    pub already: bool,
}
