//! The table of `docs/SEMANTICS.md`, held against mounts: every row is made as a system call.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{Site, wait_until};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Debian's.
const PYTHON: &str = "/usr/bin/python3";

/// What each call comes to in a mount that is read in this way.
fn documented(io: &str) -> BTreeMap<String, String> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/SEMANTICS.md")).unwrap();
    let table = page.split("| call | comes to |\n|---|---|\n").nth(1).expect("the table");
    let rows = table.lines().take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [call, outcome] = cells[..] else { panic!("not two cells: {line}") };
        let mut outcomes = outcome.split(", with ");
        let usual = outcomes.next().unwrap();
        let special = outcomes.find_map(|special| special.strip_prefix(io)).map(str::trim);
        (call.to_owned(), special.unwrap_or(usual).to_owned())
    });
    rows.collect()
}

fn probe(args: &[&Path]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/semantics/probe.py");
    let output = Command::new(PYTHON).args(["-B", script]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the kernel reads a file by itself: the disk below refuses what is not aligned. The kernel does not while an ordinary open
/// stands, and one that was just closed stands until the node has heard of it.
fn is_passed_through(file: &Path) -> bool {
    let file = rustix::fs::open(file, OFlags::RDONLY | OFlags::DIRECT, Mode::empty()).unwrap();
    let mut buffer = [0; 101];
    rustix::io::pread(&file, &mut buffer[1..], 3) == Err(Errno::INVAL)
}

fn hold_against(io: &str) {
    let site = Site::initialised();
    // Another user gets as far as the mount.
    fs::set_permissions(site.home.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    // Another file system: what is on the disk of the node is not to be mistaken for the mount.
    let outside = tempfile::tempdir_in("/dev/shm").unwrap();
    let source = site.dir("source");
    probe(&[Path::new("make"), &source]);
    site.publish(&source, "data@v1");
    let mounted = site.dir("mnt");
    let option = format!("io={io}");
    let args = [OsStr::new("mount"), OsStr::new("-o"), OsStr::new(&option), OsStr::new("data@v1")];
    site.ok([&args[..], &[mounted.as_os_str()]].concat());
    let big = mounted.join("big");
    if io == "passthrough" {
        // Opened until there is a copy that the kernel reads: only then it is passed through.
        wait_until("there is a copy that the kernel can read", || {
            fs::read(&big).unwrap();
            site.status()["cache"]["blob_files"] == 1
        });
        wait_until("the kernel reads it by itself", || is_passed_through(&big));
    }
    let said = probe(&[Path::new("ask"), &mounted, outside.path()]);
    let found: BTreeMap<String, String> = serde_json::from_str(&said).unwrap();
    let documented = documented(io);
    let keys = |rows: &BTreeMap<String, String>| rows.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&found), keys(&documented), "rows of the probe and of the document");
    for (call, outcome) in &documented {
        assert_eq!(&found[call], outcome, "{call}, with io={io}");
    }
}

#[test]
#[cfg_attr(not(all(fuse_available, python, root)), ignore = "needs root, /dev/fuse and Debian's python3")]
fn calls_come_to_what_is_documented() {
    hold_against("cached");
}

#[test]
#[cfg_attr(not(all(fuse_available, python, root)), ignore = "needs root, /dev/fuse and Debian's python3")]
fn calls_come_to_the_same_where_the_kernel_opens_by_itself() {
    hold_against("zero-open");
}

#[test]
#[cfg_attr(not(all(passthrough, python)), ignore = "needs root, Linux 6.9 and Debian's python3")]
fn calls_come_to_the_same_where_the_kernel_reads_by_itself() {
    hold_against("passthrough");
}

/// Who asks for what nobody can deliver is told so, in the words of the document, and a later try can succeed.
#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn errors_are_those_of_the_document_and_are_not_kept() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    fs::write(source.join("file"), common::noise(1, 300_000)).unwrap();
    let uri = publisher.publish(&source, "data@v1");
    // It has to know what the name means.
    reader.ok(["ls", &uri]);
    let mounted = reader.dir("mnt");
    reader.ok([
        OsStr::new("mount"),
        OsStr::new("-o"),
        OsStr::new("fetch=local"),
        OsStr::new(&uri),
        mounted.as_os_str(),
    ]);
    let file = mounted.join("file");
    let error = fs::read(&file).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
    assert!(!mounted.join("absent").exists());
    reader.ok(["prefetch", &uri]);
    assert_eq!(fs::read(&file).unwrap(), common::noise(1, 300_000));
}
