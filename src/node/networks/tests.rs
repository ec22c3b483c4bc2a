//! Peers that do not keep their word.

use tokio::sync::mpsc;

use super::*;
use crate::crypto::SecretKey;
use crate::log::{EntryBody, Publish};
use crate::net;
use crate::store::{self, Store};

pub(super) fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes([seed; 32])
}

/// A node's connections, and the entries that its peers submit.
pub(super) async fn start_net(
    dir: &std::path::Path,
    seed: u8,
    registry: &Registry,
) -> (Net, mpsc::Receiver<Submission>) {
    let store = Store::open(&dir.join("store"), store::Options { cache_max_bytes: 1 << 20 }).unwrap();
    let (sender, inbox) = mpsc::channel(1);
    let listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    let options = net::Options { mdns: false, max_peers: 8, ..net::Options::new(key(seed), listen) };
    (Net::start(options, store, registry.clone(), sender).await.unwrap(), inbox)
}

fn found_network(dir: &std::path::Path, founder: &SecretKey, registry: &Registry) -> Genesis {
    let members = ValidatorSet::new(vec![Member { key: founder.public(), weight: 1 }]).unwrap();
    let document = GenesisDoc::new("test".parse().unwrap(), [0; 16], now_ms(), members);
    let log = LogStore::open(&dir.join("log.redb")).unwrap();
    registry.insert(Arc::new(Chain::open(log, &document).unwrap()));
    document.id()
}

/// A follower once believed any peer that said "decided at height 1", and printed the certificate of whatever was
/// decided there.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_decided_when_it_is_in_the_log_and_not_when_a_peer_says_so() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let registry = Registry::default();
    let genesis = found_network(there.path(), &key(1), &registry);
    let (liar, mut inbox) = start_net(there.path(), 1, &registry).await;
    tokio::spawn(async move {
        while let Some(submission) = inbox.recv().await {
            let entry = Entry::decode(&submission.entry).unwrap().id();
            let _ = submission.reply.send(Ok(Submitted { height: 1, round: 0, entry }));
        }
    });

    let paths = Paths::under(here.path()).unwrap();
    paths.create().unwrap();
    let state = Arc::new(State::open(&paths.state()).unwrap());
    let own = Registry::default();
    let (net, _inbox) = start_net(here.path(), 2, &own).await;
    let stop = CancellationToken::new();
    let networks =
        Networks::open(&paths, Keys::of(&paths, key(2)), state, own, net.clone(), false, stop).await.unwrap();
    let chain = networks.join(genesis, &liar.addresses()).await.unwrap().chain;

    let body = EntryBody::Publish(Publish {
        name: "data".parse().unwrap(),
        version: "v1".parse().unwrap(),
        snapshot: crate::id::SnapshotId::of(b""),
        bytes: 0,
        inodes: 0,
        parent: None,
        replicas: Vec::new(),
        copies: None,
    });
    let entry = Entry::sign(&key(2), genesis, 1, body);
    let refused = networks.submit(&chain, entry).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Corrupt);
    assert!(refused.message.contains("the log does not hold it"), "{refused}");
    networks.stop().await;
    net.shutdown().await;
    liar.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_a_log_has_come_is_believed_of_two_peers_and_not_of_one() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let registry = Registry::default();
    let genesis = found_network(there.path(), &key(1), &registry);
    let (one, _submissions) = start_net(&there.path().join("one"), 1, &registry).await;
    let (other, _submissions) = start_net(&there.path().join("other"), 3, &registry).await;
    let (stranger, _submissions) = start_net(&there.path().join("stranger"), 4, &Registry::default()).await;

    let paths = Paths::under(here.path()).unwrap();
    paths.create().unwrap();
    let state = Arc::new(State::open(&paths.state()).unwrap());
    let own = Registry::default();
    let (net, _inbox) = start_net(here.path(), 2, &own).await;
    let stop = CancellationToken::new();
    let networks =
        Networks::open(&paths, Keys::of(&paths, key(2)), state, own, net.clone(), false, stop).await.unwrap();
    let chain = networks.join(genesis, &one.addresses()).await.unwrap().chain;
    // Somebody who knows nothing of the log is no second one.
    net.connect(&stranger.addresses()[0]).await.unwrap();
    let refused = networks.quorum(&chain).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unreachable);
    assert!(refused.message.contains("1 of the connected peers") && refused.hint.is_some(), "{refused}");
    net.connect(&other.addresses()[0]).await.unwrap();
    let quorum = networks.quorum(&chain).await.unwrap();
    assert_eq!((quorum.peers, quorum.agreed, quorum.height), (2, 2, 0));
    networks.stop().await;
    for net in [net, one, other, stranger] {
        net.shutdown().await;
    }
}

/// What others say of other logs, or have said before, wakes nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_woken_by_a_head_of_its_own_log_that_it_does_not_have() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::default();
    let genesis = found_network(dir.path(), &key(1), &registry);
    let chain = registry.get(&genesis).unwrap();
    let (heads, mut heard) = tokio::sync::broadcast::channel(8);
    let woken = tokio::spawn(async move { follow::news(&chain, &mut heard).await });
    heads.send((Genesis::from_bytes([9; 32]), 5)).unwrap();
    heads.send((genesis, 0)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !heads.is_empty() {
        assert!(Instant::now() < deadline, "the heads are looked at");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!woken.is_finished());
    heads.send((genesis, 1)).unwrap();
    tokio::time::timeout(Duration::from_secs(20), woken).await.expect("it is woken").unwrap();
}
