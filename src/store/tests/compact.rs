//! Packs that are dropped around what is pinned in them, and pinned records that cannot be moved.

use std::sync::mpsc;
use std::thread;

use super::pins::{BUDGET, crowd, ids, occupied};
use super::*;

/// What is held of a cache of objects of less than a block each, so that no hole frees anything.
fn every_ninth(store: &Store) -> Vec<Checked> {
    let small = chunks(0..900, 300);
    store.put(&small, Keep::Cache).unwrap();
    let held: Vec<Checked> = small.into_iter().step_by(9).collect();
    store.hold(&ids(&held)).unwrap();
    held
}

fn place(store: &Store, object: &Checked) -> Option<Place> {
    store.shared().find(&object.id()).unwrap()
}

fn places(store: &Store, objects: &[Checked]) -> Vec<Option<Place>> {
    objects.iter().map(|object| place(store, object)).collect()
}

/// Packs were not freed of what was dead in them when half of each was held, and then nothing was cached any more.
#[test]
fn a_cache_of_which_every_second_object_is_held_takes_new_ones() {
    for len in [300, 1500, 4096, 9000] {
        let dir = temp();
        let store = open(dir.path(), BUDGET);
        let mut all = Vec::new();
        while store.stats().unwrap().cached_bytes < BUDGET / 20 * 19 - 2 * disk::BLOCK {
            all.push(chunk(all.len() as u32, len));
            store.put(&all[all.len() - 1..], Keep::Cache).unwrap();
        }
        store.commit().unwrap();
        let all: Vec<Checked> = all.into_iter().filter(|object| has(&store, object)).collect();
        let held: Vec<Checked> = all.iter().step_by(2).cloned().collect();
        assert_eq!(store.hold(&ids(&held)).unwrap(), []);

        let count = (all.len() - held.len()) as u32;
        let new = chunks(100_000..100_000 + count, len);
        for (at, object) in new.iter().enumerate() {
            store.put(std::slice::from_ref(object), Keep::Cache).unwrap();
            assert!(has(&store, object), "{len}: number {at} of {count} was not cached");
            if at % 16 == 0 {
                assert!(occupied(dir.path()) <= BUDGET, "{len}: {} bytes", occupied(dir.path()));
            }
        }
        let newest = &new[new.len() / 2..];
        let lost = newest.iter().filter(|object| !has(&store, object)).count();
        assert_eq!(lost, 0, "{len}: of {}", newest.len());
        assert!(held.iter().all(|object| has(&store, object)), "{len}");
        assert!(occupied(dir.path()) <= BUDGET);
        assert_eq!(store.stats().unwrap().bypassed, 0, "{len}");
        all_sound(&store);
    }
}

/// The pinned record was moved from one pack to the next and the next, each as large as the last.
#[test]
fn evicting_ends_when_only_a_little_is_held() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    let held = chunk(1, 100);
    store.put(std::slice::from_ref(&held), Keep::Cache).unwrap();
    store.hold(&[held.id()]).unwrap();
    let (done, ended) = mpsc::channel();
    let evicting = store.clone();
    // Not joined: it would not end, and the test would not fail.
    thread::spawn(move || done.send(evicting.shared().make_room(BUDGET / 64 * 63 - 1000)));
    let room = ended.recv_timeout(Duration::from_secs(20)).expect("the eviction ends").unwrap();
    assert!(!room, "what is held is there still");
    assert!(has(&store, &held));
}

#[test]
fn what_is_held_in_a_pack_that_does_not_list_it_stays() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    let held = every_ninth(&store);
    // A directory can be opened like a file, and not read.
    let unread = place(&store, &held[0]).unwrap();
    let path = packs::path(&dir.path().join("packs"), unread.pack);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    // The header of one record is gone, and with the trailer every word of it.
    let unlisted = held.iter().find_map(|object| place(&store, object).filter(|at| at.pack > unread.pack));
    let unlisted = unlisted.expect("in another pack");
    let path = packs::path(&dir.path().join("packs"), unlisted.pack);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let end = file.metadata().unwrap().len() - 8;
    for (bytes, at) in [(&[1; RECORD_HEADER_LEN][..], unlisted.offset.into()), (&[0; 8], end)] {
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, at).unwrap();
    }
    crowd(&store, dir.path(), 10_000);
    assert!(store.stats().unwrap().evicted > 600);
    let kept = |object: &Checked| place(&store, object).is_some_and(|place| place.is_pinned());
    assert!(held.iter().all(kept), "whoever verifies is to see what is damaged");
    assert_eq!(store.stats().unwrap().bypassed, 0, "other packs are dropped instead");
}

/// It ended the eviction, and with it all caching.
#[test]
fn a_bad_sector_under_what_is_held_keeps_its_pack_and_no_other() {
    let dir = temp();
    let disk = simulated::Simulated::default();
    let store = open_on(dir.path(), BUDGET, Arc::new(disk.clone())).unwrap();
    let held = every_ninth(&store);
    let (bad, damaged) = (place(&store, &held[5]).unwrap(), place(&store, &held[60]).unwrap());
    disk.bad_sector(&packs::path(&dir.path().join("packs"), bad.pack), bad.offset.into());
    spoil(&store, dir.path(), &held[60].id());
    crowd(&store, dir.path(), 10_000);
    assert_eq!(store.stats().unwrap().bypassed, 0);
    assert_eq!(place(&store, &held[5]), Some(bad));
    assert_eq!(place(&store, &held[60]), Some(damaged));
    let mut others = held.iter().enumerate().filter(|(at, _)| ![5, 60].contains(at));
    assert!(others.all(|(_, object)| has(&store, object)));
    assert!(place(&store, &held[6]).unwrap().pack > bad.pack, "its neighbours were moved");
    assert!(store.replace(&held[5]).unwrap() && store.replace(&held[60]).unwrap());
    store.commit().unwrap();
    assert!(held.iter().all(|object| place(&store, object).is_some_and(|place| place.is_pinned())));
    all_sound(&store);
}

#[test]
fn copies_leave_the_headroom_of_the_disk() {
    let dir = temp();
    let store = open(dir.path(), BUDGET);
    let held = every_ninth(&store);
    drop(store);
    let options = Options { cache_max_bytes: BUDGET };
    let full = Tuning { headroom: u64::MAX / 2, ..small() };
    let store = Store::open_tuned(dir.path(), options, full, Arc::new(disk::Real)).unwrap();
    let before = places(&store, &held);
    assert!(!store.shared().make_room(BUDGET / 4 * 3).unwrap());
    assert!(store.stats().unwrap().evicted > 600);
    assert_eq!(places(&store, &held), before);
    drop(store);
    let store = open(dir.path(), BUDGET);
    assert!(store.shared().make_room(BUDGET / 4 * 3).unwrap());
    assert_ne!(places(&store, &held), before);
    assert!(held.iter().all(|object| has(&store, object)));
}
