//! Rows over very many files.
//!
//! Owns: walking, mounting and publishing them again, and the daemon's memory meanwhile.
//! Must not know: how bcai keeps metadata.
//! Invariant: "first" means that daemon and kernel have both just started with the dataset: the daemon is new, the
//! page cache empty.
//! Trust: as `compare`. Threads: eight readers for the memory, otherwise one.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail};

use super::measure::{alternately, count, epoch, median, walk};
use super::report::Report;
use super::rows::Row;
use super::site::Site;
use super::{Bench, number, say};
use crate::corpus::{self, Kind};

const RUNS: usize = 3;
const MOUNTS: usize = 5;
const READERS: usize = 8;
/// Publishing again is repeated while it takes less than this, in seconds.
const QUICK: f64 = 30.0;

pub fn run(bench: &Bench, wanted: &BTreeSet<Row>, report: &mut Report) -> anyhow::Result<()> {
    say("very many files");
    let path = bench.corpus(Kind::Million)?;
    let names = count(&path, &bench.stop)?;
    let site = Site::publisher(bench, "n")?;
    let (_, seconds) = site.publish(&path, "million@v1")?;
    let files = corpus::files(&path)?.0.len() as f64;
    let first =
        format!("{names} names; the first publish took {seconds:.1} s, {:.0} files/s", files / seconds);
    for row in wanted {
        say(&row.name());
        match row {
            Row::FindFirst => {
                let bcai = || {
                    site.stop()?;
                    bench.cold()?;
                    let (mounted, _, _) = site.mount("million@v1")?;
                    let rate = walk(&mounted, names, &bench.stop)?;
                    site.unmount(&mounted)?;
                    Ok(rate)
                };
                let native = || {
                    bench.cold()?;
                    walk(&path, names, &bench.stop)
                };
                let (bcai, native) = alternately(RUNS, bcai, native)?;
                report.pair(*row, bcai, &format!("{} cold", report.file_system()), native);
                report.note(*row, first.clone());
            }
            Row::FindWarm => {
                let (mounted, _, _) = site.mount("million@v1")?;
                walk(&mounted, names, &bench.stop)?;
                walk(&path, names, &bench.stop)?;
                let bcai = || walk(&mounted, names, &bench.stop);
                let (bcai, native) = alternately(RUNS, bcai, || walk(&path, names, &bench.stop))?;
                report.pair(*row, bcai, &format!("{} warm", report.file_system()), native);
                site.unmount(&mounted)?;
            }
            Row::MountMillion => {
                let mut taken = Vec::new();
                for _ in 0..MOUNTS {
                    let (mounted, _, seconds) = site.mount("million@v1")?;
                    taken.push(seconds * 1e3);
                    site.unmount(&mounted)?;
                }
                report.value(*row, median(&taken));
            }
            Row::Memory => memory(bench, &site, &path, report)?,
            _ => republish(&site, &path, files, report)?,
        }
    }
    Ok(())
}

/// The highest resident memory of a daemon that mounts the dataset and has all of it read.
fn memory(bench: &Bench, site: &Site, path: &Path, report: &mut Report) -> anyhow::Result<()> {
    site.stop()?;
    let (mounted, _, _) = site.mount("million@v1")?;
    let (files, bytes) = corpus::files(path)?;
    let rate = epoch(&mounted, &files, bytes, READERS, &bench.stop)?;
    let pid = number(&site.status()?, "/pid")?;
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).context("cannot examine the daemon")?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()
    };
    let (Some(peak), Some(now)) = (kib("VmHWM:"), kib("VmRSS:")) else {
        bail!("the kernel does not say how much memory the daemon has");
    };
    report.value(Row::Memory, peak * 1024.0 / 1e6);
    let seconds = bytes as f64 / rate;
    report.note(
        Row::Memory,
        format!("{:.0} MB in the end; all {} files read in {seconds:.1} s", now * 1024.0 / 1e6, files.len()),
    );
    site.unmount(&mounted)
}

fn republish(site: &Site, path: &Path, files: f64, report: &mut Report) -> anyhow::Result<()> {
    let mut rates = Vec::new();
    for version in 2..2 + RUNS {
        let (published, seconds) = site.publish(path, &format!("million@v{version}"))?;
        if number(&published, "/ingest/new_objects")? != 0.0 {
            bail!("publishing an unchanged tree added objects");
        }
        rates.push(files / seconds);
        if seconds > QUICK {
            break;
        }
    }
    report.value(Row::Republish, median(&rates));
    Ok(())
}
