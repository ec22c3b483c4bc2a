//! How long a reader waits while something else fills the link.
//!
//! Owns: the reads, one after the other, and the prefetch beside them.
//! Must not know: how urgent and bulk are told apart.
//! Invariant: every read is the first of its file on this node, so that it goes over the link; directories are here before. A read
//! counts as beside the prefetch only if that went on when it ended.
//! Trust: as `swarm`. Threads: the main thread reads, another one prefetches.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::field::{self, Field};
use super::rows::Row;
use super::{Report, Settings};
use crate::corpus::bytes::Random;
use crate::measure::{count, percentile, seconds};
use crate::report::Row as _;
use crate::scratch::{Scratch, say};

/// Files to be read, and their bytes.
const FILES: u64 = 4_000;
const FILE: u64 = 64 << 10;
/// Of them, those that are read while the link is idle.
const IDLE: usize = 1_000;
/// What a prefetch needs to get under way.
const FILLING: Duration = Duration::from_secs(1);

pub fn run(
    scratch: &Scratch,
    settings: Settings,
    wanted: &BTreeSet<Row>,
    report: &mut Report,
) -> anyhow::Result<()> {
    say(&Row::FaultLatency.name());
    let field = Field::new(scratch, 2, Some(settings.rate))?;
    let source = field.source()?;
    let small = field::files(scratch, "small", 3, FILES, FILE)?;
    let (uri, _) = field::publish(&source, &small, "small@v1")?;
    let bulk = field::megabytes(scratch, "bulk", 4, settings.size)?;
    let (bulk, _) = field::publish(&source, &bulk, "bulk@v1")?;
    let reader = field.site(1, &[])?;
    let (mounted, _, _) = reader.mount(&uri)?;
    // Directories are fetched by this.
    count(&mounted, &scratch.stop)?;
    let mut files: Vec<PathBuf> = (0..FILES).map(|number| mounted.join(format!("{number:05}.bin"))).collect();
    Random::of(3, FILES).shuffle(&mut files);
    let mut files = files.into_iter();
    let mut idle = Vec::new();
    for path in files.by_ref().take(IDLE) {
        scratch.stop.check()?;
        idle.push(read(&path)?);
    }

    let (mut busy, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..settings.runs {
        reader.json(&["prefetch", &bulk, "--evict"])?;
        let done = AtomicBool::new(false);
        let taken = thread::scope(|scope| {
            let prefetching = scope.spawn(|| {
                let taken = seconds(|| reader.json(&["prefetch", &bulk]));
                done.store(true, Ordering::Relaxed);
                Ok(taken?.1)
            });
            thread::sleep(FILLING);
            for path in files.by_ref() {
                let milliseconds = read(&path)?;
                if done.load(Ordering::Relaxed) {
                    break;
                }
                busy.push(milliseconds);
            }
            prefetching.join().unwrap_or_else(|_| bail!("the prefetch panicked"))
        })?;
        rates.push(settings.size as f64 / taken / settings.rate.bytes_per_second());
    }
    ensure!(busy.len() >= 100, "only {} reads beside a prefetch: use a larger --size", busy.len());
    let (before, beside) = (percentile(&idle, 99.0), percentile(&busy, 99.0));
    for (row, value) in [(Row::FaultLatency, beside), (Row::FaultAdded, beside - before)] {
        if wanted.contains(&row) {
            report.value(row, value);
        }
    }
    let shown = |values: &[f64]| {
        format!(
            "{} reads, p50 {:.1} ms, p99 {:.1} ms",
            values.len(),
            percentile(values, 50.0),
            percentile(values, 99.0)
        )
    };
    let rates: Vec<String> = rates.iter().map(|rate| format!("{rate:.2}")).collect();
    report.note(
        Row::FaultLatency,
        format!(
            "idle: {}; beside a prefetch: {}; that had {} of the link's rate",
            shown(&idle),
            shown(&busy),
            rates.join(", ")
        ),
    );
    reader.unmount(&mounted)
}

/// Milliseconds that reading a file takes.
fn read(path: &Path) -> anyhow::Result<f64> {
    let (bytes, seconds) =
        seconds(|| fs::read(path).with_context(|| format!("cannot read {}", path.display())))?;
    ensure!(bytes.len() as u64 == FILE, "{} has {} bytes", path.display(), bytes.len());
    Ok(seconds * 1e3)
}
