//! What a crash leaves is opened, and everything the store then says it has is right.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::*;

/// A store with committed objects, and one more record in the published pack that was not committed.
/// Returns the copy of its directory, the committed objects, the last one, and where its record begins.
fn with_tail() -> (tempfile::TempDir, Vec<Checked>, Checked, u64) {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let (committed, last) = (chunks(0..5, 300), chunk(9, 40));
    store.put(&committed, Keep::Published).expect("puts");
    store.commit().expect("commits");
    let pack = pack_files(dir.path()).pop().expect("a pack");
    let begin = std::fs::metadata(&pack).expect("is there").len();
    store.put(std::slice::from_ref(&last), Keep::Published).expect("puts");
    let copy = crashed_copy(&store, dir.path());
    (copy, committed, last, begin)
}

fn check(dir: &Path, committed: &[Checked], last: &Checked, whole: bool) {
    let store = open(dir, MIB);
    assert!(committed.iter().all(|object| has(&store, object)));
    assert_eq!(has(&store, last), whole);
    all_sound(&store);
    // It goes on as if nothing had been.
    store.put(std::slice::from_ref(last), Keep::Published).expect("puts");
    store.commit().expect("commits");
    assert!(has(&store, last));
    all_sound(&store);
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off() {
    let (origin, committed, last, begin) = with_tail();
    let end = begin + 56 + 40;
    for len in begin..=end {
        let dir = temp();
        copy_store(origin.path(), dir.path());
        let pack = pack_files(dir.path()).pop().expect("a pack");
        OpenOptions::new().write(true).open(&pack).expect("opens").set_len(len).expect("cuts");
        check(dir.path(), &committed, &last, len == end);
    }
}

#[test]
fn a_tail_garbled_at_any_byte_is_cut_off() {
    let (origin, committed, last, begin) = with_tail();
    for at in begin..begin + 56 + 40 {
        let dir = temp();
        copy_store(origin.path(), dir.path());
        let pack = pack_files(dir.path()).pop().expect("a pack");
        let file = OpenOptions::new().read(true).write(true).open(&pack).expect("opens");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("reads");
        file.write_all_at(&[byte[0] ^ 0x10], at).expect("garbles");
        check(dir.path(), &committed, &last, false);
    }
}

#[test]
fn zeros_behind_the_last_commit_are_cut_off() {
    // A file system may have recorded the new length of a file but not its content.
    let (origin, committed, last, begin) = with_tail();
    let pack = pack_files(origin.path()).pop().expect("a pack");
    let file = OpenOptions::new().write(true).open(&pack).expect("opens");
    file.write_all_at(&[0; 5000], begin).expect("writes");
    check(origin.path(), &committed, &last, false);
}

#[test]
fn copies_at_arbitrary_moments_open_and_are_right() {
    let dir = temp();
    let store = open(dir.path(), MIB / 2);
    for round in 0..25u32 {
        let (published, cached) =
            (chunks(round * 10..round * 10 + 10, 2500), chunks(5000 + round * 30..5030 + round * 30, 1500));
        std::thread::scope(|scope| {
            scope.spawn(|| store.put(&cached, Keep::Cache).expect("puts"));
            scope.spawn(|| store.put(&published, Keep::Published).expect("puts"));
            let copy = crashed_copy(&store, dir.path());
            let reopened = open(copy.path(), MIB / 2);
            all_sound(&reopened);
            for object in chunks(0..round * 10, 2500) {
                assert!(has(&reopened, &object), "round {round}");
            }
        });
        store.commit().expect("commits");
    }
}

#[test]
fn a_pack_begun_after_the_last_commit_is_taken_in() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let objects = chunks(0..60, 2000);
    store.put(&objects[..1], Keep::Published).expect("puts");
    store.commit().expect("commits");
    store.put(&objects[1..], Keep::Published).expect("puts");
    let copy = crashed_copy(&store, dir.path());
    std::fs::write(copy.path().join("packs/00000077.pack"), b"").expect("a pack that was just being created");
    let reopened = open(copy.path(), MIB);
    assert!(objects.iter().all(|object| has(&reopened, object)));
    all_sound(&reopened);
    drop(reopened);
    // Nothing is recovered twice.
    let again = open(copy.path(), MIB);
    assert_eq!(again.stats().expect("counts").published_bytes, 60 * 2056);
    assert!(!copy.path().join("packs/00000077.pack").exists());
}

/// The trailer of a pack that was sealed and not yet synced had reached the disk, and some of its records had not. All of
/// them were taken in, and a wrong one took the place of the good one that was there before.
#[test]
fn a_trailer_does_not_vouch_for_records_that_were_never_synced() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let objects = chunks(0..20, 4000);
    store.put(&objects[..1], Keep::Cache).expect("puts");
    store.commit().expect("commits");
    store.put(&objects, Keep::Published).expect("puts");
    let copy = crashed_copy(&store, dir.path());
    let sealed = &pack_files(copy.path())[1];
    let file = OpenOptions::new().read(true).write(true).open(sealed).expect("opens");
    assert!(packs::read_trailer(&file).expect("reads").is_ok(), "it is sealed");
    file.write_all_at(&[0; 512], 1024).expect("loses a sector of the first record");
    let reopened = open(copy.path(), MIB);
    assert!(objects[..16].iter().all(|object| has(&reopened, object)), "the first in the cache, as before");
    all_sound(&reopened);
}
