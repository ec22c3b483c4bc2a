//! Dialling: at a user's wish, at another's word, and again what was lost.
//!
//! Owns: dials under way, when a lost peer is dialled again, and which of the ways to a peer is tried when.
//! Must not know: what the streams carry; why a peer is worth dialling.
//! Invariant: every dial that a user waits for is answered; a lost peer that we had reached is tried again with growing
//! pauses, for ever only if a user has named it; nothing is dialled that the node's mode forbids.
//! Trust: addresses are claims; a peer id counts only once the handshake has proven it.
//! Threads: the driver's task.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use libp2p::core::transport::TransportError;
use libp2p::core::upgrade::NegotiationError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::addresses::{HEAD_START, by_rank, is_relayed, is_supported, peer_of};
use super::error::NetError;
use super::rules::{Rules, relay_of};
use super::shared::Shared;
use super::transport::Behaviour;

/// The first and the longest pause before a lost peer is dialled again.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A connection that held for so long makes the pauses short again.
const STEADY: Duration = Duration::from_secs(10);
/// Dials of a lost peer that no user has named, before it is forgotten: about two minutes.
const MAX_TRIES: u32 = 12;

pub(super) struct Dialler {
    shared: Arc<Shared>,
    rules: Rules,
    dials: HashMap<ConnectionId, Dial>,
    /// Dials that begin when a relay is connected.
    behind_relays: Vec<BehindRelays>,
    again: HashMap<PeerId, Again>,
    /// Ways to a peer that are tried if better ones have not led to it.
    fallbacks: Vec<Fallback>,
}

/// A dial that somebody waits for.
struct Dial {
    address: Multiaddr,
    expected: Option<PeerId>,
    /// Where the address leads to, by the rules of the mode.
    routes: Vec<Multiaddr>,
    reply: oneshot::Sender<Result<PeerId, NetError>>,
}

/// A dial through one of some relays that are being dialled themselves.
struct BehindRelays {
    dial: Dial,
    relays: Vec<PeerId>,
}

struct Fallback {
    peer: PeerId,
    at: Instant,
    addresses: Vec<Multiaddr>,
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

pub(super) fn pauses() -> ExponentialBackoff {
    let (min, max) = PAUSES;
    ExponentialBuilder::default()
        .with_min_delay(min)
        .with_max_delay(max)
        .without_max_times()
        .with_jitter()
        .build()
}

impl Dialler {
    pub(super) fn new(shared: Arc<Shared>, rules: Rules) -> Dialler {
        let (dials, again) = (HashMap::new(), HashMap::new());
        Dialler { shared, rules, dials, behind_relays: Vec::new(), again, fallbacks: Vec::new() }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let again = self.again.values().filter_map(|again| again.at);
        again.chain(self.fallbacks.iter().map(|fallback| fallback.at)).min()
    }

    /// Whether a user waits for this connection.
    pub(super) fn is_named(&self, id: ConnectionId) -> bool {
        self.dials.contains_key(&id)
    }

    /// A connection has come about.
    pub(super) fn connected(&mut self, swarm: &mut Swarm<Behaviour>, peer: PeerId, id: ConnectionId) {
        self.fallbacks.retain(|fallback| fallback.peer != peer);
        if let Some(again) = self.again.get_mut(&peer) {
            (again.at, again.connected) = (None, Some(Instant::now()));
        }
        if let Some(dial) = self.dials.remove(&id) {
            dial.answer(Ok(peer));
        }
        let (begin, wait) = std::mem::take(&mut self.behind_relays)
            .into_iter()
            .partition(|behind| behind.relays.contains(&peer));
        self.behind_relays = wait;
        for BehindRelays { dial, .. } in begin {
            self.begin(swarm, dial);
        }
    }

    /// A dial has failed.
    pub(super) fn failed(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        id: ConnectionId,
        peer: Option<PeerId>,
        error: DialError,
    ) {
        self.lose_relay(peer, &error);
        if let Some(dial) = self.dials.remove(&id) {
            return dial.fail(error);
        }
        let Some(peer) = peer else { return };
        if self.fallbacks.iter().any(|fallback| fallback.peer == peer) {
            self.fall_back(swarm, |fallback| fallback.peer == peer);
        } else if self.again.contains_key(&peer) {
            tracing::debug!(%peer, %error, "still out of reach");
            self.later(peer);
        }
    }

    /// If a relay cannot be reached, nor can what waits for it alone.
    fn lose_relay(&mut self, relay: Option<PeerId>, error: &DialError) {
        self.behind_relays.iter_mut().for_each(|behind| behind.relays.retain(|known| Some(*known) != relay));
        for BehindRelays { dial, .. } in self.behind_relays.extract_if(.., |behind| behind.relays.is_empty())
        {
            let (address, cause) = (dial.address.to_string(), format!("its relay: {}", cause_of(error)));
            dial.answer(Err(NetError::Unreachable { address, cause }));
        }
    }

    /// A peer is not to be dialled any more.
    pub(super) fn give_up(&mut self, peer: &PeerId) {
        self.again.remove(peer);
    }

    /// A peer is to be dialled again at once.
    pub(super) fn at_once(&mut self, peer: PeerId) {
        self.again.entry(peer).or_insert_with(Again::new).at = Some(Instant::now());
    }

    /// Connects to an address that a user has named.
    pub(super) fn dial(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        address: Multiaddr,
        reply: oneshot::Sender<Result<PeerId, NetError>>,
    ) {
        let expected = peer_of(&address);
        let mut dial = Dial { address: address.clone(), expected, routes: Vec::new(), reply };
        if !is_supported(&address) {
            return dial.answer(Err(NetError::unsupported(&address.to_string())));
        }
        dial.routes = self.rules.routes(address);
        dial.routes.retain(|route| self.rules.may_dial(route));
        if dial.routes.is_empty() {
            let cause = format!("net.mode is {}", self.rules.mode);
            let address = dial.address.to_string();
            return dial.answer(Err(NetError::Denied { address, cause }));
        }
        let relays = self.dial_relays(swarm, &dial.routes);
        match relays.is_empty() {
            true => self.begin(swarm, dial),
            false => self.behind_relays.push(BehindRelays { dial, relays }),
        }
    }

    /// Dials the relays that `routes` lead through; returns them, unless one is connected already. libp2p gives up at once what is to go
    /// through a relay that is being dialled, as it is for a reservation.
    fn dial_relays(&self, swarm: &mut Swarm<Behaviour>, routes: &[Multiaddr]) -> Vec<PeerId> {
        let relays = routes.iter().filter(|route| is_relayed(route)).map(relay_of);
        let relays: Vec<_> = relays.filter_map(|relay| Some((peer_of(&relay)?, relay))).collect();
        if relays.iter().any(|(relay, _)| swarm.is_connected(relay)) {
            return Vec::new();
        }
        let mut dial = |relay, address| {
            self.dial_all(swarm, relay, vec![address], PeerCondition::DisconnectedAndNotDialing)
        };
        let dialled = relays.into_iter().filter_map(|(relay, address)| dial(relay, address).then_some(relay));
        dialled.collect()
    }

    fn begin(&mut self, swarm: &mut Swarm<Behaviour>, dial: Dial) {
        let opts = match dial.expected {
            Some(peer) => DialOpts::peer_id(peer)
                .addresses(dial.routes.clone())
                .condition(PeerCondition::Always)
                .allocate_new_port()
                .build(),
            // Only to a peer that is named there may be other routes than the address.
            None => DialOpts::unknown_peer_id().address(dial.address.clone()).allocate_new_port().build(),
        };
        let connection = opts.connection_id();
        match swarm.dial(opts) {
            Ok(()) => drop(self.dials.insert(connection, dial)),
            Err(error) => dial.fail(error),
        }
    }

    pub(super) fn do_what_is_due(&mut self, swarm: &mut Swarm<Behaviour>) {
        self.dial_what_is_due(swarm);
        self.fall_back(swarm, |fallback| fallback.at <= Instant::now());
    }

    fn dial_what_is_due(&mut self, swarm: &mut Swarm<Behaviour>) {
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
            if !self.dial_known(swarm, peer, addresses) {
                self.later(peer);
            }
        }
    }

    /// Dials the best addresses unless the peer is connected or being dialled already, and the others if those do not
    /// answer soon. False when that cannot even begin.
    pub(super) fn dial_known(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    ) -> bool {
        let routes = addresses.into_iter().flat_map(|address| self.rules.routes(address));
        let allowed = routes.filter(|route| self.rules.may_dial(route)).collect();
        let mut ranks = by_rank(allowed).into_iter();
        let Some(best) = ranks.next() else { return false };
        let begun = self.dial_all(swarm, peer, best, PeerCondition::DisconnectedAndNotDialing);
        if begun {
            self.fallbacks.retain(|fallback| fallback.peer != peer);
            let at = |rank: u32| Instant::now() + HEAD_START * rank;
            self.fallbacks.extend((1..).zip(ranks).map(|(rank, addresses)| Fallback {
                peer,
                at: at(rank),
                addresses,
            }));
        }
        begun
    }

    fn dial_all(
        &self,
        swarm: &mut Swarm<Behaviour>,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        condition: PeerCondition,
    ) -> bool {
        let opts =
            DialOpts::peer_id(peer).addresses(addresses).condition(condition).allocate_new_port().build();
        matches!(swarm.dial(opts), Ok(()) | Err(DialError::DialPeerConditionFalse(_)))
    }

    /// Tries the next best ways that are `due`, to those that are not connected yet.
    fn fall_back(&mut self, swarm: &mut Swarm<Behaviour>, due: impl Fn(&Fallback) -> bool) {
        let (due, later) = std::mem::take(&mut self.fallbacks).into_iter().partition(due);
        self.fallbacks = later;
        for Fallback { peer, addresses, .. } in due {
            self.dial_all(swarm, peer, addresses, PeerCondition::Disconnected);
        }
    }

    /// Dials a lost peer again after a pause.
    pub(super) fn later(&mut self, peer: PeerId) {
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
            DialError::Transport(errors)
                if matches!(errors.last(), Some((_, TransportError::MultiaddrNotSupported(_)))) =>
            {
                NetError::unsupported(&address)
            }
            other => NetError::Unreachable { address, cause: cause_of(&other) },
        };
        self.answer(Err(error));
    }

    fn answer(self, result: Result<PeerId, NetError>) {
        // Whoever has gone needs no answer.
        let _ = self.reply.send(result);
    }
}

/// Why a dial has failed; of several addresses, why the last has.
fn cause_of(error: &DialError) -> String {
    let innermost = match error {
        DialError::Transport(errors) => match errors.last() {
            Some((_, error)) => innermost(error),
            None => return "no address was tried".to_owned(),
        },
        other => innermost(other),
    };
    // Which of them it is depends on how far the handshake had come.
    let hung_up = match innermost.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => true,
        _ => matches!(innermost.downcast_ref(), Some(NegotiationError::Failed)),
    };
    match hung_up {
        true => "it ended the handshake; it may have as many connections as it takes".to_owned(),
        false => innermost.to_string(),
    }
}

pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    innermost(error).to_string()
}

/// The innermost error; those around it only name the layers of libp2p.
fn innermost<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
