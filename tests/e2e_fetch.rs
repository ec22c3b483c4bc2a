//! Where the contents of a mount come from, and which version is meant, with real nodes and real FUSE.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{Running, Site, assert_same_tree, noise, wait_until};

const FILES: u64 = 24;
const FILE: usize = 300_000;

fn make_source(site: &Site) -> PathBuf {
    let source = site.dir("source");
    for n in 0..FILES {
        fs::write(source.join(format!("{n:02}")), noise(n, FILE)).unwrap();
    }
    source
}

/// A node that has all of a version.
fn copy_of(uri: &str) -> Site {
    let copy = Site::new();
    copy.ok(["init", "--join", uri]);
    copy.ok(["prefetch", "data@v1"]);
    copy
}

fn address_of(site: &Site) -> String {
    site.status()["addresses"][0].as_str().unwrap().to_owned()
}

fn mount_args<'a>(strategy: &'a str, reference: &'a str, dir: &'a Path) -> [&'a str; 5] {
    ["mount", "-o", strategy, reference, dir.to_str().unwrap()]
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_local_mount_asks_nobody() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = make_source(&publisher);
    let uri = publisher.publish(&source, "data@v1");
    let dir = reader.dir("mnt");
    let message = reader.fails(14, mount_args("fetch=local", &uri, &dir));
    assert!(message.contains("is not here") && message.contains("init --join"), "{message}");
    reader.ok(["ls", &uri]);
    reader.ok(["cat", "data@v1/03"]);
    reader.ok(mount_args("fetch=local", "data@v1", &dir));
    assert_eq!(fs::read(dir.join("03")).unwrap(), noise(3, FILE));
    let failed = fs::read(dir.join("04")).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    wait_until("the remedy is in the log", || {
        let log = reader.daemon_log();
        log.contains("a read of the mount failed") && log.contains("bcai prefetch")
    });
    assert_eq!(reader.status()["mounts"][0]["fetch"], "local");
    assert!(reader.ok(["status"]).contains("fetch local"));
    reader.ok(["prefetch", "data@v1"]);
    assert_same_tree(&source, &dir);
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_mount_of_the_best_peer_takes_all_from_one_and_stays_so() {
    let publisher = Site::initialised();
    let source = make_source(&publisher);
    let uri = publisher.publish(&source, "data@v1");
    let copy = copy_of(&uri);
    let reader = Site::new();
    reader.ok(["init", "--join", &uri]);
    reader.ok(["peers", "add", &address_of(&copy)]);
    let dir = reader.dir("mnt");
    reader.ok(mount_args("fetch=best", "data@v1", &dir));
    assert_same_tree(&source, &dir);
    let peers = reader.json(["peers"]);
    let mut bytes: Vec<u64> =
        peers.as_array().unwrap().iter().map(|peer| peer["bytes_in"].as_u64().unwrap()).collect();
    bytes.sort_unstable();
    assert_eq!(bytes.len(), 2, "{peers}");
    assert!(bytes[1] >= FILES * FILE as u64 && bytes[0] == 0, "{peers}");
    reader.kill();
    reader.ok(["list"]);
    wait_until("the mount is back", || reader.status()["mounts"][0]["fetch"] == "best");
    reader.fails(2, mount_args("fetch=all", "data@v1", &dir));
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_quorum_is_two_peers_and_says_who_lags_behind() {
    let publisher = Site::initialised();
    let source = make_source(&publisher);
    let uri = publisher.publish(&source, "data@v1");
    let behind = copy_of(&uri);
    // From now on it hears of nothing new.
    let publisher_id = publisher.status()["peer_id"].as_str().unwrap().to_owned();
    behind.ok(["peers", "block", &publisher_id]);
    fs::write(source.join("new"), "new").unwrap();
    publisher.publish(&source, "data@v2");

    let reader = Site::new();
    let (name, _) = uri.split_once('@').unwrap();
    let stale = format!("{name}?peer={}", address_of(&behind));
    reader.ok(["init", "--join", &stale]);
    // Peers name each other.
    reader.ok(["peers", "block", &publisher_id]);
    let dir = reader.dir("mnt");
    let message = reader.fails(14, mount_args("fetch=quorum", &stale, &dir));
    assert!(message.contains("needs 2") && message.contains("peers add"), "{message}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    reader.ok(["peers", "allow", &publisher_id]);
    reader.ok(["peers", "add", &address_of(&publisher)]);
    let mounted = reader.json(mount_args("fetch=quorum", &stale, &dir));
    let quorum = &mounted["quorum"];
    assert_eq!((&quorum["peers"], &quorum["agreed"]), (&2.into(), &1.into()), "{mounted}");
    assert_eq!(mounted["version"]["version"], "v2", "{mounted}");
    assert_same_tree(&source, &dir);
    assert!(reader.ok(["status"]).contains("fetch quorum (1 of 2 peers at height "));
}

/// Three nodes that start the same job read an origin about once.
#[test]
fn an_origin_is_read_once_by_a_cluster() {
    let publisher = Site::initialised();
    let source = make_source(&publisher);
    let shared = Site::new();
    let url = format!("file://{}", shared.dir("origin").display());
    let args = ["publish", source.to_str().unwrap(), "data@v1", "--origin", &url];
    let uri = publisher.json(args)["uri"].as_str().unwrap().to_owned();
    let readers: Vec<Site> = (0..3).map(|_| Site::new()).collect();
    readers.iter().for_each(|reader| drop(reader.ok(["init", "--join", &uri])));
    publisher.kill();
    for (n, reader) in readers.iter().enumerate() {
        for other in &readers[..n] {
            reader.ok(["peers", "add", &address_of(other)]);
        }
    }
    let run = |reader: &Site| {
        let mut command = reader.command(["prefetch", "data@v1"]);
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    for mut running in readers.iter().map(run).collect::<Vec<_>>() {
        assert!(running.0.wait().unwrap().success());
    }
    let read: u64 =
        readers.iter().map(|reader| reader.status()["origins"][0]["bytes_in"].as_u64().unwrap()).sum();
    let all = FILES * FILE as u64;
    assert!(read >= all && read < 2 * all, "{read} of {all} bytes");
}
