//! The side of a session that wants objects: what was asked for, and what may still come.
//!
//! Owns: request numbers, the credit granted to each request, and the rules for the frames that answer it.
//! Must not know: where bytes are kept, who waits, which peer this is.
//! Invariant: a request is in the table from the moment it is asked until its one answer is complete; a frame is
//! accepted only for a request in the table, within its credit and its object's length.
//! Trust: frames come from a stranger; the first that breaks a rule is a [`Violation`].
//! Threads: a pure value; the caller locks it.

use std::collections::HashMap;

use super::wire::{DataHead, MAX_NAMED, Want};
use super::{Class, Lane, MAX_OBJECT, Violation};
use crate::id::ObjectId;

/// One session, seen by the side that wants.
#[derive(Debug)]
pub struct Asking {
    next: u64,
    max: usize,
    open: HashMap<u64, Asked>,
}

#[derive(Debug)]
struct Asked {
    class: Class,
    granted: u32,
    received: u32,
    head: Option<DataHead>,
    cancelled: bool,
}

/// What to do with the bytes of a frame that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// The request was cancelled: drop them.
    Unwanted,
    /// The first bytes of an object. `spare` of the credit will not be used; `lacking` more is needed to finish.
    First { head: DataHead, spare: u32, lacking: u32, complete: bool },
    /// Further bytes.
    More { complete: bool },
}

impl Asking {
    /// A session with a peer that accepts `max` unanswered objects.
    pub fn new(max: usize) -> Asking {
        Asking { next: 1, max, open: HashMap::new() }
    }

    /// How many more objects may be asked for now.
    pub fn room(&self) -> usize {
        self.max.saturating_sub(self.open.len())
    }

    /// Asks for `objects` (at most [`room`](Self::room) and at most [`super::wire::MAX_NAMED`]), `credit` bytes
    /// granted for each.
    pub fn want(&mut self, class: Class, deadline_ms: u32, credit: u32, objects: Vec<ObjectId>) -> Want {
        debug_assert!(objects.len() <= self.room());
        let first = self.next;
        for _ in &objects {
            let asked = Asked { class, granted: credit, received: 0, head: None, cancelled: false };
            self.open.insert(self.next, asked);
            self.next += 1;
        }
        Want { first, class, deadline_ms, credit, objects }
    }

    /// Notes that `bytes` more are granted. False when the request is answered or cancelled: tell nobody.
    pub fn grant(&mut self, request: u64, bytes: u32) -> bool {
        match self.open.get_mut(&request) {
            Some(asked) if !asked.cancelled => {
                asked.granted = asked.granted.saturating_add(bytes).min(MAX_OBJECT);
                true
            }
            _ => false,
        }
    }

    /// Gives a request up. False when there is nothing to tell the peer.
    pub fn cancel(&mut self, request: u64) -> bool {
        match self.open.get_mut(&request) {
            Some(asked) if !asked.cancelled => {
                asked.cancelled = true;
                true
            }
            _ => false,
        }
    }

    /// A data frame has come on `lane`: `head` if it is the first of its object, and `len` bytes of content.
    pub fn on_data(
        &mut self,
        lane: Lane,
        request: u64,
        head: Option<DataHead>,
        len: usize,
    ) -> Result<Arrived, Violation> {
        let asked = self.open.get_mut(&request).ok_or(Violation::UnknownRequest(request))?;
        if asked.class.lane() != lane {
            return Err(Violation::WrongLane { request, lane });
        }
        asked.begin_or_continue(request, head)?;
        let complete = asked.receive(request, len)?;
        let arrived = match (asked.cancelled, head) {
            (true, _) => Arrived::Unwanted,
            (false, None) => Arrived::More { complete },
            (false, Some(head)) => {
                let spare = asked.granted.saturating_sub(head.stored_len);
                let lacking = head.stored_len.saturating_sub(asked.granted);
                asked.granted -= spare;
                Arrived::First { head, spare, lacking, complete }
            }
        };
        if complete {
            self.open.remove(&request);
        }
        Ok(arrived)
    }

    /// A rejection has come on `lane`. True when somebody still wants to know.
    pub fn on_reject(&mut self, lane: Lane, request: u64) -> Result<bool, Violation> {
        let asked = self.open.get(&request).ok_or(Violation::UnknownRequest(request))?;
        if asked.class.lane() != lane {
            return Err(Violation::WrongLane { request, lane });
        }
        let wanted = !asked.cancelled;
        self.open.remove(&request);
        Ok(wanted)
    }
}

/// The same requests in as few messages as possible: those that follow one another on the same terms are put together.
pub fn batch(wants: impl IntoIterator<Item = Want>) -> Vec<Want> {
    let mut batched: Vec<Want> = Vec::new();
    for want in wants {
        match batched.last_mut() {
            Some(last)
                if last.first + last.objects.len() as u64 == want.first
                    && (last.class, last.deadline_ms, last.credit)
                        == (want.class, want.deadline_ms, want.credit)
                    && last.objects.len() + want.objects.len() <= MAX_NAMED =>
            {
                last.objects.extend(want.objects);
            }
            _ => batched.push(want),
        }
    }
    batched
}

impl Asked {
    fn begin_or_continue(&mut self, request: u64, head: Option<DataHead>) -> Result<(), Violation> {
        match (&self.head, head) {
            (Some(_), None) => Ok(()),
            (None, Some(head)) => {
                let len = head.stored_len.max(head.plain_len);
                if len > MAX_OBJECT {
                    return Err(Violation::TooLarge { request, len });
                }
                self.head = Some(head);
                Ok(())
            }
            _ => Err(Violation::FrameOrder(request)),
        }
    }

    /// Counts `len` bytes of content; whether they complete the object.
    fn receive(&mut self, request: u64, len: usize) -> Result<bool, Violation> {
        // A frame is at most 64 KiB and what came before at most 4 MiB, so this does not overflow.
        let sent = self.received + len as u32;
        let announced = self.head.map_or(0, |head| head.stored_len);
        if sent > announced {
            return Err(Violation::OverLength { request, sent: sent.into(), announced: announced.into() });
        }
        if sent > self.granted {
            return Err(Violation::OverCredit { request, sent: sent.into(), granted: self.granted.into() });
        }
        // An empty frame that does not end its object would be a way to send for ever without credit.
        if len == 0 && sent != announced {
            return Err(Violation::FrameOrder(request));
        }
        self.received = sent;
        Ok(sent == announced)
    }
}
