//! What validators say to each other, and who else tries to.

use std::path::Path;

use futures::io::AsyncReadExt;
use libp2p::Stream;

use super::raw::{Raw, say};
use super::*;
use crate::chain::Chain;
use crate::id::Genesis;
use crate::log::{GenesisDoc, Validator, ValidatorSet};
use crate::net::shared::VALIDATOR_PROTOCOL;
use crate::net::streams::Route;
use crate::store::LogStore;

const PATIENCE: Duration = Duration::from_secs(20);

/// The log of a network that the keys 1 and 2 decide.
fn chain(dir: &Path) -> Arc<Chain> {
    let members = [1, 2].map(|seed| Validator { key: key(seed).public(), weight: 1 });
    let validators = ValidatorSet::new(members.to_vec()).unwrap();
    let document = GenesisDoc::new("test".parse().unwrap(), [1; 16], 1_000, validators);
    Arc::new(Chain::open(LogStore::open(&dir.join("log.redb")).unwrap(), &document).unwrap())
}

/// A validator's end of what is carried.
struct End {
    genesis: Genesis,
    sent: mpsc::Sender<Sent>,
    received: mpsc::Receiver<Received>,
}

fn carry(node: &TestNode) -> End {
    let chain = chain(node.dir.path());
    node.chains.insert(chain.clone());
    let (sent, outgoing) = mpsc::channel(16);
    let (incoming, received) = mpsc::channel(16);
    node.net.carry(chain.genesis(), outgoing, incoming);
    End { genesis: chain.genesis(), sent, received }
}

impl End {
    async fn next(&mut self) -> Received {
        tokio::time::timeout(PATIENCE, self.received.recv()).await.expect("a message comes").unwrap()
    }
}

/// Opens a stream, says which network it is of, and begins a message of `len` bytes.
async fn begin(raw: &mut Raw, peer: &str, genesis: Genesis, len: u32) -> Stream {
    let mut stream =
        raw.control.open(peer.parse().unwrap(), VALIDATOR_PROTOCOL, Route::Shared).await.unwrap();
    say(&mut stream, &[genesis.as_bytes().as_slice(), &len.to_le_bytes()].concat()).await;
    stream
}

/// Waits until the other side has given a stream up.
async fn given_up(stream: &mut Stream) {
    let end = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await.expect("the stream ends");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validators_hear_each_other_whoever_has_dialled() {
    let (one, two) = (start(1).await, start(2).await);
    let (mut at_one, mut at_two) = (carry(&one), carry(&two));
    one.connect(&two).await;
    at_one.sent.send((None, Bytes::from_static(b"to all"))).await.unwrap();
    assert_eq!(at_two.next().await, (key(1).public(), Bytes::from_static(b"to all")));
    at_two.sent.send((Some(key(1).public()), Bytes::from_static(b"to one"))).await.unwrap();
    assert_eq!(at_one.next().await, (key(2).public(), Bytes::from_static(b"to one")));
    // What is for somebody else, or for itself, goes nowhere; what follows arrives.
    for to in [key(2).public(), key(3).public()] {
        at_two.sent.send((Some(to), Bytes::from_static(b"lost"))).await.unwrap();
    }
    at_two.sent.send((None, Bytes::from(vec![7; MAX_LETTER]))).await.unwrap();
    assert_eq!(at_one.next().await.1.len(), MAX_LETTER);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_not_heard_and_a_member_only_within_its_bounds() {
    let node = start(2).await;
    let mut end = carry(&node);
    let peer = node.net.peer_id();

    let mut stranger = Raw::start(3, Some(&node.address())).await;
    let mut stream = begin(&mut stranger, &peer, end.genesis, 3).await;
    say(&mut stream, b"lie").await;
    given_up(&mut stream).await;

    let mut member = Raw::start(1, Some(&node.address())).await;
    given_up(&mut begin(&mut member, &peer, Genesis::of(b"another network"), 3).await).await;
    for len in [0, MAX_LETTER as u32 + 1, u32::MAX] {
        given_up(&mut begin(&mut member, &peer, end.genesis, len).await).await;
    }
    let mut stream = begin(&mut member, &peer, end.genesis, 4).await;
    say(&mut stream, b"true").await;
    assert_eq!(end.next().await, (key(1).public(), Bytes::from_static(b"true")), "and nothing before it");
    // A later stream of the same member takes its place.
    let mut later = begin(&mut member, &peer, end.genesis, 5).await;
    given_up(&mut stream).await;
    say(&mut later, b"later").await;
    assert_eq!(end.next().await.1, Bytes::from_static(b"later"));
}
