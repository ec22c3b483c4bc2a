//! Parameters: what all validators must agree on besides who they are. The genesis document gives the first, an
//! admin's entry gives others.
//!
//! Owns: the parameters, their limits and their defaults. Must not know: who may change them.
//! Invariant: parameters that `check` accepts cannot stop a network. Trust: foreign until checked. Threads: pure values.

use minicbor::{Decode, Encode};

use super::digest::{Digest, Of};
use super::entry::MAX_WITNESSES;
use super::validators::MAX_VALIDATORS;
use crate::codec;

/// How often, by default, a height is decided with nothing in it to prove that the log is fresh.
pub const DEFAULT_HEARTBEAT_MS: u64 = 30_000;
/// How long, by default, an epoch lasts at least.
pub const DEFAULT_EPOCH_MS: u64 = 3_600_000;

/// The longest block time: whoever publishes waits for so long.
pub const MAX_BLOCK_MS: u64 = 10_000;

/// Parameters that no network can have: the founder's or an admin's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    #[error("a heartbeat of {0} ms is outside 1,000 to 86,400,000")]
    Heartbeat(u64),
    #[error("a block time of {0} ms is above {MAX_BLOCK_MS}")]
    BlockTime(u64),
    #[error("an epoch of {0} ms is outside 1,000 to 2,592,000,000")]
    Epoch(u64),
    #[error("{0} seats are outside 1 to {MAX_VALIDATORS}")]
    Seats(u32),
    #[error("{0} {1} are more than the {MAX_WITNESSES} that an entry can carry")]
    Witnesses(u32, &'static str),
    #[error("a receipt needs at least one audit")]
    NoAudit,
}

/// How validators are weighed. See `weights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Policy {
    /// One each.
    #[n(0)]
    Equal,
    /// Own and delegated stake; the operators with the most serve an epoch.
    #[n(1)]
    Delegated,
    /// The score for storing.
    #[n(2)]
    UsefulWork,
    /// Stake times score.
    #[n(3)]
    Hybrid,
}

/// What every validator must agree on besides the validators.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Params {
    #[n(0)]
    pub policy: Policy,
    /// Longest time without a height, in milliseconds.
    #[n(1)]
    pub heartbeat_ms: u64,
    /// How long an epoch lasts at least, in milliseconds of header time: it ends with the first header after that.
    #[n(2)]
    pub epoch_ms: u64,
    /// Most operators that vote at one height.
    #[n(3)]
    pub seats: u32,
    /// Acknowledgements of storage nodes that a version needs before it can be published.
    #[n(4)]
    pub replicas: u32,
    /// Auditors who must confirm the answer to a challenge, if so many can.
    #[n(5)]
    pub audits: u32,
    /// Whether a new name needs the role publisher.
    #[n(6)]
    pub publishers_only: bool,
    /// How long after a height validators begin the next one for entries that wait, in milliseconds, so that they share
    /// it; 0 to begin at once.
    #[n(7)]
    pub block_ms: u64,
    /// Whether only members are shown the log, and what is in its datasets: those of whom the log says anything. None
    /// for no.
    #[n(8)]
    pub members_only: Option<bool>,
}

impl Params {
    /// Whether only members are shown the log and what is in its datasets.
    pub fn members_only(&self) -> bool {
        self.members_only == Some(true)
    }

    /// What a header says of these parameters.
    pub fn digest(&self) -> Digest {
        Digest::of(Of::Params, &codec::encode(self))
    }

    /// Checks all limits.
    pub fn check(&self) -> Result<(), ParamsError> {
        let most = MAX_WITNESSES as u32;
        if !(1_000..=86_400_000).contains(&self.heartbeat_ms) {
            return Err(ParamsError::Heartbeat(self.heartbeat_ms));
        }
        if self.block_ms > MAX_BLOCK_MS {
            return Err(ParamsError::BlockTime(self.block_ms));
        }
        if !(1_000..=2_592_000_000).contains(&self.epoch_ms) {
            return Err(ParamsError::Epoch(self.epoch_ms));
        }
        if !(1..=MAX_VALIDATORS as u32).contains(&self.seats) {
            return Err(ParamsError::Seats(self.seats));
        }
        for (number, what) in [(self.replicas, "replicas"), (self.audits, "audits")] {
            if number > most {
                return Err(ParamsError::Witnesses(number, what));
            }
        }
        if self.audits == 0 { Err(ParamsError::NoAudit) } else { Ok(()) }
    }
}

impl Default for Params {
    fn default() -> Self {
        Self {
            policy: Policy::Equal,
            heartbeat_ms: DEFAULT_HEARTBEAT_MS,
            epoch_ms: DEFAULT_EPOCH_MS,
            seats: MAX_VALIDATORS as u32,
            replicas: 0,
            audits: 1,
            publishers_only: false,
            block_ms: 0,
            members_only: None,
        }
    }
}
