//! How well a peer does: its grade, its score, and whether it does worse than it used to.
//!
//! Owns: the smoothed measurements of one peer, the rule by which they become a grade and a score, and the history
//! that tells what is unusual for this peer.
//! Must not know: how peers are connected or chosen.
//! Invariant: a grade never gets better because a measurement got worse; every number is finite, every share and score
//! within 0 and 1.
//! Trust: only what was measured here enters; nothing that a peer says about itself.
//! Threads: pure values; the caller locks them. `now` counts from any fixed start and does not go back.

use std::fmt;
use std::time::Duration;

/// How well a peer does, best first.
///
/// The rule: each of the four measures below has a grade of its own, and the peer's is the worst of them. A measure that
/// was not taken yet does not count. The bounds are those of [`LATENCY`], [`RATE`], [`FAILURES`] and [`PRESENCE`].
///
/// | measure | is |
/// |---|---|
/// | latency | the smoothed round trip of its pings |
/// | rate | smoothed bytes a second of objects from it, while any were asked of it |
/// | failure share | of requests that ended with an object or a failure, the smoothed share of failures |
/// | availability | the share of the time since it was first seen in which it was connected |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    Excellent,
    Good,
    Fair,
    Poor,
    Critical,
}

/// The longest round trip that is still excellent, good, fair and poor.
pub const LATENCY: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(1000),
];
/// The lowest rates that are still so, in bytes a second. A limit of this node's own that is lower shows here too.
pub const RATE: [f64; 4] = [8.0 * 1024.0 * 1024.0, 1024.0 * 1024.0, 128.0 * 1024.0, 16.0 * 1024.0];
/// The largest shares of failures that are still so.
pub const FAILURES: [f64; 4] = [0.01, 0.05, 0.2, 0.5];
/// The lowest availabilities that are still so.
pub const PRESENCE: [f64; 4] = [0.99, 0.95, 0.8, 0.5];

/// The part of a new measurement in smoothed latency and rate, and of one outcome in the share of failures.
const WEIGHT: f64 = 0.3;
const OUTCOME_WEIGHT: f64 = 0.05;
/// Rates are measured over at least this long.
const WINDOW: Duration = Duration::from_millis(100);
/// Availability is measured over at least this long: one loss in the first minute is no judgement.
const PRESENCE_SPAN: Duration = Duration::from_secs(600);
/// Outcomes whose share of failures is one sample of the history.
const BATCH: u32 = 32;
/// The rate at which half of the points for bandwidth are given, in bytes a second.
const HALF_RATE: f64 = 10.0 * 1024.0 * 1024.0;
/// The weights of bandwidth, reputation and availability in the score.
const SCORE: [f64; 3] = [0.4, 0.4, 0.2];
/// What a flow of bytes is averaged over.
const FLOW: Duration = Duration::from_secs(3);

impl Grade {
    const ALL: [Grade; 5] = [Grade::Excellent, Grade::Good, Grade::Fair, Grade::Poor, Grade::Critical];

    /// The first grade whose bound `holds`, or the last.
    fn first<T: Copy>(bounds: [T; 4], holds: impl Fn(T) -> bool) -> Grade {
        let at = bounds.into_iter().position(holds).unwrap_or(bounds.len());
        Grade::ALL[at]
    }

    fn of(measures: &Measures) -> Grade {
        let latency = measures.latency.map(|rtt| Grade::first(LATENCY, |most| rtt <= most));
        let rate = measures.rate.map(|rate| Grade::first(RATE, |least| rate >= least));
        let failures = Grade::first(FAILURES, |most| measures.failures <= most);
        let presence = Grade::first(PRESENCE, |least| measures.availability >= least);
        let known = [latency, rate].into_iter().flatten();
        known.fold(failures.max(presence), Grade::max)
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Grade::Excellent => "excellent",
            Grade::Good => "good",
            Grade::Fair => "fair",
            Grade::Poor => "poor",
            Grade::Critical => "critical",
        })
    }
}

/// What a grade and a score are made of.
#[derive(Debug, Clone, Copy)]
struct Measures {
    latency: Option<Duration>,
    rate: Option<f64>,
    failures: f64,
    /// Requests that ended with an object.
    delivered: u64,
    availability: f64,
}

impl Measures {
    /// Bandwidth is `rate / (rate + HALF_RATE)`, and a half as long as it is not known. Reputation is the share of
    /// successes, times `(n + 1) / (n + 2)` after `n` objects, so that a peer that was never asked has a half and one
    /// that has always delivered comes near to 1. Availability is as it is.
    fn score(&self) -> f64 {
        let bandwidth = self.rate.map_or(0.5, |rate| rate / (rate + HALF_RATE));
        let delivered = self.delivered as f64;
        let reputation = (1.0 - self.failures) * (delivered + 1.0) / (delivered + 2.0);
        let parts = [bandwidth, reputation, self.availability];
        parts.iter().zip(SCORE).map(|(part, weight)| part * weight).sum::<f64>().clamp(0.0, 1.0)
    }
}

/// The measurements of one peer.
#[derive(Debug, Clone, Default)]
pub struct Health {
    latency: Option<Duration>,
    rate: Option<f64>,
    /// Requests under way, and since when and with how many bytes the rate is being measured.
    open: u32,
    busy_since: Duration,
    come: u64,
    failures: f64,
    delivered: u64,
    failed: u64,
    /// Outcomes and failures of the batch that is being gathered.
    batch: (u32, u32),
    presence: Presence,
    latencies: History,
    shares: History,
    flow_in: Flow,
    flow_out: Flow,
}

/// Since when a peer is known, and how long it was away.
#[derive(Debug, Clone, Copy, Default)]
struct Presence {
    first_seen: Option<Duration>,
    away: Duration,
    away_since: Option<Duration>,
}

impl Health {
    /// It is connected.
    pub fn on_connected(&mut self, now: Duration) {
        self.presence.first_seen.get_or_insert(now);
        if let Some(since) = self.presence.away_since.take() {
            self.presence.away += now.saturating_sub(since);
        }
    }

    /// Its last connection has ended.
    pub fn on_disconnected(&mut self, now: Duration) {
        self.presence.first_seen.get_or_insert(now);
        self.presence.away_since.get_or_insert(now);
    }

    /// A round trip was measured.
    pub fn on_latency(&mut self, rtt: Duration) {
        let smoothed = self.latency.map_or(rtt, |old| old.mul_f64(1.0 - WEIGHT) + rtt.mul_f64(WEIGHT));
        self.latency = Some(smoothed);
        self.latencies.add(rtt.as_secs_f64(), LATENCIES);
    }

    /// The smoothed round trip, if one was measured.
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// An object is asked of it.
    pub fn on_asked(&mut self, now: Duration) {
        if self.open == 0 {
            (self.busy_since, self.come) = (now, 0);
        }
        self.open += 1;
    }

    /// What was asked is answered or given up.
    pub fn on_settled(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// `bytes` of objects came from it.
    pub fn on_bytes(&mut self, now: Duration, bytes: u64) {
        self.flow_in.add(now, bytes);
        self.come += bytes;
        let elapsed = now.saturating_sub(self.busy_since);
        if elapsed >= WINDOW {
            let rate = self.come as f64 / elapsed.as_secs_f64();
            self.rate = Some(self.rate.map_or(rate, |old| old * (1.0 - WEIGHT) + rate * WEIGHT));
            (self.busy_since, self.come) = (now, 0);
        }
    }

    /// `bytes` of objects were sent to it.
    pub fn on_sent(&mut self, now: Duration, bytes: u64) {
        self.flow_out.add(now, bytes);
    }

    /// What was asked of it ended: with the object, or with its failure to deliver. That it does not have an object, or
    /// is too busy for it, is neither.
    pub fn on_outcome(&mut self, ok: bool) {
        let count = if ok { &mut self.delivered } else { &mut self.failed };
        *count = count.saturating_add(1);
        let share = if ok { 0.0 } else { 1.0 };
        self.failures += (share - self.failures) * OUTCOME_WEIGHT;
        self.batch.0 += 1;
        self.batch.1 += u32::from(!ok);
        if self.batch.0 == BATCH {
            self.shares.add(f64::from(self.batch.1) / f64::from(BATCH), SHARES);
            self.batch = (0, 0);
        }
    }

    /// How well it does.
    pub fn grade(&self, now: Duration) -> Grade {
        Grade::of(&self.measures(now))
    }

    /// What it is worth keeping for, from 0 to 1: 40 % bandwidth, 40 % reputation, 20 % availability.
    pub fn score(&self, now: Duration) -> f64 {
        self.measures(now).score()
    }

    /// Its latest round trips are far longer than its own used to be.
    pub fn has_unusual_latency(&self) -> bool {
        self.latencies.is_unusual(LATENCIES)
    }

    /// It fails far more often of late than it used to.
    pub fn has_unusual_failures(&self) -> bool {
        self.shares.is_unusual(SHARES)
    }

    /// Requests that ended with its failure.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// The smoothed share of failures.
    pub fn failure_share(&self) -> f64 {
        self.failures
    }

    /// Bytes a second that come from it, and that go to it, of late.
    pub fn flows(&self, now: Duration) -> (f64, f64) {
        (self.flow_in.rate(now), self.flow_out.rate(now))
    }

    fn measures(&self, now: Duration) -> Measures {
        Measures {
            latency: self.latency,
            rate: self.rate,
            failures: self.failures,
            delivered: self.delivered,
            availability: self.presence.share(now),
        }
    }
}

impl Presence {
    fn share(&self, now: Duration) -> f64 {
        let known = now.saturating_sub(self.first_seen.unwrap_or(now)).max(PRESENCE_SPAN);
        let away = self.away + self.away_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        1.0 - (away.as_secs_f64() / known.as_secs_f64()).min(1.0)
    }
}

/// How a kind of sample is judged against the history of its peer.
#[derive(Debug, Clone, Copy)]
struct Judgement {
    /// Deviations below this are never unusual: on a quiet line the measured one is next to nothing.
    floor: f64,
    /// Samples on end that have to be beyond.
    run: u32,
}

/// Of round trips, in seconds. Pings come every 15 seconds; a single late one is no news.
const LATENCIES: Judgement = Judgement { floor: 0.010, run: 3 };
/// Of shares of failures in batches.
const SHARES: Judgement = Judgement { floor: 0.1, run: 1 };
/// Samples before there is a history to differ from.
const SAMPLES: u32 = 16;
/// Mean deviations above the mean that are still usual, as in the retransmission timer of TCP (RFC 6298).
const DEVIATIONS: f64 = 4.0;
/// The part of a sample in the mean and in the mean deviation. A quarter of what TCP takes: what is unusual has to stay
/// so for minutes, and not become the history within two samples.
const MEAN_WEIGHT: f64 = 1.0 / 32.0;
const DEVIATION_WEIGHT: f64 = 1.0 / 16.0;

/// The mean and the mean deviation of what a peer used to do.
#[derive(Debug, Clone, Copy, Default)]
struct History {
    mean: f64,
    deviation: f64,
    samples: u32,
    /// Samples on end that were beyond what is usual.
    beyond: u32,
}

impl History {
    fn add(&mut self, sample: f64, judgement: Judgement) {
        if self.samples == 0 {
            (self.mean, self.deviation) = (sample, sample / 2.0);
        }
        let most = self.mean + (DEVIATIONS * self.deviation).max(judgement.floor);
        let is_beyond = self.samples >= SAMPLES && sample > most;
        self.beyond = if is_beyond { self.beyond.saturating_add(1) } else { 0 };
        // What is beyond counts as the most that is usual, so that it becomes the history slowly.
        let sample = if self.samples >= SAMPLES { sample.min(most) } else { sample };
        // Until there is a history, each sample counts as much as those before it.
        let early = 1.0 / f64::from(self.samples + 1);
        let error = sample - self.mean;
        self.deviation += (error.abs() - self.deviation) * DEVIATION_WEIGHT.max(early);
        self.mean += error * MEAN_WEIGHT.max(early);
        self.samples = self.samples.saturating_add(1).min(SAMPLES * 2);
    }

    fn is_unusual(&self, judgement: Judgement) -> bool {
        self.beyond >= judgement.run
    }
}

/// Bytes a second, averaged over the last [`FLOW`] with ever less weight on what is older.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flow {
    begun: Option<Duration>,
    last: Duration,
    rate: f64,
}

/// No flow is measured over less than this.
const FLOW_MIN: Duration = Duration::from_millis(100);

impl Flow {
    /// `bytes` have passed.
    pub fn add(&mut self, now: Duration, bytes: u64) {
        self.begun.get_or_insert(now);
        self.rate = self.decayed(now) + bytes as f64 / FLOW.as_secs_f64();
        self.last = self.last.max(now);
    }

    /// Bytes a second now. It falls while nothing passes.
    pub fn rate(&self, now: Duration) -> f64 {
        let Some(begun) = self.begun else { return 0.0 };
        // A flow that has just begun is averaged over the time since then.
        let age = now.saturating_sub(begun).max(FLOW_MIN);
        let seen = 1.0 - (-age.as_secs_f64() / FLOW.as_secs_f64()).exp();
        self.decayed(now) / seen
    }

    fn decayed(&self, now: Duration) -> f64 {
        let since = now.saturating_sub(self.last);
        self.rate * (-since.as_secs_f64() / FLOW.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests;
