//! Asking one peer for objects: the three streams of a session, seen from the side that wants.
//!
//! Owns: opening the streams, the tasks that read and write them; what comes is the matter of `arriving`.
//! Must not know: which peer is chosen and why, or whether an object is right.
//! Invariant: bytes are held only under a lease of the node's budget. However the session ends, every request is told.
//! Trust: the peer is a stranger. What breaks the protocol ends the session and the connection.
//! Threads: async; one task writes (control) and one reads each stream, as a single one would deadlock on Yamux.

mod arriving;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::BytesMut;
use futures::io::AsyncReadExt;
use libp2p::{PeerId, Stream};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub(super) use arriving::Delivery;
use arriving::{Loan, Waiting};

use super::desk::Who;
use super::frames::{self, FrameError, FrameReader, out_of_place};
use super::lender::Lease;
use super::patience::{attempt, patiently};
use super::shared::{SWARM_PROTOCOL, Shared};
use super::streams::{OpenError, Route};
use super::table::Link;
use crate::id::ObjectId;
use crate::swarm::asking::{Asking, batch};
use crate::swarm::choice;
use crate::swarm::credit::Stage;
use crate::swarm::scheduler::Told;
use crate::swarm::serving::MAX_WANTS;
use crate::swarm::watching::Watching;
use crate::swarm::wire::{
    Attach, Cancel, Credit, Hello, MAX_NAMED, Message, Presence, TELLS, WATCHES, Want, Watch,
};
use crate::swarm::{Class, Lane, MAX_OBJECT};

/// How asking a peer failed.
pub(super) type Failure = choice::Failure<Who>;

/// How long the peer may take to open a session, however often that is tried. Less than any [`attempt`].
const OPENING: Duration = Duration::from_secs(4);
/// How long the peer is not told what has come: mostly something else is to be said soon, and each message costs more than what it says.
const TELL: Duration = Duration::from_millis(5);

pub(super) struct Session {
    shared: Arc<Shared>,
    peer: PeerId,
    link: Arc<Link>,
    state: Mutex<State>,
    /// Something is to be written.
    work: Notify,
    /// As many permits as the peer accepts further wants.
    room: Semaphore,
    /// What may be lent to finish objects of this peer, in units of 1 KiB: one that announces large objects and trickles
    /// them must not take the whole budget.
    large: Arc<Semaphore>,
    /// The peer says what it has when it is asked.
    watches: bool,
    ended: CancellationToken,
}

struct State {
    asking: Asking,
    waiting: HashMap<u64, Waiting>,
    wants: VecDeque<Want>,
    grants: Vec<(u64, u32)>,
    /// Whose objects have come, which the peer has not been told.
    come: Vec<u64>,
    cancels: Vec<u64>,
    watching: Watching,
    watches: VecDeque<Watch>,
}

impl State {
    /// Whether nothing is to be said but what has come.
    fn has_only_come(&self) -> bool {
        !self.come.is_empty()
            && self.wants.is_empty()
            && self.grants.is_empty()
            && self.cancels.is_empty()
            && self.watches.is_empty()
    }
}

impl Session {
    /// Opens the three streams within [`OPENING`]. A peer may have no room for them just then, so this is tried again
    /// unless it breaks the protocol or does not know it.
    pub(super) async fn open(
        shared: &Arc<Shared>,
        peer: PeerId,
        link: Arc<Link>,
    ) -> Result<Arc<Session>, FrameError> {
        let pauses = ExponentialBuilder::default().with_min_delay(Duration::from_millis(20)).with_jitter();
        let open = || Session::open_once(shared, peer, link.clone());
        let opening =
            open.retry(pauses).when(|error| !matches!(error, FrameError::Violation(_) | FrameError::Foreign));
        let too_slow = || std::io::Error::from(std::io::ErrorKind::TimedOut).into();
        let opened = tokio::time::timeout(OPENING, opening).await.unwrap_or_else(|_| Err(too_slow()));
        if let Err(error) = &opened {
            shared.on_stream_error(peer, error).await;
        }
        opened
    }

    async fn open_once(
        shared: &Arc<Shared>,
        peer: PeerId,
        link: Arc<Link>,
    ) -> Result<Arc<Session>, FrameError> {
        let (control, mut control_writer) = open_stream(shared, peer, Route::Shared).await?.split();
        let mut control = FrameReader::new(control);
        let (session, features, agent) = (rand::random(), WATCHES | TELLS, super::shared::agent());
        let hello = Hello { session, features, max_wants: MAX_WANTS as u32, agent };
        frames::write(&mut control_writer, &Message::Hello(hello)).await?;
        let (max_wants, watches) = match control.message("Hello").await? {
            Message::Hello(hello) if hello.session == session => {
                (hello.max_wants, hello.features & WATCHES != 0)
            }
            other => return Err(out_of_place(&other, "Hello")),
        };
        let urgent = attach(shared, peer, Attach { session, lane: Lane::Urgent }).await?;
        let bulk = attach(shared, peer, Attach { session, lane: Lane::Bulk }).await?;

        // Whatever the peer allows, no more than we should be able to keep track of.
        let max_wants = (max_wants as usize).min(MAX_WANTS);
        let session = Arc::new(Session {
            shared: shared.clone(),
            peer,
            link,
            state: Mutex::new(State {
                asking: Asking::new(max_wants),
                waiting: HashMap::new(),
                wants: VecDeque::new(),
                grants: Vec::new(),
                come: Vec::new(),
                cancels: Vec::new(),
                watching: Watching::default(),
                watches: VecDeque::new(),
            }),
            work: Notify::new(),
            room: Semaphore::new(max_wants),
            large: Arc::new(Semaphore::new((2 * MAX_OBJECT as usize) >> 10)),
            watches,
            ended: shared.stop.child_token(),
        });
        // A connection that this side closes leaves its streams waiting.
        let up = session.link.up();
        session.clone().spawn(|_| async move {
            up.cancelled().await;
            Ok(())
        });
        session.clone().spawn(|session| async move { session.write_control(control_writer).await });
        session.clone().spawn(|session| async move { session.read_control(control).await });
        for (lane, stream) in [(Lane::Urgent, urgent), (Lane::Bulk, bulk)] {
            session.clone().spawn(move |session| async move { session.read_lane(lane, stream).await });
        }
        Ok(session)
    }

    /// Runs one of the session's tasks; its end is the end of the session.
    fn spawn<F>(self: Arc<Self>, task: impl FnOnce(Arc<Session>) -> F)
    where
        F: Future<Output = Result<(), FrameError>> + Send + 'static,
    {
        let work = task(self.clone());
        self.shared.clone().tasks.spawn(async move {
            let result = self.ended.run_until_cancelled(work).await;
            if let Some(Err(error)) = result {
                tracing::debug!(peer = %self.peer, %error, "a session has ended");
                self.shared.on_stream_error(self.peer, &error).await;
            }
            self.end();
        });
    }

    fn end(&self) {
        // Under the lock, so that a request either is seen here or sees the end.
        let waiting = {
            let mut state = self.state();
            self.ended.cancel();
            std::mem::take(&mut state.waiting)
        };
        self.room.close();
        // Dropping their replies tells them.
        drop(waiting);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Whether the peer says what it has when it is asked.
    pub(super) fn watches(&self) -> bool {
        self.watches
    }

    /// Asks the peer to say which of `objects` it has; the scheduler is told.
    pub(super) fn watch(&self, objects: Vec<ObjectId>) {
        if self.watches {
            let mut state = self.state();
            let watch = state.watching.begin(objects);
            state.watches.push_back(watch);
            self.work.notify_one();
        }
    }

    /// Asks for an object and waits for the answer. Dropping the future takes the request back.
    pub(super) async fn request(self: &Arc<Self>, id: ObjectId, class: Class) -> Result<Delivery, Failure> {
        let patience = attempt(class);
        let room = tokio::time::timeout(patience, self.room.acquire());
        let room = room.await.map_err(|_| Failure::Busy)?.map_err(|_| Failure::Lost)?;
        let credit = self.shared.guess().credit(id.kind);
        self.shared.limits.download(class, credit.into()).await;
        let lease = self.borrow_start(class, credit).await.ok_or(Failure::Lost)?;
        let (asked, reply, progress) = self.ask(id, class, lease)?;
        // Until here whoever stops waiting gives it back; from here on the peer's answer does.
        room.forget();
        self.link.health(|health, now| health.on_asked(now));
        let outcome = match patiently(patience, &progress, reply).await {
            Some(answer) => answer.unwrap_or(Err(Failure::Lost)),
            None => Err(Failure::TimedOut),
        };
        drop(asked);
        if outcome.is_err() && progress.load(Ordering::Relaxed) == 0 {
            self.shared.limits.spare_download(credit.into());
        }
        if let Ok(delivery) = &outcome {
            self.shared.guess().learn(id.kind, delivery.head.stored_len);
        }
        outcome
    }

    /// The first credit for a request, unless the session ends before it is to be had.
    async fn borrow_start(&self, class: Class, credit: u32) -> Option<Lease> {
        self.ended.run_until_cancelled(self.shared.lender.borrow(class, Stage::Start, credit)).await
    }

    #[expect(
        clippy::type_complexity,
        reason = "the three ends of one request, taken apart at once by its caller"
    )]
    fn ask(
        self: &Arc<Self>,
        id: ObjectId,
        class: Class,
        lease: Lease,
    ) -> Result<(Asked, oneshot::Receiver<Result<Delivery, Failure>>, Arc<AtomicU64>), Failure> {
        let (reply, receiver) = oneshot::channel();
        let progress = Arc::new(AtomicU64::new(0));
        let credit = lease.bytes();
        let request = {
            let mut state = self.state();
            if self.has_ended() {
                return Err(Failure::Lost);
            }
            let deadline_ms = attempt(class).as_millis() as u32;
            let want = state.asking.want(class, deadline_ms, credit, vec![id]);
            let request = want.first;
            state.wants.push_back(want);
            let progress = progress.clone();
            let loan = Loan::new(lease);
            let waiting = Waiting { class, reply, loan, head: None, bytes: BytesMut::new(), progress };
            state.waiting.insert(request, waiting);
            request
        };
        self.work.notify_one();
        Ok((Asked { session: self.clone(), request }, receiver, progress))
    }

    async fn write_control(
        self: Arc<Self>,
        mut stream: impl futures::AsyncWrite + Unpin,
    ) -> Result<(), FrameError> {
        loop {
            let until = Instant::now() + TELL;
            while self.state().has_only_come() && timeout_at(until, self.work.notified()).await.is_ok() {}
            let (wants, grants, cancels, watches) = {
                let mut state = self.state();
                let wants = batch(std::mem::take(&mut state.wants));
                let watches = std::mem::take(&mut state.watches);
                let mut grants = std::mem::take(&mut state.grants);
                grants.extend(state.come.drain(..).map(|request| (request, 0)));
                (wants, grants, std::mem::take(&mut state.cancels), watches)
            };
            if wants.is_empty() && grants.is_empty() && cancels.is_empty() && watches.is_empty() {
                self.work.notified().await;
                continue;
            }
            // In this order a grant or cancel never comes before its request.
            for want in wants {
                frames::write(&mut stream, &Message::Want(want)).await?;
            }
            for grants in grants.chunks(MAX_NAMED) {
                frames::write(&mut stream, &Message::Credit(Credit { grants: grants.to_vec() })).await?;
            }
            for requests in cancels.chunks(MAX_NAMED) {
                frames::write(&mut stream, &Message::Cancel(Cancel { requests: requests.to_vec() })).await?;
            }
            for watch in watches {
                frames::write(&mut stream, &Message::Watch(watch)).await?;
            }
        }
    }

    /// What comes on the control stream after the Hello is news of what is watched; its end is the end of the session.
    async fn read_control(
        self: Arc<Self>,
        mut stream: FrameReader<impl futures::AsyncRead + Unpin>,
    ) -> Result<(), FrameError> {
        loop {
            let have = match stream.message("Have").await? {
                Message::Have(have) => have,
                other => return Err(out_of_place(&other, "Have")),
            };
            let objects = self.state().watching.answered(&have)?;
            self.shared.schedule(|scheduler, now| {
                let told = match have.presence {
                    Presence::Here => Told::Here { gained: false },
                    Presence::Coming => Told::Coming(now),
                    Presence::Absent => Told::Absent,
                };
                let peer = Who::peer(&self.peer);
                objects.into_iter().for_each(|object| scheduler.told(now, peer, object, told));
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic between two steps leaves at worst a request unanswered, which times out.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that somebody waits for. Dropping it takes it back, if it is not answered.
struct Asked {
    session: Arc<Session>,
    request: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.session.link.health(|health, _| health.on_settled());
        let mut state = self.session.state();
        if state.waiting.remove(&self.request).is_some() && state.asking.cancel(self.request) {
            state.cancels.push(self.request);
            self.session.work.notify_one();
        }
    }
}

async fn open_stream(shared: &Shared, peer: PeerId, route: Route) -> Result<Stream, FrameError> {
    let opened = shared.control.open(peer, SWARM_PROTOCOL, route).await;
    opened.map_err(|error| match error {
        OpenError::Unsupported(_) => FrameError::Foreign,
        error => std::io::Error::other(error).into(),
    })
}

/// Opens one of the lanes of a session.
async fn attach(
    shared: &Shared,
    peer: PeerId,
    attach: Attach,
) -> Result<FrameReader<impl futures::AsyncRead + Unpin + Send + use<>>, FrameError> {
    // Nothing is written here any more, but a dropped half would close the stream.
    let route = if attach.lane == Lane::Urgent { Route::Urgent } else { Route::Shared };
    let mut stream = open_stream(shared, peer, route).await?;
    frames::write(&mut stream, &Message::Attach(attach)).await?;
    let mut reader = FrameReader::new(stream);
    match reader.message("Attach").await? {
        Message::Attach(echo) if echo == attach => Ok(reader),
        other => Err(out_of_place(&other, "Attach")),
    }
}
