//! What must hold whatever happens, checked while a run goes on and once more at its end.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::machine::Machine;
use crate::crypto::PublicKey;
use crate::id::{EntryId, HeaderId};
use crate::log::{Block, GenesisDoc, Ledger};
use crate::validator::Committed;
use crate::validator::signing::Step;
use crate::validator::wire::Message;

/// What was broken, in words.
pub type Broken = String;

/// A place where one validator signs one thing.
type Place = (PublicKey, u64, u32, Step);

/// All that was said and decided so far, by everybody.
#[derive(Default)]
pub struct Checks {
    honest: HashSet<PublicKey>,
    said: HashMap<Place, Option<HeaderId>>,
    decided: BTreeMap<u64, HeaderId>,
    acknowledged: Vec<Committed>,
}

impl Checks {
    pub fn new(honest: impl IntoIterator<Item = PublicKey>) -> Self {
        Self { honest: honest.into_iter().collect(), ..Self::default() }
    }

    /// No honest validator ever signs two things in one place, before or after a crash.
    pub fn said(&mut self, message: &Message) -> Result<(), Broken> {
        let (place, id) = match message {
            Message::Vote { vote, .. } => {
                let id = crate::validator::context::header_of(&vote.id);
                ((vote.voter, vote.height.0, vote.round, vote.kind.into()), id)
            }
            Message::Proposal { proposal, .. } => {
                let place = (proposal.proposer, proposal.height.0, proposal.round, Step::Propose);
                (place, Some(proposal.id))
            }
            _ => return Ok(()),
        };
        let before = *self.said.entry(place).or_insert(id);
        if self.honest.contains(&place.0) && before != id {
            return Err(format!("an honest validator signed two things: {place:?}: {before:?} and {id:?}"));
        }
        Ok(())
    }

    /// All machines decide the same header at a height. That the heights below are the same too follows from its hash.
    pub fn decided(&mut self, height: u64, id: HeaderId) -> Result<(), Broken> {
        match self.decided.insert(height, id) {
            Some(before) if before != id => Err(format!("two headers at height {height}: {before} and {id}")),
            _ => Ok(()),
        }
    }

    pub fn acknowledged(&mut self, committed: Committed) {
        self.acknowledged.push(committed);
    }

    pub fn answers(&self) -> usize {
        self.acknowledged.len()
    }

    /// At the end: the longest log is right from its beginning, all others are the beginning of it, and what was
    /// acknowledged is in it, once and where it was said to be. Returns where each entry is.
    pub fn finally(&self, doc: &GenesisDoc, machines: &[Machine]) -> Result<HashMap<EntryId, u64>, Broken> {
        let longest = machines.iter().max_by_key(|machine| machine.chain.ledger().height()).unwrap();
        let bytes = longest.chain.blocks(1, usize::MAX).map_err(|error| error.to_string())?;
        let blocks: Vec<Block> = bytes.iter().map(|bytes| Block::decode(bytes).unwrap()).collect();
        // Checks every certificate, signature and root.
        let ledger = Ledger::genesis(doc).unwrap().replay(&blocks);
        let ledger =
            ledger.map_err(|(height, error)| format!("the log is wrong at height {height}: {error}"))?;
        for machine in machines {
            let theirs = machine.chain.ledger();
            let same = theirs.height().checked_sub(1).map(|at| blocks[at as usize].header.id());
            if theirs.head_id() != same {
                return Err(format!("the logs part at height {}", theirs.height()));
            }
        }
        let mut places: HashMap<EntryId, u64> = HashMap::new();
        for (height, entry) in blocks.iter().flat_map(|b| b.body.entries.iter().map(|e| (b.header.height, e)))
        {
            if places.insert(entry.id(), height).is_some() {
                return Err(format!("entry {} is in the log twice", entry.id()));
            }
        }
        if ledger.entries() != places.len() as u64 {
            return Err("the ledger counts other entries than the log has".to_owned());
        }
        for Committed { height, entry, .. } in &self.acknowledged {
            if places.get(entry) != Some(height) {
                let found = places.get(entry);
                return Err(format!("entry {entry} was acknowledged at height {height} and is at {found:?}"));
            }
        }
        let jailed = |key: &&PublicKey| ledger.voter(key).is_some_and(|voter| voter.jailed.is_some());
        match self.honest.iter().find(jailed) {
            Some(key) => Err(format!("honest {key} is in jail")),
            None => Ok(places),
        }
    }
}
