//! What is no longer wanted goes, and nothing else; what rots is found and mended; a full disk costs the cache first.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Running, Site, assert_same_tree, noise, wait_until};

const KIB: usize = 1 << 10;

/// Files of which those with the same number and seed are the same.
fn fill(dir: &Path, seed: u64, files: std::ops::Range<u64>) {
    for file in files {
        fs::write(dir.join(format!("{file:04}")), noise(1000 * seed + file, 200 * KIB)).unwrap();
    }
}

/// A node that lets go at once of what is withdrawn or in no version.
fn hasty() -> Site {
    let mut site = Site::new();
    for key in ["BCAI_GC_KEEP_WITHDRAWN", "BCAI_GC_KEEP_UNPUBLISHED"] {
        site.settings.push((key.into(), "0".into()));
    }
    site.ok(["init"]);
    site
}

fn published(site: &Site) -> u64 {
    site.status()["store"]["published_bytes"].as_u64().unwrap()
}

/// Bytes that the packs take on the disk.
fn on_disk(site: &Site) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // One may be removed meanwhile.
    packs(site).iter().filter_map(|pack| Some(fs::metadata(pack).ok()?.blocks() * 512)).sum()
}

fn packs(site: &Site) -> Vec<PathBuf> {
    let dir = fs::read_dir(site.home.join("store/packs")).unwrap();
    dir.map(|entry| entry.unwrap().path()).collect()
}

/// Changes a byte a quarter into every pack.
fn garble(site: &Site) {
    for pack in packs(site) {
        let file = fs::File::options().read(true).write(true).open(&pack).unwrap();
        let (at, mut byte) = (file.metadata().unwrap().len() / 4, [0]);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
    }
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn what_no_version_pin_or_mount_needs_goes_and_its_space_is_free() {
    let site = hasty();
    let (one, two, loose) = (site.dir("one"), site.dir("two"), site.dir("loose"));
    fill(&one, 1, 0..40);
    fill(&two, 1, 0..20);
    fill(&two, 2, 20..40);
    fill(&loose, 3, 0..20);
    site.publish(&one, "data@v1");
    site.publish(&two, "data@v2");
    let snapshot = site.json(["snapshot", loose.to_str().unwrap()])["snapshot"].as_str().unwrap().to_owned();
    let mounted = site.mount("data@v1", "mnt");
    site.ok(["yank", "data@v1", "--reason", "wrong labels"]);

    let before = (published(&site), on_disk(&site));
    let plan = site.ok(["gc", "--dry-run"]);
    assert!(plan.contains("data@v1: ") && plan.contains("would go now"), "{plan}");
    assert!(plan.contains(&snapshot) && plan.contains("in no version"), "{plan}");
    assert!(plan.contains("data@v2: ") && plan.contains("published, stays"), "{plan}");
    assert_eq!((published(&site), on_disk(&site)), before, "it was only asked");
    let cache = site.ok(["cache"]);
    assert!(cache.contains("3, 2 of them withdrawn or in no version"), "{cache}");

    // The mount still needs what is of v1 alone.
    let done = site.json(["gc"]);
    let freed = done["bytes"].as_u64().unwrap();
    assert!((4_000_000..5_000_000).contains(&freed), "{done}");
    assert_same_tree(&one, &mounted);
    site.ok(["unmount", mounted.to_str().unwrap()]);
    assert!(site.json(["gc"])["bytes"].as_u64().unwrap() > 4_000_000);
    assert!(before.0 - published(&site) > 8_000_000 && before.1 - on_disk(&site) > 8_000_000);
    let report = site.json(["verify", "data@v2"]);
    assert_eq!((&report["absent"], report["corrupt"].as_array().unwrap().len()), (&0.into(), 0), "{report}");
    site.ok(["verify", "--all"]);
    assert_eq!(site.json(["gc"])["objects"], 0);

    // What went is read anew, though nothing of it has changed since.
    site.publish(&one, "data@v3");
    let out = site.dir("out");
    site.ok(["export", "data@v3", out.to_str().unwrap()]);
    assert_same_tree(&one, &out);
}

#[test]
fn without_being_told_nothing_goes_at_once() {
    let site = Site::initialised();
    let dir = site.dir("one");
    fill(&dir, 1, 0..5);
    site.publish(&dir, "data@v1");
    site.ok(["yank", "data@v1", "--reason", "wrong labels"]);
    let plan = site.ok(["gc"]);
    assert!(plan.starts_with("freed 0 B in 0 objects"), "{plan}");
    let shown = site.ok(["gc", "--dry-run"]);
    assert!(shown.contains("withdrawn, stays until 20"), "{shown}");
}

/// It took all versions of a network whose log could not be read for snapshots in no version, and removed them.
#[test]
fn nothing_goes_while_a_log_cannot_be_read() {
    let site = hasty();
    let dir = site.dir("one");
    fill(&dir, 1, 0..5);
    site.publish(&dir, "data@v1");
    site.ok(["stop"]);
    let mut logs = fs::read_dir(site.home.join("networks")).unwrap().map(|entry| entry.unwrap().path());
    let log = logs.find(|path| path.extension().is_some_and(|end| end == "redb")).unwrap();
    let whole = fs::read(&log).unwrap();
    fs::write(&log, noise(1, 100_000)).unwrap();
    let message = site.fails(11, ["gc"]);
    assert!(message.contains("the log of network") && message.contains("is not here"), "{message}");
    site.ok(["stop"]);
    // As a log that was put back from before the version was published.
    fs::remove_file(&log).unwrap();
    let message = site.fails(11, ["gc"]);
    assert!(message.contains("is not here"), "{message}");
    site.ok(["stop"]);
    fs::write(&log, whole).unwrap();
    assert_eq!(site.json(["gc"])["objects"], 0);
    site.ok(["verify", "data@v1"]);
}

/// A file that was opened before another version was mounted is read to its end.
#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn what_is_still_open_of_a_version_that_is_mounted_no_more_stays() {
    use std::io::Read;
    let site = hasty();
    let (one, two) = (site.dir("one"), site.dir("two"));
    fill(&one, 1, 0..20);
    fill(&two, 2, 0..20);
    site.publish(&one, "data@v1");
    site.publish(&two, "data@v2");
    let mounted = site.mount("data@v1", "mnt");
    let mut open = fs::File::open(mounted.join("0007")).unwrap();
    site.ok(["remount", mounted.to_str().unwrap(), "data@v2"]);
    site.ok(["yank", "data@v1", "--reason", "wrong labels"]);
    site.ok(["gc"]);
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert!(bytes == noise(1007, 200 * KIB));
}

/// An object of what stays is gone wrong: it cannot be told what else it needs.
#[test]
fn nothing_goes_while_what_stays_is_damaged() {
    let site = hasty();
    let (one, two) = (site.dir("one"), site.dir("two"));
    fill(&one, 1, 0..20);
    fs::create_dir(two.join("below")).unwrap();
    fill(&two.join("below"), 2, 0..20);
    site.publish(&one, "data@v1");
    site.publish(&two, "data@v2");
    site.ok(["yank", "data@v1", "--reason", "wrong labels"]);
    site.ok(["stop"]);
    // The last records are the trees of v2 and its snapshot.
    let pack = packs(&site).pop().unwrap();
    let file = fs::File::options().write(true).open(&pack).unwrap();
    let len = file.metadata().unwrap().len();
    file.write_all_at(&[7; 2000], len - 2000).unwrap();
    let message = site.fails(13, ["gc"]);
    assert!(
        message.contains("nothing was removed") && message.contains("bcai verify data@v2 --repair"),
        "{message}"
    );
    assert!(published(&site) > 7_000_000);
}

#[test]
fn killed_at_any_moment_of_a_gc_what_stays_is_whole() {
    let site = hasty();
    let (keep, drop_) = (site.dir("keep"), site.dir("drop"));
    fill(&keep, 1, 0..30);
    site.publish(&keep, "keep@v1");
    for round in 0..4u64 {
        // Some of it is in what stays.
        fill(&drop_, 1, 0..10);
        fill(&drop_, 5 + round, 10..60);
        let version = format!("drop@v{round}");
        site.publish(&drop_, &version);
        site.ok(["yank", &version, "--reason", "wrong labels"]);
        let command = site.command(["gc"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut gc = Running(command.unwrap());
        let full = on_disk(&site);
        // A later moment in each round, and at last when it is over.
        wait_until("gc has come so far", || {
            on_disk(&site) <= full - 2_500_000 * round || gc.0.try_wait().unwrap().is_some()
        });
        site.kill();
        drop(gc);
        let report = site.json(["verify", "keep@v1"]);
        assert_eq!(
            (&report["absent"], report["corrupt"].as_array().unwrap().len()),
            (&0.into(), 0),
            "{report}"
        );
        site.ok(["verify", "--all"]);
    }
    site.ok(["gc"]);
    assert!(published(&site) < 7_000_000, "{}", published(&site));
    let out = site.dir("out");
    site.ok(["export", "keep@v1", out.to_str().unwrap()]);
    assert_same_tree(&keep, &out);
}

#[test]
fn what_rots_is_found_in_the_background_and_mended_from_a_peer() {
    let publisher = Site::initialised();
    let dir = publisher.dir("one");
    fill(&dir, 1, 0..20);
    let uri = publisher.publish(&dir, "data@v1");
    let mut holder = Site::new();
    // All of it in nine seconds.
    holder.settings.push(("BCAI_SCRUB_DAYS".into(), "0.0001".into()));
    holder.ok(["pin", &uri]);
    holder.ok(["stop"]);
    garble(&holder);
    holder.ok(["daemon"]);
    wait_until("it was mended", || holder.status()["scrub"]["repaired"].as_u64().unwrap() > 0);
    assert_eq!(holder.status()["scrub"]["damaged"].as_array().unwrap().len(), 0);
    wait_until("the round is over", || holder.status()["scrub"]["whole_unix_ms"].is_u64());
    holder.ok(["verify", "--all"]);

    // The publisher's own disk, and nobody scrubs there: by hand, from who has fetched it.
    publisher.ok(["stop"]);
    garble(&publisher);
    let done = publisher.run(["verify", "--all"]);
    assert_eq!(done.code, 13, "{}", done.stdout);
    assert!(done.stdout.contains("corrupt: ") && done.stdout.contains(".pack at byte"), "{}", done.stdout);
    let alerts = publisher.ok(["alerts"]);
    assert!(alerts.contains("damaged-objects"), "{alerts}");
    let address = holder.status()["addresses"][0].as_str().unwrap().to_owned();
    publisher.ok(["peers", "add", &address]);
    wait_until("it is mended", || publisher.run(["verify", "--all", "--repair"]).code == 0);
    publisher.ok(["verify", "--all"]);
}

/// The cache had filled the disk, and publishing failed for want of space that the cache could have given.
#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount")]
fn on_a_full_disk_the_cache_makes_room_for_what_is_published() {
    let publisher = Site::initialised();
    let dir = publisher.dir("one");
    fill(&dir, 1, 0..200);
    let uri = publisher.publish(&dir, "data@v1");
    let mut small = Site::new();
    small.settings.push(("BCAI_CACHE_MAX_BYTES".into(), "64MiB".into()));
    fs::create_dir_all(&small.home).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=72m", "tmpfs"]).arg(&small.home).status();
    assert!(mounted.unwrap().success());
    small.ok(["init"]);
    small.ok(["prefetch", &uri]);
    let cached = || small.status()["store"]["cached_bytes"].as_u64().unwrap();
    wait_until("the cache is full", || cached() > 35_000_000);
    let own = small.dir("own");
    fill(&own, 9, 0..140);
    small.publish(&own, "own@v1");
    assert!(cached() < 35_000_000, "{}", cached());
    small.ok(["verify", "own@v1"]);
    // And when there is nothing left to evict, it is said what else could go.
    fill(&own, 10, 0..300);
    let message = small.fails(1, ["publish", own.to_str().unwrap(), "own@v2"]);
    assert!(message.contains("no space left") && message.contains("bcai gc"), "{message}");
    small.ok(["verify", "own@v1"]);
    small.ok(["stop"]);
}
