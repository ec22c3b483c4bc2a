//! What is asked and answered about who has signed what of a log.
//!
//! Owns, must not know, invariant: those of `report`, which is the name that all of this is used by.
//! Trust: requests come from this machine's user and are checked where they are used. Threads: pure values.

use serde::{Deserialize, Serialize};

/// Certificates of a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificatesRequest {
    /// Its id.
    pub network: String,
    /// Heights, separated by commas; if none are named, the newest ones.
    #[serde(default)]
    pub heights: String,
}

/// Which network is meant; the default one if nobody says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NetworkRequest {
    #[serde(default)]
    pub network: Option<String>,
}

/// Who has made a height final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeightCertificate {
    pub height: u64,
    pub header: String,
    pub time_ms: u64,
    pub round: u32,
    pub entries: usize,
    /// Weight of those who have signed, and of all who could.
    pub signed_weight: u64,
    pub weight: u64,
    /// All who could.
    pub seats: Vec<Seat>,
}

/// A validator at one height.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The key it votes with.
    pub voter: String,
    pub weight: u64,
    pub signed: bool,
}
