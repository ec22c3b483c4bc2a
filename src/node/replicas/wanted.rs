//! What a log says must be on storage nodes.
//!
//! Owns: the list of it, and what publishers' entries say beyond what the state of the log keeps.
//! Must not know: who holds what.
//! Invariant: a version that was withdrawn is wanted no more. Trust: the log, whose entries were checked.
//! Threads: any; entries are read from the disk once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use crate::chain::Chain;
use crate::crypto::PublicKey;
use crate::id::{EntryId, Genesis, SnapshotId};
use crate::log::{Dataset, EntryBody, Label, Ledger, Name, Version};
use crate::node::off;
use crate::replicate;

/// A snapshot that is to be on storage nodes.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub snapshot: SnapshotId,
    /// `NAME@VERSION`; of several the first by name.
    pub version: String,
    pub name: Name,
    pub label: Label,
    pub bytes: u64,
    pub copies: usize,
    /// The dataset's owner, and who has acknowledged it, by the first keys of their identities.
    pub owner: PublicKey,
    pub acknowledged: Vec<PublicKey>,
}

impl Wanted {
    pub fn rule(&self) -> replicate::Wanted<'_> {
        replicate::Wanted {
            snapshot: self.snapshot,
            bytes: self.bytes,
            copies: self.copies,
            acknowledged: &self.acknowledged,
        }
    }
}

/// What one entry promised: copies, and the keys that had acknowledged.
type Promise = (usize, Vec<PublicKey>);

/// All that a log wants to be on storage nodes, by snapshot.
pub(super) type AllWanted = Arc<BTreeMap<SnapshotId, Wanted>>;

/// What the entries of versions say of replicas, as they were read, and what that amounts to.
#[derive(Default)]
pub(super) struct Promises {
    entries: Mutex<HashMap<EntryId, Promise>>,
    /// Of each network, as of a height: it is asked for every few seconds.
    lists: Mutex<BTreeMap<Genesis, (u64, AllWanted)>>,
}

impl Promises {
    /// All that a log wants to be on storage nodes, by snapshot.
    pub fn wanted(&self, chain: &Chain) -> Result<AllWanted, Error> {
        let ledger = chain.ledger();
        let lists = || self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((height, list)) = lists().get(&chain.genesis())
            && *height == ledger.height()
        {
            return Ok(list.clone());
        }
        let list = Arc::new(self.list(chain, &ledger)?);
        lists().insert(chain.genesis(), (ledger.height(), list.clone()));
        Ok(list)
    }

    fn list(&self, chain: &Chain, ledger: &Ledger) -> Result<BTreeMap<SnapshotId, Wanted>, Error> {
        let mut all: BTreeMap<SnapshotId, Wanted> = BTreeMap::new();
        for dataset in ledger.datasets() {
            for version in dataset.versions.iter().filter(|version| version.yanked.is_none()) {
                let Some(wanted) = self.of_version(chain, ledger, dataset, version)? else { continue };
                match all.get_mut(&version.snapshot) {
                    None => _ = all.insert(version.snapshot, wanted),
                    // Two names for one snapshot want it as often as the one that wants it more.
                    Some(held) => {
                        held.copies = held.copies.max(wanted.copies);
                        let more = wanted.acknowledged.into_iter();
                        let new: Vec<_> = more.filter(|node| !held.acknowledged.contains(node)).collect();
                        held.acknowledged.extend(new);
                    }
                }
            }
        }
        Ok(all)
    }

    fn of_version(
        &self,
        chain: &Chain,
        ledger: &Ledger,
        dataset: &Dataset,
        version: &Version,
    ) -> Result<Option<Wanted>, Error> {
        let (copies, nodes) = self.promise(chain, version)?;
        if copies == 0 {
            return Ok(None);
        }
        let mut acknowledged: Vec<PublicKey> = nodes.iter().map(|node| ledger.first_of(node)).collect();
        // Who is no storage node any more is not counted on.
        acknowledged.retain(|node| ledger.storage_nodes().any(|known| known == node));
        Ok(Some(Wanted {
            snapshot: version.snapshot,
            version: format!("{}@{}", dataset.name, version.label),
            name: dataset.name.clone(),
            label: version.label.clone(),
            bytes: version.bytes,
            copies,
            owner: dataset.owner,
            acknowledged,
        }))
    }

    fn promise(&self, chain: &Chain, version: &Version) -> Result<Promise, Error> {
        let known = || self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let id = version.published.entry;
        if let Some(promise) = known().get(&id) {
            return Ok(promise.clone());
        }
        let block = off(|| chain.block(version.published.height))?;
        let promise =
            block.body.entries.iter().find(|entry| entry.id() == id).map(|entry| match &entry.body {
                EntryBody::Publish(publish) => {
                    (publish.copies(), publish.replicas.iter().map(|replica| replica.node).collect())
                }
                _ => (0, Vec::new()),
            });
        let promise = promise.unwrap_or_default();
        known().insert(id, promise.clone());
        Ok(promise)
    }
}
