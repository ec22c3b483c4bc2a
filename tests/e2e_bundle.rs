//! Versions carried in a file between machines that never see each other, with real nodes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bcai::id::{Kind, ObjectId, SnapshotId};
use bcai::pack::Codec;
use bcai::pack::bundle::{
    Contents, END_LEN, End, HEADER_LEN, Header, SEGMENT_HEAD_LEN, Segment, SegmentKind,
};
use bcai::pack::file::RecordHeader;
use common::{Running, Site, assert_same_tree, noise, wait_until};

fn make_source(site: &Site, name: &str, files: u64) -> PathBuf {
    let source = site.dir(name);
    fs::create_dir_all(source.join("deep/er")).unwrap();
    fs::create_dir_all(source.join("empty")).unwrap();
    for n in 0..files {
        fs::write(source.join(format!("deep/{n:03}")), noise(n, 40_000)).unwrap();
    }
    fs::write(source.join("deep/er/large"), noise(1000, 3_000_000)).unwrap();
    fs::write(source.join("text"), "the same words again and again. ".repeat(20_000)).unwrap();
    fs::write(source.join("nothing"), "").unwrap();
    // The same content once more, which a bundle holds once.
    fs::write(source.join("twin"), noise(0, 40_000)).unwrap();
    fs::hard_link(source.join("text"), source.join("deep/text")).unwrap();
    std::os::unix::fs::symlink("deep/000", source.join("link")).unwrap();
    source
}

fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn genesis_of(uri: &str) -> String {
    uri.strip_prefix("bcai://").unwrap().split('/').next().unwrap().to_owned()
}

fn export(site: &Site, args: &[&str]) -> serde_json::Value {
    site.json(["bundle", "export"].iter().chain(args))
}

fn import(site: &Site, args: &[&str]) -> serde_json::Value {
    site.json(["bundle", "import"].iter().chain(args))
}

/// A publisher whose two versions are in a file, and who is gone.
fn carried() -> (Site, PathBuf, String, PathBuf) {
    let publisher = Site::initialised();
    let source = make_source(&publisher, "source", 40);
    let uri = publisher.publish(&source, "team/data@v1");
    let file = publisher.dir("stick").join("data.bundle");
    export(&publisher, &["team/data@v1", str(&file)]);
    publisher.ok(["stop"]);
    (publisher, source, uri, file)
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn what_was_carried_in_a_file_is_mounted_without_any_network() {
    let (publisher, source, uri, file) = carried();
    let genesis = genesis_of(&uri);
    assert!(!file.with_file_name("data.bundle.partial").exists());
    let reader = Site::new();
    let message = reader.fails(2, ["bundle", "import", str(&file)]);
    assert!(message.contains(&format!("--genesis {genesis}")), "{message}");
    let other = "0".repeat(64);
    let message = reader.fails(13, ["bundle", "import", str(&file), "--genesis", &other]);
    assert!(message.contains(&genesis) && message.contains(&other), "{message}");
    assert_eq!(reader.json(["list"]).as_array().unwrap().len(), 0, "nothing is kept of what is not believed");
    let message = reader.fails(10, ["bundle", "import", str(&file), "--genesis", &uri.replace("@v1", "@v9")]);
    assert!(message.contains("v9"), "{message}");

    let done = import(&reader, &[str(&file), "--genesis", &uri]);
    assert_eq!(done["log"]["genesis"], genesis.as_str());
    assert_eq!(done["objects"], done["new_objects"], "{done}");
    assert_same_tree(&source, &reader.mount("team/data@v1", "by-name"));
    assert_same_tree(&source, &reader.mount("team/data", "latest"));
    let without_peer = uri.split('?').next().unwrap();
    assert_same_tree(&source, &reader.mount(without_peer, "by-uri"));
    assert!(reader.ok(["verify", "team/data@v1"]).contains("is valid"));
    assert!(reader.ok(["cache"]).contains("team/data@v1"), "it stays");

    let again = import(&reader, &[str(&file)]);
    assert_eq!(again["new_objects"], 0, "{again}");
    assert_eq!(again["new_network"], false, "{again}");
    // Its publisher has all of it already.
    assert_eq!(import(&publisher, &[str(&file)])["new_objects"], 0);
    publisher.ok(["verify", "--all"]);
}

#[test]
fn the_second_trip_carries_what_is_new() {
    let (publisher, source, uri, file) = carried();
    fs::write(source.join("deep/new"), noise(77, 200_000)).unwrap();
    fs::remove_file(source.join("deep/003")).unwrap();
    // The same content under another name is nothing new.
    fs::rename(source.join("deep/004"), source.join("moved")).unwrap();
    publisher.publish(&source, "team/data@v2");
    let second = file.with_file_name("second.bundle");
    let done = export(&publisher, &["team/data@v2", str(&second), "--since", "team/data@v1"]);
    let len = fs::metadata(&second).unwrap().len();
    assert!((200_000..400_000).contains(&len), "{len}: {done}");
    let both = file.with_file_name("both.bundle");
    export(&publisher, &["team/data@v1", "team/data@v2", str(&both)]);
    let (one, two) = (fs::metadata(&file).unwrap().len(), fs::metadata(&both).unwrap().len());
    assert!(two < one + 400_000, "what versions share is in a bundle once: {one} {two}");
    publisher.ok(["stop"]);

    let reader = Site::new();
    let message = reader.fails(10, ["bundle", "import", str(&second), "--genesis", &uri]);
    assert!(message.contains("begins at height") && message.contains("team/data@v1"), "{message}");
    import(&reader, &[str(&file), "--genesis", &uri]);
    let done = import(&reader, &[str(&second)]);
    assert!(done["new_blocks"].as_u64().unwrap() >= 1, "{done}");
    let out = reader.dir("out");
    reader.ok(["export", "team/data", str(&out)]);
    assert_same_tree(&source, &out);

    // Who knows the log and has not the version before is told so.
    let other = Site::new();
    import(&other, &[str(&both), "--genesis", &uri]);
    other.ok(["unpin", "team/data@v1"]);
    other.ok(["unpin", "team/data@v2"]);
    other.ok(["prefetch", "team/data@v1", "--evict"]);
    other.ok(["prefetch", "team/data@v2", "--evict"]);
    let message = other.fails(10, ["bundle", "import", str(&second)]);
    assert!(message.contains("team/data@v1") && message.contains("not whole"), "{message}");
}

#[test]
fn a_file_that_is_not_what_it_says_is_refused_with_the_place() {
    let (_publisher, _source, uri, file) = carried();
    let reader = Site::new();
    let bytes = fs::read(&file).unwrap();
    let bad = file.with_file_name("bad.bundle");
    let refused = |bytes: &[u8], code: i32| {
        fs::write(&bad, bytes).unwrap();
        let message = reader.fails(code, ["bundle", "import", str(&bad), "--genesis", &uri]);
        assert!(message.contains("bad.bundle"), "{message}");
        assert!(message.lines().count() >= 2, "without a remedy: {message}");
        message
    };
    assert!(refused(b"PK\x03\x04 not ours", 13).contains("no bundle"));
    refused(b"", 13);
    for cut in [10, HEADER_LEN + 5, 1000, bytes.len() / 2, bytes.len() - 1, bytes.len() - 120] {
        let message = refused(&bytes[..cut], 13);
        assert!(cut < 1000 || message.contains("at byte"), "{cut}: {message}");
    }
    // Each on a node of its own: what is here already is not read again, whatever the file says.
    for place in [9, HEADER_LEN + 20, bytes.len() / 3, bytes.len() / 2, bytes.len() - 20] {
        let mut flipped = bytes.clone();
        flipped[place] ^= 4;
        fs::write(&bad, flipped).unwrap();
        let fresh = Site::new();
        let message = fresh.fails(13, ["bundle", "import", str(&bad), "--genesis", &uri]);
        assert!(message.contains("bad.bundle") && message.lines().count() >= 2, "{place}: {message}");
        assert!(!fresh.ok(["cache"]).contains("team/data@v1"), "{place}");
    }
    let stats = reader.status();
    assert_eq!(stats["cache"]["pinned_bytes"], 0, "what was refused holds nothing: {stats}");
    import(&reader, &[str(&file), "--genesis", &uri]);
    reader.ok(["verify", "--all"]);
}

/// What somebody makes who knows the format: everything in it fits its checks.
struct Forged {
    contents: Contents,
    /// Heads and bodies, without the end.
    segments: Vec<(Segment, Vec<u8>)>,
}

impl Forged {
    fn read(file: &Path) -> Self {
        let bytes = fs::read(file).unwrap();
        let header = Header::decode(&bytes).unwrap();
        let mut at = HEADER_LEN + header.contents_len;
        let contents = Contents::decode(&header, &bytes[HEADER_LEN..at]).unwrap();
        let mut segments = Vec::new();
        loop {
            let segment = Segment::decode(&bytes[at..]).unwrap();
            let body = &bytes[at + SEGMENT_HEAD_LEN..][..segment.len as usize];
            if segment.kind == SegmentKind::End {
                assert_eq!(at + SEGMENT_HEAD_LEN + END_LEN, bytes.len());
                return Self { contents, segments };
            }
            segments.push((segment, body.to_vec()));
            at += SEGMENT_HEAD_LEN + body.len();
        }
    }

    fn write(&self, file: &Path) {
        let mut bytes = self.contents.encode();
        let mut digest = blake3::Hasher::new();
        digest.update(&bytes);
        let (mut objects, mut stored_bytes) = (0, 0);
        for (segment, body) in &self.segments {
            if segment.kind == SegmentKind::Objects {
                objects += u64::from(segment.count);
                stored_bytes += (body.len() - segment.index_len()) as u64;
            }
            digest.update(&segment.encode());
            bytes.extend_from_slice(&segment.encode());
            bytes.extend_from_slice(body);
        }
        let end = End { objects, stored_bytes, digest: *digest.finalize().as_bytes() }.encode();
        bytes.extend_from_slice(&Segment::of(SegmentKind::End, 0, &[&end]).encode());
        bytes.extend_from_slice(&end);
        fs::write(file, bytes).unwrap();
    }
}

#[test]
fn a_forged_file_brings_nothing_in() {
    let (_publisher, _source, uri, file) = carried();
    let reader = Site::new();
    let bad = file.with_file_name("forged.bundle");
    let refused = |forged: &Forged| {
        forged.write(&bad);
        reader.fails(13, ["bundle", "import", str(&bad), "--genesis", &uri])
    };
    // The forger's tools do no harm to what is left as it is.
    Forged::read(&file).write(&bad);
    assert_eq!(fs::read(&bad).unwrap(), fs::read(&file).unwrap());

    // A version that the log does not know so.
    let mut forged = Forged::read(&file);
    forged.contents.versions[0].snapshot = SnapshotId::of(b"another");
    assert!(refused(&forged).contains("its own log does not"));
    // A log without one of its blocks, one with a block changed, and one that ends early.
    let mut forged = Forged::read(&file);
    forged.contents.first += 1;
    refused_or_unknown(&reader, &forged, &bad, &uri);
    let mut forged = Forged::read(&file);
    let (segment, body) = &mut forged.segments[0];
    let middle = body.len() / 2;
    body[middle] ^= 1;
    *segment = Segment::of(SegmentKind::Log, segment.count, &[body]);
    assert!(refused(&forged).contains("height"));
    // Objects that nobody asked for, rightly hashed.
    let mut forged = Forged::read(&file);
    let junk = b"junk that fills disks";
    let record = RecordHeader {
        id: ObjectId::of(Kind::Chunk, junk),
        codec: Codec::Raw,
        stored_len: junk.len() as u32,
        plain_len: junk.len() as u32,
    };
    let body = [&record.encode()[..], junk].concat();
    forged.segments.push((Segment::of(SegmentKind::Objects, 1, &[&body]), body));
    let message = refused(&forged);
    assert!(message.contains("belongs to none") && message.contains("at byte"), "{message}");
    // One that is missing.
    let mut forged = Forged::read(&file);
    forged.segments.pop();
    let fresh = Site::new();
    forged.write(&bad);
    let message = fresh.fails(13, ["bundle", "import", str(&bad), "--genesis", &uri]);
    assert!(message.contains("is absent"), "{message}");
    // A length that nothing backs.
    let mut bytes = fs::read(&file).unwrap();
    bytes.truncate(bytes.len() - END_LEN - SEGMENT_HEAD_LEN);
    let mut huge = Segment::of(SegmentKind::Objects, 0, &[]);
    huge.len = 16 << 20;
    bytes.extend_from_slice(&huge.encode());
    fs::write(&bad, bytes).unwrap();
    let message = reader.fails(13, ["bundle", "import", str(&bad), "--genesis", &uri]);
    assert!(message.contains("cut short"), "{message}");
    assert!(!reader.ok(["cache"]).contains("team/data@v1"), "nothing is pinned");
}

/// Without its first block a log is of no use to who has none, and no proof of anything to who has.
fn refused_or_unknown(reader: &Site, forged: &Forged, bad: &Path, uri: &str) {
    forged.write(bad);
    let done = reader.run(["bundle", "import", str(bad), "--genesis", uri]);
    assert!([10, 13].contains(&done.code), "{}: {}", done.code, done.stderr);
}

#[test]
fn an_export_that_is_killed_goes_on_and_ends_as_if_it_had_not_been() {
    let publisher = Site::initialised();
    let source = publisher.dir("source");
    for n in 0..12 {
        fs::write(source.join(format!("{n}")), noise(n, 20_000_000)).unwrap();
    }
    publisher.publish(&source, "data@v1");
    let stick = publisher.dir("stick");
    let (file, partial) = (stick.join("a.bundle"), stick.join("a.bundle.partial"));
    let len = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    let mut running = Running(
        publisher
            .command(["bundle", "export", "data@v1", str(&file)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    wait_until("something was written", || len(&partial) > 20_000_000 || file.exists());
    publisher.kill();
    running.0.wait().unwrap();
    assert!(!file.exists(), "it was faster than the test");
    // As a write that was torn leaves it.
    fs::OpenOptions::new().append(true).open(&partial).unwrap().write_all(&noise(1, 70_000)).unwrap();

    let message = publisher.fails(11, ["bundle", "export", "data@v1", str(&file), "--since", "data@v1"]);
    assert!(message.contains("data@v1 of network") && message.contains("a.bundle.partial"), "{message}");
    let done = export(&publisher, &["data@v1", str(&file)]);
    assert!(done["resumed_bytes"].as_u64().unwrap() > 8_000_000, "{done}");
    assert!(!partial.exists());
    let other = stick.join("b.bundle");
    let fresh = export(&publisher, &["data@v1", str(&other)]);
    assert_eq!((&fresh["objects"], &fresh["stored_bytes"]), (&done["objects"], &done["stored_bytes"]));
    let same = Command::new("cmp").args([&file, &other]).status().unwrap();
    assert!(same.success(), "whether it was interrupted is not to be seen");

    assert_eq!(export(&publisher, &["data@v1", str(&file)])["already"], true);
    fs::write(source.join("more"), "more").unwrap();
    publisher.publish(&source, "data@v2");
    let message = publisher.fails(11, ["bundle", "export", "data@v2", str(&file)]);
    assert!(message.contains("a bundle of data@v1"), "{message}");
    fs::write(stick.join("letter"), "dear all").unwrap();
    let message = publisher.fails(11, ["bundle", "export", "data@v2", str(&stick.join("letter"))]);
    assert!(message.contains("is no bundle"), "{message}");
    fs::write(stick.join("c.partial"), "somebody's work").unwrap();
    publisher.fails(13, ["bundle", "export", "data@v2", str(&stick.join("c"))]);
    assert_eq!(fs::read_to_string(stick.join("c.partial")).unwrap(), "somebody's work");
}

#[test]
fn an_import_that_is_killed_goes_on() {
    let publisher = Site::initialised();
    let source = publisher.dir("source");
    for n in 0..12 {
        fs::write(source.join(format!("{n}")), noise(n, 20_000_000)).unwrap();
    }
    let uri = publisher.publish(&source, "data@v1");
    let file = publisher.dir("stick").join("a.bundle");
    export(&publisher, &["data@v1", str(&file)]);
    publisher.ok(["stop"]);

    // Room for it once, and not once more beside what an interrupted import holds.
    let mut reader = Site::new();
    reader.settings.push(("BCAI_CACHE_MAX_BYTES".into(), "350MiB".into()));
    reader.ok(["daemon"]);
    let packs = reader.home.join("store/packs");
    let stored = || {
        let files = fs::read_dir(&packs).into_iter().flatten().flatten();
        files.map(|file| file.metadata().map_or(0, |meta| meta.len())).sum::<u64>()
    };
    let mut running = Running(
        reader
            .command(["bundle", "import", str(&file), "--genesis", &uri])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    wait_until("something was stored", || stored() > 40_000_000);
    reader.kill();
    assert!(!running.0.wait().unwrap().success(), "it was faster than the test");
    let done = import(&reader, &[str(&file)]);
    let (new, all) = (done["new_objects"].as_u64().unwrap(), done["objects"].as_u64().unwrap());
    assert!(new > 0 && new < all, "{done}");
    let out = reader.dir("out");
    reader.ok(["export", "data@v1", str(&out)]);
    assert_same_tree(&source, &out);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to mount a small file system")]
fn a_full_disk_is_told_and_gone_on_from() {
    let publisher = Site::initialised();
    let source = publisher.dir("source");
    for n in 0..6 {
        fs::write(source.join(format!("{n}")), noise(n, 10_000_000)).unwrap();
    }
    publisher.publish(&source, "data@v1");
    let stick = publisher.dir("stick");
    let mount = |options: &str| {
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs", str(&stick)]).status();
        assert!(status.unwrap().success());
    };
    mount("size=30m");
    let file = stick.join("a.bundle");
    let message = publisher.fails(1, ["bundle", "export", "data@v1", str(&file)]);
    assert!(
        message.contains("a.bundle.partial") && message.contains("goes on where it stopped"),
        "{message}"
    );
    mount("remount,size=100m");
    let done = export(&publisher, &["data@v1", str(&file)]);
    assert!(done["resumed_bytes"].as_u64().unwrap() > 10_000_000, "{done}");
    let other = publisher.dir("elsewhere").join("b.bundle");
    export(&publisher, &["data@v1", str(&other)]);
    assert!(Command::new("cmp").args([&file, &other]).status().unwrap().success());
    publisher.ok(["stop"]);
    assert!(Command::new("umount").arg(&stick).status().unwrap().success());
}

#[test]
fn an_encrypted_version_is_carried_by_who_has_no_key_and_read_by_who_was_granted_it() {
    let owner = Site::initialised();
    let source = make_source(&owner, "source", 10);
    fs::write(source.join("secret-name"), "the quick brown fox has a secret illness").unwrap();
    let done = owner.json(["publish", "--encrypt", str(&source), "hospital@v1"]);
    let uri = done["uri"].as_str().unwrap().to_owned();
    let reader = Site::new();
    let key = reader.json(["keys", "new"])["key"].as_str().unwrap().to_owned();
    owner.ok(["keys", "grant", &key, "reader", "--dataset", "hospital"]);

    // A node in between, which has no key, and fetches what it has not while it writes.
    let carrier = Site::new();
    carrier.ok(["init", "--join", &uri]);
    let file = carrier.dir("stick").join("sealed.bundle");
    export(&carrier, &["hospital@v1", str(&file)]);
    let bytes = fs::read(&file).unwrap();
    for secret in [&b"secret-name"[..], b"the quick brown fox", b"the same words again"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
    owner.ok(["yank", "hospital@v1", "--reason", "it was the wrong ward"]);
    let late = file.with_file_name("late.bundle");
    export(&owner, &["hospital@v1", str(&late)]);
    let done = owner.run(["bundle", "export", "hospital@v1", str(&late)]);
    assert!(done.stderr.contains("withdrawn: it was the wrong ward"), "{}", done.stderr);
    owner.ok(["stop"]);
    carrier.ok(["stop"]);

    let stranger = Site::new();
    import(&stranger, &[str(&file), "--genesis", &uri]);
    let message = stranger.fails(12, ["ls", "hospital@v1"]);
    assert!(message.contains("no key"), "{message}");
    import(&reader, &[str(&file), "--genesis", &uri]);
    let out = reader.dir("out");
    reader.ok(["export", "hospital@v1", str(&out)]);
    assert_same_tree(&source, &out);
    // The later file brings the log up to the withdrawal, and nothing else.
    let done = import(&reader, &[str(&late)]);
    assert_eq!(done["new_objects"], 0, "{done}");
    assert_eq!(done["versions"][0]["withdrawn"], "it was the wrong ward", "{done}");
}

/// A segment of a few hundred KiB was taken into memory as the hundreds of MiB that it was, compressed, four times.
#[test]
fn a_small_bundle_of_much_content_takes_little_memory() {
    let publisher = Site::initialised();
    let source = publisher.dir("source");
    let mut content = Vec::new();
    for chunk in 0..80u64 {
        content.extend_from_slice(&chunk.to_le_bytes());
        content.resize((chunk as usize + 1) * (4 << 20), chunk as u8);
    }
    fs::write(source.join("large"), &content).unwrap();
    let words = ["publish", str(&source), "team/data@v1", "--chunking", "fixed:4M", "--compress", "zstd:3"];
    publisher.ok(words);
    let file = publisher.dir("stick").join("data.bundle");
    export(&publisher, &["team/data@v1", str(&file)]);
    assert!(fs::metadata(&file).unwrap().len() < 4 << 20);
    let genesis = publisher.status()["networks"][0]["genesis"].as_str().unwrap().to_owned();
    let reader = Site::new();
    import(&reader, &[str(&file), "--genesis", &genesis]);
    let status = fs::read_to_string(format!("/proc/{}/status", reader.pid().unwrap())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 200 << 10, "{peak} KiB");
}

#[test]
fn what_has_no_room_is_refused_before_anything_is_read() {
    let (_publisher, _source, uri, file) = carried();
    let mut reader = Site::new();
    reader.settings.push(("BCAI_CACHE_MAX_BYTES".into(), "4MiB".into()));
    let message = reader.fails(1, ["bundle", "import", str(&file), "--genesis", &uri]);
    assert!(message.contains("team/data@v1 needs up to") && message.contains("cache.max_bytes"), "{message}");
}
