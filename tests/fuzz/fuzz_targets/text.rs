//! What people and other programs write: names, ids, keys, settings. What is shown of it means the same.

#![no_main]

use bcai_fuzz::chunking::Chunking;
use bcai_fuzz::crypto::PublicKey;
use bcai_fuzz::crypto::vault::Parameters;
use bcai_fuzz::id::{Genesis, SnapshotId};
use bcai_fuzz::log::checkpoint::Checkpoint;
use bcai_fuzz::log::{Label, Name, Role};
use bcai_fuzz::pack::Compression;
use libfuzzer_sys::fuzz_target;

fn same<T: std::str::FromStr + std::fmt::Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(value.to_string().parse::<T>().is_ok_and(|again| again == value), "{value}");
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    same::<Name>(text);
    same::<Label>(text);
    same::<Role>(text);
    same::<Genesis>(text);
    same::<SnapshotId>(text);
    same::<Parameters>(text);
    let _ = text.parse::<PublicKey>().is_ok();
    let _ = (text.parse::<Chunking>().is_ok(), text.parse::<Compression>().is_ok());
    let _ = Checkpoint::parse(text).is_ok();
});
