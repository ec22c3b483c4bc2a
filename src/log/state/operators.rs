//! The rules for those who decide: operators and their voting keys, stake and whom it stands behind, evidence, and the
//! parameters.
//!
//! Owns: the tables that weights come from. Must not know: what weights follow from them.
//! Invariant: a voting key belongs to one operator for ever, and one that equivocated never votes again.
//! Trust: entries are foreign, their author is proven. Threads: pure values.

use std::sync::Arc;

use super::{Admission, Context, Held, Holder, Item, Operator, Stamp, Standing, State, StateKey, Voter};
use crate::crypto::PublicKey;
use crate::log::entry::{Delegate, Evidence, Stake, ValidatorChange};
use crate::log::genesis::GenesisDoc;
use crate::log::params::Params;
use crate::log::refusal::Refusal;
use crate::log::roles::{Role, RoleSet};
use crate::log::weights::MAX_STAKE;

/// Most operators that a network remembers, those who left not counted.
pub const MAX_OPERATORS: usize = 4096;
/// Most holders of stake.
pub const MAX_HOLDERS: usize = 16_384;

impl State {
    /// Enters what the genesis document says.
    pub(super) fn found(&mut self, doc: &GenesisDoc, stamp: Stamp) {
        for member in doc.validators.members() {
            let key = member.key;
            self.set_roles(&key, RoleSet::NONE.with(Role::Validator), stamp);
            self.set_operator(key, Operator { voter: key, standing: Standing::Active, stamp });
            self.set_voter(key, Voter { operator: key, jailed: None });
            self.set_holder(key, Holder { amount: member.weight, behind: key, stamp });
        }
        for admin in &doc.admins {
            self.set_roles(admin, self.roles_of(admin).with(Role::Admin), stamp);
        }
        self.set_params(&doc.params, stamp);
        self.note_epoch();
    }

    pub(in crate::log) fn operator(&self, first: &PublicKey) -> Option<&Operator> {
        self.operators.get(first)
    }

    pub(in crate::log) fn operators(&self) -> impl Iterator<Item = (&PublicKey, &Operator)> {
        self.operators.iter()
    }

    pub(in crate::log) fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.holders.values()
    }

    pub(in crate::log) fn holder(&self, first: &PublicKey) -> Option<&Holder> {
        self.holders.get(first)
    }

    pub(in crate::log) fn voter(&self, key: &PublicKey) -> Option<&Voter> {
        match self.held(&StateKey::Voter(*key)) {
            Some(Held::Voter(voter)) => Some(voter),
            _ => None,
        }
    }

    pub(super) fn admit_validator(
        &self,
        change: &ValidatorChange,
        context: &mut Context<'_>,
    ) -> Result<Admission, Refusal> {
        match change {
            ValidatorChange::Join { voter, consent } => {
                let message = ValidatorChange::message(context.genesis, &context.who, voter);
                context.claim(*voter, message, *consent)?;
                self.admit_join(voter, context)
            }
            ValidatorChange::Leave => match self.operator(&context.who) {
                Some(Operator { standing: Standing::Active, .. }) => Ok(Admission::New),
                _ => Err(Refusal::NoOperator { key: context.author }),
            },
            ValidatorChange::Release { operator } => {
                self.require(Role::Admin, context, "release an operator from jail")?;
                match self.operator(&self.first_of(operator)) {
                    Some(Operator { standing: Standing::Jailed, .. }) => Ok(Admission::New),
                    _ => Err(Refusal::NotJailed { operator: *operator }),
                }
            }
        }
    }

    fn admit_join(&self, voter: &PublicKey, context: &Context<'_>) -> Result<Admission, Refusal> {
        self.require(Role::Validator, context, "join the validators")?;
        match self.voter(voter) {
            Some(Voter { operator, .. }) if *operator != context.who => {
                return Err(Refusal::KeyInUse { key: *voter });
            }
            Some(Voter { jailed: Some(stamp), .. }) => {
                return Err(Refusal::VoterJailed { voter: *voter, height: stamp.height });
            }
            _ => {}
        }
        match self.operator(&context.who) {
            Some(Operator { standing: Standing::Jailed, stamp, .. }) => {
                Err(Refusal::Jailed { operator: context.author, height: stamp.height })
            }
            Some(held) if held.standing == Standing::Active && held.voter == *voter => Ok(held.stamp.into()),
            None if self.operators.len() >= MAX_OPERATORS => {
                Err(Refusal::TooMany { what: "operators", limit: MAX_OPERATORS })
            }
            _ => Ok(Admission::New),
        }
    }

    pub(super) fn change_validator(&mut self, who: PublicKey, change: &ValidatorChange, stamp: Stamp) {
        match change {
            ValidatorChange::Join { voter, .. } => {
                self.set_operator(who, Operator { voter: *voter, standing: Standing::Active, stamp });
                self.set_voter(*voter, Voter { operator: who, jailed: None });
            }
            ValidatorChange::Leave => self.set_standing(who, Standing::Left, stamp),
            ValidatorChange::Release { operator } => {
                self.set_standing(self.first_of(operator), Standing::Left, stamp);
            }
        }
    }

    pub(super) fn admit_stake(&self, stake: &Stake, context: &Context<'_>) -> Result<Admission, Refusal> {
        self.require(Role::Admin, context, "set a stake")?;
        let holder = self.acting(&stake.holder)?;
        if stake.amount > MAX_STAKE {
            return Err(Refusal::StakeTooLarge { amount: stake.amount });
        }
        match self.holder(&holder) {
            Some(held) if held.amount == stake.amount => Ok(held.stamp.into()),
            None if stake.amount == 0 => Err(Refusal::NoStake { key: stake.holder }),
            None if self.holders.len() >= MAX_HOLDERS => {
                Err(Refusal::TooMany { what: "holders of stake", limit: MAX_HOLDERS })
            }
            _ => Ok(Admission::New),
        }
    }

    pub(super) fn stake(&mut self, stake: &Stake, stamp: Stamp) {
        let first = self.first_of(&stake.holder);
        let behind = self.holder(&first).map_or(first, |held| held.behind);
        self.set_holder(first, Holder { amount: stake.amount, behind, stamp });
    }

    pub(super) fn admit_delegate(
        &self,
        delegate: &Delegate,
        context: &Context<'_>,
    ) -> Result<Admission, Refusal> {
        let held = self.holder(&context.who).ok_or(Refusal::NoStake { key: context.author })?;
        let to = self.acting(&delegate.to)?;
        if held.behind == to {
            return Ok(held.stamp.into());
        }
        match to == context.who || self.operators.contains_key(&to) {
            true => Ok(Admission::New),
            false => Err(Refusal::NoOperator { key: delegate.to }),
        }
    }

    pub(super) fn delegate(&mut self, who: PublicKey, delegate: &Delegate, stamp: Stamp) {
        let behind = self.first_of(&delegate.to);
        if let Some(held) = self.holder(&who).copied() {
            self.set_holder(who, Holder { behind, stamp, ..held });
        }
    }

    pub(super) fn admit_evidence(
        &self,
        evidence: &Evidence,
        context: &mut Context<'_>,
    ) -> Result<Admission, Refusal> {
        // Whoever holds proof may file it: it convicts by its signatures and not by who brings it.
        let voter = self.voter(&evidence.voter).ok_or(Refusal::NotAVoter { key: evidence.voter })?;
        if let Some(stamp) = voter.jailed {
            return Ok(stamp.into());
        }
        if !evidence.is_contradiction() {
            return Err(Refusal::NoContradiction { voter: evidence.voter });
        }
        for claim in evidence.claims(context.genesis) {
            context.checks.claim(claim)?;
        }
        Ok(Admission::New)
    }

    pub(super) fn jail(&mut self, key: &PublicKey, stamp: Stamp) {
        let Some(voter) = self.voter(key).copied() else { return };
        self.set_voter(*key, Voter { jailed: Some(stamp), ..voter });
        // Also one who has left, so that it cannot just come back; its old voting key is then a key like any.
        let held = self.operator(&voter.operator).map_or(*key, |held| held.voter);
        self.set_operator(voter.operator, Operator { voter: held, standing: Standing::Jailed, stamp });
    }

    pub(super) fn admit_params(&self, params: &Params, context: &Context<'_>) -> Result<Admission, Refusal> {
        self.require(Role::Admin, context, "change the parameters")?;
        params.check()?;
        match self.params.0 == *params {
            true => Ok(self.params.1.into()),
            false => Ok(Admission::New),
        }
    }

    pub(super) fn set_params(&mut self, params: &Params, stamp: Stamp) {
        self.params = Arc::new((params.clone(), stamp));
        self.set(&StateKey::Params, &Item::Params(params.clone()), Held::Elsewhere);
    }

    fn set_standing(&mut self, first: PublicKey, standing: Standing, stamp: Stamp) {
        if let Some(held) = self.operator(&first).copied() {
            self.set_operator(first, Operator { standing, stamp, ..held });
        }
    }

    fn set_operator(&mut self, first: PublicKey, operator: Operator) {
        let operators = Arc::make_mut(&mut self.operators);
        match operator.standing {
            Standing::Left => operators.remove(&first),
            Standing::Active | Standing::Jailed => operators.insert(first, operator),
        };
        self.set(&StateKey::Operator(first), &Item::Operator(operator), Held::Elsewhere);
    }

    fn set_voter(&mut self, key: PublicKey, voter: Voter) {
        self.set(&StateKey::Voter(key), &Item::Voter(voter), Held::Voter(voter));
    }

    fn set_holder(&mut self, first: PublicKey, holder: Holder) {
        let holders = Arc::make_mut(&mut self.holders);
        match holder.amount {
            0 => holders.remove(&first),
            _ => holders.insert(first, holder),
        };
        self.set(&StateKey::Holder(first), &Item::Holder(holder), Held::Elsewhere);
    }
}
