//! How much may be asked of one peer ahead of its answers, so that its link is full and its queue short.
//!
//! Owns: the window of one peer, in bytes, and the delays that it follows.
//! Must not know: what is asked for.
//! Invariant: the window stays between [`MIN`] and [`MAX`].
//! Trust: delays are measured here. A peer that makes them up only gets a smaller or larger window.
//! Threads: a pure value. Time comes in as `now`.
//!
//! The rule is that of LEDBAT (RFC 6817): the delay above the shortest one seen lately is queueing; while it is below
//! [`TARGET`] the window grows, by at most one object or one part in [`GROW`] for each window that has come, and above it shrinks. Until queueing
//! is seen for the first time it grows by all that comes, as in slow start; and it shrinks by a part of itself (as LEDBAT++
//! does, draft-irtf-iccrg-ledbat-plus-plus), so that a crowd that began at the same moment soon leaves room for each other.

use std::time::Duration;

use crate::swarm::best::Best;

/// Bytes that may always be on their way from a peer. (One object may, however large.) It is little because members of a crowd ask
/// the one that an object has come to first all at the same time: what each may always ask for would be a queue of seconds.
pub const MIN: u64 = 16 << 10;
/// Bytes on their way from one peer at the most.
pub const MAX: u64 = 16 << 20;
/// The window of a peer that was not measured yet.
const INITIAL: u64 = 256 << 10;
/// Queueing that is wanted: enough to keep a link busy, and little for whoever shares it.
const TARGET: Duration = Duration::from_millis(40);
/// What one whole window that came in time adds, in bytes.
const STEP: f64 = (64 << 10) as f64;
/// The same of a long one: one part of it in so many. On a long link, of which a window fills little, one that a pause of this
/// machine has made small would be small for minutes.
const GROW: f64 = 8.0;
/// A window that came twice too late or worse is made smaller by one part in so many.
const SHRINK: f64 = 4.0;
/// The shortest delay is that of this long at least, and of twice as long at the most.
const BASE_FOR: Duration = Duration::from_secs(30);

/// The window of one peer.
#[derive(Debug, Clone)]
pub struct Window {
    bytes: f64,
    /// No queueing was seen yet.
    starting: bool,
    /// Smoothed, to be shown; and when an object came last, with its own.
    queueing: Duration,
    last: Option<(Duration, Duration)>,
    /// The shortest delay of [`BASE_FOR`].
    base: Best<Duration>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            bytes: INITIAL as f64,
            starting: true,
            queueing: Duration::ZERO,
            last: None,
            base: Best::new(BASE_FOR, Ord::min),
        }
    }
}

impl Window {
    /// Bytes that may be on their way.
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// How long objects wait in queues on their way, of late.
    pub fn queueing(&self) -> Duration {
        self.queueing
    }

    /// When an object came last, and how long it has waited in queues. (A small message overtakes what is sent to others.)
    pub fn last_queueing(&self) -> Option<(Duration, Duration)> {
        self.last
    }

    /// An object of `bytes` has come, `delay` after it was asked for.
    pub fn on_come(&mut self, now: Duration, delay: Duration, bytes: u64) {
        let queueing = delay.saturating_sub(self.base.see(now, delay));
        self.queueing = (self.queueing * 7 + queueing) / 8;
        self.last = Some((now, queueing));
        self.starting &= queueing < TARGET;
        let off = (1.0 - queueing.as_secs_f64() / TARGET.as_secs_f64()).clamp(-1.0, 1.0);
        let grown = match bytes as f64 {
            come if self.starting => come,
            come if off > 0.0 => off * STEP.max(self.bytes / GROW) * (come / self.bytes).min(1.0),
            come => off * come / SHRINK,
        };
        self.bytes = (self.bytes + grown).clamp(MIN as f64, MAX as f64);
    }

    /// A small message was answered within `rtt`: no delay is shorter. (The first object may have stood in a queue.)
    pub fn on_rtt(&mut self, now: Duration, rtt: Duration) {
        self.base.see(now, rtt);
    }

    /// Something that was asked for was not delivered for want of time.
    pub fn on_late(&mut self) {
        self.starting = false;
        self.bytes = (self.bytes / 2.0).max(MIN as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OBJECT: u64 = 64 << 10;

    /// Asks a link of `rate` bytes a second and `rtt` for `for_s` seconds as fast as the window allows; returns the share
    /// of the link that was used and the longest delay of the second half.
    fn run(window: &mut Window, rate: f64, rtt: Duration, for_s: u64) -> (f64, Duration) {
        run_with_pauses(window, (rate, rtt), (1000, 0), for_s)
    }

    /// The same on a machine that stands still for `pause` at the end of `every` milliseconds.
    fn run_with_pauses(
        window: &mut Window,
        (rate, rtt): (f64, Duration),
        (every, pause): (u64, u64),
        for_s: u64,
    ) -> (f64, Duration) {
        let seen = |at: Duration| {
            let (turn, within) = (at.as_millis() as u64 / every, at.as_millis() as u64 % every);
            if within < every - pause { at } else { Duration::from_millis((turn + 1) * every) }
        };
        let (end, mut now, mut free_at) = (Duration::from_secs(for_s), Duration::ZERO, Duration::ZERO);
        let mut flying: std::collections::VecDeque<(Duration, Duration)> = Default::default();
        let (mut come, mut longest) = (0, Duration::ZERO);
        while now < end {
            while (flying.len() as u64 + 1) * OBJECT <= window.bytes() {
                free_at = free_at.max(now + rtt) + Duration::from_secs_f64(OBJECT as f64 / rate);
                flying.push_back((now, free_at));
            }
            let (asked, at) = flying.pop_front().expect("the window holds at least one object");
            now = seen(at);
            come += OBJECT;
            if now > end / 2 {
                longest = longest.max(now - asked);
            }
            window.on_come(now, now - asked, OBJECT);
        }
        (come as f64 / (rate * end.as_secs_f64()), longest)
    }

    #[test]
    fn a_link_is_filled_and_its_queue_is_short() {
        for (rate, rtt_ms) in [(25e6, 1), (25e6, 40), (125e6, 1), (125e6, 20), (2e6, 5)] {
            let rtt = Duration::from_millis(rtt_ms);
            let (used, longest) = run(&mut Window::default(), rate, rtt, 20);
            assert!(used > 0.95, "{rate} {rtt_ms}: {used}");
            let few = Duration::from_secs_f64(3.0 * OBJECT as f64 / rate);
            assert!(longest < rtt + few.max(2 * TARGET), "{rate} {rtt_ms}: {longest:?}");
        }
    }

    #[test]
    fn a_small_message_that_overtakes_says_nothing_of_a_queue() {
        let mut window = Window::default();
        window.on_rtt(Duration::ZERO, Duration::from_millis(1));
        assert_eq!(window.last_queueing(), None);
        let (now, queueing) = (Duration::from_secs(1), Duration::from_millis(30));
        window.on_come(now, Duration::from_millis(31), OBJECT);
        window.on_rtt(2 * now, Duration::from_millis(1));
        assert_eq!(window.last_queueing(), Some((now, queueing)));
    }

    /// Pauses of the machine look like a queue. The window was small after the first, and grew by one object a round trip.
    #[test]
    fn a_long_link_is_filled_from_a_machine_that_pauses() {
        let long = (125e6, Duration::from_millis(80));
        let (used, _) = run_with_pauses(&mut Window::default(), long, (300, 60), 20);
        assert!(used > 0.7, "{used}");
    }

    #[test]
    fn a_path_that_became_longer_is_believed_in_the_end() {
        let mut window = Window::default();
        run(&mut window, 25e6, Duration::from_millis(1), 5);
        let narrow = window.bytes();
        // The same link, but 100 ms away from now on.
        for n in 0..4000u32 {
            window.on_come(
                Duration::from_secs(5) + n * Duration::from_millis(20),
                Duration::from_millis(101),
                OBJECT,
            );
        }
        assert!(window.bytes() > narrow, "{} {narrow}", window.bytes());
    }

    proptest! {
        #[test]
        fn the_bounds_hold(delays in proptest::collection::vec((0u64..10_000_000, 0u64..(4 << 20), any::<bool>()), 0..200)) {
            let mut window = Window::default();
            for (n, (delay, bytes, late)) in delays.into_iter().enumerate() {
                if late {
                    window.on_late();
                }
                window.on_come(Duration::from_millis(n as u64 * 700), Duration::from_micros(delay), bytes);
                prop_assert!((MIN..=MAX).contains(&window.bytes()));
            }
        }
    }
}
