//! Following a log that others decide.
//!
//! Owns: when peers are asked for news, and when remembered peers are dialled again.
//! Must not know: what the entries mean.
//! Invariant: whatever a peer claims or sends, asking it comes to an end.
//! Trust: peers are strangers; `Chain::commit` checks what they send.
//! Threads: one task per network; ends when the node stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::broadcast;

use super::Networks;
use crate::chain::Chain;
use crate::id::Genesis;
use crate::log::Block;
use crate::node::error::{Error, Kind};
use crate::node::off;

/// How often a follower asks its peers for news.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// How often at most it asks, whatever it hears.
const FOLLOW_AT_MOST: Duration = Duration::from_millis(100);
/// What slower peers get to answer after the first has.
const SLOWER_PEERS: Duration = Duration::from_millis(500);
/// Longest pause between two tries to reach a network's remembered peers.
const REDIAL_MAX: Duration = Duration::from_secs(60);

/// When to try the remembered peers of one network again.
#[derive(Default)]
struct Redial {
    not_before: Option<Instant>,
    pause: Duration,
}

impl Redial {
    fn is_due(&self) -> bool {
        self.not_before.is_none_or(|at| Instant::now() >= at)
    }

    fn wait_longer(&mut self) {
        self.pause = (self.pause * 2).clamp(FOLLOW_EVERY, REDIAL_MAX);
        self.not_before = Some(Instant::now() + self.pause);
    }
}

/// Returns when somebody says that the log has come further than it is known here.
pub(super) async fn news(chain: &Chain, heard: &mut broadcast::Receiver<(Genesis, u64)>) {
    tokio::time::sleep(FOLLOW_AT_MOST).await;
    loop {
        match heard.recv().await {
            Ok((genesis, height)) if genesis == chain.genesis() && height > chain.ledger().height() => return,
            Ok(_) => {}
            // More than can be looked at: something may have been for this log.
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            // The network is down, and the node about to be.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Of the failures of two peers the one to tell of: that one lies must not be lost because another has just gone away.
pub(super) fn graver(before: Error, after: Error) -> Error {
    if before.kind == Kind::Corrupt { before } else { after }
}

impl Networks {
    /// Follows one log until the node stops or, being a validator of it, has caught up: only then does it know what was
    /// decided, and decides with the others.
    pub(super) async fn follow(self: Arc<Self>, chain: Arc<Chain>) {
        let mut redial = Redial::default();
        let mut complaint = String::new();
        let mut heard = self.net.heads();
        while !self.stop.is_cancelled() {
            let round = async {
                self.redial(chain.genesis(), &mut redial).await;
                let caught_up = self.catch_up(&chain).await;
                match &caught_up {
                    // Nobody is there, or nobody knows: that passes. Blocks that contradict ours do not, and are
                    // told once, not every second.
                    Err(error) if error.kind == Kind::Corrupt && error.message != complaint => {
                        tracing::error!(%error, genesis = %chain.genesis(), "peers send blocks that do not fit this log");
                        complaint = error.message.clone();
                    }
                    Err(error) => tracing::debug!(%error, genesis = %chain.genesis(), "no news"),
                    Ok(()) => complaint.clear(),
                }
                if self.check_whole(&chain.genesis()).is_err() {
                    return false;
                }
                if caught_up.is_ok() && self.is_member(&chain) {
                    return true;
                }
                // Without news it is asked all the same: nobody need have told.
                let _ = tokio::time::timeout(FOLLOW_EVERY, news(&chain, &mut heard)).await;
                false
            };
            if self.stop.run_until_cancelled(round).await == Some(true) {
                if let Err(error) = self.validate(chain.clone()) {
                    tracing::error!(%error, genesis = %chain.genesis(), "this validator does not decide");
                }
                return;
            }
        }
    }

    /// Tells others whenever a log has come further, until the node stops.
    pub(super) async fn tell_heads(self: Arc<Self>, chain: Arc<Chain>) {
        let mut ledgers = chain.subscribe();
        let telling = async {
            while ledgers.changed().await.is_ok() {
                let head = ledgers.borrow_and_update().head().map(|header| (header.height, header.id()));
                // News goes to everybody.
                if let Some((height, id)) = head.filter(|_| !chain.ledger().params().members_only()) {
                    self.net.tell_head(chain.genesis(), height, id).await;
                }
                // While it catches up, only where it has come to is worth telling.
                tokio::time::sleep(FOLLOW_AT_MOST).await;
            }
        };
        self.stop.run_until_cancelled(telling).await;
    }

    /// Dials the peers remembered for a network while none of them is connected: whoever else is, may know nothing of it.
    async fn redial(&self, genesis: Genesis, redial: &mut Redial) {
        let known = self.state.get().peers.remove(&genesis.to_string()).unwrap_or_default();
        let connected = self.connected();
        let is_up = |address: &String| connected.iter().any(|peer| address.ends_with(&peer.id));
        if known.is_empty() || known.iter().any(is_up) {
            *redial = Redial::default();
        } else if redial.is_due() {
            if let Err(error) = self.connect(&known).await {
                tracing::debug!(%error, "no remembered peer of this network answers");
            }
            redial.wait_longer();
        }
    }

    /// Takes over what connected peers have and we have not. Fails when no peer could be asked, or all failed.
    /// Peers that are slower than the first good one get a moment more: it may not be the one that knows most.
    pub(in crate::node) async fn catch_up(&self, chain: &Chain) -> Result<(), Error> {
        let genesis = chain.genesis();
        let peers = self.connected();
        let mut pulls: FuturesUnordered<_> = peers.iter().map(|peer| self.pull(chain, &peer.id)).collect();
        let mut failed = Error::new(Kind::Unreachable, format!("no peer of network {genesis} is connected"));
        let mut until = None;
        loop {
            let next = match until {
                None => pulls.next().await,
                Some(until) => tokio::time::timeout_at(until, pulls.next()).await.unwrap_or_default(),
            };
            match next {
                Some(Ok(())) => until = until.or_else(|| Some(tokio::time::Instant::now() + SLOWER_PEERS)),
                Some(Err(error)) => {
                    tracing::debug!(%error, "cannot follow a peer");
                    failed = graver(failed, error);
                }
                None => return if until.is_some() { Ok(()) } else { Err(failed) },
            }
        }
    }

    pub(super) async fn pull(&self, chain: &Chain, peer: &str) -> Result<(), Error> {
        let genesis = chain.genesis();
        let head = self.net.head(peer, genesis).await?;
        self.check_head(chain, peer, &head).await?;
        let claimed = head.height;
        loop {
            let height = chain.ledger().height();
            if height >= claimed {
                return Ok(());
            }
            for block in self.net.blocks(peer, genesis, height + 1).await? {
                let block = Block::decode(&block)?;
                let Err(error) = off(|| chain.commit(block)) else { continue };
                // It may be one of a log that parted from ours earlier, which is for others to know.
                self.judge(chain, peer, chain.ledger().height()).await?;
                return Err(error.into());
            }
            // What is held already commits without complaint; a peer that only sends that would keep us here for ever.
            if chain.ledger().height() <= height {
                let message = format!("peer {peer} claims height {claimed} but has no block after {height}");
                return Err(Error::new(Kind::Corrupt, message));
            }
        }
    }
}
