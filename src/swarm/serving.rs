//! The side of a session that has objects: what it owes, and what it may send next.
//!
//! Owns: the requests of one reader, the credit each has left, and the order in which they are answered.
//! Must not know: where objects come from, who the reader is.
//! Invariant: every wanted object is answered once, by its whole data or by one rejection; no byte leaves without
//! credit; at most [`MAX_WANTS`] requests are remembered, and a request costs a fixed few bytes whatever its object.
//! Trust: messages come from a stranger; the first that breaks a rule is a [`Violation`].
//! Threads: a pure value; the caller locks it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::wire::{Cancel, Credit, MAX_NAMED, Reason, Reject, Want};
use super::{Class, Lane, MAX_OBJECT, Violation};
use crate::id::ObjectId;

/// Unanswered wanted objects that one session may have.
pub const MAX_WANTS: usize = 2048;
/// How long whoever was given an object is taken to have it, so that others are sent there. A source that forgets it sooner than a crowd needs to
/// spread the object sends it again.
pub const LATELY: Duration = Duration::from_secs(60);

/// One session, seen by the side that serves.
#[derive(Debug, Default)]
pub struct Serving {
    last: u64,
    lanes: [LaneWork; 2],
    open: HashMap<u64, Owed>,
}

#[derive(Debug, Default)]
struct LaneWork {
    /// Requests that have credit and are not in hand, first the one to answer next.
    ready: BTreeSet<Rank>,
    rejects: VecDeque<(u64, Reason)>,
}

/// Class, deadline (for faults; zero otherwise, which leaves order of arrival), request.
type Rank = (Class, Duration, u64);

#[derive(Debug)]
struct Owed {
    object: ObjectId,
    class: Class,
    deadline: Duration,
    credit: u32,
    sent: u32,
    /// Known once the object has been looked up.
    stored_len: Option<u32>,
    /// The sender works on it. Otherwise it is in `ready` exactly when it has credit.
    in_hand: bool,
}

/// The next thing to do on a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Send this.
    Reject(Reject),
    /// Look the object up and send it, from byte `sent` on, with [`Serving::found`], [`Serving::take`],
    /// [`Serving::refuse`]. After `deadline` the reader asks somebody else if nothing has come.
    Send { request: u64, object: ObjectId, class: Class, sent: u32, deadline: Duration },
}

/// What may be sent of an object now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// So many bytes, from byte `sent` on; `last` when they end the object and the request with it.
    Bytes { sent: u32, len: u32, last: bool },
    /// No credit is left. The request will come back as a [`Job`] when there is.
    Wait,
    /// The request is answered: the reader has taken it back.
    Gone,
}

impl Serving {
    /// Objects are wanted. Refuses more than [`MAX_WANTS`] in all, and numbers that do not rise.
    pub fn on_want(&mut self, now: Duration, want: Want) -> Result<(), Violation> {
        let unanswered = self.unanswered() + want.objects.len();
        if unanswered > MAX_WANTS {
            return Err(Violation::TooManyWants { unanswered, max: MAX_WANTS });
        }
        if want.first <= self.last {
            return Err(Violation::RequestOrder { request: want.first, last: self.last });
        }
        let deadline = now + Duration::from_millis(want.deadline_ms.into());
        for (request, object) in (want.first..).zip(want.objects) {
            let Want { class, credit, .. } = want;
            let owed = Owed { object, class, deadline, credit, sent: 0, stored_len: None, in_hand: false };
            self.lanes[want.class.lane() as usize].ready.insert(owed.rank(request));
            self.open.insert(request, owed);
            self.last = request;
        }
        Ok(())
    }

    /// A grant for a request that is answered already crossed its answer and is ignored.
    pub fn on_credit(&mut self, credit: &Credit) -> Result<(), Violation> {
        for &(request, bytes) in &credit.grants {
            let Some(owed) = self.open.get_mut(&request) else { continue };
            let total = u64::from(owed.credit) + u64::from(owed.sent) + u64::from(bytes);
            if total > MAX_OBJECT.into() {
                return Err(Violation::TooMuchCredit { request, total });
            }
            owed.credit += bytes;
            if owed.credit > 0 && !owed.in_hand {
                self.lanes[owed.class.lane() as usize].ready.insert(owed.rank(request));
            }
        }
        Ok(())
    }

    /// Likewise, a request that is answered already is ignored.
    pub fn on_cancel(&mut self, cancel: &Cancel) {
        for &request in &cancel.requests {
            self.refuse(request, Reason::Cancelled);
        }
    }

    /// What to do next on `lane`, most urgent first. A request returned is not returned again before [`take`](Self::take)
    /// has said `Wait` and credit has come, or [`put_back`](Self::put_back).
    pub fn next(&mut self, lane: Lane, now: Duration) -> Option<Job> {
        loop {
            let work = &mut self.lanes[lane as usize];
            if let Some(reject) = work.next_reject() {
                return Some(Job::Reject(reject));
            }
            let (_, _, request) = work.ready.pop_first()?;
            let Some(owed) = self.open.get_mut(&request) else { continue };
            // What has been begun is finished; what is too late to begin is left to another peer.
            if owed.stored_len.is_none() && owed.deadline < now {
                self.refuse(request, Reason::Busy);
                continue;
            }
            owed.in_hand = true;
            let Owed { object, class, sent, deadline, .. } = *owed;
            return Some(Job::Send { request, object, class, sent, deadline });
        }
    }

    /// The class of a request that is not answered.
    pub fn class(&self, request: u64) -> Option<Class> {
        self.open.get(&request).map(|owed| owed.class)
    }

    /// The object of a request is here, and this long as it travels. False when it was begun with another length:
    /// it has been packed anew since, and what is left of it does not fit what was sent.
    pub fn found(&mut self, request: u64, stored_len: u32) -> bool {
        match self.open.get_mut(&request) {
            Some(owed) => *owed.stored_len.get_or_insert(stored_len) == stored_len,
            None => true,
        }
    }

    /// Takes up to `max` bytes of credit for the next frame. What is taken must be sent.
    pub fn take(&mut self, request: u64, max: u32) -> Take {
        let Some(owed) = self.open.get_mut(&request) else { return Take::Gone };
        // Only an object that was found is sent.
        let Some(stored_len) = owed.stored_len else { return Take::Gone };
        let left = stored_len - owed.sent;
        let len = left.min(owed.credit).min(max);
        if len == 0 && left > 0 {
            owed.in_hand = false;
            return Take::Wait;
        }
        let sent = owed.sent;
        owed.credit -= len;
        owed.sent += len;
        let last = len == left;
        if last {
            self.open.remove(&request);
        }
        Take::Bytes { sent, len, last }
    }

    /// The sender turns to something else before the request is done; it will come back as a [`Job`].
    pub fn put_back(&mut self, request: u64) {
        if let Some(owed) = self.open.get_mut(&request) {
            owed.in_hand = false;
            if owed.credit > 0 {
                self.lanes[owed.class.lane() as usize].ready.insert(owed.rank(request));
            }
        }
    }

    /// The request is answered by a redirection, which the caller sends. False when it is answered already.
    pub fn redirect(&mut self, request: u64) -> bool {
        self.open.remove(&request).is_some()
    }

    /// Answers a request with a rejection, unless it is answered already.
    pub fn refuse(&mut self, request: u64, reason: Reason) {
        if let Some(owed) = self.open.remove(&request) {
            let work = &mut self.lanes[owed.class.lane() as usize];
            work.ready.remove(&owed.rank(request));
            work.rejects.push_back((request, reason));
        }
    }

    /// Requests whose answer has not been handed out.
    pub fn unanswered(&self) -> usize {
        self.open.len() + self.lanes.iter().map(|work| work.rejects.len()).sum::<usize>()
    }
}

impl LaneWork {
    fn next_reject(&mut self) -> Option<Reject> {
        let (_, reason) = *self.rejects.front()?;
        let mut requests = Vec::new();
        while requests.len() < MAX_NAMED
            && let Some((request, _)) = self.rejects.pop_front_if(|(_, other)| *other == reason)
        {
            requests.push(request);
        }
        Some(Reject { reason, requests })
    }
}

impl Owed {
    fn rank(&self, request: u64) -> Rank {
        let deadline = if self.class == Class::Fault { self.deadline } else { Duration::ZERO };
        (self.class, deadline, request)
    }
}
