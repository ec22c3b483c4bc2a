//! The ways to a peer: transports, relays, modes, and who is not let in.

use libp2p::multiaddr::Protocol;

use super::*;
use crate::swarm::Class;

async fn listening(seed: u8, address: &str) -> TestNode {
    start_with(Options { listen: vec![address.to_owned()], ..options(seed, 0) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_comes_over_every_transport() {
    let ways = [
        "/ip4/127.0.0.1/tcp/0",
        "/ip4/127.0.0.1/tcp/0/ws",
        "/ip4/127.0.0.1/udp/0/quic-v1",
        "/memory/4711",
        "/ip6/::1/udp/0/quic-v1",
    ];
    let reader = start(1).await;
    for (n, way) in ways.into_iter().enumerate() {
        let server = listening(10 + n as u8, way).await;
        let transport = way.split('/').next_back().unwrap();
        assert!(server.address().contains(transport), "{} for {way}", server.address());
        reader.connect(&server).await;
        let object = noise(n as u64, 300_000);
        server.publish(std::slice::from_ref(&object));
        let got = reader.fetcher().get(object.id(), Class::Fault).await.unwrap();
        assert_eq!(got.plain(), object.plain(), "{way}");
        until("the count of what was served", || server.served_to(&reader) == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_refused_for_udp_too() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/udp/{}/quic-v1", taken.local_addr().unwrap().port());
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), crate::store::Options { cache_max_bytes: 1 << 30 }).unwrap();
    let options = Options { listen: vec![address], ..options(1, 0) };
    let error = Net::start(options, store, Registry::default(), mpsc::channel(1).0).await.err().unwrap();
    assert!(matches!(&error, NetError::Listen { cause, .. } if cause.contains("in use")), "{error}");
}

/// A relay, and a node that can be reached through it.
async fn relay_and_source() -> (TestNode, TestNode, String) {
    let relay = start_with(Options { relay: true, ..options(20, 0) }).await;
    let source = start_with(Options { relays: vec![relay.address()], ..options(21, 0) }).await;
    let circuit = || source.net.addresses().into_iter().find(|address| address.contains("/p2p-circuit"));
    until("the reservation", || circuit().is_some()).await;
    let circuit = circuit().unwrap();
    (relay, source, circuit)
}

/// Everything that `node` knows of where the peer `id` is, or has ever connected from.
fn seen(node: &TestNode, id: &str) -> Vec<String> {
    node.net.peers().into_iter().filter(|info| info.id == id).flat_map(|info| info.addresses).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_anonymous_reader_is_seen_as_its_relay() {
    let (relay, source, circuit) = relay_and_source().await;
    let object = noise(1, 3 << 20);
    source.publish(std::slice::from_ref(&object));
    // The relay has it too, and knows where the reader is: it must not learn what is read.
    relay.publish(std::slice::from_ref(&object));
    let direct = source.address();
    assert!(!direct.contains("/p2p-circuit"));
    let anonymous = |seed| Options {
        mode: Mode::Anonymous,
        relays: vec![relay.address()],
        mdns: true,
        ..options(seed, 0)
    };
    let reader = start_with(anonymous(22)).await;
    let identity = libp2p::identity::Keypair::ed25519_from_bytes(key(22).to_bytes()).unwrap();
    assert_ne!(reader.net.peer_id(), identity.public().to_peer_id().to_string());
    let own = || reader.net.addresses();
    until("a reservation of its own", || own().iter().any(|address| address.contains("/p2p-circuit"))).await;

    // An address that leads to the source directly is gone to through the relay.
    for address in [&circuit, &direct] {
        assert_eq!(reader.net.connect(address).await.unwrap(), source.net.peer_id());
    }
    let got = reader.fetcher().get(object.id(), Class::Fault).await.unwrap();
    assert_eq!(got.plain(), object.plain());
    until("the count of what was served", || source.served_to(&reader) == 1).await;
    assert_eq!(relay.served_to(&reader), 0);
    assert_eq!(reader.state_of(&relay.net.peer_id()), Some(PeerState::Relay));
    let is_relayed = |wanted: &str| reader.net.peers().iter().any(|peer| peer.id == wanted && peer.relayed);
    assert!(is_relayed(&source.net.peer_id()) && !is_relayed(&relay.net.peer_id()));
    let id = reader.net.peer_id();
    // What identify tells has come when the source knows that it may ask this peer.
    until("identify", || source.net.shared.table.trackers().iter().any(|peer| peer.to_string() == id)).await;
    let seen = seen(&source, &id);
    assert!(!seen.is_empty());
    let via = format!("{}/p2p-circuit", relay.address());
    for address in &seen {
        assert!(address.starts_with(&via), "{address} tells where the reader is");
    }
    for address in own() {
        assert!(address.starts_with(&via), "{address} is not one of the relay");
    }
    // Nor does it go anywhere directly, or through a relay that somebody else has chosen.
    let other = start_with(Options { relay: true, ..options(23, 0) }).await;
    let through = format!("{}/p2p-circuit/p2p/{}", other.address(), source.net.peer_id());
    assert_eq!(reader.net.connect(&through).await.unwrap(), source.net.peer_id(), "through its own relay");
    let nameless = other.address().replace(&format!("/p2p/{}", other.net.peer_id()), "");
    assert!(matches!(reader.net.connect(&nameless).await, Err(NetError::Denied { .. })));
    assert!(other.net.peers().is_empty(), "nobody has connected to the other relay");
    // Another run is another peer.
    let again = start_with(anonymous(22)).await;
    assert_ne!(again.net.peer_id(), id);
}

/// libp2p gave up at once what was to go through a relay that was being dialled already, for a reservation or for a user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_through_a_relay_waits_until_that_is_connected() {
    let (relay, source, circuit) = relay_and_source().await;
    let reader = start(22).await;
    let at_relay = relay.address();
    let (to_relay, through) = tokio::join!(reader.net.connect(&at_relay), reader.net.connect(&circuit));
    assert_eq!(to_relay.unwrap(), relay.net.peer_id());
    assert_eq!(through.unwrap(), source.net.peer_id());

    relay.net.shutdown().await;
    let late = start(23).await;
    let error = late.net.connect(&circuit).await.unwrap_err().to_string();
    assert!(error.contains(&circuit) && error.contains("its relay: Connection refused"), "{error}");
}

/// On one machine nothing is between them: the relayed connection is given up for a direct one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_connection_takes_the_place_of_a_relayed_one() {
    let (_relay, source, circuit) = relay_and_source().await;
    let reader = start(22).await;
    assert_eq!(reader.net.connect(&circuit).await.unwrap(), source.net.peer_id());
    reader.net.connect(&source.address()).await.unwrap();
    let object = noise(1, 300_000);
    source.publish(std::slice::from_ref(&object));
    // There may be several direct ones: what is urgent has its own, and DCUtR may have made another.
    let id = source.net.peer_id().parse().unwrap();
    let is_direct =
        || reader.net.shared.table.is_connected(&id) && !reader.net.shared.table.goes_through_a_relay(&id);
    until("only direct connections are left", is_direct).await;
    let got = reader.fetcher().get(object.id(), Class::Fault).await.unwrap();
    assert_eq!(got.plain(), object.plain());
    // Nor is another made.
    reader.net.connect(&circuit).await.unwrap();
    until("only direct ones are left again", is_direct).await;
    assert!(!reader.net.reached().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mode_refuses_what_it_does_not_allow() {
    let (_relay, source, circuit) = relay_and_source().await;
    let direct = start_with(Options { mode: Mode::Direct, ..options(22, 0) }).await;
    let mesh = start_with(Options { mode: Mode::Mesh, ..options(23, 0) }).await;
    for (node, address) in [(&direct, circuit.as_str()), (&mesh, &circuit), (&mesh, "/ip4/203.0.113.1/tcp/1")]
    {
        let error = node.net.connect(address).await.unwrap_err();
        assert!(matches!(&error, NetError::Denied { cause, .. } if cause.contains("net.mode")), "{error}");
    }
    direct.connect(&source).await;
    mesh.connect(&source).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_decide_who_is_connected_with() {
    let (friend, foe) = (start(2).await, start(3).await);
    let picky = start_with(Options { allow: vec![friend.net.peer_id()], ..options(4, 0) }).await;
    let wary = start_with(Options { block: vec![foe.net.peer_id()], ..options(5, 0) }).await;
    for (node, welcome, refused) in [(&picky, &friend, &foe), (&wary, &friend, &foe)] {
        node.connect(welcome).await;
        let error = node.net.connect(&refused.address()).await.unwrap_err();
        assert!(matches!(error, NetError::Denied { .. }), "{error}");
        // It is let go at once when it comes by itself.
        let _ = refused.net.connect(&node.address()).await;
        until("it is gone", || node.state_of(&refused.net.peer_id()).is_none()).await;
    }
    let wrong = Options { block: vec!["nobody".to_owned()], ..options(6, 0) };
    assert!(matches!(transport::build(&wrong), Err(NetError::PeerId(_))));
    let wrong =
        Options { relays: vec![Multiaddr::empty().with(Protocol::Tcp(1)).to_string()], ..options(6, 0) };
    assert!(matches!(transport::build(&wrong), Err(NetError::Relay { .. })));
}
