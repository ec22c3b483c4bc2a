//! The rules for names: who may publish under one, what may be said of its versions, and to whom it is granted.
//!
//! Owns: publishing, tagging, withdrawing, granting. Must not know: validators, epochs.
//! Invariant: a name belongs to the identity that first published it, and to those whom it grants; no version changes.
//! Trust: entries are foreign, their author is proven. Threads: pure values.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Admission, Context, Dataset, Granted, Held, Item, Stamp, State, StateKey, Target, Version, Yanked,
};
use crate::crypto::PublicKey;
use crate::log::entry::{Grant, MAX_WITNESSES, MAX_WRAP_LEN, Publish, Tag, Yank};
use crate::log::names::Name;
use crate::log::refusal::Refusal;
use crate::log::roles::{Role, RoleSet};

/// Most grants that are in force with one dataset.
pub const MAX_GRANTS: usize = 1024;

impl State {
    pub(in crate::log) fn dataset(&self, name: &str) -> Option<&Dataset> {
        // A text that is no name names nothing.
        self.named(&name.parse().ok()?).map(|dataset| &**dataset)
    }

    /// In the order of names.
    pub(in crate::log) fn datasets(&self) -> Vec<&Dataset> {
        let held = self.map.iter().filter_map(|held| match held {
            Held::Dataset(dataset) => Some(&**dataset),
            _ => None,
        });
        let mut datasets: Vec<&Dataset> = held.collect();
        datasets.sort_by(|a, b| a.name.cmp(&b.name));
        datasets
    }

    pub(super) fn named(&self, name: &Name) -> Option<&Arc<Dataset>> {
        match self.held(&StateKey::Name(name.clone())) {
            Some(Held::Dataset(dataset)) => Some(dataset),
            _ => None,
        }
    }

    /// The dataset called `name`, if the author has `role` with it.
    fn allowed(&self, name: &Name, role: Role, context: &Context<'_>) -> Result<&Arc<Dataset>, Refusal> {
        let dataset = self.named(name).ok_or_else(|| Refusal::NoDataset { name: name.to_string() })?;
        if dataset.allows(&context.who, role) {
            return Ok(dataset);
        }
        Err(Refusal::NotOwner { name: name.clone(), owner: dataset.owner, author: context.author })
    }

    pub(super) fn admit_publish(
        &self,
        publish: &Publish,
        context: &mut Context<'_>,
    ) -> Result<Admission, Refusal> {
        let name = &publish.name;
        let dataset = match self.allowed(name, Role::Publisher, context) {
            Ok(dataset) => Some(dataset),
            Err(Refusal::NoDataset { .. }) => None,
            Err(refusal) => return Err(refusal),
        };
        if let Some(held) = dataset.and_then(|dataset| dataset.version(publish.version.as_str())) {
            return match held.snapshot == publish.snapshot {
                true => not_yanked(name, held).map(|()| held.published.into()),
                false => Err(Refusal::Published {
                    name: name.clone(),
                    version: held.label.clone(),
                    snapshot: held.snapshot,
                    offered: publish.snapshot,
                    height: held.published.height,
                }),
            };
        }
        if dataset.is_some_and(|dataset| dataset.tags.contains_key(&publish.version)) {
            return Err(Refusal::IsTag { name: name.clone(), label: publish.version.clone() });
        }
        if dataset.is_none() && self.params().publishers_only {
            self.require(Role::Publisher, context, "publish under a new name")?;
        }
        match &publish.parent {
            Some(parent) if dataset.and_then(|d| d.version(parent.as_str())).is_none() => {
                return Err(Refusal::NoParent { name: name.clone(), parent: parent.clone() });
            }
            _ => {}
        }
        self.check_replicas(publish, context).map(|()| Admission::New)
    }

    /// Every acknowledgement must count, so that none is in the log that says nothing.
    fn check_replicas(&self, publish: &Publish, context: &mut Context<'_>) -> Result<(), Refusal> {
        let (needed, found) = (self.params().replicas as usize, publish.replicas.len());
        if found < needed || found > MAX_WITNESSES {
            return Err(Refusal::Replicas { needed, found });
        }
        if publish.copies.is_some_and(|_| !(found..=MAX_WITNESSES).contains(&publish.copies())) {
            return Err(Refusal::Copies { copies: publish.copies(), found });
        }
        let mut nodes = Vec::with_capacity(found);
        for replica in &publish.replicas {
            let node = self.acting(&replica.node)?;
            if node == context.who || nodes.contains(&node) || !self.roles_of(&node).allows(Role::Storage) {
                return Err(Refusal::Replica { node: replica.node });
            }
            nodes.push(node);
            context.checks.claim(replica.claim(context.genesis, publish.snapshot))?;
        }
        Ok(())
    }

    pub(super) fn admit_tag(&self, tag: &Tag, context: &Context<'_>) -> Result<Admission, Refusal> {
        let dataset = self.allowed(&tag.name, Role::Publisher, context)?;
        if dataset.version(tag.tag.as_str()).is_some() {
            return Err(Refusal::IsVersion { name: tag.name.clone(), label: tag.tag.clone() });
        }
        let version = tag.version.as_str();
        let version = dataset.version(version).ok_or_else(|| dataset.no_version(version))?;
        match dataset.tags.get(&tag.tag) {
            Some(target) if target.version == tag.version => Ok(target.stamp.into()),
            _ => not_yanked(&tag.name, version).map(|()| Admission::New),
        }
    }

    pub(super) fn admit_yank(&self, yank: &Yank, context: &Context<'_>) -> Result<Admission, Refusal> {
        let dataset = self.allowed(&yank.name, Role::Publisher, context)?;
        let version = yank.version.as_str();
        let version = dataset.version(version).ok_or_else(|| dataset.no_version(version))?;
        match &version.yanked {
            Some(yanked) if yanked.reason == yank.reason => Ok(yanked.stamp.into()),
            _ => not_yanked(&yank.name, version).map(|()| Admission::New),
        }
    }

    pub(super) fn admit_grant(&self, grant: &Grant, context: &Context<'_>) -> Result<Admission, Refusal> {
        let dataset = self.allowed(&grant.name, Role::Admin, context)?;
        let to = self.acting(&grant.to)?;
        let name = || grant.name.clone();
        if to == dataset.owner {
            return Err(Refusal::OwnerHasAll { name: name(), owner: grant.to });
        }
        if grant.roles.has(Role::Validator) {
            return Err(Refusal::NotForNames { role: Role::Validator });
        }
        let wrap = grant.wrap.as_ref().map_or(0, |wrap| wrap.len());
        if wrap > MAX_WRAP_LEN || (grant.roles == RoleSet::NONE && grant.wrap.is_some()) {
            return Err(Refusal::Wrap { len: wrap });
        }
        match dataset.grants.get(&to) {
            Some(held) if held.roles == grant.roles && held.wrap == grant.wrap => Ok(held.stamp.into()),
            None if grant.roles == RoleSet::NONE => Err(Refusal::NoGrant { name: name(), to: grant.to }),
            None if dataset.grants.len() >= MAX_GRANTS => {
                Err(Refusal::TooMany { what: "grants with one dataset", limit: MAX_GRANTS })
            }
            _ => Ok(Admission::New),
        }
    }

    pub(super) fn publish(&mut self, author: PublicKey, who: PublicKey, publish: &Publish, published: Stamp) {
        let version = Version {
            label: publish.version.clone(),
            snapshot: publish.snapshot,
            bytes: publish.bytes,
            inodes: publish.inodes,
            parent: publish.parent.clone(),
            author,
            published,
            yanked: None,
        };
        let mut dataset = match self.named(&publish.name) {
            Some(dataset) => Dataset::clone(dataset),
            None => Dataset {
                name: publish.name.clone(),
                owner: who,
                versions: Vec::new(),
                tags: BTreeMap::new(),
                grants: Arc::default(),
            },
        };
        dataset.versions.push(Arc::new(version.clone()));
        self.set_version(&publish.name, version);
        self.set_dataset(dataset);
    }

    pub(super) fn tag(&mut self, tag: &Tag, stamp: Stamp) {
        let Some(mut dataset) = self.named(&tag.name).map(|dataset| Dataset::clone(dataset)) else { return };
        let target = Target { version: tag.version.clone(), stamp };
        dataset.tags.insert(tag.tag.clone(), target.clone());
        let key = StateKey::Tag(tag.name.clone(), tag.tag.clone());
        self.set(&key, &Item::Tag(target), Held::Elsewhere);
        self.set_dataset(dataset);
    }

    pub(super) fn yank(&mut self, yank: &Yank, stamp: Stamp) {
        let Some(mut dataset) = self.named(&yank.name).map(|dataset| Dataset::clone(dataset)) else { return };
        if let Some(version) = dataset.versions.iter_mut().find(|v| v.label == yank.version) {
            let version = Arc::make_mut(version);
            version.yanked = Some(Yanked { reason: yank.reason.clone(), stamp });
            let version = version.clone();
            self.set_version(&yank.name, version);
        }
        self.set_dataset(dataset);
    }

    pub(super) fn grant(&mut self, grant: &Grant, stamp: Stamp) {
        let Some(mut dataset) = self.named(&grant.name).map(|dataset| Dataset::clone(dataset)) else {
            return;
        };
        let to = self.first_of(&grant.to);
        let granted = Granted { roles: grant.roles, wrap: grant.wrap.clone(), stamp };
        let grants = Arc::make_mut(&mut dataset.grants);
        match grant.roles {
            RoleSet::NONE => grants.remove(&to),
            _ => grants.insert(to, granted.clone()),
        };
        // What was taken back stays provable as such.
        self.set(&StateKey::Grant(grant.name.clone(), to), &Item::Grant(granted), Held::Elsewhere);
        self.set_dataset(dataset);
    }

    fn set_version(&mut self, name: &Name, version: Version) {
        let key = StateKey::Version(name.clone(), version.label.clone());
        self.set(&key, &Item::Version(version), Held::Elsewhere);
    }

    fn set_dataset(&mut self, dataset: Dataset) {
        let item = Item::Name {
            owner: dataset.owner,
            versions: dataset.versions.len() as u64,
            latest: dataset.latest().map(|version| version.label.clone()),
        };
        self.set(&StateKey::Name(dataset.name.clone()), &item, Held::Dataset(Arc::new(dataset)));
    }
}

pub(super) fn not_yanked(name: &Name, version: &Version) -> Result<(), Refusal> {
    match &version.yanked {
        None => Ok(()),
        Some(yanked) => Err(Refusal::Yanked {
            name: name.clone(),
            version: version.label.clone(),
            height: yanked.stamp.height,
            reason: yanked.reason.clone(),
        }),
    }
}
