//! What is negotiated, with whom, and who is refused.

use super::*;

use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::swarm::{Config, DialError, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, Swarm, tcp, tls, yamux};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::net::streams::{self, Route};

const ECHO: StreamProtocol = StreamProtocol::new("/echo/1");

type Bytes = Compat<tokio::io::DuplexStream>;

fn pair() -> (Bytes, Bytes) {
    let (here, there) = tokio::io::duplex(1 << 16);
    (here.compat(), there.compat())
}

fn suite(stream: &TlsStream<Bytes>) -> CipherSuite {
    stream.get_ref().1.negotiated_cipher_suite().unwrap().suite()
}

fn fastest() -> CipherSuite {
    match has_aes() {
        true => CipherSuite::TLS13_AES_128_GCM_SHA256,
        false => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    }
}

/// libp2p's own TLS takes ChaCha20 first.
#[tokio::test]
async fn both_sides_prove_who_they_are_and_take_the_fastest_cipher() {
    let keys = [(); 2].map(|()| Keypair::generate_ed25519());
    let ids = keys.each_ref().map(|key| key.public().to_peer_id());
    let [here, there] = keys.each_ref().map(|key| Secure::new(key).unwrap());
    let (dialler, listener) = pair();
    let (out, came) =
        tokio::join!(here.clone().upgrade_outbound(dialler, TLS), there.upgrade_inbound(listener, TLS));
    let ((peer_out, Either::Left(out)), (peer_came, Either::Left(came))) = (out.unwrap(), came.unwrap())
    else {
        panic!("TLS was asked for")
    };
    assert_eq!([peer_came, peer_out], ids);
    assert_eq!([suite(&out), suite(&came)], [fastest(); 2]);

    // And with a peer that has libp2p's.
    let theirs = tls::Config::new(&keys[1]).unwrap();
    let (dialler, listener) = pair();
    let (out, came) = tokio::join!(
        theirs.clone().upgrade_outbound(dialler, TLS),
        here.clone().upgrade_inbound(listener, TLS)
    );
    let (peer, Either::Left(came)) = came.unwrap() else { panic!("TLS was asked for") };
    assert_eq!((peer, out.unwrap().0, suite(&came)), (ids[1], ids[0], fastest()));
    let (dialler, listener) = pair();
    let (out, came) =
        tokio::join!(here.upgrade_outbound(dialler, TLS), theirs.upgrade_inbound(listener, TLS));
    let (peer, Either::Left(out)) = out.unwrap() else { panic!("TLS was asked for") };
    assert_eq!((peer, came.unwrap().0, suite(&out)), (ids[1], ids[0], fastest()));
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = futures_rustls::pki_types::PrivatePkcs8KeyDer::from(made.key_pair.serialize_der());
    let liar = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let (dialler, listener) = pair();
    let here = Secure::new(&Keypair::generate_ed25519()).unwrap();
    let (out, came) =
        tokio::join!(here.upgrade_outbound(dialler, TLS), TlsAcceptor::from(Arc::new(liar)).accept(listener));
    assert!(matches!(out.map(|(peer, _)| peer), Err(SecureError::Handshake(_))) && came.is_err());
}

/// A listening swarm, whose echo answers, and where it is.
async fn listening(
    transport: Boxed<(PeerId, StreamMuxerBox)>,
    keypair: &Keypair,
) -> (Swarm<streams::Behaviour>, Multiaddr) {
    let config =
        Config::with_tokio_executor().with_idle_connection_timeout(super::super::transport::CONNECTING);
    let peer = keypair.public().to_peer_id();
    let mut swarm = Swarm::new(transport, streams::Behaviour::new(64), peer, config);
    let mut incoming = swarm.behaviour().control().accept(ECHO);
    tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            let (reader, mut writer) = stream.split();
            futures::io::copy(reader, &mut writer).await.unwrap();
            writer.close().await.unwrap();
        }
    });
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return (swarm, address);
        }
    }
}

fn ours(keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    secured(tcp::tokio::Transport::default(), keypair).unwrap()
}

/// What nodes had before, and many others have.
fn noise_only(keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    tcp::tokio::Transport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair).unwrap())
        .multiplex(yamux::Config::default())
        .boxed()
}

#[tokio::test]
async fn a_peer_that_has_only_noise_connects() {
    for dials_noise in [false, true] {
        let keys = [(); 2].map(|()| Keypair::generate_ed25519());
        let transports = [ours(&keys[0]), noise_only(&keys[1])];
        let [ours, theirs] = transports;
        let (mut here, at_here) = listening(ours, &keys[0]).await;
        let (mut there, at_there) = listening(theirs, &keys[1]).await;
        match dials_noise {
            true => there.dial(at_here).unwrap(),
            false => here.dial(at_there).unwrap(),
        }
        let (control, peer) = (here.behaviour().control(), *there.local_peer_id());
        let echoed = async {
            while !here_is_connected(&mut here).await {}
            let driven = drive(&mut here);
            let echo = async {
                let mut stream = control.open(peer, ECHO, Route::Shared).await.unwrap();
                stream.write_all(b"over noise").await.unwrap();
                stream.close().await.unwrap();
                let mut back = Vec::new();
                stream.read_to_end(&mut back).await.unwrap();
                back
            };
            tokio::select! { never = driven => match never {}, back = echo => back }
        };
        let driven = drive(&mut there);
        let back = tokio::select! { never = driven => match never {}, back = echoed => back };
        assert_eq!(back, b"over noise");
    }
}

/// Lets a node do what is to be done, for as long as this is waited for.
async fn drive(swarm: &mut Swarm<streams::Behaviour>) -> std::convert::Infallible {
    loop {
        swarm.select_next_some().await;
    }
}

async fn here_is_connected(swarm: &mut Swarm<streams::Behaviour>) -> bool {
    matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. })
}

#[tokio::test]
async fn another_peer_than_the_one_dialled_is_refused() {
    let keys = [(); 2].map(|()| Keypair::generate_ed25519());
    let (mut here, _) = listening(ours(&keys[0]), &keys[0]).await;
    let (mut there, address) = listening(ours(&keys[1]), &keys[1]).await;
    here.dial(address.with_p2p(PeerId::random()).unwrap()).unwrap();
    let refused = async {
        loop {
            match here.select_next_some().await {
                SwarmEvent::OutgoingConnectionError { error, .. } => return error,
                SwarmEvent::ConnectionEstablished { .. } => panic!("it is another one"),
                _ => {}
            }
        }
    };
    let driven = drive(&mut there);
    let error = tokio::select! { never = driven => match never {}, error = refused => error };
    let DialError::WrongPeerId { obtained, .. } = error else { panic!("{error}") };
    assert_eq!(obtained, keys[1].public().to_peer_id());
}
