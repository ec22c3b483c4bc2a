//! One reader's session, as the side that serves sees it.
//!
//! Owns: what the reader has said: what it wants, watches and has received; and telling it what is watched.
//! Must not know: how objects are read and sent.
//! Invariant: what a reader says changes its own session, and the count of what is under way, and nothing else.
//! Trust: readers are strangers. What breaks a rule ends the session.
//! Threads: async, one task reading control; the lock is held for bookkeeping only.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::io::AsyncWrite;
use libp2p::PeerId;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{STALLED, stalled};
use crate::crypto::PublicKey;
use crate::id::ObjectId;
use crate::net::frames::{self, FrameError, FrameReader, out_of_place};
use crate::net::replica_calls::key_of;
use crate::net::sending::{self, Loaded, ReaderId, UnderWay};
use crate::net::shared::Shared;
use crate::net::table::Link;
use crate::net::watchers::Reader;
use crate::swarm::serving::Serving;
use crate::swarm::wire::{Cancel, Credit, Hello, Message, Presence, Reason, TELLS, Watch};
use crate::swarm::{Class, Lane};

/// What belongs on a control stream.
const CONTROL: &str = "Want, Cancel, Credit or Watch";
/// News of what is watched is told no more often. Each message costs its reader far more than what it says, and in a crowd each object is news for all.
const GATHER: Duration = Duration::from_millis(10);
/// How often it is looked at whether what waits may be begun, or has been given to somebody else meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One session, seen from the side that serves.
pub(super) struct Served {
    pub(super) peer: PeerId,
    /// What the peer id says, which takes a curve to read.
    key: Option<PublicKey>,
    session: u64,
    /// It tells when an object has come.
    tells: bool,
    under_way: Arc<UnderWay>,
    pub(super) link: Arc<Link>,
    watching: Reader,
    /// There is news of what is watched.
    news: Arc<Notify>,
    state: Mutex<State>,
    pub(super) work: [Notify; 2],
    pub(super) ended: CancellationToken,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) serving: Serving,
    attached: [bool; 2],
}

impl Served {
    /// A session that has just begun; `under_way` is what is to all readers.
    pub(super) fn new(
        peer: PeerId,
        &Hello { session, features, .. }: &Hello,
        shared: &Shared,
        link: Arc<Link>,
        under_way: Arc<UnderWay>,
    ) -> Served {
        let news = Arc::new(Notify::new());
        Served {
            peer,
            key: key_of(&peer),
            session,
            tells: features & TELLS != 0,
            under_way,
            link,
            watching: shared.watchers.reader(news.clone()),
            news,
            state: Mutex::default(),
            work: [Notify::new(), Notify::new()],
            ended: shared.stop.child_token(),
        }
    }

    pub(super) async fn read_control(
        &self,
        reader: &mut FrameReader<impl futures::AsyncRead + Unpin>,
        shared: &Shared,
    ) -> Result<(), FrameError> {
        loop {
            let message = match self.ended.run_until_cancelled(reader.message(CONTROL)).await {
                None | Some(Err(FrameError::Closed)) => return Ok(()),
                Some(message) => message?,
            };
            if let Message::Watch(watch) = message {
                match shared.chains.admits(self.key.as_ref()) {
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
                        if !shared.chains.admits(self.key.as_ref()) {
                            requests.for_each(|request| serving.refuse(request, Reason::Missing));
                        }
                    }
                    Message::Cancel(cancel) => {
                        serving.on_cancel(&cancel);
                        self.on_gone(&cancel);
                    }
                    Message::Credit(credit) => {
                        serving.on_credit(&credit)?;
                        self.on_come(&credit);
                    }
                    other => return Err(out_of_place(&other, CONTROL)),
                }
            }
            self.work.iter().for_each(Notify::notify_one);
        }
    }

    pub(super) fn id(&self) -> ReaderId {
        (self.peer, self.session)
    }

    /// Whether what a request asks for may be begun now, or has to wait until less is under way. Readers do not wait, nor does what would be given
    /// up soon.
    pub(super) fn may_begin(&self, request: u64, class: Class, deadline: Duration) -> bool {
        class <= Class::Readahead
            || !self.tells
            || self.under_way.with(|uplink, now| uplink.begin(now, self.id(), request, deadline))
    }

    /// Waits until there may be something to be sent on a lane.
    pub(super) async fn wait(&self, lane: Lane, has_to_wait: bool) {
        let work = self.work[lane as usize].notified();
        if has_to_wait {
            tokio::select! {
                () = work => {}
                () = self.under_way.less.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        } else {
            work.await;
        }
    }

    /// An object of `bytes` is on its way.
    pub(super) fn on_sent(&self, request: u64, bytes: u64) {
        if self.tells {
            self.under_way.with(|uplink, now| uplink.on_sent(now, self.id(), request, bytes));
        }
    }

    /// Objects to which nothing is added have come.
    fn on_come(&self, credit: &Credit) {
        let come = credit.grants.iter().filter(|(_, bytes)| *bytes == 0);
        for (request, _) in come {
            self.under_way.with(|uplink, now| uplink.on_come(now, self.id(), *request));
            self.under_way.less.notify_waiters();
        }
    }

    fn on_gone(&self, cancel: &Cancel) {
        cancel.requests.iter().for_each(|request| self.is_gone(*request));
    }

    /// What a request asked for is not sent, or not needed any more.
    pub(super) fn is_gone(&self, request: u64) {
        self.under_way.with(|uplink, _| uplink.on_gone(self.id(), request));
        self.under_way.less.notify_waiters();
    }

    /// Says which objects are here; one message at a time, so that whoever asks much waits. In a crowd most of them have just come
    /// or are wanted, which is known without the disk.
    async fn on_watch(&self, watch: Watch, shared: &Shared) {
        self.watching.watch(&watch);
        let at_hand = |object: &ObjectId| match object {
            object if shared.hot.has(object) => Some(Presence::Here),
            object if shared.desk.wants(object) => Some(Presence::Coming),
            _ => None,
        };
        let objects = watch.objects.iter().copied();
        let known: HashMap<_, _> =
            objects.clone().filter_map(|object| Some((object, at_hand(&object)?))).collect();
        let unknown = objects.filter(|object| !known.contains_key(object)).collect();
        let missing = sending::missing(&shared.lookups, unknown).await;
        self.watching.answer(&watch, |object| match known.get(object).copied().or_else(|| at_hand(object)) {
            Some(presence) => presence,
            None if missing.contains(object) => Presence::Absent,
            None => Presence::Here,
        });
    }

    /// Sends news of what is watched: what comes after a pause at once, and what comes soon after that together.
    pub(super) async fn write_news(&self, writer: &mut (impl AsyncWrite + Unpin)) -> Result<(), FrameError> {
        loop {
            self.news.notified().await;
            for have in self.watching.news() {
                timeout(STALLED, frames::write(writer, &Message::Have(have))).await.map_err(stalled)??;
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Lets what is left of some objects be sent later.
    pub(super) fn put_back(&self, loaded: VecDeque<Loaded<'_>>) {
        let serving = &mut self.state().serving;
        loaded.iter().for_each(|loaded| serving.put_back(loaded.wanted.request));
    }

    /// Whether the lane was free.
    pub(super) fn attach(&self, lane: Lane) -> bool {
        !std::mem::replace(&mut self.state().attached[lane as usize], true)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic between two steps leaves at worst a request unanswered, which times out at its reader.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
