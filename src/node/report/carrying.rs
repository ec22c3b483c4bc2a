//! What is asked and shown of datasets that are written out: as ordinary files, or into a bundle. Rules of `report`.
//!
//! Owns: these shapes. Must not know: how they come about. Invariant, trust and threads: as `report`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExportRequest {
    pub reference: String,
    pub dir: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exported {
    pub dir: PathBuf,
    pub snapshot: String,
    pub inodes: u64,
    pub bytes: u64,
    /// Metadata that this file system or user could not take: path and cause.
    pub warnings: Vec<String>,
    pub seconds: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleExportRequest {
    /// References of versions, all of one network.
    pub versions: Vec<String>,
    /// Absolute.
    pub file: PathBuf,
    /// A version that the reader of the file has: what it has is left out.
    #[serde(default)]
    pub since: Option<String>,
}

/// A version in a bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundledVersion {
    /// `NAME@VERSION`.
    pub reference: String,
    pub uri: String,
    pub snapshot: String,
    /// Sum of the file sizes, as its publisher says; of an encrypted one as sealed.
    pub bytes: u64,
    /// Why its publisher has withdrawn it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
}

/// How far the log in a bundle has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleHead {
    pub genesis: String,
    pub height: u64,
    pub time_ms: u64,
    /// Blocks in the file.
    pub blocks: u64,
    /// The log is shown to members of its network only.
    pub members_only: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleExported {
    pub file: PathBuf,
    pub file_bytes: u64,
    pub log: BundleHead,
    pub versions: Vec<BundledVersion>,
    pub since: Option<String>,
    /// Objects in the file, and their bytes as stored.
    pub objects: u64,
    pub stored_bytes: u64,
    /// The file was whole before.
    pub already: bool,
    /// Bytes of the file that an earlier, interrupted run had written.
    pub resumed_bytes: u64,
    pub seconds: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleImportRequest {
    /// Absolute.
    pub file: PathBuf,
    /// The network's id, or a URI of a version that is to be in the file; needed where the network is not known yet.
    #[serde(default)]
    pub expected: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleImported {
    pub log: BundleHead,
    /// This node did not belong to the network before.
    pub new_network: bool,
    /// Blocks that were new here, and the height that is known here now.
    pub new_blocks: u64,
    pub height: u64,
    /// Now pinned.
    pub versions: Vec<BundledVersion>,
    /// Objects in the file; those that were new here, and their bytes as stored.
    pub objects: u64,
    pub new_objects: u64,
    pub new_bytes: u64,
    pub seconds: f64,
}
