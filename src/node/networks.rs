//! The networks this node belongs to: their logs, kept up to date, and who decides them.
//!
//! Owns: creating and joining a network, following its log from peers, running a validator where this node is one.
//! Must not know: what is in a dataset.
//! Invariant: nothing enters a log here except through `Chain::commit`, which checks the certificate.
//! Trust: peers send genesis documents and blocks; the document must hash to the network's id and every block
//! must carry its quorum.
//! Threads: one following task per network, on the daemon's runtime. A crash loses nothing that was committed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::{Error, Kind};
use super::now_ms;
use super::report::{NetworkOf, NetworkStatus};
use super::state::State;
use crate::chain::{Chain, Registry};
use crate::config::Paths;
use crate::crypto::SecretKey;
use crate::id::Genesis;
use crate::log::{Block, Entry, GenesisDoc, Label, Validator as Member, ValidatorSet};
use crate::net::{Net, NetError, PeerInfo, PeerState, Submission, SubmitError, Submitted};
use crate::store::LogStore;
use crate::validator::{Committed, Validator, ValidatorError};

/// How long to wait for nodes of the local network to be found when nobody else has a genesis document.
const DISCOVERY: Duration = Duration::from_secs(5);
/// How often a follower asks its peers for news.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// How long a submitted entry may take through somebody else's validator and back.
const SUBMIT_DEADLINE: Duration = Duration::from_secs(30);

/// All networks of this node.
pub struct Networks {
    dir: PathBuf,
    key: SecretKey,
    state: Arc<State>,
    registry: Registry,
    net: Net,
    /// Whether nodes on the local network are looked for.
    discovers: bool,
    validators: Mutex<BTreeMap<Genesis, Arc<Validator>>>,
    /// Serialises creating and joining, so that no log file is opened twice.
    changing: tokio::sync::Mutex<()>,
    news: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Networks {
    /// Opens the logs of all networks joined before.
    pub async fn open(
        paths: &Paths,
        key: SecretKey,
        state: Arc<State>,
        registry: Registry,
        net: Net,
        discovers: bool,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, Error> {
        let networks = Arc::new(Self {
            dir: paths.networks(),
            key,
            state,
            registry,
            net,
            discovers,
            validators: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            news: Notify::new(),
            tasks: TaskTracker::new(),
            stop,
        });
        let dir = &networks.dir;
        for file in std::fs::read_dir(dir).map_err(|error| Error::io("cannot list", dir, error))? {
            let path = file.map_err(|error| Error::io("cannot list", dir, error))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if let (Some("redb"), Ok(genesis)) = (path.extension().and_then(|e| e.to_str()), stem.parse()) {
                networks.reopen(genesis).await?;
            }
        }
        Ok(networks)
    }

    async fn reopen(self: &Arc<Self>, genesis: Genesis) -> Result<(), Error> {
        let log = LogStore::open(&self.log_path(&genesis))?;
        // A crash between creating the file and writing the document leaves a log of nothing.
        let Some(document) = log.genesis()? else { return Ok(()) };
        let document = GenesisDoc::decode_as(&document, genesis)?;
        self.run(Chain::open(log, &document)?).await
    }

    fn log_path(&self, genesis: &Genesis) -> PathBuf {
        self.dir.join(format!("{genesis}.redb"))
    }

    /// Takes a chain into service: decided here if this node is a validator, followed otherwise.
    async fn run(self: &Arc<Self>, chain: Chain) -> Result<(), Error> {
        let chain = Arc::new(chain);
        let genesis = chain.genesis();
        if chain.ledger().validators().get(&self.key.public()).is_some() {
            let wal = self.dir.join(format!("{genesis}.wal"));
            let validator = Validator::start(self.key.clone(), chain.clone(), &wal)?;
            self.lock_validators().insert(genesis, Arc::new(validator));
        } else {
            self.tasks.spawn(self.clone().follow(chain.clone()));
        }
        self.registry.insert(chain);
        Ok(())
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

    /// Creates a network in which this node alone decides, unless the node has a network already.
    pub async fn create(self: &Arc<Self>) -> Result<NetworkOf, Error> {
        let _changing = self.changing.lock().await;
        if let Ok(chain) = self.default_network() {
            return Ok(NetworkOf {
                genesis: chain.genesis().to_string(),
                height: chain.ledger().height(),
                created: false,
            });
        }
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)
            .map_err(|error| Error::new(Kind::Failed, format!("the kernel gave no random bytes: {error}")))?;
        let members = ValidatorSet::new(vec![Member { key: self.key.public(), weight: 1 }])?;
        let label: Label = "bcai".parse()?;
        let document = GenesisDoc::new(label, salt, now_ms(), members);
        let genesis = self.adopt(&document).await?;
        self.make_default(genesis)?;
        Ok(NetworkOf { genesis: genesis.to_string(), height: 0, created: true })
    }

    async fn adopt(self: &Arc<Self>, document: &GenesisDoc) -> Result<Genesis, Error> {
        let genesis = document.id();
        let log = LogStore::open(&self.log_path(&genesis))?;
        log.set_genesis(&document.encode())?;
        self.run(Chain::open(log, document)?).await?;
        Ok(genesis)
    }

    fn make_default(&self, genesis: Genesis) -> Result<(), Error> {
        self.state.update(|facts| {
            facts.default_network.get_or_insert(genesis.to_string());
        })
    }

    /// Belongs to the network `genesis` from now on, and knows its log as far as `peers` do.
    pub async fn join(self: &Arc<Self>, genesis: Genesis, peers: &[String]) -> Result<Arc<Chain>, Error> {
        let connected = self.connect(peers).await;
        let _changing = self.changing.lock().await;
        if let Some(chain) = self.registry.get(&genesis) {
            drop(_changing);
            self.remember(genesis, peers, &connected)?;
            if let Err(error) = self.catch_up(&chain).await {
                tracing::warn!(%error, %genesis, "using the log as it is known here");
            }
            return Ok(chain);
        }
        let document = self.ask_for_genesis(genesis, connected.as_ref().err()).await?;
        self.adopt(&document).await?;
        self.remember(genesis, peers, &connected)?;
        self.make_default(genesis)?;
        let chain = self.registry.get(&genesis);
        let chain = chain.ok_or_else(|| Error::new(Kind::Failed, "the network was not adopted"))?;
        self.catch_up(&chain).await?;
        Ok(chain)
    }

    fn connected(&self) -> Vec<PeerInfo> {
        self.net.peers().into_iter().filter(|peer| peer.state == PeerState::Connected).collect()
    }

    /// Dials all addresses; succeeds if one answers or none was given.
    async fn connect(&self, peers: &[String]) -> Result<(), Error> {
        let dials = futures::future::join_all(peers.iter().map(|peer| self.net.connect(peer))).await;
        let mut failed = None;
        for dial in dials {
            match dial {
                Ok(_) => return Ok(()),
                Err(error) => failed = Some(Error::from(error)),
            }
        }
        failed.map_or(Ok(()), Err)
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
        self.state.update(|facts| {
            let known = facts.peers.entry(genesis.to_string()).or_default();
            known.retain(|peer| !peers.contains(peer));
            known.splice(0..0, peers.iter().cloned());
            known.truncate(16);
        })
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
                "the network id in the URI may be wrong: compare it with `bcai status` of the publisher",
            )),
        }
    }

    /// Follows one log until the node stops.
    async fn follow(self: Arc<Self>, chain: Arc<Chain>) {
        while !self.stop.is_cancelled() {
            if self.connected().is_empty() {
                let known = self.state.get().peers.remove(&chain.genesis().to_string()).unwrap_or_default();
                if let Err(error) = self.connect(&known).await {
                    tracing::debug!(%error, "no peer of this network answers");
                }
            }
            if let Err(error) = self.catch_up(&chain).await {
                tracing::debug!(%error, genesis = %chain.genesis(), "no news");
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.news.notified() => {}
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
            }
        }
    }

    /// Takes over what connected peers have and we have not. Fails when no peer could be asked, or one lied.
    async fn catch_up(&self, chain: &Chain) -> Result<(), Error> {
        let genesis = chain.genesis();
        let mut failed =
            Some(Error::new(Kind::Unreachable, format!("no peer of network {genesis} is connected")));
        for peer in self.connected() {
            match self.pull(chain, &peer.id).await {
                Ok(()) => failed = None,
                Err(error) => {
                    tracing::debug!(peer = peer.id, %error, "cannot follow this peer");
                    failed = failed.map(|_| error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn pull(&self, chain: &Chain, peer: &str) -> Result<(), Error> {
        let genesis = chain.genesis();
        let height = self.net.head(peer, genesis).await?.height;
        while chain.ledger().height() < height {
            let blocks = self.net.blocks(peer, genesis, chain.ledger().height() + 1).await?;
            if blocks.is_empty() {
                return Err(Error::new(
                    Kind::Corrupt,
                    format!("peer {peer} claims height {height} but has no blocks"),
                ));
            }
            for block in blocks {
                let block = Block::decode(&block)?;
                // Signatures and the state root cost milliseconds; the runtime's threads have readers to serve.
                tokio::task::block_in_place(|| chain.commit(block))?;
            }
        }
        Ok(())
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
            match self.net.submit(&peer.id, genesis, entry.encode()).await {
                Ok(Submitted { height, round, entry }) => {
                    self.wait_for(chain, height).await?;
                    return Ok(Committed { height, round, entry });
                }
                Err(error @ NetError::Refused { .. }) => return Err(error.into()),
                Err(error) => failed = error.into(),
            }
        }
        Err(failed)
    }

    async fn wait_for(&self, chain: &Chain, height: u64) -> Result<(), Error> {
        let mut ledger = chain.subscribe();
        self.news.notify_waiters();
        let reached = ledger.wait_for(|ledger| ledger.height() >= height);
        match tokio::time::timeout(SUBMIT_DEADLINE, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::new(
                Kind::Unreachable,
                format!("height {height} was decided but has not arrived here"),
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
                head_age_s: ledger.head().map(|head| now_ms().saturating_sub(head.time_ms) / 1000),
                datasets: ledger.datasets().count(),
                genesis: genesis.to_string(),
            }
        });
        rows.collect()
    }

    /// Ends the followers, then the validators, each with its last decision on disk.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let validators = std::mem::take(&mut *self.lock_validators());
        for validator in validators.into_values() {
            validator.stop().await;
        }
    }
}
