//! A sweep takes away what has no mark, frees what it occupied, and can be stopped anywhere.

use super::*;

const BUDGET: u64 = MIB;

fn marked(store: &Store, objects: &[Checked]) -> Marks {
    let mut marks = store.marks([7; 32]).unwrap();
    objects.iter().for_each(|object| marks.insert(&object.id()));
    marks
}

fn go_on(_: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn occupied(dir: &Path) -> u64 {
    pack_files(dir).iter().map(|path| disk::occupied(&std::fs::metadata(path).unwrap())).sum()
}

/// Published objects that take several packs.
fn published(store: &Store) -> Vec<Checked> {
    let objects = chunks(0..300, 5000);
    store.put(&objects, Keep::Published).unwrap();
    store.commit().unwrap();
    objects
}

#[test]
fn what_has_no_mark_goes_and_its_space_is_freed() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    let objects = published(&store);
    let cached = chunks(1000..1020, 3000);
    store.put(&cached, Keep::Cache).unwrap();
    // A third of all packs, and all of some.
    let (kept, gone): (Vec<_>, Vec<_>) =
        objects.into_iter().enumerate().partition(|(at, _)| at % 3 == 0 && *at < 150);
    let strip = |rows: Vec<(usize, Checked)>| rows.into_iter().map(|(_, object)| object).collect::<Vec<_>>();
    let (kept, gone) = (strip(kept), strip(gone));
    let marks = marked(&store, &kept);
    let counted = store.count_unmarked(&marks, &mut go_on).unwrap();
    assert!(gone.iter().all(|object| has(&store, object)), "it was only counted");
    assert_eq!((counted.objects + counted.kept_objects, counted.kept_objects), (300, 50));
    let before = occupied(dir.path());
    let packs = pack_files(dir.path()).len();
    assert_eq!(store.sweep(&marks, &[], &mut go_on).unwrap(), counted);
    assert!(kept.iter().chain(&cached).all(|object| has(&store, object)));
    assert!(gone.iter().all(|object| !store.contains(&object.id()).unwrap()));
    all_sound(&store);
    let freed = before - occupied(dir.path());
    assert!(freed > counted.bytes / 10 * 8, "{freed} of {}", counted.bytes);
    assert!(pack_files(dir.path()).len() < packs, "packs of which nothing is left are removed");
    assert_eq!(store.stats().unwrap().published_bytes, counted.kept_bytes);
    // Nothing of it comes back with an index that is made anew from the packs, and nothing is wrong with it.
    drop(store);
    std::fs::remove_file(dir.path().join("index.redb")).unwrap();
    let store = open(dir.path(), BUDGET);
    assert!(kept.iter().all(|object| has(&store, object)));
    assert!(gone.iter().all(|object| !store.contains(&object.id()).unwrap()));
    all_sound(&store);
    store.put(&gone, Keep::Published).unwrap();
    assert!(gone.iter().all(|object| has(&store, object)));
}

#[test]
fn a_sweep_that_is_stopped_is_gone_on_with() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    let objects = published(&store);
    let marks = marked(&store, &objects[..30]);
    let mut batches = 0;
    let mut three = |_, _| {
        batches += 1;
        if batches < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    store.sweep(&marks, &[], &mut three).unwrap();
    assert!(objects[..30].iter().all(|object| has(&store, object)));
    let left = store.stats().unwrap().objects;
    assert!((200..290).contains(&left), "{left}: stopped in the middle");
    let copy = crashed_copy(&store, dir.path());
    for dir in [dir.path(), copy.path()] {
        let again = if dir == copy.path() { open(dir, BUDGET) } else { store.clone() };
        again.sweep(&marked(&again, &objects[..30]), &[], &mut go_on).unwrap();
        assert_eq!(again.stats().unwrap().objects, 30);
        assert!(objects[..30].iter().all(|object| has(&again, object)));
        all_sound(&again);
        assert!(occupied(dir) < 400_000, "{}", occupied(dir));
    }
}

#[test]
fn the_record_of_a_snapshot_and_its_object_go_together() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    let objects: Vec<Checked> =
        (0..4).map(|seed| Checked::pack(Kind::Snapshot, noise(seed, 60), Compression::Lz4)).collect();
    store.put(&objects, Keep::Published).unwrap();
    let ids: Vec<SnapshotId> =
        objects.iter().map(|object| SnapshotId::from_bytes(object.id().hash)).collect();
    ids.iter().for_each(|id| store.keep_snapshot(SnapshotRecord::recovered(*id)).unwrap());
    let marks = marked(&store, &objects[..1]);
    store.sweep(&marks, &ids[1..], &mut go_on).unwrap();
    let left: Vec<SnapshotId> = store.snapshots().unwrap().iter().map(|record| record.id).collect();
    assert_eq!(left, ids[..1]);
    assert!(has(&store, &objects[0]) && objects[1..].iter().all(|o| !store.contains(&o.id()).unwrap()));
}

/// The filter is told of few and asked about many: hardly any of them may stay by chance.
#[test]
fn hardly_anything_stays_by_chance() {
    let mut marks = Marks::new(10_000, [1; 32]);
    let id = |seed: u32| ObjectId::of(Kind::Chunk, &seed.to_le_bytes());
    (0..10_000).for_each(|seed| marks.insert(&id(seed)));
    assert!((0..10_000).all(|seed| marks.contains(&id(seed))));
    let by_chance = (10_000..110_000).filter(|seed| marks.contains(&id(*seed))).count();
    assert!(by_chance < 120, "{by_chance} of 100,000");
}
