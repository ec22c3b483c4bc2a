//! Tar shards as tools for training write them.
//!
//! Owns: the bytes of a ustar archive (POSIX.1-1988) of plain files.
//! Must not know: what is in the files.
//! Invariant: the archive depends on names and contents alone. Trust: names are ours and short.
//! Threads: plain functions.

use std::io::{self, Write};

const BLOCK: usize = 512;
/// As all files of the corpora: 2020-01-01, UTC.
const MTIME: u64 = super::MTIME;

/// Appends a file.
pub fn append(out: &mut impl Write, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = [0u8; BLOCK];
    let mut field = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    field(0, name.as_bytes());
    field(100, b"0000644\0");
    field(108, b"0000000\0");
    field(116, b"0000000\0");
    field(124, format!("{:011o}\0", bytes.len()).as_bytes());
    field(136, format!("{MTIME:011o}\0").as_bytes());
    // While it is summed, the sum itself counts as spaces.
    field(148, b"        ");
    field(156, b"0");
    field(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.write_all(&header)?;
    out.write_all(bytes)?;
    out.write_all(&[0; BLOCK][..bytes.len().next_multiple_of(BLOCK) - bytes.len()])
}

/// Ends the archive.
pub fn finish(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn tar_reads_it_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let archive = dir.path().join("shard.tar");
        let mut bytes = Vec::new();
        super::append(&mut bytes, "000001.jpg", &[7; 700]).expect("writes");
        super::append(&mut bytes, "000001.cls", b"5").expect("writes");
        super::finish(&mut bytes).expect("writes");
        std::fs::write(&archive, bytes).expect("writes");
        let done = Command::new("tar").arg("xf").arg(&archive).arg("-C").arg(dir.path()).status();
        assert!(done.expect("tar runs").success());
        assert_eq!(std::fs::read(dir.path().join("000001.jpg")).expect("is there"), [7; 700]);
        assert_eq!(std::fs::read(dir.path().join("000001.cls")).expect("is there"), b"5");
    }
}
