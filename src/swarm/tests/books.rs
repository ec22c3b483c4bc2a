//! Credit, requests on both sides, and the choice of peers.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;

use super::{any_class, object, objects};
use crate::id::{Kind, ObjectId};
use crate::swarm::asking::{Arrived, Asking, batch};
use crate::swarm::choice::{Failure, Judgement, Speed, Suspects, Verdict};
use crate::swarm::credit::{Budget, FAULT_RESERVE, Guess, Stage, TOTAL};
use crate::swarm::serving::{Job, MAX_WANTS, Serving, Take};
use crate::swarm::wire::*;
use crate::swarm::{Class, Lane, MAX_OBJECT, Violation};

/// What is wanted, and how long it is if the other side has it.
type Wanted = (ObjectId, Option<u32>);

/// The first credit of every request here: small, so that most objects have to be finished.
const CREDIT: u32 = 1000;

/// Two sides of a session, and what passes between them.
#[derive(Default)]
struct Exchange {
    asking: Option<Asking>,
    serving: Serving,
    budget: Budget,
    tickets: u64,
    sizes: HashMap<ObjectId, Option<u32>>,
    cancelled: HashSet<ObjectId>,
    asked: HashMap<u64, (Class, ObjectId)>,
    answers: HashMap<u64, u32>,
    lent: HashMap<u64, u32>,
    /// Grants that have not reached the server.
    grants: Vec<(u64, u32)>,
}

impl Exchange {
    fn asking(&mut self) -> &mut Asking {
        self.asking.get_or_insert_with(|| Asking::new(MAX_WANTS))
    }

    fn borrow(&mut self, class: Class, stage: Stage, bytes: u32) {
        self.tickets += 1;
        // The sizes here are small against the budget, so that all is lent at once.
        assert!(self.budget.ask(self.tickets, class, stage, bytes));
    }

    fn ask(&mut self, class: Class, object: ObjectId) {
        self.borrow(class, Stage::Start, CREDIT);
        let want = self.asking().want(class, 60_000, CREDIT, vec![object]);
        let request = want.first;
        self.asked.insert(request, (class, object));
        self.lent.insert(request, CREDIT);
        self.serving.on_want(Duration::ZERO, want).unwrap();
        if self.cancelled.contains(&object) && self.asking().cancel(request) {
            self.settle(request);
            self.serving.on_cancel(&Cancel { requests: vec![request] });
        }
    }

    /// Gives back what a request was lent.
    fn settle(&mut self, request: u64) {
        if let Some(bytes) = self.lent.remove(&request) {
            self.budget.release(self.asked[&request].0, bytes);
        }
    }

    /// Does the next job of a lane; whether there was one.
    fn work(&mut self, lane: Lane, frame: u32) -> bool {
        match self.serving.next(lane, Duration::ZERO) {
            None => return false,
            Some(Job::Reject(reject)) => reject.requests.into_iter().for_each(|r| self.rejected(lane, r)),
            Some(Job::Send { request, object, sent, .. }) => match self.sizes[&object] {
                Some(len) => self.send(lane, request, sent, len, frame),
                None => self.serving.refuse(request, Reason::Missing),
            },
        }
        true
    }

    fn rejected(&mut self, lane: Lane, request: u64) {
        let object = self.asked[&request].1;
        *self.answers.entry(request).or_default() += 1;
        let wanted = self.asking().on_reject(lane, request).unwrap();
        assert_eq!(wanted, !self.cancelled.contains(&object));
        assert!(!wanted || self.sizes[&object].is_none());
        self.settle(request);
    }

    fn send(&mut self, lane: Lane, request: u64, from: u32, stored_len: u32, frame: u32) {
        assert!(self.serving.found(request, stored_len));
        let mut at = from;
        while let Take::Bytes { sent, len, last } = self.serving.take(request, frame) {
            assert_eq!(sent, at);
            at += len;
            let head = (sent == 0).then_some(DataHead { codec: 0, plain_len: stored_len, stored_len });
            let arrived = self.asking().on_data(lane, request, head, len as usize).unwrap();
            let complete = match arrived {
                Arrived::Unwanted => last,
                Arrived::More { complete } => complete,
                Arrived::First { spare, lacking, complete, .. } => {
                    self.first(request, spare, lacking);
                    complete
                }
            };
            assert_eq!(complete, last);
            if last {
                *self.answers.entry(request).or_default() += 1;
                self.settle(request);
            }
        }
    }

    fn first(&mut self, request: u64, spare: u32, lacking: u32) {
        let class = self.asked[&request].0;
        self.budget.release(class, spare);
        self.borrow(class, Stage::Finish, lacking);
        *self.lent.get_mut(&request).unwrap() += lacking;
        *self.lent.get_mut(&request).unwrap() -= spare;
        self.grants.push((request, lacking));
        // Some grants come while the object is in hand, others when it waits.
        if request.is_multiple_of(2) {
            self.deliver_grants();
        }
    }

    /// Whether there were any.
    fn deliver_grants(&mut self) -> bool {
        let grants = std::mem::take(&mut self.grants);
        let any = !grants.is_empty();
        for (request, bytes) in grants {
            if self.asking().grant(request, bytes) {
                self.serving.on_credit(&Credit { grants: vec![(request, bytes)] }).unwrap();
            }
        }
        any
    }
}

/// Moves everything that both sides owe each other until nothing moves, and checks that each want was answered once
/// and all credit has come back.
fn exchange(wants: &[(Class, Vec<Wanted>)], frame: u32, cancelled: HashSet<ObjectId>) {
    let sizes = wants.iter().flat_map(|(_, list)| list.clone()).collect();
    let mut both = Exchange { sizes, cancelled, ..Exchange::default() };
    let mut queue = wants.iter().flat_map(|(class, list)| list.iter().map(|(object, _)| (*class, *object)));
    loop {
        let next = queue.next();
        if let Some((class, object)) = next {
            both.ask(class, object);
        }
        let worked = [Lane::Urgent, Lane::Bulk].map(|lane| both.work(lane, frame)).contains(&true);
        if !both.deliver_grants() && !worked && next.is_none() {
            break;
        }
    }
    assert_eq!(both.answers.len(), both.asked.len(), "every wanted object is answered");
    assert!(both.answers.values().all(|count| *count == 1), "once");
    assert_eq!((both.serving.unanswered(), both.asking().room(), both.budget.lent()), (0, MAX_WANTS, 0));
}

proptest! {
    #[test]
    fn both_sides_agree_on_every_answer(
        wants in prop::collection::vec(
            (any_class(), prop::collection::vec(prop::option::weighted(0.8, 0u32..200_000), 1..20)), 1..5),
        frame in 100u32..65_536,
        cancelled in prop::collection::hash_set(0u64..60, 0..10),
    ) {
        let mut number = 0;
        let wants: Vec<_> = wants
            .into_iter()
            .map(|(class, sizes)| {
                let list = sizes.into_iter().map(|size| { number += 1; (object(number), size) }).collect();
                (class, list)
            })
            .collect();
        exchange(&wants, frame, cancelled.into_iter().map(object).collect());
    }

    /// However requests of all sizes come, the budget is kept and everybody is served.
    #[test]
    fn the_budget_is_kept_and_never_locks_up(
        requests in prop::collection::vec((any_class(), 1..=MAX_OBJECT, 1..=MAX_OBJECT), 1..80),
        order in any::<u64>(),
    ) {
        #[derive(Clone, Copy)]
        enum State { Starting, Finishing, Holding }
        let mut budget = Budget::default();
        let mut states = HashMap::new();
        let mut turn = order;
        let mut lent_other = 0u64;
        let mut lent = 0u64;
        let mut events: Vec<u64> = Vec::new();
        for (ticket, (class, start, _)) in requests.iter().enumerate() {
            states.insert(ticket as u64, State::Starting);
            if budget.ask(ticket as u64, *class, Stage::Start, *start) {
                events.push(ticket as u64);
            }
        }
        while !events.is_empty() {
            turn = turn.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let ticket = events.swap_remove((turn >> 33) as usize % events.len());
            let (class, start, size) = requests[ticket as usize];
            let lacking = size.saturating_sub(start);
            let state = states[&ticket];
            // The ticket has just been served (Starting, Finishing), or its object is to be handed over (Holding).
            let bytes = match state { State::Starting => start, State::Finishing => lacking, State::Holding => 0 };
            lent += u64::from(bytes);
            if class != Class::Fault { lent_other += u64::from(bytes); }
            match state {
                State::Starting if lacking > 0 => {
                    states.insert(ticket, State::Finishing);
                    if budget.ask(ticket, class, Stage::Finish, lacking) { events.push(ticket); }
                }
                State::Starting | State::Finishing => {
                    states.insert(ticket, State::Holding);
                    events.push(ticket);
                }
                State::Holding => {
                    states.remove(&ticket);
                    let held = start + lacking;
                    lent -= u64::from(held);
                    if class != Class::Fault { lent_other -= u64::from(held); }
                    events.extend(budget.release(class, held));
                }
            }
            prop_assert!(budget.lent() <= TOTAL);
            prop_assert!(lent <= budget.lent() && lent_other <= TOTAL - FAULT_RESERVE);
        }
        prop_assert!(states.is_empty(), "{} requests wait for ever", states.len());
        prop_assert_eq!(budget.lent(), 0);
    }
}

#[test]
fn bulk_never_takes_the_reserve_of_faults() {
    let mut budget = Budget::default();
    let mut ticket = 0;
    while budget.ask(ticket, Class::Prefetch, Stage::Start, MAX_OBJECT) {
        ticket += 1;
    }
    while budget.ask(ticket, Class::Prefetch, Stage::Finish, 256 << 10) {
        ticket += 1;
    }
    assert!(budget.lent() <= TOTAL - FAULT_RESERVE);
    assert!(budget.ask(1000, Class::Fault, Stage::Start, FAULT_RESERVE as u32));
    assert!(!budget.ask(1001, Class::Fault, Stage::Start, 4 << 20), "beyond the reserve faults queue too");
    assert!(budget.withdraw(1001).0);
    assert!(!budget.withdraw(1001).0);
}

#[test]
fn the_first_guess_grows_at_once_and_shrinks_slowly() {
    let mut guess = Guess::default();
    guess.learn(Kind::Chunk, MAX_OBJECT);
    assert_eq!(guess.credit(Kind::Chunk), MAX_OBJECT);
    assert_eq!(guess.credit(Kind::Tree), 256 << 10);
    guess.learn(Kind::Chunk, 1000);
    assert!(guess.credit(Kind::Chunk) > MAX_OBJECT / 2);
    (0..1000).for_each(|_| guess.learn(Kind::Chunk, 1000));
    assert_eq!(guess.credit(Kind::Chunk), 16 << 10);
}

#[test]
fn every_broken_rule_of_a_server_is_named() {
    let head = |stored_len| Some(DataHead { codec: 0, plain_len: 10, stored_len });
    let fresh = || {
        let mut asking = Asking::new(10);
        asking.want(Class::Fault, 1000, 100, objects(0..2));
        asking
    };
    let mut asking = fresh();
    assert_eq!(asking.on_data(Lane::Urgent, 9, head(1), 1), Err(Violation::UnknownRequest(9)));
    assert_eq!(asking.on_reject(Lane::Urgent, 9), Err(Violation::UnknownRequest(9)));
    let wrong_lane = Violation::WrongLane { request: 1, lane: Lane::Bulk };
    assert_eq!(asking.on_data(Lane::Bulk, 1, head(1), 1), Err(wrong_lane.clone()));
    assert_eq!(asking.on_reject(Lane::Bulk, 1), Err(wrong_lane));
    assert_eq!(asking.on_data(Lane::Urgent, 1, None, 1), Err(Violation::FrameOrder(1)));
    assert!(matches!(
        asking.on_data(Lane::Urgent, 1, head(MAX_OBJECT + 1), 1),
        Err(Violation::TooLarge { request: 1, .. })
    ));
    // Beyond the length announced; beyond the credit; twice; without an end; after the end.
    assert!(matches!(fresh().on_data(Lane::Urgent, 1, head(5), 6), Err(Violation::OverLength { .. })));
    assert!(matches!(fresh().on_data(Lane::Urgent, 1, head(500), 101), Err(Violation::OverCredit { .. })));
    let mut asking = fresh();
    asking.on_data(Lane::Urgent, 1, head(50), 10).unwrap();
    assert_eq!(asking.on_data(Lane::Urgent, 1, head(50), 10), Err(Violation::FrameOrder(1)));
    assert_eq!(asking.on_data(Lane::Urgent, 1, None, 0), Err(Violation::FrameOrder(1)));
    asking.on_data(Lane::Urgent, 1, None, 40).unwrap();
    assert_eq!(asking.on_data(Lane::Urgent, 1, None, 1), Err(Violation::UnknownRequest(1)));
    // What is spare counts as taken back: more than the object cannot come anyway, but more than lacking is refused.
    let mut asking = fresh();
    let arrived = asking.on_data(Lane::Urgent, 2, head(150), 100).unwrap();
    assert!(matches!(arrived, Arrived::First { spare: 0, lacking: 50, complete: false, .. }));
    assert!(matches!(asking.on_data(Lane::Urgent, 2, None, 1), Err(Violation::OverCredit { .. })));
}

#[test]
fn every_broken_rule_of_a_reader_is_named() {
    let now = Duration::ZERO;
    let want = |first, range| Want {
        first,
        class: Class::Prefetch,
        deadline_ms: 1000,
        credit: 100,
        objects: objects(range),
    };
    let mut serving = Serving::default();
    serving.on_want(now, want(5, 0..3)).unwrap();
    let order = Violation::RequestOrder { request: 7, last: 7 };
    assert_eq!(serving.on_want(now, want(7, 0..1)), Err(order));
    assert!(matches!(
        serving.on_want(now, want(8, 0..MAX_WANTS as u64 - 2)),
        Err(Violation::TooManyWants { .. })
    ));
    assert!(matches!(
        serving.on_credit(&Credit { grants: vec![(5, MAX_OBJECT)] }),
        Err(Violation::TooMuchCredit { request: 5, .. })
    ));
    // What crosses an answer breaks no rule.
    serving.on_credit(&Credit { grants: vec![(99, MAX_OBJECT)] }).unwrap();
    serving.on_cancel(&Cancel { requests: vec![99] });
    assert_eq!(serving.unanswered(), 3);
}

#[test]
fn requests_on_the_same_terms_travel_together() {
    let mut asking = Asking::new(5000);
    let mut wants: Vec<Want> =
        (0..1500).map(|n| asking.want(Class::Prefetch, 1000, 100, vec![object(n)])).collect();
    wants.push(asking.want(Class::Prefetch, 1000, 200, vec![object(1)]));
    wants.push(asking.want(Class::Fault, 1000, 200, vec![object(1)]));
    let batched = batch(wants.clone());
    assert_eq!(batched.iter().map(|want| want.objects.len()).collect::<Vec<_>>(), [1024, 476, 1, 1]);
    let pairs = |wants: &[Want]| -> Vec<(u64, ObjectId)> {
        wants.iter().flat_map(|want| (want.first..).zip(want.objects.clone())).collect()
    };
    assert_eq!(pairs(&batched), pairs(&wants));
}

#[test]
fn answers_come_in_the_order_of_their_class() {
    let now = Duration::ZERO;
    let mut serving = Serving::default();
    let mut first = 1;
    let mut want = |class, deadline_ms| {
        let want = Want { first, class, deadline_ms, credit: 100, objects: objects(first..first + 1) };
        first += 1;
        serving.on_want(now, want).unwrap();
    };
    want(Class::Replicate, 9000);
    want(Class::Prefetch, 9000);
    want(Class::Readahead, 9000);
    want(Class::Readahead, 10);
    want(Class::Fault, 9000);
    want(Class::Fault, 500);
    let mut order = Vec::new();
    for lane in [Lane::Urgent, Lane::Bulk] {
        while let Some(Job::Send { request, .. }) = serving.next(lane, now) {
            order.push(request);
        }
    }
    assert_eq!(order, [6, 5, 3, 4, 2, 1]);
    // What cannot be kept any more is declined instead.
    let late = Want { first: 50, class: Class::Fault, deadline_ms: 10, credit: 1, objects: objects(0..1) };
    serving.on_want(now, late).unwrap();
    let reject = Reject { reason: Reason::Busy, requests: vec![50] };
    assert_eq!(serving.next(Lane::Urgent, Duration::from_secs(1)), Some(Job::Reject(reject)));
}

#[test]
fn failures_amount_to_what_may_pass_before_what_will_not() {
    let verdict = |failures: &[Failure<u8>]| Verdict::of(failures);
    assert_eq!(verdict(&[]), Verdict::Nobody);
    assert_eq!(verdict(&[Failure::Foreign]), Verdict::Nobody);
    assert_eq!(verdict(&[Failure::Foreign, Failure::Missing]), Verdict::NotFound);
    assert_eq!(verdict(&[Failure::Wrong, Failure::Missing]), Verdict::Corrupt);
    assert_eq!(verdict(&[Failure::Wrong, Failure::TimedOut]), Verdict::TimedOut);
    assert_eq!(verdict(&[Failure::Wrong, Failure::TimedOut, Failure::Lost]), Verdict::Unreachable);
    assert_eq!(verdict(&[Failure::Missing, Failure::Redirected(None)]), Verdict::Unreachable);
}

#[test]
fn a_liar_is_banned_and_two_failures_on_one_object_ban_nobody() {
    let mut suspects = Suspects::new();
    assert_eq!(suspects.wrong(object(1), 'a'), Judgement::Ban);
    assert!(suspects.is_banned(&'a') && suspects.has_failed(&object(1), &'a'));
    assert_eq!(suspects.wrong(object(1), 'a'), Judgement::Ban, "the same peer again is no second witness");
    assert_eq!(suspects.wrong(object(1), 'b'), Judgement::Doubt { pardoned: vec!['a'] });
    assert!(!suspects.is_banned(&'a') && !suspects.is_banned(&'b'));
    assert!(suspects.has_failed(&object(1), &'a') && suspects.has_failed(&object(1), &'b'));
    // Who is banned for another object too stays banned.
    assert_eq!(suspects.wrong(object(2), 'c'), Judgement::Ban);
    assert_eq!(suspects.wrong(object(3), 'c'), Judgement::Ban);
    assert_eq!(suspects.wrong(object(3), 'd'), Judgement::Doubt { pardoned: vec![] });
    assert!(suspects.is_banned(&'c') && !suspects.is_banned(&'d'));
}

#[test]
fn a_fast_idle_peer_is_expected_first() {
    let (mut fast, mut slow) = (Speed::default(), Speed::default());
    for (speed, took) in [(&mut fast, 1), (&mut slow, 10)] {
        speed.on_rtt(Duration::from_millis(1));
        speed.on_asked(Duration::ZERO, 10 << 20);
        speed.on_come(Duration::from_secs(took), 10 << 20);
        speed.on_settled(10 << 20);
        speed.on_asked(Duration::from_secs(20), 1 << 20);
    }
    let now = Duration::from_secs(20);
    assert!(fast.expected(now) < slow.expected(now));
    // Until enough is queued there that the slow one is done before.
    fast.on_asked(now, 50 << 20);
    assert!(fast.expected(now) > slow.expected(now));
}

/// A peer that took requests and delivered nothing was never measured. So it kept the high rate of an unknown peer and
/// stayed the first choice of every fetch, each of which waited for it in vain before it asked one that delivers.
#[test]
fn a_peer_that_fails_is_expected_later_and_later_until_it_delivers() {
    let at = Duration::from_secs;
    let (mut stalled, mut far) = (Speed::default(), Speed::default());
    stalled.on_rtt(Duration::from_micros(100));
    far.on_rtt(Duration::from_millis(300));
    far.on_asked(at(0), 1 << 20);
    assert!(stalled.expected(at(0)) < far.expected(at(0)));
    stalled.on_failed(at(0), at(5), Failure::<u8>::TimedOut);
    let once = stalled.expected(at(5));
    assert!(once > far.expected(at(5)));
    // What was under way together fails together.
    for _ in 0..100 {
        stalled.on_failed(at(1), at(5), Failure::<u8>::Lost);
    }
    assert_eq!(stalled.expected(at(5)), once);
    // It is tried again after a while, and then after a longer one.
    assert!(stalled.expected(at(10)) < far.expected(at(10)));
    stalled.on_failed(at(10), at(15), Failure::<u8>::Busy);
    assert!(stalled.expected(at(24)) > once && stalled.expected(at(25)) < once);
    for n in 2..40 {
        stalled.on_failed(at(n * 1000), at(n * 1000 + 5), Failure::<u8>::TimedOut);
    }
    assert!(stalled.expected(at(39_000 + 644)) > at(100) && stalled.expected(at(39_000 + 645)) < at(1));
    // Each object that it delivers halves what is held against it.
    for _ in 0..4 {
        stalled.on_delivered();
    }
    assert!(stalled.expected(at(39_006)) < at(1));
    // Answers that are no failure of the peer to answer change nothing.
    let before = far.expected(at(40_000));
    for failure in [Failure::<u8>::Missing, Failure::Wrong, Failure::Foreign] {
        far.on_failed(at(40_000), at(40_000), failure);
    }
    assert_eq!(far.expected(at(40_000)), before);
}

#[test]
fn a_peer_that_could_not_be_asked_comes_after_all_others() {
    let at = Duration::from_secs;
    let (mut mute, mut slow) = (Speed::default(), Speed::default());
    slow.on_asked(at(0), 32 << 20);
    for n in 0..10 {
        slow.on_failed(at(n), at(n), Failure::<u8>::TimedOut);
    }
    mute.on_not_opened(at(10), at(11));
    assert!(mute.not_opened_since(at(10)) && !mute.not_opened_since(at(12)));
    assert!(mute.expected(at(12)) > slow.expected(at(12)));
    mute.on_opened();
    assert!(mute.expected(at(12)) < slow.expected(at(12)));
}
