//! The encodings of messages and records: one spelling each, and no harm from junk.

use proptest::prelude::*;

use super::*;
use crate::codec;
use crate::validator::wire::{MAX_MESSAGE_LEN, Record};
use VoteType::{Precommit, Prevote};

fn samples() -> Vec<Message> {
    let (keys, doc) = (four(), network(&four()));
    let ledger = Ledger::genesis(&doc).unwrap();
    let entry = publish(50, &doc, 1);
    let block = decided(&ledger, vec![entry.clone()], &keys[..3]);
    let x = candidate(&ledger, vec![entry.clone()], &keys[0]);
    vec![
        vote(&keys[0], &doc, Prevote, 1, 0, None),
        vote(&keys[1], &doc, Precommit, 7, u32::MAX, Some(x.header.id())),
        proposal(&keys[0], &doc, 0, x),
        Message::Entry(Box::new(entry)),
        Message::Want { height: u64::MAX },
        Message::Decided(Box::new(block)),
    ]
}

#[test]
fn messages_round_trip() {
    for message in samples() {
        assert_eq!(Message::decode(&message.clone().encode()), Ok(message));
    }
}

#[test]
fn a_block_of_the_greatest_size_fits_a_message() {
    const { assert!(crate::log::MAX_BLOCK_LEN < MAX_MESSAGE_LEN) };
    assert!(Message::decode(&vec![0; MAX_MESSAGE_LEN + 1]).is_err());
}

proptest! {
    #[test]
    fn junk_is_refused_quietly(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&bytes);
        let _ = codec::decode::<Vec<Record>>("records", &bytes, 300);
    }

    #[test]
    fn a_bent_message_is_refused_or_spelled_in_the_one_way(sample in 0..6usize, at: prop::sample::Index, bit in 0..8u32) {
        let mut bytes = samples()[sample].clone().encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn whatever_arrives_the_driver_goes_on(sample in 0..6usize, at: prop::sample::Index, bit in 0..8u32) {
        let mut bytes = samples()[sample].clone().encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        if let Ok(message) = Message::decode(&bytes) {
            let mut bench = Bench::new(&four()[1], &network(&four()));
            bench.turn([message]);
        }
    }
}
