//! The boundary to the other validators: encoded messages go out through one channel and come in through another.
//!
//! Owns: the two channels. Must not know: what carries the messages, or what is in them.
//! Invariant: nothing waits here. A message that does not fit into the outgoing channel is dropped; the engine
//! sends again what matters.
//! Trust: incoming bytes are anybody's, and `from` is what the carrier has proved about its other end. A carrier must
//! not pass on more than `MAX_MESSAGE_LEN` bytes at once.
//! Threads: the ends may live in different tasks.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::crypto::PublicKey;

pub use super::wire::MAX_MESSAGE_LEN;

/// Messages that may wait in either direction.
const CAPACITY: usize = 1024;

/// A message for one other validator, or (`None`) for all of them.
pub type Outgoing = (Option<PublicKey>, Bytes);
/// A message, and who has sent it.
pub type Incoming = (PublicKey, Bytes);

/// A validator's end.
#[derive(Debug)]
pub struct Link {
    pub outgoing: mpsc::Sender<Outgoing>,
    pub incoming: mpsc::Receiver<Incoming>,
}

/// The carrier's end.
#[derive(Debug)]
pub struct Carrier {
    pub outgoing: mpsc::Receiver<Outgoing>,
    pub incoming: mpsc::Sender<Incoming>,
}

impl Link {
    /// A link and the ends that a carrier holds.
    pub fn new() -> (Self, Carrier) {
        let (outgoing, carried) = mpsc::channel(CAPACITY);
        let (carrier, incoming) = mpsc::channel(CAPACITY);
        (Self { outgoing, incoming }, Carrier { outgoing: carried, incoming: carrier })
    }

    /// A link that leads nowhere, for a validator who is alone.
    pub fn nowhere() -> Self {
        Self::new().0
    }
}
