//! Publishing without a second copy: with real processes, files that change afterwards, and a file system that clones.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Site, assert_same_tree, noise, wait_until};
use serde_json::Value;

const FILES: u64 = 40;
const LEN: usize = 600 << 10;
/// Less than what is published in place.
const SMALL: usize = 4 << 10;

/// Where nothing can be cloned into a home: on another file system.
fn elsewhere() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn make_source(dir: &Path) {
    for i in 0..FILES {
        fs::write(dir.join(format!("large-{i:02}")), noise(i, LEN)).unwrap();
        fs::write(dir.join(format!("small-{i:02}")), noise(1000 + i, SMALL)).unwrap();
    }
}

fn publish(site: &Site, dir: &Path, target: &str) -> Value {
    let words = [OsStr::new("publish"), OsStr::new("--in-place"), dir.as_os_str(), OsStr::new(target)];
    site.json(words)
}

/// Bytes that a directory takes on disk.
fn occupied(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let each = entries.map(|entry| match entry.metadata().unwrap() {
        meta if meta.is_dir() => occupied(&entry.path()),
        meta => meta.blocks() * 512,
    });
    each.sum()
}

/// Writes over a part of a file until its time shows it.
fn change(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    let modified = || file.metadata().unwrap().modified().unwrap();
    let before = modified();
    while modified() == before {
        file.write_all_at(b"changed by its owner", (LEN / 2) as u64).unwrap();
    }
}

fn corrupt(report: &Value) -> Vec<String> {
    report["corrupt"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// What `verify` finds wrong.
fn damage(site: &Site, reference: &str) -> Vec<String> {
    let done = site.run(["--json", "verify", reference]);
    assert_eq!(done.code, 13, "{}{}", done.stdout, done.stderr);
    corrupt(&serde_json::from_str(&done.stdout).unwrap())
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn files_are_served_from_where_they_are_and_never_for_what_they_were() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let elsewhere = elsewhere();
    let source = elsewhere.path();
    make_source(source);
    let report = publish(&publisher, source, "data@v1");
    assert_eq!(report["ingest"]["in_place_files"], FILES, "{report}");
    assert_eq!(publisher.status()["store"]["in_place_bytes"], FILES * LEN as u64);
    assert!(publisher.ok(["status"]).contains("in place"));
    let cache = publisher.json(["cache"]);
    assert_eq!((&cache["in_place_bytes"], &cache["cached_bytes"]), (&(FILES * LEN as u64).into(), &0.into()));
    let (published, saved) = (&cache["published_bytes"], &cache["deduplicated_bytes"]);
    assert!(published.as_u64().unwrap() < (FILES * SMALL as u64) * 3 / 2 && saved == 0, "{cache}");
    assert!(publisher.ok(["cache"]).contains("\nin place   23.4 MiB in published files"));
    assert!(!Site::initialised().ok(["cache"]).contains("in place"));
    let uri = report["uri"].as_str().unwrap();
    publisher.ok(["stop"]);
    let store = publisher.home.join("store");
    let packs = occupied(&store.join("packs"));
    assert!(packs < (FILES * SMALL as u64) * 3 / 2, "{packs} bytes");
    publisher.ok(["daemon"]);

    let mounted = reader.mount(uri, "mnt");
    // Nobody is given the new bytes for the old ones.
    let last = source.join(format!("large-{:02}", FILES - 1));
    change(&last);
    let name = last.file_name().unwrap().to_str().unwrap().to_owned();
    let error = fs::read(mounted.join(&name)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    for i in 0..FILES - 1 {
        assert!(fs::read(mounted.join(format!("large-{i:02}"))).unwrap() == noise(i, LEN), "{i}");
        assert!(fs::read(mounted.join(format!("small-{i:02}"))).unwrap() == noise(1000 + i, SMALL), "{i}");
    }
    let path = last.display().to_string();
    let named = damage(&publisher, "data@v1");
    assert_eq!(named.len(), 1, "{named:?}");
    assert!(named[0].contains(&path) && named[0].contains("has changed since"), "{named:?}");
    assert!(named[0].contains("publish it again, or restore the file"), "{named:?}");
    let all = publisher.run(["verify", "--all"]);
    assert_eq!(all.code, 13);
    assert!(all.stdout.contains(&path), "{}", all.stdout);
    assert!(publisher.ok(["status"]).contains(&format!("changed   {path}")), "{}", publisher.ok(["status"]));
    let error = publisher.fails(13, ["cat", &format!("data@v1/{name}")]);
    assert!(error.contains(&path) && error.contains("publish it again"), "{error}");

    // The next version has what is there now, from where it is.
    let second = publish(&publisher, source, "data@v2");
    assert_eq!(second["ingest"]["in_place_files"], FILES, "{second}");
    assert_eq!(corrupt(&publisher.json(["verify", "data@v2"])), Vec::<String>::new());
    let next = reader.mount(second["uri"].as_str().unwrap(), "next");
    assert_same_tree(source, &next);

    // Restored, the first one is whole again.
    fs::write(&last, noise(FILES - 1, LEN)).unwrap();
    assert_eq!(corrupt(&publisher.json(["verify", "data@v1"])), Vec::<String>::new());
    // Of the second one the reader still has what was changed, and gives it back: into a pack.
    assert_eq!(damage(&publisher, "data@v2").len(), 1);
    wait_until("the second version is repaired", || {
        publisher.run(["verify", "--repair", "data@v2"]).code == 0
    });
    assert_eq!(corrupt(&publisher.json(["verify", "data@v2"])), Vec::<String>::new());
    assert!(occupied(&store.join("packs")) < packs + (1 << 20), "nothing but that was copied");
}

#[test]
fn killed_right_after_a_publish_in_place_nothing_is_lost() {
    let site = Site::initialised();
    let source = site.dir("source");
    make_source(&source);
    publish(&site, &source, "data@v1");
    site.kill();
    assert_eq!(corrupt(&site.json(["verify", "data@v1"])), Vec::<String>::new());
    let out = site.dir("out");
    site.ok([OsStr::new("export"), OsStr::new("data@v1"), out.as_os_str()]);
    assert_same_tree(&source, &out);

    // Without its index the store knows no more where things are; publishing again tells it.
    site.ok(["stop"]);
    fs::remove_file(site.home.join("store/index.redb")).unwrap();
    assert_eq!(site.run(["verify", "data@v1"]).code, 13);
    let again = publish(&site, &source, "data@v1");
    assert_eq!(again["already"], true, "{again}");
    assert_eq!(corrupt(&site.json(["verify", "data@v1"])), Vec::<String>::new());

    // An ordinary publish makes the store whole without the files.
    site.ok([OsStr::new("publish"), source.as_os_str(), OsStr::new("data@v1")]);
    fs::remove_dir_all(&source).unwrap();
    assert_eq!(corrupt(&site.json(["verify", "data@v1"])), Vec::<String>::new());
}

/// A mount may be published in place, but not out of the store that it comes out of.
#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_mount_is_not_served_out_of_itself() {
    let (publisher, reader) = (Site::initialised(), Site::initialised());
    let source = publisher.dir("source");
    make_source(&source);
    let uri = publisher.publish(&source, "data@v1");
    let mounted = reader.mount(&uri, "mnt");
    let report = publish(&reader, &mounted, "copy@v1");
    let ingest = &report["ingest"];
    assert_eq!((&ingest["in_place_files"], &ingest["copied_files"]), (&0.into(), &FILES.into()), "{report}");
    publisher.ok(["stop"]);
    assert_eq!(corrupt(&reader.json(["verify", "copy@v1"])), Vec::<String>::new());
    assert_same_tree(&source, &mounted);
}

/// A read of the file in place was a read of the mount, which waited for it.
#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_dataset_that_is_mounted_over_its_own_files_is_not_read_from_itself() {
    let site = Site::initialised();
    let (source, aside) = (site.dir("photos"), site.dir("aside"));
    make_source(&source);
    let report = publish(&site, &source, "photos@v1");
    assert_eq!(report["ingest"]["in_place_files"], FILES, "{report}");
    fs::rename(&source, aside.join("photos")).unwrap();
    let mounted = site.mount("photos@v1", "photos");
    assert_eq!(mounted, source);
    let mut verify = site.command(["verify", "photos@v1"]).stdout(Stdio::null()).spawn().unwrap();
    wait_until("the verification ends", || verify.try_wait().unwrap().is_some());
    let named = damage(&site, "photos@v1");
    assert!(named.len() >= FILES as usize, "{}", named.len());
    let wrong = named.iter().find(|line| !line.contains("something else has its name now"));
    assert_eq!(wrong, None);
    site.ok([OsStr::new("unmount"), mounted.as_os_str()]);
    fs::remove_dir(&source).unwrap();
    fs::rename(aside.join("photos"), &source).unwrap();
    assert_eq!(corrupt(&site.json(["verify", "photos@v1"])), Vec::<String>::new());
}

/// A file system of its own that clones files, unmounted with the test.
struct Xfs {
    mountpoint: PathBuf,
}

impl Xfs {
    fn new(dir: &Path) -> Self {
        let (image, mountpoint) = (dir.join("image"), dir.join("xfs"));
        File::create(&image).unwrap().set_len(400 << 20).unwrap();
        fs::create_dir_all(&mountpoint).unwrap();
        assert!(Command::new("mkfs.xfs").arg("-q").arg(&image).status().unwrap().success());
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&image).arg(&mountpoint);
        assert!(mount.status().unwrap().success());
        Self { mountpoint }
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mountpoint).status();
    }
}

#[test]
#[cfg_attr(not(reflink), ignore = "needs root, loop devices and mkfs.xfs, from the package xfsprogs")]
fn where_files_can_be_cloned_changing_them_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let xfs = Xfs::new(dir.path());
    let mut site = Site::new();
    site.home = xfs.mountpoint.join("home");
    site.ok(["init"]);
    let source = xfs.mountpoint.join("source");
    fs::create_dir(&source).unwrap();
    make_source(&source);
    rustix::fs::syncfs(File::open(&xfs.mountpoint).unwrap()).unwrap();
    let free = || {
        let stat = rustix::fs::statvfs(&xfs.mountpoint).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let before = free();
    let report = publish(&site, &source, "data@v1");
    let ingest = &report["ingest"];
    assert_eq!((&ingest["cloned_files"], &ingest["in_place_files"]), (&FILES.into(), &0.into()), "{report}");
    assert!(before - free() < FILES * LEN as u64 / 2, "{} bytes were taken", before - free());
    let whole = dir.path().join("whole");
    assert!(Command::new("cp").arg("-a").args([&source, &whole]).status().unwrap().success());

    change(&source.join("large-00"));
    fs::remove_file(source.join("large-01")).unwrap();
    assert_eq!(corrupt(&site.json(["verify", "data@v1"])), Vec::<String>::new());
    let second = publish(&site, &source, "data@v2");
    // The one that was changed has a new clone; the others are known.
    assert_eq!(second["ingest"]["cloned_files"], FILES - 1, "{second}");
    site.kill();
    for (version, same) in [("data@v1", &whole), ("data@v2", &source)] {
        assert_eq!(corrupt(&site.json(["verify", version])), Vec::<String>::new());
        let out = dir.path().join(version);
        site.ok([OsStr::new("export"), OsStr::new(version), out.as_os_str()]);
        assert_same_tree(same, &out);
    }
    site.ok(["stop"]);
}
