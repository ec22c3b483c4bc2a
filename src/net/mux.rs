//! Many streams on one secure byte stream: Yamux, with frames and windows of our choice.
//!
//! Owns: the sizes, and how frames are put together before they are encrypted.
//! Must not know: what streams carry, or who is at the other end.
//! Invariant: one connection holds at most [`WINDOWS`] of what was received and not read, and has at most [`MAX_STREAMS`] streams.
//! Trust: the peer may send what it likes; a frame beyond a stream's window ends the connection.
//! Threads: the task of the connection; streams are for any.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures::future::{Ready, ready as at_once};
use futures::io::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

/// Streams of one connection, whoever opened them.
const MAX_STREAMS: usize = 128;
/// Those that this side opens. Who wants more waits until one is closed.
const MAX_OUTGOING: usize = 48;
/// Bytes of all windows of a connection. 256 KiB of each stream are a matter of Yamux; the rest goes to those that need more.
const WINDOWS: usize = (MAX_STREAMS * (256 << 10)) + (32 << 20);
/// Bytes of a frame at most. Each costs its way through a queue, so the default of 16 KiB would be too often.
const FRAME: usize = 256 << 10;
/// Streams that came and were not taken yet: as many as Yamux lets a peer open without an answer.
const MAX_INCOMING: usize = 256;

/// The upgrade to Yamux.
#[derive(Clone)]
pub(super) struct Config;

impl Config {
    fn muxer<C: AsyncRead + AsyncWrite + Unpin>(stream: C, mode: yamux::Mode) -> Muxer<C> {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        config.set_max_connection_receive_window(Some(WINDOWS));
        config.set_split_send_size(FRAME);
        let connection = yamux::Connection::new(Joined::new(stream), config, mode);
        let room = PollSemaphore::new(Arc::new(Semaphore::new(MAX_OUTGOING)));
        Muxer { connection, room, incoming: VecDeque::new(), waiting: None }
    }
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, stream: C, _: &'static str) -> Self::Future {
        at_once(Ok(Config::muxer(stream, yamux::Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, stream: C, _: &'static str) -> Self::Future {
        at_once(Ok(Config::muxer(stream, yamux::Mode::Client)))
    }
}

/// One connection.
pub(super) struct Muxer<C> {
    connection: yamux::Connection<Joined<C>>,
    /// As many permits as this side may open further streams. Yamux gives the connection up when there are too many.
    room: PollSemaphore,
    /// Yamux gets on only while it is asked for the next stream that comes; those that were not asked for are kept here.
    incoming: VecDeque<yamux::Stream>,
    waiting: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<yamux::Stream, yamux::ConnectionError>> {
        let next = ready!(self.connection.poll_next_inbound(cx));
        Poll::Ready(next.unwrap_or(Err(yamux::ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Substream;
    type Error = yamux::ConnectionError;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Substream, Self::Error>> {
        if let Some(stream) = self.incoming.pop_front() {
            return Poll::Ready(Ok(Substream { stream, _place: None }));
        }
        let next = self.poll_next(cx);
        if next.is_pending() {
            self.waiting = Some(cx.waker().clone());
        }
        next.map_ok(|stream| Substream { stream, _place: None })
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Substream, Self::Error>> {
        // It is never closed, so there is one some time.
        let place = ready!(self.room.poll_acquire(cx));
        self.connection.poll_new_outbound(cx).map_ok(|stream| Substream { stream, _place: place })
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connection.poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        let stream = ready!(self.poll_next(cx))?;
        if self.incoming.len() < MAX_INCOMING {
            self.incoming.push_back(stream);
            if let Some(waker) = self.waiting.take() {
                waker.wake();
            }
        }
        // There may be more; others get their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// One stream, and its place among those that this side has opened.
pub(super) struct Substream {
    stream: yamux::Stream,
    _place: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Substream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Substream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// Holds a frame's header back until its body comes, so that both are encrypted and sent as one.
struct Joined<C> {
    stream: C,
    held: Vec<u8>,
}

/// What is no longer than this waits for what comes next, or for a flush.
const SHORT: usize = 64;

impl<C: AsyncWrite + Unpin> Joined<C> {
    fn new(stream: C) -> Self {
        Joined { stream, held: Vec::with_capacity(SHORT) }
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.held.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Joined<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Joined<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.held.len() + bytes.len() <= SHORT {
            this.held.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        loop {
            let held = this.held.len();
            if held == 0 {
                return Pin::new(&mut this.stream).poll_write(cx, bytes);
            }
            let both = [IoSlice::new(&this.held), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, &both))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.held.drain(..held.min(written));
            if written > held {
                return Poll::Ready(Ok(written - held));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
