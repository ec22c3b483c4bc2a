//! What the tasks of the network share.
//!
//! Owns: the handles, counters and limits that every part of `net` needs, and the program's name on the wire.
//! Must not know: how each part uses them.
//! Invariant: nothing here waits for anything but room in a bounded queue.
//! Trust: ours only.
//! Threads: any.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use libp2p::{Multiaddr, PeerId, StreamProtocol};
use minicbor::{Decode, Encode};
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::desk::Desk;
use super::error::NetError;
use super::frames::FrameError;
use super::gossip::News;
use super::hot::Hot;
use super::lender::Lender;
use super::letters::Letters;
use super::limits::Limits;
use super::log_wire::{self, LogWireError};
use super::streams::{Control, Route};
use super::table::Table;
use super::trackers::Trackers;
use super::watchers::Watchers;
use crate::chain::Registry;
use crate::fetch::Lookups;
use crate::id::Genesis;
use crate::store::Store;
use crate::swarm::credit::Guess;

/// The protocol of objects.
pub(super) const SWARM_PROTOCOL: StreamProtocol = StreamProtocol::new("/bcai/swarm/1");
/// The protocol of the manifest log.
pub(super) const LOG_PROTOCOL: StreamProtocol = StreamProtocol::new("/bcai/log/1");
/// The protocol of announcements.
pub(super) const PEERS_PROTOCOL: StreamProtocol = StreamProtocol::new("/bcai/peers/1");
/// The protocol of replicas.
pub(super) const REPLICA_PROTOCOL: StreamProtocol = StreamProtocol::new("/bcai/replica/1");
/// The protocol of validators.
pub(super) const VALIDATOR_PROTOCOL: StreamProtocol = StreamProtocol::new("/bcai/validator/1");

/// Objects that are verified at the same time.
pub(super) const VERIFIERS: usize = 4;

/// What the driver is asked to do.
pub(super) enum Command {
    Dial {
        address: Multiaddr,
        reply: oneshot::Sender<Result<PeerId, NetError>>,
    },
    /// Connect to a peer of which others have told, if there is room for it.
    Meet {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    },
    /// Connect to members of this node's swarms, as far as there is room for such.
    MeetMembers,
    Tell(News),
    /// Close all connections with a peer that broke the protocol, or does not speak it.
    Disconnect(PeerId),
    Ban(PeerId),
    Pardon(PeerId),
}

pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) lookups: Arc<Lookups>,
    pub(super) control: Control,
    pub(super) table: Table,
    pub(super) desk: Desk,
    pub(super) hot: Hot,
    pub(super) watchers: Arc<Watchers>,
    pub(super) trackers: Arc<Trackers>,
    pub(super) letters: Letters,
    /// The logs of all networks of this node.
    pub(super) chains: Registry,
    pub(super) me: PeerId,
    /// Connections at most.
    pub(super) max_peers: usize,
    pub(super) lender: Arc<Lender>,
    pub(super) limits: Limits,
    pub(super) verifiers: Semaphore,
    pub(super) commands: mpsc::Sender<Command>,
    /// Whether this node is on the loopback alone.
    pub(super) near: bool,
    /// Heads of logs as others tell them.
    pub(super) heads: broadcast::Sender<(Genesis, u64)>,
    /// Woken when somebody begins to listen to what is told to all.
    pub(super) listeners: Notify,
    /// What `now` is counted from.
    pub(super) started: Instant,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) guess: Mutex<Guess>,
}

impl Shared {
    /// Tells the driver. After the shutdown there is nobody to be told.
    pub(super) async fn command(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }

    /// A stream with `peer` has ended with `error`: what breaks the protocol ends the connection.
    pub(super) async fn on_stream_error(&self, peer: PeerId, error: &FrameError) {
        if let FrameError::Violation(violation) = error {
            tracing::warn!(%peer, %violation, "a peer broke the protocol and is disconnected");
            self.command(Command::Disconnect(peer)).await;
        }
    }

    /// One question and its answer, of at most `max` bytes and called `what`, on a stream of their own.
    pub(super) async fn exchange<Q, A>(
        &self,
        peer: PeerId,
        protocol: StreamProtocol,
        question: &Q,
        (what, max): (&'static str, usize),
    ) -> Result<A, LogWireError>
    where
        Q: Encode<()>,
        A: for<'b> Decode<'b, ()> + Encode<()>,
    {
        let opened = self.control.open(peer, protocol, Route::Shared).await;
        let mut stream = opened.map_err(std::io::Error::other)?;
        log_wire::write(&mut stream, question).await?;
        log_wire::read(&mut stream, what, max).await
    }

    pub(super) fn guess(&self) -> MutexGuard<'_, Guess> {
        // One number is set at a time.
        self.guess.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of this program on the wire.
pub(super) fn agent() -> String {
    concat!("bcai/", env!("CARGO_PKG_VERSION")).to_owned()
}

/// The clock of this machine, in Unix milliseconds.
pub(super) fn clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Runs `work` where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // Blocking tasks are not cancelled once begun, except while the runtime ends; then nobody polls this.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
