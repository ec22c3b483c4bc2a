//! Blob files: whole or not there, within the budget, and not taken away from those who read them.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::*;
use crate::id::BlobId;

const LEN: usize = 100_000;

fn blob(seed: u8) -> BlobId {
    BlobId::from_bytes([seed; 32])
}

fn path(dir: &Path, blob: &BlobId) -> PathBuf {
    let name = blob.to_string();
    dir.join("files").join(&name[..2]).join(name)
}

/// The pieces of a file: two chunks with a hole between them.
fn pieces(seed: u32) -> (Checked, u64, Checked) {
    (chunk(seed, LEN), 50_000, chunk(seed + 1000, 777))
}

fn content(seed: u32) -> Vec<u8> {
    let (first, hole, second) = pieces(seed);
    [first.plain(), &vec![0; hole as usize][..], second.plain()].concat()
}

fn begin(store: &Store, blob: BlobId) -> Option<BlobWriter> {
    store.begin_blob_file(blob, LEN as u64 + 50_000 + 777).expect("begins")
}

fn write(store: &Store, seed: u8) {
    fill(begin(store, blob(seed)).expect("there is room"), seed.into());
}

fn fill(mut writer: BlobWriter, seed: u32) {
    let (first, hole, second) = pieces(seed);
    writer.write(&first).expect("writes");
    writer.skip(hole).expect("skips");
    writer.write(&second).expect("writes");
    writer.finish().expect("finishes");
}

fn contents(file: &BlobFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len as usize];
    file.file.read_exact_at(&mut bytes, 0).expect("as long as it says");
    bytes
}

fn is_whole(store: &Store, seed: u8) -> bool {
    match store.blob_file(&blob(seed)).expect("looks") {
        Some(file) => {
            assert_eq!(file.file.metadata().expect("is there").len(), file.len);
            assert!(contents(&file) == content(seed.into()), "wrong bytes");
            true
        }
        None => false,
    }
}

#[test]
fn a_blob_file_is_there_once_it_is_finished_and_after_reopening() {
    let dir = temp();
    let store = open(dir.path(), 4 * MIB);
    assert!(!is_whole(&store, 1));
    let mut writer = begin(&store, blob(1)).expect("there is room");
    assert!(begin(&store, blob(1)).is_none(), "it is being written");
    let (first, hole, second) = pieces(1);
    writer.write(&first).expect("writes");
    writer.skip(hole).expect("skips");
    writer.write(&second).expect("writes");
    assert!(!is_whole(&store, 1), "complete, but not known to be on disk");
    writer.finish().expect("finishes");
    assert!(is_whole(&store, 1));
    assert!(begin(&store, blob(1)).is_none(), "it is there");
    let used = store.stats().expect("counts").cached_bytes;
    let stat = fs::metadata(path(dir.path(), &blob(1))).expect("is there");
    assert_eq!(used, stat.blocks() * 512);
    assert!(used < LEN as u64 + 20_000, "the hole costs nothing");
    drop(store);
    let store = open(dir.path(), 4 * MIB);
    assert!(is_whole(&store, 1));
    assert_eq!(store.stats().expect("counts").cached_bytes, used);
}

#[test]
fn an_unfinished_one_leaves_nothing() {
    let dir = temp();
    let store = open(dir.path(), 4 * MIB);
    let (first, ..) = pieces(1);
    let mut writer = begin(&store, blob(1)).expect("there is room");
    writer.write(&first).expect("writes");
    assert!(path(dir.path(), &blob(1)).exists());
    writer.write(&first).expect_err("longer than the blob");
    drop(writer);
    assert!(!path(dir.path(), &blob(1)).exists());
    let mut short = begin(&store, blob(1)).expect("nobody is writing it any more");
    short.write(&first).expect("writes");
    short.finish().expect_err("shorter than the blob");
    assert!(!path(dir.path(), &blob(1)).exists() && !is_whole(&store, 1));
    assert_eq!(store.stats().expect("counts").cached_bytes, 0);
}

/// A copy was not made, and not tried again before the next open, when the file happened to be opened as it began: whoever only
/// looked was counted among its users.
#[test]
fn looking_for_one_keeps_nobody_from_writing_it() {
    let dir = temp();
    let store = open(dir.path(), 4 * MIB);
    let looking = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while looking.load(std::sync::atomic::Ordering::Relaxed) {
                    assert!(store.blob_file(&blob(1)).unwrap().is_none());
                }
            });
        }
        let begun = (0..2000).filter(|_| begin(&store, blob(1)).is_some()).count();
        looking.store(false, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(begun, 2000);
    });
}

/// The states that a SIGKILL or a power cut can leave between two steps of writing one.
#[test]
fn what_a_crash_leaves_is_removed_at_the_next_opening() {
    let dir = temp();
    let store = open(dir.path(), 4 * MIB);
    for seed in 1..=4 {
        write(&store, seed);
    }
    drop(store);
    let file = |seed| path(dir.path(), &blob(seed));
    let cut = |seed, len| fs::File::options().write(true).open(file(seed)).expect("opens").set_len(len);
    // Recorded, but truncated; recorded, but longer; recorded, but gone.
    cut(1, LEN as u64).expect("cuts");
    cut(2, 10 * LEN as u64).expect("grows");
    fs::remove_file(file(3)).expect("removes");
    // Complete and synced, but killed before it was recorded; and one that had only been begun.
    fs::create_dir_all(file(9).parent().expect("has one")).expect("creates");
    fs::write(file(9), content(9)).expect("writes");
    fs::write(dir.path().join("files/04/begun"), b"").expect("writes");
    let store = open(dir.path(), 4 * MIB);
    for seed in [1, 2, 3, 9] {
        assert!(!is_whole(&store, seed) && !file(seed).exists(), "{seed}");
    }
    assert!(!dir.path().join("files/04/begun").exists());
    assert!(is_whole(&store, 4));
    let used = fs::metadata(file(4)).expect("is there").blocks() * 512;
    assert_eq!(store.stats().expect("counts").cached_bytes, used);
    // And each of them can be written again.
    for seed in [1, 2, 3, 9] {
        write(&store, seed);
        assert!(is_whole(&store, seed));
    }
}

#[test]
fn one_that_is_changed_while_the_store_runs_is_not_opened() {
    let dir = temp();
    let store = open(dir.path(), 4 * MIB);
    write(&store, 1);
    let file = path(dir.path(), &blob(1));
    fs::File::options().write(true).open(&file).expect("opens").set_len(5).expect("cuts");
    assert!(!is_whole(&store, 1) && !file.exists());
    write(&store, 2);
    fs::remove_file(path(dir.path(), &blob(2))).expect("removes");
    assert!(!is_whole(&store, 2));
    assert_eq!(store.stats().expect("counts").cached_bytes, 0);
}

#[test]
fn verifying_finds_and_removes_a_damaged_one() {
    let dir = temp();
    let store = open(dir.path(), 4 * MIB);
    write(&store, 1);
    write(&store, 2);
    let file = fs::File::options().write(true).open(path(dir.path(), &blob(1))).expect("opens");
    file.write_all_at(b"x", 60_000).expect("damages");
    all_sound(&store);
    assert!(!is_whole(&store, 1) && is_whole(&store, 2));
}

#[test]
fn it_is_evicted_by_age_but_not_while_it_is_open() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    for seed in 1..=3 {
        write(&store, seed);
    }
    let held = store.blob_file(&blob(1)).expect("looks").expect("is there");
    // Cached objects and blob files compete for the same bytes, and the older go first.
    for round in 0..20 {
        store.put(&chunks(round * 20..round * 20 + 20, 5000), Keep::Cache).expect("puts");
        assert!(store.stats().expect("counts").cached_bytes <= MIB);
    }
    assert!(path(dir.path(), &blob(1)).exists(), "in use");
    assert!(!path(dir.path(), &blob(2)).exists() && !path(dir.path(), &blob(3)).exists(), "the oldest");
    assert!(contents(&held) == content(1));
    drop(held);
    store.put(&chunks(5000..5300, 5000), Keep::Cache).expect("puts");
    assert!(!path(dir.path(), &blob(1)).exists());
    all_sound(&store);
}

#[test]
fn those_that_are_read_in_turn_do_not_push_each_other_out_all_the_time() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let (mut written, mut found) = (0, 0);
    for _epoch in 0..8 {
        // Twenty files, of which six fit.
        for seed in 1..=20 {
            if is_whole(&store, seed) {
                found += 1;
            } else if let Some(writer) = begin(&store, blob(seed)) {
                fill(writer, seed.into());
                written += 1;
            }
            assert!(store.stats().expect("counts").cached_bytes <= MIB);
        }
    }
    assert!((7..=25).contains(&written), "{written} written");
    assert!(found > 25, "{found} found");
    all_sound(&store);
}

#[test]
fn one_that_is_removed_while_it_is_open_is_read_to_the_end() {
    let dir = temp();
    let store = open(dir.path(), 4 * MIB);
    write(&store, 1);
    let held = store.blob_file(&blob(1)).expect("looks").expect("is there");
    let shared = store.shared();
    assert!(!shared.evict_blob_file(&shared.turn(), None).expect("evicts"), "it is in use");
    fs::remove_file(path(dir.path(), &blob(1))).expect("removes");
    assert!(contents(&held) == content(1));
}

#[test]
fn one_that_would_crowd_out_the_cache_is_not_begun() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    assert!(store.begin_blob_file(blob(1), MIB / 2 + 1).expect("refuses").is_none());
    let mut held: Vec<_> =
        (1..=6).map(|seed| begin(&store, blob(seed)).expect("there is room for six")).collect();
    assert!(begin(&store, blob(7)).is_none(), "nothing can be evicted");
    held.pop();
    assert!(begin(&store, blob(7)).is_some());
}
