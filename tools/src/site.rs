//! One node that is measured, driven through the command.
//!
//! Owns: the node's folder, its mounts and its daemon.
//! Must not know: what is measured.
//! Invariant: when it is dropped, its mounts are gone, its daemon has ended and its folder is removed.
//! Trust: the program is the one under test; what it prints is checked where it is used.
//! Threads: any.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::measure::seconds;
use crate::scratch::{Scratch, remove};

pub struct Site<'a> {
    scratch: &'a Scratch,
    /// With the home and the mount points in it.
    dir: PathBuf,
    /// A command that runs ours elsewhere, if there is one.
    prefix: Vec<String>,
    settings: Vec<String>,
    mounts: Mutex<Vec<PathBuf>>,
}

impl<'a> Site<'a> {
    /// A node that has never run. Its name must be short: the path of a socket is limited.
    pub fn new(scratch: &'a Scratch, name: &str) -> anyhow::Result<Self> {
        Self::with(scratch, name, &[])
    }

    /// The same, with further settings.
    pub fn with(scratch: &'a Scratch, name: &str, settings: &[String]) -> anyhow::Result<Self> {
        // All nodes are on this machine: nothing needs to be heard by, or said to, anyone else.
        let mut all = vec!["net.listen=/ip4/127.0.0.1/tcp/0".to_owned(), "net.mdns=false".to_owned()];
        all.extend_from_slice(settings);
        Self::elsewhere(scratch, name, Vec::new(), all)
    }

    /// A node whose commands run behind `prefix`, with these settings alone.
    pub fn elsewhere(
        scratch: &'a Scratch,
        name: &str,
        prefix: Vec<String>,
        settings: Vec<String>,
    ) -> anyhow::Result<Self> {
        let dir = scratch.dir.join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { scratch, dir, prefix, settings, mounts: Mutex::default() })
    }

    /// A node with a network of its own.
    pub fn publisher(scratch: &'a Scratch, name: &str) -> anyhow::Result<Self> {
        let site = Self::new(scratch, name)?;
        site.json(&["init"])?;
        Ok(site)
    }

    fn command(&self) -> Command {
        let mut words = self.prefix.iter().map(OsStr::new).chain([self.scratch.bcai.as_os_str()]);
        // There is one word at the least.
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("--home").arg(self.home());
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        command.args(["--json", "--quiet"]);
        command
    }

    pub fn home(&self) -> PathBuf {
        self.dir.join("h")
    }

    /// Runs a command and takes its JSON.
    pub fn json(&self, args: &[impl AsRef<OsStr>]) -> anyhow::Result<Value> {
        let done = self.scratch.stop.output(self.command().args(args))?;
        if !done.status.success() {
            let args: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
            let said = if done.stdout.is_empty() { done.stderr } else { done.stdout };
            bail!("bcai {}: {}", args.join(" "), String::from_utf8_lossy(&said).trim());
        }
        if done.stdout.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&done.stdout).context("bcai printed no JSON")
    }

    /// Publishes a folder; returns what the command printed and how many seconds it took.
    pub fn publish(&self, dir: &Path, target: &str) -> anyhow::Result<(Value, f64)> {
        seconds(|| self.json(&[OsStr::new("publish"), dir.as_os_str(), OsStr::new(target)]))
    }

    /// Mounts; returns where, how contents reach readers, and how many seconds the command took.
    pub fn mount(&self, reference: &str) -> anyhow::Result<(PathBuf, String, f64)> {
        self.mount_with(reference, &[])
    }

    /// The same, with these further arguments.
    pub fn mount_with(&self, reference: &str, more: &[&str]) -> anyhow::Result<(PathBuf, String, f64)> {
        let dir = self.dir.join(format!("m{}", self.mounted().len()));
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        self.mounted().push(dir.clone());
        let mut args = vec![OsStr::new("mount"), OsStr::new(reference), dir.as_os_str()];
        args.extend(more.iter().map(OsStr::new));
        let (mounted, seconds) = seconds(|| self.json(&args))?;
        let io = mounted["io"].as_str().unwrap_or("unknown").to_owned();
        Ok((dir, io, seconds))
    }

    /// Unmounts; the kernel forgets all it had of the mount.
    pub fn unmount(&self, dir: &Path) -> anyhow::Result<()> {
        self.json(&[OsStr::new("unmount"), dir.as_os_str()])?;
        self.mounted().retain(|mounted| mounted != dir);
        fs::remove_dir(dir).with_context(|| format!("cannot remove {}", dir.display()))
    }

    /// Ends the daemon; the next command starts another.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.json(&["stop"]).map(drop)
    }

    /// The files that hold the content of small files.
    pub fn packs(&self) -> anyhow::Result<Vec<PathBuf>> {
        let dir = self.home().join("store/packs");
        let entries = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        Ok(entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?)
    }

    fn mounted(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        // A list that a panicking thread left is still a list.
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn status(&self) -> anyhow::Result<Value> {
        self.json(&["status"])
    }
}

/// Ends every process that was given `home` as an argument, and waits until it is gone.
fn kill_all(home: &Path) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // Opened before it is looked at, so that the one that is killed is the one that was seen.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // One that has ended and was not waited for has an empty line.
        let is_of_home = || {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == home.as_os_str().as_bytes())
        };
        while is_of_home() && pidfd_send_signal(&process, Signal::KILL).is_ok() {
            std::thread::yield_now();
        }
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        let quietly = |args: &[&OsStr]| {
            // A group of its own, so that the user's Ctrl-C ends what is measured and not the cleaning up.
            let mut command = self.command();
            command
                .args(args)
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        for dir in std::mem::take(&mut *self.mounted()) {
            quietly(&[OsStr::new("unmount"), OsStr::new("--lazy"), dir.as_os_str()]);
        }
        // A daemon that has not been started is as good as one that has ended.
        if self.home().join("run").exists() {
            quietly(&[OsStr::new("stop")]);
            // One that has not come as far as its lock is not found by `stop`.
            kill_all(&self.home());
        }
        // What a dead daemon left. Nothing is mounted there in the usual case, and that is the error then.
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let _ = rustix::mount::unmount(entry.path(), rustix::mount::UnmountFlags::DETACH);
        }
        remove(&self.dir);
    }
}
