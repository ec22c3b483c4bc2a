//! Snapshots that leave the content of files where it is.

use std::os::unix::fs::FileExt;

use super::*;

fn in_place(bench: &Bench) -> Result<Done, IngestError> {
    let options = Options { in_place: true, ..Options::default() };
    snapshot(bench.dir(), &bench.store, &options, &Progress::default())
}

#[test]
fn the_snapshot_is_the_same_and_only_small_files_take_space() {
    let bench = Bench::new();
    some_tree(&bench);
    bench.write("small", &noise(900, 10_000));
    bench.write("one chunk", &noise(901, 50_000));
    bench.write("copy", &noise(901, 50_000));
    bench.write("many chunks", &noise(902, 3 << 20));
    let holes = File::create(bench.dir().join("holes")).unwrap();
    for at in [0, 5 << 20] {
        holes.write_all_at(&noise(903 + at, 300_000), at).unwrap();
    }
    drop(holes);
    let done = in_place(&bench).unwrap();
    let stats = bench.store.stats().unwrap();
    assert!(stats.outside_bytes >= 50_000 + (3 << 20) + 600_000, "{stats:?}");
    // Each inode once: large, larger, one chunk, copy, many chunks, holes.
    // In clones, if the directory for temporary files allows it.
    assert_eq!(done.placed.in_place + done.placed.cloned, 6);
    assert!(stats.published_bytes + stats.outside_bytes >= done.totals.bytes / 2);
    let (stored, disk) = (in_store(&bench.store, done.snapshot), on_disk(bench.dir()));
    assert!(stored == disk, "the contents are the same");

    // What is there is found; an ordinary snapshot is the same one, and brings the content into the store.
    let again = in_place(&bench).unwrap();
    assert_eq!((again.snapshot, again.new_objects, again.placed), (done.snapshot, 0, done.placed));
    let ordinary = bench.snapshot().unwrap();
    assert_eq!((ordinary.snapshot, ordinary.placed), (done.snapshot, Placed::default()));
    assert!(ordinary.new_bytes > 3 << 20);
    assert_eq!(bench.store.stats().unwrap().outside_bytes, 0);
    assert_eq!(in_place(&bench).unwrap().placed, Placed::default(), "what is stored is not taken out again");
}

#[test]
fn a_changed_file_is_kept_anew_wherever_its_chunks_are_now() {
    let bench = Bench::new();
    let old = noise(1, 2 << 20);
    bench.write("file", &old);
    let first = in_place(&bench).unwrap();
    // Nearly all chunks stay the same, and all of them move.
    bench.write("file", &[&noise(2, 70_000)[..], &old].concat());
    let second = in_place(&bench).unwrap();
    assert!(second.snapshot != first.snapshot);
    let stored = in_store(&bench.store, second.snapshot);
    assert!(stored == on_disk(bench.dir()));
}

#[test]
fn a_directory_is_found_again_however_it_was_named() {
    let bench = Bench::new();
    bench.write("tree/below/file", &noise(1, 100_000));
    symlink(bench.dir().join("tree"), bench.dir().join("link")).unwrap();
    let named = bench.dir().join("link/below/../below");
    let options = Options { in_place: true, ..Options::default() };
    let done = snapshot(&named, &bench.store, &options, &Progress::default()).unwrap();
    fs::remove_file(bench.dir().join("link")).unwrap();
    let stored = in_store(&bench.store, done.snapshot);
    assert!(stored == on_disk(&bench.dir().join("tree/below")));
}
