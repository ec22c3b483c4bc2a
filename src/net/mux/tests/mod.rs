//! Connections of this side with itself, with the `yamux` crate, and with peers that write frames by hand.

mod alien;
mod honest;
mod pressure;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::poll_fn;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::muxing::StreamMuxer;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use tokio_util::task::AbortOnDropHandle;

use super::frame::{Flags, HEADER_LEN, Header, Kind};
use super::stream::Substream;
use super::{Config, MuxError, Muxer};

/// How long anything may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}
type Stream = Box<dyn Pipe>;

/// Gives out and takes odd numbers of bytes, others again and again.
struct Odd<C>(C, usize);

impl<C> Odd<C> {
    fn next(&mut self) -> usize {
        self.1 = (self.1 * 7 + 3) % 4099;
        1 + self.1
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Odd<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let len = self.next().min(buffer.len());
        Pin::new(&mut self.0).poll_read(cx, &mut buffer[..len])
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Odd<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let len = self.next().min(bytes.len());
        Pin::new(&mut self.0).poll_write(cx, &bytes[..len])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// One side of a connection, whose implementation does not matter.
struct Side {
    incoming: mpsc::UnboundedReceiver<Stream>,
    requests: mpsc::UnboundedSender<oneshot::Sender<Stream>>,
    _task: AbortOnDropHandle<()>,
}

impl Side {
    fn ours(io: impl Pipe + 'static, is_client: bool) -> Side {
        let mut muxer = Config::default().muxer(io, is_client);
        Side::drive(move |cx, wants| {
            if let Poll::Ready(end) = Pin::new(&mut muxer).poll(cx) {
                return Poll::Ready(Err(end.unwrap_err().to_string()));
            }
            let mut accepted = Pin::new(&mut muxer).poll_inbound(cx);
            if accepted.is_pending() && wants {
                accepted = Pin::new(&mut muxer).poll_outbound(cx);
                return accepted.map(|stream| Ok((true, Box::new(stream.unwrap()) as Stream)));
            }
            accepted.map(|stream| Ok((false, Box::new(stream.unwrap()) as Stream)))
        })
    }

    fn theirs(io: impl Pipe + 'static, is_client: bool) -> Side {
        let mode = if is_client { yamux::Mode::Client } else { yamux::Mode::Server };
        let mut connection = yamux::Connection::new(io, yamux::Config::default(), mode);
        Side::drive(move |cx, wants| {
            if wants && let Poll::Ready(stream) = connection.poll_new_outbound(cx) {
                return Poll::Ready(Ok((true, Box::new(stream.unwrap()) as Stream)));
            }
            connection.poll_next_inbound(cx).map(|stream| match stream {
                Some(Ok(stream)) => Ok((false, Box::new(stream) as Stream)),
                Some(Err(error)) => Err(error.to_string()),
                None => Err("closed".to_owned()),
            })
        })
    }

    /// `next` gives the next stream, and whether it was opened here, which it is asked for.
    fn drive(
        mut next: impl FnMut(&mut Context<'_>, bool) -> Poll<Result<(bool, Stream), String>> + Send + 'static,
    ) -> Side {
        let (sender, incoming) = mpsc::unbounded_channel();
        let (requests, mut asked) = mpsc::unbounded_channel::<oneshot::Sender<Stream>>();
        let task = tokio::spawn(async move {
            let mut asking = None;
            loop {
                let event = poll_fn(|cx| {
                    if asking.is_none()
                        && let Poll::Ready(Some(request)) = asked.poll_recv(cx)
                    {
                        asking = Some(request);
                    }
                    next(cx, asking.is_some())
                });
                match event.await {
                    Ok((true, stream)) => drop(asking.take().unwrap().send(stream)),
                    Ok((false, stream)) => drop(sender.send(stream)),
                    Err(_) => return,
                }
            }
        });
        Side { incoming, requests, _task: AbortOnDropHandle::new(task) }
    }

    async fn open(&self) -> Stream {
        let (reply, opened) = oneshot::channel();
        self.requests.send(reply).unwrap();
        within(opened).await.unwrap()
    }

    async fn accept(&mut self) -> Stream {
        within(self.incoming.recv()).await.unwrap()
    }
}

/// All three couples with one of ours in them, over pipes of several kinds: the client comes first.
fn couples() -> Vec<(&'static str, Side, Side)> {
    let mut couples = Vec::new();
    for buffer in [1000, 1 << 20] {
        for is_odd in [false, true] {
            let pipe = || {
                let (one, other) = tokio::io::duplex(buffer);
                let wrap = |end: DuplexStream| -> Stream {
                    match is_odd {
                        true => Box::new(Odd(end.compat(), 5)),
                        false => Box::new(end.compat()),
                    }
                };
                (wrap(one), wrap(other))
            };
            let (one, other) = pipe();
            couples.push(("ours and ours", Side::ours(one, true), Side::ours(other, false)));
            let (one, other) = pipe();
            couples.push(("ours and theirs", Side::ours(one, true), Side::theirs(other, false)));
            let (one, other) = pipe();
            couples.push(("theirs and ours", Side::theirs(one, true), Side::ours(other, false)));
        }
    }
    couples
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes too long")
}

/// Waits until something holds. What it waits for happens in other tasks, which come first.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::task::yield_now().await;
    }
}

async fn open(muxer: &mut Muxer) -> Substream {
    within(poll_fn(|cx| Pin::new(&mut *muxer).poll_outbound(cx))).await.unwrap()
}

async fn accept(muxer: &mut Muxer) -> Substream {
    within(poll_fn(|cx| Pin::new(&mut *muxer).poll_inbound(cx))).await.unwrap()
}

async fn end(muxer: &mut Muxer) -> MuxError {
    within(poll_fn(|cx| Pin::new(&mut *muxer).poll(cx))).await.unwrap_err()
}

/// Two of ours, over a pipe that holds `buffer` bytes.
fn ours(buffer: usize) -> (Muxer, Muxer) {
    let (one, other) = tokio::io::duplex(buffer);
    (Config::default().muxer(one.compat(), true), Config::default().muxer(other.compat(), false))
}

/// One of ours as a server, and a client that writes its frames by hand.
fn raw(buffer: usize) -> (Muxer, Compat<DuplexStream>) {
    let (one, other) = tokio::io::duplex(buffer);
    (Config::default().muxer(one.compat(), false), other.compat())
}

fn data(stream: u32, flags: Flags, value: u32) -> Header {
    Header { kind: Kind::Data, flags, stream, value }
}

async fn send(io: &mut (impl AsyncWrite + Unpin), header: Header, body: &[u8]) {
    within(async {
        io.write_all(&header.encode()).await.unwrap();
        io.write_all(body).await.unwrap();
    })
    .await;
}

async fn receive(io: &mut (impl AsyncRead + Unpin)) -> (Header, Vec<u8>) {
    within(async {
        let mut bytes = [0; HEADER_LEN];
        io.read_exact(&mut bytes).await.unwrap();
        let header = Header::decode(&bytes).unwrap();
        let mut body = vec![0; if header.kind == Kind::Data { header.value as usize } else { 0 }];
        io.read_exact(&mut body).await.unwrap();
        (header, body)
    })
    .await
}

/// Bytes that depend on `seed`.
fn content(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251 + seed * 17) as u8).collect()
}
