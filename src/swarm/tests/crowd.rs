//! A crowd of schedulers that fetch the same objects from one source, in one simulation with a seed.
//!
//! The links: each node sends and receives so many bytes a second. For each reader its kernel takes [`AHEAD`] of what is to be sent, and the link
//! carries that, one object at a time, to the readers in turn. An object is sent, or another named who has just been given it (as `net` does), when the kernel
//! takes it, as far as the node knows then that it is busy: by what readers tell of what has come, which takes its time. What the kernel has is not taken
//! back. What comes is received in that order. A message takes [`LATENCY`]; what answers a watch, or tells that an object has come, also waits behind
//! what its sender has to send. Nobody can be done before the source has sent each
//! object once and every receiver has received each, which takes as long as one receiver alone.

mod cases;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use super::object;
use crate::id::ObjectId;
use crate::swarm::choice::Failure;
use crate::swarm::scheduler::{Action, Kind, Scheduler, Told};
use crate::swarm::serving::LATELY;
use crate::swarm::uplink::Uplink;
use crate::swarm::{Class, Spread};

const LATENCY: Duration = Duration::from_millis(2);
const SOURCE: usize = 0;
/// Bytes for a reader that a kernel takes ahead of its link (`net::transport`); one object always.
const AHEAD: u64 = 128 << 10;
/// How long a link lets messages wait at most.
const QUEUE: Duration = Duration::from_millis(50);
/// As in `net`: when what was asked for is given up; when what nobody had is asked for again.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(100);
/// As in `net`: how often what waits to be begun is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What is simulated.
#[derive(Clone, Copy)]
struct Setting {
    receivers: usize,
    objects: u64,
    /// How many of them each wants at a time, in their order.
    wanted: usize,
    /// Of each object.
    bytes: u64,
    /// Bytes a second that each sends and receives.
    rate: f64,
    /// What the source sends in parts of that, and what each receiver sends.
    up: (f64, f64),
    /// Readers tell what has come, by which a node knows that it is busy. (Older programs do not.)
    tells: bool,
    /// Neighbours that each receiver connects to; as many more connect to it on average.
    degree: usize,
    /// Receivers that the source takes.
    at_source: usize,
    /// One in so many lies, and one in so many leaves half way and comes back with nothing; 0 for none.
    liar_in: usize,
    leaves_in: usize,
    /// One in so many has a tenth of the rate, and one in so many takes what is asked of it and never answers.
    slow_in: usize,
    stalls_in: usize,
    /// Those with even numbers, the source among them, and those with odd ones do not reach each other from the first to
    /// the second of these parts of the bound.
    parted: Option<(u32, u32)>,
    seed: u64,
}

enum Event {
    Tick,
    Asked {
        by: usize,
        object: ObjectId,
    },
    /// What was being sent has left.
    Sent,
    /// What waits to be begun is looked at again.
    Again,
    /// A reader tells that an object has come to it.
    Arrived {
        by: usize,
        object: ObjectId,
    },
    Came {
        from: usize,
        object: ObjectId,
        wrong: bool,
    },
    Failed {
        from: usize,
        object: ObjectId,
        failure: Failure<usize>,
    },
    Watched {
        by: usize,
        objects: Vec<ObjectId>,
    },
    Told {
        from: usize,
        news: Vec<(ObjectId, Told)>,
    },
    WantsAgain {
        object: ObjectId,
    },
    Leaves,
    Joins,
    /// Told to the source for all.
    Parts,
    Heals,
}

struct Node {
    scheduler: Scheduler<usize>,
    neighbours: Vec<usize>,
    has: HashSet<ObjectId>,
    /// What it will want when something has come.
    later: VecDeque<ObjectId>,
    watchers: HashMap<ObjectId, Vec<usize>>,
    /// What others have asked for, and whose turn it is.
    asked: HashMap<usize, VecDeque<ObjectId>>,
    /// What its kernel has taken of that.
    taken: HashMap<usize, VecDeque<ObjectId>>,
    turns: VecDeque<usize>,
    uplink: Uplink<usize>,
    /// Those who have asked for something, whoever was given something last at the end.
    order: VecDeque<usize>,
    sending: bool,
    /// It will look again at what waits to be begun.
    again: bool,
    /// Whom objects were given to last, and when.
    lately: HashMap<ObjectId, (usize, Duration)>,
    receive_free: Duration,
    rate: f64,
    slow: bool,
    lies: bool,
    stalls: bool,
    online: bool,
    /// Counts its lives: what was under way when it left is lost.
    life: u32,
    leaves: bool,
    done: Option<Duration>,
    tick: Duration,
}

impl Node {
    /// Whether the figures are about it.
    fn counts(&self) -> bool {
        !self.leaves && !self.lies && !self.stalls && !self.slow
    }

    /// The next that its link carries, and for whom.
    fn next_taken(&mut self) -> Option<(usize, ObjectId)> {
        let by = self.turns.pop_front()?;
        let queue = self.taken.get_mut(&by)?;
        let object = queue.pop_front()?;
        match queue.is_empty() {
            true => _ = self.taken.remove(&by),
            false => self.turns.push_back(by),
        }
        Some((by, object))
    }

    /// Objects for which `by` waits in its kernel.
    fn taken_for(&self, by: usize) -> u64 {
        self.taken.get(&by).map_or(0, VecDeque::len) as u64
    }

    /// Objects that wait to be sent.
    fn waiting(&self) -> usize {
        let queues = self.asked.values().map(VecDeque::len).chain(self.taken.values().map(VecDeque::len));
        queues.sum()
    }

    fn forget(&mut self, by: usize, object: Option<ObjectId>) {
        if object.is_none() {
            self.taken.remove(&by);
            self.uplink.forget(by);
            self.order.retain(|other| *other != by);
            self.turns.retain(|other| *other != by);
        }
        let Some(queue) = self.asked.get_mut(&by) else { return };
        queue.retain(|asked| object.is_some_and(|object| object != *asked));
        if queue.is_empty() {
            self.asked.remove(&by);
        }
    }
}

struct Crowd {
    setting: Setting,
    nodes: Vec<Node>,
    events: BinaryHeap<Reverse<(Duration, u64, usize, u32)>>,
    pending: HashMap<u64, Event>,
    scheduled: u64,
    /// Objects that the source has sent.
    sent: u64,
    parted: bool,
    /// Of those that count.
    undone: usize,
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
        let node = |number: usize| {
            let one_in = |many: usize, which: usize| many > 0 && number % many == which;
            Node {
                scheduler: Scheduler::new(key(number)),
                neighbours: Vec::new(),
                has: HashSet::new(),
                later: VecDeque::new(),
                watchers: HashMap::new(),
                asked: HashMap::new(),
                taken: HashMap::new(),
                turns: VecDeque::new(),
                uplink: Uplink::default(),
                order: VecDeque::new(),
                sending: false,
                again: false,
                lately: HashMap::new(),
                receive_free: Duration::ZERO,
                rate: setting.rate / if one_in(setting.slow_in, 3) { 10.0 } else { 1.0 },
                slow: one_in(setting.slow_in, 3),
                lies: one_in(setting.liar_in, 1),
                stalls: one_in(setting.stalls_in, 5),
                online: true,
                life: 0,
                leaves: one_in(setting.leaves_in, 2),
                done: None,
                tick: Duration::MAX,
            }
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
        let undone = nodes.iter().skip(1).filter(|node| node.counts()).count();
        let (events, pending) = (BinaryHeap::new(), HashMap::new());
        Crowd { setting, nodes, events, pending, scheduled: 0, sent: 0, parted: false, undone, rng }
    }

    fn at(&mut self, time: Duration, node: usize, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((time, self.scheduled, node, self.nodes[node].life)));
        self.pending.insert(self.scheduled, event);
    }

    /// How long nobody can be faster than.
    fn bound(&self) -> Duration {
        Duration::from_secs_f64(self.setting.objects as f64 * self.setting.bytes as f64 / self.setting.rate)
    }

    fn reaches(&self, a: usize, b: usize) -> bool {
        self.nodes[b].online && !(self.parted && a % 2 != b % 2)
    }

    fn run(mut self) -> Result {
        for node in 1..self.nodes.len() {
            let start = Duration::from_millis(self.rng.random_range(0..100));
            self.at(start, node, Event::Joins);
            if self.nodes[node].leaves {
                self.at(self.bound() / 2, node, Event::Leaves);
            }
        }
        if let Some((from, to)) = self.setting.parted {
            self.at(self.bound() * from / 100, SOURCE, Event::Parts);
            self.at(self.bound() * to / 100, SOURCE, Event::Heals);
        }
        let deadline = self.bound() * 20 + PATIENCE;
        while let Some(Reverse((now, number, node, life))) = self.events.pop() {
            let event = self.pending.remove(&number).unwrap();
            let lost = life != self.nodes[node].life || !self.nodes[node].online;
            if lost && !matches!(event, Event::Joins) {
                continue;
            }
            assert!(now < deadline, "{} are not done", self.undone);
            self.on_event(now, node, event);
            self.carry_out(now, node);
            if self.undone == 0 {
                return Result { last: now, sent: self.sent, events: self.scheduled };
            }
        }
        panic!("nothing happens any more, and not all are done");
    }

    fn on_event(&mut self, now: Duration, at: usize, event: Event) {
        match event {
            Event::Tick => {
                self.nodes[at].tick = Duration::MAX;
                self.nodes[at].scheduler.tick(now);
            }
            Event::Asked { by, object } => self.on_asked(now, at, by, object),
            Event::Sent => {
                self.nodes[at].sending = false;
                self.send_next(now, at);
            }
            Event::Arrived { by, object } => {
                self.nodes[at].uplink.on_come(now, by, request(object));
                self.begin_more(now, at);
            }
            Event::Again => {
                self.nodes[at].again = false;
                self.begin_more(now, at);
            }
            Event::Came { from, object, wrong } => self.on_come(now, at, from, object, wrong),
            Event::Failed { from, object, failure } => {
                self.nodes[at].scheduler.failed(now, from, object, failure);
            }
            Event::Watched { by, objects } => self.on_watched(now, at, by, objects),
            Event::Told { from, news } => {
                for (object, told) in news {
                    self.nodes[at].scheduler.told(now, from, object, told);
                }
            }
            Event::WantsAgain { object } => self.want(now, at, object),
            Event::Joins => self.join(now, at),
            Event::Leaves => {
                self.nodes[at].online = false;
                self.nodes[at].life += 1;
                self.nodes[at].has.clear();
                self.nodes[at].watchers.clear();
                self.nodes[at].lately.clear();
                (self.nodes[at].asked, self.nodes[at].taken, self.nodes[at].turns) = Default::default();
                self.nodes[at].uplink = Uplink::default();
                (self.nodes[at].sending, self.nodes[at].again) = (false, false);
                self.nodes[at].order.clear();
                for other in self.nodes[at].neighbours.clone() {
                    self.lose(now, other, at);
                }
                self.at(now + self.bound() / 10, at, Event::Joins);
            }
            Event::Parts => {
                self.parted = true;
                for (one, other) in self.apart() {
                    self.lose(now, one, other);
                }
            }
            Event::Heals => {
                self.parted = false;
                for (one, other) in self.apart() {
                    self.meet(now, one, other);
                }
            }
        }
    }

    /// Neighbours, both ways, that do not reach each other while the crowd is parted.
    fn apart(&self) -> Vec<(usize, usize)> {
        let all = self.nodes.iter().enumerate();
        let pairs = all.flat_map(|(one, node)| node.neighbours.iter().map(move |other| (one, *other)));
        pairs.filter(|(one, other)| one % 2 != other % 2).collect()
    }

    fn lose(&mut self, now: Duration, at: usize, other: usize) {
        self.nodes[at].scheduler.peer_down(now, other, Failure::Lost);
        self.nodes[at].forget(other, None);
        self.nodes[at].watchers.values_mut().for_each(|watchers| watchers.retain(|by| *by != other));
        self.carry_out(now, at);
    }

    fn meet(&mut self, now: Duration, at: usize, other: usize) {
        if self.reaches(at, other) && self.reaches(other, at) {
            self.nodes[at].scheduler.peer_up(now, other, key(other), Kind::Node { watches: true });
            self.carry_out(now, at);
        }
    }

    fn join(&mut self, now: Duration, at: usize) {
        self.nodes[at].online = true;
        self.nodes[at].scheduler = Scheduler::new(key(at));
        for other in self.nodes[at].neighbours.clone() {
            self.meet(now, at, other);
            self.meet(now, other, at);
        }
        let mut objects: Vec<u64> = (0..self.setting.objects).collect();
        // Those who come back read something else first.
        if self.nodes[at].life > 0 {
            objects.shuffle(&mut self.rng);
        }
        self.nodes[at].later = objects.into_iter().map(object).collect();
        for _ in 0..self.setting.wanted.min(self.nodes[at].later.len()) {
            self.want_next(now, at);
        }
    }

    fn want_next(&mut self, now: Duration, at: usize) {
        if let Some(object) = self.nodes[at].later.pop_front() {
            self.want(now, at, object);
        }
    }

    fn want(&mut self, now: Duration, at: usize, object: ObjectId) {
        self.nodes[at].scheduler.want(now, object, Class::Prefetch, Spread::Many, self.setting.bytes);
        for watcher in self.nodes[at].watchers.get(&object).cloned().unwrap_or_default() {
            let news = vec![(object, Told::Coming(now + LATENCY))];
            self.at(now + LATENCY, watcher, Event::Told { from: at, news });
        }
    }

    fn on_watched(&mut self, now: Duration, at: usize, by: usize, objects: Vec<ObjectId>) {
        let node = &mut self.nodes[at];
        let mut news = Vec::new();
        for object in objects {
            news.push(match () {
                () if node.lies || node.has.contains(&object) => (object, Told::Here { gained: false }),
                () if node.scheduler.wants(&object) => (object, Told::Coming(now + LATENCY)),
                () => (object, Told::Absent),
            });
            let watchers = node.watchers.entry(object).or_default();
            if !watchers.contains(&by) {
                watchers.push(by);
            }
        }
        self.at(now + self.message(at), by, Event::Told { from: at, news });
    }

    /// How long a message from a node takes: it waits behind what is being sent, in a queue of the link.
    fn message(&self, at: usize) -> Duration {
        let node = &self.nodes[at];
        let waits = self.takes(self.up(at)) * (node.waiting() as u32 + u32::from(node.sending));
        LATENCY + waits.min(QUEUE)
    }

    fn on_come(&mut self, now: Duration, at: usize, from: usize, object: ObjectId, wrong: bool) {
        let node = &mut self.nodes[at];
        if wrong {
            node.scheduler.wrong(now, from, object);
            return;
        }
        node.scheduler.delivered(now, from, object, self.setting.bytes);
        let node = &mut self.nodes[at];
        if node.has.insert(object) && node.has.len() as u64 == self.setting.objects && node.done.is_none() {
            node.done = Some(now);
            self.undone -= usize::from(node.counts());
        }
        for watcher in self.nodes[at].watchers.remove(&object).unwrap_or_default() {
            let news = vec![(object, Told::Here { gained: false })];
            self.at(now + LATENCY, watcher, Event::Told { from: at, news });
        }
        self.want_next(now, at);
    }

    fn on_asked(&mut self, now: Duration, at: usize, by: usize, object: ObjectId) {
        let node = &mut self.nodes[at];
        if node.stalls {
            let failure = Failure::TimedOut;
            return self.at(now + PATIENCE, by, Event::Failed { from: at, object, failure });
        }
        if !node.lies && !node.has.contains(&object) {
            // What is wanted there will be there.
            let failure = if node.scheduler.wants(&object) { Failure::Busy } else { Failure::Missing };
            return self.at(now + LATENCY, by, Event::Failed { from: at, object, failure });
        }
        node.asked.entry(by).or_default().push_back(object);
        if !node.order.contains(&by) {
            node.order.push_back(by);
        }
        self.take(now, at, by);
        self.send_next(now, at);
    }

    /// Lets the kernel take what it can of what one has asked for, or names another who has it.
    fn take(&mut self, now: Duration, at: usize, by: usize) {
        while let node = &mut self.nodes[at]
            && (node.taken_for(by) == 0 || (node.taken_for(by) + 1) * self.setting.bytes <= AHEAD)
            && let Some(queue) = node.asked.get_mut(&by)
            && let Some(object) = queue.pop_front()
        {
            if queue.is_empty() {
                node.asked.remove(&by);
            }
            let lately = node.lately.get(&object).copied();
            let busy = node.uplink.is_busy(now, at != SOURCE && node.done.is_none());
            // What it has only just got itself it gives to everybody.
            if let Some((other, when)) = lately
                && busy
                && other != by
                && now < when + LATELY
                && self.reaches(at, other)
            {
                let failure = Failure::Redirected(Some(other));
                self.at(now + LATENCY, by, Event::Failed { from: at, object, failure });
                continue;
            }
            let node = &mut self.nodes[at];
            // Nobody here gives up what waits.
            if self.setting.tells && !node.uplink.begin(now, by, request(object), Duration::MAX) {
                node.asked.entry(by).or_default().push_front(object);
                if !std::mem::replace(&mut node.again, true) {
                    self.at(now + LOOK_AGAIN, at, Event::Again);
                }
                return;
            }
            node.lately.insert(object, (by, now));
            if self.setting.tells {
                node.uplink.on_sent(now, by, request(object), self.setting.bytes);
            }
            let queue = node.taken.entry(by).or_default();
            if queue.is_empty() {
                node.turns.push_back(by);
            }
            queue.push_back(object);
            node.order.retain(|other| *other != by);
            if node.asked.contains_key(&by) {
                node.order.push_back(by);
            }
        }
    }

    /// Lets the kernel take what had to wait, of those first who were given nothing for longest.
    fn begin_more(&mut self, now: Duration, at: usize) {
        if !self.nodes[at].asked.is_empty() {
            for by in self.nodes[at].order.clone() {
                self.take(now, at, by);
            }
        }
        self.send_next(now, at);
    }

    /// Sends what comes next.
    fn send_next(&mut self, now: Duration, at: usize) {
        if !self.nodes[at].sending
            && let Some((by, object)) = self.nodes[at].next_taken()
        {
            self.send(now, at, by, object);
            self.take(now, at, by);
        }
    }

    /// How long an object takes at a rate.
    fn takes(&self, rate: f64) -> Duration {
        Duration::from_secs_f64(self.setting.bytes as f64 / rate)
    }

    /// Bytes a second that a node sends.
    fn up(&self, at: usize) -> f64 {
        let (of_source, of_others) = self.setting.up;
        self.nodes[at].rate * if at == SOURCE { of_source } else { of_others }
    }

    fn send(&mut self, now: Duration, at: usize, by: usize, object: ObjectId) {
        let up = self.up(at);
        let (sent, slowest) = (now + self.takes(up), up.min(self.nodes[by].rate));
        // It cannot be received faster than it is sent, nor while something else is received.
        let begins = self.nodes[by].receive_free.max(now + LATENCY);
        let received = begins + self.takes(self.nodes[by].rate);
        let came = received.max(now + LATENCY + self.takes(slowest));
        self.nodes[by].receive_free = received;
        self.nodes[at].sending = true;
        self.sent += u64::from(at == SOURCE);
        self.at(sent, at, Event::Sent);
        if self.reaches(at, by) {
            if self.setting.tells {
                self.at(came + self.message(by), at, Event::Arrived { by, object });
            }
            let wrong = self.nodes[at].lies;
            self.at(came, by, Event::Came { from: at, object, wrong });
        }
    }

    fn carry_out(&mut self, now: Duration, at: usize) {
        for action in self.nodes[at].scheduler.actions() {
            match action {
                Action::Ask { object, peer, .. } if self.reaches(at, peer) => {
                    self.at(now + LATENCY, peer, Event::Asked { by: at, object });
                }
                Action::Ask { object, peer, .. } => {
                    let failure = Failure::Lost;
                    self.at(now + LATENCY, at, Event::Failed { from: peer, object, failure });
                }
                Action::Watch { peer, objects } if self.reaches(at, peer) => {
                    self.at(now + LATENCY, peer, Event::Watched { by: at, objects });
                }
                Action::Watch { .. } => {}
                Action::Cancel { object, peer } => self.nodes[peer].forget(at, Some(object)),
                Action::GiveUp { object, .. } => self.at(now + AGAIN, at, Event::WantsAgain { object }),
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

/// What a request for an object is called.
fn request(object: ObjectId) -> u64 {
    u64::from_le_bytes(object.hash[..8].try_into().unwrap())
}

fn key(node: usize) -> u64 {
    let hash = blake3::hash(&node.to_le_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
}
