//! What other validators say: checked, fed to the engine, kept for later, or answered.
//!
//! Owns: the rules for each message. Must not know: how messages travel.
//! Invariant: a message begins a height, or is kept for the next one, only if a validator has signed it; and a block is
//! executed only if whose turn it is has proposed it.
//! Trust: every message is foreign, and so is who sent it; both may lie.
//! Threads: the driver's, as part of its turn.

use arc_malachitebft_core_consensus::{Input, MAX_FUTURE_ROUND_LOOKAHEAD, ProposedValue};
use arc_malachitebft_core_types::{Round, Validity, ValueOrigin};

use super::Driver;
use crate::crypto::PublicKey;
use crate::log::Block;
use crate::validator::context::{Height, proposer};
use crate::validator::signing::{self, SignedProposal, SignedVote};
use crate::validator::wire::{Candidate, Message};
use crate::validator::{Now, ValidatorError};

/// Most blocks of one height and of one proposer that are judged. An honest one makes one, and brings back few of others
/// that are not known here; the rest is a flood, which must leave room for what others propose.
const MAX_CANDIDATES: usize = 4;
/// Most messages of the next height that are kept until this one is decided.
const MAX_AHEAD: usize = 512;
/// Most of them that may bring a block along.
const MAX_BLOCKS_AHEAD: usize = 4;

impl Driver {
    /// Acts on one message.
    pub(super) fn receive(
        &mut self,
        from: PublicKey,
        message: Message,
        now: Now,
    ) -> Result<(), ValidatorError> {
        match message {
            Message::Vote { vote, again } => self.receive_vote(from, vote, again, now),
            Message::Proposal { proposal, candidate } => {
                self.receive_proposal(from, proposal, candidate, now)
            }
            Message::Polka(certificate) if self.running => {
                self.step(Input::PolkaCertificate(certificate), now)
            }
            Message::Round(certificate) if self.running => {
                self.step(Input::RoundCertificate(certificate), now)
            }
            // It will be sent again once votes have begun the height here.
            Message::Polka(_) | Message::Round(_) => Ok(()),
            Message::Entry(entry) => {
                self.app.submit(*entry, None);
                Ok(())
            }
            Message::Want { height } => {
                self.offer(from, height);
                Ok(())
            }
            Message::Decided(block) => self.receive_block(from, *block, now),
        }
    }

    fn receive_vote(
        &mut self,
        from: PublicKey,
        vote: SignedVote,
        again: bool,
        now: Now,
    ) -> Result<(), ValidatorError> {
        let (height, here) = (vote.height, self.shell.height);
        if height == here && self.running {
            return self.step(Input::Vote(vote), now);
        }
        if self.set().get(&vote.voter).is_none() || !signing::vote_counts(self.shell.genesis, &vote) {
            return Ok(());
        }
        if height == here {
            self.start(now)?;
            return self.step(Input::Vote(vote), now);
        }
        // Only what is sent again is answered: a vote that is merely late needs no help, and answers would storm.
        if again && height < here {
            self.offer(from, height.0);
        } else if again && height > here {
            self.shell.outbox.push((Some(from), Message::Want { height: here.0 }));
        }
        self.put_aside(from, height, Message::Vote { vote, again });
        Ok(())
    }

    fn receive_proposal(
        &mut self,
        from: PublicKey,
        proposal: SignedProposal,
        candidate: Box<Candidate>,
        now: Now,
    ) -> Result<(), ValidatorError> {
        let (height, here, round) = (proposal.height, self.shell.height, proposal.round);
        let theirs_to_make = proposer(&self.set(), height, round).key == proposal.proposer;
        // The signature covers the header only: another body under it is the carrier's doing, not the proposer's.
        // And only what is proposed again, because it had two thirds before, may be somebody else's block.
        let header = &candidate.header;
        let complete = header.id() == proposal.id
            && header.height == height.0
            && header.body == candidate.body.digest()
            && (header.proposer == proposal.proposer || proposal.locked.is_some());
        if height < here
            || !theirs_to_make
            || !complete
            || !signing::proposal_counts(self.shell.genesis, &proposal)
        {
            return Ok(());
        }
        if height > here {
            self.put_aside(from, height, Message::Proposal { proposal, candidate });
            return Ok(());
        }
        if !self.running {
            self.start(now)?;
        }
        let current = i64::from(self.state.round().as_u32().unwrap_or(0));
        if i64::from(round) > current + i64::from(MAX_FUTURE_ROUND_LOOKAHEAD) {
            return Ok(());
        }
        let (id, author) = (proposal.id, proposal.proposer);
        let valid_round = proposal.locked.map_or(Round::Nil, Round::new);
        self.step(Input::Proposal(proposal), now)?;
        let theirs = self.judged.values().filter(|by| **by == author).count();
        if self.judged.contains_key(&id) || theirs >= MAX_CANDIDATES {
            return Ok(());
        }
        self.judged.insert(id, author);
        let valid = self.app.judge(&candidate, now);
        if valid {
            self.keep(*candidate);
        }
        let value = ProposedValue {
            height,
            round: Round::new(round),
            valid_round,
            proposer: author,
            value: id,
            validity: Validity::from_bool(valid),
        };
        self.step(Input::ProposedValue(value, ValueOrigin::Consensus), now)
    }

    /// Keeps a checked message of the next height until this one is decided.
    fn put_aside(&mut self, from: PublicKey, height: Height, message: Message) {
        let is_block = |m: &Message| matches!(m, Message::Proposal { .. });
        let blocks = self.ahead.iter().filter(|(_, m)| is_block(m)).count();
        let room = self.ahead.len() < MAX_AHEAD && (!is_block(&message) || blocks < MAX_BLOCKS_AHEAD);
        if height.0 == self.shell.height.0 + 1 && room {
            self.ahead.push((from, message));
        }
    }

    fn offer(&mut self, to: PublicKey, height: u64) {
        match self.app.block(height) {
            Ok(block) => self.shell.outbox.push((Some(to), Message::Decided(Box::new(block)))),
            Err(error) => tracing::debug!(height, %error, "cannot help a validator who is behind"),
        }
    }

    fn receive_block(&mut self, from: PublicKey, block: Block, now: Now) -> Result<(), ValidatorError> {
        if block.header.height != self.shell.height.0 {
            return Ok(());
        }
        match self.app.commit(block) {
            Ok(()) => {
                self.catch_up(now)?;
                // Whoever had this one may have the next: the others go on meanwhile, and to be told of each height only
                // when its votes are sent again would be too slow to reach them ever.
                self.shell.outbox.push((Some(from), Message::Want { height: self.shell.height.0 }));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "a block that another validator sent as decided is not");
                Ok(())
            }
        }
    }
}
