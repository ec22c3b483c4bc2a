//! How objects are asked for and handed over between two nodes, as data and bookkeeping.
//!
//! Owns: the messages of `/bcai/swarm/1` and their bounded codec, the credit that data moves against,
//! what is wanted and answered on both sides of a session, the scheduler that decides whom to ask for what, how well a peer
//! does, and who is in which swarm.
//! Must not know: sockets, libp2p, the store, how an object is packed.
//! Invariant: a node never holds or has granted more than [`credit::TOTAL`] bytes of unverified data, and every
//! object wanted on a session gets exactly one answer.
//! Trust: every message comes from a stranger. A message that breaks a rule is a [`Violation`], upon which the
//! caller closes the connection; none panics or allocates by a length it brings.
//! Threads: pure values. Time comes in as `now`, measured from any fixed start.

pub mod asking;
mod best;
pub mod choice;
pub mod credit;
pub mod health;
pub mod scheduler;
pub mod serving;
pub mod tracker;
pub mod uplink;
pub mod watching;
pub mod wire;

#[cfg(test)]
mod tests;

/// The largest object on the wire, in bytes, packed or plain.
pub const MAX_OBJECT: u32 = 4 << 20;

/// Why an object is wanted, most urgent first. The numbers are part of the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// A reader waits for it.
    Fault = 0,
    /// A reader is likely to ask for it next.
    Readahead = 1,
    /// Asked for in advance.
    Prefetch = 2,
    /// To keep a copy.
    Replicate = 3,
}

impl Class {
    /// Every class, most urgent first.
    pub const ALL: [Class; 4] = [Class::Fault, Class::Readahead, Class::Prefetch, Class::Replicate];

    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Class::Fault => "fault",
            Class::Readahead => "readahead",
            Class::Prefetch => "prefetch",
            Class::Replicate => "replicate",
        }
    }

    /// The stream on which answers of this class travel.
    pub fn lane(self) -> Lane {
        match self {
            Class::Fault => Lane::Urgent,
            Class::Readahead | Class::Prefetch | Class::Replicate => Lane::Bulk,
        }
    }
}

/// Of how many peers the objects of one reader may be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Spread {
    /// Of whoever has room.
    #[default]
    Many,
    /// Of the one that was expected to deliver first when there was none yet; of others only what it fails on.
    Best,
}

impl TryFrom<u8> for Class {
    type Error = u8;
    fn try_from(byte: u8) -> Result<Self, u8> {
        Self::ALL.get(usize::from(byte)).copied().ok_or(byte)
    }
}

/// One of the two streams of a session that carry answers. The numbers are part of the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    Urgent = 0,
    Bulk = 1,
}

impl TryFrom<u8> for Lane {
    type Error = u8;
    fn try_from(byte: u8) -> Result<Self, u8> {
        match byte {
            0 => Ok(Self::Urgent),
            1 => Ok(Self::Bulk),
            other => Err(other),
        }
    }
}

/// A rule of the protocol that the other side broke. Never worth a retry on the same connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error(transparent)]
    Wire(#[from] wire::WireError),
    #[error("a {got} message where {expected} belongs")]
    OutOfPlace { got: &'static str, expected: &'static str },
    #[error("request {request} is not above the last one, {last}")]
    RequestOrder { request: u64, last: u64 },
    #[error("{unanswered} objects wanted at once, over the limit of {max}")]
    TooManyWants { unanswered: usize, max: usize },
    #[error("an answer to request {0}, which was never made or is answered already")]
    UnknownRequest(u64),
    #[error("an answer to watch {0}, which was never made")]
    UnknownWatch(u64),
    #[error("an answer to request {request} on the {lane:?} stream, which is not its own")]
    WrongLane { request: u64, lane: Lane },
    #[error("{sent} bytes for request {request}, which had credit for {granted}")]
    OverCredit { request: u64, sent: u64, granted: u64 },
    #[error("{sent} bytes for request {request}, whose object was announced with {announced}")]
    OverLength { request: u64, sent: u64, announced: u64 },
    #[error("the frames of request {0} are out of order")]
    FrameOrder(u64),
    #[error("the object of request {request} was announced with {len} bytes, over the limit of {MAX_OBJECT}")]
    TooLarge { request: u64, len: u32 },
    #[error("{total} bytes of credit for request {request}, over the limit of {MAX_OBJECT}")]
    TooMuchCredit { request: u64, total: u64 },
}
