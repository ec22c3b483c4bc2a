//! Replicas between nodes: asking a peer about them, and passing on what peers ask.
//!
//! Owns: the exchange of one request and one answer, and its limits.
//! Must not know: who may ask for what, what is held, or what an answer means.
//! Invariant: a bounded number of requests waits at a time; each exchange ends within a deadline.
//! Trust: requests and answers come from strangers; their form is checked here, their claims by their receivers.
//! Threads: async, one task per request served.

use std::sync::Arc;
use std::time::Duration;

use libp2p::{PeerId, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::error::NetError;
use super::log_wire::{LogWireError, read, write};
use super::replica_wire::{MAX_ANSWER, MAX_REQUEST, ReplicaAnswer, ReplicaRequest};
use super::shared::{Command, REPLICA_PROTOCOL, Shared};
use super::{Net, callers, parse_peer};
use crate::crypto::PublicKey;

/// How long one request may take, its answer included.
const ANSWER: Duration = Duration::from_secs(15);
/// Requests answered at the same time, in all and of one peer.
const MAX_CALLS: usize = 64;
const MAX_CALLS_EACH: usize = 8;

/// A request of a peer's. Dropping it tells the peer that it could not be done now.
#[derive(Debug)]
pub struct ReplicaCall {
    /// The key that the peer has proven.
    pub from: PublicKey,
    pub request: ReplicaRequest,
    pub reply: oneshot::Sender<ReplicaAnswer>,
}

impl Net {
    /// What peers ask about replicas, from now on. Without it they are told that this node does not speak of them.
    pub fn replica_calls(&self) -> mpsc::Receiver<ReplicaCall> {
        let (calls, received) = mpsc::channel(MAX_CALLS);
        let incoming = self.shared.control.accept(REPLICA_PROTOCOL);
        let serve = move |shared: Arc<Shared>, peer, stream| {
            let calls = calls.clone();
            async move {
                let served = timeout(ANSWER, serve(&calls, peer, stream)).await;
                if let Err(error) = served.unwrap_or_else(|_| Err(LogWireError::too_slow())) {
                    tracing::debug!(%peer, %error, "a request about replicas could not be answered");
                    if let LogWireError::Codec(_) = error {
                        shared.command(Command::Disconnect(peer)).await;
                    }
                }
            }
        };
        let serving = callers::each(self.shared.clone(), incoming, (MAX_CALLS, MAX_CALLS_EACH), serve);
        self.shared.tasks.spawn(self.shared.stop.clone().run_until_cancelled_owned(serving));
        received
    }

    /// Asks a connected peer about replicas. Refusals are answers too.
    pub async fn ask_about_replicas(
        &self,
        peer: &str,
        request: &ReplicaRequest,
    ) -> Result<ReplicaAnswer, NetError> {
        let id = parse_peer(peer)?;
        if !self.shared.table.is_connected(&id) {
            return Err(NetError::NotConnected { peer: peer.to_owned() });
        }
        match timeout(ANSWER, call(&self.shared, id, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(LogWireError::Codec(error))) => {
                self.shared.command(Command::Disconnect(id)).await;
                Err(NetError::Protocol { peer: peer.to_owned(), cause: error.to_string() })
            }
            Ok(Err(error)) => Err(NetError::Broken { peer: peer.to_owned(), cause: error.to_string() }),
            Err(_) => Err(NetError::TimedOut { what: format!("the answer of {peer}"), after: ANSWER }),
        }
    }
}

async fn call(
    shared: &Shared,
    peer: PeerId,
    request: &ReplicaRequest,
) -> Result<ReplicaAnswer, LogWireError> {
    let limits = ("an answer about replicas", MAX_ANSWER);
    let answer: ReplicaAnswer = shared.exchange(peer, REPLICA_PROTOCOL, request, limits).await?;
    answer.answers(request)?;
    Ok(answer)
}

async fn serve(
    calls: &mpsc::Sender<ReplicaCall>,
    peer: PeerId,
    mut stream: Stream,
) -> Result<(), LogWireError> {
    let request: ReplicaRequest = read(&mut stream, "a request about replicas", MAX_REQUEST).await?;
    request.check()?;
    let answer = match key_of(&peer) {
        None => ReplicaAnswer::refused(&"this node's peer id does not show its key"),
        Some(from) => {
            let (reply, answered) = oneshot::channel();
            match calls.try_send(ReplicaCall { from, request, reply }) {
                Ok(()) => answered.await.unwrap_or_else(|_| ReplicaAnswer::failed(&"it was not taken up")),
                Err(_) => ReplicaAnswer::failed(&"too many requests are waiting"),
            }
        }
    };
    write(&mut stream, &answer).await
}

/// The Ed25519 key of a peer id: such an id is the key itself, behind an identity multihash and a header of Protocol
/// Buffers (libp2p's specification, `peer-ids`).
pub(super) fn key_of(peer: &PeerId) -> Option<PublicKey> {
    const HEADER: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    let bytes = peer.to_bytes();
    let key: [u8; 32] = bytes.strip_prefix(&HEADER)?.try_into().ok()?;
    PublicKey::from_bytes(&key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SecretKey;
    use crate::net::letters::peer_of;

    #[test]
    fn a_peer_id_shows_the_key_that_it_was_made_of() {
        let key = SecretKey::from_bytes([7; 32]).public();
        assert_eq!(key_of(&peer_of(&key).unwrap()), Some(key));
        let hashed = PeerId::from_bytes(&[[0x12, 0x20].as_slice(), &[1; 32]].concat()).unwrap();
        assert_eq!(key_of(&hashed), None);
    }
}
