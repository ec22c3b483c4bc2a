//! Links of a modest rate for nodes of one process.
//!
//! What a node sends or receives through TCP passes its own link, which all its connections share: each piece takes its turn, in
//! the order of asking, and as long as the link needs for it. A link that stood idle lets one piece through at once, as a token
//! bucket does: clocks wake a little late, and without that a single stream got 0.81 of the rate.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncWrite};
use libp2p::PeerId;
use libp2p::core::transport::Transport;
use libp2p::identity::Keypair;
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes that pass at a time.
const PIECE: usize = 8 << 10;

/// The links of the nodes of this process that have one.
static LINKS: LazyLock<Mutex<HashMap<PeerId, Arc<Link>>>> = LazyLock::new(Mutex::default);

/// What one node has to the rest of the world.
pub(in crate::net) struct Link {
    /// Bytes a second, in either direction.
    rate: f64,
    /// When each direction is free again: sending, receiving.
    free: [Mutex<Instant>; 2],
    sent: AtomicU64,
}

impl Link {
    /// The link of a node that is not started yet.
    pub(super) fn new(keypair: &Keypair, rate: u64) -> Arc<Link> {
        let free = [Mutex::new(Instant::now()), Mutex::new(Instant::now())];
        let link = Arc::new(Link { rate: rate as f64, free, sent: AtomicU64::new(0) });
        LINKS.lock().unwrap().insert(keypair.public().to_peer_id(), link.clone());
        link
    }

    /// Bytes sent so far, those of TLS, Yamux and all protocols included.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// When `bytes` that ask for their turn now are through.
    fn take(&self, direction: usize, bytes: usize) -> Instant {
        let mut free = self.free[direction].lock().unwrap();
        *free = (*free).max(Instant::now() - self.takes(PIECE)) + self.takes(bytes);
        *free
    }

    fn takes(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.rate)
    }
}

/// A transport whose streams pass the link of the node whose key this is.
pub(in crate::net) fn linked<T>(
    transport: T,
    keypair: &Keypair,
) -> impl Transport<Output = Linked<T::Output>, Error = T::Error, Dial: Send, ListenerUpgrade: Send>
+ Send
+ Unpin
+ use<T>
where
    T: Transport<Dial: Send, ListenerUpgrade: Send> + Send + Unpin + 'static,
{
    let link = LINKS.lock().unwrap().get(&keypair.public().to_peer_id()).cloned();
    transport.map(move |stream, _| Linked { stream, link, turns: [None, None] })
}

/// One stream of bytes, and the link that it passes, if there is one.
pub(in crate::net) struct Linked<C> {
    stream: C,
    link: Option<Arc<Link>>,
    /// When what is being sent is through, and its bytes; when what was received last is.
    turns: [Option<(Pin<Box<Sleep>>, usize)>; 2],
}

impl<C: AsyncRead + Unpin> AsyncRead for Linked<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(link) = &this.link else { return Pin::new(&mut this.stream).poll_read(cx, buffer) };
        if let Some((turn, _)) = &mut this.turns[1] {
            ready!(turn.as_mut().poll(cx));
            this.turns[1] = None;
        }
        let len = buffer.len().min(PIECE);
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer[..len]))?;
        this.turns[1] = Some((Box::pin(sleep_until(link.take(1, read))), read));
        Poll::Ready(Ok(read))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Linked<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(link) = &this.link else { return Pin::new(&mut this.stream).poll_write(cx, bytes) };
        let (turn, len) = this.turns[0].get_or_insert_with(|| {
            let len = bytes.len().min(PIECE);
            (Box::pin(sleep_until(link.take(0, len))), len)
        });
        ready!(turn.as_mut().poll(cx));
        let len = (*len).min(bytes.len());
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &bytes[..len]))?;
        link.sent.fetch_add(written as u64, Ordering::Relaxed);
        this.turns[0] = None;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// The best of a few tries, as the machine does other things too.
#[tokio::test]
async fn a_single_stream_gets_the_rate_of_its_link_and_no_more() {
    use futures::io::AsyncWriteExt;

    const SIZE: usize = 400 << 10;
    let mut best = f64::MAX;
    for _ in 0..5 {
        let link = Link::new(&Keypair::generate_ed25519(), 1_000_000);
        let mut stream =
            Linked { stream: futures::io::sink(), link: Some(link.clone()), turns: [None, None] };
        let begun = Instant::now();
        stream.write_all(&vec![0; SIZE]).await.unwrap();
        assert_eq!(link.sent(), SIZE as u64);
        let took = begun.elapsed().as_secs_f64();
        assert!(took * 1e6 >= (SIZE - PIECE) as f64, "{took} s for {SIZE} bytes");
        best = took.min(best);
    }
    assert!(best * 1e6 <= SIZE as f64 * 1.08, "{best} s for {SIZE} bytes");
}
