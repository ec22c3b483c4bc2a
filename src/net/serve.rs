//! Giving peers the objects they ask for.
//!
//! Owns: accepting sessions, reading what is wanted, and sending it from the store against credit.
//! Must not know: who may have what.
//! Invariant: nothing is sent that is not what was asked for, and nothing without credit; a slow or idle reader holds at most a frame per stream: an object is held
//! in memory for [`HOLD`] at a time.
//! Trust: readers are strangers. What breaks the protocol closes the connection; numbers of streams, sessions and
//! requests are bounded.
//! Threads: async, one task reading control and one writing each lane; the store is read on the blocking pool.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{PeerId, Stream};
use lru::LruCache;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frames::{self, FrameError, FrameReader, out_of_place};
use super::shared::{Shared, blocking};
use super::streams::Incoming;
use super::table::Link;
use super::watchers::Reader;
use crate::id::ObjectId;
use crate::pack::Packed;
use crate::store::{Keep, Store, StoreError};
use crate::swarm::serving::{Job, MAX_WANTS, Serving, Take};
use crate::swarm::wire::{
    Attach, DATA_HEAD_LEN, DataHead, HEADER_LEN, Header, Hello, MAX_PAYLOAD, Message, Presence, Reason,
    Redirect, WATCHES, Watch,
};
use crate::swarm::{Class, Lane, Violation};

/// Streams that may be between being opened and saying what they are for.
const MAX_OPENING: usize = 64;
/// How long they may take to say it.
const OPENING: Duration = Duration::from_secs(10);
/// Sessions that one peer may have: one, and those whose end has not been noticed here.
const MAX_SESSIONS_EACH: usize = 3;
/// What belongs on a control stream.
const CONTROL: &str = "Want, Cancel, Credit or Watch";
/// Objects in memory to be sent, for each lane.
const LOADED: [usize; 2] = [8, 16];
/// How long one object is held in memory before others get their turn.
const HOLD: Duration = Duration::from_secs(2);
/// A reader that takes no frame for so long is gone.
const STALLED: Duration = Duration::from_secs(30);

/// How long whoever was given an object is taken to have it, and how many objects are remembered.
const LATELY: Duration = Duration::from_secs(10);
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16 << 10).expect("it is not zero");

pub(super) struct Server {
    shared: Arc<Shared>,
    sessions: Mutex<HashMap<(PeerId, u64), Arc<Served>>>,
    opening: Arc<Semaphore>,
    loaded: [Semaphore; 2],
    lately: Mutex<Lately>,
}

/// Whom objects were given to last, and when.
type Lately = LruCache<ObjectId, (PeerId, tokio::time::Instant)>;

/// One session, seen from the side that serves.
struct Served {
    peer: PeerId,
    link: Arc<Link>,
    watching: Reader,
    /// There is news of what is watched.
    news: Arc<Notify>,
    state: Mutex<State>,
    work: [Notify; 2],
    ended: CancellationToken,
}

#[derive(Default)]
struct State {
    serving: Serving,
    attached: [bool; 2],
}

impl Server {
    pub(super) fn new(shared: Arc<Shared>) -> Server {
        let opening = Arc::new(Semaphore::new(MAX_OPENING));
        let lately = Mutex::new(LruCache::new(REMEMBERED));
        Server { shared, sessions: Mutex::default(), opening, loaded: LOADED.map(Semaphore::new), lately }
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
                let Some(served) = self.begin(peer, hello.session) else { return Err(FrameError::Closed) };
                let answer = Hello {
                    max_wants: MAX_WANTS as u32,
                    agent: super::shared::agent(),
                    features: WATCHES,
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
                self.sessions().remove(&(peer, hello.session));
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
    fn begin(&self, peer: PeerId, session: u64) -> Option<Arc<Served>> {
        let link = self.shared.table.link(&peer)?;
        let mut sessions = self.sessions();
        let of_this_peer = sessions.keys().filter(|(other, _)| *other == peer).count();
        if of_this_peer >= MAX_SESSIONS_EACH || sessions.contains_key(&(peer, session)) {
            return None;
        }
        let news = Arc::new(Notify::new());
        let served = Arc::new(Served {
            peer,
            link,
            watching: self.shared.watchers.reader(news.clone()),
            news,
            state: Mutex::default(),
            work: [Notify::new(), Notify::new()],
            ended: self.shared.stop.child_token(),
        });
        sessions.insert((peer, session), served.clone());
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
        let mut frame = Vec::new();
        loop {
            let job = served.state().serving.next(lane, self.shared.started.elapsed());
            match job {
                None => served.work[lane as usize].notified().await,
                Some(Job::Reject(reject)) => {
                    timeout(STALLED, frames::write(writer, &Message::Reject(reject)))
                        .await
                        .map_err(stalled)??;
                }
                Some(Job::Send { request, object, class, sent }) => {
                    if sent == 0
                        && let Some(to) = self.elsewhere(served, object, class)
                        && served.state().serving.redirect(request)
                    {
                        let redirect = Redirect { peer: to.to_bytes(), requests: vec![request] };
                        timeout(STALLED, frames::write(writer, &Message::Redirect(redirect)))
                            .await
                            .map_err(stalled)??;
                        continue;
                    }
                    let permit = self.loaded[lane as usize].acquire().await;
                    if let Some(packed) = self.load(served, request, object).await {
                        self.send(served, (request, object), (packed, permit), &mut frame, writer).await?;
                    }
                }
            }
        }
    }

    /// Reads an object from the store, or refuses the request.
    async fn load(&self, served: &Served, request: u64, object: ObjectId) -> Option<Packed> {
        let found = match self.shared.hot.get(&object) {
            Some(packed) => Ok(Some(packed)),
            None => {
                let store = self.shared.store.clone();
                blocking(move || verified(&store, &object)).await
            }
        };
        let mut state = served.state();
        match found {
            Ok(Some(packed)) if state.serving.found(request, packed.stored().len() as u32) => {
                return Some(packed);
            }
            Ok(Some(_)) => state.serving.refuse(request, Reason::Busy),
            // What is wanted here will be here.
            Ok(None) if self.shared.desk.wants(&object) => state.serving.refuse(request, Reason::Busy),
            Ok(None) => state.serving.refuse(request, Reason::Missing),
            Err(error) => {
                tracing::warn!(%object, %error, "an object could not be read to be sent");
                state.serving.refuse(request, Reason::Busy);
            }
        }
        None
    }

    /// Sends an object from where it stands until its end, until credit runs out, or until it has been held too long.
    async fn send<L>(
        &self,
        served: &Served,
        (request, object): (u64, ObjectId),
        loaded: (Packed, L),
        frame: &mut Vec<u8>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), FrameError> {
        let until = tokio::time::Instant::now() + HOLD;
        let class = served.state().serving.class(request).unwrap_or(Class::Replicate);
        let mut loaded = Some(loaded);
        self.lately().put(object, (served.peer, tokio::time::Instant::now()));
        while let Some((packed, _)) = &loaded {
            let most = (MAX_PAYLOAD - DATA_HEAD_LEN) as u32;
            let Take::Bytes { sent, len, last } = served.state().serving.take(request, most) else { break };
            fill(frame, request, packed, sent, len);
            self.shared.limits.upload(class, frame.len() as u64).await;
            served.link.bytes_out.fetch_add(len.into(), Ordering::Relaxed);
            served.link.health(|health, now| health.on_sent(now, len.into()));
            if last {
                served.link.objects_served.fetch_add(1, Ordering::Relaxed);
            }
            let mut write = std::pin::pin!(async {
                writer.write_all(frame).await?;
                writer.flush().await
            });
            match tokio::time::timeout_at(until, &mut write).await {
                Ok(written) => written?,
                Err(_) => {
                    loaded = None;
                    timeout(STALLED, write).await.map_err(stalled)??;
                    served.state().serving.put_back(request);
                }
            }
            if last {
                break;
            }
            // Under a limit the time passes before the write.
            if loaded.is_some() && tokio::time::Instant::now() >= until {
                served.state().serving.put_back(request);
                break;
            }
        }
        Ok(())
    }

    /// Who else can give an object that is wanted for later: whoever was given it a moment ago or is being given it, while
    /// this node has more to send than it can at once. What it has only just got itself it gives to everybody who asks:
    /// there are others who have it, and they cannot all reach each other.
    fn elsewhere(&self, served: &Served, object: ObjectId, class: Class) -> Option<PeerId> {
        if class <= Class::Readahead || self.loaded[Lane::Bulk as usize].available_permits() > 0 {
            return None;
        }
        if self.shared.hot.has(&object) {
            return None;
        }
        let (peer, at) = self.lately().get(&object).copied()?;
        (peer != served.peer && at.elapsed() < LATELY && self.shared.table.is_connected(&peer))
            .then_some(peer)
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

impl Served {
    async fn read_control(
        &self,
        reader: &mut FrameReader<impl futures::AsyncRead + Unpin>,
        shared: &Shared,
    ) -> Result<(), FrameError> {
        loop {
            let message = match self.ended.run_until_cancelled(reader.message(CONTROL)).await {
                None | Some(Err(FrameError::Closed)) => return Ok(()),
                Some(message) => message?,
            };
            let admitted = shared.admits(&self.peer);
            if let Message::Watch(watch) = message {
                match admitted {
                    true => self.on_watch(watch, shared).await,
                    false => self.watching.deny(&watch),
                }
                continue;
            }
            {
                let serving = &mut self.state().serving;
                match message {
                    Message::Want(want) => {
                        let requests = want.first..want.first.saturating_add(want.objects.len() as u64);
                        serving.on_want(shared.started.elapsed(), want)?;
                        if !admitted {
                            requests.for_each(|request| serving.refuse(request, Reason::Missing));
                        }
                    }
                    Message::Cancel(cancel) => serving.on_cancel(&cancel),
                    Message::Credit(credit) => serving.on_credit(&credit)?,
                    other => return Err(out_of_place(&other, CONTROL)),
                }
            }
            self.work.iter().for_each(Notify::notify_one);
        }
    }

    /// Says which objects are here; one message at a time, so that whoever asks much waits.
    async fn on_watch(&self, watch: Watch, shared: &Shared) {
        self.watching.watch(&watch);
        let (store, objects) = (shared.store.clone(), watch.objects.clone());
        let missing = blocking(move || store.missing(&objects, Keep::Cache)).await;
        let missing: HashSet<ObjectId> = match missing {
            Ok(missing) => missing.into_iter().collect(),
            Err(error) => {
                tracing::warn!(%error, "the index cannot say what is here");
                watch.objects.iter().copied().collect()
            }
        };
        self.watching.answer(&watch, |object| match object {
            object if shared.hot.has(object) || !missing.contains(object) => Presence::Here,
            object if shared.desk.wants(object) => Presence::Coming,
            _ => Presence::Absent,
        });
    }

    /// Sends news of what is watched as it comes.
    async fn write_news(&self, writer: &mut (impl AsyncWrite + Unpin)) -> Result<(), FrameError> {
        loop {
            for have in self.watching.news() {
                timeout(STALLED, frames::write(writer, &Message::Have(have))).await.map_err(stalled)??;
            }
            self.news.notified().await;
        }
    }

    /// Whether the lane was free.
    fn attach(&self, lane: Lane) -> bool {
        !std::mem::replace(&mut self.state().attached[lane as usize], true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic between two steps leaves at worst a request unanswered, which times out at its reader.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes `frame` the data frame with `len` bytes of an object from byte `sent` on.
fn fill(frame: &mut Vec<u8>, request: u64, packed: &Packed, sent: u32, len: u32) {
    let first = sent == 0;
    let head_len = if first { DATA_HEAD_LEN as u32 } else { 0 };
    frame.clear();
    frame.reserve(HEADER_LEN + MAX_PAYLOAD);
    frame.extend_from_slice(&Header::data(request, first, head_len + len).encode());
    if first {
        let stored_len = packed.stored().len() as u32;
        let head = DataHead { codec: packed.codec() as u8, plain_len: packed.plain_len(), stored_len };
        frame.extend_from_slice(&head.encode());
    }
    // `take` stays within the length that `found` was told, which is that of these bytes.
    frame.extend_from_slice(&packed.stored()[sent as usize..(sent + len) as usize]);
}

fn stalled(_: tokio::time::error::Elapsed) -> FrameError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// An object of the store, checked: one rotten sector must not make a liar of an honest node, whom every reader
/// would ban. What is here but is not the object is as good as missing.
fn verified(store: &Store, id: &ObjectId) -> Result<Option<Packed>, StoreError> {
    let cause = match store.get(id).map(|found| found.map(|packed| packed.verify(id))) {
        Ok(None) => return Ok(None),
        Ok(Some(Ok(checked))) => return Ok(Some(checked.packed().clone())),
        Ok(Some(Err(cause))) => cause.to_string(),
        Err(error) if error.is_damage() => error.to_string(),
        Err(error) => return Err(error),
    };
    tracing::error!(object = %id, %cause, "a stored object is damaged; `bcai verify` finds what it belongs to");
    Ok(None)
}
