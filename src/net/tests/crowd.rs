//! Many real nodes in one process that fetch the same objects from one of them, over links made narrow by the nodes' own
//! limits.

use futures::future::join_all;

use super::*;
use crate::id::SnapshotId;
use crate::swarm::Class;

/// What is fetched, by how many.
struct Setting {
    receivers: usize,
    objects: u64,
    len: usize,
    /// Bytes a second that each sends and receives at most.
    rate: u64,
}

async fn member(number: usize, rate: u64) -> TestNode {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
    let listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    let node = start_with(Options {
        mdns: false,
        // The source takes as many as there are; the others are as they are by default.
        max_peers: if number == 0 { 256 } else { 64 },
        ..Options::new(SecretKey::from_bytes(seed), listen)
    })
    .await;
    node.net.set_upload_limit(Some(rate));
    node.net.set_download_limit(Some(rate));
    node
}

/// Everybody knows the source only, and finds the others through it. Prints what it took, in parts of what one receiver
/// alone would take at this rate, and how many copies the source sent.
async fn all_get_everything(setting: Setting) {
    let Setting { receivers, objects, len, rate } = setting;
    let source = member(0, rate).await;
    let objects: Vec<Checked> = (0..objects).map(|n| noise(n, len)).collect();
    source.publish(&objects);
    let size = (objects.len() * len) as f64;
    let swarm = SwarmId::new(&SnapshotId::of(b"crowd"), None);
    let mut nodes = Vec::new();
    for number in 1..=receivers {
        nodes.push(member(number, rate).await);
    }
    let _guards: Vec<_> = nodes.iter().map(|node| node.net.join_swarm(swarm)).collect();
    // One after the other: a node takes only so many at the same moment.
    for node in &nodes {
        node.connect(&source).await;
    }
    until("all find others", || {
        nodes.iter().all(|node| node.net.shared.table.connected_count() > receivers.min(16) / 2)
    })
    .await;
    let connections = nodes.iter().map(|node| node.net.shared.table.connected_count()).sum::<usize>();

    let wanted = ids(&objects);
    let begun = Instant::now();
    let fetches = nodes.iter().map(|node| {
        let (fetcher, wanted) = (node.fetcher(), wanted.clone());
        tokio::spawn(async move {
            let got = fetcher.get_many(&wanted, Class::Prefetch).await.unwrap();
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
    let sent: u64 = source.net.peers().iter().map(|peer| peer.bytes_out).sum();
    println!(
        "{receivers} receivers of {:.1} MB at {} KB/s with {} connections each: the last after {:.2} of the bound of \
         {bound:.1} s, half after {:.2}, the first after {:.2}; the source sent {:.2} copies",
        size / 1e6,
        rate / 1000,
        connections / receivers,
        parts(&took[took.len() - 1]),
        parts(&took[took.len() / 2]),
        parts(&took[0]),
        sent as f64 / size,
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
    all_get_everything(Setting { receivers: 12, objects: 48, len: 64 << 10, rate: 1_000_000 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "on demand: a minute of both cores"]
async fn a_hundred_nodes_get_everything_from_one_source() {
    all_get_everything(Setting { receivers: 99, objects: 96, len: 64 << 10, rate: 200_000 }).await;
}
