//! Another version on a directory where one is mounted: by command, and because a tag that is followed has moved.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{Site, assert_same_tree, noise, wait_until};
use serde_json::Value;

/// Publishes a version of `data` whose files say which.
fn publish(site: &Site, number: u64) -> String {
    let source = site.dir(&format!("source-{number}"));
    fs::create_dir_all(source.join("dir")).unwrap();
    for name in ["v", "dir/v"] {
        fs::write(source.join(name), number.to_string()).unwrap();
    }
    fs::write(source.join(format!("only-in-{number}")), "").unwrap();
    fs::write(source.join("large"), noise(number, 3 << 20)).unwrap();
    site.publish(&source, &format!("data@v{number}"))
}

fn said(dir: &Path) -> String {
    format!(
        "{} {}",
        fs::read_to_string(dir.join("v")).unwrap(),
        fs::read_to_string(dir.join("dir/v")).unwrap()
    )
}

fn row(site: &Site, dir: &Path) -> Value {
    let status = site.status();
    let rows = status["mounts"].as_array().unwrap();
    rows.iter().find(|row| row["dir"] == dir.to_str().unwrap()).cloned().unwrap()
}

fn remount(site: &Site, dir: &Path, reference: &[&str]) -> Value {
    let words = [OsStr::new("remount"), dir.as_os_str()];
    site.json(words.into_iter().chain(reference.iter().map(OsStr::new)))
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_remount_changes_paths_and_leaves_open_files() {
    let site = Site::initialised();
    publish(&site, 1);
    let mounted = site.mount("data", "mnt");
    let before = row(&site, &mounted);
    assert_eq!((before["follows"].as_bool(), said(&mounted).as_str()), (Some(false), "1 1"));
    let mut open = File::open(mounted.join("large")).unwrap();
    let mut start = vec![0; 1 << 20];
    open.read_exact(&mut start).unwrap();
    publish(&site, 2);
    assert_eq!(said(&mounted), "1 1", "what was mounted without a tag stays");
    let changed = remount(&site, &mounted, &[]);
    assert_eq!(
        (changed["changed"].as_bool(), changed["before"]["version"].as_str()),
        (Some(true), Some("v1"))
    );
    assert_eq!(said(&mounted), "2 2");
    assert_same_tree(&site.dir("source-2"), &mounted);
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).unwrap();
    assert!([start, rest].concat() == noise(1, 3 << 20), "the open file is the old one to its end");
    assert_eq!(remount(&site, &mounted, &["data@v2"])["changed"], false);
    remount(&site, &mounted, &["data@v1"]);
    assert_eq!(said(&mounted), "1 1");
    assert_eq!(row(&site, &mounted)["reference"], "data@v1");
    // The wish survives a kill.
    site.kill();
    site.ok(["list"]);
    wait_until("the mount is restored", || fs::read_to_string(mounted.join("v")).is_ok_and(|v| v == "1"));

    // Who restored it is done with it a moment later.
    let unknown = [OsStr::new("remount"), mounted.as_os_str(), OsStr::new("data@v9")];
    wait_until("the mount can be changed", || site.run(unknown).code != 11);
    let error = site.fails(10, unknown);
    assert!(error.contains("v9"), "{error}");
    assert_eq!(said(&mounted), "1 1");
    let nowhere = site.dir("nowhere");
    let error = site.fails(10, [OsStr::new("remount"), nowhere.as_os_str()]);
    assert!(error.contains("nothing is mounted"), "{error}");
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_mount_follows_the_tag_that_it_was_mounted_by() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let uri = publish(&publisher, 1);
    publisher.ok(["tag", "data", "stable", "v1"]);
    let latest = reader.mount(&uri.replace("@v1", "@latest"), "latest");
    let stable = reader.mount("data@stable", "stable");
    let fixed = reader.mount("data@v1", "fixed");
    assert_eq!(row(&reader, &latest)["follows"], true);
    assert!(reader.ok(["status"]).contains("follows the tag"));
    let open = File::open(latest.join("large")).unwrap();
    publish(&publisher, 2);
    let is = |dir: &Path, version: &str| fs::read_to_string(dir.join("v")).unwrap() == version;
    wait_until("latest is the second version", || is(&latest, "2"));
    assert_eq!(said(&latest), "2 2");
    assert!(latest.join("only-in-2").exists() && !latest.join("only-in-1").exists());
    let mut old = vec![0; 3 << 20];
    open.read_exact_at(&mut old, 0).unwrap();
    assert!(old == noise(1, 3 << 20), "read of the publisher after the change");
    assert_eq!((said(&stable), said(&fixed)), ("1 1".into(), "1 1".into()));
    publisher.ok(["tag", "data", "stable", "v2"]);
    wait_until("stable is the second version", || is(&stable, "2"));
    // A version that is withdrawn is not the latest any more.
    publisher.ok(["yank", "data@v2", "--reason", "wrong labels"]);
    wait_until("latest is the first version again", || is(&latest, "1"));
    assert_eq!(said(&stable), "2 2", "a tag stays where it was put");
    // Given a version, it stays there; given a tag, it follows again.
    remount(&reader, &latest, &["data@v1"]);
    publish(&publisher, 3);
    wait_until("the reader knows of the third", || reader.ok(["list"]).contains("v3"));
    assert_eq!((said(&latest), row(&reader, &latest)["follows"].as_bool()), ("1 1".into(), Some(false)));
    remount(&reader, &latest, &["data@latest"]);
    assert_eq!(said(&latest), "3 3");
    // Also after the daemon was killed.
    reader.kill();
    publish(&publisher, 4);
    reader.ok(["list"]);
    wait_until("the mount is back with the fourth", || {
        fs::read_to_string(latest.join("v")).is_ok_and(|version| version == "4")
    });
    publish(&publisher, 5);
    wait_until("it follows", || is(&latest, "5"));
}

/// The clock's floor stands for the time that has passed, so that nobody has to wait a week.
#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_log_that_stands_still_does_not_say_what_the_newest_version_is() {
    const DAY_MS: u64 = 86_400_000;
    let (publisher, reader) = (Site::initialised(), Site::new());
    let uri = publish(&publisher, 1);
    let first = reader.mount(&uri, "first");
    assert_same_tree(&publisher.dir("source-1"), &first);
    reader.ok([OsStr::new("unmount"), first.as_os_str()]);
    publisher.ok(["stop"]);
    reader.ok(["stop"]);
    let path = reader.home.join("state.json");
    // The last line checks the others; without it, it is one's own hand.
    let text = fs::read_to_string(&path).unwrap();
    let (json, _) = text.split_once("blake3 ").unwrap();
    let mut state: Value = serde_json::from_str(json).unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    state["clock_ms"] = (now + 30 * DAY_MS).into();
    fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();

    let dir = reader.dir("mnt");
    for reference in ["data", "data@latest"] {
        let message = reader.fails(14, [OsStr::new("mount"), OsStr::new(reference), dir.as_os_str()]);
        assert!(message.contains("30 days old") && message.contains("--offline"), "{message}");
    }
    reader.ok([OsStr::new("mount"), OsStr::new("--offline"), OsStr::new("data@latest"), dir.as_os_str()]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 4);
    // A version is what it is, however old the log.
    reader.mount("data@v1", "second");
    let patient = ["-c", "manifests.max_age=0"].map(OsStr::new);
    reader.ok(["stop"]);
    let words = [OsStr::new("mount"), OsStr::new("data"), dir.as_os_str()];
    reader.ok(patient.into_iter().chain(words));
}
