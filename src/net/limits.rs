//! The upload and the download limit of the node, changeable while bytes flow.
//!
//! Owns: one [`Gate`] for each direction, by which a class gets its share of a limit.
//! Must not know: peers, streams, what the bytes are.
//! Invariant: over any time no more passes than the limit allows for that time and its short burst; whoever waits
//! passes in the end, unless faults alone use up the limit.
//! Trust: called by our own code only.
//! Threads: any; the lock is held for arithmetic only.
//!
//! How the classes share a limit:
//!
//! - Faults take from the whole of it. What they take is owed by the other classes, which therefore wait until as much
//!   has come again: the reserve that they leave to faults is full before they go on.
//! - Readahead, prefetch and replication pass one after the other, each in the order of asking. The order of classes
//!   within what one peer wants is kept by who serves it.
//! - Replication has a twentieth of the limit to itself, and beside that competes with the rest. What it takes there is
//!   owed by all others, so that the sum stays within the limit.

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Notify;

use crate::swarm::Class;

/// What is counted: fewer bytes are put together until they are as many.
const CELL: u64 = 4 << 10;
/// What passes at a time, in cells; a frame of data at most.
const STEP: u32 = 16;
/// The parts of a second whose cells may pass at once: those of all classes but faults, and what faults have beyond.
const BURST: Duration = Duration::from_millis(50);
const RESERVE: Duration = Duration::from_millis(100);
/// Replication has one part in so many to itself.
const REPLICATE_PART: u64 = 20;

/// The limits of a node, in both directions. None is set at first.
#[derive(Default)]
pub(super) struct Limits {
    upload: Gate,
    download: Gate,
}

impl Limits {
    /// Bytes of objects that may be sent in a second, to all peers together; `None` is as many as there are.
    pub(super) fn set_upload(&self, limit: Option<u64>) {
        self.upload.set(limit);
    }

    /// The same for bytes received.
    pub(super) fn set_download(&self, limit: Option<u64>) {
        self.download.set(limit);
    }

    /// Waits until `bytes` may be sent.
    pub(super) async fn upload(&self, class: Class, bytes: u64) {
        self.upload.pass(class, bytes).await;
    }

    /// Waits until `bytes` may be received: before a peer is granted credit for them.
    pub(super) async fn download(&self, class: Class, bytes: u64) {
        self.download.pass(class, bytes).await;
    }

    /// Of what was waited for in [`download`](Self::download), `bytes` do not come after all.
    pub(super) fn spare_download(&self, bytes: u64) {
        self.download.spare(bytes);
    }
}

/// What bytes of one direction pass.
#[derive(Default)]
struct Gate {
    /// Nothing while there is no limit.
    share: Mutex<Option<Share<DefaultClock>>>,
    /// Wakes who waits when the limit has changed.
    changed: Notify,
    /// Who waits, in the order of asking: faults, replication, all others.
    turns: [tokio::sync::Mutex<()>; 3],
}

impl Gate {
    fn set(&self, limit: Option<u64>) {
        *self.share() = limit.map(|limit| Share::new(limit, DefaultClock::default()));
        self.changed.notify_waiters();
    }

    async fn pass(&self, class: Class, bytes: u64) {
        if self.share().is_none() {
            return;
        }
        let turn = match class {
            Class::Fault => 0,
            Class::Replicate => 1,
            Class::Readahead | Class::Prefetch => 2,
        };
        let _turn = self.turns[turn].lock().await;
        // Counted now, as what others have spared while this one waited is for it.
        let Some(mut cells) = self.share().as_mut().map(|share| share.cells(bytes)) else { return };
        while let Some(step) = NonZeroU32::new(cells.min(STEP)) {
            self.pass_step(class, step).await;
            cells -= step.get();
        }
    }

    async fn pass_step(&self, class: Class, cells: NonZeroU32) {
        let mut paid = false;
        loop {
            // Listening before looking: a change between the two is not missed.
            let changed = self.changed.notified();
            let wait = match self.share().as_mut() {
                None => return,
                Some(share) => match share.take(class, cells, &mut paid) {
                    Ok(()) => return,
                    Err(wait) => wait,
                },
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Under the new limit nothing is paid yet.
                () = changed => paid = false,
            }
        }
    }

    fn spare(&self, bytes: u64) {
        if let Some(share) = self.share().as_mut() {
            share.spare = share.spare.saturating_add(bytes);
        }
    }

    fn share(&self) -> MutexGuard<'_, Option<Share<DefaultClock>>> {
        // Each change is one step of arithmetic.
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How one limit is shared, at a moment.
struct Share<C: Clock> {
    /// The limit itself.
    all: Bucket<C>,
    /// What all classes but faults may take of it.
    rest: Bucket<C>,
    /// What is replication's own.
    replicate: Bucket<C>,
    /// Bytes that passed and make no cell yet, and bytes that passed and did not come.
    carry: u64,
    spare: u64,
}

impl<C: Clock + Clone> Share<C> {
    fn new(limit: u64, clock: C) -> Share<C> {
        let within = |span: Duration| (limit as f64 * span.as_secs_f64() / CELL as f64) as u32;
        let burst = within(BURST).max(STEP);
        let reserve = within(RESERVE).max(STEP);
        Share {
            all: Bucket::new(limit, burst.saturating_add(reserve), clock.clone()),
            rest: Bucket::new(limit, burst, clock.clone()),
            replicate: Bucket::new(limit / REPLICATE_PART, STEP, clock),
            carry: 0,
            spare: 0,
        }
    }

    /// The cells that `bytes` amount to, with what was left over before.
    fn cells(&mut self, bytes: u64) -> u32 {
        let spared = self.spare.min(bytes);
        self.spare -= spared;
        self.carry += bytes - spared;
        let cells = self.carry / CELL;
        self.carry %= CELL;
        u32::try_from(cells).unwrap_or(u32::MAX)
    }

    /// Takes `cells`, at most [`STEP`], or says how long they are not to be had. `paid` is whether the caller has taken
    /// them of what is left to its class, and lacks only the limit's own.
    fn take(&mut self, class: Class, cells: NonZeroU32, paid: &mut bool) -> Result<(), Duration> {
        match class {
            Class::Fault => {
                self.all.take(cells)?;
                self.rest.owe(cells);
                return Ok(());
            }
            Class::Replicate if !*paid => {
                let Err(own) = self.replicate.take(cells) else {
                    self.all.owe(cells);
                    self.rest.owe(cells);
                    return Ok(());
                };
                self.rest.take(cells).map_err(|wait| wait.min(own))?;
            }
            Class::Replicate => {}
            Class::Readahead | Class::Prefetch if !*paid => self.rest.take(cells)?,
            Class::Readahead | Class::Prefetch => {}
        }
        *paid = true;
        self.all.take(cells)
    }
}

/// Cells that come evenly, and what is owed of them.
struct Bucket<C: Clock> {
    cells: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    owed: u32,
}

impl<C: Clock + Clone> Bucket<C> {
    /// Of `limit` bytes a second, and `burst` cells at once.
    fn new(limit: u64, burst: u32, clock: C) -> Bucket<C> {
        let period = Duration::from_nanos((CELL * 1_000_000_000 / limit.max(1)).max(1));
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        // The period is not zero, which is all that is asked of it.
        let quota = Quota::with_period(period).unwrap_or(Quota::per_second(burst)).allow_burst(burst);
        Bucket { cells: RateLimiter::direct_with_clock(quota, clock.clone()), clock, owed: 0 }
    }

    /// Takes what is owed and then `cells`, or says how long that is not to be had.
    fn take(&mut self, cells: NonZeroU32) -> Result<(), Duration> {
        while let Some(due) = NonZeroU32::new(self.owed.min(STEP)) {
            self.take_now(due)?;
            self.owed -= due.get();
        }
        self.take_now(cells)
    }

    /// Somebody else has taken `cells` of these.
    fn owe(&mut self, cells: NonZeroU32) {
        self.owed = self.owed.saturating_add(cells.get());
        while let Some(due) = NonZeroU32::new(self.owed.min(STEP))
            && self.take_now(due).is_ok()
        {
            self.owed -= due.get();
        }
    }

    fn take_now(&self, cells: NonZeroU32) -> Result<(), Duration> {
        match self.cells.check_n(cells) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(until.wait_time_from(self.clock.now())),
            // A burst is never less than a step, and nobody takes more than that at a time.
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Somebody who always has something to send, and what has passed.
    struct Sender {
        class: Class,
        paid: bool,
        at: Duration,
        passed: u64,
    }

    fn sender(class: Class) -> Sender {
        Sender { class, paid: false, at: Duration::ZERO, passed: 0 }
    }

    /// Lets them compete from `now` until `until`; who comes first at an instant is given by their order.
    fn compete(
        share: &mut Share<FakeRelativeClock>,
        clock: &FakeRelativeClock,
        senders: &mut [&mut Sender],
        mut now: Duration,
        until: Duration,
    ) {
        let step = NonZeroU32::new(STEP).unwrap();
        while now < until {
            for sender in senders.iter_mut() {
                while sender.at <= now {
                    match share.take(sender.class, step, &mut sender.paid) {
                        Ok(()) => {
                            sender.passed += u64::from(STEP) * CELL;
                            sender.paid = false;
                        }
                        Err(wait) => sender.at = now + wait.max(Duration::from_nanos(1)),
                    }
                }
            }
            let next = senders.iter().map(|sender| sender.at).min().unwrap().min(until);
            clock.advance(next - now);
            now = next;
        }
    }

    fn within(passed: u64, expected: f64) -> bool {
        (passed as f64 / expected - 1.0).abs() < 0.03
    }

    #[test]
    fn each_class_alone_has_the_whole_limit_and_no_more() {
        for class in Class::ALL {
            for limit in [300_000, 2 * MIB, 1000 * MIB] {
                let clock = FakeRelativeClock::default();
                let mut share = Share::new(limit, clock.clone());
                let mut one = sender(class);
                // Its first moment is what was saved up.
                let (second, end) = (Duration::from_secs(1), Duration::from_secs(11));
                compete(&mut share, &clock, &mut [&mut one], Duration::ZERO, second);
                let begun = one.passed;
                compete(&mut share, &clock, &mut [&mut one], second, end);
                let passed = one.passed - begun;
                assert!(within(passed, limit as f64 * 10.0), "{class:?} {passed} of {limit} a second");
                let most = limit as f64 * 11.0 * 1.03 + 3.0 * (u64::from(STEP) * CELL) as f64;
                assert!((one.passed as f64) < most, "{class:?} {} of {limit} a second", one.passed);
            }
        }
    }

    #[test]
    fn all_together_stay_within_the_limit_and_none_of_the_rest_starves() {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0]] {
            let clock = FakeRelativeClock::default();
            let mut share = Share::new(2 * MIB, clock.clone());
            let mut senders = Class::ALL.map(sender);
            let mut refs: Vec<_> = senders.iter_mut().collect();
            refs.sort_by_key(|sender| order[sender.class as usize]);
            compete(&mut share, &clock, &mut refs, Duration::ZERO, Duration::from_secs(10));
            let all: u64 = senders.iter().map(|sender| sender.passed).sum();
            assert!(within(all, 20.0 * MIB as f64), "{all}");
            let [fault, _, _, replicate] = senders.map(|sender| sender.passed);
            assert!(replicate as f64 >= 0.97 * MIB as f64, "a twentieth for replication: {replicate}");
            assert!(fault as f64 > 0.9 * all as f64, "faults go first: {fault} of {all}");
        }
    }

    #[test]
    fn readahead_and_prefetch_leave_replication_its_part() {
        let clock = FakeRelativeClock::default();
        let mut share = Share::new(MIB, clock.clone());
        let mut senders = [Class::Readahead, Class::Prefetch, Class::Replicate].map(sender);
        let mut refs: Vec<_> = senders.iter_mut().collect();
        compete(&mut share, &clock, &mut refs, Duration::ZERO, Duration::from_secs(20));
        let all: u64 = senders.iter().map(|sender| sender.passed).sum();
        assert!(within(all, 20.0 * MIB as f64), "{all}");
        assert!(senders[2].passed as f64 >= 0.97 * MIB as f64, "{}", senders[2].passed);
    }

    /// A reader's object of 64 KiB once a second, while prefetch takes what it can get: the reader never waits, and the
    /// sum stays within the limit.
    #[test]
    fn a_fault_now_and_then_does_not_wait_behind_prefetch() {
        let clock = FakeRelativeClock::default();
        let mut share = Share::new(2 * MIB, clock.clone());
        let mut bulk = sender(Class::Prefetch);
        let mut faults = 0;
        for second in 0..10 {
            let (from, to) = (Duration::from_secs(second), Duration::from_secs(second + 1));
            compete(&mut share, &clock, &mut [&mut bulk], from, to);
            let step = NonZeroU32::new(STEP).unwrap();
            assert_eq!(share.take(Class::Fault, step, &mut false), Ok(()), "after {to:?}");
            faults += u64::from(STEP) * CELL;
        }
        assert!(within(bulk.passed + faults, 20.0 * MIB as f64), "{} {faults}", bulk.passed);
    }

    #[test]
    fn bytes_are_put_together_to_cells_and_what_is_spared_is_not_counted() {
        let mut share = Share::new(MIB, FakeRelativeClock::default());
        let cells: u32 = (0..4096).map(|_| share.cells(100)).sum();
        assert_eq!(cells, 100);
        share.spare = 6000;
        assert_eq!((share.cells(4096), share.cells(4096), share.carry), (0, 0, 2192));
    }

    /// Who waits for a limit that is far too low goes on as soon as it is lifted, or raised.
    #[tokio::test]
    async fn a_change_reaches_those_who_wait() {
        let limits = std::sync::Arc::new(Limits::default());
        for lifted in [None, Some(1 << 40)] {
            limits.set_upload(Some(CELL));
            let waiting = tokio::spawn({
                let limits = limits.clone();
                async move { limits.upload(Class::Prefetch, 100 * MIB).await }
            });
            // At four KiB a second it would take seven hours.
            while limits.upload.turns[2].try_lock().is_ok() {
                tokio::task::yield_now().await;
            }
            limits.set_upload(lifted);
            tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
        }
        limits.set_download(Some(CELL));
        limits.set_download(None);
        limits.download(Class::Fault, 100 * MIB).await;
    }
}
