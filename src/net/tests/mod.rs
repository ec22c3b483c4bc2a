//! Real nodes on 127.0.0.1, and peers that speak the protocol by hand to break it.

mod crowd;
mod found;
mod hostile;
mod letters;
pub(crate) mod liar;
mod limits;
pub(super) mod links;
mod logs;
mod objects;
mod origins;
mod pace;
mod raw;
mod reach;
mod stalled;
mod trackers;

use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::fetch::Fetcher;
use crate::id::{Kind, ObjectId};
use crate::pack::{Checked, Compression};
use crate::store::{Keep, Store};

/// A node with a store of its own.
struct TestNode {
    net: Net,
    store: Store,
    chains: Registry,
    submissions: mpsc::Receiver<Submission>,
    dir: TempDir,
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes([seed; 32])
}

fn options(seed: u8, port: u16) -> Options {
    let listen = vec![format!("/ip4/127.0.0.1/tcp/{port}")];
    Options { mdns: false, max_peers: 16, ..Options::new(key(seed), listen) }
}

async fn start(seed: u8) -> TestNode {
    start_with(options(seed, 0)).await
}

async fn start_with(options: Options) -> TestNode {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), crate::store::Options { cache_max_bytes: 1 << 30 }).unwrap();
    let chains = Registry::default();
    let (sender, submissions) = mpsc::channel(4);
    let net = Net::start(options, store.clone(), chains.clone(), sender).await.unwrap();
    TestNode { net, store, chains, submissions, dir }
}

impl TestNode {
    fn address(&self) -> String {
        self.net.addresses()[0].clone()
    }

    async fn connect(&self, other: &TestNode) {
        assert_eq!(self.net.connect(&other.address()).await.unwrap(), other.net.peer_id());
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher::new(self.store.clone(), Some(self.net.source()))
    }

    fn publish(&self, objects: &[Checked]) {
        self.store.put(objects, Keep::Published).unwrap();
    }

    fn state_of(&self, peer: &str) -> Option<PeerState> {
        self.net.peers().into_iter().find(|info| info.id == peer).map(|info| info.state)
    }

    fn served_to(&self, other: &TestNode) -> u64 {
        let id = other.net.peer_id();
        self.net.peers().iter().filter(|info| info.id == id).map(|info| info.objects_served).sum()
    }
}

/// `len` bytes that do not compress and differ for each `seed`.
fn noise(seed: u64, len: usize) -> Checked {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    Checked::pack(Kind::Chunk, Bytes::from(bytes), Compression::None)
}

fn ids(objects: &[Checked]) -> Vec<ObjectId> {
    objects.iter().map(Checked::id).collect()
}

/// Waits for a condition that is about to come true.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
