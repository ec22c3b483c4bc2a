//! One stream, as its user sees it.
//!
//! Owns: the piece that is being read.
//! Must not know: frames.
//! Invariant: what is dropped leaves nothing behind in its connection.
//! Trust: none is needed.
//! Threads: any; each half of a stream belongs to one task.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncWrite};

use super::pieces::Piece;
use super::state::Shared;

pub(in crate::net) struct Substream {
    shared: Arc<Shared>,
    id: u32,
    piece: Option<Piece>,
}

impl Substream {
    pub(super) fn new(shared: Arc<Shared>, id: u32) -> Substream {
        Substream { shared, id, piece: None }
    }

    /// Moves what has come to `buffer`. Returns how much that was, and whether there is nothing more for now, and why.
    fn fill(&mut self, buffer: &mut [u8], cx: &Context<'_>) -> (usize, Poll<io::Result<()>>) {
        let mut filled = 0;
        while filled < buffer.len() {
            let mut piece = match self.piece.take() {
                Some(piece) => piece,
                None => match self.shared.state().poll_piece(self.id, cx) {
                    Poll::Ready(Ok(Some(piece))) => piece,
                    other => return (filled, other.map_ok(|_| ())),
                },
            };
            filled += piece.read(&mut buffer[filled..]);
            match piece.is_empty() {
                true => self.shared.pool.give_back(piece),
                false => self.piece = Some(piece),
            }
        }
        (filled, Poll::Ready(Ok(())))
    }
}

impl Drop for Substream {
    fn drop(&mut self) {
        self.piece.take().into_iter().for_each(|piece| self.shared.pool.give_back(piece));
        self.shared.state().forget(self.id);
    }
}

impl AsyncRead for Substream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.fill(buffer, cx) {
            (0, other) => other.map_ok(|()| 0),
            (filled, _) => {
                self.shared.state().on_read(self.id, filled);
                Poll::Ready(Ok(filled))
            }
        }
    }
}

impl AsyncWrite for Substream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.state().poll_write(self.id, slices, cx)
    }

    /// What was written is sent without being asked for.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shared.state().check_lost(self.id))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.state().finish(self.id);
        Poll::Ready(Ok(()))
    }
}
