//! What comes from a peer: the objects, piece by piece, and the refusals.
//!
//! Owns: reading the lanes, and the bytes of objects on their way.
//! Must not know: how is asked.
//! Invariant: the bytes of an object are held under its loan, and both are let go together: when nobody waits for it any more, or, if
//! just then a frame of it is being read, with the end of that. Content is read to where it stays.
//! Trust: a stranger sends it. What breaks the protocol ends the session.
//! Threads: a task for each lane; the lock of the session is held for bookkeeping only.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use libp2p::PeerId;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Failure, Session};
use crate::net::desk::Who;
use crate::net::frames::{FrameError, FrameReader, out_of_place};
use crate::net::lender::Lease;
use crate::swarm::asking::Arrived;
use crate::swarm::credit::Stage;
use crate::swarm::wire::{DATA_HEAD_LEN, DataHead, Header, Message, Reason};
use crate::swarm::{Class, Lane, Violation};

/// An object as it came, unverified.
pub(in crate::net) struct Delivery {
    pub(in crate::net) head: DataHead,
    pub(in crate::net) bytes: Bytes,
    /// Keeps the bytes counted until they are verified.
    pub(in crate::net) _loan: Loan,
}

/// What is lent to one request.
#[derive(Clone)]
pub(in crate::net) struct Loan(Arc<Mutex<Lent>>);

struct Lent {
    lease: Lease,
    /// Its share of what may be lent to finish objects.
    large: Option<OwnedSemaphorePermit>,
}

impl Loan {
    pub(super) fn new(lease: Lease) -> Loan {
        Loan(Arc::new(Mutex::new(Lent { lease, large: None })))
    }

    fn lent(&self) -> MutexGuard<'_, Lent> {
        // A lease counts right after each step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for an object, and what has come of it.
pub(super) struct Waiting {
    pub(super) class: Class,
    pub(super) reply: oneshot::Sender<Result<Delivery, Failure>>,
    pub(super) loan: Loan,
    pub(super) head: Option<DataHead>,
    /// Away while a frame is read to its end.
    pub(super) bytes: BytesMut,
    pub(super) progress: Arc<AtomicU64>,
}

/// The bytes of an object of which a frame is being read, and their loan, as whoever waits may go meanwhile.
struct Part {
    bytes: BytesMut,
    _loan: Loan,
    /// With this frame the object is complete.
    complete: bool,
}

impl Session {
    pub(super) async fn read_lane(
        self: Arc<Self>,
        lane: Lane,
        mut stream: FrameReader<impl futures::AsyncRead + Unpin>,
    ) -> Result<(), FrameError> {
        loop {
            let header = stream.header().await?;
            if let Some(is_first) = header.as_data() {
                self.read_data(lane, &header, is_first, &mut stream).await?;
                continue;
            }
            let payload = stream.payload(&header).await?;
            match Message::decode(&header, payload).map_err(Violation::from)? {
                Some(Message::Reject(reject)) => {
                    for request in reject.requests {
                        self.on_reject(lane, request, reject.reason)?;
                    }
                }
                Some(Message::Redirect(redirect)) => {
                    let to = PeerId::from_bytes(&redirect.peer).ok().map(|peer| Who::peer(&peer));
                    for request in redirect.requests {
                        self.on_answered(lane, request, Failure::Redirected(to))?;
                    }
                }
                Some(other) => return Err(out_of_place(&other, "Data or Reject")),
                None => {}
            }
        }
    }

    /// Reads the payload of a data frame, the first of its object or not.
    async fn read_data(
        self: &Arc<Self>,
        lane: Lane,
        header: &Header,
        is_first: bool,
        stream: &mut FrameReader<impl futures::AsyncRead + Unpin>,
    ) -> Result<(), FrameError> {
        let mut head = [0; DATA_HEAD_LEN];
        let head = &mut head[..if is_first { DATA_HEAD_LEN.min(header.len as usize) } else { 0 }];
        stream.fill(head).await?;
        let len = header.len as usize - head.len();
        let head = match is_first {
            true => Some(DataHead::split(head).map_err(Violation::from)?.0),
            false => None,
        };
        match self.begin(lane, header.request, head, len)? {
            Some(mut part) => {
                let start = part.bytes.len();
                part.bytes.resize(start + len, 0);
                stream.fill(&mut part.bytes[start..]).await?;
                self.put(header.request, part);
            }
            None => stream.skip(len).await?,
        }
        self.link.received(len as u64);
        Ok(())
    }

    /// A data frame with `len` bytes of content begins. Returns where they go; nothing if nobody wants them.
    fn begin(
        self: &Arc<Self>,
        lane: Lane,
        request: u64,
        head: Option<DataHead>,
        len: usize,
    ) -> Result<Option<Part>, Violation> {
        let mut state = self.state();
        let room = state.asking.room();
        let arrived = state.asking.on_data(lane, request, head, len)?;
        self.room.add_permits(state.asking.room() - room);
        // It is gone when it was cancelled, and when the session is ending.
        let Some(waiting) = state.waiting.get_mut(&request) else { return Ok(None) };
        let complete = match arrived {
            Arrived::Unwanted => return Ok(None),
            Arrived::More { complete } => complete,
            Arrived::First { head, spare, lacking, complete } => {
                waiting.head = Some(head);
                waiting.loan.lent().lease.shrink(spare);
                self.shared.limits.spare_download(spare.into());
                if lacking > 0 {
                    self.clone().finish(request, waiting.class, lacking);
                }
                complete
            }
        };
        let mut bytes = std::mem::take(&mut waiting.bytes);
        // What is lent bounds what is allocated; the rest follows with the rest of the credit.
        bytes.reserve((waiting.loan.lent().lease.bytes() as usize).saturating_sub(bytes.len()));
        Ok(Some(Part { bytes, _loan: waiting.loan.clone(), complete }))
    }

    /// A frame has been read.
    fn put(&self, request: u64, part: Part) {
        let mut state = self.state();
        let Some(waiting) = state.waiting.get_mut(&request) else { return };
        waiting.progress.fetch_add(1, Ordering::Relaxed);
        waiting.bytes = part.bytes;
        if part.complete
            && let Some(Waiting { reply, loan, head: Some(head), bytes, .. }) = state.waiting.remove(&request)
        {
            // It has come, which the server is told.
            state.come.push(request);
            self.work.notify_one();
            // Whoever has gone needs no answer.
            let _ = reply.send(Ok(Delivery { head, bytes: bytes.freeze(), _loan: loan }));
        }
    }

    fn on_reject(&self, lane: Lane, request: u64, reason: Reason) -> Result<(), Violation> {
        let failure = match reason {
            Reason::Missing => Failure::Missing,
            Reason::Busy | Reason::Cancelled | Reason::Other(_) => Failure::Busy,
        };
        self.on_answered(lane, request, failure)
    }

    /// A request is answered, and not with its object.
    fn on_answered(&self, lane: Lane, request: u64, failure: Failure) -> Result<(), Violation> {
        let mut state = self.state();
        state.asking.on_reject(lane, request)?;
        self.room.add_permits(1);
        if let Some(waiting) = state.waiting.remove(&request) {
            let _ = waiting.reply.send(Err(failure));
        }
        Ok(())
    }

    /// Borrows what an object lacks, as soon as it is to be had, and grants it to the peer.
    fn finish(self: Arc<Self>, request: u64, class: Class, lacking: u32) {
        let shared = self.shared.clone();
        shared.tasks.spawn(async move {
            let lease = async {
                // The semaphore is never closed; its permits go back when the request ends.
                let large = self.large.clone().acquire_many_owned(lacking.div_ceil(1 << 10)).await;
                self.shared.limits.download(class, lacking.into()).await;
                (self.shared.lender.borrow(class, Stage::Finish, lacking).await, large)
            };
            let Some((lease, large)) = self.ended.run_until_cancelled(lease).await else { return };
            let mut state = self.state();
            let state = &mut *state;
            // If nobody waits any more, the lease ends here.
            if let Some(waiting) = state.waiting.get_mut(&request)
                && state.asking.grant(request, lacking)
            {
                let mut lent = waiting.loan.lent();
                lent.lease.merge(lease);
                lent.large = large.ok();
                waiting.progress.fetch_add(1, Ordering::Relaxed);
                state.grants.push((request, lacking));
                self.work.notify_one();
            }
        });
    }
}
