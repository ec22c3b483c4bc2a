//! Who waits for whom, and what is held meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::net::mux::{FRAME, MAX_STREAMS, UNSENT, WINDOW};

/// Sends a byte on each of so many new streams, so that the peer knows them.
async fn opened(client: &mut Muxer, server: &mut Muxer, count: usize) -> Vec<(Substream, Substream)> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = open(client).await;
        stream.write_all(b"?").await.unwrap();
        let mut other = accept(server).await;
        within(other.read_exact(&mut [0])).await.unwrap();
        streams.push((stream, other));
    }
    streams
}

/// Writes without end, and counts what was taken.
fn flood(mut stream: Substream, taken: Arc<AtomicUsize>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let bytes = vec![7; 100_000];
        while let Ok(len) = stream.write(&bytes).await {
            taken.fetch_add(len, Ordering::SeqCst);
        }
    })
}

fn counters(count: usize) -> Vec<Arc<AtomicUsize>> {
    (0..count).map(|_| Arc::default()).collect()
}

fn sum(taken: &[Arc<AtomicUsize>]) -> usize {
    taken.iter().map(|taken| taken.load(Ordering::SeqCst)).sum()
}

/// Lets everything come to rest that can.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_more_is_taken_than_the_bound_if_nothing_leaves() {
    // As much as the pipe holds is not with the connection any more.
    const PIPE: usize = 1000;
    let (mut muxer, mut peer) = raw(PIPE);
    let mut streams = Vec::new();
    for id in 0..40 {
        send(&mut peer, data(2 * id + 1, Flags::SYN, 0), &[]).await;
        streams.push(accept(&mut muxer).await);
    }
    let taken = counters(streams.len());
    let floods: Vec<_> =
        streams.into_iter().zip(&taken).map(|(stream, taken)| flood(stream, taken.clone())).collect();
    settle().await;
    assert!(sum(&taken) <= UNSENT + PIPE, "{} bytes were taken", sum(&taken));
    assert!(sum(&taken) > UNSENT / 2);
    assert!(muxer.shared.state().held() <= UNSENT);
    assert_eq!(muxer.shared.state().turns.len(), 40, "all of them wait");
    // Whoever gives up while it waits leaves no trace.
    for flood in floods {
        flood.abort();
        let _ = flood.await;
    }
    assert_eq!(muxer.shared.state().turns.len(), 0);
    assert_eq!(muxer.shared.state().streams.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_write_without_end_get_equal_shares() {
    share_alike(8).await;
}

#[tokio::test]
async fn on_one_thread_too() {
    share_alike(3).await;
}

async fn share_alike(count: usize) {
    let (mut client, mut server) = ours(10_000);
    let streams = opened(&mut client, &mut server, count).await;
    let (read, taken) = (counters(count), counters(count));
    let mut tasks = Vec::new();
    for ((stream, mut other), (taken, read)) in streams.into_iter().zip(taken.iter().zip(&read)) {
        tasks.push(flood(stream, taken.clone()));
        let read = read.clone();
        tasks.push(tokio::spawn(async move {
            let mut buffer = vec![0; 50_000];
            while let Ok(len @ 1..) = other.read(&mut buffer).await {
                read.fetch_add(len, Ordering::SeqCst);
            }
        }));
    }
    until("bytes are read", || sum(&read) > count * (8 << 20)).await;
    let shares: Vec<usize> = read.iter().map(|read| read.load(Ordering::SeqCst)).collect();
    let fair = shares.iter().sum::<usize>() / count;
    assert!(shares.iter().all(|share| *share > fair / 2), "{shares:?}");
    tasks.iter().for_each(|task| task.abort());
}

/// A small message goes after one frame of each of the others at most, and what is already taken.
#[tokio::test]
async fn a_stream_that_writes_seldom_comes_first() {
    let (mut client, mut server) = ours(10_000);
    let mut streams = opened(&mut client, &mut server, 6).await;
    let (mut seldom, mut reads) = streams.pop().unwrap();
    let (read, taken) = (counters(5), counters(5));
    for ((stream, mut other), (taken, read)) in streams.into_iter().zip(taken.iter().zip(&read)) {
        flood(stream, taken.clone());
        let read = read.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 50_000];
            while let Ok(len @ 1..) = other.read(&mut buffer).await {
                read.fetch_add(len, Ordering::SeqCst);
            }
        });
    }
    for _ in 0..20 {
        let goal = sum(&read) + (1 << 20);
        until("the others are under way", || sum(&read) > goal).await;
        let before = sum(&taken);
        within(seldom.write_all(b"!")).await.unwrap();
        assert!(sum(&taken) - before <= 3 * FRAME, "{} bytes of others came first", sum(&taken) - before);
        within(reads.read_exact(&mut [0])).await.unwrap();
    }
}

/// A write that is waited for no more keeps nobody from writing.
#[tokio::test]
async fn who_waits_for_its_turn_and_goes_away_holds_nobody_up() {
    let (mut muxer, mut peer) = raw(1000);
    let mut streams = Vec::new();
    for id in 0..12 {
        send(&mut peer, data(2 * id + 1, Flags::SYN, 0), &[]).await;
        streams.push(accept(&mut muxer).await);
    }
    let first = flood(streams.remove(0), Arc::default());
    settle().await;
    // All of them wait, and none but the last is ever polled again, though all are there yet.
    for stream in &mut streams {
        assert!(futures::poll!(stream.write(&[1; 1000])).is_pending());
    }
    assert_eq!(muxer.shared.state().turns.len(), 12);
    first.abort();
    let _ = first.await;
    let last = streams.last_mut().unwrap();
    let mut write = std::pin::pin!(last.write_all(&[2; 100_000]));
    assert!(futures::poll!(&mut write).is_pending());
    let mut came = 0;
    let read = async {
        while came < 100_000 {
            let (header, body) = receive(&mut peer).await;
            came += if header.stream == 23 { body.len() } else { 0 };
        }
    };
    within(futures::future::join(write, read)).await.0.unwrap();
    drop(streams);
    assert_eq!(muxer.shared.state().turns.len(), 0);
}

#[tokio::test]
async fn a_stream_that_is_broken_off_or_closed_while_it_waits_waits_no_more() {
    let (mut muxer, mut peer) = raw(1000);
    let mut streams = Vec::new();
    for id in 0..4 {
        send(&mut peer, data(2 * id + 1, Flags::SYN, 0), &[]).await;
        streams.push(accept(&mut muxer).await);
    }
    flood(streams.pop().unwrap(), Arc::default());
    settle().await;
    for stream in &mut streams {
        assert!(futures::poll!(stream.write(&[1; 1000])).is_pending());
    }
    assert_eq!(muxer.shared.state().turns.len(), 4);
    streams[0].close().await.unwrap();
    drop(streams.remove(1));
    assert_eq!(muxer.shared.state().turns.len(), 2);
    send(&mut peer, data(5, Flags::RST, 0), &[]).await;
    until("it has come", || muxer.shared.state().turns.len() == 1).await;
    let error = within(streams[1].write(&[1; 1000])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_is_not_read_stays_within_the_windows() {
    let (mut client, mut server) = ours(1 << 20);
    let (ours, theirs) = (40, 40);
    let mut streams = opened(&mut client, &mut server, ours).await;
    streams.extend(
        opened(&mut server, &mut client, theirs).await.into_iter().map(|(stream, other)| (other, stream)),
    );
    assert!(streams.len() <= MAX_STREAMS);
    let taken = counters(streams.len());
    let mut unread = Vec::new();
    for ((stream, other), taken) in streams.into_iter().zip(&taken) {
        flood(stream, taken.clone());
        unread.push(other);
    }
    // The byte that opened a stream the other way was written by its other side.
    let first = WINDOW as usize * (ours + theirs) - ours;
    until("the windows are full", || sum(&taken) == first).await;
    let held = || -> usize { server.shared.state().streams.values().map(|entry| entry.unread()).sum() };
    until("all has come", || held() == first).await;
    settle().await;
    assert_eq!((sum(&taken), held()), (first, first));
    assert_eq!(server.shared.state().pieces_of_streams() / (64 << 10), unread.len() * 4);
}

#[tokio::test]
async fn a_connection_with_nothing_to_do_holds_nothing() {
    let (mut client, mut server) = ours(1 << 20);
    let mut streams = opened(&mut client, &mut server, 3).await;
    for (stream, other) in &mut streams {
        let write = async { stream.write_all(&vec![1; 1 << 20]).await.unwrap() };
        within(futures::future::join(write, other.read_exact(&mut vec![0; 1 << 20]))).await.1.unwrap();
    }
    settle().await;
    for muxer in [&client, &server] {
        let state = muxer.shared.state();
        assert_eq!((state.held(), state.pieces_of_streams()), (0, 0));
    }
}

/// One task that is woken by nobody would be a connection at a standstill.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_that_come_and_go_never_stand_still() {
    let (mut client, mut server) = ours(3000);
    let mut tasks = Vec::new();
    for at in 0..200_usize {
        let mut stream = open(&mut client).await;
        stream.write_all(b"?").await.unwrap();
        let mut other = accept(&mut server).await;
        tasks.push(tokio::spawn(async move {
            let bytes = content(at, 1 + at * 1013 % 300_000);
            for part in bytes.chunks(1 + at * 31 % 70_000) {
                // Some are given up and tried again, which is right as long as nothing was taken.
                let mut left = part;
                while !left.is_empty() {
                    let write =
                        tokio::time::timeout(Duration::from_micros(at as u64 % 300), stream.write(left));
                    if let Ok(written) = write.await {
                        left = &left[written.unwrap()..];
                    }
                }
            }
            if at % 3 > 0 {
                stream.close().await.unwrap();
            }
        }));
        tasks.push(tokio::spawn(async move {
            let mut came = Vec::new();
            let end = other.read_to_end(&mut came).await;
            assert_eq!(end.is_ok(), at % 3 > 0, "{at}");
            assert!(came[1..] == content(at, 1 + at * 1013 % 300_000), "{at}");
        }));
    }
    for task in tasks {
        within(task).await.unwrap();
    }
}
