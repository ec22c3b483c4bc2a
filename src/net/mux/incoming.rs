//! What the frames of the peer do to the streams.
//!
//! Owns: the rules that a peer is held to.
//! Must not know: how bytes are read.
//! Invariant: a frame is answered with at most one, which is queued within a bound; nothing is kept of streams that are not known.
//! Trust: none.
//! Threads: under the lock of the connection.

use std::time::Instant;

use super::entry::{Entry, wake};
use super::frame::{Flags, Header, Kind};
use super::pieces::Piece;
use super::state::State;
use super::{GROWTH, MAX_STREAMS, MuxError, WINDOW};

/// The data that follow a header.
pub(super) struct Body {
    stream: u32,
    pub(super) left: usize,
    /// Nothing comes after it.
    is_last: bool,
}

impl State {
    /// A header has come. Returns what is to be read behind it.
    pub(super) fn on_header(&mut self, header: Header) -> Result<Option<Body>, MuxError> {
        match header.kind {
            Kind::Data => self.on_data(header).map(Some),
            Kind::Window => self.on_window(header).map(|()| None),
            Kind::Ping if header.flags.has(Flags::ACK) => {
                self.pulse.on_pong(header.value, Instant::now()).map(|()| None)
            }
            Kind::Ping => {
                self.control(Header { flags: Flags::ACK, ..header });
                Ok(None)
            }
            Kind::GoAway if header.value == 0 => Err(MuxError::Closed),
            Kind::GoAway => Err(MuxError::GoneAway(header.value)),
        }
    }

    fn on_data(&mut self, header: Header) -> Result<Body, MuxError> {
        let Header { flags, stream, value: len, .. } = header;
        // No window is larger, whatever became of the stream.
        if len > WINDOW + GROWTH {
            return Err(MuxError::BeyondWindow { stream, len, window: WINDOW + GROWTH });
        }
        self.on_flags(header)?;
        if let Some(entry) = self.streams.get_mut(&stream).filter(|entry| !entry.is_reset) {
            entry.announce(stream, len)?;
        }
        let body = Body { stream, left: len as usize, is_last: flags.has(Flags::FIN) };
        self.on_progress(&body);
        Ok(body)
    }

    fn on_window(&mut self, header: Header) -> Result<(), MuxError> {
        let Header { flags, stream, value: credit, .. } = header;
        self.on_flags(header)?;
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.on_credit(stream, credit)?;
        }
        self.on_progress(&Body { stream, left: 0, is_last: flags.has(Flags::FIN) });
        Ok(())
    }

    /// What a frame of either kind may bring before all else: a stream begins or is broken off.
    fn on_flags(&mut self, Header { flags, stream, .. }: Header) -> Result<(), MuxError> {
        if flags.has(Flags::RST) {
            if let Some(entry) = self.streams.get_mut(&stream) {
                entry.is_reset = true;
                entry.wake();
                let turn = (entry.served, stream);
                self.turns.remove(&turn);
            }
            return Ok(());
        }
        if !flags.has(Flags::SYN) {
            return Ok(());
        }
        if stream == 0 || self.is_ours(stream) || self.streams.contains_key(&stream) {
            return Err(MuxError::BadStream { stream });
        }
        if self.streams.len() >= MAX_STREAMS {
            self.control(Header { kind: Kind::Data, flags: Flags::RST, stream, value: 0 });
            return Ok(());
        }
        self.streams.insert(stream, Entry::new(false, self.served, Instant::now()));
        self.arrived.push_back(stream);
        wake(&mut self.muxer);
        Ok(())
    }

    /// The piece in which the next bytes go; nothing if nobody wants them.
    pub(super) fn tail(&mut self, body: &Body) -> Option<Piece> {
        let entry = self.streams.get_mut(&body.stream).filter(|entry| !entry.is_reset)?;
        Some(entry.tail(body.left, &self.pool))
    }

    /// Takes a piece back, with what has come of the body.
    pub(super) fn put(&mut self, body: &Body, piece: Piece) {
        match self.streams.get_mut(&body.stream) {
            Some(entry) => entry.put(piece, &self.pool),
            None => self.pool.give_back(piece),
        }
        self.on_progress(body);
    }

    fn on_progress(&mut self, body: &Body) {
        if body.is_last
            && body.left == 0
            && let Some(entry) = self.streams.get_mut(&body.stream)
        {
            entry.is_finished = true;
            wake(&mut entry.reader);
        }
    }
}
