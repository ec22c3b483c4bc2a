//! Other programs that take a folder in.
//!
//! Owns: how each is called, and where it may leave things.
//! Must not know: bcai. Invariant: nothing of a run is left, neither in the scratch folder nor in the user's own.
//! Trust: programs of this machine's PATH; what they print is only looked at when they fail.
//! Threads: the main thread; the programs have their own.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::Bench;
use super::rows::Row;
use crate::measure::seconds;
use crate::scratch::remove;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    Cp,
    Restic,
    Rustic,
    Borg,
    Casync,
}

impl Rival {
    pub const ALL: &'static [Self] = &[Self::Cp, Self::Restic, Self::Rustic, Self::Borg, Self::Casync];

    pub fn row(self) -> Row {
        match self {
            Self::Cp => Row::IngestCp,
            Self::Restic => Row::IngestRestic,
            Self::Rustic => Row::IngestRustic,
            Self::Borg => Row::IngestBorg,
            Self::Casync => Row::IngestCasync,
        }
    }

    pub fn program(self) -> &'static str {
        match self {
            Self::Cp => "cp",
            Self::Restic => "restic",
            Self::Rustic => "rustic",
            Self::Borg => "borg",
            Self::Casync => "casync",
        }
    }

    pub fn shown(self) -> &'static str {
        match self {
            Self::Cp => "cp -a, sync",
            other => other.program(),
        }
    }

    pub fn is_installed(self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(self.program()).is_file())
    }

    /// Seconds from its start until all it wrote is on disk. Making an empty repository is not counted.
    pub fn run(self, bench: &Bench, source: &Path) -> anyhow::Result<f64> {
        let scratch = bench.scratch.dir.join("rival");
        fs::create_dir(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
        let done = self.run_in(bench, source, &scratch);
        remove(&scratch);
        done
    }

    fn run_in(self, bench: &Bench, source: &Path, scratch: &Path) -> anyhow::Result<f64> {
        let repository = scratch.join("repository");
        let call = |args: &[&OsStr]| -> anyhow::Result<()> {
            let mut command = Command::new(self.program());
            command.args(args);
            // Settings, caches and passwords of the user are none of ours.
            for (variable, name) in [
                ("RESTIC_CACHE_DIR", "cache"),
                ("BORG_BASE_DIR", "borg"),
                ("XDG_CACHE_HOME", "cache"),
                ("XDG_CONFIG_HOME", "config"),
            ] {
                command.env(variable, scratch.join(name));
            }
            for variable in ["RESTIC_PASSWORD", "RUSTIC_PASSWORD"] {
                command.env(variable, "of a comparison");
            }
            let done = bench.scratch.stop.output(&mut command)?;
            if !done.status.success() {
                bail!("{}: {}", self.program(), String::from_utf8_lossy(&done.stderr).trim());
            }
            Ok(())
        };
        let word = OsStr::new;
        let (source, repository) = (source.as_os_str(), repository.as_os_str());
        match self {
            Self::Restic | Self::Rustic => call(&[word("-r"), repository, word("init")])?,
            Self::Borg => call(&[word("init"), word("-e"), word("none"), repository])?,
            Self::Cp | Self::Casync => {}
        }
        rustix::fs::sync();
        let work = || {
            match self {
                Self::Cp => call(&[word("-a"), source, repository])?,
                Self::Restic | Self::Rustic => call(&[word("-r"), repository, word("backup"), source])?,
                Self::Borg => {
                    let mut archive = repository.to_owned();
                    archive.push("::one");
                    call(&[word("create"), &archive, source])?
                }
                Self::Casync => {
                    let mut store = word("--store=").to_owned();
                    store.push(repository);
                    let index = scratch.join("one.caidx");
                    call(&[word("make"), &store, index.as_os_str(), source])?
                }
            }
            rustix::fs::sync();
            Ok(())
        };
        Ok(seconds(work)?.1)
    }
}
