//! The node: everything one machine runs, wired together.
//!
//! Owns: the store, the networks, the peers and the mounts of this machine; the order in which they start and stop.
//! Must not know: HTTP or terminals; `api` and `cli` sit on top.
//! Invariant: one node per set of folders, held by a lock; what it finds after a SIGKILL, it cleans or restores.
//! Trust: requests come from this machine's user; everything from peers was verified below.
//! Threads: methods run on the daemon's tokio runtime; blocking work goes to its blocking pool.

mod alerts;
mod bundle;
mod cache;
mod dataset_keys;
mod diff;
mod error;
mod export;
mod gc;
mod hints;
mod history;
mod interrupted;
mod job;
mod keeping;
mod key_files;
mod keys;
mod lock;
mod metrics;
mod mount_list;
mod mounts;
mod naming;
mod networks;
mod offline;
mod operators;
mod origins;
mod page;
mod peers;
mod pins;
mod prefetch;
mod proofs;
mod publish;
mod reached;
mod reading;
mod reference;
mod remount;
mod replicas;
pub mod report;
mod resolve;
mod rights;
mod rotate;
mod scrub;
mod sealing;
mod state;
mod status;
mod swarms;
mod text;
mod transfers;
mod verify;
mod warming;
mod watches;
mod witness;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use backon::{ConstantBuilder, Retryable};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Keeping, Paths};
use crate::crypto::SecretKey;
use crate::fetch::Fetcher;
use crate::net::{self, Net};
use crate::store::{self, Store, StoreError};
use crate::supervisor::{Hello, Keeper};
use crate::view::Cache;

pub use alerts::disk_is_low;
pub use error::{Error, Kind};
pub use job::Job;
pub use key_files::Passphrase;
pub use keys::{change_passphrase, has_key, is_key_locked, new_key};
pub use offline::{Finding, examine, examine_identity, last_words, remembered};
pub use proofs::{Expected, check_proof};
pub use reference::{Named, Reference, ReferenceError, Uri};
pub use transfers::JobKind;
pub use witness::check_checkpoint;

use keeping::Inherited;
use keys::Keys;
use lock::Lock;
use mount_list::Mounts;
use networks::Networks;
use origins::Origins;
use state::State;

/// Memory for decoded trees and blobs of all mounts together, in bytes.
const NODE_CACHE: usize = 32 << 20;
/// How long a store that is in use is waited for.
const LOCK_POLL: Duration = Duration::from_millis(20);
const LOCK_TRIES: usize = 50;

/// A running node.
pub struct Node {
    paths: Paths,
    keys: Arc<Keys>,
    dataset_keys: dataset_keys::DatasetKeys,
    state: Arc<State>,
    store: Store,
    net: Net,
    fetcher: Fetcher,
    origins: Arc<Origins>,
    networks: Arc<Networks>,
    /// Decoded trees and blobs, shared by all mounts.
    nodes: Cache,
    /// What this node signs, it signs one after the other: its entries are numbered.
    publishing: tokio::sync::Mutex<()>,
    /// Held by those who put what is to stay, and alone by who takes away what is not.
    sweeping: tokio::sync::RwLock<()>,
    /// As they were at the start: by key.
    settings: BTreeMap<String, String>,
    retention: Keeping,
    scrub: scrub::Scrub,
    mounts: Mounts,
    pins: pins::Pins,
    hints: hints::Hints,
    kept: swarms::Kept,
    transfers: transfers::Transfers,
    alerts: alerts::Alerts,
    limited: peers::Limited,
    replicas: replicas::Replicas,
    page: page::Page,
    locked: sealing::Locked,
    started: Instant,
    /// How old the newest block of a log may be; zero for no limit.
    max_log_age: Duration,
    stop: CancellationToken,
    /// Ends only to be started again.
    restarts: AtomicBool,
    _lock: Lock,
}

impl Node {
    /// The process id of the node that runs on these folders, if one does.
    pub fn running(paths: &Paths) -> Result<Option<u32>, Error> {
        lock::holder(&paths.lock())
    }

    /// Asks the supervisor of these folders for an end, if there is one: for when its daemon does not answer.
    pub fn end_supervisor(paths: &Paths) {
        if let Some(supervisor) = paths.lock().canonicalize().ok().and_then(|path| lock::supervisor(&path)) {
            // It may be gone by now.
            let _ = pidfd_send_signal(supervisor, Signal::TERM);
        }
    }

    /// The lock of these folders, for a supervisor.
    pub fn lock(paths: &Paths) -> Result<OwnedFd, Error> {
        paths.create()?;
        Ok(Lock::take(&paths.lock())?.share())
    }

    /// Opens everything, goes on with what the last daemon had mounted, and returns the node and the socket that it will answer on.
    /// The passphrase is that of its keys, if they are locked; the rest is from the supervisor.
    pub async fn start(
        paths: Paths,
        config: Config,
        passphrase: Option<Passphrase>,
        keeper: Keeper,
        hello: Hello,
    ) -> Result<(Arc<Self>, UnixListener), Error> {
        let Hello { lock, kept, before, .. } = hello;
        let lock = Lock::shared(lock, &paths.lock(), supervisor())?;
        if let Some(before) = before {
            tracing::warn!(mounts = kept.len(), "the daemon before this one {before}");
        }
        let next_id = kept.iter().map(|kept| kept.id + 1).max().unwrap_or(0);
        let mounts = Mounts::new(keeper, next_id);
        let keeper = mounts.keeper();
        let kept = kept.into_iter().filter_map(|kept| Inherited::parse(&keeper, kept)).collect();
        let state = Arc::new(State::open(&paths.state())?);
        let keys = Arc::new(Keys::load(&paths, state.is_new(), passphrase)?);
        let dataset_keys = dataset_keys::DatasetKeys::load(&paths, keys.clone())?;
        let store = open_store(&paths, &config, &state).await?;
        let (submissions, inbox) = tokio::sync::mpsc::channel(64);
        let registry = crate::chain::Registry::default();
        let net = start_net(&config, keys.running(), &state, &store, &registry, submissions).await?;
        let origins = Origins::new(&config, &state);
        net.set_origin(origins.source());
        let fetcher = Fetcher::new(store.clone(), Some(net.source()));
        let stop = CancellationToken::new();
        let networks = Networks::open(
            &paths,
            keys.clone(),
            state.clone(),
            registry,
            net.clone(),
            config.mdns,
            stop.clone(),
        )
        .await?;
        networks.clone().answer_submissions(inbox);
        let node = Arc::new(Self {
            nodes: Cache::new(NODE_CACHE),
            publishing: tokio::sync::Mutex::default(),
            sweeping: tokio::sync::RwLock::default(),
            settings: config.settings().map(|(key, set)| (key.to_owned(), set.value.clone())).collect(),
            retention: config.keeping,
            scrub: scrub::Scrub::default(),
            mounts,
            restarts: AtomicBool::new(false),
            pins: pins::Pins::default(),
            hints: hints::Hints::default(),
            kept: swarms::Kept::default(),
            transfers: transfers::Transfers::default(),
            alerts: alerts::Alerts::default(),
            limited: peers::Limited::default(),
            replicas: replicas::Replicas::new(config.replicas.clone()),
            page: page::Page::default(),
            locked: sealing::Locked::default(),
            started: Instant::now(),
            max_log_age: Duration::from_secs(config.max_log_age.saturating_mul(86_400)),
            _lock: lock,
            paths,
            keys,
            dataset_keys,
            state,
            store,
            net,
            fetcher,
            origins,
            networks,
            stop,
        });
        node.settle_keys()?;
        node.restore_peers(&config).await?;
        let listener = listen(&node.paths.socket())?;
        if config.mode != net::Mode::Anonymous {
            node.remember_reached();
        }
        node.join_kept_swarms();
        node.restore_mounts(kept);
        node.tidy_mounts();
        node.resume_pins();
        node.remember_jobs();
        node.watch_alerts();
        node.scrub_store();
        if config.mode != net::Mode::Anonymous {
            node.answer_about_replicas(node.net.replica_calls());
            node.tend_replicas();
        }
        if let Err(error) = keeper.ready() {
            tracing::warn!(%error, "there is no supervisor: mounts will end with this daemon");
        }
        tracing::info!(pid = std::process::id(), peer = node.net.peer_id(), "{}", offline::READY);
        Ok((node, listener))
    }

    /// The settings that it runs with.
    pub fn settings(&self) -> BTreeMap<String, String> {
        self.settings.clone()
    }

    /// Cancelled when the node shall end.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks the node to end; the daemon then calls `shut_down`.
    pub fn request_stop(&self) {
        self.stop.cancel();
    }

    /// Ends everything from the top down: mounts first, so that no reader waits for a network that is gone; then
    /// the deciders of versions, then the peers. The store commits last, when nobody writes any more.
    pub async fn shut_down(self: &Arc<Self>) {
        self.stop.cancel();
        self.unmount_all().await;
        if let Err(error) = self.settle_keys() {
            tracing::error!(%error, "which key counts is looked at again at the next start");
        }
        self.networks.stop().await;
        self.net.shutdown().await;
        self.fetcher.flush().await;
        if let Err(error) = self.store.commit() {
            tracing::error!(%error, "the last commit of the store failed; cached chunks may be fetched again");
        }
        let _ = std::fs::remove_file(self.paths.socket());
        tracing::info!("node has stopped");
    }

    /// A new job of this node, which ends with it.
    pub fn begin(&self, kind: JobKind, subject: &str) -> Job {
        self.transfers.begin(&self.stop, kind, subject)
    }
}

async fn open_store(paths: &Paths, config: &Config, state: &State) -> Result<Store, Error> {
    let dir = paths.store();
    let cache_max_bytes = match config.cache_max_bytes.or(state.get().cache_max_bytes) {
        Some(bytes) => bytes,
        None => {
            let bytes = automatic_cache(&dir)?;
            state.update(|facts| facts.cache_max_bytes = Some(bytes))?;
            bytes
        }
    };
    // A node that ends may let go of its own lock, which this one has now, just before that of the store.
    let pauses = ConstantBuilder::default().with_delay(LOCK_POLL).with_max_times(LOCK_TRIES);
    let open = async || Store::open(&dir, store::Options { cache_max_bytes });
    let locked = |error: &StoreError| matches!(error, StoreError::Locked { .. });
    Ok(open.retry(pauses).when(locked).await?)
}

/// A tenth of the disk, and at most half of what is free on it.
fn automatic_cache(dir: &Path) -> Result<u64, Error> {
    let stat = rustix::fs::statvfs(dir).map_err(|error| Error::io("cannot measure", dir, error.into()))?;
    let total = stat.f_blocks.saturating_mul(stat.f_frsize);
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    Ok((total / 10).min(free / 2))
}

/// Starts the network node on the ports it had before, so that URIs stay good; on other ports if those are taken.
async fn start_net(
    config: &Config,
    key: &SecretKey,
    state: &State,
    store: &Store,
    chains: &crate::chain::Registry,
    submissions: tokio::sync::mpsc::Sender<net::Submission>,
) -> Result<Net, Error> {
    let ports = state.get().ports;
    let remembered = |address: &String| on_kept_port(&ports, address).unwrap_or_else(|| address.clone());
    let start = async |listen: Vec<String>| {
        let options = net::Options {
            key: key.clone(),
            mode: config.mode,
            listen,
            relays: config.relays.clone(),
            relay: config.relay,
            allow: config.allow.clone(),
            block: config.block.clone(),
            mdns: config.mdns,
            max_peers: config.max_peers,
        };
        Net::start(options, store.clone(), chains.clone(), submissions.clone()).await
    };
    let kept: Vec<String> = config.listen.iter().map(remembered).collect();
    let net = match start(kept.clone()).await {
        Err(error) if kept != config.listen => {
            tracing::warn!(%error, "the former ports are taken; URIs given out before may not find this node");
            start(config.listen.clone()).await?
        }
        started => started?,
    };
    let listening = net.addresses();
    let found = config.listen.iter().filter_map(|address| {
        let port = listening.iter().find_map(|actual| port_for(address, actual))?;
        Some((address.clone(), port))
    });
    let found: Vec<_> = found.collect();
    state.update(|facts| facts.ports.extend(found))?;
    Ok(net)
}

/// An address whose port is to be chosen, with the one that was chosen before: for this address, or for another one with the same
/// transport, so that URIs outlive a change of the IP address.
fn on_kept_port(ports: &BTreeMap<String, u16>, address: &str) -> Option<String> {
    let (_, way) = open_port(address)?;
    let is_like = |known: &&String| open_port(known).is_some_and(|(_, other)| other == way);
    let port = ports.get(address).or_else(|| ports.get(ports.keys().find(is_like)?))?;
    with_port(address, *port)
}

/// The parts of an address behind the IP address or name, and that without its port, if the port is to be chosen.
fn open_port(address: &str) -> Option<(&str, &str)> {
    let at = address.find("/tcp/0").or_else(|| address.find("/udp/0"))?;
    let (host, way) = address.split_at(at);
    let end = &way["/tcp/0".len()..];
    (end.is_empty() || end.starts_with('/')).then_some((host, way))
}

/// An address whose port is to be chosen, with this one.
fn with_port(address: &str, port: u16) -> Option<String> {
    let (host, way) = open_port(address)?;
    let (transport, end) = way.split_at("/tcp/".len());
    Some(format!("{host}{transport}{port}{}", &end[1..]))
}

/// The port that was chosen for `address` if `actual` is an address that came up for it.
fn port_for(address: &str, actual: &str) -> Option<u16> {
    let (host, _) = open_port(address)?;
    let own = actual.rsplit_once("/p2p/")?.0;
    let way = own.splitn(4, '/').nth(3)?;
    let port = way.split('/').nth(1)?.parse().ok()?;
    let same = own.starts_with(&host[..4.min(host.len())]) && !own.contains("/p2p/");
    (same && with_port(address, port)?.ends_with(&format!("/{way}"))).then_some(port)
}

/// Binds the API socket, readable by this user only. A socket left by a killed daemon is replaced: the lock
/// proves that nobody answers on it.
fn listen(path: &Path) -> Result<UnixListener, Error> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error| Error::io("cannot listen on", path, error);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// The process that has started this one.
fn supervisor() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())
}

/// Resident memory of this process, from `/proc/self/statm`; 0 where that cannot be read.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Runs what may wait for the disk without holding up the runtime's other tasks: a reader's answer may be among them.
fn off<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// The wall clock, in Unix milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_ip_address_keeps_the_port_of_its_transport() {
        let ports =
            [("/ip4/0.0.0.0/tcp/0", 7), ("/ip4/0.0.0.0/udp/0/quic-v1", 8), ("/ip4/127.0.0.1/tcp/0", 9)];
        let ports = ports.map(|(address, port)| (address.to_owned(), port)).into();
        let kept = |address: &str| on_kept_port(&ports, address);
        assert_eq!(kept("/ip4/127.0.0.1/tcp/0").unwrap(), "/ip4/127.0.0.1/tcp/9");
        assert_eq!(kept("/ip4/192.0.2.1/tcp/0").unwrap(), "/ip4/192.0.2.1/tcp/7");
        assert_eq!(kept("/ip6/::/udp/0/quic-v1").unwrap(), "/ip6/::/udp/8/quic-v1");
        assert_eq!((kept("/ip4/127.0.0.1/tcp/0/ws"), kept("/ip4/127.0.0.1/tcp/4001")), (None, None));
    }

    #[test]
    fn each_kind_of_address_keeps_the_port_that_was_chosen_for_it() {
        assert_eq!(with_port("/ip4/0.0.0.0/tcp/0", 7).unwrap(), "/ip4/0.0.0.0/tcp/7");
        assert_eq!(with_port("/ip6/::/udp/0/quic-v1", 70).unwrap(), "/ip6/::/udp/70/quic-v1");
        assert_eq!(with_port("/ip4/0.0.0.0/tcp/0/ws", 7).unwrap(), "/ip4/0.0.0.0/tcp/7/ws");
        assert_eq!(with_port("/ip4/0.0.0.0/tcp/01", 7), None);
        assert_eq!(with_port("/ip4/0.0.0.0/tcp/4001", 7), None);
        let actual = "/ip4/192.0.2.7/tcp/4001/p2p/12D3Koo";
        assert_eq!(port_for("/ip4/0.0.0.0/tcp/0", actual), Some(4001));
        for other in
            ["/ip6/::/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/0/ws", "/ip4/0.0.0.0/tcp/1"]
        {
            assert_eq!(port_for(other, actual), None, "{other}");
        }
        let quic = "/ip4/192.0.2.7/udp/4002/quic-v1/p2p/12D3Koo";
        assert_eq!(port_for("/ip4/0.0.0.0/udp/0/quic-v1", quic), Some(4002));
        let relayed = "/ip4/192.0.2.7/tcp/4001/p2p/12D3Koo/p2p-circuit/p2p/12D3Koo";
        assert_eq!(port_for("/ip4/0.0.0.0/tcp/0", "junk"), None);
        assert_eq!(port_for("/ip4/0.0.0.0/tcp/0", relayed), None);
    }
}
