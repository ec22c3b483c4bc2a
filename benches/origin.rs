//! How fast a snapshot is read from an origin, beside plain copies of the same packs.
//!
//! Owns: a snapshot, its upload into a folder, and reading it from there, over S3 and over neither. Must not know: how
//! objects are found.
//! Invariant: the servers are in a process of their own; each way reads the same bytes, out of the page cache, and drops
//! them. Objects are verified; what is copied is not.
//! Trust: none needed. Threads: a runtime in each process, with a thread a core.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

#[path = "../tests/servers/mod.rs"]
mod servers;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use bcai::fetch::{ChunkSource, Class};
use bcai::id::{ObjectId, SnapshotId};
use bcai::ingest;
use bcai::origin::{Origin, OriginUrl, Upload};
use bcai::pack::file::Footer;
use bcai::store::{Options, Store};
use futures::stream::{self, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const MIB: usize = 1 << 20;
/// Files of the snapshot, and bytes of each.
const FILES: (u64, usize) = (64, 4 * MIB);
const RUNS: usize = 3;
/// Objects asked for at a time.
const CONCURRENT: usize = 64;
/// Where the child finds the folder.
const ROOT: &str = "BCAI_BENCH_ORIGIN";

fn main() {
    let Some(root) = std::env::var_os(ROOT) else { return serve() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(compare(Path::new(&root)));
}

/// Runs the server, and this program again with what it needs to get there.
fn serve() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("bucket")).unwrap();
    let endpoint = format!("http://{}", servers::s3(dir.path(), None));
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.env(ROOT, dir.path()).env("AWS_ENDPOINT", endpoint).env("AWS_ALLOW_HTTP", "true");
    child.env_remove("AWS_ACCESS_KEY_ID").env("AWS_REGION", "us-east-1");
    assert!(child.status().unwrap().success());
}

async fn compare(root: &Path) {
    let bucket = root.join("bucket");
    let folder: OriginUrl = format!("file://{}", bucket.display()).parse().unwrap();
    let bucket_url: OriginUrl = "s3://bucket".parse().unwrap();
    let snapshot = make(root, &bucket_url).await;
    let packs = packs(&bucket);
    let ids: Vec<ObjectId> = packs.iter().flat_map(|pack| objects(pack)).collect();
    // Without neighbours, no requests are merged.
    let mut shuffled = ids.clone();
    shuffled.sort_by_key(|id| *blake3::hash(&id.hash).as_bytes());
    let bytes: u64 = packs.iter().map(|pack| pack.metadata().unwrap().len()).sum();
    println!("{} objects, {} MiB in {} packs", ids.len(), bytes as usize / MIB, packs.len());
    for _ in 0..RUNS {
        let ways = [
            ("folder", &folder, &ids),
            ("folder, shuffled", &folder, &shuffled),
            ("S3", &bucket_url, &ids),
            ("S3, shuffled", &bucket_url, &shuffled),
        ];
        for (what, url, ids) in ways {
            let origin = Origin::open(url.clone()).unwrap();
            origin.attend(snapshot);
            let started = Instant::now();
            read(&origin, ids).await;
            show(what, bytes, started, &format!("{} requests", origin.traffic().requests));
        }
        let started = Instant::now();
        for pack in &packs {
            std::fs::copy(pack, root.join("copy")).unwrap();
        }
        show("cp of the packs", bytes, started, "");
        let started = Instant::now();
        let gets = packs.iter().map(|pack| get(pack));
        stream::iter(gets).buffer_unordered(3).for_each(|()| async {}).await;
        show("GET of the packs", bytes, started, &format!("{} requests", packs.len()));
    }
}

fn show(what: &str, bytes: u64, started: Instant, note: &str) {
    let seconds = started.elapsed().as_secs_f64();
    println!("{what:18} {:7.0} MiB/s  {note}", bytes as f64 / MIB as f64 / seconds);
}

/// Makes a snapshot of noise, and uploads it. Over S3: this server keeps the hash of a whole file that was put so, and
/// works it out for every answer about another.
async fn make(root: &Path, bucket: &OriginUrl) -> SnapshotId {
    let source = root.join("source");
    std::fs::create_dir(&source).unwrap();
    for file in 0..FILES.0 {
        let mut bytes = vec![0; FILES.1];
        blake3::Hasher::new_keyed(&[file as u8; 32]).finalize_xof().fill(&mut bytes);
        std::fs::write(source.join(format!("{file:04}")), bytes).unwrap();
    }
    let store = Store::open(&root.join("store"), Options { cache_max_bytes: 1 << 20 }).unwrap();
    let options = ingest::Options {
        chunking: "cdc:64K".parse().unwrap(),
        compression: bcai::pack::Compression::Lz4,
        skip_special: false,
        in_place: false,
        paranoid: false,
        keys: None,
    };
    let snapshot =
        ingest::snapshot(&source, &store, &options, &ingest::Progress::default()).unwrap().snapshot;
    let started = Instant::now();
    let upload = Upload::new(bucket.clone(), store, snapshot, Vec::new(), CancellationToken::new()).unwrap();
    let done = upload.run().await.unwrap();
    show("upload to S3", done.sent_bytes, started, "");
    snapshot
}

/// The packs in the order in which they were made.
fn packs(bucket: &Path) -> Vec<PathBuf> {
    let mut packs: Vec<_> =
        std::fs::read_dir(bucket.join("packs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    packs.sort_by_key(|pack| pack.metadata().unwrap().modified().unwrap());
    packs
}

/// What is in a pack, in the order of its records.
fn objects(pack: &Path) -> Vec<ObjectId> {
    let bytes = std::fs::read(pack).unwrap();
    let footer = Footer::decode(&bytes, bytes.len() as u64).unwrap();
    let start = footer.start() as usize;
    let mut entries = footer.decode_entries(&bytes[start..start + footer.entries_len()]).unwrap();
    entries.sort_by_key(|entry| entry.offset);
    entries.iter().map(|entry| entry.header.id).collect()
}

async fn read(origin: &Arc<Origin>, ids: &[ObjectId]) {
    let fetches = ids.iter().map(|id| {
        let (origin, id) = (origin.clone(), *id);
        async move { origin.fetch(id, Class::Prefetch).await.unwrap() }
    });
    stream::iter(fetches).buffered(CONCURRENT).for_each(|_| async {}).await;
}

/// Gets a pack from the server as it is.
async fn get(pack: &Path) {
    let endpoint = std::env::var("AWS_ENDPOINT").unwrap();
    let host = endpoint.trim_start_matches("http://");
    let socket = TokioIo::new(TcpStream::connect(host).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let path = format!("/bucket/packs/{}", pack.file_name().unwrap().to_str().unwrap());
    let request = Request::get(path).header("host", host).body(Empty::<Bytes>::new()).unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
}
