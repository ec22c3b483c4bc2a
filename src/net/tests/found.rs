//! What goes around among nodes that are not connected with each other: Kademlia and gossip.

use super::*;
use crate::id::SnapshotId;

fn connected(a: &TestNode, b: &TestNode) -> bool {
    a.state_of(&b.net.peer_id()) == Some(PeerState::Connected)
}

/// No tracker knows both: each is in the swarm as another node's peer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_without_a_common_tracker_find_each_other_by_kademlia() {
    let (a, b) = (start(1).await, start(2).await);
    let (left, right) = (start(3).await, start(4).await);
    b.connect(&left).await;
    left.connect(&right).await;
    a.connect(&right).await;
    let swarm = SwarmId::new(&SnapshotId::of(b"photos"), None);
    let _of_a = a.net.join_swarm(swarm);
    let _of_b = b.net.join_swarm(swarm);
    until("A and B find each other", || connected(&a, &b)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_goes_around_once_and_a_beacon_is_shown() {
    let (teller, between, hears) = (start(1).await, start(2).await, start(3).await);
    teller.connect(&between).await;
    hears.connect(&between).await;
    let beacon = |node: &TestNode, of: &TestNode| {
        let id = of.net.peer_id();
        node.net.peers().into_iter().find(|info| info.id == id).and_then(|info| info.beacon)
    };
    until("beacons", || beacon(&between, &teller).is_some() && beacon(&hears, &between).is_some()).await;
    let (told, now_ms) = beacon(&between, &teller).unwrap();
    assert!(now_ms.abs_diff(told.time_ms) < 60_000, "both have the same clock");
    assert_eq!((told.agent.as_str(), told.relay, told.swarms), (shared::agent().as_str(), false, 0));
    assert_eq!(told.free_class, 1, "the cache of a test has one GiB");

    let mut heads = hears.net.heads();
    let (genesis, header) = (Genesis::from_bytes([1; 32]), HeaderId::from_bytes([2; 32]));
    // Both tell it, as a validator and its followers do.
    teller.net.tell_head(genesis, 7, header).await;
    between.net.tell_head(genesis, 7, header).await;
    teller.net.tell_head(genesis, 8, header).await;
    for height in [7, 8] {
        let heard = tokio::time::timeout(Duration::from_secs(20), heads.recv()).await;
        assert_eq!(heard.expect("a head is heard").unwrap(), (genesis, height));
    }
    assert!(heads.try_recv().is_err(), "once each");
}

/// Prints what `cargo test --release --lib how_long -- --ignored --nocapture` is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "on demand: prints figures; needs a network with multicast"]
async fn how_long_finding_and_connecting_take() {
    let everywhere = |seed, way: &str| Options { listen: vec![way.to_owned()], ..options(seed, 0) };
    let mut found = Vec::new();
    for seed in (10..30).step_by(2) {
        let all = |seed| Options { mdns: true, ..everywhere(seed, "/ip4/0.0.0.0/tcp/0") };
        let first = start_with(all(seed)).await;
        let second = start_with(all(seed + 1)).await;
        let begun = Instant::now();
        until("discovery", || connected(&first, &second)).await;
        found.push(begun.elapsed());
        // Or those that come after them find too many, and have no room for each other.
        first.net.shutdown().await;
        second.net.shutdown().await;
    }
    print("found by mDNS after the start of the second", found);
    for way in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let server = start_with(everywhere(1, way)).await;
        let mut times = Vec::new();
        for seed in 10..30 {
            let node = start(seed).await;
            let begun = Instant::now();
            node.connect(&server).await;
            times.push(begun.elapsed());
            node.net.shutdown().await;
        }
        print(way, times);
    }
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let [least, median, most] = [0, times.len() / 2, times.len() - 1].map(|n| times[n]);
    println!("{what}: {least:.1?} at least, {median:.1?} median, {most:.1?} at most, of {}", times.len());
}
