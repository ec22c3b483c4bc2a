//! Peers that lie, flood, and send junk.

use futures::io::AsyncWriteExt;

use super::raw::{self, Raw, Served, say};
use super::*;
use crate::fetch::FetchError;
use crate::net::frames;
use crate::swarm::serving::MAX_WANTS;
use crate::swarm::wire::{
    Attach, Credit, DataHead, HEADER_LEN, Header, MAX_PAYLOAD, Message, Reason, Reject, TELLS, Want,
};
use crate::swarm::{Class, Lane};

/// Answers the next want with `bytes`, whatever was wanted.
async fn lie(served: &mut Served, bytes: &[u8]) {
    let Message::Want(want) = served.heard().await else { panic!("no want") };
    raw::send(&mut served.urgent.1, want.first, bytes).await.unwrap();
}

fn flipped(object: &Checked) -> Vec<u8> {
    let mut bytes = object.plain().to_vec();
    bytes[7] ^= 1;
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_is_banned_and_the_honest_peer_delivers() {
    let (reader, honest) = (start(1).await, start(2).await);
    let mut liar = Raw::start(3, None).await;
    let object = noise(1, 5000);
    honest.publish(std::slice::from_ref(&object));
    reader.net.connect(&liar.address).await.unwrap();
    let (fetcher, id) = (reader.fetcher(), object.id());
    let fetch = tokio::spawn(async move { fetcher.get(id, Class::Fault).await });
    let mut served = liar.accept().await;
    // The liar has been asked; only now is there somebody else.
    reader.connect(&honest).await;
    lie(&mut served, &flipped(&object)).await;
    assert_eq!(fetch.await.unwrap().unwrap().plain(), object.plain());
    let id = liar.peer.to_string();
    assert_eq!(reader.state_of(&id), Some(PeerState::Banned));
    until("the end of the connection", || liar.closed() == 1).await;
    assert!(matches!(reader.net.connect(&liar.address).await, Err(NetError::Denied { .. })));
    // Nor can it come back by itself.
    let back = Raw::start(3, Some(&reader.address())).await;
    until("the refusal", || back.closed() == 1).await;
    assert_eq!(reader.state_of(&id), Some(PeerState::Banned));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_only_a_liar_there_is_an_error_and_never_wrong_bytes() {
    let reader = start(1).await;
    let mut liar = Raw::start(3, None).await;
    reader.net.connect(&liar.address).await.unwrap();
    let object = noise(1, 5000);
    let (fetcher, id) = (reader.fetcher(), object.id());
    let fetch = tokio::spawn({
        let fetcher = fetcher.clone();
        async move { fetcher.get(id, Class::Fault).await }
    });
    let mut served = liar.accept().await;
    lie(&mut served, &flipped(&object)).await;
    let error = fetch.await.unwrap().unwrap_err();
    assert!(matches!(error, FetchError::Corrupt { .. }), "{error}");
    assert!(fetcher.local(&id).unwrap().is_none());
    assert_eq!((fetcher.stats().corrupt, fetcher.stats().fetched), (1, 0));
    assert_eq!(reader.net.shared.lender.lent(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_disk_rots_sends_nothing_wrong_and_another_delivers() {
    let (reader, rotten, sound) = (start(1).await, start(2).await, start(3).await);
    let objects: Vec<_> = (0..20).map(|n| noise(n, 50_000)).collect();
    rotten.publish(&objects);
    sound.publish(&objects);
    rotten.store.commit().unwrap();
    let object = &objects[7];
    for file in std::fs::read_dir(rotten.dir.path().join("packs")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(1000).position(|window| *window == object.plain()[..1000]) {
            bytes[at + 500] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    reader.connect(&rotten).await;
    let fetcher = reader.fetcher();
    let error = fetcher.get(object.id(), Class::Fault).await.unwrap_err();
    assert!(matches!(error, FetchError::NotFound { .. }), "{error}");
    assert_eq!(reader.state_of(&rotten.net.peer_id()), Some(PeerState::Connected));
    reader.connect(&sound).await;
    let got = fetcher.get_many(&ids(&objects), Class::Prefetch).await.unwrap();
    assert!(got.iter().zip(&objects).all(|(got, object)| got.plain() == object.plain()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_peers_that_fail_on_one_object_are_both_kept() {
    let reader = start(1).await;
    let (mut one, mut two) = (Raw::start(3, None).await, Raw::start(4, None).await);
    reader.net.connect(&one.address).await.unwrap();
    let (object, other) = (noise(1, 5000), noise(2, 5000));
    let (source, id) = (reader.net.source(), object.id());
    let fetch = tokio::spawn(async move { source.fetch(id, Class::Fault).await });
    let mut served = one.accept().await;
    reader.net.connect(&two.address).await.unwrap();
    lie(&mut served, &flipped(&object)).await;
    let mut served_too = two.accept().await;
    lie(&mut served_too, &flipped(&object)).await;
    let got = fetch.await.unwrap();
    assert!(matches!(got, Err(FetchError::Corrupt { .. })), "{got:?}");
    for raw in [&one, &two] {
        let id = raw.peer.to_string();
        until("the pardon", || reader.state_of(&id) == Some(PeerState::Connected)).await;
    }
    // Neither is asked for that object again, but both for others.
    assert!(matches!(reader.net.source().fetch(id, Class::Fault).await, Err(FetchError::Corrupt { .. })));
    // (The sessions have just been dropped, which the first attempt may still run into.)
    let (fetcher, wanted) = (reader.fetcher(), other.id());
    let fetch = tokio::spawn(async move { fetcher.get(wanted, Class::Fault).await });
    let plain = other.plain().clone();
    drop((served, served_too));
    let answer = async |raw: &mut Raw| {
        let mut served = raw.accept().await;
        lie(&mut served, &plain).await;
        std::future::pending::<()>().await
    };
    tokio::select! {
        got = fetch => assert_eq!(got.unwrap().unwrap().id(), wanted),
        () = answer(&mut one) => {}
        () = answer(&mut two) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_breaks_the_rules_is_disconnected() {
    let frame = |header: Header, payload: &[u8]| [&header.encode()[..], payload].concat();
    let data =
        |request, first, payload: &[u8]| frame(Header::data(request, first, payload.len() as u32), payload);
    let head = |stored_len| DataHead { codec: 0, plain_len: stored_len, stored_len }.encode();
    let granted = 256 << 10;
    let mut flood = data(1, true, &head(1 << 20));
    flood.extend((0..granted / MAX_PAYLOAD + 1).flat_map(|_| data(1, false, &[0; MAX_PAYLOAD])));
    let attacks = [
        ("more than was granted", flood),
        ("data on the other lane", data(1, true, &head(0))),
        ("data for nobody", data(99, true, &head(0))),
        ("a head that is too short", data(1, true, &[0; 3])),
        ("a huge object", data(1, true, &head(u32::MAX))),
        ("data before its head", data(1, false, b"abc")),
        (
            "a frame that is too long",
            Header { kind: 9, flags: 0, len: u32::MAX, request: 0 }.encode().to_vec(),
        ),
        ("junk", vec![0xff; 100]),
        ("a want on a lane", Message::Attach(Attach { session: 1, lane: Lane::Bulk }).encode()),
        (
            "a rejection for nobody",
            Message::Reject(Reject { reason: Reason::Busy, requests: vec![5] }).encode(),
        ),
        ("a rejection of nothing", frame(Header { kind: 4, flags: 0, len: 1, request: 0 }, &[0x80])),
    ];
    let reader = start(1).await;
    for (n, (what, bytes)) in attacks.into_iter().enumerate() {
        let mut raw = Raw::start(10 + n as u8, None).await;
        reader.net.connect(&raw.address).await.unwrap();
        let source = reader.net.source();
        let fetch = tokio::spawn(async move { source.fetch(noise(1, 10).id(), Class::Fault).await });
        let mut served = raw.accept().await;
        let Message::Want(want) = served.heard().await else { panic!("no want") };
        assert_eq!((want.first, want.credit as usize), (1, granted));
        let lane = if what.contains("other lane") { &mut served.bulk.1 } else { &mut served.urgent.1 };
        say(lane, &bytes).await;
        until(what, || raw.closed() == 1).await;
        assert!(fetch.await.unwrap().is_err(), "{what}");
        assert_eq!(reader.net.shared.lender.lent(), 0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_breaks_the_rules_is_disconnected() {
    let server = start(1).await;
    let object = noise(1, 100_000);
    server.publish(std::slice::from_ref(&object));
    let id = server.net.peer_id();
    let want = |first, count: usize| {
        let objects = vec![object.id(); count];
        Message::Want(Want { first, class: Class::Fault, deadline_ms: 60_000, credit: 1, objects }).encode()
    };
    let mut too_many: Vec<u8> = (0..MAX_WANTS / 1024).flat_map(|n| want(1 + 1024 * n as u64, 1024)).collect();
    too_many.extend(want(100_000, 1024));
    let attacks = [
        ("junk", vec![0xff; 100]),
        ("data", Header::data(1, true, 0).encode().to_vec()),
        ("an answer", Message::Reject(Reject { reason: Reason::Busy, requests: vec![1] }).encode()),
        ("wants without end", too_many),
        ("the same request twice", [want(5, 1), want(5, 1)].concat()),
        (
            "too much credit",
            [want(5, 1), Message::Credit(Credit { grants: vec![(5, u32::MAX)] }).encode()].concat(),
        ),
        ("an empty want", [&Header { kind: 2, flags: 0, len: 1, request: 0 }.encode()[..], &[0x80]].concat()),
    ];
    for (n, (what, bytes)) in attacks.into_iter().enumerate() {
        let mut raw = Raw::start(10 + n as u8, Some(&server.address())).await;
        let mut asking = raw.session(&id).await;
        say(&mut asking.control, &bytes).await;
        until(what, || raw.closed() == 1).await;
    }
    // A stream that says nothing sensible first, or attaches twice, ends the same way.
    let mut raw = Raw::start(50, Some(&server.address())).await;
    let (_reader, mut writer) = raw.open(&id).await;
    let credit = Message::Credit(Credit { grants: vec![(1, 1)] });
    say(&mut writer, &[&[0; HEADER_LEN][..], &credit.encode()].concat()).await;
    until("the end", || raw.closed() == 1).await;
    let mut raw = Raw::start(51, Some(&server.address())).await;
    let _asking = raw.session(&id).await;
    let (_reader, mut writer) = raw.open(&id).await;
    let attach = Message::Attach(Attach { session: 77, lane: Lane::Bulk });
    say(&mut writer, &attach.encode()).await;
    until("the end", || raw.closed() == 1).await;
    // And to everybody else it goes on serving.
    let reader = start(60).await;
    reader.connect(&server).await;
    assert_eq!(reader.fetcher().get(object.id(), Class::Fault).await.unwrap().plain(), object.plain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_sends_no_byte_without_credit_and_answers_everything_once() {
    let server = start(1).await;
    let object = noise(1, 200_000);
    server.publish(std::slice::from_ref(&object));
    let id = server.net.peer_id();
    let mut raw = Raw::start(2, Some(&server.address())).await;
    let mut asking = raw.session(&id).await;
    let missing = noise(9, 9).id();
    let want = Want {
        first: 10,
        class: Class::Fault,
        deadline_ms: 60_000,
        credit: 70_000,
        objects: vec![object.id(), missing],
    };
    frames::write(&mut asking.control, &Message::Want(want)).await.unwrap();
    asking.read_urgent(70_000).await.unwrap();
    // Out of credit with the first, it goes on to the second.
    let Err(Message::Reject(reject)) = asking.read_urgent(1).await else { panic!("no rejection") };
    assert_eq!(reject, Reject { reason: Reason::Missing, requests: vec![11] });
    for part in [30_000, 100_000] {
        let credit = Message::Credit(Credit { grants: vec![(10, part)] });
        frames::write(&mut asking.control, &credit).await.unwrap();
        asking.read_urgent(part as usize).await.unwrap();
    }
    until("the count", || server.net.peers().iter().any(|peer| peer.objects_served == 1)).await;
    // The end of the control stream is the end of the session.
    asking.control.close().await.unwrap();
    raw::closed(&mut asking.urgent.0).await;
    raw::closed(&mut asking.bulk.0).await;
    raw::closed(&mut asking.control_reader).await;
    assert_eq!(raw.closed(), 0, "which is no reason to disconnect");
}

/// How long it takes until so many readers have what each asks for, who say that they would tell when it has come, and never do.
async fn untold(readers: u8, deadline_ms: u32) -> Duration {
    let server = start_with(Options { max_peers: 64, ..options(1, 0) }).await;
    let objects: Vec<Checked> = (0..u64::from(readers)).map(|n| noise(n, 1000)).collect();
    server.publish(&objects);
    let mut sessions = Vec::new();
    for seed in (10..).take(readers.into()) {
        let mut raw = Raw::start(seed, Some(&server.address())).await;
        let asking = raw.session_with(&server.net.peer_id(), TELLS).await;
        sessions.push((raw, asking));
    }
    let begun = Instant::now();
    for ((_, asking), object) in sessions.iter_mut().zip(&objects) {
        let (class, objects) = (Class::Prefetch, vec![object.id()]);
        let want = Want { first: 1, class, deadline_ms, credit: 2000, objects };
        frames::write(&mut asking.control, &Message::Want(want)).await.unwrap();
    }
    for (_, asking) in &mut sessions {
        let come = tokio::time::timeout(Duration::from_secs(10), asking.bulk.0.frame()).await;
        assert_eq!(come.expect("it is served").unwrap().0.as_data(), Some(true));
    }
    begun.elapsed()
}

/// Nobody knows whether anything has come, and most of them have to wait: those after the first five a quarter of a second each, as the
/// rate is not known. But not for ever, and not until they would ask somebody else: whoever does so within five seconds is served at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_never_tell_what_has_come_are_served_one_after_the_other_and_in_time() {
    let waited = untold(10, 30_000).await;
    assert!(waited >= Duration::from_secs(1), "they were served after {waited:?}");
    let patient = untold(25, 19_000).await;
    assert!(patient < Duration::from_secs(9), "one after the other takes five seconds: {patient:?}");
    let hurried = untold(25, 4_500).await;
    assert!(hurried < Duration::from_secs(4), "one after the other takes five seconds: {hurried:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_has_a_few_sessions_and_no_more() {
    let server = start(1).await;
    let id = server.net.peer_id();
    let mut raw = Raw::start(2, Some(&server.address())).await;
    let mut open = Vec::new();
    for session in 0..3 {
        let (mut reader, mut writer) = raw.open(&id).await;
        let hello = crate::swarm::wire::Hello { session, features: 0, max_wants: 1, agent: String::new() };
        frames::write(&mut writer, &Message::Hello(hello)).await.unwrap();
        assert!(reader.message("Hello").await.is_ok());
        open.push((reader, writer));
    }
    let (mut reader, mut writer) = raw.open(&id).await;
    let hello = crate::swarm::wire::Hello { session: 9, features: 0, max_wants: 1, agent: String::new() };
    say(&mut writer, &Message::Hello(hello).encode()).await;
    assert!(raw::refused(&mut reader).await);
}

/// Connections from outside could take every place, and then the node could reach nobody who has what it needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_from_outside_leave_room_for_those_of_this_node() {
    let node = start_with(Options { max_peers: 4, ..options(1, 0) }).await;
    let wanted = start(2).await;
    let mut crowd = Vec::new();
    for seed in 10..13 {
        crowd.push(Raw::start(seed, Some(&node.address())).await);
    }
    until("the crowd", || node.net.peers().len() == 3).await;
    // One that was let in and then closed took itself for connected, and came again and again.
    let refused = start(20).await;
    let error = refused.net.connect(&node.address()).await.unwrap_err().to_string();
    assert!(error.contains("as many connections as it takes"), "{error}");
    assert!(refused.net.peers().is_empty());
    node.connect(&wanted).await;
    assert!(crowd.iter().all(|raw| raw.closed() == 0));
    assert_eq!(node.net.peers().len(), 4);
    // Nor does it dial when it has no place left.
    let error = node.net.connect(&refused.address()).await.unwrap_err().to_string();
    assert!(error.contains("as many connections as it takes"), "{error}");
    assert!(refused.net.peers().is_empty());
}
