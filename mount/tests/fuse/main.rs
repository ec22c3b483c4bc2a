//! The adapter on the real kernel, over a small tree in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ending;
mod memory;
mod opening;
mod reading;
mod switching;
mod trouble;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bcai_mount::{Io, Mount, Options, Tree};
use memory::Memory;

/// Far longer than anything here takes; what is not done by then hangs.
pub const DEADLINE: Duration = Duration::from_secs(20);

const CHILD_DIR: &str = "BCAI_MOUNT_TEST_DIR";

/// A tree mounted on an empty directory of its own.
pub struct Mounted {
    pub tree: Arc<Memory>,
    pub ended: Receiver<()>,
    pub mount: Mount,
    // Dropped last: a mounted directory cannot be removed.
    pub temp: tempfile::TempDir,
}

impl Mounted {
    pub fn new(fill: impl FnOnce(&mut Memory)) -> Self {
        Self::with(Io::Cached, fill)
    }

    pub fn with(io: Io, fill: impl FnOnce(&mut Memory)) -> Self {
        let mut tree = Memory::new();
        fill(&mut tree);
        let tree = Arc::new(tree);
        let temp = tempfile::tempdir().unwrap();
        let (mount, ended) = mount(tree.clone(), temp.path(), io);
        Self { tree, ended, mount, temp }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }
}

pub fn mount(tree: Arc<dyn Tree>, dir: &Path, io: Io) -> (Mount, Receiver<()>) {
    let (sender, receiver) = channel();
    let options = Options { threads: 2, io, ..Options::default() };
    let mount = Mount::start(tree, dir, &options, move || {
        // A test that does not look at the end has dropped the receiver.
        let _ = sender.send(());
    });
    (mount.unwrap().0, receiver)
}

/// The lines of the kernel's mount table for `dir`.
pub fn table(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let text = std::fs::read_to_string("/proc/mounts").unwrap();
    text.lines().filter(|line| line.split(' ').nth(1) == Some(dir)).map(str::to_owned).collect()
}

pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not reached in time: {what}");
        std::thread::yield_now();
    }
}

/// A process that has a tree mounted on `dir` until its standard input ends, or it is killed.
pub fn child_with_mount(dir: &Path, change: impl FnOnce(&mut Command)) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", "child_holds_a_mount"])
        .env(CHILD_DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    change(&mut command);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("mounted")), "the child did not mount");
    child
}

#[test]
#[ignore = "on demand: other tests run it in a process of its own"]
fn child_holds_a_mount() {
    let own = tempfile::tempdir().unwrap();
    let dir = std::env::var_os(CHILD_DIR).map_or(own.path().to_owned(), PathBuf::from);
    let mut tree = Memory::new();
    tree.file("hello", b"hello");
    let (mount, _ended) = mount(Arc::new(tree), &dir, Io::Cached);
    println!("mounted");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    mount.unmount().unwrap();
}
