//! What peers may ask of this node as a storage node, and as an auditor.
//!
//! Owns: who is answered, and what. Must not know: how a snapshot is fetched or held.
//! Invariant: an acknowledgement is signed only when all of the snapshot is held on disk; an audit only when this node's
//! own copy of the chunk gives the same answer.
//! Trust: peers have proven their keys; what they may ask for is what the log lets them do. What they say of a snapshot
//! is not believed: it is counted when it is fetched.
//! Threads: one task takes the calls, each is answered in a task of its own; there are as many as `net` lets in.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::chain::Chain;
use crate::crypto::PublicKey;
use crate::id::{Genesis, SnapshotId};
use crate::log::storage::Answered;
use crate::log::{Audit, Label, Name, Replica, Role};
use crate::net::{ReplicaAnswer, ReplicaCall, ReplicaRequest};
use crate::node::error::Error;
use crate::node::{Node, now_ms, off};
use crate::replicate::Holding;
use crate::store::{Options, PinRecord};

/// How long the newest blocks are waited for before somebody is refused.
const CATCH_UP: Duration = Duration::from_secs(5);

impl Node {
    /// Answers what peers ask about replicas, until the node stops.
    pub(in crate::node) fn answer_about_replicas(self: &Arc<Self>, mut calls: mpsc::Receiver<ReplicaCall>) {
        let (node, stop) = (self.clone(), self.stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Some(call) = calls.recv().await {
                let node = node.clone();
                tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                    let answer = node.answer_call(&call.from, call.request).await;
                    let answer = answer.unwrap_or_else(|error| {
                        tracing::warn!(%error, "a request about replicas could not be answered");
                        ReplicaAnswer::failed(&"it could not be done there; its log says why")
                    });
                    // Whoever went away asks again.
                    let _ = call.reply.send(answer);
                }));
            }
        }));
    }

    async fn answer_call(
        self: &Arc<Self>,
        from: &PublicKey,
        request: ReplicaRequest,
    ) -> Result<ReplicaAnswer, Error> {
        let (ReplicaRequest::State { genesis, .. }
        | ReplicaRequest::Keep { genesis, .. }
        | ReplicaRequest::Audit { genesis, .. }) = &request;
        let chain = self.networks.get(genesis).filter(|chain| chain.ledger().admits(from));
        let Some(chain) = chain else {
            return Ok(ReplicaAnswer::refused(&"this network is not followed there"));
        };
        let answer = self.answer_by_log(&chain, from, &request).await?;
        let (ReplicaAnswer::Refused { .. } | ReplicaAnswer::Failed { .. }) = answer else {
            return Ok(answer);
        };
        // Whoever asks may know of something that was decided a moment ago.
        let height = chain.ledger().height();
        let caught_up = tokio::time::timeout(CATCH_UP, self.networks.catch_up(&chain)).await;
        if !matches!(caught_up, Ok(Ok(()))) || chain.ledger().height() == height {
            return Ok(answer);
        }
        self.answer_by_log(&chain, from, &request).await
    }

    /// As the log is known here.
    async fn answer_by_log(
        self: &Arc<Self>,
        chain: &Chain,
        from: &PublicKey,
        request: &ReplicaRequest,
    ) -> Result<ReplicaAnswer, Error> {
        match request {
            ReplicaRequest::State { genesis, snapshots } => self.state_of_replicas(genesis, snapshots),
            ReplicaRequest::Keep { name, version, snapshot, bytes, .. } => {
                self.keep_for(chain, from, (name, version), (*snapshot, *bytes))
            }
            ReplicaRequest::Audit { answered, .. } => self.audit(chain, from, answered).await,
        }
    }

    fn state_of_replicas(&self, genesis: &Genesis, snapshots: &[SnapshotId]) -> Result<ReplicaAnswer, Error> {
        let held = self.holdings(genesis)?;
        let holding = |snapshot| held.get(snapshot).copied().unwrap_or(Holding::Nothing);
        Ok(ReplicaAnswer::State {
            free: self.room_for_replicas()?,
            zone: self.replicas.settings.zone.clone(),
            holds: snapshots.iter().map(holding).collect(),
        })
    }

    /// Bytes that may still be pinned, and that are free on the disk.
    pub(super) fn room_for_replicas(&self) -> Result<u64, Error> {
        let stats = off(|| self.store.stats())?;
        let max = Options { cache_max_bytes: stats.cache_max_bytes }.pins_max_bytes();
        Ok(max.saturating_sub(stats.pinned_bytes))
    }

    fn keep_for(
        self: &Arc<Self>,
        chain: &Chain,
        from: &PublicKey,
        (name, version): (&Name, &Label),
        (snapshot, bytes): (SnapshotId, u64),
    ) -> Result<ReplicaAnswer, Error> {
        let ledger = chain.ledger();
        let me = self.own_first(&ledger);
        if !ledger.storage_nodes().any(|node| *node == me) {
            return Ok(ReplicaAnswer::refused(&"that node has not the role storage"));
        }
        if !ledger.allows(name.as_str(), &ledger.current(&ledger.first_of(from)), Role::Publisher) {
            return Ok(ReplicaAnswer::refused(&format!("{from} may not publish {name}")));
        }
        let genesis = chain.genesis();
        match self.holdings(&genesis)?.get(&snapshot) {
            Some(Holding::Whole) => {
                let replica = Replica::sign(&self.keys.author(&ledger), genesis, snapshot);
                return Ok(ReplicaAnswer::Kept { replica });
            }
            Some(_) => {}
            None => {
                let room = self.room_for_replicas()?;
                if bytes > room {
                    let cause = format!("there is room for {room} bytes, and it has {bytes}");
                    return Ok(ReplicaAnswer::refused(&cause));
                }
                self.begin_replica(genesis, snapshot, format!("{name}@{version}"), bytes)?;
            }
        }
        if let Some((_, cause)) = self.replicas.trouble().get(&snapshot) {
            return Ok(ReplicaAnswer::failed(cause));
        }
        Ok(ReplicaAnswer::Coming { bytes: self.come_of(&snapshot) })
    }

    /// Begins to fetch a snapshot and to hold it for a network.
    pub(super) fn begin_replica(
        self: &Arc<Self>,
        genesis: Genesis,
        snapshot: SnapshotId,
        reference: String,
        bytes: u64,
    ) -> Result<(), Error> {
        let record = PinRecord {
            snapshot,
            paths: Vec::new(),
            reference,
            whole: false,
            bytes,
            files: 0,
            pinned_unix_ms: now_ms(),
            replica_of: Some(genesis),
        };
        off(|| self.store.set_pin(&record))?;
        self.join_kept_swarms();
        self.resume_pins();
        Ok(())
    }

    /// Bytes of a replica that have come since its fetching was begun or gone on with.
    fn come_of(&self, snapshot: &SnapshotId) -> u64 {
        let subject = super::tending::subject(snapshot);
        let jobs = self.transfers.list();
        jobs.iter().find(|job| job.subject.ends_with(&subject)).map_or(0, |job| job.bytes_done)
    }

    /// Confirms an answer to a challenge, if this node is asked to and finds it right.
    async fn audit(
        &self,
        chain: &Chain,
        from: &PublicKey,
        answered: &Answered,
    ) -> Result<ReplicaAnswer, Error> {
        let ledger = chain.ledger();
        let (me, prover) = (self.own_first(&ledger), ledger.first_of(from));
        let open = ledger.open_challenges(&ledger.current(&prover));
        let Some(open) = open.into_iter().find(|open| open.snapshot == answered.snapshot) else {
            return Ok(ReplicaAnswer::failed(&"no such challenge is open there"));
        };
        if !open.auditors.contains(&me) {
            return Ok(ReplicaAnswer::refused(&"that node is no auditor of it"));
        }
        let own = match self.answer_to(chain, &open, false).await? {
            Some(own) => own,
            None => return Ok(ReplicaAnswer::failed(&"the chunk is not there")),
        };
        if own != *answered {
            return Ok(ReplicaAnswer::refused(&"the answer is wrong"));
        }
        let audit = Audit::sign(&self.keys.author(&ledger), chain.genesis(), &prover, answered);
        Ok(ReplicaAnswer::Audited { audit })
    }
}
