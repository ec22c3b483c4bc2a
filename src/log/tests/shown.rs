//! What a name means, shown to who has no log: the same as to who has it, and nothing else is believed.

use proptest::prelude::*;

use super::*;
use crate::log::light::Trusted;
use crate::log::shown::{Question, Shown, ShownError};

fn network() -> Network {
    let mut network = Network::of(1..=4);
    network.say(50, publish("photos", "v1", 1));
    network.say(50, publish("photos", "v2", 2));
    network.say(50, tag("photos", "good", "v1"));
    network.say(50, yank("photos", "v2", "wrong labels"));
    network.say(51, publish("gone", "v1", 3));
    network.say(51, yank("gone", "v1", "wrong"));
    network
}

fn question(name: &str, label: Option<&str>) -> Question {
    Question { name: name.parse().unwrap(), label: label.map(|label| label.parse().unwrap()) }
}

/// A client that trusts the genesis alone, at the head of `shown`.
fn client(network: &Network, shown: &Shown) -> Trusted {
    Trusted::at_genesis(&network.doc).advance(shown.head()).unwrap()
}

#[test]
fn a_name_means_the_same_to_who_has_no_log() {
    let network = network();
    for (name, label) in [
        ("photos", None),
        ("photos", Some("v1")),
        ("photos", Some("v2")),
        ("photos", Some("good")),
        ("photos", Some("v3")),
        ("gone", None),
        ("gone", Some("v1")),
        ("films", None),
        ("films", Some("v1")),
    ] {
        let question = question(name, label);
        let shown = Shown::of(&network.ledger, network.update(), &question);
        let bytes = shown.encode();
        assert_eq!(Shown::decode(&bytes).as_ref(), Ok(&shown));
        assert_eq!(Question::decode(&question.encode()), Ok(question.clone()));
        let found = shown.clone().check(&mut client(&network, &shown), &question);
        match (network.ledger.resolve(name, label), found) {
            (Ok(expected), Ok(found)) => assert_eq!(*expected, found),
            (Err(expected), Err(ShownError::Nothing(found))) => {
                assert_eq!(expected.to_string(), found.to_string())
            }
            (expected, found) => panic!("{name}@{label:?}: {expected:?} and {found:?}"),
        }
    }
}

#[test]
fn an_answer_to_another_question_is_refused() {
    let network = network();
    let asked = ["photos", "gone", "films"]
        .into_iter()
        .flat_map(|name| [None, Some("v1"), Some("v2"), Some("good")].map(|label| question(name, label)));
    let asked: Vec<_> = asked.collect();
    for one in &asked {
        for other in asked.iter().filter(|other| *other != one) {
            let shown = Shown::of(&network.ledger, network.update(), other);
            let found = shown.clone().check(&mut client(&network, &shown), one);
            let meant =
                network.ledger.resolve(one.name.as_str(), one.label.as_ref().map(|label| label.as_str()));
            // The parts that another answer has in common may be all that it takes; then they mean what they should.
            match (found, meant) {
                (Ok(found), Ok(meant)) => assert_eq!(found, *meant),
                (Err(ShownError::Nothing(found)), Err(meant)) => {
                    assert_eq!(found.to_string(), meant.to_string())
                }
                (Err(ShownError::Light(_) | ShownError::Unfit), _) => {}
                (found, meant) => panic!("{one:?} answered by {other:?}: {found:?}, {meant:?}"),
            }
        }
    }
}

#[test]
fn an_answer_as_of_an_earlier_head_is_not_taken_for_one_of_the_trusted() {
    let mut network = network();
    let question = question("photos", None);
    let earlier = Shown::of(&network.ledger, network.update(), &question);
    network.say(50, publish("photos", "v4", 4));
    let later = Shown::of(&network.ledger, network.update(), &question);
    let mut trusted = client(&network, &later);
    assert_eq!(earlier.check(&mut trusted, &question), Err(ShownError::Unfit));
    assert_eq!(later.check(&mut trusted, &question).unwrap().label.as_str(), "v4");
}

proptest! {
    #[test]
    fn junk_shows_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Shown::decode(&bytes).is_err());
        if let Ok(question) = Question::decode(&bytes) {
            prop_assert_eq!(question.encode(), bytes);
        }
    }
}
