//! The rows of the table.
//!
//! Owns: their names, what each measures and against what, and the targets.
//! Must not know: how they are measured.
//! Invariant: a row has one unit on both sides; where there is a reference, more is better.
//! Trust: none needed. Threads: plain values.

use clap::ValueEnum;
use serde::Serialize;

use crate::report::{self, Goal};

/// One comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    SeqWarm,
    RandomReads,
    MmapSeq,
    MmapRandom,
    EpochFirst,
    EpochSecond,
    EpochCold,
    LookingOn,
    EpochPeer,
    EpochPeerShuffled,
    EpochOverBudget,
    BudgetDisk,
    ShardsOfFolder,
    ShardsSecond,
    Ingest,
    IngestCp,
    IngestRestic,
    IngestRustic,
    IngestBorg,
    IngestCasync,
    EncryptedIngest,
    EncryptedFirst,
    EncryptedSecond,
    EncryptedCold,
    EncryptedEdit,
    KeyRotation,
    FindFirst,
    FindWarm,
    MountMillion,
    Memory,
    Republish,
}

pub const LARGE: &[Row] = &[Row::SeqWarm, Row::RandomReads, Row::MmapSeq, Row::MmapRandom];
pub const FOLDER: &[Row] = &[
    Row::EpochFirst,
    Row::EpochSecond,
    Row::EpochCold,
    Row::LookingOn,
    Row::EpochPeer,
    Row::EpochPeerShuffled,
    Row::EpochOverBudget,
    Row::BudgetDisk,
    Row::ShardsOfFolder,
    Row::ShardsSecond,
];
pub const INGEST: &[Row] =
    &[Row::Ingest, Row::IngestCp, Row::IngestRestic, Row::IngestRustic, Row::IngestBorg, Row::IngestCasync];
pub const PRIVATE: &[Row] = &[
    Row::EncryptedIngest,
    Row::EncryptedFirst,
    Row::EncryptedSecond,
    Row::EncryptedCold,
    Row::EncryptedEdit,
    Row::KeyRotation,
];
pub const MILLION: &[Row] = &[Row::FindFirst, Row::FindWarm, Row::MountMillion, Row::Memory, Row::Republish];

impl report::Row for Row {
    fn what(self) -> &'static str {
        match self {
            Self::SeqWarm => "large file, read in order, warm",
            Self::RandomReads => "large file, 4 KiB at random, warm",
            Self::MmapSeq => "large file, mapped, pages in order, warm",
            Self::MmapRandom => "large file, mapped, pages at random, warm",
            Self::EpochFirst => "epoch, first after mount, packs in page cache",
            Self::EpochSecond => "epoch, second",
            Self::EpochCold => "epoch, first after mount, nothing in memory",
            Self::LookingOn => "of the node's processor time in an epoch, what metrics, top and page take",
            Self::EpochPeer => "epoch from a peer, in order, nothing local",
            Self::EpochPeerShuffled => "epoch from a peer, shuffled, nothing local",
            Self::EpochOverBudget => "epoch from a peer, cache a third of the data",
            Self::BudgetDisk => "its peak disk use, in parts of the budget",
            Self::ShardsOfFolder => "tar shards of a published folder: added of their bytes",
            Self::ShardsSecond => "shards with 1% new records: added of the new bytes",
            Self::Ingest
            | Self::IngestCp
            | Self::IngestRestic
            | Self::IngestRustic
            | Self::IngestBorg
            | Self::IngestCasync => "publish mixed data from page cache",
            Self::EncryptedIngest => "publish mixed data, encrypted",
            Self::EncryptedFirst => "encrypted: epoch, first after mount, packs in page cache",
            Self::EncryptedSecond => "encrypted: epoch, second",
            Self::EncryptedCold => "encrypted: epoch, first after mount, nothing in memory",
            Self::EncryptedEdit => "encrypted: added by a version with 1% of its files changed",
            Self::KeyRotation => "a dataset's key rotated and given to 10 readers",
            Self::FindFirst => "lstat of everything, first after mount",
            Self::FindWarm => "lstat of everything, again",
            Self::MountMillion => "mount, metadata local",
            Self::Memory => "daemon's peak resident memory, 8 readers",
            Self::Republish => "publish an unchanged tree again",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::SeqWarm
            | Self::EpochFirst
            | Self::EpochSecond
            | Self::EpochCold
            | Self::EpochPeer
            | Self::EpochPeerShuffled
            | Self::EpochOverBudget
            | Self::Ingest
            | Self::IngestCp
            | Self::IngestRestic
            | Self::IngestRustic
            | Self::IngestBorg
            | Self::IngestCasync
            | Self::EncryptedIngest
            | Self::EncryptedFirst
            | Self::EncryptedSecond
            | Self::EncryptedCold => "MiB/s",
            Self::RandomReads => "reads/s",
            Self::MmapSeq | Self::MmapRandom => "pages/s",
            Self::BudgetDisk | Self::ShardsSecond => "×",
            Self::LookingOn | Self::ShardsOfFolder | Self::EncryptedEdit => "%",
            Self::FindFirst | Self::FindWarm | Self::Republish => "files/s",
            Self::MountMillion | Self::KeyRotation => "ms",
            Self::Memory => "MB",
        }
    }

    fn goal(self) -> Goal {
        match self {
            Self::SeqWarm | Self::RandomReads | Self::MmapSeq | Self::MmapRandom => Goal::Ratio(0.9),
            Self::EpochFirst => Goal::Ratio(0.4),
            Self::EpochSecond | Self::EncryptedSecond => Goal::Ratio(0.95),
            Self::EncryptedIngest => Goal::Ratio(0.6),
            Self::EncryptedEdit => Goal::AtMost(2.0),
            Self::LookingOn => Goal::AtMost(1.0),
            Self::KeyRotation => Goal::AtMost(1000.0),
            Self::FindFirst => Goal::Ratio(1.0),
            Self::Ingest => Goal::Ratio(0.7),
            Self::IngestRestic | Self::IngestRustic | Self::IngestBorg | Self::IngestCasync => {
                Goal::Ratio(3.0)
            }
            Self::Republish => Goal::AtLeast(100_000.0),
            Self::BudgetDisk => Goal::AtMost(1.0),
            Self::ShardsOfFolder => Goal::AtMost(3.0),
            Self::ShardsSecond => Goal::AtMost(1.3),
            Self::MountMillion => Goal::AtMost(200.0),
            Self::Memory => Goal::AtMost(100.0),
            Self::EpochCold
            | Self::EpochPeer
            | Self::EpochPeerShuffled
            | Self::EpochOverBudget
            | Self::IngestCp
            | Self::EncryptedFirst
            | Self::EncryptedCold
            | Self::FindWarm => Goal::None,
        }
    }
}

impl Row {
    /// Whether it begins with an empty page cache, which only root can have.
    pub fn is_cold(self) -> bool {
        matches!(
            self,
            Self::EpochCold
                | Self::EpochPeer
                | Self::EpochPeerShuffled
                | Self::EncryptedCold
                | Self::FindFirst
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_group() {
        let mut grouped: Vec<Row> = [LARGE, FOLDER, INGEST, PRIVATE, MILLION].concat();
        grouped.sort();
        assert!(grouped.into_iter().eq(report::all::<Row>()));
    }
}
