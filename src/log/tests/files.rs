//! The proof of a version as a file, and checkpoints of a real log.

use super::*;
use crate::id::LogRoot;
use crate::log::checkpoint::{self, Checkpoint};
use crate::log::light::{Climb, Trusted};
use crate::log::note::{Note, NoteError};
use crate::log::proof::{Proven, VersionProof, VersionProofError};

/// Sets change on the way, so that the proof has several steps.
fn network() -> Network {
    let mut network = Network::with(1..=4, |doc| doc.params.epoch_ms = 1_000);
    network.say(50, publish("photos", "v1", 1));
    for epoch in 1..=5u8 {
        for operator in 1..=4u8 {
            let voter = key(epoch * 4 + operator);
            let join = ValidatorChange::join(&voter, network.doc.id(), &key(operator).public());
            network.say(operator, EntryBody::Validator(join));
        }
        network.next_epoch();
    }
    network.say(50, publish("photos", "v2", 2));
    network.say(50, publish("photos", "v3", 3));
    network.say(50, yank("photos", "v3", "wrong labels"));
    network
}

fn proof(network: &Network, label: &str) -> Result<VersionProof, VersionProofError> {
    let mut way = Climb::new(Trusted::at_genesis(&network.doc), network.ledger.height());
    let mut steps = Vec::new();
    while let Some(height) = way.wants() {
        let block = &network.blocks[height as usize - 1];
        steps.extend(way.offer(network.ledger.update(block).unwrap()).unwrap());
    }
    let entries: Vec<&Entry> = network.blocks.iter().flat_map(|block| &block.body.entries).collect();
    let leaves: Vec<LogRoot> = entries.iter().map(|entry| merkle::leaf(&entry.encode())).collect();
    let is_it = |entry: &&Entry| matches!(&entry.body, EntryBody::Publish(p) if p.version.as_str() == label);
    let index = entries.iter().position(is_it).unwrap_or(0);
    let what = (&"photos".parse().unwrap(), &label.parse().unwrap());
    VersionProof::new(&network.ledger, what, steps, &leaves, (index, entries[index].clone()))
}

fn verify(network: &Network, bytes: &[u8]) -> Result<Proven, VersionProofError> {
    VersionProof::verify(bytes, network.doc.id())
}

#[test]
fn a_proof_needs_nothing_but_itself_and_the_genesis_hash() {
    let network = network();
    let proven = verify(&network, &proof(&network, "v1").unwrap().encode()).unwrap();
    assert_eq!((proven.name.as_str(), proven.version.label.as_str()), ("photos", "v1"));
    assert_eq!((proven.version.snapshot, proven.index), (snapshot(1), 0));
    assert_eq!(proven.head.height, network.ledger.height());
    assert_eq!((proven.signers, proven.validators), (4, 4));
    assert_eq!(proven.latest.unwrap().as_str(), "v2", "v3 was withdrawn");
    assert_eq!(proven.owner, key(50).public());
    let proven = verify(&network, &proof(&network, "v3").unwrap().encode()).unwrap();
    assert_eq!(proven.version.yanked.unwrap().reason.as_str(), "wrong labels");
    let unknown = proof(&network, "v9").unwrap_err();
    assert!(matches!(unknown, VersionProofError::Unknown(Refusal::NoVersion { .. })), "{unknown}");
}

#[test]
fn another_network_or_a_borrowed_part_is_refused() {
    let network = network();
    let bytes = proof(&network, "v1").unwrap().encode();
    let elsewhere = VersionProof::verify(&bytes, document([9]).id()).unwrap_err();
    assert!(matches!(elsewhere, VersionProofError::Genesis(GenesisError::Other { .. })), "{elsewhere}");
    // A proof of v1 with the entry of v2, each genuine by itself.
    let what = (&"photos".parse().unwrap(), &"v1".parse().unwrap());
    let entries: Vec<&Entry> = network.blocks.iter().flat_map(|block| &block.body.entries).collect();
    let leaves: Vec<LogRoot> = entries.iter().map(|entry| merkle::leaf(&entry.encode())).collect();
    let steps = {
        let block = network.blocks.last().unwrap();
        vec![network.ledger.update(block).unwrap()]
    };
    let index = leaves.len() - 3;
    let mixed =
        VersionProof::new(&network.ledger, what, steps, &leaves, (index, entries[index].clone())).unwrap();
    // Its one step is also too far from the genesis.
    let error = verify(&network, &mixed.encode()).unwrap_err();
    assert!(matches!(error, VersionProofError::Light(light::LightError::TooFar { .. })), "{error}");
}

/// Every bit that is not as it was makes the proof fail, or changes nothing that it says.
#[test]
fn no_damage_goes_unseen() {
    let mut network = Network::of([1]);
    network.say(50, publish("photos", "v1", 1));
    network.say(50, publish("photos", "v2", 2));
    let bytes = proof(&network, "v1").unwrap().encode();
    let proven = verify(&network, &bytes).unwrap();
    assert!(bytes.len() < 3_000, "{}", bytes.len());
    for at in 0..bytes.len() {
        for bit in [0x01, 0x10, 0x80] {
            let mut bent = bytes.clone();
            bent[at] ^= bit;
            if let Ok(found) = verify(&network, &bent) {
                assert_eq!(found, proven, "byte {at}");
            }
        }
        assert!(verify(&network, &bytes[..at]).is_err());
    }
}

#[test]
fn a_checkpoint_is_of_the_head_and_a_witness_can_check_consistency() {
    let mut network = Network::of([1]);
    network.say(50, publish("photos", "v1", 1));
    let old = Checkpoint::of(network.ledger.head().unwrap());
    network.say(50, publish("photos", "v2", 2));
    network.say(50, publish("photos", "v3", 3));
    let new = Checkpoint::of(network.ledger.head().unwrap());
    assert_eq!((old.size, new.size), (1, 3));
    assert_eq!(new.origin, checkpoint::origin(network.doc.id()));
    let (note, log) = new.signed(&key(1)).unwrap();
    let mut received = Note::parse(note.to_string().as_bytes()).unwrap();
    assert_eq!(received.verify(&log), Ok(None));
    assert_eq!(Checkpoint::parse(received.text()), Ok(new.clone()));
    let entries: Vec<&Entry> = network.blocks.iter().flat_map(|block| &block.body.entries).collect();
    let leaves: Vec<LogRoot> = entries.iter().map(|entry| merkle::leaf(&entry.encode())).collect();
    let consistent = merkle::prove_consistency(&leaves, 1).unwrap();
    assert_eq!(merkle::verify_consistency(old.root, old.size, new.root, new.size, &consistent), Ok(()));
    let witness = received.cosign("witness.example/1", &key(9), 1_800_000_000).unwrap();
    assert_eq!(received.verify(&witness), Ok(Some(1_800_000_000)));
    let (stranger, _) = old.signed(&key(2)).unwrap();
    assert!(matches!(stranger.verify(&log), Err(NoteError::NotSigned(_))));
}
