//! Objects in files outside of the packs: kept, read, changed under the store, replaced, and lost with the index.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::*;

const LEN: usize = 20_000;

/// A file of noise, which the store does not own, and its chunks of `LEN` bytes.
struct Source {
    _dir: tempfile::TempDir,
    path: PathBuf,
    chunks: Vec<OutsideChunk>,
    bytes: Vec<u8>,
}

impl Source {
    fn new(seeds: std::ops::Range<u32>) -> Self {
        let dir = elsewhere();
        let path = dir.path().join("data");
        let bytes: Vec<u8> = seeds.flat_map(|seed| noise(seed, LEN)).collect();
        let source = Self { _dir: dir, path, chunks: Vec::new(), bytes: Vec::new() };
        source.becomes(&bytes)
    }

    fn becomes(mut self, bytes: &[u8]) -> Self {
        fs::write(&self.path, bytes).expect("writes");
        let cut = bytes.chunks(LEN).enumerate().map(|(at, piece)| OutsideChunk {
            id: crate::id::ChunkId::of(piece),
            offset: (at * LEN) as u64,
            len: piece.len() as u32,
        });
        self.chunks = cut.collect();
        self.bytes = bytes.to_vec();
        self
    }

    fn put(&self, store: &Store) -> PutOutside {
        let file = File::open(&self.path).expect("opens");
        let stat = rustix::fs::fstat(&file).expect("has a state");
        let begun = store.outside_file(self.path.clone(), file.as_fd(), &stat).expect("begins");
        begun.expect("can be in place").put(&self.chunks).expect("puts").expect("held still")
    }

    fn id(&self, at: usize) -> ObjectId {
        self.chunks[at].id.into()
    }

    fn object(&self, at: usize) -> Checked {
        Checked::pack(Kind::Chunk, self.piece(at), Compression::Lz4)
    }

    fn piece(&self, at: usize) -> Bytes {
        Bytes::copy_from_slice(&self.bytes[at * LEN..][..LEN])
    }

    fn all_in(&self, store: &Store) -> bool {
        (0..self.chunks.len()).all(|at| read(store, &self.id(at)) == Some(self.piece(at)))
    }

    /// Writes over the beginning of one chunk, as its owner may.
    fn change(&self, at: usize) {
        let file = File::options().write(true).open(&self.path).expect("opens");
        let changed = || file.metadata().and_then(|meta| meta.modified()).expect("has a time");
        let before = changed();
        // Until the clock of the file system shows it.
        while changed() == before {
            file.write_all_at(b"changed!", (at * LEN) as u64).expect("writes");
        }
    }
}

fn place(store: &Store, id: &ObjectId) -> Place {
    store.shared().find(id).expect("looks").expect("is there")
}

fn refusal(store: &Store, id: &ObjectId) -> String {
    match store.get(id) {
        Err(error @ StoreError::Outside { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_in_place_is_read_and_survives_without_taking_space() {
    let (dir, source) = (temp(), Source::new(0..200));
    let store = open(dir.path(), MIB);
    let put = source.put(&store);
    assert_eq!(put, PutOutside { objects: 200, bytes: 200 * LEN as u64, in_place: 200, cloned: 0 });
    assert!(source.all_in(&store));
    store.commit().expect("commits");
    let stats = store.stats().expect("counts");
    assert_eq!((stats.objects, stats.outside_bytes, stats.published_bytes), (200, 200 * LEN as u64, 0));
    assert_eq!(pack_files(dir.path()), Vec::<PathBuf>::new());
    all_sound(&store);
    drop(store);
    let store = open(dir.path(), MIB);
    assert!(source.all_in(&store));
    assert_eq!(store.stats().expect("counts").outside_bytes, 200 * LEN as u64);

    // Put again, nothing is added, and nothing moves.
    let before = place(&store, &source.id(7));
    assert_eq!(source.put(&store), PutOutside { objects: 0, bytes: 0, ..put });
    store.commit().expect("commits");
    assert_eq!(place(&store, &source.id(7)), before);
}

#[test]
fn what_was_not_committed_is_lost_in_a_crash_and_nothing_else() {
    let (dir, source, other) = (temp(), Source::new(0..20), Source::new(100..120));
    let store = open(dir.path(), MIB);
    source.put(&store);
    store.commit().expect("commits");
    other.put(&store);
    assert_eq!(store.stats().expect("counts").outside_bytes, 40 * LEN as u64);
    let crashed = crashed_copy(&store, dir.path());
    let store = open(crashed.path(), MIB);
    assert!(source.all_in(&store));
    assert!((0..20).all(|at| !store.contains(&other.id(at)).expect("looks")));
    // The numbers of what was lost are free again.
    other.put(&store);
    store.commit().expect("commits");
    assert!(source.all_in(&store) && other.all_in(&store));
}

#[test]
fn a_changed_file_is_named_and_its_good_parts_are_read() {
    let (dir, source) = (temp(), Source::new(0..10));
    let store = open(dir.path(), MIB);
    source.put(&store);
    store.commit().expect("commits");
    source.change(3);
    let refused = refusal(&store, &source.id(3));
    assert!(refused.starts_with(&source.path.display().to_string()), "{refused}");
    assert!(refused.contains("has changed since: publish it again, or restore the file"), "{refused}");
    assert!((0..10).filter(|at| *at != 3).all(|at| read(&store, &source.id(at)) == Some(source.piece(at))));
    assert!(!store.forget(&source.id(3)).expect("looks"), "published");
    let corrupt = verify(&store);
    assert_eq!(corrupt.len(), 1);
    assert_eq!((corrupt[0].id, corrupt[0].keep), (source.id(3), Keep::Published));
    assert_eq!((&corrupt[0].path, corrupt[0].offset), (&source.path, 3 * LEN as u64));
    assert!(corrupt[0].cause.contains("publish it again"), "{}", corrupt[0].cause);
    refusal(&store, &source.id(3));
    assert_eq!(store.changed_outside(), std::slice::from_ref(&source.path));

    // Restored, it is good again, whatever its times say.
    let bytes = source.bytes.clone();
    let source = source.becomes(&bytes);
    assert!(source.all_in(&store));
    assert_eq!(store.changed_outside(), Vec::<PathBuf>::new());
    all_sound(&store);
}

#[test]
fn a_file_that_is_gone_or_something_else_is_named() {
    type Remove = fn(&Path);
    let ways: [(Remove, &str); 5] = [
        (|path| fs::remove_file(path).expect("removes"), "it is gone"),
        (
            |path| File::options().write(true).open(path).expect("opens").set_len(5).expect("cuts"),
            "has changed",
        ),
        (
            |path| {
                fs::rename(path, path.with_extension("old")).expect("renames");
                std::os::unix::fs::symlink(path.with_extension("old"), path).expect("links");
            },
            "something else has its name",
        ),
        (
            |path| {
                fs::remove_file(path).expect("removes");
                let mode = rustix::fs::Mode::RUSR;
                rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
                    .expect("makes");
            },
            "something else has its name",
        ),
        (
            |path| {
                fs::remove_file(path).expect("removes");
                fs::create_dir(path).expect("makes");
            },
            "something else has its name",
        ),
    ];
    for (remove, cause) in ways {
        let (dir, source) = (temp(), Source::new(0..3));
        let store = open(dir.path(), MIB);
        source.put(&store);
        store.commit().expect("commits");
        remove(&source.path);
        let refused = refusal(&store, &source.id(1));
        assert!(refused.contains(cause), "{refused}");
        assert_eq!(verify(&store).len(), 3);
        drop(store);
        // The next start has nothing to do with it.
        let store = open(dir.path(), MIB);
        assert!(refusal(&store, &source.id(1)).contains(cause));
    }
}

#[test]
fn a_good_copy_of_what_was_changed_goes_to_a_pack_and_stays_published() {
    let (dir, source) = (temp(), Source::new(0..3));
    let store = open(dir.path(), MIB);
    source.put(&store);
    store.commit().expect("commits");
    let (good, same) = (source.object(1), source.object(2));
    source.change(1);
    assert!(!store.replace(&same).expect("looks"), "what is sound is not replaced");
    assert!(store.replace(&good).expect("replaces"));
    assert!(has(&store, &good));
    store.commit().expect("commits");
    drop(store);
    let store = open(dir.path(), MIB);
    assert!(has(&store, &good) && has(&store, &same));
    let now = place(&store, &good.id());
    assert!(!now.is_outside() && now.keep() == Keep::Published);
    let stats = store.stats().expect("counts");
    assert_eq!((stats.objects, stats.outside_bytes), (3, 2 * LEN as u64));
    all_sound(&store);
}

/// A chunk that was in the file and still is, but elsewhere, must not be taken for kept.
#[test]
fn what_moves_within_its_file_is_kept_anew() {
    let (dir, source) = (temp(), Source::new(0..5));
    let store = open(dir.path(), MIB);
    source.put(&store);
    store.commit().expect("commits");
    let first = place(&store, &source.id(0)).pack;
    let moved: Vec<u8> = noise(99, LEN).into_iter().chain(source.bytes.clone()).collect();
    let source = source.becomes(&moved);
    assert_eq!(source.put(&store).objects, 6);
    assert!(source.all_in(&store));
    store.commit().expect("commits");
    assert!(source.all_in(&store));
    let before = store.shared().view().expect("looks").outside(first).expect("looks");
    assert_eq!(before, None, "nothing lies in the part of before");
    assert_eq!(store.stats().expect("counts").outside_bytes, 6 * LEN as u64);
    all_sound(&store);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_kept() {
    let (dir, source) = (temp(), Source::new(0..5));
    let store = open(dir.path(), MIB);
    let file = File::open(&source.path).expect("opens");
    let stat = rustix::fs::fstat(&file).expect("has a state");
    let begun = store.outside_file(source.path.clone(), file.as_fd(), &stat).expect("begins");
    // In length, so that no clock is coarse enough not to show it.
    File::options().append(true).open(&source.path).and_then(|file| file.set_len(7)).expect("cuts");
    assert_eq!(begun.expect("can be in place").put(&source.chunks).expect("looks"), None);
    assert!(!store.contains(&source.id(0)).expect("looks"));
    assert_eq!(store.stats().expect("counts").objects, 0);
}

/// Only what is in a pack is as safe as a publish without `--in-place` promises.
#[test]
fn an_ordinary_put_brings_what_is_in_place_into_a_pack() {
    let (dir, source) = (temp(), Source::new(0..3));
    let store = open(dir.path(), MIB);
    source.put(&store);
    store.commit().expect("commits");
    let ids: Vec<ObjectId> = (0..3).map(|at| source.id(at)).collect();
    assert_eq!(store.missing(&ids, Keep::Published).expect("looks"), ids);
    assert_eq!(store.missing(&ids, Keep::Cache).expect("looks"), []);
    assert_eq!(store.put(&[source.object(0)], Keep::Cache).expect("puts").objects, 0);
    assert_eq!(store.put(&[source.object(0)], Keep::Published).expect("puts").objects, 1);
    store.commit().expect("commits");
    assert_eq!(store.missing(&ids, Keep::Published).expect("looks"), ids[1..]);
    fs::remove_file(&source.path).expect("removes");
    assert!(has(&store, &source.object(0)));
    // And what is in a pack stays there.
    let source = Source::new(0..3);
    assert_eq!(source.put(&store).objects, 2);
    assert!(!place(&store, &ids[0]).is_outside());
}

#[test]
fn what_was_cached_is_published_in_place() {
    let (dir, source) = (temp(), Source::new(0..8));
    let store = open(dir.path(), MIB);
    let cached: Vec<Checked> = (0..8).map(|at| source.object(at)).collect();
    store.put(&cached, Keep::Cache).expect("puts");
    assert_eq!(source.put(&store).objects, 8);
    store.commit().expect("commits");
    assert!(source.all_in(&store));
    // Enough to evict everything that is cached.
    store.put(&chunks(1000..1100, LEN), Keep::Cache).expect("puts");
    assert!(source.all_in(&store));
    all_sound(&store);
}

/// What was pinned came to rest on the file of its owner, who may change it.
#[test]
fn what_is_pinned_is_published_in_a_pack_and_not_in_place() {
    let (dir, source) = (temp(), Source::new(0..8));
    let store = open(dir.path(), MIB);
    let cached: Vec<Checked> = (0..6).map(|at| source.object(at)).collect();
    store.put(&cached, Keep::Cache).expect("puts");
    let held: Vec<ObjectId> = (0..5).map(|at| source.id(at)).collect();
    assert_eq!(store.hold(&held).expect("holds"), []);
    // One of them is good only in the file.
    spoil(&store, dir.path(), &held[4]).expect("is there");
    let put = source.put(&store);
    assert_eq!((put.objects, put.in_place), (8, 4));
    store.commit().expect("commits");
    assert!(source.all_in(&store));
    let stats = store.stats().expect("counts");
    assert_eq!((stats.pinned_bytes, stats.outside_bytes), (0, 4 * LEN as u64));
    fs::remove_file(&source.path).expect("removes");
    // Enough to evict everything that is cached.
    store.put(&chunks(1000..1100, LEN), Keep::Cache).expect("puts");
    assert!(cached[..4].iter().all(|object| has(&store, object)));
    assert_eq!(store.missing(&held[..4], Keep::Published).expect("looks"), []);
}

/// Between the look for the object and that for its part, a commit put it elsewhere, and it was said to be damaged.
#[test]
fn what_goes_into_a_pack_while_it_is_read_is_no_damage() {
    let (dir, source) = (temp(), Source::new(0..2));
    let store = open(dir.path(), MIB);
    source.put(&store);
    store.commit().expect("commits");
    let found = [0, 1].map(|at| place(&store, &source.id(at)));
    let objects = [source.object(0), source.object(1)];
    store.put(&objects, Keep::Published).expect("puts");
    store.commit().expect("commits");
    for (object, found) in objects.iter().zip(&found) {
        let read = store.shared().read_outside(&object.id(), found).expect("looks");
        assert!(read.is_none(), "it is to be looked for again: {read:?}");
    }
    assert_eq!(store.changed_outside(), Vec::<PathBuf>::new());
}

/// It was taken for a moment's trouble, and what lies in the file was fetched again at each read, and never mended.
#[test]
fn a_file_that_can_no_longer_be_opened_is_damage() {
    let (dir, mut source) = (temp(), Source::new(0..3));
    let folder = source.path.with_extension("folder");
    fs::create_dir(&folder).expect("makes");
    source.path = folder.join("data");
    let bytes = source.bytes.clone();
    let source = source.becomes(&bytes);
    let store = open(dir.path(), MIB);
    source.put(&store);
    store.commit().expect("commits");
    fs::remove_dir_all(&folder).expect("removes");
    // A name that is too long stands for all errors that stay, because it is one for root too.
    std::os::unix::fs::symlink("x".repeat(300), &folder).expect("links");
    let refused = refusal(&store, &source.id(1));
    assert!(refused.contains("it cannot be read (File name too long"), "{refused}");
    assert!(store.replace(&source.object(1)).expect("replaces"));
    assert!(has(&store, &source.object(1)));
}

#[test]
fn a_lost_index_forgets_what_was_in_place_until_it_is_put_again() {
    let (dir, source) = (temp(), Source::new(0..4));
    let store = open(dir.path(), MIB);
    source.put(&store);
    let packed = chunk(1000, 600);
    store.put(std::slice::from_ref(&packed), Keep::Published).expect("puts");
    drop(store);
    fs::write(dir.path().join("outside/2147483648"), b"as if cloned").expect("writes");
    fs::remove_file(dir.path().join("index.redb")).expect("removes");
    let store = open(dir.path(), MIB);
    assert!(has(&store, &packed));
    assert!((0..4).all(|at| !store.contains(&source.id(at)).expect("looks")));
    assert_eq!(store.stats().expect("counts").outside_bytes, 0);
    let aside = dir.path().join("outside.broken-1/2147483648");
    assert_eq!(fs::read(aside).expect("is put aside"), b"as if cloned");
    assert_eq!(source.put(&store).objects, 4);
    store.commit().expect("commits");
    assert!(source.all_in(&store));
    all_sound(&store);
}

#[test]
fn a_clone_that_nothing_lies_in_is_removed_at_the_next_opening() {
    let (dir, source) = (temp(), Source::new(0..4));
    let store = open(dir.path(), MIB);
    source.put(&store);
    drop(store);
    let stray = dir.path().join("outside/2147483700");
    fs::write(&stray, b"of a crash").expect("writes");
    let store = open(dir.path(), MIB);
    assert!(!stray.exists());
    assert!(source.all_in(&store));
}

/// Offsets in the index have 32 bits; a file may have more.
#[test]
fn chunks_beyond_four_gibibytes_are_found() {
    let (dir, mut source) = (temp(), Source::new(0..2));
    let store = open(dir.path(), MIB);
    let file = File::options().write(true).open(&source.path).expect("opens");
    // The last one lies across the border of two parts.
    for (at, offset) in [(0, 0), (1, (9u64 << 30) + 5)] {
        source.chunks[at].offset = offset;
        file.write_all_at(&source.piece(at), offset).expect("writes");
    }
    let across = noise(77, LEN);
    let offset = (4u64 << 30) - 1000;
    file.write_all_at(&across, offset).expect("writes");
    source.chunks.push(OutsideChunk { id: crate::id::ChunkId::of(&across), offset, len: LEN as u32 });
    assert_eq!(source.put(&store).objects, 3);
    for committed in [false, true] {
        assert!((0..2).all(|at| read(&store, &source.id(at)) == Some(source.piece(at))), "{committed}");
        assert_eq!(read(&store, &source.id(2)), Some(across.clone()));
        store.commit().expect("commits");
    }
    drop(file);
    all_sound(&store);
    assert_eq!(store.stats().expect("counts").packs, 0);
}
