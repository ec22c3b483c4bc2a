//! What a simulated run is like: how many validators, who lies, and what goes wrong when. All of it follows from a seed.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};

use super::world::Micros;
use crate::validator::wal::Tear;

/// A second of virtual time.
pub const SECOND: Micros = 1_000_000;
/// One way between any two machines, over a WAN.
pub const WAN: Range<Micros> = 40_000..120_000;

/// How a machine ends.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// Between two turns.
    Killed,
    /// Within a turn, at a flush of its write-ahead log.
    Torn(Tear),
    /// Between two turns, and its write-ahead log is lost.
    Robbed,
}

#[derive(Debug, Clone)]
pub struct Crash {
    pub at: Micros,
    pub machine: usize,
    pub end: End,
    pub down_for: Micros,
}

/// No message passes between those whose bit is set and the others.
#[derive(Debug, Clone)]
pub struct Cut {
    pub during: Range<Micros>,
    pub group: u64,
}

/// What the network does to a message.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Share of messages that are lost.
    pub loss: f64,
    /// Share that arrives twice.
    pub twice: f64,
    /// Share that is late by up to two seconds, behind what was sent after it.
    pub late: f64,
}

impl Weather {
    pub const CALM: Self = Self { loss: 0.0, twice: 0.0, late: 0.0 };
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// Machines of honest validators at the founding.
    pub honest: usize,
    /// Validators at the founding that say two things at once. Each is two machines with one key.
    pub liars: usize,
    /// Honest machines that become validators later.
    pub joiners: usize,
    /// Whether the last honest validator of the founding leaves.
    pub leaves: bool,
    /// Whether everybody also fetches blocks as every node does, beside what validators tell each other.
    pub follow: bool,
    pub heartbeat_ms: u64,
    pub epoch_ms: u64,
    /// When faults end. Lies go on.
    pub storm: Micros,
    pub weather: Weather,
    pub crashes: Vec<Crash>,
    pub cuts: Vec<Cut>,
    /// When an entry is submitted.
    pub entries: Vec<Micros>,
    /// How far each machine's clock is off, in milliseconds.
    pub skews: Vec<i64>,
}

impl Plan {
    /// Nothing goes wrong, and nothing is submitted.
    pub fn calm(seed: u64, validators: usize) -> Self {
        Self {
            seed,
            honest: validators,
            liars: 0,
            joiners: 0,
            leaves: false,
            follow: false,
            heartbeat_ms: 86_400_000,
            epoch_ms: 86_400_000,
            storm: 0,
            weather: Weather::CALM,
            crashes: Vec::new(),
            cuts: Vec::new(),
            entries: Vec::new(),
            skews: vec![0; validators],
        }
    }

    /// A storm over four to seven validators, of whom less than a third lie.
    pub fn storm(seed: u64) -> Self {
        // Half of all runs are of four, the smallest set that bears a liar.
        let validators = *[4, 4, 4, 5, 6, 7].choose(&mut StdRng::seed_from_u64(!seed)).unwrap();
        Self::storm_over(seed, validators)
    }

    pub fn storm_over(seed: u64, validators: usize) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        let liars = rng.random_range(0..=(validators - 1) / 3);
        let honest = validators - liars;
        let changes = rng.random_bool(0.25);
        let joiners = if changes { rng.random_range(0..=2) } else { 0 };
        // Who leaves gives its weight to the others: a liar must not come to a third by that.
        let leaves = changes && 3 * liars + 1 < validators && rng.random_bool(0.5);
        let machines = honest + 2 * liars + joiners;
        let storm = rng.random_range(4 * SECOND..16 * SECOND);
        let weather = Weather {
            loss: *[0.0, 0.02, 0.1, 0.3].choose(rng).unwrap(),
            twice: *[0.0, 0.05, 0.2].choose(rng).unwrap(),
            late: *[0.0, 0.05, 0.3].choose(rng).unwrap(),
        };
        let mut crashes: Vec<Crash> =
            (0..rng.random_range(0..=4)).map(|_| crash(rng, honest, storm)).collect();
        // One that is silent for a height is as good as a liar for its progress.
        let robbed = liars == 0 && !crashes.is_empty() && rng.random_bool(0.3);
        if robbed {
            crashes[0].end = End::Robbed;
        }
        let cuts = (0..rng.random_range(0..=2)).map(|_| cut(rng, storm)).collect();
        let entries = (0..rng.random_range(2..=8)).map(|_| rng.random_range(0..storm)).collect();
        Self {
            seed,
            honest,
            liars,
            joiners,
            leaves,
            // Who is no validator yet, or must be silent, hears of blocks in no other way.
            follow: joiners > 0 || leaves || robbed || rng.random_bool(0.5),
            heartbeat_ms: if changes { 1_000 } else { *[2_000, 86_400_000].choose(rng).unwrap() },
            epoch_ms: if changes { 2_000 } else { 86_400_000 },
            storm,
            weather,
            crashes,
            cuts,
            entries,
            skews: (0..machines).map(|_| rng.random_range(-2_000..=2_000)).collect(),
        }
    }

    pub fn machines(&self) -> usize {
        self.honest + 2 * self.liars + self.joiners
    }

    /// Its first random numbers have gone into the plan itself, so the run begins elsewhere.
    pub fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ 0x5eed)
    }
}

fn crash(rng: &mut impl Rng, honest: usize, storm: Micros) -> Crash {
    let end = if rng.random_bool(0.3) {
        End::Killed
    } else {
        // Nothing, a part, or all of what was to be flushed.
        let bytes = *[0, 1, 40, 200, 1_000, usize::MAX].choose(rng).unwrap();
        End::Torn(Tear { after: rng.random_range(0..6), bytes })
    };
    let at = rng.random_range(0..storm);
    Crash { at, machine: rng.random_range(0..honest), end, down_for: rng.random_range(0..5 * SECOND) }
}

fn cut(rng: &mut impl Rng, storm: Micros) -> Cut {
    let start = rng.random_range(0..storm);
    Cut { during: start..rng.random_range(start..=storm), group: rng.random() }
}
