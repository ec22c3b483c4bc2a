//! One object that is wanted here, and what is known of who has it.
//!
//! Owns: whom it was asked of, who failed, and what peers have said about it.
//! Must not know: how fast peers are.
//! Invariant: a peer is named at most once in each list; nobody who failed is asked again for this want.
//! Trust: what peers say about having an object is a hint: it costs a request when it is wrong.
//! Threads: a pure value. Time comes in as `now`.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use super::choose::Outlook;
use crate::id::ObjectId;
use crate::swarm::choice::Failure;
use crate::swarm::{Class, Spread};

/// So many times as long the pause becomes at the most after which a peer that keeps sending us elsewhere is asked again. What nobody near has got is
/// asked for by all who want it: in a simulation of a hundred nodes the source had 13,000 such requests a second to answer.
const LONGER: u32 = 16;

/// What a peer has said about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It was asked at this time, and has not answered.
    Nothing(Duration),
    /// It has it; `gained`: it had not when it was first asked, or it fetches such things too.
    Here {
        gained: bool,
    },
    /// It wants it too, and said so at this time.
    Coming(Duration),
    Absent,
}

/// One request for the object that is not answered.
#[derive(Debug, Clone, Copy)]
pub struct Asked<P> {
    pub peer: P,
    pub at: Duration,
}

/// One wanted object.
#[derive(Debug)]
pub struct Want<P> {
    pub class: Class,
    pub spread: Spread,
    /// About how many bytes it has.
    pub bytes: u64,
    pub since: Duration,
    /// Its place among those that wait: what names other objects is before all chunks, and each in the order of arrival.
    pub number: u64,
    pub asked: Vec<Asked<P>>,
    /// When a second peer may be asked beside the first.
    pub hedge_at: Option<Duration>,
    pub failed: Vec<(P, Failure<P>)>,
    /// Who has sent us elsewhere, how often, and until when they are not asked.
    redirected: Vec<(P, u32, Duration)>,
    told: Vec<(P, Told)>,
    /// How things stand with it, as long as that is not forgotten.
    pub outlook: Computed<Option<Outlook<P>>>,
}

/// Something that was computed, and when.
pub struct Computed<T>(Cell<Option<(Duration, T)>>);

/// Not derived, as a cell shows only what can be copied, and not every `P` is known to be.
impl<T> std::fmt::Debug for Computed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Computed")
    }
}

impl<T: Copy> Computed<T> {
    /// It, computed anew if that was longer than `fresh` ago.
    pub fn get(&self, now: Duration, fresh: Duration, compute: impl FnOnce() -> T) -> T {
        match self.0.get() {
            Some((at, value)) if now < at + fresh => value,
            _ => {
                let value = compute();
                self.0.set(Some((now, value)));
                value
            }
        }
    }

    /// It is not so any more.
    pub fn forget(&self) {
        self.0.set(None);
    }
}

impl<P: Copy + Eq> Want<P> {
    pub fn new(class: Class, spread: Spread, bytes: u64, since: Duration, number: u64) -> Want<P> {
        let (asked, failed, redirected, told) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Want {
            class,
            spread,
            bytes,
            since,
            number,
            asked,
            hedge_at: None,
            failed,
            redirected,
            told,
            outlook: Computed(Cell::new(None)),
        }
    }

    pub fn has_failed(&self, peer: P) -> bool {
        self.failed.iter().any(|(failed, _)| *failed == peer)
    }

    /// `peer` has sent us elsewhere, and is not asked for `pause`; twice as long each time that it does so again, up to [`LONGER`] times that.
    pub fn on_redirected(&mut self, now: Duration, peer: P, pause: Duration) {
        let known = self.redirected.iter().position(|(by, ..)| *by == peer);
        let times = known.map_or(0, |position| self.redirected.swap_remove(position).1);
        let until = now + pause * 2u32.saturating_pow(times).min(LONGER);
        self.redirected.push((peer, times + 1, until));
    }

    /// The object is on its way to `peer`, somebody says.
    pub fn on_sent_to(&mut self, now: Duration, peer: P) {
        if !matches!(self.told(peer), Some(Told::Here { .. })) {
            self.set(peer, Told::Coming(now));
        }
    }

    pub fn is_redirected_by(&self, peer: P, now: Duration) -> bool {
        now < self.redirected_until(peer)
    }

    /// Until when `peer` is not asked because it has sent us elsewhere; zero if it has not.
    pub fn redirected_until(&self, peer: P) -> Duration {
        let by_it = self.redirected.iter().find(|(by, ..)| *by == peer);
        by_it.map_or(Duration::ZERO, |(.., until)| *until)
    }

    pub fn is_asked_of(&self, peer: P) -> bool {
        self.asked.iter().any(|asked| asked.peer == peer)
    }

    pub fn told(&self, peer: P) -> Option<Told> {
        self.told.iter().find(|(by, _)| *by == peer).map(|(_, told)| *told)
    }

    /// A peer was asked whether it has the object.
    pub fn on_watched(&mut self, now: Duration, peer: P) {
        self.set(peer, Told::Nothing(now));
    }

    /// A peer has said how things stand with the object.
    pub fn on_told(&mut self, peer: P, told: Told) {
        let told = match (self.told(peer), told) {
            (Some(Told::Coming(_) | Told::Absent), Told::Here { .. }) => Told::Here { gained: true },
            (Some(before @ Told::Here { .. }), Told::Here { .. }) => before,
            (_, told) => told,
        };
        self.set(peer, told);
    }

    pub fn forget(&mut self, peer: P) {
        self.outlook.forget();
        self.told.retain(|(by, _)| *by != peer);
    }

    /// Who has said what.
    pub fn tellings(&self) -> impl Iterator<Item = (P, Told)> {
        self.told.iter().copied()
    }

    fn set(&mut self, peer: P, told: Told) {
        self.outlook.forget();
        match self.told.iter_mut().find(|(by, _)| *by == peer) {
            Some((_, known)) => *known = told,
            None => self.told.push((peer, told)),
        }
    }
}

/// All wanted objects.
pub type Wants<P> = HashMap<ObjectId, Want<P>, BuildHasherDefault<IdHasher>>;

/// Takes the first bytes of an id for its hash: ids are hashes, and are looked up for everything that waits.
#[derive(Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    /// The kind, and the length of the hash.
    fn write_isize(&mut self, kind: isize) {
        self.0 ^= kind as u64;
    }

    fn write_usize(&mut self, _: usize) {}
}
