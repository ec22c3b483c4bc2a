//! Staying in touch with the other validators of a network.
//!
//! Owns: when they are dialled again, which of their addresses are remembered, and catching up with them by blocks.
//! Must not know: what validators say to each other.
//! Invariant: of each two validators the one that has reached the other dials it again, also after both have started anew.
//! Trust: an address is a claim; who answers there proves its key.
//! Threads: one task per network, on the daemon's runtime; ends when the node stops.

use std::sync::Arc;
use std::time::Duration;

use super::{Networks, PEERS_KEPT};
use crate::chain::Chain;
use crate::log::ValidatorSet;
use crate::net::Net;
use crate::node::off;

/// How often it is looked who is connected.
const LOOK: Duration = Duration::from_secs(1);
/// How long consensus itself may take to bring a height that others have.
const PATIENCE: Duration = Duration::from_secs(1);

impl Networks {
    /// Keeps this node connected with the other validators of a log and up to date with them, until it stops.
    pub(super) async fn keep_together(self: Arc<Self>, chain: Arc<Chain>) {
        let stop = self.stop.clone();
        let dialling = async {
            loop {
                self.meet_members(&chain).await;
                tokio::time::sleep(LOOK).await;
            }
        };
        let catching_up = async {
            let mut heard = self.net.heads();
            loop {
                // What is decided while this node is there comes by consensus. Peers that fail are asked again later.
                if let Err(error) = self.catch_up(&chain).await {
                    tracing::debug!(%error, genesis = %chain.genesis(), "no news");
                }
                loop {
                    super::follow::news(&chain, &mut heard).await;
                    let height = chain.ledger().height();
                    tokio::time::sleep(PATIENCE).await;
                    if chain.ledger().height() == height {
                        break;
                    }
                }
            }
        };
        stop.run_until_cancelled(async { tokio::join!(dialling, catching_up) }).await;
    }

    /// Dials the validators that are not connected where they were reached before, and remembers where the others are.
    async fn meet_members(&self, chain: &Chain) {
        let ledger = chain.ledger();
        let genesis = chain.genesis().to_string();
        let known = self.state.get().peers.remove(&genesis).unwrap_or_default();
        let connected = self.connected();
        let reached = self.net.reached();
        let mut addresses = known.clone();
        for peer in others(ledger.validators(), &self.net.peer_id()) {
            let is_theirs = |address: &&String| address.ends_with(&peer);
            if !connected.iter().any(|other| other.id == peer) {
                for address in known.iter().filter(is_theirs) {
                    self.net.meet(address).await;
                }
            } else if let Some(address) = reached.iter().find(is_theirs)
                && !known.contains(address)
            {
                addresses.retain(|known| !known.ends_with(&peer));
                addresses.insert(0, address.clone());
            }
        }
        if addresses != known {
            addresses.truncate(PEERS_KEPT.max(ledger.validators().members().len()));
            if let Err(error) = off(|| self.state.update(|facts| _ = facts.peers.insert(genesis, addresses)))
            {
                tracing::warn!(%error, "where the other validators are will not be remembered");
            }
        }
    }
}

/// The peer ids of all validators but this one.
fn others(set: &ValidatorSet, me: &str) -> Vec<String> {
    let peers = set.members().iter().filter_map(|member| Net::peer_of(&member.key));
    peers.filter(|peer| peer != me).collect()
}
