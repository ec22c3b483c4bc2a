//! Hashing the whole store again in the background, a little at a time.
//!
//! Owns: the pace, where it goes on after a restart, what was found damaged and could not be repaired.
//! Must not know: how objects are stored or fetched.
//! Invariant: within the time that the settings say everything is read and hashed once, if the node runs; never faster
//! than [`OBJECTS`] in a tick, whatever has to be made up for.
//! Trust: none in the disk. Threads: one task; reading and hashing in blocking sections of it.
//! A crash leaves: the position of the last tick that found something to do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::report::ScrubStatus;
use super::{Node, now_ms, off};
use crate::id::ObjectId;

/// How often is looked whether something is due.
const TICK: Duration = Duration::from_secs(10);
/// The same where all is to be hashed within minutes.
const TICK_MIN: Duration = Duration::from_millis(100);
/// Objects hashed in one tick at most: of 64 KiB each, 1.6 MiB a second.
const OBJECTS: u64 = 256;
/// Damaged objects remembered by name.
const DAMAGED: usize = 1000;

/// How far a round has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Round {
    /// When it began, in milliseconds since 1970; 0 before the first.
    pub began_ms: u64,
    /// Where it goes on among the objects ([`crate::store::Store::verify_from`]); nothing when it is through.
    pub at: Option<u64>,
    pub objects: u64,
    /// When the last whole round ended, in milliseconds since 1970; 0 before.
    pub whole_ms: u64,
}

impl Round {
    /// The round to go on with, and how many objects of `total` are due now, if all are to be hashed `within` a time.
    fn due(self, now_ms: u64, total: u64, within: Duration) -> (Self, u64) {
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1);
        let elapsed = now_ms.saturating_sub(self.began_ms);
        let is_over = self.at.is_none() && elapsed >= within_ms;
        // A clock that was set back would leave it waiting for the old time.
        if self.began_ms == 0 || self.began_ms > now_ms || is_over {
            return (Self { began_ms: now_ms, at: Some(0), objects: 0, ..self }, 0);
        }
        if self.at.is_none() {
            return (self, 0);
        }
        let by_now = u128::from(total.max(1)) * u128::from(elapsed) / u128::from(within_ms);
        // The last ones are due before the end: the walk has to come to it.
        let due = u64::try_from(by_now).unwrap_or(u64::MAX).saturating_add(1).saturating_sub(self.objects);
        (self, due.min(OBJECTS))
    }
}

/// What came of fetching what is damaged.
#[derive(Debug, Default)]
pub(super) struct Repaired {
    pub repaired: Vec<ObjectId>,
    /// What nobody had, and how it is damaged.
    pub left: Vec<(ObjectId, String)>,
}

/// What the scrub of a node has found.
#[derive(Default)]
pub(super) struct Scrub {
    /// What is damaged and was not repaired, how, and whether that was seen in this round.
    damaged: Mutex<BTreeMap<ObjectId, (String, bool)>>,
    repaired: AtomicU64,
}

impl Scrub {
    fn damaged(&self) -> MutexGuard<'_, BTreeMap<ObjectId, (String, bool)>> {
        // Rows come and go one by one.
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what somebody has looked at: what was repaired, and what is damaged and could not be.
    pub fn found(&self, looked: Repaired) {
        self.repaired.fetch_add(looked.repaired.len() as u64, Ordering::Relaxed);
        let mut known = self.damaged();
        for id in &looked.repaired {
            known.remove(id);
        }
        for (id, text) in looked.left {
            if known.len() < DAMAGED || known.contains_key(&id) {
                known.insert(id, (text, true));
            }
        }
    }

    /// The same of who has looked at everything at once.
    pub fn found_all(&self, looked: Repaired) {
        self.damaged().clear();
        self.found(looked);
    }

    /// Everything was looked at: what was not found damaged again is so no more.
    fn round_ends(&self) {
        self.damaged().retain(|_, (_, met)| std::mem::take(met));
    }

    /// How many objects are damaged, and one of them.
    pub fn worst(&self) -> Option<(usize, String)> {
        let known = self.damaged();
        Some((known.len(), known.values().next()?.0.clone()))
    }
}

impl Node {
    /// Goes over the store again and again, until the node stops.
    pub(super) fn scrub_store(self: &Arc<Self>) {
        let Some(within) = self.retention.scrub_in else { return };
        let (node, stop) = (self.clone(), self.stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                tokio::time::sleep(TICK.min(within / 16).max(TICK_MIN)).await;
                if let Err(error) = node.scrub(within).await {
                    tracing::warn!(%error, "the scrub cannot go on");
                }
            }
        }));
    }

    async fn scrub(&self, within: Duration) -> Result<(), Error> {
        let known = self.state.get().scrub;
        let (mut round, due) = known.due(now_ms(), off(|| self.store.stats())?.objects, within);
        if let Some(at) = round.at.filter(|_| due > 0) {
            let scrubbed = off(|| self.store.verify_from(at, due as usize))?;
            (round.at, round.objects) = (scrubbed.next, round.objects + scrubbed.objects);
            self.scrub.found(self.repair(scrubbed.corrupt).await);
            if round.at.is_none() {
                self.scrub.round_ends();
                let store = self.store.clone();
                let whole = tokio::task::spawn_blocking(move || store.verify_blob_files()).await;
                whole.map_err(|panic| {
                    Error::new(super::Kind::Failed, format!("the scrub failed: {panic}"))
                })??;
                round.whole_ms = now_ms();
                tracing::info!(objects = round.objects, "the scrub has gone over the whole store");
            }
        }
        if round != known {
            off(|| self.state.update(|facts| facts.scrub = round))?;
        }
        Ok(())
    }

    pub(super) fn scrub_status(&self) -> ScrubStatus {
        let round = self.state.get().scrub;
        ScrubStatus {
            objects: round.objects,
            whole_unix_ms: Some(round.whole_ms).filter(|time| *time > 0),
            repaired: self.scrub.repaired.load(Ordering::Relaxed),
            damaged: self.scrub.damaged().values().map(|(text, _)| text.clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;
    const WITHIN: Duration = Duration::from_millis(30 * DAY);

    /// A node that looks every so often, over a store of `total` objects. Says how many days the round took.
    fn days(total: u64, every_ms: u64) -> u64 {
        let (mut round, mut now) = (Round::default(), 1000 * DAY);
        let began = now;
        while round.whole_ms == 0 {
            let (next, due) = round.due(now, total, WITHIN);
            round = next;
            round.objects += due;
            if round.objects >= total && due > 0 {
                (round.at, round.whole_ms) = (None, now);
            }
            now += every_ms;
        }
        (now - began) / DAY
    }

    #[test]
    fn a_round_takes_the_time_it_is_given() {
        for total in [1, 50, 10_000] {
            assert!(days(total, 60_000) <= 30, "{total}");
        }
        assert!((28..=30).contains(&days(10_000, 60_000)));
    }

    #[test]
    fn what_has_to_be_made_up_for_is_bounded_and_a_clock_set_back_is_no_harm() {
        let round = Round { began_ms: DAY, at: Some(5), objects: 10, whole_ms: 0 };
        assert_eq!(round.due(400 * DAY, 1_000_000, WITHIN).1, OBJECTS);
        let (again, due) = round.due(DAY / 2, 1_000_000, WITHIN);
        assert_eq!((again.began_ms, again.at, due), (DAY / 2, Some(0), 0));
        let through = Round { at: None, ..round };
        assert_eq!(through.due(20 * DAY, 10, WITHIN), (through, 0), "until its time is over");
        assert_eq!(through.due(32 * DAY, 10, WITHIN).0.at, Some(0));
    }
}
