//! The frames and messages of `/bcai/swarm/1`.

#![no_main]

use bcai_fuzz::swarm::wire::{DATA_HEAD_LEN, DataHead, HEADER_LEN, Header, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((head, payload)) = data.split_first_chunk::<HEADER_LEN>() else { return };
    let Ok(header) = Header::decode(head) else { return };
    // Whoever reads a frame takes as much as its header says.
    let header = Header { len: payload.len() as u32, ..header };
    // What is longer than any frame is refused by its header.
    if Header::decode(&header.encode()) != Ok(header) {
        return;
    }
    if header.as_data().is_some() {
        if let Ok((head, rest)) = DataHead::split(payload) {
            assert_eq!(head.encode()[..], payload[..DATA_HEAD_LEN]);
            assert_eq!(rest.len() + DATA_HEAD_LEN, payload.len());
        }
        return;
    }
    if let Ok(Some(message)) = Message::decode(&header, payload) {
        let encoded = message.encode();
        assert_eq!(encoded[HEADER_LEN..], *payload, "a message has one spelling");
        assert_eq!(encoded[..HEADER_LEN], header.encode());
    }
});
