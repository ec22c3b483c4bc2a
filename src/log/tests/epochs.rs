//! When epochs begin, which sets their headers name, and that a replay reaches the same.

use super::*;

fn network() -> Network {
    Network::with(1..=4, |doc| doc.params.epoch_ms = 1_000)
}

/// Decides an empty height at this time.
fn at(network: &mut Network, time_ms: u64) {
    let proposer = network.ledger.validators().members()[0].key;
    let (header, body) = network.ledger.propose(vec![], time_ms, proposer);
    let certificate = network.certify(&header, &network.signers(), 0);
    let block = Block { header, body, certificate };
    network.ledger = network.ledger.apply(&block).unwrap();
    network.blocks.push(block);
}

#[test]
fn an_epoch_ends_with_the_first_header_that_is_late_enough() {
    // Founded at 1,000 ms.
    let mut network = network();
    let mut epochs = Vec::new();
    for time_ms in [1_000, 1_999, 2_000, 2_001, 2_999, 9_999, 10_000, 10_998, 10_999, 11_000] {
        at(&mut network, time_ms);
        epochs.push(network.ledger.head().unwrap().epoch);
    }
    assert_eq!(epochs, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]);
    let seed = network.blocks[5].header.id();
    at(&mut network, 11_001);
    assert_eq!(network.ledger.epochs().seed, Some(network.blocks[8].header.id()));
    assert_ne!(network.ledger.epochs().seed, Some(seed));
}

/// With a set that changes, headers chain their sets, and whoever replays or climbs gets the same ones.
#[test]
fn headers_chain_their_sets_and_a_replay_agrees() {
    let mut network = network();
    network.say(
        1,
        EntryBody::Role(RoleChange { to: key(9).public(), roles: RoleSet::NONE.with(Role::Validator) }),
    );
    let join = ValidatorChange::join(&key(9), network.doc.id(), &key(9).public());
    network.say(9, EntryBody::Validator(join));
    for _ in 0..5 {
        network.next_epoch();
    }
    let blocks = &network.blocks;
    for pair in blocks.windows(2) {
        assert_eq!(pair[0].header.next_validators, pair[1].header.validators);
    }
    let sets: std::collections::BTreeSet<Digest> = blocks.iter().map(|b| b.header.validators).collect();
    assert_eq!(sets.len(), 3, "genesis, a tenth, a fifth");
    let replayed = Ledger::genesis(&network.doc).unwrap().replay(blocks).unwrap();
    assert_eq!(replayed.trusted(), network.ledger.trusted());
    for (block, height) in blocks.iter().zip(1..) {
        assert_eq!(replayed.validators_at(height).unwrap().digest(), block.header.validators);
    }
    assert_eq!(replayed.validators_at(0), None);
    assert_eq!(replayed.validators_at(blocks.len() as u64 + 2), None);
}

/// The old set must not sign what the new one is to decide.
#[test]
fn only_the_set_of_its_height_can_certify_a_block() {
    let mut network = network();
    for seed in 2..=4 {
        network.say(
            seed,
            EntryBody::Validator(ValidatorChange::join(
                &key(seed + 10),
                network.doc.id(),
                &key(seed).public(),
            )),
        );
    }
    network.next_epoch();
    network.next_epoch();
    assert_eq!(network.signers(), [1, 12, 13, 14]);
    let block = network.block(vec![]);
    let old = votes(&network.doc, &[1, 2, 3, 4], block.header.height, 0, block.header.id());
    let set = network.doc.validators.clone();
    let certificate = Certificate::assemble(&set, block.header.height, 0, block.header.id(), old).unwrap();
    let error = network.ledger.apply(&Block { certificate, ..block.clone() }).unwrap_err();
    assert!(matches!(error, LogError::Certificate { cause: CertificateError::Signature(_), .. }), "{error}");
    assert!(network.ledger.apply(&block).is_ok());
}
