//! Who decides a network: shown, and changed by entries.
//!
//! Owns: from the words of a request to a decided entry; the report on validators.
//! Must not know: who may change what, or how weights follow; the log has the rules.
//! Invariant: when a change succeeds, its entry or an earlier one that says the same is in the log.
//! Trust: the request is the user's. Threads: async; the report reads some blocks.
//! A crash leaves the entry decided or not; running it again is safe.

use std::collections::BTreeMap;

use super::alerts::Seats;
use super::error::{Error, Kind};
use super::report::{
    Decided, NewParams, OperatorDecided, OperatorRequest, OwnPart, ParamsReport, ValidatorRow,
    ValidatorsReport,
};
use super::rotate::names;
use super::{Node, off};
use crate::chain::Chain;
use crate::crypto::PublicKey;
use crate::log::{Delegate, EntryBody, Ledger, Params, Policy, Stake, Standing, Validator, ValidatorChange};
use crate::net::{Net, PeerInfo, PeerState};

/// Heights whose signatures are counted.
const COUNTED: u64 = 50;
/// Names of the policies, as users write them.
const POLICIES: [(Policy, &str); 4] = [
    (Policy::Equal, "equal"),
    (Policy::Delegated, "delegated"),
    (Policy::UsefulWork, "useful-work"),
    (Policy::Hybrid, "hybrid"),
];

impl Node {
    /// Changes who decides the default network, or by which parameters.
    pub async fn change_operators(&self, request: &OperatorRequest) -> Result<OperatorDecided, Error> {
        let chain = self.networks.default_network()?;
        let body = match request {
            OperatorRequest::Join => EntryBody::Validator(self.joining(&chain)?),
            OperatorRequest::Leave => EntryBody::Validator(ValidatorChange::Leave),
            OperatorRequest::Release { operator } => {
                EntryBody::Validator(ValidatorChange::Release { operator: key(operator)? })
            }
            OperatorRequest::Stake { holder, amount } => {
                EntryBody::Stake(Stake { holder: key(holder)?, amount: *amount })
            }
            OperatorRequest::Delegate { operator } => EntryBody::Delegate(Delegate { to: key(operator)? }),
            OperatorRequest::Params(new) => EntryBody::Params(changed(chain.ledger().params(), new)?),
        };
        let decided = self.decide(&chain, body).await;
        let (height, round, already) = decided.map_err(|error| self.with_remedy(&chain, request, error))?;
        let (ledger, decided) = (chain.ledger(), Decided { height, round, already });
        let (epochs, params) = (ledger.epochs(), ledger.params());
        Ok(OperatorDecided {
            decided,
            epoch: epochs.number + 2,
            earliest_ms: epochs.started_ms.saturating_add(params.epoch_ms.saturating_mul(2)),
            policy: policy(params.policy).to_owned(),
        })
    }

    /// The entry by which this node votes with the key that it is to its peers.
    fn joining(&self, chain: &Chain) -> Result<ValidatorChange, Error> {
        if self.keys.changes_at_start() {
            return Err(Error::new(
                Kind::Busy,
                "the key of this node was replaced, and it still runs under the old one",
            )
            .hint("restart it first: bcai stop; bcai daemon"));
        }
        let ledger = chain.ledger();
        let operator = ledger.acting(&self.keys.author(&ledger).public())?;
        Ok(ValidatorChange::join(self.keys.running(), chain.genesis(), &operator))
    }

    /// What to do about a refusal for want of a right.
    fn with_remedy(&self, chain: &Chain, request: &OperatorRequest, error: Error) -> Error {
        let own = self.keys.author(&chain.ledger()).public();
        match (error.kind, request) {
            (Kind::Denied, OperatorRequest::Join) => {
                error.hint(format!("an admin of the network gives it: bcai keys grant {own} validator"))
            }
            (Kind::Denied, _) => {
                error.hint("run it on a node of an admin; `bcai keys` shows the roles of a node")
            }
            _ => error,
        }
    }

    /// Who decides a network, the default one if none is named.
    pub fn validators(&self, network: Option<&str>) -> Result<ValidatorsReport, Error> {
        let chain = match network {
            Some(genesis) => self.followed(genesis.parse()?)?,
            None => self.networks.default_network()?,
        };
        let ledger = chain.ledger();
        let (set, epochs) = (ledger.validators(), ledger.epochs());
        let counts = off(|| signatures(&chain, &ledger))?;
        let rows = self.rows(&ledger, &counts);
        Ok(ValidatorsReport {
            genesis: chain.genesis().to_string(),
            height: ledger.height(),
            head_ms: ledger.head().map(|head| head.time_ms),
            params: params(ledger.params()),
            epoch: epochs.number,
            epoch_started_ms: epochs.started_ms,
            weight: set.total_weight(),
            quorum: set.total_weight() / 3 * 2 + set.total_weight() % 3 * 2 / 3 + 1,
            counted: ledger.height().min(COUNTED),
            own: self.own_part(&chain, &ledger, &rows),
            validators: rows,
        })
    }

    /// One row for each key that votes, is to vote, or did before its operator was jailed.
    fn rows(&self, ledger: &Ledger, counts: &BTreeMap<PublicKey, (u64, u64)>) -> Vec<ValidatorRow> {
        let epochs = ledger.epochs();
        let sets = [ledger.validators(), &epochs.next];
        let mut voters: Vec<PublicKey> =
            sets.iter().flat_map(|set| set.members()).map(|member| member.key).collect();
        voters.extend(ledger.operators().map(|(_, operator)| operator.voter));
        voters.sort();
        voters.dedup();
        let mut stakes: BTreeMap<PublicKey, u64> = BTreeMap::new();
        for holder in ledger.holders() {
            let stake = stakes.entry(holder.behind).or_default();
            *stake = stake.saturating_add(holder.amount);
        }
        let peers = self.net.peers();
        let standings: BTreeMap<PublicKey, Standing> =
            ledger.operators().map(|(key, operator)| (*key, operator.standing)).collect();
        let row = |voter: PublicKey| {
            let operator = ledger.voter(&voter).map_or(voter, |held| held.operator);
            let operator_key = ledger.current(&operator);
            let (could_sign, signed) = counts.get(&voter).copied().unwrap_or_default();
            ValidatorRow {
                standing: standing(standings.get(&operator).copied().unwrap_or(Standing::Left)).to_owned(),
                weight: ledger.validators().get(&voter).map_or(0, |member| member.weight),
                next_weight: epochs.next.get(&voter).map_or(0, |member| member.weight),
                stake: stakes.get(&operator).copied().unwrap_or_default(),
                score: ledger.score(&operator_key),
                could_sign,
                signed,
                here: voter == self.keys.running().public(),
                connected: is_connected(&peers, &voter),
                voter: voter.to_string(),
                operator: operator.to_string(),
                operator_key: operator_key.to_string(),
            }
        };
        voters.into_iter().map(row).collect()
    }

    /// Of each network that this node decides: who else does and is connected.
    pub(super) fn seats(&self, peers: &[PeerInfo]) -> Vec<Seats> {
        let own = self.keys.running().public();
        let decided = self.networks.all().into_iter().filter(|chain| self.networks.decides(&chain.genesis()));
        let seats = decided.filter_map(|chain| {
            let ledger = chain.ledger();
            let set = ledger.validators();
            set.get(&own)?;
            let is_away = |member: &&Validator| member.key != own && !is_connected(peers, &member.key);
            let away: Vec<_> = set.members().iter().filter(is_away).collect();
            let missing: u64 = away.iter().map(|member| member.weight).sum();
            let here = set.total_weight().saturating_sub(missing);
            Some(Seats {
                genesis: chain.genesis().to_string(),
                here,
                total: set.total_weight(),
                is_quorum: set.is_quorum(here),
                away: away.into_iter().map(|member| (member.key.to_string(), member.weight)).collect(),
            })
        });
        seats.collect()
    }

    fn own_part(&self, chain: &Chain, ledger: &Ledger, rows: &[ValidatorRow]) -> OwnPart {
        let key = self.keys.author(ledger).public();
        let voter = self.keys.running().public();
        let deciding = self.networks.decides(&chain.genesis());
        let seated = ledger.validators().get(&voter).is_some();
        let others = rows.iter().filter(|row| row.weight > 0 && !row.here);
        let holder = ledger.holder(&key);
        OwnPart {
            key: key.to_string(),
            voter: voter.to_string(),
            roles: names(ledger.roles(&key).unwrap_or_default()),
            standing: ledger.operator(&key).map(|operator| standing(operator.standing).to_owned()),
            seated,
            deciding: deciding && seated,
            stake: holder.map_or(0, |holder| holder.amount),
            behind: holder.map(|holder| ledger.current(&holder.behind).to_string()),
            connected: others.clone().filter(|row| row.connected).count(),
            others: others.count(),
        }
    }
}

/// Whether a validator is among the connected peers.
fn is_connected(peers: &[PeerInfo], voter: &PublicKey) -> bool {
    let id = Net::peer_of(voter);
    peers.iter().any(|peer| peer.state == PeerState::Connected && Some(&peer.id) == id.as_ref())
}

/// Of the newest heights: how many each voter could sign, and how many it is found to have signed.
fn signatures(chain: &Chain, ledger: &Ledger) -> Result<BTreeMap<PublicKey, (u64, u64)>, Error> {
    let mut counts: BTreeMap<PublicKey, (u64, u64)> = BTreeMap::new();
    let newest = ledger.height();
    for height in newest.saturating_sub(COUNTED) + 1..=newest {
        let Some(set) = ledger.validators_at(height) else { continue };
        for member in set.members() {
            counts.entry(member.key).or_default().0 += 1;
        }
        for at in chain.block(height)?.certificate.signers() {
            if let Some(member) = set.members().get(at) {
                counts.entry(member.key).or_default().1 += 1;
            }
        }
    }
    Ok(counts)
}

fn key(text: &str) -> Result<PublicKey, Error> {
    text.parse().map_err(|error: crate::crypto::CryptoError| {
        Error::usage(error.to_string()).hint("`bcai keys` on the other node shows its key")
    })
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Active => "active",
        Standing::Left => "left",
        Standing::Jailed => "jailed",
    }
}

fn policy(policy: Policy) -> &'static str {
    POLICIES.iter().find(|(known, _)| *known == policy).map_or("unknown", |(_, name)| name)
}

fn params(params: &Params) -> ParamsReport {
    ParamsReport {
        policy: policy(params.policy).to_owned(),
        heartbeat_ms: params.heartbeat_ms,
        block_ms: params.block_ms,
        epoch_ms: params.epoch_ms,
        seats: params.seats,
        replicas: params.replicas,
        audits: params.audits,
        publishers_only: params.publishers_only,
        members_only: params.members_only(),
    }
}

fn changed(now: &Params, new: &NewParams) -> Result<Params, Error> {
    let policy = match new.policy.as_deref() {
        None => now.policy,
        Some(wanted) => {
            let found = POLICIES.iter().find(|(_, name)| *name == wanted);
            let known = POLICIES.map(|(_, name)| name).join(", ");
            found.ok_or_else(|| Error::usage(format!("`{wanted}` is no policy: it is one of {known}")))?.0
        }
    };
    Ok(Params {
        policy,
        heartbeat_ms: new.heartbeat_ms.unwrap_or(now.heartbeat_ms),
        block_ms: new.block_ms.unwrap_or(now.block_ms),
        epoch_ms: new.epoch_ms.unwrap_or(now.epoch_ms),
        seats: new.seats.unwrap_or(now.seats),
        replicas: new.replicas.unwrap_or(now.replicas),
        audits: new.audits.unwrap_or(now.audits),
        publishers_only: new.publishers_only.unwrap_or(now.publishers_only),
        members_only: new.members_only.or(now.members_only),
    })
}
