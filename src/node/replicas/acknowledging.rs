//! Having a snapshot held by storage nodes before it is published.
//!
//! Owns: which nodes are asked, in what order, and how many answers are waited for.
//! Must not know: how a node brings the snapshot to itself.
//! Invariant: every acknowledgement that is returned was checked; no more are waited for than were asked for, and what is
//! under way beyond that goes on without this node waiting.
//! Trust: nodes are strangers: one that neither acknowledges nor gets on is replaced by another.
//! Threads: the task of the publish. A crash leaves nodes that hold a snapshot nobody published, for a day.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;

use super::Ack;
use crate::chain::Chain;
use crate::crypto::PublicKey;
use crate::id::SnapshotId;
use crate::log::{Label, Ledger, MAX_WITNESSES, Name, Replica};
use crate::net::{Net, ReplicaAnswer, ReplicaRequest};
use crate::node::Node;
use crate::node::error::{Error, Kind};
use crate::node::job::Job;
use crate::node::report::{Progress, PublishRequest};
use crate::replicate::{Candidate, order};

/// How many storage nodes hold a version, if nobody says and there are so many.
const COPIES: usize = 3;
/// How long storage nodes that are not connected yet are waited for, and how often they are looked for.
const MEETING: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);
/// How often a node is asked whether it is done, and how long it may get no further.
const ASK_EVERY: Duration = Duration::from_millis(300);
const STUCK: Duration = Duration::from_secs(60);

/// What is to be published, for those who are to hold it.
#[derive(Clone, Copy)]
pub(in crate::node) struct Subject<'a> {
    pub name: &'a Name,
    pub version: &'a Label,
    pub snapshot: SnapshotId,
    pub bytes: u64,
}

/// How many copies there are to be, and acknowledgements before the version is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    copies: usize,
    needed: usize,
}

impl Plan {
    /// `nodes` storage nodes are there besides the publisher, and the network asks for `least` acknowledgements.
    fn new(wish: Option<u32>, ack: Ack, nodes: usize, least: usize) -> Result<Self, Error> {
        let copies = wish.map_or(COPIES.min(nodes), |wish| wish as usize).max(least);
        if copies > nodes {
            let (who, instead) = match least == copies {
                true => ("this network demands", "an admin asks for fewer: bcai validator params --replicas"),
                false => ("there are to be", "publish with fewer --replicas"),
            };
            let message =
                format!("{who} {copies} replica(s), and of storage nodes besides this one there are {nodes}");
            return Err(Error::usage(message).hint(format!(
                "an admin makes a node one with `bcai keys grant KEY storage`; or {instead}"
            )));
        }
        if copies > MAX_WITNESSES {
            return Err(Error::usage(format!("--replicas: {MAX_WITNESSES} at most")));
        }
        let wanted = match ack {
            _ if copies == 0 => 0,
            Ack::One => 1,
            Ack::Quorum => copies / 2 + 1,
            Ack::All => copies,
        };
        Ok(Self { copies, needed: wanted.max(least) })
    }
}

/// How far each node is that was asked.
#[derive(Default)]
struct Come(Mutex<Vec<u64>>);

impl Come {
    fn set(&self, at: usize, bytes: u64) -> u64 {
        let mut come = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let len = come.len().max(at + 1);
        come.resize(len, 0);
        come[at] = bytes;
        come.iter().sum()
    }
}

impl Node {
    /// Refuses what there are too few storage nodes for, before hours of reading; a version that is there already needs none.
    pub(in crate::node) fn check_replicas(
        &self,
        chain: &Chain,
        (name, version): (&Name, &Label),
        request: &PublishRequest,
    ) -> Result<(), Error> {
        let ledger = chain.ledger();
        let known = ledger.dataset(name.as_str()).and_then(|dataset| dataset.version(version.as_str()));
        if known.is_some() { Ok(()) } else { self.plan(&ledger, request).map(drop) }
    }

    /// What a request comes to, and which storage nodes there are besides this one.
    fn plan(&self, ledger: &Ledger, request: &PublishRequest) -> Result<(Plan, Vec<PublicKey>), Error> {
        let me = self.own_first(ledger);
        let nodes: Vec<PublicKey> = ledger.storage_nodes().filter(|node| **node != me).copied().collect();
        let least = ledger.params().replicas as usize;
        Ok((Plan::new(request.replicas, request.ack, nodes.len(), least)?, nodes))
    }

    /// Has `subject` held by storage nodes. Returns their acknowledgements, and how many nodes are to hold it.
    pub(in crate::node) async fn replicate(
        &self,
        chain: &Chain,
        subject: Subject<'_>,
        request: &PublishRequest,
        job: &Job,
    ) -> Result<(Vec<Replica>, usize), Error> {
        let (plan, nodes) = self.plan(&chain.ledger(), request)?;
        if plan.copies == 0 {
            return Ok((Vec::new(), 0));
        }
        let shown =
            Progress { phase: "replicating".into(), bytes_total: subject.bytes, ..Progress::default() };
        job.set(shown.clone());
        let candidates =
            job.run(async { Ok(self.candidates(chain, &nodes, plan.copies, subject).await) }).await?;
        let mut queue: VecDeque<PublicKey> = order(subject.snapshot, subject.bytes, &candidates).into();
        let (connected, able) = (candidates.len(), queue.len());
        if able < plan.needed {
            let message = format!(
                "{} storage nodes must acknowledge the version; of {}, {connected} can be reached, and {able} of these have room",
                plan.needed,
                nodes.len()
            );
            return Err(Error::new(Kind::Unreachable, message).hint(
                "start more of them or give them room (cache.max_bytes), or wait for fewer with --ack one or --replicas",
            ));
        }
        let (come, mut asked) = (Come::default(), 0);
        let mut waiting = FuturesUnordered::new();
        let (mut replicas, mut trouble) = (Vec::new(), String::new());
        while replicas.len() < plan.needed {
            while waiting.len() + replicas.len() < plan.copies
                && let Some(node) = queue.pop_front()
            {
                let at = asked;
                asked += 1;
                let (come, shown) = (&come, &shown);
                let show = move |bytes| {
                    let all = come.set(at, bytes) / plan.copies as u64;
                    job.set(Progress { bytes_done: all.min(subject.bytes), ..shown.clone() });
                };
                waiting.push(self.await_replica(chain, node, subject, show));
            }
            match job.run(async { Ok(waiting.next().await) }).await? {
                Some(Ok(replica)) => replicas.push(replica),
                Some(Err(error)) => {
                    tracing::warn!(%error, "a storage node is left out");
                    trouble = error.message;
                }
                None => {
                    let message = format!(
                        "{} of {} acknowledgements have come, and no other storage node is left: {trouble}",
                        replicas.len(),
                        plan.needed
                    );
                    return Err(Error::new(Kind::Unreachable, message)
                        .hint("run it again: what the nodes have already is not sent again"));
                }
            }
        }
        Ok((replicas, plan.copies))
    }

    /// The storage nodes that answer, with what they say of themselves; enough for `copies`, or all that come in time.
    async fn candidates(
        &self,
        chain: &Chain,
        nodes: &[PublicKey],
        copies: usize,
        subject: Subject<'_>,
    ) -> Vec<Candidate> {
        let since = Instant::now();
        let ledger = chain.ledger();
        let mut found: Vec<Candidate> = Vec::new();
        loop {
            let new = nodes.iter().filter(|node| !found.iter().any(|known| known.node == **node));
            let asked = new.map(|node| {
                let key = ledger.current(node);
                async move { (*node, self.ask_state(chain, &key, &[subject.snapshot]).await) }
            });
            for (node, said) in join_all(asked.collect::<Vec<_>>()).await {
                match said {
                    Ok(said) => found.push(Candidate {
                        node,
                        zone: said.zone,
                        free: said.free,
                        reliability: self.reliability(&ledger, &node),
                    }),
                    Err(error) => tracing::debug!(%node, %error, "a storage node does not answer"),
                }
            }
            let able = found.iter().filter(|candidate| candidate.free >= subject.bytes).count();
            if able >= copies && found.len() == nodes.len() || since.elapsed() > MEETING {
                return found;
            }
            // Of enough nodes all that are connected take part; the others are not waited for long.
            if able >= copies && since.elapsed() > MEETING / 5 {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The share of requests that a node did not fail, as it was seen here.
    fn reliability(&self, ledger: &Ledger, node: &PublicKey) -> f64 {
        let peer = Net::peer_of(&ledger.current(node));
        let known = self.net.peers().into_iter().find(|other| Some(&other.id) == peer.as_ref());
        known.map_or(1.0, |known| 1.0 - known.failure_share)
    }

    /// Asks one node until it has acknowledged, will not, or gets no further.
    async fn await_replica(
        &self,
        chain: &Chain,
        node: PublicKey,
        subject: Subject<'_>,
        show: impl Fn(u64),
    ) -> Result<Replica, Error> {
        let (genesis, snapshot) = (chain.genesis(), subject.snapshot);
        let request = ReplicaRequest::Keep {
            genesis,
            name: subject.name.clone(),
            version: subject.version.clone(),
            snapshot,
            bytes: subject.bytes,
        };
        let (mut progress, mut since) = (0, Instant::now());
        loop {
            let ledger = chain.ledger();
            let peer = Net::peer_of(&ledger.current(&node)).unwrap_or_default();
            let error = match self.net.ask_about_replicas(&peer, &request).await {
                Ok(ReplicaAnswer::Kept { replica }) => {
                    let right = ledger.first_of(&replica.node) == node
                        && replica.claim(genesis, snapshot).verify().is_ok();
                    let wrong =
                        || Error::new(Kind::Corrupt, format!("peer {peer} has signed something else"));
                    show(subject.bytes);
                    return if right { Ok(replica) } else { Err(wrong()) };
                }
                Ok(ReplicaAnswer::Coming { bytes }) => {
                    if bytes > progress {
                        (progress, since) = (bytes, Instant::now());
                        show(bytes);
                    }
                    Error::new(Kind::Unreachable, format!("peer {peer} gets no further"))
                }
                Ok(answer @ ReplicaAnswer::Refused { .. }) => return Err(unwilling(&peer, answer)),
                Ok(answer) => unwilling(&peer, answer),
                Err(error) => error.into(),
            };
            if since.elapsed() > STUCK {
                return Err(error);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Whether a version is published already, with this very snapshot: then nobody is asked for anything.
    pub(in crate::node) fn is_published(&self, chain: &Chain, subject: Subject<'_>) -> bool {
        let ledger = chain.ledger();
        let dataset = ledger.dataset(subject.name.as_str());
        dataset
            .and_then(|dataset| dataset.version(subject.version.as_str()))
            .is_some_and(|held| held.snapshot == subject.snapshot)
    }
}

/// What an answer means that is none.
pub(super) fn unwilling(peer: &str, answer: ReplicaAnswer) -> Error {
    match answer {
        ReplicaAnswer::Refused { cause } => Error::new(Kind::Denied, format!("peer {peer} refuses: {cause}")),
        ReplicaAnswer::Failed { cause } => {
            Error::new(Kind::Unreachable, format!("peer {peer} cannot do it now: {cause}"))
        }
        _ => Error::new(Kind::Unreachable, format!("peer {peer} answered another question")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_copies_as_asked_for_and_three_where_nobody_says() {
        let plan = |wish, ack, nodes, least| {
            let plan = Plan::new(wish, ack, nodes, least).ok()?;
            Some((plan.copies, plan.needed))
        };
        assert_eq!(plan(None, Ack::Quorum, 0, 0), Some((0, 0)));
        assert_eq!(plan(None, Ack::Quorum, 2, 0), Some((2, 2)));
        assert_eq!(plan(None, Ack::Quorum, 9, 0), Some((3, 2)));
        assert_eq!(plan(Some(5), Ack::Quorum, 9, 0), Some((5, 3)));
        assert_eq!(plan(Some(5), Ack::One, 9, 0), Some((5, 1)));
        assert_eq!(plan(Some(5), Ack::All, 9, 0), Some((5, 5)));
        assert_eq!(plan(Some(0), Ack::All, 9, 0), Some((0, 0)));
        assert_eq!(plan(Some(1), Ack::One, 9, 2), Some((2, 2)), "the network asks for more");
        assert_eq!(plan(Some(3), Ack::One, 2, 0), None);
        assert_eq!(plan(None, Ack::One, 0, 1), None, "it can not be published at all");
        assert_eq!(plan(Some(17), Ack::One, 90, 0), None);
    }
}
