//! What is fetched before it is read, what is kept, and what has to go: prefetch, pins and eviction, with real nodes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bcai::api::{Client, route};
use bcai::id::SnapshotId;
use bcai::node::report::{CacheStatus, HintRequest, Hinted, Pin as Pinned, PinRequest, Progress};
use bcai::node::{Error, Kind};
use bcai::store::{Options, PinRecord, Store, StoreError};
use common::{DEADLINE, Running, Site, noise, wait_until};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// `count` files of `len` bytes below `train/a`, `train/b` and `val`, in turn.
fn write_files(top: &Path, seed: u64, count: u64, len: usize) {
    for dir in ["train/a", "train/b", "val"] {
        fs::create_dir_all(top.join(dir)).unwrap();
    }
    for number in 0..count {
        let dir = ["train/a", "train/b", "val"][number as usize % 3];
        fs::write(top.join(dir).join(format!("{number:04}.bin")), noise(seed + number, len)).unwrap();
    }
}

/// A node with a cache of `mib` MiB.
fn reader(mib: u64) -> Site {
    let mut site = Site::new();
    site.settings.push(("BCAI_CACHE_MAX_BYTES".into(), format!("{mib}MiB")));
    site
}

/// What `prefetch --check` says, whatever its exit code.
fn check(site: &Site, args: &[&str]) -> (i32, Value) {
    let done = site.run([&["--json", "prefetch", "--check"], args].concat());
    (done.code, serde_json::from_str(done.stdout.trim()).unwrap_or_else(|_| panic!("{}", done.stderr)))
}

#[test]
fn a_part_is_fetched_ahead_seen_to_be_here_and_dropped() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    write_files(&source, 1, 30, 100_000);
    fs::write(source.join("train/large"), noise(99, 3 << 20)).unwrap();
    fs::write(source.join("empty"), b"").unwrap();
    fs::hard_link(source.join("val/0002.bin"), source.join("train/linked")).unwrap();
    let uri = publisher.publish(&source, "data@v1");

    let (code, nothing) = check(&reader, &[&uri]);
    assert_eq!((code, &nothing["files"], &nothing["bytes_here"]), (1, &32.into(), &0.into()));
    let done = reader.json(["prefetch", &uri, "train/**"]);
    assert_eq!((&done["files"], &done["files_here"]), (&22.into(), &22.into()));
    assert_eq!(done["bytes_here"], 21 * 100_000 + (3 << 20));
    let (code, train) = check(&reader, &[&uri, "train"]);
    assert_eq!((code, &train["bytes"]), (0, &train["bytes_here"]));
    let (code, val) = check(&reader, &[&uri, "val/*"]);
    // One of them has another name below `train`.
    assert_eq!((code, &val["files"], &val["files_here"]), (1, &10.into(), &1.into()));

    // What is here is not fetched again, and needs nobody.
    let fetched = reader.status()["fetch"]["fetched"].clone();
    reader.ok(["prefetch", &uri, "train"]);
    assert_eq!(reader.status()["fetch"]["fetched"], fetched);
    reader.ok(["prefetch", "-q", &uri]);
    publisher.ok(["stop"]);
    let copy = reader.home.parent().unwrap().join("copy");
    let snapshot = done["snapshot"].as_str().unwrap();
    reader.ok(["export", snapshot, copy.to_str().unwrap()]);
    common::assert_same_tree(&source, &copy);

    let evicted = reader.json(["prefetch", "--evict", snapshot, "train/a"]);
    assert!(evicted["evicted_bytes"].as_u64().unwrap() >= 10 * 100_000, "{evicted}");
    assert_eq!((&evicted["files"], &evicted["bytes_here"]), (&10.into(), &0.into()));
    let (code, rest) = check(&reader, &[snapshot, "train/b", "train/large", "val"]);
    assert_eq!(code, 0, "{rest}");
    reader.ok(["prefetch", "--evict", snapshot]);
    let (code, all) = check(&reader, &[snapshot]);
    assert_eq!((code, &all["bytes_here"]), (1, &0.into()));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let site = Site::initialised();
    let source = site.dir("source");
    write_files(&source, 1, 3, 1000);
    site.publish(&source, "data@v1");
    for command in ["prefetch", "pin"] {
        let path =
            |pattern: &'static str| if command == "pin" { vec!["--path", pattern] } else { vec![pattern] };
        let bad = site.fails(2, [vec![command, "data@v1"], path("a[")].concat());
        assert!(bad.contains("`a[` is not a pattern"), "{bad}");
        let up = site.fails(2, [vec![command, "data@v1"], path("../x")].concat());
        assert!(up.contains("below the root"), "{up}");
        let none = site.fails(10, [vec![command, "data@v1"], path("test/**")].concat());
        assert!(none.contains("no file of data@v1 matches"), "{none}");
        site.fails(10, [command, "other@v1"]);
    }
    // More patterns than the record of a pin has room for.
    let many = (0..255).map(|number| format!("{number:0300}")).chain(["val".into()]);
    let many = many.flat_map(|pattern| ["--path".into(), pattern]);
    let many = site.fails(2, ["pin".into(), "data@v1".into()].into_iter().chain(many));
    assert!(many.contains("patterns of 76503 bytes"), "{many}");
    let not = site.fails(10, ["unpin", "data@v1"]);
    assert!(not.contains("not pinned"), "{not}");
    // What is published here is kept anyway: pinning it costs nothing, and dropping it drops nothing.
    site.ok(["pin", "data@v1"]);
    let cache = site.json(["cache"]);
    assert_eq!((&cache["pins"][0]["whole"], &cache["pinned_bytes"]), (&true.into(), &0.into()));
    let dropped = site.json(["prefetch", "--evict", "data@v1"]);
    assert_eq!((&dropped["evicted_bytes"], &dropped["files_here"]), (&0.into(), &3.into()));
    site.fails(10, ["unpin", "data@v1", "--path", "val"]);
    assert_eq!(site.json(["unpin", "data@v1"])["released_bytes"], 0);
}

#[test]
fn what_is_pinned_stays_until_it_is_unpinned() {
    let (publisher, reader) = (Site::initialised(), reader(16));
    let (small, large) = (publisher.dir("small"), publisher.dir("large"));
    write_files(&small, 1000, 60, 100_000);
    write_files(&large, 9000, 300, 100_000);
    let (small, large) = (publisher.publish(&small, "small@v1"), publisher.publish(&large, "large@v1"));

    // 30 MB do not fit, and nothing is fetched to find that out; a part of it does.
    let refused = reader.fails(1, ["pin", &large]);
    assert!(refused.contains("needs up to 28.7 MiB, and 12.8 MiB are free for pins"), "{refused}");
    assert!(refused.contains("cache.max_bytes to 36") && refused.contains("--path"), "{refused}");
    assert!(reader.status()["fetch"]["fetched_bytes"].as_u64().unwrap() < MIB);
    reader.ok(["pin", &small]);
    reader.ok(["pin", &large, "--path", "val/000*"]);
    let cache = reader.json(["cache"]);
    assert_eq!(cache["pins"].as_array().unwrap().len(), 2, "{cache}");
    assert_eq!(cache["pins"][1]["reference"], "small@v1");
    let pinned = cache["pinned_bytes"].as_u64().unwrap();
    assert!((6_300_000..7_000_000).contains(&pinned), "{cache}");
    assert!(reader.ok(["cache"]).contains("pin        large@v1 (val/000*): 293.0 KiB"));

    // Through a cache of half its size.
    let through = |reader: &Site| {
        let done = reader.run(["--json", "prefetch", &large]);
        assert_eq!(done.code, 1, "not all of it can stay: {}", done.stderr);
        let done: Value = serde_json::from_str(done.stdout.trim()).unwrap();
        assert!(done["files_here"].as_u64().unwrap() < 300);
    };
    through(&reader);
    assert_eq!(check(&reader, &[&small]).0, 0);
    assert_eq!(check(&reader, &[&large, "val/000*"]).0, 0);
    assert!(reader.json(["cache"])["evicted_bytes"].as_u64().unwrap() > 10 * MIB);
    let kept = reader.json(["prefetch", "--evict", &small]);
    assert_eq!((&kept["evicted_bytes"], &kept["files_here"]), (&0.into(), &60.into()), "pinned");

    // A killed daemon forgets no pin.
    reader.kill();
    through(&reader);
    assert_eq!(check(&reader, &[&small]).0, 0);
    let unpinned = reader.json(["unpin", "small@v1"]);
    assert!(unpinned["released_bytes"].as_u64().unwrap() > 6_000_000, "{unpinned}");
    through(&reader);
    assert_eq!(check(&reader, &[&small]).0, 1, "evicted");
    assert_eq!(check(&reader, &[&large, "val/000*"]).0, 0, "the other pin holds");
}

#[test]
fn a_pin_that_was_interrupted_goes_on_when_the_node_starts_next() {
    let (publisher, reader) = (Site::initialised(), reader(256));
    let source = publisher.dir("source");
    write_files(&source, 1, 600, 150_000);
    let uri = publisher.publish(&source, "data@v1");
    reader.ok(["daemon"]);
    let mut pin = reader.command(["pin", &uri]);
    let mut pin = Running(pin.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_until("the pin is begun", || !reader.json(["cache"])["pins"].as_array().unwrap().is_empty());
    reader.kill();
    pin.0.wait().unwrap();
    reader.ok(["daemon"]);
    // The addresses of the publisher are known from before.
    wait_until("the pin is made", || reader.json(["cache"])["pins"][0]["whole"] == true);
    let cache = reader.json(["cache"]);
    assert!(cache["pinned_bytes"].as_u64().unwrap() > 600 * 150_000, "{cache}");
    assert_eq!(check(&reader, &["data@v1"]).0, 0);
}

/// A pin that was begun and not made.
fn begun(snapshot: SnapshotId) -> PinRecord {
    let (paths, reference) = (Vec::new(), snapshot.to_string());
    PinRecord {
        snapshot,
        paths,
        reference,
        whole: false,
        bytes: 1,
        files: 1,
        pinned_unix_ms: 0,
        replica_of: None,
    }
}

#[test]
fn a_pin_whose_content_is_gone_keeps_no_other_waiting() {
    let (publisher, reader) = (Site::initialised(), reader(64));
    let source = publisher.dir("source");
    write_files(&source, 1, 12, 10_000);
    let uri = publisher.publish(&source, "data@v1");
    let snapshot = check(&reader, &[&uri]).1["snapshot"].as_str().unwrap().to_owned();
    reader.ok(["stop"]);
    {
        let mut opened = None;
        // The daemon may let go of its own lock, for which `stop` waits, just before that of the store.
        wait_until("the store is free", || {
            let options = Options { cache_max_bytes: 64 * MIB };
            match Store::open(&reader.home.join("store"), options) {
                Err(StoreError::Locked { .. }) => {}
                other => opened = Some(other.unwrap()),
            }
            opened.is_some()
        });
        let store = opened.unwrap();
        store.set_pin(&begun(snapshot.parse().unwrap())).unwrap();
        // One that the node comes to before the other.
        let gone = (0..=255).map(|seed| begun(SnapshotId::from_bytes([seed; 32]))).find(|gone| {
            store.set_pin(gone).unwrap();
            let is_first = store.pins().unwrap()[0].snapshot == gone.snapshot;
            is_first || !store.remove_pin(gone).unwrap()
        });
        assert!(gone.is_some() && store.pins().unwrap().len() == 2);
    }
    reader.ok(["daemon"]);
    let whole = || {
        let cache = reader.json(["cache"]);
        cache["pins"].as_array().unwrap().iter().filter(|pin| pin["whole"] == true).count()
    };
    wait_until("the other pin is made", || whole() == 1);

    // Commands that come close together leave one task in the background, which stops for the next of them.
    let mut commands: Vec<_> = (0..8)
        .map(|number| reader.command(["pin", "data@v1", "--path", &format!("**/000{number}.bin")]))
        .map(|mut command| command.stdout(Stdio::null()).spawn().unwrap())
        .collect();
    for command in &mut commands {
        assert!(command.wait().unwrap().success());
    }
    reader.ok(["pin", "data@v1", "--path", "val"]);
    reader.ok(["unpin", "data@v1", "--path", "val"]);
    assert_eq!(whole(), 9);
}

#[test]
fn what_is_dropped_is_dropped_without_asking_anybody() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    write_files(&source, 1, 12, 10_000);
    let uri = publisher.publish(&source, "data@v1");
    fs::write(source.join("new"), b"new").unwrap();
    publisher.publish(&source, "data@v2");
    reader.ok(["prefetch", &uri, "val/*"]);
    wait_until("the second version is known", || reader.ok(["log"]).contains("data@v2"));
    publisher.ok(["stop"]);
    let evict = |args: &[&str]| reader.json([&["prefetch", "--evict", "data@v1"], args].concat());
    // Nothing of these directories was ever here.
    let train = evict(&["train"]);
    assert_eq!((&train["evicted_bytes"], &train["bytes_here"]), (&0.into(), &0.into()));
    let all = evict(&[]);
    assert!(all["evicted_bytes"].as_u64().unwrap() >= 4 * 10_000, "{all}");
    assert_eq!((&all["files"], &all["files_here"]), (&4.into(), &0.into()));
    assert_eq!(reader.json(["prefetch", "--evict", "data@v2"])["evicted_bytes"], 0);
    // That there is no such file is only said when it is known.
    reader.fails(10, ["prefetch", "--evict", "data@v1", "test/**"]);
}

#[test]
fn a_pin_that_waits_for_an_absent_peer_ends_when_its_user_does() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    write_files(&source, 1, 12, 10_000);
    let uri = publisher.publish(&source, "data@v1");
    fs::write(source.join("new"), b"new").unwrap();
    publisher.publish(&source, "data@v2");
    reader.ok(["prefetch", &uri, "val/*"]);
    wait_until("the second version is known", || reader.ok(["log"]).contains("data@v2"));
    publisher.ok(["stop"]);
    // The one waits for a directory, the other for the snapshot.
    for (reference, paths) in [("data@v1", vec!["train/**".to_owned()]), ("data@v2", vec![])] {
        let request = PinRequest { reference: reference.into(), paths };
        runtime().block_on(async {
            let (waits, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
            let client = client(&reader);
            tokio::select! {
                made = client.job::<Pinned>(route::PIN, &request, |_| waits.send(()).unwrap()) => panic!("{made:?}"),
                Some(()) = has_begun.recv() => {}
            }
        });
        let not = reader.fails(10, ["unpin", "data@v1"]);
        assert!(not.contains("not pinned"), "{not}");
    }
}

#[test]
fn a_large_file_is_counted_and_held_while_it_comes() {
    const LEN: u64 = 96 * MIB;
    let (publisher, reader) = (Site::initialised(), reader(256));
    let source = publisher.dir("source");
    fs::write(source.join("large"), noise(1, LEN as usize)).unwrap();
    let uri = publisher.publish(&source, "data@v1");
    reader.ok(["daemon"]);
    let request = PinRequest { reference: uri, paths: vec![] };
    let (mut counted, mut held) = (false, false);
    runtime().block_on(async {
        let client = client(&reader);
        let seen = |now: Progress| counted |= now.bytes_done > 0 && now.bytes_done < LEN;
        let mut made = std::pin::pin!(client.job::<Pinned>(route::PIN, &request, seen));
        loop {
            tokio::select! {
                made = &mut made => return drop(made.unwrap()),
                cache = client.get::<CacheStatus>(route::CACHE) => {
                    held |= (1..LEN * 9 / 10).contains(&cache.unwrap().pinned_bytes);
                }
            }
        }
    });
    assert!(counted && held, "counted: {counted}, held: {held}");
    assert!(reader.json(["cache"])["pinned_bytes"].as_u64().unwrap() > LEN);
}

#[test]
fn a_name_of_two_networks_is_not_unpinned() {
    let reader = Site::new();
    let mut pinned = Vec::new();
    let mut publishers = Vec::new();
    for seed in [1, 2] {
        let publisher = Site::initialised();
        let source = publisher.dir("source");
        fs::write(source.join("file"), noise(seed, 1000)).unwrap();
        let uri = publisher.publish(&source, "data@v1");
        pinned.push(reader.json(["pin", &uri])["snapshot"].as_str().unwrap().to_owned());
        publishers.push(publisher);
    }
    let refused = reader.fails(2, ["unpin", "data@v1"]);
    assert!(pinned.iter().all(|snapshot| refused.contains(snapshot)), "{refused}");
    let pins = || reader.json(["cache"])["pins"].as_array().unwrap().clone();
    assert_eq!(pins().len(), 2);
    // By the snapshot, whichever of the two it was called when it was pinned.
    reader.ok(["pin", &pinned[0], "--path", "file"]);
    assert_eq!(pins().len(), 3);
    reader.ok(["unpin", &pinned[0]]);
    assert!(pins().len() == 1 && pins()[0]["snapshot"] == pinned[1]);
    reader.ok(["unpin", "data@v1"]);
    assert_eq!(pins().len(), 0);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn client(site: &Site) -> Client {
    Client::new(&site.home.join("run/api.sock"))
}

fn post(site: &Site, request: &HintRequest) -> Result<Hinted, Error> {
    runtime().block_on(async { client(site).post(route::HINTS, request).await })
}

fn hint(reference: Option<&str>, client: &str, paths: Vec<String>) -> HintRequest {
    HintRequest { dir: None, reference: reference.map(str::to_owned), client: client.to_owned(), paths }
}

#[test]
fn hints_are_bounded_counted_and_replaced_by_newer_ones() {
    let (publisher, reader) = (Site::initialised(), reader(16));
    let source = publisher.dir("source");
    write_files(&source, 1, 60, 100_000);
    let uri = publisher.publish(&source, "data@v1");
    reader.ok(["daemon"]);
    let path = |number: u64| {
        let dir = ["train/a", "train/b", "val"][number as usize % 3];
        format!("{dir}/{number:04}.bin")
    };
    let seen = |what: &str| reader.json(["cache"])["hints"][what].as_u64().unwrap();
    let settled =
        || ["fetched", "here", "unknown", "dropped", "failed"].iter().map(|what| seen(what)).sum::<u64>();

    let all: Vec<String> = ["no/such".into(), "train".into()].into_iter().chain((0..60).map(path)).collect();
    let hinted = post(&reader, &hint(Some(&uri), "loader", all)).unwrap();
    assert_eq!((hinted.paths, hinted.max_bytes), (62, 2 * MIB));
    wait_until("the hint is followed", || settled() == 62);
    // 2 MiB are 20 files and a part of the next.
    assert_eq!((seen("unknown"), seen("fetched"), seen("dropped"), seen("failed")), (2, 21, 39, 0));
    assert!(seen("fetched_bytes") <= 2 * MIB + 200_000, "{}", seen("fetched_bytes"));
    post(&reader, &hint(Some(&uri), "loader", (0..10).map(path).collect())).unwrap();
    wait_until("the second hint is followed", || settled() == 72);
    assert_eq!(seen("here"), 10);

    // While nobody answers, a hint waits; what the client says next takes its place, another's does not.
    publisher.ok(["stop"]);
    post(&reader, &hint(Some("data@v1"), "loader", (50..55).map(path).collect())).unwrap();
    post(&reader, &hint(Some("data@v1"), "other", vec![])).unwrap();
    assert_eq!(seen("dropped"), 39);
    post(&reader, &hint(Some("data@v1"), "loader", vec![])).unwrap();
    wait_until("the older hint is dropped", || seen("dropped") == 44);
}

#[test]
fn hints_that_cannot_be_followed_are_refused() {
    let site = Site::initialised();
    let source = site.dir("source");
    fs::write(source.join("file"), b"content").unwrap();
    site.publish(&source, "data@v1");
    let mounted = |dir: &str| HintRequest { dir: Some(dir.into()), ..hint(None, "", vec![]) };
    let both = HintRequest { reference: Some("data@v1".into()), ..mounted("/mnt") };
    let many = vec![String::new(); 65_537];
    let long = "x".repeat(65);
    for (request, kind, says) in [
        (hint(None, "", vec![]), Kind::Usage, "either a mount"),
        (both, Kind::Usage, "either a mount"),
        (mounted("/nowhere"), Kind::NotFound, "nothing is mounted by this node at /nowhere"),
        (hint(Some("data@v1"), "", many), Kind::Usage, "more than 65536"),
        (hint(Some("data@v1"), &long, vec![]), Kind::Usage, "at most 64 bytes"),
        (hint(Some("other@v1"), "", vec![]), Kind::NotFound, "other"),
    ] {
        let error = post(&site, &request).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(says), "{error}");
    }
    // More than 4 MiB are not read, whatever they are.
    let mut socket = UnixStream::connect(site.home.join("run/api.sock")).unwrap();
    let len = (4 << 20) + 1;
    let head = "POST /v1/hints HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    write!(socket, "{head}Content-Length: {len}\r\n\r\n").unwrap();
    socket.write_all(&vec![b' '; len]).unwrap();
    let mut status = [0; 12];
    socket.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
    assert_eq!(site.json(["cache"])["hints"]["hints"], 0);
}

#[test]
fn a_pin_that_is_given_up_holds_nothing_and_goes_on_when_it_is_asked_for_again() {
    let (publisher, reader) = (Site::initialised(), reader(256));
    let source = publisher.dir("source");
    write_files(&source, 1, 600, 150_000);
    let uri = publisher.publish(&source, "data@v1");
    reader.ok(["daemon"]);
    let mut pin = reader.command(["pin", &uri]);
    let mut pin = Running(pin.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_until("something is held", || reader.json(["cache"])["pinned_bytes"] != 0);
    pin.0.kill().unwrap();
    pin.0.wait().unwrap();
    let cache = || reader.json(["cache"]);
    wait_until("the pin is none", || {
        cache()["pins"].as_array().unwrap().iter().all(|pin| pin["whole"] == true)
    });
    // It may have been made just before.
    if cache()["pins"].as_array().unwrap().is_empty() {
        wait_until("what was held is released", || cache()["pinned_bytes"] == 0);
    }
    let here = check(&reader, &[&uri]).1["bytes_here"].as_u64().unwrap();
    let fetched = || reader.status()["fetch"]["fetched_bytes"].as_u64().unwrap();
    let before = fetched();
    reader.ok(["pin", &uri]);
    let again = fetched() - before;
    assert!(here > MIB && again <= 600 * 150_000 - here + MIB, "{here} were here, {again} came");
    assert!(cache()["pinned_bytes"].as_u64().unwrap() > 600 * 150_000);
    // Asking once more changes nothing, even while nobody answers.
    publisher.ok(["stop"]);
    reader.ok(["pin", "data@v1"]);
    assert_eq!(cache()["pins"].as_array().unwrap().len(), 1);
}

/// What the store's packs and files occupy on disk.
fn occupied(store: &Path) -> u64 {
    let mut sum = 0;
    let mut pending = vec![store.join("packs"), store.join("files")];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => pending.push(entry.path()),
                Ok(meta) => sum += meta.blocks() * 512,
                // Evicted meanwhile.
                Err(_) => {}
            }
        }
    }
    sum
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "needs /dev/fuse")]
fn readers_of_three_times_the_cache_lose_nothing_and_wait_for_nothing() {
    const FILES: u64 = 480;
    const LEN: usize = 200_000;
    let (publisher, reader) = (Site::initialised(), reader(32));
    let source = publisher.dir("source");
    write_files(&source, 1, FILES, LEN);
    let uri = publisher.publish(&source, "data@v1");
    let mounted = reader.mount(&uri, "mnt");
    let store = reader.home.join("store");
    assert!(store.join("packs").is_dir());
    let (done, peak, slowest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let now = occupied(&store);
                if now > peak.load(Ordering::Relaxed) {
                    // Files are looked at one after the other: what moved from one to the other meanwhile is counted
                    // twice. What is really there is there at the next look.
                    peak.fetch_max(now.min(occupied(&store)), Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let readers: Vec<_> = (0..4u64)
            .map(|worker| {
                let (mounted, slowest) = (&mounted, &slowest);
                scope.spawn(move || {
                    // Two epochs, each worker in an order of its own.
                    for step in 0..FILES / 2 {
                        let number = (worker * 97 + step * [7, 11, 13, 17][worker as usize]) % FILES;
                        let dir = ["train/a", "train/b", "val"][number as usize % 3];
                        let started = Instant::now();
                        let bytes = fs::read(mounted.join(dir).join(format!("{number:04}.bin"))).unwrap();
                        slowest.fetch_max(started.elapsed().as_millis() as u64, Ordering::Relaxed);
                        assert!(bytes == noise(1 + number, LEN), "file {number}");
                    }
                })
            })
            .collect();
        let results: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap();
        assert!(results.iter().all(Result::is_ok));
    });
    let (peak, slowest) = (peak.into_inner(), slowest.into_inner());
    assert!(peak <= 32 * MIB, "{peak} bytes");
    assert!(peak >= 16 * MIB, "the cache was hardly used: {peak} bytes");
    assert!(slowest < DEADLINE.as_millis() as u64 / 4, "one read took {slowest} ms");
    let cache = reader.json(["cache"]);
    assert!(cache["evicted"].as_u64().unwrap() > 0, "{cache}");
    assert!(!reader.daemon_log().contains("ERROR"), "{}", reader.daemon_log());
}
