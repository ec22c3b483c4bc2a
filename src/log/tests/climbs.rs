//! The light client on its way: by halves through sets that change, from a pin, and against peers that lie.

use super::*;
use crate::log::light::{Climb, LightError, Pin, Trusted, Update};

/// Every operator votes with a new key in every epoch, so that no far head has a third of an older set.
fn restless(epochs: u8) -> (Network, Vec<Update>) {
    let mut network = Network::with(1..=4, |doc| doc.params.epoch_ms = 1_000);
    for epoch in 1..=epochs {
        for operator in 1..=4u8 {
            let voter = key(epoch * 4 + operator);
            let join = ValidatorChange::join(&voter, network.doc.id(), &key(operator).public());
            network.say(operator, EntryBody::Validator(join));
        }
        network.next_epoch();
    }
    let updates = network.blocks.iter().map(|block| network.ledger.update(block).unwrap()).collect();
    (network, updates)
}

/// Climbs with an honest peer; the heights that were asked for.
fn climb(climb: &mut Climb, updates: &[Update]) -> Vec<u64> {
    let mut asked = Vec::new();
    while let Some(height) = climb.wants() {
        asked.push(height);
        climb.offer(updates[height as usize - 1].clone()).unwrap();
    }
    asked
}

#[test]
fn one_step_is_enough_where_the_set_stays() {
    let mut network = Network::of(1..=4);
    for _ in 0..50 {
        network.decide(vec![]);
    }
    let mut way = Climb::new(Trusted::at_genesis(&network.doc), 50);
    let believed = way.offer(network.update()).unwrap();
    assert_eq!((way.wants(), believed.len(), way.trusted().height()), (None, 1, 50));
    assert_eq!(*way.trusted(), network.ledger.trusted());
}

#[test]
fn halves_lead_through_sets_that_have_nobody_in_common() {
    let (network, updates) = restless(8);
    let height = network.ledger.height();
    let mut way = Climb::new(Trusted::at_genesis(&network.doc), height);
    let asked = climb(&mut way, &updates);
    assert_eq!(*way.trusted(), network.ledger.trusted());
    let distinct: std::collections::BTreeSet<&u64> = asked.iter().collect();
    assert_eq!(distinct.len(), asked.len(), "no height twice: {asked:?}");
    assert!(asked.len() < updates.len(), "{} of {}", asked.len(), updates.len());
    // A head that was asked for in vain is not fetched again from the trust that is reached.
    let mut rest = Climb::new(way.trusted().clone(), height);
    assert_eq!(climb(&mut rest, &updates), Vec::<u64>::new());
}

#[test]
fn a_lie_on_the_way_is_refused_and_the_climb_goes_on_with_another_peer() {
    let (network, updates) = restless(4);
    let height = network.ledger.height();
    let mut way = Climb::new(Trusted::at_genesis(&network.doc), height);
    let wrong = way.offer(updates[0].clone()).unwrap_err();
    assert_eq!(wrong, LightError::NotAsked { wanted: height, height: 1 });
    // A head of made-up validators is too far, then does not hold when the way to it is known.
    let mut forged = updates[height as usize - 1].clone();
    forged.signed.header.time_ms += 1;
    let set = validator_set(100..=103);
    forged.signed.header.validators = set.digest();
    let id = forged.signed.header.id();
    let votes = votes(&network.doc, &[100, 101, 102, 103], height, 0, id);
    forged.signed.certificate = Certificate::assemble(&set, height, 0, id, votes).unwrap();
    forged.signed.validators = set;
    way.offer(forged).unwrap();
    let error = loop {
        let wanted = way.wants().unwrap();
        if let Err(error) = way.offer(updates[wanted as usize - 1].clone()) {
            break error;
        }
    };
    assert!(matches!(error, LightError::NotNext { .. }), "{error}");
    climb(&mut way, &updates);
    assert_eq!(*way.trusted(), network.ledger.trusted());
}

#[test]
fn a_pin_is_the_root_of_trust_when_the_user_says_so() {
    let (network, updates) = restless(6);
    let far = &updates[10];
    let pin = Pin { height: 11, header: far.signed.header.id() };
    assert_eq!(pin.to_string().parse(), Ok(pin));
    let mut way = Climb::new(Trusted::at_pin(&network.doc, pin, far).unwrap(), network.ledger.height());
    climb(&mut way, &updates);
    assert_eq!(*way.trusted(), network.ledger.trusted());
    let refused = |pin, update: &Update| Trusted::at_pin(&network.doc, pin, update).unwrap_err();
    let other = Pin { header: updates[9].signed.header.id(), ..pin };
    assert!(matches!(refused(other, far), LightError::Pinned { .. }));
    assert!(matches!(refused(Pin { height: 10, ..pin }, far), LightError::Pinned { .. }));
    let mut forged = far.clone();
    forged.signed.certificate.signatures.swap(0, 1);
    assert!(matches!(refused(pin, &forged), LightError::Certificate { .. }));
    let mut forged = far.clone();
    forged.next = validator_set([100]);
    assert!(matches!(refused(pin, &forged), LightError::Set { which: "next validators", .. }));
    let id = pin.header;
    for text in ["", "@", "@0:", &format!("12:{id}"), &format!("@012:{id}"), &format!("@+12:{id}"), "@12:ab"]
    {
        assert!(text.parse::<Pin>().unwrap_err().to_string().contains("is not a pin"), "{text}");
    }
    assert!(format!("@0:{id}").parse::<Pin>().is_err(), "there is no height 0");
}
