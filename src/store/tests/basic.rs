//! What the store promises when nothing goes wrong, and what it refuses.

use std::process::Command;
use std::thread;

use super::*;

#[test]
fn objects_of_every_kind_and_codec_come_back() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let text = Bytes::from(b"the same line again\n".repeat(500));
    let mut objects = Vec::new();
    for kind in [Kind::Chunk, Kind::Blob, Kind::Tree, Kind::Snapshot] {
        objects.push(Checked::pack(kind, text.clone(), Compression::Lz4));
    }
    objects.push(Checked::pack(Kind::Chunk, text.slice(1..), Compression::Zstd(3)));
    objects.push(Checked::pack(Kind::Chunk, text.slice(2..), Compression::None));
    objects.push(Checked::pack(Kind::Chunk, Bytes::new(), Compression::Lz4));
    let put = store.put(&objects, Keep::Published).expect("puts");
    assert_eq!(put.objects, 7);
    assert_eq!(put.stored_bytes, objects.iter().map(|o| o.packed().stored().len() as u64).sum::<u64>());
    for _ in 0..2 {
        for object in &objects {
            let got = store.get(&object.id()).expect("reads").expect("is there");
            assert_eq!(got.codec(), object.packed().codec());
            assert!(has(&store, object));
        }
        store.commit().expect("commits");
    }
    assert_eq!(store.put(&objects, Keep::Published).expect("puts"), Put::default());
    assert_eq!(store.put(&objects, Keep::Cache).expect("puts"), Put::default());
}

#[test]
fn missing_and_contains_see_what_was_put_at_once() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let objects = chunks(0..6, 300);
    let ids: Vec<ObjectId> = objects.iter().map(Checked::id).collect();
    assert_eq!(store.missing(&ids, Keep::Cache).expect("looks"), ids);
    store.put(&objects[..2], Keep::Published).expect("puts");
    store.commit().expect("commits");
    store.put(&objects[3..4], Keep::Cache).expect("puts");
    assert_eq!(store.missing(&ids, Keep::Cache).expect("looks"), [ids[2], ids[4], ids[5]]);
    assert_eq!(store.missing(&ids, Keep::Published).expect("looks"), ids[2..]);
    store.commit().expect("commits");
    assert_eq!(store.missing(&ids, Keep::Published).expect("looks"), ids[2..]);
    assert!(store.contains(&ids[3]).expect("looks") && !store.contains(&ids[4]).expect("looks"));
    assert_eq!(store.get(&ids[4]).expect("looks").map(|_| ()), None);
    let stats = store.stats().expect("counts");
    assert_eq!((stats.objects, stats.misses), (3, 1));
}

#[test]
fn everything_is_there_after_reopening() {
    let dir = temp();
    let (published, cached) = (chunks(0..200, 1500), chunks(1000..1020, 900));
    let store = open(dir.path(), MIB);
    store.put(&published, Keep::Published).expect("puts");
    store.put(&cached, Keep::Cache).expect("puts");
    drop(store);
    let store = open(dir.path(), MIB);
    assert!(published.iter().chain(&cached).all(|object| has(&store, object)));
    assert!(pack_files(dir.path()).len() > 3, "packs were sealed on the way");
    let stats = store.stats().expect("counts");
    assert_eq!((stats.objects, stats.published_bytes), (220, 200 * (1500 + 56)));
    all_sound(&store);
}

#[test]
fn a_cached_object_that_is_published_moves() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let objects = chunks(0..40, 4000);
    store.put(&objects, Keep::Cache).expect("puts");
    store.commit().expect("commits");
    let cached = store.stats().expect("counts").cached_bytes;
    assert_eq!(store.put(&objects, Keep::Published).expect("puts").objects, 40);
    store.commit().expect("commits");
    let stats = store.stats().expect("counts");
    assert_eq!((stats.objects, stats.published_bytes), (40, 40 * 4056));
    // All but the pack that is still being appended to is gone.
    assert!(stats.cached_bytes < cached / 2, "{} of {cached}", stats.cached_bytes);
    assert!(objects.iter().all(|object| has(&store, object)));
    // Moving before the first commit, in one transaction, ends the same.
    let object = chunk(99, 500);
    store.put(std::slice::from_ref(&object), Keep::Cache).expect("puts");
    store.put(std::slice::from_ref(&object), Keep::Published).expect("puts");
    store.commit().expect("commits");
    assert_eq!(store.stats().expect("counts").published_bytes, 40 * 4056 + 556);
    assert!(has(&store, &object));
}

#[test]
fn a_forgotten_object_is_gone_and_can_be_put_again() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    for (seed, keep) in [(1, Keep::Cache), (2, Keep::Cache)] {
        for commit in [false, true] {
            let object = chunk(seed, 700);
            assert_eq!(store.put(std::slice::from_ref(&object), keep).expect("puts").objects, 1);
            if commit {
                store.commit().expect("commits");
            }
            assert!(!store.forget(&object.id()).expect("sound"), "what reads well stays");
            spoil(&store, dir.path(), &object.id()).expect("is there");
            assert!(store.forget(&object.id()).expect("forgets"));
            assert!(!store.contains(&object.id()).expect("looks"));
            store.commit().expect("commits");
            assert!(!store.contains(&object.id()).expect("looks"));
        }
    }
    assert!(!store.forget(&chunk(3, 10).id()).expect("what was never there is no error"));
    let stats = store.stats().expect("counts");
    assert_eq!((stats.objects, stats.published_bytes), (0, 0));
}

#[test]
fn snapshots_are_remembered() {
    let dir = temp();
    let record = |seed: u8, source: &str| SnapshotRecord {
        id: SnapshotId::of(&[seed]),
        bytes: 1 << 40,
        inodes: 7,
        chunks: 9,
        created_unix_ms: 1_767_225_600_000,
        source: source.into(),
        submitted: None,
    };
    let store = open(dir.path(), MIB);
    store.keep_snapshot(record(1, "/data")).expect("keeps");
    store.keep_snapshot(record(2, "/other")).expect("keeps");
    store.keep_snapshot(record(1, "/data again")).expect("replaces");
    let absurd = record(3, &"x".repeat(types::MAX_SNAPSHOT_RECORD));
    assert!(matches!(store.keep_snapshot(absurd), Err(StoreError::Record { .. })));
    let copy = crashed_copy(&store, dir.path());
    let mut snapshots = open(copy.path(), MIB).snapshots().expect("lists");
    snapshots.sort_by(|a, b| a.source.cmp(&b.source));
    assert_eq!(snapshots, [record(1, "/data again"), record(2, "/other")]);
}

#[test]
fn a_second_opening_in_this_process_is_refused() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let second = Store::open(dir.path(), Options { cache_max_bytes: MIB });
    let refused = second.expect_err("refused");
    assert!(matches!(refused, StoreError::Locked { pid, .. } if pid == std::process::id()));
    assert!(refused.to_string().contains(&format!("in use by process {}", std::process::id())), "{refused}");
    let clone = store.clone();
    drop(store);
    assert!(Store::open(dir.path(), Options { cache_max_bytes: MIB }).is_err(), "a handle is left");
    drop(clone);
    open(dir.path(), MIB);
}

/// Directory and owner for the child process below.
const CHILD_DIR: &str = "BCAI_TEST_LOCKED_STORE";
const CHILD_OWNER: &str = "BCAI_TEST_LOCK_OWNER";

#[test]
fn a_second_process_is_refused_with_the_id_of_the_first() {
    let dir = temp();
    let _store = open(dir.path(), MIB);
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "store::tests::basic::child_process_is_refused"])
        .env(CHILD_DIR, dir.path())
        .env(CHILD_OWNER, std::process::id().to_string())
        .output()
        .expect("runs");
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

#[test]
#[ignore = "on demand: a_second_process_is_refused_with_the_id_of_the_first runs it in a child"]
fn child_process_is_refused() {
    let dir = std::env::var_os(CHILD_DIR).expect("the parent names a directory");
    let owner = std::env::var(CHILD_OWNER).expect("the parent names itself");
    let refused = Store::open(Path::new(&dir), Options { cache_max_bytes: MIB }).expect_err("refused");
    assert!(matches!(refused, StoreError::Locked { pid, .. } if pid.to_string() == owner), "{refused}");
}

#[test]
fn a_failed_write_stops_writing_but_not_reading() {
    let dir = temp();
    let disk = simulated::Simulated::default();
    let store = open_on(dir.path(), MIB, Arc::new(disk.clone())).expect("opens");
    let objects = chunks(0..3, 600);
    store.put(&objects[..1], Keep::Published).expect("puts");
    store.commit().expect("commits");
    store.put(&objects[1..2], Keep::Published).expect("puts");
    disk.fail(0, rustix::io::Errno::IO);
    assert!(matches!(store.put(&objects[2..], Keep::Published), Err(StoreError::Io { .. })));
    let snapshot = SnapshotRecord::recovered(SnapshotId::of(b""));
    for refused in [
        store.put(&objects[2..], Keep::Published).err(),
        store.put(&objects[2..], Keep::Cache).err(),
        store.commit().err(),
        store.forget(&objects[0].id()).err(),
        store.keep_snapshot(snapshot).err(),
    ] {
        let refused = refused.expect("refused");
        assert!(matches!(refused, StoreError::Stopped { .. }), "{refused}");
        assert!(refused.to_string().contains("append to"), "it names the first cause: {refused}");
    }
    assert!(has(&store, &objects[0]) && has(&store, &objects[1]));
    assert!(!store.contains(&objects[2].id()).expect("looks"));
    drop(store);
    let store = open(dir.path(), MIB);
    assert!(has(&store, &objects[0]) && has(&store, &objects[1]), "the whole record was found again");
    store.put(&objects[2..], Keep::Published).expect("writes again");
}

#[test]
fn a_full_disk_refuses_publishing_and_bypasses_the_cache() {
    let dir = temp();
    let tuning = Tuning { headroom: u64::MAX / 2, ..small() };
    let store = Store::open_tuned(dir.path(), Options { cache_max_bytes: MIB }, tuning, Arc::new(disk::Real))
        .expect("opens");
    let objects = chunks(0..2, 600);
    let full = store.put(&objects[..1], Keep::Published).expect_err("refused");
    assert!(matches!(full, StoreError::Full { .. }));
    assert!(full.to_string().contains("no space left"), "{full}");
    assert_eq!(store.put(&objects, Keep::Cache).expect("is skipped"), Put::default());
    store.commit().expect("commits nothing");
    let stats = store.stats().expect("counts");
    assert_eq!((stats.objects, stats.bypassed, stats.packs), (0, 2, 0));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to mount a small tmpfs")]
fn a_disk_that_fills_up_loses_nothing() {
    let mount = temp();
    let no_flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", mount.path(), "tmpfs", no_flags, c"size=24m")
        .expect("root can mount a tmpfs");
    let dir = mount.path().join("store");
    let options = Options { cache_max_bytes: 100 * MIB };
    // Without headroom it is the append itself that fails.
    let tuning = Tuning { headroom: 0, ..Tuning::new(&options) };
    let objects = chunks(0..400, 100_000);
    let ballast = mount.path().join("ballast");
    std::fs::write(&ballast, vec![1; 4 << 20]).expect("writes");

    let store = Store::open_tuned(&dir, options, tuning, Arc::new(disk::Real)).expect("opens");
    let full =
        objects.iter().position(|object| match store.put(std::slice::from_ref(object), Keep::Published) {
            Ok(_) => false,
            Err(StoreError::Full { .. }) => true,
            Err(error) => panic!("{error}"),
        });
    let (stored, rest) = objects.split_at(full.expect("it fills up"));
    assert!(stored.len() > 100);
    assert_eq!(store.put(&rest[..1], Keep::Cache).expect("is skipped"), Put::default());
    assert_eq!(store.stats().expect("counts").bypassed, 1);
    assert!(stored.iter().all(|object| has(&store, object)));
    assert!(!store.contains(&rest[0].id()).expect("looks"));

    std::fs::remove_file(&ballast).expect("the user makes room");
    store.put(&rest[..1], Keep::Published).expect("goes on");
    store.commit().expect("commits");
    let copy = crashed_copy(&store, &dir);
    drop(store);
    rustix::mount::unmount(mount.path(), rustix::mount::UnmountFlags::empty()).expect("unmounts");
    let store = open(copy.path(), MIB);
    assert!(stored.iter().chain(&rest[..1]).all(|object| has(&store, object)));
    all_sound(&store);
}

#[test]
fn eight_threads_put_and_get_at_once() {
    let dir = temp();
    let store = open(dir.path(), 4 * MIB);
    let objects = chunks(0..300, 2000);
    thread::scope(|scope| {
        for thread in 0..8usize {
            let (store, objects) = (&store, &objects);
            scope.spawn(move || {
                for step in 0..objects.len() {
                    let object = &objects[(step * 7 + thread * 31) % objects.len()];
                    let keep = if thread % 2 == 0 { Keep::Published } else { Keep::Cache };
                    store.put(std::slice::from_ref(object), keep).expect("puts");
                    assert!(has(store, object));
                    if step % 50 == thread {
                        store.commit().expect("commits");
                    }
                }
            });
        }
    });
    assert!(objects.iter().all(|object| has(&store, object)));
    let stats = store.stats().expect("counts");
    assert_eq!((stats.objects, stats.published_bytes), (300, 300 * 2056));
    all_sound(&store);
}

/// A process that was out of file descriptors for a moment could not create a pack, and took no more writes until it
/// was restarted.
#[test]
fn a_pack_that_cannot_be_created_fails_one_put_only() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let objects = chunks(0..40, 2000);
    store.put(&objects[..1], Keep::Published).expect("puts");
    // What is in the way of the next pack, when the first is full.
    let stray = dir.path().join("packs/00000001.pack");
    std::fs::create_dir(&stray).expect("creates");
    for _ in 0..2 {
        let refused = store.put(&objects, Keep::Published).expect_err("no second pack");
        assert!(matches!(refused, StoreError::Io { action: "create a pack in", .. }), "{refused}");
    }
    store.commit().expect("what is written is committed");
    std::fs::remove_dir(&stray).expect("removes");
    store.put(&objects, Keep::Published).expect("goes on");
    drop(store);
    let store = open(dir.path(), MIB);
    assert!(objects.iter().all(|object| has(&store, object)));
    all_sound(&store);
}
