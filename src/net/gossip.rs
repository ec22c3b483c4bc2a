//! What nodes tell everybody: how far a log has come, and what they are able to.
//!
//! Owns: the messages of the one topic, their limits, and which of them are passed on.
//! Must not know: what a log is; who follows one.
//! Invariant: at most [`MAX_NEWS`] bytes a message and [`RATE`] messages of one author in a while are passed on; chunks
//! are never announced.
//! Trust: messages are signed by their authors, who may still say anything: a head only makes somebody ask for blocks,
//! which are checked, and a beacon is only shown.
//! Threads: the driver's task, and one that tells of this node now and then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, MessageAuthenticity, MessageId, TopicHash};
use libp2p::identity::Keypair;
use minicbor::{Decode, Encode};

use super::error::NetError;
use super::shared::{Command, Shared, agent, blocking, clock_ms};
use crate::codec::{self, CodecError};
use crate::id::{Genesis, HeaderId};

/// The longest message, in bytes.
const MAX_NEWS: usize = 512;
/// The longest program name in a beacon, in bytes.
const MAX_AGENT: usize = 64;
/// Messages of one author that are passed on within [`WHILE`].
const RATE: u32 = 40;
const WHILE: Duration = Duration::from_secs(10);
/// Authors that are counted.
const MAX_AUTHORS: usize = 1024;
/// How often a node tells of itself.
const BEACON_EVERY: Duration = Duration::from_secs(60);
/// The shortest pause between two beacons.
const BEACON_AT_MOST: Duration = Duration::from_secs(2);
/// The longest packet of several messages, in bytes.
const MAX_PACKET: usize = 16 << 10;

/// What a node says that it is able to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Beacon {
    /// The program and its version.
    #[n(0)]
    pub agent: String,
    /// Room that is free in its cache: 0 for less than 1 GiB, then one more for each doubling.
    #[n(1)]
    pub free_class: u8,
    /// Whether it is a relay for others.
    #[n(2)]
    pub relay: bool,
    /// Swarms that it is in.
    #[n(3)]
    pub swarms: u32,
    /// Its clock when it said so, in Unix milliseconds.
    #[n(4)]
    pub time_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum News {
    /// A log has come so far.
    #[n(0)]
    #[cbor(array)]
    Head {
        #[n(0)]
        genesis: Genesis,
        #[n(1)]
        height: u64,
        #[n(2)]
        header: HeaderId,
    },
    #[n(1)]
    #[cbor(array)]
    Beacon {
        #[n(0)]
        beacon: Beacon,
    },
}

impl News {
    fn decode(bytes: &[u8]) -> Result<News, CodecError> {
        let news = codec::decode("a message to all", bytes, MAX_NEWS)?;
        match &news {
            News::Beacon { beacon } if beacon.agent.len() > MAX_AGENT => Err(CodecError::TooLong {
                what: "the name of a program",
                len: beacon.agent.len(),
                max: MAX_AGENT,
            }),
            _ => Ok(news),
        }
    }
}

fn topic() -> IdentTopic {
    IdentTopic::new("/bcai/news/1")
}

pub(super) fn behaviour(keypair: &Keypair) -> Result<gossipsub::Behaviour, NetError> {
    let setup = |error: &dyn std::fmt::Display| NetError::Setup(format!("gossip: {error}"));
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id_prefix("/bcai/gossip")
        .max_transmit_size(MAX_PACKET)
        .validation_mode(gossipsub::ValidationMode::Strict)
        .validate_messages()
        .message_id_fn(id_of)
        .build()
        .map_err(|error| setup(&error))?;
    let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Signed(keypair.clone()), config)
        .map_err(|error| setup(&error))?;
    gossip.subscribe(&topic()).map_err(|error| setup(&error))?;
    Ok(gossip)
}

/// A head is the same whoever tells it, so that it goes around once; a beacon is its author's.
fn id_of(message: &gossipsub::Message) -> MessageId {
    let mut hash = blake3::Hasher::new();
    hash.update(&message.data);
    if !matches!(News::decode(&message.data), Ok(News::Head { .. })) {
        hash.update(&message.sequence_number.unwrap_or(0).to_le_bytes());
        hash.update(&message.source.map(PeerId::to_bytes).unwrap_or_default());
    }
    MessageId::new(hash.finalize().as_bytes())
}

/// Tells everybody. Whoever is alone tells nobody, and what has gone around already does not again.
pub(super) fn tell(gossip: &mut gossipsub::Behaviour, news: &News) {
    if let Err(error) = gossip.publish(TopicHash::from(topic()), codec::encode(news)) {
        tracing::debug!(%error, "not told to anybody");
    }
}

/// How much each author has said of late.
#[derive(Default)]
pub(super) struct Rates {
    authors: HashMap<PeerId, (Duration, u32)>,
}

impl Rates {
    fn admits(&mut self, author: PeerId, now: Duration) -> bool {
        if !self.authors.contains_key(&author) && self.authors.len() >= MAX_AUTHORS {
            self.authors.retain(|_, (since, _)| now.saturating_sub(*since) < WHILE);
            if self.authors.len() >= MAX_AUTHORS {
                return false;
            }
        }
        let (since, count) = self.authors.entry(author).or_insert((now, 0));
        if now.saturating_sub(*since) >= WHILE {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= RATE
    }

    /// What is to become of a message, and what it says if it is to be used.
    pub(super) fn judge(
        &mut self,
        message: &gossipsub::Message,
        now: Duration,
    ) -> (MessageAcceptance, Option<(PeerId, News)>) {
        match (message.source, News::decode(&message.data)) {
            (Some(author), Ok(news)) if self.admits(author, now) => {
                (MessageAcceptance::Accept, Some((author, news)))
            }
            (Some(_), Ok(_)) => (MessageAcceptance::Ignore, None),
            _ => (MessageAcceptance::Reject, None),
        }
    }
}

/// Tells of this node, now and then and when somebody new listens.
pub(super) async fn beacons(shared: Arc<Shared>, relay: bool) {
    loop {
        let wait = tokio::time::timeout(BEACON_EVERY, shared.listeners.notified());
        // Whether somebody has come or it is time, it is told.
        let _ = wait.await;
        let store = shared.store.clone();
        match blocking(move || store.stats()).await {
            Ok(stats) => {
                let free = stats.cache_max_bytes.saturating_sub(stats.cached_bytes) >> 30;
                let beacon = Beacon {
                    agent: agent(),
                    free_class: (u64::BITS - free.leading_zeros()) as u8,
                    relay,
                    swarms: shared.trackers.swarms().len() as u32,
                    time_ms: clock_ms(),
                };
                shared.command(Command::Tell(News::Beacon { beacon })).await;
            }
            Err(error) => tracing::debug!(%error, "nothing is told of this node"),
        }
        tokio::time::sleep(BEACON_AT_MOST).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(source: PeerId, data: Vec<u8>, number: u64) -> gossipsub::Message {
        gossipsub::Message {
            source: Some(source),
            data,
            sequence_number: Some(number),
            topic: topic().hash(),
        }
    }

    fn beacon(agent: &str) -> Vec<u8> {
        let agent = agent.to_owned();
        let beacon = Beacon { agent, free_class: 7, relay: true, swarms: u32::MAX, time_ms: u64::MAX };
        codec::encode(&News::Beacon { beacon })
    }

    fn head(height: u64) -> Vec<u8> {
        let (genesis, header) = (Genesis::from_bytes([1; 32]), HeaderId::from_bytes([2; 32]));
        codec::encode(&News::Head { genesis, height, header })
    }

    #[test]
    fn a_head_is_one_message_whoever_tells_it_and_a_beacon_is_its_authors() {
        let [a, b] = [(); 2].map(|()| PeerId::random());
        assert_eq!(id_of(&message(a, head(1), 1)), id_of(&message(b, head(1), 2)));
        assert_ne!(id_of(&message(a, head(1), 1)), id_of(&message(a, head(2), 1)));
        assert_ne!(id_of(&message(a, beacon("x"), 1)), id_of(&message(b, beacon("x"), 1)));
        assert_ne!(id_of(&message(a, beacon("x"), 1)), id_of(&message(a, beacon("x"), 2)));
    }

    #[test]
    fn what_breaks_a_rule_is_rejected_and_what_is_too_much_not_passed_on() {
        let mut rates = Rates::default();
        let [author, other] = [(); 2].map(|()| PeerId::random());
        let now = Duration::from_secs(1);
        for junk in [vec![], vec![0xff; 10], vec![0; MAX_NEWS + 1], beacon(&"x".repeat(MAX_AGENT + 1))] {
            assert!(matches!(rates.judge(&message(author, junk, 1), now), (MessageAcceptance::Reject, None)));
        }
        assert!(beacon(&"x".repeat(MAX_AGENT)).len() <= MAX_NEWS);
        for n in 0..u64::from(RATE) {
            let (verdict, news) = rates.judge(&message(author, head(n), n), now);
            assert!(matches!(verdict, MessageAcceptance::Accept) && news.is_some());
        }
        let judged = rates.judge(&message(author, head(99), 99), now);
        assert!(matches!(judged, (MessageAcceptance::Ignore, None)));
        assert!(matches!(rates.judge(&message(other, head(99), 1), now).0, MessageAcceptance::Accept));
        assert!(matches!(
            rates.judge(&message(author, head(99), 99), now + WHILE).0,
            MessageAcceptance::Accept
        ));
        for _ in 0..3 * MAX_AUTHORS {
            rates.judge(&message(PeerId::random(), head(1), 1), now);
        }
        assert!(rates.authors.len() <= MAX_AUTHORS);
    }
}
