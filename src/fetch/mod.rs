//! The one way to an object: the local store first, then whoever else may have it, and never an unverified byte.
//!
//! Owns: which objects are being got (one flight each, however many wait), retries and their deadlines, the check of
//! what the local store gives, the way of what was fetched into the cache (`behind`), and the counters of all that.
//! Must not know: peers, connections, files.
//! Invariant: what is returned for an id hashes to that id. There is at most one request of a source for an object at a time; it
//! ends when it is answered or when nobody waits any more.
//! Trust: the local disk and every source may give wrong bytes. `Checked` can only be made by verifying.
//! Threads: async, on tokio; the store is called on the blocking pool. `local` alone blocks its caller.
//! A crash loses what was not yet cached; it is fetched again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use futures::future::{BoxFuture, FutureExt, Shared, WeakShared};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::id::ObjectId;
use crate::pack::Checked;
use crate::store::{Keep, Store, StoreError};
pub use crate::swarm::Class;
pub use lookups::Lookups;
pub use share::Share;

use behind::Behind;
use share::Shares;
use threads::{blocking, outcome_of};

mod behind;
mod lookups;
mod share;
#[cfg(test)]
mod tests;
mod threads;

/// Objects that one `get_many` waits for at a time.
const CONCURRENT: usize = 64;

/// The first and the longest pause between two rounds of asking everybody.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why there is no object. `Unreachable` and `TimedOut` may pass when tried again later; `NotFound` when the object
/// has been published somewhere; `NotAsked` when there is a source; `Corrupt` when a better source appears; `Store` is for the operator.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    #[error("{id} is not here and nobody who could be asked has it")]
    NotFound { id: ObjectId },
    #[error(
        "{id} is not here, and nobody is asked for it (fetch=local); `bcai prefetch` or `bcai pin` brings what is to be \
         read, and a mount with -o fetch=spread fetches it"
    )]
    NotAsked { id: ObjectId },
    #[error("{id} is not here and could not be fetched: {cause}")]
    Unreachable { id: ObjectId, cause: String },
    #[error("{id} is not here and did not come within {after:?}")]
    TimedOut { id: ObjectId, after: Duration },
    #[error("{id} was answered only with bytes that are something else: {cause}")]
    Corrupt { id: ObjectId, cause: String },
    #[error("the local store failed: {0}")]
    Store(#[from] Arc<StoreError>),
}

impl FetchError {
    /// Whether asking again in a moment may help.
    fn is_passing(&self) -> bool {
        matches!(self, FetchError::Unreachable { .. } | FetchError::TimedOut { .. })
    }

    /// Of the failures of two who were asked for the same object, what the user should know and what decides whether to try again:
    /// damage before what may pass, and either before nobody having it.
    pub fn or_worse(self, other: FetchError) -> FetchError {
        use FetchError::{Corrupt, NotFound, Unreachable};
        match (self, other) {
            (one, NotFound { .. }) => one,
            (NotFound { .. }, other) => other,
            (Unreachable { id, cause }, Unreachable { cause: also, .. }) => {
                Unreachable { id, cause: format!("{cause}; {also}") }
            }
            (one @ Corrupt { .. }, _) => one,
            (_, other) => other,
        }
    }
}

/// Somewhere objects can come from that is not the local store. One call asks everybody whom it knows, once.
pub trait ChunkSource: Send + Sync + 'static {
    fn fetch(&self, id: ObjectId, class: Class) -> BoxFuture<'_, Result<Checked, FetchError>>;
}

/// How long a request of this class may take in all, retries included.
pub fn patience(class: Class) -> Duration {
    Duration::from_secs(match class {
        Class::Fault => 20,
        Class::Readahead => 30,
        Class::Prefetch => 120,
        Class::Replicate => 600,
    })
}

/// What has happened since the start, in objects unless named otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FetchStats {
    /// Found in the local store and verified, by who needed it then: what is looked for ahead of that does not count.
    pub local_hits: u64,
    /// Plain bytes of those.
    pub local_bytes: u64,
    /// Not found by who needed it then, and fetched.
    pub awaited: u64,
    /// Fetched from elsewhere and verified, also ahead of need.
    pub fetched: u64,
    /// Plain bytes of those.
    pub fetched_bytes: u64,
    /// Wrong bytes in the local store, or answers of a source that ended as corrupt.
    pub corrupt: u64,
    /// Further rounds of asking after a failed one.
    pub retries: u64,
    /// Fetched and not cached, because the disk did not keep up.
    pub bypassed: u64,
}

struct Counters {
    started: Instant,
    shares: Mutex<Shares>,
    local_hits: AtomicU64,
    local_bytes: AtomicU64,
    awaited: AtomicU64,
    fetched: AtomicU64,
    fetched_bytes: AtomicU64,
    corrupt: AtomicU64,
    retries: AtomicU64,
}

impl Counters {
    fn new() -> Self {
        let [local_hits, local_bytes, awaited, fetched, fetched_bytes, corrupt, retries] = Default::default();
        let (started, shares) = (Instant::now(), Mutex::default());
        Self { started, shares, local_hits, local_bytes, awaited, fetched, fetched_bytes, corrupt, retries }
    }

    // Sums, changed in single steps.
    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Outcome = Result<Checked, FetchError>;

/// How a flight ends: with the object, and whether it is in the store or on its way there.
type Landed = Result<(Checked, bool), FetchError>;

/// One object being got. Whoever waits holds the future; the table does not, so that it ends with the last waiter.
struct Flight {
    number: u64,
    future: WeakShared<BoxFuture<'static, Landed>>,
    class: watch::Sender<Class>,
}

#[derive(Default)]
struct Flights {
    started: u64,
    by_object: HashMap<ObjectId, Flight>,
}

/// Gets objects. Clones share everything.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    store: Store,
    lookups: Arc<Lookups>,
    behind: Arc<Behind>,
    source: Option<Arc<dyn ChunkSource>>,
    flights: Mutex<Flights>,
    counters: Arc<Counters>,
}

impl Fetcher {
    /// Without a source only the local store is asked.
    pub fn new(store: Store, source: Option<Arc<dyn ChunkSource>>) -> Fetcher {
        let (flights, counters) = (Mutex::default(), Arc::new(Counters::new()));
        let (behind, lookups) = (Arc::new(Behind::new(store.clone())), Lookups::new(store.clone()));
        Fetcher(Arc::new(Inner { store, lookups, behind, source, flights, counters }))
    }

    /// One with the same store, cache and counters that asks another source, or only the store.
    pub fn with_source(&self, source: Option<Arc<dyn ChunkSource>>) -> Fetcher {
        let Inner { store, lookups, behind, counters, .. } = &*self.0;
        let (store, lookups, behind) = (store.clone(), lookups.clone(), behind.clone());
        let (counters, flights) = (counters.clone(), Mutex::default());
        Fetcher(Arc::new(Inner { store, lookups, behind, source, flights, counters }))
    }

    /// The object if it is here and intact; never asks the network. Blocks for a disk read. What is here but wrong is
    /// reported as not here, so that it is fetched again, and forgotten unless it was published or is pinned.
    pub fn local(&self, id: &ObjectId) -> Result<Option<Checked>, FetchError> {
        match self.0.local(id)? {
            Local::Here(object) => Ok(Some(object)),
            Local::Absent | Local::Damaged(_) => Ok(None),
        }
    }

    /// The same for a reader: what is here is counted as found.
    pub fn local_to_read(&self, id: &ObjectId) -> Result<Option<Checked>, FetchError> {
        let found = self.local(id)?;
        found.iter().for_each(|object| self.0.hit(object));
        Ok(found)
    }

    /// The object, from here or from wherever it can be had within the [`patience`] of `class`. However many ask for
    /// the same object, one request is made; it goes on until the last of them has stopped waiting.
    ///
    /// Readers, and what is read ahead for them, do not wait for the cache: when the disk does not keep up, the
    /// object is not cached. Whoever fetches for later waits until it can be.
    pub async fn get(&self, id: ObjectId, class: Class) -> Result<Checked, FetchError> {
        let (object, kept) = self.0.join(id, class).await?;
        if !kept && class > Class::Readahead {
            self.0.behind.add(&object).await;
        }
        Ok(object)
    }

    /// Which of `ids` are not here, in their order. Blocks for look-ups in the index.
    pub fn missing(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, FetchError> {
        // The queue first: what leaves it is in the store.
        let rest = self.0.behind.without(ids);
        Ok(self.0.store.missing(&rest, Keep::Cache).map_err(Arc::new)?)
    }

    /// Waits until everything fetched so far is in the store, if it is to be cached at all.
    pub async fn flush(&self) {
        self.0.behind.flush().await;
    }

    /// Like [`get`](Self::get) for each of `ids`, some at a time; in the same order. Ends at the first error.
    pub async fn get_many(&self, ids: &[ObjectId], class: Class) -> Result<Vec<Checked>, FetchError> {
        let gets: Vec<_> = ids.iter().map(|id| self.get(*id, class)).collect();
        stream::iter(gets).buffered(CONCURRENT).try_collect().await
    }

    /// What each class gets of what is fetched.
    pub fn shares(&self) -> Vec<Share> {
        let counters = &self.0.counters;
        counters.shares().shares(counters.started.elapsed())
    }

    /// The counters as they stand.
    pub fn stats(&self) -> FetchStats {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FetchStats {
            local_hits: read(&counters.local_hits),
            local_bytes: read(&counters.local_bytes),
            awaited: read(&counters.awaited),
            fetched: read(&counters.fetched),
            fetched_bytes: read(&counters.fetched_bytes),
            corrupt: read(&counters.corrupt),
            retries: read(&counters.retries),
            bypassed: self.0.behind.bypassed(),
        }
    }
}

/// What the local store has of an object.
enum Local {
    Here(Checked),
    Absent,
    /// Something that is not the object; and why, where the store itself can tell.
    Damaged(Option<Arc<StoreError>>),
}

impl Inner {
    fn local(&self, id: &ObjectId) -> Result<Local, FetchError> {
        // The queue first: what leaves it is in the store.
        if let Some(checked) = self.behind.get(id) {
            return Ok(Local::Here(checked));
        }
        let (cause, error) = match self.store.get(id) {
            Ok(None) => return Ok(Local::Absent),
            Ok(Some(packed)) => match packed.verify(id) {
                Ok(checked) => return Ok(Local::Here(checked)),
                Err(cause) => (cause.to_string(), None),
            },
            Err(error) if error.is_damage() => (error.to_string(), Some(Arc::new(error))),
            Err(error) => return Err(Arc::new(error).into()),
        };
        tracing::warn!(%id, %cause, "a stored object is damaged and will be fetched again");
        self.counters.corrupt.fetch_add(1, Ordering::Relaxed);
        // A store that takes no writes any more is no reason not to ask others.
        if let Err(error) = self.store.forget(id) {
            tracing::warn!(%id, %error, "a damaged object could not be forgotten");
        }
        Ok(Local::Damaged(error))
    }

    /// The same for one of many who come at the same time.
    async fn look(self: &Arc<Self>, id: ObjectId) -> Result<Local, FetchError> {
        // The queue first: what leaves it is in the store.
        if let Some(checked) = self.behind.get(&id) {
            return Ok(Local::Here(checked));
        }
        match self.lookups.missing(vec![id]).await {
            Ok(missing) if missing.contains(&id) => Ok(Local::Absent),
            Ok(_) => {
                blocking({
                    let inner = self.clone();
                    move || inner.local(&id)
                })
                .await
            }
            Err(error) => Err(error.into()),
        }
    }

    fn hit(&self, object: &Checked) {
        self.counters.local_hits.fetch_add(1, Ordering::Relaxed);
        self.counters.local_bytes.fetch_add(object.plain().len() as u64, Ordering::Relaxed);
    }

    /// Waits for the flight of `id`, which is begun if there is none and hurried if it is less urgent.
    async fn join(self: &Arc<Self>, id: ObjectId, class: Class) -> Landed {
        let future = {
            let mut flights = self.flights();
            let known = flights.by_object.get(&id);
            match known.and_then(|flight| Some((flight.future.upgrade()?, &flight.class))) {
                Some((future, current)) => {
                    current.send_if_modified(|current| {
                        let hurried = class < *current;
                        *current = class.min(*current);
                        hurried
                    });
                    future
                }
                None => self.begin(&mut flights, id, class),
            }
        };
        future.await
    }

    fn begin(
        self: &Arc<Self>,
        flights: &mut Flights,
        id: ObjectId,
        class: Class,
    ) -> Shared<BoxFuture<'static, Landed>> {
        flights.started += 1;
        let number = flights.started;
        let (sender, receiver) = watch::channel(class);
        let landing = Landing { inner: self.clone(), id, number };
        // A task of its own: it holds what others wait for, such as its share of what may be received, and must not
        // stand still because the one who asked for it waits for something else first.
        let flight = async move {
            let fly = async move { landing.inner.clone().fly(id, receiver).await };
            outcome_of(AbortOnDropHandle::new(tokio::spawn(fly)).await).await
        };
        let future = flight.boxed().shared();
        // A future that was never polled is not complete, so there is something to downgrade to.
        if let Some(weak) = future.downgrade() {
            flights.by_object.insert(id, Flight { number, future: weak, class: sender });
        }
        future
    }

    /// The store is asked within the flight, so that whoever comes just after another flight has landed finds what
    /// that one has brought.
    async fn fly(self: Arc<Self>, id: ObjectId, class: watch::Receiver<Class>) -> Landed {
        let local = self.look(id).await;
        // What the disk cannot give others may; if not, the disk is what there is to complain about.
        let (damaged, failed) = match local {
            Ok(Local::Here(here)) => {
                if *class.borrow() == Class::Fault {
                    self.hit(&here);
                }
                return Ok((here, true));
            }
            Ok(Local::Absent) => (false, None),
            Ok(Local::Damaged(error)) => (true, error.map(FetchError::Store)),
            Err(error) => {
                tracing::warn!(%id, %error, "the store cannot be read");
                (false, Some(error))
            }
        };
        let Some(source) = &self.source else { return Err(failed.unwrap_or(FetchError::NotAsked { id })) };
        let outcome = self.fetch(id, class.clone(), &**source).await.map_err(|error| match failed {
            // That nobody can be reached is what another try may mend.
            Some(_) if damaged && !matches!(error, FetchError::NotFound { .. }) => error,
            failed => failed.unwrap_or(error),
        });
        if let Err(FetchError::Corrupt { .. }) = &outcome {
            self.counters.corrupt.fetch_add(1, Ordering::Relaxed);
        }
        let checked = outcome?;
        self.counters.fetched.fetch_add(1, Ordering::Relaxed);
        // Also what was being fetched ahead when somebody came to need it.
        let class = *class.borrow();
        self.counters.awaited.fetch_add(u64::from(class == Class::Fault), Ordering::Relaxed);
        let bytes = checked.plain().len() as u64;
        self.counters.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counters.shares().add(self.counters.started.elapsed(), class, bytes);
        if damaged {
            self.replace(&checked).await;
            return Ok((checked, true));
        }
        let kept = self.behind.try_add(&checked);
        if !kept && class <= Class::Readahead {
            self.behind.bypass();
        }
        Ok((checked, kept))
    }

    /// Puts a good copy in the place of a damaged one, at once: whoever repairs looks again.
    async fn replace(self: &Arc<Self>, object: &Checked) {
        let (inner, good) = (self.clone(), object.clone());
        if let Err(error) = blocking(move || inner.store.replace(&good)).await {
            tracing::warn!(id = %object.id(), %error, "a damaged object could not be replaced");
        }
    }

    /// Asks as urgently as the most urgent of those who wait.
    async fn fetch(
        &self,
        id: ObjectId,
        mut class: watch::Receiver<Class>,
        source: &dyn ChunkSource,
    ) -> Outcome {
        loop {
            let current = *class.borrow_and_update();
            tokio::select! {
                outcome = self.ask(id, current, source) => return outcome,
                // What was asked for stands behind others at the peer, so it is given up and asked for again.
                Ok(()) = class.changed() => {}
            }
        }
    }

    /// Asks the source, again and again while the failure may pass, until the time for this class is over.
    async fn ask(&self, id: ObjectId, class: Class, source: &dyn ChunkSource) -> Outcome {
        let after = patience(class);
        let pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSES.0)
            .with_max_delay(PAUSES.1)
            .without_max_times();
        let last = Mutex::new(None);
        let attempt = || async move {
            let checked = source.fetch(id, class).await?;
            let other = checked.id();
            let cause = || format!("the source answered with {other}");
            if other == id { Ok(checked) } else { Err(FetchError::Corrupt { id, cause: cause() }) }
        };
        let attempts =
            attempt.retry(pauses.with_jitter()).when(FetchError::is_passing).notify(|error, pause| {
                tracing::debug!(%id, %error, ?pause, "fetching again");
                self.counters.retries.fetch_add(1, Ordering::Relaxed);
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
            });
        match tokio::time::timeout(after, attempts).await {
            Ok(outcome) => outcome,
            // Why it failed each time says more than that it did.
            Err(_) => {
                let last = last.into_inner().unwrap_or_else(PoisonError::into_inner);
                Err(last.unwrap_or(FetchError::TimedOut { id, after }))
            }
        }
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        // No operation on the table can leave it half done.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lives in a flight's future, and takes the flight off the table when that ends or is dropped by its last waiter.
struct Landing {
    inner: Arc<Inner>,
    id: ObjectId,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let flights = &mut self.inner.flights().by_object;
        // When all waiters have gone, another flight may have begun in the meantime: that one stays.
        if flights.get(&self.id).is_some_and(|flight| flight.number == self.number) {
            flights.remove(&self.id);
        }
    }
}
