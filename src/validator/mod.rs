//! Decides the manifest log: one of its validators, with Malachite's core as the engine.
//!
//! Owns: the handle that the rest of the program holds, and the task behind it.
//! Must not know: what carries messages between validators (`link`), or what entries say.
//! Invariant: whoever submits an entry is answered: where it was decided, why it was refused, or why nobody knows.
//! And this validator never signs two contradicting votes, whatever crashes in between (`wal`, `signing`).
//! Trust: submitted entries and incoming messages are foreign; the ledger and the engine check them.
//! Threads: one task waits; each turn of the driver, which may block on the disk and on signatures, runs on a
//! blocking thread, one at a time. A crash leaves what `wal` describes.
//!
//! Bottom up: `context` (types), `signing`, `wire` (encodings), `wal`, `timers`, `link`, `mempool`, `app` (build, judge,
//! commit), `accusations` (equivocation on its way into the log), `effects` (what the engine wants), `driver` (what it is fed).

mod accusations;
mod app;
mod context;
mod driver;
mod effects;
pub mod link;
mod mempool;
mod signing;
#[cfg(test)]
mod tests;
mod timers;
mod wal;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_malachitebft_core_types::LinearTimeouts;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::chain::Chain;
use crate::crypto::{PublicKey, SecretKey};
use crate::id::EntryId;
use crate::log::{Entry, Ledger, Refusal};
use driver::{Driver, Event};
use link::{Incoming, Link};
use mempool::Reply;
pub use signing::DoubleSign;
pub use wal::WalError;
use wire::Message;

/// How long `submit` waits for a decision.
const SUBMIT_DEADLINE: Duration = Duration::from_secs(30);
/// Most events of each kind that one turn takes in, so that a flood delays nobody's vote for long.
const MAX_EVENTS: usize = 2048;
/// Bytes of messages after which a turn takes in no further one.
const MAX_BYTES: usize = 8 << 20;
/// Submissions that may wait for the next turn; further ones wait in `submit`.
const MAX_SUBMISSIONS: usize = 1024;

/// Why a validator does not run, or an entry was not decided.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ValidatorError {
    /// See `WalError`.
    #[error(transparent)]
    Wal(Arc<WalError>),
    /// The log on disk cannot be read or written, or is corrupt.
    #[error("the manifest log failed: {0}")]
    Chain(String),
    /// A defect of this program. The validator has stopped, and a restart goes on from the write-ahead log.
    #[error("the consensus engine stopped: {0}")]
    Engine(String),
    /// A defect of this program, caught before it did harm. The validator has stopped.
    #[error(transparent)]
    DoubleSign(#[from] DoubleSign),
    /// The user's mistake.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Retry later.
    #[error("too many entries are waiting to be decided; try again in a moment")]
    Busy,
    /// The user's mistake: submit to a validator of the network.
    #[error("this machine's key {key} is not a validator of the log at height {height}")]
    NotAValidator { key: PublicKey, height: u64 },
    /// Damage that only the user can judge.
    #[error(
        "not voting at height {height}: what this validator signed there before is not known, because its \
         write-ahead log {path} was lost or the log was put back to an earlier state. Restore them; or, only if this \
         key has certainly not voted at that height anywhere, delete {path} and {path}.lock and restart",
        path = path.display()
    )]
    Abstaining { height: u64, path: PathBuf },
    /// Retry: if the entry was decided after all, submitting it again says so.
    #[error("not decided within {} s: too few validators are reachable; the entry may still be decided", after.as_secs())]
    TimedOut { after: Duration },
    /// Retry after a restart; the cause says whether that will help.
    #[error("the validator has stopped: {cause}")]
    Stopped { cause: String },
}

impl From<WalError> for ValidatorError {
    fn from(error: WalError) -> Self {
        Self::Wal(Arc::new(error))
    }
}

impl ValidatorError {
    fn chain(cause: impl ToString) -> Self {
        Self::Chain(cause.to_string())
    }
}

/// Where an entry was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub height: u64,
    /// The round of the certificate; 0 unless a proposer was late or wrong.
    pub round: u32,
    /// The entry in the log. Another than was submitted if that one said the same earlier.
    pub entry: EntryId,
}

/// The time, read once a turn.
#[derive(Debug, Clone, Copy)]
struct Now {
    instant: Instant,
    unix_ms: u64,
}

impl Now {
    fn read() -> Self {
        // A clock before 1970 reads as 1970; the ledger never lets the log's time go backwards.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// A running validator. Dropping the handle stops it too, without waiting.
#[derive(Debug)]
pub struct Validator {
    submissions: mpsc::Sender<(Entry, Reply)>,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
    fault: Arc<OnceLock<ValidatorError>>,
}

impl Validator {
    /// Starts the validator `key` of `chain`, alone or waiting for blocks to reach the chain another way, with its
    /// write-ahead log at `wal_path`. Needs a tokio runtime. Replays what a crash has left.
    pub fn start(key: SecretKey, chain: Arc<Chain>, wal_path: &Path) -> Result<Self, ValidatorError> {
        Self::join(key, chain, wal_path, Link::nowhere())
    }

    /// Starts a validator that reaches the others through `link`.
    pub fn join(
        key: SecretKey,
        chain: Arc<Chain>,
        wal_path: &Path,
        link: Link,
    ) -> Result<Self, ValidatorError> {
        Self::spawn(key, chain, wal_path, link, LinearTimeouts::default())
    }

    fn spawn(
        key: SecretKey,
        chain: Arc<Chain>,
        wal_path: &Path,
        link: Link,
        timeouts: LinearTimeouts,
    ) -> Result<Self, ValidatorError> {
        let head = chain.subscribe();
        let Link { outgoing, incoming } = link;
        let driver = Driver::open(key, chain, wal_path, outgoing, timeouts, Now::read())?;
        let (submissions, submitted) = mpsc::channel(MAX_SUBMISSIONS);
        let (stop, stopped) = watch::channel(false);
        let fault = Arc::new(OnceLock::new());
        let inbox = Inbox { submitted, incoming, head, stopped, linked: true };
        let task = tokio::spawn(run(driver, inbox, Arc::clone(&fault)));
        Ok(Self { submissions, stop, task: Mutex::new(Some(task)), fault })
    }

    /// Has `entry` decided, and says where. The entry is durable on this machine when this returns.
    pub async fn submit(&self, entry: Entry) -> Result<Committed, ValidatorError> {
        let (reply, answer) = oneshot::channel();
        let decided = async {
            self.submissions.send((entry, reply)).await.map_err(|_| self.stopped())?;
            answer.await.map_err(|_| self.stopped())?
        };
        let timed_out = |_| ValidatorError::TimedOut { after: SUBMIT_DEADLINE };
        tokio::time::timeout(SUBMIT_DEADLINE, decided).await.map_err(timed_out)?
    }

    /// Ends the turn in progress, then stops. Everything signed is on disk.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.lock().await.take() {
            // A panic has been recorded as the fault.
            let _ = task.await;
        }
    }

    fn stopped(&self) -> ValidatorError {
        let cause = self.fault.get().map_or("it was asked to".to_owned(), ToString::to_string);
        ValidatorError::Stopped { cause }
    }
}

/// All that the task waits for.
struct Inbox {
    submitted: mpsc::Receiver<(Entry, Reply)>,
    incoming: mpsc::Receiver<Incoming>,
    head: watch::Receiver<Arc<Ledger>>,
    stopped: watch::Receiver<bool>,
    linked: bool,
}

impl Inbox {
    /// Waits until something happens or `idle` has passed, and returns what has; `None` when it is time to stop.
    async fn next(&mut self, idle: Option<Duration>) -> Option<Vec<Event>> {
        let mut events = Vec::new();
        tokio::select! {
            biased;
            _ = self.stopped.wait_for(|stop| *stop) => return None,
            submission = self.submitted.recv() => {
                let (entry, reply) = submission?;
                events.push(Event::Submit(Box::new(entry), reply));
            }
            message = self.incoming.recv(), if self.linked => match message {
                Some(message) => events.extend(read(&message)),
                None => self.linked = false,
            },
            _ = self.head.changed() => {}
            _ = tokio::time::sleep(idle.unwrap_or_default()), if idle.is_some() => {}
        }
        // What has gathered meanwhile goes into the same turn, and so into the same block and the same flush. Neither
        // kind can crowd out the other, and decoded blocks cannot fill the memory.
        let mut room = MAX_BYTES;
        let gathered = std::iter::from_fn(|| {
            let message = (room > 0).then(|| self.incoming.try_recv().ok()).flatten()?;
            room = room.saturating_sub(message.1.len());
            Some(message)
        });
        let messages = gathered.take(MAX_EVENTS);
        events.extend(messages.filter_map(|message| read(&message)));
        let submissions = std::iter::from_fn(|| self.submitted.try_recv().ok()).take(MAX_EVENTS);
        events.extend(submissions.map(|(entry, reply)| Event::Submit(Box::new(entry), reply)));
        Some(events)
    }
}

fn read((from, bytes): &Incoming) -> Option<Event> {
    match Message::decode(bytes) {
        Ok(decoded) => Some(Event::Message(*from, decoded)),
        Err(error) => {
            tracing::warn!(from = %from.short(), %error, "ignored a message");
            None
        }
    }
}

async fn run(mut driver: Driver, mut inbox: Inbox, fault: Arc<OnceLock<ValidatorError>>) {
    loop {
        // Our own commits have been seen by the driver. One from elsewhere that came after it looked is taken up now.
        let missed = inbox.head.borrow_and_update().height() >= driver.height();
        let idle = if missed { Some(Duration::ZERO) } else { driver.idle_for(Now::read()) };
        let Some(events) = inbox.next(idle).await else { return };
        let turn = spawn_blocking(move || {
            let result = driver.turn(events, Now::read());
            (driver, result)
        });
        let error = match turn.await {
            Ok((back, Ok(()))) => {
                driver = back;
                continue;
            }
            Ok((_, Err(error))) => error,
            Err(panic) => ValidatorError::Engine(panic.to_string()),
        };
        tracing::error!(%error, "the validator stops");
        // The first fault is the one that counts.
        let _ = fault.set(error);
        return;
    }
}
