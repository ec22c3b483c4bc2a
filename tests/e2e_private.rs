//! Encrypted datasets between real nodes: who reads them, who only keeps them, and what can be seen by whom.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use common::{Site, assert_same_tree, noise, wait_until};

/// Names and contents that must not be seen.
const NAME: &str = "patient-4711-diagnosis";
const DIRECTORY: &str = "oncology-ward-seven";
const SENTENCE: &str = "the quick brown fox has a secret illness";

fn make_source(site: &Site) -> PathBuf {
    let source = site.dir("source");
    fs::create_dir(source.join(DIRECTORY)).unwrap();
    fs::write(source.join(DIRECTORY).join(NAME), SENTENCE).unwrap();
    for n in 0..60 {
        fs::write(source.join(format!("scan-of-the-brain-{n}")), noise(n, 30_000)).unwrap();
    }
    // More than one chunk, and text that compresses.
    fs::write(source.join("large-report"), format!("{SENTENCE}. ").repeat(30_000)).unwrap();
    std::os::unix::fs::symlink(NAME, source.join("link-to-the-patient")).unwrap();
    source
}

fn secrets() -> Vec<Vec<u8>> {
    let texts = [NAME, DIRECTORY, SENTENCE, "scan-of-the-brain", "large-report", "link-to-the-patient"];
    let mut secrets: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    secrets.push(noise(17, 30_000)[1000..1032].to_vec());
    secrets
}

fn encrypt(site: &Site, source: &Path, target: &str) -> String {
    let done = site.json(["publish", "--encrypt", source.to_str().unwrap(), target]);
    done["uri"].as_str().unwrap().to_owned()
}

fn key(site: &Site) -> String {
    site.json(["keys"])["key"].as_str().unwrap().to_owned()
}

fn joined(uri: &str) -> Site {
    let site = Site::new();
    site.ok(["init", "--join", uri]);
    site
}

/// Which of the secrets are in the files below a directory.
fn found_on_disk(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                found.extend(found_in(&fs::read(entry.path()).unwrap(), &entry.path().display().to_string()));
            }
        }
    }
    found
}

/// Which of the secrets are in the memory of a process, all that it has received included.
fn found_in_memory(pid: u32) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = Vec::new();
    let mut read = 0u64;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = Vec::new();
        // Some areas cannot be read, and others go while they are.
        let piece = memory
            .seek(SeekFrom::Start(from))
            .and_then(|_| (&memory).take(to - from).read_to_end(&mut bytes));
        if piece.is_ok() {
            read += bytes.len() as u64;
        }
        found.extend(found_in(&bytes, line));
    }
    assert!(read > 1 << 20, "hardly anything of it could be read");
    found
}

fn found_in(bytes: &[u8], place: &str) -> Vec<String> {
    let holds = |secret: &Vec<u8>| bytes.windows(secret.len()).any(|window| window == secret.as_slice());
    let held = secrets().into_iter().filter(holds);
    held.map(|secret| format!("{} in {place}", String::from_utf8_lossy(&secret))).collect()
}

fn refused(site: &Site, reference: &str, reason: &str) -> String {
    let dir = site.dir("refused");
    let mount = ["mount", reference, dir.to_str().unwrap()];
    let out = site.dir("out");
    let export = ["export", reference, out.to_str().unwrap()];
    let mut message = String::new();
    for args in [&["ls", reference][..], &["cat", &format!("{reference}/{NAME}")], &mount, &export] {
        message = site.fails(12, args);
        assert!(message.contains(reason), "{message}");
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count() + fs::read_dir(&out).unwrap().count(), 0);
    message
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
#[cfg_attr(not(root), ignore = "needs root, to look into the memory of a node")]
fn a_node_without_the_key_keeps_and_serves_what_it_cannot_read() {
    let owner = Site::initialised();
    let source = make_source(&owner);
    let uri = encrypt(&owner, &source, "hospital@v1");
    // What is looked for would be found: whoever publishes knows the names.
    assert!(!found_on_disk(&owner.home).is_empty());

    let storage = joined(&uri);
    storage.ok(["pin", "hospital@v1"]);
    assert_eq!(storage.json(["prefetch", "--check", "hospital@v1"])["files_here"], 1);
    let verified = storage.json(["verify", "hospital@v1"]);
    assert_eq!(
        (&verified["absent"], &verified["corrupt"]),
        (&0.into(), &serde_json::json!([])),
        "{verified}"
    );
    assert!(verified["objects"].as_u64() > Some(60));
    // Its memory holds what came over its connections, decrypted. Looked at first: a command names what it wants to read.
    assert_eq!(found_in_memory(storage.pid().unwrap()), Vec::<String>::new());
    let message = refused(&storage, "hospital@v1", "no key for this dataset");
    let command = format!("bcai keys grant {} reader --dataset hospital", key(&storage));
    assert!(message.contains(&key(&owner)) && message.contains(&command), "{message}");
    assert_eq!(found_on_disk(&storage.home), Vec::<String>::new());

    let reader = joined(&uri);
    refused(&reader, "hospital@v1", "no key for this dataset");
    owner.ok(["keys", "grant", &key(&reader), "reader", "--dataset", "hospital"]);
    wait_until("the grant is known", || reader.run(["ls", "hospital@v1"]).code == 0);
    let address = storage.status()["addresses"][0].as_str().unwrap().to_owned();
    reader.ok(["peers", "add", &address]);
    owner.ok(["stop"]);
    let dir = reader.mount("hospital@v1", "mnt");
    assert_same_tree(&source, &dir);
    assert_eq!(reader.status()["mounts"][0]["io"], "zero-open");
    let out = reader.dir("exported");
    reader.ok(["export", "hospital@v1", out.to_str().unwrap()]);
    assert_same_tree(&source, &out);
    reader.ok(["prefetch", "hospital@v1"]);
    reader.ok(["verify", "hospital@v1"]);
    assert_eq!(found_on_disk(&reader.home), Vec::<String>::new(), "what is read is not written in plain");
    reader.ok(["unmount", dir.to_str().unwrap()]);
    // By its id alone, too.
    let snapshot = storage.json(["list"])[0]["versions"][0]["snapshot"].as_str().unwrap().to_owned();
    reader.ok(["ls", &snapshot]);

    // One byte of each pack of the storage node.
    storage.kill();
    for pack in fs::read_dir(storage.home.join("store/packs")).unwrap().flatten() {
        let mut bytes = fs::read(pack.path()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(pack.path(), bytes).unwrap();
    }
    assert_eq!(storage.run(["verify", "hospital@v1"]).code, 13);
}

#[test]
fn who_loses_the_right_reads_no_later_version() {
    let owner = Site::initialised();
    let source = make_source(&owner);
    let uri = encrypt(&owner, &source, "hospital@v1");
    let (former, reader) = (joined(&uri), joined(&uri));
    for site in [&former, &reader] {
        let done = owner.json(["keys", "grant", &key(site), "reader", "--dataset", "hospital"]);
        assert_eq!((&done["has_key"], &done["decided"]), (&true.into(), &serde_json::Value::Null), "{done}");
        wait_until("the grant is known", || site.run(["ls", "hospital@v1"]).code == 0);
    }
    let again = owner.json(["keys", "grant", &key(&former), "reader", "--dataset", "hospital"]);
    assert_eq!(again["already"], true, "{again}");
    let storage = joined(&uri);
    let done = owner.json(["keys", "grant", &key(&storage), "storage", "--dataset", "hospital"]);
    assert_eq!(done["has_key"], false, "who stores it needs no key");

    let done = owner.json(["keys", "revoke", &key(&former), "--dataset", "hospital"]);
    assert_eq!(
        (&done["rotated"]["generation"], &done["rotated"]["readers"]),
        (&1.into(), &1.into()),
        "{done}"
    );
    fs::write(source.join("new"), "what came later").unwrap();
    let before = owner.status()["store"]["published_bytes"].as_u64().unwrap();
    owner.publish(&source, "hospital@v2");
    let added = owner.status()["store"]["published_bytes"].as_u64().unwrap() - before;
    assert!(added < before / 50, "a rotation sends nothing again: {added} after {before}");
    for site in [&former, &reader] {
        wait_until("the version is known", || site.ok(["log", "hospital"]).contains("v2"));
    }
    let message = refused(&former, "hospital@v2", "no key for this dataset");
    assert!(message.contains("generation 1") && message.contains("generation 0"), "{message}");
    former.ok(["cat", "hospital@v1/large-report"]);
    assert_eq!(reader.ok(["cat", "hospital@v2/new"]), "what came later");
    let diff = reader.ok(["diff", "hospital@v1", "hospital@v2"]);
    assert!(diff.contains("new") && !diff.contains("large-report"), "{diff}");
    // Who comes later reads everything.
    let later = joined(&uri);
    owner.ok(["keys", "grant", &key(&later), "reader", "--dataset", "hospital"]);
    wait_until("the grant is known", || later.run(["ls", "hospital@v2"]).code == 0);
    later.ok(["cat", &format!("hospital@v1/{DIRECTORY}/{NAME}")]);
    assert_eq!(owner.json(["keys", "rotate", "--dataset", "hospital"])["generation"], 2);
    reader.fails(12, ["keys", "rotate", "--dataset", "hospital"]);
    owner.fails(10, ["keys", "rotate", "--dataset", "nothing"]);
    owner.publish(&owner.dir("empty"), "plain@v1");
    let message = owner.fails(2, ["keys", "rotate", "--dataset", "plain"]);
    assert!(message.contains("nothing of plain is encrypted"), "{message}");
    // A reader with a new key of their own still opens what was wrapped for the old one.
    reader.ok(["keys", "rotate"]);
    reader.ok(["stop"]);
    reader.ok(["cat", "hospital@v2/new"]);
    fs::write(source.join("new"), "and later still").unwrap();
    owner.publish(&source, "hospital@v3");
    wait_until("the version is known", || reader.run(["cat", "hospital@v3/new"]).stdout == "and later still");
    // So does the owner.
    owner.ok(["keys", "rotate"]);
    owner.ok(["stop"]);
    fs::write(source.join("new"), "last").unwrap();
    owner.publish(&source, "hospital@v4");
    assert_eq!(owner.ok(["cat", "hospital@v4/new"]), "last");
}

#[test]
fn a_dataset_once_encrypted_is_not_published_in_plain_by_mistake() {
    let owner = Site::initialised();
    let source = make_source(&owner);
    let path = source.to_str().unwrap();
    let uri = encrypt(&owner, &source, "hospital@v1");
    // The same once more, by the version's own name, changes nothing.
    assert_eq!(owner.json(["publish", path, "hospital@v1"])["already"], true);
    assert_eq!(owner.json(["publish", "hospital@v1", "hospital@v1"])["already"], true);
    let plain = owner.json(["snapshot", path])["snapshot"].as_str().unwrap().to_owned();
    let message = owner.fails(2, ["publish", &plain, "hospital@v2"]);
    assert!(message.contains("in plain") && message.contains("--plaintext"), "{message}");
    let message = owner.fails(2, ["publish", "hospital@v1", "other@v1"]);
    assert!(message.contains("is encrypted"), "{message}");
    owner.fails(1, ["publish", "--in-place", path, "hospital@v2"]);
    owner.fails(1, ["publish", "--chunking", "fixed:4M", path, "hospital@v2"]);
    assert_eq!(owner.run(["publish", "--encrypt", "--plaintext", path, "hospital@v2"]).code, 2);
    owner.ok(["publish", "--plaintext", path, "hospital@open"]);

    let other = joined(&uri);
    let theirs = other.dir("theirs");
    fs::write(theirs.join("file"), "theirs").unwrap();
    owner.ok(["keys", "grant", &key(&other), "publisher", "--dataset", "hospital"]);
    let target = [theirs.to_str().unwrap(), "hospital@theirs"];
    wait_until("the grant is known", || other.run(["publish", target[0], target[1]]).code == 0);
    wait_until("the owner knows it", || owner.run(["cat", "hospital@theirs/file"]).stdout == "theirs");
    refused(&joined(&uri), "hospital@theirs", "no key for this dataset");

    // Without its keys the owner is no better than others, and publishes nothing by mistake.
    owner.ok(["stop"]);
    fs::remove_file(owner.home.join("dataset.keys")).unwrap();
    let message = owner.fails(12, ["publish", path, "hospital@v3"]);
    assert!(message.contains("dataset.keys"), "{message}");
}

#[test]
fn a_storage_node_holds_a_replica_that_it_cannot_read() {
    let owner = Site::initialised();
    let source = make_source(&owner);
    let status = owner.status();
    let genesis = status["networks"][0]["genesis"].as_str().unwrap();
    let address = status["addresses"][0].as_str().unwrap();
    let storage = joined(&format!("bcai://{genesis}/any?peer={address}"));
    owner.ok(["keys", "grant", &key(&storage), "storage"]);
    let path = source.to_str().unwrap();
    let done = owner.json(["publish", "--encrypt", "--replicas", "1", "--ack", "all", path, "hospital@v1"]);
    assert_eq!(done["acknowledged"], 1, "{done}");
    wait_until("the version is known", || storage.run(["log", "hospital"]).stdout.contains("v1"));
    owner.ok(["stop"]);
    let verified = storage.json(["verify", "hospital@v1"]);
    assert_eq!(
        (&verified["absent"], &verified["corrupt"]),
        (&0.into(), &serde_json::json!([])),
        "{verified}"
    );
    refused(&storage, "hospital@v1", "no key for this dataset");
    assert_eq!(found_on_disk(&storage.home), Vec::<String>::new());
}
