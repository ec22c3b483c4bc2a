//! The rules for keys: which identity one acts for, which roles that has, and how one key takes another's place.
//!
//! Owns: roles and identities. Must not know: what the roles are good for.
//! Invariant: of the keys of one identity exactly one may write; a network always has an admin.
//! Trust: entries are foreign, their author is proven. Threads: pure values.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Admission, Context, Held, Identity, Item, Roles, Stamp, State, StateKey};
use crate::crypto::PublicKey;
use crate::log::entry::{EntryBody, RoleChange, Rotate};
use crate::log::refusal::Refusal;
use crate::log::roles::{Role, RoleSet};

impl State {
    pub(in crate::log) fn identity(&self, key: &PublicKey) -> Option<&Identity> {
        match self.held(&StateKey::Identity(*key)) {
            Some(Held::Identity(identity)) => Some(identity),
            _ => None,
        }
    }

    /// The first key of the identity that `key` belongs or belonged to.
    pub(in crate::log) fn first_of(&self, key: &PublicKey) -> PublicKey {
        self.identity(key).map_or(*key, |identity| identity.first)
    }

    /// The first key of the identity that `key` acts for, unless another has taken its place.
    pub(in crate::log) fn acting(&self, key: &PublicKey) -> Result<PublicKey, Refusal> {
        match self.identity(key) {
            None => Ok(*key),
            Some(Identity { first, successor: None, .. }) => Ok(*first),
            Some(Identity { successor: Some(successor), .. }) => {
                Err(Refusal::Rotated { key: *key, successor: *successor })
            }
        }
    }

    fn held_roles(&self, first: &PublicKey) -> Option<&Roles> {
        match self.held(&StateKey::Roles(*first)) {
            Some(Held::Roles(roles)) => Some(roles),
            _ => None,
        }
    }

    /// By the first key of an identity.
    pub(in crate::log) fn roles_of(&self, first: &PublicKey) -> RoleSet {
        self.held_roles(first).map_or(RoleSet::NONE, |held| held.roles)
    }

    /// Those that have the role storage itself: an admin may store, and is not counted on.
    pub(in crate::log) fn storers(&self) -> &BTreeSet<PublicKey> {
        &self.storers
    }

    /// Refuses the author if it has not `role` in the network. `what` completes "may not".
    pub(super) fn require(
        &self,
        role: Role,
        context: &Context<'_>,
        what: &'static str,
    ) -> Result<(), Refusal> {
        match self.roles_of(&context.who).allows(role) {
            true => Ok(()),
            false => Err(Refusal::NeedsRole { author: context.author, role, what }),
        }
    }

    pub(super) fn admit_role(
        &self,
        change: &RoleChange,
        context: &Context<'_>,
    ) -> Result<Admission, Refusal> {
        self.require(Role::Admin, context, "give or take roles")?;
        let to = self.acting(&change.to)?;
        let held = self.held_roles(&to);
        match held {
            Some(held) if held.roles == change.roles => return Ok(held.stamp.into()),
            None if change.roles == RoleSet::NONE => return Err(Refusal::NoRole { key: change.to }),
            _ => {}
        }
        let was_admin = held.is_some_and(|held| held.roles.has(Role::Admin));
        if was_admin && !change.roles.has(Role::Admin) && self.admins == 1 {
            return Err(Refusal::LastAdmin);
        }
        Ok(Admission::New)
    }

    pub(super) fn set_roles(&mut self, key: &PublicKey, roles: RoleSet, stamp: Stamp) {
        let first = self.first_of(key);
        let was_admin = self.roles_of(&first).has(Role::Admin);
        self.admins = self.admins + usize::from(roles.has(Role::Admin)) - usize::from(was_admin);
        if roles.has(Role::Storage) != self.storers.contains(&first) {
            let storers = Arc::make_mut(&mut self.storers);
            if roles.has(Role::Storage) {
                storers.insert(first)
            } else {
                storers.remove(&first)
            };
        }
        let held = Roles { roles, stamp };
        self.set(&StateKey::Roles(first), &Item::Roles(held), Held::Roles(held));
    }

    /// Sending a rotation again reports its success, although its author can write nothing any more.
    pub(super) fn rotated_already(&self, author: &PublicKey, body: &EntryBody) -> Option<Admission> {
        let (EntryBody::Rotate(rotate), Some(identity)) = (body, self.identity(author)) else { return None };
        (identity.successor == Some(rotate.to)).then(|| identity.stamp.into())
    }

    pub(super) fn admit_rotate(
        &self,
        rotate: &Rotate,
        context: &mut Context<'_>,
    ) -> Result<Admission, Refusal> {
        let to = rotate.to;
        // A key that is somebody already would be two at once.
        let is_new = to != context.author
            && self.nonce(&to) == 0
            && self.identity(&to).is_none()
            && self.held_roles(&to).is_none()
            && self.voter(&to).is_none()
            && !self.operators.contains_key(&to)
            && !self.holders.contains_key(&to);
        if !is_new {
            return Err(Refusal::KeyInUse { key: to });
        }
        let message = Rotate::message(context.genesis, &context.author, &to);
        context.claim(to, message, rotate.consent)?;
        Ok(Admission::New)
    }

    pub(super) fn rotate(&mut self, author: &PublicKey, rotate: &Rotate, stamp: Stamp) {
        let first = self.first_of(author);
        for (key, successor) in [(*author, Some(rotate.to)), (rotate.to, None)] {
            let identity = Identity { first, successor, stamp };
            self.set(&StateKey::Identity(key), &Item::Identity(identity), Held::Identity(identity));
        }
    }
}
