//! Pins: what is held stays, what is released goes, and neither a crash nor damage mixes the two up.

use super::*;

pub(super) const BUDGET: u64 = 512 << 10;

pub(super) fn ids(objects: &[Checked]) -> Vec<ObjectId> {
    objects.iter().map(Checked::id).collect()
}

fn pin(seed: u8, paths: &[&str]) -> PinRecord {
    PinRecord {
        snapshot: SnapshotId::from_bytes([seed; 32]),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        reference: "photos@v1".into(),
        whole: true,
        bytes: 1,
        files: 1,
        pinned_unix_ms: 1,
        replica_of: None,
    }
}

/// Puts twice the budget of other objects through the cache, and watches what it occupies.
pub(super) fn crowd(store: &Store, dir: &Path, seed: u32) {
    for object in chunks(seed..seed + 256, 4096) {
        store.put(std::slice::from_ref(&object), Keep::Cache).unwrap();
        if object.plain()[0] < 16 {
            assert!(occupied(dir) <= BUDGET, "{} bytes", occupied(dir));
        }
    }
}

pub(super) fn occupied(dir: &Path) -> u64 {
    let keeps = |path: &PathBuf| std::fs::read(path).is_ok_and(|bytes| bytes.get(12) == Some(&1));
    let packs = pack_files(dir).into_iter().filter(keeps);
    packs.filter_map(|path| std::fs::metadata(path).ok()).map(|stat| disk::occupied(&stat)).sum()
}

fn all_here(store: &Store, objects: &[Checked]) -> bool {
    store.missing(&ids(objects), Keep::Cache).unwrap().is_empty()
}

#[test]
fn what_is_held_is_not_evicted_and_counts_in_the_budget() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    let held = chunks(0..40, 4096);
    store.put(&held, Keep::Cache).unwrap();
    let absent = chunk(1000, 10).id();
    assert_eq!(store.hold(&[ids(&held), vec![absent]].concat()).unwrap(), [absent]);
    crowd(&store, dir.path(), 10_000);
    assert!(held.iter().all(|object| has(&store, object)));
    let stats = store.stats().unwrap();
    assert_eq!(stats.pinned_bytes, 40 * (4096 + RECORD_HEADER_LEN as u64));
    assert!(stats.evicted > 100 && stats.evicted_bytes > 100 * 4096 && stats.bypassed == 0, "{stats:?}");
    all_sound(&store);
}

/// An id that was listed twice was counted twice, and the count never came down again.
#[test]
fn what_is_held_twice_in_one_call_is_counted_once() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    let (here, absent) = (chunk(1, 4096), chunk(2, 10).id());
    store.put(std::slice::from_ref(&here), Keep::Cache).unwrap();
    assert_eq!(store.hold(&[here.id(), absent, here.id(), absent]).unwrap(), [absent]);
    assert_eq!(store.stats().unwrap().pinned_bytes, 4096 + RECORD_HEADER_LEN as u64);
    store.set_pin(&pin(1, &[])).unwrap();
    store.remove_pin(&pin(1, &[])).unwrap();
    while store.release_stale().unwrap() {}
    assert_eq!(store.stats().unwrap().pinned_bytes, 0);
}

#[test]
fn pins_may_not_hold_more_than_their_share() {
    let dir = temp();
    // Few packs, whose overhead leaves room for more than the share.
    let tuning = Tuning { pack_len: [64 << 10, 512 << 10], ..small() };
    let store =
        Store::open_tuned(dir.path(), Options { cache_max_bytes: BUDGET }, tuning, Arc::new(disk::Real))
            .unwrap();
    let objects = chunks(0..110, 4096);
    store.put(&objects, Keep::Cache).unwrap();
    let error = store.hold(&ids(&objects)).unwrap_err();
    assert!(matches!(error, StoreError::PinsFull { max, .. } if max == BUDGET / 5 * 4), "{error}");
    assert_eq!(store.stats().unwrap().pinned_bytes, 0, "nothing was done");
    assert!(store.hold(&ids(&objects[..50])).unwrap().is_empty());
}

#[test]
fn releasing_one_pin_leaves_what_another_holds() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    let objects = chunks(0..60, 4096);
    let (first, second) = (&objects[..40], &objects[20..]);
    store.put(&objects, Keep::Cache).unwrap();
    for (seed, part) in [(1, first), (2, second)] {
        store.hold(&ids(part)).unwrap();
        store.set_pin(&pin(seed, &[])).unwrap();
    }
    assert!(store.remove_pin(&pin(1, &[])).unwrap());
    assert!(!store.remove_pin(&pin(1, &[])).unwrap());
    assert!(store.has_stale_marks().unwrap());
    // A crash here leaves too much held, and known to be.
    let crashed = crashed_copy(&store, dir.path());
    let reopened = open(crashed.path(), BUDGET);
    crowd(&reopened, crashed.path(), 20_000);
    assert!(reopened.has_stale_marks().unwrap() && all_here(&reopened, &objects));

    store.hold(&ids(second)).unwrap();
    while store.release_stale().unwrap() {}
    assert!(!store.has_stale_marks().unwrap());
    assert_eq!(store.stats().unwrap().pinned_bytes, 40 * (4096 + RECORD_HEADER_LEN as u64));
    assert!(all_here(&store, first), "released is not evicted");
    crowd(&store, dir.path(), 10_000);
    assert!(all_here(&store, second));
    assert_eq!(store.missing(&ids(&objects[..20]), Keep::Cache).unwrap().len(), 20);
}

#[test]
fn publishing_takes_over_what_is_held_and_published_objects_need_no_pin() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    let (cached, published) = (chunk(1, 4096), chunk(2, 4096));
    store.put(std::slice::from_ref(&cached), Keep::Cache).unwrap();
    store.put(std::slice::from_ref(&published), Keep::Published).unwrap();
    store.hold(&[cached.id(), published.id()]).unwrap();
    assert_eq!(store.stats().unwrap().pinned_bytes, 4096 + RECORD_HEADER_LEN as u64);
    store.put(std::slice::from_ref(&cached), Keep::Published).unwrap();
    store.commit().unwrap();
    assert_eq!(store.stats().unwrap().pinned_bytes, 0);
    store.set_pin(&pin(1, &[])).unwrap();
    store.remove_pin(&pin(1, &[])).unwrap();
    while store.release_stale().unwrap() {}
    assert_eq!(store.missing(&[cached.id(), published.id()], Keep::Published).unwrap(), []);
}

#[test]
fn pins_survive_a_crash_and_a_lost_index_makes_them_begun() {
    let dir = temp();
    let held = chunks(0..20, 4096);
    {
        let store = open(dir.path(), BUDGET);
        store.put(&held, Keep::Cache).unwrap();
        store.hold(&ids(&held)).unwrap();
        store.set_pin(&pin(1, &["a/**", "b"])).unwrap();
        store.set_pin(&pin(1, &[])).unwrap();
        store.set_pin(&PinRecord { whole: false, ..pin(1, &[]) }).unwrap();
        let crashed = crashed_copy(&store, dir.path());
        let reopened = open(crashed.path(), BUDGET);
        let mut pins = reopened.pins().unwrap();
        pins.sort_by_key(|pin| pin.paths.len());
        assert_eq!(pins, [PinRecord { whole: false, ..pin(1, &[]) }, pin(1, &["a/**", "b"])]);
        crowd(&reopened, crashed.path(), 10_000);
        assert!(all_here(&reopened, &held));
    }
    // A pack that is missing makes the index be built again.
    std::fs::remove_file(&pack_files(dir.path())[0]).unwrap();
    let store = open(dir.path(), BUDGET);
    let pins = store.pins().unwrap();
    assert!(pins.len() == 2 && pins.iter().all(|pin| !pin.whole), "{pins:?}");
    assert_eq!(store.stats().unwrap().pinned_bytes, 0);
}

#[test]
fn a_damaged_object_that_is_held_is_replaced_and_held_still() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    let held = chunk(1, 4096);
    store.put(std::slice::from_ref(&held), Keep::Cache).unwrap();
    store.hold(&[held.id()]).unwrap();
    spoil(&store, dir.path(), &held.id());
    assert!(!store.forget(&held.id()).unwrap(), "it is missed by whoever holds it");
    assert!(store.replace(&held).unwrap());
    store.commit().unwrap();
    assert_eq!(store.stats().unwrap().pinned_bytes, 4096 + RECORD_HEADER_LEN as u64);
    crowd(&store, dir.path(), 10_000);
    assert!(has(&store, &held));
}

/// It was held while somebody who had found it damaged waited for the turn to drop it.
#[test]
fn a_damaged_object_that_was_held_meanwhile_is_not_forgotten() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    let objects = chunks(0..2, 4096);
    store.put(&objects, Keep::Cache).unwrap();
    store.commit().unwrap();
    let bad: Vec<Place> =
        objects.iter().map(|object| spoil(&store, dir.path(), &object.id()).unwrap()).collect();
    store.hold(&[objects[0].id()]).unwrap();
    let shared = store.shared();
    for (object, bad, forgotten) in [(&objects[0], &bad[0], false), (&objects[1], &bad[1], true)] {
        let freed = shared.change_index(&shared.turn(), |tables| tables.forget(&object.id(), bad));
        assert_eq!(freed.unwrap().is_some(), forgotten);
        assert_eq!(store.contains(&object.id()).unwrap(), !forgotten);
    }
}

#[test]
fn a_pack_with_a_few_held_objects_is_freed_of_the_rest() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    // Less than a block each, so that no hole frees anything.
    let small = chunks(0..900, 300);
    store.put(&small, Keep::Cache).unwrap();
    let held: Vec<Checked> = small.iter().step_by(9).cloned().collect();
    store.hold(&ids(&held)).unwrap();
    crowd(&store, dir.path(), 10_000);
    assert!(held.iter().all(|object| has(&store, object)));
    let stats = store.stats().unwrap();
    assert_eq!(stats.pinned_bytes, 100 * (300 + RECORD_HEADER_LEN as u64));
    assert_eq!(stats.bypassed, 0, "what is pinned does not keep the whole pack");
    all_sound(&store);
    drop(store);
    let store = open(dir.path(), BUDGET);
    assert!(held.iter().all(|object| has(&store, object)));
}

#[test]
fn evicting_by_name_leaves_what_is_published_or_held() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    let objects = chunks(0..30, 4096);
    store.put(&objects[..20], Keep::Cache).unwrap();
    store.put(&objects[20..], Keep::Published).unwrap();
    store.hold(&ids(&objects[10..20])).unwrap();
    let evicted = store.evict(&ids(&objects)).unwrap();
    assert_eq!(evicted, 10 * (4096 + RECORD_HEADER_LEN as u64));
    assert_eq!(store.missing(&ids(&objects), Keep::Cache).unwrap(), ids(&objects[..10]));
    assert_eq!(store.evict(&ids(&objects)).unwrap(), 0);
    all_sound(&store);
}

#[test]
fn there_are_few_pins() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    for number in 0..1024 {
        store.set_pin(&pin(1, &[&format!("{number}")])).unwrap();
    }
    let error = store.set_pin(&pin(1, &["one more"])).unwrap_err();
    assert!(matches!(error, StoreError::TooManyPins { max: 1024, .. }), "{error}");
    store.set_pin(&pin(1, &["7"])).unwrap();
}
