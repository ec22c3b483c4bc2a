//! Rows about how fast a folder becomes a version.
//!
//! Owns: publishing into a store that is new each time, LZ4 alone, and the order of the runs.
//! Must not know: how other programs are called (`rivals`).
//! Invariant: everyone has the same bytes, in the page cache, an empty place to put them, and is done when they are
//! on disk; but for LZ4 alone, which keeps nothing.
//! Trust: as `compare`. Threads: LZ4 alone has as many as bcai has for the work.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use anyhow::Context;

use super::Bench;
use super::Report;
use super::rivals::Rival;
use super::rows::Row;
use crate::corpus::{self, Kind};
use crate::measure::{MIB, back, in_order, median, seconds};
use crate::scratch::say;
use crate::site::Site;

const RUNS: usize = 5;
/// The average length of a chunk.
const PIECE: usize = 64 << 10;

pub fn run(bench: &Bench, wanted: &BTreeSet<Row>, report: &mut Report) -> anyhow::Result<()> {
    say("publishing");
    let path = bench.corpus(Kind::Mixed)?;
    // Reads all of it, so the page cache has it.
    let contents = contents(&path)?;
    let bytes = contents.iter().map(Vec::len).sum::<usize>();
    let mib = bytes as f64 / MIB;
    let threads = thread::available_parallelism().map_or(1, |count| count.get()).max(2);
    let mut rivals = Vec::new();
    for rival in Rival::ALL.iter().filter(|rival| wanted.contains(&rival.row())) {
        match rival.is_installed() {
            true => rivals.push(*rival),
            false => report.skip(rival.row(), &format!("{} is not installed", rival.program())),
        }
    }

    // Before each run: a virtual machine's host may have taken back the memory for what is written, and pages of what is read.
    let prepare = || -> anyhow::Result<()> {
        rustix::fs::sync();
        back(2 * bytes as u64)?;
        contents_again(&path)
    };
    let (mut ours, mut theirs) = (Vec::new(), BTreeMap::<Row, Vec<f64>>::new());
    for _ in 0..RUNS {
        ours.push(mib / publish(bench, &path, prepare)?);
        if wanted.contains(&Row::Ingest) {
            theirs.entry(Row::Ingest).or_default().push(mib / lz4_alone(&contents, threads)?);
        }
        for rival in &rivals {
            prepare()?;
            let seconds =
                rival.run(bench, &path).with_context(|| format!("cannot measure {}", rival.program()))?;
            theirs.entry(rival.row()).or_default().push(mib / seconds);
        }
    }
    let ours = median(&ours);
    for (row, figures) in theirs {
        let name = match Rival::ALL.iter().find(|rival| rival.row() == row) {
            Some(rival) => rival.shown(),
            None => "lz4_flex alone",
        };
        report.pair(row, ours, name, median(&figures));
    }
    report.note(Row::Ingest, format!("{mib:.0} MiB; LZ4 alone keeps nothing and runs on {threads} threads"));
    Ok(())
}

fn contents(top: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let (files, _) = corpus::files(top)?;
    let read = |file| fs::read(top.join(file)).context("cannot read the corpus");
    files.iter().map(read).collect()
}

/// Reads everything once more, so that the page cache has it.
fn contents_again(top: &Path) -> anyhow::Result<()> {
    for file in corpus::files(top)?.0 {
        in_order(&top.join(file))?;
    }
    Ok(())
}

/// Seconds of publishing into a new store.
fn publish(bench: &Bench, path: &Path, prepare: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let site = Site::publisher(&bench.scratch, "i")?;
    prepare()?;
    Ok(site.publish(path, "mixed@v1")?.1)
}

/// Seconds of compressing everything in pieces of a chunk's length.
fn lz4_alone(contents: &[Vec<u8>], threads: usize) -> anyhow::Result<f64> {
    let pieces: Vec<&[u8]> = contents.iter().flat_map(|file| file.chunks(PIECE)).collect();
    let next = AtomicUsize::new(0);
    let compress = || {
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            black_box(lz4_flex::block::compress(piece));
        }
    };
    let all = || {
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(compress);
            }
        });
        Ok(())
    };
    Ok(seconds(all)?.1)
}
