//! Looking into a file for its structure.
//!
//! Owns: `Part`, which reads a stretch of the file through a small window, and the two ways a look can end.
//! Must not know: any format.
//! Invariant: nothing outside of the stretch is read, and no more is held than the window or, where it is
//! longer, what the format's own code asked for at once, which is a constant everywhere.
//! Trust: none in the bytes. Threads: those of `chunking`.

use std::io;

/// Reads the file that is being cut: fills the buffer with what begins at the offset, and returns how much
/// that was. Less than the buffer means the end of the file. Holes read as zeros.
pub type ReadAt<'a> = dyn Fn(u64, &mut [u8]) -> io::Result<usize> + 'a;

/// Enough for a header and what is likely to be next to it.
const WINDOW: usize = 4 << 10;
/// For what is read from one end to the other.
const WIDE_WINDOW: usize = 64 << 10;

/// Why a look at the structure found nothing.
#[derive(Debug)]
pub(super) enum Stop {
    /// The file could not be read. It cannot be cut either.
    Io(io::Error),
    /// The bytes are not what the format says. From here on the file is cut without it.
    Wrong,
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(super) type Look<T> = Result<T, Stop>;

/// A stretch of the file, read in small pieces. Offsets are from its start.
pub(super) struct Part<'a> {
    read: &'a ReadAt<'a>,
    base: u64,
    len: u64,
    window: usize,
    /// What was read last, and from where.
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'a> Part<'a> {
    /// The `len` bytes of the file from `base` on, which must exist.
    pub(super) fn new(read: &'a ReadAt<'a>, base: u64, len: u64) -> Self {
        Self { read, base, len, window: WINDOW, buffer: Vec::new(), buffer_at: 0 }
    }

    /// The same stretch, to be read from one end to the other.
    pub(super) fn wide(&self) -> Self {
        Self { window: WIDE_WINDOW, ..Self::new(self.read, self.base, self.len) }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The `len` bytes from `at` on; `len` must not be foreign.
    pub(super) fn get(&mut self, at: u64, len: usize) -> Look<&[u8]> {
        let end = at.checked_add(len as u64).filter(|end| *end <= self.len).ok_or(Stop::Wrong)?;
        if at < self.buffer_at || end > self.buffer_at + self.buffer.len() as u64 {
            // No more than the window or `len`, so that it fits.
            let room = (self.window.max(len) as u64).min(self.len - at) as usize;
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize(room, 0);
            let read = (self.read)(self.base + at, &mut buffer)?;
            buffer.truncate(read);
            (self.buffer, self.buffer_at) = (buffer, at);
            if read < len {
                return Err(Stop::Wrong);
            }
        }
        // Within the buffer, as has just been seen to.
        let from = (at - self.buffer_at) as usize;
        Ok(&self.buffer[from..from + len])
    }

    pub(super) fn array<const N: usize>(&mut self, at: u64) -> Look<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.get(at, N)?);
        Ok(array)
    }
}
