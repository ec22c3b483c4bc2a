//! How fast a chunk becomes an object and an object a chunk, beside the libraries alone.
//!
//! Owns: the cases. Must not know: how objects are stored. Invariant: every case has the same chunks of 64 KiB.
//! Trust: none needed. Threads: one.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

mod common;

use std::hint::black_box;

use bcai::id::{Kind, ObjectId};
use bcai::pack::{Checked, Compression};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const LEN: usize = 64 << 10;

fn hashing(c: &mut Criterion) {
    let chunk = common::noise(1, LEN);
    let mut group = c.benchmark_group("hashing");
    group.throughput(Throughput::Bytes(LEN as u64));
    group.bench_function("blake3 alone", |b| b.iter(|| blake3::hash(black_box(&chunk))));
    group.bench_function("ObjectId::of", |b| b.iter(|| ObjectId::of(Kind::Chunk, black_box(&chunk))));
    group.finish();
}

fn packing(c: &mut Criterion) {
    for (look, chunk) in [("noise", common::noise(1, LEN)), ("lines", common::lines(1, LEN))] {
        let chunk = Bytes::from(chunk);
        let mut group = c.benchmark_group(format!("packing {look}"));
        group.throughput(Throughput::Bytes(LEN as u64));
        group.bench_function("lz4_flex alone", |b| b.iter(|| lz4_flex::block::compress(black_box(&chunk))));
        group.bench_function("lz4_flex and blake3 alone", |b| {
            b.iter(|| (blake3::hash(black_box(&chunk)), lz4_flex::block::compress(black_box(&chunk))));
        });
        group.bench_function("zstd and blake3 alone", |b| {
            b.iter(|| (blake3::hash(black_box(&chunk)), zstd::bulk::compress(black_box(&chunk), 3)));
        });
        for compression in ["none", "lz4", "zstd:3"] {
            let parsed: Compression = compression.parse().unwrap();
            group.bench_function(format!("Checked::pack {compression}"), |b| {
                b.iter(|| Checked::pack(Kind::Chunk, black_box(&chunk).clone(), parsed));
            });
        }
        group.finish();
    }
}

fn unpacking(c: &mut Criterion) {
    let chunk = Bytes::from(common::lines(1, LEN));
    let compressed = lz4_flex::block::compress(&chunk);
    let mut group = c.benchmark_group("unpacking lines");
    group.throughput(Throughput::Bytes(LEN as u64));
    group.bench_function("lz4_flex alone", |b| {
        b.iter(|| lz4_flex::block::decompress(black_box(&compressed), LEN).unwrap());
    });
    group.bench_function("lz4_flex and blake3 alone", |b| {
        b.iter(|| blake3::hash(&lz4_flex::block::decompress(black_box(&compressed), LEN).unwrap()));
    });
    for compression in ["none", "lz4", "zstd:3"] {
        let object = Checked::pack(Kind::Chunk, chunk.clone(), compression.parse().unwrap());
        group.bench_function(format!("Packed::verify {compression}"), |b| {
            b.iter(|| black_box(object.packed()).clone().verify(&object.id()).unwrap());
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = common::criterion(); targets = hashing, packing, unpacking }
criterion_main!(benches);
