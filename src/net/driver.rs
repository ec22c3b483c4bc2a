//! The task that drives the libp2p swarm.
//!
//! Owns: listening, carrying out bans, and handing every event and command to whom it concerns.
//! Must not know: what the streams carry; when anything is dialled (`dialling`).
//! Invariant: it is never held up, and what has been asked of it is done in order.
//! Trust: what mDNS and identify say are claims; a peer id counts only once TLS or Noise has proven it.
//! Threads: one task; it never waits for anything but the swarm, commands and its timer.

use std::collections::{HashMap, HashSet};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, gossipsub, identify, kad, mdns, ping};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::addresses::{ip_of, is_place, is_relayed, with_peer};
use super::desk::Who;
use super::dht::{self, Dht, KAD_PROTOCOL};
use super::dialling::{Dialler, PAUSES, root_cause};
use super::error::NetError;
use super::gossip::{self, News, Rates};
use super::relays::Reservation;
use super::rules::{Mode, Rules};
use super::shared::{Command, PEERS_PROTOCOL, SWARM_PROTOCOL, Shared, clock_ms};
use super::trackers;
use super::transport::{Behaviour, BehaviourEvent, CONNECTING};
use crate::swarm::choice::Failure;

/// How long a direct connection has to last before those through relays are given up for it. One that AutoNAT makes, to see whether a
/// node can be reached, is over before that, and what it has seen is told where it was asked for, perhaps through a relay.
const LASTING: Duration = Duration::from_secs(2);

pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    dialler: Dialler,
    /// Whether it is a relay for others.
    relays: bool,
    dht: Dht,
    dht_at: Instant,
    rates: Rates,
    reservations: Vec<Reservation>,
    relayed: HashMap<ConnectionId, PeerId>,
    /// Connections that were not made to fetch anything: AutoNAT makes them to see whether a peer can be reached.
    trials: HashMap<ConnectionId, (PeerId, Multiaddr)>,
    /// Direct connections with peers that relays lead to as well, and when these are needed no more.
    young: HashMap<ConnectionId, (PeerId, Instant)>,
}

impl Driver {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        rules: Rules,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
    ) -> Driver {
        let reserves = matches!(rules.mode, Mode::Hybrid | Mode::Anonymous);
        let relays = rules.relays.iter().filter(|_| reserves);
        Driver {
            reservations: relays.cloned().map(Reservation::new).collect(),
            dialler: Dialler::new(shared.clone(), rules),
            shared,
            commands,
            relays: swarm.behaviour().relay.is_enabled(),
            dht: Dht::default(),
            dht_at: Instant::now(),
            rates: Rates::default(),
            swarm,
            relayed: HashMap::new(),
            trials: HashMap::new(),
            young: HashMap::new(),
        }
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
            let dht = self.swarm.behaviour().kad.is_enabled().then_some(self.dht_at);
            let reservations = self.reservations.iter().filter_map(Reservation::due);
            let young = self.young.values().map(|(_, at)| *at);
            let next = self.dialler.next().into_iter().chain(dht).chain(reservations).chain(young).min();
            // Far enough when nothing is due; commands and events come in between.
            let timer = sleep_until(next.unwrap_or_else(|| Instant::now() + PAUSES.1));
            tokio::select! {
                () = stop.cancelled() => break,
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(command) = self.commands.recv() => self.on_command(command),
                () = timer => self.do_what_is_due(),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Dial { address, reply } => self.dialler.dial(&mut self.swarm, address, reply),
            Command::Meet { peer, addresses } => self.meet_named(peer, addresses),
            Command::MeetMembers => self.meet_members(),
            Command::Tell(news) => {
                if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
                    gossip::tell(gossip, &news);
                }
            }
            Command::Disconnect(peer) => {
                // It fails when there is no connection, which is what was wanted.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            Command::Ban(peer) => {
                self.swarm.behaviour_mut().banned.block_peer(peer);
                self.dialler.give_up(&peer);
            }
            Command::Pardon(peer) => {
                self.swarm.behaviour_mut().banned.unblock_peer(peer);
                self.dialler.at_once(peer);
            }
        }
    }

    fn do_what_is_due(&mut self) {
        self.dialler.do_what_is_due(&mut self.swarm);
        let now = Instant::now();
        let lasting: Vec<_> = self.young.extract_if(|_, (_, at)| *at <= now).collect();
        lasting.iter().for_each(|(_, (peer, _))| self.close_relayed(peer));
        for reservation in &mut self.reservations {
            reservation.ask(&mut self.swarm);
        }
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
            && self.dht_at <= Instant::now()
        {
            self.dht.turn(kad, &self.shared.trackers.swarms(), self.shared.started.elapsed());
            self.dht_at = Instant::now() + dht::TURN;
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id, connection_id, endpoint, num_established, ..
            } => {
                self.on_connected(peer_id, connection_id, &endpoint, num_established.get() as usize);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                let cause = cause.map(|cause| root_cause(&cause));
                tracing::info!(peer = %peer_id, ?cause, "disconnected");
                if num_established == 0 {
                    self.shared.peer_gone(&peer_id);
                }
                self.relayed.remove(&connection_id);
                self.trials.remove(&connection_id);
                self.young.remove(&connection_id);
                if !self.shared.table.closed(peer_id, num_established).is_empty() {
                    self.dialler.later(peer_id);
                }
                self.shared.table.relayed(&peer_id, self.relayed_with(&peer_id));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.dialler.failed(&mut self.swarm, connection_id, peer_id, error);
                self.meet_members();
            }
            SwarmEvent::NewListenAddr { address, listener_id } => {
                let relayed = self.reservations.iter_mut().find_map(|relay| relay.came_up(listener_id));
                if relayed.is_none() && self.relays {
                    // Its user says that it can be reached there; others get no reservation before that is known.
                    self.swarm.add_external_address(address.clone());
                }
                self.listening(relayed.unwrap_or(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.not_listening(address),
            SwarmEvent::ListenerClosed { listener_id, .. } => {
                if let Some(gone) = self.reservations.iter_mut().find_map(|relay| relay.closed(listener_id)) {
                    self.not_listening(gone);
                }
            }
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            _ => {}
        }
    }

    fn listening(&self, address: Multiaddr) {
        let address = with_peer(address, self.shared.me);
        tracing::info!(%address, "listening");
        self.shared.table.listening(|all| {
            if !all.contains(&address) {
                all.push(address);
            }
        });
    }

    fn not_listening(&self, address: Multiaddr) {
        let address = with_peer(address, self.shared.me);
        self.shared.table.listening(|all| all.retain(|known| *known != address));
    }

    fn on_connected(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
        connections: usize,
    ) {
        let remote = match endpoint {
            // The address it comes from names the peer alone; this one says through which relay.
            ConnectedPoint::Listener { local_addr, .. } if is_relayed(local_addr) => local_addr,
            other => other.get_remote_address(),
        };
        let address = with_peer(remote.clone(), peer);
        let named = self.dialler.is_named(id);
        if is_relayed(&address) {
            self.relayed.insert(id, peer);
            if (self.relayed_with(&peer) as usize) < connections {
                self.close_relayed(&peer);
            }
        } else {
            if self.relayed_with(&peer) > 0 {
                self.young.insert(id, (peer, Instant::now() + LASTING));
            }
            if endpoint.is_dialer() && !named && connections > 1 {
                self.trials.insert(id, (peer, address.clone()));
            }
        }
        tracing::info!(%peer, %address, "connected");
        let (reached, from) =
            if endpoint.is_dialer() { (Some(address), None) } else { (None, Some(address)) };
        // Whoever waits for it finds it in the table.
        self.shared.table.connected(peer, reached, from, named);
        self.shared.table.relayed(&peer, self.relayed_with(&peer));
        if !self.shared.table.is_relay(&peer) {
            self.shared.peer_up(peer);
        }
        self.dialler.connected(&mut self.swarm, peer, id);
    }

    /// There is a direct connection with `peer` that lasts: those through relays are needed no more.
    fn close_relayed(&mut self, peer: &PeerId) {
        for (id, _) in self.relayed.iter().filter(|(_, other)| *other == peer) {
            // They count until they are closed; to close one twice does nothing.
            self.swarm.close_connection(*id);
        }
    }

    fn relayed_with(&self, peer: &PeerId) -> u32 {
        self.relayed.values().filter(|other| *other == peer).count() as u32
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Ping(ping::Event { peer, result: Ok(rtt), .. }) => {
                self.shared.schedule(|scheduler, now| scheduler.on_rtt(now, Who::peer(&peer), rtt));
                if let Some(link) = self.shared.table.link(&peer) {
                    link.health(|health, _| health.on_latency(rtt));
                }
            }
            BehaviourEvent::Ping(ping::Event { connection, result: Err(ping::Failure::Timeout), .. }) => {
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
                    && info.protocols.contains(&KAD_PROTOCOL)
                {
                    dht::add(kad, peer_id, &info.listen_addrs, self.shared.near);
                }
                let listens = info.listen_addrs.into_iter().map(|address| with_peer(address, peer_id));
                self.shared.table.told(&peer_id, listens);
                if info.protocols.contains(&PEERS_PROTOCOL) && self.shared.table.tracks(&peer_id) {
                    self.shared.trackers.met(peer_id);
                }
                let speaks = info.protocols.contains(&SWARM_PROTOCOL);
                if !speaks {
                    self.shared.schedule(|scheduler, now| {
                        scheduler.peer_down(now, Who::peer(&peer_id), Failure::Foreign);
                    });
                }
                if self.shared.table.speaks(&peer_id, speaks) {
                    tracing::debug!(peer = %peer_id, agent = info.agent_version, "found, but no bcai node");
                    // It fails when there is no connection, which is what was wanted.
                    let _ = self.swarm.disconnect_peer_id(peer_id);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => self.on_discovered(found),
            BehaviourEvent::DialBack(event) => {
                // What was to be seen has been seen. Kept, it would be one more connection with this peer for a day.
                let (client, tried) = (event.client, with_peer(event.tested_addr, event.client));
                for (id, _) in
                    self.trials.extract_if(|_, (peer, address)| *peer == client && *address == tried)
                {
                    self.swarm.close_connection(id);
                }
            }
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Reachable(event) if is_place(&event.tested_addr) => {
                let unreachable = event.result.is_err() && self.swarm.external_addresses().next().is_none();
                if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
                    kad.set_mode(Some(if unreachable { kad::Mode::Client } else { kad::Mode::Server }));
                }
                tracing::debug!(address = %event.tested_addr, server = %event.server, result = ?event.result, "tried from outside");
                self.shared.table.tried(event.tested_addr, event.result.is_ok());
            }
            BehaviourEvent::Dcutr(event) => {
                tracing::debug!(peer = %event.remote_peer_id, result = ?event.result, "a direct connection instead of a relayed one");
            }
            BehaviourEvent::Relay(event) => tracing::debug!(?event, "as a relay"),
            _ => {}
        }
    }

    fn on_kad(&mut self, event: kad::Event) {
        let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() else { return };
        for (peer, addresses) in dht::on_event(kad, event, self.shared.near) {
            self.meet_named(peer, addresses);
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        let gossipsub::Event::Message { propagation_source, message_id, message } = event else {
            if let gossipsub::Event::Subscribed { .. } = event {
                self.shared.listeners.notify_one();
            }
            return;
        };
        let (verdict, news) = self.rates.judge(&message, self.shared.started.elapsed());
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
            gossip.report_message_validation_result(&message_id, &propagation_source, verdict);
        }
        match news {
            // Nobody need follow a log.
            Some((_, News::Head { genesis, height, .. })) => drop(self.shared.heads.send((genesis, height))),
            Some((author, News::Beacon { beacon })) => self.shared.table.says(&author, beacon, clock_ms()),
            None => {}
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

    /// Connects to a peer that others have named, if there is room for such.
    fn meet_named(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if self.room_for_named() > 0 {
            self.meet(peer, addresses);
        }
    }

    /// Connects to members of this node's swarms, as far as there is room for such; to others as soon as one cannot be reached.
    fn meet_members(&mut self) {
        for (peer, addresses) in trackers::to_dial(&self.shared, self.room_for_named()) {
            self.meet(peer, addresses);
        }
    }

    /// How many peers that others have named may be dialled, besides those that are being dialled.
    fn room_for_named(&self) -> usize {
        let dialled = self.swarm.network_info().connection_counters().num_pending_outgoing() as usize;
        trackers::room_for_named(&self.shared).saturating_sub(dialled)
    }

    /// Connects to a peer that no user has named, as far as there is room.
    fn meet(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let room = self.swarm.connected_peers().count() < self.shared.max_peers;
        if room && peer != self.shared.me && self.shared.table.refusal(&peer).is_none() {
            self.dialler.dial_known(&mut self.swarm, peer, addresses);
        }
    }
}

/// Fails if somebody listens there. libp2p would listen beside them (`SO_REUSEPORT`), and each of two daemons started
/// by mistake would get some of the connections.
fn probe(address: &Multiaddr) -> std::io::Result<()> {
    let Some(ip) = ip_of(address) else { return Ok(()) };
    match address.iter().nth(1) {
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind((ip, port)).map(drop),
        Some(Protocol::Udp(port)) if port != 0 => UdpSocket::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}
