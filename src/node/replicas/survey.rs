//! What the storage nodes of a network say that they hold.
//!
//! Owns: asking them, and how long an answer counts.
//! Must not know: what follows from it.
//! Invariant: a node is lost only after it has been silent for as long as the settings say, and this node has been asking.
//! Trust: answers are claims. Threads: the runtime.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::Error;
use crate::chain::Chain;
use crate::crypto::PublicKey;
use crate::id::SnapshotId;
use crate::log::Ledger;
use crate::net::{MAX_SNAPSHOTS, Net, ReplicaAnswer, ReplicaRequest};
use crate::node::Node;
use crate::replicate::{Holding, Seen};

/// What a storage node said last.
#[derive(Debug, Clone)]
pub(super) struct Said {
    at: Instant,
    pub free: u64,
    pub zone: String,
    holds: BTreeMap<SnapshotId, Holding>,
}

/// What the storage nodes of one network said last, by the first keys of their identities.
#[derive(Debug)]
pub(super) struct Survey {
    begun: Instant,
    said: BTreeMap<PublicKey, Said>,
}

impl Default for Survey {
    fn default() -> Self {
        Self { begun: Instant::now(), said: BTreeMap::new() }
    }
}

impl Survey {
    /// Whether a node has answered within this time.
    pub fn has_answered(&self, node: &PublicKey, within: Duration) -> bool {
        self.said.get(node).is_some_and(|said| said.at.elapsed() <= within)
    }

    /// All storage nodes with respect to one snapshot. One that has not been heard is alive until it had its time.
    pub fn seen(&self, ledger: &Ledger, snapshot: &SnapshotId, lost_after: Duration) -> Vec<Seen> {
        let seen = |node: &PublicKey| {
            let said = self.said.get(node);
            let since = said.map_or(self.begun, |said| said.at);
            let holding = said.and_then(|said| said.holds.get(snapshot)).copied();
            Seen {
                node: *node,
                alive: since.elapsed() <= lost_after,
                free: said.map_or(0, |said| said.free),
                holding: holding.unwrap_or(Holding::Nothing),
            }
        };
        ledger.storage_nodes().map(seen).collect()
    }
}

impl Node {
    /// What one storage node, given by the key that it goes by to its peers, says of these snapshots.
    pub(super) async fn ask_state(
        &self,
        chain: &Chain,
        key: &PublicKey,
        snapshots: &[SnapshotId],
    ) -> Result<Said, Error> {
        let peer = Net::peer_of(key).unwrap_or_default();
        let mut said = Said { at: Instant::now(), free: 0, zone: String::new(), holds: BTreeMap::new() };
        // At least once, also about nothing.
        let parts = snapshots.chunks(MAX_SNAPSHOTS).chain(snapshots.is_empty().then_some(snapshots));
        for part in parts {
            let request = ReplicaRequest::State { genesis: chain.genesis(), snapshots: part.to_vec() };
            match self.net.ask_about_replicas(&peer, &request).await? {
                ReplicaAnswer::State { free, zone, holds } => {
                    (said.free, said.zone) = (free, zone);
                    said.holds.extend(part.iter().copied().zip(holds));
                }
                answer => return Err(super::acknowledging::unwilling(&peer, answer)),
            }
        }
        said.at = Instant::now();
        Ok(said)
    }

    /// Asks all storage nodes of a network, this one without a peer, and notes what they say.
    pub(super) async fn survey(&self, chain: &Chain, snapshots: &[SnapshotId]) -> Result<(), Error> {
        let ledger = chain.ledger();
        let me = self.own_first(&ledger);
        let others: Vec<PublicKey> = ledger.storage_nodes().filter(|node| **node != me).copied().collect();
        let asked = others.iter().map(|node| {
            let key = ledger.current(node);
            async move { (*node, self.ask_state(chain, &key, snapshots).await) }
        });
        let said = join_all(asked).await;
        let mine = Said {
            at: Instant::now(),
            free: self.room_for_replicas()?,
            zone: self.replicas.settings.zone.clone(),
            holds: self.holdings(&chain.genesis())?,
        };
        let mut surveys = self.replicas.surveys();
        let survey = surveys.entry(chain.genesis()).or_default();
        survey.said.retain(|node, _| ledger.storage_nodes().any(|known| known == node));
        if ledger.storage_nodes().any(|node| *node == me) {
            survey.said.insert(me, mine);
        }
        for (node, said) in said {
            match said {
                Ok(said) => _ = survey.said.insert(node, said),
                Err(error) => tracing::debug!(%node, %error, "a storage node does not answer"),
            }
        }
        Ok(())
    }
}
