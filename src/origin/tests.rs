//! Origins in folders: all of a snapshot comes back, nothing goes up twice, and no lie is believed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::upload::Uploaded;
use super::*;
use crate::chunking::Chunking;
use crate::id::Kind;
use crate::ingest;
use crate::pack::Compression;
use crate::store::{Options, Store};
use tokio_util::sync::CancellationToken;

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), Options { cache_max_bytes: 1 << 20 }).unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        Self { dir, store }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("origin")
    }

    fn url(&self) -> OriginUrl {
        format!("file://{}", self.folder().display()).parse().unwrap()
    }

    fn write(&self, name: &str, seed: u64, len: usize) {
        let mut bytes = vec![0; len];
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut bytes);
        fs::write(self.dir.path().join("source").join(name), bytes).unwrap();
    }

    fn snapshot(&self) -> SnapshotId {
        let options = ingest::Options {
            chunking: "cdc:64K".parse::<Chunking>().unwrap(),
            compression: Compression::Lz4,
            skip_special: false,
            in_place: false,
            paranoid: false,
            keys: None,
        };
        let progress = ingest::Progress::default();
        ingest::snapshot(&self.dir.path().join("source"), &self.store, &options, &progress).unwrap().snapshot
    }

    async fn upload(&self, snapshot: SnapshotId, former: &[SnapshotId]) -> Uploaded {
        let stop = CancellationToken::new();
        let upload = Upload::new(self.url(), self.store.clone(), snapshot, former.to_vec(), stop).unwrap();
        upload.run().await.unwrap()
    }

    /// Everything that a snapshot consists of.
    fn objects(&self, snapshot: SnapshotId) -> Vec<ObjectId> {
        let (mut all, mut pending) = (BTreeSet::new(), vec![ObjectId::from(snapshot)]);
        while let Some(id) = pending.pop() {
            all.insert(id);
            let object = self.store.get(&id).unwrap().unwrap().verify(&id).unwrap();
            let below = crate::manifest::children(id.kind, object.plain()).unwrap();
            pending.extend(below.into_iter().map(|(child, _)| child));
        }
        all.into_iter().collect()
    }

    fn reader(&self, snapshot: SnapshotId) -> Arc<Origin> {
        let origin = Origin::open(self.url()).unwrap();
        origin.attend(snapshot);
        origin
    }

    fn packs(&self) -> Vec<PathBuf> {
        let mut packs: Vec<_> =
            fs::read_dir(self.folder().join("packs")).unwrap().map(|entry| entry.unwrap().path()).collect();
        packs.sort();
        packs
    }

    fn catalogue(&self, snapshot: SnapshotId) -> PathBuf {
        self.folder().join(places::catalogue_name(&snapshot))
    }

    /// Fetches everything; returns how many objects came, after checking each. The others failed.
    async fn fetch_all(&self, origin: &Origin, snapshot: SnapshotId) -> (usize, Vec<FetchError>) {
        let ids = self.objects(snapshot);
        let outcomes =
            futures::future::join_all(ids.iter().map(|id| origin.fetch(*id, Class::Prefetch))).await;
        let mut failed = Vec::new();
        for (id, outcome) in ids.iter().zip(outcomes) {
            match outcome {
                Ok(object) => {
                    assert_eq!(object.id(), *id);
                    assert_eq!(ObjectId::of(id.kind, object.plain()), *id);
                }
                Err(error) => failed.push(error),
            }
        }
        (ids.len() - failed.len(), failed)
    }
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_with_few_requests() {
    let bench = Bench::new();
    for file in 0..40 {
        bench.write(&format!("{file:02}"), file, 200_000 + file as usize * 1000);
    }
    bench.write("empty", 0, 0);
    let snapshot = bench.snapshot();
    let done = bench.upload(snapshot, &[]).await;
    let objects = bench.objects(snapshot).len();
    assert_eq!((done.objects as usize, done.packs, done.sent_packs), (objects, 1, 1));
    // Eight megabytes in ranges of four, and the few reads before them: not one for each of the objects. Only what is
    // asked for within two milliseconds is put together, which a busy machine may not manage each time.
    let (mut origin, mut tries) = (bench.reader(snapshot), 0);
    loop {
        let (came, failed) = bench.fetch_all(&origin, snapshot).await;
        assert_eq!(came, objects, "{failed:?}");
        let traffic = origin.traffic();
        if objects > 100 && traffic.requests < 20 {
            break;
        }
        tries += 1;
        assert!(tries < 50, "{objects} objects: {traffic:?}");
        origin = bench.reader(snapshot);
    }

    let stranger = ObjectId::of(Kind::Chunk, b"nobody has that");
    assert!(matches!(origin.fetch(stranger, Class::Fault).await, Err(FetchError::NotFound { .. })));
    // Nobody has told this one where to look.
    let ignorant = Origin::open(bench.url()).unwrap();
    let chunk = *bench.objects(snapshot).iter().find(|id| id.kind == Kind::Chunk).unwrap();
    assert!(matches!(ignorant.fetch(chunk, Class::Fault).await, Err(FetchError::NotFound { .. })));
    // The snapshot itself says where, and from then on all of it is found.
    ignorant.fetch(snapshot.into(), Class::Fault).await.unwrap();
    ignorant.fetch(chunk, Class::Fault).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_twice() {
    let bench = Bench::new();
    for file in 0..10 {
        bench.write(&format!("{file:02}"), file, 300_000);
    }
    let first = bench.snapshot();
    let sent = bench.upload(first, &[]).await;
    assert!(sent.sent_bytes > 3_000_000);
    assert_eq!(bench.upload(first, &[]).await, Uploaded::default());
    bench.write("new", 99, 100_000);
    let second = bench.snapshot();
    let more = bench.upload(second, &[first]).await;
    assert!((100_000..200_000).contains(&more.sent_bytes), "{more:?}");
    for snapshot in [first, second] {
        let (came, failed) = bench.fetch_all(&bench.reader(snapshot), snapshot).await;
        assert_eq!(came, bench.objects(snapshot).len(), "{failed:?}");
    }

    // Killed before the catalogue was written: the packs are there, and are used.
    fs::remove_file(bench.catalogue(second)).unwrap();
    let again = bench.upload(second, &[first]).await;
    assert_eq!((again.packs, again.sent_packs), (1, 0));
    // A pack that was lost, or cut, is made again, though there is a catalogue.
    for damage in
        [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, b"cut").unwrap()]
    {
        bench.packs().iter().for_each(|pack| damage(pack));
        let mended = bench.upload(second, &[first]).await;
        assert!(mended.sent_bytes > 3_000_000, "{mended:?}");
        let (came, failed) = bench.fetch_all(&bench.reader(second), second).await;
        assert_eq!(came, bench.objects(second).len(), "{failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_costs_its_object_and_no_other() {
    let bench = Bench::new();
    for file in 0..20 {
        bench.write(&format!("{file:02}"), file, 100_000);
    }
    let snapshot = bench.snapshot();
    bench.upload(snapshot, &[]).await;
    let pack = bench.packs().remove(0);
    // Not between two records, where it would be seen by nobody.
    flip(&pack, fs::metadata(&pack).unwrap().len() / 3);
    let (came, failed) = bench.fetch_all(&bench.reader(snapshot), snapshot).await;
    assert_eq!(came, bench.objects(snapshot).len() - 1);
    let [FetchError::Corrupt { cause, .. }] = &failed[..] else { panic!("{failed:?}") };
    assert!(cause.contains(pack.file_name().unwrap().to_str().unwrap()), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_and_lying_files_are_refused() {
    let bench = Bench::new();
    for file in 0..20 {
        bench.write(&format!("{file:02}"), file, 100_000);
    }
    let snapshot = bench.snapshot();
    bench.upload(snapshot, &[]).await;
    let (pack, catalogue) = (bench.packs().remove(0), bench.catalogue(snapshot));
    let (pack_bytes, catalogue_bytes) = (fs::read(&pack).unwrap(), fs::read(&catalogue).unwrap());
    let nothing_comes = async |what: &str| {
        let (came, failed) = bench.fetch_all(&bench.reader(snapshot), snapshot).await;
        assert_eq!(came, 0, "{what}");
        assert!(failed.iter().all(|error| matches!(error, FetchError::Corrupt { .. })), "{what}: {failed:?}");
        fs::write(&pack, &pack_bytes).unwrap();
        fs::write(&catalogue, &catalogue_bytes).unwrap();
    };

    fs::write(&pack, &pack_bytes[..pack_bytes.len() / 2]).unwrap();
    nothing_comes("a pack that was cut").await;
    fs::write(&pack, b"").unwrap();
    nothing_comes("an empty pack").await;
    fs::remove_file(&pack).unwrap();
    nothing_comes("a pack that is gone").await;
    flip(&pack, pack_bytes.len() as u64 - 100);
    nothing_comes("a trailer that is damaged").await;
    flip(&catalogue, 40);
    nothing_comes("a catalogue that is damaged").await;
    fs::write(&catalogue, b"<html>please log in</html>").unwrap();
    nothing_comes("a catalogue that is something else").await;
    fs::write(&catalogue, &catalogue_bytes[..catalogue_bytes.len() - 12 * 25]).unwrap();
    let (came, _) = bench.fetch_all(&bench.reader(snapshot), snapshot).await;
    assert!(came < bench.objects(snapshot).len(), "a catalogue without some rows");
    fs::write(&catalogue, &catalogue_bytes).unwrap();

    // A trailer whose checks are right, and which gives every object the place of another.
    use crate::pack::file::{Footer, encode_trailer};
    let footer = Footer::decode(&pack_bytes, pack_bytes.len() as u64).unwrap();
    let start = footer.start() as usize;
    let mut entries = footer.decode_entries(&pack_bytes[start..start + footer.entries_len()]).unwrap();
    let ids: Vec<ObjectId> = entries.iter().map(|entry| entry.header.id).collect();
    let all = entries.len();
    for (at, entry) in entries.iter_mut().enumerate() {
        entry.header.id = ids[(at + 1) % all];
    }
    let lie = [&pack_bytes[..start], &encode_trailer(&mut entries, start as u64)].concat();
    fs::write(&pack, lie).unwrap();
    nothing_comes("a trailer that lies").await;
    // And one whose records lie over one another.
    for (entry, id) in entries.iter_mut().zip(&ids) {
        entry.header.id = *id;
        entry.offset = 32 + entry.offset % 64;
    }
    let lie = [&pack_bytes[..start], &encode_trailer(&mut entries, start as u64)].concat();
    fs::write(&pack, lie).unwrap();
    nothing_comes("a trailer whose records overlap").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_away_may_come_back() {
    let bench = Bench::new();
    bench.write("file", 1, 50_000);
    let snapshot = bench.snapshot();
    let origin = bench.reader(snapshot);
    let error = origin.fetch(snapshot.into(), Class::Fault).await.unwrap_err();
    assert!(matches!(&error, FetchError::Unreachable { cause, .. } if cause.contains("mounted")), "{error}");
    bench.upload(snapshot, &[]).await;
    origin.fetch(snapshot.into(), Class::Fault).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_upload_leaves_no_catalogue_and_goes_on() {
    let bench = Bench::new();
    bench.write("file", 1, 500_000);
    let snapshot = bench.snapshot();
    let stop = CancellationToken::new();
    let upload = Upload::new(bench.url(), bench.store.clone(), snapshot, Vec::new(), stop.clone()).unwrap();
    stop.cancel();
    assert!(matches!(upload.run().await, Err(OriginError::Cancelled { .. })));
    assert!(!bench.catalogue(snapshot).exists());
    assert_eq!(bench.upload(snapshot, &[]).await.packs, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_of_another_format_and_a_damaged_store_are_refused() {
    let bench = Bench::new();
    bench.write("file", 1, 500_000);
    let snapshot = bench.snapshot();
    fs::create_dir(bench.folder()).unwrap();
    fs::write(bench.folder().join("bcai-origin.json"), b"{\"bcai-origin\":2}\n").unwrap();
    let upload =
        |url| Upload::new(url, bench.store.clone(), snapshot, Vec::new(), CancellationToken::new()).unwrap();
    assert!(matches!(upload(bench.url()).run().await, Err(OriginError::Damaged { .. })));
    fs::remove_file(bench.folder().join("bcai-origin.json")).unwrap();

    let web = "http://127.0.0.1:9/x".parse().unwrap();
    assert!(matches!(upload(web).run().await, Err(OriginError::Unusable { .. })));

    let store = fs::read_dir(bench.dir.path().join("store/packs")).unwrap().next().unwrap().unwrap().path();
    flip(&store, fs::metadata(&store).unwrap().len() / 3);
    let error = upload(bench.url()).run().await.unwrap_err();
    assert!(matches!(error, OriginError::Unfit { .. }), "{error}");
    assert!(!bench.catalogue(snapshot).exists());
}
