//! Whether what this node sends has to wait on its own way up, and for how long it waits before that.
//!
//! Owns: what is under way to readers that tell when it has come, and how fast it goes.
//! Must not know: links and sockets, whose queues cannot be seen from here. `P` names a reader.
//! Invariant: at most [`EACH`] objects of a reader are remembered, for [`FORGOTTEN`] at most; one reader alone never makes
//! the node look busy, and a few hardly, as their own links may be what is full.
//! Trust: readers are strangers. Many that never tell make the node look busy: then others are sent on to whom an object was
//! given, which costs them a round trip.
//! Threads: a pure value; the caller locks it. Time comes in as `now`.
//!
//! The rate is the highest at which objects have come lately, from when each was sent to when that was told, as in BBR
//! (draft-ietf-ccwg-bbr). What is under way divided by it is how long an object that is sent now takes to come; where that is more
//! than the shortest time that one took, it waits. A burst is seen at once, before anything of it has come. The shortest time is remembered
//! for longer than the rate: while a queue stands, every object takes as long as the queue.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::best::Best;

/// How long an object may wait before the node is busy: as long as readers let one wait (the target of their windows) where it came to the
/// node like to them, and less where the node had it before, as all of them depend on that one. (Where processors are what is short, everybody
/// waits a little, and would send everybody on.)
const WAIT: Duration = Duration::from_millis(40);
const SOURCE_WAIT: Duration = Duration::from_millis(15);
/// What has come is counted over this long at the least: several readers tell at once, and a link that stood idle lets a little through at
/// any rate.
const SPAN: Duration = Duration::from_millis(20);
/// Readers that may have something under way before anything was told to have come. More would wait for each other on a slow link for seconds:
/// all ask the one to which an object has come first at the same moment.
const UNKNOWN: usize = 4;
/// The rate is that of this long at least, and of twice as long at the most.
const LATELY: Duration = Duration::from_secs(10);
/// The same for the shortest time: longer than a queue stands.
const REMEMBERED: Duration = Duration::from_secs(300);
/// What was not told to have come after this long never will be.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// So long a queue is nothing that an object would have to wait here for.
const QUEUE: Duration = Duration::from_millis(100);
/// What is to wait is begun all the same after such a pause, and sooner if the rate is known: at this part of it. (What is under way may never be told to have
/// come, and the rate may have been taken for too low.)
const PAUSE: Duration = Duration::from_millis(250);
const SLOWEST: f64 = 4.0;
/// What waits is begun in any case so long before its reader gives it up. (Had a reader that waits long no need to wait any more, all who asked at
/// the same time would be begun together, and stand in a queue of seconds.)
const IN_TIME: Duration = Duration::from_secs(5);
/// Objects that are remembered of one reader: more than most have under way.
const EACH: usize = 64;
/// Those of one reader that count. Whoever has more under way may have filled a link of its own; where it is this node's that is full,
/// readers see their windows shrink to about as many.
const COUNTED: usize = 2;

/// What one node sends.
#[derive(Debug)]
pub struct Uplink<P> {
    under_way: BTreeMap<P, VecDeque<Sent>>,
    /// Bytes that have come since the node started.
    come: u64,
    /// Bytes a second, the most in [`LATELY`].
    rate: Best<f64>,
    /// The least that an object took in [`REMEMBERED`].
    shortest: Best<Duration>,
    /// When one of those that were to wait was begun last.
    begun: Duration,
    /// Bytes of the last object.
    size: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    request: u64,
    bytes: u64,
    at: Duration,
    /// What had come when it was sent.
    come: u64,
}

/// What is known of the way up.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// Bytes a second; 0 as long as nothing but empty objects has come.
    rate: f64,
    /// How long what is under way takes to come, in seconds; without a rate it is endless, or no number if nothing is.
    queue: f64,
    /// The shortest time that an object took of late.
    shortest: Duration,
}

impl<P: Copy + Ord> Uplink<P> {
    /// Nothing is under way, and nothing is known.
    pub fn new() -> Uplink<P> {
        let (rate, shortest) = (Best::new(LATELY, f64::max), Best::new(REMEMBERED, Ord::min));
        Uplink { under_way: BTreeMap::new(), come: 0, rate, shortest, begun: Duration::ZERO, size: 0 }
    }

    /// Whether an object for later use may be sent to `reader` now. If so it is under way, and taken to be as large as the one before it until
    /// [`on_sent`](Self::on_sent) says more.
    ///
    /// What many have to wait for at the same time comes to all of them late, and until then none has anything to give to the others: so
    /// one waits here until those before it have come, or at least are about to, or until it is soon `given_up`.
    pub fn begin(&mut self, now: Duration, reader: P, request: u64, given_up: Duration) -> bool {
        // It may have been begun before, and put back.
        self.take(reader, request);
        let (waits, pause) = match self.way(now) {
            None => (self.under_way.len() > UNKNOWN, PAUSE),
            Some(Way { rate, queue, shortest }) => {
                let pause = (SLOWEST * self.size as f64 / rate).min(PAUSE.as_secs_f64());
                let longest = (shortest * 2 + WAIT).max(QUEUE);
                (queue > longest.as_secs_f64(), Duration::from_secs_f64(pause))
            }
        };
        let may = !waits || now >= self.begun + pause || given_up < now + IN_TIME;
        if may {
            self.begun = now;
            self.on_sent(now, reader, request, self.size);
        }
        may
    }

    /// An object of `bytes` is on its way to a reader that will tell when it has come.
    pub fn on_sent(&mut self, now: Duration, reader: P, request: u64, bytes: u64) {
        self.take(reader, request);
        let queue = self.under_way.entry(reader).or_default();
        if queue.len() == EACH {
            queue.pop_front();
        }
        queue.push_back(Sent { request, bytes, at: now, come: self.come });
        self.size = bytes;
    }

    /// `reader` tells that an object has come.
    pub fn on_come(&mut self, now: Duration, reader: P, request: u64) {
        let Some(sent) = self.take(reader, request) else { return };
        self.come += sent.bytes;
        let took = now.saturating_sub(sent.at).max(Duration::from_millis(1));
        self.rate.see(now, (self.come - sent.come) as f64 / took.max(SPAN).as_secs_f64());
        self.shortest.see(now, took);
    }

    /// An object will not come, or its reader has taken it back.
    pub fn on_gone(&mut self, reader: P, request: u64) {
        self.take(reader, request);
    }

    /// A reader is gone.
    pub fn forget(&mut self, reader: P) {
        self.under_way.remove(&reader);
    }

    /// Whether an object that is sent now has to wait for others; `fetches`: the node fetches too, as its readers do.
    pub fn is_busy(&mut self, now: Duration, fetches: bool) -> bool {
        let wait = if fetches { WAIT } else { SOURCE_WAIT };
        match self.way(now) {
            None => self.under_way.len() > UNKNOWN,
            Some(Way { queue, shortest, .. }) => queue > (shortest + wait).as_secs_f64(),
        }
    }

    /// The way up as it is now; nothing before anything was told to have come.
    fn way(&mut self, now: Duration) -> Option<Way> {
        let (mut all, mut most) = (0, 0);
        self.under_way.retain(|_, queue| {
            while queue.pop_front_if(|sent| now >= sent.at + FORGOTTEN).is_some() {}
            let bytes = queue.iter().take(COUNTED).map(|sent| sent.bytes).sum::<u64>();
            all += bytes;
            most = most.max(bytes);
            !queue.is_empty()
        });
        let (rate, shortest) = (self.rate.get()?, self.shortest.get()?);
        Some(Way { rate, queue: (all - most) as f64 / rate, shortest })
    }

    fn take(&mut self, reader: P, request: u64) -> Option<Sent> {
        let queue = self.under_way.get_mut(&reader)?;
        let position = queue.iter().position(|sent| sent.request == request)?;
        let sent = queue.remove(position);
        if queue.is_empty() {
            self.under_way.remove(&reader);
        }
        sent
    }
}

impl<P: Copy + Ord> Default for Uplink<P> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OBJECT: u64 = 64 << 10;
    const MS: Duration = Duration::from_millis(1);
    /// Nobody gives anything up.
    const PATIENT: Duration = Duration::MAX;

    /// Sends so many objects at once, each to a reader of its own, over a link that carries one in `each` and lets it come `way` later.
    fn burst(uplink: &mut Uplink<u64>, now: Duration, readers: u64, each: Duration, way: Duration) {
        (0..readers).for_each(|reader| uplink.on_sent(now, reader, 1, OBJECT));
        (0..readers).for_each(|reader| uplink.on_come(now + each * (reader as u32 + 1) + way, reader, 1));
    }

    #[test]
    fn a_burst_is_seen_before_anything_of_it_has_come() {
        let (mut uplink, now) = (Uplink::new(), Duration::from_secs(1));
        assert!(!uplink.is_busy(now, true), "nothing is known");
        burst(&mut uplink, Duration::ZERO, 4, 33 * MS, 4 * MS);
        let taken = (0..20).take_while(|reader| {
            uplink.on_sent(now, *reader, 2, OBJECT);
            !uplink.is_busy(now, true)
        });
        // One beside the others, what takes 40 ms, and what is on its way within the shortest time.
        assert!((2..=4).contains(&taken.count()));
    }

    /// Each node of a crowd was asked by all others for the first object that came to it, and sent it to all of them: over a slow link
    /// that took seconds.
    #[test]
    fn few_are_sent_to_before_anything_is_known() {
        let mut uplink = Uplink::new();
        for reader in 0..UNKNOWN as u64 {
            assert!(!uplink.is_busy(MS, true));
            uplink.on_sent(MS, reader, 1, OBJECT);
        }
        assert!(!uplink.is_busy(MS, true));
        uplink.on_sent(MS, 99, 1, OBJECT);
        assert!(uplink.is_busy(MS, true));
        assert!(!uplink.is_busy(MS + FORGOTTEN, true), "some may never tell");
    }

    /// The rate of a link of 25 MB/s was taken for 142, and the node never for busy. (One that fetches itself sends nobody on so soon.)
    #[test]
    fn readers_that_tell_together_do_not_make_a_link_look_fast() {
        let mut uplink = Uplink::new();
        for turn in 0..50 {
            // What one millisecond of a link that stood idle lets through.
            burst(&mut uplink, turn * 100 * MS, 4, Duration::ZERO, MS);
        }
        let now = Duration::from_secs(5);
        (0..8).for_each(|reader| uplink.on_sent(now, reader, 2, OBJECT));
        assert!(uplink.is_busy(now, false) && !uplink.is_busy(now, true), "half a megabyte takes 35 ms");
    }

    /// After ten seconds the shortest time was that of objects which had waited for others: eight under way were none, and a source sent
    /// again what it could have sent others for.
    #[test]
    fn a_queue_that_stands_for_long_is_seen() {
        let (mut uplink, each) = (Uplink::new(), 33 * MS);
        (0..8).for_each(|reader| uplink.on_sent(Duration::ZERO, reader, 0, OBJECT));
        for n in 0..4000 {
            let (reader, now) = (u64::from(n) % 8, each * (n + 1));
            uplink.on_come(now, reader, u64::from(n) / 8);
            uplink.on_sent(now, reader, u64::from(n) / 8 + 1, OBJECT);
            assert!([true, false].iter().all(|fetches| uplink.is_busy(now, *fetches)), "after {now:?}");
        }
    }

    #[test]
    fn a_way_that_has_become_longer_is_noticed_in_the_end() {
        let mut uplink = Uplink::new();
        burst(&mut uplink, Duration::ZERO, 1, MS, MS);
        let mut is_busy = |now| {
            burst(&mut uplink, now, 8, MS / 2, 200 * MS);
            (0..8).for_each(|reader| uplink.on_sent(now + 250 * MS, reader, 2, OBJECT));
            let is_busy = uplink.is_busy(now + 250 * MS, true);
            (0..8).for_each(|reader| uplink.on_gone(reader, 2));
            is_busy
        };
        assert!(is_busy(LATELY * 3));
        assert!(is_busy(REMEMBERED));
        assert!(!is_busy(REMEMBERED * 2));
    }

    #[test]
    fn a_long_way_is_no_queue() {
        let mut uplink = Uplink::new();
        for round in 0..10 {
            let now = round * 200 * MS;
            burst(&mut uplink, now, 8, MS / 2, 100 * MS);
            (0..8).for_each(|reader| uplink.on_sent(now + 150 * MS, reader, 2, OBJECT));
            assert!([true, false].iter().all(|fetches| !uplink.is_busy(now + 150 * MS, *fetches)));
            (0..8).for_each(|reader| uplink.on_gone(reader, 2));
        }
    }

    #[test]
    fn readers_whose_own_links_are_full_do_not_make_the_node_busy() {
        let mut uplink = Uplink::new();
        burst(&mut uplink, Duration::ZERO, 4, MS, 4 * MS);
        for reader in [8, 9] {
            (2..60).for_each(|request| uplink.on_sent(20 * MS, reader, request, OBJECT));
            assert!([true, false].iter().all(|fetches| !uplink.is_busy(20 * MS, *fetches)));
        }
        // What is under way to many has to wait, though it is less.
        (10..70).for_each(|reader| uplink.on_sent(20 * MS, reader, 1, OBJECT));
        assert!(uplink.is_busy(20 * MS, true));
        // They are gone, or will never tell.
        (10..70).for_each(|reader| uplink.forget(reader));
        assert!(!uplink.is_busy(20 * MS, true));
        (10..70).for_each(|reader| uplink.on_sent(20 * MS, reader, 1, OBJECT));
        assert!(!uplink.is_busy(20 * MS + FORGOTTEN, true));
    }

    /// Those of `readers` who ask for an object in turn and are sent it at once.
    fn begun(uplink: &mut Uplink<u64>, now: Duration, readers: std::ops::Range<u64>) -> Vec<u64> {
        readers.filter(|reader| uplink.begin(now, *reader, 7, PATIENT)).collect()
    }

    /// A hundred asked a source for as many objects at the same moment: they were sent all at once, over seconds, and until then nobody had
    /// anything to give to the others.
    #[test]
    fn of_many_a_few_are_begun_and_the_others_when_those_have_come() {
        // A link that carries an object in 80 ms.
        let mut uplink = Uplink::new();
        let first = begun(&mut uplink, MS, 0..100);
        assert_eq!(first.len(), UNKNOWN + 1);
        first.iter().for_each(|reader| uplink.on_sent(2 * MS, *reader, 7, OBJECT));
        assert!(begun(&mut uplink, 3 * MS, 10..100).is_empty());
        let mut now = 2 * MS;
        for reader in first {
            now += 80 * MS;
            uplink.on_come(now, reader, 7);
        }
        // From then on as many are under way as come within a few times what one takes.
        let second = begun(&mut uplink, now, 10..100);
        assert!((2..=5).contains(&second.len()), "{second:?}");
        uplink.on_come(now + 80 * MS, second[0], 7);
        assert_eq!(begun(&mut uplink, now + 80 * MS, 50..100).len(), 1, "one in the place of one");
    }

    /// After ten of thirty seconds all that had waited since the beginning were begun at once.
    #[test]
    fn what_waits_is_begun_in_any_case_only_when_its_reader_is_about_to_give_it_up() {
        let (mut uplink, given_up) = (Uplink::new(), Duration::from_secs(30));
        burst(&mut uplink, Duration::ZERO, 4, 33 * MS, 4 * MS);
        let mut begin = |now| (0..100).filter(|reader| uplink.begin(now, *reader, 7, given_up)).count();
        assert!(begin(Duration::from_secs(20)) < 10);
        assert_eq!(begin(given_up - MS), 100);
    }

    #[test]
    fn what_waits_is_begun_at_a_part_of_the_rate_if_nobody_tells() {
        let (mut uplink, mut now) = (Uplink::new(), Duration::ZERO);
        burst(&mut uplink, now, 4, 10 * MS, 4 * MS);
        now += Duration::from_secs(1);
        let silent = begun(&mut uplink, now, 0..1000).len() as u64;
        assert!(silent < 50);
        let more = (0..1000).filter(|n| uplink.begin(now + *n as u32 * MS, 1000 + *n, 7, PATIENT)).count();
        assert!((20..=30).contains(&more), "one in 10 ms is the rate: {more}");
    }

    /// It tells that what is about to be sent has come.
    #[test]
    fn a_reader_that_tells_too_early_does_no_harm() {
        let mut uplink = Uplink::new();
        assert!(uplink.begin(MS, 1, 1, PATIENT));
        uplink.on_come(MS, 1, 1);
        uplink.on_sent(2 * MS, 1, 1, OBJECT);
        uplink.on_sent(2 * MS, 2, 1, OBJECT);
        assert!(uplink.is_busy(3 * MS, true) && !uplink.begin(3 * MS, 3, 1, PATIENT));
        assert!(uplink.begin(3 * MS + PAUSE, 3, 1, PATIENT));
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_bounded(events in prop::collection::vec((0u64..4, 0u64..9, 0u64..200, 0u64..(4 << 20)), 0..600)) {
            let (mut uplink, mut now) = (Uplink::new(), Duration::ZERO);
            for (what, reader, request, bytes) in events {
                now += 7 * MS;
                match what {
                    0 => uplink.on_sent(now, reader, request, bytes),
                    1 => _ = uplink.begin(now, reader, request, now + bytes as u32 % 9000 * MS),
                    2 => uplink.on_come(now, reader, request),
                    _ => uplink.on_gone(reader, request),
                }
                uplink.is_busy(now, true);
                prop_assert!(uplink.under_way.values().all(|queue| (1..=EACH).contains(&queue.len())));
            }
        }
    }
}
