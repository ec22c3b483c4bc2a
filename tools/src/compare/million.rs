//! Rows over very many files.
//!
//! Owns: walking, mounting and publishing them again, and the daemon's memory meanwhile.
//! Must not know: how bcai keeps metadata.
//! Invariant: "first" means that daemon and kernel have both just started with the dataset: the daemon is new, the
//! page cache empty.
//! Trust: as `compare`. Threads: eight readers for the memory, otherwise one.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::bail;

use super::Bench;
use super::Report;
use super::rows::Row;
use crate::corpus::{self, Kind};
use crate::measure::{Resident, alternately, count, epoch, median, resident, walk};
use crate::report::Row as _;
use crate::scratch::{number, say};
use crate::site::Site;

const RUNS: usize = 3;
const MOUNTS: usize = 5;
const READERS: usize = 8;
/// Publishing again is repeated while it takes less than this, in seconds.
const QUICK: f64 = 30.0;

pub fn run(bench: &Bench, wanted: &BTreeSet<Row>, report: &mut Report) -> anyhow::Result<()> {
    say("very many files");
    let path = bench.corpus(Kind::Million)?;
    let names = count(&path, &bench.scratch.stop)?;
    let site = Site::publisher(&bench.scratch, "n")?;
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
                    let rate = walk(&mounted, names, &bench.scratch.stop)?;
                    site.unmount(&mounted)?;
                    Ok(rate)
                };
                let native = || {
                    bench.cold()?;
                    walk(&path, names, &bench.scratch.stop)
                };
                let (bcai, native) = alternately(RUNS, bcai, native)?;
                report.pair(*row, bcai, &format!("{} cold", report.file_system()), native);
                report.note(*row, first.clone());
            }
            Row::FindWarm => {
                let (mounted, _, _) = site.mount("million@v1")?;
                walk(&mounted, names, &bench.scratch.stop)?;
                walk(&path, names, &bench.scratch.stop)?;
                let bcai = || walk(&mounted, names, &bench.scratch.stop);
                let (bcai, native) = alternately(RUNS, bcai, || walk(&path, names, &bench.scratch.stop))?;
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
    let rate = epoch(&mounted, &files, bytes, READERS, &bench.scratch.stop)?;
    let Resident { now, most: peak, .. } = resident(number(&site.status()?, "/pid")? as u32)?;
    report.value(Row::Memory, peak / 1e6);
    let seconds = bytes as f64 / rate;
    report.note(
        Row::Memory,
        format!("{:.0} MB in the end; all {} files read in {seconds:.1} s", now / 1e6, files.len()),
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
