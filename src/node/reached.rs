//! Peers that were reached before this node started.
//!
//! Owns: remembering where they were, and trying them again.
//! Must not know: how a peer is dialled.
//! Invariant: at most [`KEPT`] addresses are remembered; they are written rarely, and only when they have changed.
//! Trust: an address is one at which a node proved to be that peer; it may be another's by now, which is found out when it
//! is dialled. Threads: one task of the runtime. A crash loses what was learned in the last minutes.

use std::sync::Arc;
use std::time::Duration;

use super::{Node, off};

/// Addresses remembered, one for each peer.
const KEPT: usize = 16;
/// How often is looked for new ones.
const EVERY: Duration = Duration::from_secs(60);

impl Node {
    /// Dials who was there before, and from then on remembers who is.
    pub(super) fn remember_reached(self: &Arc<Self>) {
        let (node, stop) = (self.clone(), self.stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            for address in node.state.get().reached {
                node.net.meet(&address).await;
            }
            loop {
                tokio::time::sleep(EVERY).await;
                node.note_reached();
            }
        }));
    }

    /// Writes down where peers are now, if that is news.
    pub(super) fn note_reached(&self) {
        let known = self.state.get().reached;
        let next = merged(&known, self.net.reached());
        if next != known
            && let Err(error) = off(|| self.state.update(|facts| facts.reached = next))
        {
            tracing::warn!(%error, "where peers are is not written down");
        }
    }
}

/// Those that are connected `now` and then those that were before, one address for each peer.
fn merged(known: &[String], now: Vec<String>) -> Vec<String> {
    let peer = |address: &str| address.rsplit('/').next().unwrap_or_default().to_owned();
    let mut next: Vec<String> = Vec::new();
    // Known ones keep their order as long as they are the same, so that nothing is written for a change of order.
    let unchanged = known.iter().filter(|address| now.contains(address)).cloned().collect::<Vec<_>>();
    for address in unchanged.into_iter().chain(now).chain(known.iter().cloned()) {
        if next.len() < KEPT && !next.iter().any(|other| peer(other) == peer(&address)) {
            next.push(address);
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_address_of_each_peer_is_kept_and_the_list_is_bounded() {
        let known = ["/ip4/192.0.2.1/tcp/1/p2p/a", "/ip4/192.0.2.2/tcp/1/p2p/b"].map(str::to_owned);
        assert_eq!(merged(&known, vec![]), known);
        assert_eq!(merged(&known, vec![known[1].clone(), known[0].clone()]), known);
        let moved = "/ip4/192.0.2.9/tcp/1/p2p/b".to_owned();
        assert_eq!(merged(&known, vec![moved.clone()]), [moved, known[0].clone()]);
        let many: Vec<_> = (0..2 * KEPT).map(|n| format!("/ip4/192.0.2.1/tcp/{n}/p2p/{n}")).collect();
        let kept = merged(&known, many);
        assert!(kept.len() == KEPT && !kept.contains(&known[0]), "who is here now comes first");
    }
}
