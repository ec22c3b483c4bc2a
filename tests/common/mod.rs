//! What end-to-end tests share: nodes in temporary homes, driven through the real command, and real files.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bcai_lan::Lan;
use serde_json::Value;

/// How long anything may take that a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A node in a home of its own. Its daemon ends with it.
pub struct Site {
    pub home: PathBuf,
    /// Settings, as environment variables.
    pub settings: Vec<(String, String)>,
    /// A command that runs ours elsewhere.
    pub prefix: Vec<String>,
    pub program: PathBuf,
    _dir: tempfile::TempDir,
}

/// What a command did.
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Site {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = [("BCAI_NET_LISTEN", "/ip4/127.0.0.1/tcp/0"), ("BCAI_NET_MDNS", "false")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self {
            home: dir.path().join("home"),
            settings,
            prefix: Vec::new(),
            program: env!("CARGO_BIN_EXE_bcai").into(),
            _dir: dir,
        }
    }

    /// A node on a network of several. It listens there and nowhere else.
    pub fn at(lan: &Lan, node: usize) -> Self {
        let listen = format!("/ip4/{}/tcp/0", lan.address(node));
        let mut site = Self::new();
        site.prefix = lan.enter(node);
        site.settings = vec![("BCAI_NET_LISTEN".into(), listen), ("BCAI_NET_MDNS".into(), "false".into())];
        site
    }

    /// A node that has a network of its own.
    pub fn initialised() -> Self {
        let site = Self::new();
        site.ok(["init"]);
        site
    }

    /// An empty directory beside the home, removed with it.
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.home.parent().unwrap().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut words = self.prefix.iter().map(OsStr::new).chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command.env_clear();
        for kept in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command.arg("--home").arg(&self.home);
        command.envs(self.settings.iter().cloned());
        command.args(args).stdin(Stdio::null());
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Done {
        done(self.command(args).output().unwrap())
    }

    /// Runs a command that must succeed and returns what it printed.
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let done = self.run(&args);
        assert_eq!(
            done.code,
            0,
            "bcai {args:?} failed:\n{}{}\n{}",
            done.stdout,
            done.stderr,
            self.daemon_log()
        );
        done.stdout
    }

    /// Runs a command that must succeed and parses its JSON.
    pub fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Value {
        let mut all = vec![OsStr::new("--json").to_owned()];
        all.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        let text = self.ok(all);
        serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Runs a command that must fail with `code`, and returns its message.
    pub fn fails<S: AsRef<OsStr>>(&self, code: i32, args: impl IntoIterator<Item = S>) -> String {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let done = self.run(&args);
        assert_eq!(done.code, code, "bcai {args:?}:\n{}{}", done.stdout, done.stderr);
        assert!(done.stderr.starts_with("bcai: "), "{}", done.stderr);
        let raw =
            ["Err(", "Error {", "panicked", "RUST_BACKTRACE"].iter().any(|raw| done.stderr.contains(raw));
        assert!(!raw, "not a message for people: {}", done.stderr);
        done.stderr
    }

    /// Publishes and returns the URI.
    pub fn publish(&self, dir: &Path, target: &str) -> String {
        self.json([OsStr::new("publish"), dir.as_os_str(), OsStr::new(target)])["uri"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Mounts on a new directory.
    pub fn mount(&self, reference: &str, name: &str) -> PathBuf {
        let dir = self.dir(name);
        self.ok([OsStr::new("mount"), OsStr::new(reference), dir.as_os_str()]);
        dir
    }

    pub fn status(&self) -> Value {
        self.json(["status"])
    }

    pub fn pid(&self) -> Option<u32> {
        let done = self.run(["--json", "status"]);
        serde_json::from_str::<Value>(&done.stdout).ok()?["pid"].as_u64().map(|pid| pid as u32)
    }

    /// SIGKILLs the daemon, and before it the supervisor, which would start another; waits until they are gone.
    pub fn kill(&self) {
        self.kill_at_once();
        wait_until("the daemon is gone", || self.run(["status"]).code == 10);
    }

    /// The same, and waits for nothing.
    pub fn kill_at_once(&self) {
        let status = self.status();
        // A daemon whose supervisor was killed has none.
        let pids = ["supervisor", "pid"].into_iter().filter_map(|name| status[name].as_u64());
        pids.for_each(|pid| sigkill(pid as u32));
    }

    /// The process ids of the daemon and of its supervisor, waited for if another daemon is about to start.
    pub fn pids(&self) -> (u32, u32) {
        let mut pids = None;
        wait_until("a daemon answers and has a supervisor", || {
            let done = self.run(["--json", "status"]);
            let status = serde_json::from_str::<Value>(&done.stdout).unwrap_or_default();
            pids = status["pid"].as_u64().zip(status["supervisor"].as_u64());
            pids.is_some()
        });
        pids.map(|(daemon, supervisor)| (daemon as u32, supervisor as u32)).unwrap()
    }

    pub fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.home.join("run/daemon.log")).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.command(["stop"]).output();
        // A test that failed between a kill and the next start leaves dead mounts, which would keep the folder.
        if let Some(parent) = self.home.parent() {
            for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
                let _ = Command::new("umount").arg("-l").arg(entry.path()).stderr(Stdio::null()).status();
            }
        }
    }
}

/// A small file system under the home of a node, unmounted with the test. Making it takes root.
pub struct SmallDisk<'a>(&'a Site);

impl<'a> SmallDisk<'a> {
    /// Of `size`, as tmpfs takes it.
    pub fn under(site: &'a Site, size: &str) -> Self {
        std::fs::create_dir_all(&site.home).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&site.home);
        assert!(mount.status().unwrap().success());
        Self(site)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Without its socket the daemon could not be told to end, and would outlive the test.
        self.0.run(["stop"]);
        let _ = Command::new("umount").arg("-l").arg(&self.0.home).status();
    }
}

/// Puts a copy of the program at `to`, in place of what is there.
///
/// Another process writes it: a child that another test starts while we write would inherit the open file, and a
/// program that somebody may write to cannot be executed.
pub fn install(to: &Path) {
    let new = to.with_extension("new");
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_bcai")).arg(&new).status().unwrap().success());
    std::fs::rename(&new, to).unwrap();
}

pub fn sigkill(pid: u32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

pub fn done(output: Output) -> Done {
    Done {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits for a condition, with the deadline of all tests.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// A child process that is killed with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Pseudo-random bytes that no codec shrinks; the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut bytes);
    bytes
}

/// Fails unless both trees are the same in names, content, mode, mtime (ns), links, hard links and xattrs.
pub fn assert_same_tree(left: &Path, right: &Path) {
    let (a, b) = (describe(left), describe(right));
    for (one, other) in a.iter().zip(&b) {
        assert_eq!(one, other);
    }
    assert_eq!(a.len(), b.len());
}

/// One line for each name below `top`, with everything that must survive.
fn describe(top: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut lines = Vec::new();
    let mut first_name = std::collections::HashMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let path = top.join(&relative);
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let mut line = format!("{:?} mode {:o}", relative, meta.mode() & 0o171777);
        line += &format!(" mtime {}.{:09}", meta.mtime(), meta.mtime_nsec());
        if meta.is_dir() {
            let mut names: Vec<_> =
                std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            pending.extend(names.into_iter().rev().map(|name| relative.join(name)));
        } else if meta.is_symlink() {
            line += &format!(" -> {:?}", std::fs::read_link(&path).unwrap());
        } else {
            let hash = blake3::hash(&std::fs::read(&path).unwrap());
            line += &format!(" size {} hash {hash}", meta.len());
        }
        if !meta.is_dir() {
            let first = first_name.entry(meta.ino()).or_insert_with(|| relative.clone());
            line += &format!(" links {} first {first:?}", meta.nlink());
        }
        if !meta.is_symlink() {
            let mut attributes: Vec<_> = xattr::list(&path).unwrap().collect();
            attributes.retain(|name| !name.as_encoded_bytes().starts_with(b"user.bcai."));
            attributes.sort();
            for name in attributes {
                line += &format!(" {name:?}={:?}", xattr::get(&path, &name).unwrap());
            }
        }
        lines.push(line);
    }
    lines
}
