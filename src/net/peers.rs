//! The peers as a source of objects.
//!
//! Owns: going from peer to peer until one has delivered, verification of what came, and its consequences.
//! Must not know: streams and frames; the local store.
//! Invariant: every object that is handed out was verified here; no peer is asked twice in one call.
//! Trust: none in any peer. Wrong bytes ban who sent them, unless two peers fail on the same object.
//! Threads: async; hashing and decompression of all but small objects run on the blocking pool, a few at a time.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use libp2p::PeerId;

use super::frames::FrameError;
use super::session::{Delivery, Session, attempt};
use super::shared::{Command, Shared};
use crate::fetch::{ChunkSource, FetchError};
use crate::id::ObjectId;
use crate::pack::{Checked, PackError, Packed};
use crate::swarm::Class;
use crate::swarm::choice::{Failure, Judgement, Search, Speed, Verdict};

// The two modules cannot see each other, and must mean the same.
const _: () = assert!(crate::swarm::MAX_OBJECT as usize == crate::pack::MAX_OBJECT_LEN);

/// Objects of up to so many bytes are verified where they arrive: that takes about as long as handing them to another
/// thread and back.
const AT_ONCE: u32 = 32 << 10;

/// All peers together. Clones share everything.
#[derive(Clone)]
pub struct Peers(pub(super) Arc<Shared>);

impl ChunkSource for Peers {
    fn fetch(&self, id: ObjectId, class: Class) -> BoxFuture<'_, Result<Checked, FetchError>> {
        Box::pin(async move {
            let mut search = Search::new();
            let mut wrong = None;
            loop {
                let candidates = self.0.table.candidates(&id);
                let Some(peer) = search.next(candidates.peers) else {
                    return Err(give_up(id, class, &search, candidates.absent, candidates.failed, wrong));
                };
                let asked = self.0.started.elapsed();
                let failure = match self.ask(peer, id, class).await {
                    Ok(delivery) => match self.verify(id, delivery).await {
                        Ok(checked) => {
                            self.measure(peer, |speed, _| speed.on_delivered());
                            self.outcome(peer, true);
                            return Ok(checked);
                        }
                        Err(error) => {
                            self.accuse(peer, id, &error).await;
                            wrong = Some(format!("{peer}: {error}"));
                            Failure::Wrong
                        }
                    },
                    Err(failure) => failure,
                };
                tracing::debug!(%id, %peer, ?failure, "a peer has not delivered");
                self.measure(peer, |speed, now| speed.on_failed(asked, now, failure));
                if matches!(failure, Failure::TimedOut | Failure::Lost | Failure::Wrong) {
                    self.outcome(peer, false);
                }
                search.failed(peer, failure);
            }
        })
    }
}

impl Peers {
    async fn ask(&self, peer: PeerId, id: ObjectId, class: Class) -> Result<Delivery, Failure> {
        let session = tokio::time::timeout(attempt(class), self.session(peer)).await;
        session.map_err(|_| Failure::TimedOut)??.request(id, class).await
    }

    /// The session with a peer, opened if need be. Whoever waited while that failed does not try it again.
    async fn session(&self, peer: PeerId) -> Result<Arc<Session>, Failure> {
        let link = self.0.table.link(&peer).ok_or(Failure::Lost)?;
        let begun = self.0.started.elapsed();
        let mut session = link.session.lock().await;
        if let Some(open) = session.as_ref().filter(|session| !session.has_ended()) {
            return Ok(open.clone());
        }
        if link.speed(|speed, _| speed.not_opened_since(begun)) {
            return Err(Failure::Lost);
        }
        match Session::open(&self.0, peer, link.clone()).await {
            Ok(opened) => {
                link.speed(|speed, _| speed.on_opened());
                *session = Some(opened.clone());
                Ok(opened)
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "no session could be opened");
                *session = None;
                if let FrameError::Foreign = error {
                    if self.0.table.speaks(&peer, false) {
                        self.0.command(Command::Disconnect(peer)).await;
                    }
                    return Err(Failure::Foreign);
                }
                link.speed(|speed, now| speed.on_not_opened(begun, now));
                Err(Failure::Lost)
            }
        }
    }

    fn measure(&self, peer: PeerId, change: impl FnOnce(&mut Speed, Duration)) {
        // Whoever is forgotten needs no measurements.
        if let Some(link) = self.0.table.link(&peer) {
            link.speed(change);
        }
    }

    fn outcome(&self, peer: PeerId, ok: bool) {
        if let Some(link) = self.0.table.link(&peer) {
            link.health(|health, _| health.on_outcome(ok));
        }
    }

    async fn verify(&self, id: ObjectId, delivery: Delivery) -> Result<Checked, PackError> {
        let largest = delivery.head.plain_len.max(delivery.head.stored_len);
        let verify = move || {
            // Until then the bytes count as received.
            let _lease = delivery.lease;
            Packed::from_parts(delivery.head.codec, delivery.head.plain_len, delivery.bytes)?.verify(&id)
        };
        if largest <= AT_ONCE {
            return verify();
        }
        let _permit = self.0.verifiers.acquire().await;
        super::shared::blocking(verify).await
    }

    async fn accuse(&self, peer: PeerId, id: ObjectId, error: &PackError) {
        match self.0.table.accuse(id, peer) {
            Judgement::Ban => {
                tracing::warn!(%peer, %id, %error, "a peer sent wrong bytes and is banned");
                self.0.command(Command::Ban(peer)).await;
            }
            Judgement::Doubt { pardoned } => {
                tracing::error!(
                    %peer, %id, %error, ?pardoned,
                    "a second peer sent wrong bytes for the same object: what names it or this machine's memory is \
                     damaged; nobody is banned for it"
                );
                for peer in pardoned {
                    self.0.command(Command::Pardon(peer)).await;
                }
            }
        }
    }
}

/// The error when nobody is left to ask. While known peers are away, what failed may pass when they are back.
fn give_up(
    id: ObjectId,
    class: Class,
    search: &Search<PeerId>,
    absent: usize,
    failed: usize,
    wrong: Option<String>,
) -> FetchError {
    let lied = || wrong.clone().unwrap_or_else(|| format!("{failed} peers have sent something else for it"));
    match search.verdict() {
        _ if absent > 0 => {
            let cause = format!("no connected peer delivered it, and {absent} known peers are away");
            FetchError::Unreachable { id, cause }
        }
        Verdict::Nobody if failed == 0 => {
            FetchError::Unreachable { id, cause: "no peer is connected".to_owned() }
        }
        Verdict::Nobody | Verdict::Corrupt => FetchError::Corrupt { id, cause: lied() },
        Verdict::NotFound => FetchError::NotFound { id },
        Verdict::TimedOut => FetchError::TimedOut { id, after: attempt(class) },
        Verdict::Unreachable => {
            FetchError::Unreachable { id, cause: "a peer was busy or lost while it was asked".to_owned() }
        }
    }
}
