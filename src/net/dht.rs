//! Members of swarms found through Kademlia: one provider record for each swarm that this node is in.
//!
//! Owns: when records are given and asked for, and which records of others are kept.
//! Must not know: what a swarm is of; how a member is dialled.
//! Invariant: a bounded number of records is kept and of queries begun at a time; only provider records are taken.
//! Trust: records come from strangers; an address in them is dialled only if it could be of that peer.
//! Threads: the driver's task. Time comes in as `now`.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig, RecordStore};
use libp2p::kad::{self, InboundRequest, ProviderRecord, QueryResult, RecordKey};
use libp2p::swarm::{ConnectionId, NetworkBehaviour};
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use super::addresses::taken;
use crate::id::SwarmId;
use crate::swarm::tracker::{MAX_ADDRESSES, MAX_SWARMS_EACH};

pub(super) const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/bcai/kad/1");

pub(super) type Kad = kad::Behaviour<MemoryStore>;

/// Pauses between two rounds of giving and asking for the record of a swarm. The first records go to the few nodes that
/// are known then.
const PAUSES: [u64; 4] = [5, 25, 120, 600];
/// How long a record counts.
const RECORD: Duration = Duration::from_secs(30 * 60);
/// Swarms that a round begins with at a time; the others follow in the next turns.
const AT_ONCE: usize = 8;
/// How often it is this module's turn.
pub(super) const TURN: Duration = Duration::from_secs(1);
/// How long a query may take.
const QUERY: Duration = Duration::from_secs(20);
/// Swarms of which records are kept, those of this node included.
const RECORDS: usize = 8 * MAX_SWARMS_EACH;

pub(super) fn behaviour(me: PeerId) -> Kad {
    let mut config = kad::Config::new(KAD_PROTOCOL);
    config
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_caching(kad::Caching::Disabled)
        .set_provider_record_ttl(Some(RECORD))
        .set_provider_publication_interval(None)
        .set_query_timeout(QUERY);
    let bounds =
        MemoryStoreConfig { max_records: 0, max_provided_keys: RECORDS, ..MemoryStoreConfig::default() };
    let mut kad = Kad::with_config(me, MemoryStore::with_config(me, bounds), config);
    // On a local network there is nobody to tell a node that it can be reached. One that AutoNAT finds out of reach
    // becomes a client.
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

/// How far this node is with its swarms.
#[derive(Default)]
pub(super) struct Dht {
    swarms: HashMap<SwarmId, Round>,
}

#[derive(Default)]
struct Round {
    done: usize,
    next: Duration,
}

impl Dht {
    /// Gives and asks for records of `joined` swarms as far as that is due.
    pub(super) fn turn(&mut self, kad: &mut Kad, joined: &[SwarmId], now: Duration) {
        self.swarms.retain(|swarm, _| {
            let keep = joined.contains(swarm);
            if !keep {
                kad.stop_providing(&key(swarm));
            }
            keep
        });
        // Nobody to ask or to tell.
        if kad.kbuckets().next().is_none() {
            return;
        }
        for swarm in self.due(joined, now) {
            if let Err(error) = kad.start_providing(key(&swarm)) {
                tracing::debug!(%error, "no more records are given");
            }
            kad.get_providers(key(&swarm));
        }
    }

    fn due(&mut self, joined: &[SwarmId], now: Duration) -> Vec<SwarmId> {
        let mut due = Vec::new();
        for swarm in joined {
            let round = self.swarms.entry(*swarm).or_default();
            if round.next <= now && due.len() < AT_ONCE {
                round.next = now + Duration::from_secs(PAUSES[round.done.min(PAUSES.len() - 1)]);
                round.done += 1;
                due.push(*swarm);
            }
        }
        due
    }
}

fn key(swarm: &SwarmId) -> RecordKey {
    RecordKey::new(swarm.as_bytes())
}

/// Deals with an event; returns members that were found, with what is known of where they are. `near` says whether
/// this node is on the loopback alone, and so are its peers.
pub(super) fn on_event(kad: &mut Kad, event: kad::Event, near: bool) -> Vec<(PeerId, Vec<Multiaddr>)> {
    match event {
        kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
            let addresses = useful(record.provider, &record.addresses, near);
            // It fails when there is no room; then others have the record.
            let _ = kad.store_mut().add_provider(ProviderRecord { addresses, ..record });
            Vec::new()
        }
        kad::Event::OutboundQueryProgressed {
            result: QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders { providers, .. })),
            ..
        } => providers.into_iter().map(|peer| (peer, addresses_of(kad, peer, near))).collect(),
        _ => Vec::new(),
    }
}

/// What Kademlia knows of where a peer is: it tells only who is about to dial.
fn addresses_of(kad: &mut Kad, peer: PeerId, near: bool) -> Vec<Multiaddr> {
    let nobody = ConnectionId::new_unchecked(0);
    let known = kad.handle_pending_outbound_connection(nobody, Some(peer), &[], Endpoint::Dialer);
    useful(peer, &known.unwrap_or_default(), near)
}

/// Tells Kademlia where a peer that speaks it says that it is.
pub(super) fn add(kad: &mut Kad, peer: PeerId, addresses: &[Multiaddr], near: bool) {
    for address in useful(peer, addresses, near) {
        kad.add_address(&peer, address);
    }
}

fn useful(peer: PeerId, addresses: &[Multiaddr], near: bool) -> Vec<Multiaddr> {
    addresses.iter().filter_map(|address| taken(&address.to_vec(), peer, near)).take(MAX_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swarms_take_turns_and_the_pauses_grow() {
        let mut dht = Dht::default();
        let swarms: Vec<_> = (0..20).map(|n| SwarmId::from_bytes([n; 32])).collect();
        let s = Duration::from_secs;
        assert_eq!(dht.due(&swarms, s(1)), swarms[..8]);
        assert_eq!(dht.due(&swarms, s(2)), swarms[8..16]);
        assert_eq!(dht.due(&swarms, s(3)), swarms[16..]);
        let mut dht = Dht::default();
        let rounds: Vec<_> = (0..1500).filter(|now| !dht.due(&swarms[..1], s(*now)).is_empty()).collect();
        assert_eq!(rounds, [0, 5, 30, 150, 750, 1350]);
    }

    #[test]
    fn records_of_others_are_kept_with_the_addresses_that_can_be_theirs_and_within_bounds() {
        let mut kad = behaviour(PeerId::random());
        let provider = PeerId::random();
        let addresses = ["/ip4/192.0.2.7/tcp/1", "/dns4/example.org/tcp/1", "/ip4/127.0.0.1/tcp/1"];
        let addresses = addresses.map(|address| address.parse().unwrap()).to_vec();
        for n in 0..2 * RECORDS as u32 {
            let key = RecordKey::new(&n.to_le_bytes());
            let record = ProviderRecord { key, provider, expires: None, addresses: addresses.clone() };
            let request = InboundRequest::AddProvider { record: Some(record) };
            assert!(on_event(&mut kad, kad::Event::InboundRequest { request }, false).is_empty());
        }
        let kept = |n: u32| kad_records(&mut kad, n);
        let kept: Vec<_> = [0, 2 * RECORDS as u32 - 1].map(kept).into();
        let only = format!("/ip4/192.0.2.7/tcp/1/p2p/{provider}");
        assert_eq!(kept, [vec![only], vec![]]);
    }

    fn kad_records(kad: &mut Kad, n: u32) -> Vec<String> {
        let records = kad.store_mut().providers(&RecordKey::new(&n.to_le_bytes()));
        records.iter().flat_map(|record| &record.addresses).map(Multiaddr::to_string).collect()
    }
}
