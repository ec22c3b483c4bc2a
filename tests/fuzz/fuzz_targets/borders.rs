//! Files that say they are tar, zip, safetensors or Parquet: cutting them ends, and their chunks are the file.

#![no_main]

use bcai_fuzz::chunking::{Chunking, Cutter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let chunking: Chunking = "auto".parse().unwrap();
    let read = |offset: u64, buffer: &mut [u8]| {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let len = buffer.len().min(data.len() - from);
        buffer[..len].copy_from_slice(&data[from..from + len]);
        Ok(len)
    };
    let mut cutter = Cutter::new(chunking, data.len() as u64, &read).unwrap();
    let mut at = 0;
    cutter.run(0, data.len() as u64).unwrap();
    while at < data.len() {
        let len = cutter.next(&data[at..]).unwrap().expect("all of it is shown");
        assert!(len > 0 && len <= chunking.max_len() && at + len <= data.len());
        at += len;
    }
    assert_eq!(cutter.remaining(), 0);
});
