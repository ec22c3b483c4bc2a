//! The folder of one run, and the program that is measured in it.
//!
//! Owns: making and removing the folder.
//! Must not know: what is measured.
//! Invariant: when it is dropped its folder is gone. What cannot be removed is said and is the user's to remove.
//! Trust: developers only. Threads: any; it is only read.
//! SIGKILL leaves the folder `run-PID` with mounts and daemons, to be unmounted, stopped and removed by hand.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::stop::{self, Stop};

/// What every measurement needs.
pub struct Scratch {
    pub dir: PathBuf,
    pub bcai: PathBuf,
    pub stop: Stop,
}

impl Scratch {
    /// A new folder in `dir`, to measure `bcai`, or the program of that name beside this one. From now on SIGINT and SIGTERM
    /// ask for the end.
    pub fn new(dir: &Path, bcai: Option<PathBuf>) -> anyhow::Result<Self> {
        let stop = stop::on_signals()?;
        let bcai = match bcai {
            Some(bcai) => bcai,
            None => std::env::current_exe().context("cannot find this program")?.with_file_name("bcai"),
        };
        ensure!(bcai.is_file(), "there is no program {}; build it, or name one with --bcai", bcai.display());
        let bcai = std::path::absolute(bcai)?;
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("cannot use {}", dir.display()))?;
        let dir = dir.join(format!("run-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { dir, bcai, stop })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// Removes a folder of ours. What cannot be removed is said and is the user's to remove.
pub fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        eprintln!("bcai-tools: cannot remove {}: {error}", path.display());
    }
}

/// A number that `bcai` printed.
pub fn number(json: &serde_json::Value, path: &str) -> anyhow::Result<f64> {
    match json.pointer(path).and_then(serde_json::Value::as_f64) {
        Some(number) => Ok(number),
        None => bail!("bcai printed no {path}: {json}"),
    }
}

/// Says on stderr what is going on, since a run takes long.
pub fn say(what: &str) {
    eprintln!("bcai-tools: {what}");
}
