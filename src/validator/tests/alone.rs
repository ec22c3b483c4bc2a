//! One validator: from a submission to a block that everybody accepts, and what is refused.

use tokio::sync::oneshot;

use super::*;
use crate::log::Refusal;
use crate::validator::{Committed, Validator as Node};

fn start(dir: &TempDir, doc: &GenesisDoc, seed: u8) -> (Arc<Chain>, Result<Node, ValidatorError>) {
    let chain = chain(dir.path(), doc);
    let node = Node::start(key(seed), chain.clone(), &wal(dir));
    (chain, node)
}

#[tokio::test]
async fn a_published_version_is_final_and_another_machine_accepts_it() {
    let (dir, doc) = (tempfile::tempdir().unwrap(), network(&[key(1)]));
    let (chain, node) = start(&dir, &doc, 1);
    let node = node.unwrap();
    let entry = publish(50, &doc, 1);
    let committed = node.submit(entry.clone()).await.unwrap();
    assert_eq!(committed, Committed { height: 1, round: 0, entry: entry.id() });

    let block = Block::decode(&chain.blocks(1, 1).unwrap()[0]).unwrap();
    let elsewhere = Ledger::genesis(&doc).unwrap().apply(&block).unwrap();
    assert_eq!(elsewhere.head_id(), chain.ledger().head_id());
    assert!(elsewhere.resolve("data/50", Some("v1")).is_ok());
    // The certificate is our precommit and nothing else.
    let bytes = crate::log::vote_bytes(doc.id(), crate::log::VoteKind::Precommit, 1, 0, elsewhere.head_id());
    assert_eq!(block.certificate.signatures, [key(1).sign(&bytes)]);
    node.stop().await;
}

#[tokio::test]
async fn many_submissions_are_all_answered_and_share_blocks() {
    let (dir, doc) = (tempfile::tempdir().unwrap(), network(&[key(1)]));
    let (chain, node) = start(&dir, &doc, 1);
    let node = Arc::new(node.unwrap());
    let submit = |seed| {
        let (node, entry) = (node.clone(), publish(seed, &doc, 1));
        tokio::spawn(async move { node.submit(entry).await.unwrap() })
    };
    let submitted: Vec<_> = (10..110).map(submit).collect();
    let mut last = 0;
    for task in submitted {
        last = task.await.unwrap().height.max(last);
    }
    assert_eq!(chain.ledger().entries(), 100);
    assert_eq!(chain.ledger().height(), last, "nothing to decide, no height");
    assert!(last <= 50, "100 entries took {last} heights");
}

#[test]
fn what_has_gathered_goes_into_one_block() {
    let doc = network(&[key(1)]);
    let mut bench = Bench::new(&key(1), &doc);
    let (events, answers): (Vec<_>, Vec<_>) = (10..60)
        .map(|seed| {
            let (reply, answer) = oneshot::channel();
            (Event::Submit(Box::new(publish(seed, &doc, 1)), reply), answer)
        })
        .unzip();
    bench.driver.turn(events, bench.now).unwrap();
    assert_eq!((bench.ledger().height(), bench.ledger().entries()), (1, 50));
    for mut answer in answers {
        assert_eq!(answer.try_recv().unwrap().unwrap().height, 1);
    }
}

#[tokio::test]
async fn a_changed_version_is_refused_and_a_repeated_one_reports_the_first() {
    let (dir, doc) = (tempfile::tempdir().unwrap(), network(&[key(1)]));
    let (chain, node) = start(&dir, &doc, 1);
    let node = node.unwrap();
    let first = node.submit(publish(50, &doc, 1)).await.unwrap();
    let again = node.submit(publish(50, &doc, 1)).await.unwrap();
    assert_eq!(first, again);
    let changed = node.submit(publish_snapshot(50, &doc, 1, "other")).await;
    assert!(matches!(&changed, Err(ValidatorError::Refused(Refusal::Published { .. }))), "{changed:?}");
    assert_eq!(chain.ledger().height(), 1, "what is refused takes no height");

    // Two that contradict each other and arrive together: one is decided, the other told why not.
    let (a, b) = (publish_snapshot(50, &doc, 2, "a"), publish_snapshot(50, &doc, 2, "b"));
    let (a, b) = tokio::join!(node.submit(a), node.submit(b));
    assert!(a.is_ok() ^ b.is_ok(), "{a:?} {b:?}");
    assert!(matches!(a.and(b), Err(ValidatorError::Refused(_))));
}

#[tokio::test]
async fn a_restart_goes_on_at_the_next_height() {
    let (dir, doc) = (tempfile::tempdir().unwrap(), network(&[key(1)]));
    for version in 1..=3 {
        let (chain, node) = start(&dir, &doc, 1);
        let node = node.unwrap();
        assert_eq!(node.submit(publish(50, &doc, version)).await.unwrap().height, version);
        node.stop().await;
        assert!(matches!(node.submit(publish(51, &doc, 1)).await, Err(ValidatorError::Stopped { .. })));
        drop((chain, node));
    }
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let (dir, doc) = (tempfile::tempdir().unwrap(), network(&[key(1)]));
    let (chain, node) = start(&dir, &doc, 1);
    let second = Node::start(key(1), chain, &wal(&dir));
    assert!(second.unwrap_err().to_string().contains("in use by another process"));
    node.unwrap().stop().await;
}

#[tokio::test]
async fn whoever_is_no_validator_is_told_so() {
    let (dir, doc) = (tempfile::tempdir().unwrap(), network(&[key(1)]));
    let node = start(&dir, &doc, 2).1.unwrap();
    let answer = node.submit(publish(50, &doc, 1)).await;
    assert!(matches!(answer, Err(ValidatorError::NotAValidator { height: 1, .. })), "{answer:?}");
}

#[tokio::test]
async fn after_losing_its_log_it_does_not_vote_at_that_height() {
    let (dir, doc) = (tempfile::tempdir().unwrap(), network(&[key(1)]));
    let (chain, node) = start(&dir, &doc, 1);
    let node = node.unwrap();
    node.submit(publish(50, &doc, 1)).await.unwrap();
    node.stop().await;
    std::fs::remove_file(wal(&dir)).unwrap();
    drop(node);

    // Twice, because the new log must remember that it is a replacement.
    for _ in 0..2 {
        let node = Node::start(key(1), chain.clone(), &wal(&dir)).unwrap();
        let answer = node.submit(publish(50, &doc, 2)).await;
        assert!(matches!(answer, Err(ValidatorError::Abstaining { height: 2, .. })), "{answer:?}");
        node.stop().await;
    }
    assert_eq!(chain.ledger().height(), 1);

    // Once the height has been decided in another way, it votes again.
    let node = Node::start(key(1), chain.clone(), &wal(&dir)).unwrap();
    chain.commit(decided(&chain.ledger(), vec![publish(50, &doc, 2)], &[key(1)])).unwrap();
    assert_eq!(node.submit(publish(50, &doc, 3)).await.unwrap().height, 3);
}

#[test]
fn a_log_put_back_to_an_earlier_state_is_not_continued_differently() {
    let doc = network(&[key(1)]);
    let mut bench = Bench::new(&key(1), &doc);
    let submit = |bench: &mut Bench, version| {
        let (reply, mut answer) = oneshot::channel();
        let event = Event::Submit(Box::new(publish(50, &doc, version)), reply);
        bench.driver.turn(vec![event], bench.now).unwrap();
        answer.try_recv().unwrap()
    };
    submit(&mut bench, 1).unwrap();
    submit(&mut bench, 2).unwrap();
    let first = Block::decode(&bench.chain.blocks(1, 1).unwrap()[0]).unwrap();
    std::fs::remove_file(bench.dir.path().join("log")).unwrap();

    let mut bench = bench.restart();
    assert!(matches!(submit(&mut bench, 9), Err(ValidatorError::Abstaining { height: 1, .. })));
    // At height 2 its own records say what it voted for, and it decides the same again.
    bench.chain.commit(first).unwrap();
    bench.turn([]);
    assert_eq!(bench.ledger().height(), 2);
    assert!(bench.ledger().resolve("data/50", Some("v2")).is_ok());
}

#[test]
fn entries_wait_for_the_block_time_and_share_a_height() {
    let mut doc = network(&[key(1)]);
    doc.params.block_ms = 500;
    let mut bench = Bench::new(&key(1), &doc);
    let submit = |bench: &mut Bench, author| {
        let (reply, answer) = oneshot::channel();
        let event = Event::Submit(Box::new(publish(author, &doc, 1)), reply);
        bench.driver.turn(vec![event], bench.now).unwrap();
        answer
    };
    // Whoever publishes after a pause does not wait.
    submit(&mut bench, 50).try_recv().unwrap().unwrap();
    let waiting = [51, 52].map(|author| submit(&mut bench, author));
    assert_eq!(bench.ledger().height(), 1);
    assert_eq!(bench.driver.idle_for(bench.now), Some(Duration::from_millis(500)));
    bench.wait(Duration::from_millis(499));
    assert_eq!(bench.ledger().height(), 1);
    bench.wait(Duration::from_millis(1));
    for mut answer in waiting {
        assert_eq!(answer.try_recv().unwrap().unwrap().height, 2);
    }
}

#[test]
fn a_heartbeat_comes_when_due_and_not_before_the_first_entry() {
    let mut doc = network(&[key(1)]);
    doc.params.heartbeat_ms = 30_000;
    let mut bench = Bench::new(&key(1), &doc);
    bench.wait(Duration::from_secs(100));
    assert_eq!(bench.driver.idle_for(bench.now), None);
    assert_eq!(bench.ledger().height(), 0);
    let (reply, _answer) = oneshot::channel();
    let event = Event::Submit(Box::new(publish(50, &doc, 1)), reply);
    bench.driver.turn(vec![event], bench.now).unwrap();
    assert_eq!(bench.driver.idle_for(bench.now), Some(Duration::from_secs(30)));
    bench.wait(Duration::from_secs(29));
    assert_eq!(bench.ledger().height(), 1);
    bench.wait(Duration::from_secs(1));
    assert_eq!((bench.ledger().height(), bench.ledger().entries()), (2, 1));
}
