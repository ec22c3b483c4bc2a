//! Byte streams made secure and shared: TLS 1.3 or Noise, then Yamux.
//!
//! Owns: what is negotiated on a new connection, and the identity that comes of it.
//! Must not know: which transport carries the bytes.
//! Invariant: the peer id of a connection is proven: by the certificate's signature with the peer's key, or by Noise. AES-GCM comes first where the processor has it.
//! Trust: the other side is a stranger until then.
//! Threads: the swarm's tasks.

use std::io;
use std::sync::Arc;

use futures::future::{BoxFuture, Either};
use futures::io::{AsyncRead, AsyncWrite, BufReader};
use futures_rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName, UnixTime};
use futures_rustls::rustls::client::Resumption;
use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::crypto::CryptoProvider;
use futures_rustls::rustls::crypto::aws_lc_rs;
use futures_rustls::rustls::server::NoServerSessionStorage;
use futures_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use futures_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use futures_rustls::rustls::version::TLS13;
use futures_rustls::rustls::{
    self, CipherSuite, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, Transport};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo, Version};
use libp2p::identity::Keypair;
use libp2p::tls::certificate;
use libp2p::{PeerId, noise};

use super::mux;

/// What libp2p calls TLS 1.3 with its own certificates, and the protocol within.
const TLS: &str = "/tls/1.0.0";
const NOISE: &str = "/noise";
const ALPN: &[u8] = b"libp2p";
/// TLS and Noise read a few KiB at a time; this saves them most of their system calls.
const READ_BUFFER: usize = 64 << 10;

/// Why this node's side of TLS or Noise could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    #[error("the certificate of this node could not be made: {0}")]
    Certificate(#[from] certificate::GenError),
    #[error("TLS could not be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("Noise could not be set up: {0}")]
    Noise(#[from] noise::Error),
}

/// Why a connection was not made secure.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecureError {
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] io::Error),
    #[error("the peer's certificate proves no peer id: {0}")]
    Certificate(#[from] certificate::ParseError),
    #[error("the peer showed no certificate")]
    Anonymous,
    #[error("the Noise handshake failed: {0}")]
    Noise(#[from] noise::Error),
}

/// Connections of `transport`, secure and shared by streams, as the node whose key is `keypair`.
pub(super) fn secured<T, C>(
    transport: T,
    keypair: &Keypair,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, SetupError>
where
    T: Transport<Output = C> + Send + Unpin + 'static,
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
    T::Error: Send + Sync + 'static,
{
    Ok(transport
        .map(|stream, _| BufReader::with_capacity(READ_BUFFER, stream))
        .upgrade(Version::V1Lazy)
        .authenticate(Secure::new(keypair)?)
        .multiplex(mux::Config)
        .timeout(super::transport::CONNECTING)
        .boxed())
}

/// TLS, or Noise with those who have nothing else.
#[derive(Clone)]
struct Secure {
    client: TlsConnector,
    server: TlsAcceptor,
    noise: noise::Config,
}

impl Secure {
    fn new(keypair: &Keypair) -> Result<Secure, SetupError> {
        let provider = Arc::new(provider());
        let (certificate, key) = certificate::generate(keypair)?;
        let key = provider.key_provider.load_private_key(key)?;
        let identity = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key)));
        let verifier = Arc::new(Verifier);

        let client = ClientConfig::builder_with_provider(provider.clone());
        let mut client = client
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(identity.clone());
        client.alpn_protocols = vec![ALPN.to_vec()];
        // All peers go by the same name here, and what is resumed shows no certificate.
        client.resumption = Resumption::disabled();

        let server = ServerConfig::builder_with_provider(provider);
        let mut server = server
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(identity);
        server.alpn_protocols = vec![ALPN.to_vec()];
        // libp2p's own order begins with ChaCha20.
        server.ignore_client_order = true;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Secure {
            client: Arc::new(client).into(),
            server: Arc::new(server).into(),
            noise: noise::Config::new(keypair)?,
        })
    }
}

/// With the ciphers in the order of their speed here.
fn provider() -> CryptoProvider {
    use CipherSuite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    let mut order = [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    if !has_aes() {
        order.rotate_right(1);
    }
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| order.contains(&suite.suite()));
    provider.cipher_suites.sort_by_key(|suite| order.iter().position(|known| *known == suite.suite()));
    provider
}

/// Whether AES is faster here than what needs no instructions of its own.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// Accepts whoever proves a peer id; which one it is, the swarm compares with the one it has dialled.
#[derive(Debug)]
struct Verifier;

fn prove(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
    if !others.is_empty() {
        return Err(rustls::Error::General("one certificate is expected".to_owned()));
    }
    certificate::parse(certificate)?;
    Ok(())
}

fn verify(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    certificate::parse(certificate)?.verify_signature(signed.scheme, message, signed.signature())?;
    Ok(HandshakeSignatureValid::assertion())
}

/// What libp2p's certificates may be signed with.
fn schemes() -> Vec<SignatureScheme> {
    vec![
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ED25519,
        SignatureScheme::RSA_PSS_SHA512,
        SignatureScheme::RSA_PSS_SHA384,
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::RSA_PKCS1_SHA512,
        SignatureScheme::RSA_PKCS1_SHA384,
        SignatureScheme::RSA_PKCS1_SHA256,
    ]
}

/// Only TLS 1.3 is offered.
fn too_old() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        prove(certificate, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        prove(certificate, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// Who the other side is.
fn peer_of(session: &CommonState) -> Result<PeerId, SecureError> {
    match session.peer_certificates() {
        Some([certificate, ..]) => Ok(certificate::parse(certificate)?.peer_id()),
        _ => Err(SecureError::Anonymous),
    }
}

type Secured<C> = Either<TlsStream<C>, noise::Output<C>>;

impl UpgradeInfo for Secure {
    type Info = &'static str;
    type InfoIter = std::array::IntoIter<&'static str, 2>;

    fn protocol_info(&self) -> Self::InfoIter {
        [TLS, NOISE].into_iter()
    }
}

impl<C> InboundConnectionUpgrade<C> for Secure
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = SecureError;
    type Future = BoxFuture<'static, Result<Self::Output, SecureError>>;

    fn upgrade_inbound(self, stream: C, protocol: &'static str) -> Self::Future {
        Box::pin(async move {
            if protocol == NOISE {
                let (peer, stream) = self.noise.upgrade_inbound(stream, protocol).await?;
                return Ok((peer, Either::Right(stream)));
            }
            let stream = self.server.accept(stream).await?;
            Ok((peer_of(stream.get_ref().1)?, Either::Left(stream.into())))
        })
    }
}

impl<C> OutboundConnectionUpgrade<C> for Secure
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = SecureError;
    type Future = BoxFuture<'static, Result<Self::Output, SecureError>>;

    fn upgrade_outbound(self, stream: C, protocol: &'static str) -> Self::Future {
        Box::pin(async move {
            if protocol == NOISE {
                let (peer, stream) = self.noise.upgrade_outbound(stream, protocol).await?;
                return Ok((peer, Either::Right(stream)));
            }
            // With an address for a name, no name is sent; libp2p's TLS asks for that.
            let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
            let stream = self.client.connect(nobody, stream).await?;
            Ok((peer_of(stream.get_ref().1)?, Either::Left(stream.into())))
        })
    }
}

#[cfg(test)]
mod tests {
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
        let (out, came) = tokio::join!(
            here.upgrade_outbound(dialler, TLS),
            TlsAcceptor::from(Arc::new(liar)).accept(listener)
        );
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
                let driven = async {
                    loop {
                        here.select_next_some().await;
                    }
                };
                let echo = async {
                    let mut stream = control.open(peer, ECHO, Route::Shared).await.unwrap();
                    stream.write_all(b"over noise").await.unwrap();
                    stream.close().await.unwrap();
                    let mut back = Vec::new();
                    stream.read_to_end(&mut back).await.unwrap();
                    back
                };
                tokio::select! { () = driven => unreachable!(), back = echo => back }
            };
            let driven = async {
                loop {
                    there.select_next_some().await;
                }
            };
            let back = tokio::select! { () = driven => unreachable!(), back = echoed => back };
            assert_eq!(back, b"over noise");
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
        let driven = async {
            loop {
                there.select_next_some().await;
            }
        };
        let error = tokio::select! { () = driven => unreachable!(), error = refused => error };
        let DialError::WrongPeerId { obtained, .. } = error else { panic!("{error}") };
        assert_eq!(obtained, keys[1].public().to_peer_id());
    }
}
