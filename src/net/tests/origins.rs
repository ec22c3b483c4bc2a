//! An origin behind the peers of real nodes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;

use super::raw::Raw;
use super::*;
use crate::fetch::FetchError;
use crate::swarm::Class;

/// What stands for an object store: it counts what it gives.
struct Shelf {
    objects: HashMap<ObjectId, Checked>,
    given: AtomicU64,
}

impl Shelf {
    fn new(objects: &[Checked]) -> Arc<Shelf> {
        let objects = objects.iter().map(|object| (object.id(), object.clone())).collect();
        Arc::new(Shelf { objects, given: AtomicU64::new(0) })
    }

    fn given(&self) -> u64 {
        self.given.load(Ordering::SeqCst)
    }
}

impl ChunkSource for Shelf {
    fn fetch(&self, id: ObjectId, _: Class) -> BoxFuture<'_, Result<Checked, FetchError>> {
        Box::pin(async move {
            // As long as a request to a server that is not far.
            tokio::time::sleep(Duration::from_millis(3)).await;
            let object = self.objects.get(&id).cloned().ok_or(FetchError::NotFound { id })?;
            self.given.fetch_add(1, Ordering::SeqCst);
            Ok(object)
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_wants_the_same_has_it_from_the_origin_once() {
    let objects: Vec<_> = (0..300).map(|n| noise(n, 40_000)).collect();
    let shelf = Shelf::new(&objects);
    let mut nodes = Vec::new();
    for seed in 1..=4 {
        nodes.push(start(seed).await);
        nodes.last().unwrap().net.set_origin(Some(shelf.clone()));
    }
    for (n, node) in nodes.iter().enumerate() {
        for other in &nodes[..n] {
            node.connect(other).await;
        }
    }
    for node in &nodes {
        let is_connected = |peer: &PeerInfo| peer.state == PeerState::Connected;
        let connected = || node.net.peers().iter().filter(|peer| is_connected(peer)).count();
        until("everybody is connected", || connected() == nodes.len() - 1).await;
    }
    let fetches = nodes.iter().map(|node| {
        let (fetcher, wanted) = (node.fetcher(), ids(&objects));
        tokio::spawn(async move { fetcher.get_many(&wanted, Class::Prefetch).await })
    });
    for fetch in fetches.collect::<Vec<_>>() {
        let got = fetch.await.unwrap().unwrap();
        assert!(got.iter().zip(&objects).all(|(got, object)| got.plain() == object.plain()));
    }
    // Each for itself would be four times as much.
    let given = shelf.given();
    assert!((300..420).contains(&given), "{given} of 300 objects");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_reader_whose_peers_hang_reads_from_the_origin() {
    let reader = start(1).await;
    let (mut one, mut other) = (Raw::start(2, None).await, Raw::start(3, None).await);
    for raw in [&one, &other] {
        reader.net.connect(&raw.address).await.unwrap();
    }
    let objects: Vec<_> = (0..20).map(|n| noise(n, 40_000)).collect();
    reader.net.set_origin(Some(Shelf::new(&objects)));
    let source = reader.net.source();
    let reading = async {
        for object in &objects {
            assert_eq!(source.fetch(object.id(), Class::Fault).await.unwrap().plain(), object.plain());
        }
    };
    // They take sessions and requests, and answer none. (One hanging request lasts five seconds.)
    let silence = async {
        let _sessions = tokio::join!(one.accept(), other.accept());
        std::future::pending::<()>().await
    };
    tokio::select! {
        done = tokio::time::timeout(Duration::from_secs(20), reading) => done.expect("nobody waits for them"),
        () = silence => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_origin_says_is_told_and_without_one_peers_alone_are_asked() {
    let (reader, peer) = (start(1).await, start(2).await);
    let object = noise(1, 1000);
    let source = reader.net.source();
    reader.net.set_origin(Some(Shelf::new(std::slice::from_ref(&object))));
    assert_eq!(source.fetch(object.id(), Class::Fault).await.unwrap().plain(), object.plain());
    let error = source.fetch(noise(2, 10).id(), Class::Prefetch).await.unwrap_err();
    assert!(
        matches!(&error, FetchError::Unreachable { cause, .. } if cause == "no peer is connected"),
        "{error}"
    );

    // One that refuses has the last word, whatever else is the matter.
    reader.net.set_origin(Some(Arc::new(Refuses)));
    reader.connect(&peer).await;
    for class in Class::ALL {
        let error = source.fetch(noise(2, 10).id(), class).await.unwrap_err();
        assert!(error.to_string().contains("the shelf is locked"), "{error}");
    }
    reader.net.set_origin(None);
    assert!(matches!(source.fetch(object.id(), Class::Prefetch).await, Err(FetchError::NotFound { .. })));
    peer.publish(std::slice::from_ref(&object));
    assert_eq!(source.fetch(object.id(), Class::Prefetch).await.unwrap().plain(), object.plain());
}

struct Refuses;

impl ChunkSource for Refuses {
    fn fetch(&self, id: ObjectId, _: Class) -> BoxFuture<'_, Result<Checked, FetchError>> {
        let cause = "the shelf is locked".to_owned();
        Box::pin(async move { Err(FetchError::Unreachable { id, cause }) })
    }
}
