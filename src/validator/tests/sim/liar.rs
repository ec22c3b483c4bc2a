//! Validators that break the rules. Each is two machines with one key, either with a log of its own and heard by some
//! of the others only, so that it proposes and votes twice. Beside that, what it votes is turned into the opposite for
//! some, and it says again what others said long ago.

use std::rc::Rc;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::machine::Machine;
use super::world::Micros;
use crate::id::HeaderId;
use crate::validator::context::{Vote, VoteSignature, header_of};
use crate::validator::signing::SignedVote;
use crate::validator::wire::Message;
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

    /// A vote of the same place for something else.
    pub fn contradict(&self, liar: &Machine, message: &Message, rng: &mut StdRng) -> Option<Message> {
        let Message::Vote { vote, again } = message else { return None };
        let id = match header_of(&vote.id) {
            Some(_) if rng.random_bool(0.5) => NilOrVal::Nil,
            other => self.ids.choose(rng).filter(|id| other != Some(**id)).map(|id| NilOrVal::Val(*id))?,
        };
        let vote = Vote { id, ..vote.message.clone() };
        let signature = VoteSignature(liar.sign(&vote.signed_bytes(liar.chain.genesis())));
        Some(Message::Vote { vote: SignedVote::new(vote, signature), again: *again })
    }
}
