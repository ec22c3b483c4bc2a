//! Snapshots of real directories, compared with a plain reading of the same directory.

mod again;
mod formats;
mod in_place;
mod model;
mod sealed;
mod trouble;

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use self::model::{Body, entries, extents, in_store, load, on_disk};
use super::source::{Dir, Stamp};
use super::*;
use crate::id::Kind;
use crate::manifest::{Content, Name, Node, Snapshot};
use crate::pack::Checked;
use crate::store;

/// A directory to take snapshots of, and a store.
struct Bench {
    tree: TempDir,
    store: Store,
    home: TempDir,
}

impl Bench {
    fn new() -> Self {
        let home = TempDir::new().unwrap();
        let store = Store::open(home.path(), store::Options { cache_max_bytes: 1 << 30 }).unwrap();
        Self { tree: TempDir::new().unwrap(), store, home }
    }

    fn dir(&self) -> &Path {
        self.tree.path()
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.dir().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn snapshot(&self) -> Result<Done, IngestError> {
        snapshot(self.dir(), &self.store, &Options::default(), &Progress::default())
    }

    /// Takes a snapshot and compares it with the directory.
    fn snapshot_equals_disk(&self) -> Done {
        let done = self.snapshot().unwrap();
        let (stored, disk) = (in_store(&self.store, done.snapshot), on_disk(self.dir()));
        for (path, seen) in &disk {
            assert!(stored.get(path) == Some(seen), "{path:?}: {seen:?}, stored {:?}", stored.get(path));
        }
        assert_eq!(stored.len(), disk.len());
        done
    }

    fn root_entry(&self, done: &Done, name: &str) -> Node {
        let snapshot = Snapshot::decode(&load(&self.store, done.snapshot)).unwrap();
        let name = Name::new(name.as_bytes()).unwrap();
        entries(&self.store, snapshot.tree).into_iter().find(|entry| entry.name == name).unwrap().node
    }
}

/// Bytes that look random and never change.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn some_tree(bench: &Bench) {
    for dir in ["", "a/", "b/", "b/deep/er/", "z/"] {
        for number in 0..40 {
            bench.write(&format!("{dir}file-{number}"), &noise(number, 50 * number as usize));
        }
    }
    bench.write("a/large", &noise(1, 5 << 20));
    bench.write("b/larger", &noise(2, 9 << 20));
    fs::create_dir(bench.dir().join("empty")).unwrap();
    symlink("a/large", bench.dir().join("link")).unwrap();
    fs::hard_link(bench.dir().join("b/larger"), bench.dir().join("a/also larger")).unwrap();
}

#[test]
fn an_empty_directory() {
    let bench = Bench::new();
    let done = bench.snapshot_equals_disk();
    assert_eq!(done.totals, Totals::default());
    assert_eq!(done.new_objects, 2);
}

#[test]
fn every_kind_of_name() {
    let bench = Bench::new();
    let long = [b'n'; 255];
    for name in
        [&b"with space"[..], b"new\nline", b"\xff\xfe not utf-8", b"...", b"-rf", &long, "höhe".as_bytes()]
    {
        fs::write(bench.dir().join(OsStr::from_bytes(name)), name).unwrap();
        let dir = [&name[..name.len() - 1], b"D"].concat();
        fs::create_dir(bench.dir().join(OsStr::from_bytes(&dir))).unwrap();
        fs::write(bench.dir().join(OsStr::from_bytes(&dir)).join("inside"), b"x").unwrap();
    }
    assert_eq!(bench.snapshot_equals_disk().totals.inodes, 21);
}

#[test]
fn every_kind_of_metadata() {
    let bench = Bench::new();
    for (number, mode) in [0o644, 0o600, 0o4755, 0o2711, 0o1777, 0o400].into_iter().enumerate() {
        let path = bench.dir().join(format!("mode-{mode:o}"));
        fs::write(&path, b"x").unwrap();
        let dir = bench.dir().join(format!("dir-{mode:o}"));
        fs::create_dir(&dir).unwrap();
        for path in [path, dir] {
            let before_1970 = SystemTime::UNIX_EPOCH - Duration::new(5, 7);
            let at = before_1970 + Duration::new(400_000_000 * number as u64, 123_456_789);
            File::open(&path).unwrap().set_times(FileTimes::new().set_modified(at)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode | 0o500)).unwrap();
            if rustix::process::getuid().is_root() {
                std::os::unix::fs::chown(&path, Some(1000 + number as u32), Some(4_000_000_000)).unwrap();
            }
        }
    }
    for path in ["", "mode-644", "dir-644"] {
        let path = bench.dir().join(path);
        xattr::set(&path, "user.note", b"kept \0 as bytes").unwrap();
        xattr::set(&path, "user.empty", b"").unwrap();
    }
    bench.snapshot_equals_disk();
}

#[test]
fn attributes_of_the_machine_are_not_kept() {
    let bench = Bench::new();
    bench.write("file", b"x");
    let path = bench.dir().join("file");
    xattr::set(&path, "user.kept", b"1").unwrap();
    // Only root may set it; without it the test still says what it can.
    let trusted = xattr::set(&path, "trusted.dropped", b"1").is_ok();
    assert_eq!(xattr::list(&path).unwrap().count(), 1 + usize::from(trusted));
    let done = bench.snapshot_equals_disk();
    let Node::File { meta, .. } = bench.root_entry(&done, "file") else { panic!() };
    assert_eq!(meta.xattrs.len(), 1);
}

#[test]
fn symlinks_are_kept_and_never_followed() {
    let bench = Bench::new();
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), b"not part of the tree").unwrap();
    bench.write("real/file", b"x");
    for (name, target) in [
        ("to-dir", "real"),
        ("dangling", "nowhere/at all"),
        ("loop", "loop"),
        ("up", ".."),
        ("outside", outside.path().to_str().unwrap()),
        ("long", &"t/".repeat(2000)),
    ] {
        symlink(target, bench.dir().join(name)).unwrap();
    }
    let done = bench.snapshot_equals_disk();
    assert_eq!(done.totals.inodes, 8);
    let tree = in_store(&bench.store, done.snapshot);
    assert_eq!(tree[Path::new("to-dir")].body, Body::Symlink(b"real".to_vec()));
}

#[test]
fn a_name_swapped_for_a_symlink_leads_nowhere() {
    let bench = Bench::new();
    symlink("/etc", bench.dir().join("dir")).unwrap();
    symlink("/etc/passwd", bench.dir().join("file")).unwrap();
    let dir = Dir::open_root(bench.dir()).unwrap();
    let opened = dir.open_dir(&Name::new(b"dir").unwrap()).map(drop);
    assert!(matches!(opened, Err(IngestError::Changed { path, .. }) if path.ends_with("dir")));
    let opened = dir.open_file(&Name::new(b"file").unwrap()).map(drop);
    assert!(matches!(opened, Err(IngestError::Changed { path, .. }) if path.ends_with("file")));
}

#[test]
fn hard_links_across_directories() {
    let bench = Bench::new();
    let outside = TempDir::new_in(bench.dir().parent().unwrap()).unwrap();
    bench.write("m/file", &noise(1, 300_000));
    bench.write("z", b"one name in the tree");
    for name in ["a", "m/a", "m/z", "n"] {
        fs::hard_link(bench.dir().join("m/file"), bench.dir().join(name)).unwrap();
    }
    fs::hard_link(bench.dir().join("z"), outside.path().join("not in the tree")).unwrap();
    symlink("target", bench.dir().join("s1")).unwrap();
    fs::hard_link(bench.dir().join("s1"), bench.dir().join("m/s2")).unwrap();
    let done = bench.snapshot_equals_disk();
    // The directory m, the file, the file z, the symlink.
    assert_eq!((done.totals.inodes, done.totals.bytes), (4, 300_020));
    let nlink = |name| match bench.root_entry(&done, name) {
        Node::File { nlink, .. } | Node::Symlink { nlink, .. } => nlink,
        node => panic!("{node:?}"),
    };
    assert_eq!((nlink("a"), nlink("z")), (5, 1));
    assert_eq!(bench.root_entry(&done, "n"), Node::Link { first: 2 });
}

#[test]
fn files_of_every_length_around_the_borders() {
    let bench = Bench::new();
    for len in [0, 1, 16 << 10, (128 << 10) - 1, 128 << 10, (128 << 10) + 1, 200_000, 2 << 20, (2 << 20) + 1]
    {
        bench.write(&format!("random-{len}"), &noise(7, len));
        bench.write(&format!("equal-{len}"), &vec![b'x'; len]);
    }
    let done = bench.snapshot_equals_disk();
    let node = bench.root_entry(&done, "equal-200000");
    // Not a candidate for the short way, but one chunk all the same: the maximum is 256 KiB.
    assert!(matches!(node, Node::File { content: Content::Chunk { hash: None, .. }, .. }), "{node:?}");
}

#[test]
fn holes_are_kept() {
    let bench = Bench::new();
    let file = |name: &str, len: u64| {
        let file = File::create(bench.dir().join(name)).unwrap();
        file.set_len(len).unwrap();
        file
    };
    const MIB: u64 = 1 << 20;
    file("only", 3 * MIB + 5);
    file("little", 10);
    file("start", 4 * MIB).write_all_at(&noise(1, 8192), 4 * MIB - 8192).unwrap();
    file("end", 4 * MIB).write_all_at(&noise(2, 8192), 0).unwrap();
    let middle = file("middle", 16 * MIB);
    middle.write_all_at(&noise(3, MIB as usize), 0).unwrap();
    middle.write_all_at(&noise(4, MIB as usize), 8 * MIB).unwrap();
    let done = bench.snapshot_equals_disk();
    let holes = |name| match bench.root_entry(&done, name) {
        Node::File { content, .. } => {
            let extents = extents(&bench.store, &content).into_iter();
            extents.filter(|(_, data)| data.is_none()).map(|(len, _)| len).collect::<Vec<_>>()
        }
        node => panic!("{node:?}"),
    };
    assert_eq!(holes("only"), [3 * MIB + 5]);
    assert_eq!(holes("little"), [10]);
    assert_eq!(holes("start"), [4 * MIB - 8192]);
    assert_eq!(holes("end"), [4 * MIB - 8192]);
    assert_eq!(holes("middle"), [7 * MIB, 7 * MIB]);
    assert_eq!(done.totals.bytes, 27 * MIB + 15);
}

#[test]
fn the_same_tree_has_the_same_id_whatever_the_threads_do() {
    let bench = Bench::new();
    some_tree(&bench);
    let expected = bench.snapshot_equals_disk();
    for workers in [1, 2, 3, 8] {
        for compression in [Compression::None, Compression::Zstd(1)] {
            let other = Bench::new();
            let options = Options { compression, ..Options::default() };
            let done =
                snapshot_with(bench.dir(), &other.store, &options, &Progress::default(), workers).unwrap();
            assert_eq!((done.snapshot, done.totals), (expected.snapshot, expected.totals));
            assert_eq!(done.new_objects, expected.new_objects);
        }
    }
    let options = Options { chunking: "fixed:1M".parse().unwrap(), ..Options::default() };
    let done = snapshot(bench.dir(), &bench.store, &options, &Progress::default()).unwrap();
    assert_ne!(done.snapshot, expected.snapshot);
    assert_eq!(in_store(&bench.store, done.snapshot), on_disk(bench.dir()));
}

#[test]
fn a_second_snapshot_stores_nothing_and_progress_ends_at_all() {
    let bench = Bench::new();
    some_tree(&bench);
    let progress = Progress::default();
    let first = snapshot(bench.dir(), &bench.store, &Options::default(), &progress).unwrap();
    let counts = progress.counts();
    assert_eq!((counts.files_found, counts.bytes_found), (counts.files_done, counts.bytes_done));
    assert_eq!((counts.bytes_done, counts.stored_bytes), (first.totals.bytes, first.new_bytes));
    let second = bench.snapshot().unwrap();
    assert_eq!((second.snapshot, second.totals), (first.snapshot, first.totals));
    assert_eq!((second.new_objects, second.new_bytes), (0, 0));
    let record = &bench.store.snapshots().unwrap()[0];
    assert_eq!((record.id, record.bytes), (first.snapshot, first.totals.bytes));
}

/// What came from a peer is only cached. A snapshot that relied on it lost it to the next eviction.
#[test]
fn what_is_only_cached_is_published() {
    let bench = Bench::new();
    bench.write("file", &noise(1, 100_000));
    let cached = Checked::pack(Kind::Chunk, noise(1, 100_000).into(), Compression::Lz4);
    bench.store.put(&[cached], store::Keep::Cache).unwrap();
    assert_eq!(bench.snapshot().unwrap().new_objects, 3);
    assert!(bench.store.stats().unwrap().published_bytes > 100_000);
}

#[test]
fn an_edit_stores_little() {
    let bench = Bench::new();
    some_tree(&bench);
    bench.snapshot().unwrap();
    let file = File::options().write(true).open(bench.dir().join("b/larger")).unwrap();
    file.write_all_at(b"edited", 4 << 20).unwrap();
    let done = bench.snapshot_equals_disk();
    // Two directories with the hard link, their parent, a blob node, the snapshot, and the chunks around.
    assert!(done.new_objects <= 9 && done.new_bytes < 600_000, "{done:?}");
}

#[test]
fn a_hundred_thousand_names_in_one_directory() {
    let bench = Bench::new();
    for number in 0..100_000 {
        File::create(bench.dir().join(format!("{number:06}"))).unwrap();
    }
    let done = bench.snapshot().unwrap();
    assert_eq!(done.totals.inodes, 100_000);
    let snapshot = Snapshot::decode(&load(&bench.store, done.snapshot)).unwrap();
    let names = entries(&bench.store, snapshot.tree);
    assert!(
        names
            .iter()
            .zip(0..)
            .all(|(entry, number)| entry.name.as_bytes() == format!("{number:06}").as_bytes())
    );
    File::create(bench.dir().join("050000a")).unwrap();
    let more = bench.snapshot().unwrap();
    assert_eq!(more.totals.inodes, 100_001);
    assert!(more.new_objects <= 8, "{more:?}");
}

#[test]
fn special_files_are_refused_or_skipped() {
    let bench = Bench::new();
    bench.write("sub/file", b"x");
    let fifo = bench.dir().join("sub/fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let refused = bench.snapshot().unwrap_err();
    assert!(matches!(&refused, IngestError::Special { path, kind: "FIFO" } if *path == fifo), "{refused}");
    fs::remove_file(&fifo).unwrap();
    let socket = bench.dir().join("sub/socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let refused = bench.snapshot().unwrap_err();
    assert!(
        matches!(&refused, IngestError::Special { path, kind: "socket" } if *path == socket),
        "{refused}"
    );
    assert_eq!(bench.store.snapshots().unwrap(), []);
    let options = Options { skip_special: true, ..Options::default() };
    let done = snapshot(bench.dir(), &bench.store, &options, &Progress::default()).unwrap();
    assert_eq!((done.skipped, done.totals.inodes), (vec![socket], 2));
}

#[test]
fn a_root_that_is_no_directory() {
    let bench = Bench::new();
    bench.write("file", b"x");
    symlink(bench.dir(), bench.dir().join("link")).unwrap();
    let failure = |name: &str| {
        let path = bench.dir().join(name);
        snapshot(&path, &bench.store, &Options::default(), &Progress::default()).unwrap_err()
    };
    assert!(matches!(failure("missing"), IngestError::Missing { .. }));
    assert!(matches!(failure("file"), IngestError::NotADirectory { .. }));
    assert!(matches!(failure("file/below"), IngestError::NotADirectory { .. }));
    let link = failure("link");
    assert!(matches!(&link, IngestError::RootIsSymlink { target, .. } if target.is_absolute()), "{link}");
}

/// The first reader to fail once left without a word; the walk waited for its job, and the other readers for
/// the walk. Root may read everything, so a thread that is nobody takes the snapshot; those it starts are too.
#[test]
fn an_unreadable_file_is_named() {
    let bench = Bench::new();
    bench.write("sub/secret", b"x");
    let path = bench.dir().join("sub/secret");
    fs::set_permissions(bench.dir(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    let result = std::thread::scope(|scope| {
        let nobody = || {
            if rustix::process::getuid().is_root() {
                let uid = rustix::fs::Uid::from_raw(65_534);
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            }
            bench.snapshot()
        };
        scope.spawn(nobody).join().unwrap()
    });
    let error = result.unwrap_err();
    assert!(matches!(&error, IngestError::Unreadable { path: p, .. } if *p == path), "{error}");
    assert!(error.to_string().contains("Permission denied"), "{error}");
    assert_eq!(bench.store.snapshots().unwrap(), []);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_named() {
    let bench = Bench::new();
    bench.write("quiet", b"x");
    bench.write("sub/busy", &noise(1, 16 << 20));
    let path = bench.dir().join("sub/busy");
    let stop = AtomicBool::new(false);
    let deadline = Instant::now() + Duration::from_secs(60);
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::options().append(true).open(&path).unwrap();
            while !stop.load(Relaxed) {
                file.write_all(b"more").unwrap();
            }
        });
        let mut result = bench.snapshot();
        while result.is_ok() && Instant::now() < deadline {
            result = bench.snapshot();
        }
        stop.store(true, Relaxed);
        result.expect_err("a file that always grows was never seen to change")
    });
    assert!(matches!(&error, IngestError::Changed { path: p, .. } if *p == path), "{error}");
    bench.snapshot_equals_disk();
}

#[test]
fn every_change_of_a_file_shows() {
    let bench = Bench::new();
    bench.write("file", b"content");
    let path = bench.dir().join("file");
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let stamp = || Stamp::of(&rustix::fs::stat(&path).unwrap());
    let age = || File::open(&path).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
    age();
    let before = stamp();
    assert_eq!(before.change(&stamp()), None);
    fs::write(&path, b"CONTENT").unwrap();
    assert_eq!(before.change(&stamp()), Some("its modification time changed"));
    fs::write(&path, b"longer content").unwrap();
    assert_eq!(before.change(&stamp()), Some("its size changed"));
    fs::rename(&path, bench.dir().join("away")).unwrap();
    bench.write("file", b"content");
    age();
    assert_eq!(before.change(&stamp()), Some("another file took its name"));
}

#[test]
fn a_directory_that_changes_after_the_scan_is_named() {
    let bench = Bench::new();
    some_tree(&bench);
    let old = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    for dir in ["", "a", "b", "b/deep", "b/deep/er", "empty", "z"] {
        File::open(bench.dir().join(dir)).unwrap().set_times(old).unwrap();
    }
    let (options, progress) = (Options::default(), Progress::default());
    let run = Run {
        store: &bench.store,
        tree: (0, 0),
        options: &options,
        progress: &progress,
        claims: Claims::default(),
        in_place: None,
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    let root = Dir::open_root(bench.dir()).unwrap();
    for dir in ["", "b/deep/er", "z"] {
        let scan = scan::scan(&run, &root).unwrap();
        scan.unchanged(&run, &root).unwrap();
        let added = bench.dir().join(dir).join("added");
        File::create(&added).unwrap();
        let changed = scan.unchanged(&run, &root).unwrap_err();
        let path = added.parent().unwrap();
        assert!(matches!(&changed, IngestError::Changed { path: p, .. } if p == path), "{changed}");
        fs::remove_file(&added).unwrap();
        File::open(path).unwrap().set_times(old).unwrap();
    }
    let scan = scan::scan(&run, &root).unwrap();
    fs::remove_dir(bench.dir().join("empty")).unwrap();
    assert!(matches!(scan.unchanged(&run, &root), Err(IngestError::Changed { .. })));
}

#[test]
fn a_tree_has_at_most_255_levels() {
    let bench = Bench::new();
    let mut path = bench.dir().to_owned();
    path.extend(std::iter::repeat_n("d", 255));
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("file"), b"x").unwrap();
    assert_eq!(bench.snapshot_equals_disk().totals.inodes, 256);
    fs::create_dir(path.join("d")).unwrap();
    assert!(matches!(bench.snapshot(), Err(IngestError::TooDeep { path: p }) if p == path.join("d")));
}

#[test]
fn a_cancelled_snapshot_leaves_no_trace() {
    let bench = Bench::new();
    some_tree(&bench);
    let progress = Progress::default();
    progress.cancel();
    let result = snapshot(bench.dir(), &bench.store, &Options::default(), &progress);
    assert!(matches!(result, Err(IngestError::Cancelled)));
    assert_eq!(bench.store.snapshots().unwrap(), []);
}

#[test]
fn impossible_chunking_is_refused() {
    let bench = Bench::new();
    let options = Options { chunking: Chunking::Fixed { size: 8 << 20 }, ..Options::default() };
    let result = snapshot(bench.dir(), &bench.store, &options, &Progress::default());
    assert!(matches!(result, Err(IngestError::Chunking(_))));
}
