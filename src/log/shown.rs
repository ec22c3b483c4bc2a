//! What a name means under the newest head, shown to whoever has no log: the head, and the items that say so, each proven.
//!
//! Owns: which items it takes, and that they mean the same as `Dataset::resolve`.
//! Must not know: who asks. Invariant: what `check` returns is what `Ledger::resolve` returns on the ledger of that head.
//! Trust: question and answer are foreign; `light::Trusted` judges head and items. Threads: pure values.

use minicbor::{Decode, Encode};

use super::ledger::Ledger;
use super::light::{LightError, MAX_UPDATE_LEN, Trusted, Update};
use super::names::{LATEST, Label, Name};
use super::refusal::Refusal;
use super::sparse::StateProof;
use super::state::{Dataset, Item, StateKey, Target, Version};
use crate::codec::{self, CodecError};

/// Longest encoded question, in bytes.
pub const MAX_QUESTION_LEN: usize = 1 << 10;
/// Longest encoded answer, in bytes: a head, and three items with their proofs.
pub const MAX_SHOWN_LEN: usize = MAX_UPDATE_LEN + (64 << 10);

/// A name and the version or tag wanted; none, or `latest`, for the newest version.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Question {
    #[n(0)]
    pub name: Name,
    #[n(1)]
    pub label: Option<Label>,
}

/// An item, or that there is none, and the proof.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Proven {
    #[n(0)]
    item: Option<Item>,
    #[n(1)]
    proof: StateProof,
}

/// What a name means, as of a head.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Shown {
    #[n(0)]
    head: Update,
    /// The dataset.
    #[n(1)]
    name: Proven,
    /// The tag of the label that was asked for, unless that is `latest`.
    #[n(2)]
    tag: Option<Proven>,
    /// The version that it all comes to: absent where there is none to be named.
    #[n(3)]
    version: Option<Proven>,
}

/// Why an answer was not believed, or what it means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShownError {
    /// Junk or a lie.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A lie, or a fork.
    #[error(transparent)]
    Light(#[from] LightError),
    /// Junk: parts that prove what was not asked, or too little.
    #[error("the peer's answer leaves out what was asked for")]
    Unfit,
    /// The name means nothing: proven like everything else.
    #[error(transparent)]
    Nothing(#[from] Refusal),
}

impl Question {
    /// The label, unless it is `latest`.
    fn label(&self) -> Option<&Label> {
        self.label.as_ref().filter(|label| label.as_str() != LATEST)
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes foreign bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("a question about a name", bytes, MAX_QUESTION_LEN)
    }
}

impl Shown {
    /// The answer of `ledger`, whose head is `head`.
    pub fn of(ledger: &Ledger, head: Update, question: &Question) -> Self {
        let dataset = ledger.dataset(question.name.as_str());
        let prove = |key: StateKey, item: Option<Item>| Proven { item, proof: ledger.prove(&key) };
        let tag = question.label().map(|label| {
            let target = dataset.and_then(|dataset| dataset.tags.get(label));
            prove(StateKey::Tag(question.name.clone(), label.clone()), target.cloned().map(Item::Tag))
        });
        let meant = match &tag {
            Some(Proven { item: Some(Item::Tag(target)), .. }) => Some(target.version.clone()),
            Some(_) => question.label().cloned(),
            None => dataset.and_then(Dataset::latest).map(|latest| latest.label.clone()),
        };
        let version = meant.map(|label| {
            let held = dataset.and_then(|dataset| dataset.version(label.as_str())).cloned();
            prove(StateKey::Version(question.name.clone(), label), held.map(Item::Version))
        });
        let item = dataset.map(|dataset| Item::Name {
            owner: dataset.owner,
            versions: dataset.versions.len() as u64,
            latest: dataset.latest().map(|latest| latest.label.clone()),
        });
        Self { head, name: prove(StateKey::Name(question.name.clone()), item), tag, version }
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes foreign bytes. Says nothing about what they show.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("what a name means", bytes, MAX_SHOWN_LEN)
    }

    /// The head that it is as of, to be climbed to.
    pub fn head(&self) -> &Update {
        &self.head
    }

    /// What the name means, by a trust that has come to the head: persist that before use.
    pub fn check(self, trusted: &mut Trusted, question: &Question) -> Result<Version, ShownError> {
        if trusted.head() != Some(&self.head.signed) {
            return Err(ShownError::Unfit);
        }
        let name = || question.name.clone();
        let mut believe = |key: &StateKey, Proven { item, proof }: Proven| {
            trusted.observe(key, item.as_ref(), &proof).map(|()| item)
        };
        let Some(Item::Name { latest, .. }) = believe(&StateKey::Name(name()), self.name)? else {
            return Err(Refusal::NoDataset { name: name().to_string() }.into());
        };
        let meant = match (question.label(), self.tag) {
            (None, None) => latest.clone().ok_or_else(|| Refusal::AllYanked { name: name() })?,
            (Some(label), Some(tag)) => match believe(&StateKey::Tag(name(), label.clone()), tag)? {
                Some(Item::Tag(Target { version, .. })) => version,
                _ => label.clone(),
            },
            _ => return Err(ShownError::Unfit),
        };
        let version = self.version.ok_or(ShownError::Unfit)?;
        match believe(&StateKey::Version(name(), meant), version)? {
            Some(Item::Version(version)) => Ok(version),
            _ => Err(Refusal::NoVersion {
                name: name(),
                label: question.label().map_or(String::new(), Label::to_string),
                latest: latest.map_or("none".to_owned(), |latest| latest.to_string()),
            }
            .into()),
        }
    }
}
