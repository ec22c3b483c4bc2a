//! Objects as they are stored and sent, and the parts of pack files and bundles.

#![no_main]

use bcai_fuzz::choose;
use bcai_fuzz::id::{Kind, ObjectId};
use bcai_fuzz::pack::bundle::{Contents, Header, Segment};
use bcai_fuzz::pack::file::{FileHeader, Footer, RecordHeader};
use bcai_fuzz::pack::{Checked, Compression, Packed};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

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
        2 => _ = FileHeader::decode(bytes).is_ok(),
        3 => {
            let _ = RecordHeader::decode(bytes).is_ok();
            if let Some(at) = RecordHeader::find(bytes) {
                assert!(at < bytes.len());
            }
        }
        4 => {
            if let Ok(header) = Header::decode(bytes) {
                let behind = bytes.get(bcai_fuzz::pack::bundle::HEADER_LEN..).unwrap_or_default();
                let _ = Contents::decode(&header, behind).is_ok();
            }
        }
        5 => {
            if let Ok(segment) = Segment::decode(bytes) {
                let _ = segment.records(bytes.get(..segment.index_len()).unwrap_or(bytes)).is_ok();
                let _ = segment.blocks(bytes).is_ok();
            }
        }
        _ => {
            if let Ok(footer) = Footer::decode(bytes, bytes.len() as u64) {
                let _ = footer.decode_entries(bytes).is_ok();
            }
        }
    }
});
