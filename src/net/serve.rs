//! Giving peers the objects they ask for.
//!
//! Owns: accepting sessions, and sending what is wanted from the store against credit.
//! Must not know: who may have what; what one reader has said (`served` does).
//! Invariant: nothing is sent that is not what was asked for, and nothing without credit; an object is held in memory for [`HOLD`] at a time.
//! Trust: readers are strangers. What breaks the protocol closes the connection; numbers of streams, sessions and
//! requests are bounded.
//! Threads: async, one task reading control and one writing each lane; the store is read on the blocking pool.

mod served;

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::io::{AsyncReadExt, AsyncWrite};
use libp2p::{PeerId, Stream};
use lru::LruCache;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use served::Served;

use super::frames::{self, FrameError, FrameReader, out_of_place};
use super::sending::{self, Found, Frames, Loaded, ReaderId, UnderWay, Wanted};
use super::shared::Shared;
use super::streams::Incoming;
use crate::id::ObjectId;
use crate::pack::Packed;
use crate::swarm::serving::{Job, LATELY, MAX_WANTS, Take};
use crate::swarm::wire::{
    Attach, DATA_HEAD_LEN, Hello, MAX_PAYLOAD, Message, Reason, Redirect, TELLS, WATCHES,
};
use crate::swarm::{Class, Lane, Violation};

/// Streams that may be between being opened and saying what they are for.
const MAX_OPENING: usize = 64;
/// How long they may take to say it.
const OPENING: Duration = Duration::from_secs(10);
/// Sessions that one peer may have: one, and those whose end has not been noticed here.
const MAX_SESSIONS_EACH: usize = 3;
/// Objects in memory to be sent, for each lane.
const LOADED: [usize; 2] = [8, 16];
/// Frames are written together until they are as long.
const WRITE: usize = 64 << 10;
/// How long one object is held in memory before others get their turn.
const HOLD: Duration = Duration::from_secs(2);
/// A reader that takes no frame for so long is gone.
const STALLED: Duration = Duration::from_secs(30);

/// Objects of which it is remembered whom they were given to.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16 << 10).expect("it is not zero");

pub(super) struct Server {
    shared: Arc<Shared>,
    sessions: Mutex<HashMap<ReaderId, Arc<Served>>>,
    opening: Arc<Semaphore>,
    loaded: [Semaphore; 2],
    lately: Mutex<Lately>,
    under_way: Arc<UnderWay>,
}

/// Whom objects were given to last, and when.
type Lately = LruCache<ObjectId, (PeerId, tokio::time::Instant)>;

/// What is to be sent next on a lane.
struct Next<'a> {
    wanted: Vec<Wanted<'a>>,
    /// More was asked for, and waits until less is under way.
    has_to_wait: bool,
}

impl Server {
    pub(super) fn new(shared: Arc<Shared>) -> Server {
        let (opening, started) = (Arc::new(Semaphore::new(MAX_OPENING)), shared.started);
        let lately = Mutex::new(LruCache::new(REMEMBERED));
        let (loaded, under_way) = (LOADED.map(Semaphore::new), Arc::new(UnderWay::new(started)));
        Server { shared, sessions: Mutex::default(), opening, loaded, lately, under_way }
    }

    /// Takes streams as they come. Whoever is dropped here tries again.
    pub(super) async fn accept(self: Arc<Self>, mut incoming: Incoming) {
        while let Some((peer, stream)) = incoming.next().await {
            let Ok(permit) = self.opening.clone().try_acquire_owned() else { continue };
            let server = self.clone();
            self.shared.tasks.spawn(async move {
                let stop = server.shared.stop.clone();
                let serve = server.serve(peer, stream, permit);
                if let Some(Err(error)) = stop.run_until_cancelled(serve).await {
                    tracing::debug!(%peer, %error, "serving has ended");
                    server.shared.on_stream_error(peer, &error).await;
                }
            });
        }
    }

    async fn serve(
        &self,
        peer: PeerId,
        stream: Stream,
        opening: tokio::sync::OwnedSemaphorePermit,
    ) -> Result<(), FrameError> {
        let (reader, mut writer) = stream.split();
        let mut reader = FrameReader::new(reader);
        let first =
            timeout(OPENING, reader.message("Hello or Attach")).await.map_err(|_| FrameError::Closed)??;
        drop(opening);
        match first {
            Message::Hello(hello) => {
                let Some(served) = self.begin(peer, &hello) else { return Err(FrameError::Closed) };
                let answer = Hello {
                    max_wants: MAX_WANTS as u32,
                    agent: super::shared::agent(),
                    features: WATCHES | TELLS,
                    ..hello
                };
                let answered = frames::write(&mut writer, &Message::Hello(answer)).await;
                let result = match answered {
                    // Both at once: whoever writes must not keep from reading.
                    Ok(()) => tokio::select! {
                        read = served.read_control(&mut reader, &self.shared) => read,
                        written = served.write_news(&mut writer) => written,
                    },
                    Err(error) => Err(error.into()),
                };
                served.ended.cancel();
                self.sessions().remove(&served.id());
                self.under_way.with(|uplink, _| uplink.forget(served.id()));
                result
            }
            Message::Attach(attach) => {
                let served = self.sessions().get(&(peer, attach.session)).cloned();
                // It may just have ended.
                let served = served.ok_or(FrameError::Closed)?;
                if !served.attach(attach.lane) {
                    return Err(Violation::OutOfPlace { got: "Attach", expected: "nothing" }.into());
                }
                let ended = served.ended.clone();
                let send = self.send_lane(&served, attach, &mut writer);
                let result = ended.run_until_cancelled(send).await.unwrap_or(Ok(()));
                ended.cancel();
                result
            }
            other => Err(out_of_place(&other, "Hello or Attach")),
        }
    }

    /// Enters a new session, unless the peer has too many.
    fn begin(&self, peer: PeerId, hello: &Hello) -> Option<Arc<Served>> {
        let link = self.shared.table.link(&peer)?;
        let mut sessions = self.sessions();
        let of_this_peer = sessions.keys().filter(|(other, _)| *other == peer).count();
        if of_this_peer >= MAX_SESSIONS_EACH || sessions.contains_key(&(peer, hello.session)) {
            return None;
        }
        let served = Arc::new(Served::new(peer, hello, &self.shared, link, self.under_way.clone()));
        sessions.insert(served.id(), served.clone());
        Some(served)
    }

    /// Answers what is wanted on one lane, for as long as the session lasts.
    async fn send_lane(
        &self,
        served: &Served,
        attach: Attach,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), FrameError> {
        let lane = attach.lane;
        frames::write(writer, &Message::Attach(attach)).await?;
        // As many as are not too much to be read at a time, by what they had last.
        let mut at_once = 1;
        loop {
            let Next { wanted, has_to_wait } = self.next(served, lane, at_once, writer).await?;
            if wanted.is_empty() {
                served.wait(lane, has_to_wait).await;
                continue;
            }
            let looked_for = sending::look(&self.shared, wanted).await;
            let found = looked_for.into_iter().filter_map(|(wanted, found)| {
                let packed = self.found(served, &wanted, found)?;
                Some(Loaded { wanted, packed })
            });
            let loaded = found.collect();
            at_once = sending::at_once(&loaded);
            self.send(served, loaded, writer).await?;
        }
    }

    /// What is to be sent next, `most` objects at most, each with its place in memory. What is answered without the object, is.
    async fn next(
        &self,
        served: &Served,
        lane: Lane,
        most: usize,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Next<'_>, FrameError> {
        let (mut wanted, mut has_to_wait) = (Vec::new(), false);
        while wanted.len() < most {
            let job = served.state().serving.next(lane, self.shared.started.elapsed());
            let answer = match job {
                None => break,
                Some(Job::Reject(reject)) => Message::Reject(reject),
                Some(Job::Send { request, object, class, sent, deadline }) => {
                    match self.elsewhere(served, object, class).filter(|_| sent == 0) {
                        Some(to) if served.state().serving.redirect(request) => {
                            served.is_gone(request);
                            Message::Redirect(Redirect { peer: to.to_bytes(), requests: vec![request] })
                        }
                        _ if sent == 0 && !served.may_begin(request, class, deadline) => {
                            served.state().serving.put_back(request);
                            has_to_wait = true;
                            break;
                        }
                        _ => {
                            let loaded = &self.loaded[lane as usize];
                            let place = match loaded.try_acquire() {
                                Ok(place) => place,
                                // The semaphore is never closed.
                                Err(_) if wanted.is_empty() => {
                                    loaded.acquire().await.map_err(|_| FrameError::Closed)?
                                }
                                Err(_) => {
                                    served.state().serving.put_back(request);
                                    break;
                                }
                            };
                            wanted.push(Wanted { request, object, _place: place });
                            continue;
                        }
                    }
                }
            };
            timeout(STALLED, frames::write(writer, &answer)).await.map_err(stalled)??;
        }
        Ok(Next { wanted, has_to_wait })
    }

    /// Whether an object that was looked for can be sent; its request is refused otherwise.
    fn found(&self, served: &Served, wanted: &Wanted, found: Found) -> Option<Packed> {
        let Wanted { request, object, .. } = wanted;
        let mut state = served.state();
        let reason = match found {
            Ok(Some(packed)) if state.serving.found(*request, packed.stored().len() as u32) => {
                return Some(packed);
            }
            Ok(Some(_)) => Reason::Busy,
            // What is wanted here will be here.
            Ok(None) if self.shared.desk.wants(object) => Reason::Busy,
            Ok(None) => Reason::Missing,
            Err(error) => {
                tracing::warn!(%object, %error, "an object could not be read to be sent");
                Reason::Busy
            }
        };
        state.serving.refuse(*request, reason);
        served.is_gone(*request);
        None
    }

    /// Sends objects, each from where it stands until its end or until credit runs out, until all have been held too long.
    async fn send(
        &self,
        served: &Served,
        mut loaded: VecDeque<Loaded<'_>>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), FrameError> {
        let until = tokio::time::Instant::now() + HOLD;
        while !loaded.is_empty() {
            let (class, frames) = self.fill(served, &mut loaded);
            if frames.len() == 0 {
                continue;
            }
            self.shared.limits.upload(class, frames.len() as u64).await;
            served.link.sent(frames.content() as u64);
            let mut write = std::pin::pin!(frames.write(writer));
            match tokio::time::timeout_at(until, &mut write).await {
                Ok(written) => written?,
                Err(_) => {
                    served.put_back(std::mem::take(&mut loaded));
                    timeout(STALLED, write).await.map_err(stalled)??;
                }
            }
            // Under a limit the time passes before the write.
            if tokio::time::Instant::now() >= until {
                served.put_back(std::mem::take(&mut loaded));
            }
        }
        Ok(())
    }

    /// The next frames of what is loaded, about [`WRITE`] bytes, and the most urgent of their classes. Objects that are done with
    /// leave the queue.
    fn fill(&self, served: &Served, loaded: &mut VecDeque<Loaded<'_>>) -> (Class, Frames) {
        let (mut class, mut frames) = (Class::Replicate, Frames::default());
        let mut state = served.state();
        while frames.len() < WRITE
            && let Some(Loaded { wanted: Wanted { request, object, .. }, packed }) = loaded.front()
        {
            class = state.serving.class(*request).map_or(class, |other| class.min(other));
            let most = (MAX_PAYLOAD - DATA_HEAD_LEN) as u32;
            match state.serving.take(*request, most) {
                Take::Bytes { sent, len, last } => {
                    frames.push(*request, packed, sent, len);
                    if sent == 0 {
                        self.lately().put(*object, (served.peer, tokio::time::Instant::now()));
                        served.on_sent(*request, packed.stored().len() as u64);
                    }
                    if !last {
                        continue;
                    }
                    served.link.objects_served.fetch_add(1, Ordering::Relaxed);
                }
                Take::Wait => {}
                Take::Gone => served.is_gone(*request),
            }
            loaded.pop_front();
        }
        (class, frames)
    }

    /// Who else can give an object that is wanted for later: whoever was given it a moment ago or is being given it, while
    /// this node has more to send than it can at once.
    fn elsewhere(&self, served: &Served, object: ObjectId, class: Class) -> Option<PeerId> {
        if class <= Class::Readahead {
            return None;
        }
        let (peer, at) = self.lately().get(&object).copied()?;
        (peer != served.peer
            && at.elapsed() < LATELY
            && self.is_busy()
            && self.shared.table.is_connected(&peer))
        .then_some(peer)
    }

    /// Whether what is sent now has to wait: in memory, or beyond the kernel, as readers tell.
    fn is_busy(&self) -> bool {
        let fetches = self.shared.desk.is_fetching();
        self.loaded[Lane::Bulk as usize].available_permits() == 0
            || self.under_way.with(|uplink, now| uplink.is_busy(now, fetches))
    }

    fn lately(&self) -> MutexGuard<'_, Lately> {
        // Inserting cannot be left half done.
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<(PeerId, u64), Arc<Served>>> {
        // Inserting and removing cannot be left half done.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stalled(_: tokio::time::error::Elapsed) -> FrameError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
