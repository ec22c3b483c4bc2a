//! Work whose time is taken, the same on bcai and on its reference.
//!
//! Owns: reading, walking, and how often.
//! Must not know: which of the two sides it works on.
//! Invariant: work that did not do all it should fails; it never yields a figure.
//! Trust: the trees are ours. Threads: readers are threads of their own, gone when the call returns.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use vmap::Map;

use crate::stop::Stop;

pub const MIB: f64 = (1 << 20) as f64;
pub const PAGE: usize = 4096;
const BUFFER: usize = 1 << 20;

/// The value in the middle; of an even number, the lower of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Resident bytes of a process: now, at the most so far, and of that what is read from files, its program above all, which the
/// kernel can let go at any time.
pub struct Resident {
    pub now: f64,
    pub most: f64,
    pub of_files: f64,
}

pub fn resident(pid: u32) -> anyhow::Result<Resident> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("cannot examine a daemon")?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse::<f64>().ok().map(|kib| kib * 1024.0)
    };
    match (bytes("VmRSS:"), bytes("VmHWM:"), bytes("RssFile:")) {
        (Some(now), Some(most), Some(of_files)) => Ok(Resident { now, most, of_files }),
        _ => bail!("the kernel does not say how much memory the daemon has"),
    }
}

/// The value that so many per cent of the others do not exceed (the nearest rank).
pub fn percentile(values: &[f64], per_cent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Between 0 and the number of values.
    let rank = (per_cent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Both sides in turn, `runs` times; the median of each.
pub fn alternately(
    runs: usize,
    mut bcai: impl FnMut() -> anyhow::Result<f64>,
    mut reference: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<(f64, f64)> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        ours.push(bcai()?);
        theirs.push(reference()?);
    }
    Ok((median(&ours), median(&theirs)))
}

/// Seconds that `work` takes, never 0.
pub fn seconds<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, f64)> {
    let started = Instant::now();
    let result = work()?;
    Ok((result, started.elapsed().as_secs_f64().max(1e-9)))
}

/// An epoch of training: lists `top`, as a loader does to know its files, then reads them, each from its beginning to its
/// end, with several readers that each take the next in the order given. Returns bytes a second. Fails if the lengths do
/// not add up to `bytes`.
pub fn epoch(top: &Path, files: &[PathBuf], bytes: u64, readers: usize, stop: &Stop) -> anyhow::Result<f64> {
    let next = AtomicUsize::new(0);
    let reader = || -> anyhow::Result<u64> {
        let (mut buffer, mut read) = (vec![0; BUFFER], 0);
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            stop.check()?;
            read += read_whole(&top.join(file), &mut buffer)?;
        }
        Ok(read)
    };
    let (read, seconds) = seconds(|| {
        let listed = list(top, stop)?;
        ensure!(
            listed == files.len(),
            "{} has {listed} files where there should be {}",
            top.display(),
            files.len()
        );
        thread::scope(|scope| {
            let threads: Vec<_> = (0..readers).map(|_| scope.spawn(reader)).collect();
            let mut sum = 0;
            for thread in threads {
                let Ok(read) = thread.join() else { bail!("a reader panicked") };
                sum += read?;
            }
            Ok(sum)
        })
    })?;
    ensure!(read == bytes, "{} has {read} bytes where there should be {bytes}", top.display());
    Ok(bytes as f64 / seconds)
}

/// The number of files below `top`, by what its directories say.
fn list(top: &Path, stop: &Stop) -> anyhow::Result<usize> {
    let mut found = 0;
    let mut pending = vec![top.to_owned()];
    while let Some(dir) = pending.pop() {
        stop.check()?;
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => pending.push(entry.path()),
                false => found += 1,
            }
        }
    }
    Ok(found)
}

fn read_whole(path: &Path, buffer: &mut [u8]) -> anyhow::Result<u64> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut sum = 0;
    loop {
        match file.read(buffer).with_context(|| format!("cannot read {}", path.display()))? {
            0 => return Ok(sum),
            read => sum += read as u64,
        }
    }
}

/// Asks for the attributes of everything below `top`, as `find -size` does; returns names a second. Fails unless there
/// are as many as `names`.
pub fn walk(top: &Path, names: u64, stop: &Stop) -> anyhow::Result<f64> {
    let (found, seconds) = seconds(|| count(top, stop))?;
    ensure!(found == names, "{} has {found} names where there should be {names}", top.display());
    Ok(names as f64 / seconds)
}

/// The number of names below `top`.
pub fn count(top: &Path, stop: &Stop) -> anyhow::Result<u64> {
    let mut found = 0;
    let mut pending = vec![top.to_owned()];
    while let Some(dir) = pending.pop() {
        stop.check()?;
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = entry?.path();
            let meta =
                fs::symlink_metadata(&path).with_context(|| format!("cannot examine {}", path.display()))?;
            found += 1;
            if meta.is_dir() {
                pending.push(path);
            }
        }
    }
    Ok(found)
}

/// Reads a file from its beginning to its end; returns bytes a second.
pub fn in_order(path: &Path) -> anyhow::Result<f64> {
    let mut buffer = vec![0; BUFFER];
    let (read, seconds) = seconds(|| read_whole(path, &mut buffer))?;
    Ok(read as f64 / seconds)
}

/// Makes the host of a virtual machine give it `bytes` of memory, which costs what it costs only now: pages are taken back
/// from a machine that does not use them, and a page cache that grows would pay for it.
pub fn back(bytes: u64) -> anyhow::Result<()> {
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(bytes as usize).context("too little memory for this corpus")?;
    memory.resize(bytes as usize, 1);
    black_box(&memory);
    Ok(())
}

/// Reads 4 KiB at each of `pages`; returns reads a second.
pub fn at_random(path: &Path, pages: &[u32]) -> anyhow::Result<f64> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut buffer = [0; PAGE];
    let ((), seconds) = seconds(|| {
        for page in pages {
            file.read_exact_at(&mut buffer, u64::from(*page) * PAGE as u64)
                .with_context(|| format!("cannot read {}", path.display()))?;
            black_box(&buffer);
        }
        Ok(())
    })?;
    Ok(pages.len() as f64 / seconds)
}

/// Maps a file and looks at one byte in each of `pages`; returns pages a second. Mapping and unmapping are part of it.
pub fn mapped(path: &Path, pages: impl ExactSizeIterator<Item = u32>) -> anyhow::Result<f64> {
    let touched = pages.len() as f64;
    let ((), seconds) = seconds(|| {
        let (map, _file) = Map::with_options()
            .open(path)
            .map_err(|error| anyhow::anyhow!("cannot map {}: {error}", path.display()))?;
        let mut sum = 0u64;
        for page in pages {
            let byte = map.get(page as usize * PAGE).context("a page past the end of the file")?;
            sum = sum.wrapping_add(u64::from(*byte));
        }
        black_box(sum);
        Ok(())
    })?;
    Ok(touched / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_of_the_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 1.0);
        assert!(median(&[]).is_nan());
        let values: Vec<f64> = (1..=200).map(f64::from).rev().collect();
        assert_eq!((percentile(&values, 50.0), percentile(&values, 99.0)), (100.0, 198.0));
        assert_eq!(percentile(&[7.0], 99.0), 7.0);
        assert!(percentile(&[], 99.0).is_nan());
    }

    #[test]
    fn work_that_is_not_whole_has_no_figure() {
        let dir = tempfile::tempdir().expect("a folder");
        let top = dir.path();
        fs::create_dir(top.join("a")).expect("creates");
        fs::write(top.join("a/b"), [1; 3 * PAGE]).expect("writes");
        let (files, len, stop) = ([PathBuf::from("a/b")], 3 * PAGE as u64, Stop::default());
        assert!(epoch(top, &files, len, 2, &stop).is_ok());
        assert!(epoch(top, &files, len + 1, 2, &stop).is_err());
        assert!(epoch(top, &[PathBuf::from("c")], len, 2, &stop).is_err());
        assert!(walk(top, 2, &stop).is_ok());
        assert!(walk(top, 3, &stop).is_err());
        let file = top.join("a/b");
        assert!(at_random(&file, &[2, 0]).is_ok() && mapped(&file, [2, 0].into_iter()).is_ok());
        assert!(at_random(&file, &[3]).is_err() && mapped(&file, [3].into_iter()).is_err());
        stop.now();
        assert!(epoch(top, &files, len, 2, &stop).is_err());
    }
}
