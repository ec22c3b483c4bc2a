//! An index with single bits flipped.

use super::index::guarded;
use super::*;

const FLIPS: u32 = 150;

/// Of 1,500 indexes with one flipped bit, seven made redb panic at the opening, so that the daemon could not be started
/// until somebody removed the file; one opened, and panicked at the first write. In eight more an object was in the
/// table but not to be found, and a verification took it for evicted.
#[test]
fn whatever_bit_flips_the_store_opens_and_published_objects_are_sound_or_reported() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    let objects = chunks(0..300, 100);
    store.put(&objects, Keep::Published).expect("puts");
    store.put(&chunks(1000..1100, 100), Keep::Cache).expect("puts");
    store.commit().expect("commits");
    let place = |object: &Checked| store.shared().find(&object.id()).expect("looks").expect("is there");
    let places: Vec<(ObjectId, Place)> = objects.iter().map(|object| (object.id(), place(object))).collect();
    drop(store);
    let index = std::fs::read(dir.path().join("index.redb")).expect("reads");
    // The rest of the file is mostly free pages.
    let used: Vec<usize> = (0..index.len()).filter(|at| index[*at] != 0).collect();
    for turn in 0..FLIPS {
        let random = u64::from_le_bytes(noise(turn, 8)[..].try_into().expect("eight bytes"));
        let (at, bit) = (used[(random >> 3) as usize % used.len()], random % 8);
        let mut garbled = index.clone();
        garbled[at] ^= 1 << bit;
        let copy = temp();
        copy_store(dir.path(), copy.path());
        std::fs::write(copy.path().join("index.redb"), garbled).expect("garbles it");

        let store = open(copy.path(), MIB);
        let corrupt = verify(&store);
        let packs = copy.path().join("packs");
        for (id, place) in &places {
            let packed = store.get(id).ok().flatten();
            let sound = packed.is_some_and(|packed| packed.verify(id).is_ok());
            // Where the key of a row is garbled, its record is reported under another id.
            let reported = corrupt.iter().any(|bad| {
                bad.id == *id
                    || (&bad.path, bad.offset) == (&packs::path(&packs, place.pack), place.offset.into())
            });
            assert!(sound || reported, "{id} after bit {bit} of byte {at}: {corrupt:?}");
        }
    }
}

#[test]
fn a_panic_is_damage() {
    let damage = guarded(|| -> index::IndexResult<()> { panic!("as redb does") });
    assert!(index::is_damage(&damage.expect_err("is an error")));
}
