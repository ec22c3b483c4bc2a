//! How long a round trip takes.
//!
//! Owns: the ping that is on its way, and the shortest time that one took.
//! Must not know: what the time is for.
//! Invariant: one ping at a time, and only while much is read: an idle connection is left alone.
//! Trust: a peer that answers late gets larger windows, within the bound of the connection.
//! Threads: under the lock of the connection.

use std::time::{Duration, Instant};

use super::MuxError;

/// How long a measurement is good enough.
const PAUSE: Duration = Duration::from_secs(10);
/// Below this it is not the way but the machines that take the time.
const SHORTEST: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Pulse {
    number: u32,
    sent: Option<Instant>,
    measured: Option<Instant>,
    shortest: Option<Duration>,
}

impl Pulse {
    /// The number of a ping that is to be sent now, if one is.
    pub(super) fn next(&mut self, now: Instant) -> Option<u32> {
        if self.sent.is_some() || self.measured.is_some_and(|measured| now - measured < PAUSE) {
            return None;
        }
        self.sent = Some(now);
        self.number = self.number.wrapping_add(1);
        Some(self.number)
    }

    pub(super) fn on_pong(&mut self, number: u32, now: Instant) -> Result<(), MuxError> {
        let sent = self.sent.take().filter(|_| number == self.number).ok_or(MuxError::BadPong)?;
        let took = (now - sent).max(SHORTEST);
        // The first ones may have waited behind what was sent before them.
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        self.measured = Some(now);
        Ok(())
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.shortest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_time_counts_and_only_what_was_asked_is_answered() {
        let mut now = Instant::now();
        let mut pulse = Pulse::default();
        assert!(pulse.on_pong(0, now).is_err());
        let mut measured = Vec::new();
        for took in [80, 30, 50, 0] {
            let number = pulse.next(now).unwrap();
            assert_eq!(pulse.next(now + 9 * PAUSE), None, "there is one on its way");
            assert_eq!(pulse.round_trip(), measured.last().copied());
            now += Duration::from_millis(took);
            pulse.on_pong(number, now).unwrap();
            assert!(pulse.on_pong(number, now).is_err(), "it was answered");
            assert_eq!(pulse.next(now + PAUSE - SHORTEST), None, "that is too soon");
            now += PAUSE;
            measured.extend(pulse.round_trip());
        }
        assert_eq!(measured, [80, 30, 30, 1].map(Duration::from_millis));
        pulse.next(now).unwrap();
        assert!(pulse.on_pong(0, now).is_err(), "another was asked");
    }
}
