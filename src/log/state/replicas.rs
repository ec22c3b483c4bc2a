//! The rules for storage: commitments of one epoch, their challenges in the next, and the scores that follow.
//!
//! Owns: open commitments and scores. Must not know: chunks, or who asked whom.
//! Invariant: a commitment is made before anybody knows its challenge, and answered at most once, in the epoch after it.
//! Trust: receipts are foreign: their auditors are chosen here and their signatures checked. Threads: pure values.
//!
//! Auditors of a commitment are those who, as the log has it, hold the snapshot: the dataset's owner and whoever else
//! committed to it in the same epoch. The challenge ranks them, and the first few are asked. Commitments that are open are
//! not items of the state map, whose items are never removed; the scores that they lead to are.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::datasets::not_yanked;
use super::{Admission, Context, Held, Item, Stamp, State, StateKey};
use crate::crypto::PublicKey;
use crate::id::SnapshotId;
use crate::log::entry::{MAX_WITNESSES, StorageCommit, StorageReceipt};
use crate::log::names::{Label, Name};
use crate::log::refusal::Refusal;
use crate::log::roles::Role;
use crate::log::storage::{self, Challenge};

/// Most commitments of one epoch.
pub const MAX_COMMITMENTS: usize = 16_384;
/// Most of them by one storage node.
pub const MAX_COMMITMENTS_EACH: u64 = 1024;

/// That somebody stores something in an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    pub name: Name,
    pub version: Label,
    pub bytes: u64,
    /// The dataset's owner.
    pub owner: PublicKey,
    pub made: Stamp,
    /// When a receipt for it was decided.
    pub proven: Option<Stamp>,
}

/// A challenge that has not been answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenChallenge {
    pub snapshot: SnapshotId,
    pub commitment: Commitment,
    pub challenge: Challenge,
    /// By the first key of their identity.
    pub auditors: Vec<PublicKey>,
    /// How many of them must confirm the answer.
    pub needed: usize,
}

type Commitments = BTreeMap<SnapshotId, BTreeMap<PublicKey, Commitment>>;

#[derive(Debug, Clone, Default)]
pub(super) struct Replicas {
    /// Of this epoch.
    made: Commitments,
    count: usize,
    /// By storage node.
    each: BTreeMap<PublicKey, u64>,
    /// Of the epoch before, whose challenges this epoch's seed has opened.
    open: Commitments,
    scores: BTreeMap<PublicKey, u64>,
}

impl State {
    /// By the first key of an identity.
    pub(in crate::log) fn score(&self, first: &PublicKey) -> u64 {
        self.replicas.scores.get(first).copied().unwrap_or(0)
    }

    /// Whether `prover` has committed itself to a snapshot in this epoch.
    pub(in crate::log) fn has_committed(&self, prover: &PublicKey, snapshot: &SnapshotId) -> bool {
        self.replicas.made.get(snapshot).is_some_and(|made| made.contains_key(prover))
    }

    /// What `prover` has yet to answer in this epoch.
    pub(in crate::log) fn open_challenges(&self, prover: &PublicKey) -> Vec<OpenChallenge> {
        let Some(seed) = self.epochs.seed else { return Vec::new() };
        let mine = self.replicas.open.iter().filter_map(|(snapshot, all)| Some((snapshot, all.get(prover)?)));
        let unanswered = mine.filter(|(_, commitment)| commitment.proven.is_none());
        let open = unanswered.map(|(snapshot, commitment)| {
            let challenge = Challenge::new(seed, prover, *snapshot);
            let (auditors, needed) = self.auditors(*snapshot, prover, commitment, &challenge);
            OpenChallenge { snapshot: *snapshot, commitment: commitment.clone(), challenge, auditors, needed }
        });
        open.collect()
    }

    /// Who may confirm an answer, and how many of them must.
    fn auditors(
        &self,
        snapshot: SnapshotId,
        prover: &PublicKey,
        commitment: &Commitment,
        challenge: &Challenge,
    ) -> (Vec<PublicKey>, usize) {
        let others = self.replicas.open.get(&snapshot).into_iter().flat_map(BTreeMap::keys);
        let mut eligible: Vec<PublicKey> = others.copied().collect();
        eligible.push(commitment.owner);
        eligible.retain(|key| key != prover);
        eligible.sort_by_cached_key(|key| challenge.rank(key));
        eligible.dedup();
        let needed = (self.params().audits as usize).min(eligible.len());
        eligible.truncate(storage::panel(needed));
        (eligible, needed)
    }

    pub(super) fn admit_commit(
        &self,
        commit: &StorageCommit,
        context: &Context<'_>,
    ) -> Result<Admission, Refusal> {
        self.require(Role::Storage, context, "commit itself to storing")?;
        if commit.epoch != self.epochs.number {
            return Err(Refusal::OtherEpoch { expected: self.epochs.number, found: commit.epoch });
        }
        let name = &commit.name;
        let dataset = self.named(name).ok_or_else(|| Refusal::NoDataset { name: name.to_string() })?;
        let version = dataset.version(commit.version.as_str());
        let version = version.ok_or_else(|| dataset.no_version(commit.version.as_str()))?;
        let held = self.replicas.made.get(&version.snapshot).and_then(|all| all.get(&context.who));
        if let Some(held) = held {
            return Ok(held.made.into());
        }
        not_yanked(name, version)?;
        if self.replicas.each.get(&context.who).is_some_and(|count| *count >= MAX_COMMITMENTS_EACH) {
            let limit = MAX_COMMITMENTS_EACH as usize;
            return Err(Refusal::TooMany { what: "commitments of one node in an epoch", limit });
        }
        if self.replicas.count >= MAX_COMMITMENTS {
            return Err(Refusal::TooMany { what: "commitments in an epoch", limit: MAX_COMMITMENTS });
        }
        Ok(Admission::New)
    }

    pub(super) fn commit(&mut self, who: PublicKey, commit: &StorageCommit, made: Stamp) {
        let Some(dataset) = self.named(&commit.name).cloned() else { return };
        let Some(version) = dataset.version(commit.version.as_str()) else { return };
        let commitment = Commitment {
            name: commit.name.clone(),
            version: commit.version.clone(),
            bytes: version.bytes,
            owner: dataset.owner,
            made,
            proven: None,
        };
        let replicas = Arc::make_mut(&mut self.replicas);
        replicas.made.entry(version.snapshot).or_default().insert(who, commitment);
        replicas.count += 1;
        *replicas.each.entry(who).or_default() += 1;
    }

    pub(super) fn admit_receipt(
        &self,
        receipt: &StorageReceipt,
        context: &mut Context<'_>,
    ) -> Result<Admission, Refusal> {
        let (answered, prover) = (&receipt.answered, context.who);
        let seed = match self.epochs.seed {
            Some(seed) if answered.epoch + 1 == self.epochs.number => seed,
            _ => {
                let expected = self.epochs.number.saturating_sub(1);
                return Err(Refusal::OtherEpoch { expected, found: answered.epoch });
            }
        };
        let held = self.replicas.open.get(&answered.snapshot).and_then(|all| all.get(&prover));
        let held = held.ok_or(Refusal::NoCommitment { snapshot: answered.snapshot })?;
        if let Some(stamp) = held.proven {
            return Ok(stamp.into());
        }
        if answered.seed != seed || answered.bytes != held.bytes {
            return Err(Refusal::OtherChallenge { snapshot: answered.snapshot });
        }
        let challenge = Challenge::new(seed, &prover, answered.snapshot);
        let (auditors, needed) = self.auditors(answered.snapshot, &prover, held, &challenge);
        let found = receipt.audits.len();
        if needed == 0 || found < needed || found > MAX_WITNESSES {
            return Err(Refusal::Audits { needed: needed.max(1), found, asked: auditors.len() });
        }
        let mut counted = Vec::with_capacity(found);
        for audit in &receipt.audits {
            let auditor = self.acting(&audit.auditor)?;
            if !auditors.contains(&auditor) || counted.contains(&auditor) {
                return Err(Refusal::Auditor { auditor: audit.auditor });
            }
            counted.push(auditor);
            context.checks.claim(audit.claim(context.genesis, &prover, answered))?;
        }
        Ok(Admission::New)
    }

    pub(super) fn receive(&mut self, who: PublicKey, receipt: &StorageReceipt, stamp: Stamp) {
        let replicas = Arc::make_mut(&mut self.replicas);
        let open = replicas.open.get_mut(&receipt.answered.snapshot).and_then(|all| all.get_mut(&who));
        if let Some(commitment) = open {
            commitment.proven = Some(stamp);
        }
    }

    /// At the end of an epoch: whose challenges were open is scored, and what was committed becomes open.
    pub(super) fn settle_replicas(&mut self) {
        let mut earned: BTreeMap<PublicKey, (u64, u64)> = BTreeMap::new();
        for (node, commitment) in self.replicas.open.values().flatten() {
            let (proven, missed) = earned.entry(*node).or_default();
            let sum = if commitment.proven.is_some() { proven } else { missed };
            *sum = sum.saturating_add(storage::work(commitment.bytes));
        }
        for node in self.replicas.scores.keys() {
            earned.entry(*node).or_default();
        }
        let scored: Vec<(PublicKey, u64)> = earned
            .into_iter()
            .map(|(node, (proven, missed))| (node, storage::score(self.score(&node), proven, missed)))
            .collect();
        if scored.is_empty() && self.replicas.made.is_empty() {
            return;
        }
        let replicas = Arc::make_mut(&mut self.replicas);
        replicas.open = std::mem::take(&mut replicas.made);
        (replicas.count, replicas.each) = (0, BTreeMap::new());
        replicas.scores = scored.iter().filter(|(_, score)| *score > 0).copied().collect();
        for (node, score) in scored {
            self.set(&StateKey::Score(node), &Item::Score(score), Held::Elsewhere);
        }
    }
}
