//! Four validators in one process, joined by channels: real keys, real write-ahead logs, real time. Nothing in this
//! module may assume that there is one.

use std::collections::HashMap;
use std::sync::Mutex;

use super::*;
use crate::validator::Validator as Node;
use crate::validator::link::{Incoming, Link};

/// How long a test waits for what must happen. Nothing here takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(60);

type Wires = Arc<Mutex<HashMap<PublicKey, mpsc::Sender<Incoming>>>>;

/// Carries everything that is sent to everyone it is for and who is plugged in.
struct Exchange {
    wires: Wires,
    doc: GenesisDoc,
}

struct Running {
    node: Node,
    chain: Arc<Chain>,
    dir: TempDir,
    key: SecretKey,
}

impl Exchange {
    fn new(doc: &GenesisDoc) -> Self {
        Self { wires: Wires::default(), doc: doc.clone() }
    }

    fn plug_in(&self, key: &SecretKey, dir: TempDir) -> Running {
        let (link, mut carrier) = Link::new();
        let (wires, from) = (self.wires.clone(), key.public());
        wires.lock().unwrap().insert(from, carrier.incoming);
        tokio::spawn(async move {
            while let Some((to, bytes)) = carrier.outgoing.recv().await {
                let targets: Vec<_> = {
                    let wires = wires.lock().unwrap();
                    let wanted = |key: &&PublicKey| **key != from && to.is_none_or(|one| one == **key);
                    wires.keys().filter(wanted).map(|key| wires[key].clone()).collect()
                };
                for target in targets {
                    // A full or closed wire loses the message, as a network does.
                    let _ = target.try_send((from, bytes.clone()));
                }
            }
        });
        let chain = chain(dir.path(), &self.doc);
        let node = Node::spawn(key.clone(), chain.clone(), &wal(&dir), link, fast()).unwrap();
        Running { node, chain, dir, key: key.clone() }
    }

    async fn unplug(&self, running: Running) -> (SecretKey, TempDir) {
        self.wires.lock().unwrap().remove(&running.key.public());
        running.node.stop().await;
        (running.key, running.dir)
    }
}

impl Running {
    async fn reaches(&self, height: u64) {
        let mut head = self.chain.subscribe();
        let reached = head.wait_for(|ledger| ledger.height() >= height);
        tokio::time::timeout(DEADLINE, reached).await.expect("the height is reached in time").unwrap();
    }
}

fn headers(running: &Running, height: u64) -> Vec<HeaderId> {
    let blocks = running.chain.blocks(1, usize::MAX).unwrap();
    blocks[..height as usize].iter().map(|bytes| Block::decode(bytes).unwrap().header.id()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_decide_the_same_blocks() {
    let (keys, doc) = (four(), network(&four()));
    let exchange = Exchange::new(&doc);
    let all: Vec<Running> =
        keys.iter().map(|key| exchange.plug_in(key, tempfile::tempdir().unwrap())).collect();
    for version in 1..=5 {
        // Each is given entries of its own, all at once.
        let submitted =
            all.iter().zip(50..).map(|(one, author)| one.node.submit(publish(author, &doc, version)));
        for committed in futures::future::join_all(submitted).await {
            committed.unwrap();
        }
    }
    let height = all.iter().map(|one| one.chain.ledger().height()).max().unwrap();
    for one in &all {
        one.reaches(height).await;
        assert_eq!(one.chain.ledger().entries(), 20);
        assert_eq!(headers(one, height), headers(&all[0], height));
    }
    assert!(height <= 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_go_on_without_the_fourth_which_catches_up_when_it_is_back() {
    let (keys, doc) = (four(), network(&four()));
    let exchange = Exchange::new(&doc);
    let mut all: Vec<Running> =
        keys.iter().map(|key| exchange.plug_in(key, tempfile::tempdir().unwrap())).collect();
    all[0].node.submit(publish(50, &doc, 1)).await.unwrap();

    // The one whose turn is next goes away: its height needs a second round.
    let (key, dir) = exchange.unplug(all.remove(1)).await;
    for version in 2..=4 {
        all[0].node.submit(publish(50, &doc, version)).await.unwrap();
    }
    // The two that remain are too few, and wait for it.
    let gone = exchange.unplug(all.remove(2)).await;
    let height = all[0].chain.ledger().height();
    let waiting = all[0].node.submit(publish(50, &doc, 5));
    let back = async { exchange.plug_in(&key, dir) };
    let (committed, back) = tokio::join!(waiting, back);
    assert!(committed.unwrap().height > height);
    let height = all[0].chain.ledger().height();
    back.reaches(height).await;
    assert_eq!(headers(&back, height), headers(&all[0], height));
    drop(gone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_decided_and_stopping_answers_who_waits() {
    let (keys, doc) = (four(), network(&four()));
    let exchange = Exchange::new(&doc);
    let one = exchange.plug_in(&keys[0], tempfile::tempdir().unwrap());
    let _two = exchange.plug_in(&keys[1], tempfile::tempdir().unwrap());
    let (tap, mut heard) = mpsc::channel(1024);
    exchange.wires.lock().unwrap().insert(keys[2].public(), tap);
    let waiting = one.node.submit(publish(50, &doc, 1));
    let stopping = async {
        // By the time somebody says a vote again, nothing has come of the first round.
        let again = async {
            while let Some(incoming) = heard.recv().await {
                if matches!(Message::decode(&incoming.1), Ok(Message::Vote { again: true, .. })) {
                    return;
                }
            }
        };
        tokio::time::timeout(DEADLINE, again).await.expect("votes are said again");
        one.node.stop().await;
    };
    let (answer, ()) = tokio::join!(waiting, stopping);
    assert!(matches!(answer, Err(ValidatorError::Stopped { .. })), "{answer:?}");
    assert_eq!(one.chain.ledger().height(), 0);
}
