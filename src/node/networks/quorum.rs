//! How far a log has come in the eyes of several peers.
//!
//! Owns: asking them, and what their answers amount to.
//! Must not know: what the entries mean, or who wants to know.
//! Invariant: fewer than [`LEAST`] answers are no answer. It comes to an end whatever peers do.
//! Trust: none in a peer. A block is believed for its certificate; that there is no newer one is believed only because
//! several peers have none.
//! Threads: the runtime.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout};

use super::Networks;
use crate::chain::Chain;
use crate::net::Head;
use crate::node::error::{Error, Kind};
use crate::node::report::Quorum;

/// Peers that have to answer.
const LEAST: usize = 2;
/// How long answers are waited for.
const ANSWERS: Duration = Duration::from_secs(5);
/// How often peers that have been connected meanwhile are looked for.
const LOOK: Duration = Duration::from_millis(100);
/// How long one peer may take to prove what it has said.
const PROOF: Duration = Duration::from_secs(30);

impl Networks {
    /// Asks all connected peers how far a log has come, and brings it to the newest block that one of them can prove.
    /// Fails if fewer than two answer.
    pub(in crate::node) async fn quorum(&self, chain: &Chain) -> Result<Quorum, Error> {
        let mut heads = self.heads(chain).await;
        if heads.len() < LEAST {
            let message = format!(
                "{} of the connected peers could say how far the log of network {} has come, and fetch=quorum needs {LEAST}",
                heads.len(),
                chain.genesis()
            );
            return Err(Error::new(Kind::Unreachable, message).hint(
                "connect to more of its nodes (bcai peers add ADDRESS), or mount with -o fetch=spread",
            ));
        }
        heads.sort_by_key(|(_, head)| Reverse(head.height));
        for (peer, head) in &heads {
            if head.height <= chain.ledger().height() {
                continue;
            }
            match timeout(PROOF, self.pull(chain, peer)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, peer, height = head.height, "a peer cannot prove how far the log has come");
                }
                Err(_) => tracing::warn!(
                    peer,
                    height = head.height,
                    "a peer does not prove in time how far the log has come"
                ),
            }
        }
        let ledger = chain.ledger();
        let newest = Head { height: ledger.height(), header: ledger.head().map(|header| header.id()) };
        let agreed = heads.iter().filter(|(_, head)| *head == newest).count();
        Ok(Quorum { peers: heads.len(), agreed, height: newest.height })
    }

    /// What connected peers say: all that answer in time, those that are connected meanwhile among them while there are
    /// too few.
    async fn heads(&self, chain: &Chain) -> Vec<(String, Head)> {
        let genesis = chain.genesis();
        let until = Instant::now() + ANSWERS;
        let (mut known, mut heads) = (BTreeSet::new(), Vec::new());
        let mut asking = FuturesUnordered::new();
        loop {
            for peer in self.connected() {
                if known.insert(peer.id.clone()) {
                    asking.push(async move {
                        let head = self.net.head(&peer.id, genesis).await;
                        (peer.id, head)
                    });
                }
            }
            if asking.is_empty() && heads.len() >= LEAST {
                return heads;
            }
            tokio::select! {
                Some((peer, answer)) = asking.next() => match answer {
                    Ok(head) => heads.push((peer, head)),
                    Err(error) => tracing::debug!(%error, peer, "a peer does not say how far the log has come"),
                },
                () = sleep_until(until) => return heads,
                () = sleep_until(Instant::now() + LOOK) => {}
            }
        }
    }
}
