//! How long the manifest log takes to decide, and how much it decides.
//!
//! Owns: the command `log`: its settings, and which rows run in what order.
//! Must not know: how a row is measured (each group is a module), how results look (`report`).
//! Invariant: when it returns, however it does, no node and no file of it is left.
//! Trust: developers only. Threads: the main thread; a runtime of two threads submits.

mod load;
mod publishing;
mod rows;

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::groups::{Groups, Place};
use crate::report;
use rows::Row;

type Report = report::Report<Row, Settings>;

/// Measure how fast the manifest log decides, with one and with four validators, and say which targets are met
///
/// All validators are on this machine and share its processors and its disk, whose fdatasync is the reference. The row in
/// virtual time, of 100 validators over a wide area, comes from a test: see docs/PERFORMANCE.md.
#[derive(Debug, Args)]
pub struct Log {
    /// Rows to measure; all, if none are named
    rows: Vec<Row>,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Copy, Args, Serialize)]
pub struct Settings {
    /// Versions that are published for each of the first two rows
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(4..=1_000))]
    publishes: u16,

    /// How long entries are submitted
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} publishes, entries for {} s.", self.publishes, self.seconds)
    }
}

const GROUPS: Groups<Row, Settings> = &[
    (publishing::alone, &[Row::OneValidator]),
    (publishing::together, &[Row::FourValidators, Row::Entries]),
];

impl Log {
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
