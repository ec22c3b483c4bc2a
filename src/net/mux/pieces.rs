//! Memory for bytes on their way through a connection.
//!
//! Owns: pieces of memory, and those that are kept for the next who needs one.
//! Must not know: frames.
//! Invariant: large pieces are cleared once and then used again and again; [`Pool`] keeps no more than [`KEPT`] of them, and a
//! connection on which nothing moves holds none.
//! Trust: a length that the peer brings chooses between a small piece and one of [`PIECE`] bytes, no more.
//! Threads: any; the lock is held for one step.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Bytes of a large piece: four records of TLS.
pub(super) const PIECE: usize = 64 << 10;
/// Who needs no more than this gets a small piece, which is not kept.
const SMALL: usize = 4 << 10;
const SMALLEST: usize = 512;
/// Large pieces that wait to be used again, of all connections together.
const KEPT: usize = 32;

/// Some memory, filled from its beginning to `end`, of which `start` bytes were taken out again.
pub(super) struct Piece {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Piece {
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// What can be filled yet.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    /// Bytes of that.
    pub(super) fn room(&self) -> usize {
        self.bytes.len() - self.end
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The first `len` bytes of the space have been filled.
    pub(super) fn fill(&mut self, len: usize) {
        debug_assert!(self.end + len <= self.bytes.len());
        self.end += len;
    }

    /// The first `len` bytes are done with.
    pub(super) fn take(&mut self, len: usize) {
        debug_assert!(self.start + len <= self.end);
        self.start += len;
    }

    /// Moves as much as fits to `buffer`.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let len = self.filled().len().min(buffer.len());
        buffer[..len].copy_from_slice(&self.filled()[..len]);
        self.take(len);
        len
    }

    /// Appends as much as fits.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let len = self.room().min(bytes.len());
        self.space()[..len].copy_from_slice(&bytes[..len]);
        self.fill(len);
        len
    }
}

/// Pieces to be used again.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    /// An empty piece for `len` bytes, or for the first of them.
    pub(super) fn piece(&self, len: usize) -> Piece {
        let bytes = match len {
            0..=SMALL => vec![0; len.next_power_of_two().max(SMALLEST)],
            _ => self.kept().pop().unwrap_or_else(|| vec![0; PIECE]),
        };
        Piece { bytes, start: 0, end: 0 }
    }

    pub(super) fn give_back(&self, piece: Piece) {
        if piece.bytes.len() == PIECE {
            let mut kept = self.kept();
            if kept.len() < KEPT {
                kept.push(piece.bytes);
            }
        }
    }

    /// Appends `bytes` to what `pieces` hold. They are the first of `whole` bytes to come.
    pub(super) fn append(&self, pieces: &mut VecDeque<Piece>, mut bytes: &[u8], whole: usize) {
        while !bytes.is_empty() {
            let written = pieces.back_mut().map_or(0, |piece| piece.write(bytes));
            bytes = &bytes[written..];
            if !bytes.is_empty() {
                pieces.push_back(self.piece(whole));
            }
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        // Pushing and popping cannot be left half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
