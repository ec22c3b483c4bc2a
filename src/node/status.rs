//! The node at a glance.
//!
//! Owns: which figures belong to it. Must not know: how any of them comes about.
//! Invariant: looking changes nothing, but that alerts are up to date. Trust: none needed. Threads: any; blocks for the index.

use std::os::unix::ffi::OsStrExt;

use super::error::Error;
use super::peers::clock;
use super::report::{AlertState, ClassStatus, FetchStatus, Jobs, Status, StoreStatus, Trial};
use super::text::escape;
use super::{Node, resident_bytes, supervisor};
use crate::fetch::Share;

impl Node {
    /// The node at a glance.
    pub fn status(&self) -> Result<Status, Error> {
        let stats = self.store.stats()?;
        let changed = self.store.changed_outside();
        let fetch = self.fetcher.stats();
        let mut alerts = self.alerts()?;
        let acknowledged = alerts.iter().filter(|alert| alert.state == AlertState::Acknowledged).count();
        alerts.retain(|alert| alert.state == AlertState::Active);
        Ok(Status {
            version: env!("PROGRAM_VERSION").into(),
            pid: std::process::id(),
            supervisor: self.mounts.keeper().is_there().then(supervisor),
            uptime_s: self.started.elapsed().as_secs(),
            resident_bytes: resident_bytes(),
            peer_id: self.net.peer_id(),
            public_key: self.keys.running().public().to_string(),
            addresses: self.net.addresses(),
            trials: self
                .net
                .trials()
                .into_iter()
                .map(|(address, reached)| Trial { address, reached })
                .collect(),
            networks: self.networks.status(),
            mounts: self.mounted(),
            store: StoreStatus {
                objects: stats.objects,
                published_bytes: stats.published_bytes,
                cached_bytes: stats.cached_bytes,
                cache_max_bytes: stats.cache_max_bytes,
                evicted: stats.evicted,
                in_place_bytes: stats.outside_bytes,
                in_place_changed: changed.iter().map(|path| escape(path.as_os_str().as_bytes())).collect(),
            },
            fetch: FetchStatus {
                local_hits: fetch.local_hits,
                fetched: fetch.fetched,
                fetched_bytes: fetch.fetched_bytes,
                corrupt: fetch.corrupt,
                retries: fetch.retries,
                classes: self.classes(),
            },
            cache: self.cache()?,
            clock: clock(&self.net.peers()),
            peers: self.peers(),
            transfers: self.transfers.list(),
            alerts,
            alerts_acknowledged: acknowledged,
            limits: self.limits(),
            origins: self.origins.status(),
            replicas: self.replica_status()?,
            scrub: self.scrub_status(),
            web: self.page(),
            interrupted: self.transfers.interrupted(),
            answers: self.answers(),
        })
    }

    /// What each class gets of what is fetched.
    fn classes(&self) -> Vec<ClassStatus> {
        let row = |share: Share| ClassStatus {
            class: share.class.name().into(),
            bytes: share.bytes,
            rate: share.rate,
        };
        self.fetcher.shares().into_iter().map(row).collect()
    }

    /// The jobs that run, and those that have ended last.
    pub fn jobs(&self) -> Jobs {
        self.transfers.jobs()
    }
}
