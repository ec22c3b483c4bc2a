//! A crowd of schedulers that fetch the same objects from one source, in one simulation with a seed.
//!
//! The links: each node sends and receives so many bytes a second, one object after the other in the order in which they
//! were asked for; a message takes [`LATENCY`]. Nobody can be done before the source has sent each object once and
//! every receiver has received each, which takes as long as one receiver alone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use super::object;
use crate::id::ObjectId;
use crate::swarm::choice::Failure;
use crate::swarm::scheduler::{Action, Kind, Scheduler, Told};
use crate::swarm::{Class, Spread};

const RATE: f64 = 25e6;
const LATENCY: Duration = Duration::from_millis(2);
const SOURCE: usize = 0;

/// What is simulated.
#[derive(Clone, Copy)]
struct Setting {
    receivers: usize,
    objects: u64,
    /// Of each object.
    bytes: u64,
    /// Neighbours that each receiver connects to; as many more connect to it on average.
    degree: usize,
    /// Receivers that the source takes.
    at_source: usize,
    /// One in so many lies, and one in so many leaves half way and comes back with nothing; 0 for none.
    liar_in: usize,
    leaves_in: usize,
    seed: u64,
}

enum Event {
    Tick,
    Asked { by: usize, object: ObjectId },
    Came { from: usize, object: ObjectId, wrong: bool },
    Failed { from: usize, object: ObjectId, failure: Failure<usize> },
    Watched { by: usize, objects: Vec<ObjectId> },
    Told { from: usize, news: Vec<(ObjectId, Told)> },
    Leaves,
    Joins,
}

struct Node {
    scheduler: Scheduler<usize>,
    neighbours: Vec<usize>,
    has: HashSet<ObjectId>,
    watchers: HashMap<ObjectId, Vec<usize>>,
    send_free: Duration,
    receive_free: Duration,
    lies: bool,
    online: bool,
    /// Counts its lives: what was under way when it left is lost.
    life: u32,
    leaves: bool,
    done: Option<Duration>,
    tick: Duration,
}

struct Crowd {
    setting: Setting,
    nodes: Vec<Node>,
    events: BinaryHeap<Reverse<(Duration, u64, usize, u32)>>,
    pending: HashMap<u64, Event>,
    scheduled: u64,
    /// Objects that the source has sent, and to whom last.
    sent: u64,
    lately: HashMap<ObjectId, (usize, Duration)>,
    rng: StdRng,
}

/// What came of it.
#[derive(Debug, PartialEq)]
struct Result {
    /// When the last of those who stayed was done.
    last: Duration,
    sent: u64,
    events: u64,
}

impl Crowd {
    fn new(setting: Setting) -> Crowd {
        let mut rng = StdRng::seed_from_u64(setting.seed);
        let node = |number: usize| Node {
            scheduler: Scheduler::new(key(number)),
            neighbours: Vec::new(),
            has: HashSet::new(),
            watchers: HashMap::new(),
            send_free: Duration::ZERO,
            receive_free: Duration::ZERO,
            lies: setting.liar_in > 0 && number % setting.liar_in == 1,
            online: true,
            life: 0,
            leaves: setting.leaves_in > 0 && number % setting.leaves_in == 2,
            done: None,
            tick: Duration::MAX,
        };
        let mut nodes: Vec<Node> = (0..=setting.receivers).map(node).collect();
        nodes[SOURCE].has = (0..setting.objects).map(object).collect();
        let mut edges = HashSet::new();
        let receivers: Vec<usize> = (1..=setting.receivers).collect();
        for &receiver in &receivers {
            edges.extend(
                receivers
                    .sample(&mut rng, setting.degree)
                    .map(|other| (receiver.min(*other), receiver.max(*other))),
            );
        }
        edges.extend(receivers.sample(&mut rng, setting.at_source).map(|other| (SOURCE, *other)));
        let mut edges: Vec<_> = edges.into_iter().filter(|(a, b)| a != b).collect();
        edges.sort_unstable();
        for (a, b) in edges {
            nodes[a].neighbours.push(b);
            nodes[b].neighbours.push(a);
        }
        let (events, pending) = (BinaryHeap::new(), HashMap::new());
        Crowd { setting, nodes, events, pending, scheduled: 0, sent: 0, lately: HashMap::new(), rng }
    }

    fn at(&mut self, time: Duration, node: usize, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((time, self.scheduled, node, self.nodes[node].life)));
        self.pending.insert(self.scheduled, event);
    }

    /// How long nobody can be faster than.
    fn bound(&self) -> Duration {
        Duration::from_secs_f64(self.setting.objects as f64 * self.setting.bytes as f64 / RATE)
    }

    fn run(mut self) -> Result {
        for node in 1..self.nodes.len() {
            let start = Duration::from_millis(self.rng.random_range(0..100));
            self.at(start, node, Event::Joins);
            if self.nodes[node].leaves {
                self.at(self.bound() / 2, node, Event::Leaves);
            }
        }
        let stays = |node: &&Node| !node.leaves && !node.lies;
        let deadline = self.bound() * 20;
        while let Some(Reverse((now, number, node, life))) = self.events.pop() {
            let event = self.pending.remove(&number).unwrap();
            let lost = life != self.nodes[node].life || !self.nodes[node].online;
            if lost && !matches!(event, Event::Joins) {
                continue;
            }
            assert!(
                now < deadline,
                "{} are not done",
                self.nodes.iter().skip(1).filter(stays).filter(|n| n.done.is_none()).count()
            );
            self.on_event(now, node, event);
            self.carry_out(now, node);
            if self.nodes.iter().skip(1).filter(stays).all(|node| node.done.is_some()) {
                let last =
                    self.nodes.iter().skip(1).filter(stays).filter_map(|node| node.done).max().unwrap();
                return Result { last, sent: self.sent, events: self.scheduled };
            }
        }
        panic!("nothing happens any more, and not all are done");
    }

    fn on_event(&mut self, now: Duration, at: usize, event: Event) {
        let node = &mut self.nodes[at];
        match event {
            Event::Tick => {
                node.tick = Duration::MAX;
                node.scheduler.tick(now);
            }
            Event::Asked { by, object } => self.on_asked(now, at, by, object),
            Event::Came { from, object, wrong: true } => {
                node.scheduler.wrong(now, from, object);
            }
            Event::Came { from, object, wrong: false } => {
                node.scheduler.delivered(now, from, object, self.setting.bytes);
                if node.has.insert(object) && node.has.len() as u64 == self.setting.objects {
                    node.done.get_or_insert(now);
                }
                for watcher in node.watchers.remove(&object).unwrap_or_default() {
                    let news = vec![(object, Told::Here { gained: false })];
                    self.at(now + LATENCY, watcher, Event::Told { from: at, news });
                }
            }
            Event::Failed { from, object, failure } => node.scheduler.failed(now, from, object, failure),
            Event::Watched { by, objects } => {
                let mut news = Vec::new();
                for object in objects {
                    news.push(match () {
                        () if node.lies || node.has.contains(&object) => {
                            (object, Told::Here { gained: false })
                        }
                        () if node.scheduler.wants(&object) => (object, Told::Coming(now + LATENCY)),
                        () => (object, Told::Absent),
                    });
                    node.watchers.entry(object).or_default().push(by);
                }
                self.at(now + LATENCY, by, Event::Told { from: at, news });
            }
            Event::Told { from, news } => {
                for (object, told) in news {
                    node.scheduler.told(now, from, object, told);
                }
            }
            Event::Joins => self.join(now, at),
            Event::Leaves => {
                node.online = false;
                node.life += 1;
                node.has.clear();
                node.watchers.clear();
                for other in node.neighbours.clone() {
                    self.nodes[other].scheduler.peer_down(now, at, Failure::Lost);
                    self.carry_out(now, other);
                }
                self.at(now + self.bound() / 10, at, Event::Joins);
            }
        }
    }

    fn join(&mut self, now: Duration, at: usize) {
        self.nodes[at].online = true;
        self.nodes[at].scheduler = Scheduler::new(key(at));
        for other in self.nodes[at].neighbours.clone() {
            if self.nodes[other].online {
                let kind = Kind::Node { watches: true };
                self.nodes[at].scheduler.peer_up(now, other, key(other), kind);
                self.nodes[other].scheduler.peer_up(now, at, key(at), kind);
                self.carry_out(now, other);
            }
        }
        let mut objects: Vec<u64> = (0..self.setting.objects).collect();
        // Those who come back read something else first.
        if self.nodes[at].life > 0 {
            objects.shuffle(&mut self.rng);
        }
        for number in objects {
            let object = object(number);
            self.nodes[at].scheduler.want(now, object, Class::Prefetch, Spread::Many, self.setting.bytes);
            for watcher in self.nodes[at].watchers.get(&object).cloned().unwrap_or_default() {
                let news = vec![(object, Told::Coming(now + LATENCY))];
                self.at(now + LATENCY, watcher, Event::Told { from: at, news });
            }
        }
    }

    fn on_asked(&mut self, now: Duration, at: usize, by: usize, object: ObjectId) {
        let wrong = self.nodes[at].lies;
        if !wrong && !self.nodes[at].has.contains(&object) {
            let failure = Failure::Missing;
            return self.at(now + LATENCY, by, Event::Failed { from: at, object, failure });
        }
        // The source has more to send than it can at once, and somebody else has just been given the object.
        let backlog = self.nodes[at].send_free > now + Duration::from_millis(20);
        if let Some(&(other, when)) = self.lately.get(&object)
            && at == SOURCE
            && backlog
            && other != by
            && (when + LATENCY..when + Duration::from_secs(10)).contains(&now)
        {
            let failure = Failure::Redirected(Some(other));
            return self.at(now + LATENCY, by, Event::Failed { from: at, object, failure });
        }
        let takes = Duration::from_secs_f64(self.setting.bytes as f64 / RATE);
        let sent = self.nodes[at].send_free.max(now) + takes;
        self.nodes[at].send_free = sent;
        let came = self.nodes[by].receive_free.max(sent - takes + LATENCY) + takes;
        self.nodes[by].receive_free = came;
        if at == SOURCE {
            self.sent += 1;
            self.lately.insert(object, (by, sent));
        }
        self.at(came, by, Event::Came { from: at, object, wrong });
    }

    fn carry_out(&mut self, now: Duration, at: usize) {
        for action in self.nodes[at].scheduler.actions() {
            match action {
                Action::Ask { object, peer, .. } if self.nodes[peer].online => {
                    self.at(now + LATENCY, peer, Event::Asked { by: at, object });
                    // If it leaves before it answers, that is noticed.
                    if self.nodes[peer].leaves {
                        let lost = Event::Failed { from: peer, object, failure: Failure::Lost };
                        self.at(now + Duration::from_secs(1), at, lost);
                    }
                }
                Action::Ask { object, peer, .. } => {
                    let failure = Failure::Lost;
                    self.at(now + LATENCY, at, Event::Failed { from: peer, object, failure });
                }
                Action::Watch { peer, objects } if self.nodes[peer].online => {
                    self.at(now + LATENCY, peer, Event::Watched { by: at, objects });
                }
                Action::GiveUp { object, .. } => {
                    // As a fetcher does: it asks again a little later. (Here at the next event.)
                    self.nodes[at].scheduler.want(
                        now,
                        object,
                        Class::Prefetch,
                        Spread::Many,
                        self.setting.bytes,
                    );
                }
                Action::Watch { .. } | Action::Cancel { .. } => {}
            }
        }
        if let Some(next) = self.nodes[at].scheduler.wake_at(now)
            && next < self.nodes[at].tick
        {
            self.nodes[at].tick = next;
            self.at(next, at, Event::Tick);
        }
    }
}

fn key(node: usize) -> u64 {
    let hash = blake3::hash(&node.to_le_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
}

const EIGHT: Setting = Setting {
    receivers: 8,
    objects: 800,
    bytes: 64 << 10,
    degree: 8,
    at_source: 8,
    liar_in: 0,
    leaves_in: 0,
    seed: 1,
};
const THOUSAND: Setting = Setting {
    receivers: 1000,
    objects: 100,
    bytes: 256 << 10,
    degree: 10,
    at_source: 48,
    liar_in: 100,
    leaves_in: 10,
    seed: 1,
};

/// Runs it, and says what came of it: time in parts of the bound, copies that the source sent.
fn figures(setting: Setting) -> (f64, f64) {
    let crowd = Crowd::new(setting);
    let bound = crowd.bound();
    let Result { last, sent, events } = crowd.run();
    let (time, copies) = (last.as_secs_f64() / bound.as_secs_f64(), sent as f64 / setting.objects as f64);
    println!("{} receivers: {time:.2} of the bound, {copies:.2} copies, {events} events", setting.receivers);
    (time, copies)
}

#[test]
fn eight_receivers_take_about_as_long_as_one() {
    for seed in 0..4 {
        let (time, copies) = figures(Setting { seed, ..EIGHT });
        assert!(time <= 1.25 && copies <= 1.1, "{time} {copies}");
    }
}

#[test]
fn a_liar_among_eight_delays_nobody_for_long() {
    let (time, copies) = figures(Setting { liar_in: 8, ..EIGHT });
    assert!(time <= 1.4 && copies <= 1.25, "{time} {copies}");
}

#[test]
fn a_thousand_receivers_of_whom_some_leave_and_some_lie_are_done_in_time() {
    let (time, copies) = figures(THOUSAND);
    assert!(time <= 1.5 && copies <= 1.5, "{time} {copies}");
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let setting = Setting { receivers: 30, leaves_in: 5, liar_in: 9, objects: 60, ..EIGHT };
    let run = |seed| Crowd::new(Setting { seed, ..setting }).run();
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
