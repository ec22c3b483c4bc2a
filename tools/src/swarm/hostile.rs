//! A peer that speaks the protocol and means ill.
//!
//! Owns: the hidden command `peer`: connections and sessions by hand, and each way of being hostile.
//! Must not know: bcai beyond the messages of `/bcai/swarm/1`. It is stock libp2p: TCP, Noise, Yamux.
//! Invariant: it ends when its input does. What it breaks is what its kind says, and all else is as the protocol wants it.
//! Trust: it is the one not to be trusted; whom it talks to is given.
//! Threads: a runtime of two threads; a task for the connections and one for each stream.

mod flood;
mod link;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bcai::id::{Kind as Object, ObjectId};
use bcai::swarm::serving::MAX_WANTS;
use bcai::swarm::wire::{DATA_HEAD_LEN, DataHead, Header, Hello, MAX_PAYLOAD, Message, Reason, Reject};
use bcai::swarm::{Class, Lane, MAX_OBJECT};
use clap::{Args, ValueEnum};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::{PeerId, Stream};
use tokio::sync::mpsc;

use link::{Link, Reader, Writer};

/// Between two pieces of what trickles.
const TRICKLE: Duration = Duration::from_millis(250);
/// Bytes of such a piece: what it announces is not complete within any patience.
const PIECE: usize = 16;
/// Bytes that an ordinary chunk is said to have that never comes whole.
const CHUNK: u32 = 64 << 10;

/// A hostile peer, for tests and measurements
#[derive(Debug, Args)]
#[command(hide = true)]
pub struct Peer {
    kind: Kind,
    /// Nodes to connect to; once that is done, a line says who this is
    #[arg(long)]
    dial: Vec<String>,
    #[arg(long, default_value = "/ip4/0.0.0.0/tcp/0")]
    listen: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Answers a want of a chunk with other bytes; of directories it has none
    Liar,
    /// Sends a few bytes a second of every chunk that is wanted
    Slow,
    /// The same, of chunks that are said to be as large as can be: the credit for them is missing elsewhere
    Hoarding,
    /// Takes every want and answers none
    Stalling,
    /// Has nothing, and asks for more than it may, on more streams than it may, again and again
    Flooding,
}

impl Peer {
    pub fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let mut link = Link::start(&self.listen, &self.dial).await?;
            println!("{}", serde_json::json!({ "peer_id": link.me.to_string(), "address": link.address }));
            if self.kind == Kind::Flooding {
                for victim in link.dialled.clone() {
                    tokio::spawn(flood::flood(link.control.clone(), victim));
                }
            }
            let server = Arc::new(Server { kind: self.kind, sessions: Mutex::default() });
            let end = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin().lock(), &mut io::sink()));
            tokio::select! {
                end = end => end?.map(drop).context("cannot read the standard input"),
                () = server.accept(&mut link) => Ok(()),
            }
        })?;
        // A thread that reads the standard input cannot be told to stop.
        runtime.shutdown_background();
        Ok(())
    }
}

/// One object that somebody wants.
struct Wanted {
    request: u64,
    /// Bytes that may be sent.
    credit: u32,
    object: ObjectId,
}

type Queue = mpsc::UnboundedSender<Wanted>;

struct Server {
    kind: Kind,
    /// Where the wants of a session go, once its lane is there.
    sessions: Mutex<HashMap<(PeerId, u64), Arc<Session>>>,
}

/// The queue of each lane, and its other end until the lane is there.
struct Session {
    queues: [Queue; 2],
    waiting: Mutex<[Option<mpsc::UnboundedReceiver<Wanted>>; 2]>,
}

impl Server {
    async fn accept(self: Arc<Self>, link: &mut Link) {
        while let Some((peer, stream)) = link.incoming().await {
            let server = self.clone();
            // Whoever leaves is no loss.
            tokio::spawn(async move { server.serve(peer, stream).await });
        }
    }

    async fn serve(&self, peer: PeerId, stream: Stream) -> io::Result<()> {
        let (mut reader, mut writer) = stream.split();
        match link::message(&mut reader).await? {
            Some(Message::Hello(hello)) => {
                let [urgent, bulk] = [mpsc::unbounded_channel(), mpsc::unbounded_channel()];
                let session = Arc::new(Session {
                    queues: [urgent.0, bulk.0],
                    waiting: Mutex::new([Some(urgent.1), Some(bulk.1)]),
                });
                self.sessions().insert((peer, hello.session), session.clone());
                let answer =
                    Hello { max_wants: MAX_WANTS as u32, features: 0, agent: "peer".into(), ..hello };
                link::write(&mut writer, &Message::Hello(answer)).await?;
                session.hear(&mut reader).await
            }
            Some(Message::Attach(attach)) => {
                let session = self.sessions().get(&(peer, attach.session)).cloned();
                let waiting = session.and_then(|session| session.take(attach.lane));
                let Some(wants) = waiting else { return Ok(()) };
                link::write(&mut writer, &Message::Attach(attach)).await?;
                self.answer(wants, &mut writer).await
            }
            _ => Ok(()),
        }
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<(PeerId, u64), Arc<Session>>> {
        // A map that lacks an entry of a thread that panicked is still a map.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers what is wanted on a lane as this kind of peer does.
    async fn answer(&self, mut wants: mpsc::UnboundedReceiver<Wanted>, lane: &mut Writer) -> io::Result<()> {
        let mut trickling = Vec::new();
        loop {
            let wanted = tokio::select! {
                wanted = wants.recv() => wanted,
                () = tokio::time::sleep(TRICKLE), if !trickling.is_empty() => {
                    for request in &trickling {
                        piece(lane, *request).await?;
                    }
                    lane.flush().await?;
                    continue;
                }
            };
            let Some(wanted) = wanted else { return Ok(()) };
            let is_chunk = wanted.object.kind == Object::Chunk;
            match self.kind {
                Kind::Stalling => {}
                Kind::Liar if is_chunk => lie(lane, &wanted).await?,
                Kind::Slow | Kind::Hoarding if is_chunk => {
                    let len = if self.kind == Kind::Slow { CHUNK } else { MAX_OBJECT };
                    head(lane, wanted.request, len, &[0; PIECE]).await?;
                    trickling.push(wanted.request);
                }
                _ => {
                    let reject = Reject { reason: Reason::Missing, requests: vec![wanted.request] };
                    link::write(lane, &Message::Reject(reject)).await?;
                }
            }
        }
    }
}

impl Session {
    /// Sorts what the other side wants, until it leaves.
    async fn hear(&self, control: &mut Reader) -> io::Result<()> {
        loop {
            let Some(Message::Want(want)) = link::message(control).await? else { continue };
            for (request, object) in (want.first..).zip(want.objects) {
                let wanted = Wanted { request, credit: want.credit, object };
                // A lane that is gone wants nothing.
                let _ = self.queues[lane_of(want.class)].send(wanted);
            }
        }
    }

    fn take(&self, lane: Lane) -> Option<mpsc::UnboundedReceiver<Wanted>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)[lane as usize].take()
    }
}

fn lane_of(class: Class) -> usize {
    class.lane() as usize
}

/// Sends a whole object of the right form and the wrong bytes.
async fn lie(lane: &mut Writer, wanted: &Wanted) -> io::Result<()> {
    let len = (wanted.credit as usize).min(MAX_PAYLOAD - DATA_HEAD_LEN);
    // Nothing that anyone publishes begins like this.
    let bytes: Vec<u8> = wanted.object.hash.iter().copied().cycle().take(len).collect();
    head(lane, wanted.request, len as u32, &bytes).await?;
    lane.flush().await
}

/// The first frame of an object of `len` bytes.
async fn head(lane: &mut Writer, request: u64, len: u32, bytes: &[u8]) -> io::Result<()> {
    let head = DataHead { codec: 0, plain_len: len, stored_len: len }.encode();
    let header = Header::data(request, true, (DATA_HEAD_LEN + bytes.len()) as u32);
    lane.write_all(&[&header.encode()[..], &head, bytes].concat()).await
}

async fn piece(lane: &mut Writer, request: u64) -> io::Result<()> {
    let header = Header::data(request, false, PIECE as u32);
    lane.write_all(&[&header.encode()[..], &[0; PIECE]].concat()).await
}
