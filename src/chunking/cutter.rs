//! From bytes that arrive in pieces to the lengths of chunks.
//!
//! Owns: `Cutter`, which takes a file from segment to segment and cuts each as if it were a file of its own.
//! Must not know: why a border is where it is. Invariant, trust, threads: those of `chunking`.

use std::io;

use fastcdc::v2020::FastCDC;

use super::borders::Borders;
use super::part::ReadAt;
use super::{Chunking, ChunkingError};

/// Cuts one file whose bytes arrive in pieces.
///
/// The caller announces each run of data between holes, shows what it has at the front of the run, takes off
/// the chunk it is told of, and reads more when told that this is not enough.
pub struct Cutter<'a> {
    chunking: Chunking,
    /// Where the file's own format asks for a cut; absent when nobody asks the format.
    borders: Option<Borders<'a>>,
    /// The first border that has not been passed; offsets are from the start of the file.
    border: u64,
    at: u64,
    run_end: u64,
    segment_end: u64,
    /// Whether the present segment is short enough to stay in one chunk.
    whole: bool,
}

impl<'a> Cutter<'a> {
    /// A cutter for a file of `len` bytes. It reads through `read` when it looks for the file's structure.
    pub fn new(chunking: Chunking, len: u64, read: &'a ReadAt<'a>) -> Result<Self, ChunkingError> {
        chunking.check()?;
        let (borders, border) = match chunking {
            Chunking::Auto { average } => (Some(Borders::new(read, len, average)), 0),
            Chunking::Cdc { .. } | Chunking::Fixed { .. } => (None, u64::MAX),
        };
        Ok(Self { chunking, borders, border, at: 0, run_end: 0, segment_end: 0, whole: false })
    }

    /// Says that the bytes from `start` to `end` come next. Runs come in order; what lies between is a hole.
    pub fn run(&mut self, start: u64, end: u64) -> io::Result<()> {
        (self.at, self.run_end) = (start, end.max(start));
        self.begin_segment()
    }

    /// Bytes of the run that have not been cut off yet.
    pub fn remaining(&self) -> u64 {
        self.run_end - self.at
    }

    /// How many bytes `next` must be shown to decide on the next chunk.
    pub fn wants(&self) -> usize {
        // `max_len` is at most 4 MiB, so the result fits.
        (self.segment_end - self.at).min(self.chunking.max_len() as u64) as usize
    }

    /// The length of the next chunk, which starts at the front of `data`; `None` when the run is at its end,
    /// or when `data` is shorter than [`Self::wants`]. `data` may go on past the chunk, even past the run.
    /// Fails only if the file could not be read.
    pub fn next(&mut self, data: &[u8]) -> io::Result<Option<usize>> {
        let wants = self.wants();
        if wants == 0 || data.len() < wants {
            return Ok(None);
        }
        let len = match self.chunking {
            Chunking::Cdc { average } | Chunking::Auto { average } if !self.whole => {
                let average = average as usize;
                FastCDC::new(&data[..wants], average / 4, average, average * 4).cut(0, wants).1
            }
            _ => wants,
        };
        self.at += len as u64;
        if self.at == self.segment_end {
            self.begin_segment()?;
        }
        Ok(Some(len))
    }

    /// Finds the end of the segment that starts here: the next border, or the end of the run.
    fn begin_segment(&mut self) -> io::Result<()> {
        while self.border <= self.at && self.at < self.run_end {
            let next = self.borders.as_mut().map_or(Ok(None), Borders::next)?;
            self.border = next.unwrap_or(u64::MAX);
        }
        self.segment_end = self.run_end.min(self.border.max(self.at));
        self.whole = self.chunking.is_one_chunk(self.segment_end - self.at);
        Ok(())
    }
}
