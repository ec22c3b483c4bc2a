//! Limits and blocks between real nodes.

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::*;
use crate::swarm::Class;

/// Prefetch of 8 MiB at 1 MiB/s is under way when a reader wants an object: it does not stand behind what was asked for
/// before. Limited on one side, then on the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_passes_prefetch_under_a_limit() {
    for limit_upload in [true, false] {
        let (server, reader) = (start(1).await, start(2).await);
        reader.connect(&server).await;
        let objects: Vec<_> = (0..128).map(|n| noise(n, 64 << 10)).collect();
        let wanted = noise(1000, 64 << 10);
        server.publish(&objects);
        server.publish(std::slice::from_ref(&wanted));
        match limit_upload {
            true => server.net.set_upload_limit(Some(1 << 20)),
            false => reader.net.set_download_limit(Some(1 << 20)),
        }
        let source = reader.net.source();
        let begun = Instant::now();
        let mut prefetch: FuturesUnordered<_> =
            objects.iter().map(|object| source.fetch(object.id(), Class::Prefetch)).collect();
        for _ in 0..24 {
            prefetch.next().await.unwrap().unwrap();
        }
        // A MiB and a half less what may pass at once.
        assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
        let fault = source.fetch(wanted.id(), Class::Fault);
        let rest = async {
            while let Some(object) = prefetch.next().await {
                object.unwrap();
            }
        };
        tokio::select! {
            biased;
            object = fault => assert_eq!(object.unwrap().id(), wanted.id()),
            () = rest => panic!("all of the prefetch came before the object that a reader waits for"),
        }
        // Lifted, the rest comes.
        server.net.set_upload_limit(None);
        reader.net.set_download_limit(None);
        while let Some(object) = prefetch.next().await {
            object.unwrap();
        }
        let seen = reader.net.peers().into_iter().find(|peer| peer.id == server.net.peer_id()).unwrap();
        assert_eq!((seen.failed, seen.failure_share), (0, 0.0));
        assert!(seen.bytes_in >= 8 << 20 && seen.rate_in > 0.0, "{seen:?}");
        reader.net.shutdown().await;
        server.net.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_blocked_is_disconnected_and_refused_until_it_is_allowed() {
    let (server, reader) = (start(1).await, start(2).await);
    reader.connect(&server).await;
    let (one, other) = (server.net.peer_id(), reader.net.peer_id());
    let objects = [noise(1, 1000), noise(2, 1000)];
    server.publish(&objects);
    let source = reader.net.source();
    source.fetch(objects[0].id(), Class::Fault).await.unwrap();

    reader.net.block(&one).await.unwrap();
    until("the connection ends", || server.state_of(&other) != Some(PeerState::Connected)).await;
    assert_eq!(reader.state_of(&one), Some(PeerState::Blocked));
    assert!(source.fetch(objects[1].id(), Class::Fault).await.is_err());
    let refused = reader.net.connect(&server.address()).await.unwrap_err();
    assert!(matches!(refused, NetError::Denied { .. }), "{refused}");
    // Nor does it come in by itself.
    let _ = server.net.connect(&reader.address()).await;
    assert_eq!(reader.state_of(&one), Some(PeerState::Blocked));

    reader.net.allow(&one).await.unwrap();
    until("it is connected again", || reader.state_of(&one) == Some(PeerState::Connected)).await;
    reader.fetcher().get(objects[1].id(), Class::Fault).await.unwrap();
}
