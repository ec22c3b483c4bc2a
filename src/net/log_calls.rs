//! The manifest log between nodes: asking a peer for it, and answering peers.
//!
//! Owns: the exchange of one request and one response, and its limits.
//! Must not know: how blocks are verified (the caller of [`super::Net::blocks`] does) or entries decided.
//! Invariant: a bounded number of requests is answered at a time; each exchange ends within a deadline.
//! Trust: requests and responses come from strangers and are only bytes to their receiver.
//! Threads: async, one task per request served; the log is read on the blocking pool.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use libp2p::{PeerId, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::error::NetError;
use super::log_wire::{self, LogWireError, MAX_BLOCKS, MAX_REQUEST, MAX_RESPONSE, Request, Response};
use super::replica_calls::key_of;
use super::shared::{Command, LOG_PROTOCOL, Shared, blocking};
use super::streams::Incoming;
use crate::chain::Registry;
use crate::crypto::PublicKey;
use crate::id::{EntryId, Genesis};
use crate::log::light::MAX_UPDATE_LEN;
use crate::log::shown::{MAX_SHOWN_LEN, Question};
use crate::log::{MAX_BLOCK_LEN, MAX_ENTRY_LEN, MAX_GENESIS_LEN};

/// How long a request for what is known may take, and one for a decision.
const ANSWER: Duration = Duration::from_secs(15);
const DECISION: Duration = Duration::from_secs(60);
/// Requests answered at the same time, in all and for one peer.
const MAX_CALLS: usize = 64;
const MAX_CALLS_EACH: usize = 8;

// What a log may hold fits the messages that carry it.
const _: () = assert!(MAX_BLOCKS + MAX_BLOCK_LEN + 64 <= MAX_RESPONSE);
const _: () = assert!(MAX_UPDATE_LEN + 64 <= MAX_RESPONSE && MAX_SHOWN_LEN + 64 <= MAX_RESPONSE);
const _: () = assert!(MAX_GENESIS_LEN + 64 <= MAX_RESPONSE && MAX_ENTRY_LEN <= MAX_REQUEST / 2);

/// An entry that a peer wants in the log.
#[derive(Debug)]
pub struct Submission {
    pub genesis: Genesis,
    /// The encoded entry, as it came.
    pub entry: Vec<u8>,
    /// What became of it. Dropping this tells the peer that it could not be done now.
    pub reply: oneshot::Sender<Result<Submitted, SubmitError>>,
}

/// Where an entry is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    pub height: u64,
    pub round: u32,
    pub entry: EntryId,
}

/// Why an entry is not in the log; the text is for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The author's mistake: the same entry will not be accepted later.
    #[error("refused: {0}")]
    Refused(String),
    /// May succeed later or elsewhere.
    #[error("not now: {0}")]
    Failed(String),
}

/// Sends one request to a peer. It drops those for which it has no room, so this is tried again; every request may be
/// repeated without harm.
pub(super) async fn call(shared: &Shared, peer: PeerId, request: &Request) -> Result<Response, NetError> {
    let patience = if matches!(request, Request::Submit { .. }) { DECISION + ANSWER } else { ANSWER };
    if !shared.table.is_connected(&peer) {
        return Err(NetError::NotConnected { peer: peer.to_string() });
    }
    let pauses = ExponentialBuilder::default().with_min_delay(Duration::from_millis(20)).with_jitter();
    let calls = (|| shared.exchange(peer, LOG_PROTOCOL, request, ("a log response", MAX_RESPONSE)))
        .retry(pauses)
        .when(|error| !matches!(error, LogWireError::Codec(_)));
    let broken = |cause: String| NetError::Broken { peer: peer.to_string(), cause };
    match timeout(patience, calls).await {
        Ok(Ok(response)) => interpret(peer, *request.genesis(), response),
        Ok(Err(LogWireError::Codec(error))) => {
            shared.command(Command::Disconnect(peer)).await;
            Err(NetError::Protocol { peer: peer.to_string(), cause: error.to_string() })
        }
        Ok(Err(error)) => Err(broken(error.to_string())),
        Err(_) => Err(NetError::TimedOut { what: format!("the answer of {peer}"), after: patience }),
    }
}

/// Makes errors of the answers that are some.
fn interpret(peer: PeerId, genesis: Genesis, response: Response) -> Result<Response, NetError> {
    let peer = peer.to_string();
    match response {
        Response::Unknown => Err(NetError::UnknownLog { peer, genesis }),
        Response::Refused { cause } => Err(NetError::Refused { peer, cause }),
        Response::Failed { cause } => Err(NetError::Failed { peer, cause }),
        response => Ok(response),
    }
}

/// Answers the requests of peers.
pub(super) struct LogServer {
    shared: Arc<Shared>,
    chains: Registry,
    submissions: mpsc::Sender<Submission>,
    running: Mutex<HashMap<PeerId, usize>>,
}

impl LogServer {
    pub(super) fn new(
        shared: Arc<Shared>,
        chains: Registry,
        submissions: mpsc::Sender<Submission>,
    ) -> LogServer {
        LogServer { shared, chains, submissions, running: Mutex::default() }
    }

    /// Takes streams as they come. Whoever is dropped here tries again.
    pub(super) async fn accept(self: Arc<Self>, mut incoming: Incoming) {
        while let Some((peer, stream)) = incoming.next().await {
            if !self.enter(peer) {
                continue;
            }
            let server = self.clone();
            self.shared.tasks.spawn(async move {
                let stop = server.shared.stop.clone();
                let served = stop.run_until_cancelled(server.serve(peer, stream)).await;
                server.leave(peer);
                if let Some(Err(error)) = served {
                    tracing::debug!(%peer, %error, "a log request has failed");
                    if let LogWireError::Codec(_) = error {
                        server.shared.command(Command::Disconnect(peer)).await;
                    }
                }
            });
        }
    }

    fn enter(&self, peer: PeerId) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = running.values().sum();
        let of_this_peer = running.entry(peer).or_default();
        let room = all < MAX_CALLS && *of_this_peer < MAX_CALLS_EACH;
        *of_this_peer += usize::from(room);
        running.retain(|_, count| *count > 0);
        room
    }

    fn leave(&self, peer: PeerId) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.entry(peer).and_modify(|count| *count -= 1);
        running.retain(|_, count| *count > 0);
    }

    async fn serve(&self, peer: PeerId, mut stream: Stream) -> Result<(), LogWireError> {
        let too_slow = |_| LogWireError::too_slow();
        let request = log_wire::read(&mut stream, "a log request", MAX_REQUEST);
        let request = timeout(ANSWER, request).await.map_err(too_slow)??;
        let response = self.answer(key_of(&peer), request).await;
        timeout(ANSWER, log_wire::write(&mut stream, &response)).await.map_err(too_slow)?
    }

    async fn answer(&self, from: Option<PublicKey>, request: Request) -> Response {
        let Some(chain) = self.chains.get(request.genesis()) else { return Response::Unknown };
        // A stranger learns no more than where the log is not followed.
        let ledger = chain.ledger();
        if ledger.params().members_only() && !from.is_some_and(|key| ledger.admits(&key)) {
            return Response::Unknown;
        }
        match request {
            Request::Document { .. } => Response::Document { document: chain.document().encode().into() },
            Request::Head { .. } => {
                let ledger = chain.ledger();
                let header = ledger.head().map(|header| header.id());
                Response::Head { height: ledger.height(), header }
            }
            Request::Blocks { from, .. } => match blocking(move || chain.blocks(from, MAX_BLOCKS)).await {
                Ok(blocks) => Response::Blocks { blocks: blocks.into_iter().map(Into::into).collect() },
                Err(error) => {
                    tracing::warn!(%error, from, "blocks could not be read to be sent");
                    Response::failed("the log could not be read")
                }
            },
            Request::Update { height, .. } if (1..=chain.ledger().height()).contains(&height) => {
                match blocking(move || chain.update(height)).await {
                    Ok(update) => Response::Update { update: update.encode().into() },
                    Err(error) => {
                        tracing::warn!(%error, height, "a block could not be read to be shown");
                        Response::failed("the log could not be read")
                    }
                }
            }
            Request::Show { question, .. } => {
                let Ok(question) = Question::decode(&question) else {
                    return Response::failed("the question cannot be understood");
                };
                match blocking(move || chain.show(&question)).await {
                    Ok(Some(shown)) => Response::Shown { shown: shown.encode().into() },
                    Ok(None) => Response::failed("nothing was decided in this log yet"),
                    Err(error) => {
                        tracing::warn!(%error, "a block could not be read to be shown");
                        Response::failed("the log could not be read")
                    }
                }
            }
            Request::Update { .. } => Response::failed("the log has no such height here"),
            Request::Submit { genesis, entry } => self.submit(genesis, entry.into()).await,
        }
    }

    async fn submit(&self, genesis: Genesis, entry: Vec<u8>) -> Response {
        let (reply, decided) = oneshot::channel();
        if self.submissions.try_send(Submission { genesis, entry, reply }).is_err() {
            return Response::failed("too many entries are waiting, or none are taken here");
        }
        match timeout(DECISION, decided).await {
            Ok(Ok(Ok(Submitted { height, round, entry }))) => Response::Submitted { height, round, entry },
            Ok(Ok(Err(SubmitError::Refused(cause)))) => Response::refused(&cause),
            Ok(Ok(Err(SubmitError::Failed(cause)))) => Response::failed(&cause),
            Ok(Err(_)) => Response::failed("it was not taken up"),
            Err(_) => Response::failed("it was not decided in time; it may be later"),
        }
    }
}
