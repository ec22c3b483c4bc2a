//! Showing this node's keys, and putting a new one in the place of the old.
//!
//! Owns: the order of steps: the new key is on disk before any log hears of it, and takes over the node only when all of its
//! logs have said so. Must not know: how key files are written (`keys`), or the rules of a log.
//! Invariant: at any moment the node holds a key by which each of its logs knows it.
//! Trust: the request is the user's. Threads: async. After a crash at any point the node writes with whichever key each log
//! knows, and asking again goes on with the same new key.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::error::{Error, Kind};
use super::keys::{self, holds};
use super::report::{GrantedRoles, KeyInNetwork, KeysReport, NotRotatedIn, RotatedIn, RotatedKey};
use super::{Node, off};
use crate::chain::Chain;
use crate::crypto::SecretKey;
use crate::log::{EntryBody, RoleSet, Rotate};

impl Node {
    /// Ends what a crash has interrupted, and parts with a voting key that is not needed any more.
    pub(super) fn settle_keys(&self) -> Result<(), Error> {
        let chains = self.networks.all();
        if !off(|| self.has_all(&chains))? {
            return Ok(());
        }
        off(|| self.keys.settle(&chains))?;
        off(|| self.keys.retire_voting_key(&chains))
    }

    /// Whether these are the logs of all networks that this node has a file of or remembers: what another says of its keys is
    /// not known.
    fn has_all(&self, chains: &[Arc<Chain>]) -> Result<bool, Error> {
        let dir = self.paths.networks();
        let files = std::fs::read_dir(&dir).map_err(|error| Error::io("cannot list", &dir, error))?;
        let files = files.flatten().map(|file| file.path());
        let logs = files.filter(|path| path.extension().is_some_and(|end| end == "redb"));
        let stems = logs.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
        let known = chains.iter().map(|chain| chain.genesis().to_string()).collect::<BTreeSet<_>>();
        Ok(stems.chain(self.state.get().peers.into_keys()).all(|genesis| known.contains(&genesis)))
    }

    /// The keys of this node, and what they are in its networks.
    pub fn keys(&self) -> Result<KeysReport, Error> {
        let default = self.networks.default_network().ok().map(|chain| chain.genesis());
        let networks = self.networks.all();
        Ok(KeysReport {
            key: self.keys.identity().public().to_string(),
            next: self.keys.next().map(|key| key.public().to_string()),
            running: self.keys.running().public().to_string(),
            peer_id: self.net.peer_id(),
            changes_at_start: self.keys.changes_at_start(),
            networks: networks
                .iter()
                .map(|chain| self.key_in(chain, default == Some(chain.genesis())))
                .collect(),
        })
    }

    fn key_in(&self, chain: &Chain, default: bool) -> KeyInNetwork {
        let ledger = chain.ledger();
        let key = self.keys.author(&ledger).public();
        let first = ledger.acting(&key).unwrap_or(key);
        let granted = |dataset: &crate::log::Dataset| {
            let roles = dataset.grants.get(&first)?.roles;
            Some(GrantedRoles { name: dataset.name.to_string(), roles: names(roles) })
        };
        KeyInNetwork {
            genesis: chain.genesis().to_string(),
            default,
            key: key.to_string(),
            first: first.to_string(),
            roles: names(ledger.roles(&key).unwrap_or_default()),
            owns: ledger
                .datasets()
                .filter(|held| held.owner == first)
                .map(|held| held.name.to_string())
                .collect(),
            granted: ledger.datasets().filter_map(granted).collect(),
        }
    }

    /// Puts a new key in the place of this node's in every network that knows it.
    pub async fn rotate_key(&self) -> Result<RotatedKey, Error> {
        // Held to the end, so that nothing is signed by the old key in between and no second rotation begins.
        let _one_at_a_time = self.publishing.lock().await;
        let chains = self.networks.all();
        if !off(|| self.has_all(&chains))? {
            let message = "the log of a network of this node is not here, so that it is not known what the key owns there";
            return Err(Error::new(Kind::Failed, message).hint(
                "nothing was changed; daemon.log says which and why. Run bcai keys rotate again when the log is back, or when nothing \
                 in networks/ and state.json names that network any more",
            ));
        }
        if chains.is_empty() {
            return Err(Error::new(Kind::Failed, "this node belongs to no network, so nobody knows its key yet").hint(
                "bcai init creates a network, bcai init --join URI joins one; to begin anew, stop the node and move identity.key and \
                 state.json away",
            ));
        }
        let old = self.keys.identity();
        let new = off(|| self.keys.prepare(&chains))?;
        let (mut networks, mut failed) = (Vec::new(), Vec::new());
        for chain in chains.iter().filter(|chain| holds(&chain.ledger(), &old, &new)) {
            let genesis = chain.genesis().to_string();
            match self.rotate_in(chain, &old, &new).await {
                Ok(height) => networks.push(RotatedIn { genesis, height }),
                Err(error) => failed.push(NotRotatedIn { genesis, error }),
            }
        }
        off(|| self.keys.settle(&chains))?;
        let votes = chains.iter().any(|chain| keys::votes(&chain.ledger(), &self.keys.running().public()));
        Ok(RotatedKey {
            old: old.public().to_string(),
            new: new.public().to_string(),
            networks,
            failed,
            votes,
            changes_at_start: self.keys.changes_at_start(),
        })
    }

    async fn rotate_in(&self, chain: &Chain, old: &SecretKey, new: &SecretKey) -> Result<u64, Error> {
        let rotate = Rotate::to(new, chain.genesis(), &old.public());
        let (height, ..) = self.decide_as(chain, old, EntryBody::Rotate(rotate)).await?;
        Ok(height)
    }
}

pub(super) fn names(roles: RoleSet) -> Vec<String> {
    roles.iter().map(|role| role.to_string()).collect()
}
