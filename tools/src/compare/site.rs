//! One node of a comparison, driven through the command.
//!
//! Owns: the node's folder, its mounts and its daemon.
//! Must not know: what is measured.
//! Invariant: when it is dropped, its mounts are gone, its daemon has ended and its folder is removed.
//! Trust: the program is the one under test; what it prints is checked where it is used.
//! Threads: one at a time.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use super::measure::seconds;
use super::{Bench, remove};

pub struct Site<'a> {
    bench: &'a Bench,
    /// With the home and the mount points in it.
    dir: PathBuf,
    settings: Vec<String>,
    mounts: RefCell<Vec<PathBuf>>,
}

impl<'a> Site<'a> {
    /// A node that has never run. Its name must be short: the path of a socket is limited.
    pub fn new(bench: &'a Bench, name: &str) -> anyhow::Result<Self> {
        Self::with(bench, name, &[])
    }

    /// The same, with further settings.
    pub fn with(bench: &'a Bench, name: &str, settings: &[String]) -> anyhow::Result<Self> {
        let dir = bench.dir.join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        // All nodes are on this machine: nothing needs to be heard by, or said to, anyone else.
        let mut all = vec!["net.listen=/ip4/127.0.0.1/tcp/0".to_owned(), "net.mdns=false".to_owned()];
        all.extend_from_slice(settings);
        Ok(Self { bench, dir, settings: all, mounts: RefCell::default() })
    }

    /// A node with a network of its own.
    pub fn publisher(bench: &'a Bench, name: &str) -> anyhow::Result<Self> {
        let site = Self::new(bench, name)?;
        site.json(&["init"])?;
        Ok(site)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.bench.bcai);
        command.arg("--home").arg(self.home());
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
        let done = self.bench.stop.output(self.command().args(args))?;
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
        let dir = self.dir.join(format!("m{}", self.mounts.borrow().len()));
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        self.mounts.borrow_mut().push(dir.clone());
        let args = [OsStr::new("mount"), OsStr::new(reference), dir.as_os_str()];
        let (mounted, seconds) = seconds(|| self.json(&args))?;
        let io = mounted["io"].as_str().unwrap_or("unknown").to_owned();
        Ok((dir, io, seconds))
    }

    /// Unmounts; the kernel forgets all it had of the mount.
    pub fn unmount(&self, dir: &Path) -> anyhow::Result<()> {
        self.json(&[OsStr::new("unmount"), dir.as_os_str()])?;
        self.mounts.borrow_mut().retain(|mounted| mounted != dir);
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

    pub fn status(&self) -> anyhow::Result<Value> {
        self.json(&["status"])
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
        for dir in self.mounts.take() {
            quietly(&[OsStr::new("unmount"), OsStr::new("--lazy"), dir.as_os_str()]);
        }
        // A daemon that has not been started is as good as one that has ended.
        if self.home().join("run").exists() {
            quietly(&[OsStr::new("stop")]);
        }
        // What a dead daemon left. Nothing is mounted there in the usual case, and that is the error then.
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let _ = rustix::mount::unmount(entry.path(), rustix::mount::UnmountFlags::DETACH);
        }
        remove(&self.dir);
    }
}
