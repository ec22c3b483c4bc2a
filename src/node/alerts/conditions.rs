//! Which conditions are worth an alert.
//!
//! Owns: how bad each of them is, what is said about it, and what to do.
//! Must not know: how anything is measured, or what becomes of an alert.
//! Invariant: the same cause has the same name for as long as it holds; every condition has a remedy.
//! Trust: that of `alerts`. Threads: pure values.

use std::time::Duration;

use crate::id::Genesis;
use crate::net::{PeerInfo, PeerState};
use crate::node::error::Error;
use crate::node::report::{ClockStatus, Mounted, NetworkStatus, PageStatus, ReplicaStatus, Severity};
use crate::node::text::size;

/// A disk with less than so many hundredths free, and less than so many bytes, is nearly full; and is as good as full.
const DISK_LOW: (u64, u64) = (5, 20 << 30);
const DISK_FULL: (u64, u64) = (1, 1 << 30);
/// A log is stale when its head is older than so many heartbeats.
const STALE_HEARTBEATS: u64 = 3;
/// Clocks that are about right do not differ by so much, in milliseconds.
const SKEW_MS: u64 = 30_000;
/// How long a node is not surprised that others have not connected yet.
const ARRIVING: Duration = Duration::from_secs(10);

/// What is looked at.
#[derive(Debug, Default)]
pub struct Observed {
    /// How long the node has run.
    pub uptime: Duration,
    /// What cannot go on without peers, for people.
    pub needs_peers: Vec<String>,
    pub peers: Vec<PeerInfo>,
    /// Whether what is received is limited.
    pub limited: bool,
    /// Bytes free to this user, and all bytes, of the file system of the store.
    pub disk: Option<(u64, u64)>,
    pub store: String,
    /// Objects that were not cached, since the start, and whether one was of late.
    pub bypassed: u64,
    pub bypasses: bool,
    pub networks: Vec<NetworkStatus>,
    pub replicas: Vec<ReplicaStatus>,
    /// How many objects here are damaged, and one of them.
    pub damaged: Option<(usize, String)>,
    /// Networks whose logs cannot be opened, and why.
    pub unserved: Vec<(Genesis, Error)>,
    pub page: Option<PageStatus>,
    /// How far the clocks of others are from this one.
    pub clock: Option<ClockStatus>,
    /// Who decides the networks that this node decides too.
    pub seats: Vec<Seats>,
    /// Encrypted datasets that somebody has asked for here and that this node has no key of: network and name, what was said,
    /// and the remedy.
    pub locked: Vec<(String, Error)>,
    pub mounts: Vec<Mounted>,
}

/// Who of those that decide a network is connected with this node, which is one of them.
#[derive(Debug, Clone, Default)]
pub struct Seats {
    pub genesis: String,
    /// Weight of this node and of those connected, and of all.
    pub here: u64,
    pub total: u64,
    /// Whether what is here decides.
    pub is_quorum: bool,
    /// Keys of the others, and their weights.
    pub away: Vec<(String, u64)>,
}

/// Something that holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub id: String,
    pub severity: Severity,
    pub text: String,
    pub remedy: String,
}

pub fn condition(
    id: impl Into<String>,
    severity: Severity,
    text: impl Into<String>,
    remedy: impl Into<String>,
) -> Condition {
    Condition { id: id.into(), severity, text: text.into(), remedy: remedy.into() }
}

impl Observed {
    /// Everything about it that is worth an alert.
    pub fn conditions(&self) -> Vec<Condition> {
        let clock = self.clock();
        let mut found: Vec<Condition> =
            [self.lonely(), self.disk(), self.bypassed(), self.damaged(), self.pageless()]
                .into_iter()
                .flatten()
                .collect();
        found.extend(self.peers.iter().flat_map(|peer| of_peer(peer, self.limited)));
        // Where the peers say so as well, it is said once.
        let is_off = clock.is_some();
        found.extend(self.networks.iter().flat_map(|network| of_network(network, is_off)));
        found.extend(clock);
        found.extend(self.seats.iter().filter(|_| self.uptime >= ARRIVING).flat_map(of_seats));
        found.extend(self.locked.iter().map(of_locked));
        found.extend(self.mounts.iter().filter_map(of_mount));
        found.extend(self.replicas.iter().flat_map(of_replicas));
        found.extend(self.unserved.iter().map(of_unserved));
        found
    }

    fn lonely(&self) -> Option<Condition> {
        let connected = self.peers.iter().any(|peer| peer.state == PeerState::Connected);
        let first = self.needs_peers.first().filter(|_| !connected)?;
        let who = match self.needs_peers.len() - 1 {
            0 => format!("{first} needs"),
            more => format!("{first} and {more} more need"),
        };
        let is_blocked = self.peers.iter().any(|peer| peer.state == PeerState::Blocked);
        Some(condition(
            "no-peers",
            Severity::Error,
            format!("no peer is connected, and {who} what is not on this machine"),
            match is_blocked {
                true => {
                    "`bcai peers` shows who is blocked here, and `bcai peers allow` lifts that; or start another publisher"
                }
                false => {
                    "start the publisher or mend the way to it; `bcai peers` shows who was known, `bcai peers add` adds another"
                }
            },
        ))
    }

    fn disk(&self) -> Option<Condition> {
        let (free, total) = self.disk?;
        Some(condition(
            "disk-nearly-full",
            disk_is_low(free, total)?,
            format!("{} of {} are free on the disk of {}", size(free), size(total), self.store),
            "free some space, lower cache.max_bytes and restart, or move the node to a larger disk",
        ))
    }

    fn clock(&self) -> Option<Condition> {
        let clock = self.clock.filter(|clock| clock.ahead_ms.unsigned_abs() > SKEW_MS)?;
        let seconds = clock.ahead_ms.unsigned_abs() / 1000;
        let (way, peers) = (if clock.ahead_ms > 0 { "ahead of" } else { "behind" }, clock.peers);
        Some(condition(
            "clock-off",
            Severity::Warning,
            format!("this machine's clock is {seconds} s {way} those of {peers} connected peer(s)"),
            "set it, with NTP (`timedatectl set-ntp true`); if it is right, tell whoever runs the peers",
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

/// How bad it is that a disk of `total` bytes has `free` ones.
pub fn disk_is_low(free: u64, total: u64) -> Option<Severity> {
    let below = |(hundredths, bytes): (u64, u64)| free < total / 100 * hundredths && free < bytes;
    match (below(DISK_FULL), below(DISK_LOW)) {
        (true, _) => Some(Severity::Critical),
        (false, true) => Some(Severity::Warning),
        (false, false) => None,
    }
}

/// What is wrong with a peer. Where what is received is limited here (`is_limited`), its answers stand in a queue of our own making.
fn of_peer(peer: &PeerInfo, is_limited: bool) -> Vec<Condition> {
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
    if peer.unusual_latency && !is_limited {
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
fn of_network(network: &NetworkStatus, is_clock_off: bool) -> Vec<Condition> {
    let genesis = &network.genesis;
    if let Some(text) = &network.forked {
        // It does not go on here, so it is stale too; nothing else is worth saying.
        let remedy = "use only versions that were known before (`bcai mount --offline`); OPERATIONS.md, `the log has forked`";
        return vec![condition(format!("forked-log:{genesis}"), Severity::Critical, text.clone(), remedy)];
    }
    let mut found = Vec::new();
    if network.head_ahead_ms > SKEW_MS && !is_clock_off {
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

/// Validators that are away, each; and that those who are left decide nothing.
fn of_seats(seats: &Seats) -> Vec<Condition> {
    let Seats { genesis, here, total, .. } = seats;
    let each = seats.away.iter().map(|(voter, weight)| {
        condition(
            format!("validator-away:{genesis}/{voter}"),
            Severity::Warning,
            format!(
                "validator {voter}, with {weight} of {total} votes in network {genesis}, is not connected"
            ),
            "start its node, or mend the way to it; if it is gone for good: OPERATIONS.md, `Who decides`",
        )
    });
    let stands = (!seats.is_quorum).then(|| {
        condition(
            format!("no-quorum:{genesis}"),
            Severity::Critical,
            format!(
                "network {genesis} stands still: validators with {here} of {total} votes are connected, and more than two thirds decide"
            ),
            "start the validators that are away; until then nothing is published, and everything that is can be read",
        )
    });
    each.chain(stands).collect()
}

fn of_locked((name, error): &(String, Error)) -> Condition {
    let remedy = error.hint.clone().unwrap_or_default();
    condition(format!("no-key:{name}"), Severity::Warning, error.message.clone(), remedy)
}

fn of_mount(mount: &Mounted) -> Option<Condition> {
    let (reason, version, dir) = (mount.withdrawn.as_ref()?, mount.version.as_ref()?, mount.dir.display());
    Some(condition(
        format!("withdrawn:{dir}"),
        Severity::Warning,
        format!("{}@{}, which is mounted on {dir}, was withdrawn: {reason}", version.name, version.version),
        format!(
            "`bcai list` shows the other versions, and `bcai remount {dir} NAME@VERSION` changes to one while programs read"
        ),
    ))
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
