//! One peer as the scheduler sees it.
//!
//! Owns: what was measured of a peer, and what is on its way from it.
//! Must not know: objects, other peers.
//! Invariant: every figure is bounded; what is asked is counted until it is settled, once.
//! Trust: only what was measured or verified here enters; that a peer says it has something is a hint.
//! Threads: a pure value. Time comes in as `now`.

use std::time::Duration;

use super::window::{self, Window};
use crate::swarm::Class;
use crate::swarm::choice::{Failure, Speed};

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Another node. `watches`: it answers [`Watch`](crate::swarm::wire::Watch).
    Node { watches: bool },
    /// An object store: it has everything or nothing, never comes to have more, and is the last resort of readers.
    Origin,
}

/// What is asked of a peer for later use, and how that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Bytes that may be on their way, and those that are.
    pub window: u64,
    pub under_way: u64,
    /// How long objects wait in queues on their way, of late.
    pub queueing: Duration,
}

/// The share of a new observation in a smoothed value.
const WEIGHT: f64 = 0.05;
/// Latencies of faults remembered.
const LATENCIES: usize = 32;
/// As many have to be known before their 95th percentile says something.
const ENOUGH: usize = 8;
/// Taken for that percentile before.
const UNKNOWN_P95: Duration = Duration::from_millis(250);
/// Questions on end that a peer may leave unanswered.
const SILENT: u32 = 64;
/// How long what comes from a peer that could do more has waited in queues at most.
const SPARE: Duration = Duration::from_millis(25);
/// How long one that could not is left alone, for each member of the crowd: all together try a few times a second.
const AGAIN: Duration = Duration::from_millis(250);
/// How long a peer is taken to fetch after it has said that it wants something, and after how long from the first time. (What one has got in
/// the first moments all ask it for at once.)
const FETCHING: Duration = Duration::from_secs(10);
const BEGUN: Duration = Duration::from_secs(1);
/// What a peer must have brought of what it was left to fetch, so that more is left to it.
const RELIABLE: f64 = 0.5;

/// One peer.
#[derive(Debug, Clone)]
pub struct Peer {
    pub kind: Kind,
    /// Names it in rendezvous.
    pub key: u64,
    pub speed: Speed,
    pub window: Window,
    /// Bytes of bulk classes on their way from it.
    bulk: u64,
    /// How often it has had what it was asked for, 0 to 1.
    hit: f64,
    /// How often it has brought what was left to it to fetch, 0 to 1.
    brings: f64,
    /// Questions on end that it has not answered.
    silent: u32,
    /// When it said last that something has come which it wanted.
    gained: Duration,
    /// When it said first and last that it wants something.
    wanted: Option<(Duration, Duration)>,
    /// When it has delivered something last.
    delivered: Duration,
    latencies: Vec<Duration>,
    next_latency: usize,
}

impl Peer {
    pub fn new(key: u64, kind: Kind) -> Peer {
        Peer {
            kind,
            key,
            speed: Speed::default(),
            window: Window::default(),
            bulk: 0,
            hit: 1.0,
            brings: 1.0,
            silent: 0,
            gained: Duration::ZERO,
            wanted: None,
            delivered: Duration::ZERO,
            latencies: Vec::new(),
            next_latency: 0,
        }
    }

    pub fn watches(&self) -> bool {
        self.kind == Kind::Node { watches: true }
    }

    pub fn flow(&self) -> Flow {
        Flow { window: self.window.bytes(), under_way: self.bulk, queueing: self.window.queueing() }
    }

    /// Whether it is worth waiting for it to say what it has.
    pub fn answers(&self) -> bool {
        self.watches() && self.silent < SILENT
    }

    /// It has said whether it has an object.
    pub fn on_answered(&mut self) {
        self.silent = 0;
    }

    /// It has not said so in time.
    pub fn on_silent(&mut self) {
        self.silent = (self.silent + 1).min(SILENT);
    }

    /// Something has come to it that it wanted.
    pub fn has_gained(&mut self, now: Duration) {
        self.gained = now;
    }

    /// When it said last that something has come which it wanted.
    pub fn gained(&self) -> Duration {
        self.gained
    }

    /// It says that it wants something too.
    pub fn has_wanted(&mut self, now: Duration) {
        let first = self.wanted.map_or(now, |(first, _)| first);
        self.wanted = Some((first, now));
    }

    /// Whether it fetches too, so that what it has may have come to it a moment ago.
    pub fn is_fetching(&self, now: Duration) -> bool {
        self.wanted.is_some_and(|(first, last)| now >= first + BEGUN && now < last + FETCHING)
    }

    /// Whether it has delivered nothing since `then`.
    pub fn is_silent_since(&self, then: Duration) -> bool {
        self.delivered <= then
    }

    /// Whether it could do more, for all that is known in a crowd of so many: nothing of a bulk class is on its way from it, and what
    /// came last did not wait in a queue, or is so long ago that it is worth trying again.
    pub fn has_spare(&self, now: Duration, crowd: usize) -> bool {
        let last = self.window.last_queueing();
        self.bulk == 0
            && last.is_some_and(|(at, queueing)| queueing < SPARE || now >= at + AGAIN * crowd as u32)
    }

    /// Whether about `bytes` more of a bulk class fit in the window. One object always does.
    pub fn has_room(&self, bytes: u64) -> bool {
        // The delays of an object store are those of its requests, and say nothing about a queue on a link.
        let window = if self.kind == Kind::Origin { window::MAX } else { self.window.bytes() };
        self.bulk == 0 || self.bulk + bytes <= window
    }

    /// Whether it has delivered to a reader before.
    pub fn has_served_readers(&self) -> bool {
        !self.latencies.is_empty()
    }

    /// Somebody who was asked later has delivered what a reader asked it for at `asked`. One that has served readers
    /// before may be late now and then; of one that never has, that is all that is known.
    pub fn on_overtaken(&mut self, now: Duration, asked: Duration) {
        if !self.has_served_readers() {
            self.speed.on_failed(asked, now, Failure::<()>::TimedOut);
        }
    }

    /// When an object asked for now is expected: later, the less often it has what it is asked for.
    pub fn expected(&self, now: Duration) -> Duration {
        self.speed.expected(now).div_f64(self.hit.max(0.05))
    }

    pub fn on_asked(&mut self, now: Duration, class: Class, bytes: u64) {
        self.speed.on_asked(now, bytes);
        if class != Class::Fault {
            self.bulk += bytes;
        }
    }

    /// What [`on_asked`](Self::on_asked) was told is answered or given up.
    pub fn on_settled(&mut self, class: Class, bytes: u64) {
        self.speed.on_settled(bytes);
        if class != Class::Fault {
            self.bulk = self.bulk.saturating_sub(bytes);
        }
    }

    /// It delivered an object of `bytes` that it was asked for at `asked`.
    pub fn on_delivered(&mut self, now: Duration, asked: Duration, class: Class, bytes: u64) {
        let delay = now.saturating_sub(asked);
        self.speed.on_come(now, bytes);
        self.speed.on_delivered();
        self.delivered = now;
        self.has_it(true);
        if class != Class::Fault {
            self.window.on_come(now, delay, bytes);
        } else if self.latencies.len() < LATENCIES {
            self.latencies.push(delay);
        } else {
            self.latencies[self.next_latency] = delay;
            self.next_latency = (self.next_latency + 1) % LATENCIES;
        }
    }

    pub fn on_failed<P: Copy>(&mut self, now: Duration, asked: Duration, failure: Failure<P>) {
        self.speed.on_failed(asked, now, failure);
        match failure {
            Failure::Missing => self.has_it(false),
            Failure::TimedOut => self.window.on_late(),
            Failure::Busy | Failure::Lost | Failure::Redirected(_) | Failure::Wrong | Failure::Foreign => {}
        }
    }

    /// It has, or has not, one object more.
    pub fn has_it(&mut self, has: bool) {
        self.hit += WEIGHT * (f64::from(u8::from(has)) - self.hit);
    }

    /// It has, or has not, brought in time what was left to it.
    pub fn has_brought(&mut self, brought: bool) {
        self.brings += WEIGHT * (f64::from(u8::from(brought)) - self.brings);
    }

    /// Whether objects are left to it to fetch.
    pub fn is_reliable(&self) -> bool {
        self.brings >= RELIABLE
    }

    /// Within this time it has answered 19 of 20 faults of late.
    pub fn p95(&self) -> Duration {
        if self.latencies.len() < ENOUGH {
            return UNKNOWN_P95;
        }
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() * 95).div_ceil(100) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Peer {
        Peer::new(1, Kind::Node { watches: true })
    }

    #[test]
    fn the_95th_percentile_leaves_one_in_twenty_out() {
        let mut peer = node();
        assert_eq!(peer.p95(), UNKNOWN_P95);
        for n in 0..100u64 {
            // One in twenty takes a second.
            let took = if n % 20 == 7 { Duration::from_secs(1) } else { Duration::from_millis(3) };
            let asked = Duration::from_secs(10 * n);
            peer.on_asked(asked, Class::Fault, 1000);
            peer.on_delivered(asked + took, asked, Class::Fault, 1000);
            peer.on_settled(Class::Fault, 1000);
        }
        assert_eq!(peer.p95(), Duration::from_millis(3));
    }

    #[test]
    fn a_peer_that_seldom_has_what_is_wanted_is_expected_later() {
        let (mut often, mut seldom) = (node(), node());
        let now = Duration::from_secs(1);
        often.on_failed(now, now, Failure::<u8>::Busy);
        for _ in 0..50 {
            seldom.on_failed(now, now, Failure::<u8>::Missing);
        }
        // (Being busy is no lack; it is held against a peer for a while only.)
        let later = Duration::from_secs(100);
        assert!(seldom.expected(later) > 5 * often.expected(later));
    }

    #[test]
    fn one_object_fits_in_any_window_and_faults_take_none_of_it() {
        let mut peer = node();
        let now = Duration::ZERO;
        assert!(peer.has_room(4 << 20));
        peer.on_asked(now, Class::Fault, 4 << 20);
        assert!(peer.has_room(4 << 20));
        peer.on_asked(now, Class::Prefetch, 4 << 20);
        assert!(!peer.has_room(1));
        peer.on_settled(Class::Prefetch, 4 << 20);
        assert!(peer.has_room(1));
    }
}
