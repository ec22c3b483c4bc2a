//! What a connection keeps of one stream.
//!
//! Owns: what came and was not read, the windows of both directions, who waits, and which ends were reached.
//! Must not know: other streams, or how frames travel.
//! Invariant: what was received and not read is never more than the window; no piece but the last has room for [`WORTH`] bytes or for the frame after it.
//! Trust: the peer may send any frame at any time; what it may not is an error.
//! Threads: under the lock of the connection.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::frame::Flags;
use super::pieces::{Piece, Pool};
use super::{MuxError, WINDOW};

/// How much of a window is read before the peer is given it again.
const PART: u32 = 2;
/// Bytes of space for which a frame is read into two pieces.
const WORTH: usize = 64;

pub(super) struct Entry {
    /// This side opened it.
    pub(super) is_ours: bool,
    /// What the first frame to the peer says beside.
    first: Flags,
    /// The peer sends no more.
    pub(super) is_finished: bool,
    /// The peer has broken it off.
    pub(super) is_reset: bool,
    /// This side sends no more.
    pub(super) is_closed: bool,

    received: VecDeque<Piece>,
    /// What the peer may send yet.
    window: u32,
    /// What the peer may send at most before something is read.
    pub(super) size: u32,
    /// Bytes that were read since the last update.
    read: u32,
    updated: Instant,
    pub(super) reader: Option<Waker>,

    /// What this side may send yet.
    pub(super) credit: u32,
    /// When its last frame was taken, as a number that counts them all.
    pub(super) served: u64,
    pub(super) writer: Option<Waker>,
}

impl Entry {
    pub(super) fn new(is_ours: bool, served: u64, now: Instant) -> Entry {
        Entry {
            is_ours,
            first: if is_ours { Flags::SYN } else { Flags::ACK },
            is_finished: false,
            is_reset: false,
            is_closed: false,
            received: VecDeque::new(),
            window: WINDOW,
            size: WINDOW,
            read: 0,
            updated: now,
            reader: None,
            credit: WINDOW,
            served,
            writer: None,
        }
    }

    /// The peer has never heard of it.
    pub(super) fn is_unheard(&self) -> bool {
        self.first == Flags::SYN
    }

    /// The flags of the next frame to the peer, which must be sent.
    pub(super) fn flags(&mut self) -> Flags {
        std::mem::replace(&mut self.first, Flags::NONE)
    }

    pub(super) fn wake(&mut self) {
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    /// The peer announces `len` bytes.
    pub(super) fn announce(&mut self, stream: u32, len: u32) -> Result<(), MuxError> {
        if len > 0 && self.is_finished {
            return Err(MuxError::AfterEnd { stream });
        }
        let window = self.window;
        self.window = window.checked_sub(len).ok_or(MuxError::BeyondWindow { stream, len, window })?;
        Ok(())
    }

    pub(super) fn on_credit(&mut self, stream: u32, credit: u32) -> Result<(), MuxError> {
        self.credit = self.credit.checked_add(credit).ok_or(MuxError::TooMuchCredit { stream })?;
        wake(&mut self.writer);
        Ok(())
    }

    /// The piece to be filled next, of the `left` bytes that are announced; it is to be [put](Entry::put) back.
    pub(super) fn tail(&mut self, left: usize, pool: &Pool) -> Piece {
        match self.received.pop_back() {
            Some(piece) if piece.room() >= left.min(WORTH) => piece,
            full => {
                self.received.extend(full);
                pool.piece(left)
            }
        }
    }

    /// Lets what has come be read.
    pub(super) fn put(&mut self, piece: Piece, pool: &Pool) {
        if piece.is_empty() {
            return pool.give_back(piece);
        }
        self.received.push_back(piece);
        wake(&mut self.reader);
    }

    /// What is to be read next.
    pub(super) fn next(&mut self) -> Option<Piece> {
        self.received.pop_front()
    }

    /// `len` bytes have been read. Returns what the peer is to be granted, if that is worth a frame.
    ///
    /// A window grows by as much as it has, or by `room` if that is less, when half of it was read within two round trips: then the
    /// peer waits for it most of the time.
    pub(super) fn on_read(
        &mut self,
        len: usize,
        now: Instant,
        round_trip: Option<Duration>,
        room: &mut u32,
    ) -> Option<u32> {
        // It is a part of a window.
        self.read += len as u32;
        if self.read < self.size / PART || self.is_finished || self.is_reset {
            return None;
        }
        if round_trip.is_some_and(|round_trip| now - self.updated < 2 * round_trip) {
            let growth = self.size.min(*room);
            *room -= growth;
            self.size += growth;
            self.read += growth;
        }
        self.updated = now;
        self.window += self.read;
        Some(std::mem::take(&mut self.read))
    }

    pub(super) fn give_back(self, pool: &Pool) {
        self.received.into_iter().for_each(|piece| pool.give_back(piece));
    }
}

#[cfg(test)]
impl Entry {
    /// Bytes that were received and are to be read.
    pub(super) fn unread(&self) -> usize {
        self.received.iter().map(|piece| piece.filled().len()).sum()
    }

    /// Bytes of memory that hold them.
    pub(super) fn memory(&self) -> usize {
        self.received.iter().map(Piece::size).sum()
    }
}

pub(super) fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::mux::GROWTH;

    const ROUND_TRIP: Duration = Duration::from_millis(100);

    /// Receives and reads so many bytes in parts, with `pause` before each.
    fn read(
        entry: &mut Entry,
        now: &mut Instant,
        pause: Duration,
        room: &mut u32,
        parts: usize,
        part: u32,
    ) -> u32 {
        let mut granted = 0;
        for _ in 0..parts {
            *now += pause;
            entry.announce(1, part).unwrap();
            granted += entry.on_read(part as usize, *now, Some(ROUND_TRIP), room).unwrap_or(0);
            assert_eq!(entry.window + entry.read, entry.size);
        }
        granted
    }

    #[test]
    fn a_window_grows_while_it_is_too_small_and_no_further_than_there_is_room() {
        let mut now = Instant::now();
        let mut entry = Entry::new(false, 0, now);
        let mut room = GROWTH;
        // Half of it takes two round trips.
        read(&mut entry, &mut now, 2 * ROUND_TRIP, &mut room, 50, WINDOW / 2);
        assert_eq!((entry.size, room), (WINDOW, GROWTH));
        // Half of it takes a little less.
        let before = entry.window;
        let granted = read(&mut entry, &mut now, ROUND_TRIP * 199 / 200, &mut room, 2, WINDOW / 4);
        assert_eq!((entry.size, room), (2 * WINDOW, GROWTH - WINDOW));
        assert_eq!((granted, entry.window), (WINDOW / 2 + WINDOW, before + WINDOW));
        // It takes no time at all.
        read(&mut entry, &mut now, Duration::ZERO, &mut room, 2000, WINDOW / 2);
        assert_eq!((entry.size, room), (WINDOW + GROWTH, 0));
    }

    #[test]
    fn without_a_round_trip_no_window_grows() {
        let now = Instant::now();
        let (mut entry, mut room) = (Entry::new(false, 0, now), GROWTH);
        for _ in 0..9 {
            entry.announce(1, WINDOW).unwrap();
            assert_eq!(entry.on_read(WINDOW as usize, now, None, &mut room), Some(WINDOW));
        }
        entry.is_finished = true;
        entry.announce(1, 0).unwrap();
        assert_eq!(entry.on_read(0, now, None, &mut room), None, "who has finished needs no credit");
    }
}
