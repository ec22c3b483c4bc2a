//! Peers that answer late, or never, while others have what is wanted.

use super::raw::Raw;
use super::*;
use crate::fetch::{ChunkSource, FetchError};
use crate::net::frames;
use crate::swarm::Class;
use crate::swarm::wire::{Message, Reason, Reject};

fn fetch(
    source: &Arc<dyn ChunkSource>,
    id: ObjectId,
    class: Class,
) -> tokio::task::JoinHandle<Result<Checked, FetchError>> {
    let source = source.clone();
    tokio::spawn(async move { source.fetch(id, class).await })
}

/// A peer that accepted a connection and then said nothing was tried four times for five seconds by every fault, one
/// after the other: the whole patience of each of them, while another peer had the object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_opens_no_session_delays_the_first_fetches_and_no_other() {
    let (reader, honest) = (start(1).await, start(2).await);
    let mut mute = Raw::start(3, None).await;
    let objects: Vec<_> = (0..20).map(|n| noise(n, 5000)).collect();
    honest.publish(&objects);
    reader.net.connect(&mute.address).await.unwrap();
    let source = reader.net.source();
    let begun = Instant::now();
    let first: Vec<_> =
        objects[..10].iter().map(|object| fetch(&source, object.id(), Class::Fault)).collect();
    let _unanswered = mute.stream().await;
    reader.connect(&honest).await;
    for fetch in first {
        fetch.await.unwrap().unwrap();
    }
    let once = begun.elapsed();
    assert!(once < Duration::from_secs(10), "ten faults waited for one attempt: {once:?}");
    let begun = Instant::now();
    for object in &objects[10..] {
        fetch(&source, object.id(), Class::Fault).await.unwrap().unwrap();
    }
    assert!(begun.elapsed() < once, "the mute one is no longer asked first");
    // Alone, it is asked again; others may be lost for the moment.
    honest.net.shutdown().await;
    until("the loss", || reader.state_of(&honest.net.peer_id()) == Some(PeerState::Reconnecting)).await;
    let wanted = noise(99, 10).id();
    let last = fetch(&source, wanted, Class::Fault);
    let mut served = mute.accept().await;
    let Message::Want(want) = served.heard().await else { panic!("no want") };
    super::raw::send(&mut served.urgent.1, want.first, noise(99, 10).plain()).await.unwrap();
    assert_eq!(last.await.unwrap().unwrap().id(), wanted);
}

/// A peer that is busy was asked first for ever, since only what it delivers was measured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_declines_is_asked_after_one_that_delivers() {
    let (reader, honest) = (start(1).await, start(2).await);
    let mut busy = Raw::start(3, None).await;
    let objects: Vec<_> = (0..20).map(|n| noise(n, 5000)).collect();
    honest.publish(&objects);
    reader.net.connect(&busy.address).await.unwrap();
    let source = reader.net.source();
    let first = fetch(&source, objects[0].id(), Class::Fault);
    let mut served = busy.accept().await;
    let Message::Want(want) = served.heard().await else { panic!("no want") };
    reader.connect(&honest).await;
    let reject = Reject { reason: Reason::Busy, requests: vec![want.first] };
    frames::write(&mut served.urgent.1, &Message::Reject(reject)).await.unwrap();
    first.await.unwrap().unwrap();
    let rest = async {
        for object in &objects[1..] {
            source.fetch(object.id(), Class::Fault).await.unwrap();
        }
    };
    // On a busy machine the one that delivers may be late, and a late object is asked of a second peer: four at first, and one
    // in twenty after that, is what the scheduler allows for that (`HEDGES`, `HEDGE_SHARE`), and no more.
    let mut asked = 0;
    tokio::pin!(rest);
    loop {
        tokio::select! {
            () = &mut rest => break,
            message = served.heard() => {
                let Message::Want(want) = message else { continue };
                asked += 1;
                let reject = Reject { reason: Reason::Busy, requests: vec![want.first] };
                frames::write(&mut served.urgent.1, &Message::Reject(reject)).await.unwrap();
            }
        }
    }
    assert!(asked <= 4, "it was asked for {asked} of {}", objects.len());
}

/// A node of another program, found on the local network, was asked like any other. Since no stream could be opened
/// with it, it counted as lost, and what nobody had was asked for again until the reader's patience was over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_not_asked_and_does_not_hide_that_nobody_has_an_object() {
    let (reader, empty) = (start(1).await, start(2).await);
    let mut stranger = Raw::start(3, None).await;
    stranger.unlearn();
    reader.net.connect(&stranger.address).await.unwrap();
    let source = reader.net.source();
    let wanted = noise(1, 10).id();
    let alone = source.fetch(wanted, Class::Fault).await.unwrap_err();
    assert!(matches!(&alone, FetchError::Unreachable { cause, .. } if cause.contains("no peer")), "{alone}");
    reader.connect(&empty).await;
    let error = source.fetch(wanted, Class::Fault).await.unwrap_err();
    assert!(matches!(error, FetchError::NotFound { .. }), "{error}");
    // A user has named it, so it stays connected.
    assert_eq!(stranger.closed(), 0);
}
