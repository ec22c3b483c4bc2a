//! Large files that the kernel reads by itself: with real processes, real FUSE and SIGKILL.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Site, noise, wait_until};

const LEN: usize = 12 << 20;

/// The blob files in the store of a site, with their lengths.
fn blob_files(site: &Site) -> Vec<(PathBuf, u64)> {
    let mut pending = vec![site.home.join("store/files")];
    let mut found = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => pending.push(entry.path()),
                Ok(meta) => found.push((entry.path(), meta.len())),
                Err(_) => {}
            }
        }
    }
    found
}

fn reads_of_the_daemon(site: &Site) -> u64 {
    site.status()["fetch"]["local_hits"].as_u64().unwrap()
}

fn mount_with(site: &Site, reference: &str, io: &str, dir: &Path) -> serde_json::Value {
    let option = format!("io={io}");
    let words = [OsStr::new("mount"), OsStr::new("-o"), OsStr::new(&option), OsStr::new(reference)];
    site.json(words.into_iter().chain([dir.as_os_str()]))
}

/// Reads until reading needs the daemon no more.
fn wait_until_passed_through(site: &Site, file: &Path, content: &[u8]) {
    wait_until("the file is passed through", || {
        let before = reads_of_the_daemon(site);
        let file = File::open(file).unwrap();
        // Pages that the kernel kept of the mount would need no daemon either.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut bytes = vec![0; content.len()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == content);
        reads_of_the_daemon(site) == before
    });
}

#[test]
#[cfg_attr(not(passthrough), ignore = "passthrough needs /dev/fuse, root and Linux 6.9")]
fn a_large_file_is_read_by_the_kernel_and_survives_sigkill() {
    let site = Site::initialised();
    let source = site.dir("source");
    let content = noise(1, LEN);
    fs::write(source.join("large"), &content).unwrap();
    site.publish(&source, "large@v1");
    let mounted = site.dir("mnt");
    let report = mount_with(&site, "large@v1", "auto", &mounted);
    assert_eq!(report["io"], "passthrough", "{report}");
    assert!(report["io_reason"].as_str().unwrap().contains("on average"), "{report}");
    let file = mounted.join("large");
    wait_until_passed_through(&site, &file, &content);
    assert_eq!(site.status()["mounts"][0]["io"], "passthrough");
    assert!(site.ok(["status"]).contains("io passthrough"));
    assert!(site.ok(["doctor"]).contains("passthrough"));

    // What is open is read on without a daemon, and the blob file is there for the next one.
    let open = File::open(&file).unwrap();
    site.kill();
    let mut bytes = vec![0; LEN];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == content);
    drop(open);
    let files = blob_files(&site);
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].1, LEN as u64);
    let stray = files[0].0.with_file_name("ffff");
    fs::write(&stray, b"half").unwrap();
    site.ok(["list"]);
    wait_until("the mount is back", || fs::metadata(&file).is_ok());
    wait_until_passed_through(&site, &file, &content);
    assert_eq!(blob_files(&site), files, "the stray one is gone, the whole one was kept");
}

#[test]
#[cfg_attr(not(passthrough), ignore = "passthrough needs /dev/fuse, root and Linux 6.9")]
fn a_blob_file_that_was_cut_is_not_used() {
    let site = Site::initialised();
    let source = site.dir("source");
    let content = noise(2, LEN);
    fs::write(source.join("large"), &content).unwrap();
    site.publish(&source, "large@v1");
    let mounted = site.mount("large@v1", "mnt");
    let file = mounted.join("large");
    wait_until_passed_through(&site, &file, &content);
    site.kill();
    for (path, len) in blob_files(&site) {
        File::options().write(true).open(path).unwrap().set_len(len / 2).unwrap();
    }
    site.ok(["list"]);
    wait_until("the mount is back", || fs::metadata(&file).is_ok());
    assert!(fs::read(&file).unwrap() == content);
    wait_until_passed_through(&site, &file, &content);
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn the_io_of_a_mount_can_be_chosen() {
    let site = Site::initialised();
    let source = site.dir("source");
    fs::write(source.join("large"), noise(3, 9 << 20)).unwrap();
    site.publish(&source, "data@v1");
    for io in ["cached", "zero-open"] {
        let dir = site.dir(io);
        let report = mount_with(&site, "data@v1", io, &dir);
        assert_eq!((&report["io"], &report["io_reason"]), (&io.into(), &"as asked for".into()));
        let read = || {
            let file = File::open(dir.join("large")).unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            let mut bytes = vec![0; 9 << 20];
            file.read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes == noise(3, 9 << 20));
            reads_of_the_daemon(&site)
        };
        assert!(read() < read(), "the daemon serves what the kernel has not kept");
    }
    assert!(blob_files(&site).is_empty(), "no copy without passthrough");
    let dir = site.dir("other");
    let words = [OsStr::new("mount"), OsStr::new("-o"), OsStr::new("io=direct"), OsStr::new("data@v1")];
    let error = site.fails(2, words.into_iter().chain([dir.as_os_str()]));
    assert!(error.contains("zero-open"), "{error}");
}
