//! An epoch during which the daemon is replaced.
//!
//! Owns: the epoch, and the installing of another program under the name of the one that runs.
//! Must not know: how a daemon hands over.
//! Invariant: each file is read once in each epoch, past what the kernel has kept; the daemon of every upgrade is another process.
//! Trust: as `survive`. Threads: two readers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::killing::daemon;
use super::readers::{Data, Noticed};
use super::rows::Row;
use super::{Report, Settings};
use crate::measure::seconds;
use crate::scratch::{Scratch, say};
use crate::site::Site;

const FOLDER: Data = Data { seed: 3, files: 6_000, len: 110_000 };
const READERS: u64 = 2;

pub fn run(
    scratch: &Scratch,
    settings: Settings,
    _: &BTreeSet<Row>,
    report: &mut Report,
) -> anyhow::Result<()> {
    say("a daemon that is replaced");
    let program = scratch.dir.join("bcai");
    install(&scratch.bcai, &program)?;
    let installed = Scratch { dir: scratch.dir.join("u"), bcai: program.clone(), stop: scratch.stop.clone() };
    fs::create_dir(&installed.dir).context("cannot create a folder")?;
    let node = Site::publisher(&installed, "n")?;
    node.publish(&FOLDER.write(&installed, "f")?, "folder@v1")?;
    let (dir, _, _) = node.mount("folder@v1")?;
    let (quiet, _) = epoch(&dir, |_| Ok(()))?;
    let (noticed, took) = epoch(&dir, |next| {
        for upgrade in 1..=u64::from(settings.upgrades) {
            while next.load(Ordering::Relaxed) < FOLDER.files * upgrade / (u64::from(settings.upgrades) + 1) {
                scratch.stop.check()?;
                thread::sleep(Duration::from_millis(5));
            }
            let before = daemon(&node);
            install(&scratch.bcai, &program)?;
            node.json(&["restart"])?;
            ensure!(daemon(&node) != before, "the daemon is the same as before");
        }
        Ok(())
    })?;
    let bad = noticed.failed.load(Ordering::Relaxed) + noticed.wrong.load(Ordering::Relaxed);
    report.value(Row::UpgradeFailed, bad as f64);
    report.note(
        Row::UpgradeFailed,
        format!("{} reads, {} upgrades", noticed.reads.load(Ordering::Relaxed), settings.upgrades),
    );
    for error in noticed.errors() {
        report.note(Row::UpgradeFailed, error);
    }
    report.value(Row::UpgradeStall, noticed.longest());
    report.note(Row::UpgradeStall, format!("without upgrades {:.0} ms", quiet.longest()));
    let (_, alone) = epoch(&dir, |_| Ok(()))?;
    report.pair(Row::UpgradeEpoch, took, "uninterrupted", alone);
    Ok(())
}

/// Puts a program in place of another, as installing does.
fn install(from: &Path, to: &Path) -> anyhow::Result<()> {
    let new = to.with_extension("new");
    fs::copy(from, &new).and_then(|_| fs::rename(&new, to)).context("cannot install the program")
}

/// Reads every file once while something else is done; what was noticed, and how many seconds it took.
fn epoch(
    dir: &Path,
    meanwhile: impl FnOnce(&AtomicU64) -> anyhow::Result<()>,
) -> anyhow::Result<(Noticed, f64)> {
    let (noticed, next) = (Noticed::default(), AtomicU64::new(0));
    let ((), took) = seconds(|| {
        thread::scope(|scope| {
            let reader = || loop {
                match next.fetch_add(1, Ordering::Relaxed) {
                    file if file < FOLDER.files => noticed.read(dir, FOLDER, file),
                    _ => return,
                }
            };
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(reader)).collect();
            let done = meanwhile(&next);
            for reader in readers {
                let Ok(()) = reader.join() else { bail!("a reader panicked") };
            }
            done
        })
    })?;
    Ok((noticed, took))
}
