//! Looking after the replicas of all networks: taking the place of nodes that are lost, and letting go of what is not
//! wanted any more.
//!
//! Owns: when that is looked at. Must not know: whose turn it is (`replicate`).
//! Invariant: what this node has acknowledged in the log is not let go of while the log wants it; of what is withdrawn,
//! only after the time that the settings say.
//! Trust: as `replicas`. Threads: two tasks, on the runtime; what they begin is fetched by that of the pins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::wanted::Wanted;
use super::{Error, concerns};
use crate::chain::Chain;
use crate::id::SnapshotId;
use crate::log::Ledger;
use crate::node::{Node, now_ms, off};
use crate::replicate::Holding;
use crate::store::PinRecord;

/// How often it is looked at most, and at least; in between as often as it takes to notice in time who is lost.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long after a failure that need not pass by itself a replica is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(600);
/// How long what was asked to be held is held for a version that does not come, in milliseconds.
const UNPUBLISHED_MS: u64 = 86_400_000;

/// What a job that brings a replica here is called.
pub(in crate::node) fn subject(snapshot: &SnapshotId) -> String {
    format!("({snapshot})")
}

impl Node {
    /// Looks after replicas, and proves what is held, until the node stops.
    pub(in crate::node) fn tend_replicas(self: &Arc<Self>) {
        let every = (self.replicas.settings.lost_after / 4).clamp(LOOK.0, LOOK.1);
        let (tending, stop) = (self.clone(), self.stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                for chain in tending.networks.all() {
                    if let Err(error) = tending.tend(&chain).await {
                        tracing::warn!(%error, genesis = %chain.genesis(), "replicas could not be looked after");
                    }
                }
                tokio::time::sleep(every).await;
            }
        }));
        // Auditors that do not answer must not keep this node from hearing who is alive.
        let working = self.clone();
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                for chain in working.networks.all() {
                    if let Err(error) = working.work(&chain).await {
                        tracing::warn!(%error, genesis = %chain.genesis(), "what is stored could not be proven");
                    }
                }
                tokio::time::sleep(every).await;
            }
        }));
    }

    async fn tend(self: &Arc<Self>, chain: &Chain) -> Result<(), Error> {
        let wanted = self.replicas.promises.wanted(chain)?;
        let ledger = chain.ledger();
        let me = self.own_first(&ledger);
        let held = self.holdings(&chain.genesis())?;
        if held.is_empty() && !concerns(&me, &ledger, &wanted) {
            self.replicas.surveys().remove(&chain.genesis());
            return Ok(());
        }
        let snapshots: Vec<SnapshotId> = wanted.keys().copied().collect();
        self.survey(chain, &snapshots).await?;
        self.try_again();
        if ledger.storage_nodes().any(|node| *node == me) {
            self.take_over(chain, &ledger, &wanted)?;
        }
        self.let_go(chain, &ledger, &wanted)
    }

    /// Begins to fetch what this node should hold and does not.
    fn take_over(
        self: &Arc<Self>,
        chain: &Chain,
        ledger: &Ledger,
        wanted: &BTreeMap<SnapshotId, Wanted>,
    ) -> Result<(), Error> {
        let (me, lost_after) = (self.own_first(ledger), self.replicas.settings.lost_after);
        let held = self.holdings(&chain.genesis())?;
        for wanted in wanted.values().filter(|wanted| !held.contains_key(&wanted.snapshot)) {
            let seen = match self.replicas.surveys().get(&chain.genesis()) {
                Some(survey) => survey.seen(ledger, &wanted.snapshot, lost_after),
                None => return Ok(()),
            };
            if !wanted.rule().is_for(&me, &seen) {
                continue;
            }
            tracing::info!(
                version = wanted.version,
                held = wanted.rule().held(&seen),
                copies = wanted.copies,
                "this node takes a replica"
            );
            let version = wanted.version.clone();
            if let Err(error) = self.begin_replica(chain.genesis(), wanted.snapshot, version, wanted.bytes) {
                tracing::warn!(version = wanted.version, %error, "this replica cannot be taken");
                continue;
            }
            self.replicas.taken_over.fetch_add(1, Relaxed);
            self.replicas.taken_over_bytes.fetch_add(wanted.bytes, Relaxed);
        }
        Ok(())
    }

    /// Goes on with replicas that could not be brought here some time ago.
    fn try_again(self: &Arc<Self>) {
        let mut trouble = self.replicas.trouble();
        let before = trouble.len();
        trouble.retain(|_, (when, _)| when.elapsed() < TRY_AGAIN);
        let over = trouble.len() < before;
        drop(trouble);
        if over {
            self.resume_pins();
        }
    }

    /// Stops holding what nobody wants any more, or others hold.
    fn let_go(
        self: &Arc<Self>,
        chain: &Chain,
        ledger: &Ledger,
        wanted: &BTreeMap<SnapshotId, Wanted>,
    ) -> Result<(), Error> {
        let pins = off(|| self.store.pins())?;
        let mut any = false;
        for pin in pins.iter().filter(|pin| pin.replica_of == Some(chain.genesis())) {
            let over = match wanted.get(&pin.snapshot) {
                Some(wanted) => self.others_hold(chain, ledger, wanted),
                None => self.is_forgotten(ledger, pin),
            };
            if over {
                tracing::info!(reference = pin.reference, snapshot = %pin.snapshot, "this replica is let go");
                any |= off(|| self.store.remove_pin(pin))?;
            }
        }
        if any {
            self.join_kept_swarms();
            self.resume_pins();
        }
        Ok(())
    }

    fn others_hold(&self, chain: &Chain, ledger: &Ledger, wanted: &Wanted) -> bool {
        let surveys = self.replicas.surveys();
        let Some(survey) = surveys.get(&chain.genesis()) else { return false };
        let mut seen = survey.seen(ledger, &wanted.snapshot, self.replicas.settings.lost_after);
        // Only what was heard counts here.
        seen.retain(|seen| seen.holding == Holding::Whole);
        wanted.rule().may_release(&self.own_first(ledger), &seen)
    }

    /// Of a snapshot that is wanted no more, or not yet: whether its time is over.
    fn is_forgotten(&self, ledger: &Ledger, pin: &PinRecord) -> bool {
        let keep_ms = u64::try_from(self.replicas.settings.keep_withdrawn.as_millis()).unwrap_or(u64::MAX);
        let versions = ledger.datasets().flat_map(|dataset| &dataset.versions);
        let withdrawn = versions.filter(|version| version.snapshot == pin.snapshot).map(|version| {
            // One that is not withdrawn wants no copies, and never did.
            version.yanked.as_ref().map_or(version.published.time_ms, |yanked| yanked.stamp.time_ms)
        });
        match withdrawn.max() {
            Some(time_ms) => now_ms() > time_ms.saturating_add(keep_ms),
            None => now_ms() > pin.pinned_unix_ms.saturating_add(UNPUBLISHED_MS),
        }
    }
}
