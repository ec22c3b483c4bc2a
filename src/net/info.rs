//! What the table of peers shows to others.
//!
//! Owns: the figures of a peer, and the states that it can be in.
//! Must not know: how any of it comes about.
//! Invariant: a snapshot: nothing in it changes.
//! Trust: addresses and beacons are what a peer says about itself. Threads: pure values.

use std::fmt;
use std::time::Duration;

use super::gossip::Beacon;
use crate::swarm::health::Grade;

/// What is to be known about a peer from outside.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    pub id: String,
    /// Where it was reached, or says that it listens.
    pub addresses: Vec<String>,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
    /// Bytes of objects received from it and sent to it, as they travel.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Objects sent to it.
    pub objects_served: u64,
    /// Bytes a second of that, of late.
    pub rate_in: f64,
    pub rate_out: f64,
    /// Requests that it failed, and their smoothed share.
    pub failed: u64,
    pub failure_share: f64,
    pub grade: Grade,
    /// What it is worth keeping for, from 0 to 1.
    pub score: f64,
    /// It does far worse of late than it used to.
    pub unusual_latency: bool,
    pub unusual_failures: bool,
    pub state: PeerState,
    /// Connected, but through a relay only.
    pub relayed: bool,
    /// What it says that it is able to, if it has lately; and the clock of this machine when that came, in Unix
    /// milliseconds.
    pub beacon: Option<(Beacon, u64)>,
}

/// How things stand with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    Connected,
    /// Connected, but only to go through it: this node is anonymous, and the relay knows where it is.
    Relay,
    /// The connection was lost; it is tried again from time to time.
    Reconnecting,
    /// It sent wrong bytes; nothing is asked of it and its connections are refused until this node starts again.
    Banned,
    /// The same because a user said so, until a user says otherwise.
    Blocked,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerState::Connected => "connected",
            PeerState::Relay => "relay",
            PeerState::Reconnecting => "reconnecting",
            PeerState::Banned => "banned",
            PeerState::Blocked => "blocked",
        })
    }
}
