//! Rows that are measured in groups, one after the other.
//!
//! Owns: where a run works, which groups a wish for rows means, and what becomes of the rows of a group that fails.
//! Must not know: how a row is measured.
//! Invariant: a group that fails costs its own rows, and no others. When it returns, however it does, the folder of the run
//! is gone.
//! Trust: developers only. Threads: the main thread.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::machine;
use crate::report::{self, Report, Row};
use crate::scratch::Scratch;

/// Where a run works, and how its results are printed.
#[derive(Debug, Args)]
pub struct Place {
    /// A folder for homes, stores and mounts, its path short, on the disk that is to be measured
    #[arg(long)]
    dir: PathBuf,

    /// The program to measure [default: `bcai` beside this one]
    #[arg(long)]
    bcai: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Measures those of its rows that are wanted.
pub type Group<R, S> = fn(&Scratch, S, &BTreeSet<R>, &mut Report<R, S>) -> anyhow::Result<()>;

/// Groups in their order, each with the rows that it measures.
pub type Groups<R, S> = &'static [(Group<R, S>, &'static [R])];

impl Place {
    /// Measures the rows that are named; all, if none are.
    pub fn measure<R: Row, S: Serialize + fmt::Display + Copy>(
        self,
        rows: Vec<R>,
        settings: S,
        groups: Groups<R, S>,
    ) -> anyhow::Result<()> {
        let wanted: BTreeSet<R> =
            if rows.is_empty() { report::all().collect() } else { rows.into_iter().collect() };
        let scratch = Scratch::new(&self.dir, self.bcai)?;
        let mut report = Report::new(machine::describe(&scratch.dir)?, settings);
        for (group, rows) in groups {
            let wanted: BTreeSet<R> = rows.iter().filter(|row| wanted.contains(row)).copied().collect();
            if wanted.is_empty() {
                continue;
            }
            let checked = scratch.stop.check();
            if let Err(error) = checked.and_then(|()| group(&scratch, settings, &wanted, &mut report)) {
                report.fail(&wanted, &error);
            }
        }
        drop(scratch);
        report.print(self.json)
    }
}

/// The rows of all groups, in the order of rows: a test of each command holds that against all rows there are.
#[cfg(test)]
pub fn grouped<R: Row, S>(groups: Groups<R, S>) -> Vec<R> {
    let mut grouped: Vec<R> = groups.iter().flat_map(|(_, rows)| rows.iter().copied()).collect();
    grouped.sort();
    grouped
}
