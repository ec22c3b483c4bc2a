//! The mount survives its daemon: killed, upgraded or stopped, with readers at work, real processes and the real kernel.

#![cfg(fuse_available)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Running, Site, install, noise, sigkill, wait_until};
use rustix::fs::Advice;
use serde_json::Value;

const FILES: u64 = 64;
const LEN: usize = 192 << 10;

fn publish_noise(site: &Site, target: &str, seed: u64) -> PathBuf {
    let source = site.dir(&format!("source-{seed}"));
    fs::create_dir_all(source.join("dir")).unwrap();
    for i in 0..FILES {
        fs::write(source.join(format!("dir/{i:03}")), noise(seed + i, LEN)).unwrap();
    }
    fs::write(source.join("v"), seed.to_string()).unwrap();
    fs::write(source.join(format!("only-in-{seed}")), "").unwrap();
    site.publish(&source, target);
    source
}

/// Reads what the kernel has not kept.
fn read_anew(file: &File, len: usize) -> Vec<u8> {
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Mounts that another daemon will have to go on with, as `status` shows them.
fn kept(site: &Site) -> usize {
    let rows = site.status()["mounts"].clone();
    rows.as_array().unwrap().iter().filter(|row| row["kept"] == true).count()
}

/// Kills the daemon and nothing else; when this returns another one has taken its place, with all mounts.
fn kill_daemon(site: &Site, mounts: usize) {
    let (daemon, supervisor) = site.pids();
    sigkill(daemon);
    wait_until("another daemon has the mounts", || {
        let (now, same) = site.pids();
        assert_eq!(same, supervisor);
        now != daemon && site.status()["mounts"].as_array().unwrap().len() == mounts
    });
}

fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Ends the readers when it goes, also by a failure.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Readers that stop at the first wrong byte or failed read, while `disturb` does its work.
fn under_readers(dirs: &[(&Path, u64)], disturb: impl FnOnce(&AtomicU64)) {
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for reader in 0..8u64 {
            let (dir, seed) = dirs[reader as usize % dirs.len()];
            let (done, reads) = (&done, &reads);
            scope.spawn(move || {
                for step in 0.. {
                    if done.load(Ordering::Acquire) {
                        break;
                    }
                    let i = (step * 7 + reader * 13) % FILES;
                    let file = File::open(dir.join(format!("dir/{i:03}"))).unwrap();
                    assert_eq!(file.metadata().unwrap().len(), LEN as u64);
                    assert!(read_anew(&file, LEN) == noise(seed + i, LEN), "wrong bytes");
                    if step % 16 == 0 {
                        assert_eq!(fs::read_dir(dir.join("dir")).unwrap().count(), FILES as usize);
                    }
                    reads.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        let _done = Done(&done);
        disturb(&reads);
    });
}

fn wait_for_reads(reads: &AtomicU64, more: u64) {
    let from = reads.load(Ordering::Acquire);
    wait_until("readers go on", || reads.load(Ordering::Acquire) >= from + more);
}

#[test]
fn readers_notice_nothing_when_the_daemon_is_killed() {
    let site = Site::initialised();
    publish_noise(&site, "one@v1", 1000);
    publish_noise(&site, "two@v1", 2000);
    let (one, two) = (site.mount("one@v1", "one"), site.dir("two"));
    site.ok([OsStr::new("mount"), "-oio=cached".as_ref(), "two@v1".as_ref(), two.as_os_str()]);
    let io: Vec<Value> =
        site.status()["mounts"].as_array().unwrap().iter().map(|row| row["io"].clone()).collect();
    assert_eq!((io, kept(&site)), (vec!["zero-open".into(), "cached".into()], 2));
    assert!(site.ok(["status"]).contains("supervisor"), "people are told");
    let open = File::open(one.join("dir/000")).unwrap();
    let ino = |path: &Path| fs::metadata(path).unwrap().ino();
    let numbers = (ino(&one.join("dir/001")), ino(&two.join("dir")), open.metadata().unwrap().ino());
    // A shell that works in the mount.
    let shell = Command::new("sh")
        .args(["-c", "while read -r line; do pwd -P; ls | wc -l; done"])
        .current_dir(one.join("dir"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut shell = Running(shell.unwrap());
    let mut says = BufReader::new(shell.0.stdout.take().unwrap()).lines();
    let (_, supervisor) = site.pids();
    under_readers(&[(&one, 1000), (&two, 2000)], |reads| {
        for _ in 0..8 {
            wait_for_reads(reads, 100);
            kill_daemon(&site, 2);
            shell.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            assert_eq!(Path::new(&says.next().unwrap().unwrap()), one.join("dir").canonicalize().unwrap());
            assert_eq!(says.next().unwrap().unwrap().trim(), FILES.to_string());
        }
        wait_for_reads(reads, 100);
    });
    assert!(read_anew(&open, LEN) == noise(1000, LEN), "what was open before all of them is open");
    let now = (ino(&one.join("dir/001")), ino(&two.join("dir")), open.metadata().unwrap().ino());
    assert_eq!((numbers, site.pids().1), (now, supervisor));
    assert_eq!((kept(&site), site.daemon_log().contains("was killed by signal 9")), (2, true));
    drop((open, shell));
    // Unmounted as ever, and nothing of them is left with the supervisor.
    for dir in [&one, &two] {
        wait_until("it can be unmounted", || site.run([OsStr::new("unmount"), dir.as_os_str()]).code == 0);
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    }
    let (daemon, _) = site.pids();
    let descriptors = || {
        let open = fs::read_dir(format!("/proc/{supervisor}/fd")).unwrap().flatten();
        open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == Path::new("/dev/fuse"))).count()
    };
    wait_until("the supervisor keeps nothing", || descriptors() == 0);
    site.ok(["stop"]);
    wait_until("both have ended", || !is_running(daemon) && !is_running(supervisor));
}

/// Nobody in particular.
const USER: u32 = 65534;
const AS_USER: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// A user's shell that says of each file it is given whether the one in the mount is the one in the source.
struct Comparing(Running, std::io::Lines<BufReader<std::process::ChildStdout>>);

impl Comparing {
    fn start(source: &Path, mounted: &Path) -> Self {
        let script = "while read -r f; do cmp \"$1/dir/$f\" \"$2/dir/$f\" && echo same || echo other; done";
        let mut command = Command::new(AS_USER[0]);
        command.args(&AS_USER[1..]).args(["sh", "-c", script, "sh"]).args([source, mounted]);
        let mut shell = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let says = BufReader::new(shell.0.stdout.take().unwrap()).lines();
        Self(shell, says)
    }

    fn is_same(&mut self, file: u64) -> bool {
        writeln!(self.0.0.stdin.as_mut().unwrap(), "{file:03}").unwrap();
        self.1.next().unwrap().unwrap() == "same"
    }
}

#[test]
#[cfg_attr(not(as_user), ignore = "needs root, to be another user, /dev/fuse and fusermount3")]
fn mounts_of_users_and_for_users_survive_too() {
    let chown = |path: &Path| std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
    // For other users, by root.
    let site = Site::initialised();
    let source = publish_noise(&site, "data@v1", 800);
    let top = site.home.parent().unwrap();
    let open_to_all = |dir: &Path| {
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    open_to_all(top);
    let dir = site.dir("mnt");
    site.ok([OsStr::new("mount"), "-oallow_other".as_ref(), "data@v1".as_ref(), dir.as_os_str()]);
    let mut shell = Comparing::start(&source, &dir);
    for file in 0..3 {
        assert!(shell.is_same(file), "{file}");
        kill_daemon(&site, 1);
    }
    drop(shell);
    // Mounted by the program `fusermount3`, which sends the descriptor to a user's daemon.
    let mut site = Site::new();
    let top = site.home.parent().unwrap().to_owned();
    open_to_all(&top);
    chown(&top);
    let program = site.dir("bin").join("bcai");
    install(&program);
    site.program = program;
    site.prefix = AS_USER.map(str::to_owned).to_vec();
    site.ok(["init"]);
    let source = publish_noise(&site, "data@v1", 900);
    let dir = site.dir("mnt");
    chown(&dir);
    site.ok([OsStr::new("mount"), "data@v1".as_ref(), dir.as_os_str()]);
    let mut shell = Comparing::start(&source, &dir);
    for file in 0..3 {
        assert!(shell.is_same(file), "{file}");
        kill_daemon(&site, 1);
    }
    assert!(shell.is_same(3));
}

#[test]
fn a_mount_in_the_foreground_stays_there() {
    let site = Site::initialised();
    publish_noise(&site, "data@v1", 700);
    let dir = site.dir("mnt");
    let words = [OsStr::new("mount"), OsStr::new("-f"), OsStr::new("data@v1"), dir.as_os_str()];
    let mut command = Running(site.command(words).stdout(Stdio::null()).spawn().unwrap());
    let is_there = || fs::read_to_string(dir.join("v")).is_ok_and(|v| v == "700");
    wait_until("it is mounted", is_there);
    kill_daemon(&site, 1);
    site.ok(["restart"]);
    assert!(is_there() && command.0.try_wait().unwrap().is_none());
    site.ok([OsStr::new("unmount"), dir.as_os_str()]);
    wait_until("it ends with its mount", || command.0.try_wait().unwrap().is_some());
    assert!(command.0.wait().unwrap().success());
}

#[test]
fn an_upgrade_interrupts_no_epoch() {
    let mut site = Site::new();
    let installed = site.dir("bin").join("bcai");
    install(&installed);
    site.program = installed.clone();
    site.ok(["init"]);
    publish_noise(&site, "data@v1", 3000);
    let dir = site.mount("data@v1", "mnt");
    let (mut daemon, supervisor) = site.pids();
    under_readers(&[(&dir, 3000)], |reads| {
        for _ in 0..3 {
            wait_for_reads(reads, 100);
            install(&installed);
            let report = site.json(["restart"]);
            assert_eq!((&report["was"], &report["mounts"]), (&daemon.into(), &1.into()), "{report}");
            daemon = report["pid"].as_u64().unwrap() as u32;
            let program = fs::read_link(format!("/proc/{daemon}/exe")).unwrap();
            assert_eq!(program, installed.canonicalize().unwrap(), "the new one runs");
        }
        wait_for_reads(reads, 100);
    });
    assert_eq!(site.pids(), (daemon, supervisor));
    assert!(site.daemon_log().contains("was restarted"));
}

#[test]
fn versions_that_were_changed_stay_what_they_were() {
    let site = Site::initialised();
    for (version, seed) in [("data@v1", 100), ("data@v2", 200)] {
        publish_noise(&site, version, seed);
    }
    let dir = site.mount("data@v1", "mnt");
    let first = File::open(dir.join("dir/005")).unwrap();
    let remount = |version: &str| site.ok(["remount".as_ref(), dir.as_os_str(), OsStr::new(version)]);
    remount("data@v2");
    let second = File::open(dir.join("dir/005")).unwrap();
    let numbers = (first.metadata().unwrap().ino(), second.metadata().unwrap().ino());
    // The kernel remembers that there is none.
    assert!(!dir.join("only-in-300").exists() && !dir.join("only-in-100").exists());
    for _ in 0..2 {
        kill_daemon(&site, 1);
        assert!(read_anew(&first, LEN) == noise(105, LEN), "an old version");
        assert!(read_anew(&second, LEN) == noise(205, LEN), "the mounted one");
        assert_eq!(fs::read_to_string(dir.join("v")).unwrap(), "200");
        assert_eq!((first.metadata().unwrap().ino(), second.metadata().unwrap().ino()), numbers);
    }
    publish_noise(&site, "data@v3", 300);
    remount("data@v3");
    assert_eq!(fs::read_to_string(dir.join("v")).unwrap(), "300");
    assert!(dir.join("only-in-300").exists(), "known to be missing in the daemon before");
    assert!(!dir.join("only-in-200").exists());
    let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_str().unwrap().contains("only")).count(), 1);
    kill_daemon(&site, 1);
    assert!(read_anew(&first, LEN) == noise(105, LEN) && read_anew(&second, LEN) == noise(205, LEN));
    assert_eq!(site.status()["mounts"][0]["reference"], "data@v3");
}

#[test]
#[cfg_attr(not(passthrough), ignore = "passthrough needs /dev/fuse, root and Linux 6.9")]
fn files_that_the_kernel_reads_itself_are_opened_again_as_they_were() {
    const LARGE: usize = 12 << 20;
    let site = Site::initialised();
    let source = site.dir("source");
    for name in ["passed", "served"] {
        fs::write(source.join(name), noise(name.len() as u64, LARGE)).unwrap();
    }
    site.publish(&source, "large@v1");
    let dir = site.dir("mnt");
    site.ok([OsStr::new("mount"), "-oio=passthrough".as_ref(), "large@v1".as_ref(), dir.as_os_str()]);
    let content = noise(6, LARGE);
    let (passed, served) = (dir.join("passed"), dir.join("served"));
    // Open before there is a blob file, so served by the daemon as long as it is open.
    let by_daemon = File::open(&served).unwrap();
    assert!(read_anew(&by_daemon, LARGE) == content);
    let hits = || site.status()["fetch"]["local_hits"].as_u64().unwrap();
    wait_until("the file is passed through", || {
        let file = File::open(&passed).unwrap();
        let before = hits();
        assert!(read_anew(&file, LARGE) == content);
        hits() == before
    });
    let by_kernel = File::open(&passed).unwrap();
    for _ in 0..3 {
        kill_daemon(&site, 1);
        // The kernel refuses an open in another way than that of those that are open.
        let again = [&passed, &served].map(|path| File::open(path).unwrap());
        for file in again.iter().chain([&by_kernel, &by_daemon]) {
            assert!(read_anew(file, LARGE) == content);
        }
    }
    drop((by_kernel, by_daemon));
    kill_daemon(&site, 1);
    for path in [&passed, &served] {
        assert!(read_anew(&File::open(path).unwrap(), LARGE) == content);
    }
}

#[test]
fn a_daemon_that_cannot_start_is_tried_again_and_its_readers_wait() {
    let site = Site::initialised();
    publish_noise(&site, "data@v1", 400);
    let dir = site.mount("data@v1", "mnt");
    let open = File::open(dir.join("dir/001")).unwrap();
    let settings = site.home.join("config.toml");
    let good = fs::read(&settings).unwrap_or_default();
    let (daemon, _) = site.pids();
    fs::write(&settings, "no setting = at all").unwrap();
    sigkill(daemon);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| read_anew(&open, LEN));
        let failed = || site.daemon_log().matches("config.toml").count();
        wait_until("it was tried twice", || failed() >= 2);
        assert!(!waiting.is_finished());
        fs::write(&settings, &good).unwrap();
        assert!(waiting.join().unwrap() == noise(401, LEN));
    });
    // Nobody has to wait for a daemon that is not wanted any more.
    let unread = File::open(dir.join("dir/002")).unwrap();
    let (daemon, supervisor) = site.pids();
    fs::write(site.home.join("state.json"), "{").unwrap();
    sigkill(daemon);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| unread.read_exact_at(&mut [0; 1], 0));
        wait_until("it cannot start", || site.daemon_log().contains("state.json is damaged"));
        assert!(!waiting.is_finished(), "{:?}\n{}", waiting.join().unwrap(), site.daemon_log());
        site.ok(["stop"]);
        assert!(waiting.join().unwrap().is_err());
    });
    wait_until("the supervisor has ended", || !is_running(supervisor));
}

#[test]
fn without_its_supervisor_a_daemon_works_on_and_says_so() {
    let site = Site::initialised();
    publish_noise(&site, "data@v1", 500);
    let dir = site.mount("data@v1", "mnt");
    let (daemon, supervisor) = site.pids();
    sigkill(supervisor);
    wait_until("the daemon knows", || site.status()["supervisor"].is_null());
    assert_eq!((kept(&site), site.pid()), (0, Some(daemon)));
    assert_eq!(fs::read_to_string(dir.join("v")).unwrap(), "500");
    let message = site.fails(1, ["restart"]);
    assert!(message.contains("supervisor"), "{message}");
    assert!(site.fails(11, ["daemon"]).contains("already running"));
    // As before there were supervisors.
    sigkill(daemon);
    wait_until("the mount is dead", || bcai_mount::is_dead(&dir));
    site.ok(["list"]);
    wait_until("the mount is restored", || fs::read_to_string(dir.join("v")).is_ok_and(|v| v == "500"));
    assert_eq!(kept(&site), 1);
}

#[test]
fn a_signal_to_the_supervisor_ends_everything_in_order() {
    let site = Site::initialised();
    publish_noise(&site, "data@v1", 600);
    for name in ["TERM", "INT"] {
        let dir = site.mount("data@v1", "mnt");
        // In use, so it is detached lazily; nobody keeps its connection.
        let open = File::open(dir.join("dir/001")).unwrap();
        let (daemon, supervisor) = site.pids();
        let sent = Command::new("kill").args([format!("-{name}"), supervisor.to_string()]).status();
        assert!(sent.unwrap().success());
        wait_until("both have ended", || site.run(["status"]).code == 10);
        wait_until("nothing is left", || !is_running(daemon) && !is_running(supervisor));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "unmounted");
        rustix::fs::fadvise(&open, 0, None, Advice::DontNeed).unwrap();
        let error = open.read_exact_at(&mut [0; 1], 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NOTCONN.raw_os_error()), "{error}");
        // Stopped on purpose.
        site.ok(["daemon"]);
        assert_eq!(site.status()["mounts"].as_array().unwrap().len(), 0);
    }
}
