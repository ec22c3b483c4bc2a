//! How members of a swarm find each other.

use std::net::TcpListener;

use futures::io::AsyncReadExt;

use super::raw::{Raw, say};
use super::*;
use crate::codec;
use crate::id::SnapshotId;
use crate::net::log_wire;
use crate::net::peer_wire::{Announce, Answer, MAX_ANNOUNCE, MAX_SWARMS};
use crate::net::streams::Route;
use crate::swarm::tracker::MAX_NAMED;

fn swarm(text: &str) -> SwarmId {
    SwarmId::new(&SnapshotId::of(text.as_bytes()), None)
}

fn connected(a: &TestNode, b: &TestNode) -> bool {
    a.state_of(&b.net.peer_id()) == Some(PeerState::Connected)
}

/// All three start knowing one node at most: the publisher of a URI.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_know_one_node_find_each_other() {
    let (a, b, c, d) = (start(1).await, start(2).await, start(3).await, start(4).await);
    for node in [&b, &c, &d] {
        node.connect(&a).await;
    }
    let _of_b = b.net.join_swarm(swarm("photos"));
    let _of_c = c.net.join_swarm(swarm("photos"));
    let _of_d = d.net.join_swarm(swarm("songs"));
    until("B and C find each other", || connected(&b, &c) && connected(&c, &b)).await;
    assert!(!connected(&d, &b) && !connected(&d, &c), "it is in another swarm");
    // An object that only the newly found one has.
    let object = noise(1, 100_000);
    c.publish(std::slice::from_ref(&object));
    let got = b.fetcher().get(object.id(), crate::swarm::Class::Fault).await.unwrap();
    assert_eq!(got.plain(), object.plain());
}

/// A node that joins when it has long been connected finds those who were there before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_member_finds_the_others_and_is_one_until_its_last_guard_goes() {
    let (a, b, c) = (start(1).await, start(2).await, start(3).await);
    let _of_b = b.net.join_swarm(swarm("photos"));
    b.connect(&a).await;
    c.connect(&a).await;
    let first = c.net.join_swarm(swarm("photos"));
    let second = c.net.join_swarm(swarm("photos"));
    drop(first);
    assert_eq!(c.net.shared.trackers.swarms(), [swarm("photos")]);
    until("C finds B", || connected(&c, &b)).await;
    drop(second);
    assert!(c.net.shared.trackers.swarms().is_empty());
}

/// What is named first does not answer, and there is room for one of them at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_cannot_be_reached_keeps_nobody_from_the_next() {
    let tracker = start(1).await;
    let id = tracker.net.peer_id().parse().unwrap();
    let mut members = Vec::new();
    for seed in 20..30 {
        members.push(Raw::start(seed, Some(&tracker.address())).await);
    }
    // Members are named in the order of their ids.
    members.sort_unstable_by_key(|member| member.peer);
    let live = members.len() - 1;
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (number, member) in members.iter_mut().enumerate() {
        let address = match number == live {
            true => member.address.clone(),
            false => format!("/ip4/127.0.0.1/tcp/{closed}"),
        };
        let announce = Announce::new(&[address.parse().unwrap()], &[swarm("photos")], 0);
        announced(member, id, &announce).await;
    }
    let node = start_with(Options { max_peers: 3, ..options(2, 0) }).await;
    let _member = node.net.join_swarm(swarm("photos"));
    node.connect(&tracker).await;
    let found = || node.state_of(&members[live].peer.to_string()) == Some(PeerState::Connected);
    until("the node connects the last that was named", found).await;
}

async fn announced(raw: &mut Raw, peer: PeerId, announce: &Announce) -> Answer {
    let mut stream = raw.control.open(peer, PEERS_PROTOCOL, Route::Shared).await.unwrap();
    log_wire::write(&mut stream, announce).await.unwrap();
    log_wire::read(&mut stream, "an answer", 1 << 20).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_names_only_addresses_that_lead_to_who_announced_them() {
    let node = start(1).await;
    let id = node.net.peer_id().parse().unwrap();
    let mut liar = Raw::start(10, Some(&node.address())).await;
    let mut asks = Raw::start(11, Some(&node.address())).await;
    let victim = PeerId::random();
    let addresses = [
        format!("/ip4/192.0.2.7/tcp/4001/p2p/{victim}"),
        "/dns4/example.org/tcp/443".to_owned(),
        "/ip4/0.0.0.0/tcp/4001".to_owned(),
        "/ip4/192.0.2.8/tcp/4001".to_owned(),
    ];
    let addresses = addresses.map(|address| address.parse::<Multiaddr>().unwrap());
    let swarms = [swarm("photos")];
    let nobody = announced(&mut liar, id, &Announce::new(&addresses, &swarms, MAX_NAMED)).await;
    assert!(nobody.members.is_empty(), "it is not named to itself");
    let answer = announced(&mut asks, id, &Announce::new(&[], &swarms, MAX_NAMED)).await;
    let named: Vec<_> = answer.members.iter().filter_map(|member| member.peer()).collect();
    assert_eq!(named, [liar.peer]);
    let told: Vec<_> = answer.members[0].addresses().map(|bytes| bytes.to_vec()).collect();
    let only: Multiaddr = format!("/ip4/192.0.2.8/tcp/4001/p2p/{}", liar.peer).parse().unwrap();
    assert_eq!(told, [only.to_vec()]);
    // One that cannot be reached anywhere is of no use to others.
    let answer = announced(&mut liar, id, &Announce::new(&[], &swarms, MAX_NAMED)).await;
    assert!(answer.members.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announcement_that_breaks_a_rule_closes_the_connection() {
    let server = start(1).await;
    let id = server.net.peer_id().parse().unwrap();
    let framed = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    let too_many = codec::encode(&Announce::new(&[], &[swarm("photos"); MAX_SWARMS + 1], 0));
    let too_long = (MAX_ANNOUNCE as u32 + 1).to_le_bytes().to_vec();
    for (n, bytes) in [framed(&too_many), framed(&[0xff; 4]), too_long].into_iter().enumerate() {
        let raw = Raw::start(10 + n as u8, Some(&server.address())).await;
        let mut stream = raw.control.open(id, PEERS_PROTOCOL, Route::Shared).await.unwrap();
        say(&mut stream, &bytes).await;
        let mut answer = Vec::new();
        // Whether it ends orderly or not, nothing comes.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty());
        until("the end", || raw.closed() == 1).await;
    }
}
