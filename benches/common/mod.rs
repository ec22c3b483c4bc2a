//! What benches share: bytes that are the same in every run, and how long to measure.
//!
//! Owns: these. Must not know: what is measured. Invariant: the same arguments give the same bytes.
//! Trust: none needed. Threads: plain functions.

#![allow(dead_code, reason = "each bench uses its own part of this")]

use std::time::Duration;

use criterion::Criterion;

/// As short as figures of a quiet machine allow: all benches together take about two minutes.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

/// Bytes that no codec shrinks.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Lines of a log, which LZ4 makes about a third of.
pub fn lines(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 80);
    for number in noise(seed, len)
        .chunks_exact(8)
        .map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
    {
        if bytes.len() >= len {
            break;
        }
        let (shard, offset, took) = (number % 97, (number >> 8) % 1_000_003, (number >> 40) % 997);
        bytes.extend_from_slice(format!("read shard-{shard:05}.tar at {offset}: {took} us\n").as_bytes());
    }
    bytes.truncate(len);
    bytes
}
