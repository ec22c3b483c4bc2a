//! What to make of a peer's answers.
//!
//! Owns: the measured speed of a peer and its latest failures, what failures amount to, and who is suspected of lying.
//! Must not know: how peers are connected. `P` names a peer.
//! Invariant: a peer is banned at its first wrong object, unless another
//! peer failed on that same object too: then nobody stays banned for it.
//! Trust: only what was measured or verified here enters; nothing that a peer says about itself.
//! Threads: pure values; the caller locks them.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use crate::id::ObjectId;

/// How fast a peer has been of late.
#[derive(Debug, Clone, Default)]
pub struct Speed {
    /// Smoothed round trip.
    rtt: Option<Duration>,
    /// Smoothed bytes a second while it had something to send.
    rate: Option<f64>,
    /// Bytes asked for and not come yet, as far as known.
    queued: u64,
    busy_since: Duration,
    come: u64,
    doubt: Doubt,
}

/// What the latest failures of a peer say about the next request.
#[derive(Debug, Clone, Copy, Default)]
struct Doubt {
    /// Failures on end; requests that were under way together count once.
    failures: u32,
    last: Duration,
    /// The last one was that it could not even be asked.
    unasked: bool,
    /// The last one was that nothing came of it, not even that it is busy.
    silent: bool,
}

/// Taken for the round trip of a peer that was not measured yet.
const UNKNOWN_RTT: Duration = Duration::from_millis(50);
/// Taken for the rate of a peer that was not measured yet, in bytes a second: high, so that new peers get a try.
const UNKNOWN_RATE: f64 = 64e6;
/// Rates are measured over at least this long.
const WINDOW: Duration = Duration::from_millis(100);
/// The share of a new measurement in the smoothed value.
const WEIGHT: f64 = 0.3;
/// What each failure multiplies the expected time with, and how many count.
const DOUBT: (f64, u32) = (10.0, 4);
/// How long one failure is held against a peer; twice as long with each further one, up to [`MAX_FAILURES`].
const PAUSE: Duration = Duration::from_secs(5);
/// Failures counted: after that many the pause is 640 s.
const MAX_FAILURES: u32 = 8;
/// Puts a peer that could not be asked behind all that can be.
const LAST: Duration = Duration::from_secs(24 * 3600);

impl Speed {
    /// A round trip was measured.
    pub fn on_rtt(&mut self, rtt: Duration) {
        let smoothed = self.rtt.map_or(rtt, |old| old.mul_f64(1.0 - WEIGHT) + rtt.mul_f64(WEIGHT));
        self.rtt = Some(smoothed);
    }

    /// The smoothed round trip, if one was measured.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// About `bytes` were asked for.
    pub fn on_asked(&mut self, now: Duration, bytes: u64) {
        if self.queued == 0 {
            self.busy_since = now;
            self.come = 0;
        }
        self.queued += bytes;
    }

    /// `bytes` came.
    pub fn on_come(&mut self, now: Duration, bytes: u64) {
        self.come += bytes;
        let elapsed = now.saturating_sub(self.busy_since);
        if elapsed >= WINDOW {
            let rate = self.come as f64 / elapsed.as_secs_f64();
            self.rate = Some(self.rate.map_or(rate, |old| old * (1.0 - WEIGHT) + rate * WEIGHT));
            self.busy_since = now;
            self.come = 0;
        }
    }

    /// What [`on_asked`](Self::on_asked) was told is answered or given up.
    pub fn on_settled(&mut self, bytes: u64) {
        self.queued = self.queued.saturating_sub(bytes);
    }

    /// What was asked at `asked` has failed. `Missing`, `Wrong` and `Foreign` say nothing about how fast it answers.
    pub fn on_failed<P>(&mut self, asked: Duration, now: Duration, failure: Failure<P>) {
        if matches!(failure, Failure::Busy | Failure::TimedOut | Failure::Lost) {
            self.doubt.add(asked, now, false);
            self.doubt.silent = !matches!(failure, Failure::Busy);
        }
    }

    /// No session could be opened with it, which was begun at `asked`.
    pub fn on_not_opened(&mut self, asked: Duration, now: Duration) {
        self.doubt.add(asked, now, true);
        self.doubt.silent = true;
    }

    /// A session with it was opened.
    pub fn on_opened(&mut self) {
        self.doubt.unasked = false;
    }

    /// An object came from it whole.
    pub fn on_delivered(&mut self) {
        self.doubt.failures /= 2;
    }

    /// Whether it has let what it was asked for come to nothing of late, without a word.
    pub fn is_silent(&self, now: Duration) -> bool {
        self.doubt.silent && self.doubt.stands(now)
    }

    /// Whether an attempt to open a session with it has failed since `then`.
    pub fn not_opened_since(&self, then: Duration) -> bool {
        self.doubt.unasked && self.doubt.last >= then
    }

    /// When an object asked for now would be here: round trip + queued bytes over measured rate, and much later the
    /// more often it has failed of late.
    pub fn expected(&self, now: Duration) -> Duration {
        let rate = self.rate.unwrap_or(UNKNOWN_RATE).max(1.0);
        let rtt = self.rtt.unwrap_or(UNKNOWN_RTT);
        let queued = Duration::from_secs_f64((self.queued as f64 / rate).min(1e6));
        if !self.doubt.stands(now) {
            return rtt + queued;
        }
        let (factor, most) = DOUBT;
        // However near a peer that does not deliver is, it is no nearer than one that nobody has measured.
        let expected =
            (rtt.max(UNKNOWN_RTT) + queued).mul_f64(factor.powi(self.doubt.failures.min(most) as i32));
        if self.doubt.unasked { expected + LAST } else { expected }
    }
}

impl Doubt {
    fn add(&mut self, asked: Duration, now: Duration, unasked: bool) {
        if self.failures > 0 && asked < self.last {
            return;
        }
        let failures = (self.failures + 1).min(MAX_FAILURES);
        *self = Doubt { failures, last: now, unasked, ..*self };
    }

    /// When the pause is over, the peer gets another try; the next failure makes a longer one.
    fn stands(&self, now: Duration) -> bool {
        self.failures > 0 && now < self.last + PAUSE * (1 << (self.failures - 1))
    }
}

/// How asking one peer for an object ended, when not with the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure<P> {
    /// It has just given the object to this peer, where it is to be had; nothing if that is none we understand.
    Redirected(Option<P>),
    /// It does not have it.
    Missing,
    /// It declined for now.
    Busy,
    /// It did not deliver in time.
    TimedOut,
    /// The connection broke.
    Lost,
    /// What it sent is not the object.
    Wrong,
    /// It turned out to be no node of this network at all.
    Foreign,
}

/// Why a search ended without the object. What may succeed later outweighs what will not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// There was nobody to ask.
    Nobody,
    /// Everybody said that they do not have it.
    NotFound,
    /// Somebody sent something else under its name, and nobody the right thing.
    Corrupt,
    /// Somebody who may have it did not deliver in time.
    TimedOut,
    /// Somebody who may have it was busy or lost.
    Unreachable,
}

impl Verdict {
    /// What the failures of all who were asked amount to.
    pub fn of<P>(failures: &[Failure<P>]) -> Verdict {
        let of_one = |failure: &Failure<P>| match failure {
            Failure::Busy | Failure::Lost | Failure::Redirected(_) => Verdict::Unreachable,
            Failure::TimedOut => Verdict::TimedOut,
            Failure::Wrong => Verdict::Corrupt,
            Failure::Missing => Verdict::NotFound,
            Failure::Foreign => Verdict::Nobody,
        };
        failures.iter().map(of_one).max().unwrap_or(Verdict::Nobody)
    }
}

/// Who sent wrong bytes for which object, and who is banned for it. Of each, the latest are remembered.
#[derive(Debug)]
pub struct Suspects<P: Hash + Eq> {
    wrong: LruCache<ObjectId, Vec<P>>,
    /// The banned, each with the objects that speak against it.
    banned: LruCache<P, Vec<ObjectId>>,
}

/// Objects and banned peers that [`Suspects`] remembers.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).expect("1024 is not zero");
/// Peers remembered for one object, and objects for one peer.
const REMEMBERED_EACH: usize = 16;

/// What follows from one wrong object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement<P> {
    /// The peer lies, or its disk does.
    Ban,
    /// Others failed on the same object: the manifest that named it or our own memory is at fault. Whoever was
    /// banned for nothing else is pardoned.
    Doubt { pardoned: Vec<P> },
}

impl<P: Copy + Eq + Hash> Suspects<P> {
    /// Nobody is suspected.
    pub fn new() -> Suspects<P> {
        Suspects { wrong: LruCache::new(REMEMBERED), banned: LruCache::new(REMEMBERED) }
    }

    /// `peer` sent wrong bytes for `object`.
    pub fn wrong(&mut self, object: ObjectId, peer: P) -> Judgement<P> {
        let peers = self.wrong.get_or_insert_mut(object, Vec::new);
        let others: Vec<P> = peers.iter().copied().filter(|other| *other != peer).collect();
        if !peers.contains(&peer) && peers.len() < REMEMBERED_EACH {
            peers.push(peer);
        }
        if others.is_empty() {
            let objects = self.banned.get_or_insert_mut(peer, Vec::new);
            if objects.len() < REMEMBERED_EACH {
                objects.push(object);
            }
            return Judgement::Ban;
        }
        Judgement::Doubt {
            pardoned: others.into_iter().filter(|other| self.acquit(other, &object)).collect(),
        }
    }

    /// Whether `peer` is banned for some object.
    pub fn is_banned(&self, peer: &P) -> bool {
        self.banned.contains(peer)
    }

    /// Whether `peer` failed on `object`, so that it is not to be asked for it again.
    pub fn has_failed(&self, object: &ObjectId, peer: &P) -> bool {
        self.wrong.peek(object).is_some_and(|peers| peers.contains(peer))
    }

    /// How many peers failed on `object`.
    pub fn failed_on(&self, object: &ObjectId) -> usize {
        self.wrong.peek(object).map_or(0, Vec::len)
    }

    /// Holds nothing against `peer` any more.
    pub fn forgive(&mut self, peer: &P) {
        self.banned.pop(peer);
        self.wrong.iter_mut().for_each(|(_, peers)| peers.retain(|other| other != peer));
    }

    /// Holds `object` against `peer` no longer; whether that ends its ban.
    fn acquit(&mut self, peer: &P, object: &ObjectId) -> bool {
        let Some(objects) = self.banned.peek_mut(peer) else { return false };
        objects.retain(|other| other != object);
        objects.is_empty() && self.banned.pop(peer).is_some()
    }
}

impl<P: Copy + Eq + Hash> Default for Suspects<P> {
    fn default() -> Self {
        Self::new()
    }
}
