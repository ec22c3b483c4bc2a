//! The receiver's side of credit: one budget for the node, from which every request is lent what it may receive.
//!
//! Owns: how many bytes are granted or held, per class, and who waits for room.
//! Must not know: peers, sessions, objects; a waiting request is a ticket number.
//! Invariant: never more than [`TOTAL`] bytes are lent, never more than `TOTAL - FAULT_RESERVE` of them to classes
//! other than [`Class::Fault`]; and every waiting ticket is served in the end, provided that what is lent for whole
//! objects comes back.
//! Trust: called by our own code only.
//! Threads: a pure value; the caller locks it.
//!
//! A request first takes a guess (`Start`), as the size of an object is not known before its first frame, and then,
//! if the guess was too small, all the rest at once (`Finish`). Starts leave [`MAX_OBJECT`] bytes of room to finishes.
//! So when many half-received objects have filled the budget, one of them can always be completed, and gives its
//! bytes back: the budget cannot be locked up.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Class, MAX_OBJECT};
use crate::id::Kind;

/// Bytes of unverified data that the node has granted or holds at most.
pub const TOTAL: u64 = 32 << 20;
/// The part of [`TOTAL`] that only [`Class::Fault`] may use.
pub const FAULT_RESERVE: u64 = 1 << 20;
/// The most that first guesses may take, so that an object of any size can be finished.
const START_LIMIT: u64 = TOTAL - MAX_OBJECT as u64;

/// Whether a request asks for its first credit or for all that it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Finish,
    Start,
}

/// Names a request that waits for credit.
pub type Ticket = u64;

#[derive(Debug, Clone, Copy)]
struct Ask {
    ticket: Ticket,
    class: Class,
    stage: Stage,
    bytes: u32,
}

/// What is lent and who waits.
#[derive(Debug, Default)]
pub struct Budget {
    fault: u64,
    other: u64,
    /// In the order in which they are served: finishes first, as they are what frees room; then by class; then by age.
    waiting: BTreeMap<(Stage, Class, u64), Ask>,
    arrivals: u64,
}

impl Budget {
    /// Asks for `bytes` (at most [`MAX_OBJECT`]). True when they are lent at once; otherwise `ticket` waits and will
    /// be returned by a later [`release`](Self::release) or [`withdraw`](Self::withdraw).
    pub fn ask(&mut self, ticket: Ticket, class: Class, stage: Stage, bytes: u32) -> bool {
        let ask = Ask { ticket, class, stage, bytes: bytes.min(MAX_OBJECT) };
        self.arrivals += 1;
        self.waiting.insert((stage, class, self.arrivals), ask);
        // Whoever came before and still waits goes first.
        self.serve().contains(&ticket)
    }

    /// Takes back `bytes` lent to `class`; returns the tickets that have got theirs thereby.
    pub fn release(&mut self, class: Class, bytes: u32) -> Vec<Ticket> {
        let lent = self.lent_to(class);
        debug_assert!(*lent >= u64::from(bytes), "more comes back than was lent");
        *lent = lent.saturating_sub(bytes.into());
        self.serve()
    }

    /// Forgets a ticket that waits. Returns whether it did wait, and the tickets that have got theirs thereby.
    pub fn withdraw(&mut self, ticket: Ticket) -> (bool, Vec<Ticket>) {
        let before = self.waiting.len();
        self.waiting.retain(|_, ask| ask.ticket != ticket);
        (self.waiting.len() < before, self.serve())
    }

    /// Bytes lent now, of all classes.
    pub fn lent(&self) -> u64 {
        self.fault + self.other
    }

    fn lent_to(&mut self, class: Class) -> &mut u64 {
        if class == Class::Fault { &mut self.fault } else { &mut self.other }
    }

    fn serve(&mut self) -> Vec<Ticket> {
        let mut served = Vec::new();
        let mut blocked = false;
        let mut from = Bound::Unbounded;
        while let Some((&key, &ask)) = self.waiting.range((from, Bound::Unbounded)).next() {
            from = Bound::Excluded(key);
            // One that does not fit stops those behind it from taking what it waits for. Only the reserve is no
            // part of what others can wait for.
            if self.fits_reserve(&ask) || (!blocked && self.fits(&ask)) {
                *self.lent_to(ask.class) += u64::from(ask.bytes);
                self.waiting.remove(&key);
                served.push(ask.ticket);
            } else {
                blocked = true;
            }
            if blocked && ask.stage == Stage::Start && ask.class != Class::Fault {
                break;
            }
        }
        served
    }

    fn fits_reserve(&self, ask: &Ask) -> bool {
        ask.class == Class::Fault && self.fault + u64::from(ask.bytes) <= FAULT_RESERVE
    }

    fn fits(&self, ask: &Ask) -> bool {
        let bytes = u64::from(ask.bytes);
        let limit = match ask.stage {
            Stage::Start => START_LIMIT,
            Stage::Finish => TOTAL,
        };
        self.lent() + bytes <= limit
            && (ask.class == Class::Fault || self.other + bytes <= limit - FAULT_RESERVE)
    }
}

/// The first credit for an object of each kind: about as large as the larger ones that came lately.
#[derive(Debug)]
pub struct Guess([u32; 4]);

impl Default for Guess {
    fn default() -> Self {
        Self([256 << 10; 4])
    }
}

impl Guess {
    const MIN: u32 = 16 << 10;

    /// Bytes to grant before the size is known.
    pub fn credit(&self, kind: Kind) -> u32 {
        self.0[kind as usize]
    }

    /// Notes the size of an object that came. Follows growth at once and shrinking slowly: a guess too small
    /// costs a round trip, one too large only room.
    pub fn learn(&mut self, kind: Kind, stored_len: u32) {
        let guess = &mut self.0[kind as usize];
        let shrunk = *guess - guess.saturating_sub(stored_len) / 16;
        *guess = shrunk.max(stored_len).clamp(Self::MIN, MAX_OBJECT);
    }
}
