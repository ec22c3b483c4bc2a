//! bcai beside other means to the same end, in one run.
//!
//! Owns: the command `compare`: which groups of rows run, in what order, and the scratch folder.
//! Must not know: how a row is measured (each group is a module), how results look (`report`).
//! Invariant: when it returns, however it does, no mount and no daemon that it started is left, and of its folder
//! only what was there before.
//! Trust: developers only. It runs programs it finds in PATH, and as root it drops the machine's page cache.
//! Threads: the main thread, with readers where a row has readers.

mod epochs;
mod ingest;
mod large;
mod looking;
mod million;
mod peers;
mod private;
mod rivals;
mod rows;
mod shards;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use crate::corpus::{self, Kind, Size};
use crate::scratch::{Scratch, remove};
use crate::{machine, report};
pub use rows::Row;

type Report = crate::report::Report<Row, Size>;

/// Measure bcai beside other means to the same end, and say which targets are met
///
/// At full scale it needs 20 GB of disk, 16 GB of memory and an hour. Other work on the machine spoils the figures.
#[derive(Debug, Args)]
pub struct Compare {
    /// Rows to measure; all, if none are named
    rows: Vec<Row>,

    /// A folder for corpora, stores and mounts: on the file system to compare with
    #[arg(long)]
    dir: PathBuf,

    #[command(flatten)]
    size: Size,

    /// The program to measure [default: `bcai` beside this one]
    #[arg(long)]
    bcai: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub fn run(self) -> anyhow::Result<()> {
        let wanted: BTreeSet<Row> =
            if self.rows.is_empty() { report::all().collect() } else { self.rows.into_iter().collect() };
        let bench = Bench::new(&self.dir, self.size, self.bcai)?;
        let mut report = Report::new(machine::describe(&bench.scratch.dir)?, self.size);
        bench.measure(&wanted, &mut report);
        drop(bench);
        report.print(self.json)
    }
}

/// What all groups need.
pub struct Bench {
    scratch: Scratch,
    /// Where corpora are found or made.
    corpora: PathBuf,
    size: Size,
    /// Corpora that were not there before.
    made: RefCell<BTreeSet<PathBuf>>,
}

/// A group of rows that share a corpus: measures those that are wanted.
type Group = fn(&Bench, &BTreeSet<Row>, &mut Report) -> anyhow::Result<()>;

/// Each with the rows that it measures and its corpora. The corpora are those that nobody needs after the group.
const GROUPS: &[(Group, &[Row], &[Kind])] = &[
    (large::run, rows::LARGE, &[Kind::Large]),
    (epochs::run, rows::FOLDER, &[Kind::ShardsV1, Kind::ShardsV2]),
    (ingest::run, rows::INGEST, &[]),
    (private::run, rows::PRIVATE, &[Kind::Small, Kind::Mixed]),
    (million::run, rows::MILLION, &[Kind::Million]),
];

impl Bench {
    fn new(dir: &Path, size: Size, bcai: Option<PathBuf>) -> anyhow::Result<Self> {
        let scratch = Scratch::new(dir, bcai)?;
        let corpora = dir.canonicalize().with_context(|| format!("cannot use {}", dir.display()))?;
        Ok(Self { scratch, corpora, size, made: RefCell::default() })
    }

    fn measure(&self, wanted: &BTreeSet<Row>, report: &mut Report) {
        for (group, rows, kinds) in GROUPS {
            let mut wanted: BTreeSet<Row> = rows.iter().filter(|row| wanted.contains(row)).copied().collect();
            if !self.is_root() {
                for row in wanted.extract_if(.., |row| row.is_cold()) {
                    report.skip(row, "needs root, to empty the page cache");
                }
            }
            if wanted.is_empty() {
                continue;
            }
            if let Err(error) = self.scratch.stop.check().and_then(|()| group(self, &wanted, report)) {
                report.fail(&wanted, &error);
            }
            // The next group shall have the disk and the page cache to itself.
            for kind in *kinds {
                self.forget(*kind);
            }
        }
    }

    /// A corpus, made if need be.
    fn corpus(&self, kind: Kind) -> anyhow::Result<PathBuf> {
        let corpus = corpus::make(kind, &self.corpora, self.size, &self.scratch.stop)?;
        if !corpus.found {
            self.made.borrow_mut().insert(corpus.path.clone());
        }
        Ok(corpus.path)
    }

    /// Removes a corpus, unless it was there before.
    fn forget(&self, kind: Kind) {
        let path = corpus::path(kind, &self.corpora, self.size);
        if self.made.borrow_mut().remove(&path) {
            remove(&path);
        }
    }

    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    /// Writes everything to disk and empties the page cache, so that what comes next is cold.
    fn cold(&self) -> anyhow::Result<()> {
        self.scratch.stop.check()?;
        rustix::fs::sync();
        let control = Path::new("/proc/sys/vm/drop_caches");
        fs::write(control, "3\n").context("cannot empty the page cache, which takes root")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for path in self.made.take() {
            remove(&path);
        }
    }
}
