//! Storage: acknowledgements with a version, commitments, challenges, receipts, and what they earn.

use super::*;
use crate::id::ChunkId;
use crate::log::storage::{Answered, SCORE_PER_MIB};

const OWNER: u8 = 50;
const STORE: u8 = 60;
const MIB: u64 = 1 << 20;

fn public(seed: u8) -> crate::crypto::PublicKey {
    key(seed).public()
}

fn storage(network: &mut Network, seed: u8) {
    let roles = RoleSet::NONE.with(Role::Storage);
    network.say(1, EntryBody::Role(RoleChange { to: public(seed), roles }));
}

fn sized(version: &str, seed: u8, replicas: Vec<Replica>) -> EntryBody {
    let EntryBody::Publish(publish) = publish("photos", version, seed) else { panic!() };
    EntryBody::Publish(Publish { bytes: 10 * MIB, replicas, ..publish })
}

fn network(audits: u32) -> Network {
    let change = |doc: &mut GenesisDoc| {
        doc.params.epoch_ms = 1_000;
        doc.params.audits = audits;
    };
    let mut network = Network::with([1], change);
    for seed in [STORE, 61, 62, 63] {
        storage(&mut network, seed);
    }
    network.say(OWNER, sized("v1", 1, vec![]));
    network
}

fn commit(network: &Network) -> EntryBody {
    let (name, version) = ("photos".parse().unwrap(), "v1".parse().unwrap());
    EntryBody::StorageCommit(StorageCommit { epoch: network.ledger.epochs().number, name, version })
}

fn answered(network: &Network, prover: u8) -> Answered {
    let open = network.ledger.open_challenges(&public(prover)).remove(0);
    let chunk = b"the chunk that was asked for";
    Answered {
        epoch: network.ledger.epochs().number - 1,
        seed: network.ledger.epochs().seed.unwrap(),
        snapshot: open.snapshot,
        bytes: open.commitment.bytes,
        chunk: ChunkId::of(chunk),
        answer: open.challenge.answer(chunk),
    }
}

fn receipt(network: &Network, prover: u8, auditors: &[u8], answered: &Answered) -> EntryBody {
    let genesis = network.doc.id();
    let audit = |seed: &u8| Audit::sign(&key(*seed), genesis, &public(prover), answered);
    let audits = auditors.iter().map(audit).collect();
    EntryBody::StorageReceipt(StorageReceipt { answered: answered.clone(), audits })
}

#[test]
fn a_version_comes_with_as_many_replicas_as_the_network_asks_for() {
    let mut network = Network::with([1], |doc| doc.params.replicas = 2);
    storage(&mut network, STORE);
    storage(&mut network, 61);
    let genesis = network.doc.id();
    let ack = |seed: u8| Replica::sign(&key(seed), genesis, snapshot(1));
    let refused = |network: &Network, replicas| network.refused(OWNER, sized("v1", 1, replicas));
    assert_eq!(refused(&network, vec![]), Refusal::Replicas { needed: 2, found: 0 });
    assert_eq!(refused(&network, vec![ack(STORE)]), Refusal::Replicas { needed: 2, found: 1 });
    assert!(matches!(refused(&network, vec![ack(STORE); MAX_WITNESSES + 1]), Refusal::Replicas { .. }));
    // Twice the same, one without the role, one's own.
    for second in [STORE, 62, OWNER] {
        assert_eq!(
            refused(&network, vec![ack(STORE), ack(second)]),
            Refusal::Replica { node: public(second) }
        );
    }
    let other = Replica::sign(&key(61), genesis, snapshot(2));
    assert!(matches!(refused(&network, vec![ack(STORE), other]), Refusal::Signature(_)));
    network.say(OWNER, sized("v1", 1, vec![ack(STORE), ack(61)]));
}

#[test]
fn a_proven_commitment_earns_a_score_and_a_missed_one_costs_it() {
    let mut network = network(1);
    for _ in 0..30 {
        let body = commit(&network);
        network.say(STORE, body);
        network.next_epoch();
        let open = network.ledger.open_challenges(&public(STORE));
        if let [challenge] = &open[..] {
            assert_eq!((challenge.auditors.clone(), challenge.needed), (vec![public(OWNER)], 1));
        }
        let answer = answered(&network, STORE);
        let body = receipt(&network, STORE, &[OWNER], &answer);
        network.say(STORE, body.clone());
        assert_eq!(network.ledger.open_challenges(&public(STORE)), vec![]);
        let again = network.entry(STORE, 1 << 40, body);
        assert!(matches!(network.ledger.admit(&again), Ok(Admission::Already { .. })));
    }
    let full = network.ledger.score(&public(STORE));
    assert!(full > 9 * SCORE_PER_MIB && full <= 10 * SCORE_PER_MIB, "{full}");
    // It commits itself once more and does not answer.
    let body = commit(&network);
    network.say(STORE, body);
    network.next_epoch();
    assert!(network.ledger.score(&public(STORE)) >= full, "the last receipt is settled first");
    network.next_epoch();
    let after = network.ledger.score(&public(STORE));
    assert!(after < full, "{after}");
    for _ in 0..120 {
        network.next_epoch();
    }
    assert_eq!(network.ledger.score(&public(STORE)), 0);
}

#[test]
fn useful_work_moves_weight_to_who_stores() {
    let mut network = Network::with(1..=4, |doc| {
        doc.params.epoch_ms = 1_000;
        doc.params.policy = Policy::UsefulWork;
    });
    network.say(
        1,
        EntryBody::Role(RoleChange {
            to: public(2),
            roles: [Role::Storage, Role::Validator].into_iter().collect(),
        }),
    );
    network.say(OWNER, sized("v1", 1, vec![]));
    assert_eq!(network.weight(2), 250);
    for _ in 0..5 {
        let body = commit(&network);
        network.say(2, body);
        network.next_epoch();
        let answer = answered(&network, 2);
        let body = receipt(&network, 2, &[OWNER], &answer);
        network.say(2, body);
    }
    assert_eq!(network.weight(2), 333, "the cap, and no more");
    assert_eq!(network.weight(1), 222);
}

#[test]
fn only_those_asked_can_audit_and_only_the_set_challenge_counts() {
    let mut network = network(2);
    let body = commit(&network);
    assert!(matches!(network.refused(OWNER, body), Refusal::NeedsRole { role: Role::Storage, .. }));
    for seed in [STORE, 61, 62] {
        let body = commit(&network);
        network.say(seed, body);
    }
    let [made, none] = [STORE, 63].map(|seed| network.ledger.has_committed(&public(seed), &snapshot(1)));
    assert!(made && !none && !network.ledger.has_committed(&public(STORE), &snapshot(2)));
    let body = commit(&network);
    let again = network.entry(STORE, 99, body);
    assert!(matches!(network.ledger.admit(&again), Ok(Admission::Already { .. })));
    assert_eq!(
        network.ledger.open_challenges(&public(STORE)),
        vec![],
        "nobody is asked before the next epoch"
    );
    network.next_epoch();
    assert!(!network.ledger.has_committed(&public(STORE), &snapshot(1)), "in this epoch");

    let open = network.ledger.open_challenges(&public(STORE)).remove(0);
    let mut asked = open.auditors.clone();
    asked.sort();
    let mut expected = vec![public(OWNER), public(61), public(62)];
    expected.sort();
    assert_eq!((asked, open.needed), (expected, 2));
    let good = answered(&network, STORE);
    let refused = |auditors: &[u8], answered: &Answered| {
        network.refused(STORE, receipt(&network, STORE, auditors, answered))
    };
    assert_eq!(refused(&[OWNER], &good), Refusal::Audits { needed: 2, found: 1, asked: 3 });
    for second in [OWNER, STORE, 63] {
        assert_eq!(refused(&[OWNER, second], &good), Refusal::Auditor { auditor: public(second) });
    }
    let both = [OWNER, 61];
    let lies: [fn(&mut Answered); 2] = [|a| a.seed = HeaderId::of(b"easier"), |a| a.bytes += 1];
    for lie in lies {
        let mut bent = good.clone();
        lie(&mut bent);
        assert!(matches!(refused(&both, &bent), Refusal::OtherChallenge { .. }));
    }
    assert!(matches!(refused(&both, &Answered { epoch: 1, ..good.clone() }), Refusal::OtherEpoch { .. }));
    let unknown = Answered { snapshot: snapshot(9), ..good.clone() };
    assert!(matches!(refused(&both, &unknown), Refusal::NoCommitment { .. }));
    // What the auditors signed for another answer, or another prover, does not count for this one.
    let EntryBody::StorageReceipt(mut other) = receipt(&network, STORE, &both, &good) else { panic!() };
    other.answered.answer = Digest::NONE;
    assert!(matches!(network.refused(STORE, EntryBody::StorageReceipt(other)), Refusal::Signature(_)));
    let for_61 = receipt(&network, 61, &both, &good);
    assert!(matches!(network.refused(STORE, for_61), Refusal::Signature(_)));
    network.say(STORE, receipt(&network, STORE, &both, &good));
}

#[test]
fn a_commitment_is_to_what_the_log_has_in_the_epoch_that_is() {
    let mut network = network(1);
    let stale = commit(&network);
    network.next_epoch();
    assert_eq!(network.refused(STORE, stale), Refusal::OtherEpoch { expected: 1, found: 0 });
    network.say(OWNER, yank("photos", "v1", "r"));
    let body = commit(&network);
    assert!(matches!(network.refused(STORE, body), Refusal::Yanked { .. }));
    // Whoever owns the name cannot audit itself, and when nobody else stores it there is no auditor.
    storage(&mut network, OWNER);
    network.say(OWNER, publish("videos", "v1", 7));
    let videos = StorageCommit {
        epoch: network.ledger.epochs().number,
        name: "videos".parse().unwrap(),
        version: "v1".parse().unwrap(),
    };
    network.say(OWNER, EntryBody::StorageCommit(videos));
    network.next_epoch();
    let answer = answered(&network, OWNER);
    let refused = network.refused(OWNER, receipt(&network, OWNER, &[STORE], &answer));
    assert_eq!(refused, Refusal::Audits { needed: 1, found: 1, asked: 0 });
}
