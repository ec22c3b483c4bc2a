//! Rows whose bytes come from another node on this machine.
//!
//! Owns: the reader, its cache budget, and watching its disk.
//! Must not know: how nodes talk.
//! Invariant: each epoch has a reader that has never run before.
//! Trust: as `compare`. Threads: two readers and one that watches the disk.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::Bench;
use super::Report;
use super::epochs::{Folder, READERS};
use super::rows::Row;
use crate::measure::{MIB, epoch, median};
use crate::scratch::{number, say};
use crate::site::Site;

const RUNS: usize = 3;
/// Between two looks at the disk.
const LOOK: Duration = Duration::from_millis(20);

pub fn run(
    bench: &Bench,
    folder: &Folder,
    wanted: &BTreeSet<Row>,
    report: &mut Report,
) -> anyhow::Result<()> {
    for (row, files) in [(Row::EpochPeer, &folder.files), (Row::EpochPeerShuffled, &folder.shuffled)] {
        if !wanted.contains(&row) {
            continue;
        }
        say("epochs from a peer");
        let (mut ours, mut native) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let reader = Site::new(&bench.scratch, "r")?;
            let (mounted, _, _) = reader.mount(&folder.uri)?;
            bench.cold()?;
            ours.push(epoch(&mounted, files, folder.bytes, READERS, &bench.scratch.stop)? / MIB);
            drop(reader);
            bench.cold()?;
            native.push(epoch(&folder.path, files, folder.bytes, READERS, &bench.scratch.stop)? / MIB);
        }
        report.pair(row, median(&ours), &format!("{} cold", report.file_system()), median(&native));
    }
    if wanted.contains(&Row::EpochOverBudget) || wanted.contains(&Row::BudgetDisk) {
        over_budget(bench, folder, wanted, report)?;
    }
    Ok(())
}

/// More data than the cache may hold.
fn over_budget(
    bench: &Bench,
    folder: &Folder,
    wanted: &BTreeSet<Row>,
    report: &mut Report,
) -> anyhow::Result<()> {
    say("an epoch that the cache cannot hold");
    let budget = folder.bytes / 3;
    let reader = Site::with(&bench.scratch, "r", &[format!("cache.max_bytes={budget}B")])?;
    let (mounted, _, _) = reader.mount(&folder.uri)?;
    let done = AtomicBool::new(false);
    let store = reader.home().join("store");
    let (rate, peak) = thread::scope(|scope| {
        let watch = scope.spawn(|| watch(&store, &done));
        let rate = epoch(&mounted, &folder.shuffled, folder.bytes, READERS, &bench.scratch.stop);
        done.store(true, Ordering::Relaxed);
        (rate, watch.join())
    });
    let rate = rate?;
    let Ok(peak) = peak else { anyhow::bail!("watching {} failed", store.display()) };
    let evicted = number(&reader.status()?, "/store/evicted")?;
    if wanted.contains(&Row::EpochOverBudget) {
        report.value(Row::EpochOverBudget, rate / MIB);
        let seconds = folder.bytes as f64 / rate;
        report.note(
            Row::EpochOverBudget,
            format!("complete in {seconds:.1} s; {evicted} objects were evicted, one run"),
        );
    }
    if wanted.contains(&Row::BudgetDisk) {
        report.value(Row::BudgetDisk, peak as f64 / budget as f64);
        let mib = |bytes: u64| bytes as f64 / MIB;
        report.note(
            Row::BudgetDisk,
            format!(
                "{:.1} MiB of packs and blob files at the most, budget {:.1} MiB",
                mib(peak),
                mib(budget)
            ),
        );
    }
    Ok(())
}

/// The most bytes that packs and blob files occupied until `done`.
fn watch(store: &Path, done: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !done.load(Ordering::Relaxed) {
        peak = higher(peak, || occupied(store.join("packs")) + occupied(store.join("files")));
        thread::sleep(LOOK);
    }
    peak
}

/// The peak after another look. Files are looked at one after the other, so what moves from one to the other meanwhile
/// is counted twice: a higher sum counts as far as a second look confirms it.
fn higher(peak: u64, look: impl Fn() -> u64) -> u64 {
    let now = look();
    if now > peak { peak.max(now.min(look())) } else { peak }
}

/// Bytes on disk below `top`, not counting holes. What vanishes while we look occupies nothing.
fn occupied(top: PathBuf) -> u64 {
    let (mut sum, mut pending) = (0, vec![top]);
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => pending.push(entry.path()),
                // Blocks of 512 bytes.
                Ok(meta) => sum += meta.blocks() * 512,
                Err(_) => {}
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_sum_counts_when_it_is_seen_twice() {
        let peak = |peak, looks: &[u64]| {
            let left = RefCell::new(looks.iter());
            higher(peak, || *left.borrow_mut().next().expect("two looks at most"))
        };
        assert_eq!(peak(10, &[9]), 10);
        assert_eq!(peak(10, &[30, 12]), 12);
        assert_eq!(peak(10, &[30, 8]), 10);
        assert_eq!(peak(10, &[30, 31]), 30);
    }
}
