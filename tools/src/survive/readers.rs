//! Those who read a mount and notice everything.
//!
//! Owns: the data, what a reader does with a file of it, and the record of what it noticed.
//! Must not know: what is done to the daemon meanwhile.
//! Invariant: what a file must hold is known without reading it anywhere. Nothing that fails is tried again.
//! Trust: the mount is what is under test. Threads: each reader is one; the record is shared.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::Advice;

use crate::corpus::bytes::Random;
use crate::scratch::Scratch;

/// A folder of files whose content follows from its number.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    pub seed: u64,
    pub files: u64,
    pub len: usize,
}

impl Data {
    pub fn content(self, file: u64) -> Vec<u8> {
        Random::of(self.seed, file).noise(self.len)
    }

    pub fn name(file: u64) -> String {
        format!("{file:04}")
    }

    /// Writes the folder.
    pub fn write(self, scratch: &Scratch, name: &str) -> anyhow::Result<PathBuf> {
        let dir = scratch.dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        for file in 0..self.files {
            let path = dir.join(Self::name(file));
            fs::write(&path, self.content(file))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(dir)
    }
}

/// What readers have noticed.
#[derive(Default)]
pub struct Noticed {
    pub reads: AtomicU64,
    pub wrong: AtomicU64,
    pub failed: AtomicU64,
    /// Begin and end of each read that took longer than `SHORT`.
    long: Mutex<Vec<(Instant, Instant)>>,
    errors: Mutex<Vec<String>>,
}

/// Reads that are over in this time are not worth remembering.
const SHORT: Duration = Duration::from_millis(1);
/// Errors that are told.
const MAX_ERRORS: usize = 5;

impl Noticed {
    /// Reads one file, from its opening on, past what the kernel has kept. Every eighth time the directory is listed as well.
    pub fn read(&self, dir: &Path, data: Data, file: u64) {
        let begun = Instant::now();
        let read = read_anew(dir, data, file);
        let ended = Instant::now();
        match read {
            Ok(bytes) if bytes == data.content(file) => {}
            Ok(_) => drop(self.wrong.fetch_add(1, Ordering::Relaxed)),
            Err(error) => self.fail(format!("{}: {error}", Data::name(file))),
        }
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        if ended - begun > SHORT {
            self.long.lock().unwrap_or_else(PoisonError::into_inner).push((begun, ended));
        }
        if number.is_multiple_of(8) {
            match fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
                Ok(names) if names.len() as u64 == data.files => {}
                Ok(_) => drop(self.wrong.fetch_add(1, Ordering::Relaxed)),
                Err(error) => self.fail(format!("listing: {error}")),
            }
        }
    }

    fn fail(&self, error: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < MAX_ERRORS {
            errors.push(error);
        }
    }

    /// Reads files in no particular order until `done`.
    pub fn keep_reading(&self, dir: &Path, data: Data, reader: u64, done: &AtomicBool) {
        let mut random = Random::of(data.seed, reader + (1 << 32));
        while !done.load(Ordering::Acquire) {
            self.read(dir, data, random.below(data.files));
        }
    }

    pub fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For each moment, in milliseconds, the longest read that was under way then.
    pub fn stalls(&self, moments: &[Instant]) -> Vec<f64> {
        let long = self.long.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |moment: &Instant| {
            let under_way = long.iter().filter(|(begun, ended)| begun <= moment && moment <= ended);
            under_way.map(|(begun, ended)| (*ended - *begun).as_secs_f64() * 1e3).fold(0.0, f64::max)
        };
        moments.iter().map(at).collect()
    }

    /// In milliseconds.
    pub fn longest(&self) -> f64 {
        let long = self.long.lock().unwrap_or_else(PoisonError::into_inner);
        long.iter().map(|(begun, ended)| (*ended - *begun).as_secs_f64() * 1e3).fold(0.0, f64::max)
    }
}

fn read_anew(dir: &Path, data: Data, file: u64) -> io::Result<Vec<u8>> {
    let file = File::open(dir.join(Data::name(file)))?;
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    // By its length, so that a file that ends early is noticed as a failure.
    let mut bytes = vec![0; data.len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_bytes_and_failures_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (data, noticed) = (Data { seed: 1, files: 2, len: 5000 }, Noticed::default());
        fs::write(dir.path().join(Data::name(0)), data.content(0)).unwrap();
        fs::write(dir.path().join(Data::name(1)), data.content(2)).unwrap();
        noticed.read(dir.path(), data, 0);
        assert_eq!((noticed.wrong.load(Ordering::Relaxed), noticed.failed.load(Ordering::Relaxed)), (0, 0));
        noticed.read(dir.path(), data, 1);
        noticed.read(dir.path(), data, 2);
        fs::write(dir.path().join(Data::name(0)), &data.content(0)[..4000]).unwrap();
        noticed.read(dir.path(), data, 0);
        assert_eq!((noticed.wrong.load(Ordering::Relaxed), noticed.failed.load(Ordering::Relaxed)), (1, 2));
    }

    #[test]
    fn a_stall_is_the_longest_read_that_a_moment_fell_into() {
        let noticed = Noticed::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        *noticed.long.lock().unwrap() = vec![(at(0), at(10)), (at(5), at(45)), (at(50), at(52))];
        assert_eq!(noticed.stalls(&[at(7), at(47), at(51)]), [40.0, 0.0, 2.0]);
        assert_eq!(noticed.longest(), 40.0);
    }
}
