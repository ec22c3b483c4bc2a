//! The proof of a version in one file, for whoever has nothing but the file and the network's genesis hash.
//!
//! Owns: what such a proof holds, and the check of all of it. Must not know: where heads and entries are kept.
//! Invariant: what `verify` returns was decided by validators that the genesis leads to, as of the head that it names.
//! Trust: the bytes are foreign; the hash is what the user trusts. Threads: pure values.
//!
//! It proves that the version was published (its entry is in the log), what became of it (withdrawn or not) and what
//! `latest` meant, all as of one head. It cannot prove that there is no later head.

use minicbor::{Decode, Encode};

use super::block::Header;
use super::entry::{Entry, EntryBody};
use super::genesis::{GenesisDoc, GenesisError};
use super::ledger::Ledger;
use super::light::{LightError, Trusted, Update};
use super::merkle::{self, TreeProofError};
use super::names::{Label, Name};
use super::refusal::Refusal;
use super::sparse::StateProof;
use super::state::{Item, StateKey, Version};
use crate::codec::{self, CodecError};
use crate::crypto::{CryptoError, PublicKey};
use crate::id::{EntryId, Genesis, LogRoot};

/// Longest encoded proof, in bytes.
pub const MAX_PROOF_LEN: usize = 16 << 20;
/// Version of the file.
const PROOF_VERSION: u32 = 1;

/// Why a proof proves nothing, or could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionProofError {
    /// Junk.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// From the future: upgrade.
    #[error("the proof has format {0}; this version of bcai reads format {PROOF_VERSION}: upgrade bcai")]
    Version(u32),
    /// Of another network, or damaged.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// A lie, or damage.
    #[error(transparent)]
    Light(#[from] LightError),
    /// Damage.
    #[error("the proof leads to no head")]
    NoHead,
    /// A lie, or damage.
    #[error("the entry is not genuine: {0}")]
    Signature(#[from] CryptoError),
    /// A lie, or damage.
    #[error("the entry is not in the log: {0}")]
    Inclusion(#[from] TreeProofError),
    /// A lie, or damage.
    #[error("the proof's parts do not fit each other: {0}")]
    Unfit(&'static str),
    /// The asker's mistake.
    #[error(transparent)]
    Unknown(#[from] Refusal),
    /// Too many sets on the way.
    #[error("the proof would be {0} bytes long, over its limit of {MAX_PROOF_LEN}")]
    TooLong(usize),
}

/// The proof of a version.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct VersionProof {
    /// `PROOF_VERSION`.
    #[n(0)]
    version: u32,
    #[n(1)]
    document: GenesisDoc,
    /// Heads from the genesis on, each believed because of the one before; the last is the head of the proof.
    #[n(2)]
    steps: Vec<Update>,
    /// What published the version.
    #[n(3)]
    entry: Entry,
    /// The entry's number in the log, from 0.
    #[n(4)]
    index: u64,
    #[n(5)]
    inclusion: Vec<LogRoot>,
    /// The version as the log has it under the head.
    #[n(6)]
    held: Version,
    #[n(7)]
    held_proof: StateProof,
    /// The dataset likewise.
    #[n(8)]
    name: Item,
    #[n(9)]
    name_proof: StateProof,
}

/// What was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// As of this head.
    pub head: Header,
    /// How many of how many validators signed it.
    pub signers: usize,
    pub validators: usize,
    pub entry: EntryId,
    pub index: u64,
    pub name: Name,
    pub version: Version,
    /// The first key of who first published the name.
    pub owner: PublicKey,
    pub latest: Option<Label>,
}

impl VersionProof {
    /// Proves `name@label` of `ledger`. `steps` lead from the genesis to its newest head (see `light::Climb`), `leaves` are
    /// those of all its entries, and `entry` is number `index` of them.
    pub fn new(
        ledger: &Ledger,
        (name, label): (&Name, &Label),
        steps: Vec<Update>,
        leaves: &[LogRoot],
        (index, entry): (usize, Entry),
    ) -> Result<Self, VersionProofError> {
        let version = ledger.resolve(name.as_str(), Some(label.as_str()))?.clone();
        let dataset = ledger.dataset(name.as_str());
        let dataset = dataset.ok_or(VersionProofError::Unfit("the log has no such dataset"))?;
        let inclusion = merkle::prove_inclusion(leaves, index);
        let proof = Self {
            version: PROOF_VERSION,
            document: ledger.document().clone(),
            steps,
            entry,
            index: index as u64,
            inclusion: inclusion.ok_or(VersionProofError::Unfit("the log has no such entry"))?,
            held_proof: ledger.prove(&StateKey::Version(name.clone(), version.label.clone())),
            held: version,
            name: Item::Name {
                owner: dataset.owner,
                versions: dataset.versions.len() as u64,
                latest: dataset.latest().map(|latest| latest.label.clone()),
            },
            name_proof: ledger.prove(&StateKey::Name(name.clone())),
        };
        let len = proof.encode().len();
        if len > MAX_PROOF_LEN { Err(VersionProofError::TooLong(len)) } else { Ok(proof) }
    }

    /// The canonical encoding: the file.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes foreign bytes. Says nothing about what they prove.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("a proof", bytes, MAX_PROOF_LEN)
    }

    /// What `bytes` prove about network `genesis`.
    pub fn verify(bytes: &[u8], genesis: Genesis) -> Result<Proven, VersionProofError> {
        let proof = Self::decode(bytes)?;
        if proof.version != PROOF_VERSION {
            return Err(VersionProofError::Version(proof.version));
        }
        proof.document.check()?;
        let found = proof.document.id();
        if found != genesis {
            return Err(GenesisError::Other { expected: genesis, found }.into());
        }
        let start = Trusted::at_genesis(&proof.document);
        let trusted = proof.steps.iter().try_fold(start, |trusted, step| trusted.advance(step))?;
        proof.check_under(trusted)
    }

    /// Checks the entry and the items under the head that the steps have led to.
    fn check_under(self, mut trusted: Trusted) -> Result<Proven, VersionProofError> {
        let unfit = VersionProofError::Unfit;
        let head = trusted.head().cloned().ok_or(VersionProofError::NoHead)?;
        self.entry.verify()?;
        let leaf = merkle::leaf(&self.entry.encode());
        let (root, size) = (head.header.log_root, head.header.log_size);
        merkle::verify_inclusion(root, size, self.index, leaf, &self.inclusion)?;
        let EntryBody::Publish(publish) = &self.entry.body else {
            return Err(unfit("the entry publishes nothing"));
        };
        let (name, label) = (publish.name.clone(), publish.version.clone());
        let item = Item::Version(self.held.clone());
        trusted.observe(&StateKey::Version(name.clone(), label), Some(&item), &self.held_proof)?;
        if self.held.published.entry != self.entry.id() || self.held.snapshot != publish.snapshot {
            return Err(unfit("the version is of another entry"));
        }
        trusted.observe(&StateKey::Name(name.clone()), Some(&self.name), &self.name_proof)?;
        let Item::Name { owner, latest, .. } = self.name else {
            return Err(unfit("the dataset is something else"));
        };
        Ok(Proven {
            signers: head.certificate.signers().count(),
            validators: head.validators.members().len(),
            head: head.header,
            entry: self.held.published.entry,
            index: self.index,
            name,
            version: self.held,
            owner,
            latest,
        })
    }
}
