//! One bit is flipped in each kind of file that a node keeps: it is found, named, and repaired, or the remedy is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Site, assert_same_tree, noise, wait_until};

/// Flips a bit of the byte that lies so far into a file, in hundredths.
fn flip(path: &Path, hundredths: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let (at, mut byte) = (file.metadata().unwrap().len() * hundredths / 100, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 2], at).unwrap();
}

/// The only file below `dir` whose name ends so.
fn only(dir: &Path, end: &str) -> PathBuf {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> = names.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// A publisher of a dataset that has a large file, and its URI.
fn publisher() -> (Site, PathBuf, String) {
    let site = Site::initialised();
    let source = site.dir("source");
    fs::write(source.join("large"), noise(1, 12 << 20)).unwrap();
    (0..10).for_each(|file| fs::write(source.join(file.to_string()), noise(10 + file, 90_000)).unwrap());
    let uri = site.publish(&source, "data@v1");
    (site, source, uri)
}

#[test]
fn keys_and_facts_are_refused_by_name_and_never_used_wrong() {
    let (site, source, _) = publisher();
    site.ok(["publish", source.to_str().unwrap(), "secret@v1", "--encrypt"]);
    site.ok(["stop"]);
    for name in ["identity.key", "dataset.keys", "state.json"] {
        let path = site.home.join(name);
        let whole = fs::read(&path).unwrap();
        for hundredths in [3, 20, 40, 60, 80, 97] {
            flip(&path, hundredths);
            let message = site.fails(13, ["list"]);
            assert!(message.contains(name) && message.lines().count() > 1, "{message}");
            fs::write(&path, &whole).unwrap();
        }
    }
    assert!(site.ok(["list"]).contains("secret@v1"));
}

#[test]
fn the_log_of_a_follower_is_fetched_again_and_that_of_a_validator_is_named() {
    let (publisher, source, uri) = publisher();
    let reader = Site::new();
    reader.ok(["init", "--join", &uri]);
    reader.ok(["stop"]);
    let log = only(&reader.home.join("networks"), ".redb");
    // The beginning, which redb checks, and whatever it panics over.
    for hundredths in [0, 1, 2] {
        flip(&log, hundredths);
        reader.ok(["daemon"]);
        wait_until("the log is there again", || reader.run(["ls", "data@v1"]).code == 0);
        reader.ok(["stop"]);
    }
    let out = reader.dir("out");
    reader.ok(["export", "data@v1", out.to_str().unwrap()]);
    assert_same_tree(&source, &out);

    publisher.ok(["stop"]);
    let log = only(&publisher.home.join("networks"), ".redb");
    let whole = fs::read(&log).unwrap();
    fs::write(&log, noise(3, 1 << 20)).unwrap();
    publisher.ok(["daemon"]);
    let alerts = publisher.ok(["alerts"]);
    assert!(alerts.contains("unserved-network:") && alerts.contains("backup"), "{alerts}");
    publisher.ok(["stop"]);
    fs::write(&log, whole).unwrap();
    assert!(publisher.ok(["list"]).contains("data@v1"));
}

#[test]
#[cfg_attr(not(passthrough), ignore = "no passthrough here, so no file is copied for it")]
fn a_large_file_that_rots_is_named_and_made_again() {
    let (_publisher, source, uri) = publisher();
    let reader = Site::new();
    let mounted = reader.dir("mnt");
    let words = ["mount", &uri, mounted.to_str().unwrap(), "-o", "io=passthrough"];
    reader.ok(words);
    let copied = || reader.json(["cache"])["blob_files"] == 1;
    wait_until("it is copied", || fs::read(mounted.join("large")).is_ok() && copied());
    reader.ok(["unmount", mounted.to_str().unwrap()]);
    reader.ok(["stop"]);
    let files = reader.home.join("store/files");
    let dir = fs::read_dir(&files).unwrap().map(|dir| dir.unwrap().path()).find(|dir| dir.is_dir()).unwrap();
    let file = fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    flip(&file, 50);
    let told = reader.ok(["verify", "--all"]);
    assert!(told.contains(file.to_str().unwrap()) && told.contains("removed"), "{told}");
    reader.ok(words);
    assert_same_tree(&source, &mounted);
}
