//! Damaged records: what is forgotten, what stays, and what takes its place.

use super::*;
use crate::pack::file::FILE_HEADER_LEN;

fn kept(store: &Store, object: &Checked) -> Option<Keep> {
    store.shared().find(&object.id()).expect("looks").map(|place| place.keep())
}

/// One wrong read of a published object dropped it from the index, durably: the only copy was gone, `verify` said
/// that all was well, and a copy that came back from a peer was cached, to be evicted one day.
#[test]
fn a_damaged_published_object_stays_published_until_a_good_copy_takes_its_place() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let objects = chunks(0..3, 600);
    store.put(&objects, Keep::Published).expect("puts");
    store.commit().expect("commits");
    let id = objects[1].id();
    spoil(&store, dir.path(), &id).expect("is there");
    assert!(!store.forget(&id).expect("looks"));
    drop(store);

    let store = open(dir.path(), MIB);
    let corrupt = verify(&store);
    assert_eq!(corrupt.iter().map(|bad| (bad.id, bad.keep)).collect::<Vec<_>>(), [(id, Keep::Published)]);
    assert!(store.replace(&objects[1]).expect("replaces"));
    assert!(!store.replace(&objects[1]).expect("looks"), "what is sound is not replaced");
    assert_eq!(kept(&store, &objects[1]), Some(Keep::Published));
    let crashed = crashed_copy(&store, dir.path());
    store.commit().expect("commits");
    drop(store);
    for dir in [crashed.path(), dir.path()] {
        for lost in [false, true] {
            if lost {
                std::fs::remove_file(dir.join("index.redb")).expect("removes");
            }
            let store = open(dir, MIB);
            assert!(objects.iter().all(|object| has(&store, object)), "index lost: {lost}");
            assert_eq!(kept(&store, &objects[1]), Some(Keep::Published));
            all_sound(&store);
        }
    }
}

#[test]
fn a_damaged_cached_object_is_replaced_in_the_cache() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let object = chunk(1, 600);
    for commit in [false, true] {
        assert!(store.replace(&object).expect("caches") != commit, "it was not here at first");
        if commit {
            store.commit().expect("commits");
        }
        let bad = spoil(&store, dir.path(), &object.id()).expect("is there");
        assert!(store.replace(&object).expect("replaces"));
        assert!(has(&store, &object) && kept(&store, &object) == Some(Keep::Cache));
        assert!(!store.shared().find(&object.id()).expect("looks").expect("is there").is_at(&bad));
    }
    store.commit().expect("commits");
    assert_eq!(store.stats().expect("counts").objects, 1);
    all_sound(&store);
}

/// After a crash an older pack that was never sealed could be appended to while a newer one of its class was sealed.
/// A copy put there in the place of a damaged one lay before it, and a rebuilt index chose the damaged one.
#[test]
fn only_the_newest_pack_of_a_class_goes_on() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    // A pack has 64 KiB: two records, and the third begins the next.
    let objects = chunks(0..5, 25_000);
    store.put(&objects[..2], Keep::Published).expect("puts");
    store.commit().expect("commits");
    store.put(&objects[2..], Keep::Published).expect("puts");
    let crashed = crashed_copy(&store, dir.path());
    drop(store);
    // The seal of the first pack never reached the disk, that of the second did.
    let packs = pack_files(crashed.path());
    let first = std::fs::OpenOptions::new().write(true).open(&packs[0]).expect("opens");
    first.set_len(FILE_HEADER_LEN as u64 + 2 * 25_056).expect("cuts");
    std::fs::remove_file(&packs[2]).expect("removes");
    let store = open(crashed.path(), MIB);
    let bad = spoil(&store, crashed.path(), &objects[3].id()).expect("is there");
    assert!(store.replace(&objects[3]).expect("replaces"));
    let good = store.shared().find(&objects[3].id()).expect("looks").expect("is there");
    assert!(good.pack > bad.pack, "{good:?} {bad:?}");
    drop(store);
    std::fs::remove_file(crashed.path().join("index.redb")).expect("removes");
    assert!(has(&open(crashed.path(), MIB), &objects[3]));
}
