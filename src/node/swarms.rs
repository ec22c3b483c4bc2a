//! The swarms that this node is in.
//!
//! Owns: which snapshots it announces as long as it keeps them, and the guards of those.
//! Must not know: how members are found.
//! Invariant: what is published or pinned here is announced; a mount or a prefetch is while it lasts.
//! Trust: our own store. Threads: the runtime; the list of snapshots is read in a blocking section.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Node, off};
use crate::id::{SnapshotId, SwarmId};
use crate::net::SwarmGuard;
use crate::store::StoreError;

/// Guards of the swarms of all that this node keeps.
#[derive(Default)]
pub(super) struct Kept(Mutex<BTreeMap<SnapshotId, SwarmGuard>>);

impl Node {
    /// Is in the swarm of a snapshot until the guard is dropped.
    pub(super) fn join_swarm(&self, snapshot: &SnapshotId) -> SwarmGuard {
        self.net.join_swarm(SwarmId::new(snapshot, None))
    }

    /// Is in the swarms of what is published or pinned here now, and no longer in those of what was.
    pub(super) fn join_kept_swarms(&self) {
        let kept = off(|| {
            let published = self.store.snapshots()?.into_iter().map(|record| record.id);
            let pinned = self.store.pins()?.into_iter().map(|pin| pin.snapshot);
            Ok::<Vec<SnapshotId>, StoreError>(published.chain(pinned).collect())
        });
        let kept = match kept {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(%error, "what is kept here cannot be read, and may not be found by other nodes");
                return;
            }
        };
        // A panic leaves a guard too few or too many, which the next call mends.
        let mut guards = self.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        guards.retain(|snapshot, _| kept.contains(snapshot));
        for snapshot in kept {
            guards.entry(snapshot).or_insert_with(|| self.join_swarm(&snapshot));
        }
    }
}
