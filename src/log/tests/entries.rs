//! Which entries execute, which are refused, and in which words.

use super::*;

const AUTHOR: u8 = 50;

fn photos() -> Network {
    let mut network = Network::of([1]);
    let entries = vec![
        network.entry(AUTHOR, 1, publish("photos", "v1", 1)),
        network.entry(AUTHOR, 2, publish("photos", "v2", 2)),
        network.entry(AUTHOR, 3, tag("photos", "good", "v1")),
    ];
    network.decide(entries);
    network
}

fn refusal(network: &Network, author: u8, nonce: u64, body: EntryBody) -> String {
    network.ledger.admit(&network.entry(author, nonce, body)).unwrap_err().to_string()
}

fn label_of(network: &Network, label: Option<&str>) -> String {
    network.ledger.resolve("photos", label).unwrap().label.to_string()
}

#[test]
fn versions_and_tags_resolve() {
    let mut network = photos();
    assert_eq!(label_of(&network, None), "v2");
    assert_eq!(label_of(&network, Some("latest")), "v2");
    assert_eq!(label_of(&network, Some("v1")), "v1");
    assert_eq!(label_of(&network, Some("good")), "v1");
    network.decide(vec![network.entry(AUTHOR, 9, tag("photos", "good", "v2"))]);
    assert_eq!(label_of(&network, Some("good")), "v2");
    let dataset = network.ledger.dataset("photos").unwrap();
    assert_eq!((dataset.versions.len(), dataset.tags.len()), (2, 1));
    assert_eq!(dataset.versions[0].published.height, 1);
    assert_eq!((network.ledger.entries(), network.ledger.nonce(&key(AUTHOR).public())), (4, 9));
}

#[test]
fn what_does_not_exist_is_named() {
    let network = photos();
    let unknown = network.ledger.resolve("photo", None).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no dataset `photo` in this log");
    let unknown = network.ledger.resolve("photos", Some("v9")).unwrap_err();
    assert_eq!(unknown.to_string(), "photos has no version or tag `v9`; its latest version is v2");
    assert!(refusal(&network, AUTHOR, 9, tag("photos", "t", "v9")).contains("no version or tag `v9`"));
    assert!(refusal(&network, AUTHOR, 9, yank("other", "v9", "r")).contains("no dataset `other`"));
}

#[test]
fn a_version_never_changes() {
    let network = photos();
    let text = refusal(&network, AUTHOR, 9, publish("photos", "v1", 3));
    let (held, offered) = (snapshot(1), snapshot(3));
    assert_eq!(
        text,
        format!(
            "photos@v1 is already published as snapshot {held} (height 1) and cannot become snapshot {offered}; versions \
             never change: publish under a new version"
        )
    );
}

#[test]
fn saying_the_same_again_succeeds_and_is_not_recorded() {
    let mut network = photos();
    let first = network.blocks[0].body.entries[0].clone();
    let expected = Ok(Admission::Already { height: 1, entry: first.id() });
    // The very same entry, as after a lost answer; and a new one to the same effect, even with an old nonce.
    assert_eq!(network.ledger.admit(&first), expected);
    for nonce in [1, 9] {
        assert_eq!(network.ledger.admit(&network.entry(AUTHOR, nonce, publish("photos", "v1", 1))), expected);
    }
    let again = network.entry(AUTHOR, 9, tag("photos", "good", "v1"));
    assert!(matches!(network.ledger.admit(&again), Ok(Admission::Already { height: 1, .. })));
    assert_eq!(network.propose(vec![first, again]).1.entries, vec![]);
    network.decide(vec![network.entry(AUTHOR, 9, yank("photos", "v2", "wrong labels"))]);
    let again = network.entry(AUTHOR, 10, yank("photos", "v2", "wrong labels"));
    assert!(matches!(network.ledger.admit(&again), Ok(Admission::Already { height: 2, .. })));
}

#[test]
fn a_name_belongs_to_who_first_published_it() {
    let network = photos();
    let stranger = key(51).public();
    for body in [
        publish("photos", "v3", 3),
        publish("photos", "v1", 1),
        tag("photos", "t", "v1"),
        yank("photos", "v1", "r"),
    ] {
        let text = refusal(&network, 51, 1, body);
        assert!(text.starts_with(&format!("photos belongs to {}", key(AUTHOR).public())), "{text}");
        assert!(text.contains(&stranger.to_string()), "{text}");
    }
    assert_eq!(
        network.ledger.admit(&network.entry(51, 1, publish("team/photos", "v1", 1))),
        Ok(Admission::New)
    );
}

#[test]
fn a_withdrawn_version_stays_visible_and_latest_passes_it_over() {
    let mut network = photos();
    network.decide(vec![network.entry(AUTHOR, 9, yank("photos", "v2", "wrong labels"))]);
    assert_eq!(label_of(&network, None), "v1");
    let yanked = network.ledger.resolve("photos", Some("v2")).unwrap().yanked.clone().unwrap();
    assert_eq!((yanked.reason.as_str(), yanked.stamp.height), ("wrong labels", 2));
    let withdrawn = "photos@v2 was withdrawn at height 2: wrong labels";
    for body in [publish("photos", "v2", 2), tag("photos", "t", "v2"), yank("photos", "v2", "another reason")]
    {
        assert_eq!(refusal(&network, AUTHOR, 10, body), withdrawn);
    }
    network.decide(vec![network.entry(AUTHOR, 11, yank("photos", "v1", "all of it"))]);
    let none = network.ledger.resolve("photos", None).unwrap_err();
    assert!(matches!(none, Refusal::AllYanked { .. }), "{none}");
    assert_eq!(label_of(&network, Some("good")), "v1");
    network.decide(vec![network.entry(AUTHOR, 12, publish("photos", "v3", 3))]);
    assert_eq!(label_of(&network, None), "v3");
}

#[test]
fn a_label_is_a_version_or_a_tag_and_never_both() {
    let network = photos();
    let text = refusal(&network, AUTHOR, 9, publish("photos", "good", 3));
    assert!(text.starts_with("photos@good is a tag"), "{text}");
    let text = refusal(&network, AUTHOR, 9, tag("photos", "v1", "v2"));
    assert!(text.starts_with("photos@v1 is a version"), "{text}");
}

#[test]
fn a_parent_must_have_been_published() {
    let network = photos();
    let with_parent = |parent: &str| match publish("photos", "v3", 3) {
        EntryBody::Publish(publish) => {
            EntryBody::Publish(Publish { parent: Some(parent.parse().unwrap()), ..publish })
        }
        _ => unreachable!(),
    };
    assert_eq!(network.ledger.admit(&network.entry(AUTHOR, 9, with_parent("v2"))), Ok(Admission::New));
    for parent in ["v3", "good", "v0"] {
        let text = refusal(&network, AUTHOR, 9, with_parent(parent));
        assert_eq!(text, format!("photos@{parent}, given as the parent, was never published"));
    }
}

#[test]
fn an_entry_executes_once_and_in_order() {
    let network = photos();
    for nonce in [0, 1, 3] {
        let text = refusal(&network, AUTHOR, nonce, publish("photos", "v3", 3));
        assert!(text.contains(&format!("entry number {nonce} of")) && text.contains("number 3"), "{text}");
    }
    assert_eq!(
        network.ledger.admit(&network.entry(AUTHOR, 4, publish("photos", "v3", 3))),
        Ok(Admission::New)
    );
    assert!(refusal(&network, 51, 0, publish("new", "v1", 3)).contains("entry number 0"));
}

#[test]
fn another_network_or_a_forged_author_is_refused() {
    let network = photos();
    let entry = network.entry(AUTHOR, 9, publish("photos", "v3", 3));
    let foreign = Entry::sign(&key(AUTHOR), document([2]).id(), 9, entry.body.clone());
    assert!(matches!(network.ledger.admit(&foreign), Err(Refusal::OtherNetwork { .. })));
    for forged in [
        Entry { nonce: 10, ..entry.clone() },
        Entry { author: key(51).public(), ..entry.clone() },
        Entry { body: publish("photos", "v3", 4), ..entry.clone() },
        Entry { signature: key(AUTHOR).sign(b"something else"), ..entry },
    ] {
        assert!(matches!(network.ledger.admit(&forged), Err(Refusal::Signature(_))));
    }
}

#[test]
fn an_entry_of_a_later_kind_says_upgrade() {
    let network = photos();
    let entry = network.entry(AUTHOR, 9, publish("photos", "v3", 3));
    let mut bytes = entry.encode();
    // The body begins after array(5), genesis, author (34 bytes each) and nonce: array(2), kind.
    let kind = 1 + 34 + 34 + 1 + 1;
    assert_eq!(bytes[kind - 1..=kind], [0x82, 0]);
    bytes[kind] = 23;
    let text = Entry::decode(&bytes).unwrap_err().to_string();
    assert!(text.contains("entry kind 23 is not known to this version of bcai; upgrade bcai"), "{text}");
}

/// Whoever builds a block has admitted its entries; whoever votes for it has not, and checks everything.
#[test]
fn what_was_admitted_is_judged_again_as_before_and_a_voter_checks_authors() {
    let mut network = Network::of([1]);
    let (mine, theirs) =
        (network.entry(50, 1, publish("photos", "v1", 1)), network.entry(51, 1, publish("photos", "v1", 2)));
    for entry in [&mine, &theirs] {
        assert_eq!(network.ledger.admit(entry), Ok(Admission::New));
    }
    network.decide(vec![mine.clone()]);
    let again = network.ledger.admit_again([&mine, &theirs]);
    assert_eq!(again, [network.ledger.admit(&mine), network.ledger.admit(&theirs)]);
    assert!(matches!(again[1], Err(Refusal::NotOwner { .. })), "{again:?}");

    let mut forged = network.entry(52, 1, publish("films", "v1", 3));
    forged.signature = mine.signature;
    assert!(matches!(network.ledger.admit(&forged), Err(Refusal::Signature(_))));
    let (header, body) = network.propose(vec![forged]);
    let refused = network.ledger.execute(&header, &body).err().unwrap();
    let LogError::Entry { cause, .. } = refused else { panic!("{refused}") };
    assert!(matches!(*cause, Refusal::Signature(_)), "{cause}");
}
