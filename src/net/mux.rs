//! Many streams on one secure byte stream: Yamux, with frames and windows of our choice.
//!
//! Owns: the sizes, and how frames are put together before they are encrypted.
//! Must not know: what streams carry, or who is at the other end.
//! Invariant: one connection holds at most [`WINDOWS`] of what was received and not read, and has at most [`MAX_STREAMS`] streams.
//! Trust: the peer may send what it likes; a frame beyond a stream's window ends the connection.
//! Threads: a task for each connection, which ends with its [`Muxer`]; streams are for any.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::{Fuse, FusedFuture, Ready, ready as at_once};
use futures::io::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::PollSemaphore;
use tokio_util::task::AbortOnDropHandle;

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
    fn muxer<C>(stream: C, mode: yamux::Mode) -> Muxer
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        config.set_max_connection_receive_window(Some(WINDOWS));
        config.set_split_send_size(FRAME);
        let connection = yamux::Connection::new(Joined::new(stream), config, mode);
        let (incoming_sender, incoming) = mpsc::channel(MAX_INCOMING);
        let (requests, requests_receiver) = mpsc::unbounded_channel();
        let task = Task { connection, requests: requests_receiver, opening: None, incoming: incoming_sender };
        Muxer {
            incoming,
            requests: Some(requests),
            opening: None,
            room: PollSemaphore::new(Arc::new(Semaphore::new(MAX_OUTGOING))),
            task: AbortOnDropHandle::new(tokio::spawn(task.run())).fuse(),
        }
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
    type Output = Muxer;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer>>;

    fn upgrade_inbound(self, stream: C, _: &'static str) -> Self::Future {
        at_once(Ok(Config::muxer(stream, yamux::Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Config {
    type Output = Muxer;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer>>;

    fn upgrade_outbound(self, stream: C, _: &'static str) -> Self::Future {
        at_once(Ok(Config::muxer(stream, yamux::Mode::Client)))
    }
}

/// Who waits for a stream to be opened.
type Opening = oneshot::Sender<yamux::Stream>;
/// How a connection ends.
type End = Result<(), yamux::ConnectionError>;

/// The connection at work, in a task of its own: each packet wakes it, and libp2p's task of a connection asks all
/// behaviours whenever it is woken.
struct Task<C> {
    connection: yamux::Connection<Joined<C>>,
    requests: mpsc::UnboundedReceiver<Opening>,
    /// A request that was begun.
    opening: Option<Opening>,
    incoming: mpsc::Sender<yamux::Stream>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Task<C> {
    /// Runs until the connection has ended, or has been closed because nobody requests streams any more.
    async fn run(mut self) -> End {
        poll_fn(|cx| self.poll(cx)).await?;
        poll_fn(|cx| self.connection.poll_close(cx)).await
    }

    /// Ready when the connection is to be closed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.poll_open(cx)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let next = ready!(self.connection.poll_next_inbound(cx));
            let stream = next.unwrap_or(Err(yamux::ConnectionError::Closed))?;
            // Yamux lets a peer open no more than fit. Should one be dropped, it is reset.
            let _ = self.incoming.try_send(stream);
        }
    }

    /// Opens what is requested. Ready when nothing ever will be.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if self.opening.is_none() {
                match ready!(self.requests.poll_recv(cx)) {
                    Some(opening) => self.opening = Some(opening),
                    None => return Poll::Ready(Ok(())),
                }
            }
            let stream = ready!(self.connection.poll_new_outbound(cx))?;
            if let Some(opening) = self.opening.take() {
                // Whoever has gone drops it, which resets it.
                let _ = opening.send(stream);
            }
        }
    }
}

/// One connection, as libp2p sees it.
pub(super) struct Muxer {
    incoming: mpsc::Receiver<yamux::Stream>,
    /// Nothing when the connection is being closed.
    requests: Option<mpsc::UnboundedSender<Opening>>,
    /// A stream that was requested, and its place.
    opening: Option<(oneshot::Receiver<yamux::Stream>, Option<OwnedSemaphorePermit>)>,
    /// As many permits as this side may open further streams. Yamux gives the connection up when there are too many.
    room: PollSemaphore,
    task: Fuse<AbortOnDropHandle<End>>,
}

impl Muxer {
    /// Ready when the task has ended.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        // One that has ended and told so, or panicked, is closed.
        if self.task.is_terminated() {
            return Poll::Ready(Err(yamux::ConnectionError::Closed));
        }
        ready!(self.task.poll_unpin(cx)).unwrap_or(Err(yamux::ConnectionError::Closed)).into()
    }
}

impl StreamMuxer for Muxer {
    type Substream = Substream;
    type Error = yamux::ConnectionError;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Substream, Self::Error>> {
        match ready!(self.incoming.poll_recv(cx)) {
            Some(stream) => Poll::Ready(Ok(Substream::new(stream, None))),
            // The task has ended, and `poll` says why.
            None => Poll::Pending,
        }
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Substream, Self::Error>> {
        let this = &mut *self;
        if this.opening.is_none() {
            // It is never closed, so there is one some time.
            let place = ready!(this.room.poll_acquire(cx));
            let (reply, opened) = oneshot::channel();
            let requests = this.requests.as_ref().ok_or(yamux::ConnectionError::Closed)?;
            // If the task has ended, dropping the request says so.
            let _ = requests.send(reply);
            this.opening = Some((opened, place));
        }
        let Some((opened, place)) = &mut this.opening else { return Poll::Pending };
        let stream = ready!(opened.poll_unpin(cx)).map_err(|_| yamux::ConnectionError::Closed);
        let place = place.take();
        this.opening = None;
        Poll::Ready(stream.map(|stream| Substream::new(stream, place)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.requests = None;
        if self.task.is_terminated() {
            return Poll::Ready(Ok(()));
        }
        self.poll_end(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        let end = ready!(self.poll_end(cx));
        Poll::Ready(Err(end.err().unwrap_or(yamux::ConnectionError::Closed)))
    }
}

/// One stream, and its place among those that this side has opened.
pub(super) struct Substream {
    stream: yamux::Stream,
    /// This side writes no more.
    is_finished: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Substream {
    fn new(stream: yamux::Stream, place: Option<OwnedSemaphorePermit>) -> Substream {
        Substream { stream, is_finished: false, _place: place }
    }
}

impl AsyncRead for Substream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        // Yamux tells no end from a connection that was lost, but only the latter also ends what this side writes. Who negotiates
        // a protocol would take the end for a refusal.
        if read == 0 && !buffer.is_empty() && !self.is_finished && self.stream.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(read))
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
        self.is_finished = true;
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
