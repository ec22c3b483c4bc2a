//! Objects as they are stored and sent, sealed or not, and the parts of pack files.

#![no_main]

use std::sync::LazyLock;

use bcai_fuzz::crypto::dataset::{DatasetKey, Keyring, What};
use bcai_fuzz::crypto::wrap::Wrap;
use bcai_fuzz::id::{Kind, ObjectId};
use bcai_fuzz::pack::file::{FileHeader, Footer, RecordHeader};
use bcai_fuzz::pack::sealed::{self, Plain};
use bcai_fuzz::pack::{Checked, Compression, Packed};
use bcai_fuzz::{choose, one_spelling};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<Keyring> = LazyLock::new(|| {
    let key = DatasetKey::from_parts(2, [7; 32]).expect("there is such a generation");
    Keyring::new(key)
});

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = choose(data) else { return };
    match which % 7 {
        0 => {
            let Some((head, stored)) = bytes.split_first_chunk::<5>() else { return };
            let plain_len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
            let id = ObjectId { kind: Kind::Chunk, hash: [7; 32] };
            if let Ok(packed) = Packed::from_parts(head[0], plain_len, Bytes::copy_from_slice(stored)) {
                // Whatever it says of its length, it is not what has that hash.
                assert!(packed.verify(&id).is_err());
            }
        }
        1 => {
            for compression in [Compression::None, Compression::Lz4] {
                let checked = Checked::pack(Kind::Tree, Bytes::copy_from_slice(bytes), compression);
                let again = checked.packed().clone().verify(&checked.id()).expect("it is what it is");
                assert_eq!(again.plain(), bytes);
            }
        }
        2 => {
            let _ = FileHeader::decode(bytes).is_ok();
            one_spelling(bytes, Wrap::decode(bytes).ok().map(|wrap| wrap.encode()));
        }
        3 => {
            let _ = RecordHeader::decode(bytes).is_ok();
            if let Some(at) = RecordHeader::find(bytes) {
                assert!(at < bytes.len());
            }
        }
        4 => {
            if let Ok(footer) = Footer::decode(bytes, bytes.len() as u64) {
                let _ = footer.decode_entries(bytes).is_ok();
            }
        }
        5 => {
            let id = ObjectId::of(Kind::Chunk, bytes);
            assert!(sealed::open(&KEYS, Kind::Chunk, &id, bytes).is_err(), "nobody sealed it");
            // Somebody did who has the key.
            let what = What { kind: Kind::Chunk as u8, bound_to: &[] };
            let message = KEYS.seal(1, what, &[bytes]).expect("there is such a generation");
            let _ = sealed::open(&KEYS, Kind::Chunk, &id, &message).is_ok();
        }
        _ => {
            let plain = Bytes::copy_from_slice(bytes);
            let object = Plain::new(Kind::Tree, &plain, Compression::Lz4).expect("not too long");
            let sealed = object.seal(&KEYS, 2).expect("there is such a generation");
            let id = ObjectId::of(Kind::Chunk, &sealed);
            assert_eq!(sealed::open(&KEYS, Kind::Tree, &id, &sealed).expect("it is what it is"), plain);
            assert!(sealed::open(&KEYS, Kind::Blob, &id, &sealed).is_err());
        }
    }
});
