//! Frames and messages: round trips, pinned bytes, limits, junk.

use proptest::prelude::*;

use super::{any_class, objects};
use crate::id::{Kind, ObjectId};
use crate::swarm::wire::*;
use crate::swarm::{Class, Lane, MAX_OBJECT};

fn split(frame: &[u8]) -> (Header, &[u8]) {
    let (header, payload) = frame.split_first_chunk().unwrap();
    (Header::decode(header).unwrap(), payload)
}

fn any_object() -> impl Strategy<Value = ObjectId> {
    (0u8..4, any::<[u8; 32]>())
        .prop_map(|(kind, hash)| ObjectId { kind: Kind::try_from(kind).unwrap(), hash })
}

fn any_message() -> impl Strategy<Value = Message> {
    let requests = || prop::collection::vec(any::<u64>(), 1..40);
    prop_oneof![
        (any::<u64>(), any::<u64>(), 1u32.., "[a-z/0-9.]{0,64}").prop_map(
            |(session, features, max_wants, agent)| {
                Message::Hello(Hello { session, features, max_wants, agent })
            }
        ),
        (any::<u64>(), prop::bool::ANY).prop_map(|(session, urgent)| {
            Message::Attach(Attach { session, lane: if urgent { Lane::Urgent } else { Lane::Bulk } })
        }),
        (
            0..u64::MAX - 100,
            any_class(),
            any::<u32>(),
            1..=MAX_OBJECT,
            prop::collection::vec(any_object(), 1..40)
        )
            .prop_map(|(first, class, deadline_ms, credit, objects)| {
                Message::Want(Want { first, class, deadline_ms, credit, objects })
            }),
        (any::<u8>(), requests())
            .prop_map(|(reason, requests)| Message::Reject(Reject { reason: reason.into(), requests })),
        requests().prop_map(|requests| Message::Cancel(Cancel { requests })),
        prop::collection::vec(any::<(u64, u32)>(), 1..40)
            .prop_map(|grants| Message::Credit(Credit { grants })),
        (0..u64::MAX - 100, prop::collection::vec(any_object(), 1..40))
            .prop_map(|(first, objects)| Message::Watch(Watch { first, objects })),
        (0usize..3, requests()).prop_map(|(n, watches)| {
            let presence = [Presence::Here, Presence::Coming, Presence::Absent][n];
            Message::Have(Have { presence, watches })
        }),
        (prop::collection::vec(any::<u8>(), 1..=MAX_PEER), requests())
            .prop_map(|(peer, requests)| Message::Redirect(Redirect { peer, requests })),
    ]
}

proptest! {
    #[test]
    fn messages_round_trip(message in any_message()) {
        let frame = message.encode();
        let (header, payload) = split(&frame);
        prop_assert_eq!(header.len as usize, payload.len());
        prop_assert_eq!(Message::decode(&header, payload), Ok(Some(message)));
    }

    #[test]
    fn junk_is_refused_without_a_panic(
        header in any::<[u8; HEADER_LEN]>(),
        kind in 0u8..12,
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = Header::decode(&header);
        let header = Header { kind, flags: 0, len: payload.len() as u32, request: 0 };
        // Whatever is accepted has that one encoding.
        if let Ok(Some(message)) = Message::decode(&header, &payload) {
            prop_assert_eq!(&message.encode()[HEADER_LEN..], &payload[..]);
        }
        let _ = DataHead::split(&payload);
    }

    #[test]
    fn a_damaged_message_is_refused_or_another_message(
        message in any_message(), at in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let mut frame = message.encode();
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        let (header, payload) = frame.split_first_chunk().unwrap();
        if let Ok(header) = Header::decode(header)
            && header.len as usize == payload.len()
        {
            prop_assert_ne!(Message::decode(&header, payload), Ok(Some(message)));
        }
    }
}

#[test]
fn frames_have_the_documented_bytes() {
    let want = Message::Want(Want {
        first: 7,
        class: Class::Readahead,
        deadline_ms: 1000,
        credit: 0x1_0000,
        objects: vec![ObjectId { kind: Kind::Tree, hash: [0xab; 32] }],
    });
    let mut expected = vec![2, 0, 0, 0, 46, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    expected.extend([0x85, 0x07, 0x01, 0x19, 0x03, 0xe8, 0x1a, 0x00, 0x01, 0x00, 0x00, 0x58, 33, 2]);
    expected.extend([0xab; 32]);
    assert_eq!(want.encode(), expected);

    let mut watched = vec![0x82, 0x03, 0x58, 33, 2];
    watched.extend([0xab; 32]);
    let watch = Watch { first: 3, objects: vec![ObjectId { kind: Kind::Tree, hash: [0xab; 32] }] };
    let cases: [(Message, &[u8]); 8] = [
        (
            Message::Hello(Hello { session: 9, features: 0, max_wants: 2048, agent: "bcai".into() }),
            &[0x84, 0x09, 0x00, 0x19, 0x08, 0x00, 0x64, b'b', b'c', b'a', b'i'],
        ),
        (Message::Attach(Attach { session: 9, lane: Lane::Bulk }), &[0x82, 0x09, 0x01]),
        (Message::Reject(Reject { reason: Reason::Missing, requests: vec![1, 2] }), &[0x82, 1, 0x82, 1, 2]),
        (Message::Cancel(Cancel { requests: vec![3] }), &[0x81, 0x81, 3]),
        (Message::Credit(Credit { grants: vec![(3, 256)] }), &[0x81, 0x81, 0x82, 3, 0x19, 1, 0]),
        (Message::Watch(watch), &watched),
        (Message::Have(Have { presence: Presence::Coming, watches: vec![3, 4] }), &[0x82, 1, 0x82, 3, 4]),
        (Message::Redirect(Redirect { peer: vec![7, 8], requests: vec![5] }), &[0x82, 0x42, 7, 8, 0x81, 5]),
    ];
    for (message, payload) in cases {
        assert_eq!(&message.encode()[HEADER_LEN..], payload, "{message:?}");
    }

    let data = Header::data(5, true, 20);
    assert_eq!(data.encode(), [3, 1, 0, 0, 20, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    let head = DataHead { codec: 1, plain_len: 0x0302, stored_len: 0x0201 };
    assert_eq!(head.encode(), [1, 0, 0, 0, 2, 3, 0, 0, 1, 2, 0, 0]);
    assert_eq!(DataHead::split(&[&head.encode()[..], b"x"].concat()), Ok((head, &b"x"[..])));
}

#[test]
fn limits_are_kept_by_the_codec() {
    let refused = |message: Message| {
        let frame = message.encode();
        let (header, payload) = split(&frame);
        assert!(Message::decode(&header, payload).is_err(), "{}", message.name());
    };
    let want = Want {
        first: 1,
        class: Class::Fault,
        deadline_ms: 1,
        credit: 1,
        objects: objects(0..MAX_NAMED as u64),
    };
    let frame = Message::Want(want.clone()).encode();
    assert!(Message::decode(&split(&frame).0, split(&frame).1).is_ok(), "the largest want fits a frame");
    refused(Message::Want(Want { objects: objects(0..MAX_NAMED as u64 + 1), ..want.clone() }));
    refused(Message::Want(Want { objects: vec![], ..want.clone() }));
    refused(Message::Want(Want { credit: 0, ..want.clone() }));
    refused(Message::Want(Want { credit: MAX_OBJECT + 1, ..want.clone() }));
    refused(Message::Want(Want { first: u64::MAX - 5, ..want }));
    refused(Message::Cancel(Cancel { requests: vec![] }));
    refused(Message::Cancel(Cancel { requests: vec![1; MAX_NAMED + 1] }));
    refused(Message::Reject(Reject { reason: Reason::Busy, requests: vec![] }));
    refused(Message::Credit(Credit { grants: vec![] }));
    let hello = Hello { session: 0, features: 0, max_wants: 1, agent: "a".repeat(MAX_AGENT + 1) };
    refused(Message::Hello(hello.clone()));
    refused(Message::Hello(Hello { max_wants: 0, agent: String::new(), ..hello }));
}

#[test]
fn headers_that_no_type_allows_are_refused_and_unknown_types_skipped() {
    let header = Header { kind: 2, flags: 0, len: 1, request: 0 };
    assert_eq!(Header::decode(&header.encode()), Ok(header));
    for bad in [
        Header { len: MAX_PAYLOAD as u32 + 1, ..header },
        Header { flags: 1, ..header },
        Header { request: 1, ..header },
        Header { kind: 3, flags: 2, ..header },
        Header { kind: 99, len: u32::MAX, ..header },
    ] {
        assert!(Header::decode(&bad.encode()).is_err(), "{bad:?}");
    }
    let later = Header { kind: 99, flags: 7, len: 3, request: 4 };
    assert_eq!(Header::decode(&later.encode()), Ok(later));
    assert_eq!(Message::decode(&later, b"abc"), Ok(None));
    assert!(DataHead::split(&[0; DATA_HEAD_LEN - 1]).is_err());
    assert!(DataHead::split(&[1; DATA_HEAD_LEN]).is_err());
}
