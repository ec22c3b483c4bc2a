//! How fast objects go into the store and come out, beside a plain file.
//!
//! Owns: the cases. Must not know: how the store keeps objects.
//! Invariant: both sides write and read as many bytes, in pieces of 64 KiB, on the same file system (`target/`).
//! Trust: none needed. Threads: one, and the store's own.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

mod common;

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;

use bcai::id::Kind;
use bcai::pack::{Checked, Compression};
use bcai::store::{Keep, Options, Store};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;

const LEN: usize = 64 << 10;
/// Objects of one put: 4 MiB.
const BATCH: usize = 64;

/// A folder on a disk: `/tmp` may be memory.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn open(dir: &TempDir) -> Store {
    Store::open(&dir.path().join("store"), Options { cache_max_bytes: 4 << 30 }).unwrap()
}

/// Objects that no earlier call returned.
struct Fresh(u64);

impl Fresh {
    fn batch(&mut self) -> Vec<Checked> {
        let object = |_| {
            self.0 += 1;
            Checked::pack(Kind::Chunk, common::noise(self.0, LEN).into(), Compression::None)
        };
        (0..BATCH).map(object).collect()
    }
}

fn put(c: &mut Criterion) {
    let dir = folder();
    let store = open(&dir);
    let mut fresh = Fresh(0);
    let mut group = c.benchmark_group("put 64 objects of 64 KiB");
    group.throughput(Throughput::Bytes((BATCH * LEN) as u64));
    let mut plain = File::create(dir.path().join("plain")).unwrap();
    group.bench_function("a file, write and fdatasync", |b| {
        let write = |objects: Vec<Checked>| {
            for object in &objects {
                plain.write_all(object.plain()).unwrap();
            }
            plain.sync_data().unwrap();
        };
        b.iter_batched(|| fresh.batch(), write, BatchSize::PerIteration);
    });
    group.bench_function("published, put and commit", |b| {
        let put = |objects: Vec<Checked>| {
            assert_eq!(store.put(&objects, Keep::Published).unwrap().objects, BATCH as u64);
            store.commit().unwrap();
        };
        b.iter_batched(|| fresh.batch(), put, BatchSize::PerIteration);
    });
    group.bench_function("a file, write", |b| {
        let write = |objects: Vec<Checked>| {
            for object in &objects {
                plain.write_all(object.plain()).unwrap();
            }
        };
        b.iter_batched(|| fresh.batch(), write, BatchSize::PerIteration);
    });
    group.bench_function("cached, put", |b| {
        let put = |objects: Vec<Checked>| store.put(&objects, Keep::Cache).unwrap();
        b.iter_batched(|| fresh.batch(), put, BatchSize::PerIteration);
    });
    group.finish();
}

fn get(c: &mut Criterion) {
    let dir = folder();
    let store = open(&dir);
    let objects = Fresh(0).batch();
    store.put(&objects, Keep::Published).unwrap();
    store.commit().unwrap();
    let path = dir.path().join("plain");
    let mut plain = File::options().create_new(true).read(true).write(true).open(path).unwrap();
    for object in &objects {
        plain.write_all(object.plain()).unwrap();
    }
    let mut group = c.benchmark_group("get an object of 64 KiB, warm");
    group.throughput(Throughput::Bytes(LEN as u64));
    let mut at = 0;
    let mut next = || {
        at = (at + 7) % BATCH;
        at
    };
    group.bench_function("a file, pread", |b| {
        let mut buffer = vec![0; LEN];
        b.iter(|| plain.read_exact_at(black_box(&mut buffer), (next() * LEN) as u64).unwrap());
    });
    group.bench_function("a file, pread and blake3", |b| {
        let mut buffer = vec![0; LEN];
        b.iter(|| {
            plain.read_exact_at(&mut buffer, (next() * LEN) as u64).unwrap();
            blake3::hash(&buffer)
        });
    });
    group.bench_function("get", |b| b.iter(|| store.get(&objects[next()].id()).unwrap().unwrap()));
    group.bench_function("get and verify", |b| {
        b.iter(|| {
            let id = objects[next()].id();
            store.get(&id).unwrap().unwrap().verify(&id).unwrap()
        });
    });
    group.finish();
}

criterion_group! { name = benches; config = common::criterion(); targets = put, get }
criterion_main!(benches);
