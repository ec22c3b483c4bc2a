//! What the log says now: datasets, their versions and tags, and how far each author has counted.
//!
//! Owns: the rules by which an entry executes or is refused, and the encoding of everything the state root covers.
//! Must not know: headers, validators, certificates.
//! Invariant: a published version never changes but for being withdrawn; the state root is that of exactly the items held.
//! Trust: entries are foreign; every rule is checked here, the signature first.
//! Threads: pure values; a clone shares everything with its original until one of them changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::digest::{Digest, Of};
use super::entry::{Entry, EntryBody, Publish, Tag, Yank};
use super::merkle::{self, Frontier};
use super::names::{LATEST, Label, Name, Reason};
use super::refusal::Refusal;
use super::sparse::{SparseMap, StateProof};
use crate::codec;
use crate::crypto::{Claim, CryptoError, PublicKey};
use crate::id::{EntryId, Genesis, SnapshotId, StateRoot};

/// Where and when something was decided, and by which entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Stamp {
    #[n(0)]
    pub height: u64,
    /// The header's time, in milliseconds since 1970.
    #[n(1)]
    pub time_ms: u64,
    #[n(2)]
    pub entry: EntryId,
}

/// One published version.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Version {
    #[n(0)]
    pub label: Label,
    #[n(1)]
    pub snapshot: SnapshotId,
    /// Bytes of all files, as claimed by the publisher.
    #[n(2)]
    pub bytes: u64,
    /// Files, directories and symbolic links, as claimed by the publisher.
    #[n(3)]
    pub inodes: u64,
    #[n(4)]
    pub parent: Option<Label>,
    #[n(5)]
    pub author: PublicKey,
    #[n(6)]
    pub published: Stamp,
    #[n(7)]
    pub yanked: Option<Yanked>,
}

/// That, why and when a version was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Yanked {
    #[n(0)]
    pub reason: Reason,
    #[n(1)]
    pub stamp: Stamp,
}

/// Where a tag points.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Target {
    #[n(0)]
    pub version: Label,
    #[n(1)]
    pub stamp: Stamp,
}

/// A named history of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    pub name: Name,
    /// Who first published it: the only one who may add to it.
    pub owner: PublicKey,
    /// Oldest first.
    pub versions: Vec<Arc<Version>>,
    pub tags: BTreeMap<Label, Target>,
}

impl Dataset {
    /// The newest version that is not withdrawn.
    pub fn latest(&self) -> Option<&Version> {
        self.versions.iter().rev().find(|v| v.yanked.is_none()).map(|v| &**v)
    }

    /// The version with exactly this label.
    pub fn version(&self, label: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.label.as_str() == label).map(|v| &**v)
    }

    /// What a reference's part after `@` means: nothing or `latest`, a version, or a tag. No label is both of the last.
    pub fn resolve(&self, label: Option<&str>) -> Result<&Version, Refusal> {
        let Some(label) = label.filter(|label| *label != LATEST) else {
            return self.latest().ok_or_else(|| Refusal::AllYanked { name: self.name.clone() });
        };
        let target = self.tags.get(label).map_or(label, |target| target.version.as_str());
        self.version(target).ok_or_else(|| self.no_version(label))
    }

    fn no_version(&self, label: &str) -> Refusal {
        Refusal::NoVersion {
            name: self.name.clone(),
            label: label.chars().take(80).collect(),
            latest: self.latest().map_or("none".to_owned(), |v| v.label.to_string()),
        }
    }
}

/// Names an item that the state root covers. The key of the state map is the digest of its encoding.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub enum StateKey {
    /// A dataset; its value is an `Item::Name`.
    #[n(0)]
    Name(#[n(0)] Name),
    #[n(1)]
    Version(#[n(0)] Name, #[n(1)] Label),
    #[n(2)]
    Tag(#[n(0)] Name, #[n(1)] Label),
    /// How far an author has counted.
    #[n(3)]
    Nonce(#[n(0)] PublicKey),
}

impl StateKey {
    /// The key in the state map.
    pub fn digest(&self) -> Digest {
        Digest::of(Of::StateKey, &codec::encode(self))
    }
}

/// A value that the state root covers. The value in the state map is the digest of its encoding.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Item {
    #[n(0)]
    Name {
        #[n(0)]
        owner: PublicKey,
        /// How many were published, withdrawn ones included.
        #[n(1)]
        versions: u64,
        /// What `latest` means.
        #[n(2)]
        latest: Option<Label>,
    },
    #[n(1)]
    Version(#[n(0)] Version),
    #[n(2)]
    Tag(#[n(0)] Target),
    #[n(3)]
    Nonce(#[n(0)] u64),
}

impl Item {
    /// The value in the state map.
    pub fn digest(&self) -> Digest {
        Digest::of(Of::StateValue, &codec::encode(self))
    }
}

/// What the map holds beside the digests, so that it is also the one index of the state.
#[derive(Debug, Clone)]
enum Held {
    Dataset(Arc<Dataset>),
    Nonce(u64),
    /// A version or tag: held by its dataset.
    InDataset,
}

/// What became of an entry that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It would change the state.
    New,
    /// An earlier entry did the same, so that this one has succeeded without being recorded.
    Already {
        /// Where the earlier one was decided.
        height: u64,
        /// The earlier one, perhaps this very one.
        entry: EntryId,
    },
}

impl From<Stamp> for Admission {
    fn from(stamp: Stamp) -> Self {
        Self::Already { height: stamp.height, entry: stamp.entry }
    }
}

/// When to check signatures.
#[derive(Debug)]
pub(super) enum Checks {
    /// Each as it is met, strictly: what decides whether a block is valid.
    Now,
    /// Collected, for whoever asked to check them in one batch.
    Later(Vec<Claim>),
}

impl Checks {
    fn claim(&mut self, claim: Claim) -> Result<(), CryptoError> {
        match self {
            Self::Now => claim.verify(),
            Self::Later(claims) => {
                claims.push(claim);
                Ok(())
            }
        }
    }
}

/// The state after some height.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    map: SparseMap<Held>,
    log: Frontier,
}

impl State {
    pub(super) fn root(&self) -> StateRoot {
        self.map.root()
    }

    pub(super) fn log(&self) -> &Frontier {
        &self.log
    }

    pub(super) fn prove(&self, key: &StateKey) -> StateProof {
        self.map.prove(&key.digest())
    }

    pub(super) fn dataset(&self, name: &str) -> Option<&Dataset> {
        // A text that is no name names nothing.
        self.named(&name.parse().ok()?).map(|dataset| &**dataset)
    }

    /// In the order of names.
    pub(super) fn datasets(&self) -> Vec<&Dataset> {
        let held = self.map.iter().filter_map(|held| match held {
            Held::Dataset(dataset) => Some(&**dataset),
            _ => None,
        });
        let mut datasets: Vec<&Dataset> = held.collect();
        datasets.sort_by(|a, b| a.name.cmp(&b.name));
        datasets
    }

    pub(super) fn nonce(&self, author: &PublicKey) -> u64 {
        match self.map.get(&StateKey::Nonce(*author).digest()) {
            Some(Held::Nonce(nonce)) => *nonce,
            _ => 0,
        }
    }

    fn named(&self, name: &Name) -> Option<&Arc<Dataset>> {
        match self.map.get(&StateKey::Name(name.clone()).digest()) {
            Some(Held::Dataset(dataset)) => Some(dataset),
            _ => None,
        }
    }

    /// Whether `entry` would execute. Its signature is left to `checks`.
    pub(super) fn admit(
        &self,
        genesis: Genesis,
        entry: &Entry,
        checks: &mut Checks,
    ) -> Result<Admission, Refusal> {
        if entry.genesis != genesis {
            return Err(Refusal::OtherNetwork { expected: genesis, found: entry.genesis });
        }
        checks.claim(entry.claim())?;
        let dataset = self.named(entry.body.name());
        if let Some(dataset) = dataset.filter(|dataset| dataset.owner != entry.author) {
            let (name, owner) = (dataset.name.clone(), dataset.owner);
            return Err(Refusal::NotOwner { name, owner, author: entry.author });
        }
        let admission = match (&entry.body, dataset) {
            (EntryBody::Publish(publish), dataset) => admit_publish(dataset, publish)?,
            (EntryBody::Tag(tag), Some(dataset)) => admit_tag(dataset, tag)?,
            (EntryBody::Yank(yank), Some(dataset)) => admit_yank(dataset, yank)?,
            (body, None) => return Err(Refusal::NoDataset { name: body.name().to_string() }),
        };
        // Last, so that sending the same thing once more reports the success that it had.
        let last = self.nonce(&entry.author);
        if admission == Admission::New && entry.nonce <= last {
            return Err(Refusal::Nonce { author: entry.author, last, found: entry.nonce });
        }
        Ok(admission)
    }

    /// Executes `entry` at `height` and `time_ms` when that is something new.
    pub(super) fn execute(
        &mut self,
        genesis: Genesis,
        entry: &Entry,
        height: u64,
        time_ms: u64,
        checks: &mut Checks,
    ) -> Result<Admission, Refusal> {
        let admission = self.admit(genesis, entry, checks)?;
        if admission != Admission::New {
            return Ok(admission);
        }
        let encoded = entry.encode();
        let stamp = Stamp { height, time_ms, entry: EntryId::of(&encoded) };
        match &entry.body {
            EntryBody::Publish(publish) => self.publish(entry.author, publish, stamp),
            EntryBody::Tag(tag) => self.tag(tag, stamp),
            EntryBody::Yank(yank) => self.yank(yank, stamp),
        }
        self.set(&StateKey::Nonce(entry.author), &Item::Nonce(entry.nonce), Held::Nonce(entry.nonce));
        self.log.append(merkle::leaf(&encoded));
        Ok(Admission::New)
    }

    fn publish(&mut self, author: PublicKey, publish: &Publish, published: Stamp) {
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
                owner: author,
                versions: Vec::new(),
                tags: BTreeMap::new(),
            },
        };
        dataset.versions.push(Arc::new(version.clone()));
        self.set_version(&publish.name, version);
        self.set_dataset(dataset);
    }

    fn tag(&mut self, tag: &Tag, stamp: Stamp) {
        let Some(mut dataset) = self.named(&tag.name).map(|dataset| Dataset::clone(dataset)) else { return };
        let target = Target { version: tag.version.clone(), stamp };
        dataset.tags.insert(tag.tag.clone(), target.clone());
        let key = StateKey::Tag(tag.name.clone(), tag.tag.clone());
        self.set(&key, &Item::Tag(target), Held::InDataset);
        self.set_dataset(dataset);
    }

    fn yank(&mut self, yank: &Yank, stamp: Stamp) {
        let Some(mut dataset) = self.named(&yank.name).map(|dataset| Dataset::clone(dataset)) else { return };
        if let Some(version) = dataset.versions.iter_mut().find(|v| v.label == yank.version) {
            let version = Arc::make_mut(version);
            version.yanked = Some(Yanked { reason: yank.reason.clone(), stamp });
            let version = version.clone();
            self.set_version(&yank.name, version);
        }
        self.set_dataset(dataset);
    }

    fn set_version(&mut self, name: &Name, version: Version) {
        let key = StateKey::Version(name.clone(), version.label.clone());
        self.set(&key, &Item::Version(version), Held::InDataset);
    }

    fn set_dataset(&mut self, dataset: Dataset) {
        let item = Item::Name {
            owner: dataset.owner,
            versions: dataset.versions.len() as u64,
            latest: dataset.latest().map(|version| version.label.clone()),
        };
        self.set(&StateKey::Name(dataset.name.clone()), &item, Held::Dataset(Arc::new(dataset)));
    }

    fn set(&mut self, key: &StateKey, item: &Item, held: Held) {
        self.map.insert(key.digest(), item.digest(), held);
    }
}

fn admit_publish(dataset: Option<&Arc<Dataset>>, publish: &Publish) -> Result<Admission, Refusal> {
    let name = || publish.name.clone();
    if let Some(dataset) = dataset {
        if let Some(held) = dataset.version(publish.version.as_str()) {
            return match held.snapshot == publish.snapshot {
                true => not_yanked(dataset, held).map(|()| held.published.into()),
                false => Err(Refusal::Published {
                    name: name(),
                    version: held.label.clone(),
                    snapshot: held.snapshot,
                    offered: publish.snapshot,
                    height: held.published.height,
                }),
            };
        }
        if dataset.tags.contains_key(&publish.version) {
            return Err(Refusal::IsTag { name: name(), label: publish.version.clone() });
        }
    }
    match &publish.parent {
        Some(parent) if dataset.and_then(|d| d.version(parent.as_str())).is_none() => {
            Err(Refusal::NoParent { name: name(), parent: parent.clone() })
        }
        _ => Ok(Admission::New),
    }
}

fn admit_tag(dataset: &Dataset, tag: &Tag) -> Result<Admission, Refusal> {
    if dataset.version(tag.tag.as_str()).is_some() {
        return Err(Refusal::IsVersion { name: tag.name.clone(), label: tag.tag.clone() });
    }
    let version = tag.version.as_str();
    let version = dataset.version(version).ok_or_else(|| dataset.no_version(version))?;
    match dataset.tags.get(&tag.tag) {
        Some(target) if target.version == tag.version => Ok(target.stamp.into()),
        _ => not_yanked(dataset, version).map(|()| Admission::New),
    }
}

fn admit_yank(dataset: &Dataset, yank: &Yank) -> Result<Admission, Refusal> {
    let version = yank.version.as_str();
    let version = dataset.version(version).ok_or_else(|| dataset.no_version(version))?;
    match &version.yanked {
        Some(yanked) if yanked.reason == yank.reason => Ok(yanked.stamp.into()),
        _ => not_yanked(dataset, version).map(|()| Admission::New),
    }
}

fn not_yanked(dataset: &Dataset, version: &Version) -> Result<(), Refusal> {
    match &version.yanked {
        None => Ok(()),
        Some(yanked) => Err(Refusal::Yanked {
            name: dataset.name.clone(),
            version: version.label.clone(),
            height: yanked.stamp.height,
            reason: yanked.reason.clone(),
        }),
    }
}
