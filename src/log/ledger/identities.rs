//! Who is who in the log, and what each may do: questions to a [`Ledger`] about keys.
//!
//! Owns: the answers, by any key of an identity. Must not know: blocks.
//! Invariant: nothing here changes the ledger. Trust: the state that the ledger has checked. Threads: pure values.

use super::Ledger;
use crate::crypto::PublicKey;
use crate::id::SnapshotId;
use crate::log::refusal::Refusal;
use crate::log::roles::{Role, RoleSet};
use crate::log::state::{Dataset, Holder, Identity, OpenChallenge, Operator, Voter};

impl Ledger {
    /// What is known of a key that took part in a rotation.
    pub fn identity(&self, key: &PublicKey) -> Option<&Identity> {
        self.state.identity(key)
    }

    /// The first key of the identity that `key` acts for, under which all that is its own is recorded.
    pub fn acting(&self, key: &PublicKey) -> Result<PublicKey, Refusal> {
        self.state.acting(key)
    }

    /// The roles that `key` has in the network.
    pub fn roles(&self, key: &PublicKey) -> Result<RoleSet, Refusal> {
        Ok(self.state.roles_of(&self.state.acting(key)?))
    }

    /// The first key of the identity that `key` belongs or belonged to.
    pub fn first_of(&self, key: &PublicKey) -> PublicKey {
        self.state.first_of(key)
    }

    /// The key that acts for the identity with this first key.
    pub fn current(&self, first: &PublicKey) -> PublicKey {
        let mut key = *first;
        // Each key is replaced by a new one, so this ends.
        while let Some(successor) = self.identity(&key).and_then(|identity| identity.successor) {
            key = successor;
        }
        key
    }

    /// Who is to store replicas, by the first keys of their identities: who was given the role storage itself.
    pub fn storage_nodes(&self) -> impl Iterator<Item = &PublicKey> {
        self.state.storers().iter()
    }

    /// Whether the log has anything that belongs to this key, or to the identity that it is one of.
    pub fn knows(&self, key: &PublicKey) -> bool {
        self.nonce(key) > 0
            || self.identity(key).is_some()
            || self.voter(key).is_some()
            || self.operator(key).is_some()
            || self.holder(key).is_some()
            || self.roles(key).is_ok_and(|roles| roles != RoleSet::NONE)
            || self.datasets().any(|dataset| dataset.grants.contains_key(key))
    }

    /// Whether the log, and what is in its datasets, may be shown to the holder of `key`: in a network for members only, to
    /// those who have a role, a right with some dataset, a name, a vote or stake. A key that another has replaced counts
    /// too: a node goes by it until its next start, and one that votes for good.
    pub fn admits(&self, key: &PublicKey) -> bool {
        let first = self.first_of(key);
        let has_part = |dataset: &Dataset| dataset.owner == first || dataset.grants.contains_key(&first);
        !self.params().members_only()
            || self.state.roles_of(&first) != RoleSet::NONE
            || self.validators().get(key).is_some()
            || self.state.operator(&first).is_some()
            || self.state.holder(&first).is_some()
            || self.datasets().any(has_part)
    }

    /// Whether `key` may use dataset `name` in `role`, which for a publisher includes a name that nobody has yet.
    pub fn allows(&self, name: &str, key: &PublicKey, role: Role) -> bool {
        let Ok(first) = self.state.acting(key) else { return false };
        match self.dataset(name) {
            Some(dataset) => dataset.allows(&first, role),
            None => {
                let open = role == Role::Publisher && !self.params().publishers_only;
                open || self.state.roles_of(&first).allows(role)
            }
        }
    }

    /// The operator that `key` acts for; not one that has left.
    pub fn operator(&self, key: &PublicKey) -> Option<&Operator> {
        self.state.operator(&self.state.acting(key).ok()?)
    }

    /// All operators but those who have left, by the first keys of their identities.
    pub fn operators(&self) -> impl Iterator<Item = (&PublicKey, &Operator)> {
        self.state.operators()
    }

    /// All stakes.
    pub fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.state.holders()
    }

    /// Whose voting key this is or was.
    pub fn voter(&self, key: &PublicKey) -> Option<&Voter> {
        self.state.voter(key)
    }

    /// The stake of who acts by `key`.
    pub fn holder(&self, key: &PublicKey) -> Option<&Holder> {
        self.state.holder(&self.state.acting(key).ok()?)
    }

    /// The storage score of who acts by `key`, in `storage::SCORE_PER_MIB`.
    pub fn score(&self, key: &PublicKey) -> u64 {
        self.state.acting(key).map_or(0, |first| self.state.score(&first))
    }

    /// Whether who acts by `key` has committed to storing a snapshot in the epoch of the newest height.
    pub fn has_committed(&self, key: &PublicKey, snapshot: &SnapshotId) -> bool {
        self.state.has_committed(&self.first_of(key), snapshot)
    }

    /// The challenges that who acts by `key` has to answer before the epoch ends, once its first height is decided.
    pub fn open_challenges(&self, key: &PublicKey) -> Vec<OpenChallenge> {
        self.state.acting(key).map_or(Vec::new(), |first| self.state.open_challenges(&first))
    }
}
