//! The network: the only place that knows libp2p.
//!
//! Owns: connections, the streams of `/bcai/swarm/1`, `/bcai/log/1`, `/bcai/peers/1`, `/bcai/replica/1` and `/bcai/validator/1`, who is connected, and [`Peers`], the
//! source of objects that all of that amounts to.
//! Must not know: files, snapshots, consensus; what is in a block or an entry.
//! Invariant: no byte leaves here as an object that has not been verified; memory, streams, connections and tasks
//! are bounded whatever the peers do.
//! Trust: none in any peer beyond the identity that TLS or Noise proves.
//! Threads: tokio tasks, all of which end before [`Net::shutdown`] returns.

mod addresses;
mod callers;
mod capacity;
mod desk;
mod dht;
mod dialling;
mod driver;
mod error;
mod frames;
mod gossip;
mod hot;
mod info;
mod lender;
mod letters;
mod limits;
mod log_calls;
mod log_wire;
mod mux;
mod patience;
mod peer_wire;
mod peers;
mod relays;
mod replica_calls;
mod replica_wire;
mod rules;
mod secure;
mod sending;
mod serve;
mod session;
mod shared;
mod streams;
mod table;
mod trackers;
mod transport;
mod watchers;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use addresses::try_to_listen;
pub use error::NetError;
pub use gossip::Beacon;
pub use info::{PeerInfo, PeerState};
pub use letters::{MAX_LETTER, Received, Sent};
pub use log_calls::{Submission, SubmitError, Submitted};
pub use peers::Peers;
pub use replica_calls::ReplicaCall;
pub use replica_wire::{MAX_SNAPSHOTS, MAX_ZONE, ReplicaAnswer, ReplicaRequest};
pub use rules::Mode;
pub use trackers::SwarmGuard;

use crate::chain::Registry;
use crate::crypto::{PublicKey, SecretKey};
use crate::fetch::{ChunkSource, Lookups};
use crate::id::{Genesis, HeaderId, SwarmId};
use crate::store::Store;
use crate::swarm::Spread;
use crate::swarm::choice::Failure;
use crate::swarm::scheduler::Flow;
use desk::Who;
use driver::Driver;
use gossip::News;
use log_calls::LogServer;
use log_wire::{MAX_REQUEST, Request, Response};
use serve::Server;
use shared::{Command, LOG_PROTOCOL, PEERS_PROTOCOL, SWARM_PROTOCOL, Shared, VALIDATOR_PROTOCOL};

/// Commands that may wait for the driver.
const COMMANDS: usize = 64;
/// Heads heard of that may wait to be looked at.
const HEADS: usize = 64;
/// How long the tasks may take to end.
const ENDING: Duration = Duration::from_secs(5);

/// How a node takes part in the network.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who this node is; its peer id is made of the public key, unless it is anonymous.
    pub key: SecretKey,
    pub mode: Mode,
    /// Multiaddresses, such as `/ip4/0.0.0.0/tcp/4001`. An anonymous node listens on none of them.
    pub listen: Vec<String>,
    /// Addresses of relays that this node can be reached through, and goes through if it is anonymous.
    pub relays: Vec<String>,
    /// Whether to be a relay for others.
    pub relay: bool,
    /// Peer ids of all that it connects with; everybody if there are none.
    pub allow: Vec<String>,
    /// Peer ids that it does not connect with.
    pub block: Vec<String>,
    /// Whether to find and connect other nodes on the local network.
    pub mdns: bool,
    /// Connections at most.
    pub max_peers: u32,
}

impl Options {
    /// A node that listens at `listen`, and otherwise as one is that its user has said nothing about.
    pub fn new(key: SecretKey, listen: Vec<String>) -> Options {
        Options {
            key,
            mode: Mode::default(),
            listen,
            relays: Vec::new(),
            relay: false,
            allow: Vec::new(),
            block: Vec::new(),
            mdns: true,
            max_peers: 64,
        }
    }
}

/// How far a peer's log has come, as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// 0 before the first block.
    pub height: u64,
    /// The header at that height.
    pub header: Option<HeaderId>,
}

/// A running node's network. Clones are handles on the same one.
#[derive(Clone)]
pub struct Net {
    me: PeerId,
    shared: Arc<Shared>,
}

impl Net {
    /// Starts listening and serving `store` and `chains`; entries submitted by peers go to `submissions`. Returns when
    /// every address in `options.listen` is up.
    pub async fn start(
        options: Options,
        store: Store,
        chains: Registry,
        submissions: mpsc::Sender<Submission>,
    ) -> Result<Net, NetError> {
        let (swarm, rules) = transport::build(&options)?;
        let me = *swarm.local_peer_id();
        let control = swarm.behaviour().streams.control();
        let objects = control.accept(SWARM_PROTOCOL);
        let logs = control.accept(LOG_PROTOCOL);
        let announcements = control.accept(PEERS_PROTOCOL);
        let letters = control.accept(VALIDATOR_PROTOCOL);
        let (commands, received) = mpsc::channel(COMMANDS);
        let started = Instant::now();
        let shared = Arc::new(Shared {
            lookups: Lookups::new(store.clone()),
            store,
            control,
            table: table::Table::new(started),
            desk: desk::Desk::new(&me),
            hot: hot::Hot::new(),
            watchers: Arc::default(),
            trackers: Arc::default(),
            letters: letters::Letters::new(chains.clone()),
            chains: chains.clone(),
            me,
            max_peers: options.max_peers as usize,
            near: transport::is_near(&options),
            heads: broadcast::Sender::new(HEADS),
            listeners: Notify::new(),
            lender: Arc::default(),
            limits: limits::Limits::default(),
            verifiers: Semaphore::new(shared::VERIFIERS),
            commands,
            started,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            guess: Mutex::default(),
        });
        if rules.mode == Mode::Anonymous {
            shared.table.only_relays(rules.relays.iter().filter_map(addresses::peer_of));
        }
        let mut driver = Driver::new(swarm, rules, shared.clone(), received);
        if options.mode != Mode::Anonymous {
            driver.listen(&options.listen).await?;
        }

        let stop = &shared.stop;
        shared.tasks.spawn(driver.run());
        shared.tasks.spawn(stop.clone().run_until_cancelled_owned(shared.clone().keep_time()));
        let server = Arc::new(Server::new(shared.clone()));
        shared.tasks.spawn(stop.clone().run_until_cancelled_owned(server.accept(objects)));
        let log_server = Arc::new(LogServer::new(shared.clone(), chains, submissions));
        shared.tasks.spawn(stop.clone().run_until_cancelled_owned(log_server.accept(logs)));
        shared.tasks.spawn(stop.clone().run_until_cancelled_owned(letters::accept(shared.clone(), letters)));
        let trackers = trackers::answer(shared.clone(), announcements);
        shared.tasks.spawn(stop.clone().run_until_cancelled_owned(trackers));
        shared.tasks.spawn(stop.clone().run_until_cancelled_owned(trackers::announce(shared.clone())));
        if options.mode != Mode::Anonymous {
            let beacons = gossip::beacons(shared.clone(), options.relay);
            shared.tasks.spawn(stop.clone().run_until_cancelled_owned(beacons));
        }
        Ok(Net { me, shared })
    }

    /// Who this node is to others: the multihash of its public key, or of that of this run.
    pub fn peer_id(&self) -> String {
        self.me.to_string()
    }

    /// Where this node listens, each with its peer id, ready to be given to others.
    pub fn addresses(&self) -> Vec<String> {
        self.shared.table.listening_on().iter().map(Multiaddr::to_string).collect()
    }

    /// Addresses of this node that others have tried from outside of late, and whether they got through (AutoNAT).
    pub fn trials(&self) -> Vec<(String, bool)> {
        let trials = self.shared.table.trials().into_iter();
        trials.map(|(address, got_through)| (address.to_string(), got_through)).collect()
    }

    /// Connects to a multiaddress, with or without `/p2p/ID` at its end. From then on that peer is connected again
    /// whenever it is lost. Returns its id.
    pub async fn connect(&self, address: &str) -> Result<String, NetError> {
        let parsed: Multiaddr = address.parse().map_err(|error: libp2p::multiaddr::Error| {
            NetError::Address { address: address.to_owned(), cause: error.to_string() }
        })?;
        if let Some(peer) = addresses::peer_of(&parsed) {
            if peer == self.me {
                return Err(NetError::Myself { address: address.to_owned() });
            }
            if let Some(cause) = self.shared.table.refusal(&peer) {
                return Err(NetError::Denied { address: address.to_owned(), cause: cause.to_owned() });
            }
        }
        let (reply, answer) = oneshot::channel();
        self.shared.command(Command::Dial { address: parsed, reply }).await;
        // The transport gives up by itself; this is for what comes around it.
        let after = transport::CONNECTING + Duration::from_secs(1);
        match tokio::time::timeout(after, answer).await {
            Ok(Ok(result)) => result.map(|peer| peer.to_string()),
            Ok(Err(_)) => Err(NetError::Stopped),
            Err(_) => Err(NetError::TimedOut { what: format!("connecting to {address}"), after }),
        }
    }

    /// Everybody known, by id.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.shared.table.list()
    }

    /// What is asked for later use of each peer that can be asked, by its id.
    pub fn flows(&self) -> BTreeMap<String, Flow> {
        self.shared.flows().into_iter().map(|(peer, flow)| (peer.to_string(), flow)).collect()
    }

    /// Bytes of objects received and sent since the start, with all peers.
    pub fn traffic(&self) -> (u64, u64) {
        let traffic = &self.shared.table.traffic;
        (traffic.bytes_in.load(Ordering::Relaxed), traffic.bytes_out.load(Ordering::Relaxed))
    }

    /// Whether a text is the whole id of some peer, known or not.
    pub fn is_peer_id(&self, text: &str) -> bool {
        parse_peer(text).is_ok()
    }

    /// Disconnects a peer, and neither asks it nor lets it connect until it is allowed again.
    pub async fn block(&self, peer: &str) -> Result<(), NetError> {
        let id = parse_peer(peer)?;
        self.shared.table.block(id);
        self.shared.schedule(|scheduler, now| scheduler.peer_down(now, Who::peer(&id), Failure::Lost));
        self.shared.command(Command::Ban(id)).await;
        Ok(())
    }

    /// Lets a peer that was blocked, or banned for wrong bytes, be connected again, and connects it if it was reached
    /// before.
    pub async fn allow(&self, peer: &str) -> Result<(), NetError> {
        let id = parse_peer(peer)?;
        self.shared.table.allow(&id);
        self.shared.schedule(|scheduler, _| scheduler.pardon(&Who::peer(&id)));
        self.shared.command(Command::Pardon(id)).await;
        Ok(())
    }

    /// Bytes of objects that may be sent in a second, to all peers together; without a number there is no limit.
    pub fn set_upload_limit(&self, limit: Option<u64>) {
        self.shared.limits.set_upload(limit);
    }

    /// The same for bytes received.
    pub fn set_download_limit(&self, limit: Option<u64>) {
        self.shared.limits.set_download(limit);
    }

    /// Looks for the other peers of a swarm, and lets them find this node, until the guard is dropped.
    pub fn join_swarm(&self, swarm: SwarmId) -> SwarmGuard {
        self.shared.trackers.join(swarm, self.shared.started.elapsed())
    }

    /// Carries messages between this node and the other validators of a network, as the log here names them, until the
    /// sender of `outgoing` is dropped. What is longer than [`MAX_LETTER`] is not heard by anybody.
    pub fn carry(&self, genesis: Genesis, outgoing: mpsc::Receiver<Sent>, incoming: mpsc::Sender<Received>) {
        let carrying = letters::carry(self.shared.clone(), genesis, outgoing, incoming);
        self.shared.tasks.spawn(self.shared.stop.clone().run_until_cancelled_owned(carrying));
    }

    /// The peer id of the node whose key this is.
    pub fn peer_of(key: &PublicKey) -> Option<String> {
        letters::peer_of(key).map(|peer| peer.to_string())
    }

    /// Tells everybody how far a log has come.
    pub async fn tell_head(&self, genesis: Genesis, height: u64, header: HeaderId) {
        self.shared.command(Command::Tell(News::Head { genesis, height, header })).await;
    }

    /// What others say from now on about how far logs have come. Anybody may say anything.
    pub fn heads(&self) -> broadcast::Receiver<(Genesis, u64)> {
        self.shared.heads.subscribe()
    }

    /// Where connected peers were reached, one address for each.
    pub fn reached(&self) -> Vec<String> {
        self.shared.table.reached().iter().map(Multiaddr::to_string).collect()
    }

    /// Connects to a peer that was reached at `address` in an earlier run, if it is there and there is room.
    pub async fn meet(&self, address: &str) {
        let Ok(address) = address.parse::<Multiaddr>() else { return };
        if let Some(peer) = addresses::peer_of(&address) {
            self.shared.command(Command::Meet { peer, addresses: vec![address] }).await;
        }
    }

    /// All peers together as a source of objects, and the origins for what none of them delivers.
    pub fn source(&self) -> Arc<dyn ChunkSource> {
        Arc::new(Peers { shared: self.shared.clone(), spread: Spread::Many })
    }

    /// The same, but everything comes from one peer, the best, and only what it fails on from others.
    pub fn source_best(&self) -> Arc<dyn ChunkSource> {
        Arc::new(Peers { shared: self.shared.clone(), spread: Spread::Best })
    }

    /// What is asked for objects that no peer delivers; nobody if there is nothing.
    pub fn set_origin(&self, origin: Option<Arc<dyn ChunkSource>>) {
        self.shared.set_origin(origin);
    }

    /// The genesis document of a log, from a connected peer; unverified bytes.
    pub async fn genesis(&self, peer: &str, genesis: Genesis) -> Result<Vec<u8>, NetError> {
        match self.call(peer, Request::Document { genesis }).await? {
            Response::Document { document } => Ok(document.into()),
            _ => Err(unexpected(peer)),
        }
    }

    /// How far a connected peer says that a log has come.
    pub async fn head(&self, peer: &str, genesis: Genesis) -> Result<Head, NetError> {
        match self.call(peer, Request::Head { genesis }).await? {
            Response::Head { height, header } => Ok(Head { height, header }),
            _ => Err(unexpected(peer)),
        }
    }

    /// Encoded blocks of a log from height `from` on, as many as the peer sends at once (about 1 MiB); none when it has
    /// no more. Unverified bytes.
    pub async fn blocks(&self, peer: &str, genesis: Genesis, from: u64) -> Result<Vec<Vec<u8>>, NetError> {
        match self.call(peer, Request::Blocks { genesis, from }).await? {
            Response::Blocks { blocks } => Ok(blocks.into_iter().map(Into::into).collect()),
            _ => Err(unexpected(peer)),
        }
    }

    /// An encoded head of a log with what a light client needs to believe it, at a height that the peer has. Unverified
    /// bytes.
    pub async fn update(&self, peer: &str, genesis: Genesis, height: u64) -> Result<Vec<u8>, NetError> {
        match self.call(peer, Request::Update { genesis, height }).await? {
            Response::Update { update } => Ok(update.into()),
            _ => Err(unexpected(peer)),
        }
    }

    /// What a name means by the newest head of a log that the peer has, proven: an encoded `Shown` for an encoded
    /// `Question`. Unverified bytes.
    pub async fn show(&self, peer: &str, genesis: Genesis, question: Vec<u8>) -> Result<Vec<u8>, NetError> {
        match self.call(peer, Request::Show { genesis, question: question.into() }).await? {
            Response::Shown { shown } => Ok(shown.into()),
            _ => Err(unexpected(peer)),
        }
    }

    /// Asks a connected peer to put an encoded entry into a log, and waits until that is decided.
    pub async fn submit(&self, peer: &str, genesis: Genesis, entry: Vec<u8>) -> Result<Submitted, NetError> {
        if entry.len() > MAX_REQUEST / 2 {
            let cause = format!("an entry of {} bytes is too long to be sent", entry.len());
            return Err(NetError::Refused { peer: peer.to_owned(), cause });
        }
        match self.call(peer, Request::Submit { genesis, entry: entry.into() }).await? {
            Response::Submitted { height, round, entry } => Ok(Submitted { height, round, entry }),
            _ => Err(unexpected(peer)),
        }
    }

    /// Closes all connections and waits for all tasks to end. What is being fetched fails.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(ENDING, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.shared.tasks.len(), "some tasks of the network did not end in time");
        }
        // Sessions hold what holds them; this lets go of the store.
        self.shared.table.clear();
        self.shared.desk.clear();
    }

    async fn call(&self, peer: &str, request: Request) -> Result<Response, NetError> {
        log_calls::call(&self.shared, parse_peer(peer)?, &request).await
    }
}

fn parse_peer(peer: &str) -> Result<PeerId, NetError> {
    peer.parse().map_err(|_| NetError::PeerId(peer.to_owned()))
}

fn unexpected(peer: &str) -> NetError {
    NetError::Protocol { peer: peer.to_owned(), cause: "it answered another question".to_owned() }
}
