//! Peers as the user sees and orders them: who is known, who is added, blocked or allowed, and the limits.
//!
//! Owns: what a part of a peer id means, and what is remembered about peers and limits over restarts.
//! Must not know: how peers are connected or bytes held back.
//! Invariant: what a user has ordered holds after a restart as well, unless a setting says otherwise.
//! Trust: addresses and ids are the user's and are checked where they are used.
//! Threads: the runtime. A crash leaves the order carried out or not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};

use super::error::{Error, Kind};
use super::report::{
    AddPeerRequest, ClockStatus, LimitRequest, Limits, NewLimit, PeerOf, PeerRequest, PeerStatus,
};
use super::{Node, off};
use crate::config::{Config, Limit};
use crate::net::{NetError, PeerInfo, PeerState};
use crate::swarm::scheduler::Flow;

/// Addresses that a user has added and that are remembered.
const ADDED: usize = 64;
/// Peers blocked at most.
const BLOCKED: usize = 1024;
/// The first and the longest pause before an added peer that does not answer is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The limits that hold, and which of them a setting names.
#[derive(Debug, Default)]
pub(super) struct Limited(Mutex<Limits>);

impl Limited {
    // One value is set at a time.
    fn get(&self) -> Limits {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, limits: Limits) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }
}

impl Node {
    /// Everybody known: the connected first, and of equal ones the best.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let mut peers = self.net.peers();
        peers.sort_by(|a, b| (a.state as u8).cmp(&(b.state as u8)).then(b.score.total_cmp(&a.score)));
        let flows = self.net.flows();
        peers.into_iter().map(|peer| status(&flows, peer)).collect()
    }

    /// Connects to an address and remembers it: from now on that peer is connected whenever it can be.
    pub async fn add_peer(&self, request: &AddPeerRequest) -> Result<PeerOf, Error> {
        let address = &request.address;
        let peer_id = self.net.connect(address).await?;
        let named = match address.contains("/p2p/") {
            true => address.clone(),
            false => format!("{}/p2p/{peer_id}", address.trim_end_matches('/')),
        };
        off(|| {
            self.state.update(|facts| {
                facts.added.retain(|known| *known != named);
                facts.added.push(named);
                let old = facts.added.len().saturating_sub(ADDED);
                facts.added.drain(..old);
            })
        })?;
        Ok(PeerOf { peer_id })
    }

    /// Disconnects a peer and refuses it from now on. One that was never met is meant by its whole id.
    pub async fn block_peer(&self, request: &PeerRequest) -> Result<PeerOf, Error> {
        let peer_id = match self.find_peer(&request.peer) {
            Err(unknown) if unknown.kind == Kind::NotFound && self.net.is_peer_id(&request.peer) => {
                request.peer.clone()
            }
            found => found?,
        };
        if peer_id == self.net.peer_id() {
            return Err(Error::usage(format!("{peer_id} is this node itself")));
        }
        let blocked = self.state.get().blocked;
        if blocked.len() >= BLOCKED && !blocked.contains(&peer_id) {
            return Err(Error::new(Kind::Failed, format!("{BLOCKED} peers are blocked already"))
                .hint("allow some of them again"));
        }
        // Written down first: a crash in between leaves it blocked at the next start.
        off(|| self.state.update(|facts| _ = facts.blocked.insert(peer_id.clone())))?;
        self.net.block(&peer_id).await?;
        tracing::info!(peer = peer_id, "blocked");
        Ok(PeerOf { peer_id })
    }

    /// Lifts the block or the ban of a peer.
    pub async fn allow_peer(&self, request: &PeerRequest) -> Result<PeerOf, Error> {
        let peer_id = self.find_peer(&request.peer)?;
        off(|| self.state.update(|facts| _ = facts.blocked.remove(&peer_id)))?;
        self.net.allow(&peer_id).await?;
        tracing::info!(peer = peer_id, "allowed");
        Ok(PeerOf { peer_id })
    }

    /// Sets the limits that are named, at once and for later starts, and returns those that hold.
    pub fn limit(&self, request: &LimitRequest) -> Result<Limits, Error> {
        let rate = |new: NewLimit| match new {
            NewLimit::Unlimited => Ok(None),
            NewLimit::Rate(rate) if rate >= Limit::MIN => Ok(Some(rate)),
            NewLimit::Rate(rate) => Err(Error::usage(format!(
                "a limit of {rate} bytes a second is too low: it is at least {}",
                Limit::MIN
            ))),
        };
        let (upload, download) =
            (request.upload.map(rate).transpose()?, request.download.map(rate).transpose()?);
        let mut limits = self.limited.get();
        if upload.is_none() && download.is_none() {
            return Ok(limits);
        }
        limits.upload = upload.unwrap_or(limits.upload);
        limits.download = download.unwrap_or(limits.download);
        off(|| {
            self.state.update(|facts| {
                facts.upload_limit = upload.unwrap_or(facts.upload_limit);
                facts.download_limit = download.unwrap_or(facts.download_limit);
            })
        })?;
        self.apply(limits);
        Ok(limits)
    }

    pub(super) fn limits(&self) -> Limits {
        self.limited.get()
    }

    fn apply(&self, limits: Limits) {
        self.net.set_upload_limit(limits.upload);
        self.net.set_download_limit(limits.download);
        self.limited.set(limits);
    }

    /// Carries out at the start what was ordered before; of limits, what settings do not name.
    pub(super) async fn restore_peers(self: &Arc<Self>, config: &Config) -> Result<(), Error> {
        let facts = self.state.get();
        self.apply(Limits {
            upload: config.upload_limit.map_or(facts.upload_limit, |limit| limit.0),
            download: config.download_limit.map_or(facts.download_limit, |limit| limit.0),
            upload_set: config.upload_limit.is_some(),
            download_set: config.download_limit.is_some(),
        });
        for peer in &facts.blocked {
            self.net.block(peer).await?;
        }
        let is_blocked = |address: &String| facts.blocked.iter().any(|peer| address.ends_with(peer));
        for address in facts.added.into_iter().filter(|address| !is_blocked(address)) {
            let (node, stop) = (self.clone(), self.stop.clone());
            tokio::spawn(stop.run_until_cancelled_owned(async move { node.reach(&address).await }));
        }
        Ok(())
    }

    /// Tries until it is connected once; from then on the network sees to it. What cannot ever work is not tried again.
    async fn reach(&self, address: &str) {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSES.0)
            .with_max_delay(PAUSES.1)
            .without_max_times()
            .with_jitter();
        let passes = |error: &NetError| {
            matches!(
                error,
                NetError::Unreachable { .. } | NetError::TimedOut { .. } | NetError::OtherPeer { .. }
            )
        };
        let dial = || self.net.connect(address);
        if let Err(error) = dial.retry(pauses).when(passes).await {
            tracing::warn!(address, %error, "this added peer is not tried again");
        }
    }

    /// The one known peer whose id is, begins with or ends with `part`.
    fn find_peer(&self, part: &str) -> Result<String, Error> {
        let ids: Vec<String> = self.net.peers().into_iter().map(|peer| peer.id).collect();
        if ids.iter().any(|id| id == part) {
            return Ok(part.to_owned());
        }
        let is_meant = |id: &&String| !part.is_empty() && (id.starts_with(part) || id.ends_with(part));
        let mut meant = ids.iter().filter(is_meant);
        match (meant.next(), meant.count()) {
            (None, _) => Err(Error::not_found(format!("no peer `{part}` is known"))
                .hint("`bcai peers` lists those that are; the end of an id is enough")),
            (Some(id), 0) => Ok(id.clone()),
            (Some(_), more) => Err(Error::usage(format!("`{part}` may mean {} peers", more + 1))
                .hint("give more of the id: all of them begin alike, so its end tells most")),
        }
    }
}

/// How far this machine's clock is from those of connected peers. Of several the middle one counts: one that is wrong, or
/// lies, changes nothing.
pub(super) fn clock(peers: &[PeerInfo]) -> Option<ClockStatus> {
    let connected = peers.iter().filter(|peer| peer.state == PeerState::Connected);
    let told = connected.filter_map(|peer| peer.beacon.as_ref());
    let mut ahead: Vec<i128> =
        told.map(|(beacon, now_ms)| i128::from(*now_ms) - i128::from(beacon.time_ms)).collect();
    ahead.sort_unstable();
    // Of an even number the one of the two in the middle that is the nearer: the other may be the one that is wrong.
    let middles = [ahead.len().saturating_sub(1) / 2, ahead.len() / 2];
    let middle = middles.into_iter().filter_map(|at| ahead.get(at)).min_by_key(|ahead| ahead.abs())?;
    let ahead_ms = i64::try_from(*middle).unwrap_or(if *middle > 0 { i64::MAX } else { i64::MIN });
    Some(ClockStatus { ahead_ms, peers: ahead.len() })
}

fn status(flows: &BTreeMap<String, Flow>, peer: PeerInfo) -> PeerStatus {
    let flow = flows.get(&peer.id);
    PeerStatus {
        peer_id: peer.id,
        address: peer.addresses.first().cloned().unwrap_or_default(),
        addresses: peer.addresses,
        state: peer.state.to_string(),
        relayed: peer.relayed,
        grade: peer.grade.to_string(),
        score: peer.score,
        rtt_ms: peer.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        bytes_in: peer.bytes_in,
        bytes_out: peer.bytes_out,
        rate_in: peer.rate_in,
        rate_out: peer.rate_out,
        failures: peer.failed,
        failure_share: peer.failure_share,
        window_bytes: flow.map(|flow| flow.window),
        under_way_bytes: flow.map_or(0, |flow| flow.under_way),
        queueing_ms: flow.map(|flow| flow.queueing.as_secs_f64() * 1e3),
        agent: peer.beacon.map(|(beacon, _)| beacon.agent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Beacon;

    fn peer(state: PeerState, behind_ms: Option<u64>) -> PeerInfo {
        let beacon = behind_ms.map(|behind_ms| {
            let agent = "bcai".to_owned();
            (Beacon { agent, free_class: 0, relay: false, swarms: 0, time_ms: 10_000 }, 10_000 + behind_ms)
        });
        PeerInfo { beacon, ..crate::node::alerts::tests::peer("a", state) }
    }

    #[test]
    fn one_clock_that_lies_changes_nothing_and_who_is_away_does_not_count() {
        let connected = |behind_ms| peer(PeerState::Connected, behind_ms);
        assert_eq!(clock(&[connected(None), peer(PeerState::Reconnecting, Some(7))]), None);
        let told =
            [connected(Some(50)), connected(Some(u64::MAX - 10_000)), connected(Some(20)), connected(None)];
        assert_eq!(clock(&told), Some(ClockStatus { ahead_ms: 50, peers: 3 }));
        assert_eq!(clock(&told[..2]), Some(ClockStatus { ahead_ms: 50, peers: 2 }));
        assert_eq!(clock(&told[1..2]), Some(ClockStatus { ahead_ms: i64::MAX, peers: 1 }));
    }
}
