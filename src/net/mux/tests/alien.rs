//! Peers that break the protocol, or use it up.

use proptest::prelude::*;

use super::*;
use crate::net::mux::{MAX_STREAMS, WINDOW};

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_told_and_the_connection_ends() {
    let syn = data(1, Flags::SYN, 0);
    let window = |value| Header { kind: Kind::Window, flags: Flags::NONE, stream: 1, value };
    let pong = Header { kind: Kind::Ping, flags: Flags::ACK, stream: 0, value: 1 };
    type Broken = fn(&MuxError) -> bool;
    let cases: [(&str, &[Header], Broken); 10] = [
        ("too much at once", &[syn, data(1, Flags::NONE, WINDOW + 1)], |error| {
            matches!(error, MuxError::BeyondWindow { stream: 1, window: WINDOW, .. })
        }),
        ("too much with the first frame", &[data(1, Flags::SYN, WINDOW + 1)], |error| {
            matches!(error, MuxError::BeyondWindow { stream: 1, .. })
        }),
        ("4 GiB", &[data(1, Flags::SYN, u32::MAX)], |error| {
            matches!(error, MuxError::BeyondWindow { len: u32::MAX, .. })
        }),
        ("4 GiB for nobody", &[data(9, Flags::NONE, u32::MAX)], |error| {
            matches!(error, MuxError::BeyondWindow { len: u32::MAX, .. })
        }),
        ("too much credit", &[syn, window(u32::MAX)], |error| {
            matches!(error, MuxError::TooMuchCredit { stream: 1 })
        }),
        ("a stream of ours", &[data(2, Flags::SYN, 0)], |error| {
            matches!(error, MuxError::BadStream { stream: 2 })
        }),
        ("no stream", &[data(0, Flags::SYN, 0)], |error| matches!(error, MuxError::BadStream { stream: 0 })),
        ("a stream twice", &[syn, syn], |error| matches!(error, MuxError::BadStream { stream: 1 })),
        ("a pong", &[pong], |error| matches!(error, MuxError::BadPong)),
        ("data after the end", &[data(1, Flags::SYN | Flags::FIN, 0), data(1, Flags::NONE, 1)], |error| {
            matches!(error, MuxError::AfterEnd { stream: 1 })
        }),
    ];
    for (what, headers, is_right) in cases {
        let (mut muxer, mut peer) = raw(1 << 20);
        for header in headers {
            send(&mut peer, *header, &[]).await;
        }
        let error = end(&mut muxer).await;
        assert!(is_right(&error), "{what}: {error}");
        let (header, _) = receive(&mut peer).await;
        assert_eq!((header.kind, header.value), (Kind::GoAway, 1), "{what}");
    }
}

#[tokio::test]
async fn a_window_is_used_up_by_several_frames() {
    let (mut muxer, mut peer) = raw(1 << 20);
    send(&mut peer, data(1, Flags::SYN, 1000), &[0; 1000]).await;
    send(&mut peer, data(1, Flags::NONE, WINDOW - 1000), &vec![0; WINDOW as usize - 1000]).await;
    send(&mut peer, data(1, Flags::NONE, 0), &[]).await;
    send(&mut peer, data(1, Flags::NONE, 1), &[0]).await;
    let error = end(&mut muxer).await;
    assert!(matches!(error, MuxError::BeyondWindow { len: 1, window: 0, .. }), "{error}");
}

#[tokio::test]
async fn the_peer_may_go_away() {
    for (code, is_orderly) in [(0, true), (2, false)] {
        let (mut muxer, mut peer) = raw(1 << 20);
        send(&mut peer, data(1, Flags::SYN | Flags::FIN, 5), b"hello").await;
        send(&mut peer, Header { kind: Kind::GoAway, flags: Flags::NONE, stream: 0, value: code }, &[]).await;
        let mut stream = accept(&mut muxer).await;
        let error = end(&mut muxer).await;
        assert_eq!(matches!(error, MuxError::Closed), is_orderly);
        assert_eq!(matches!(error, MuxError::GoneAway(2)), !is_orderly);
        let mut came = Vec::new();
        within(stream.read_to_end(&mut came)).await.unwrap();
        assert_eq!(came, b"hello", "what was complete stays so");
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_off_is_broken() {
    for (bytes, is_orderly) in
        [(&[][..], true), (&[0, 0, 0], false), (&data(1, Flags::SYN, 9).encode(), false)]
    {
        let (mut muxer, mut peer) = raw(1 << 20);
        peer.write_all(bytes).await.unwrap();
        drop(peer);
        let error = end(&mut muxer).await;
        assert_eq!(matches!(error, MuxError::Closed), is_orderly, "{error}");
        assert_eq!(matches!(error, MuxError::Io(_)), !is_orderly, "{error}");
    }
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused_and_the_others_go_on() {
    let (mut muxer, mut peer) = raw(1 << 20);
    let ids: Vec<u32> = (0..MAX_STREAMS as u32 + 3).map(|at| 2 * at + 1).collect();
    for id in &ids {
        send(&mut peer, data(*id, Flags::SYN, 3), b"hey").await;
    }
    for id in &ids[MAX_STREAMS..] {
        assert_eq!(receive(&mut peer).await.0, data(*id, Flags::RST, 0));
    }
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        streams.push(accept(&mut muxer).await);
    }
    assert!(futures::poll!(poll_fn(|cx| Pin::new(&mut muxer).poll_inbound(cx))).is_pending());
    // One that goes makes room for another, and what comes for it is dropped.
    drop(streams.remove(0));
    assert_eq!(receive(&mut peer).await.0, data(1, Flags::ACK | Flags::RST, 0));
    send(&mut peer, data(1, Flags::NONE, 3), b"hey").await;
    send(&mut peer, data(9999, Flags::SYN, 3), b"you").await;
    let mut last = accept(&mut muxer).await;
    let mut came = [0; 3];
    within(last.read_exact(&mut came)).await.unwrap();
    assert_eq!(&came, b"you");
}

#[tokio::test]
async fn pings_are_answered_and_a_flood_of_them_fills_nothing() {
    let (muxer, mut peer) = raw(100);
    let ping = |value| Header { kind: Kind::Ping, flags: Flags::SYN, stream: 0, value };
    let (mut reader, mut writer) = (&mut peer).split();
    let mut written = 0;
    // Nothing is read, so that at some time nothing is taken any more.
    while let Some(true) =
        tokio::time::timeout(Duration::from_millis(200), send(&mut writer, ping(written), &[]))
            .await
            .ok()
            .map(|()| written < 100_000)
    {
        written += 1;
    }
    assert!(written < 2_000, "{written} pings were taken");
    assert!(muxer.shared.state().control.len() <= (8 << 10) + HEADER_LEN);
    for value in 0..written {
        let (header, _) = receive(&mut reader).await;
        assert_eq!((header.kind, header.flags, header.value), (Kind::Ping, Flags::ACK, value));
    }
}

#[tokio::test]
async fn a_flood_of_streams_that_are_refused_fills_nothing() {
    let (mut muxer, mut peer) = raw(100);
    let mut opened = 0_u32;
    loop {
        let sent = send(&mut peer, data(2 * opened + 1, Flags::SYN, 0), &[]);
        if tokio::time::timeout(Duration::from_millis(200), sent).await.is_err() {
            break;
        }
        opened += 1;
        // Those that are taken are dropped at once.
        while let std::task::Poll::Ready(stream) =
            futures::poll!(poll_fn(|cx| Pin::new(&mut muxer).poll_inbound(cx)))
        {
            drop(stream);
        }
        assert!(opened < 100_000);
    }
    assert!(muxer.shared.state().is_clogged());
    assert!(muxer.shared.state().held() < (UNSENT_AND_MORE), "{}", muxer.shared.state().held());
}

/// What may be held of frames that are to be sent: those that are taken, and answers.
const UNSENT_AND_MORE: usize = crate::net::mux::UNSENT + (32 << 10);

#[derive(Debug, Clone)]
enum Bit {
    Frame(u8, u16, u32, u32),
    Bytes(Vec<u8>),
}

fn bits() -> impl Strategy<Value = Vec<Bit>> {
    let frame = (0_u8..5, 0_u16..16, 0_u32..9, 0_u32..600).prop_map(|(k, f, s, v)| Bit::Frame(k, f, s, v));
    let bytes = proptest::collection::vec(any::<u8>(), 0..700).prop_map(Bit::Bytes);
    proptest::collection::vec(prop_oneof![4 => frame, 1 => bytes], 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever comes, the connection ends or goes on, and says why. Nothing panics, or it would end without a reason.
    #[test]
    fn junk_ends_a_connection_or_does_nothing(bits in bits(), takes: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut muxer, peer) = raw(1 << 20);
            let (mut reader, mut writer) = peer.split();
            for bit in &bits {
                let bytes = match bit {
                    Bit::Frame(kind, flags, stream, value) => {
                        let mut bytes = data(*stream, Flags(*flags), *value).encode();
                        bytes[1] = *kind;
                        bytes.to_vec()
                    }
                    Bit::Bytes(bytes) => bytes.clone(),
                };
                if writer.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let _ = writer.close().await;
            let mut streams = Vec::new();
            let error = within(poll_fn(|cx| {
                if takes && let Poll::Ready(stream) = Pin::new(&mut muxer).poll_inbound(cx) {
                    streams.push(stream.unwrap());
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Pin::new(&mut muxer).poll(cx)
            })).await.unwrap_err();
            for stream in &mut streams {
                // It ends, one way or the other.
                let _ = within(stream.read_to_end(&mut Vec::new())).await;
            }
            drop(streams);
            assert_eq!(muxer.shared.state().held(), 0, "{error}");
            drop(muxer);
            // What was said is whole frames.
            let mut said = Vec::new();
            let _ = within(reader.read_to_end(&mut said)).await;
        });
    }
}
