//! Copies of what the log says must be stored: on this node for others, and of what this node published on others.
//!
//! Owns: what this node knows of storage nodes, what peers may ask of it, and what `status` shows of replicas.
//! Must not know: where copies go (`replicate`), how objects are fetched and held (`pins`), or what is in them.
//! Invariant: what this node has acknowledged is on its disk for good, and stays there until the log no longer wants it.
//! Trust: who asks for something to be held must be allowed to publish it; what nodes say of themselves decides where
//! copies go, and no copy is given up on the word of one.
//! Threads: tasks of the runtime. A crash leaves pins of replicas that are not whole, which the next start goes on with.

mod acknowledging;
mod serving;
mod survey;
mod tending;
mod wanted;
mod work;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::error::Error;
use super::report::{Ack, ReplicaStatus, UnderReplicated};
use super::{Node, off};
use crate::chain::Chain;
use crate::config;
use crate::crypto::PublicKey;
use crate::id::{Genesis, SnapshotId};
use crate::log::Ledger;
use crate::replicate::Holding;
pub(super) use acknowledging::Subject;
pub(super) use tending::subject;

use survey::Survey;
use wanted::{Promises, Wanted};

/// What this node knows about replicas.
pub(super) struct Replicas {
    settings: config::Replicas,
    /// What storage nodes have last said, by network.
    surveys: Mutex<BTreeMap<Genesis, Survey>>,
    promises: Promises,
    /// When and why a replica could not be brought here.
    trouble: Mutex<BTreeMap<SnapshotId, (Instant, String)>>,
    taken_over: AtomicU64,
    taken_over_bytes: AtomicU64,
}

impl Replicas {
    pub fn new(settings: config::Replicas) -> Self {
        Self {
            settings,
            surveys: Mutex::default(),
            promises: Promises::default(),
            trouble: Mutex::default(),
            taken_over: AtomicU64::default(),
            taken_over_bytes: AtomicU64::default(),
        }
    }

    fn surveys(&self) -> MutexGuard<'_, BTreeMap<Genesis, Survey>> {
        // What one node said is replaced as a whole.
        self.surveys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how bringing a replica here ended: with why it failed, or well.
    pub(super) fn ended(&self, snapshot: SnapshotId, failed: Option<Error>) {
        match failed {
            Some(error) => _ = self.trouble().insert(snapshot, (Instant::now(), error.message)),
            None => _ = self.trouble().remove(&snapshot),
        }
    }

    fn trouble(&self) -> MutexGuard<'_, BTreeMap<SnapshotId, (Instant, String)>> {
        // One entry is changed at a time.
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// The first key of this node's identity in a network.
    fn own_first(&self, ledger: &Ledger) -> PublicKey {
        ledger.first_of(&self.keys.author(ledger).public())
    }

    /// What this node holds for a network.
    fn holdings(&self, genesis: &Genesis) -> Result<BTreeMap<SnapshotId, Holding>, Error> {
        let pins = off(|| self.store.pins())?;
        let replicas = pins.into_iter().filter(|pin| pin.replica_of == Some(*genesis));
        let holding = |whole| if whole { Holding::Whole } else { Holding::Coming };
        Ok(replicas.map(|pin| (pin.snapshot, holding(pin.whole))).collect())
    }

    /// The replicas of all networks with which this node has anything to do in that respect.
    pub(super) fn replica_status(&self) -> Result<Vec<ReplicaStatus>, Error> {
        self.networks.all().iter().filter_map(|chain| self.replicas_of(chain).transpose()).collect()
    }

    fn replicas_of(&self, chain: &Chain) -> Result<Option<ReplicaStatus>, Error> {
        use std::sync::atomic::Ordering::Relaxed;
        let (ledger, genesis) = (chain.ledger(), chain.genesis());
        let pins = off(|| self.store.pins())?;
        let here: Vec<_> = pins.iter().filter(|pin| pin.whole && pin.replica_of == Some(genesis)).collect();
        let wanted = self.replicas.promises.wanted(chain)?;
        let surveys = self.replicas.surveys();
        let Some(survey) = surveys.get(&genesis) else { return Ok(None) };
        let lost_after = self.replicas.settings.lost_after;
        let under = wanted.values().filter_map(|wanted| {
            let seen = survey.seen(&ledger, &wanted.snapshot, lost_after);
            let held = wanted.rule().held(&seen);
            let coming = seen.iter().filter(|seen| seen.alive && seen.holding == Holding::Coming).count();
            (held < wanted.copies).then(|| UnderReplicated {
                version: wanted.version.clone(),
                bytes: wanted.bytes,
                copies: wanted.copies,
                held,
                coming,
            })
        });
        Ok(Some(ReplicaStatus {
            nodes: ledger.storage_nodes().count(),
            alive: ledger.storage_nodes().filter(|node| survey.has_answered(node, lost_after)).count(),
            versions: wanted.len(),
            under: under.collect(),
            here: here.len(),
            here_bytes: here.iter().map(|pin| pin.bytes).sum(),
            taken_over: self.replicas.taken_over.load(Relaxed),
            taken_over_bytes: self.replicas.taken_over_bytes.load(Relaxed),
            genesis: genesis.to_string(),
        }))
    }
}

/// Whether this is a version that this node's identity published, or one that it stores: what it looks after.
fn concerns(me: &PublicKey, ledger: &Ledger, wanted: &BTreeMap<SnapshotId, Wanted>) -> bool {
    ledger.storage_nodes().any(|node| node == me) || wanted.values().any(|wanted| wanted.owner == *me)
}
