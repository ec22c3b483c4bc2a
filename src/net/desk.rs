//! The scheduler at work: what is wanted here, brought by peers and origins.
//!
//! Owns: the one [`Scheduler`] of the node, whom it asks ([`Who`]), who waits for which object, and the requests under way.
//! Must not know: frames and streams; the local store.
//! Invariant: whoever waits for an object is answered once; what nobody waits for any more is taken back. The lock is held for
//! bookkeeping only.
//! Trust: none in any peer; objects are told to the scheduler as delivered once they are verified.
//! Threads: any; each request is a task of its own, and one task watches the clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::PeerId;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::shared::Shared;
use crate::fetch::{ChunkSource, FetchError};
use crate::id::ObjectId;
use crate::pack::Checked;
use crate::swarm::choice::{Failure, Verdict};
use crate::swarm::scheduler::{Action, Flow, Kind, Scheduler};
use crate::swarm::{Class, Spread};

/// Who can be asked for objects, in few bytes: the scheduler keeps several for each object that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Who {
    /// By its [`key_of`]; to find another peer with the same takes some 2^64 key pairs.
    Peer(u64),
    /// The object stores of this node, all together.
    Origin,
}

impl Who {
    pub(super) fn peer(id: &PeerId) -> Who {
        Who::Peer(key_of(id))
    }
}

/// How one search for an object ends.
pub(super) type Outcome = Result<Checked, GivenUp>;

/// Why nobody is left whom to ask.
pub(super) struct GivenUp {
    /// What the answers of peers amount to.
    pub(super) verdict: Verdict,
    /// What the origins have said, if they were asked.
    pub(super) origin: Option<FetchError>,
}

/// The clock is looked at again when nothing is due for so long.
const IDLE: Duration = Duration::from_secs(3600);

pub(super) struct Desk {
    state: Mutex<State>,
    /// Something is due earlier than was planned.
    sooner: Notify,
}

struct State {
    scheduler: Scheduler<Who>,
    /// Everybody connected who can be asked.
    peers: HashMap<Who, PeerId>,
    /// There is one exactly while [`Who::Origin`] is up.
    origin: Option<Arc<dyn ChunkSource>>,
    /// Why the origins have not delivered something that somebody waits for.
    refused: HashMap<ObjectId, FetchError>,
    waiting: HashMap<ObjectId, Vec<Waiter>>,
    asks: HashMap<(ObjectId, Who), AbortHandle>,
    waiters: u64,
    /// When the clock will be looked at, since the start of the node.
    planned: Duration,
}

struct Waiter {
    number: u64,
    reply: oneshot::Sender<Outcome>,
}

impl Desk {
    pub(super) fn new(me: &PeerId) -> Desk {
        let state = State {
            scheduler: Scheduler::new(key_of(me)),
            peers: HashMap::new(),
            origin: None,
            refused: HashMap::new(),
            waiting: HashMap::new(),
            asks: HashMap::new(),
            waiters: 0,
            planned: Duration::ZERO,
        };
        Desk { state: Mutex::new(state), sooner: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each call of the scheduler is one step, and the tables beside it are changed in one step each.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an object is wanted here and has not come.
    pub(super) fn wants(&self, object: &ObjectId) -> bool {
        self.state().scheduler.wants(object)
    }

    /// Whether anything at all is wanted here.
    pub(super) fn is_fetching(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Lets go of everybody who waits.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        state.waiting.clear();
        state.origin = None;
        state.asks.drain().for_each(|(_, ask)| ask.abort());
    }
}

/// What names a peer in rendezvous, the same on every node: the first bytes of the BLAKE3 of its id.
fn key_of(peer: &PeerId) -> u64 {
    let hash = blake3::hash(&peer.to_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl Shared {
    /// Tells the scheduler something, and does what follows from it.
    pub(super) fn schedule<T>(self: &Arc<Self>, event: impl FnOnce(&mut Scheduler<Who>, Duration) -> T) -> T {
        let now = self.started.elapsed();
        let mut state = self.desk.state();
        let result = event(&mut state.scheduler, now);
        self.carry_out(&mut state, now);
        result
    }

    /// `peer` is connected, and can be asked from now on.
    pub(super) fn peer_up(self: &Arc<Self>, peer: PeerId) {
        let (who, now) = (Who::peer(&peer), self.started.elapsed());
        let mut state = self.desk.state();
        state.peers.insert(who, peer);
        state.scheduler.peer_up(now, who, key_of(&peer), Kind::Node { watches: true });
        self.carry_out(&mut state, now);
    }

    /// `peer` is connected no more.
    pub(super) fn peer_gone(self: &Arc<Self>, peer: &PeerId) {
        let (who, now) = (Who::peer(peer), self.started.elapsed());
        let mut state = self.desk.state();
        state.peers.remove(&who);
        state.scheduler.peer_down(now, who, Failure::Lost);
        self.carry_out(&mut state, now);
    }

    /// What is asked for later use of each peer that can be asked.
    pub(super) fn flows(&self) -> Vec<(PeerId, Flow)> {
        let state = self.desk.state();
        let flows = state.scheduler.flows();
        flows.filter_map(|(who, flow)| Some((*state.peers.get(&who)?, flow))).collect()
    }

    /// Waits for an object to come from somebody else. Dropping the future takes it back.
    pub(super) async fn search(self: &Arc<Self>, object: ObjectId, class: Class, spread: Spread) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let bytes = self.guess().credit(object.kind).into();
        let now = self.started.elapsed();
        let number = {
            let mut state = self.desk.state();
            state.waiters += 1;
            let number = state.waiters;
            state.waiting.entry(object).or_default().push(Waiter { number, reply });
            state.scheduler.want(now, object, class, spread, bytes);
            self.carry_out(&mut state, now);
            number
        };
        let _leave = Leave { shared: self, object, number };
        self.watchers.coming(object);
        // The sender is dropped without a word when the network is shut down.
        outcome.await.unwrap_or(Err(GivenUp { verdict: Verdict::Unreachable, origin: None }))
    }

    /// Asks `origin` from now on for what no peer has; without one, peers alone are asked.
    pub(super) fn set_origin(self: &Arc<Self>, origin: Option<Arc<dyn ChunkSource>>) {
        let now = self.started.elapsed();
        let mut state = self.desk.state();
        // It brings nothing that nobody asks it for, so its place in rendezvous is never looked at.
        match &origin {
            Some(_) => state.scheduler.peer_up(now, Who::Origin, 0, Kind::Origin),
            None => state.scheduler.peer_down(now, Who::Origin, Failure::Lost),
        }
        state.origin = origin;
        self.carry_out(&mut state, now);
    }

    /// The origins have not delivered an object.
    pub(super) fn refused(self: &Arc<Self>, object: ObjectId, error: FetchError) {
        let failure = match error {
            FetchError::NotFound { .. } => Failure::Missing,
            FetchError::TimedOut { .. } => Failure::TimedOut,
            FetchError::Corrupt { .. } => Failure::Wrong,
            FetchError::Unreachable { .. } | FetchError::NotAsked { .. } | FetchError::Store(_) => {
                Failure::Lost
            }
        };
        let now = self.started.elapsed();
        let mut state = self.desk.state();
        if state.waiting.contains_key(&object) {
            state.refused.insert(object, error);
        }
        state.scheduler.failed(now, Who::Origin, object, failure);
        self.carry_out(&mut state, now);
    }

    /// An object has come from `who` and is what they were asked for.
    pub(super) fn delivered(self: &Arc<Self>, who: Who, checked: &Checked) {
        let object = checked.id();
        self.hot.keep(object, checked.packed());
        self.watchers.here(object);
        let now = self.started.elapsed();
        let mut state = self.desk.state();
        state.asks.remove(&(object, who));
        state.refused.remove(&object);
        let waiters = state.waiting.remove(&object).unwrap_or_default();
        state.scheduler.delivered(now, who, object, checked.packed().stored().len() as u64);
        self.carry_out(&mut state, now);
        drop(state);
        for waiter in waiters {
            // Whoever has gone needs no answer.
            let _ = waiter.reply.send(Ok(checked.clone()));
        }
    }

    /// Looks at the clock for the scheduler until the node ends.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            let planned = self.started + self.desk.state().planned;
            tokio::select! {
                () = sleep_until(Instant::from_std(planned)) => self.schedule(|scheduler, now| scheduler.tick(now)),
                () = self.desk.sooner.notified() => {}
            }
        }
    }

    fn carry_out(self: &Arc<Self>, state: &mut State, now: Duration) {
        for action in state.scheduler.actions() {
            match action {
                Action::Ask { object, class, peer } => {
                    let (shared, id) = (self.clone(), state.peers.get(&peer).copied());
                    let origin = state.origin.clone().filter(|_| peer == Who::Origin);
                    let ask = async move {
                        match (id, origin) {
                            (Some(id), _) => shared.ask(id, object, class).await,
                            (None, Some(origin)) => shared.ask_origin(&*origin, object, class).await,
                            (None, None) => {}
                        }
                    };
                    let task = self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(ask));
                    state.asks.insert((object, peer), task.abort_handle());
                }
                Action::Cancel { object, peer } => {
                    if let Some(ask) = state.asks.remove(&(object, peer)) {
                        ask.abort();
                    }
                }
                Action::Watch { peer, objects } => {
                    // An object store has nothing to tell, and is not asked.
                    if let Some(id) = state.peers.get(&peer).copied() {
                        let watch = self.clone().watch(id, objects);
                        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(watch));
                    }
                }
                Action::GiveUp { object, verdict } => {
                    let origin = state.refused.remove(&object);
                    for waiter in state.waiting.remove(&object).unwrap_or_default() {
                        // Whoever has gone needs no answer.
                        let _ = waiter.reply.send(Err(GivenUp { verdict, origin: origin.clone() }));
                    }
                }
            }
        }
        let next = state.scheduler.wake_at(now).unwrap_or(now + IDLE);
        if next < state.planned || state.planned <= now {
            state.planned = next;
            self.desk.sooner.notify_one();
        }
    }

    fn leave(self: &Arc<Self>, object: ObjectId, number: u64) {
        let now = self.started.elapsed();
        let mut state = self.desk.state();
        let Some(waiters) = state.waiting.get_mut(&object) else { return };
        waiters.retain(|waiter| waiter.number != number);
        if waiters.is_empty() {
            state.waiting.remove(&object);
            state.refused.remove(&object);
            state.scheduler.unwant(now, object);
            self.carry_out(&mut state, now);
        }
    }
}

/// One who waits. Dropping it means that they do not wait any more.
struct Leave<'a> {
    shared: &'a Arc<Shared>,
    object: ObjectId,
    number: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.shared.leave(self.object, self.number);
    }
}
