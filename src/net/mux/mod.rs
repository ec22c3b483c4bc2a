//! Many streams on one secure byte stream: Yamux.
//!
//! Owns: the sizes, how a connection begins and ends, and what libp2p sees of it.
//! Must not know: what streams carry, or who is at the other end.
//! Invariant: one connection holds at most [`WINDOWS`] of what was received and not read, has at most [`MAX_STREAMS`] streams, and has taken at most [`UNSENT`]
//! from its streams that the byte stream below has not. Whoever writes more waits, and takes turns.
//! Trust: the peer may send what it likes; what breaks the protocol ends the connection.
//! Threads: a task for each connection, which ends with its [`Muxer`]; streams are for any.

mod connection;
mod entry;
mod frame;
mod incoming;
mod pieces;
mod pulse;
mod state;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{Ready, ready as at_once};
use futures::io::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use tokio_util::task::AbortOnDropHandle;

use self::connection::Task;
use self::pieces::Pool;
use self::state::Shared;
use self::stream::Substream;

/// Streams of one connection, whoever opened them.
const MAX_STREAMS: usize = 128;
/// Those that this side opens. Who wants more waits until one is closed.
const MAX_OUTGOING: usize = 48;
/// The window that each stream begins with, a matter of Yamux.
const WINDOW: u32 = 256 << 10;
/// Bytes of all windows of a connection.
const WINDOWS: usize = 64 << 20;
/// What the streams do not begin with goes to those that need more.
const GROWTH: u32 = (WINDOWS - MAX_STREAMS * WINDOW as usize) as u32;
/// Bytes that were taken from streams and not by the byte stream below.
const UNSENT: usize = 128 << 10;
/// Bytes of a frame at most, the header included: what one stream may write at a turn.
const FRAME: usize = 64 << 10;

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum MuxError {
    #[error("the connection was closed")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the peer gave the connection up with code {0}")]
    GoneAway(u32),
    #[error("the peer does not speak Yamux: a frame of version {version} and type {kind}")]
    Foreign { version: u8, kind: u8 },
    #[error("the peer sent {len} bytes on stream {stream}, whose window is {window}")]
    BeyondWindow { stream: u32, len: u32, window: u32 },
    #[error("the peer gave more credit than there can be on stream {stream}")]
    TooMuchCredit { stream: u32 },
    #[error("the peer opened stream {stream}, which it cannot")]
    BadStream { stream: u32 },
    #[error("the peer sent more on stream {stream} after its end")]
    AfterEnd { stream: u32 },
    #[error("the peer answered a ping that was not sent")]
    BadPong,
    #[error("the connection has had all the streams it can")]
    NoMoreStreams,
}

/// The upgrade to Yamux, and the memory that its connections share.
#[derive(Clone, Default)]
pub(super) struct Config {
    pool: Arc<Pool>,
}

impl Config {
    fn muxer<C>(self, stream: C, is_client: bool) -> Muxer
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shared = Arc::new(Shared::new(self.pool, is_client));
        let task = Task::new(stream, shared.clone());
        Muxer { shared, _task: AbortOnDropHandle::new(tokio::spawn(task.run())) }
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
        at_once(Ok(self.muxer(stream, false)))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Config {
    type Output = Muxer;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer>>;

    fn upgrade_outbound(self, stream: C, _: &'static str) -> Self::Future {
        at_once(Ok(self.muxer(stream, true)))
    }
}

/// One connection, as libp2p sees it. The work is done in a task of its own: each packet wakes it, and libp2p's task of a connection asks all behaviours
/// whenever it is woken.
pub(super) struct Muxer {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

impl StreamMuxer for Muxer {
    type Substream = Substream;
    type Error = MuxError;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Substream, MuxError>> {
        // If the connection has ended, `poll` says why.
        let accepted = self.shared.state().poll_accept(cx);
        accepted.map(|id| Ok(Substream::new(self.shared.clone(), id)))
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Substream, MuxError>> {
        let opened = self.shared.state().poll_open(cx);
        opened.map_ok(|id| Substream::new(self.shared.clone(), id))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), MuxError>> {
        let mut state = self.shared.state();
        state.close();
        state.poll_end(cx).map(|end| match end {
            MuxError::Closed => Ok(()),
            error => Err(error),
        })
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, MuxError>> {
        self.shared.state().poll_end(cx).map(Err)
    }
}
