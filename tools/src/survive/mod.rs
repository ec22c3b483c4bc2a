//! What those who use a mount notice of its daemon's end: killed, or replaced by another version.
//!
//! Owns: the command `survive`: its settings, and which rows run in what order.
//! Must not know: how a row is measured (each group is a module), how results look (`report`).
//! Invariant: when it returns, however it does, no node and no file of it is left.
//! Trust: developers only. Threads: the main thread kills; readers, a publisher and one who mounts are threads of their own.

mod killing;
mod readers;
mod rows;
mod upgrading;

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::groups::{Groups, Place};
use crate::report;
use rows::Row;

type Report = report::Report<Row, Settings>;

/// Kill and replace the daemon under those who use its mounts, and say which targets are met
#[derive(Debug, Args)]
pub struct Survive {
    /// Rows to measure; all, if none are named
    rows: Vec<Row>,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Copy, Args, Serialize)]
pub struct Settings {
    /// How often the daemon is killed
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    kills: u16,

    /// How often it is replaced during an epoch
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    upgrades: u8,

    /// For the times between kills, and for the data
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kills, {} upgrades, seed {}.", self.kills, self.upgrades, self.seed)
    }
}

const GROUPS: Groups<Row, Settings> = &[
    (killing::run, &[Row::KillWrong, Row::KillFailed, Row::KillLost, Row::KillStall, Row::Supervisor]),
    (upgrading::run, &[Row::UpgradeFailed, Row::UpgradeStall, Row::UpgradeEpoch]),
];

impl Survive {
    pub fn run(self) -> anyhow::Result<()> {
        self.place.measure(self.rows, self.settings, GROUPS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::grouped;

    #[test]
    fn every_row_is_in_one_group() {
        assert!(grouped(GROUPS).into_iter().eq(report::all()));
    }
}
