//! The scheduler of one node.

use std::time::Duration;

use proptest::prelude::*;

use super::{object, objects};
use crate::id::ObjectId;
use crate::swarm::choice::{Failure, Judgement, Verdict};
use crate::swarm::scheduler::{Action, Kind, Scheduler, Told};
use crate::swarm::{Class, Spread};

const NODE: Kind = Kind::Node { watches: true };
const KIB64: u64 = 64 << 10;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn with_peers(peers: &[u8]) -> Scheduler<u8> {
    let mut scheduler = Scheduler::new(0);
    for peer in peers {
        scheduler.peer_up(Duration::ZERO, *peer, u64::from(*peer) << 56, NODE);
    }
    scheduler
}

fn asked(actions: &[Action<u8>]) -> Vec<(ObjectId, u8)> {
    let asked = actions.iter().filter_map(|action| match action {
        Action::Ask { object, peer, .. } => Some((*object, *peer)),
        _ => None,
    });
    asked.collect()
}

fn want(scheduler: &mut Scheduler<u8>, now: Duration, n: u64, class: Class) -> Vec<Action<u8>> {
    scheduler.want(now, object(n), class, Spread::Many, KIB64);
    scheduler.actions()
}

#[test]
fn a_fault_asks_everybody_once_before_it_is_given_up() {
    let mut scheduler = with_peers(&[1, 2, 3]);
    let mut now = ms(1);
    let mut next = asked(&want(&mut scheduler, now, 7, Class::Fault));
    let mut order = Vec::new();
    while let [(named, peer)] = next[..] {
        assert_eq!(named, object(7));
        order.push(peer);
        now += ms(1);
        scheduler.failed(now, peer, object(7), Failure::Missing);
        let actions = scheduler.actions();
        next = asked(&actions);
        if next.is_empty() {
            assert_eq!(actions, [Action::GiveUp { object: object(7), verdict: Verdict::NotFound }]);
        }
    }
    order.sort_unstable();
    assert_eq!(order, [1, 2, 3]);
    assert!(!scheduler.wants(&object(7)));
    // With nobody there is nobody to ask.
    let given_up = want(&mut with_peers(&[]), now, 1, Class::Prefetch);
    assert_eq!(given_up, [Action::GiveUp { object: object(1), verdict: Verdict::Nobody }]);
}

/// Whoever brings a directory waits for what names its files, and that stood behind the chunks that were known.
#[test]
fn what_names_others_is_asked_for_before_all_chunks() {
    let mut scheduler = with_peers(&[1]);
    let flying = (0..100).flat_map(|n| asked(&want(&mut scheduler, ms(0), n, Class::Prefetch)));
    let flying: Vec<_> = flying.collect();
    let tree = ObjectId { kind: crate::id::Kind::Tree, ..object(200) };
    scheduler.want(ms(1), tree, Class::Prefetch, Spread::Many, KIB64);
    assert!(scheduler.actions().is_empty(), "there is no room");
    scheduler.delivered(ms(2), 1, flying[0].0, KIB64);
    assert_eq!(asked(&scheduler.actions())[0], (tree, 1));
}

#[test]
fn what_is_for_later_waits_for_room_in_the_window() {
    let mut scheduler = with_peers(&[1]);
    let mut flying = Vec::new();
    for n in 0..100 {
        flying.extend(asked(&want(&mut scheduler, ms(0), n, Class::Prefetch)));
    }
    assert_eq!(flying.len(), 4, "256 KiB in the beginning");
    // A fault does not wait.
    assert_eq!(asked(&want(&mut scheduler, ms(0), 200, Class::Fault)), [(object(200), 1)]);
    // All that comes in time makes the window larger.
    scheduler.delivered(ms(1), 1, flying[0].0, KIB64);
    assert_eq!(asked(&scheduler.actions()).len(), 2);
}

#[test]
fn what_readers_will_want_goes_before_what_is_for_later_and_nothing_starves() {
    let mut scheduler = with_peers(&[1]);
    let mut flying = Vec::new();
    for n in 0..400 {
        let class = [Class::Replicate, Class::Prefetch, Class::Readahead][n as usize % 3];
        flying.extend(asked(&want(&mut scheduler, ms(0), n, class)));
    }
    let (mut order, mut now) = (Vec::new(), ms(0));
    let first = flying.remove(0);
    scheduler.delivered(ms(1), 1, first.0, KIB64);
    flying.extend(asked(&scheduler.actions()));
    while !flying.is_empty() {
        let (object, peer) = flying.remove(0);
        order.push(object);
        // Late enough that the window becomes small.
        now += ms(500);
        scheduler.delivered(now, peer, object, KIB64);
        flying.extend(asked(&scheduler.actions()));
    }
    assert_eq!(order.len(), 399);
    let class = |of: &ObjectId| (0..400).find(|n| object(*n) == *of).unwrap() % 3;
    let first: Vec<u64> = order[20..120].iter().map(class).collect();
    let replicated = first.iter().filter(|class| **class == 0).count();
    assert!(first.iter().filter(|class| **class == 2).count() >= 90, "{first:?}");
    assert!((4..=6).contains(&replicated), "one in twenty: {replicated}");
}

/// Two nodes that want the same of one source each fetch their half of it, and have the other from each other.
#[test]
fn each_object_is_left_to_one_of_those_who_want_it() {
    let mut scheduler = with_peers(&[1, 2]);
    for n in 0..200 {
        want(&mut scheduler, ms(0), n, Class::Prefetch);
    }
    scheduler.tick(ms(10));
    let actions = scheduler.actions();
    let watched = |peer: u8| actions.contains(&Action::Watch { peer, objects: objects(0..200) });
    assert!(
        watched(1) && watched(2) && actions.len() == 2,
        "nobody is asked before they have said what they have"
    );
    for n in 0..200 {
        scheduler.told(ms(11), 1, object(n), Told::Here { gained: false });
        scheduler.told(ms(11), 2, object(n), Told::Coming(ms(11)));
    }
    let mut mine: Vec<(ObjectId, u8)> = Vec::new();
    let mut next = asked(&scheduler.actions());
    while let Some((object, peer)) = next.pop() {
        assert_eq!(peer, 1);
        mine.push((object, peer));
        scheduler.delivered(ms(20), peer, object, KIB64);
        next.extend(asked(&scheduler.actions()));
    }
    assert!((70..130).contains(&mine.len()), "{}", mine.len());
    // The other brings the rest.
    let rest: Vec<u64> = (0..200).filter(|n| scheduler.wants(&object(*n))).collect();
    for n in &rest {
        scheduler.told(ms(30), 2, object(*n), Told::Here { gained: false });
        for (object, peer) in asked(&scheduler.actions()) {
            assert_eq!(peer, 2);
            scheduler.delivered(ms(31), peer, object, KIB64);
        }
    }
    assert!((0..200).all(|n| !scheduler.wants(&object(n))));
}

#[test]
fn what_is_left_to_somebody_who_does_not_bring_it_is_fetched_all_the_same() {
    for gone in [false, true] {
        let mut scheduler = with_peers(&[1, 2]);
        for n in 0..20 {
            want(&mut scheduler, ms(0), n, Class::Prefetch);
        }
        scheduler.tick(ms(10));
        scheduler.actions();
        for n in 0..20 {
            scheduler.told(ms(11), 2, object(n), Told::Coming(ms(11)));
            scheduler.told(ms(11), 1, object(n), Told::Here { gained: false });
        }
        let first = asked(&scheduler.actions()).len();
        assert!((1..20).contains(&first), "{first}");
        let later = if gone { ms(20) } else { ms(1100) };
        if gone {
            scheduler.peer_down(later, 2, Failure::Lost);
        } else {
            scheduler.tick(later);
        }
        let actions = scheduler.actions();
        assert_eq!(
            asked(&actions).iter().filter(|(_, peer)| *peer == 1).count() + first,
            4,
            "the window is full"
        );
    }
}

#[test]
fn a_late_fault_is_asked_of_a_second_peer_and_the_loser_taken_back() {
    let mut scheduler = with_peers(&[1, 2]);
    let mut now = ms(0);
    for n in 0..40 {
        let [(object, peer)] = asked(&want(&mut scheduler, now, n, Class::Fault))[..] else {
            panic!("not asked")
        };
        now += ms(2);
        scheduler.delivered(now, peer, object, KIB64);
        assert_eq!(scheduler.actions(), []);
    }
    let [(late, first)] = asked(&want(&mut scheduler, now, 100, Class::Fault))[..] else {
        panic!("not asked")
    };
    let wake = scheduler.wake_at(now).unwrap();
    assert!(wake >= now + ms(10) && wake < now + ms(300), "{:?}", wake - now);
    scheduler.tick(wake);
    let [(again, second)] = asked(&scheduler.actions())[..] else { panic!("not asked again") };
    assert!(again == late && second != first);
    scheduler.delivered(wake + ms(1), second, late, KIB64);
    assert_eq!(scheduler.actions(), [Action::Cancel { object: late, peer: first }]);
}

#[test]
fn at_most_one_fault_in_twenty_is_asked_twice() {
    let mut scheduler = with_peers(&[1, 2]);
    let (mut now, mut twice) = (ms(0), 0);
    for n in 0..1000 {
        let [(object, peer)] = asked(&want(&mut scheduler, now, n, Class::Fault))[..] else {
            panic!("not asked")
        };
        // All are late.
        now += Duration::from_secs(2);
        scheduler.tick(now);
        twice += asked(&scheduler.actions()).len();
        scheduler.delivered(now, peer, object, KIB64);
        scheduler.actions();
    }
    assert!((40..=55).contains(&twice), "{twice}");
}

#[test]
fn who_sends_elsewhere_is_asked_again_later() {
    let mut scheduler = with_peers(&[1, 2]);
    scheduler.peer_up(ms(0), 1, 1, Kind::Node { watches: false });
    scheduler.peer_up(ms(0), 2, 2, Kind::Node { watches: false });
    let [(object, seed)] = asked(&want(&mut scheduler, ms(0), 1, Class::Prefetch))[..] else {
        panic!("not asked")
    };
    let other = 3 - seed;
    scheduler.failed(ms(5), seed, object, Failure::Redirected(Some(other)));
    assert_eq!(asked(&scheduler.actions()), [(object, other)]);
    scheduler.failed(ms(6), other, object, Failure::Missing);
    assert_eq!(scheduler.actions(), [], "it may still come from the first");
    scheduler.tick(ms(1100));
    assert_eq!(asked(&scheduler.actions()), [(object, seed)]);
}

/// In a crowd of a hundred, nodes asked the source for the same three objects in turn, and for the others when everybody else had given up waiting for that.
#[test]
fn who_sends_elsewhere_is_asked_for_everything_else_first() {
    let mut scheduler = with_peers(&[1]);
    for n in 0..8 {
        // One fills the window.
        scheduler.want(ms(0), object(n), Class::Prefetch, Spread::Many, 4 * KIB64);
    }
    let mut seen = Vec::new();
    for round in 1..=8 {
        let [(object, peer)] = asked(&scheduler.actions())[..] else { panic!("one is asked for") };
        assert!(!seen.contains(&object), "{object} again after {}", seen.len());
        seen.push(object);
        // By then it may be asked for what it has sent on before.
        scheduler.failed(ms(500 * round), peer, object, Failure::Redirected(None));
    }
    assert_eq!(asked(&scheduler.actions()), [(seen[0], 1)], "what it has sent on longest ago");
}

/// What nobody else near had got was asked of the source five times a second by each of a hundred nodes.
#[test]
fn who_keeps_sending_elsewhere_is_asked_less_and_less_often() {
    let mut scheduler = with_peers(&[1]);
    let mut at = vec![0];
    assert_eq!(asked(&want(&mut scheduler, ms(0), 1, Class::Prefetch)), [(object(1), 1)]);
    while at.len() < 8 {
        let sent_on = at[at.len() - 1];
        scheduler.failed(ms(sent_on), 1, object(1), Failure::Redirected(None));
        assert_eq!(scheduler.actions(), []);
        let again = (sent_on..).step_by(10).find(|now| {
            scheduler.tick(ms(*now));
            !asked(&scheduler.actions()).is_empty()
        });
        at.push(again.unwrap());
    }
    let pauses: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [200, 400, 800, 1600, 3200, 3200, 3200]);
}

/// It was taken to be there at once, and asked for, and not asked again when it had answered that it had not come.
#[test]
fn who_is_being_given_an_object_is_asked_when_it_says_that_it_has_come() {
    let mut scheduler = with_peers(&[1, 2]);
    want(&mut scheduler, ms(0), 1, Class::Prefetch);
    scheduler.tick(ms(5));
    scheduler.actions();
    scheduler.told(ms(6), 1, object(1), Told::Here { gained: false });
    scheduler.told(ms(6), 2, object(1), Told::Absent);
    assert_eq!(asked(&scheduler.actions()), [(object(1), 1)]);
    scheduler.failed(ms(8), 1, object(1), Failure::Redirected(Some(2)));
    assert_eq!(asked(&scheduler.actions()), []);
    scheduler.told(ms(20), 2, object(1), Told::Here { gained: false });
    assert_eq!(asked(&scheduler.actions()), [(object(1), 2)]);
}

/// The last objects of a prefetch lay with peers that never answered until these were given up, after half a minute.
#[test]
fn what_is_left_with_peers_that_deliver_nothing_is_asked_of_others() {
    let mut scheduler = with_peers(&[1, 2]);
    // Each peer is asked for half of them.
    let half = KIB64 / 2;
    for n in 0..16 {
        scheduler.want(ms(0), object(n), Class::Prefetch, Spread::Many, half);
    }
    scheduler.tick(ms(5));
    scheduler.actions();
    for n in 0..16 {
        scheduler.told(ms(6), 1, object(n), Told::Here { gained: false });
        scheduler.told(ms(6), 2, object(n), Told::Here { gained: false });
    }
    let first = asked(&scheduler.actions());
    let silent = first.iter().filter(|(_, peer)| *peer == 1).count();
    assert!(silent > 4, "more than may be asked twice otherwise: {first:?}");
    for (object, _) in first.iter().filter(|(_, peer)| *peer == 2) {
        scheduler.delivered(ms(20), 2, *object, half);
    }
    let mut again = asked(&scheduler.actions());
    scheduler.tick(ms(3000));
    again.extend(asked(&scheduler.actions()));
    assert_eq!(again.iter().filter(|(_, peer)| *peer == 2).count(), silent);
}

/// Requests that were never answered kept a third peer from being asked until they were given up.
#[test]
fn who_delivers_nothing_is_not_waited_for_when_another_is_asked() {
    let mut scheduler = with_peers(&[1, 2, 3]);
    want(&mut scheduler, ms(0), 1, Class::Prefetch);
    scheduler.tick(ms(5));
    for peer in [1, 2, 3] {
        scheduler.told(ms(6), peer, object(1), Told::Here { gained: false });
    }
    let [(_, first)] = asked(&scheduler.actions())[..] else { panic!("not asked") };
    scheduler.tick(ms(1100));
    let [(_, second)] = asked(&scheduler.actions())[..] else { panic!("not late") };
    assert_ne!(first, second);
    scheduler.tick(ms(2300));
    let actions = scheduler.actions();
    assert!(actions.contains(&Action::Cancel { object: object(1), peer: first }), "{actions:?}");
    assert_eq!(asked(&actions), [(object(1), 6 - first - second)]);
}

/// Each object that was wanted was a message to each peer, when they were wanted one by one.
#[test]
fn what_is_wanted_behind_many_others_is_asked_about_in_groups() {
    let mut scheduler = with_peers(&[1, 2]);
    let watched = |actions: &[Action<u8>]| -> Vec<usize> {
        let named = actions.iter().filter_map(|action| match action {
            Action::Watch { objects, .. } => Some(objects.len()),
            _ => None,
        });
        named.collect()
    };
    for n in 0..100 {
        want(&mut scheduler, ms(0), n, Class::Prefetch);
    }
    scheduler.tick(ms(5));
    assert_eq!(watched(&scheduler.actions()), [100, 100]);
    for n in 0..40 {
        let mut actions = want(&mut scheduler, ms(10 + n), 100 + n, Class::Prefetch);
        scheduler.tick(ms(10 + n));
        actions.extend(scheduler.actions());
        assert!(watched(&actions).is_empty());
    }
    scheduler.tick(ms(60));
    assert_eq!(watched(&scheduler.actions()), [40, 40]);
    // What a reader will come to does not wait so long.
    want(&mut scheduler, ms(61), 200, Class::Prefetch);
    want(&mut scheduler, ms(62), 201, Class::Readahead);
    assert_eq!(scheduler.wake_at(ms(62)), Some(ms(67)));
    scheduler.tick(ms(67));
    assert_eq!(watched(&scheduler.actions()), [2, 2]);
}

/// Of more than a thousand that waited it was asked about the first thousand only, and those who wanted the rest fetched it three times
/// from the source.
#[test]
fn a_peer_that_comes_later_is_asked_about_all_that_waits() {
    let mut scheduler = with_peers(&[1, 2]);
    for n in 0..3000 {
        want(&mut scheduler, ms(0), n, Class::Prefetch);
    }
    scheduler.peer_up(ms(1), 3, 3, NODE);
    scheduler.tick(ms(10));
    let mut named = [0; 4];
    for action in scheduler.actions() {
        if let Action::Watch { peer, objects } = action {
            named[usize::from(peer)] += objects.len();
        }
    }
    assert_eq!(named, [0, 3000, 3000, 3000]);
}

/// The source sent a fifth of its data once more to those who had begun some seconds later.
#[test]
fn what_has_come_to_another_who_fetches_is_asked_of_that_one() {
    let (source, other) = (1, 2);
    let mut scheduler = with_peers(&[source, other]);
    let mut later = |now: Duration, n: u64, told: Told| {
        want(&mut scheduler, now, n, Class::Prefetch);
        scheduler.tick(now + ms(5));
        scheduler.actions();
        scheduler.told(now + ms(6), source, object(n), Told::Here { gained: false });
        scheduler.told(now + ms(6), other, object(n), told);
        let asked = asked(&scheduler.actions());
        for (object, peer) in &asked {
            scheduler.delivered(now + ms(8), *peer, *object, KIB64);
        }
        scheduler.actions();
        asked
    };
    later(ms(0), 0, Told::Coming(ms(6)));
    for n in 1..50 {
        let now = ms(1000 + 10 * n);
        assert_eq!(later(now, n, Told::Here { gained: false }), [(object(n), other)]);
    }
    // Long after it wanted anything it is one that has all like the source.
    let of_either: Vec<u8> = (50..100)
        .flat_map(|n| later(ms(20_000 + 10 * n), n, Told::Here { gained: false }))
        .map(|(_, peer)| peer)
        .collect();
    assert!(of_either.contains(&source), "{of_either:?}");
}

#[test]
fn the_banned_are_asked_for_nothing() {
    let mut scheduler = with_peers(&[1, 2]);
    let [(object, liar)] = asked(&want(&mut scheduler, ms(0), 1, Class::Fault))[..] else {
        panic!("not asked")
    };
    assert_eq!(scheduler.wrong(ms(1), liar, object), Judgement::Ban);
    let honest = 3 - liar;
    assert_eq!(asked(&scheduler.actions()), [(object, honest)]);
    scheduler.delivered(ms(2), honest, object, KIB64);
    scheduler.peer_up(ms(3), liar, 1, NODE);
    for n in 2..50 {
        for (object, peer) in asked(&want(&mut scheduler, ms(n), n, Class::Fault)) {
            assert_eq!(peer, honest);
            scheduler.delivered(ms(n), peer, object, KIB64);
        }
    }
}

#[test]
fn an_origin_is_the_last_resort() {
    let mut scheduler = with_peers(&[1]);
    scheduler.peer_up(ms(0), 9, 9, Kind::Origin);
    let [(object, peer)] = asked(&want(&mut scheduler, ms(0), 1, Class::Fault))[..] else {
        panic!("not asked")
    };
    assert_eq!(peer, 1);
    scheduler.failed(ms(1), 1, object, Failure::Missing);
    assert_eq!(asked(&scheduler.actions()), [(object, 9)]);
    scheduler.failed(ms(2), 9, object, Failure::Missing);
    assert_eq!(scheduler.actions(), [Action::GiveUp { object, verdict: Verdict::NotFound }]);
}

/// Peers that keep still cost each reader five seconds, and there was an origin all the time.
#[test]
fn a_reader_whose_peers_keep_still_is_served_by_the_origin() {
    let mut scheduler = with_peers(&[1, 2]);
    scheduler.peer_up(ms(0), 9, 9, Kind::Origin);
    let mut now = ms(0);
    for n in 0..200 {
        let begun = now;
        let mut next = asked(&want(&mut scheduler, now, n, Class::Fault));
        while next[..] != [(object(n), 9)] {
            now = scheduler.wake_at(now).expect("a second one is asked");
            scheduler.tick(now);
            next = asked(&scheduler.actions());
        }
        now += ms(20);
        scheduler.delivered(now, 9, object(n), KIB64);
        scheduler.actions();
        assert!(now - begun < ms(300), "{n}: {:?}", now - begun);
    }
}

/// A peer that serves readers well, and late now and then, has another peer for a second, and never an origin.
#[test]
fn what_is_late_among_peers_that_deliver_is_not_asked_of_the_origin() {
    let mut scheduler = with_peers(&[1, 2]);
    scheduler.peer_up(ms(0), 9, 9, Kind::Origin);
    let (mut now, mut twice) = (ms(0), 0);
    for n in 0..400 {
        let [(object, peer)] = asked(&want(&mut scheduler, now, n, Class::Fault))[..] else {
            panic!("not asked")
        };
        assert_ne!(peer, 9);
        // The beginning shows that both deliver.
        now += if n < 40 || n % 10 > 0 { ms(2) } else { ms(600) };
        scheduler.tick(now);
        for (_, second) in asked(&scheduler.actions()) {
            assert_ne!(second, 9, "{n}");
            twice += 1;
        }
        scheduler.delivered(now, peer, object, KIB64);
        scheduler.actions();
        scheduler.on_rtt(now, peer, ms(1 + n % 3));
    }
    assert!(twice > 0);
}

#[test]
fn an_origin_gives_what_falls_to_this_node_and_nobody_has() {
    let mut scheduler = with_peers(&[1, 2]);
    scheduler.peer_up(ms(0), 9, 9, Kind::Origin);
    for n in 0..100 {
        want(&mut scheduler, ms(0), n, Class::Prefetch);
    }
    scheduler.tick(ms(10));
    scheduler.actions();
    for n in 0..100 {
        let of_two = if n < 10 { Told::Here { gained: false } } else { Told::Absent };
        scheduler.told(ms(11), 2, object(n), of_two);
        scheduler.told(ms(11), 1, object(n), Told::Coming(ms(11)));
    }
    let (mut of_origin, mut now) = (0, ms(11));
    let mut flying = asked(&scheduler.actions());
    while let Some((named, peer)) = flying.pop() {
        assert_ne!(peer, 1);
        let is_held = (0..10).any(|n| object(n) == named);
        assert_eq!(peer == 2, is_held);
        of_origin += usize::from(peer == 9);
        now += ms(1);
        scheduler.delivered(now, peer, named, KIB64);
        flying.extend(asked(&scheduler.actions()));
    }
    assert!((25..65).contains(&of_origin), "{of_origin}");
    (0..10).for_each(|n| scheduler.unwant(now, object(n)));
    scheduler.actions();
    // The other one goes on bringing what falls to it: however long that takes, it is not fetched twice.
    let rest: Vec<u64> = (10..100).filter(|n| scheduler.wants(&object(*n))).collect();
    assert!(rest.len() > 20);
    for n in rest {
        now += ms(400);
        scheduler.tick(now);
        assert_eq!(asked(&scheduler.actions()), [], "{n}");
        scheduler.told(now, 1, object(n), Told::Here { gained: false });
        assert_eq!(asked(&scheduler.actions()), [(object(n), 1)]);
        scheduler.delivered(now, 1, object(n), KIB64);
        scheduler.actions();
    }
}

/// A peer that says it has something and does not give it is no reason to leave an origin unasked.
#[test]
fn an_origin_is_asked_for_what_a_holder_does_not_deliver() {
    let mut scheduler = with_peers(&[1]);
    scheduler.peer_up(ms(0), 9, 9, Kind::Origin);
    for n in 0..30 {
        want(&mut scheduler, ms(0), n, Class::Prefetch);
    }
    scheduler.tick(ms(10));
    scheduler.actions();
    for n in 0..30 {
        scheduler.told(ms(11), 1, object(n), Told::Here { gained: false });
    }
    let flying = asked(&scheduler.actions());
    assert!(!flying.is_empty() && flying.iter().all(|(_, peer)| *peer == 1));
    let now = Duration::from_secs(30);
    let mut after = Vec::new();
    for (object, peer) in flying {
        scheduler.failed(now, peer, object, Failure::TimedOut);
        after.extend(asked(&scheduler.actions()));
    }
    scheduler.tick(now + ms(100));
    after.extend(asked(&scheduler.actions()));
    assert!(after.iter().filter(|(_, peer)| *peer == 9).count() > 20, "{after:?}");
}

#[test]
fn the_best_peer_is_asked_for_everything_and_others_for_what_it_fails_on() {
    let mut scheduler = with_peers(&[1, 2, 3]);
    let want = |scheduler: &mut Scheduler<u8>, now, n: u64| {
        let class = [Class::Fault, Class::Readahead, Class::Prefetch][n as usize % 3];
        scheduler.want(now, object(n), class, Spread::Best, KIB64);
        scheduler.tick(now);
        asked(&scheduler.actions())
    };
    for peer in [1, 2, 3] {
        scheduler.on_rtt(ms(0), peer, ms(10 - u64::from(peer)));
    }
    let mut now = ms(1);
    for n in 0..100 {
        let next = want(&mut scheduler, now, n);
        assert_eq!(next, [(object(n), 3)], "{n}");
        // Another one becomes quicker: that is no reason to change.
        scheduler.on_rtt(now, 1, ms(1));
        if n % 5 == 4 {
            // It does not have everything.
            scheduler.failed(now, 3, object(n), Failure::Missing);
            let [(_, other)] = asked(&scheduler.actions())[..] else { panic!("{n}") };
            assert_ne!(other, 3);
            scheduler.delivered(now, other, object(n), KIB64);
        } else {
            now += ms(400);
            scheduler.tick(now);
            assert_eq!(asked(&scheduler.actions()), [], "late, and no second one is asked");
            scheduler.delivered(now, 3, object(n), KIB64);
        }
        scheduler.actions();
        now += ms(1);
    }
    let next = want(&mut scheduler, now, 102);
    assert_eq!(next, [(object(102), 3)]);
    scheduler.failed(now, 3, object(102), Failure::TimedOut);
    assert_eq!(asked(&scheduler.actions()), [(object(102), 1)]);
    for n in 103..110 {
        assert_eq!(want(&mut scheduler, now, n), [(object(n), 1)], "the next best from now on");
        scheduler.delivered(now, 1, object(n), KIB64);
        scheduler.actions();
    }
}

proptest! {
    /// Whatever peers do, each want ends, once, and nothing is asked of a peer twice at a time.
    #[test]
    fn every_want_ends_once(
        wants in prop::collection::vec((0u64..40, 0usize..4), 1..60),
        answers in prop::collection::vec((any::<u8>(), any::<prop::sample::Index>()), 0..400),
    ) {
        let mut scheduler = with_peers(&[1, 2, 3]);
        let mut now = ms(0);
        let mut flying: Vec<(ObjectId, u8)> = Vec::new();
        let mut open = std::collections::HashSet::new();
        let mut wants = wants.into_iter();
        let mut answers = answers.into_iter();
        loop {
            match (wants.next(), answers.next()) {
                (Some((n, class)), _) => {
                    open.insert(object(n));
                    scheduler.want(now, object(n), Class::ALL[class], Spread::Many, KIB64);
                }
                (None, Some((what, index))) if !flying.is_empty() => {
                    let (object, peer) = flying.remove(index.index(flying.len()));
                    match what % 8 {
                        0 | 1 => {
                            open.remove(&object);
                            scheduler.delivered(now, peer, object, KIB64);
                        }
                        2 => scheduler.failed(now, peer, object, Failure::Missing),
                        3 => scheduler.failed(now, peer, object, Failure::Redirected(Some(1))),
                        4 => {
                            flying.push((object, peer));
                            scheduler.told(now, what % 3 + 1, object, Told::Coming(now));
                        }
                        5 => {
                            flying.push((object, peer));
                            flying.retain(|(_, other)| *other != peer);
                            scheduler.peer_down(now, peer, Failure::Lost);
                            scheduler.peer_up(now, peer, u64::from(peer), NODE);
                        }
                        6 => {
                            scheduler.wrong(now, peer, object);
                        }
                        _ => {
                            open.remove(&object);
                            flying.push((object, peer));
                            scheduler.unwant(now, object);
                        }
                    }
                }
                _ => {
                    // From now on everybody says that they have nothing.
                    let Some((object, peer)) = flying.pop() else {
                        if open.is_empty() || now > Duration::from_secs(60) {
                            break;
                        }
                        now += ms(100);
                        scheduler.tick(now);
                        collect(&mut scheduler, &mut flying, &mut open)?;
                        continue;
                    };
                    scheduler.failed(now, peer, object, Failure::Missing);
                }
            }
            now += ms(1);
            collect(&mut scheduler, &mut flying, &mut open)?;
        }
        prop_assert!(open.is_empty(), "{open:?}");
    }
}

/// Takes up what the scheduler wants done.
fn collect(
    scheduler: &mut Scheduler<u8>,
    flying: &mut Vec<(ObjectId, u8)>,
    open: &mut std::collections::HashSet<ObjectId>,
) -> Result<(), TestCaseError> {
    for action in scheduler.actions() {
        match action {
            Action::Ask { object, peer, .. } => {
                prop_assert!(open.contains(&object) && !flying.contains(&(object, peer)));
                flying.push((object, peer));
                prop_assert!(flying.iter().filter(|(other, _)| *other == object).count() <= 2);
            }
            Action::Cancel { object, peer } => flying.retain(|other| *other != (object, peer)),
            Action::GiveUp { object, .. } => prop_assert!(open.remove(&object)),
            Action::Watch { .. } => {}
        }
    }
    Ok(())
}
