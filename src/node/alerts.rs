//! What is wrong with this node, who has taken note of it, and what to do.
//!
//! Owns: which conditions are worth an alert and how bad they are; the registry of alerts.
//! Must not know: how anything is measured.
//! Invariant: an alert is raised exactly while its condition holds. At most [`ALERTS`] are remembered, and what has
//! cleared is forgotten before what has not.
//! Trust: what is observed was measured here; names of peers and datasets are shown, not believed.
//! Threads: any; one task looks every [`LOOK_EVERY`], and whoever asks for alerts looks first. Alerts do not outlive
//! the daemon: what still holds is raised again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::Error;
use super::report::{
    AckRequest, Acknowledged, Alert, AlertState, NetworkStatus, PageStatus, ReplicaStatus, Severity,
};
use super::text::size;
use super::{Node, now_ms, off};
use crate::id::Genesis;
use crate::net::{PeerInfo, PeerState};

/// How often is looked for what is wrong.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Alerts remembered.
const ALERTS: usize = 256;
/// A disk with less than so many hundredths free, and less than so many bytes, is nearly full; and is as good as full.
const DISK_LOW: (u64, u64) = (5, 20 << 30);
const DISK_FULL: (u64, u64) = (1, 1 << 30);
/// How long after the last object that was not cached the cache still counts as bypassed.
const BYPASSED_FOR: Duration = Duration::from_secs(60);
/// A log is stale when its head is older than so many heartbeats.
const STALE_HEARTBEATS: u64 = 3;
/// A block from so far in the future cannot be explained by clocks that are about right, in milliseconds.
const SKEW_MS: u64 = 30_000;

/// What is looked at.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// What cannot go on without peers, for people.
    needs_peers: Vec<String>,
    peers: Vec<PeerInfo>,
    /// Bytes free to this user, and all bytes, of the file system of the store.
    disk: Option<(u64, u64)>,
    store: String,
    /// Objects that were not cached, since the start, and whether one was of late.
    bypassed: u64,
    bypasses: bool,
    networks: Vec<NetworkStatus>,
    replicas: Vec<ReplicaStatus>,
    /// How many objects here are damaged, and one of them.
    damaged: Option<(usize, String)>,
    /// Networks whose logs cannot be opened, and why.
    unserved: Vec<(Genesis, Error)>,
    page: Option<PageStatus>,
}

/// Something that holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    id: String,
    severity: Severity,
    text: String,
    remedy: String,
}

fn condition(
    id: impl Into<String>,
    severity: Severity,
    text: impl Into<String>,
    remedy: impl Into<String>,
) -> Condition {
    Condition { id: id.into(), severity, text: text.into(), remedy: remedy.into() }
}

impl Observed {
    /// Everything about it that is worth an alert.
    fn conditions(&self) -> Vec<Condition> {
        let mut found: Vec<Condition> =
            [self.lonely(), self.disk(), self.bypassed(), self.damaged(), self.pageless()]
                .into_iter()
                .flatten()
                .collect();
        found.extend(self.peers.iter().flat_map(of_peer));
        found.extend(self.networks.iter().flat_map(of_network));
        found.extend(self.replicas.iter().flat_map(of_replicas));
        found.extend(self.unserved.iter().map(of_unserved));
        found
    }

    fn lonely(&self) -> Option<Condition> {
        let connected = self.peers.iter().any(|peer| peer.state == PeerState::Connected);
        let first = self.needs_peers.first().filter(|_| !connected)?;
        let more = match self.needs_peers.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(condition(
            "no-peers",
            Severity::Error,
            format!("no peer is connected, and {first}{more} needs what is not on this machine"),
            "start the publisher or mend the way to it; `bcai peers` shows who was known, `bcai peers add` adds another",
        ))
    }

    fn disk(&self) -> Option<Condition> {
        let (free, total) = self.disk?;
        let below = |(hundredths, bytes): (u64, u64)| free < total / 100 * hundredths && free < bytes;
        let severity = match (below(DISK_FULL), below(DISK_LOW)) {
            (true, _) => Severity::Critical,
            (false, true) => Severity::Warning,
            (false, false) => return None,
        };
        Some(condition(
            "disk-nearly-full",
            severity,
            format!("{} of {} are free on the disk of {}", size(free), size(total), self.store),
            "free some space, lower cache.max_bytes and restart, or move the node to a larger disk",
        ))
    }

    fn damaged(&self) -> Option<Condition> {
        let (objects, first) = self.damaged.as_ref()?;
        Some(condition(
            "damaged-objects",
            Severity::Error,
            format!("{objects} objects in {} are damaged, and nobody had a good copy: {first}", self.store),
            "connect a peer or an origin that has them and run `bcai verify --all --repair`; look whether the disk is failing",
        ))
    }

    fn bypassed(&self) -> Option<Condition> {
        self.bypasses.then(|| {
            condition(
                "cache-bypassed",
                Severity::Warning,
                format!(
                    "{} objects were fetched and not cached: they are fetched again when read again",
                    self.bypassed
                ),
                "the disk is full or does not keep up: free space, or use a faster disk for the store",
            )
        })
    }

    fn pageless(&self) -> Option<Condition> {
        let page = self.page.as_ref()?;
        let cause = page.error.as_ref()?;
        Some(condition(
            "no-web-page",
            Severity::Warning,
            format!("the web page cannot be had at {}: {cause}", page.address),
            "end the program that has the port (`ss -ltnp` names it), or set web.listen to another address and restart",
        ))
    }
}

fn of_peer(peer: &PeerInfo) -> Vec<Condition> {
    let id = &peer.id;
    let mut found = Vec::new();
    if peer.state == PeerState::Banned {
        found.push(condition(
            format!("corrupt-peer:{id}"),
            Severity::Error,
            format!("peer {id} sent wrong bytes and is banned; nobody was given them"),
            format!("tell its operator to run `bcai verify`; `bcai peers allow {id}` lifts the ban"),
        ));
    }
    if peer.state != PeerState::Connected {
        return found;
    }
    let remedy =
        "see `bcai peers`; if it lasts, look at the network between, or ask others with `bcai peers block`";
    if peer.unusual_latency {
        let rtt = peer.rtt.unwrap_or_default().as_secs_f64() * 1e3;
        let text = format!("peer {id} answers far slower than it used to: now in {rtt:.0} ms");
        found.push(condition(format!("unusual-latency:{id}"), Severity::Warning, text, remedy));
    }
    if peer.unusual_failures {
        let share = peer.failure_share * 100.0;
        let text = format!("peer {id} fails far more requests than it used to: now {share:.0}%");
        found.push(condition(format!("unusual-failures:{id}"), Severity::Warning, text, remedy));
    }
    found
}

/// A block from the future says that this clock is behind, or that of those who decide ahead: block times are the only
/// clock of others that is signed. A clock that is ahead here looks like a log that is stale, and is named there.
fn of_network(network: &NetworkStatus) -> Vec<Condition> {
    let genesis = &network.genesis;
    if let Some(text) = &network.forked {
        // It does not go on here, so it is stale too; nothing else is worth saying.
        let remedy = "use only versions that were known before (`bcai mount --offline`); OPERATIONS.md, `the log has forked`";
        return vec![condition(format!("forked-log:{genesis}"), Severity::Critical, text.clone(), remedy)];
    }
    let mut found = Vec::new();
    if network.head_ahead_ms > SKEW_MS {
        found.push(condition(
            format!("clock-skew:{genesis}"),
            Severity::Warning,
            format!(
                "the newest block of network {genesis} is from {} s in the future",
                network.head_ahead_ms / 1000
            ),
            "set this machine's clock, with NTP; if it is right, tell whoever runs the validators",
        ));
    }
    let bound = network.heartbeat_s.saturating_mul(STALE_HEARTBEATS);
    if let Some(age) = network.head_age_s.filter(|age| bound > 0 && *age > bound) {
        let (severity, remedy) = match network.validator {
            true => (Severity::Error, "this node decides that log: daemon.log says why it does not go on"),
            false => (
                Severity::Warning,
                "see whether a validator is among `bcai peers`, and whether this machine's clock is ahead",
            ),
        };
        let text = format!(
            "the log of network {genesis} has had no block for {age} s, and has one every {} s",
            network.heartbeat_s
        );
        found.push(condition(format!("stale-log:{genesis}"), severity, text, remedy));
    }
    found
}

fn of_unserved((genesis, error): &(Genesis, Error)) -> Condition {
    condition(
        format!("unserved-network:{genesis}"),
        Severity::Critical,
        format!("network {genesis} is not served: {}", error.message),
        "stop the node, put networks/ back from the newest backup, and start it: OPERATIONS.md, Backup",
    )
}

/// What is on fewer storage nodes than it should be, and on its way to none.
fn of_replicas(replicas: &ReplicaStatus) -> Vec<Condition> {
    let genesis = &replicas.genesis;
    let lacking = replicas.under.iter().filter(|under| under.held + under.coming < under.copies);
    let each = lacking.map(|under| {
        let severity = if under.held == 0 { Severity::Critical } else { Severity::Warning };
        condition(
            format!("under-replicated:{genesis}/{}", under.version),
            severity,
            format!("{} is on {} of {} storage nodes", under.version, under.held, under.copies),
            "start the storage nodes that are off, or make another one: `bcai keys grant KEY storage`",
        )
    });
    each.collect()
}

/// The alerts of a node.
#[derive(Default)]
pub(super) struct Alerts(Mutex<Registry>);

#[derive(Default)]
struct Registry {
    alerts: BTreeMap<String, Alert>,
    /// The objects not cached when one was last missed, and when that was.
    bypassed: (u64, Option<Instant>),
}

impl Registry {
    /// Takes over what holds now: raises what is new or is back, clears what holds no more.
    fn settle(&mut self, now_ms: u64, mut conditions: Vec<Condition>) {
        // More than can be remembered would push each other out at every look: the same are left out each time.
        conditions.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.id.cmp(&b.id)));
        conditions.truncate(ALERTS);
        let holds = |id: &str| conditions.iter().any(|condition| condition.id == id);
        for alert in self.alerts.values_mut().filter(|alert| alert.state != AlertState::Cleared) {
            if !holds(&alert.id) {
                alert.state = AlertState::Cleared;
                tracing::info!(alert = alert.id, "cleared");
            }
        }
        for condition in conditions {
            self.raise(now_ms, condition);
        }
    }

    fn raise(&mut self, now_ms: u64, condition: Condition) {
        let Condition { id, severity, text, remedy } = condition;
        if !self.alerts.contains_key(&id) {
            self.make_room();
        }
        let alert = self.alerts.entry(id).or_insert_with_key(|id| Alert {
            id: id.clone(),
            severity,
            state: AlertState::Cleared,
            first_ms: now_ms,
            last_ms: now_ms,
            count: 0,
            text: String::new(),
            remedy: String::new(),
        });
        // Worse than what somebody took note of is news.
        let is_news = alert.state == AlertState::Cleared || severity > alert.severity;
        (alert.severity, alert.text, alert.remedy, alert.last_ms) = (severity, text, remedy, now_ms);
        if is_news {
            alert.count += u64::from(alert.state == AlertState::Cleared);
            alert.state = AlertState::Active;
            tracing::warn!(alert = alert.id, %severity, "{}", alert.text);
        }
    }

    /// Forgets one, if there are too many: of what has cleared, otherwise of what is least bad, the oldest.
    fn make_room(&mut self) {
        if self.alerts.len() < ALERTS {
            return;
        }
        let order = |alert: &&Alert| (alert.state != AlertState::Cleared, alert.severity, alert.last_ms);
        let gone = self.alerts.values().min_by_key(order).map(|alert| alert.id.clone());
        gone.and_then(|id| self.alerts.remove(&id));
    }

    fn acknowledge(&mut self, request: &AckRequest) -> Result<Acknowledged, Error> {
        let mut alerts = 0;
        for alert in self.alerts.values_mut().filter(|alert| alert.state != AlertState::Cleared) {
            if matches!(request, AckRequest::One(id) if *id != alert.id) {
                continue;
            }
            alert.state = AlertState::Acknowledged;
            alerts += 1;
        }
        match request {
            AckRequest::One(id) if alerts == 0 => {
                let known = self.alerts.contains_key(id);
                let message =
                    if known { format!("alert {id} has cleared") } else { format!("there is no alert {id}") };
                Err(Error::not_found(message).hint("`bcai alerts` lists those that hold"))
            }
            _ => Ok(Acknowledged { alerts }),
        }
    }

    /// The worst first, and of equal ones the latest.
    fn list(&self) -> Vec<Alert> {
        let mut list: Vec<Alert> = self.alerts.values().cloned().collect();
        list.sort_by_key(|alert| {
            (alert.state == AlertState::Cleared, std::cmp::Reverse((alert.severity, alert.last_ms)))
        });
        list
    }

    /// Whether an object was not cached of late.
    fn bypasses(&mut self, bypassed: u64, now: Instant) -> bool {
        if bypassed > self.bypassed.0 {
            self.bypassed = (bypassed, Some(now));
        }
        self.bypassed.1.is_some_and(|at| now.saturating_duration_since(at) < BYPASSED_FOR)
    }
}

impl Alerts {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        // Each alert is changed in one step; a panic leaves at worst one that the next look corrects.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// All alerts as things are now: those that hold, then those that have cleared.
    pub fn alerts(&self) -> Result<Vec<Alert>, Error> {
        self.look()?;
        Ok(self.alerts.registry().list())
    }

    /// Takes note of alerts. They count as news again when they have cleared and come back.
    pub fn acknowledge(&self, request: &AckRequest) -> Result<Acknowledged, Error> {
        self.look()?;
        self.alerts.registry().acknowledge(request)
    }

    /// Looks for what is wrong, for as long as the node runs.
    pub(super) fn watch_alerts(self: &Arc<Self>) {
        let (node, stop) = (self.clone(), self.stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                if let Err(error) = node.look() {
                    tracing::debug!(%error, "cannot look for what is wrong");
                }
            }
        }));
    }

    fn look(&self) -> Result<(), Error> {
        let observed = self.observe()?;
        self.alerts.registry().settle(now_ms(), observed.conditions());
        Ok(())
    }

    fn observe(&self) -> Result<Observed, Error> {
        let dir = self.paths.store();
        let (bypassed, disk, needs_peers) = off(|| {
            let bypassed = self.store.stats()?.bypassed + self.fetcher.stats().bypassed;
            Ok::<_, Error>((bypassed, rustix::fs::statvfs(&dir).ok(), self.needs_peers()?))
        })?;
        Ok(Observed {
            needs_peers,
            peers: self.net.peers(),
            disk: disk.map(|disk| {
                (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize))
            }),
            store: dir.display().to_string(),
            bypassed,
            bypasses: self.alerts.registry().bypasses(bypassed, Instant::now()),
            networks: self.networks.status(),
            replicas: self.replica_status()?,
            damaged: self.scrub.worst(),
            unserved: self.networks.unserved(),
            page: self.page(),
        })
    }

    /// What may need what only peers have: mounts of what is neither published here nor pinned as a whole, and jobs
    /// that fetch.
    fn needs_peers(&self) -> Result<Vec<String>, Error> {
        let published = self.store.snapshots()?.into_iter().map(|record| record.id.to_string());
        let pins = self.store.pins()?.into_iter();
        let pinned = pins.filter(|pin| pin.whole && pin.paths.is_empty()).map(|pin| pin.snapshot.to_string());
        let here: Vec<String> = published.chain(pinned).collect();
        let mounts = self.mounts.list().into_iter().filter(|mount| !here.contains(&mount.snapshot));
        let lost = self.mounts.lost().into_iter();
        let dirs =
            mounts.map(|mount| mount.dir).chain(lost).map(|dir| format!("the mount {}", dir.display()));
        Ok(dirs.chain(self.transfers.fetching()).collect())
    }
}

#[cfg(test)]
mod tests;
