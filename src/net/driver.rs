//! The task that drives the libp2p swarm.
//!
//! Owns: listening, dialling, dialling again what was lost, and carrying out bans.
//! Must not know: what the streams carry.
//! Invariant: every dial asked for is answered; a lost peer that we had reached is tried again with growing pauses.
//! Trust: what mDNS and identify say are claims; a peer id counts only once Noise has proven it.
//! Threads: one task; it never waits for anything but the swarm, commands and its timer.

use std::collections::{HashMap, HashSet};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::StreamExt;
use libp2p::core::transport::TransportError;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, mdns, ping};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::addresses::{ip_of, is_supported, peer_of, with_peer};
use super::error::NetError;
use super::shared::{Command, PEERS_PROTOCOL, SWARM_PROTOCOL, Shared};
use super::transport::{Behaviour, BehaviourEvent, CONNECTING};

/// The first and the longest pause before a lost peer is dialled again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A connection that held for so long makes the pauses short again.
const STEADY: Duration = Duration::from_secs(10);
/// Dials of a lost peer that no user has named, before it is forgotten: about two minutes.
const MAX_TRIES: u32 = 12;

pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    dials: HashMap<ConnectionId, Dial>,
    again: HashMap<PeerId, Again>,
}

/// A dial that somebody waits for.
struct Dial {
    address: Multiaddr,
    expected: Option<PeerId>,
    reply: oneshot::Sender<Result<PeerId, NetError>>,
}

/// When to dial a lost peer again.
struct Again {
    pauses: ExponentialBackoff,
    /// Nothing while it is connected or being dialled.
    at: Option<Instant>,
    /// How often it was put off since it was last connected for a while.
    tries: u32,
    /// Since when it is connected.
    connected: Option<Instant>,
}

impl Again {
    fn new() -> Again {
        Again { pauses: pauses(), at: None, tries: 0, connected: None }
    }
}

fn pauses() -> ExponentialBackoff {
    let (min, max) = PAUSES;
    ExponentialBuilder::default()
        .with_min_delay(min)
        .with_max_delay(max)
        .without_max_times()
        .with_jitter()
        .build()
}

impl Driver {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
    ) -> Driver {
        let (dials, again) = (HashMap::new(), HashMap::new());
        Driver { swarm, shared, commands, dials, again }
    }

    /// Listens on all of `addresses`, or fails.
    pub(super) async fn listen(&mut self, addresses: &[String]) -> Result<(), NetError> {
        let failed = |address: &str, cause: String| NetError::Listen { address: address.to_owned(), cause };
        let mut pending = HashMap::new();
        for text in addresses {
            let address: Multiaddr = text.parse().map_err(|error| failed(text, format!("{error}")))?;
            probe(&address).map_err(|error| failed(text, error.to_string()))?;
            let listener = self.swarm.listen_on(address).map_err(|error| failed(text, root_cause(&error)))?;
            pending.insert(listener, text);
        }
        let deadline = Instant::now() + CONNECTING;
        while let Some(text) = pending.values().next() {
            let event = tokio::time::timeout_at(deadline, self.swarm.select_next_some()).await;
            let event = event.map_err(|_| failed(text, "no address came up".to_owned()))?;
            match &event {
                SwarmEvent::NewListenAddr { listener_id, .. } => drop(pending.remove(listener_id)),
                SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. }
                | SwarmEvent::ListenerError { listener_id, error } => {
                    if let Some(text) = pending.get(listener_id) {
                        return Err(failed(text, error.to_string()));
                    }
                }
                _ => {}
            }
            self.on_event(event);
        }
        Ok(())
    }

    /// Runs until the network is shut down.
    pub(super) async fn run(mut self) {
        let stop = self.shared.stop.clone();
        loop {
            let next = self.again.values().filter_map(|again| again.at).min();
            // Far enough when nothing is due; commands and events come in between.
            let timer = sleep_until(next.unwrap_or_else(|| Instant::now() + PAUSES.1));
            tokio::select! {
                () = stop.cancelled() => break,
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(command) = self.commands.recv() => self.on_command(command),
                () = timer => self.dial_what_is_due(),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Dial { address, reply } => self.dial(address, reply),
            Command::Meet { peer, addresses } => self.meet(peer, addresses),
            Command::Disconnect(peer) => {
                // It fails when there is no connection, which is what was wanted.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            Command::Ban(peer) => {
                self.swarm.behaviour_mut().banned.block_peer(peer);
                self.again.remove(&peer);
            }
            Command::Pardon(peer) => {
                self.swarm.behaviour_mut().banned.unblock_peer(peer);
                self.again.entry(peer).or_insert_with(Again::new).at = Some(Instant::now());
            }
        }
    }

    fn dial(&mut self, address: Multiaddr, reply: oneshot::Sender<Result<PeerId, NetError>>) {
        let expected = peer_of(&address);
        if !is_supported(&address) {
            // Whoever has gone needs no answer.
            let _ = reply.send(Err(NetError::unsupported(&address.to_string())));
            return;
        }
        let opts = match expected {
            Some(peer) => DialOpts::peer_id(peer)
                .addresses(vec![address.clone()])
                .condition(PeerCondition::Always)
                .allocate_new_port()
                .build(),
            None => DialOpts::unknown_peer_id().address(address.clone()).allocate_new_port().build(),
        };
        let connection = opts.connection_id();
        let dial = Dial { address, expected, reply };
        match self.swarm.dial(opts) {
            Ok(()) => drop(self.dials.insert(connection, dial)),
            Err(error) => dial.fail(error),
        }
    }

    fn dial_what_is_due(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self
            .again
            .iter()
            .filter(|(_, again)| again.at.is_some_and(|at| at <= now))
            .map(|(p, _)| *p)
            .collect();
        for peer in due {
            let addresses = self.shared.table.to_reach(&peer);
            if addresses.is_empty() {
                self.again.remove(&peer);
                continue;
            }
            self.again.entry(peer).and_modify(|again| again.at = None);
            if !self.dial_known(peer, addresses) {
                self.later(peer);
            }
        }
    }

    /// Dials unless it is connected or being dialled already. False when that cannot even begin.
    fn dial_known(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) -> bool {
        let opts = DialOpts::peer_id(peer)
            .addresses(addresses)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .allocate_new_port()
            .build();
        matches!(self.swarm.dial(opts), Ok(()) | Err(DialError::DialPeerConditionFalse(_)))
    }

    /// Dials a lost peer again after a pause.
    fn later(&mut self, peer: PeerId) {
        let again = self.again.entry(peer).or_insert_with(Again::new);
        if again.connected.take().is_some_and(|since| since.elapsed() > STEADY) {
            (again.pauses, again.tries) = (pauses(), 0);
        }
        again.tries += 1;
        if again.tries > MAX_TRIES && self.shared.table.forget_unnamed(&peer) {
            self.again.remove(&peer);
            return;
        }
        again.at = Some(Instant::now() + again.pauses.next().unwrap_or(PAUSES.1));
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let address = with_peer(endpoint.get_remote_address().clone(), peer_id);
                let (reached, from) =
                    if endpoint.is_dialer() { (Some(address), None) } else { (None, Some(address)) };
                let dial = self.dials.remove(&connection_id);
                self.shared.table.connected(peer_id, reached, from, dial.is_some());
                if let Some(again) = self.again.get_mut(&peer_id) {
                    (again.at, again.connected) = (None, Some(Instant::now()));
                }
                if let Some(dial) = dial {
                    // Whoever has gone needs no answer.
                    let _ = dial.reply.send(Ok(peer_id));
                }
                tracing::info!(peer = %peer_id, address = %endpoint.get_remote_address(), "connected");
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, cause, .. } => {
                let cause = cause.map(|cause| root_cause(&cause));
                tracing::info!(peer = %peer_id, ?cause, "disconnected");
                if !self.shared.table.closed(peer_id, num_established).is_empty() {
                    self.later(peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                if let Some(dial) = self.dials.remove(&connection_id) {
                    dial.fail(error);
                } else if let Some(peer) = peer_id
                    && self.again.contains_key(&peer)
                {
                    tracing::debug!(%peer, %error, "still out of reach");
                    self.later(peer);
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                let address = with_peer(address, *self.swarm.local_peer_id());
                tracing::info!(%address, "listening");
                self.shared.table.listening(|all| all.push(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let address = with_peer(address, *self.swarm.local_peer_id());
                self.shared.table.listening(|all| all.retain(|known| *known != address));
            }
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Ping(ping::Event { peer, result: Ok(rtt), .. }) => {
                if let Some(link) = self.shared.table.link(&peer) {
                    link.speed(|speed, _| speed.on_rtt(rtt));
                }
            }
            BehaviourEvent::Ping(ping::Event { connection, result: Err(ping::Failure::Timeout), .. }) => {
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                let listens = info.listen_addrs.into_iter().map(|address| with_peer(address, peer_id));
                self.shared.table.told(&peer_id, listens);
                if info.protocols.contains(&PEERS_PROTOCOL) && self.shared.table.tracks(&peer_id) {
                    self.shared.trackers.met(peer_id);
                }
                if self.shared.table.speaks(&peer_id, info.protocols.contains(&SWARM_PROTOCOL)) {
                    tracing::debug!(peer = %peer_id, agent = info.agent_version, "found, but no bcai node");
                    // It fails when there is no connection, which is what was wanted.
                    let _ = self.swarm.disconnect_peer_id(peer_id);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => self.on_discovered(found),
            _ => {}
        }
    }

    /// Connects to what was discovered.
    fn on_discovered(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        let peers: HashSet<PeerId> = found.iter().map(|(peer, _)| *peer).collect();
        for peer in peers {
            let of_this = found.iter().filter(|(other, _)| *other == peer);
            self.meet(peer, of_this.map(|(_, address)| address.clone()).collect());
        }
    }

    /// Connects to a peer that no user has named, as far as there is room.
    fn meet(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let room = self.swarm.connected_peers().count() < self.shared.max_peers;
        if room && peer != self.shared.me && !self.shared.table.is_banned(&peer) {
            self.dial_known(peer, addresses);
        }
    }
}

impl Dial {
    fn fail(self, error: DialError) {
        let address = self.address.to_string();
        let error = match error {
            DialError::WrongPeerId { obtained, .. } => {
                let expected = self.expected.map_or_else(String::new, |peer| peer.to_string());
                NetError::OtherPeer { address, expected, found: obtained.to_string() }
            }
            DialError::LocalPeerId { .. } => NetError::Myself { address },
            DialError::Denied { cause } => NetError::Denied { address, cause: root_cause(&cause) },
            DialError::Transport(errors) => match errors.last() {
                Some((_, TransportError::MultiaddrNotSupported(_))) => NetError::unsupported(&address),
                Some((_, error)) => NetError::Unreachable { address, cause: root_cause(error) },
                None => NetError::Unreachable { address, cause: "no address was tried".to_owned() },
            },
            other => NetError::Unreachable { address, cause: root_cause(&other) },
        };
        // Whoever has gone needs no answer.
        let _ = self.reply.send(Err(error));
    }
}

/// Fails if somebody listens there. libp2p would listen beside them (`SO_REUSEPORT`), and each of two daemons started
/// by mistake would get some of the connections.
fn probe(address: &Multiaddr) -> std::io::Result<()> {
    let Some(ip) = ip_of(address) else { return Ok(()) };
    match address.iter().nth(1) {
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}

/// The innermost error; those around it only name the layers of libp2p.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
