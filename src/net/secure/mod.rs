//! Byte streams made secure and shared: TLS 1.3 or Noise, then Yamux.
//!
//! Owns: what is negotiated on a new connection, and the identity that comes of it.
//! Must not know: which transport carries the bytes.
//! Invariant: the peer id of a connection is proven: by the certificate's signature with the peer's key, or by Noise. AES-GCM comes first where the processor has it.
//! Trust: the other side is a stranger until then.
//! Threads: the swarm's tasks.

#[cfg(test)]
mod tests;

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
use futures_rustls::rustls::crypto::ring;
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
/// TLS and Noise read a few KiB at a time; this saves them most of their system calls. Each connection has one.
const READ_BUFFER: usize = 32 << 10;

/// Bytes that TLS has encrypted and not sent at most: one frame of data and a record. By default it is as long as a frame without its
/// headers, so that each frame would be followed by a record of a few bytes.
const WRITE_BUFFER: usize = 80 << 10;

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
        .multiplex(mux::Config::default())
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
    let mut provider = ring::default_provider();
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
            let mut stream = self.server.accept(stream).await?;
            let session = stream.get_mut().1;
            session.set_buffer_limit(Some(WRITE_BUFFER));
            Ok((peer_of(session)?, Either::Left(stream.into())))
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
            let mut stream = self.client.connect(nobody, stream).await?;
            let session = stream.get_mut().1;
            session.set_buffer_limit(Some(WRITE_BUFFER));
            Ok((peer_of(session)?, Either::Left(stream.into())))
        })
    }
}
