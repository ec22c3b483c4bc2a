//! Readers over simulated links, in virtual time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const OBJECT: u64 = 64 << 10;
const READ: u64 = 128 << 10;
const RULE: Rule = Rule { least: MIB / 4, first: MIB / 2, most: 64 * MIB, together: 128 * MIB, step: OBJECT };

/// A link that carries one object after the other.
struct Link {
    /// Bytes a second.
    rate: f64,
    rtt: Duration,
    free_at: Duration,
    /// When each object is here, by its position.
    comes: BTreeMap<u64, Duration>,
}

impl Link {
    fn new(mbit: f64, rtt_ms: u64) -> Self {
        let rtt = Duration::from_millis(rtt_ms);
        Self { rate: mbit * 125e3, rtt, free_at: Duration::ZERO, comes: BTreeMap::new() }
    }

    /// When the objects with the bytes from `from` up to `to` are here, if those that nobody asked for are asked for now.
    fn ask(&mut self, now: Duration, from: u64, to: u64) -> Duration {
        let mut last = now;
        for object in from / OBJECT..to.div_ceil(OBJECT) {
            let comes = *self.comes.entry(object).or_insert_with(|| {
                self.free_at =
                    self.free_at.max(now + self.rtt) + Duration::from_secs_f64(OBJECT as f64 / self.rate);
                self.free_at
            });
            last = last.max(comes);
        }
        last
    }
}

/// What a reader has come to.
struct Outcome {
    /// Bytes a second.
    rate: f64,
    /// How often it waited in the second half.
    waited: f64,
    window: u64,
    unread: u64,
}

/// One after the other, reads `bytes` of so many files over `link`, no faster than `own` bytes a second.
fn run(link: &mut Link, pacing: &mut Pacing, files: u64, bytes: u64, own: f64) -> Outcome {
    const APART: u64 = 1 << 40;
    let (mut now, mut latency, mut window, mut late) = (Duration::ZERO, Latency::default(), 0, 0);
    let mut left: Vec<Reader> = Vec::new();
    for file in 0..files {
        let mut reader: Option<Reader> = None;
        let start = file * APART;
        for offset in (0..bytes).step_by(READ as usize) {
            let (from, to) = (start + offset, start + offset + READ);
            let was_asked = reader.as_ref().is_some_and(|reader| to <= reader.until);
            let here = link.ask(now, from, to);
            let waited = here > now;
            late += u64::from(waited && file * bytes + offset >= files * bytes / 2);
            match &mut reader {
                None => reader = Some(pacing.begin(now, to, start + APART)),
                Some(reader) => {
                    if let Some((ask, until)) = pacing.advance(reader, now, (to, waited), latency.usual()) {
                        reader.fetched.fetch_add(until - ask, Ordering::Relaxed);
                        link.ask(now, ask, until);
                    }
                }
            }
            if waited && !was_asked {
                latency.add(here - now);
            }
            now = here.max(now) + Duration::from_secs_f64(READ as f64 / own);
            pacing.look(now, left.iter_mut());
        }
        left.extend(reader);
        window = left.last().map_or(0, Reader::window);
    }
    pacing.look(now + LEFT, left.iter_mut());
    let reads = files * bytes / READ;
    let waited = late as f64 / (reads as f64 / 2.0);
    Outcome { rate: (files * bytes) as f64 / now.as_secs_f64(), waited, window, unread: pacing.unread() }
}

const FAST: f64 = 1e9;

#[test]
fn a_reader_that_is_faster_than_its_link_uses_all_of_it_and_no_more_is_fetched_than_comes_soon() {
    for (mbit, rtt, bytes) in [(1000.0, 80, 1024 * MIB), (200.0, 20, 256 * MIB), (10.0, 40, 32 * MIB)] {
        let mut link = Link::new(mbit, rtt);
        let found = run(&mut link, &mut Pacing::new(RULE, None), 1, bytes, FAST);
        let used = found.rate / link.rate;
        let held = found.window as f64 / link.rate;
        println!(
            "{mbit} Mbit/s, {rtt} ms: {used:.2} of the link, window {} KiB, {held:.2} s",
            found.window >> 10
        );
        assert!(used > 0.9, "{mbit} {rtt}: {used}");
        assert!(held < 0.5, "{mbit} {rtt}: {held} s");
        assert!(found.window >= (link.rate * link.rtt.as_secs_f64()) as u64, "{mbit} {rtt}");
    }
}

#[test]
fn a_reader_that_is_slower_than_its_link_stops_waiting_and_holds_little() {
    let mut link = Link::new(1000.0, 80);
    let found = run(&mut link, &mut Pacing::new(RULE, None), 1, 200 * MIB, 10e6);
    assert!(found.waited < 0.01, "{}", found.waited);
    assert!(found.window <= 4 * MIB, "{}", found.window);
    assert!(found.rate > 9.5e6, "{}", found.rate);
}

#[test]
fn the_next_reader_begins_with_what_the_last_one_has_learned() {
    let mut pacing = Pacing::new(RULE, None);
    let first = run(&mut Link::new(1000.0, 80), &mut pacing, 1, 512 * MIB, FAST);
    assert!(pacing.start() >= 4 * MIB, "{}", pacing.start());
    let then = run(&mut Link::new(1000.0, 80), &mut pacing, 1, 64 * MIB, FAST);
    let alone = run(&mut Link::new(1000.0, 80), &mut Pacing::new(RULE, None), 1, 64 * MIB, FAST);
    assert!(then.rate > 1.2 * alone.rate, "{} {} {}", first.rate, then.rate, alone.rate);
}

#[test]
fn files_that_are_left_early_cost_less_and_less() {
    let mut link = Link::new(10.0, 40);
    let (files, bytes) = (40, MIB);
    let found = run(&mut link, &mut Pacing::new(RULE, None), files, bytes, FAST);
    let share = found.unread as f64 / (files * bytes) as f64;
    println!("not read: {share:.2} of what was");
    assert!(share < 0.25, "{share}");
    let fixed = run(&mut Link::new(10.0, 40), &mut Pacing::new(RULE, Some(8 * MIB)), files, bytes, FAST);
    assert!(fixed.unread > 10 * found.unread, "{} {}", fixed.unread, found.unread);
}

#[test]
fn a_reader_that_comes_back_has_not_left_and_windows_that_are_fixed_stay() {
    let mut pacing = Pacing::new(RULE, Some(MIB));
    let mut reader = pacing.begin(Duration::ZERO, READ, 1 << 40);
    let (from, until) = pacing.advance(&mut reader, Duration::ZERO, (2 * READ, true), None).unwrap();
    assert_eq!((from, until), (2 * READ, 2 * READ + MIB));
    reader.fetched().fetch_add(until - from, Ordering::Relaxed);
    pacing.look(LEFT, std::iter::once(&mut reader));
    let all = pacing.unread();
    assert_eq!((all, reader.is_ahead()), (MIB, false));
    pacing.advance(&mut reader, LEFT, (until, false), None);
    assert_eq!((pacing.unread(), pacing.start()), (0, MIB));
}

#[test]
fn a_latency_is_neither_the_shortest_nor_that_of_those_who_waited_behind_others() {
    let mut latency = Latency::default();
    assert_eq!(latency.usual(), None);
    for ms in [40, 1, 410, 5_000, 420] {
        latency.add(Duration::from_millis(ms));
    }
    assert_eq!(latency.usual(), Some(Duration::from_millis(40)));
    (0..20).for_each(|_| latency.add(Duration::from_millis(7)));
    assert_eq!((latency.last.len(), latency.usual()), (LATENCIES, Some(Duration::from_millis(7))));
}

proptest! {
    #[test]
    fn the_bounds_hold(
        reads in proptest::collection::vec((0u64..4 * MIB, any::<bool>(), 0u64..5_000_000, 0u8..20), 1..300),
        latency in proptest::option::of(0u64..10_000_000),
        end in 1u64..1 << 30,
    ) {
        let latency = latency.map(Duration::from_micros);
        let mut pacing = Pacing::new(RULE, None);
        let (mut now, mut asked) = (Duration::ZERO, 0);
        let mut reader = pacing.begin(now, 0, end);
        for (amount, waited, micros, what) in reads {
            now += Duration::from_micros(micros);
            match what {
                0 => pacing.leave(&mut reader),
                1 => {
                    pacing.leave(&mut reader);
                    reader = pacing.begin(now, 0, end);
                    asked = 0;
                }
                2 => pacing.look(now, std::iter::once(&mut reader)),
                _ => {
                    let to = (reader.next + amount).min(end);
                    if let Some((from, until)) = pacing.advance(&mut reader, now, (to, waited), latency) {
                        prop_assert!(from >= asked, "nothing twice");
                        prop_assert!(from < until && until <= end);
                        prop_assert!(until - reader.next <= reader.window().min(RULE.together));
                        reader.fetched().fetch_add(until - from, Ordering::Relaxed);
                        asked = until;
                    }
                }
            }
            prop_assert!((RULE.least..=RULE.most).contains(&reader.window()));
            prop_assert!((RULE.least..=RULE.most).contains(&pacing.start()));
            prop_assert!(reader.unread() <= reader.fetched().load(Ordering::Relaxed));
        }
    }
}
