//! Tests of the store as a whole. What several of them need is here; the tests are in the submodules.

mod basic;
mod blobs;
mod cache;
mod compact;
mod crash;
mod damage;
mod garbled;
mod gc;
mod listings;
mod mend;
mod model;
mod outside;
mod pins;
mod power;
mod simulated;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::id::{Kind, SnapshotId};
use crate::pack::Compression;
use crate::pack::file::RECORD_HEADER_LEN;

const MIB: u64 = 1 << 20;

/// Small enough that a test of a few hundred objects seals, commits and evicts.
fn small() -> Tuning {
    Tuning {
        pack_len: [64 << 10, 32 << 10],
        batch_bytes: 16 << 10,
        batch_age: Duration::from_secs(3600),
        max_pending_bytes: 128 << 10,
        max_pending: 64,
        uses_per_tick: 1,
        touch_after: 1,
        max_touches: 32,
        sweep_batch: 20,
        headroom: 0,
    }
}

fn open(dir: &Path, cache_max_bytes: u64) -> Store {
    open_on(dir, cache_max_bytes, Arc::new(disk::Real)).expect("the store opens")
}

fn open_on(dir: &Path, cache_max_bytes: u64, disk: Arc<dyn Disk>) -> Result<Store, StoreError> {
    Store::open_tuned(dir, Options { cache_max_bytes }, small(), disk)
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A temporary directory on another file system than the store, so that nothing in it can be cloned.
fn elsewhere() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a temporary directory")
}

/// `len` bytes that do not compress and that differ for each seed.
fn noise(seed: u32, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// A chunk of `len` incompressible bytes.
fn chunk(seed: u32, len: usize) -> Checked {
    Checked::pack(Kind::Chunk, noise(seed, len), Compression::Lz4)
}

fn chunks(seeds: std::ops::Range<u32>, len: usize) -> Vec<Checked> {
    seeds.map(|seed| chunk(seed, len)).collect()
}

/// The plain bytes as the store has them; `None` if it has not.
fn read(store: &Store, id: &ObjectId) -> Option<Bytes> {
    let packed = store.get(id).expect("the store reads")?;
    Some(packed.verify(id).expect("what the store has is right").plain().clone())
}

fn has(store: &Store, object: &Checked) -> bool {
    match read(store, &object.id()) {
        Some(plain) => plain == object.plain(),
        None => false,
    }
}

fn verify(store: &Store) -> Vec<Corrupt> {
    store.verify_all(&mut |_, _| ControlFlow::Continue(())).expect("verifies").0
}

fn all_sound(store: &Store) {
    assert_eq!(verify(store), []);
}

/// Writes something else over what the store has of an object of at least eight bytes; says where.
fn spoil(store: &Store, dir: &Path, id: &ObjectId) -> Option<Place> {
    let place = store.shared().find(id).expect("looks")?;
    let path = packs::path(&dir.join("packs"), place.pack);
    // A cached object may go at any moment.
    let file = std::fs::OpenOptions::new().write(true).open(path).ok()?;
    let at = u64::from(place.offset) + RECORD_HEADER_LEN as u64;
    std::os::unix::fs::FileExt::write_all_at(&file, b"spoiled!", at).expect("writes");
    Some(place)
}

fn pack_files(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir.join("packs"))
        .expect("a store")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| packs::number_of(path).is_some())
        .collect();
    paths.sort();
    paths
}

/// The directory as a crash at this moment would leave it: the index between two transactions, the packs
/// with whatever has been appended.
fn crashed_copy(store: &Store, dir: &Path) -> tempfile::TempDir {
    let turn = store.shared().turn();
    let copy = temp();
    copy_store(dir, copy.path());
    drop(turn);
    copy
}

fn copy_store(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("packs")).expect("creates");
    std::fs::copy(from.join("index.redb"), to.join("index.redb")).expect("copies the index");
    for pack in pack_files(from) {
        let name = pack.file_name().expect("a name");
        std::fs::copy(&pack, to.join("packs").join(name)).expect("copies a pack");
    }
}
