//! Files that say they are tar, zip, safetensors or Parquet: cutting them ends, and their chunks are the file.

#![no_main]

use bcai_fuzz::choose;
use bcai_fuzz::chunking::{Chunking, Cutter};
use libfuzzer_sys::fuzz_target;

/// Files of at most two averages, which is 32 KiB here, are never looked into.
const LEAST: usize = 33 << 10;

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = choose(data) else { return };
    let mut file = bytes.to_vec();
    if file.len() < LEAST {
        // Formats that say what they are at their beginning, and at their end.
        let zeros = vec![0; LEAST - file.len()];
        file = if which % 2 == 0 { [&file[..], &zeros].concat() } else { [&zeros[..], &file].concat() };
    }
    let chunking: Chunking = "auto:16K".parse().unwrap();
    let read = |offset: u64, buffer: &mut [u8]| {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
        let len = buffer.len().min(file.len() - from);
        buffer[..len].copy_from_slice(&file[from..from + len]);
        Ok(len)
    };
    let mut cutter = Cutter::new(chunking, file.len() as u64, &read).unwrap();
    cutter.run(0, file.len() as u64).unwrap();
    let mut at = 0;
    while at < file.len() {
        let len = cutter.next(&file[at..]).unwrap().expect("all of it is shown");
        assert!(len > 0 && len <= chunking.max_len() && at + len <= file.len());
        at += len;
    }
    assert_eq!(cutter.remaining(), 0);
});
