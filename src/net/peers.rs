//! The peers, and the origins behind them, as a source of objects.
//!
//! Owns: sessions with peers, verification of what came, and its consequences; what is said when nobody has delivered.
//! Must not know: streams and frames; the local store; whom to ask (that is the scheduler's).
//! Invariant: every object that is handed out was verified here.
//! Trust: none in any peer; origins verify what they give. Wrong bytes ban who sent them, unless two peers fail on the same object.
//! Threads: async; hashing and decompression of all but small objects run on the blocking pool, a few at a time.

use std::sync::Arc;

use futures::future::BoxFuture;
use libp2p::PeerId;

use super::desk::Who;
use super::frames::FrameError;
use super::patience::attempt;
use super::session::{Delivery, Failure, Session};
use super::shared::{Command, Shared, blocking};
use crate::fetch::{ChunkSource, FetchError};
use crate::id::ObjectId;
use crate::pack::{Checked, PackError, Packed};
use crate::swarm::choice::{Judgement, Verdict};
use crate::swarm::{Class, Spread};

// The two modules cannot see each other, and must mean the same.
const _: () = assert!(crate::swarm::MAX_OBJECT as usize == crate::pack::MAX_OBJECT_LEN);

/// Objects of up to so many bytes are verified where they arrive: that takes about as long as handing them to another
/// thread and back.
const AT_ONCE: u32 = 128 << 10;

/// All peers together. Clones share everything.
#[derive(Clone)]
pub struct Peers {
    pub(super) shared: Arc<Shared>,
    pub(super) spread: Spread,
}

impl ChunkSource for Peers {
    fn fetch(&self, id: ObjectId, class: Class) -> BoxFuture<'_, Result<Checked, FetchError>> {
        Box::pin(async move {
            let outcome = self.shared.search(id, class, self.spread).await;
            outcome.map_err(|given_up| {
                let of_peers = self.shared.give_up(id, class, given_up.verdict);
                match given_up.origin {
                    Some(of_origins) => of_peers.or_worse(of_origins),
                    None => of_peers,
                }
            })
        })
    }
}

impl Shared {
    /// Asks one peer for an object, and tells the scheduler what came of it.
    pub(super) async fn ask(self: Arc<Self>, peer: PeerId, id: ObjectId, class: Class) {
        let failure = match self.request(peer, id, class).await {
            Ok(delivery) => match self.verify(id, delivery).await {
                Ok(checked) => {
                    self.on_outcome(peer, true);
                    return self.delivered(Who::peer(&peer), &checked);
                }
                Err(error) => {
                    self.on_outcome(peer, false);
                    return self.accuse(peer, id, &error).await;
                }
            },
            Err(failure) => failure,
        };
        tracing::debug!(%id, %peer, ?failure, "a peer has not delivered");
        if matches!(failure, Failure::TimedOut | Failure::Lost) {
            self.on_outcome(peer, false);
        }
        self.schedule(|scheduler, now| {
            scheduler.failed(now, Who::peer(&peer), id, failure);
            if failure == Failure::Foreign {
                scheduler.peer_down(now, Who::peer(&peer), failure);
            }
        });
    }

    /// Asks the origins for an object, and tells the scheduler what came of it.
    pub(super) async fn ask_origin(self: Arc<Self>, origin: &dyn ChunkSource, id: ObjectId, class: Class) {
        match origin.fetch(id, class).await {
            Ok(checked) => self.delivered(Who::Origin, &checked),
            Err(error) => {
                tracing::debug!(%id, %error, "no origin has delivered");
                self.refused(id, error);
            }
        }
    }

    fn on_outcome(&self, peer: PeerId, ok: bool) {
        if let Some(link) = self.table.link(&peer) {
            link.health(|health, _| health.on_outcome(ok));
        }
    }

    /// Asks one peer which objects it has.
    pub(super) async fn watch(self: Arc<Self>, peer: PeerId, objects: Vec<ObjectId>) {
        if let Ok(session) = self.session(peer).await {
            session.watch(objects);
        }
    }

    async fn request(
        self: &Arc<Self>,
        peer: PeerId,
        id: ObjectId,
        class: Class,
    ) -> Result<Delivery, Failure> {
        let session = tokio::time::timeout(attempt(class), self.session(peer)).await;
        session.map_err(|_| Failure::TimedOut)??.request(id, class).await
    }

    /// The session with a peer, opened if need be. Whoever waited while that failed does not try it again.
    async fn session(self: &Arc<Self>, peer: PeerId) -> Result<Arc<Session>, Failure> {
        let link = self.table.link(&peer).ok_or(Failure::Lost)?;
        let begun = self.started.elapsed();
        let mut session = link.session.lock().await;
        if let Some(open) = session.as_ref().filter(|session| !session.has_ended()) {
            return Ok(open.clone());
        }
        if self.schedule(|scheduler, _| scheduler.not_opened_since(Who::peer(&peer), begun)) {
            return Err(Failure::Lost);
        }
        match Session::open(self, peer, link.clone()).await {
            Ok(opened) => {
                let watches = opened.watches();
                self.schedule(|scheduler, now| scheduler.opened(now, Who::peer(&peer), watches));
                *session = Some(opened.clone());
                Ok(opened)
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "no session could be opened");
                *session = None;
                if let FrameError::Foreign = error {
                    self.on_foreign(peer).await;
                    return Err(Failure::Foreign);
                }
                self.schedule(|scheduler, now| scheduler.not_opened(now, Who::peer(&peer), begun));
                Err(Failure::Lost)
            }
        }
    }

    /// A peer turns out not to speak the protocol of objects.
    async fn on_foreign(self: &Arc<Self>, peer: PeerId) {
        if self.table.speaks(&peer, false) {
            self.command(Command::Disconnect(peer)).await;
        }
    }

    async fn verify(&self, id: ObjectId, delivery: Delivery) -> Result<Checked, PackError> {
        let largest = delivery.head.plain_len.max(delivery.head.stored_len);
        let verify = move || {
            // Until then the bytes count as received.
            let Delivery { head, bytes, _loan } = delivery;
            Packed::from_parts(head.codec, head.plain_len, bytes)?.verify(&id)
        };
        if largest <= AT_ONCE {
            return verify();
        }
        let _permit = self.verifiers.acquire().await;
        blocking(verify).await
    }

    async fn accuse(self: &Arc<Self>, peer: PeerId, id: ObjectId, error: &PackError) {
        match self.schedule(|scheduler, now| scheduler.wrong(now, Who::peer(&peer), id)) {
            Judgement::Ban => {
                tracing::warn!(%peer, %id, %error, "a peer sent wrong bytes and is banned");
                self.table.ban(peer);
                self.command(Command::Ban(peer)).await;
            }
            Judgement::Doubt { pardoned } => {
                let banned = self.table.banned().into_iter();
                let pardoned: Vec<_> = banned.filter(|peer| pardoned.contains(&Who::peer(peer))).collect();
                tracing::error!(
                    %peer, %id, %error, ?pardoned,
                    "a second peer sent wrong bytes for the same object: what names it or this machine's memory is \
                     damaged; nobody is banned for it"
                );
                for peer in pardoned {
                    self.table.pardon(&peer);
                    self.command(Command::Pardon(peer)).await;
                }
            }
        }
    }

    /// The error when no peer is left to ask. While known peers are away, what failed may pass when they are back.
    fn give_up(self: &Arc<Self>, id: ObjectId, class: Class, verdict: Verdict) -> FetchError {
        let (failed, absent) = self.schedule(|scheduler, _| {
            (scheduler.failed_on(&id), self.table.absent(|peer| scheduler.has_failed(&id, &Who::peer(peer))))
        });
        match verdict {
            _ if absent > 0 => {
                let cause = format!("no connected peer delivered it, and {absent} known peers are away");
                FetchError::Unreachable { id, cause }
            }
            Verdict::Nobody if failed == 0 => {
                FetchError::Unreachable { id, cause: "no peer is connected".to_owned() }
            }
            Verdict::Nobody | Verdict::Corrupt => {
                let cause = format!("{failed} peers have sent something else for it");
                FetchError::Corrupt { id, cause }
            }
            Verdict::NotFound => FetchError::NotFound { id },
            Verdict::TimedOut => FetchError::TimedOut { id, after: attempt(class) },
            Verdict::Unreachable => {
                FetchError::Unreachable { id, cause: "a peer was busy or lost while it was asked".to_owned() }
            }
        }
    }
}
