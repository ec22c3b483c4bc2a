//! Many peers in one process, all connected to one node, which ask it and are asked by it.
//!
//! Owns: the hidden command `crowd`.
//! Must not know: what the node's memory does meanwhile.
//! Invariant: it ends when its input does. Each peer has a connection of its own and `each` requests open, always; what
//! comes is verified, counted and dropped, so that no disk is measured. All serve one store, which holds one snapshot.
//! Trust: as `swarm`. Threads: a runtime of two threads.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use bcai::chain::Registry;
use bcai::crypto::SecretKey;
use bcai::fetch::{Class, Fetcher};
use bcai::id::{ObjectId, SnapshotId};
use bcai::net::{Net, Options};
use bcai::store::Store;
use bcai::view::{self, Cache, Contents, Globs, View};
use clap::Args;
use futures::future::try_join_all;
use futures::stream::{self, StreamExt};

/// More than what it holds.
const CACHE: u64 = 8 << 30;

/// Many peers of one node, for measurements
#[derive(Debug, Args)]
#[command(hide = true)]
pub struct Crowd {
    /// The node that all are connected to
    #[arg(long)]
    node: String,
    /// Where what they serve is fetched from
    #[arg(long)]
    source: String,
    /// The snapshot that they serve
    #[arg(long)]
    serve: SnapshotId,
    /// The snapshot that they ask the node for
    #[arg(long)]
    want: SnapshotId,
    #[arg(long)]
    peers: u8,
    /// Requests that each has open
    #[arg(long)]
    each: usize,
    /// An empty folder for their store
    #[arg(long)]
    dir: PathBuf,
}

impl Crowd {
    pub fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(self.work())?;
        // A thread that reads the standard input cannot be told to stop.
        runtime.shutdown_background();
        Ok(())
    }

    async fn work(self) -> anyhow::Result<()> {
        let store = Store::open(&self.dir, bcai::store::Options { cache_max_bytes: CACHE })?;
        let nets = try_join_all((0..self.peers).map(|number| peer(number, &store))).await?;
        let first = nets.first().context("a crowd of nobody")?;
        first.connect(&self.source).await?;
        let fetcher = Fetcher::new(store.clone(), Some(first.source()));
        for id in objects(&fetcher, self.serve).await? {
            fetcher.get(id, Class::Prefetch).await?;
        }
        fetcher.flush().await;
        // One after the other: a node refuses many that have not shaken hands yet.
        for net in &nets {
            net.connect(&self.node).await?;
        }
        let wanted = objects(&fetcher, self.want).await?;
        ensure!(!wanted.is_empty(), "nothing to ask for");
        println!("{}", serde_json::json!({ "peers": nets.len(), "objects": wanted.len() }));

        let (wanted, got) = (Arc::new(wanted), Arc::new(AtomicU64::new(0)));
        for (number, net) in nets.iter().enumerate() {
            let (source, wanted, got) = (net.source(), wanted.clone(), got.clone());
            let each = self.each;
            tokio::spawn(async move {
                // Each begins elsewhere, and nobody ever ends.
                let order = (0..).map(|at| wanted[(at + number * wanted.len() / 64) % wanted.len()]);
                let fetches = order.map(|id| source.fetch(id, Class::Prefetch));
                let count = async |fetched: Result<_, _>| {
                    got.fetch_add(u64::from(fetched.is_ok()), Ordering::Relaxed);
                };
                stream::iter(fetches).buffer_unordered(each).for_each(count).await;
            });
        }
        let end = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin().lock(), &mut io::sink()));
        end.await?.context("cannot read the standard input")?;
        println!("{}", serde_json::json!({ "fetched": got.load(Ordering::Relaxed) }));
        Ok(())
    }
}

/// One peer of the crowd.
async fn peer(number: u8, store: &Store) -> anyhow::Result<Net> {
    // Nobody else has such keys.
    let key = SecretKey::from_bytes([number; 32]);
    let options =
        Options { max_peers: 8, mdns: false, ..Options::new(key, vec!["/ip4/127.0.0.1/tcp/0".into()]) };
    let (submissions, _) = tokio::sync::mpsc::channel(1);
    Ok(Net::start(options, store.clone(), Registry::default(), submissions).await?)
}

/// All objects of the files of a snapshot. Directories and lists of chunks are fetched for it.
async fn objects(fetcher: &Fetcher, snapshot: SnapshotId) -> anyhow::Result<Vec<ObjectId>> {
    let view = View::open(fetcher.clone(), Cache::default(), snapshot, view::Options::default()).await?;
    let mut contents = Contents::new(view.clone(), Globs::new(&[])?, Some(Class::Prefetch));
    let mut found = vec![ObjectId::from(snapshot)];
    while let Some(files) = contents.next().await? {
        found.extend(files.trees);
        for file in files.files {
            let mut objects = file.objects();
            while let Some(some) = objects.next(&view, Class::Prefetch).await? {
                found.extend(some.into_iter().map(|(id, _)| id));
            }
        }
    }
    Ok(found)
}
