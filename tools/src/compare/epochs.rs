//! Rows over a folder of images: epochs with the data local. And the rows of `peers` and `shards`, which go on from it.
//!
//! Owns: the publisher of the folder, and its epochs.
//! Must not know: how bcai reads.
//! Invariant: both sides read the same files in the same order, which is shuffled as training does.
//! Trust: as `compare`. Threads: two readers.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;

use anyhow::Context;

use super::Report;
use super::rows::Row;
use super::{Bench, looking, peers, shards};
use crate::corpus::bytes::Random;
use crate::corpus::{self, Kind};
use crate::measure::{MIB, back, epoch, in_order, median};
use crate::scratch::say;
use crate::site::Site;

pub const READERS: usize = 2;
const RUNS: usize = 3;
const WARM_RUNS: usize = 5;

/// The folder of images, published.
pub struct Folder<'a> {
    pub site: Site<'a>,
    pub path: PathBuf,
    pub uri: String,
    pub files: Vec<PathBuf>,
    pub shuffled: Vec<PathBuf>,
    pub bytes: u64,
}

pub fn run(bench: &Bench, wanted: &BTreeSet<Row>, report: &mut Report) -> anyhow::Result<()> {
    say("a folder of images");
    let path = bench.corpus(Kind::Small)?;
    let (files, bytes) = corpus::files(&path)?;
    let mut shuffled = files.clone();
    Random::of(bench.size.seed, 0).shuffle(&mut shuffled);
    let site = Site::publisher(&bench.scratch, "p")?;
    let (published, _) = site.publish(&path, "small@v1")?;
    let uri = published["uri"].as_str().unwrap_or_default().to_owned();
    let folder = Folder { site, path, uri, files, shuffled, bytes };
    let any = |rows: &[Row]| rows.iter().any(|row| wanted.contains(row));
    if any(&[Row::EpochFirst, Row::EpochSecond]) {
        warm(bench, &folder, wanted, report)?;
    }
    if wanted.contains(&Row::EpochCold) {
        cold(bench, &folder, report)?;
    }
    if wanted.contains(&Row::LookingOn) {
        looking::run(bench, &folder, report)?;
    }
    peers::run(bench, &folder, wanted, report)?;
    if any(&[Row::ShardsOfFolder, Row::ShardsSecond]) {
        shards::run(bench, &folder, wanted, report)?;
    }
    Ok(())
}

impl Folder<'_> {
    /// MiB a second of one epoch in shuffled order.
    pub fn epoch(&self, bench: &Bench, top: &std::path::Path) -> anyhow::Result<f64> {
        Ok(epoch(top, &self.shuffled, self.bytes, READERS, &bench.scratch.stop)? / MIB)
    }

    /// Drops the pages of the source from the page cache.
    fn forget(&self) -> anyhow::Result<()> {
        for file in &self.files {
            let path = self.path.join(file);
            let open = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            rustix::fs::fadvise(&open, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        Ok(())
    }
}

/// Each first epoch has a mount of its own, of which the kernel has no pages yet, and the packs are in the page cache. What
/// it is compared with is the second time that the source is read: the third is faster again, because the kernel moves a
/// page to its list of active ones when it is read for the second time.
fn warm(bench: &Bench, folder: &Folder, wanted: &BTreeSet<Row>, report: &mut Report) -> anyhow::Result<()> {
    say("epochs, warm");
    let (mut first, mut second, mut native) = (Vec::new(), Vec::new(), Vec::new());
    let mut io = String::new();
    for _ in 0..WARM_RUNS {
        let (mounted, how, _) = folder.site.mount("small@v1")?;
        io = how;
        for pack in folder.site.packs()? {
            in_order(&pack)?;
        }
        back(folder.bytes)?;
        first.push(folder.epoch(bench, &mounted)?);
        second.push(folder.epoch(bench, &mounted)?);
        folder.forget()?;
        folder.epoch(bench, &folder.path)?;
        native.push(folder.epoch(bench, &folder.path)?);
        folder.site.unmount(&mounted)?;
    }
    for (row, figures) in [(Row::EpochFirst, first), (Row::EpochSecond, second)] {
        if wanted.contains(&row) {
            report.pair(row, median(&figures), &format!("{} warm", report.file_system()), median(&native));
            report.note(row, format!("io={io}"));
        }
    }
    Ok(())
}

/// Everything is dropped: the packs of bcai come from the disk as the files of the reference do.
fn cold(bench: &Bench, folder: &Folder, report: &mut Report) -> anyhow::Result<()> {
    say("epochs, cold");
    let (mut ours, mut native) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (mounted, _, _) = folder.site.mount("small@v1")?;
        bench.cold()?;
        ours.push(folder.epoch(bench, &mounted)?);
        folder.site.unmount(&mounted)?;
        bench.cold()?;
        native.push(folder.epoch(bench, &folder.path)?);
    }
    report.pair(Row::EpochCold, median(&ours), &format!("{} cold", report.file_system()), median(&native));
    Ok(())
}
