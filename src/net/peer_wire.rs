//! The messages of `/bcai/peers/1`: one announcement and one answer on a stream of their own.
//!
//! Owns: their encoding and its limits. They are framed as those of `log_wire` are.
//! Must not know: who is in which swarm; which addresses are worth dialling.
//! Invariant: a message has one encoding, and what has been checked keeps its limits.
//! Trust: reads what a stranger sends.
//! Threads: pure values.

use libp2p::{Multiaddr, PeerId};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::addresses::MAX_ADDRESS;
use crate::codec::CodecError;
use crate::id::SwarmId;
use crate::swarm::tracker::{MAX_ADDRESSES, MAX_NAMED};

/// Swarms in one announcement.
pub(super) const MAX_SWARMS: usize = 64;
/// The longest announcement and the longest answer, in bytes.
pub(super) const MAX_ANNOUNCE: usize = 8 << 10;
pub(super) const MAX_ANSWER: usize = 128 << 10;
/// The longest peer id, in bytes.
const MAX_PEER: usize = 64;

// What may be said fits the messages.
const _: () = assert!(MAX_SWARMS * 34 + MAX_ADDRESSES * (MAX_ADDRESS + 3) + 16 <= MAX_ANNOUNCE);
const _: () = assert!(MAX_NAMED * (MAX_PEER + MAX_ADDRESSES * (MAX_ADDRESS + 3) + 8) + 16 <= MAX_ANSWER);

/// The sender is in these swarms and can be reached there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Announce {
    #[n(0)]
    pub(super) addresses: Vec<ByteVec>,
    #[n(1)]
    pub(super) swarms: Vec<SwarmId>,
    /// How many others are to be named at most. Whoever is connected with as many as it wants need not be told of more.
    #[n(2)]
    pub(super) wanted: u32,
}

/// Others that have announced themselves in one of those swarms.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Answer {
    #[n(0)]
    pub(super) members: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Member {
    #[n(0)]
    peer: ByteVec,
    #[n(1)]
    addresses: Vec<ByteVec>,
}

fn bytes_of(addresses: &[Multiaddr]) -> Vec<ByteVec> {
    let short = addresses.iter().map(Multiaddr::to_vec).filter(|bytes| bytes.len() <= MAX_ADDRESS);
    short.take(MAX_ADDRESSES).map(ByteVec::from).collect()
}

impl Announce {
    /// `swarms` are [`MAX_SWARMS`] at most, and `wanted` [`MAX_NAMED`].
    pub(super) fn new(addresses: &[Multiaddr], swarms: &[SwarmId], wanted: usize) -> Announce {
        Announce { addresses: bytes_of(addresses), swarms: swarms.to_vec(), wanted: wanted as u32 }
    }

    pub(super) fn check(&self) -> Result<(), CodecError> {
        within("an announcement", self.swarms.len(), MAX_SWARMS)?;
        within("an announcement", self.wanted as usize, MAX_NAMED)?;
        within("an announcement", self.addresses.len(), MAX_ADDRESSES)
    }
}

impl Answer {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        within("a list of members", self.members.len(), MAX_NAMED)?;
        self.members.iter().try_for_each(|member| within("a member", member.addresses.len(), MAX_ADDRESSES))
    }
}

impl Member {
    pub(super) fn new(peer: &PeerId, addresses: &[Multiaddr]) -> Member {
        Member { peer: peer.to_bytes().into(), addresses: bytes_of(addresses) }
    }

    /// Who it is; nothing if that is no peer id.
    pub(super) fn peer(&self) -> Option<PeerId> {
        PeerId::from_bytes(&self.peer).ok()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &[u8]> {
        self.addresses.iter().map(|address| &address[..])
    }
}

/// A list that is over its limit is not taken.
pub(super) fn within(what: &'static str, count: usize, max: usize) -> Result<(), CodecError> {
    if count <= max {
        return Ok(());
    }
    Err(CodecError::Malformed { what, cause: format!("a list of {count} is over its limit of {max}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use proptest::prelude::*;

    #[test]
    fn what_may_be_said_round_trips_and_more_is_refused() {
        let address = format!("/ip4/192.0.2.7/tcp/4001/p2p/{}", PeerId::random());
        let addresses = vec![address.parse::<Multiaddr>().unwrap(); MAX_ADDRESSES + 5];
        let announce = Announce::new(&addresses, &[SwarmId::from_bytes([7; 32]); MAX_SWARMS], MAX_NAMED);
        assert_eq!(announce.check(), Ok(()));
        let bytes = codec::encode(&announce);
        assert_eq!(codec::decode::<Announce>("announcement", &bytes, MAX_ANNOUNCE), Ok(announce));
        let long = Announce::new(&[], &[SwarmId::from_bytes([7; 32]); MAX_SWARMS + 1], 0);
        let greedy = Announce::new(&[], &[], MAX_NAMED + 1);
        assert!(long.check().is_err() && greedy.check().is_err());

        let peer = PeerId::random();
        let members = vec![Member::new(&peer, &addresses); MAX_NAMED];
        assert_eq!((members[0].peer(), members[0].addresses().count()), (Some(peer), MAX_ADDRESSES));
        let mut answer = Answer { members };
        assert_eq!(answer.check(), Ok(()));
        let bytes = codec::encode(&answer);
        assert_eq!(codec::decode::<Answer>("answer", &bytes, MAX_ANSWER), Ok(answer.clone()));
        answer.members.push(answer.members[0].clone());
        assert!(answer.check().is_err());
        let nobody = Member { peer: vec![1, 2, 3].into(), addresses: vec![vec![].into(); MAX_ADDRESSES + 1] };
        assert_eq!(nobody.peer(), None);
        assert!(Answer { members: vec![nobody] }.check().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(announce) = codec::decode::<Announce>("announcement", &bytes, MAX_ANNOUNCE) {
                prop_assert_eq!(codec::encode(&announce), bytes.clone());
            }
            let _ = codec::decode::<Answer>("answer", &bytes, MAX_ANSWER);
        }
    }
}
