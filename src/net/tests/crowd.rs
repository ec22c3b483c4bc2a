//! Many real nodes in one process that fetch the same objects from one of them, over links of a modest rate.

use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use libp2p::identity::Keypair;

use super::links::Link;
use super::*;
use crate::id::SnapshotId;
use crate::swarm::Class;

/// What is fetched, by how many.
struct Setting {
    receivers: usize,
    objects: u64,
    len: usize,
    /// Bytes a second that each sends and receives at most, whatever they are for.
    rate: u64,
    /// Connections of each receiver at most, of which it begins two thirds.
    max_peers: usize,
}

/// A node of the crowd of so many, which no other test has.
async fn member(number: usize, of: usize, rate: u64, max_peers: usize) -> (TestNode, Arc<Link>) {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
    seed[8..16].copy_from_slice(&(of as u64).to_le_bytes());
    let link = Link::new(&Keypair::ed25519_from_bytes(seed).unwrap(), rate);
    let listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    let options = Options {
        mdns: false,
        max_peers: max_peers as u32,
        ..Options::new(SecretKey::from_bytes(seed), listen)
    };
    (start_with(options).await, link)
}

/// Everybody knows the source only, and finds the others through it. Prints what it took, in parts of what one receiver
/// alone would take at this rate, and how many copies the source sent.
async fn all_get_everything(setting: Setting) {
    let Setting { receivers, objects, len, rate, max_peers } = setting;
    // All connect to the source, and others may begin three quarters of its connections.
    let (source, link) = member(0, receivers, rate, 4 * receivers).await;
    let objects: Vec<Checked> = (0..objects).map(|n| noise(n, len)).collect();
    source.publish(&objects);
    let size = (objects.len() * len) as f64;
    let begun = Instant::now();
    let swarm = SwarmId::new(&SnapshotId::of(b"crowd"), None);
    let mut nodes = Vec::new();
    for number in 1..=receivers {
        nodes.push(member(number, receivers, rate, max_peers).await.0);
    }
    let _guards: Vec<_> = nodes.iter().map(|node| node.net.join_swarm(swarm)).collect();
    // One after the other: a node takes only so many at the same moment.
    for node in &nodes {
        node.connect(&source).await;
    }
    until("all find others", || {
        nodes.iter().all(|node| node.net.shared.table.connected_count() > receivers.min(max_peers) / 2)
    })
    .await;
    let connections = nodes.iter().map(|node| node.net.shared.table.connected_count()).sum::<usize>();

    let found = begun.elapsed();

    let wanted = ids(&objects);
    let before = link.sent();
    let begun = Instant::now();
    let fetches = nodes.iter().map(|node| {
        let (fetcher, wanted) = (node.fetcher(), wanted.clone());
        tokio::spawn(async move {
            // As a prefetch does: many at a time, in whatever order they come.
            let gets = wanted.iter().map(|id| fetcher.get(*id, Class::Prefetch));
            let got = try_join_all(gets).await.unwrap();
            (begun.elapsed(), got)
        })
    });
    let mut took = Vec::new();
    for fetch in fetches.collect::<Vec<_>>() {
        let (after, got) = fetch.await.unwrap();
        took.push(after);
        assert_eq!(got.len(), objects.len());
        assert!(got.iter().zip(&objects).all(|(got, object)| got.plain() == object.plain()));
    }
    took.sort_unstable();
    let bound = size / rate as f64;
    let parts = |took: &Duration| took.as_secs_f64() / bound;
    let sent = link.sent() - before;
    println!(
        "{receivers} receivers of {:.1} MB at {} KB/s with {} connections each: the last after {:.2} of the bound of \
         {bound:.1} s, half after {:.2}, the first after {:.2}; the source sent {:.2} copies; they had found each other \
         within {:.1} s",
        size / 1e6,
        rate / 1000,
        connections / receivers,
        parts(&took[took.len() - 1]),
        parts(&took[took.len() / 2]),
        parts(&took[0]),
        sent as f64 / size,
        found.as_secs_f64(),
    );
    join_all(nodes.iter().map(|node| node.net.shutdown())).await;
    source.net.shutdown().await;
    // What was written is right too, and all of it is there.
    for node in &nodes {
        assert!(node.store.missing(&wanted, Keep::Cache).unwrap().is_empty());
    }
    let share = sent as f64 / size;
    assert!(share < receivers as f64 / 2.0, "the source sent {share} copies to {receivers} receivers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_gets_everything_from_one_source() {
    let setting = Setting { receivers: 12, objects: 96, len: 32 << 10, rate: 1_000_000, max_peers: 32 };
    all_get_everything(setting).await;
}

/// Bytes a second of each of a hundred: at twice as many, two threads have no time left to spare for their TLS, hashes and disks.
const SLOW: u64 = 200_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "on demand: minutes of both cores without optimisation"]
async fn a_hundred_nodes_get_everything_from_one_source() {
    let setting = Setting { receivers: 99, objects: 100, len: 32 << 10, rate: SLOW, max_peers: 12 };
    all_get_everything(setting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "on demand: minutes of both cores without optimisation"]
async fn a_hundred_nodes_get_twice_as_much_from_one_source() {
    let setting = Setting { receivers: 99, objects: 200, len: 32 << 10, rate: SLOW, max_peers: 12 };
    all_get_everything(setting).await;
}
