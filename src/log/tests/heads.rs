//! What a light client believes, and what it refuses.

use super::light::{Fork, LightError, Signed, Trusted, Update};
use super::*;
use crate::codec;

const AUTHOR: u8 = 50;

/// Heights 1 to `heights` of four validators, and the light client's start.
fn four(heights: u64) -> (Network, Trusted, Vec<Update>) {
    let mut network = Network::of(1..=4);
    let start = Trusted::at_genesis(&network.doc);
    let mut updates = Vec::new();
    for height in 1..=heights {
        let version = format!("v{height}");
        network.decide(vec![network.entry(AUTHOR, height, publish("photos", &version, height as u8))]);
        updates.push(network.update());
    }
    (network, start, updates)
}

/// `update` with a changed header, signed again by `seeds`, who are then also its validators.
fn resigned(network: &Network, update: &Update, seeds: &[u8], change: impl FnOnce(&mut Header)) -> Update {
    let set = validator_set(seeds.iter().copied());
    let mut header = update.signed.header.clone();
    (header.validators, header.next_validators) = (set.digest(), set.digest());
    change(&mut header);
    let votes = votes(&network.doc, seeds, header.height, 0, header.id());
    let certificate = Certificate::assemble(&set, header.height, 0, header.id(), votes).unwrap();
    Update { signed: Signed { header, certificate, validators: set.clone() }, next: set }
}

#[test]
fn follows_step_by_step_and_by_skipping() {
    let (network, start, updates) = four(5);
    let mut stepping = start.clone();
    for update in &updates {
        stepping = stepping.advance(&Update::decode(&update.encode()).unwrap()).unwrap();
    }
    let skipping = start.advance(&updates[4]).unwrap();
    assert_eq!(stepping, skipping);
    assert_eq!(stepping, network.ledger.trusted());
    assert_eq!(stepping.height(), 5);
    assert_eq!(stepping.advance(&updates[4]), Ok(stepping.clone()));
    assert_eq!(Trusted::decode(&stepping.encode()), Ok(stepping.clone()));
    assert_eq!(Trusted::decode(&start.encode()), Ok(start));
    // The head's state root is what a proof is checked against.
    let name = StateKey::Name("photos".parse().unwrap());
    let proof = network.ledger.prove(&name);
    let owner = key(AUTHOR).public();
    let item = Item::Name { owner, versions: 5, latest: Some("v5".parse().unwrap()) };
    let root = stepping.state_root().unwrap();
    assert_eq!(proof.verify(root, &name.digest()), Ok(Some(item.digest())));
    let absent = StateKey::Name("videos".parse().unwrap());
    assert_eq!(network.ledger.prove(&absent).verify(root, &absent.digest()), Ok(None));
}

#[test]
fn going_back_is_refused() {
    let (network, start, updates) = four(3);
    let trusted = start.advance(&updates[2]).unwrap();
    assert_eq!(trusted.advance(&updates[1]), Err(LightError::Older { trusted: 3, offered: 2 }));
    let zero = resigned(&network, &updates[0], &[1, 2, 3, 4], |h| h.height = 0);
    assert_eq!(start.advance(&zero), Err(LightError::Older { trusted: 0, offered: 0 }));
    let early = resigned(&network, &updates[2], &[1, 2, 3, 4], |h| (h.height, h.time_ms) = (9, 1_029));
    assert_eq!(trusted.advance(&early), Err(LightError::Time { height: 9, floor: 1_030, found: 1_029 }));
    let before_genesis = resigned(&network, &updates[0], &[1, 2, 3, 4], |h| h.time_ms = 999);
    assert!(matches!(start.advance(&before_genesis), Err(LightError::Time { floor: 1_000, .. })));
}

#[test]
fn another_network_or_format_is_refused() {
    let (network, start, updates) = four(1);
    let foreign = resigned(&network, &updates[0], &[1, 2, 3, 4], |h| h.genesis = document([9]).id());
    assert!(matches!(start.advance(&foreign), Err(LightError::OtherNetwork { .. })));
    let future = resigned(&network, &updates[0], &[1, 2, 3, 4], |h| h.version = 2);
    assert!(matches!(start.advance(&future), Err(LightError::Version { height: 1, found: 2 })));
}

#[test]
fn sets_must_be_those_of_the_header() {
    let (_, start, updates) = four(1);
    let other = validator_set(5..=8);
    let mut lie = updates[0].clone();
    lie.signed.validators = other.clone();
    assert!(matches!(start.advance(&lie), Err(LightError::Set { which: "validators", .. })));
    let mut lie = updates[0].clone();
    lie.next = other;
    assert!(matches!(start.advance(&lie), Err(LightError::Set { which: "next validators", .. })));
}

#[test]
fn the_next_height_must_follow_the_trusted_one() {
    let (network, start, updates) = four(2);
    let trusted = start.advance(&updates[0]).unwrap();
    let stranger = resigned(&network, &updates[1], &[5, 6, 7, 8], |_| {});
    assert_eq!(trusted.advance(&stranger), Err(LightError::NotNext { height: 2 }));
    let detached = resigned(&network, &updates[1], &[1, 2, 3, 4], |h| h.previous = None);
    assert_eq!(trusted.advance(&detached), Err(LightError::NotNext { height: 2 }));
}

#[test]
fn skipping_needs_a_third_of_those_already_trusted() {
    let (network, start, updates) = four(5);
    let trusted = start.advance(&updates[0]).unwrap();
    // One of the four is not more than a third; two are.
    let one = resigned(&network, &updates[4], &[1, 5, 6, 7], |_| {});
    assert_eq!(trusted.advance(&one), Err(LightError::TooFar { height: 5, trusted: 1, weight: 1, total: 4 }));
    let two = resigned(&network, &updates[4], &[1, 2, 5, 6, 7], |_| {});
    assert_eq!(trusted.advance(&two).unwrap().height(), 5);
    // Claiming two and forging their signatures is caught by the certificate.
    let mut forged = two.clone();
    forged.signed.certificate.signatures.swap(0, 1);
    assert!(matches!(
        trusted.advance(&forged),
        Err(LightError::Certificate { height: 5, cause: CertificateError::Signature(_) })
    ));
    let mut few = updates[4].clone();
    few.signed.certificate.signers = vec![0b0011];
    few.signed.certificate.signatures.truncate(2);
    assert!(matches!(
        trusted.advance(&few),
        Err(LightError::Certificate { cause: CertificateError::Quorum { weight: 2, total: 4 }, .. })
    ));
}

#[test]
fn a_fork_is_proven_with_both_sides() {
    let (network, start, updates) = four(2);
    let trusted = start.advance(&updates[1]).unwrap();
    let other = resigned(&network, &updates[1], &[1, 2, 3, 4], |h| h.time_ms += 1);
    let error = trusted.advance(&other).unwrap_err();
    assert!(error.to_string().contains("forked at height 2"), "{error}");
    let LightError::Fork(fork) = error else { panic!("{error}") };
    assert_eq!((&fork.trusted, &fork.offered), (&updates[1].signed, &other.signed));
    assert_eq!(codec::decode::<Fork>("a fork", &codec::encode(&*fork), 1 << 16), Ok(*fork));
    // What no quorum signed is a lie of the peer and no evidence against validators.
    let mut unsigned = other;
    unsigned.signed.certificate.signatures.swap(0, 1);
    assert!(matches!(trusted.advance(&unsigned), Err(LightError::Certificate { .. })));
    let strangers = resigned(&network, &updates[1], &[5, 6, 7, 8], |_| {});
    assert!(matches!(trusted.advance(&strangers), Err(LightError::TooFar { weight: 0, .. })));
}

#[test]
fn a_damaged_stored_form_is_refused() {
    let (_, start, updates) = four(2);
    let stored = start.advance(&updates[1]).unwrap().encode();
    for at in 0..stored.len() {
        for bit in [0x01, 0x80] {
            let mut bytes = stored.clone();
            bytes[at] ^= bit;
            // The one field that no signature covers is the genesis document's time, of no use once there is a head.
            if let Ok(read) = Trusted::decode(&bytes) {
                assert_eq!(read.head(), start.advance(&updates[1]).unwrap().head(), "byte {at}");
            }
        }
    }
    assert!(matches!(Trusted::decode(&stored[..stored.len() - 1]), Err(LightError::Codec(_))));
}
