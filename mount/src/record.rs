//! Which files of a mount are open and how, written down where it outlives the process.
//!
//! Owns: the layout of the record: a file in memory, 16 bytes for each inode that is open.
//! Must not know: why an inode is open in one way or the other.
//! Invariant: a row is written at one go and is what `OpenFiles` knew at that time; a row whose count is 0 is free.
//! Trust: it is written by this program, perhaps by an older version of it. Rows that make no sense are passed over.
//! Threads: behind the lock of `OpenFiles`; memory is written, which waits for nobody.
//!
//! ```text
//! bytes  0..8   number of the inode
//!        8..12  backing id, 0 if the mount serves it
//!       12..16  how often it is open
//! ```
//! Words are those of the machine: the record never leaves it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::MemfdFlags;

const ROW: usize = 16;
/// Rows that are read, far more than files that a kernel lets be open.
const MAX_ROWS: u64 = 1 << 24;

/// How an inode is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) ino: u64,
    /// Of the backing file, where it is passed through.
    pub(crate) backing: Option<u32>,
    pub(crate) count: u32,
}

/// The record of one mount.
#[derive(Debug)]
pub(crate) struct Record {
    file: File,
    free: Vec<u32>,
    rows: u32,
}

impl Record {
    pub(crate) fn new() -> io::Result<Self> {
        let file = rustix::fs::memfd_create("bcai-open-files", MemfdFlags::CLOEXEC)?;
        Ok(Self { file: file.into(), free: Vec::new(), rows: 0 })
    }

    /// Goes on with the record of an earlier process: what was open, each with its place.
    pub(crate) fn read(file: OwnedFd) -> io::Result<(Self, Vec<(u32, Row)>)> {
        let file = File::from(file);
        let rows = (file.metadata()?.len() / ROW as u64).min(MAX_ROWS) as u32;
        let mut record = Self { file, free: Vec::new(), rows };
        let mut open = Vec::new();
        for place in 0..rows {
            let mut bytes = [0; ROW];
            record.file.read_exact_at(&mut bytes, u64::from(place) * ROW as u64)?;
            match parse(bytes) {
                Some(row) => open.push((place, row)),
                None => record.free.push(place),
            }
        }
        Ok((record, open))
    }

    /// For whoever goes on with it.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
    }

    /// A place for another row.
    pub(crate) fn place(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.rows += 1;
            self.rows - 1
        })
    }

    /// Writes a row; one whose count is 0 gives its place back.
    pub(crate) fn write(&mut self, place: u32, row: Row) {
        let mut bytes = [0; ROW];
        bytes[..8].copy_from_slice(&row.ino.to_ne_bytes());
        bytes[8..12].copy_from_slice(&row.backing.unwrap_or(0).to_ne_bytes());
        bytes[12..].copy_from_slice(&row.count.to_ne_bytes());
        if let Err(error) = self.file.write_all_at(&bytes, u64::from(place) * ROW as u64) {
            // Only where memory is short. A process that goes on with this would open the file anew.
            tracing::warn!(ino = row.ino, %error, "an open file is not on record");
        }
        if row.count == 0 {
            self.free.push(place);
        }
    }
}

fn parse(bytes: [u8; ROW]) -> Option<Row> {
    // The ranges are those of the words.
    let word = |at: usize| bytes[at..at + 4].try_into().map(u32::from_ne_bytes).ok();
    let ino = bytes[..8].try_into().map(u64::from_ne_bytes).ok()?;
    let (backing, count) = (word(8)?, word(12)?);
    (count > 0).then_some(Row { ino, backing: (backing > 0).then_some(backing), count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_finds_what_is_open() {
        let mut record = Record::new().unwrap();
        let row = |ino, backing, count| Row { ino, backing, count };
        let places: Vec<u32> = (0..3).map(|_| record.place()).collect();
        assert_eq!(places, [0, 1, 2]);
        for (place, row) in [(0, row(7, None, 1)), (1, row(8, Some(3), 2)), (2, row(9, Some(4), 1))] {
            record.write(place, row);
        }
        record.write(0, row(7, None, 0));
        let (mut next, open) = Record::read(record.share().unwrap()).unwrap();
        assert_eq!(open, [(1, row(8, Some(3), 2)), (2, row(9, Some(4), 1))]);
        assert_eq!((next.place(), next.place()), (0, 3), "free places are used first");
    }
}
