//! What others say without a right to: none of it begins a height, moves a vote or reaches the log.

use super::*;
use VoteType::{Precommit, Prevote};

/// `message`, with a signature that somebody else made.
fn forged(message: Message) -> Message {
    let other = VoteSignature(key(77).sign(b"something else"));
    match message {
        Message::Vote { mut vote, again } => {
            vote.signature = other;
            Message::Vote { vote, again }
        }
        Message::Proposal { mut proposal, candidate } => {
            proposal.signature = other;
            Message::Proposal { proposal, candidate }
        }
        other => other,
    }
}

#[test]
fn a_forged_vote_counts_for_nothing() {
    let (keys, doc) = (four(), network(&four()));
    let mut bench = Bench::new(&keys[1], &doc);
    let outsider = vote(&key(66), &doc, Prevote, 1, 0, None);
    let forgery = forged(vote(&keys[0], &doc, Prevote, 1, 0, None));
    assert!(bench.turn([outsider, forgery]).is_empty());
    assert_eq!(bench.driver.idle_for(bench.now), None, "no height was begun");

    // Two thirds would be reached by the forged votes, and are not.
    let x = candidate(&bench.ledger(), vec![publish(50, &doc, 1)], &keys[0]);
    let id = Some(x.header.id());
    bench.turn([proposal(&keys[0], &doc, 0, x)]);
    let prevotes = [0, 2, 3].map(|k| vote(&keys[k], &doc, Prevote, 1, 0, id));
    assert!(votes(&bench.turn(prevotes.clone().map(forged))).is_empty());
    assert_eq!(votes(&bench.turn(prevotes)), [(keys[1].public(), Precommit, 0, id)]);
    let precommits = [0, 2, 3].map(|k| vote(&keys[k], &doc, Precommit, 1, 0, id));
    bench.turn(precommits.clone().map(forged));
    assert_eq!(bench.ledger().height(), 0);
    bench.turn(precommits);
    assert_eq!(bench.ledger().height(), 1);
}

#[test]
fn a_vote_for_another_network_or_kind_does_not_carry_over() {
    let (keys, doc) = (four(), network(&four()));
    let mut other = doc.clone();
    other.salt = [8; 16];
    let mut bench = Bench::new(&keys[1], &doc);
    assert!(bench.turn([vote(&keys[0], &other, Prevote, 1, 0, None)]).is_empty());
    let Message::Vote { mut vote, .. } = vote(&keys[0], &doc, Prevote, 1, 0, None) else { panic!() };
    vote.message.kind = Precommit;
    bench.turn([Message::Vote { vote, again: false }]);
    assert_eq!(bench.driver.idle_for(bench.now), None);
}

#[test]
fn a_proposal_must_be_signed_by_whose_turn_it_is_and_bring_its_block() {
    let (keys, doc) = (four(), network(&four()));
    let mut bench = Bench::new(&keys[1], &doc);
    let ledger = bench.ledger();
    let x = candidate(&ledger, vec![publish(50, &doc, 1)], &keys[0]);
    let y = candidate(&ledger, vec![publish(51, &doc, 1)], &keys[0]);
    let good = proposal(&keys[0], &doc, 0, x.clone());
    let Message::Proposal { proposal: signed, .. } = good.clone() else { panic!() };
    // The right header over another body must not pass for the proposer's doing: it would be voted against.
    let hollow = Candidate { header: x.header.clone(), body: y.body.clone() };
    let hollow = Message::Proposal { proposal: signed.clone(), candidate: Box::new(hollow) };
    let swapped = Message::Proposal { proposal: signed, candidate: Box::new(y) };
    let out_of_turn = proposal(&keys[2], &doc, 0, x.clone());
    // A block in the name of another, with nothing to show that it was ever proposed by them.
    let in_anothers_name = proposal(&keys[0], &doc, 0, candidate(&ledger, vec![], &keys[1]));
    let bad = [forged(good.clone()), hollow, swapped, out_of_turn, in_anothers_name];
    assert!(bench.turn(bad).is_empty());
    assert_eq!(bench.driver.idle_for(bench.now), None, "no height was begun");
    assert_eq!(votes(&bench.turn([good])), [(keys[1].public(), Prevote, 0, Some(x.header.id()))]);
}

#[test]
fn a_block_that_does_not_execute_or_comes_from_the_future_is_voted_against() {
    let (keys, doc) = (four(), network(&four()));
    let ledger = Ledger::genesis(&doc).unwrap();
    let good = candidate(&ledger, vec![publish(50, &doc, 1)], &keys[0]);
    let mut wrong_state = good.clone();
    wrong_state.header.log_size += 1;
    let (header, body) = ledger.propose(vec![], START_MS + 60_000, keys[0].public());
    for bad in [wrong_state, Candidate { header, body }] {
        let mut bench = Bench::new(&keys[1], &doc);
        let out = bench.turn([proposal(&keys[0], &doc, 0, bad)]);
        assert_eq!(votes(&out), [(keys[1].public(), Prevote, 0, None)]);
    }
}

/// A proposer whose turn it was sent 64 blocks, after which no block of anybody was looked at: the height could not be
/// decided by those who had got them.
#[test]
fn a_flood_of_blocks_leaves_room_for_those_of_others() {
    let (keys, doc) = (four(), network(&four()));
    let mut bench = Bench::new(&keys[3], &doc);
    let ledger = bench.ledger();
    let flood = (0..200).map(|at| {
        let (header, body) = ledger.propose(vec![], START_MS + at, keys[0].public());
        proposal(&keys[0], &doc, 0, Candidate { header, body })
    });
    bench.turn(flood.collect::<Vec<_>>());
    let nil = |kind, k: usize| vote(&keys[k], &doc, kind, 1, 0, None);
    bench.turn([0, 1, 2].map(|k| nil(Prevote, k)));
    bench.turn([0, 1, 2].map(|k| nil(Precommit, k)));
    let mut said = votes(&bench.wait(Duration::from_secs(2)));
    let honest = candidate(&ledger, vec![publish(50, &doc, 1)], &keys[1]);
    let id = Some(honest.header.id());
    said.extend(votes(&bench.turn([proposal(&keys[1], &doc, 1, honest)])));
    assert_eq!(said.last(), Some(&(keys[3].public(), Prevote, 1, id)), "{said:?}");
}

#[test]
fn a_block_is_believed_only_with_its_certificate() {
    let (keys, doc) = (four(), network(&four()));
    let mut bench = Bench::new(&keys[1], &doc);
    let ledger = bench.ledger();
    let two_of_four = decided(&ledger, vec![publish(50, &doc, 1)], &keys[..2]);
    bench.turn([Message::Decided(Box::new(two_of_four))]);
    assert_eq!(bench.ledger().height(), 0);
    let three = decided(&ledger, vec![publish(50, &doc, 1)], &keys[..3]);
    bench.turn([Message::Decided(Box::new(three))]);
    assert_eq!(bench.ledger().height(), 1);
}

#[test]
fn certificates_of_rounds_are_checked_vote_by_vote() {
    use crate::validator::context::LogContext;
    use crate::validator::wire::{PolkaCertificate, RoundCertificate};
    use arc_malachitebft_core_types::{Round, RoundCertificateType};

    let (keys, doc) = (four(), network(&four()));
    let mut bench = Bench::new(&keys[1], &doc);
    let x = candidate(&bench.ledger(), vec![publish(50, &doc, 1)], &keys[0]);
    let id = x.header.id();
    bench.turn([proposal(&keys[0], &doc, 0, x)]);
    let signed = |message: Message| match message {
        Message::Vote { vote, .. } => vote,
        _ => panic!(),
    };
    let polka = |votes: Vec<Message>| {
        let votes = votes.into_iter().map(signed).collect();
        Message::Polka(PolkaCertificate::new(Height(1), Round::new(0), id, votes))
    };
    let prevotes =
        |k: &[usize]| k.iter().map(|&k| vote(&keys[k], &doc, Prevote, 1, 0, Some(id))).collect::<Vec<_>>();
    let one_forged =
        [prevotes(&[0, 2]), vec![forged(vote(&keys[3], &doc, Prevote, 1, 0, Some(id)))]].concat();
    for bad in [prevotes(&[0, 2]), prevotes(&[0, 2, 2]), one_forged] {
        assert!(votes(&bench.turn([polka(bad)])).is_empty());
    }
    assert_eq!(
        votes(&bench.turn([polka(prevotes(&[0, 2, 3]))])),
        [(keys[1].public(), Precommit, 0, Some(id))]
    );

    // Two of four votes at round 5 are more than a third: follow them there. One is not, nor are two of which
    // one is forged.
    let skip = |votes: Vec<Message>| {
        let votes = votes.into_iter().map(signed).collect();
        let kind = RoundCertificateType::Skip;
        let certificate: RoundCertificate =
            arc_malachitebft_core_types::RoundCertificate::<LogContext>::new_from_votes(
                Height(1),
                Round::new(5),
                kind,
                votes,
            );
        Message::Round(certificate)
    };
    let nil = |k: usize| vote(&keys[k], &doc, Prevote, 1, 5, None);
    for bad in [vec![], vec![nil(0)], vec![nil(0), nil(0)], vec![nil(0), forged(nil(2))]] {
        assert!(bench.turn([skip(bad)]).is_empty());
    }
    let out = bench.turn([skip(vec![nil(0), nil(2)])]);
    assert!(out.iter().any(|message| matches!(message, Message::Round(_))), "the round was entered: {out:?}");
}
