//! Objects between nodes that keep to the protocol.

use super::raw::Raw;
use super::*;
use crate::fetch::FetchError;
use crate::swarm::wire::{Message, Reason, Reject};
use crate::swarm::{Class, MAX_OBJECT};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_all_sizes_and_codecs_arrive_whole() {
    let (server, reader) = (start(1).await, start(2).await);
    reader.connect(&server).await;
    let sizes = [0, 1, 100, 4096, 65_523, 65_524, 65_525, 200_000, 1 << 20];
    let mut objects: Vec<_> =
        (0..196).map(|n| noise(n, sizes[n as usize % sizes.len()] + n as usize)).collect();
    objects.push(noise(1000, MAX_OBJECT as usize));
    objects.push(noise(1001, MAX_OBJECT as usize));
    let text = Bytes::from(b"all work and no play ".repeat(100_000));
    objects.push(Checked::pack(Kind::Tree, text.clone(), Compression::Lz4));
    objects.push(Checked::pack(Kind::Snapshot, text, Compression::Zstd(3)));
    server.publish(&objects);

    let fetcher = reader.fetcher();
    let got = fetcher.get_many(&ids(&objects), Class::Prefetch).await.unwrap();
    for (got, object) in got.iter().zip(&objects) {
        assert_eq!((got.id(), got.plain()), (object.id(), object.plain()));
    }
    assert_eq!(fetcher.stats().fetched, objects.len() as u64);
    until("the count of what was served", || server.served_to(&reader) == objects.len() as u64).await;
    // What was fetched is here now.
    server.net.shutdown().await;
    for object in &objects {
        assert_eq!(fetcher.get(object.id(), Class::Fault).await.unwrap().plain(), object.plain());
    }
    let info = reader.net.peers().remove(0);
    assert!(info.rtt.is_some() && info.bytes_in > 8 << 20, "{info:?}");
    assert_eq!(reader.net.shared.lender.lent(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_fetch_from_each_other_at_the_same_time() {
    let (a, b) = (start(1).await, start(2).await);
    a.connect(&b).await;
    let of_a: Vec<_> = (0..40).map(|n| noise(n, 300_000)).collect();
    let of_b: Vec<_> = (100..140).map(|n| noise(n, 300_000)).collect();
    a.publish(&of_a);
    b.publish(&of_b);
    let (fetch_a, fetch_b) = (a.fetcher(), b.fetcher());
    let (ids_a, ids_b) = (ids(&of_a), ids(&of_b));
    let (at_a, at_b) =
        tokio::join!(fetch_a.get_many(&ids_b, Class::Prefetch), fetch_b.get_many(&ids_a, Class::Prefetch));
    assert_eq!((at_a.unwrap().len(), at_b.unwrap().len()), (40, 40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_readers_of_one_object_send_it_once() {
    let (server, reader) = (start(1).await, start(2).await);
    reader.connect(&server).await;
    let object = noise(1, 1 << 20);
    server.publish(std::slice::from_ref(&object));
    let fetcher = reader.fetcher();
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let (fetcher, id) = (fetcher.clone(), object.id());
            tokio::spawn(async move { fetcher.get(id, Class::ALL[n % 4]).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().plain(), object.plain());
    }
    assert_eq!(fetcher.stats().fetched, 1);
    assert_eq!(server.served_to(&reader), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_has_is_not_found_and_another_peer_is_asked_first() {
    let (empty, full, reader) = (start(1).await, start(2).await, start(3).await);
    let object = noise(1, 1000);
    full.publish(std::slice::from_ref(&object));
    reader.connect(&empty).await;
    let source = reader.net.source();
    let id = object.id();
    assert!(matches!(source.fetch(id, Class::Fault).await, Err(FetchError::NotFound { .. })));
    reader.connect(&full).await;
    for class in Class::ALL {
        assert_eq!(source.fetch(id, class).await.unwrap().plain(), object.plain());
    }
}

#[tokio::test]
async fn with_nobody_connected_there_is_nobody_to_ask() {
    let reader = start(1).await;
    let error = reader.net.source().fetch(noise(1, 10).id(), Class::Fault).await.unwrap_err();
    assert!(matches!(&error, FetchError::Unreachable { cause, .. } if cause.contains("no peer")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_and_comes_back_is_fetched_from_again() {
    let (mut server, reader) = (start(1).await, start(2).await);
    reader.connect(&server).await;
    let objects: Vec<_> = (0..200).map(|n| noise(n, 150_000)).collect();
    server.publish(&objects);
    let fetcher = reader.fetcher();
    let wanted = ids(&objects);
    let fetching = {
        let fetcher = fetcher.clone();
        tokio::spawn(async move { fetcher.get_many(&wanted, Class::Prefetch).await })
    };
    until("the beginning", || fetcher.stats().fetched >= 20).await;
    let port = server.address().split('/').nth(4).unwrap().parse().unwrap();
    server.net.shutdown().await;
    until("the loss", || reader.state_of(&server.net.peer_id()) == Some(PeerState::Reconnecting)).await;
    assert!(fetcher.stats().fetched < 200);
    let (sender, submissions) = mpsc::channel(1);
    let again = Net::start(options(1, port), server.store.clone(), server.chains.clone(), sender).await;
    (server.net, server.submissions) = (again.unwrap(), submissions);
    let got = fetching.await.unwrap().unwrap();
    assert!(got.iter().zip(&objects).all(|(got, object)| got.plain() == object.plain()));
    assert_eq!(fetcher.stats().fetched, 200, "what had come was not fetched again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_nobody_waits_for_is_taken_back() {
    let reader = start(1).await;
    let mut raw = Raw::start(2, None).await;
    reader.net.connect(&raw.address).await.unwrap();
    let source = reader.net.source();
    let id = noise(1, 10).id();
    let fetch = tokio::spawn(async move { source.fetch(id, Class::Fault).await });
    let mut served = raw.accept().await;
    let Message::Want(want) = served.heard().await else { panic!("no want") };
    assert_eq!((want.objects, want.class), (vec![id], Class::Fault));
    fetch.abort();
    let Message::Cancel(cancel) = served.heard().await else { panic!("no cancel") };
    assert_eq!(cancel.requests, [want.first]);
    until("the return of the credit", || reader.net.shared.lender.lent() == 0).await;
    // The answer to it disturbs nothing.
    let reject = Reject { reason: Reason::Cancelled, requests: cancel.requests };
    crate::net::frames::write(&mut served.urgent.1, &Message::Reject(reject)).await.unwrap();
    let source = reader.net.source();
    let fetch = tokio::spawn(async move { source.fetch(id, Class::Fault).await });
    let Message::Want(want) = served.heard().await else { panic!("no want") };
    super::raw::send(&mut served.urgent.1, want.first, noise(1, 10).plain()).await.unwrap();
    assert_eq!(fetch.await.unwrap().unwrap().id(), id);
}

/// A request that was dropped while it waited for the node's budget kept its place among those that the peer accepts.
/// After 2,048 of them a peer that was well and idle counted as busy until the connection ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_dropped_before_it_was_made_takes_no_place() {
    use crate::swarm::credit::Stage;
    use crate::swarm::serving::MAX_WANTS;
    use futures::FutureExt;
    let (server, reader) = (start(1).await, start(2).await);
    reader.connect(&server).await;
    let objects = [noise(1, 1000), noise(2, 1000)];
    server.publish(&objects);
    let source = reader.net.source();
    source.fetch(objects[0].id(), Class::Prefetch).await.unwrap();
    let lender = &reader.net.shared.lender;
    let mut leases = Vec::new();
    for bytes in [MAX_OBJECT, 4096] {
        while let Some(lease) = lender.borrow(Class::Prefetch, Stage::Start, bytes).now_or_never() {
            leases.push(lease);
        }
    }
    let lent = lender.lent();
    for _ in 0..=MAX_WANTS {
        assert!(source.fetch(objects[1].id(), Class::Prefetch).now_or_never().is_none());
    }
    assert_eq!(lender.lent(), lent, "none of them came so far as to be made");
    drop(leases);
    let fetch = source.fetch(objects[1].id(), Class::Prefetch);
    let got = tokio::time::timeout(Duration::from_secs(10), fetch).await.expect("there is room").unwrap();
    assert_eq!(got.plain(), objects[1].plain());
}

/// What a node has granted is the most that can come at once; so that is what is counted, with a peer that sends
/// nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_stays_within_the_window_and_leaves_room_for_a_fault() {
    let reader = start(1).await;
    let mut raw = Raw::start(2, None).await;
    reader.net.connect(&raw.address).await.unwrap();
    reader.net.shared.guess().learn(Kind::Chunk, 1 << 20);
    let fetches: Vec<_> = (0..100)
        .map(|n| {
            let source = reader.net.source();
            tokio::spawn(async move { source.fetch(noise(n, 10).id(), Class::Prefetch).await })
        })
        .collect();
    let mut served = raw.accept().await;
    let Message::Want(want) = served.heard().await else { panic!("no want") };
    // One object is more than the window of a peer that was not measured yet.
    assert_eq!((want.credit, want.objects.len()), (1 << 20, 1));
    assert_eq!(reader.net.shared.lender.lent(), 1 << 20);
    // A fault does not wait for that.
    let object = noise(1000, 500_000);
    let (source, id) = (reader.net.source(), object.id());
    let fault = tokio::spawn(async move { source.fetch(id, Class::Fault).await });
    let Message::Want(want) = served.heard().await else { panic!("no want") };
    assert_eq!((want.class, want.objects), (Class::Fault, vec![id]));
    super::raw::send(&mut served.urgent.1, want.first, object.plain()).await.unwrap();
    assert_eq!(fault.await.unwrap().unwrap().plain(), object.plain());
    for fetch in fetches {
        fetch.abort();
    }
    until("the return of the credit", || reader.net.shared.lender.lent() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_is_never_exceeded_while_large_objects_come() {
    let (server, reader) = (start(1).await, start(2).await);
    reader.connect(&server).await;
    let objects: Vec<_> = (0..32).map(|n| noise(n, MAX_OBJECT as usize)).collect();
    server.publish(&objects);
    let fetcher = reader.fetcher();
    let wanted = ids(&objects);
    let fetching =
        tokio::spawn(async move { fetcher.get_many(&wanted, Class::Prefetch).await.unwrap().len() });
    let mut peak = 0;
    while !fetching.is_finished() {
        peak = peak.max(reader.net.shared.lender.lent());
        tokio::task::yield_now().await;
    }
    assert_eq!(fetching.await.unwrap(), objects.len());
    assert!(peak > 0 && peak <= crate::swarm::credit::TOTAL, "{peak}");
    assert_eq!(reader.net.shared.lender.lent(), 0);
}

#[tokio::test]
async fn addresses_that_lead_nowhere_are_told_apart() {
    let (a, b) = (start(1).await, start(2).await);
    let refused = |net: Net, address: String| async move { net.connect(&address).await.unwrap_err() };
    for junk in [
        "",
        "nonsense",
        "192.0.2.1:4001",
        "/ip4/300.1.1.1/tcp/1",
        "/ip4/127.0.0.1/udp/1",
        "/ip4/127.0.0.1/tcp/1/wss",
        "/ip4/127.0.0.1",
    ] {
        let error = refused(a.net.clone(), junk.into()).await;
        assert!(matches!(error, NetError::Address { .. }), "{junk}: {error:?}");
    }
    assert!(matches!(refused(a.net.clone(), a.address()).await, NetError::Myself { .. }));
    // Nobody listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = refused(a.net.clone(), format!("/ip4/127.0.0.1/tcp/{port}")).await;
    assert!(matches!(&error, NetError::Unreachable { cause, .. } if cause.contains("refused")), "{error}");
    let elsewhere = b.address().replace(&b.net.peer_id(), &key_id(9));
    let error = refused(a.net.clone(), elsewhere).await;
    assert!(matches!(&error, NetError::OtherPeer { found, .. } if *found == b.net.peer_id()), "{error}");
    // Without an id, whoever is there is taken.
    let (bare, _) = b.address().split_once("/p2p/").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(a.net.connect(&bare).await.unwrap(), b.net.peer_id());
    assert_eq!(a.net.connect(&b.address()).await.unwrap(), b.net.peer_id(), "again does no harm");
    // A name was no address, so that a node behind a changing one could be named in no URI.
    for kind in ["dns", "dns4"] {
        let named = b.address().replace("/ip4/127.0.0.1", &format!("/{kind}/localhost"));
        assert_eq!(a.net.connect(&named).await.unwrap(), b.net.peer_id(), "{named}");
    }
    // `.invalid` exists nowhere (RFC 6761), so that nobody is asked for it.
    let error = refused(a.net.clone(), "/dns4/nowhere.invalid/tcp/1".into()).await;
    assert!(matches!(error, NetError::Unreachable { .. }), "{error:?}");
    // A port that is taken cannot be listened on.
    let taken = b.address().split('/').nth(4).unwrap().parse().unwrap();
    let (sender, _submissions) = mpsc::channel(1);
    let error =
        Net::start(options(5, taken), a.store.clone(), Registry::default(), sender).await.err().unwrap();
    assert!(matches!(error, NetError::Listen { .. }), "{error}");
    a.net.shutdown().await;
    assert!(matches!(refused(a.net.clone(), b.address()).await, NetError::Stopped));
}

fn key_id(seed: u8) -> String {
    libp2p::identity::Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "on demand: needs a network that passes multicast"]
async fn nodes_on_one_network_find_each_other() {
    let discovering = async |seed| {
        let node = start(seed).await;
        let (sender, _submissions) = mpsc::channel(1);
        let options =
            Options { listen: vec!["/ip4/0.0.0.0/tcp/0".to_owned()], mdns: true, ..options(seed + 100, 0) };
        Net::start(options, node.store, Registry::default(), sender).await.unwrap()
    };
    let (a, b) = (discovering(1).await, discovering(2).await);
    let connected = |net: &Net, id: String| {
        net.peers().iter().any(|peer| peer.id == id && peer.state == PeerState::Connected)
    };
    until("the discovery", || connected(&a, b.peer_id()) && connected(&b, a.peer_id())).await;
}
