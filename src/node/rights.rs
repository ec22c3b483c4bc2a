//! Giving and taking rights: roles in a network, and grants with one dataset.
//!
//! Owns: which roles somebody has afterwards, as the log's entries name all of them at once.
//! Must not know: who may give them, or what they allow; the log has the rules.
//! Invariant: nobody loses by a grant, or gains by a revocation, a role that was not named.
//! Trust: the request is the user's. Threads: async. A crash leaves the entry decided or not; running it again is safe.

use super::Node;
use super::error::{Error, Kind};
use super::report::{Decided, RightsDecided, RightsRequest};
use super::rotate::names;
use crate::crypto::PublicKey;
use crate::log::{EntryBody, Grant, Ledger, Name, Role, RoleChange, RoleSet};

impl Node {
    /// Gives somebody roles, or takes them back.
    pub async fn change_rights(&self, request: &RightsRequest) -> Result<RightsDecided, Error> {
        let chain = self.networks.default_network()?;
        let key: PublicKey = request.key.parse().map_err(|error: crate::crypto::CryptoError| {
            Error::usage(error.to_string()).hint("`bcai keys` on the other node shows its key")
        })?;
        let name: Option<Name> = request.dataset.as_deref().map(str::parse).transpose()?;
        let named = request.roles.iter().map(|role| role.parse::<Role>());
        let named: RoleSet =
            named.collect::<Result<_, _>>().map_err(|error| Error::usage(error.to_string()))?;
        let ledger = chain.ledger();
        let held = held(&ledger, &key, name.as_ref())?;
        let roles = match request.revoke {
            false => held.iter().chain(named.iter()).collect(),
            true if named == RoleSet::NONE => RoleSet::NONE,
            true => held.iter().filter(|role| !named.has(*role)).collect(),
        };
        let wrap = match &name {
            Some(name) => self.wrap_for(&chain, name, key, roles)?,
            None => None,
        };
        let has_key = wrap.is_some();
        let loses_key = match &name {
            Some(name) => self.loses_key(&ledger, name, &ledger.acting(&key)?, roles),
            None => false,
        };
        let body = match &name {
            None => EntryBody::Role(RoleChange { to: key, roles }),
            Some(name) => {
                EntryBody::Grant(Grant { name: name.clone(), to: key, roles, wrap: wrap.map(Into::into) })
            }
        };
        let done = match (body, &name) {
            (EntryBody::Grant(grant), Some(name)) if loses_key && self.can_rotate_dataset(&chain, name) => {
                let _one_at_a_time = self.publishing.lock().await;
                let rotated = self.rotate_dataset_key(&chain, name, Some(grant)).await;
                rotated.map(|(decided, rotated)| (decided.unwrap_or_default(), Some(rotated)))
            }
            (body, _) => self.decide(&chain, body).await.map(|decided| (decided, None)),
        };
        let ((height, round, already), rotated) = done.map_err(|error| match (error.kind, &name) {
            (Kind::Denied, Some(_)) => {
                error.hint("run it on the node of the dataset's owner, or of an admin of it")
            }
            (Kind::Denied, None) => {
                error.hint("run it on a node of an admin; `bcai keys` shows the roles of a node")
            }
            _ => error,
        })?;
        let must_rotate = loses_key && rotated.is_none();
        let decided = Decided { height, round, already };
        Ok(RightsDecided { decided, roles: names(roles), has_key, rotated, must_rotate })
    }
}

/// What somebody has now, in the network or with one dataset.
fn held(ledger: &Ledger, key: &PublicKey, name: Option<&Name>) -> Result<RoleSet, Error> {
    let Some(name) = name else { return Ok(ledger.roles(key)?) };
    let first = ledger.acting(key)?;
    let dataset = ledger.dataset(name.as_str());
    let dataset = dataset.ok_or_else(|| crate::log::Refusal::NoDataset { name: name.to_string() })?;
    Ok(dataset.grants.get(&first).map_or(RoleSet::NONE, |granted| granted.roles))
}
