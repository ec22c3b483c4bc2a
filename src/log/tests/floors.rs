//! What a light client does not take back: names, versions, tags, time. And what it does with a fork.

use super::*;
use crate::log::light::{Fork, LightError, MAX_FLOORS, Trusted};
use crate::log::sparse::SparseMap;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A network with a version, a tag and a withdrawal, and what its light client holds.
fn photos() -> Network {
    let mut network = Network::of(1..=4);
    network.say(50, publish("photos", "v1", 1));
    network.say(50, publish("photos", "v2", 2));
    network.say(50, tag("photos", "good", "v1"));
    network
}

fn item(network: &Network, key: &StateKey) -> Option<Item> {
    let dataset = network.ledger.dataset("photos")?;
    match key {
        StateKey::Name(_) => Some(Item::Name {
            owner: dataset.owner,
            versions: dataset.versions.len() as u64,
            latest: dataset.latest().map(|v| v.label.clone()),
        }),
        StateKey::Version(_, label) => Some(Item::Version(dataset.version(label.as_str())?.clone())),
        StateKey::Tag(_, label) => Some(Item::Tag(dataset.tags.get(label)?.clone())),
        _ => None,
    }
}

fn keys() -> [StateKey; 3] {
    [
        StateKey::Name(name("photos")),
        StateKey::Version(name("photos"), "v1".parse().unwrap()),
        StateKey::Tag(name("photos"), "good".parse().unwrap()),
    ]
}

/// `trusted` after it has been shown all three.
fn observed(network: &Network, trusted: &Trusted) -> Result<Trusted, LightError> {
    let mut trusted = trusted.clone();
    for key in keys() {
        trusted.observe(&key, item(network, &key).as_ref(), &network.ledger.prove(&key))?;
    }
    Ok(trusted)
}

/// A head of `height` that validators signed over a state of their own making.
fn rewritten(network: &Network, trusted: &Trusted, items: &[(StateKey, Item)]) -> (Trusted, SparseMap<()>) {
    let mut map = SparseMap::default();
    items.iter().for_each(|(key, item)| map.insert(key.digest(), item.digest(), ()));
    let mut update = network.update();
    let header = &mut update.signed.header;
    (header.height, header.state_root) = (trusted.height() + 2, map.root());
    let (height, id) = (header.height, header.id());
    update.signed.certificate = network.certify(&update.signed.header, &[1, 2, 3], 0);
    assert_eq!(update.signed.certificate.header, id);
    assert_eq!(update.signed.header.height, height);
    (trusted.advance(&update).unwrap(), map)
}

#[test]
fn what_is_shown_must_be_proven() {
    let network = photos();
    let mut trusted = network.ledger.trusted();
    let [key, other, _] = keys();
    let (held, proof) = (item(&network, &key), network.ledger.prove(&key));
    assert!(trusted.observe(&key, held.as_ref(), &proof).is_ok());
    assert!(matches!(trusted.observe(&key, None, &proof), Err(LightError::Item { .. })));
    let wrong = item(&network, &other);
    assert!(matches!(trusted.observe(&key, wrong.as_ref(), &proof), Err(LightError::Item { .. })));
    let elsewhere = trusted.observe(&other, wrong.as_ref(), &proof);
    assert!(matches!(elsewhere, Err(LightError::Proof { .. })));
    let mut start = Trusted::at_genesis(&network.doc);
    assert!(matches!(start.observe(&key, held.as_ref(), &proof), Err(LightError::NoHead(_))));
    let absent = StateKey::Name(name("videos"));
    assert_eq!(trusted.observe(&absent, None, &network.ledger.prove(&absent)), Ok(()));
}

#[test]
fn the_log_may_go_on_and_floors_survive_storage() {
    let mut network = photos();
    let seen = observed(&network, &network.ledger.trusted()).unwrap();
    let stored = Trusted::decode(&seen.encode()).unwrap();
    assert_eq!(stored, seen);
    // A withdrawal, a moved tag and one more version are all forward.
    network.say(50, tag("photos", "good", "v2"));
    network.say(50, publish("photos", "v3", 3));
    network.say(50, yank("photos", "v1", "r"));
    let later = stored.advance(&network.update()).unwrap();
    let later = observed(&network, &later).unwrap();
    assert_eq!(later.height(), 6);
}

#[test]
fn what_went_back_is_refused_although_a_quorum_signed_it() {
    let mut network = photos();
    let before: Vec<(StateKey, Item)> =
        keys().into_iter().map(|key| (key.clone(), item(&network, &key).unwrap())).collect();
    network.say(50, tag("photos", "good", "v2"));
    network.say(50, yank("photos", "v1", "r"));
    network.say(50, publish("photos", "v3", 3));
    let seen = observed(&network, &network.ledger.trusted()).unwrap();
    let (mut trusted, map) = rewritten(&network, &seen, &before);
    for (key, item) in &before {
        let error = trusted.observe(key, Some(item), &map.prove(&key.digest())).unwrap_err();
        assert!(matches!(&error, LightError::Backwards { seen: 6, .. }), "{error}");
        assert!(error.to_string().starts_with("photos"), "{error}");
    }
    let (mut trusted, map) = rewritten(&network, &seen, &[]);
    for key in keys() {
        let error = trusted.observe(&key, None, &map.prove(&key.digest())).unwrap_err();
        assert!(matches!(&error, LightError::Gone { seen: 6, .. }), "{error}");
    }
}

#[test]
fn a_version_or_owner_that_changed_is_refused() {
    let network = photos();
    let seen = observed(&network, &network.ledger.trusted()).unwrap();
    let [named, version, tagged] = keys();
    let mut changed = Vec::new();
    if let Some(Item::Name { versions, latest, .. }) = item(&network, &named) {
        changed.push((named, Item::Name { owner: key(51).public(), versions, latest }));
    }
    if let Some(Item::Version(held)) = item(&network, &version) {
        changed.push((version, Item::Version(Version { snapshot: snapshot(9), ..held })));
    }
    // The same move of the tag, to another version.
    if let Some(Item::Tag(held)) = item(&network, &tagged) {
        changed.push((tagged, Item::Tag(Target { version: "v2".parse().unwrap(), ..held })));
    }
    assert_eq!(changed.len(), 3);
    let (mut trusted, map) = rewritten(&network, &seen, &changed);
    for (key, item) in &changed {
        let error = trusted.observe(key, Some(item), &map.prove(&key.digest())).unwrap_err();
        assert!(matches!(error, LightError::Backwards { .. }), "{error}");
    }
}

/// However many names a machine looks at, its trust stays small: what was confirmed longest ago is forgotten.
#[test]
fn floors_are_bounded() {
    let network = photos();
    let seen = observed(&network, &network.ledger.trusted()).unwrap();
    let owner = key(50).public();
    let many: Vec<(StateKey, Item)> = (0..MAX_FLOORS + 5)
        .map(|i| (StateKey::Name(name(&format!("d{i}"))), Item::Name { owner, versions: 1, latest: None }))
        .collect();
    let (mut trusted, map) = rewritten(&network, &seen, &many);
    for (key, item) in &many {
        trusted.observe(key, Some(item), &map.prove(&key.digest())).unwrap();
    }
    let stored = trusted.encode();
    assert!(stored.len() <= light::MAX_TRUSTED_LEN);
    assert_eq!(Trusted::decode(&stored), Ok(trusted));
}

#[test]
fn a_frozen_head_is_old_and_a_clock_that_is_set_back_does_not_hide_it() {
    let network = photos();
    let trusted = network.ledger.trusted();
    let head = trusted.time_ms();
    let day = 86_400_000;
    assert_eq!(trusted.check_fresh(head + day, day), Ok(()));
    let error = trusted.check_fresh(head + 3 * day, day).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("is 3 days old") && text.contains("more than 24 hours"), "{text}");
    assert!(text.contains("--offline"), "{text}");
    let later = trusted.at_time(head + 3 * day);
    let stored = Trusted::decode(&later.encode()).unwrap();
    assert_eq!(stored.check_fresh(head, day).unwrap_err(), error, "the clock went back");
    assert_eq!(stored.at_time(0), stored);
    // A clock that was always behind accuses nobody.
    assert_eq!(trusted.check_fresh(0, day), Ok(()));
}

fn fork(network: &Network, mine: (&[u8], u32), theirs: (&[u8], u32)) -> Fork {
    let mut update = network.update();
    update.signed.certificate = network.certify(&update.signed.header, mine.0, mine.1);
    let trusted = Trusted::at_genesis(&network.doc).advance(&update).unwrap();
    update.signed.header.time_ms += 1;
    update.signed.certificate = network.certify(&update.signed.header, theirs.0, theirs.1);
    match trusted.advance(&update).unwrap_err() {
        LightError::Fork(fork) => *fork,
        other => panic!("{other}"),
    }
}

#[test]
fn a_fork_jails_who_signed_both_sides() {
    let mut network = photos();
    let fork = fork(&network, (&[1, 2, 3], 0), (&[2, 3, 4], 0));
    let mut guilty = vec![key(2).public(), key(3).public()];
    guilty.sort();
    assert_eq!(fork.suspects(), guilty);
    let evidence = fork.evidence();
    assert_eq!(evidence.iter().map(|e| e.voter).collect::<Vec<_>>(), guilty);
    for evidence in evidence {
        network.say(50, EntryBody::Evidence(evidence));
    }
    let standing = |seed: u8| network.ledger.operator(&key(seed).public()).unwrap().standing;
    assert_eq!(
        [1, 2, 3, 4].map(standing),
        [Standing::Active, Standing::Jailed, Standing::Jailed, Standing::Active]
    );
}

/// An honest validator may precommit another header in a later round: two rounds convict nobody.
#[test]
fn a_fork_over_two_rounds_names_suspects_and_convicts_nobody() {
    let network = photos();
    let fork = fork(&network, (&[1, 2, 3], 0), (&[2, 3, 4], 1));
    assert_eq!(fork.suspects().len(), 2);
    assert_eq!(fork.evidence(), vec![]);
}
