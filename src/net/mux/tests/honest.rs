//! Peers that keep to the protocol.

use futures::future::join_all;

use super::*;

/// Writes some bytes, reads what the other side writes, both at once, to the end.
async fn exchange(mut stream: Stream, seed: usize, len: usize, expected: Vec<u8>) {
    let sent = content(seed, len);
    let (mut reader, mut writer) = (&mut stream).split();
    let write = async {
        writer.write_all(&sent).await.unwrap();
        writer.close().await.unwrap();
    };
    let mut came = Vec::new();
    let read = async { reader.read_to_end(&mut came).await.unwrap() };
    within(futures::future::join(write, read)).await;
    assert!(came == expected, "stream {seed}: {} of {} bytes", came.len(), expected.len());
}

/// Lengths around those of frames, pieces and windows.
fn lengths(at: usize) -> usize {
    [1, 100, 511, 4096, 4097, 65_523, 65_524, 65_525, 131_072, 262_143, 262_144, 262_145, 700_001][at % 13]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_carry_all_their_bytes_both_ways_at_once() {
    const EACH: usize = 13;
    for (what, client, server) in couples() {
        let mut sides = [client, server];
        let mut work = Vec::new();
        for opener in [0, 1] {
            for at in 0..EACH {
                let mut stream = sides[opener].open().await;
                stream.write_all(&[at as u8]).await.unwrap();
                stream.flush().await.unwrap();
                let expected = content(at + 100, lengths(at + 5));
                work.push(tokio::spawn(exchange(stream, at, lengths(at), expected)));
            }
            for _ in 0..EACH {
                let mut stream = sides[1 - opener].accept().await;
                let mut at = [0];
                within(stream.read_exact(&mut at)).await.unwrap();
                let at = at[0] as usize;
                let expected = content(at, lengths(at));
                work.push(tokio::spawn(exchange(stream, at + 100, lengths(at + 5), expected)));
            }
        }
        for done in within(join_all(work)).await {
            done.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}

#[tokio::test]
async fn a_half_that_is_closed_leaves_the_other_open() {
    for (what, client, mut server) in couples() {
        let mut asking = client.open().await;
        asking.write_all(b"question").await.unwrap();
        asking.close().await.unwrap();
        assert!(asking.write_all(b"more").await.is_err(), "{what}");
        let mut answering = server.accept().await;
        let mut question = Vec::new();
        within(answering.read_to_end(&mut question)).await.unwrap();
        assert_eq!(question, b"question", "{what}");

        let answer = content(1, 1 << 20);
        let write = async {
            answering.write_all(&answer).await.unwrap();
            answering.close().await.unwrap();
        };
        let mut came = Vec::new();
        within(futures::future::join(write, asking.read_to_end(&mut came))).await.1.unwrap();
        assert!(came == answer, "{what}");
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_broken_off_after_what_was_written() {
    for (what, client, mut server) in couples() {
        let mut dropped = client.open().await;
        dropped.write_all(b"the last words").await.unwrap();
        dropped.flush().await.unwrap();
        let mut left = server.accept().await;
        drop(dropped);
        let mut came = Vec::new();
        let end = within(left.read_to_end(&mut came)).await;
        assert_eq!(came, b"the last words", "{what}");
        if what != "ours and theirs" {
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{what}");
        }
        assert!(within(left.write_all(b"to nobody")).await.is_err(), "{what}");
    }
}

/// As with those that do not wait for it.
#[tokio::test]
async fn who_has_finished_and_is_broken_off_has_an_end() {
    let (mut client, mut server) = ours(1 << 20);
    let mut asking = open(&mut client).await;
    asking.write_all(b"?").await.unwrap();
    let mut answering = accept(&mut server).await;
    answering.write_all(b"!").await.unwrap();
    drop(answering);
    asking.close().await.unwrap();
    let mut came = Vec::new();
    within(asking.read_to_end(&mut came)).await.unwrap();
    assert_eq!(came, b"!");
}

#[tokio::test]
async fn a_lost_connection_is_no_end_of_a_stream() {
    let (mut client, mut server) = ours(1 << 20);
    let mut finished = open(&mut client).await;
    let mut open_yet = open(&mut client).await;
    for stream in [&mut finished, &mut open_yet] {
        stream.write_all(b"?").await.unwrap();
        accept(&mut server).await.write_all(b"!").await.unwrap();
    }
    finished.close().await.unwrap();
    let mut lost = open(&mut client).await;
    lost.write_all(b"?").await.unwrap();
    lost.close().await.unwrap();
    drop(server);
    end(&mut client).await;
    let end = within(lost.read(&mut [0; 9])).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(open_yet.write_all(b"?").await.is_err() && open_yet.flush().await.is_err());
    assert!(within(poll_fn(|cx| Pin::new(&mut client).poll_outbound(cx))).await.is_err());
}

#[tokio::test]
async fn closing_a_connection_sends_what_was_written_and_says_goodbye() {
    let (mut muxer, mut peer) = raw(1 << 20);
    send(&mut peer, data(1, Flags::SYN, 1), b"?").await;
    let mut stream = accept(&mut muxer).await;
    stream.write_all(&[7; 100_000]).await.unwrap();
    within(poll_fn(|cx| Pin::new(&mut muxer).poll_close(cx))).await.unwrap();
    assert!(stream.write_all(b"more").await.is_err());
    assert_eq!(within(stream.read(&mut [0; 9])).await.unwrap(), 1, "what has come can be read");
    assert!(within(stream.read(&mut [0; 9])).await.is_err());

    let mut came = 0;
    loop {
        let (header, body) = receive(&mut peer).await;
        came += body.len();
        if header.kind == Kind::GoAway {
            break assert_eq!(header.value, 0);
        }
    }
    assert_eq!(came, 100_000);
    assert_eq!(within(peer.read(&mut [0; 9])).await.unwrap(), 0);
}

#[tokio::test]
async fn streams_that_are_not_opened_here_wait_for_their_turn() {
    let (mut client, _server) = ours(1 << 20);
    let mut streams = Vec::new();
    for _ in 0..crate::net::mux::MAX_OUTGOING {
        streams.push(open(&mut client).await);
    }
    let mut next = tokio::spawn(async move { open(&mut client).await.write_all(b"?").await });
    tokio::task::yield_now().await;
    assert!(futures::poll!(&mut next).is_pending());
    streams.pop();
    within(next).await.unwrap().unwrap();
}

/// A link that holds every byte back for a time.
fn slow(io: DuplexStream, latency: Duration) -> DuplexStream {
    let (end, inner) = tokio::io::duplex(64 << 10);
    let (read_io, write_io) = tokio::io::split(io);
    let (read_inner, write_inner) = tokio::io::split(inner);
    tokio::spawn(hold_back(read_io, write_inner, latency));
    tokio::spawn(hold_back(read_inner, write_io, latency));
    end
}

async fn hold_back(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin + Send + 'static,
    latency: Duration,
) {
    let (sender, mut held) = mpsc::unbounded_channel::<(tokio::time::Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((at, bytes)) = held.recv().await {
            tokio::time::sleep_until(at).await;
            if tokio::io::AsyncWriteExt::write_all(&mut to, &bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = tokio::io::AsyncReadExt::read(&mut from, &mut buffer).await {
        if sender.send((tokio::time::Instant::now() + latency, buffer[..len].to_vec())).is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_window_grows_with_a_long_way() {
    let (one, other) = tokio::io::duplex(64 << 10);
    let mut client = Config::default().muxer(slow(one, Duration::from_millis(10)).compat(), true);
    let mut server = Config::default().muxer(other.compat(), false);
    let mut writer = open(&mut client).await;
    let write = tokio::spawn(async move {
        let bytes = vec![1; 1 << 20];
        while writer.write_all(&bytes).await.is_ok() {}
    });
    let mut reader = accept(&mut server).await;
    let size = || server.shared.state().streams.values().map(|entry| entry.size).sum::<u32>();
    let mut buffer = vec![0; 64 << 10];
    let grow = async {
        while size() < 2 << 20 {
            assert!(reader.read(&mut buffer).await.unwrap() > 0);
        }
    };
    within(grow).await;
    drop(reader);
    assert_eq!(size(), 0);
    assert_eq!(server.shared.state().growth(), crate::net::mux::GROWTH, "it is given back");
    within(write).await.unwrap();
}
