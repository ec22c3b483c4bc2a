//! Killed at any moment, a validator never contradicts what it has already let out.
//!
//! A run with three simulated partners is recorded: what left, and how long the write-ahead log was by then. Then, for
//! every length to which a crash could have cut that log, another driver is opened on it, with a later clock, and
//! told a different story by partners who try to make it vote otherwise. A message that left only after the log
//! was longer than the cut was never sent; all others still bind it.

use std::collections::BTreeMap;

use super::*;
use crate::validator::signing::Step;
use VoteType::{Precommit, Prevote};

/// What a validator has let out at height 1: for each step and round, for what.
type Said = BTreeMap<(u8, u32), Option<HeaderId>>;

fn add(said: &mut Said, me: PublicKey, messages: &[Message]) -> Result<(), String> {
    let step = |step: Step| match step {
        Step::Propose => 0,
        Step::Prevote => 1,
        Step::Precommit => 2,
    };
    let proposals = messages.iter().filter_map(|message| match message {
        Message::Proposal { proposal, .. } => Some((step(Step::Propose), proposal.round, Some(proposal.id))),
        _ => None,
    });
    let votes = votes(messages).into_iter().map(|(voter, kind, round, id)| {
        assert_eq!(voter, me);
        (step(kind.into()), round, id)
    });
    for (step, round, id) in votes.chain(proposals) {
        if *said.entry((step, round)).or_insert(id) != id {
            return Err(format!("step {step} of round {round}: said {said:?}, now {id:?}"));
        }
    }
    Ok(())
}

struct Recorded {
    wal: Vec<u8>,
    lock: Vec<u8>,
    /// After each turn: the log's length, and all that had been let out by then.
    turns: Vec<(usize, Said)>,
}

/// Lets `script` run and records every turn.
fn record(
    me: &SecretKey,
    doc: &GenesisDoc,
    script: impl FnOnce(&mut Bench, &mut dyn FnMut(&Bench, Vec<Message>)),
) -> Recorded {
    let mut bench = Bench::new(me, doc);
    let (mut said, mut turns) = (Said::new(), vec![(0, Said::new())]);
    script(&mut bench, &mut |bench, messages| {
        add(&mut said, me.public(), &messages).unwrap();
        turns.push((std::fs::read(wal(&bench.dir)).unwrap().len(), said.clone()));
    });
    let read = |name: &str| std::fs::read(bench.dir.path().join(name)).unwrap();
    Recorded { wal: read("wal"), lock: read("wal.lock"), turns }
}

/// Cuts the log of a recorded run at every byte, and lets `tempt` try to lead the restarted validator astray.
fn cut_everywhere(
    me: &SecretKey,
    doc: &GenesisDoc,
    recorded: &Recorded,
    tempt: impl Fn(&mut Bench) -> Vec<Message>,
) {
    let mut silent = 0;
    for cut in 0..=recorded.wal.len() {
        let dir = scratch();
        std::fs::write(wal(&dir), &recorded.wal[..cut]).unwrap();
        std::fs::write(dir.path().join("wal.lock"), &recorded.lock).unwrap();
        let (_, said) = recorded.turns.iter().rev().find(|(len, _)| *len <= cut).unwrap();
        let mut said = said.clone();
        let mut bench = Bench::open(dir, me, doc, START_MS + 60_000).unwrap();
        let resumed = bench.sent();
        add(&mut said, me.public(), &resumed).unwrap_or_else(|e| panic!("cut at {cut}, on opening: {e}"));
        let tempted = tempt(&mut bench);
        add(&mut said, me.public(), &tempted).unwrap_or_else(|e| panic!("cut at {cut}, when tempted: {e}"));
        silent += u32::from(votes(&resumed).is_empty() && votes(&tempted).is_empty());
    }
    assert!((silent as usize) < recorded.wal.len() / 2, "mostly silent: the test has tested nothing");
}

#[test]
fn a_follower_that_locked_and_proposed_again_keeps_its_word() {
    let (keys, doc) = (four(), network(&four()));
    let me = &keys[1];
    let ledger = Ledger::genesis(&doc).unwrap();
    let x = candidate(&ledger, vec![publish(50, &doc, 1)], &keys[0]);
    let y = candidate(&ledger, vec![publish(51, &doc, 1)], &keys[0]);
    let (x_id, y_id) = (Some(x.header.id()), Some(y.header.id()));

    let recorded = record(me, &doc, |bench, note| {
        let out = bench.turn([proposal(&keys[0], &doc, 0, x.clone())]);
        assert_eq!(votes(&out), [(me.public(), Prevote, 0, x_id)]);
        note(bench, out);
        let out = bench.turn([0, 2].map(|k| vote(&keys[k], &doc, Prevote, 1, 0, x_id)));
        assert_eq!(votes(&out), [(me.public(), Precommit, 0, x_id)]);
        note(bench, out);
        let out = bench.turn([2, 3].map(|k| vote(&keys[k], &doc, Precommit, 1, 0, None)));
        note(bench, out);
        // Round 1 is ours, and what we are locked on is what we must propose.
        let out = bench.wait(Duration::from_secs(2));
        assert!(
            out.iter().any(|m| matches!(m, Message::Proposal { proposal, .. } if proposal.locked == Some(0)))
        );
        assert_eq!(votes(&out).last(), Some(&(me.public(), Prevote, 1, x_id)));
        note(bench, out);
        let out = bench.turn([0, 2, 3].map(|k| vote(&keys[k], &doc, Prevote, 1, 1, None)));
        assert_eq!(votes(&out), [(me.public(), Precommit, 1, None)]);
        note(bench, out);
    });
    cut_everywhere(me, &doc, &recorded, |bench| {
        let mut out = bench.turn([proposal(&keys[0], &doc, 0, y.clone())]);
        out.extend(bench.turn([0, 2, 3].map(|k| vote(&keys[k], &doc, Prevote, 1, 0, y_id))));
        out.extend(bench.wait(Duration::from_secs(4)));
        out.extend(bench.turn([0, 2, 3].map(|k| vote(&keys[k], &doc, Precommit, 1, 0, None))));
        out.extend(bench.wait(Duration::from_secs(4)));
        out.extend(bench.turn([0, 2, 3].map(|k| vote(&keys[k], &doc, Prevote, 1, 1, y_id))));
        out.extend(bench.wait(Duration::from_secs(8)));
        out
    });
}

#[test]
fn a_proposer_proposes_the_same_or_nothing() {
    let (keys, doc) = (four(), network(&four()));
    let me = &keys[0];
    let recorded = record(me, &doc, |bench, note| {
        let entry = Message::Entry(Box::new(publish(50, &doc, 1)));
        let out = bench.turn([entry]);
        assert!(out.iter().any(|message| matches!(message, Message::Proposal { .. })), "{out:?}");
        note(bench, out);
    });
    cut_everywhere(me, &doc, &recorded, |bench| {
        // Another entry and another time: whatever is built now is another block.
        let mut out = bench.turn([Message::Entry(Box::new(publish(51, &doc, 1)))]);
        out.extend(bench.turn([1, 2, 3].map(|k| vote(&keys[k], &doc, Prevote, 1, 0, None))));
        out.extend(bench.wait(Duration::from_secs(4)));
        out
    });
}

#[test]
fn a_decision_that_was_recorded_is_committed_after_the_crash() {
    let (keys, doc) = (four(), network(&four()));
    let x = candidate(&Ledger::genesis(&doc).unwrap(), vec![publish(50, &doc, 1)], &keys[0]);
    let id = Some(x.header.id());
    let mut bench = Bench::new(&keys[1], &doc);
    bench.turn([proposal(&keys[0], &doc, 0, x)]);
    bench.turn([0, 2].map(|k| vote(&keys[k], &doc, Prevote, 1, 0, id)));
    bench.turn([0, 2].map(|k| vote(&keys[k], &doc, Precommit, 1, 0, id)));
    assert_eq!(bench.ledger().height(), 1);
    // The log's file did not make it to the disk, the write-ahead log did.
    std::fs::remove_file(bench.dir.path().join("log")).unwrap();
    let bench = bench.restart();
    assert_eq!(bench.ledger().head_id(), id);
}

/// A key whose log was fetched from others may have voted at the next height from a home that is gone. It says nothing
/// there, whatever is proposed, and votes again from the height after it on.
#[test]
fn a_key_without_records_is_silent_for_one_height() {
    let (keys, doc) = (four(), network(&four()));
    let dir = tempfile::tempdir().unwrap();
    let fetched = chain(dir.path(), &doc);
    fetched.commit(decided(&fetched.ledger(), vec![publish(50, &doc, 1)], &keys)).unwrap();
    drop(fetched);

    let mut bench = Bench::open(dir, &keys[1], &doc, START_MS).unwrap();
    let block = decided(&bench.ledger(), vec![publish(50, &doc, 2)], &keys);
    let id = Some(block.header.id());
    let proposed = candidate(&bench.ledger(), vec![publish(50, &doc, 2)], &keys[0]);
    let mut out = bench.sent();
    for key in [0, 2, 3].map(|k| &keys[k]) {
        out.extend(bench.turn([proposal(key, &doc, 0, proposed.clone())]));
    }
    out.extend(bench.turn([0, 2, 3].map(|k| vote(&keys[k], &doc, Prevote, 2, 0, id))));
    out.extend(bench.wait(Duration::from_secs(10)));
    // Nor after a restart, which finds the height begun.
    bench = bench.restart();
    out.extend(bench.sent());
    out.extend(bench.turn([0, 2, 3].map(|k| vote(&keys[k], &doc, Prevote, 2, 0, id))));
    assert_eq!(votes(&out), []);
    assert!(!out.iter().any(|message| matches!(message, Message::Proposal { .. })), "{out:?}");

    bench.chain.commit(block).unwrap();
    let out = bench.turn([]);
    let next = candidate(&bench.ledger(), vec![publish(50, &doc, 3)], &keys[0]);
    let mut said = votes(&out);
    for key in &keys {
        let from = Candidate {
            header: crate::log::Header { proposer: key.public(), ..next.header.clone() },
            ..next.clone()
        };
        said.extend(votes(&bench.turn([proposal(key, &doc, 0, from)])));
    }
    said.extend(votes(&bench.wait(Duration::from_secs(10))));
    assert!(!said.is_empty(), "it votes at height 3");
}
