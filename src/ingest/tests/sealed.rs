//! Snapshots of encrypted datasets: what is on disk of them, who can read them, and what a rotation of the key costs.

use std::collections::BTreeSet;

use super::*;
use crate::crypto::dataset::{DatasetKey, What};
use crate::fetch::Fetcher;
use crate::id::{ChunkId, KeyId};
use crate::manifest::Sealed;
use crate::view::{self, Cache, Contents, Globs, View, ViewError};

fn keys(seed: u8, generation: u32) -> Arc<Keyring> {
    Arc::new(Keyring::new(DatasetKey::root([seed; 32]).at(generation).unwrap()))
}

fn sealed(bench: &Bench, keys: &Arc<Keyring>) -> Done {
    let options = Options { keys: Some(keys.clone()), ..Options::default() };
    snapshot(bench.dir(), &bench.store, &options, &Progress::default()).unwrap()
}

fn open(bench: &Bench, id: SnapshotId, keys: Option<&Arc<Keyring>>) -> Result<Arc<View>, ViewError> {
    let options = view::Options { keys: keys.cloned(), ..view::Options::default() };
    let fetcher = Fetcher::new(bench.store.clone(), None);
    run(View::open(fetcher, Cache::default(), id, options))
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// Every file of the directory, read through the view.
fn assert_reads_as_disk(bench: &Bench, view: &View) {
    let mut files = 0;
    for (path, seen) in on_disk(bench.dir()) {
        let Body::File(content) = seen.body else { continue };
        let inode = run(view.resolve(path.as_os_str().as_bytes())).unwrap();
        assert_eq!(run(view.read(inode.ino, 0, content.len() as u32)).unwrap(), content, "{path:?}");
        let hash = run(view.xattr(inode.ino, b"user.bcai.hash")).unwrap();
        assert_eq!(hash, blake3::hash(&content).to_hex().as_bytes());
        files += 1;
    }
    assert!(files > 0);
}

/// All objects that a view without a key names.
fn inventory(bench: &Bench, id: SnapshotId) -> BTreeSet<ObjectId> {
    let fetcher = Fetcher::new(bench.store.clone(), None);
    let view = run(View::open_stored(fetcher, Cache::default(), id)).unwrap();
    objects(view)
}

fn objects(view: Arc<View>) -> BTreeSet<ObjectId> {
    run(async {
        let mut objects = BTreeSet::new();
        let mut contents = Contents::new(view.clone(), Globs::new(&[]).unwrap(), None);
        while let Some(found) = contents.next().await.unwrap() {
            objects.extend(found.trees);
            for file in found.files {
                let mut parts = file.objects();
                while let Some(part) = parts.next(&view, crate::fetch::Class::Fault).await.unwrap() {
                    objects.extend(part.into_iter().map(|(id, _)| id));
                }
            }
        }
        objects
    })
}

/// Every byte of the store's packs.
fn packs(bench: &Bench) -> Vec<u8> {
    let files = fs::read_dir(bench.home.path().join("packs")).unwrap();
    files.flat_map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn only_those_with_the_key_read_it() {
    let bench = Bench::new();
    some_tree(&bench);
    bench.write("confidential-name", b"a very secret sentence that must not be seen");
    let done = sealed(&bench, &keys(1, 0));
    assert_eq!(sealed(&bench, &keys(1, 0)).snapshot, done.snapshot, "the same tree has the same id");
    assert_reads_as_disk(&bench, &open(&bench, done.snapshot, Some(&keys(1, 0))).unwrap());
    for other in [None, Some(&keys(2, 0))] {
        let refused = open(&bench, done.snapshot, other).err();
        assert!(matches!(refused, Some(ViewError::Sealed { generation: 0, .. })), "{refused:?}");
    }
    let packs = packs(&bench);
    for secret in
        [&b"confidential-name"[..], b"a very secret sentence", b"file-17", &noise(1, 5 << 20)[100..140]]
    {
        assert!(!holds(&packs, secret), "{}", String::from_utf8_lossy(secret));
    }
    // What is looked for would be found.
    bench.snapshot().unwrap();
    let packs = self::packs(&bench);
    assert!(holds(&packs, b"confidential-name") && holds(&packs, b"a very secret sentence"));
}

#[test]
fn who_has_no_key_finds_every_object_and_nothing_else() {
    let bench = Bench::new();
    some_tree(&bench);
    let keys = keys(1, 0);
    let done = sealed(&bench, &keys);
    let told = inventory(&bench, done.snapshot);
    let view = open(&bench, done.snapshot, Some(&keys)).unwrap();
    let read = objects(view);
    assert!(read.iter().all(|id| id.kind == Kind::Chunk), "a sealed node looks like a piece of a file");
    assert!(read.is_subset(&told));
    let chunks: BTreeSet<_> = told.iter().filter(|id| id.kind == Kind::Chunk).copied().collect();
    assert_eq!(chunks, read);
    let stored = Snapshot::decode(&load(&bench.store, done.snapshot)).unwrap();
    // Those that several files share count as often as they are told, at most once a file.
    let lens: u64 = read.iter().map(|id| bench.store.get(id).unwrap().unwrap().plain_len() as u64).sum();
    assert!(stored.totals.inodes == 1 && stored.totals.chunks >= read.len() as u64);
    assert!((lens..2 * lens).contains(&stored.totals.bytes), "{lens}, {:?}", stored.totals);
}

/// A thousand files, of which ten are changed.
#[test]
fn an_edit_adds_what_it_changes() {
    let bench = Bench::new();
    for number in 0..1000 {
        bench.write(&format!("{}/{number}", number % 10), &noise(number, 20_000));
    }
    let keys = keys(1, 0);
    let first = sealed(&bench, &keys);
    for number in (0..1000).step_by(100) {
        bench.write(&format!("{}/{number}", number % 10), &noise(number + 1000, 20_000));
    }
    let second = sealed(&bench, &keys);
    assert!(second.new_bytes < first.new_bytes * 2 / 100, "{} of {}", second.new_bytes, first.new_bytes);
    assert_reads_as_disk(&bench, &open(&bench, second.snapshot, Some(&keys)).unwrap());
}

#[test]
fn a_rotation_sends_nothing_again_that_has_not_changed() {
    let bench = Bench::new();
    some_tree(&bench);
    let (before, after) = (keys(1, 0), keys(1, 1));
    let first = sealed(&bench, &before);
    bench.write("a/file-39", &noise(1000, 50_000));
    // All is read again, so that nothing rests on what is remembered of files.
    let options = Options { keys: Some(after.clone()), paranoid: true, ..Options::default() };
    let second = snapshot(bench.dir(), &bench.store, &options, &Progress::default()).unwrap();
    assert!(second.new_bytes < 50_000 + first.new_bytes / 100, "{} of {}", second.new_bytes, first.new_bytes);
    let view = open(&bench, second.snapshot, Some(&after)).unwrap();
    assert_reads_as_disk(&bench, &view);
    assert!(open(&bench, first.snapshot, Some(&after)).is_ok(), "a key opens what came before it");
    let refused = open(&bench, second.snapshot, Some(&before)).err();
    assert!(matches!(refused, Some(ViewError::Sealed { generation: 1, .. })), "{refused:?}");
    // What is new is closed to the old key, whatever else it may know.
    let changed = run(view.resolve(b"a/file-39")).unwrap();
    let Some(id) = run(view.content(changed.ino)).unwrap().first() else { panic!("it is not empty") };
    let chunk = bench.store.get(&id).unwrap().unwrap().verify(&id).unwrap();
    let piece = What { kind: Kind::Chunk as u8, bound_to: &[] };
    assert!(before.open(piece, chunk.plain()).is_err());
    assert!(after.open(piece, chunk.plain()).is_ok());
}

#[test]
fn what_is_remembered_of_files_is_of_one_key() {
    let bench = Bench::new();
    bench.write("file", &noise(1, 1000));
    again::settle(&bench);
    let (one, other) = (keys(1, 0), keys(2, 0));
    sealed(&bench, &one);
    assert_eq!(sealed(&bench, &one).unchanged, 1);
    assert_eq!(sealed(&bench, &keys(1, 3)).unchanged, 1, "whatever generation");
    let done = sealed(&bench, &other);
    assert_eq!(done.unchanged, 0);
    assert_reads_as_disk(&bench, &open(&bench, done.snapshot, Some(&other)).unwrap());
    assert_eq!(bench.snapshot_equals_disk().unchanged, 0);
}

/// Somebody without the key makes a snapshot out of parts of others.
#[test]
fn snapshots_put_together_from_sealed_parts_are_refused() {
    let bench = Bench::new();
    bench.write("file", b"old");
    let keys = keys(1, 1);
    let old = sealed(&bench, &keys);
    let old = Snapshot::decode(&load(&bench.store, old.snapshot)).unwrap();
    let part = old.sealed.clone().unwrap();
    let forged_from = |shown: &Snapshot, sealed: Sealed| {
        let snapshot = Snapshot { sealed: Some(sealed), ..shown.clone() };
        bench.store.put(&[whole(&snapshot, Compression::None)], Keep::Published).unwrap();
        open(&bench, snapshot.id(), Some(&keys)).err()
    };
    let forged = |sealed: Sealed| forged_from(&old, sealed);
    let mut cut = part.snapshot.to_vec();
    cut.truncate(60);
    let mut bent = part.snapshot.to_vec();
    bent[50] ^= 1;
    // The root directory instead of the snapshot.
    let view = open(&bench, old.id(), Some(&keys)).unwrap();
    let tree = ChunkId::from_bytes(*view.snapshot().tree.as_bytes()).into();
    let tree = bench.store.get(&tree).unwrap().unwrap().verify(&tree).unwrap().plain().to_vec();
    for sealed in [cut, bent, tree, Vec::new()] {
        let refused = forged(Sealed { snapshot: sealed.into(), ..part.clone() });
        assert!(matches!(refused, Some(ViewError::Unfit { .. })), "{refused:?}");
    }
    // What an old version says, with the objects of a new one.
    bench.write("file", b"new");
    let new = sealed(&bench, &keys);
    let new = Snapshot::decode(&load(&bench.store, new.snapshot)).unwrap();
    let refused = forged_from(&new, part.clone());
    assert!(matches!(refused, Some(ViewError::Unfit { .. })), "{refused:?}");
    let refused = forged(Sealed { generation: 0, ..part.clone() });
    assert!(matches!(refused, Some(ViewError::Sealed { .. })), "{refused:?}");
    let refused = forged(Sealed { key: KeyId::from_bytes([0; 32]), ..part });
    assert!(matches!(refused, Some(ViewError::Sealed { .. })), "{refused:?}");
}

#[test]
fn what_cannot_be_sealed_is_refused_before_anything_is_read() {
    let bench = Bench::new();
    let refused = |options: Options| {
        let options = Options { keys: Some(keys(1, 0)), ..options };
        snapshot(bench.dir(), &bench.store, &options, &Progress::default()).unwrap_err()
    };
    for chunking in ["fixed:4M", "cdc:1M", "auto:1M"] {
        let chunking = chunking.parse().unwrap();
        let error = refused(Options { chunking, ..Options::default() });
        assert!(matches!(error, IngestError::TooLongToSeal(_)), "{error}");
    }
    let error = refused(Options { in_place: true, ..Options::default() });
    assert!(matches!(error, IngestError::SealedInPlace), "{error}");
}
