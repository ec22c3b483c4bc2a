//! What the log says now, and the rules by which one more entry changes it.
//!
//! Owns: the order in which an entry is judged, and the map under the state root; the rules of each subject are in the
//! modules below. Must not know: headers, certificates.
//! Invariant: a published version never changes but for being withdrawn; the state root is that of exactly the items held.
//! Trust: entries are foreign; every rule is checked here, the signature first.
//! Threads: pure values; a clone shares everything with its original until one of them changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::{Entry, EntryBody};
use super::genesis::GenesisDoc;
use super::merkle::{self, Frontier};
use super::params::Params;
use super::refusal::Refusal;
use super::sparse::{SparseMap, StateProof};
use crate::crypto::{Claim, CryptoError, PublicKey, Signature};
use crate::id::{EntryId, Genesis, StateRoot};

mod datasets;
mod epochs;
mod items;
mod operators;
mod replicas;
mod rights;

pub use epochs::{Epochs, Seat};
pub use items::{
    Dataset, Granted, Holder, Identity, Item, Operator, Roles, Stamp, Standing, StateKey, Target, Version,
    Voter, Yanked,
};
pub use replicas::{Commitment, OpenChallenge};

/// What the map holds beside the digests, so that it is also an index of the state.
#[derive(Debug, Clone)]
enum Held {
    Dataset(Arc<Dataset>),
    Nonce(u64),
    Roles(Roles),
    Identity(Identity),
    Voter(Voter),
    /// Held by its dataset, or by a table of the state.
    Elsewhere,
}

/// What became of an entry that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It would change the state.
    New,
    /// An earlier entry did the same, so that this one has succeeded without being recorded.
    Already {
        /// Where the earlier one was decided; 0 when the genesis document says it.
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
    /// As `Now`, but for those of the authors, which were checked when the entries were admitted.
    AuthorsKnown,
    /// Collected, for whoever asked to check them in one batch.
    Later(Vec<Claim>),
}

impl Checks {
    fn claim(&mut self, claim: Claim) -> Result<(), CryptoError> {
        match self {
            Self::Now | Self::AuthorsKnown => claim.verify(),
            Self::Later(claims) => {
                claims.push(claim);
                Ok(())
            }
        }
    }

    fn author(&mut self, entry: &Entry) -> Result<(), CryptoError> {
        match self {
            Self::AuthorsKnown => Ok(()),
            _ => self.claim(entry.claim()),
        }
    }
}

/// What an entry is judged with, beside the state.
struct Context<'a> {
    genesis: Genesis,
    author: PublicKey,
    /// The first key of the author's identity.
    who: PublicKey,
    checks: &'a mut Checks,
}

impl Context<'_> {
    /// Has it checked that `key` signed `message` too.
    fn claim(&mut self, key: PublicKey, message: Vec<u8>, signature: Signature) -> Result<(), CryptoError> {
        self.checks.claim(Claim { key, message: message.into(), signature })
    }
}

/// The state after some height.
#[derive(Debug, Clone)]
pub(super) struct State {
    map: SparseMap<Held>,
    log: Frontier,
    params: Arc<(Params, Stamp)>,
    operators: Arc<BTreeMap<PublicKey, Operator>>,
    holders: Arc<BTreeMap<PublicKey, Holder>>,
    epochs: Arc<Epochs>,
    replicas: Arc<replicas::Replicas>,
    /// How many identities have the role admin.
    admins: usize,
    /// Those that have the role storage itself, by the first keys of their identities.
    storers: Arc<BTreeSet<PublicKey>>,
}

impl State {
    /// The state before the first height.
    pub(super) fn genesis(doc: &GenesisDoc) -> Self {
        let stamp = Stamp::genesis(doc.time_ms);
        let mut state = Self {
            map: SparseMap::default(),
            log: Frontier::default(),
            params: Arc::new((doc.params.clone(), stamp)),
            operators: Arc::default(),
            holders: Arc::default(),
            epochs: Arc::new(Epochs::genesis(&doc.validators, doc.time_ms)),
            replicas: Arc::default(),
            admins: 0,
            storers: Arc::default(),
        };
        state.found(doc, stamp);
        state
    }

    pub(super) fn root(&self) -> StateRoot {
        self.map.root()
    }

    pub(super) fn log(&self) -> &Frontier {
        &self.log
    }

    pub(super) fn params(&self) -> &Params {
        &self.params.0
    }

    pub(super) fn prove(&self, key: &StateKey) -> StateProof {
        self.map.prove(&key.digest())
    }

    pub(super) fn nonce(&self, author: &PublicKey) -> u64 {
        match self.held(&StateKey::Nonce(*author)) {
            Some(Held::Nonce(nonce)) => *nonce,
            _ => 0,
        }
    }

    /// Whether `entry` would execute. Its signatures are left to `checks`.
    pub(super) fn admit(
        &self,
        genesis: Genesis,
        entry: &Entry,
        checks: &mut Checks,
    ) -> Result<Admission, Refusal> {
        if entry.genesis != genesis {
            return Err(Refusal::OtherNetwork { expected: genesis, found: entry.genesis });
        }
        checks.author(entry)?;
        let author = entry.author;
        if let Some(done) = self.rotated_already(&author, &entry.body) {
            return Ok(done);
        }
        let mut context = Context { genesis, author, who: self.acting(&author)?, checks };
        let admission = self.judge(&entry.body, &mut context)?;
        // Last, so that sending the same thing once more reports the success that it had.
        let last = self.nonce(&author);
        if admission == Admission::New && entry.nonce <= last {
            return Err(Refusal::Nonce { author, last, found: entry.nonce });
        }
        Ok(admission)
    }

    fn judge(&self, body: &EntryBody, context: &mut Context<'_>) -> Result<Admission, Refusal> {
        match body {
            EntryBody::Publish(publish) => self.admit_publish(publish, context),
            EntryBody::Tag(tag) => self.admit_tag(tag, context),
            EntryBody::Yank(yank) => self.admit_yank(yank, context),
            EntryBody::Grant(grant) => self.admit_grant(grant, context),
            EntryBody::Role(change) => self.admit_role(change, context),
            EntryBody::Rotate(rotate) => self.admit_rotate(rotate, context),
            EntryBody::Validator(change) => self.admit_validator(change, context),
            EntryBody::Stake(stake) => self.admit_stake(stake, context),
            EntryBody::Delegate(delegate) => self.admit_delegate(delegate, context),
            EntryBody::StorageCommit(commit) => self.admit_commit(commit, context),
            EntryBody::StorageReceipt(receipt) => self.admit_receipt(receipt, context),
            EntryBody::Evidence(evidence) => self.admit_evidence(evidence, context),
            EntryBody::Params(params) => self.admit_params(params, context),
        }
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
        let who = self.first_of(&entry.author);
        match &entry.body {
            EntryBody::Publish(publish) => self.publish(entry.author, who, publish, stamp),
            EntryBody::Tag(tag) => self.tag(tag, stamp),
            EntryBody::Yank(yank) => self.yank(yank, stamp),
            EntryBody::Grant(grant) => self.grant(grant, stamp),
            EntryBody::Role(change) => self.set_roles(&change.to, change.roles, stamp),
            EntryBody::Rotate(rotate) => self.rotate(&entry.author, rotate, stamp),
            EntryBody::Validator(change) => self.change_validator(who, change, stamp),
            EntryBody::Stake(stake) => self.stake(stake, stamp),
            EntryBody::Delegate(delegate) => self.delegate(who, delegate, stamp),
            EntryBody::StorageCommit(commit) => self.commit(who, commit, stamp),
            EntryBody::StorageReceipt(receipt) => self.receive(who, receipt, stamp),
            EntryBody::Evidence(evidence) => self.jail(&evidence.voter, stamp),
            EntryBody::Params(params) => self.set_params(params, stamp),
        }
        self.set(&StateKey::Nonce(entry.author), &Item::Nonce(entry.nonce), Held::Nonce(entry.nonce));
        self.log.append(merkle::leaf(&encoded));
        Ok(Admission::New)
    }

    fn held(&self, key: &StateKey) -> Option<&Held> {
        self.map.get(&key.digest())
    }

    fn set(&mut self, key: &StateKey, item: &Item, held: Held) {
        self.map.insert(key.digest(), item.digest(), held);
    }
}
