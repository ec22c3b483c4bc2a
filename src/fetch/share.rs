//! What each class gets of what is fetched.
//!
//! Owns: bytes by class, since the start and in the last seconds.
//! Must not know: who gives what to whom: classes share by the windows of peers (`swarm::scheduler`).
//! Invariant: memory does not grow. A rate is that of the last [`SPAN`] seconds, the one that has begun included.
//! Trust: none needed. Threads: a plain value behind the caller's lock. Time comes in as `now`.

use std::time::Duration;

use crate::swarm::Class;

/// Seconds of which a rate is the mean.
const SPAN: u64 = 5;

/// Bytes of one class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    pub class: Class,
    /// Fetched since the start, plain.
    pub bytes: u64,
    /// Bytes a second, in the last seconds.
    pub rate: f64,
}

#[derive(Debug, Default)]
pub(super) struct Shares {
    totals: [u64; Class::ALL.len()],
    /// The last seconds, each with its number.
    seconds: [(u64, [u64; Class::ALL.len()]); SPAN as usize],
}

impl Shares {
    pub(super) fn add(&mut self, now: Duration, class: Class, bytes: u64) {
        let second = &mut self.seconds[(now.as_secs() % SPAN) as usize];
        if second.0 != now.as_secs() {
            *second = (now.as_secs(), Default::default());
        }
        second.1[class as usize] += bytes;
        self.totals[class as usize] += bytes;
    }

    pub(super) fn shares(&self, now: Duration) -> Vec<Share> {
        let recent = self.seconds.iter().filter(|(second, _)| second + SPAN > now.as_secs());
        let span = (now.as_secs_f64().fract() + (SPAN - 1) as f64).min(now.as_secs_f64()).max(1.0);
        let share = |class: Class| Share {
            class,
            bytes: self.totals[class as usize],
            rate: recent.clone().map(|(_, bytes)| bytes[class as usize]).sum::<u64>() as f64 / span,
        };
        Class::ALL.map(share).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_a_sum_that_of_all() {
        let mut shares = Shares::default();
        for ms in (0..20_000).step_by(100) {
            shares.add(Duration::from_millis(ms), Class::Fault, 10);
            shares.add(Duration::from_millis(ms), Class::Prefetch, 300);
        }
        let at = |ms: u64| shares.shares(Duration::from_millis(ms));
        let [fault, ahead, prefetch, _] = at(20_000)[..] else { panic!("four classes") };
        assert_eq!((fault.bytes, ahead.bytes, prefetch.bytes), (2_000, 0, 60_000));
        assert_eq!((fault.rate, ahead.rate, prefetch.rate), (100.0, 0.0, 3_000.0));
        assert!(at(22_000)[0].rate < 60.0);
        assert_eq!(at(26_000)[2], Share { class: Class::Prefetch, bytes: 60_000, rate: 0.0 });
    }
}
