//! The daemon killed again and again while everything is at work.
//!
//! Owns: the load, and when the daemon is killed.
//! Must not know: what a kill leaves; that is found out.
//! Invariant: at every kill eight readers are at work on two mounts, whose contents do not fit into the cache, one publishes and
//! one mounts. What a command could not do because its daemon died is done again; what a reader could not do counts.
//! Trust: as `survive`. Threads: as named.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::readers::{Data, Noticed};
use super::rows::Row;
use super::{Report, Settings};
use crate::corpus::bytes::Random;
use crate::measure::{MIB, percentile};
use crate::scratch::{Scratch, number, say};
use crate::site::Site;

/// What is read over the network and does not fit into the cache.
const FETCHED: Data = Data { seed: 1, files: 300, len: 256 << 10 };
const CACHE: &str = "cache.max_bytes=40MiB";
/// What is read of the own store.
const OWN: Data = Data { seed: 2, files: 100, len: 128 << 10 };
/// What each further version holds.
const VERSION: Data = Data { seed: 0, files: 8, len: 128 << 10 };
const READERS: u64 = 8;
/// Between two kills, in milliseconds, once all readers have gone on.
const BETWEEN: (u64, u64) = (200, 2500);
/// Until everybody has gone on after a kill.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(
    scratch: &Scratch,
    settings: Settings,
    _: &BTreeSet<Row>,
    report: &mut Report,
) -> anyhow::Result<()> {
    say("a daemon that is killed");
    let source = Site::publisher(scratch, "s")?;
    let node = Site::with(scratch, "n", &[CACHE.to_owned()])?;
    node.json(&["init"])?;
    let (published, _) = source.publish(&FETCHED.write(scratch, "fetched")?, "fetched@v1")?;
    node.publish(&OWN.write(scratch, "own")?, "own@v1")?;
    let (fetched, _, _) = node.mount(published["uri"].as_str().unwrap_or_default())?;
    let (own, _, _) = node.mount("own@v1")?;
    let status = node.status()?;
    let kept =
        status["mounts"].as_array().map_or(0, |rows| rows.iter().filter(|row| row["kept"] == true).count());
    ensure!(kept == 2, "the mounts of this machine end with their daemon: {status}");
    let supervisor = number(&status, "/supervisor")? as u32;

    let (noticed, done, answered) = (Noticed::default(), AtomicBool::new(false), Mutex::default());
    let (mounts, evicted) = (AtomicU64::new(0), AtomicU64::new(0));
    let killed = thread::scope(|scope| {
        for reader in 0..READERS {
            let (dir, data) = if reader % 2 == 0 { (&fetched, FETCHED) } else { (&own, OWN) };
            let (noticed, done) = (&noticed, &done);
            scope.spawn(move || noticed.keep_reading(dir, data, reader, done));
        }
        scope.spawn(|| publish_on(scratch, &node, &answered, &done));
        scope.spawn(|| mount_on(scratch, &node, &noticed, &mounts, &done));
        let killed = kill_often(scratch, &node, settings, &noticed, &evicted);
        done.store(true, Ordering::Release);
        killed
    })?;
    let memory = private(supervisor)?;
    let answered = answered.into_inner().unwrap_or_else(PoisonError::into_inner);
    let lost = lost(scratch, &node, &answered)?;

    report.value(Row::KillWrong, noticed.wrong.load(Ordering::Relaxed) as f64);
    report.note(
        Row::KillWrong,
        format!(
            "{} kills, {} reads by {READERS} readers, {} further mounts; at least {} objects were evicted",
            killed.len(),
            noticed.reads.load(Ordering::Relaxed),
            mounts.load(Ordering::Relaxed),
            evicted.load(Ordering::Relaxed)
        ),
    );
    report.value(Row::KillFailed, noticed.failed.load(Ordering::Relaxed) as f64);
    for error in noticed.errors() {
        report.note(Row::KillFailed, error);
    }
    report.value(Row::KillLost, lost.len() as f64);
    report.note(
        Row::KillLost,
        format!("{} versions were published meanwhile {}", answered.len(), lost.join(" ")),
    );
    let stalls = noticed.stalls(&killed);
    report.value(Row::KillStall, percentile(&stalls, 99.0));
    let (p50, max) = (percentile(&stalls, 50.0), percentile(&stalls, 100.0));
    report.note(Row::KillStall, format!("p50 {p50:.0} ms, longest {max:.0} ms"));
    report.value(Row::Supervisor, memory / MIB);
    Ok(())
}

/// The process id of the daemon that runs now, if one does.
pub fn daemon(node: &Site) -> Option<i32> {
    let text = fs::read_to_string(node.home().join("run/daemon.lock")).ok()?;
    text.lines().next()?.parse().ok()
}

/// Kills the daemon so often; returns when. `evicted` counts what the daemons had evicted shortly before.
fn kill_often(
    scratch: &Scratch,
    node: &Site,
    settings: Settings,
    noticed: &Noticed,
    evicted: &AtomicU64,
) -> anyhow::Result<Vec<Instant>> {
    let mut random = Random::of(settings.seed, 3);
    let mut killed = Vec::new();
    let reads = || noticed.reads.load(Ordering::Relaxed);
    for _ in 0..settings.kills {
        let (from, since) = (reads(), Instant::now());
        while reads() < from + 3 * READERS {
            scratch.stop.check()?;
            ensure!(since.elapsed() < PATIENCE, "readers have not gone on after kill {}", killed.len());
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(random.between(BETWEEN.0, BETWEEN.1)));
        let status = node.status()?;
        evicted.fetch_add(number(&status, "/store/evicted")? as u64, Ordering::Relaxed);
        let pid = daemon(node).and_then(Pid::from_raw).context("a daemon without a number")?;
        killed.push(Instant::now());
        kill_process(pid, Signal::KILL).context("cannot kill a daemon")?;
        if killed.len().is_multiple_of(10) {
            say(&format!("{} kills, {} reads", killed.len(), reads()));
        }
    }
    Ok(killed)
}

/// Publishes one version after the other. What was answered is in `answered`.
fn publish_on(scratch: &Scratch, node: &Site, answered: &Mutex<Vec<u64>>, done: &AtomicBool) {
    for version in 1.. {
        let data = Data { seed: 1000 + version, ..VERSION };
        let Ok(dir) = data.write(scratch, "version") else { return };
        let target = format!("more@v{version}");
        loop {
            if done.load(Ordering::Acquire) || scratch.stop.check().is_err() {
                return;
            }
            match node.publish(&dir, &target) {
                Ok(_) => break,
                // Published, and its daemon died before it said so.
                Err(error) if error.to_string().contains("exists") => break,
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
        answered.lock().unwrap_or_else(PoisonError::into_inner).push(version);
    }
}

/// Mounts, reads and unmounts.
fn mount_on(scratch: &Scratch, node: &Site, noticed: &Noticed, mounts: &AtomicU64, done: &AtomicBool) {
    let dir = scratch.dir.join("n/further");
    let words = |verb: &str| [OsStr::new(verb).to_owned(), dir.clone().into_os_string()];
    if fs::create_dir_all(&dir).is_err() {
        return;
    }
    let mount = ["mount".into(), "own@v1".into(), dir.clone().into_os_string()];
    while !done.load(Ordering::Acquire) && scratch.stop.check().is_ok() {
        match node.json(&mount) {
            Ok(_) => {}
            // Mounted, and its daemon died before it said so: the next one has gone on with it.
            Err(error) if error.to_string().contains("already mounted") => {}
            Err(_) => {
                thread::sleep(Duration::from_millis(20));
                continue;
            }
        }
        for file in 0..OWN.files / 10 {
            noticed.read(&dir, OWN, file);
        }
        mounts.fetch_add(1, Ordering::Relaxed);
        while is_mounted(&dir) && node.json(&words("unmount")).is_err() {
            if scratch.stop.check().is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// By the mount table, which asks no daemon.
fn is_mounted(dir: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(1) == dir.to_str())
}

/// Versions whose publish was answered and that cannot be had whole.
fn lost(scratch: &Scratch, node: &Site, answered: &[u64]) -> anyhow::Result<Vec<String>> {
    let mut lost = Vec::new();
    for version in answered {
        let data = Data { seed: 1000 + version, ..VERSION };
        let out = scratch.dir.join("out");
        let target = format!("more@v{version}");
        let words = [OsStr::new("export"), OsStr::new(&target), out.as_os_str()];
        let whole = node.json(&words).is_ok()
            && (0..data.files).all(|file| {
                fs::read(out.join(Data::name(file))).is_ok_and(|bytes| bytes == data.content(file))
            });
        if !whole {
            lost.push(target);
        }
        if out.exists() {
            fs::remove_dir_all(&out).context("cannot remove an exported version")?;
        }
    }
    Ok(lost)
}

/// Bytes that a process shares with no other.
fn private(pid: u32) -> anyhow::Result<f64> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("cannot examine the supervisor")?;
    let of = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    };
    match (of("Private_Clean:"), of("Private_Dirty:")) {
        (Some(clean), Some(dirty)) => Ok((clean + dirty) * 1024.0),
        _ => bail!("the kernel does not say how much memory the supervisor has"),
    }
}
