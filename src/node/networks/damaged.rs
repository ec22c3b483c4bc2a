//! Logs whose files are damaged.
//!
//! Owns: what becomes of them. Must not know: what is in them.
//! Invariant: the file of a log that this node may have signed in is left where it is.
//! Trust: none in the file. Threads: the one that opens the logs. A crash leaves the file under its old name or its new one.

use std::sync::PoisonError;

use super::Networks;
use crate::id::Genesis;
use crate::node::off;
use crate::node::{Error, Kind};
use crate::store::LogStore;

impl Networks {
    /// A log could not be opened. That of a follower is set aside, to be fetched again from peers, who can only give the same
    /// one; a validator's may be the only one.
    pub(super) fn not_opened(&self, genesis: Genesis, error: Error) {
        let path = self.log_path(&genesis);
        let wal = self.wal_path(&genesis);
        let has_signed = wal.exists() || wal.with_extension("wal.lock").exists();
        let has_peers =
            self.state.get().peers.get(&genesis.to_string()).is_some_and(|peers| !peers.is_empty());
        if error.kind == Kind::Corrupt && !has_signed && has_peers {
            match off(|| LogStore::set_aside(&path)) {
                Ok(aside) => {
                    let aside = aside.display();
                    tracing::warn!(%genesis, %error, %aside, "the log is damaged, and is fetched again from peers");
                    return;
                }
                Err(error) => tracing::error!(%genesis, %error, "a damaged log cannot be put out of the way"),
            }
        }
        tracing::error!(%genesis, %error, "this network is not served");
        self.unserved.lock().unwrap_or_else(PoisonError::into_inner).insert(genesis, error);
    }

    /// Networks that this node belongs to and whose logs are not here now.
    pub fn absent(&self) -> Vec<Genesis> {
        let facts = self.state.get();
        let known = facts.peers.keys().chain(&facts.default_network).filter_map(|text| text.parse().ok());
        let mut absent: Vec<Genesis> =
            known.chain(self.unserved().into_iter().map(|(genesis, _)| genesis)).collect();
        absent.retain(|genesis| self.registry.get(genesis).is_none());
        absent.sort_unstable();
        absent.dedup();
        absent
    }

    /// Networks that are not served since their logs cannot be opened, and why.
    pub fn unserved(&self) -> Vec<(Genesis, Error)> {
        let unserved = self.unserved.lock().unwrap_or_else(PoisonError::into_inner);
        unserved.iter().map(|(genesis, error)| (*genesis, error.clone())).collect()
    }
}
