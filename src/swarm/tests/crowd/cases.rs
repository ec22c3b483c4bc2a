//! What is simulated: crowds of all kinds, and how long they may take.

use super::{Crowd, Result, Setting};

const EIGHT: Setting = Setting {
    receivers: 8,
    objects: 600,
    wanted: usize::MAX,
    bytes: 64 << 10,
    rate: 25e6,
    up: (1.0, 1.0),
    tells: true,
    degree: 8,
    at_source: 8,
    liar_in: 0,
    leaves_in: 0,
    slow_in: 0,
    stalls_in: 0,
    parted: None,
    seed: 1,
};
/// A tenth of them leaves and comes back, a hundredth lies.
const THOUSAND: Setting = Setting {
    receivers: 1000,
    objects: 250,
    bytes: 256 << 10,
    degree: 10,
    at_source: 48,
    liar_in: 100,
    leaves_in: 10,
    ..EIGHT
};
/// Enough for every kind of trouble.
const FORTY: Setting =
    Setting { receivers: 40, objects: 80, at_source: 40, liar_in: 0, leaves_in: 0, ..THOUSAND };

/// Runs it, and says what came of it: time in parts of the bound, copies that the source sent.
fn figures(what: &str, setting: Setting) -> (f64, f64) {
    let crowd = Crowd::new(setting);
    let bound = crowd.bound();
    let Result { last, sent, events } = crowd.run();
    let (time, copies) = (last.as_secs_f64() / bound.as_secs_f64(), sent as f64 / setting.objects as f64);
    println!(
        "{what}: {} receivers, {time:.2} of the bound, {copies:.2} copies, {events} events",
        setting.receivers
    );
    (time, copies)
}

#[test]
fn eight_receivers_take_about_as_long_as_one() {
    for seed in 0..2 {
        let (time, copies) = figures("eight", Setting { seed, ..EIGHT });
        assert!(time <= 1.25 && copies <= 1.1, "{time} {copies}");
    }
}

/// As a prefetch does it.
#[test]
fn a_crowd_that_wants_a_part_at_a_time_goes_through_it_together() {
    for seed in 0..2 {
        let setting = Setting { objects: 3276, bytes: 71 << 10, wanted: 460, seed, ..EIGHT };
        let (time, copies) = figures("a part at a time", setting);
        assert!(time <= 1.15 && copies <= 1.05, "{time} {copies}");
    }
}

/// What 50 Mbit/s carry.
const FIFTY_MBIT: Setting = Setting { objects: 842, bytes: 71 << 10, rate: 6.25e6, ..EIGHT };

/// The source sent 0.15 to 0.2 copies more than one: who had nothing left to fetch for others asked it for what was left to
/// others, and so did those to whom that was left, though the former had it by then.
#[test]
fn nobody_asks_the_source_for_what_another_has_got_or_brings() {
    for (seed, tells) in [(0, false), (1, false), (0, true), (1, true)] {
        let (time, copies) = figures("50 Mbit/s", Setting { seed, tells, ..FIFTY_MBIT });
        assert!(time <= 1.06 && copies <= 1.02, "{time} {copies}");
    }
}

/// Few objects over slow links: what is asked of a peer at a time has to be little, or all wait for the one to which an object
/// has come first.
#[test]
fn twelve_receivers_over_slow_links_share_the_work() {
    let few = Setting {
        receivers: 12,
        objects: 96,
        bytes: 32 << 10,
        rate: 1e6,
        degree: 12,
        at_source: 12,
        ..EIGHT
    };
    let (time, copies) = figures("twelve", few);
    assert!(time <= 1.35 && copies <= 1.1, "{time} {copies}");
}

/// Each knows all others, and looks at few of them. It took eight times the bound.
#[test]
#[ignore = "on demand: 4 million events, minutes without optimisation"]
fn a_hundred_receivers_who_all_know_each_other_are_done_in_time() {
    let hundred = Setting { receivers: 99, objects: 400, rate: 2e6, degree: 99, at_source: 99, ..EIGHT };
    let (time, copies) = figures("a hundred", hundred);
    assert!(time <= 1.25 && copies <= 1.1, "{time} {copies}");
}

/// Each knows the source and few others.
const HUNDRED: Setting =
    Setting { receivers: 99, objects: 100, bytes: 32 << 10, rate: 4e5, degree: 5, at_source: 99, ..EIGHT };

#[test]
fn a_hundred_receivers_who_know_few_others_are_done_in_time() {
    let (time, copies) = figures("a hundred who know few", HUNDRED);
    assert!(time <= 1.5 && copies <= 1.5, "{time} {copies}");
}

/// It takes half a minute. What the source had sent ten seconds ago it sent again, 1.5 to 1.6 copies in all.
#[test]
#[ignore = "on demand: a million events, a minute without optimisation"]
fn what_was_sent_a_while_ago_is_fetched_from_others() {
    let (time, copies) = figures("a hundred for half a minute", Setting { objects: 400, ..HUNDRED });
    assert!(time <= 1.45 && copies <= 1.3, "{time} {copies}");
}

/// Large objects over slow links: what stands in a queue for half a minute was taken for the length of the way, so that the source did not
/// know that it was busy, and sent two of three objects again (1.93 of the bound, 1.93 copies).
#[test]
#[ignore = "on demand: 350,000 events, half a minute without optimisation"]
fn a_source_with_a_queue_that_stands_for_long_sends_others_on() {
    let large =
        Setting { receivers: 30, objects: 240, bytes: 128 << 10, degree: 6, at_source: 30, ..HUNDRED };
    let (time, copies) = figures("large objects", large);
    assert!(time <= 1.3 && copies <= 1.2, "{time} {copies}");
}

/// Lines whose way up is narrow, and a source that could feed all of them: they took nine times the bound, when who has got an object
/// gave it to the others and nobody else.
#[test]
fn a_source_that_has_room_is_asked_though_others_have_it_too() {
    for tells in [false, true] {
        let narrow = Setting { up: (8.0, 0.1), tells, ..FIFTY_MBIT };
        let (time, _) = figures("narrow ways up", narrow);
        assert!(time <= 4.5, "{time}");
    }
}

#[test]
fn a_liar_among_eight_delays_nobody_for_long() {
    for (setting, most) in [(EIGHT, 1.4), (FIFTY_MBIT, 1.25), (Setting { tells: false, ..FIFTY_MBIT }, 1.25)]
    {
        let (time, copies) = figures("a liar", Setting { liar_in: 8, ..setting });
        assert!(time <= most && copies <= 1.25, "{time} {copies}");
    }
}

#[test]
fn a_slow_one_delays_nobody_but_itself() {
    let (time, _) = figures("one in ten is slow", Setting { slow_in: 10, ..FORTY });
    assert!(time <= 1.8, "{time}");
}

#[test]
fn those_who_take_wants_and_never_answer_keep_nobody_from_being_done() {
    let (time, _) = figures("one in ten stalls", Setting { stalls_in: 10, ..FORTY });
    // Each round of what stalls costs a second, and whoever is given an object by the source and stalls is named to others.
    assert!(time <= 10.0, "{time}");
}

#[test]
fn a_crowd_that_was_parted_is_whole_again_when_it_heals() {
    let (time, _) = figures("parted from 0.3 to 2", Setting { parted: Some((30, 200)), ..FORTY });
    assert!((2.0..4.0).contains(&time), "half of it had no source until then: {time}");
}

/// The target, 1.5, is for a thousand and a transfer of some seconds. This one is over in less than one, of which 0.1 s pass
/// until all have joined, and as much until half of them have anything to give; at the end what is last waits in the
/// queues of others. In between about 0.85 of what all can send is sent.
#[test]
fn eighty_receivers_of_whom_some_leave_and_some_lie_are_done_in_time() {
    let (time, copies) = figures("eighty", Setting { receivers: 80, objects: 80, ..THOUSAND });
    assert!(time <= 2.0 && copies <= 2.0, "{time} {copies}");
}

#[test]
#[ignore = "on demand: 7 million events, minutes without optimisation"]
fn a_thousand_receivers_of_whom_some_leave_and_some_lie_are_done_in_time() {
    let (time, copies) = figures("a thousand", THOUSAND);
    assert!(time <= 1.5 && copies <= 1.5, "{time} {copies}");
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let setting = Setting { receivers: 30, leaves_in: 5, liar_in: 9, objects: 60, ..EIGHT };
    let run = |seed| Crowd::new(Setting { seed, ..setting }).run();
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
