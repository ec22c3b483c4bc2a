//! What the engine decides about: builds blocks from what was submitted, judges those of others, and commits.
//!
//! Owns: the mempool, and the rule when a height is worth deciding.
//! Must not know: votes, rounds in progress, the write-ahead log.
//! Invariant: heights are lazy. One begins only for an entry that would execute, or to prove with an empty block that
//! the log is fresh, `heartbeat_ms` after the last; for entries, not sooner than `block_ms` after it (parameters of the
//! network, the latter 0 unless it was set).
//! Trust: entries and candidates are foreign; the ledger executes them before anything is said about them.
//! Threads: the driver's; every call may block on the disk.

use std::ops::Range;
use std::sync::Arc;

use super::mempool::{Mempool, Reply};
use super::wire::Candidate;
use super::{Committed, Now, ValidatorError};
use crate::chain::Chain;
use crate::crypto::{PublicKey, Signature};
use crate::id::EntryId;
use crate::log::{Admission, Block, Certificate, Entry, Ledger, Params, Refusal};

/// How far ahead of our clock a block's time may be, in milliseconds. Further ahead it is voted against, so that one
/// wrong clock cannot carry the log's time away.
const MAX_CLOCK_AHEAD_MS: u64 = 10_000;

/// The application side of one log.
pub struct App {
    chain: Arc<Chain>,
    mempool: Mempool,
}

impl App {
    /// Decides about `chain`.
    pub fn new(chain: Arc<Chain>) -> Self {
        Self { chain, mempool: Mempool::default() }
    }

    /// The state that the next block will be executed on.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.chain.ledger()
    }

    /// Takes an entry for a coming block. Returns whether it is new and waits; otherwise `reply` has been answered
    /// or put beside the others who wait.
    pub fn submit(&mut self, entry: Entry, reply: Option<Reply>) -> bool {
        match self.outcome(&self.ledger(), &entry) {
            None => self.mempool.add(entry, reply),
            Some(outcome) => {
                // Whoever has given up waiting is not listening any more.
                let _ = reply.map(|reply| reply.send(outcome));
                false
            }
        }
    }

    /// What is already certain about `entry`.
    fn outcome(&self, ledger: &Ledger, entry: &Entry) -> Option<Result<Committed, ValidatorError>> {
        self.settled(ledger.admit(entry))
    }

    fn settled(&self, admission: Result<Admission, Refusal>) -> Option<Result<Committed, ValidatorError>> {
        match admission {
            Ok(Admission::New) => None,
            Ok(Admission::Already { height, entry }) => Some(self.committed(height, entry)),
            Err(refusal) => Some(Err(ValidatorError::Refused(refusal))),
        }
    }

    fn committed(&self, height: u64, entry: EntryId) -> Result<Committed, ValidatorError> {
        let block = self.block(height)?;
        Ok(Committed { height, round: block.certificate.round, entry })
    }

    /// The decided block at `height`.
    pub fn block(&self, height: u64) -> Result<Block, ValidatorError> {
        let encoded = self.chain.blocks(height, 1).map_err(ValidatorError::chain)?;
        let missing = || ValidatorError::chain(format!("there is no block at height {height}"));
        Block::decode(encoded.first().ok_or_else(missing)?).map_err(ValidatorError::chain)
    }

    /// When the next height is due, in milliseconds since 1970: the block time after the last if entries wait, after the
    /// heartbeat if not, never before the first entry of all.
    pub fn due_ms(&self, now: Now) -> Option<u64> {
        let (ledger, waiting) = (self.ledger(), !self.mempool.is_empty());
        let Some(head) = ledger.head() else { return waiting.then_some(0) };
        let Params { block_ms, heartbeat_ms, .. } = *ledger.params();
        // A clock that is behind the log's time, maybe by hours, says nothing about how long ago the last height was.
        let at_once = waiting && head.time_ms > now.unix_ms;
        let pause = if waiting { block_ms } else { heartbeat_ms };
        Some(if at_once { 0 } else { head.time_ms.saturating_add(pause) })
    }

    /// A block of what waits, by `proposer`.
    pub fn build(&self, now: Now, proposer: PublicKey) -> Candidate {
        let (header, body) = self.ledger().propose(self.mempool.next_body(), now.unix_ms, proposer);
        Candidate { header, body }
    }

    /// Whether `candidate` may become the next block.
    pub fn judge(&self, candidate: &Candidate, now: Now) -> bool {
        if candidate.header.time_ms > now.unix_ms.saturating_add(MAX_CLOCK_AHEAD_MS) {
            tracing::warn!(
                height = candidate.header.height,
                "a proposed block's time is ahead of this machine's clock"
            );
            return false;
        }
        match self.ledger().execute(&candidate.header, &candidate.body) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(height = candidate.header.height, %error, "a proposed block does not execute");
                false
            }
        }
    }

    /// Makes `candidate` the next block, by these precommits of `round`.
    pub fn decide(
        &self,
        candidate: Candidate,
        round: u32,
        votes: impl Iterator<Item = (PublicKey, Signature)>,
    ) -> Result<(), ValidatorError> {
        let Candidate { header, body } = candidate;
        let ledger = self.ledger();
        let certificate =
            Certificate::assemble(ledger.validators(), header.height, round, header.id(), votes)
                .map_err(ValidatorError::chain)?;
        self.commit(Block { header, body, certificate })
    }

    /// Appends a decided block. That it is already there, because it also came another way, is fine.
    pub fn commit(&self, block: Block) -> Result<(), ValidatorError> {
        self.chain.commit(block).map(|_| ()).map_err(ValidatorError::chain)
    }

    /// Tells the submitters what became of their entries, now that the blocks at `heights` are part of the log.
    pub fn report(&mut self, heights: Range<u64>) -> Result<(), ValidatorError> {
        for height in heights {
            let block = self.block(height)?;
            for entry in &block.body.entries {
                let id = entry.id();
                self.mempool
                    .settle(&id, &Ok(Committed { height, round: block.certificate.round, entry: id }));
            }
        }
        // What was left out may have become wrong, or already true, by what was decided.
        let ledger = self.ledger();
        let mut mempool = std::mem::take(&mut self.mempool);
        mempool.review(|entries| {
            let again = ledger.admit_again(entries.iter().copied());
            again.into_iter().map(|admission| self.settled(admission)).collect()
        });
        self.mempool = mempool;
        Ok(())
    }
}
