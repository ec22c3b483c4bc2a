//! Decoders against junk, and the header's roots against the blocks they stand for.

use proptest::prelude::*;

use super::light::{Trusted, Update};
use super::*;
use crate::crypto::PublicKey;

#[test]
fn the_log_root_is_over_all_entries_in_order() {
    let mut network = Network::of([1]);
    let mut leaves = Vec::new();
    for height in 1..=6u8 {
        let entries: Vec<Entry> = (0..height)
            .map(|i| {
                network.entry(
                    40 + height,
                    u64::from(i) + 1,
                    publish(&format!("d{height}"), &format!("v{i}"), i),
                )
            })
            .collect();
        leaves.extend(entries.iter().map(|entry| merkle::leaf(&entry.encode())));
        network.decide(entries);
        let head = network.ledger.head().unwrap();
        assert_eq!(head.log_size, leaves.len() as u64);
        let proof = merkle::prove_inclusion(&leaves, leaves.len() - 1).unwrap();
        let last = leaves[leaves.len() - 1];
        assert_eq!(
            merkle::verify_inclusion(head.log_root, head.log_size, head.log_size - 1, last, &proof),
            Ok(())
        );
        let (old, old_size) = (&network.blocks[0].header.log_root, network.blocks[0].header.log_size);
        let proof = merkle::prove_consistency(&leaves, old_size as usize).unwrap();
        assert_eq!(merkle::verify_consistency(*old, old_size, head.log_root, head.log_size, &proof), Ok(()));
    }
}

#[test]
fn the_state_root_proves_versions_tags_nonces_and_their_absence() {
    let mut network = Network::of([1]);
    let entries = vec![
        network.entry(50, 7, publish("photos", "v1", 1)),
        network.entry(50, 8, tag("photos", "t", "v1")),
    ];
    network.decide(entries);
    let (name, v1, t) =
        ("photos".parse::<Name>().unwrap(), "v1".parse::<Label>().unwrap(), "t".parse().unwrap());
    let dataset = network.ledger.dataset("photos").unwrap();
    let root = network.ledger.head().unwrap().state_root;
    let present = [
        (StateKey::Version(name.clone(), v1.clone()), Item::Version(dataset.version("v1").unwrap().clone())),
        (StateKey::Tag(name.clone(), t), Item::Tag(dataset.tags["t"].clone())),
        (StateKey::Nonce(key(50).public()), Item::Nonce(8)),
    ];
    for (key, item) in present {
        assert_eq!(network.ledger.prove(&key).verify(root, &key.digest()), Ok(Some(item.digest())));
    }
    // A tag is not a version, and nobody else has written.
    for key in [StateKey::Tag(name, v1), StateKey::Nonce(key(51).public())] {
        assert_eq!(network.ledger.prove(&key).verify(root, &key.digest()), Ok(None));
    }
}

/// Something that is decoded: bytes that it accepts, and whether it accepts given ones.
type Sample = (Vec<u8>, fn(&[u8]) -> bool);

static SAMPLES: std::sync::LazyLock<Vec<Sample>> = std::sync::LazyLock::new(samples);

fn samples() -> Vec<Sample> {
    let mut network = Network::of(1..=4);
    let entries =
        vec![network.entry(50, 1, publish("a/b", "v1", 1)), network.entry(50, 2, yank("a/b", "v1", "r"))];
    network.decide(entries);
    network.decide(vec![network.entry(50, 3, publish("a/b", "v2", 1))]);
    let block = &network.blocks[1];
    let mut trusted = network.ledger.trusted();
    let key = StateKey::Name("none".parse().unwrap());
    trusted.observe(&key, None, &network.ledger.prove(&key)).unwrap();
    let what = (&"a/b".parse().unwrap(), &"v2".parse().unwrap());
    let entries: Vec<&Entry> = network.blocks.iter().flat_map(|block| &block.body.entries).collect();
    let leaves: Vec<_> = entries.iter().map(|entry| merkle::leaf(&entry.encode())).collect();
    let steps = vec![network.update()];
    let last = (2, entries[2].clone());
    let proof = proof::VersionProof::new(&network.ledger, what, steps, &leaves, last).unwrap();
    let mut samples: Vec<Sample> = vec![
        (block.header.encode(), |b| Header::decode(b).is_ok()),
        (block.body.encode(), |b| Body::decode(b).is_ok()),
        (block.encode(), |b| Block::decode(b).is_ok()),
        (block.certificate.encode(), |b| Certificate::decode(b).is_ok()),
        (network.doc.encode(), |b| GenesisDoc::decode(b).is_ok()),
        (network.update().encode(), |b| Update::decode(b).is_ok()),
        (trusted.encode(), |b| Trusted::decode(b).is_ok()),
        (proof.encode(), |b| proof::VersionProof::decode(b).is_ok()),
    ];
    for body in one_of_each(network.doc.id()) {
        samples.push((network.entry(50, 9, body).encode(), |b| Entry::decode(b).is_ok()));
    }
    samples
}

proptest! {
    #[test]
    fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for (_, decode) in SAMPLES.iter() {
            decode(&bytes);
        }
    }

    /// Whatever still decodes after damage is another value of one encoding, never the same value spelt differently.
    #[test]
    fn damage_never_panics_nor_goes_unseen(
        which: usize, flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4), cut in any::<usize>(),
    ) {
        let (whole, decode) = &SAMPLES[which % SAMPLES.len()];
        prop_assert!(decode(whole));
        prop_assert!(!decode(&whole[..cut % whole.len()]));
        let mut bytes = whole.clone();
        for (at, with) in flips {
            let at = at % bytes.len();
            bytes[at] ^= with;
        }
        decode(&bytes);
        if let Ok(block) = Block::decode(&bytes) {
            prop_assert_eq!(block.encode(), bytes.clone());
        }
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(entry.encode(), bytes);
        }
    }

    #[test]
    fn entries_round_trip(
        nonce: u64, seed in 1u8..20, bytes: u64, inodes: u64,
        name in "[a-z0-9][a-z0-9._-]{0,20}(/[a-z0-9][a-z0-9._-]{0,20}){0,3}",
        version in "[A-Za-z0-9][A-Za-z0-9._-]{0,40}", parent in proptest::option::of("[a-z0-9]{1,6}"),
    ) {
        let Ok(version) = version.parse::<Label>() else { return Ok(()) };
        let Ok(parent) = parent.map(|p| p.parse::<Label>()).transpose() else { return Ok(()) };
        let body = EntryBody::Publish(Publish {
            name: name.parse().unwrap(), version, snapshot: snapshot(seed), bytes, inodes, parent, replicas: Vec::new(), copies: None,
        });
        let entry = Entry::sign(&key(seed), document([1]).id(), nonce, body);
        prop_assert_eq!(Entry::decode(&entry.encode()), Ok(entry.clone()));
        prop_assert_eq!(entry.verify(), Ok(()));
    }

    /// Random work on a ledger against a plain model of the rules.
    #[test]
    fn the_ledger_agrees_with_a_model(
        steps in proptest::collection::vec((0u8..3, 0u8..2, 0u8..3, 0u8..3, 0u8..2), 1..40),
    ) {
        let mut network = Network::of([1]);
        let mut model: std::collections::BTreeMap<(u8, u8), (u8, bool)> = Default::default();
        let mut owners: std::collections::BTreeMap<u8, PublicKey> = Default::default();
        for (nonce, (what, name, version, content, author)) in steps.into_iter().enumerate() {
            let (named, label) = (format!("d{name}"), format!("v{version}"));
            let body = if what < 2 { publish(&named, &label, content) } else { yank(&named, &label, "r") };
            let author = 50 + author;
            let owned = owners.get(&name).is_none_or(|owner| *owner == key(author).public());
            let held = model.get(&(name, version)).copied();
            let fits = match (what, held) {
                (0 | 1, None) => owned,
                (0 | 1, Some(_)) => false,
                (_, Some((_, yanked))) => owned && !yanked,
                (_, None) => false,
            };
            let entry = network.entry(author, nonce as u64 + 1, body);
            prop_assert_eq!(network.ledger.admit(&entry) == Ok(Admission::New), fits);
            let block = network.block(vec![entry]);
            prop_assert_eq!(block.body.entries.len(), usize::from(fits));
            network.ledger = network.ledger.apply(&block).unwrap();
            if fits {
                owners.entry(name).or_insert(key(author).public());
                let content = held.map_or(content, |(content, _)| content);
                model.insert((name, version), (content, what == 2));
            }
        }
        for ((name, version), (content, yanked)) in model {
            let label = format!("v{version}");
            let found = network.ledger.resolve(&format!("d{name}"), Some(&label)).unwrap();
            prop_assert_eq!((found.snapshot, found.yanked.is_some()), (snapshot(content), yanked));
        }
    }
}
