//! A connection at work.
//!
//! Owns: the byte stream below, and what has been taken to be written to it.
//! Must not know: what frames do.
//! Invariant: reading never waits for writing, unless answers to the peer have piled up.
//! Trust: the peer may stop at any byte.
//! Threads: one task.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead, AsyncWrite};

use super::MuxError;
use super::frame::{Flags, HEADER_LEN, Header, Kind};
use super::incoming::Body;
use super::pieces::Piece;
use super::state::Shared;

/// Pieces that are written together: enough for all that is taken, unless it came in small ones.
const TOGETHER: usize = 6;
/// Bytes that are read before those who want them are let in. What waits for long is not in the processor's cache any more, and needs
/// more memory.
const AT_ONCE: usize = 256 << 10;
/// Why the connection is given up, as the specification numbers it.
const PROTOCOL_ERROR: u32 = 1;

pub(super) struct Task<C> {
    io: C,
    shared: Arc<Shared>,

    control: Vec<u8>,
    /// Bytes of `control` that were written.
    written: usize,
    data: VecDeque<Piece>,
    is_flushed: bool,

    header: [u8; HEADER_LEN],
    /// Bytes of the header that have come.
    come: usize,
    body: Option<Body>,
    /// Bytes that were read since others had their turn.
    read: usize,
}

impl<C> Drop for Task<C> {
    fn drop(&mut self) {
        self.data.drain(..).for_each(|piece| self.shared.pool.give_back(piece));
        self.shared.state().end(MuxError::Closed);
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Task<C> {
    pub(super) fn new(io: C, shared: Arc<Shared>) -> Task<C> {
        Task {
            io,
            shared,
            control: Vec::new(),
            written: 0,
            data: VecDeque::new(),
            is_flushed: true,
            header: [0; HEADER_LEN],
            come: 0,
            body: None,
            read: 0,
        }
    }

    /// Runs until the connection has ended, or has been closed.
    pub(super) async fn run(mut self) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        if !matches!(end, MuxError::Closed | MuxError::Io(_) | MuxError::GoneAway(_)) {
            self.refuse().await;
        }
        self.shared.state().end(end);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<MuxError> {
        self.read = 0;
        loop {
            match self.poll_send(cx) {
                Poll::Ready(Ok(true)) | Poll::Pending => {}
                Poll::Ready(Ok(false)) => {
                    let closed = ready!(Pin::new(&mut self.io).poll_close(cx));
                    return Poll::Ready(closed.err().map_or(MuxError::Closed, MuxError::Io));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
            }
            if let Err(error) = ready!(self.poll_receive(cx)) {
                return Poll::Ready(error);
            }
            if self.read >= AT_ONCE {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Sends what there is. False when nothing more will be.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.written == self.control.len() && self.data.is_empty() {
                self.control.clear();
                self.written = 0;
                let goes_on = self.shared.state().outgoing(cx, &mut self.control, &mut self.data);
                if self.control.is_empty() && self.data.is_empty() {
                    if !self.is_flushed {
                        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                        self.is_flushed = true;
                    }
                    return Poll::Ready(Ok(goes_on));
                }
            }
            ready!(self.poll_write(cx))?;
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); 1 + TOGETHER];
        slices[0] = IoSlice::new(&self.control[self.written..]);
        for (slice, piece) in slices[1..].iter_mut().zip(&self.data) {
            *slice = IoSlice::new(piece.filled());
        }
        self.is_flushed = false;
        let mut len = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices))?;
        if len == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_control = len.min(self.control.len() - self.written);
        self.written += of_control;
        len -= of_control;
        let of_data = len;
        while let Some(piece) = self.data.front_mut() {
            let of_piece = len.min(piece.filled().len());
            piece.take(of_piece);
            len -= of_piece;
            if !piece.is_empty() {
                break;
            }
            self.data.pop_front().into_iter().for_each(|piece| self.shared.pool.give_back(piece));
        }
        self.shared.state().sent(of_data);
        Poll::Ready(Ok(()))
    }

    /// Reads the rest of a header or of a body.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), MuxError>> {
        if let Some(body) = self.body.take_if(|body| body.left > 0) {
            return self.poll_body(cx, body);
        }
        if self.shared.state().is_clogged() {
            return Poll::Pending;
        }
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut self.header[self.come..]))?;
        self.come += read;
        self.read += read;
        if read == 0 {
            return Poll::Ready(Err(if self.come == 0 { MuxError::Closed } else { cut_off() }));
        }
        if self.come == HEADER_LEN {
            self.come = 0;
            let header = Header::decode(&self.header)?;
            self.body = self.shared.state().on_header(header)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, mut body: Body) -> Poll<Result<(), MuxError>> {
        let wanted = self.shared.state().tail(&body);
        let is_wanted = wanted.is_some();
        let mut piece = wanted.unwrap_or_else(|| self.shared.pool.piece(body.left));
        let mut result = Poll::Ready(Ok(()));
        while body.left > 0 && piece.room() > 0 {
            let len = piece.room().min(body.left);
            match Pin::new(&mut self.io).poll_read(cx, &mut piece.space()[..len]) {
                Poll::Ready(Ok(0)) => result = Poll::Ready(Err(cut_off())),
                Poll::Ready(Ok(read)) => {
                    piece.fill(read);
                    body.left -= read;
                    self.read += read;
                    continue;
                }
                Poll::Ready(Err(error)) => result = Poll::Ready(Err(error.into())),
                Poll::Pending => result = Poll::Pending,
            }
            break;
        }
        match is_wanted {
            true => self.shared.state().put(&body, piece),
            false => self.shared.pool.give_back(piece),
        }
        self.body = Some(body);
        result
    }

    /// Tells a peer that it has broken the protocol, if that can be sent at once.
    async fn refuse(&mut self) {
        let header = Header { kind: Kind::GoAway, flags: Flags::NONE, stream: 0, value: PROTOCOL_ERROR };
        self.shared.state().control(header);
        let once = poll_fn(|cx| Poll::Ready(self.poll_send(cx).is_ready()));
        let _is_sent = once.await;
    }
}

fn cut_off() -> MuxError {
    io::Error::from(io::ErrorKind::UnexpectedEof).into()
}
