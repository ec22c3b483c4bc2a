//! A peer under the control of a test: libp2p connections, and streams whose bytes the test writes itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Stream};
use tokio::task::AbortHandle;

use super::options;
use crate::net::frames::{self, FrameError, FrameReader};
use crate::net::shared::SWARM_PROTOCOL;
use crate::net::streams::{Control, Incoming, Route};
use crate::net::transport;
use crate::swarm::Lane;
use crate::swarm::serving::MAX_WANTS;
use crate::swarm::wire::{Attach, DATA_HEAD_LEN, DataHead, Header, Hello, MAX_PAYLOAD, Message};

pub(super) type Reader = FrameReader<ReadHalf<Stream>>;
pub(super) type Writer = WriteHalf<Stream>;

pub(super) struct Raw {
    pub(super) address: String,
    pub(super) peer: PeerId,
    pub(super) control: Control,
    incoming: Incoming,
    /// How often the last connection with a node was closed.
    closed: Arc<AtomicUsize>,
    task: AbortHandle,
}

/// Writes bytes that the other side may refuse: it may have closed the stream before all of them are
/// written, so that only what comes of them tells.
pub(super) async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    if stream.write_all(bytes).await.is_ok() {
        let _ = stream.flush().await;
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Raw {
    /// Listens, and connects to `dial` first if that is given.
    pub(super) async fn start(seed: u8, dial: Option<&str>) -> Raw {
        let mut swarm = transport::build(&options(seed, 0)).unwrap().0;
        let peer = *swarm.local_peer_id();
        let control = swarm.behaviour().streams.control();
        let incoming = control.accept(SWARM_PROTOCOL);
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.with_p2p(peer).unwrap().to_string();
            }
        };
        if let Some(dial) = dial {
            swarm.dial(dial.parse::<Multiaddr>().unwrap()).unwrap();
            while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
        }
        let closed = Arc::new(AtomicUsize::new(0));
        let counter = closed.clone();
        let task = tokio::spawn(async move {
            loop {
                if let SwarmEvent::ConnectionClosed { num_established: 0, .. } =
                    swarm.select_next_some().await
                {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Raw { peer, address, control, incoming, closed, task: task.abort_handle() }
    }

    /// Becomes a node that knows nothing of objects.
    pub(super) fn unlearn(&mut self) {
        self.incoming = self.control.accept(libp2p::StreamProtocol::new("/another/1"));
    }

    /// The next stream, with nothing read of it.
    pub(super) async fn stream(&mut self) -> Stream {
        self.incoming.next().await.unwrap().1
    }

    /// How often a node was lost, with all of its connections.
    pub(super) fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) async fn open(&mut self, peer: &str) -> (Reader, Writer) {
        let stream = self.control.open(peer.parse().unwrap(), SWARM_PROTOCOL, Route::Shared).await.unwrap();
        let (reader, writer) = stream.split();
        (FrameReader::new(reader), writer)
    }

    /// Accepts a session that a node opens.
    pub(super) async fn accept(&mut self) -> Served {
        let mut control = None;
        let mut lanes = HashMap::new();
        while control.is_none() || lanes.len() < 2 {
            let (_, stream) = self.incoming.next().await.unwrap();
            let (reader, mut writer) = stream.split();
            let mut reader = FrameReader::new(reader);
            // A stream that has broken makes the node begin anew.
            let Ok(first) = reader.message("Hello or Attach").await else { continue };
            if frames::write(&mut writer, &first).await.is_err() {
                continue;
            }
            match first {
                Message::Hello(_) => {
                    lanes.clear();
                    control = Some((reader, writer));
                }
                Message::Attach(attach) => drop(lanes.insert(attach.lane, (reader, writer))),
                other => panic!("{other:?}"),
            }
        }
        let (control, _control_writer) = control.unwrap();
        let urgent = lanes.remove(&Lane::Urgent).unwrap();
        let bulk = lanes.remove(&Lane::Bulk).unwrap();
        Served { control, _control_writer, urgent, bulk }
    }

    /// Opens a session with a node, as its reader.
    pub(super) async fn session(&mut self, peer: &str) -> Asking {
        self.session_with(peer, 0).await
    }

    /// The same, with what the reader says that it can.
    pub(super) async fn session_with(&mut self, peer: &str, features: u64) -> Asking {
        let (mut control_reader, mut control) = self.open(peer).await;
        let hello = Hello { session: 77, features, max_wants: MAX_WANTS as u32, agent: "raw".into() };
        frames::write(&mut control, &Message::Hello(hello)).await.unwrap();
        assert!(matches!(control_reader.message("Hello").await, Ok(Message::Hello(_))));
        let mut lanes = Vec::new();
        for lane in [Lane::Urgent, Lane::Bulk] {
            let (mut reader, mut writer) = self.open(peer).await;
            let attach = Message::Attach(Attach { session: 77, lane });
            frames::write(&mut writer, &attach).await.unwrap();
            assert_eq!(reader.message("Attach").await.unwrap(), attach);
            lanes.push((reader, writer));
        }
        let bulk = lanes.pop().unwrap();
        let urgent = lanes.pop().unwrap();
        Asking { control, control_reader, urgent, bulk }
    }
}

/// A session in which a node asks the test.
pub(super) struct Served {
    pub(super) control: Reader,
    _control_writer: Writer,
    pub(super) urgent: (Reader, Writer),
    pub(super) bulk: (Reader, Writer),
}

impl Served {
    /// The next thing that the node says.
    pub(super) async fn heard(&mut self) -> Message {
        self.control.message("anything").await.unwrap()
    }
}

/// A session in which the test asks a node.
pub(super) struct Asking {
    pub(super) control: Writer,
    pub(super) control_reader: Reader,
    pub(super) urgent: (Reader, Writer),
    pub(super) bulk: (Reader, Writer),
}

impl Asking {
    /// Reads data of the urgent lane until it has `bytes` of content; what a frame of rejection is, it says.
    pub(super) async fn read_urgent(&mut self, bytes: usize) -> Result<(), Message> {
        let mut come = 0;
        while come < bytes {
            let (header, payload) = self.urgent.0.frame().await.unwrap();
            match header.as_data() {
                Some(true) => come += DataHead::split(payload).unwrap().1.len(),
                Some(false) => come += payload.len(),
                None => return Err(Message::decode(&header, payload).unwrap().unwrap()),
            }
        }
        assert_eq!(come, bytes, "no more than that was granted");
        Ok(())
    }
}

/// Sends `bytes` as the raw object of `request`, whole.
pub(super) async fn send(stream: &mut Writer, request: u64, bytes: &[u8]) -> std::io::Result<()> {
    let len = bytes.len() as u32;
    let head = DataHead { codec: 0, plain_len: len, stored_len: len };
    let (first, rest) = bytes.split_at(bytes.len().min(MAX_PAYLOAD - DATA_HEAD_LEN));
    let header = Header::data(request, true, (DATA_HEAD_LEN + first.len()) as u32);
    stream.write_all(&[&header.encode()[..], &head.encode(), first].concat()).await?;
    for part in rest.chunks(MAX_PAYLOAD) {
        let header = Header::data(request, false, part.len() as u32);
        stream.write_all(&[&header.encode()[..], part].concat()).await?;
    }
    stream.flush().await
}

/// Waits until the other side has closed the stream or the connection.
pub(super) async fn closed(reader: &mut Reader) {
    let end = async { while reader.frame().await.is_ok() {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), end).await.expect("the stream is closed");
}

/// The error of a stream on which something was expected.
pub(super) async fn refused(reader: &mut Reader) -> bool {
    matches!(reader.frame().await, Err(FrameError::Closed | FrameError::Io(_)))
}
