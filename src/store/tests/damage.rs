//! A lost or broken index, broken packs, and directories of other versions.

use std::os::unix::fs::FileExt;

use super::*;
use crate::pack::file::FileHeader;

/// A store of published, cached, moved and evicted objects, several sealed packs of both classes.
fn varied(dir: &Path) -> (Vec<Checked>, Vec<Checked>) {
    let store = open(dir, MIB / 2);
    let (published, cached) = (chunks(0..120, 1500), chunks(1000..1500, 1500));
    store.put(&cached, Keep::Cache).expect("puts");
    store.put(&published, Keep::Published).expect("puts");
    store.put(&cached[490..], Keep::Published).expect("moves");
    let snapshot = Checked::pack(Kind::Snapshot, Bytes::from_static(b"a snapshot"), Compression::Lz4);
    store.put(std::slice::from_ref(&snapshot), Keep::Published).expect("puts");
    let id = SnapshotId::from_bytes(snapshot.id().hash);
    store
        .keep_snapshot(SnapshotRecord { source: "/data".into(), ..SnapshotRecord::recovered(id) })
        .expect("keeps");
    assert!(store.stats().expect("counts").evicted > 0);
    drop(store);
    // With room to spare: the keeper of a store that is nearly full goes on evicting while its objects are counted.
    let store = open(dir, ROOMY);
    let kept = cached[..490].iter().filter(|object| has(&store, object)).cloned().collect();
    (published.into_iter().chain(cached[490..].iter().cloned()).collect(), kept)
}

/// A budget under which nothing of these tests is evicted.
const ROOMY: u64 = 4 * MIB;

fn check_rebuilt(dir: &Path, published: &[Checked], cached: &[Checked], source: &str) {
    let store = open(dir, ROOMY);
    assert!(published.iter().all(|object| has(&store, object)));
    assert!(cached.iter().all(|object| has(&store, object)), "the cache is rebuilt too");
    all_sound(&store);
    let stats = store.stats().expect("counts");
    assert_eq!(stats.objects, (published.len() + cached.len() + 1) as u64, "nothing evicted comes back");
    let sources: Vec<String> = store.snapshots().expect("lists").into_iter().map(|s| s.source).collect();
    assert_eq!(sources, [source]);
    store.put(&chunks(9000..9100, 1500), Keep::Cache).expect("goes on");
    store.put(&chunks(8000..8100, 1500), Keep::Published).expect("goes on");
    drop(store);
    all_sound(&open(dir, ROOMY));
}

#[test]
fn a_lost_index_is_rebuilt() {
    let dir = temp();
    let (published, cached) = varied(dir.path());
    std::fs::remove_file(dir.path().join("index.redb")).expect("removes");
    check_rebuilt(dir.path(), &published, &cached, "recovered from the packs");
}

#[test]
fn an_index_that_is_no_index_is_set_aside_and_rebuilt() {
    let dir = temp();
    let (published, cached) = varied(dir.path());
    let index = dir.path().join("index.redb");
    let whole = std::fs::read(&index).expect("reads");
    let junk = noise(1, whole.len()).to_vec();
    let half = whole[..whole.len() / 2].to_vec();
    let headless = [&vec![0; 4096], &whole[4096..]].concat();
    for (turn, bytes) in [junk, half, headless, b"x".to_vec()].into_iter().enumerate() {
        let copy = temp();
        copy_store(dir.path(), copy.path());
        std::fs::write(copy.path().join("index.redb"), &bytes).expect("breaks it");
        check_rebuilt(copy.path(), &published, &cached, "recovered from the packs");
        let aside = std::fs::read(copy.path().join("index.redb.broken-1")).expect("is set aside");
        assert_eq!(aside, bytes, "{turn}");
    }
}

#[test]
fn an_index_that_names_what_the_packs_lack_is_rebuilt() {
    let dir = temp();
    let (published, _) = varied(dir.path());
    let pack = pack_files(dir.path()).remove(0);
    std::fs::remove_file(&pack).expect("removes a cache pack");
    let store = open(dir.path(), MIB / 2);
    assert!(published.iter().all(|object| has(&store, object)));
    all_sound(&store);
    assert_eq!(store.snapshots().expect("lists")[0].source, "/data", "records are carried over");
    assert!(dir.path().join("index.redb.broken-1").exists());
}

#[test]
fn a_pack_without_its_trailer_is_scanned() {
    let dir = temp();
    let (published, cached) = varied(dir.path());
    std::fs::remove_file(dir.path().join("index.redb")).expect("removes");
    for pack in pack_files(dir.path()) {
        // The footer goes, or the last bytes of a record: of the pack that was not sealed.
        let file = std::fs::OpenOptions::new().write(true).open(&pack).expect("opens");
        let len = file.metadata().expect("is there").len();
        file.write_all_at(&[0; 8], len - 8).expect("breaks it");
    }
    let store = open(dir.path(), MIB / 2);
    let lost = published.iter().chain(&cached).filter(|object| !has(&store, object)).count();
    assert!(lost <= 2, "at most the last record of each pack that was open: {lost}");
    all_sound(&store);
}

#[test]
fn a_damaged_object_is_named_and_replaced() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let objects = chunks(0..10, 500);
    store.put(&objects, Keep::Published).expect("puts");
    store.commit().expect("commits");
    let pack = pack_files(dir.path()).remove(0);
    let file = std::fs::OpenOptions::new().write(true).open(&pack).expect("opens");
    // The body of the third record, and the header of the sixth.
    let record = |n: u64| 32 + n * 556;
    file.write_all_at(b"damage", record(2) + 100).expect("damages");
    file.write_all_at(b"damage", record(5) + 20).expect("damages");
    let mut seen = Vec::new();
    let mut progress = |done, total| {
        seen.push((done, total));
        ControlFlow::Continue(())
    };
    let (corrupt, _) = store.verify_all(&mut progress).expect("verifies");
    assert_eq!(seen.last(), Some(&(10, 10)));
    assert_eq!(corrupt.len(), 1, "a raw body is right whatever stands before it");
    assert_eq!(
        (corrupt[0].id, corrupt[0].keep, corrupt[0].offset),
        (objects[2].id(), Keep::Published, record(2))
    );
    assert_eq!(corrupt[0].path, pack);
    let read = store.get(&objects[2].id()).expect("reads").expect("is there");
    assert!(read.verify(&objects[2].id()).is_err());
    let replaced = objects.iter().filter(|object| store.replace(object).expect("replaces")).count();
    assert_eq!(replaced, 1);
    assert!(objects.iter().all(|object| has(&store, object)));
    all_sound(&store);
}

#[test]
fn a_file_that_is_no_pack_is_set_aside() {
    let dir = temp();
    let (published, cached) = varied(dir.path());
    let stray = dir.path().join("packs/00000500.pack");
    std::fs::write(&stray, noise(5, 10_000)).expect("writes");
    let renamed = dir.path().join("packs/00000501.pack");
    std::fs::copy(&pack_files(dir.path())[0], &renamed).expect("copies");
    check_rebuilt(dir.path(), &published, &cached, "/data");
    assert!(!stray.exists() && !renamed.exists());
    assert!(dir.path().join("packs/00000500.pack.broken-1").exists());
    assert!(dir.path().join("packs/00000501.pack.broken-1").exists());
}

#[test]
fn stores_of_other_versions_are_refused() {
    let dir = temp();
    varied(dir.path());
    let index = Index::open(&disk::Real, &dir.path().join("index.redb")).expect("opens");
    index.write(|tables| tables.set("schema", 2)).expect("writes");
    drop(index);
    let options = Options { cache_max_bytes: MIB };
    let refused = Store::open(dir.path(), options).expect_err("refused");
    assert!(matches!(refused, StoreError::Version { found: 2, supported: 1, .. }));
    assert!(refused.to_string().contains("has store format 2, this bcai reads format 1"), "{refused}");
    assert!(!dir.path().join("index.redb.broken-1").exists());

    // Without the index the packs say it.
    std::fs::remove_file(dir.path().join("index.redb")).expect("removes");
    let pack = pack_files(dir.path()).remove(0);
    let number = packs::number_of(&pack).expect("a number");
    let mut header = FileHeader { keep: Keep::Published, number }.encode();
    header[8] = 2;
    let check = blake3::hash(&header[..24]);
    header[24..].copy_from_slice(&check.as_bytes()[..8]);
    let file = std::fs::OpenOptions::new().write(true).open(&pack).expect("opens");
    file.write_all_at(&header, 0).expect("writes");
    let refused = Store::open(dir.path(), options).expect_err("refused");
    assert!(matches!(refused, StoreError::Version { found: 2, .. }), "{refused}");
}

#[test]
fn a_pack_taken_away_is_damage_to_its_objects() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let objects = chunks(0..60, 2000);
    store.put(&objects, Keep::Published).expect("puts");
    store.commit().expect("commits");
    std::fs::remove_file(&pack_files(dir.path())[0]).expect("removes");
    let corrupt = verify(&store);
    assert!(corrupt.len() > 10 && corrupt.len() < 60, "{}", corrupt.len());
    let replaced = objects.iter().filter(|object| store.replace(object).expect("replaces")).count();
    assert_eq!(replaced, corrupt.len());
    assert!(objects.iter().all(|object| has(&store, object)));
}

/// A disk gave an error for one record, and the verification of all others ended there; what lay behind it was never
/// looked at.
#[test]
fn what_cannot_be_read_is_damage_and_the_rest_is_verified() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let objects = chunks(0..60, 2000);
    store.put(&objects, Keep::Published).expect("puts");
    store.commit().expect("commits");
    // A directory can be opened like a file, and not read.
    let pack = pack_files(dir.path()).remove(0);
    std::fs::remove_file(&pack).expect("removes");
    std::fs::create_dir(&pack).expect("creates");
    let mut looked_at = 0;
    let mut progress = |done, _| {
        looked_at = done;
        ControlFlow::Continue(())
    };
    let (corrupt, _) = store.verify_all(&mut progress).expect("verifies");
    assert_eq!(looked_at, 60);
    assert!(corrupt.len() > 10 && corrupt.len() < 60, "{}", corrupt.len());
    assert!(corrupt.iter().all(|bad| bad.path == pack && bad.cause.contains("cannot read")), "{corrupt:?}");
    let replaced = objects.iter().filter(|object| store.replace(object).expect("replaces")).count();
    assert_eq!(replaced, corrupt.len());
    assert!(objects.iter().all(|object| has(&store, object)));
}

#[test]
fn a_verification_ends_when_it_is_told_to() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    store.put(&chunks(0..10, 500), Keep::Published).expect("puts");
    let mut seen = Vec::new();
    let mut progress = |done, _| {
        seen.push(done);
        if done < 4 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    assert_eq!(store.verify_all(&mut progress).expect("ends").0, []);
    assert_eq!(seen, [1, 2, 3, 4]);
}
