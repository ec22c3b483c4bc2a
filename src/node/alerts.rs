//! What is wrong with this node, who has taken note of it, and what to do.
//!
//! Owns: the registry of alerts; what is looked at.
//! Must not know: which conditions are worth one (`conditions`), or how anything is measured.
//! Invariant: an alert is raised exactly while its condition holds. At most [`ALERTS`] are remembered, and what has
//! cleared is forgotten before what has not.
//! Trust: what is observed was measured here; names of peers and datasets are shown, not believed.
//! Threads: any; one task looks every [`LOOK_EVERY`], and whoever asks for alerts looks first. Alerts do not outlive
//! the daemon: what still holds is raised again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::Error;
use super::peers::clock;
use super::report::{AckRequest, Acknowledged, Alert, AlertState};
use super::{Node, now_ms, off};
pub(super) use conditions::Seats;
pub use conditions::disk_is_low;
use conditions::{Condition, Observed};

mod conditions;
#[cfg(test)]
pub(super) mod tests;

/// How often is looked for what is wrong.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Alerts remembered.
const ALERTS: usize = 256;
/// How long after the last object that was not cached the cache still counts as bypassed.
const BYPASSED_FOR: Duration = Duration::from_secs(60);

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
        let peers = self.net.peers();
        Ok(Observed {
            uptime: self.started.elapsed(),
            needs_peers,
            clock: clock(&peers),
            seats: self.seats(&peers),
            locked: self.locked(),
            mounts: self.mounted(),
            limited: self.limits().download.is_some(),
            peers,
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
