//! How long one object takes; run on demand, on an idle machine.

use super::*;
use crate::swarm::Class;

/// The time of a reader who asks for one small object after another, from the peer alone and with what the store does.
/// The tenth and the half of the times say more than their mean on a machine that does other things.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "on demand: measures"]
async fn the_pace_of_lone_faults() {
    let (server, reader) = (start(1).await, start(2).await);
    reader.connect(&server).await;
    for len in [4 << 10, 64 << 10] {
        let objects: Vec<_> = (0..3000).map(|n| noise(n + len as u64, len)).collect();
        server.publish(&objects);
        let (source, fetcher) = (reader.net.source(), reader.fetcher());
        for object in &objects[..200] {
            source.fetch(object.id(), Class::Fault).await.unwrap();
        }
        let (mut network, mut all) = (Vec::new(), Vec::new());
        for object in &objects[200..] {
            let begun = Instant::now();
            source.fetch(object.id(), Class::Fault).await.unwrap();
            network.push(begun.elapsed());
            let begun = Instant::now();
            fetcher.get(object.id(), Class::Fault).await.unwrap();
            all.push(begun.elapsed());
        }
        for (what, mut times) in [("from the peer", network), ("with the store", all)] {
            times.sort();
            println!("{len} bytes {what}: {:?}, {:?}", times[times.len() / 10], times[times.len() / 2]);
        }
    }
}
