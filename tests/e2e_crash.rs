//! SIGKILL, lies and cuts: nothing published is lost, nothing half-published exists, no wrong byte is read.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{Running, Site, assert_same_tree, noise, wait_until};

fn make_noise(dir: &Path, files: u64, size: usize) {
    for i in 0..files {
        fs::write(dir.join(format!("{i:04}")), noise(i, size)).unwrap();
    }
}

/// Flips one bit in the middle of every pack of a stopped or running node.
fn flip_bits(site: &Site) {
    for pack in packs(site) {
        let file = fs::OpenOptions::new().read(true).write(true).open(&pack).unwrap();
        let at = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    }
}

fn packs(site: &Site) -> Vec<PathBuf> {
    let dir = fs::read_dir(site.home.join("store/packs")).unwrap();
    dir.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn killed_while_publishing_it_publishes_on_the_next_try() {
    let site = Site::initialised();
    let source = site.dir("source");
    make_noise(&source, 1, 1 << 10);
    site.publish(&source, "data@v1");
    make_noise(&source, 400, 1 << 20);
    let publish = ["publish", source.to_str().unwrap(), "data@v2"];
    let running = Running(site.command(publish).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let stored = || site.status()["store"]["objects"].as_u64().unwrap();
    wait_until("some of it is stored", || stored() > 500);
    site.kill();
    drop(running);

    let versions = site.ok(["list"]);
    assert!(versions.contains("data@v1") && !versions.contains("data@v2"), "{versions}");
    site.ok(["verify", "--all"]);
    site.ok(publish);
    let report = site.json(["verify", "data@v2"]);
    assert_eq!((&report["absent"], report["corrupt"].as_array().unwrap().len()), (&0.into(), 0), "{report}");
    let out = site.dir("out");
    site.ok([OsStr::new("export"), OsStr::new("data@v2"), out.as_os_str()]);
    assert_same_tree(&source, &out);
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn killed_while_fetching_the_next_start_restores_the_mount() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    make_noise(&source, 200, 256 << 10);
    let uri = publisher.publish(&source, "data@v1");
    let mounted = reader.mount(&uri, "mnt");
    let copying = std::thread::spawn({
        let mounted = mounted.clone();
        move || (0..200).take_while(|i| fs::read(mounted.join(format!("{i:04}"))).is_ok()).count()
    });
    wait_until("some of it is fetched", || reader.status()["fetch"]["fetched"].as_u64().unwrap() > 50);
    reader.kill();
    assert!(copying.join().unwrap() < 200, "it was killed too late");
    assert!(bcai_mount::is_dead(&mounted), "the mount survived its daemon");

    // Any command starts the next daemon, which restores what was mounted.
    reader.ok(["list"]);
    let mounts = || reader.status()["mounts"].as_array().unwrap().len();
    wait_until("the mount is restored", || mounts() == 1);
    assert_same_tree(&source, &mounted);
    reader.ok(["verify", "--all"]);

    // What cannot be restored yet is neither forgotten nor an empty directory meanwhile.
    reader.kill();
    publisher.ok(["stop"]);
    fs::remove_dir_all(reader.home.join("store")).unwrap();
    reader.ok(["list"]);
    assert!(bcai_mount::is_dead(&mounted), "readers find an empty directory");
    publisher.ok(["daemon"]);
    wait_until("the mount is restored once its peer is back", || mounts() == 1);
    assert_same_tree(&source, &mounted);

    // A mountpoint left dead is also repaired by whoever mounts there.
    reader.kill();
    fs::remove_file(reader.home.join("state.json")).unwrap();
    reader.ok([OsStr::new("mount"), OsStr::new(&uri), mounted.as_os_str()]);
    assert_same_tree(&source, &mounted);
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_peer_whose_disk_rots_harms_nobody() {
    let (rotten, honest, reader) = (Site::initialised(), Site::new(), Site::new());
    let source = rotten.dir("source");
    make_noise(&source, 20, 512 << 10);
    let uri = rotten.publish(&source, "data@v1");
    let copy = honest.mount(&uri, "mnt");
    assert_same_tree(&source, &copy);
    // While it runs, readers find it.
    honest.ok(["stop"]);
    // From now on one object in each pack of the publisher is wrong, and no reader has it yet.
    flip_bits(&rotten);

    let alone = reader.mount(&uri, "alone");
    let refused = (0..20).any(|i| match fs::read(alone.join(format!("{i:04}"))) {
        Ok(bytes) => {
            assert!(bytes == noise(i, 512 << 10), "wrong bytes were read");
            false
        }
        Err(_) => true,
    });
    assert!(refused, "the flipped bit was in nothing that was read");

    honest.ok(["daemon"]);
    let address = honest.status()["addresses"][0].as_str().unwrap().to_owned();
    reader.ok(["init", "--join", &format!("{uri}&peer={address}")]);
    wait_until("everything can be read", || (0..20).all(|i| fs::read(alone.join(format!("{i:04}"))).is_ok()));
    assert_same_tree(&source, &alone);
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_cut_connection_resumes() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    make_noise(&source, 200, 512 << 10);
    let uri = publisher.publish(&source, "data@v1");
    let mounted = reader.mount(&uri, "mnt");
    let reading = std::thread::spawn({
        let mounted = mounted.clone();
        move || {
            (0..200)
                .filter(|i| fs::read(mounted.join(format!("{i:04}"))).unwrap() != noise(*i, 512 << 10))
                .count()
        }
    });
    let fetched = || reader.status()["fetch"]["fetched"].as_u64().unwrap();
    wait_until("reading is under way", || fetched() > 100);
    publisher.kill();
    assert!(!reading.is_finished(), "it was killed too late");
    // The same ports as before: the URI stays good.
    publisher.ok(["daemon"]);
    assert_eq!(reading.join().unwrap(), 0, "wrong bytes were read");
}

#[test]
fn a_damaged_pack_is_named_and_repaired_from_a_peer() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    make_noise(&source, 20, 512 << 10);
    let uri = publisher.publish(&source, "data@v1");
    reader.ok(["init", "--join", &uri]);
    let out = reader.dir("out");
    reader.ok([OsStr::new("export"), OsStr::new("data"), out.as_os_str()]);
    reader.ok(["stop"]);
    flip_bits(&reader);
    let done = reader.run(["verify", "data"]);
    assert_eq!(done.code, 13, "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("corrupt: chunk "), "{}", done.stdout);
    reader.ok(["verify", "data", "--repair"]);
    let report = reader.json(["verify", "data"]);
    assert_eq!((&report["absent"], report["corrupt"].as_array().unwrap().len()), (&0.into(), 0), "{report}");
}

#[test]
fn a_lost_or_damaged_index_is_rebuilt() {
    let site = Site::initialised();
    let source = site.dir("source");
    make_noise(&source, 50, 100 << 10);
    site.publish(&source, "data@v1");
    let index = site.home.join("store/index.redb");
    for damage in ["remove", "garble"] {
        site.ok(["stop"]);
        match damage {
            "remove" => fs::remove_file(&index).unwrap(),
            _ => fs::write(&index, noise(9, 1 << 20)).unwrap(),
        }
        let report = site.json(["verify", "data@v1"]);
        assert_eq!(
            (&report["absent"], report["corrupt"].as_array().unwrap().len()),
            (&0.into(), 0),
            "{damage}"
        );
    }
}

#[test]
fn two_daemons_never_share_a_home() {
    let site = Site::initialised();
    let pid = site.pid().unwrap();
    let message = site.fails(11, ["daemon"]);
    assert!(message.contains(&format!("already running, pid {pid}")), "{message}");
    let message = site.fails(11, ["daemon", "--foreground"]);
    assert!(message.contains(&format!("already running, pid {pid}")), "{message}");
}
