//! The least or the most that was seen lately.
//!
//! Owns: the best of the values of two spans of time.
//! Must not know: what is measured.
//! Invariant: what is told was seen within the last two spans in which anything was, however many values there were.
//! Trust: none is needed; values are measured here.
//! Threads: a pure value. Time comes in as `now`.

use std::time::Duration;

/// The best of what was seen in one span of time and in the span before.
#[derive(Debug, Clone)]
pub struct Best<T> {
    seen: [Option<T>; 2],
    since: Duration,
    span: Duration,
    better: fn(T, T) -> T,
}

impl<T: Copy> Best<T> {
    /// Nothing was seen. Each value counts for a `span` at least and for two at the most, unless another was `better`.
    pub fn new(span: Duration, better: fn(T, T) -> T) -> Best<T> {
        Best { seen: [None; 2], since: Duration::ZERO, span, better }
    }

    /// The best of late, `value` among it.
    pub fn see(&mut self, now: Duration, value: T) -> T {
        if now >= self.since + self.span {
            self.seen = [None, self.seen[0]];
            self.since = now;
        }
        let [current, before] = self.seen;
        let best = current.map_or(value, |best| (self.better)(best, value));
        self.seen[0] = Some(best);
        before.map_or(best, |before| (self.better)(before, best))
    }

    /// The best of late; nothing before the first value.
    pub fn get(&self) -> Option<T> {
        self.seen.into_iter().flatten().reduce(self.better)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_best_counts_for_one_span_at_least_and_two_at_the_most() {
        let second = Duration::from_secs(1);
        let mut least = Best::new(10 * second, u32::min);
        assert_eq!(least.get(), None);
        let told = [(1, 5), (9, 7), (10, 8), (19, 9), (20, 9), (31, 12)]
            .map(|(at, value)| least.see(at * second, value));
        assert_eq!(told, [5, 5, 5, 5, 8, 9]);
        assert_eq!(least.get(), Some(9));
    }
}
