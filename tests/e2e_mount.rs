//! The main job with real processes, real FUSE and real libp2p: publish on one node, mount and read on another.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::{Site, assert_same_tree, noise, wait_until};

/// Every kind of name and attribute that a dataset can hold.
fn make_everything(dir: &Path) {
    let file = |name: &[u8], content: &[u8]| {
        let path = dir.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    };
    file(b"plain", b"content");
    file(b"empty", b"");
    file(b"new\nline and \xff\xfe bytes", b"odd name");
    file(&[b'n'; 255], b"long name");
    file("ünï/中文".as_bytes(), b"unicode");
    file(b"big", &noise(1, 5 << 20));
    file(b"text", &b"compresses well\n".repeat(100_000));
    let executable = file(b"run.sh", b"#!/bin/sh\n");
    fs::set_permissions(&executable, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(file(b"secret", b"s"), fs::Permissions::from_mode(0o400)).unwrap();
    xattr::set(file(b"attributed", b"a"), "user.colour", b"\x00green\xff").unwrap();
    let old = file(b"old", b"o");
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::new(86_400, 500);
    File::open(old).unwrap().set_modified(before_1970).unwrap();
    fs::hard_link(&executable, dir.join("run-again.sh")).unwrap();
    symlink("plain", dir.join("link")).unwrap();
    symlink("/nowhere/\u{1f5ff}", dir.join("dangling")).unwrap();
    let sparse = File::create(dir.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"an island", 40 << 20).unwrap();
    fs::create_dir_all(dir.join("empty dir/inside")).unwrap();
    fs::create_dir(dir.join("many")).unwrap();
    for i in 0..2_000 {
        fs::write(dir.join(format!("many/{i:05}")), i.to_string()).unwrap();
    }
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn what_is_published_here_is_read_there() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    make_everything(&source);
    let uri = publisher.publish(&source, "all@v1");
    let mounted = reader.mount(&uri, "mnt");
    assert_same_tree(&source, &mounted);

    let diff =
        Command::new("diff").args(["-r", "--no-dereference"]).args([&source, &mounted]).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));

    // A hash that a stranger can check with b3sum.
    let hash = xattr::get(mounted.join("big"), "user.bcai.hash").unwrap().unwrap();
    let expected = blake3::hash(&fs::read(source.join("big")).unwrap()).to_hex();
    assert_eq!(String::from_utf8(hash).unwrap(), expected.as_str());

    // Once read, nothing is fetched again.
    let fetched = |site: &Site| site.status()["fetch"]["fetched"].as_u64().unwrap();
    let before = fetched(&reader);
    assert!(before > 0);
    assert_same_tree(&source, &mounted);
    assert_eq!(fetched(&reader), before);

    for denied in [fs::write(mounted.join("plain"), "x"), fs::remove_file(mounted.join("plain"))] {
        assert_eq!(denied.unwrap_err().raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
    }
    reader.ok([OsStr::new("unmount"), mounted.as_os_str()]);
    assert_eq!(fs::read_dir(&mounted).unwrap().count(), 0);
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_second_version_costs_what_changed_and_the_first_stays() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    fs::write(source.join("big"), noise(1, 8 << 20)).unwrap();
    publisher.publish(&source, "data@v1");
    let mut changed = fs::read(source.join("big")).unwrap();
    changed.splice(4 << 20..4 << 20, *b"inserted");
    fs::write(source.join("big"), &changed).unwrap();
    let second = publisher.json([OsStr::new("publish"), source.as_os_str(), OsStr::new("data@v2")]);
    let new = second["ingest"]["new_bytes"].as_u64().unwrap();
    assert!(new < 600 << 10, "an insertion of 8 bytes added {new} bytes");

    let uri = second["uri"].as_str().unwrap();
    let latest = reader.mount(&uri.replace("@v2", ""), "latest");
    let first = reader.mount("data@v1", "first");
    assert_eq!(fs::read(latest.join("big")).unwrap(), changed);
    assert_eq!(fs::read(first.join("big")).unwrap(), noise(1, 8 << 20));
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_busy_mount_says_by_whom_and_goes_on() {
    let site = Site::initialised();
    let source = site.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    site.publish(&source, "data@v1");
    let mounted = site.mount("data@v1", "mnt");
    let mut held = File::open(mounted.join("file")).unwrap();
    let message = site.fails(11, [OsStr::new("unmount"), mounted.as_os_str()]);
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    let mut content = String::new();
    held.read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
    drop(held);
    // The kernel releases the file a moment after it is closed.
    wait_until("it can be unmounted", || site.run([OsStr::new("unmount"), mounted.as_os_str()]).code == 0);
}

#[test]
#[cfg_attr(not(all(fuse_available, root)), ignore = "needs /dev/fuse and umount(8) as root")]
fn plain_umount_ends_a_mount() {
    let site = Site::initialised();
    let source = site.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    site.publish(&source, "data@v1");
    let mounted = site.mount("data@v1", "mnt");
    assert!(Command::new("umount").arg(&mounted).status().unwrap().success());
    wait_until("the node has noticed", || site.status()["mounts"].as_array().unwrap().is_empty());
    site.ok([OsStr::new("mount"), OsStr::new("data"), mounted.as_os_str()]);
    assert_eq!(fs::read_to_string(mounted.join("file")).unwrap(), "content");
}

#[test]
fn ls_cat_export_and_verify_need_no_mount() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    make_everything(&source);
    let uri = publisher.publish(&source, "all@v1");
    reader.ok(["init", "--join", &uri]);
    let rows = reader.json(["ls", "-R", "all@v1"]);
    let names = Command::new("find").arg(&source).args(["-mindepth", "1", "-printf", "."]).output().unwrap();
    assert_eq!(rows.as_array().unwrap().len(), names.stdout.len());
    assert_eq!(reader.ok(["cat", "all@v1/plain"]), "content");
    assert_eq!(reader.ok(["cat", "all@v1/new\\x0aline and \\xff\\xfe bytes"]), "odd name");
    let target = reader.dir("export");
    reader.ok([OsStr::new("export"), OsStr::new("all"), target.as_os_str()]);
    assert_same_tree(&source, &target);
    let report = reader.json(["verify", "all@v1"]);
    assert_eq!(report["absent"], 0, "{report}");
    assert!(report["objects"].as_u64().unwrap() > 100, "{report}");
    reader.ok(["verify", "--all"]);
}

#[test]
fn the_log_is_followed_and_a_reader_may_not_take_a_name() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    let uri = publisher.publish(&source, "data@v1");
    reader.ok(["init", "--join", &uri]);
    fs::write(source.join("file"), "other").unwrap();
    publisher.publish(&source, "data@v2");
    wait_until("the second version has arrived", || reader.ok(["list"]).contains("data@v2"));
    let heights = |site: &Site| site.json(["log"]).as_array().unwrap().clone();
    assert_eq!(heights(&publisher), heights(&reader));
    // A follower publishes through the validator it is connected to, under a name of its own.
    let own = reader.publish(&source, "mine@v1");
    assert!(own.contains("/mine@v1"));
    let message = reader.fails(12, [OsStr::new("publish"), source.as_os_str(), OsStr::new("data@v3")]);
    assert!(message.contains("belongs to"), "{message}");
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_pin_in_a_uri_is_held_against_the_log() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    let uri = publisher.publish(&source, "data@v1");
    let network = publisher.status()["networks"][0].clone();
    let (genesis, pin) = (network["genesis"].as_str().unwrap(), network["pin"].as_str().unwrap());
    let pinned = |pin: &str| uri.replacen(genesis, &format!("{genesis}{pin}"), 1);
    let dir = reader.dir("mnt");
    let fails = |code: i32, pin: &str| {
        reader.fails(code, [OsStr::new("mount"), OsStr::new(&pinned(pin)), dir.as_os_str()])
    };
    let (height, _) = pin[1..].split_once(':').unwrap();
    let other = format!("@{height}:{genesis}");
    let message = fails(13, &other);
    assert!(message.contains(&other[1 + height.len() + 1..]) && message.contains("pinned"), "{message}");
    assert!(fails(14, &pin.replacen(height, "900", 1)).contains("height 900"));
    assert!(fails(2, "@12").contains("@HEIGHT:HASH"));
    let mounted = reader.mount(&pinned(pin), "pinned");
    assert_eq!(fs::read_to_string(mounted.join("file")).unwrap(), "content");
}
