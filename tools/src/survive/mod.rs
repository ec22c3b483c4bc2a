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

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::scratch::Scratch;
use crate::{machine, report};
use rows::Row;

type Report = report::Report<Row, Settings>;

/// Kill and replace the daemon under those who use its mounts, and say which targets are met
#[derive(Debug, Args)]
pub struct Survive {
    /// Rows to measure; all, if none are named
    rows: Vec<Row>,

    #[command(flatten)]
    settings: Settings,

    /// A folder for the homes, its path short
    #[arg(long)]
    dir: PathBuf,

    /// The program to measure [default: `bcai` beside this one]
    #[arg(long)]
    bcai: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
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

/// A group of rows: measures them all.
type Group = fn(&Scratch, Settings, &mut Report) -> anyhow::Result<()>;

const GROUPS: &[(Group, &[Row])] = &[
    (killing::run, &[Row::KillWrong, Row::KillFailed, Row::KillLost, Row::KillStall, Row::Supervisor]),
    (upgrading::run, &[Row::UpgradeFailed, Row::UpgradeStall, Row::UpgradeEpoch]),
];

impl Survive {
    pub fn run(self) -> anyhow::Result<()> {
        let wanted: BTreeSet<Row> =
            if self.rows.is_empty() { report::all().collect() } else { self.rows.into_iter().collect() };
        let scratch = Scratch::new(&self.dir, self.bcai)?;
        let mut report = Report::new(machine::describe(&scratch.dir)?, self.settings);
        for (group, rows) in GROUPS {
            if rows.iter().all(|row| !wanted.contains(row)) {
                continue;
            }
            let checked = scratch.stop.check();
            if let Err(error) = checked.and_then(|()| group(&scratch, self.settings, &mut report)) {
                report.fail(&rows.iter().copied().collect(), &error);
            }
        }
        drop(scratch);
        report.print(self.json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_group() {
        let mut grouped: Vec<Row> = GROUPS.iter().flat_map(|(_, rows)| rows.iter().copied()).collect();
        grouped.sort();
        assert!(grouped.into_iter().eq(report::all()));
    }
}
