//! What grades, scores and histories promise.

use proptest::prelude::*;

use super::*;

const S: Duration = Duration::from_secs(1);

fn best() -> Measures {
    Measures {
        latency: Some(Duration::from_millis(1)),
        rate: Some(100e6),
        failures: 0.0,
        delivered: 100,
        availability: 1.0,
    }
}

#[test]
fn the_worst_measure_is_the_grade_and_what_is_not_known_does_not_count() {
    assert_eq!(Grade::of(&best()), Grade::Excellent);
    assert_eq!(Grade::of(&Measures { latency: None, rate: None, ..best() }), Grade::Excellent);
    assert_eq!(Grade::of(&Measures { latency: Some(Duration::from_millis(21)), ..best() }), Grade::Good);
    assert_eq!(Grade::of(&Measures { rate: Some(RATE[2]), ..best() }), Grade::Fair);
    assert_eq!(Grade::of(&Measures { failures: 0.21, ..best() }), Grade::Poor);
    assert_eq!(Grade::of(&Measures { availability: 0.49, ..best() }), Grade::Critical);
    let both = Measures { failures: 0.1, availability: 0.49, ..best() };
    assert_eq!(Grade::of(&both), Grade::Critical);
}

#[test]
fn who_is_away_loses_availability_and_regains_it() {
    let mut health = Health::default();
    health.on_connected(S);
    assert_eq!(health.grade(S), Grade::Excellent);
    health.on_disconnected(11 * S);
    health.on_disconnected(12 * S);
    assert_eq!(health.grade(17 * S), Grade::Excellent, "6 of 600 seconds");
    assert_eq!(health.grade(72 * S), Grade::Fair, "a tenth");
    health.on_connected(72 * S);
    assert_eq!(health.grade(7000 * S), Grade::Excellent);
}

#[test]
fn one_failure_is_not_excellent_for_a_while() {
    let mut health = Health::default();
    health.on_outcome(false);
    assert_eq!((health.grade(S), health.failed()), (Grade::Good, 1));
    (0..40).for_each(|_| health.on_outcome(true));
    assert_eq!(health.grade(S), Grade::Excellent);
    (0..100).for_each(|_| health.on_outcome(false));
    assert_eq!(health.grade(S), Grade::Critical);
}

/// Pauses between requests are not the peer's.
#[test]
fn the_rate_is_that_of_the_time_in_which_something_was_asked() {
    let mut health = Health::default();
    for second in 0..20 {
        let now = second * 60 * S;
        health.on_asked(now);
        health.on_bytes(now + S / 2, 10 << 20);
        health.on_settled();
    }
    let rate = health.rate.unwrap();
    assert!((rate / f64::from(20 << 20) - 1.0).abs() < 1e-9, "{rate}");
    assert!(health.flows(1200 * S).0 < 1.0, "nothing has come for a minute");
}

#[test]
fn what_a_peer_has_always_done_is_not_unusual_and_three_far_worse_pings_are() {
    let ms = Duration::from_millis;
    let mut slow = Health::default();
    (0..100).for_each(|n| slow.on_latency(ms(400 + n % 7 * 10)));
    assert!(!slow.has_unusual_latency(), "it is slow, as always");
    for late in [ms(4000), ms(4000)] {
        slow.on_latency(late);
        assert!(!slow.has_unusual_latency());
    }
    slow.on_latency(ms(4000));
    assert!(slow.has_unusual_latency());
    slow.on_latency(ms(420));
    assert!(!slow.has_unusual_latency());

    let mut new = Health::default();
    (0..SAMPLES).for_each(|n| new.on_latency(ms(if n < 4 { 10 } else { 500 })));
    assert!(!new.has_unusual_latency(), "there is no history yet");
}

/// What lasts becomes the history in the end, but not within a minute.
#[test]
fn a_change_for_good_is_unusual_for_a_while() {
    let mut health = Health::default();
    (0..50).for_each(|_| health.on_latency(Duration::from_millis(10)));
    let unusual = (0..1000)
        .filter(|_| {
            health.on_latency(Duration::from_millis(200));
            health.has_unusual_latency()
        })
        .count();
    assert!((4..200).contains(&unusual), "{unusual} pings");
    assert!(!health.has_unusual_latency());
}

#[test]
fn failures_are_unusual_for_who_used_to_deliver() {
    let (mut sound, mut poor) = (Health::default(), Health::default());
    for n in 0..BATCH * SAMPLES {
        sound.on_outcome(true);
        poor.on_outcome(n % 2 == 0);
    }
    for n in 0..BATCH {
        sound.on_outcome(n % 2 == 0);
        poor.on_outcome(n % 2 == 0);
    }
    assert!(sound.has_unusual_failures() && !poor.has_unusual_failures());
    (0..BATCH).for_each(|_| sound.on_outcome(true));
    assert!(!sound.has_unusual_failures());
}

#[test]
fn a_flow_is_right_from_its_beginning_and_falls_when_it_ends() {
    let mut flow = Flow::default();
    assert_eq!(flow.rate(S), 0.0);
    for step in 1..=600u32 {
        let now = S + step * S / 20;
        flow.add(now, 50_000);
        if step >= 20 {
            let rate = flow.rate(now);
            assert!((rate / 1e6 - 1.0).abs() < 0.06, "{rate} after {step} steps");
        }
    }
    assert!(flow.rate(31 * S + FLOW) < 0.4e6);
    assert!(flow.rate(31 * S + 10 * FLOW) < 100.0);
}

#[derive(Debug, Clone)]
enum Event {
    Latency(Duration),
    Asked,
    Settled,
    Bytes(u64),
    Sent(u64),
    Outcome(bool),
    Connected,
    Disconnected,
}

fn event() -> impl Strategy<Value = (u64, Event)> {
    let kind = prop_oneof![
        (0..u64::MAX).prop_map(|ns| Event::Latency(Duration::from_nanos(ns))),
        Just(Event::Asked),
        Just(Event::Settled),
        (0..u64::from(u32::MAX)).prop_map(Event::Bytes),
        (0..u64::from(u32::MAX)).prop_map(Event::Sent),
        any::<bool>().prop_map(Event::Outcome),
        Just(Event::Connected),
        Just(Event::Disconnected),
    ];
    (prop_oneof![0u64..3, 0u64..10_000_000_000], kind)
}

fn measures() -> impl Strategy<Value = Measures> {
    let latency = proptest::option::of((0u64..5000).prop_map(Duration::from_millis));
    let rate = proptest::option::of(0.0..1e9);
    (latency, rate, 0.0..=1.0f64, 0u64..1000, 0.0..=1.0f64).prop_map(
        |(latency, rate, failures, delivered, availability)| Measures {
            latency,
            rate,
            failures,
            delivered,
            availability,
        },
    )
}

proptest! {
    #[test]
    fn whatever_happens_every_number_is_finite_and_within_its_bounds(
        events in proptest::collection::vec(event(), 0..200),
    ) {
        let mut health = Health::default();
        let mut now = Duration::ZERO;
        for (pause, event) in events {
            now += Duration::from_nanos(pause);
            match event {
                Event::Latency(rtt) => health.on_latency(rtt),
                Event::Asked => health.on_asked(now),
                Event::Settled => health.on_settled(),
                Event::Bytes(bytes) => health.on_bytes(now, bytes),
                Event::Sent(bytes) => health.on_sent(now, bytes),
                Event::Outcome(ok) => health.on_outcome(ok),
                Event::Connected => health.on_connected(now),
                Event::Disconnected => health.on_disconnected(now),
            }
            let measures = health.measures(now);
            prop_assert!((0.0..=1.0).contains(&measures.failures), "{measures:?}");
            prop_assert!((0.0..=1.0).contains(&measures.availability), "{measures:?}");
            prop_assert!((0.0..=1.0).contains(&health.score(now)), "{measures:?}");
            prop_assert!(measures.rate.is_none_or(|rate| rate.is_finite() && rate >= 0.0));
            let (come, sent) = health.flows(now);
            prop_assert!(come.is_finite() && come >= 0.0 && sent.is_finite() && sent >= 0.0);
            prop_assert!(health.latencies.deviation.is_finite() && health.latencies.deviation >= 0.0);
        }
    }

    #[test]
    fn no_measure_gets_worse_and_the_grade_or_score_better(
        better in measures(),
        later in 0u64..5000, slower in 0.0..=1.0f64, more in 0.0..=1.0f64, rarer in 0.0..=1.0f64,
    ) {
        let worse = [
            Measures { latency: better.latency.map(|rtt| rtt + Duration::from_millis(later)), ..better },
            Measures { rate: better.rate.map(|rate| rate * slower), ..better },
            Measures { failures: better.failures + (1.0 - better.failures) * more, ..better },
            Measures { availability: better.availability * rarer, ..better },
        ];
        for worse in worse {
            prop_assert!(Grade::of(&worse) >= Grade::of(&better), "{better:?} {worse:?}");
            prop_assert!(worse.score() <= better.score() + 1e-12, "{better:?} {worse:?}");
        }
    }
}
