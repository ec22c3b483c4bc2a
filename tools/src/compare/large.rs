//! Rows over one large file that the kernel reads by itself.
//!
//! Owns: making sure that it does, and the four ways of reading.
//! Must not know: how bcai brings that about.
//! Invariant: a file that is not passed through is measured all the same, with a note.
//! Trust: as `compare`. Threads: the main thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Bench;
use super::Report;
use super::rows::Row;
use crate::corpus::Kind;
use crate::corpus::bytes::Random;
use crate::measure::{MIB, PAGE, at_random, in_order, mapped, median};
use crate::scratch::{number, say};
use crate::site::Site;

const RUNS: usize = 7;
/// How long a file of 4 GiB may take to be copied to where the kernel can read it.
const PATIENCE: Duration = Duration::from_secs(300);
/// Reads that the daemon would notice some of.
const PROBES: usize = 64;

pub fn run(bench: &Bench, wanted: &BTreeSet<Row>, report: &mut Report) -> anyhow::Result<()> {
    say("a large file");
    let corpus = bench.corpus(Kind::Large)?;
    let site = Site::publisher(&bench.scratch, "l")?;
    site.publish(&corpus, "large@v1")?;
    let (mounted, io, _) = site.mount("large@v1")?;
    let (ours, theirs) = (mounted.join("tokens.bin"), corpus.join("tokens.bin"));
    let passed = io == "passthrough" && wait_until_passed_through(bench, &site, &ours)?;
    // At most 2^32 pages: that would be 16 TiB.
    let pages = (theirs.metadata()?.len() / PAGE as u64) as u32;
    let mut random = Random::of(bench.size.seed, 0);
    let places: Vec<u32> = (0..bench.size.of(400_000, 20_000).min(1_000_000))
        .map(|_| random.below(u64::from(pages)) as u32)
        .collect();
    let asked = number(&site.status()?, "/fetch/local_hits")?;
    let measure = |row: Row, path: &Path| {
        bench.scratch.stop.check()?;
        match row {
            Row::SeqWarm => Ok(in_order(path)? / MIB),
            Row::RandomReads => at_random(path, &places),
            Row::MmapSeq => mapped(path, 0..pages),
            _ => mapped(path, places.iter().copied()),
        }
    };
    let mut figures: BTreeMap<Row, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for round in 0..RUNS {
        let sides = [&ours, &theirs];
        warm(bench, [sides[round % 2], sides[1 - round % 2]], pages)?;
        for row in wanted {
            let (bcai, native) = figures.entry(*row).or_default();
            // What comes second finds the processor as the first has left it.
            if round % 2 == 0 {
                bcai.push(measure(*row, &ours)?);
                native.push(measure(*row, &theirs)?);
            } else {
                native.push(measure(*row, &theirs)?);
                bcai.push(measure(*row, &ours)?);
            }
        }
    }
    let file_system = report.file_system().to_owned();
    for (row, (bcai, native)) in figures {
        report.pair(row, median(&bcai), &file_system, median(&native));
    }
    if !passed || number(&site.status()?, "/fetch/local_hits")? != asked {
        for row in wanted {
            report.note(*row, format!("not passed through: io={io}"));
        }
    }
    Ok(())
}

/// Brings both files into the page cache anew and in the same way, one after the other. Where a file's pages lie in memory,
/// and in what groups, is luck and makes a difference of two times when they are mapped; pages that were written lie in
/// other groups again.
fn warm(bench: &Bench, files: [&PathBuf; 2], pages: u32) -> anyhow::Result<()> {
    if bench.is_root() {
        bench.cold()?;
    }
    for file in files {
        in_order(file)?;
        mapped(file, 0..pages)?;
    }
    Ok(())
}

/// Reads until reading asks nothing of the daemon, which copies the file in the background; false if it always does.
fn wait_until_passed_through(bench: &Bench, site: &Site, path: &Path) -> anyhow::Result<bool> {
    let reads = || number(&site.status()?, "/fetch/local_hits");
    let mut random = Random::of(bench.size.seed, 1);
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let before = reads()?;
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        // Pages that the kernel kept of the mount would ask nothing of the daemon either.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        let len = file.metadata()?.len();
        let mut buffer = [0; PAGE];
        // Elsewhere each time: the daemon has the chunks that it read last in memory, and does not count those.
        for _ in 0..PROBES {
            file.read_exact_at(&mut buffer, random.below(len - PAGE as u64))?;
        }
        drop(file);
        if reads()? == before {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}
