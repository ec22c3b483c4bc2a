//! The networks this node belongs to: their logs, kept up to date, and who decides them.
//!
//! Owns: creating and joining a network, following its log from peers, running a validator where this node is one.
//! Must not know: what is in a dataset.
//! Invariant: nothing enters a log here except through `Chain::commit`, which checks the certificate.
//! Trust: peers send genesis documents and blocks; the document must hash to the network's id and every block
//! must carry its quorum.
//! Threads: one following task per network, on the daemon's runtime. A crash loses nothing that was committed.

mod carried;
mod damaged;
mod follow;
mod heads;
mod light;
mod members;
mod quorum;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::{Error, Kind};
use super::keys::Keys;
use super::report::{NetworkOf, NetworkStatus};
use super::state::State;
use super::{Named, now_ms, off};
use crate::chain::{Chain, Registry};
use crate::config::Paths;
use crate::crypto::PublicKey;
use crate::id::{Genesis, SwarmId};
use crate::log::light::Pin;
use crate::log::{Admission, Entry, GenesisDoc, Label, Validator as Member, ValidatorSet};
use crate::net::{MAX_LETTER, Net, PeerInfo, PeerState, Submission, SubmitError, Submitted, SwarmGuard};
use crate::store::LogStore;
use crate::validator::link::{Link, MAX_MESSAGE_LEN};
use crate::validator::{Committed, Validator, ValidatorError};
use heads::Forks;
pub(super) use heads::check_pin;

/// How long to wait for nodes of the local network to be found when nobody else has a genesis document.
const DISCOVERY: Duration = Duration::from_secs(5);
/// How long joining a network waits for its whole log; the rest of it is fetched in the background.
const FIRST_CATCH_UP: Duration = Duration::from_secs(3);
/// How often a lone validator proves that its log is fresh, in milliseconds. Every proof is a height that every start
/// replays: at the usual 30 seconds that would be a million a year.
const LONE_HEARTBEAT_MS: u64 = 600_000;
/// Addresses remembered of one network.
const PEERS_KEPT: usize = 16;
/// How long the tasks of this module may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

// What a validator says fits what carries it.
const _: () = assert!(MAX_MESSAGE_LEN <= MAX_LETTER);

/// A network that this node belongs to now.
pub struct Joined {
    pub chain: Arc<Chain>,
    /// Why the log may be behind, when it could not be brought up to date.
    pub stale: Option<Error>,
    /// The log is long, and still being fetched: `Networks::shown` knows what a name means.
    pub behind: bool,
}

/// All networks of this node.
pub struct Networks {
    dir: PathBuf,
    keys: Arc<Keys>,
    state: Arc<State>,
    registry: Registry,
    net: Net,
    /// Whether nodes on the local network are looked for.
    discovers: bool,
    validators: Mutex<BTreeMap<Genesis, Arc<Validator>>>,
    forks: Forks,
    /// Held while a peer shows what a name means.
    showing: tokio::sync::Mutex<()>,
    /// Of each network: its nodes find each other there.
    swarms: Mutex<Vec<SwarmGuard>>,
    /// Serialises creating and joining, so that no log file is opened twice.
    changing: tokio::sync::Mutex<()>,
    /// Networks that are not served, and why.
    unserved: Mutex<BTreeMap<Genesis, Error>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Networks {
    /// Opens the logs of all networks joined before.
    pub async fn open(
        paths: &Paths,
        keys: Arc<Keys>,
        state: Arc<State>,
        registry: Registry,
        net: Net,
        discovers: bool,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, Error> {
        let networks = Arc::new(Self {
            forks: Forks::open(&paths.networks())?,
            showing: tokio::sync::Mutex::default(),
            dir: paths.networks(),
            keys,
            state,
            registry,
            net,
            discovers,
            validators: Mutex::default(),
            swarms: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            unserved: Mutex::default(),
            tasks: TaskTracker::new(),
            stop,
        });
        let dir = &networks.dir;
        for file in std::fs::read_dir(dir).map_err(|error| Error::io("cannot list", dir, error))? {
            let path = file.map_err(|error| Error::io("cannot list", dir, error))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if let (Some("redb"), Ok(genesis)) = (path.extension().and_then(|e| e.to_str()), stem.parse()) {
                // One damaged log must not keep the others, and the datasets on them, from being served.
                if let Err(error) = networks.reopen(genesis) {
                    networks.not_opened(genesis, error);
                }
            }
        }
        networks.clone().rejoin();
        Ok(networks)
    }

    /// Fetches again, in the background, the logs of networks that are remembered but whose files are gone.
    fn rejoin(self: Arc<Self>) {
        for (genesis, peers) in self.state.get().peers {
            let Ok(genesis) = genesis.parse() else { continue };
            if self.registry.get(&genesis).is_some() {
                continue;
            }
            let (networks, stop) = (self.clone(), self.stop.clone());
            self.tasks.spawn(stop.run_until_cancelled_owned(async move {
                match networks.join(genesis, &peers).await {
                    Ok(_) => tracing::info!(%genesis, "fetched the log again"),
                    Err(error) => tracing::warn!(%genesis, %error, "cannot fetch this log again"),
                }
            }));
        }
    }

    fn reopen(self: &Arc<Self>, genesis: Genesis) -> Result<(), Error> {
        let log = off(|| LogStore::open(&self.log_path(&genesis)))?;
        // A crash between creating the file and writing the document leaves a log of nothing.
        let Some(document) = log.genesis()? else { return Ok(()) };
        let document = GenesisDoc::decode_as(&document, genesis)?;
        let chain = Arc::new(off(|| Chain::open(log, &document))?);
        self.serve(&chain);
        // Without its write-ahead log a validator does not know what it has signed. It follows, until it has caught up.
        let alone = chain.ledger().validators().members().len() == 1;
        if self.is_member(&chain) && (alone || self.wal_path(&genesis).exists()) {
            self.validate(chain)
        } else {
            self.tasks.spawn(self.clone().follow(chain));
            Ok(())
        }
    }

    fn log_path(&self, genesis: &Genesis) -> PathBuf {
        self.dir.join(format!("{genesis}.redb"))
    }

    fn wal_path(&self, genesis: &Genesis) -> PathBuf {
        self.dir.join(format!("{genesis}.wal"))
    }

    fn is_member(&self, chain: &Chain) -> bool {
        chain.ledger().validators().get(&self.keys.running().public()).is_some()
    }

    /// Decides a network from now on, with its other validators if it has any.
    fn validate(self: &Arc<Self>, chain: Arc<Chain>) -> Result<(), Error> {
        let genesis = chain.genesis();
        let (link, carrier) = Link::new();
        let validator = off(|| {
            Validator::join(self.keys.running().clone(), chain.clone(), &self.wal_path(&genesis), link)
        })?;
        self.net.carry(genesis, carrier.outgoing, carrier.incoming);
        self.lock_validators().insert(genesis, Arc::new(validator));
        self.tasks.spawn(self.clone().keep_together(chain));
        Ok(())
    }

    fn lock_swarms(&self) -> std::sync::MutexGuard<'_, Vec<SwarmGuard>> {
        self.swarms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_validators(&self) -> std::sync::MutexGuard<'_, BTreeMap<Genesis, Arc<Validator>>> {
        self.validators.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network that plain names are looked up in.
    pub fn default_network(&self) -> Result<Arc<Chain>, Error> {
        let genesis = self.state.get().default_network.and_then(|text| text.parse().ok());
        genesis.and_then(|genesis| self.registry.get(&genesis)).ok_or_else(|| {
            Error::not_found("this node belongs to no network yet").hint(
                "bcai init creates one, bcai init --join URI joins one; a whole bcai:// URI needs neither",
            )
        })
    }

    /// A network joined before.
    pub fn get(&self, genesis: &Genesis) -> Option<Arc<Chain>> {
        self.registry.get(genesis)
    }

    pub fn all(&self) -> Vec<Arc<Chain>> {
        self.registry.all()
    }

    /// Creates a network that these validators decide, this node alone if there are none, unless the node has a network
    /// already.
    pub async fn create(self: &Arc<Self>, validators: &[PublicKey]) -> Result<NetworkOf, Error> {
        let _changing = self.changing.lock().await;
        if let Ok(chain) = self.default_network() {
            return Ok(NetworkOf {
                genesis: chain.genesis().to_string(),
                height: chain.ledger().height(),
                new: false,
            });
        }
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)
            .map_err(|error| Error::new(Kind::Failed, format!("the kernel gave no random bytes: {error}")))?;
        let me = self.keys.running().public();
        let keys = if validators.is_empty() { &[me] } else { validators };
        let members = ValidatorSet::new(keys.iter().map(|key| Member { key: *key, weight: 1 }).collect())?;
        let label: Label = "bcai".parse()?;
        let mut document = GenesisDoc::new(label, salt, now_ms(), members);
        if keys == [me] {
            document.params.heartbeat_ms = LONE_HEARTBEAT_MS;
        }
        let chain = self.adopt(&document)?;
        let genesis = chain.genesis();
        self.make_default(genesis)?;
        if self.is_member(&chain) {
            self.validate(chain)?;
        } else {
            self.tasks.spawn(self.clone().follow(chain));
        }
        Ok(NetworkOf { genesis: genesis.to_string(), height: 0, new: true })
    }

    fn adopt(self: &Arc<Self>, document: &GenesisDoc) -> Result<Arc<Chain>, Error> {
        let log = off(|| LogStore::open(&self.log_path(&document.id())))?;
        let chain = Arc::new(off(|| Chain::open(log, document))?);
        self.serve(&chain);
        Ok(chain)
    }

    /// Answers peers that ask about a log, and tells them when it has come further.
    fn serve(self: &Arc<Self>, chain: &Arc<Chain>) {
        self.registry.insert(chain.clone());
        self.lock_swarms().push(self.net.join_swarm(SwarmId::of_network(&chain.genesis())));
        self.tasks.spawn(self.clone().tell_heads(chain.clone()));
    }

    /// Plain names are looked up in this network, unless in another already.
    pub(super) fn make_default(&self, genesis: Genesis) -> Result<(), Error> {
        if self.default_network().is_ok() {
            return Ok(());
        }
        self.state.update(|facts| facts.default_network = Some(genesis.to_string()))
    }

    /// Belongs to the network `genesis` from now on, and knows its log as far as `peers` do.
    pub async fn join(self: &Arc<Self>, genesis: Genesis, peers: &[String]) -> Result<Joined, Error> {
        let connected = self.connect(peers).await;
        let _changing = self.changing.lock().await;
        if let Some(chain) = self.registry.get(&genesis) {
            self.remember(genesis, peers, &connected)?;
            self.make_default(genesis)?;
            drop(_changing);
            let caught_up = timeout(FIRST_CATCH_UP, self.catch_up(&chain)).await;
            let (behind, stale) = (caught_up.is_err(), caught_up.ok().and_then(Result::err));
            if let Some(error) = &stale {
                tracing::warn!(%error, %genesis, "using the log as it is known here");
            }
            return Ok(Joined { chain, stale, behind });
        }
        let document = self.ask_for_genesis(genesis, connected.as_ref().err()).await?;
        let chain = self.adopt(&document)?;
        self.remember(genesis, peers, &connected)?;
        self.make_default(genesis)?;
        let caught_up = timeout(FIRST_CATCH_UP, self.catch_up(&chain)).await;
        if matches!(caught_up, Ok(Ok(()))) && self.is_member(&chain) {
            tracing::info!(%genesis, height = chain.ledger().height(), "deciding from here on");
            self.validate(chain.clone())?;
        } else {
            self.tasks.spawn(self.clone().follow(chain.clone()));
        }
        let behind = caught_up.is_err();
        caught_up.unwrap_or(Ok(()))?;
        Ok(Joined { chain, stale: None, behind })
    }

    fn connected(&self) -> Vec<PeerInfo> {
        self.net.peers().into_iter().filter(|peer| peer.state == PeerState::Connected).collect()
    }

    /// Dials all addresses at once; succeeds as soon as one answers, or if none was given.
    async fn connect(&self, peers: &[String]) -> Result<(), Error> {
        if peers.is_empty() {
            return Ok(());
        }
        let dials = peers.iter().map(|peer| Box::pin(self.net.connect(peer)));
        futures::future::select_ok(dials).await.map(|_| ()).map_err(Error::from)
    }

    fn remember(
        &self,
        genesis: Genesis,
        peers: &[String],
        connected: &Result<(), Error>,
    ) -> Result<(), Error> {
        if peers.is_empty() || connected.is_err() {
            return Ok(());
        }
        let known = self.state.get().peers.remove(&genesis.to_string()).unwrap_or_default();
        if known.starts_with(peers) {
            return Ok(());
        }
        let others = known.into_iter().filter(|peer| !peers.contains(peer));
        let known: Vec<_> = peers.iter().cloned().chain(others).take(PEERS_KEPT).collect();
        off(|| self.state.update(|facts| _ = facts.peers.insert(genesis.to_string(), known)))
    }

    async fn ask_for_genesis(&self, genesis: Genesis, dial: Option<&Error>) -> Result<GenesisDoc, Error> {
        let asked = Instant::now();
        let peers = loop {
            let peers = self.connected();
            for peer in &peers {
                match self.net.genesis(&peer.id, genesis).await {
                    Ok(bytes) => return Ok(GenesisDoc::decode_as(&bytes, genesis)?),
                    Err(error) => {
                        tracing::debug!(peer = peer.id, %error, "no genesis document from this peer")
                    }
                }
            }
            // Somebody on the local network may have it and just not have been found yet.
            if !self.discovers || asked.elapsed() > DISCOVERY {
                break peers;
            }
            tokio::time::sleep(DISCOVERY / 20).await;
        };
        match dial {
            Some(error) => Err(error.clone()),
            None if peers.is_empty() => {
                Err(Error::new(Kind::Unreachable, format!("no peer of network {genesis} is known"))
                    .hint("use a URI that ends in ?peer=ADDRESS"))
            }
            None => Err(Error::not_found(format!("no connected peer knows the network {genesis}")).hint(
                "the network id in the URI may be wrong: compare it with `bcai status` of the publisher; or it is for members only: an admin lets this node in with `bcai keys grant KEY reader`, where `bcai keys new` and `bcai keys` show the KEY",
            )),
        }
    }

    /// Has an entry decided, here or by a validator among the peers.
    pub async fn submit(&self, chain: &Chain, entry: Entry) -> Result<Committed, Error> {
        let genesis = chain.genesis();
        let validator = self.lock_validators().get(&genesis).cloned();
        if let Some(validator) = validator {
            return Ok(validator.submit(entry).await?);
        }
        let mut failed = Error::new(Kind::Unreachable, "no validator of this network is connected")
            .hint("publish on the machine that ran `bcai init`, or connect to it: bcai init --join URI");
        for peer in self.connected() {
            match self.submit_to(&peer.id, chain, &entry).await {
                Ok(decided) => return Ok(decided),
                // Of another network only: it was no validator that failed.
                Err(error) if error.kind == Kind::NotFound => {}
                // Our own ledger has admitted the entry, so a refusal is one peer's word; others are asked as well.
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Submits to one peer, and believes that the entry was decided only when it is in our own log.
    async fn submit_to(&self, peer: &str, chain: &Chain, entry: &Entry) -> Result<Committed, Error> {
        let Submitted { height, .. } = self.net.submit(peer, chain.genesis(), entry.encode()).await?;
        self.pull(chain, peer).await?;
        match chain.ledger().admit(entry)? {
            Admission::Already { height, entry } => {
                let round = off(|| chain.block(height))?.certificate.round;
                Ok(Committed { height, round, entry })
            }
            Admission::New => Err(Error::new(
                Kind::Corrupt,
                format!(
                    "peer {peer} says that the entry was decided at height {height}, but the log does not hold it"
                ),
            )),
        }
    }

    /// Answers entries that peers submit to this node as a validator.
    pub fn answer_submissions(self: Arc<Self>, mut inbox: mpsc::Receiver<Submission>) {
        let stop = self.stop.clone();
        self.tasks.clone().spawn(async move {
            while let Some(Some(submission)) = stop.run_until_cancelled(inbox.recv()).await {
                let networks = self.clone();
                self.tasks.spawn(async move {
                    let answer = networks.decide(submission.genesis, &submission.entry).await;
                    // A peer that went away in the meantime finds the entry in the log.
                    let _ = submission.reply.send(answer);
                });
            }
        });
    }

    async fn decide(&self, genesis: Genesis, entry: &[u8]) -> Result<Submitted, SubmitError> {
        let validator = self.lock_validators().get(&genesis).cloned();
        let validator =
            validator.ok_or_else(|| SubmitError::Failed("not a validator of that network".into()))?;
        let entry = Entry::decode(entry).map_err(|error| SubmitError::Refused(error.to_string()))?;
        match validator.submit(entry).await {
            Ok(Committed { height, round, entry }) => Ok(Submitted { height, round, entry }),
            Err(ValidatorError::Refused(refusal)) => Err(SubmitError::Refused(refusal.to_string())),
            Err(error) => Err(SubmitError::Failed(error.to_string())),
        }
    }

    pub fn status(&self) -> Vec<NetworkStatus> {
        let default = self.state.get().default_network;
        let validators = self.lock_validators();
        let rows = self.registry.all().into_iter().map(|chain| {
            let ledger = chain.ledger();
            let genesis = chain.genesis();
            NetworkStatus {
                default: default.as_deref() == Some(&genesis.to_string()),
                validator: validators.contains_key(&genesis),
                height: ledger.height(),
                pin: ledger.head().map(|head| Pin { height: head.height, header: head.id() }.to_string()),
                head_ahead_ms: ledger.head().map_or(0, |head| head.time_ms.saturating_sub(now_ms())),
                heartbeat_s: ledger.params().heartbeat_ms / 1000,
                head_age_s: ledger.head().map(|head| now_ms().saturating_sub(head.time_ms) / 1000),
                datasets: ledger.datasets().count(),
                forked: self.check_whole(&genesis).err().map(|error| error.message),
                genesis: genesis.to_string(),
            }
        });
        rows.collect()
    }

    /// Ends the followers, then the validators, each with its last decision on disk.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_DEADLINE, self.tasks.wait()).await.is_err() {
            tracing::warn!("following a log did not end in time; what was committed is on disk");
        }
        let validators = std::mem::take(&mut *self.lock_validators());
        for validator in validators.into_values() {
            validator.stop().await;
        }
    }
}

#[cfg(test)]
mod forks;
#[cfg(test)]
mod tests;
