//! How long one object takes; run on demand, on an idle machine.

use super::*;
use crate::swarm::Class;

/// The time of a reader who asks for one small object after another, in four parts of the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "on demand: measures"]
async fn the_pace_of_lone_faults() {
    let (server, reader) = (start(1).await, start(2).await);
    reader.connect(&server).await;
    for len in [4 << 10, 64 << 10] {
        let objects: Vec<_> = (0..3000).map(|n| noise(n + len as u64, len)).collect();
        server.publish(&objects);
        let (source, fetcher) = (reader.net.source(), reader.fetcher());
        for object in &objects[..500] {
            source.fetch(object.id(), Class::Fault).await.unwrap();
        }
        for round in 0..3 {
            let part = &objects[500 + 800 * round..500 + 800 * (round + 1)];
            let begun = Instant::now();
            for object in part {
                source.fetch(object.id(), Class::Fault).await.unwrap();
            }
            let network = begun.elapsed() / 800;
            let begun = Instant::now();
            for object in part {
                fetcher.get(object.id(), Class::Fault).await.unwrap();
            }
            println!("{len} bytes: {network:?} from the peer, {:?} with the store", begun.elapsed() / 800);
        }
    }
}
