//! How fast objects go from one node to another over loopback, beside one TCP connection with TLS.
//!
//! Owns: both sides of both. Must not know: how objects travel.
//! Invariant: both encrypt alike; sender and receiver are processes of their own, so that processor time can be told apart; either way as many bytes go over, and
//! what was received is dropped. Objects are verified; the bytes of the reference are not.
//! Trust: none needed. Threads: a runtime in each process, with a thread a core.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use bcai::chain::Registry;
use bcai::crypto::SecretKey;
use bcai::fetch::Class;
use bcai::id::{Kind, ObjectId};
use bcai::net::{Net, Options};
use bcai::pack::{Checked, Compression};
use bcai::store::{Keep, Store};
use data_encoding::HEXLOWER;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use futures::stream::{self, StreamExt};
use futures_rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use futures_rustls::rustls::crypto::{CryptoProvider, ring};
use futures_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use futures_rustls::{TlsAcceptor, TlsConnector};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::TokioAsyncReadCompatExt;

/// Bytes of one run.
const TOTAL: usize = 512 << 20;
const RUNS: usize = 3;
/// Objects asked for at a time.
const CONCURRENT: usize = 64;
const MIB: usize = 1 << 20;
/// Where the child finds which side it is.
const ROLE: &str = "BCAI_BENCH_PAIR";

fn main() {
    cipher().install_default().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match std::env::var(ROLE).as_deref() {
        Ok("tls") => runtime.block_on(serve_tls()),
        Ok(len) => runtime.block_on(serve_objects(len.parse().unwrap())),
        Err(_) => runtime.block_on(compare()),
    }
}

/// What nodes use where the processor has AES, so that both sides of the comparison encrypt alike.
fn cipher() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider
}

/// Rates and processor times of both, in turn.
async fn compare() {
    for len in [MIB, 64 << 10] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            ours.push(objects(len).await);
            theirs.push(tls().await);
        }
        for (what, figures) in
            [(format!("objects of {} KiB", len >> 10), &mut ours), ("TLS".into(), &mut theirs)]
        {
            figures.sort_by(|a, b| a.rate.total_cmp(&b.rate));
            let Figure { rate, sender, receiver } = figures[RUNS / 2];
            println!(
                "{what}: {rate:.2} GiB/s, {sender:.2} s/GiB of the sender, {receiver:.2} s/GiB of the receiver"
            );
        }
        println!("ratio {:.2}", ours[RUNS / 2].rate / theirs[RUNS / 2].rate);
    }
}

/// GiB a second, and seconds of processor time for a GiB on each side.
struct Figure {
    rate: f64,
    sender: f64,
    receiver: f64,
}

/// The sending side: a process that says where it listens, and, once told to end, how much processor time it took since.
struct Sender {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    address: String,
}

impl Sender {
    fn start(role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let address = line(&mut output);
        Self { child, output, address }
    }

    fn end(mut self) -> f64 {
        drop(self.child.stdin.take());
        let seconds = line(&mut self.output).parse().unwrap();
        self.child.wait().unwrap();
        seconds
    }
}

fn line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// What a sender does: says where it listens, waits for the end of its input, and says how long it computed.
async fn tell(address: String) {
    let before = processor_seconds();
    println!("{address}");
    std::io::stdout().flush().unwrap();
    let end = || std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    tokio::task::spawn_blocking(end).await.unwrap().unwrap();
    println!("{}", processor_seconds() - before);
}

/// Of this process, by `/proc/self/stat`; in ticks of 10 ms.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

async fn measured(sender: Sender, work: impl Future<Output = usize>) -> Figure {
    let (before, begun) = (processor_seconds(), Instant::now());
    let bytes = work.await;
    let (seconds, receiver) = (begun.elapsed().as_secs_f64(), processor_seconds() - before);
    assert_eq!(bytes, TOTAL);
    let gib = TOTAL as f64 / (1 << 30) as f64;
    Figure { rate: gib / seconds, sender: sender.end() / gib, receiver: receiver / gib }
}

fn object(seed: usize, len: usize) -> Checked {
    Checked::pack(Kind::Chunk, common::noise(seed as u64, len).into(), Compression::None)
}

async fn node(seed: u8) -> (Net, Store, tempfile::TempDir) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Store::open(dir.path(), bcai::store::Options { cache_max_bytes: 1 << 30 }).unwrap();
    let key = SecretKey::from_bytes([seed; 32]);
    let options =
        Options { mdns: false, max_peers: 8, ..Options::new(key, vec!["/ip4/127.0.0.1/tcp/0".into()]) };
    let (submissions, _) = tokio::sync::mpsc::channel(1);
    let net = Net::start(options, store.clone(), Registry::default(), submissions).await.unwrap();
    (net, store, dir)
}

async fn serve_objects(len: usize) {
    let (net, store, _dir) = node(1).await;
    for first in (0..TOTAL / len).step_by(64) {
        let objects: Vec<_> = (first..first + 64).map(|seed| object(seed, len)).collect();
        store.put(&objects, Keep::Published).unwrap();
    }
    store.commit().unwrap();
    tell(net.addresses()[0].clone()).await;
    net.shutdown().await;
}

async fn objects(len: usize) -> Figure {
    let ids: Vec<ObjectId> = (0..TOTAL / len).map(|seed| object(seed, len).id()).collect();
    let sender = Sender::start(&len.to_string());
    let (net, _store, _dir) = node(2).await;
    net.connect(&sender.address).await.unwrap();
    let source = net.source();
    let figure = measured(sender, async {
        let fetches = ids.iter().map(|id| source.fetch(*id, Class::Prefetch));
        let lengths =
            stream::iter(fetches).buffer_unordered(CONCURRENT).map(|object| object.unwrap().plain().len());
        lengths.fold(0, async |sum, len| sum + len).await
    })
    .await;
    net.shutdown().await;
    figure
}

/// Sends [`TOTAL`] bytes over one connection; its address is followed by its certificate.
async fn serve_tls() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.key_pair.serialize_der()).into();
    let certificate = made.cert.der().clone();
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.clone()], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bytes = common::noise(0, MIB);
    let send = async {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut stream = acceptor.accept(stream.compat()).await.unwrap();
        for _ in 0..TOTAL / MIB {
            stream.write_all(&bytes).await.unwrap();
        }
        stream.close().await.unwrap();
    };
    tokio::join!(send, tell(format!("{address} {}", HEXLOWER.encode(&certificate))));
}

async fn tls() -> Figure {
    let sender = Sender::start("tls");
    let (address, certificate) = sender.address.split_once(' ').unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(HEXLOWER.decode(certificate.as_bytes()).unwrap())).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream.compat()).await.unwrap();
    measured(sender, async move {
        let (mut buffer, mut sum) = (vec![0; MIB], 0);
        loop {
            match stream.read(&mut buffer).await.unwrap() {
                0 => return sum,
                read => sum += read,
            }
        }
    })
    .await
}
