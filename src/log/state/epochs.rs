//! Epochs: when one ends, and who votes in the two after it.
//!
//! Owns: the seats of this epoch and of the next, and the seed of this epoch's challenges.
//! Must not know: how weights follow from stake and score; that is `weights`.
//! Invariant: what an entry of epoch *e* changes is felt in epoch *e* + 2, and no more than a tenth of the weight moves
//! between two epochs.
//! Trust: header times are those of decided headers. Threads: pure values.
//!
//! An epoch ends with the first header that is `epoch_ms` or more after the one that ended the epoch before; at most one
//! epoch ends at a height, however long nothing was decided. An operator that votes with another key than before
//! keeps its weight, and the new key takes over two epochs later.

use std::collections::BTreeMap;
use std::sync::Arc;

use minicbor::Encode;

use super::{Held, Item, Standing, State, StateKey};
use crate::crypto::PublicKey;
use crate::id::HeaderId;
use crate::log::roles::Role;
use crate::log::validators::{MAX_VALIDATORS, Validator, ValidatorSet};
use crate::log::weights::{self, Candidate, Share};

/// A place among the validators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode)]
pub struct Seat {
    /// The first key of an identity.
    #[n(0)]
    pub operator: PublicKey,
    #[n(1)]
    pub voter: PublicKey,
    #[n(2)]
    pub weight: u64,
}

/// Where the log is in its epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epochs {
    /// Counted from 0.
    pub number: u64,
    /// The time of the header that ended the epoch before, in milliseconds since 1970.
    pub started_ms: u64,
    /// The id of that header, which nobody knew before the epoch; none in epoch 0.
    pub seed: Option<HeaderId>,
    /// Who votes in this epoch.
    pub voters: ValidatorSet,
    /// Who votes in the next.
    pub next: ValidatorSet,
    /// Who holds the places of `next`, by operator.
    pub next_seats: Arc<[Seat]>,
}

impl Epochs {
    pub(super) fn genesis(validators: &ValidatorSet, time_ms: u64) -> Self {
        let seat = |v: &Validator| Seat { operator: v.key, voter: v.key, weight: v.weight };
        Self {
            number: 0,
            started_ms: time_ms,
            seed: None,
            voters: validators.clone(),
            next: validators.clone(),
            next_seats: validators.members().iter().map(seat).collect(),
        }
    }
}

impl State {
    pub(in crate::log) fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Whether a header of this time, on this state, is the last of its epoch.
    fn ends_epoch(&self, time_ms: u64) -> bool {
        time_ms >= self.epochs.started_ms.saturating_add(self.params().epoch_ms)
    }

    /// Who votes on the height after a header of this time.
    pub(in crate::log) fn voters_after(&self, time_ms: u64) -> &ValidatorSet {
        if self.ends_epoch(time_ms) { &self.epochs.next } else { &self.epochs.voters }
    }

    /// Makes ready for the height after `previous`, given by its id and time: begins a new epoch if that one was the last
    /// of the old.
    pub(in crate::log) fn begin(&mut self, previous: Option<(HeaderId, u64)>) {
        let Some((seed, time_ms)) = previous.filter(|(_, time_ms)| self.ends_epoch(*time_ms)) else { return };
        self.settle_replicas();
        let (next_seats, next) = self.schedule();
        self.epochs = Arc::new(Epochs {
            number: self.epochs.number + 1,
            started_ms: time_ms,
            seed: Some(seed),
            voters: self.epochs.next.clone(),
            next,
            next_seats,
        });
        self.note_epoch();
    }

    pub(super) fn note_epoch(&mut self) {
        let epochs = self.epochs.clone();
        let item = Item::Epoch {
            number: epochs.number,
            started_ms: epochs.started_ms,
            seed: epochs.seed,
            voters: epochs.voters.digest(),
            next: epochs.next.digest(),
        };
        self.set(&StateKey::Epoch, &item, Held::Elsewhere);
    }

    /// Who votes in the epoch after the next.
    fn schedule(&self) -> (Arc<[Seat]>, ValidatorSet) {
        let base: Vec<Share> =
            self.epochs.next_seats.iter().map(|seat| (seat.operator, seat.weight)).collect();
        let weights = self.weights_after(&base);
        let seats: Vec<Seat> = weights.into_iter().filter_map(|share| self.seat(share)).collect();
        let member = |seat: &Seat| Validator { key: seat.voter, weight: seat.weight };
        match ValidatorSet::new(seats.iter().map(member).collect()) {
            Ok(set) => (seats.into(), set),
            // Nobody is left to vote: a network does not end itself.
            Err(_) => (self.epochs.next_seats.clone(), self.epochs.next.clone()),
        }
    }

    fn weights_after(&self, base: &[Share]) -> Vec<Share> {
        let (params, before) = (self.params(), weights::normalised(base));
        let seats = params.seats as usize;
        let candidates = self.candidates();
        let mut target = weights::target(params.policy, &candidates, seats);
        if target.is_empty() || target == before {
            return base.to_vec();
        }
        let is_seated = |key: &PublicKey| base.binary_search_by_key(key, |share| share.0).is_ok();
        let newcomers = target.iter().filter(|share| !is_seated(&share.0)).count();
        if base.len() + newcomers > MAX_VALIDATORS {
            // Those who are leaving still fill the set: newcomers wait until they are gone.
            let seated: Vec<Candidate> = candidates.into_iter().filter(|c| is_seated(&c.operator)).collect();
            target = weights::target(params.policy, &seated, seats);
        }
        if target.is_empty() { base.to_vec() } else { weights::step(&before, &target) }
    }

    /// Operators who may be seated, by key.
    fn candidates(&self) -> Vec<Candidate> {
        let mut stakes: BTreeMap<PublicKey, u128> = BTreeMap::new();
        for holder in self.holders.values() {
            *stakes.entry(holder.behind).or_default() += u128::from(holder.amount);
        }
        let active = self.operators.iter().filter(|(_, operator)| operator.standing == Standing::Active);
        let allowed = active.filter(|(key, _)| self.roles_of(key).allows(Role::Validator));
        let candidate = |(key, _): (&PublicKey, _)| Candidate {
            operator: *key,
            stake: stakes.get(key).copied().unwrap_or(0),
            score: self.score(key),
        };
        allowed.map(candidate).collect()
    }

    /// The operator's seat, with the key that it votes with now; one who left keeps the key it had.
    fn seat(&self, (operator, weight): Share) -> Option<Seat> {
        let seated = || self.epochs.next_seats.iter().find(|seat| seat.operator == operator);
        let voter =
            self.operator(&operator).map(|held| held.voter).or_else(|| seated().map(|seat| seat.voter));
        voter.map(|voter| Seat { operator, voter, weight })
    }
}
