//! Many nodes on one machine, each behind a link of its own, in one run.
//!
//! Owns: the command `swarm`: its settings, and which groups of rows run in what order.
//! Must not know: how a row is measured (each group is a module), how results look (`report`).
//! Invariant: when it returns, however it does, no node, no namespace and no file of it is left.
//! Trust: developers only; it needs root, to make network namespaces.
//! Threads: the main thread, with one for each receiver.

mod crowd;
mod distance;
mod fan_out;
mod faults;
mod field;
mod hostile;
mod http;
mod memory;
mod rows;
mod set_up;
mod tuning;

use std::fmt;

use anyhow::ensure;
use bcai_lan::Rate;
use bytesize::ByteSize;
use clap::Args;
use serde::{Serialize, Serializer};

use crate::groups::{Groups, Place};
use crate::report;
pub use crowd::Crowd;
pub use distance::Distance;
pub use hostile::Peer;
use rows::Row;

type Report = report::Report<Row, Settings>;

/// Measure many nodes on one machine, each in a network namespace behind a shaped link, and say which targets are met
///
/// Needs root, `ip` and `tc`. Other work on the machine spoils the figures: all nodes share its processors.
#[derive(Debug, Args)]
pub struct Swarm {
    /// Rows to measure; all, if none are named
    rows: Vec<Row>,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Copy, Args, Serialize)]
pub struct Settings {
    /// Nodes that fetch at the same moment
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    receivers: u8,

    /// What each link carries, in either direction
    #[arg(long, default_value = "200mbit")]
    #[serde(serialize_with = "text")]
    rate: Rate,

    /// What each of them fetches
    #[arg(long, default_value = "233MB", value_parser = size)]
    size: u64,

    /// The median of so many runs counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    runs: u8,

    /// How long memory is watched
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    minutes: u8,
}

fn text<S: Serializer>(rate: &Rate, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(rate)
}

fn size(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.parse()?;
    match size.as_u64() {
        bytes if bytes >= 1_000_000 => Ok(bytes),
        _ => Err("at least 1MB".to_owned()),
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { receivers, rate, size, runs, minutes } = self;
        let size = *size as f64 / 1e6;
        write!(
            f,
            "{receivers} receivers, links of {rate}, {size:.0} MB, median of {runs} runs, memory for {minutes} min."
        )
    }
}

const GROUPS: Groups<Row, Settings> = &[
    (fan_out::run, rows::FAN_OUT),
    (faults::run, rows::FAULTS),
    (memory::run, rows::MEMORY),
    (set_up::run, rows::SET_UP),
    (tuning::run, rows::TUNING),
];

impl Swarm {
    pub fn run(self) -> anyhow::Result<()> {
        ensure!(rustix::process::geteuid().is_root(), "network namespaces take root");
        self.place.measure(self.rows, self.settings, GROUPS)
    }
}
