//! A validator that signs two things is accused in the log, once, by those who have met both.

use super::*;
use crate::log::{EntryBody, Evidence};
use VoteType::{Precommit, Prevote};

/// The evidence that was sent to the others as entries.
fn filed(messages: &[Message]) -> Vec<Evidence> {
    let evidence = |message: &Message| match message {
        Message::Entry(entry) => match &entry.body {
            EntryBody::Evidence(evidence) => Some(evidence.clone()),
            _ => None,
        },
        _ => None,
    };
    messages.iter().filter_map(evidence).collect()
}

/// A height at which the last of four prevotes a header and nothing. Returns the block that the first proposes there.
fn contradiction(bench: &mut Bench, keys: &[SecretKey]) -> Candidate {
    let doc = bench.doc.clone();
    let x = candidate(&bench.ledger(), vec![publish(50, &doc, 1)], &keys[0]);
    let id = Some(x.header.id());
    let mut out = bench.turn([proposal(&keys[0], &doc, 0, x.clone())]);
    out.extend(bench.turn([id, None].map(|id| vote(&keys[3], &doc, Prevote, 1, 0, id))));
    assert_eq!(filed(&out), [], "the height is not over");
    x
}

#[test]
fn who_contradicts_itself_is_accused_once_and_until_it_is_in_jail() {
    let (keys, doc) = (four(), network(&four()));
    let mut bench = Bench::new(&keys[1], &doc);
    let id = Some(contradiction(&mut bench, &keys).header.id());
    let mut out = bench.turn([0, 2].map(|k| vote(&keys[k], &doc, Prevote, 1, 0, id)));
    out.extend(bench.turn([0, 2].map(|k| vote(&keys[k], &doc, Precommit, 1, 0, id))));
    assert_eq!(bench.ledger().height(), 1);
    let evidence = filed(&out);
    let [Evidence { voter, height: 1, round: 0, .. }] = &evidence[..] else { panic!("{evidence:?}") };
    assert_eq!(*voter, keys[3].public());

    // The next height is decided without it. It is not sent again: everybody has been sent it.
    let others = decided(&bench.ledger(), vec![publish(50, &doc, 2)], &keys);
    assert_eq!(filed(&bench.turn([Message::Decided(Box::new(others))])), []);
    // And then with it.
    let accusation = Entry::sign(&keys[1], doc.id(), 1, EntryBody::Evidence(evidence[0].clone()));
    let with_it = decided(&bench.ledger(), vec![accusation], &keys);
    assert_eq!(filed(&bench.turn([Message::Decided(Box::new(with_it))])), []);
    assert!(bench.ledger().voter(&keys[3].public()).unwrap().jailed.is_some());
    assert_eq!(bench.driver.idle_for(bench.now).map(|idle| idle > Duration::from_secs(3_600)), Some(true));
}

/// The engine tells of contradictions when it decides. A height whose block came from somebody else has no such moment.
#[test]
fn a_contradiction_is_not_forgotten_where_the_height_was_decided_elsewhere() {
    let (keys, doc) = (four(), network(&four()));
    let mut bench = Bench::new(&keys[1], &doc);
    contradiction(&mut bench, &keys);
    let block = decided(&bench.ledger(), vec![publish(50, &doc, 1)], &keys);
    let evidence = filed(&bench.turn([Message::Decided(Box::new(block))]));
    assert_eq!(evidence.iter().map(|evidence| evidence.voter).collect::<Vec<_>>(), [keys[3].public()]);
}
