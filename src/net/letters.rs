//! Messages between the validators of a network: `/bcai/validator/1`.
//!
//! Owns: one long-lived stream in each direction with every other validator, opened again whenever it is lost, and the
//! queues in front of them.
//! Must not know: what a message says, or when one is due.
//! Invariant: nothing here makes a validator wait: a queue that is full loses its oldest message. Of each peer, at most
//! [`HELD`] bytes have come and are not taken.
//! Trust: only members of the network's present validator set are heard, and a member is its peer id, which TLS or Noise
//! has proven. What it says is bytes.
//! Threads: one task for each network and each validator of it, one for each stream that came.
//!
//! A stream carries one way. It begins with the 32 bytes of the network's id; then follow messages, each its length
//! (4 bytes, little-endian) and that many bytes.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::{PeerId, Stream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::callers;
use super::shared::{Shared, VALIDATOR_PROTOCOL};
use super::streams::{Incoming, Route};
use crate::chain::{Chain, Registry};
use crate::crypto::PublicKey;
use crate::id::{Genesis, ID_LEN};
use crate::log::{MAX_BLOCK_LEN, MAX_VALIDATORS, ValidatorSet};

/// The longest message, in bytes: a block and what is said about it.
pub const MAX_LETTER: usize = MAX_BLOCK_LEN + (64 << 10);
/// Bytes that have come of one peer and are not taken yet.
const HELD: usize = 2 * MAX_LETTER;
/// Messages, and bytes of them, that wait for one peer.
const QUEUED: usize = 1024;
const QUEUED_BYTES: usize = 8 << 20;
/// Streams that are heard at the same time, in all and of one peer: an old one may not have noticed its end.
const MAX_STREAMS: usize = 2 * MAX_VALIDATORS;
const MAX_STREAMS_EACH: usize = 8;
/// How long a stream may take to say which network it is of, and a message that has begun to pass.
const OPENING: Duration = Duration::from_secs(10);
const STALLED: Duration = Duration::from_secs(30);
/// The first and the longest pause before a stream is opened again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What a validator sends: to one other, or to all.
pub type Sent = (Option<PublicKey>, Bytes);
/// What a validator is sent, and by whom.
pub type Received = (PublicKey, Bytes);

/// The networks in which this node is a validator.
pub(super) struct Letters {
    chains: Registry,
    inboxes: Mutex<HashMap<Genesis, Arc<Inbox>>>,
}

/// Where what others say in one network goes.
struct Inbox {
    chain: Arc<Chain>,
    letters: mpsc::Sender<Received>,
    rooms: Rooms,
}

/// Which stream of each peer is heard, and how much of what came on it and on those before is still held.
#[derive(Default)]
struct Rooms(Mutex<HashMap<PeerId, Heard>>);

/// One peer that is heard.
struct Heard {
    room: Arc<Semaphore>,
    /// Ends the stream that is heard, when a later one takes its place.
    current: CancellationToken,
}

/// A message with the room that it takes up until it is dropped.
struct Held {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What waits for each other validator, and what ends the sending of it.
type Outboxes = HashMap<PublicKey, (Arc<Outbox>, CancellationToken)>;

/// What waits for one peer.
#[derive(Default)]
struct Outbox {
    queue: Mutex<(VecDeque<Bytes>, usize)>,
    filled: Notify,
}

impl Letters {
    pub(super) fn new(chains: Registry) -> Letters {
        Letters { chains, inboxes: Mutex::default() }
    }

    fn inboxes(&self) -> MutexGuard<'_, HashMap<Genesis, Arc<Inbox>>> {
        // One entry is changed at a time.
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The peer id of a key; none of bytes that are not a point of the curve.
pub(super) fn peer_of(key: &PublicKey) -> Option<PeerId> {
    let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(key.as_bytes()).ok()?;
    Some(libp2p::identity::PublicKey::from(key).to_peer_id())
}

impl Inbox {
    /// The key of a peer, if it is a validator now.
    fn member(&self, peer: &PeerId) -> Option<PublicKey> {
        let ledger = self.chain.ledger();
        ledger.validators().members().iter().map(|member| member.key).find(|key| peer_of(key) == Some(*peer))
    }

    fn is_member(&self, key: &PublicKey) -> bool {
        self.chain.ledger().validators().get(key).is_some()
    }
}

impl Rooms {
    /// Makes a stream of `peer` the one that is heard.
    fn begin(&self, peer: PeerId) -> (Arc<Semaphore>, CancellationToken) {
        // Replacing an entry is one step.
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever is neither heard nor has anything held begins anew; others would get more room by coming again.
        peers.retain(|_, heard| !heard.current.is_cancelled() || heard.room.available_permits() < HELD);
        let current = CancellationToken::new();
        let room = match peers.get(&peer) {
            Some(before) => {
                before.current.cancel();
                before.room.clone()
            }
            None => Arc::new(Semaphore::new(HELD)),
        };
        peers.insert(peer, Heard { room: room.clone(), current: current.clone() });
        (room, current)
    }
}

impl Outbox {
    fn queue(&self) -> MutexGuard<'_, (VecDeque<Bytes>, usize)> {
        // A panic leaves at most a count that is too large.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, bytes: Bytes) {
        let mut queue = self.queue();
        queue.1 += bytes.len();
        queue.0.push_back(bytes);
        while queue.0.len() > QUEUED || queue.1 > QUEUED_BYTES {
            let gone = queue.0.pop_front().map_or(0, |gone| gone.len());
            queue.1 -= gone;
        }
        self.filled.notify_one();
    }

    fn pop(&self) -> Option<Bytes> {
        let mut queue = self.queue();
        let bytes = queue.0.pop_front()?;
        queue.1 -= bytes.len();
        Some(bytes)
    }
}

/// Carries what a validator of `genesis` sends and is sent, until its sending end is dropped.
pub(super) async fn carry(
    shared: Arc<Shared>,
    genesis: Genesis,
    mut outgoing: mpsc::Receiver<Sent>,
    incoming: mpsc::Sender<Received>,
) {
    let Some(chain) = shared.letters.chains.get(&genesis) else { return };
    let inbox = Arc::new(Inbox { chain, letters: incoming, rooms: Rooms::default() });
    shared.letters.inboxes().insert(genesis, inbox.clone());
    let ended = shared.stop.child_token();
    let mut outboxes = Outboxes::new();
    let mut ledgers = inbox.chain.subscribe();
    ledgers.mark_changed();
    loop {
        tokio::select! {
            changed = ledgers.changed() => {
                if changed.is_err() {
                    break;
                }
                let ledger = ledgers.borrow_and_update().clone();
                address(&shared, genesis, ledger.validators(), &mut outboxes, &ended);
            }
            sent = outgoing.recv() => match sent {
                Some((to, bytes)) => {
                    let wanted = outboxes.iter().filter(|(key, _)| to.is_none_or(|to| to == **key));
                    wanted.for_each(|(_, (outbox, _))| outbox.push(bytes.clone()));
                }
                None => break,
            },
        }
    }
    ended.cancel();
    shared.letters.inboxes().retain(|_, other| !Arc::ptr_eq(other, &inbox));
}

/// Begins to send to those who are in the set now, and ends it with those who are not.
fn address(
    shared: &Arc<Shared>,
    genesis: Genesis,
    set: &ValidatorSet,
    outboxes: &mut Outboxes,
    ended: &CancellationToken,
) {
    outboxes.retain(|key, (_, ended)| {
        let stays = set.get(key).is_some();
        if !stays {
            ended.cancel();
        }
        stays
    });
    for member in set.members() {
        if outboxes.contains_key(&member.key) {
            continue;
        }
        let Some(peer) = peer_of(&member.key).filter(|peer| *peer != shared.me) else { continue };
        let (outbox, ended) = (Arc::new(Outbox::default()), ended.child_token());
        let sending = send(shared.clone(), genesis, peer, outbox.clone());
        shared.tasks.spawn(ended.clone().run_until_cancelled_owned(sending));
        outboxes.insert(member.key, (outbox, ended));
    }
}

fn pauses() -> ExponentialBackoff {
    let (min, max) = PAUSES;
    let pauses = ExponentialBuilder::default().with_min_delay(min).with_max_delay(max);
    pauses.without_max_times().with_jitter().build()
}

/// Keeps a stream to one peer open, and writes what waits for it.
async fn send(shared: Arc<Shared>, genesis: Genesis, peer: PeerId, outbox: Arc<Outbox>) {
    let mut pause = pauses();
    // What was taken from the queue and may not have arrived: it is written again on the next stream.
    let mut unsent = None;
    loop {
        if shared.table.is_connected(&peer) {
            let before = unsent.clone();
            let Err(error) = write_all(&shared, genesis, peer, &outbox, &mut unsent).await;
            tracing::debug!(%peer, %error, "no stream to a validator");
            if unsent != before {
                pause = pauses();
            }
        }
        tokio::time::sleep(pause.next().unwrap_or(PAUSES.1)).await;
    }
}

async fn write_all(
    shared: &Shared,
    genesis: Genesis,
    peer: PeerId,
    outbox: &Outbox,
    unsent: &mut Option<Bytes>,
) -> io::Result<std::convert::Infallible> {
    // On a connection of its own, so that no vote stands behind the data of objects.
    let opened = shared.control.open(peer, VALIDATOR_PROTOCOL, Route::Urgent).await;
    let (mut reader, mut writer) = opened.map_err(io::Error::other)?.split();
    writer.write_all(genesis.as_bytes()).await?;
    writer.flush().await?;
    let mut nothing = [0];
    loop {
        if unsent.is_none() {
            *unsent = outbox.pop();
        }
        let Some(bytes) = unsent else {
            writer.flush().await?;
            tokio::select! {
                () = outbox.filled.notified() => continue,
                // Nothing is ever said here: the other side has closed the stream.
                end = reader.read(&mut nothing) => return Err(end.err().unwrap_or_else(|| {
                    io::Error::new(io::ErrorKind::ConnectionReset, "the validator does not listen")
                })),
            }
        };
        let writing = async {
            writer.write_all(&(bytes.len() as u32).to_le_bytes()).await?;
            writer.write_all(bytes).await
        };
        timeout(STALLED, writing).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        *unsent = None;
    }
}

/// Hears the streams that validators open.
pub(super) async fn accept(shared: Arc<Shared>, incoming: Incoming) {
    let serve = |shared: Arc<Shared>, peer, stream| async move {
        if let Err(error) = hear(&shared, peer, stream).await {
            tracing::debug!(%peer, %error, "a validator is not heard any more");
        }
    };
    callers::each(shared, incoming, (MAX_STREAMS, MAX_STREAMS_EACH), serve).await;
}

async fn hear(shared: &Shared, peer: PeerId, mut stream: Stream) -> io::Result<()> {
    let mut genesis = [0; ID_LEN];
    timeout(OPENING, stream.read_exact(&mut genesis)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let inbox = shared.letters.inboxes().get(&Genesis::from_bytes(genesis)).cloned();
    let stranger = || io::Error::new(io::ErrorKind::PermissionDenied, "it is no validator of this network");
    let inbox = inbox.ok_or_else(stranger)?;
    let key = inbox.member(&peer).ok_or_else(stranger)?;
    let (room, current) = inbox.rooms.begin(peer);
    let hearing = async {
        loop {
            let letter = read(&mut stream, &room).await?;
            if !inbox.is_member(&key) {
                return Err(stranger());
            }
            // While the validator is behind with its work, the peer waits.
            if inbox.letters.send((key, letter)).await.is_err() {
                return Ok(());
            }
        }
    };
    let heard = current.run_until_cancelled(hearing).await.unwrap_or(Ok(()));
    current.cancel();
    heard
}

/// The next message, once there is room for it.
async fn read(stream: &mut Stream, room: &Arc<Semaphore>) -> io::Result<Bytes> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).await?;
    let len = u32::from_le_bytes(len) as usize;
    if len == 0 || len > MAX_LETTER {
        let text = format!("a message of {len} bytes is outside 1 to {MAX_LETTER}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    // It fits, being at most half of all room; and no semaphore here is ever closed.
    let held = room.clone().acquire_many_owned(len as u32).await.map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    // Grows as bytes come, so that a length alone costs nothing.
    let mut rest = stream.take(len as u64);
    timeout(STALLED, rest.read_to_end(&mut bytes)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if bytes.len() < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Bytes::from_owner(Held { bytes, _room: held }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that came again was given all its room anew as soon as another one had come, while what it had sent before was
    /// still held: one hostile validator could have as much held as the channel has places.
    #[test]
    fn coming_again_gives_no_more_room() {
        let rooms = Rooms::default();
        let [a, b] = [(); 2].map(|()| PeerId::random());
        let (room, current) = rooms.begin(a);
        let held = room.clone().try_acquire_many_owned(HELD as u32).unwrap();
        current.cancel();
        rooms.begin(b);
        assert_eq!(rooms.begin(a).0.available_permits(), 0);
        rooms.begin(a).1.cancel();
        drop(held);
        rooms.begin(b);
        assert_eq!(rooms.0.lock().unwrap().len(), 1, "what is not needed any more is forgotten");
    }

    #[test]
    fn a_later_stream_takes_the_place_of_an_earlier_one() {
        let (rooms, peer) = (Rooms::default(), PeerId::random());
        let (_, first) = rooms.begin(peer);
        let (_, second) = rooms.begin(peer);
        assert!(first.is_cancelled() && !second.is_cancelled());
    }

    #[test]
    fn a_full_queue_loses_its_oldest() {
        let outbox = Outbox::default();
        let message = |n: u8| Bytes::from(vec![n; QUEUED_BYTES / 3]);
        (0..4).for_each(|n| outbox.push(message(n)));
        assert_eq!(outbox.pop(), Some(message(1)));
        let outbox = Outbox::default();
        (0..=QUEUED).for_each(|n| outbox.push(Bytes::from(n.to_string())));
        assert_eq!(outbox.pop(), Some(Bytes::from("1")));
    }
}
