//! A log that was signed twice, as a node sees it that has one side of it; and one that a node has not fetched yet.

use std::path::Path;

use super::tests::{key, start_net};
use super::*;
use crate::id::SnapshotId;
use crate::log::light::{Signed, Update};
use crate::log::{Block, Certificate, EntryBody, Publish, VoteKind, vote_bytes};
use crate::net::tests::liar::{Lies, LogLiar};

/// A log of four validators, all of whose keys are here.
struct Log {
    chain: Arc<Chain>,
    registry: Registry,
}

impl Log {
    fn new(dir: &Path, document: &GenesisDoc) -> Self {
        let chain = Arc::new(Chain::open(LogStore::open(&dir.join("log.redb")).unwrap(), document).unwrap());
        let registry = Registry::default();
        registry.insert(chain.clone());
        Self { chain, registry }
    }

    /// One height more, of the given time, signed by all.
    fn decide(&self, time_ms: u64) -> Block {
        self.decide_with(time_ms, vec![])
    }

    fn decide_with(&self, time_ms: u64, entries: Vec<Entry>) -> Block {
        let ledger = self.chain.ledger();
        let (header, body) = ledger.propose(entries, time_ms, key(1).public());
        let (height, id) = (header.height, header.id());
        let message = vote_bytes(self.chain.genesis(), VoteKind::Precommit, height, 0, Some(id));
        let votes = (1..=4).map(|seed| (key(seed).public(), key(seed).sign(&message)));
        let certificate = Certificate::assemble(ledger.validators(), height, 0, id, votes).unwrap();
        let block = Block { header, body, certificate };
        self.chain.commit(block.clone()).unwrap();
        block
    }
}

fn document(time_ms: u64) -> GenesisDoc {
    let members = (1..=4).map(|seed| Member { key: key(seed).public(), weight: 1 }).collect();
    GenesisDoc::new("test".parse().unwrap(), [0; 16], time_ms, ValidatorSet::new(members).unwrap())
}

async fn open(paths: &Paths, net: &Net, registry: Registry) -> Arc<Networks> {
    let state = Arc::new(State::open(&paths.state()).unwrap());
    Networks::open(
        paths,
        Keys::of(paths, key(9)),
        state,
        registry,
        net.clone(),
        false,
        CancellationToken::new(),
    )
    .await
    .unwrap()
}

/// A node in a home of its own that knows no log yet.
async fn wake(here: &Path) -> (Paths, Net, Arc<Networks>) {
    let paths = Paths::under(here).unwrap();
    paths.create().unwrap();
    let own = Registry::default();
    let (net, _) = start_net(here, 9, &own).await;
    let networks = open(&paths, &net, own).await;
    (paths, net, networks)
}

/// A node follows an honest log to height 3 and sleeps; then the only peer it finds has a log that parts from it after
/// height 1 and is now at height `theirs`.
async fn shown_another(theirs: u64) {
    let [good, bad, here] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let start = now_ms() - 100_000;
    let document = document(start);
    let (honest, forked) = (Log::new(good.path(), &document), Log::new(bad.path(), &document));
    forked.chain.commit(honest.decide(start + 1_000)).unwrap();
    for height in 2..=3 {
        honest.decide(start + 1_000 * height);
    }
    for height in 2..=theirs {
        forked.decide(start + 1_500 * height);
    }
    let (honest_net, _inbox) = start_net(good.path(), 11, &honest.registry).await;
    let (forked_net, mut inbox) = start_net(bad.path(), 12, &forked.registry).await;
    let genesis = document.id();
    let (paths, net, networks) = wake(here.path()).await;
    let chain = networks.join(genesis, &honest_net.addresses()).await.unwrap().chain;
    assert_eq!(chain.ledger().height(), 3);
    honest_net.shutdown().await;
    networks.check_whole(&genesis).unwrap();

    let filed = tokio::spawn(async move { inbox.recv().await.map(|submission| submission.entry) });
    let joined = networks.join(genesis, &forked_net.addresses()).await.unwrap();
    let told = joined.stale.expect("the log is not what it was");
    assert_eq!(told.kind, Kind::Corrupt);
    assert!(told.message.contains("forked at height") && told.hint.is_some(), "{told}");
    assert_eq!(chain.ledger().height(), 3, "nothing of it is taken");
    let entry = tokio::time::timeout(Duration::from_secs(20), filed).await.unwrap().unwrap().unwrap();
    assert!(matches!(Entry::decode(&entry).unwrap().body, EntryBody::Evidence(_)));

    // Nor after a restart.
    networks.stop().await;
    drop((networks, chain, joined.chain));
    let own = Registry::default();
    let networks = open(&paths, &net, own).await;
    let told = networks.check_whole(&genesis).unwrap_err();
    assert!(told.message.contains("forked at height"), "{told}");
    networks.stop().await;
    net.shutdown().await;
    forked_net.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_fork_shown_to_a_node_that_slept_is_refused_and_filed() {
    shown_another(6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_fork_is_noticed_too() {
    shown_another(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_behind_is_no_liar() {
    let [ahead, behind, here] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let start = now_ms() - 100_000;
    let document = document(start);
    let (whole, short) = (Log::new(ahead.path(), &document), Log::new(behind.path(), &document));
    short.chain.commit(whole.decide(start + 1_000)).unwrap();
    whole.decide(start + 2_000);
    let (whole_net, _inbox) = start_net(ahead.path(), 11, &whole.registry).await;
    let (short_net, _inbox) = start_net(behind.path(), 12, &short.registry).await;
    let genesis = document.id();
    let (_, net, networks) = wake(here.path()).await;
    networks.join(genesis, &whole_net.addresses()).await.unwrap();
    whole_net.shutdown().await;
    let joined = networks.join(genesis, &short_net.addresses()).await.unwrap();
    assert!(joined.stale.is_none(), "{:?}", joined.stale);
    assert_eq!(joined.chain.ledger().height(), 2);
    networks.check_whole(&genesis).unwrap();
    networks.stop().await;
    net.shutdown().await;
    short_net.shutdown().await;
}

fn publish(genesis: Genesis, version: &str, nonce: u64) -> Entry {
    let body = EntryBody::Publish(Publish {
        name: "data".parse().unwrap(),
        version: version.parse().unwrap(),
        snapshot: SnapshotId::of(version.as_bytes()),
        bytes: 1,
        inodes: 1,
        parent: None,
        replicas: Vec::new(),
        copies: None,
    });
    Entry::sign(&key(50), genesis, nonce, body)
}

/// As after joining a long log, of which nothing has come yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_shown_to_a_node_that_has_not_caught_up_and_never_goes_back() {
    let [there, rolled, here, mirror] = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let start = now_ms() - 100_000;
    let document = document(start);
    let genesis = document.id();
    let (log, old) = (Log::new(there.path(), &document), Log::new(rolled.path(), &document));
    for (height, version) in [(1, "v1"), (2, "v2")] {
        old.chain
            .commit(log.decide_with(start + 1_000 * height, vec![publish(genesis, version, height)]))
            .unwrap();
    }
    let pinned = log.decide(start + 3_000).header;
    log.decide_with(start + 4_000, vec![publish(genesis, "v4", 4)]);
    let (net_there, _inbox) = start_net(there.path(), 11, &log.registry).await;
    let (net_rolled, _inbox) = start_net(rolled.path(), 12, &old.registry).await;
    let (paths, net, networks) = wake(here.path()).await;
    net.connect(&net_there.addresses()[0]).await.unwrap();
    // A log that nobody fetches.
    let chain = Log::new(mirror.path(), &document).chain;
    let joined = Joined { chain, stale: None, behind: true };
    let named = |text: &str| text.parse::<Named>().unwrap();
    let pin = Pin { height: 3, header: pinned.id() };
    let seen = networks.shown(&joined, &named("data"), Some(pin)).await.unwrap();
    assert_eq!((seen.version.label.as_str(), seen.trusted.height()), ("v4", 4));
    let seen = networks.shown(&joined, &named("data@v1"), None).await.unwrap();
    assert_eq!(seen.version.snapshot, SnapshotId::of(b"v1"));
    let nothing = networks.shown(&joined, &named("data@v9"), None).await.err().unwrap();
    assert_eq!(nothing.kind, Kind::NotFound);
    assert_eq!(joined.chain.ledger().height(), 0);
    // Neither a pin that no peer's log has reached is passed over, nor one of which only a later head was kept.
    for height in [2, 900] {
        let pin = Pin { height, header: pinned.id() };
        let refused = networks.shown(&joined, &named("data"), Some(pin)).await.err().unwrap();
        assert!(refused.message.contains(&format!("height {height}")), "{refused}");
    }

    // Another run finds only a peer whose log ends earlier.
    networks.stop().await;
    net_there.shutdown().await;
    drop(networks);
    let own = Registry::default();
    let networks = open(&paths, &net, own).await;
    net.connect(&net_rolled.addresses()[0]).await.unwrap();
    let refused = networks.shown(&joined, &named("data"), None).await.err().unwrap();
    assert!(refused.message.contains("below height 4"), "{refused}");
    networks.stop().await;
    for net in [net, net_rolled] {
        net.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_is_noticed_on_the_way() {
    let [there, here, mirror] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let start = now_ms() - 100_000;
    let document = document(start);
    let log = Log::new(there.path(), &document);
    log.decide_with(start + 1_000, vec![publish(document.id(), "v1", 1)]);
    log.decide(start + 2_000);
    let (net_there, _inbox) = start_net(there.path(), 11, &log.registry).await;
    let (_, net, networks) = wake(here.path()).await;
    net.connect(&net_there.addresses()[0]).await.unwrap();
    let joined = Joined { chain: Log::new(mirror.path(), &document).chain, stale: None, behind: true };
    let pin = Pin { height: 1, header: crate::id::HeaderId::of(b"another") };
    let refused = networks.shown(&joined, &"data".parse().unwrap(), Some(pin)).await.err().unwrap();
    assert!(refused.kind == Kind::Corrupt && refused.message.contains("pinned"), "{refused}");
    networks.stop().await;
    for net in [net, net_there] {
        net.shutdown().await;
    }
}

/// Whoever has none of the validators' keys can only have others sign, or fewer, or a head other than that shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_certificate_is_refused_and_said_to_be_one() {
    let [there, here] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let start = now_ms() - 100_000;
    let document = document(start);
    let genesis = document.id();
    let honest = Log::new(there.path(), &document);
    honest.decide(start + 1_000);
    let (net_there, _inbox) = start_net(there.path(), 11, &honest.registry).await;
    let (_, net, networks) = wake(here.path()).await;
    let chain = networks.join(genesis, &net_there.addresses()).await.unwrap().chain;
    net_there.shutdown().await;

    let ledger = honest.chain.ledger();
    let entries = vec![publish(genesis, "forged", 1)];
    let (header, body) = ledger.propose(entries, start + 2_000, key(1).public());
    let id = header.id();
    let vote =
        |seed: u8, header| key(seed).sign(&vote_bytes(genesis, VoteKind::Precommit, 2, 0, Some(header)));
    let certificate = |votes: Vec<_>| Certificate::assemble(ledger.validators(), 2, 0, id, votes).unwrap();
    let genuine = certificate((1..=4).map(|seed| (key(seed).public(), vote(seed, id))).collect());
    // Places of validators with signatures of strangers; of one validator with those of two who signed another header.
    let strangers = {
        let mut forged = genuine.clone();
        forged.signatures.iter_mut().zip(20..).for_each(|(signature, seed)| *signature = vote(seed, id));
        forged
    };
    let another = {
        let mut forged = genuine.clone();
        let other = crate::id::HeaderId::of(b"what they did sign");
        forged.signatures.iter_mut().zip(1..).for_each(|(signature, seed)| *signature = vote(seed, other));
        forged
    };
    for (seed, forged) in [(21, strangers), (22, another)] {
        let block = Block { header: header.clone(), body: body.clone(), certificate: forged };
        let lies = Lies {
            document: document.encode(),
            head: (2, id),
            update: Update {
                signed: Signed {
                    header: block.header.clone(),
                    certificate: block.certificate.clone(),
                    validators: ledger.validators().clone(),
                },
                next: ledger.validators().clone(),
            }
            .encode(),
            blocks: vec![block.encode()],
        };
        let liar = LogLiar::start(seed, genesis, lies).await;
        let told = networks.join(genesis, std::slice::from_ref(&liar.address)).await.unwrap().stale;
        let told = told.expect("the log that is here is used, and why it is old is told");
        assert_eq!(told.kind, Kind::Corrupt);
        assert!(told.message.contains("not believed") && told.message.contains("signature"), "{told}");
        assert_eq!(chain.ledger().height(), 1);
        networks.check_whole(&genesis).unwrap();
    }
    networks.stop().await;
    net.shutdown().await;
}

/// A fork was not told of when a peer that had gone away was noticed a moment after it.
#[test]
fn that_a_peer_lies_is_told_whoever_fails_after_it() {
    let [fork, gone] = [Kind::Corrupt, Kind::Unreachable].map(|kind| Error::new(kind, "of a peer"));
    for (before, after) in [(&fork, &gone), (&gone, &fork), (&fork, &fork)] {
        assert_eq!(follow::graver(before.clone(), after.clone()).kind, Kind::Corrupt);
    }
    assert_eq!(follow::graver(gone.clone(), gone).kind, Kind::Unreachable);
}
