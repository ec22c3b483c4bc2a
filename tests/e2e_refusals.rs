//! What a machine can lack and a directory can hold: each refused with its name, its cause and a remedy.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Site, SmallDisk, install, noise};

const NOBODY: u32 = 65534;

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// A node run by a user without privileges. Its program is a copy that this user may execute.
fn site_of_nobody() -> Site {
    let mut site = Site::new();
    let dir = site.home.parent().unwrap().to_owned();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let program = dir.join("bcai");
    install(&program);
    site.program = program;
    site.prefix = words("setpriv --reuid 65534 --regid 65534 --clear-groups");
    site
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to become another user")]
fn an_unreadable_file_is_refused_by_name() {
    let site = site_of_nobody();
    site.ok(["init"]);
    let source = site.dir("source");
    fs::write(source.join("open"), "o").unwrap();
    let closed = source.join("closed");
    fs::write(&closed, "c").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
    let message = site.fails(12, [OsStr::new("snapshot"), source.as_os_str()]);
    assert!(message.contains("closed") && message.contains("Permission denied"), "{message}");
    chown(&closed, Some(NOBODY), None).unwrap();
    site.ok([OsStr::new("snapshot"), source.as_os_str()]);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to make an identity readable by others as another user")]
fn an_identity_that_others_can_read_is_refused() {
    let site = Site::initialised();
    site.ok(["stop"]);
    let identity = site.home.join("identity.key");
    fs::set_permissions(&identity, fs::Permissions::from_mode(0o644)).unwrap();
    let message = site.fails(12, ["list"]);
    assert!(message.contains("identity.key") && message.contains("chmod 600"), "{message}");
    fs::set_permissions(&identity, fs::Permissions::from_mode(0o600)).unwrap();
    site.ok(["list"]);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to hide /dev/fuse in a mount namespace")]
fn a_machine_without_fuse_says_so() {
    let mut site = Site::initialised();
    let source = site.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    site.publish(&source, "data@v1");
    site.ok(["stop"]);
    let hidden = "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && exec \"$@\"";
    site.prefix = words("unshare --mount sh -c");
    site.prefix.extend([hidden.to_owned(), "sh".into()]);
    let dir = site.dir("mnt");
    let message = site.fails(1, [OsStr::new("mount"), OsStr::new("data"), dir.as_os_str()]);
    assert!(message.contains("/dev/fuse") && message.contains("modprobe fuse"), "{message}");
    let doctor = site.run(["doctor"]);
    assert_eq!(doctor.code, 1);
    assert!(doctor.stdout.contains("FAIL  fuse"), "{}", doctor.stdout);
    // Everything else works without it.
    assert_eq!(site.ok(["cat", "data/file"]), "content");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to mount a small file system")]
fn a_full_disk_loses_nothing_that_was_published() {
    let site = Site::new();
    let _disk = SmallDisk::under(&site, "96m");
    site.ok(["init"]);
    let source = site.dir("source");
    fs::write(source.join("a"), noise(1, 1 << 20)).unwrap();
    site.publish(&source, "data@v1");
    for i in 0..100 {
        fs::write(source.join(format!("{i}")), noise(i, 2 << 20)).unwrap();
    }
    let message = site.fails(1, [OsStr::new("publish"), source.as_os_str(), OsStr::new("data@v2")]);
    assert!(message.contains("no space left"), "{message}");
    let out = site.dir("out");
    site.ok([OsStr::new("export"), OsStr::new("data@v1"), out.as_os_str()]);
    assert_eq!(fs::read(out.join("a")).unwrap(), noise(1, 1 << 20));
    assert!(!site.ok(["list"]).contains("v2"));
    site.ok(["stop"]);
    site.ok(["verify", "data@v1"]);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_named() {
    let site = Site::initialised();
    let source = site.dir("source");
    let restless = source.join("restless");
    fs::write(&restless, noise(1, 64 << 20)).unwrap();
    let done = AtomicBool::new(false);
    let message = std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write;
            let mut file = fs::OpenOptions::new().append(true).open(&restless).unwrap();
            while !done.load(Ordering::Relaxed) {
                file.write_all(b"x").unwrap();
            }
        });
        let failed = site.run([OsStr::new("publish"), source.as_os_str(), OsStr::new("data@v1")]);
        done.store(true, Ordering::Relaxed);
        assert_eq!(failed.code, 1, "{}{}", failed.stdout, failed.stderr);
        failed.stderr
    });
    assert!(message.contains("restless") && message.contains("changed while"), "{message}");
    assert!(!site.ok(["list"]).contains("data"));
    site.publish(&source, "data@v1");
}
