//! How far ahead of a reader is fetched: a window that follows what is measured.
//!
//! Owns: the window of one reader, what the readers of a mount have learned from each other, and when a reader has left.
//! Must not know: files, how anything is fetched.
//! Invariant: windows stay within the bounds of their [`Rule`]; what is to be fetched ahead of a reader is named once, in order,
//! and never ends beyond its window.
//! Trust: none needed. Threads: pure values behind the caller's lock. Time comes in as `now`, from any fixed start.
//!
//! A reader that had to wait for what comes next in order shows that its window was too small, and it doubles, once for each
//! half of it that was read. But waiting also shows that a link is full, and then more of it would only be fetched early, perhaps in vain.
//! So a window is no larger than what its reader, at the best rate that it has shown of late, takes in the time in which two objects
//! come one after the other ([`Latency`]), and a little more; for a reader that waits all the time this is the rate of the link. Above that it
//! shrinks, so that a reader that is slower than the link holds little. Both only ever follow what was seen: a
//! figure that is wrong lets the reader overtake its window, which makes it right.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Rates are measured over so long at least.
const INTERVAL: Duration = Duration::from_millis(100);
/// What is left, after an interval, of a higher rate before it.
const KEPT: f64 = 0.9;
/// An interval takes one part in so many of what a window has too much.
const SHRINK: u64 = 8;
/// What a window holds beyond two latencies, as time: waits of processes, and objects that are larger than others.
const MARGIN: Duration = Duration::from_millis(50);
/// No object takes longer, as far as windows are concerned: peers that do not answer are no reason to fetch more, and on a slow
/// link reads wait behind what the same reader has asked for. The longest way, by a satellite, is within twice of it.
const LATENCY_MAX: Duration = Duration::from_millis(400);
/// Latencies of which the lower quartile counts.
const LATENCIES: usize = 9;
/// Where readers are known to leave early, one part in so many of what one has read is fetched ahead of it at most.
const UNTRUSTED: u64 = 8;
/// A reader that has not read for so long has left.
const LEFT: Duration = Duration::from_secs(3);

/// The bounds of windows, in what is counted: bytes of a file, or files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// Of one that was caught fetching in vain, of the first of a mount, and of all.
    pub least: u64,
    pub first: u64,
    pub most: u64,
    /// Of all readers of a mount together.
    pub together: u64,
    /// Less is not fetched at a time, but at the end.
    pub step: u64,
}

/// How long it takes to get one object that nobody has asked for before: the lower quartile of the last ones, as some wait behind
/// others of the same reader, and a few were asked for by somebody else a moment before.
#[derive(Debug, Default)]
pub(super) struct Latency {
    last: Vec<Duration>,
    next: usize,
}

impl Latency {
    pub fn add(&mut self, took: Duration) {
        match self.last.get_mut(self.next) {
            Some(old) => *old = took,
            None => self.last.push(took),
        }
        self.next = (self.next + 1) % LATENCIES;
    }

    pub fn usual(&self) -> Option<Duration> {
        let mut sorted = self.last.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) / 4).copied()
    }
}

/// The window of one reader.
#[derive(Debug, Clone)]
struct Pace {
    window: u64,
    /// What was read since it grew.
    since_grown: u64,
    /// When the interval began, and what was read in it.
    begun: Duration,
    read: u64,
    /// In a second, the best of late.
    rate: Option<f64>,
}

impl Pace {
    fn new(now: Duration, window: u64) -> Self {
        Self { window, since_grown: 0, begun: now, read: 0, rate: None }
    }

    /// Takes note that `amount` more was read, and whether it had to be waited for. Whether the window grew.
    fn on_read(
        &mut self,
        rule: &Rule,
        now: Duration,
        (amount, waited): (u64, bool),
        latency: Option<Duration>,
    ) -> bool {
        self.since_grown = self.since_grown.saturating_add(amount);
        self.read = self.read.saturating_add(amount);
        let over = now.saturating_sub(self.begun);
        let is_over = over >= INTERVAL;
        if is_over {
            let rate = self.read as f64 / over.as_secs_f64();
            self.rate = Some(self.rate.map_or(rate, |before| rate.max(before * KEPT)));
            (self.begun, self.read) = (now, 0);
        }
        let useful = self.useful(rule, latency);
        let grows = waited && self.since_grown >= self.window / 2 && self.window < useful;
        if grows {
            self.window = self.window.saturating_mul(2).min(useful);
            self.since_grown = 0;
        } else if is_over {
            self.window -= self.window.saturating_sub(useful).div_ceil(SHRINK);
        }
        grows
    }

    /// The largest window that can be of use, as far as anything was measured.
    fn useful(&self, rule: &Rule, latency: Option<Duration>) -> u64 {
        let (Some(rate), Some(latency)) = (self.rate, latency) else { return rule.most };
        let time = 2 * latency.min(LATENCY_MAX) + MARGIN;
        ((rate * time.as_secs_f64()) as u64).clamp(rule.least, rule.most)
    }
}

/// One who reads in order, from position to position: of bytes, or of files.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    /// Where it began, where it goes on if it is in order, up to where has been asked for, and where there is no more.
    first: u64,
    pub next: u64,
    pub until: u64,
    end: u64,
    /// Where what was asked for ahead of it began.
    asked: Option<u64>,
    /// Reads on end that came from behind.
    pub late: u32,
    pace: Pace,
    last: Duration,
    /// Bytes that were fetched ahead of it.
    fetched: Arc<AtomicU64>,
    /// It has left, and so many of these bytes were in vain.
    left: Option<u64>,
}

impl Reader {
    /// Bytes that were fetched ahead of it are to be added to this.
    pub fn fetched(&self) -> Arc<AtomicU64> {
        self.fetched.clone()
    }

    pub fn window(&self) -> u64 {
        self.pace.window
    }

    /// Whether it has read of late, and something was asked for ahead of it.
    pub fn is_ahead(&self) -> bool {
        self.left.is_none() && self.asked.is_some()
    }

    /// Whether what ends at `to` was asked for ahead of it.
    pub fn has_asked(&self, to: u64) -> bool {
        to.min(self.end) <= self.until
    }

    /// Whether what is at `position` was asked for ahead of it.
    pub fn covers(&self, position: u64) -> bool {
        self.asked.is_some_and(|asked| (asked..self.until).contains(&position))
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    /// Of the bytes that were fetched ahead, about those that were not read.
    fn unread(&self) -> u64 {
        let asked = self.asked.map_or(0, |asked| self.until.saturating_sub(asked)).max(1);
        let ahead = self.until.saturating_sub(self.next);
        let fetched = self.fetched.load(Ordering::Relaxed);
        (u128::from(fetched) * u128::from(ahead.min(asked)) / u128::from(asked)) as u64
    }
}

/// What the readers of one kind have taught of a mount.
#[derive(Debug)]
pub(super) struct Pacing {
    rule: Rule,
    /// Windows as a user wants them.
    fixed: Option<u64>,
    /// The window of a new reader.
    start: u64,
    /// Readers that have read of late.
    active: u64,
    /// Bytes fetched ahead of readers that have left, which they have not read.
    unread: u64,
}

impl Pacing {
    /// With `fixed`, windows are of that size and follow nothing.
    pub fn new(rule: Rule, fixed: Option<u64>) -> Self {
        Self { rule, fixed, start: rule.first, active: 0, unread: 0 }
    }

    /// Somebody reads up to `next` of what ends at `end`, and may go on.
    pub fn begin(&mut self, now: Duration, next: u64, end: u64) -> Reader {
        self.active += 1;
        let pace = Pace::new(now, self.start);
        let (first, until, fetched) = (next, next, Arc::default());
        Reader { first, next, until, end, asked: None, late: 0, pace, last: now, fetched, left: None }
    }

    /// Takes note that `reader` has read up to `to` in order, and whether it had to wait. What to fetch ahead of it, if
    /// anything. Whoever does not do so sets `until` back to where that begins.
    pub fn advance(
        &mut self,
        reader: &mut Reader,
        now: Duration,
        (to, waited): (u64, bool),
        latency: Option<Duration>,
    ) -> Option<(u64, u64)> {
        if let Some(unread) = reader.left.take() {
            self.unread -= unread;
            self.active += 1;
        }
        reader.last = now;
        let amount = to.saturating_sub(reader.next);
        reader.next = reader.next.max(to);
        let window = match self.fixed {
            Some(fixed) => fixed,
            None => {
                if reader.pace.on_read(&self.rule, now, (amount, waited), latency) {
                    self.start = self.start.max(reader.pace.window / 2);
                }
                let window = reader.pace.window.min(self.rule.together / self.active.max(1));
                // Where the last ones were left early, one has to show that it goes on.
                let shown = (reader.next - reader.first) / UNTRUSTED;
                if self.start == self.rule.least { window.min(shown.max(self.rule.step)) } else { window }
            }
        };
        let from = reader.until.max(reader.next);
        let goal = reader.next.saturating_add(window).min(reader.end);
        let step = (window / 4).max(self.rule.step).min(window);
        let is_due = goal > from && (goal - from >= step || goal == reader.end);
        is_due.then(|| {
            reader.asked.get_or_insert(from);
            reader.until = goal;
            (from, goal)
        })
    }

    /// `reader` does not go on.
    pub fn leave(&mut self, reader: &mut Reader) {
        if reader.left.is_some() {
            return;
        }
        let (unread, window) = (reader.unread(), reader.pace.window);
        reader.left = Some(unread);
        self.unread += unread;
        self.active = self.active.saturating_sub(1);
        let (ahead, read) = (reader.until.saturating_sub(reader.next), reader.next - reader.first);
        self.start = match ahead > read / 4 {
            true => self.start.min(window) / 2,
            false => self.start.midpoint(window),
        }
        .clamp(self.rule.least, self.rule.most);
    }

    /// Looks which of all readers have left.
    pub fn look<'r>(&mut self, now: Duration, readers: impl Iterator<Item = &'r mut Reader>) {
        let mut active = 0;
        for reader in readers {
            if now.saturating_sub(reader.last) >= LEFT {
                self.leave(reader);
            } else {
                active += 1;
            }
        }
        self.active = active;
    }

    /// The window of new readers.
    pub fn start(&self) -> u64 {
        self.fixed.unwrap_or(self.start)
    }

    /// Bytes that were fetched ahead of readers that left before they had read them.
    pub fn unread(&self) -> u64 {
        self.unread
    }
}

#[cfg(test)]
mod tests;
