//! The world of a run: machines, a network between them, and a clock that jumps from one event to the next.
//!
//! What runs on the machines is `driver::Driver`, as in the product. Nothing here depends on the time of day, on the order
//! of a hash table or on threads: a plan leads to one sequence of events.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::super::{START_MS, network, publish, scratch};
use super::checks::{Broken, Checks};
use super::liar::Lies;
use super::machine::Machine;
use super::plan::{Cut, End, Plan, SECOND, WAN, Weather};
use crate::crypto::{PublicKey, SecretKey, memory};
use crate::log::{Block, Entry, EntryBody, GenesisDoc, Role, RoleChange, RoleSet, ValidatorChange};
use crate::validator::driver::Event;
use crate::validator::wire::Message;
use crate::validator::{Now, ValidatorError};

/// Virtual time since the beginning of a run, in microseconds.
pub type Micros = u64;

/// How long after the storm everything must be decided.
const DEADLINE: Micros = 180 * SECOND;
/// How often a machine asks another for blocks, as in `node::networks`.
const FOLLOW_EVERY: Micros = SECOND;
/// When somebody who waits for an entry submits it again elsewhere.
const TRY_AGAIN: Micros = 10 * SECOND;
/// Numbers of entries that users write with the key of their validator, which writes entries itself with the lowest: those
/// of the product are the time of day.
const LATER: u64 = 1_000_000;
/// Turns of one machine at one moment, after which it is taken to run in circles.
const MAX_TURNS: u32 = 10_000;

enum What {
    Deliver { to: usize, from: PublicKey, message: Rc<Message> },
    Wake { machine: usize, alarm: u64 },
    Crash { machine: usize, end: End },
    Restart { machine: usize },
    Follow { machine: usize },
    Blocks { to: usize, blocks: Vec<Block> },
    Submit { wish: usize },
}

/// An entry that somebody wants in the log.
struct Wish {
    entry: Entry,
    /// The wish that must be granted before.
    after: Option<usize>,
    submitted: Option<Micros>,
    /// When it was acknowledged or refused.
    answered: Option<Micros>,
    refused: Option<String>,
}

/// What came out of a run.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A hash over every message and when it was sent, and every head.
    pub trace: blake3::Hash,
    pub heights: u64,
    pub entries: u64,
    /// Entries that were acknowledged.
    pub answers: usize,
    pub messages: u64,
    /// How long each submission waited for its answer.
    pub waits: Vec<Micros>,
    /// When each height was first decided anywhere.
    pub decided: Vec<Micros>,
    pub jailed: Vec<PublicKey>,
    /// How many vote at the next height.
    pub voters: usize,
}

pub struct World {
    plan: Plan,
    rng: StdRng,
    doc: GenesisDoc,
    pub machines: Vec<Machine>,
    homes: BTreeMap<PublicKey, Vec<usize>>,
    pub checks: Checks,
    lies: Lies,
    weather: Weather,
    queue: BTreeMap<(Micros, u64), What>,
    events: u64,
    now: Micros,
    start: Instant,
    /// One way between a machine and each of those before it.
    delays: Vec<Vec<Micros>>,
    wishes: Vec<Wish>,
    heights: Vec<u64>,
    decided: Vec<Micros>,
    turns: (Micros, u32),
    messages: u64,
    trace: blake3::Hasher,
    _dir: TempDir,
}

/// Runs `plan` until everything is decided or something is broken.
pub fn run(plan: &Plan) -> Result<Outcome, Broken> {
    let _memory = memory::begin();
    let mut world = World::new(plan.clone());
    world.begin()?;
    world.until(|world| world.now >= world.plan.storm, Micros::MAX)?;
    world.heal()?;
    let deadline = world.now + DEADLINE;
    world.until(World::is_done, deadline)?;
    world.end()
}

fn secret(at: usize) -> SecretKey {
    let mut bytes = [0x77; 32];
    bytes[..8].copy_from_slice(&(at as u64).to_le_bytes());
    SecretKey::from_bytes(bytes)
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let mut rng = plan.rng();
        let dir = scratch();
        let founders: Vec<SecretKey> = (0..plan.honest + plan.liars).map(secret).collect();
        let mut doc = network(&founders);
        (doc.params.heartbeat_ms, doc.params.epoch_ms) = (plan.heartbeat_ms, plan.epoch_ms);
        // Nobody's weight may reach a third by what the liars can bring about: admins are honest.
        doc.admins = vec![founders[0].public()];
        let count = plan.machines();
        let machines: Vec<Machine> = (0..count)
            .map(|at| {
                let liar = at.checked_sub(plan.honest).filter(|at| *at < 2 * plan.liars);
                // A joiner's key comes after those of the founders.
                let key = match liar {
                    Some(liar) => secret(plan.honest + liar / 2),
                    None if at < plan.honest => secret(at),
                    None => secret(at + 1_000),
                };
                let wal = PathBuf::from(dir.path()).join(format!("wal{at}"));
                Machine::new(key, liar.is_none(), &doc, wal, plan.skews[at])
            })
            .collect();
        let mut homes: BTreeMap<PublicKey, Vec<usize>> = BTreeMap::new();
        for (at, machine) in machines.iter().enumerate() {
            homes.entry(machine.id).or_default().push(at);
        }
        let delays = (0..count).map(|a| (0..a).map(|_| rng.random_range(WAN)).collect()).collect();
        let checks = Checks::new(machines.iter().filter(|m| m.honest).map(|m| m.id));
        Self {
            weather: plan.weather,
            heights: vec![0; count],
            plan,
            rng,
            doc,
            machines,
            homes,
            checks,
            lies: Lies::default(),
            queue: BTreeMap::new(),
            events: 0,
            now: 0,
            start: Instant::now(),
            delays,
            wishes: Vec::new(),
            decided: Vec::new(),
            turns: (0, 0),
            messages: 0,
            trace: blake3::Hasher::new(),
            _dir: dir,
        }
    }

    /// Starts all machines, and puts what the plan says into the queue.
    pub fn begin(&mut self) -> Result<(), Broken> {
        for at in 0..self.machines.len() {
            self.start(at)?;
        }
        for crash in self.plan.crashes.clone() {
            self.push(crash.at, What::Crash { machine: crash.machine, end: crash.end });
            self.push(crash.at + crash.down_for, What::Restart { machine: crash.machine });
        }
        for at in self.plan.entries.clone() {
            self.wish_to_publish(at);
        }
        let mut allowed = None;
        for joiner in self.machines.len() - self.plan.joiners..self.machines.len() {
            allowed = Some(self.wish_to_join(joiner, allowed));
        }
        if self.plan.leaves {
            let leaver = self.machines[self.plan.honest - 1].secret().clone();
            let leave = EntryBody::Validator(ValidatorChange::Leave);
            let at = self.rng.random_range(0..self.plan.storm);
            self.wish(at, Entry::sign(&leaver, self.doc.id(), LATER, leave), None);
        }
        Ok(())
    }

    fn push(&mut self, at: Micros, what: What) {
        self.events += 1;
        self.queue.insert((at, self.events), what);
    }

    fn now_of(&self, machine: usize) -> Now {
        let unix_ms = START_MS.saturating_add_signed(self.machines[machine].skew_ms) + self.now / 1_000;
        Now { instant: self.start + Duration::from_micros(self.now), unix_ms }
    }

    fn wish(&mut self, at: Micros, entry: Entry, after: Option<usize>) -> usize {
        let wish = self.wishes.len();
        self.wishes.push(Wish { entry, after, submitted: None, answered: None, refused: None });
        self.push(at, What::Submit { wish });
        wish
    }

    /// Somebody new publishes something at `at`.
    pub fn wish_to_publish(&mut self, at: Micros) -> usize {
        let count = self.wishes.len();
        // As many authors as there are, then more versions of each.
        let entry = publish(50 + (count % 200) as u8, &self.doc, 1 + count as u64 / 200);
        self.wish(at, entry, None)
    }

    /// The admin allows a machine to join, after what the admin wishes `before`, and it does.
    fn wish_to_join(&mut self, machine: usize, before: Option<usize>) -> usize {
        let (genesis, admin, joiner) = (self.doc.id(), secret(0), self.machines[machine].secret().clone());
        let allowed = RoleChange { to: joiner.public(), roles: RoleSet::NONE.with(Role::Validator) };
        let nonce = LATER * machine as u64;
        let at = self.rng.random_range(0..self.plan.storm);
        let allowed = self.wish(at, Entry::sign(&admin, genesis, nonce, EntryBody::Role(allowed)), before);
        let join = EntryBody::Validator(ValidatorChange::join(&joiner, genesis, &joiner.public()));
        self.wish(at, Entry::sign(&joiner, genesis, LATER, join), Some(allowed));
        allowed
    }

    /// Lets events happen until `done`; what is not done by `deadline` is an error.
    pub fn until(&mut self, done: impl Fn(&Self) -> bool, deadline: Micros) -> Result<(), Broken> {
        while !done(self) {
            let Some(((at, _), what)) = self.queue.pop_first() else {
                if deadline == Micros::MAX {
                    self.now = self.plan.storm;
                    return Ok(());
                }
                return Err(format!("nothing happens any more at {} s: {}", self.now / SECOND, self.state()));
            };
            if at > deadline {
                return Err(format!("not decided by {} s: {}", deadline / SECOND, self.state()));
            }
            self.now = at;
            self.happen(what)?;
        }
        Ok(())
    }

    fn state(&self) -> String {
        let open: Vec<usize> =
            (0..self.wishes.len()).filter(|at| self.wishes[*at].answered.is_none()).collect();
        format!("heights {:?}, no answer to {open:?}, plan {:?}", self.heights, self.plan)
    }

    fn happen(&mut self, what: What) -> Result<(), Broken> {
        match what {
            What::Deliver { to, from, message } => {
                let hears = self.machines[to].chain.ledger().validators().get(&from).is_some();
                if !hears || !self.machines[to].up {
                    return Ok(());
                }
                if !self.machines[to].honest {
                    self.lies.hear(&message, &mut self.rng);
                }
                self.turn(to, vec![Event::Message(from, (*message).clone())])
            }
            What::Wake { machine, alarm } if alarm == self.machines[machine].alarm => {
                self.turn(machine, Vec::new())
            }
            What::Wake { .. } => Ok(()),
            What::Crash { machine, end } => {
                if self.machines[machine].up {
                    self.machines[machine].doom(end);
                }
                Ok(())
            }
            What::Restart { machine } => {
                // A crash that was to come at a flush has not, if there was none.
                self.machines[machine].crash();
                self.start(machine)
            }
            What::Follow { machine } => self.follow(machine),
            What::Blocks { to, blocks } => self.take(to, blocks),
            What::Submit { wish } => self.submit(wish),
        }
    }

    fn start(&mut self, at: usize) -> Result<(), Broken> {
        self.machines[at].up = true;
        if self.plan.follow {
            let at_once = self.now + self.rng.random_range(0..FOLLOW_EVERY);
            self.push(at_once, What::Follow { machine: at });
        }
        self.decide(at)
    }

    /// Opens the driver of a machine that is a validator.
    fn decide(&mut self, at: usize) -> Result<(), Broken> {
        if !self.machines[at].is_member() || self.machines[at].decides() {
            return Ok(());
        }
        let now = self.now_of(at);
        self.machines[at].open(now).map_err(|error| format!("machine {at} does not open: {error}"))?;
        self.after_turn(at, true)
    }

    fn turn(&mut self, at: usize, events: Vec<Event>) -> Result<(), Broken> {
        let now = self.now_of(at);
        self.turns = if self.turns.0 == self.now { (self.now, self.turns.1 + 1) } else { (self.now, 1) };
        if self.turns.1 > MAX_TURNS {
            return Err(format!("machine {at} runs in circles at {} µs", self.now));
        }
        let survived = self.machines[at].turn(events, now);
        let survived = survived.map_err(|error| format!("machine {at} stopped: {error}"))?;
        self.after_turn(at, survived)
    }

    fn after_turn(&mut self, at: usize, survived: bool) -> Result<(), Broken> {
        while let Some((to, bytes)) = self.machines[at].sent() {
            self.carry(at, to, &bytes)?;
        }
        self.note_head(at)?;
        if !survived {
            self.machines[at].crash();
            return Ok(());
        }
        self.take_answers(at);
        let now = self.now_of(at);
        self.machines[at].alarm += 1;
        if let Some(idle) = self.machines[at].idle_for(now) {
            let micros = idle.as_nanos().div_ceil(1_000).min(u128::from(u64::MAX / 4)) as Micros;
            let alarm = self.machines[at].alarm;
            self.push(self.now + micros, What::Wake { machine: at, alarm });
        }
        Ok(())
    }

    fn note_head(&mut self, at: usize) -> Result<(), Broken> {
        let ledger = self.machines[at].chain.ledger();
        let (height, Some(id)) = (ledger.height(), ledger.head_id()) else { return Ok(()) };
        if height == self.heights[at] {
            return Ok(());
        }
        self.heights[at] = height;
        if self.decided.len() < height as usize {
            self.decided.resize(height as usize, self.now);
        }
        self.trace.update(&self.now.to_le_bytes());
        self.trace.update(id.as_bytes());
        self.checks.decided(height, id)
    }

    fn take_answers(&mut self, at: usize) {
        let mut waiting = std::mem::take(&mut self.machines[at].awaited);
        waiting.retain_mut(|(wish, answer)| {
            let wish = &mut self.wishes[*wish];
            match answer.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return true,
                Ok(Ok(committed)) => {
                    self.checks.acknowledged(committed);
                    wish.answered.get_or_insert(self.now);
                }
                // What builds on another wish may have come to a machine that has not seen that one granted yet.
                Ok(Err(ValidatorError::Refused(refusal))) => {
                    if wish.answered.is_none() && wish.after.is_none() {
                        wish.refused = Some(refusal.to_string());
                        wish.answered = Some(self.now);
                    }
                }
                // Busy, no validator, or gone: it is submitted again elsewhere.
                Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => {}
            }
            false
        });
        self.machines[at].awaited = waiting;
    }

    /// Sends what a driver has let out to whom it is for.
    fn carry(&mut self, at: usize, to: Option<PublicKey>, bytes: &[u8]) -> Result<(), Broken> {
        let message = Rc::new(Message::decode(bytes).map_err(|error| format!("sent junk: {error}"))?);
        self.trace.update(&self.now.to_le_bytes());
        self.trace.update(&at.to_le_bytes());
        self.trace.update(bytes);
        if self.machines[at].honest {
            self.checks.said(&message)?;
        }
        let set = self.machines[at].chain.ledger().validators().clone();
        let me = self.machines[at].id;
        let others = set.members().iter().map(|member| member.key);
        let wanted: Vec<PublicKey> =
            others.filter(|key| *key != me && to.is_none_or(|to| to == *key)).collect();
        let opposite = match self.machines[at].honest {
            true => None,
            false => self.lies.contradict(&self.machines[at], &message, &mut self.rng).map(Rc::new),
        };
        for key in wanted {
            for home in self.homes.get(&key).cloned().unwrap_or_default() {
                // A block that does not execute could only be decided if everybody had it.
                let told = |lie: &Rc<Message>| matches!(**lie, Message::Proposal { .. });
                let lie = opposite.clone().filter(|lie| told(lie) || self.rng.random_bool(0.5));
                self.send(at, home, lie.unwrap_or_else(|| message.clone()));
                if !self.machines[at].honest && self.rng.random_bool(0.05) {
                    let said = self.lies.again(&mut self.rng);
                    said.into_iter().for_each(|said| self.send(at, home, said));
                }
            }
        }
        Ok(())
    }

    fn delay(&self, a: usize, b: usize) -> Micros {
        self.delays[a.max(b)][a.min(b)]
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        let apart = |cut: &Cut| {
            cut.during.contains(&self.now) && (cut.group >> (a % 64) & 1) != (cut.group >> (b % 64) & 1)
        };
        self.plan.cuts.iter().any(apart)
    }

    fn send(&mut self, at: usize, to: usize, message: Rc<Message>) {
        self.messages += 1;
        let twin = if !self.machines[at].honest {
            Some((at, to))
        } else {
            (!self.machines[to].honest).then_some((to, at))
        };
        let touch = twin.is_none_or(|(twin, other)| self.lies.pass(twin, other, self.now, &mut self.rng));
        if !touch || self.is_cut(at, to) || self.chance(self.weather.loss) {
            return;
        }
        let from = self.machines[at].id;
        let copies = if self.chance(self.weather.twice) { 2 } else { 1 };
        for _ in 0..copies {
            let base = self.delay(at, to);
            let jitter = self.rng.random_range(0..=base / 10);
            let late = if self.chance(self.weather.late) { self.rng.random_range(0..2 * SECOND) } else { 0 };
            let message = message.clone();
            self.push(self.now + base + jitter + late, What::Deliver { to, from, message });
        }
    }

    fn chance(&mut self, of: f64) -> bool {
        of > 0.0 && self.rng.random_bool(of)
    }

    fn follow(&mut self, at: usize) -> Result<(), Broken> {
        if !self.machines[at].up {
            return Ok(());
        }
        self.push(self.now + FOLLOW_EVERY, What::Follow { machine: at });
        let other = self.rng.random_range(0..self.machines.len());
        if other == at || !self.machines[other].up || self.is_cut(at, other) || self.chance(self.weather.loss)
        {
            return Ok(());
        }
        let from = self.machines[at].chain.ledger().height() + 1;
        let bytes = self.machines[other].chain.blocks(from, 1 << 20).map_err(|error| error.to_string())?;
        if !bytes.is_empty() {
            let blocks = bytes.iter().map(|bytes| Block::decode(bytes).unwrap()).collect();
            let there_and_back = 2 * self.delay(at, other);
            self.push(self.now + there_and_back, What::Blocks { to: at, blocks });
        }
        Ok(())
    }

    fn take(&mut self, at: usize, blocks: Vec<Block>) -> Result<(), Broken> {
        if !self.machines[at].up {
            return Ok(());
        }
        for block in blocks {
            let committed = self.machines[at].chain.commit(block);
            committed.map_err(|error| format!("machine {at} refuses a decided block: {error}"))?;
            self.note_head(at)?;
        }
        self.decide(at)?;
        self.turn(at, Vec::new())
    }

    fn submit(&mut self, wish: usize) -> Result<(), Broken> {
        let Wish { entry, after, answered, .. } = &self.wishes[wish];
        if answered.is_some() {
            return Ok(());
        }
        if after.is_some_and(|after| self.wishes[after].answered.is_none()) {
            self.push(self.now + SECOND, What::Submit { wish });
            return Ok(());
        }
        let able: Vec<usize> = (0..self.machines.len())
            .filter(|at| self.machines[*at].honest && self.machines[*at].decides())
            .collect();
        let entry = Box::new(entry.clone());
        self.push(self.now + TRY_AGAIN, What::Submit { wish });
        let Some(at) = able.choose(&mut self.rng).copied() else { return Ok(()) };
        self.wishes[wish].submitted.get_or_insert(self.now);
        let (reply, answer) = oneshot::channel();
        self.machines[at].awaited.push((wish, answer));
        self.turn(at, vec![Event::Submit(entry, reply)])
    }

    /// Ends all faults, and wishes for one more entry from everybody.
    fn heal(&mut self) -> Result<(), Broken> {
        self.weather = Weather { loss: 0.0, ..self.weather };
        self.plan.cuts.clear();
        self.queue.retain(|_, what| !matches!(what, What::Crash { .. } | What::Restart { .. }));
        for at in 0..self.plan.honest {
            self.machines[at].spare();
            if !self.machines[at].up {
                self.start(at)?;
            }
        }
        for _ in 0..self.plan.honest {
            let soon = self.now + self.rng.random_range(0..SECOND);
            self.wish_to_publish(soon);
        }
        Ok(())
    }

    /// Whether all wishes are granted, and all honest machines know of it.
    fn is_done(&self) -> bool {
        let told = self.wishes.iter().all(|wish| wish.answered.is_some());
        let highest = self.heights.iter().max();
        // With heartbeats somebody is always a height ahead.
        let level = |at: usize| self.heights[at] + 2 > *highest.unwrap();
        told && (0..self.machines.len()).filter(|at| self.machines[*at].honest).all(level)
    }

    fn end(mut self) -> Result<Outcome, Broken> {
        let places = self.checks.finally(&self.doc, &self.machines)?;
        // What was submitted again after its answer was lost may be refused the second time, but not for nothing.
        let denied = |wish: &&Wish| wish.refused.is_some() && !places.contains_key(&wish.entry.id());
        if let Some(wish) = self.wishes.iter().find(denied) {
            return Err(format!("an entry was refused: {:?}; {}", wish.refused, self.state()));
        }
        let longest = self.machines.iter().max_by_key(|machine| machine.chain.ledger().height()).unwrap();
        let ledger = longest.chain.ledger();
        self.trace.update(&ledger.entries().to_le_bytes());
        let wait = |wish: &Wish| Some(wish.answered? - wish.submitted?);
        let mut jailed: Vec<PublicKey> = self.homes.keys().copied().collect();
        jailed.retain(|key| ledger.voter(key).is_some_and(|voter| voter.jailed.is_some()));
        Ok(Outcome {
            trace: self.trace.finalize(),
            heights: ledger.height(),
            entries: ledger.entries(),
            answers: self.checks.answers(),
            messages: self.messages,
            waits: self.wishes.iter().filter_map(wait).collect(),
            decided: self.decided,
            jailed,
            voters: ledger.validators().members().len(),
        })
    }
}
