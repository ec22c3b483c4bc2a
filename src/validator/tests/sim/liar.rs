//! Validators that break the rules. Each is two machines with one key, either with a log of its own and heard by some
//! of the others only, so that it proposes and votes twice. Beside that, what it votes is turned into the opposite for
//! some, what it proposes into a block that does not execute, and it says again what others said long ago.

use std::rc::Rc;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::machine::Machine;
use super::world::Micros;
use crate::id::HeaderId;
use crate::log::Header;
use crate::validator::context::{Proposal, Vote, VoteSignature, header_of};
use crate::validator::signing::{SignedProposal, SignedVote};
use crate::validator::wire::{Candidate, Message};
use arc_malachitebft_core_types::NilOrVal;

/// How long a twin keeps those that it is in touch with.
const CHANGES_EVERY: Micros = 5_000_000;
/// How many old messages are kept to be said again.
const MEMORY: usize = 64;

/// What all liars know.
#[derive(Default)]
pub struct Lies {
    /// For each twin, a bit for each machine that it is in touch with.
    touch: Vec<u128>,
    changed: Micros,
    heard: Vec<Rc<Message>>,
    ids: Vec<HeaderId>,
}

impl Lies {
    /// Whether a twin and another machine are in touch.
    pub fn pass(&mut self, twin: usize, other: usize, now: Micros, rng: &mut StdRng) -> bool {
        if self.touch.len() <= twin || now >= self.changed + CHANGES_EVERY {
            self.touch = (0..=twin.max(self.touch.len()))
                .map(|_| rng.random::<u128>() | rng.random::<u128>())
                .collect();
            self.changed = now;
        }
        self.touch[twin] >> (other % 128) & 1 == 1
    }

    /// Takes note of what came by.
    pub fn hear(&mut self, message: &Rc<Message>, rng: &mut StdRng) {
        if let Message::Proposal { proposal, .. } = &**message {
            self.ids.push(proposal.id);
        }
        if self.heard.len() < MEMORY {
            self.heard.push(message.clone());
        } else {
            self.heard[rng.random_range(0..MEMORY)] = message.clone();
        }
    }

    /// Something that somebody said before.
    pub fn again(&self, rng: &mut StdRng) -> Option<Rc<Message>> {
        self.heard.choose(rng).cloned()
    }

    /// A vote of the same place for something else, or in the place of a proposal one of a block that does not execute.
    pub fn contradict(&self, liar: &Machine, message: &Message, rng: &mut StdRng) -> Option<Message> {
        let (vote, again) = match message {
            Message::Vote { vote, again } => (vote, again),
            Message::Proposal { proposal, candidate } if rng.random_bool(0.3) => {
                return Some(wrong(liar, proposal, candidate));
            }
            _ => return None,
        };
        let id = match header_of(&vote.id) {
            Some(_) if rng.random_bool(0.5) => NilOrVal::Nil,
            other => self.ids.choose(rng).filter(|id| other != Some(**id)).map(|id| NilOrVal::Val(*id))?,
        };
        let vote = Vote { id, ..vote.message.clone() };
        let signature = VoteSignature(liar.sign(&vote.signed_bytes(liar.chain.genesis())));
        Some(Message::Vote { vote: SignedVote::new(vote, signature), again: *again })
    }
}

/// A proposal of a block whose header says something else than follows from it.
fn wrong(liar: &Machine, proposal: &SignedProposal, candidate: &Candidate) -> Message {
    let header = Header { log_size: candidate.header.log_size + 1, ..candidate.header.clone() };
    let proposal = Proposal { id: header.id(), ..proposal.message.clone() };
    let signature = VoteSignature(liar.sign(&proposal.signed_bytes(liar.chain.genesis())));
    let candidate = Box::new(Candidate { header, body: candidate.body.clone() });
    Message::Proposal { proposal: SignedProposal::new(proposal, signature), candidate }
}
