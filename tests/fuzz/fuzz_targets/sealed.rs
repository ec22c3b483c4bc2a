//! What is sealed, and wraps: nothing opens but what was sealed, and whoever has the key can seal no panic.

#![no_main]

use std::sync::LazyLock;

use bcai_fuzz::crypto::SecretKey;
use bcai_fuzz::crypto::dataset::{DatasetKey, Keyring, What};
use bcai_fuzz::crypto::wrap::{Subject, Wrap};
use bcai_fuzz::id::{Genesis, Kind, ObjectId, TreeId};
use bcai_fuzz::pack::sealed;
use bcai_fuzz::{choose, one_spelling};
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<Keyring> = LazyLock::new(|| Keyring::new(DatasetKey::root([5; 32]).at(2).unwrap()));

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = choose(data) else { return };
    let id = ObjectId { kind: Kind::Chunk, hash: [7; 32] };
    match which % 4 {
        0 => assert!(sealed::open(&KEYS, Kind::Chunk, &id, bytes).is_err(), "nobody has sealed this"),
        1 => {
            // A reader who has the key, and means harm.
            for kind in [Kind::Chunk, Kind::Tree] {
                let what = What { kind: kind as u8, bound_to: &[] };
                let sealed = KEYS.seal(1, what, &[bytes]).unwrap();
                assert_eq!(KEYS.open(what, &sealed).unwrap(), bytes);
                let _ = sealed::open(&KEYS, kind, &id, &sealed).is_ok();
            }
        }
        2 => {
            let tree = TreeId::from_bytes([1; 32]);
            assert!(sealed::open_snapshot(&KEYS, &tree, &id, bytes).is_err());
        }
        _ => {
            let Ok(wrap) = Wrap::decode(bytes) else { return };
            one_spelling(bytes, Some(wrap.encode()));
            let subject = Subject { genesis: Genesis::from_bytes([2; 32]), name: "photos" };
            assert!(wrap.open(subject, &SecretKey::from_bytes([3; 32])).is_err());
        }
    }
});
