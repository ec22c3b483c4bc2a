//! Second snapshots: what is not read again, and what is.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::id::ObjectId;
use crate::manifest::BlobNode;
use crate::store::Listing;

/// Waits until what was written last counts as settled, as a publisher's tree does.
pub(super) fn settle(bench: &Bench) {
    let newest = newest_change(bench.dir());
    let deadline = Instant::now() + Duration::from_secs(10);
    while SystemTime::now().duration_since(newest).is_ok_and(|age| age < source::TICK) {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

fn newest_change(dir: &Path) -> SystemTime {
    let meta = fs::metadata(dir).unwrap();
    let mut newest = SystemTime::UNIX_EPOCH + Duration::new(meta.ctime() as u64, meta.ctime_nsec() as u32);
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.path().symlink_metadata().unwrap();
        let changed = SystemTime::UNIX_EPOCH + Duration::new(meta.ctime() as u64, meta.ctime_nsec() as u32);
        newest = newest.max(changed);
        if meta.is_dir() {
            newest = newest.max(newest_change(&entry.path()));
        }
    }
    newest
}

/// A snapshot, and how many bytes of contents were read for it.
fn take(bench: &Bench, options: &Options) -> (Done, u64) {
    let progress = Progress::default();
    let done = snapshot(bench.dir(), &bench.store, options, &progress).unwrap();
    let counts = progress.counts();
    assert_eq!((counts.files_found, counts.bytes_found), (counts.files_done, counts.bytes_done));
    assert_eq!(counts.unchanged, done.unchanged);
    (done, counts.bytes_read)
}

/// `some_tree` has 200 small files, two large ones (one of them with two names), and a symlink.
const FILES: u64 = 202;

#[test]
fn an_unchanged_tree_is_not_read_again() {
    let bench = Bench::new();
    some_tree(&bench);
    xattr::set(bench.dir().join("a/large"), "user.note", b"kept").unwrap();
    settle(&bench);
    let (first, read) = take(&bench, &Options::default());
    assert_eq!((first.unchanged, read), (0, first.totals.bytes));
    let (second, read) = take(&bench, &Options::default());
    assert_eq!((second.unchanged, read), (FILES, 0));
    assert_eq!((second.snapshot, second.totals, second.new_objects), (first.snapshot, first.totals, 0));
    assert_eq!(in_store(&bench.store, second.snapshot), on_disk(bench.dir()));
}

#[test]
fn paranoid_reads_all_and_other_cuts_are_other_chunks() {
    let bench = Bench::new();
    some_tree(&bench);
    settle(&bench);
    let (first, _) = take(&bench, &Options::default());
    let paranoid = Options { paranoid: true, ..Options::default() };
    let (second, read) = take(&bench, &paranoid);
    assert_eq!((second.snapshot, second.unchanged, read), (first.snapshot, 0, first.totals.bytes));
    let fixed = Options { chunking: "fixed:1M".parse().unwrap(), ..Options::default() };
    let (third, read) = take(&bench, &fixed);
    assert_eq!((third.unchanged, read), (0, first.totals.bytes));
    assert_eq!(take(&bench, &fixed).1, 0);
}

/// Size and modification time can be made what they were; the change time cannot.
#[test]
fn a_changed_file_is_read_whatever_its_times_say() {
    let bench = Bench::new();
    some_tree(&bench);
    settle(&bench);
    let (first, _) = take(&bench, &Options::default());
    let path = bench.dir().join("z/file-7");
    let before = fs::metadata(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"other", 0).unwrap();
    file.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!((before.len(), before.mtime_nsec()), (after.len(), after.mtime_nsec()));
    settle(&bench);
    let (second, read) = take(&bench, &Options::default());
    assert_eq!((second.unchanged, read), (FILES - 1, before.len()));
    assert_ne!(second.snapshot, first.snapshot);
    assert_eq!(in_store(&bench.store, second.snapshot), on_disk(bench.dir()));
    assert_eq!(take(&bench, &Options::default()).1, 0);
}

#[test]
fn attributes_owners_and_names_that_change_are_seen() {
    let bench = Bench::new();
    some_tree(&bench);
    settle(&bench);
    take(&bench, &Options::default());
    xattr::set(bench.dir().join("a/file-3"), "user.note", b"new").unwrap();
    fs::set_permissions(bench.dir().join("a/file-4"), Permissions::from_mode(0o600)).unwrap();
    fs::rename(bench.dir().join("a/file-5"), bench.dir().join("a/file-6")).unwrap();
    bench.write("a/file-41", b"new");
    fs::remove_file(bench.dir().join("a/file-39")).unwrap();
    fs::hard_link(bench.dir().join("b/file-1"), bench.dir().join("b/file-1-again")).unwrap();
    settle(&bench);
    // file-3, file-4, file-6, file-41 and b/file-1 are read; two are gone.
    assert_eq!(bench.snapshot_equals_disk().unchanged, FILES - 2 - 4);
}

#[test]
fn large_attributes_are_read_each_time() {
    let bench = Bench::new();
    bench.write("file", b"content");
    xattr::set(bench.dir().join("file"), "user.large", &[7; 2000]).unwrap();
    settle(&bench);
    for _ in 0..2 {
        assert_eq!(bench.snapshot_equals_disk().unchanged, 0);
    }
}

/// The hint is about the file; whether its content is here is asked each time.
#[test]
fn what_the_store_does_not_have_is_read_again() {
    let bench = Bench::new();
    some_tree(&bench);
    settle(&bench);
    let (first, _) = take(&bench, &Options::default());
    // A store that has the listings of the tree and, of its objects, all but one each time.
    let snapshot_of = Snapshot::decode(&load(&bench.store, first.snapshot)).unwrap();
    let all = objects(&bench.store, snapshot_of.tree.into());
    let contents: Vec<ObjectId> = all.iter().copied().filter(|id| id.kind != Kind::Tree).collect();
    let chosen = [Kind::Chunk, Kind::Blob].map(|kind| *contents.iter().rfind(|id| id.kind == kind).unwrap());
    for left_out in chosen {
        let other = Bench { tree: TempDir::new().unwrap(), ..Bench::new() };
        for id in contents.iter().filter(|id| **id != left_out) {
            let object = bench.store.get(id).unwrap().unwrap().verify(id).unwrap();
            other.store.put(&[object], store::Keep::Published).unwrap();
        }
        // Cached only is not good enough.
        let object = bench.store.get(&left_out).unwrap().unwrap().verify(&left_out).unwrap();
        other.store.put(&[object], store::Keep::Cache).unwrap();
        copy_listings(&bench, &other, bench.dir());
        let progress = Progress::default();
        let again = snapshot(bench.dir(), &other.store, &Options::default(), &progress).unwrap();
        assert_eq!(again.snapshot, first.snapshot);
        // The small files of five directories are alike.
        assert!((FILES - 5..FILES).contains(&again.unchanged), "{again:?}");
        assert!(progress.counts().bytes_read > 0);
        assert!(other.store.missing(&[left_out], store::Keep::Published).unwrap().is_empty());
    }
}

fn objects(store: &Store, root: ObjectId) -> Vec<ObjectId> {
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let id = found[at];
        at += 1;
        match id.kind {
            Kind::Tree => {
                for entry in entries(store, crate::id::TreeId::from_bytes(id.hash)) {
                    match entry.node {
                        Node::Dir { tree, .. } => found.push(tree.into()),
                        Node::File { content: Content::Chunk { id, .. }, .. } => found.push(id.into()),
                        Node::File { content: Content::Blob { id, .. }, .. } => found.push(id.into()),
                        _ => {}
                    }
                }
            }
            Kind::Blob => match BlobNode::decode(&load(store, id)).unwrap() {
                BlobNode::Leaf(extents) => {
                    found.extend(extents.iter().filter_map(|extent| Some(ObjectId::from(extent.chunk?))));
                }
                BlobNode::Branch(children) => {
                    found.extend(children.iter().map(|child| ObjectId::from(child.blob)))
                }
            },
            _ => {}
        }
    }
    found
}

fn dir_id(path: &Path) -> (u64, u64) {
    let meta = fs::metadata(path).unwrap();
    (meta.dev(), meta.ino())
}

/// Puts the listings of the tree of `from` into the store of `to`, each row under the last name that it is found by.
fn copy_listings(from: &Bench, to: &Bench, dir: &Path) {
    let tree = dir_id(from.dir());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => copy_listings(from, to, &entry.path()),
            false => names.push(entry.file_name().as_bytes().to_vec()),
        }
    }
    names.sort_unstable();
    for name in names {
        let rows = from.store.listings(tree, dir_id(dir), &name, &name).unwrap();
        for bytes in rows {
            let row = Listing { dir: dir_id(dir), first: name.clone(), last: name.clone(), bytes };
            to.store.keep_listing(tree, row).unwrap();
        }
    }
    to.store.commit().unwrap();
}

/// What was read before the failure is not read again after it.
#[test]
fn an_interrupted_snapshot_goes_on_from_there() {
    let bench = Bench::new();
    for number in 0..32 {
        bench.write(&format!("dir-{number}/file"), &noise(number, 1 << 20));
    }
    settle(&bench);
    let progress = Progress::default();
    let deadline = Instant::now() + Duration::from_secs(60);
    let cut_short = std::thread::scope(|scope| {
        scope.spawn(|| {
            // The directories come in order: when so much is read, the first of them are finished.
            while progress.counts().bytes_done < 12 << 20 && Instant::now() < deadline {
                std::thread::yield_now();
            }
            progress.cancel();
        });
        snapshot(bench.dir(), &bench.store, &Options::default(), &progress)
    });
    // On a machine that is fast enough the cancellation comes too late.
    assert!(matches!(cut_short, Err(IngestError::Cancelled) | Ok(_)));
    let (done, read) = take(&bench, &Options::default());
    assert!(done.unchanged > 0 && read < done.totals.bytes, "{done:?}, {read}");
    assert_eq!(in_store(&bench.store, done.snapshot), on_disk(bench.dir()));
}

#[test]
fn rows_that_are_garbage_are_as_good_as_none() {
    let bench = Bench::new();
    bench.write("dir/a", &noise(1, 300_000));
    bench.write("dir/b", b"small");
    settle(&bench);
    let (first, _) = take(&bench, &Options::default());
    let (tree, dir) = (dir_id(bench.dir()), dir_id(&bench.dir().join("dir")));
    let sound = bench.store.listings(tree, dir, b"a", b"b").unwrap().remove(0);
    let mut rows = vec![Vec::new(), vec![0; 31], vec![0xff; 5000], sound[..sound.len() - 1].to_vec()];
    for at in (0..sound.len()).step_by(7) {
        let mut flipped = sound.clone();
        flipped[at] ^= 0x10;
        rows.push(flipped);
    }
    // Sound by its hash, and still no row: a CBOR array of three that is none of ours.
    let forged = b"\x83\x01\x02\x03".to_vec();
    rows.push([&forged[..], blake3::hash(&forged).as_bytes()].concat());
    for bytes in rows {
        let row = Listing { dir, first: b"a".to_vec(), last: b"b".to_vec(), bytes };
        bench.store.keep_listing(tree, row).unwrap();
        bench.store.commit().unwrap();
        let (again, read) = take(&bench, &Options::default());
        assert_eq!((again.snapshot, again.unchanged, read), (first.snapshot, 0, first.totals.bytes));
    }
    assert_eq!(take(&bench, &Options::default()).1, 0);
}

#[test]
fn a_directory_that_is_gone_has_no_rows() {
    let bench = Bench::new();
    bench.write("here/file", b"x");
    bench.write("gone/file", b"y");
    settle(&bench);
    take(&bench, &Options::default());
    let (tree, here, gone) =
        (dir_id(bench.dir()), dir_id(&bench.dir().join("here")), dir_id(&bench.dir().join("gone")));
    let rows = |dir| bench.store.listings(tree, dir, b"file", b"file").unwrap().len();
    assert_eq!((rows(here), rows(gone)), (1, 1));
    fs::remove_dir_all(bench.dir().join("gone")).unwrap();
    take(&bench, &Options::default());
    assert_eq!((rows(here), rows(gone)), (1, 0));
}

/// A stamp says nothing while a change might leave the same one; and for ever that is a long time.
#[test]
fn only_a_stamp_that_is_final_is_remembered() {
    let bench = Bench::new();
    bench.write("file", b"x");
    let path = bench.dir().join("file");
    let stat = rustix::fs::stat(&path).unwrap();
    let changed = SystemTime::UNIX_EPOCH + Duration::new(stat.st_ctime as u64, stat.st_ctime_nsec as u32);
    let stamp = Stamp::of(&stat);
    assert!(!stamp.is_final(changed) && stamp.is_final(changed + source::TICK));
    assert!(!stamp.is_final(changed - Duration::from_secs(3600)), "the clock of the stamp is ahead");
    let mut whole = stat;
    whole.st_ctime_nsec = 0;
    let whole = Stamp::of(&whole);
    let second = SystemTime::UNIX_EPOCH + Duration::from_secs(stat.st_ctime as u64);
    assert!(!whole.is_final(second + Duration::from_secs(2)), "it may keep whole seconds only");
    assert!(whole.is_final(second + Duration::from_secs(3)));
}
