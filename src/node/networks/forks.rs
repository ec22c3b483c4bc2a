//! A log that was signed twice, as a node sees it that has one side of it.

use std::path::Path;

use super::tests::{key, start_net};
use super::*;
use crate::log::{Block, Certificate, EntryBody, VoteKind, vote_bytes};

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
        let ledger = self.chain.ledger();
        let (header, body) = ledger.propose(vec![], time_ms, key(1).public());
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
    let paths = Paths::under(here.path()).unwrap();
    paths.create().unwrap();
    let (own, genesis) = (Registry::default(), document.id());
    let (net, _submissions) = start_net(here.path(), 9, &own).await;
    let networks = open(&paths, &net, own).await;
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
    let paths = Paths::under(here.path()).unwrap();
    paths.create().unwrap();
    let (own, genesis) = (Registry::default(), document.id());
    let (net, _submissions) = start_net(here.path(), 9, &own).await;
    let networks = open(&paths, &net, own).await;
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
