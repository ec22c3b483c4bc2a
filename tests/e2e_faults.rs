//! Ten things that go wrong on real machines: each is found by `bcai doctor` or `bcai status`, and what they say then works.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use common::{Site, SmallDisk, assert_same_tree, install, noise, wait_until};
use serde_json::Value;

/// The user that the programs of others run as.
const NOBODY: u32 = 65534;

/// What `bcai doctor` says in one of its lines, if that is not `ok`: what it found, and the remedy.
fn complaint(site: &Site, name: &str) -> Option<(String, String)> {
    let done = site.run(["--json", "doctor"]);
    let report: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}", done.stdout));
    let checks = report["checks"].as_array().unwrap();
    let bad = checks.iter().find(|check| check["name"] == name && check["verdict"] != "ok")?;
    let text = |field: &str| bad[field].as_str().unwrap().to_owned();
    Some((text("found"), text("remedy")))
}

/// Waits until `bcai doctor` complains in this line, and returns what it says and the remedy.
fn found(site: &Site, name: &str) -> (String, String) {
    let mut said = None;
    wait_until(&format!("doctor complains about {name}"), || {
        said = complaint(site, name);
        said.is_some()
    });
    said.unwrap()
}

fn mended(site: &Site, name: &str) {
    wait_until(&format!("doctor is content with {name}"), || complaint(site, name).is_none());
}

/// A publisher of a dataset, where that is, and its URI.
fn publisher() -> (Site, PathBuf, String) {
    let site = Site::initialised();
    let source = site.dir("source");
    (0..20).for_each(|file| fs::write(source.join(file.to_string()), noise(file, 100_000)).unwrap());
    let uri = site.publish(&source, "data@v1");
    (site, source, uri)
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// The command between the first pair of backquotes.
fn command_in(remedy: &str) -> Vec<String> {
    let command = remedy.split('`').nth(1).unwrap_or_else(|| panic!("no command: {remedy}"));
    words(command.strip_prefix("bcai ").unwrap())
}

#[test]
#[cfg_attr(not(all(root, fuse_available)), ignore = "needs root, to hide /dev/fuse, and /dev/fuse")]
fn no_fuse() {
    let mut site = Site::new();
    // A container without the device, and the same after it was passed in.
    let hidden = "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3";
    let within = |more: &str| {
        let mut prefix = words("unshare --mount sh -c");
        prefix.extend([format!("{hidden}{more} && exec \"$@\""), "sh".into()]);
        prefix
    };
    site.prefix = within("");
    let (said, remedy) = found(&site, "fuse");
    assert!(said.contains("/dev/fuse") && remedy.contains("modprobe fuse"), "{said}: {remedy}");
    assert!(remedy.contains("--device /dev/fuse"), "{remedy}");
    site.prefix = within(" && mknod /dev/fuse c 10 229");
    mended(&site, "fuse");
}

#[test]
#[cfg_attr(not(as_user), ignore = "needs root, to be another user, /dev/fuse and fusermount3")]
fn no_user_allow_other() {
    let mut site = Site::new();
    let top = site.home.parent().unwrap().to_owned();
    fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
    chown(&top, Some(NOBODY), Some(NOBODY)).unwrap();
    site.program = site.dir("bin").join("bcai");
    install(&site.program);
    // Its own view of /etc/fuse.conf: the one of the machine is not ours to change.
    let conf = top.join("fuse.conf");
    fs::write(&conf, "# mount_max = 1000\n").unwrap();
    site.prefix = words("unshare --mount sh -c");
    let as_user = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let script = format!("mount --bind {} /etc/fuse.conf && exec {as_user} \"$@\"", conf.display());
    site.prefix.extend([script, "sh".into()]);
    let (said, remedy) = found(&site, "mounting");
    assert!(said.contains("allow_other"), "{said}");
    assert!(remedy.contains("user_allow_other to /etc/fuse.conf"), "{remedy}");
    fs::write(&conf, "# mount_max = 1000\nuser_allow_other\n").unwrap();
    mended(&site, "mounting");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to mount a small file system")]
fn a_full_disk() {
    let site = Site::new();
    let _disk = SmallDisk::under(&site, "64m");
    site.ok(["init"]);
    let (source, other) = (site.dir("source"), site.home.join("other"));
    fs::write(source.join("file"), noise(1, 8 << 20)).unwrap();
    let _full = fs::write(&other, noise(2, 64 << 20)).unwrap_err();
    let (said, remedy) = found(&site, "disk");
    assert!(said.contains("0 B of 64.0 MiB") && remedy.contains("free some space"), "{said}: {remedy}");
    let status = site.ok(["status"]);
    assert!(status.contains("critical disk-nearly-full"), "{status}");
    let refused = site.fails(1, ["publish", source.to_str().unwrap(), "data@v1"]);
    assert!(refused.contains("no space left"), "{refused}");
    fs::remove_file(other).unwrap();
    mended(&site, "disk");
    site.publish(&source, "data@v1");
}

#[test]
fn a_stale_log() {
    let (publisher, _, uri) = publisher();
    publisher.ok(["validator", "params", "--heartbeat", "1"]);
    let reader = Site::new();
    reader.ok(["init", "--join", &uri]);
    mended(&reader, "log");
    publisher.ok(["stop"]);
    let (said, remedy) = found(&reader, "log");
    assert!(said.contains("has had no block for"), "{said}");
    assert!(remedy.contains("whether a validator is among `bcai peers`"), "{remedy}");
    assert!(!reader.ok(["peers"]).contains("connected"), "there is none");
    publisher.ok(["daemon"]);
    mended(&reader, "log");
}

#[test]
#[cfg_attr(not(faketime), ignore = "needs faketime, to show a program another time")]
fn a_clock_that_is_off_by_an_hour() {
    let libraries = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut libraries = libraries.map(|dir| dir.join("faketime/libfaketime.so.1"));
    let faketime = libraries.find(|path| path.exists()).unwrap().display().to_string();
    let (publisher, _, uri) = publisher();
    for (by, way) in [("+1h", "ahead of"), ("-1h", "behind")] {
        let mut reader = Site::new();
        let wrong = [("LD_PRELOAD", &*faketime), ("FAKETIME", by), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let right = reader.settings.clone();
        reader.settings.extend(wrong.map(|(name, value)| (name.to_owned(), value.to_owned())));
        reader.ok(["init", "--join", &uri]);
        // A block from the future is seen before a peer has told its clock.
        wait_until("the clocks are compared", || !reader.status()["clock"].is_null());
        let (said, remedy) = found(&reader, "clock");
        let seconds: u64 =
            said.split("clock is ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        // Give or take the time that it takes to tell.
        assert!(said.contains(way) && (3000..4200).contains(&seconds), "{said}");
        assert!(remedy.contains("timedatectl set-ntp true"), "{remedy}");
        assert!(reader.ok(["alerts"]).contains("clock-off"));
        // Of two, each may be wrong.
        found(&publisher, "clock");
        // The clock is set.
        reader.ok(["stop"]);
        reader.settings = right;
        reader.ok(["daemon"]);
        wait_until("the clocks are compared", || !reader.status()["clock"].is_null());
        mended(&reader, "clock");
        reader.ok(["stop"]);
        mended(&publisher, "clock");
    }
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "needs /dev/fuse")]
fn a_peer_that_cannot_be_reached() {
    let (publisher, source, uri) = publisher();
    let reader = Site::new();
    let mounted = reader.mount(&uri, "mnt");
    fs::read(mounted.join("1")).unwrap();
    publisher.ok(["stop"]);
    let (said, remedy) = found(&reader, "peers");
    assert!(said.contains("no peer is connected") && said.contains("mnt"), "{said}");
    assert!(remedy.contains("start the publisher"), "{remedy}");
    publisher.ok(["daemon"]);
    mended(&reader, "peers");
    assert_same_tree(&source, &mounted);
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "needs /dev/fuse")]
fn a_dataset_whose_key_one_has_not() {
    let owner = Site::initialised();
    let source = owner.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    let published = owner.json(["publish", "--encrypt", source.to_str().unwrap(), "secret@v1"]);
    let reader = Site::new();
    let dir = reader.dir("mnt");
    let words = [OsStr::new("mount"), OsStr::new(published["uri"].as_str().unwrap()), dir.as_os_str()];
    let refused = reader.fails(12, words);
    assert!(refused.contains("no key for this dataset"), "{refused}");
    let (said, remedy) = found(&reader, "keys");
    assert!(said.contains("secret@v1 is encrypted"), "{said}");
    let asked = owner.json(["keys"])["key"].as_str().unwrap().to_owned();
    assert!(remedy.contains(&format!("ask {asked} to run")), "{remedy}");
    // They do.
    owner.ok(command_in(&remedy));
    mended(&reader, "keys");
    reader.ok(words);
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "content");
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "needs /dev/fuse")]
fn a_dead_mountpoint() {
    let (site, source, _) = publisher();
    let mounted = site.mount("data@v1", "mnt");
    site.kill();
    let (said, remedy) = found(&site, "mounts");
    assert!(said.contains(mounted.to_str().unwrap()), "{said}");
    assert!(remedy.contains("bcai mount repairs the directory"), "{remedy}");
    site.ok([OsStr::new("mount"), OsStr::new("data@v1"), mounted.as_os_str()]);
    mended(&site, "mounts");
    assert_same_tree(&source, &mounted);
}

/// Flips a bit in the middle of the largest file of a folder.
fn damage(dir: &Path) {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let largest = files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let file = fs::File::options().read(true).write(true).open(largest).unwrap();
    let (at, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_cache_that_rots() {
    let (publisher, source, uri) = publisher();
    let reader = Site::new();
    reader.ok(["prefetch", &uri]);
    reader.ok(["stop"]);
    publisher.ok(["stop"]);
    damage(&reader.home.join("store/packs"));
    reader.run(["verify", "--all"]);
    let (said, remedy) = found(&reader, "store");
    assert!(said.contains("damaged"), "{said}");
    publisher.ok(["daemon"]);
    wait_until("they are connected", || reader.ok(["peers"]).contains("connected"));
    reader.ok(command_in(&remedy));
    mended(&reader, "store");
    let out = reader.dir("out");
    reader.ok([OsStr::new("export"), OsStr::new("data@v1"), out.as_os_str()]);
    assert_same_tree(&source, &out);
}

#[test]
fn a_validator_that_is_down() {
    let (one, two) = (Site::new(), Site::new());
    let key = |site: &Site| site.status()["public_key"].as_str().unwrap().to_owned();
    for site in [&one, &two] {
        site.ok(["daemon"]);
    }
    one.ok(["init", "--validators", &format!("{},{}", key(&one), key(&two))]);
    let status = one.status();
    let (genesis, address) = (&status["networks"][0]["genesis"], &status["addresses"][0]);
    let uri = format!("bcai://{}/any?peer={}", genesis.as_str().unwrap(), address.as_str().unwrap());
    two.ok(["init", "--join", &uri]);
    wait_until("both vote", || one.ok(["validator"]).contains("connected with 1 of 1 others"));
    let down = key(&two);
    two.ok(["stop"]);
    let (said, remedy) = found(&one, "log");
    assert!(said.contains(&format!("validator {down}")) || said.contains("stands still"), "{said}");
    assert!(remedy.contains("start"), "{remedy}");
    let status = one.ok(["status"]);
    assert!(status.contains(&format!("validator-away:{}/{down}", genesis.as_str().unwrap())), "{status}");
    assert!(status.contains("no-quorum:") && status.contains("1 of 2 votes"), "{status}");
    two.ok(["daemon"]);
    mended(&one, "log");
    let source = one.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    one.publish(&source, "data@v1");
}

#[test]
fn a_port_that_is_taken() {
    let mut site = Site::new();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    site.settings.push(("BCAI_NET_LISTEN".into(), format!("/ip4/127.0.0.1/tcp/{port}")));
    let (said, remedy) = found(&site, "ports");
    assert!(said.contains(&format!("tcp/{port}")) && remedy.contains("net.listen"), "{said}: {remedy}");
    site.fails(1, ["daemon"]);
    assert!(found(&site, "last failure").0.contains("cannot listen on"));
    drop(other);
    mended(&site, "ports");
    site.ok(["daemon"]);
    site.ok(["stop"]);
    mended(&site, "last failure");
}

#[test]
fn keys_that_are_locked_with_another_passphrase() {
    let mut site = Site::initialised();
    site.ok(["stop"]);
    site.settings.push(("BCAI_PASSPHRASE".into(), "correct horse".into()));
    site.ok(["keys", "passphrase"]);
    assert!(complaint(&site, "identity").is_none());
    site.settings.last_mut().unwrap().1 = "wrong horse".into();
    let (said, remedy) = found(&site, "identity");
    assert!(said.contains("identity.key") && remedy.contains("BCAI_PASSPHRASE"), "{said}: {remedy}");
    site.settings.last_mut().unwrap().1 = "correct horse".into();
    mended(&site, "identity");
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "needs /dev/fuse")]
fn a_report_for_strangers_has_what_they_need_and_no_name_or_secret() {
    let mut site = Site::initialised();
    let source = site.dir("client-acme");
    fs::write(source.join("file"), "content").unwrap();
    site.ok(["publish", "--encrypt", source.to_str().unwrap(), "patients@v1"]);
    let mounted = site.mount("patients", "ward-seven");
    site.settings.push(("BCAI_PASSPHRASE".into(), "correct horse".into()));
    let file = site.home.join("report.txt");
    site.ok([OsStr::new("bugreport"), file.as_os_str()]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let report = fs::read_to_string(&file).unwrap();
    for needed in [
        "== machine",
        "ok    kernel",
        "net.listen",
        "\"uptime_s\"",
        "bcai_resident_memory_bytes",
        "node is ready",
        "<path-1>",
        "<dataset-1>",
    ] {
        assert!(report.contains(needed), "{needed}: {report}");
    }
    let keys = ["identity.key", "dataset.keys"].map(|name| fs::read_to_string(site.home.join(name)).unwrap());
    let secrets = keys.iter().flat_map(|text| text.split_whitespace()).filter(|word| word.len() >= 64);
    // The public key, the third line of its file, is no secret.
    let secrets = secrets.filter(|word| *word != site.status()["public_key"].as_str().unwrap());
    let genesis = site.status()["networks"][0]["genesis"].as_str().unwrap().to_owned();
    let secrets: Vec<&str> = secrets.filter(|word| **word != genesis).collect();
    assert!(secrets.len() >= 2, "{secrets:?}");
    let names = ["patients", "ward-seven", "client-acme", "correct horse", site.home.to_str().unwrap()];
    for hidden in secrets.into_iter().chain(names).chain([mounted.to_str().unwrap()]) {
        assert!(!report.contains(hidden), "{hidden}: {report}");
    }
    assert!(site.fails(1, [OsStr::new("bugreport"), file.as_os_str()]).contains("nothing is overwritten"));
    // Of a node that does not run, and with settings that are broken: that may be the problem.
    site.ok(["stop"]);
    fs::write(site.home.join("config.toml"), "nonsense = 1\n").unwrap();
    let report = site.ok(["bugreport", "-"]);
    assert!(report.contains("nonsense") && !report.contains("== status"), "{report}");
    fs::remove_file(site.home.join("config.toml")).unwrap();
    let report = site.ok(["bugreport", "-"]);
    assert!(report.contains("node is ready") && !report.contains("== status"), "{report}");
    for hidden in ["patients", "ward-seven", "client-acme", "correct horse", site.home.to_str().unwrap()] {
        assert!(!report.contains(hidden), "{hidden}: {report}");
    }
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "needs /dev/fuse")]
fn a_mounted_version_that_is_withdrawn() {
    let (site, source, _) = publisher();
    let mounted = site.mount("data@v1", "mnt");
    fs::write(source.join("better"), "data").unwrap();
    site.publish(&source, "data@v2");
    site.ok(["yank", "data@v1", "--reason", "wrong labels"]);
    let (said, remedy) = found(&site, "versions");
    assert!(said.contains("data@v1") && said.contains("wrong labels"), "{said}");
    assert!(remedy.contains(&format!("bcai remount {} NAME@VERSION", mounted.display())), "{remedy}");
    site.ok([OsStr::new("remount"), mounted.as_os_str(), OsStr::new("data@v2")]);
    mended(&site, "versions");
    let again = site.dir("again");
    let warned = site.run([OsStr::new("mount"), OsStr::new("data@v1"), again.as_os_str()]);
    assert!(
        warned.code == 0 && warned.stderr.contains("this version was withdrawn: wrong labels"),
        "{}",
        warned.stderr
    );
}

#[test]
fn settings_that_the_node_does_not_know_yet() {
    let site = Site::initialised();
    assert!(complaint(&site, "settings").is_none());
    let config = site.home.join("config.toml");
    let before = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{before}\n[net]\nmax_peers = 7\n")).unwrap();
    let (said, remedy) = found(&site, "settings");
    assert!(
        said.contains("net.max_peers is `7` in") && said.contains("`64` in the node that runs"),
        "{said}"
    );
    assert!(remedy.starts_with("bcai restart"), "{remedy}");
    site.ok(["restart"]);
    mended(&site, "settings");
}
