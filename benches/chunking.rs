//! How fast a file is cut, beside FastCDC alone.
//!
//! Owns: the cases. Must not know: where cuts fall. Invariant: every case sees the same 64 MiB.
//! Trust: none needed. Threads: one.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

mod common;

use std::hint::black_box;

use bcai::chunking::{Chunking, Cutter};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fastcdc::v2020::FastCDC;

const LEN: usize = 64 << 20;
const AVERAGE: usize = 64 << 10;

/// The number of chunks of `data`, shown to the cutter as ingest shows a file: a window that moves on.
fn cut(chunking: Chunking, data: &[u8]) -> usize {
    let read = |at: u64, buffer: &mut [u8]| {
        let rest = &data[(at as usize).min(data.len())..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    };
    let mut cutter = Cutter::new(chunking, data.len() as u64, &read).unwrap();
    cutter.run(0, data.len() as u64).unwrap();
    let (mut at, mut chunks) = (0, 0);
    while let Some(len) = cutter.next(&data[at..]).unwrap() {
        (at, chunks) = (at + len, chunks + 1);
    }
    assert_eq!(at, data.len());
    chunks
}

fn chunking(c: &mut Criterion) {
    let data = common::noise(1, LEN);
    let mut group = c.benchmark_group("chunking");
    group.throughput(Throughput::Bytes(LEN as u64));
    group.bench_function("fastcdc alone, 64K", |b| {
        b.iter(|| FastCDC::new(black_box(&data), AVERAGE / 4, AVERAGE, AVERAGE * 4).count());
    });
    for chunking in ["cdc:64K", "auto", "fixed:1M"] {
        let parsed = chunking.parse().unwrap();
        group.bench_function(chunking, |b| b.iter(|| cut(parsed, black_box(&data))));
    }
    group.finish();
}

criterion_group! { name = benches; config = common::criterion(); targets = chunking }
criterion_main!(benches);
