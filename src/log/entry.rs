//! Entries: what authors say, signed, one record of the log each.
//!
//! Owns: the kinds of entries, their encoding and signature; those about datasets are here, the others by subject in
//! the modules below. Must not know: whether they may be executed.
//! Invariant: an entry has one encoding, and its id covers its signature.
//! Trust: `decode` takes foreign bytes; `verify` proves who wrote them. Threads: pure values.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use super::names::{Label, Name, Reason};
use super::params::Params;
use crate::codec::{self, CodecError};
use crate::crypto::{Claim, CryptoError, PublicKey, SecretKey, Signature};
use crate::id::{EntryId, Genesis, SnapshotId};

mod network;
mod rights;
mod storage;

pub use network::{Delegate, Evidence, Offence, Stake, ValidatorChange};
pub use rights::{Grant, MAX_WRAP_LEN, RoleChange, Rotate};
pub use storage::{Audit, MAX_WITNESSES, Replica, StorageCommit, StorageReceipt};

/// Longest encoded entry, in bytes.
pub const MAX_ENTRY_LEN: usize = 4 << 10;
/// Precedes what an author signs, so that it can never be taken for a vote.
const ENTRY_TAG: &[u8; 16] = b"bcai entry v1\0\0\0";

/// Says that `snapshot` is `version` of `name`, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Publish {
    #[n(0)]
    pub name: Name,
    #[n(1)]
    pub version: Label,
    #[n(2)]
    pub snapshot: SnapshotId,
    /// Bytes of all files, as the publisher counted them; a claim that only fetching the snapshot can check.
    #[n(3)]
    pub bytes: u64,
    /// Files, directories and symbolic links; likewise a claim.
    #[n(4)]
    pub inodes: u64,
    /// The version this one was made from.
    #[n(5)]
    pub parent: Option<Label>,
    /// Storage nodes that already hold it; the network's parameters say how many there must be.
    #[n(6)]
    pub replicas: Vec<Replica>,
    /// How many storage nodes are to hold it from now on; none for as many as have acknowledged it.
    #[n(7)]
    pub copies: Option<u32>,
}

impl Publish {
    /// How many storage nodes are to hold it.
    pub fn copies(&self) -> usize {
        self.copies.map_or(self.replicas.len(), |copies| copies as usize)
    }
}

/// Moves `tag` of `name` to `version`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Tag {
    #[n(0)]
    pub name: Name,
    #[n(1)]
    pub tag: Label,
    #[n(2)]
    pub version: Label,
}

/// Withdraws `version` of `name`. It stays listed and readable, with the reason; `latest` passes it over.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Yank {
    #[n(0)]
    pub name: Name,
    #[n(1)]
    pub version: Label,
    #[n(2)]
    pub reason: Reason,
}

macro_rules! kinds {
    ($($number:literal $kind:ident($fields:ident)),* $(,)?) => {
        /// What an entry does. Encoded as an array of its kind's number and its fields.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum EntryBody {
            $(#[doc = concat!("Kind ", $number, ".")] $kind($fields),)*
        }

        impl<C> Encode<C> for EntryBody {
            fn encode<W: encode::Write>(
                &self,
                e: &mut Encoder<W>,
                c: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.array(2)?;
                match self {
                    $(Self::$kind(fields) => e.u32($number)?.encode_with(fields, c)?.ok(),)*
                }
            }
        }

        // By hand, because an entry of a kind that came later must say "upgrade" and not "junk".
        impl<'b, C> Decode<'b, C> for EntryBody {
            fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
                if d.array()? != Some(2) {
                    return Err(decode::Error::message("an entry's body is a kind and its fields"));
                }
                match d.u32()? {
                    $($number => d.decode_with(c).map(Self::$kind),)*
                    kind => {
                        let text =
                            format!("entry kind {kind} is not known to this version of bcai; upgrade bcai");
                        Err(decode::Error::message(text))
                    }
                }
            }
        }
    };
}

// The numbers are part of the format.
kinds! {
    0 Publish(Publish),
    1 Tag(Tag),
    2 Yank(Yank),
    3 Grant(Grant),
    4 Role(RoleChange),
    5 Rotate(Rotate),
    6 Validator(ValidatorChange),
    7 Stake(Stake),
    8 Delegate(Delegate),
    9 StorageCommit(StorageCommit),
    10 StorageReceipt(StorageReceipt),
    11 Evidence(Evidence),
    12 Params(Params),
}

impl EntryBody {
    /// The dataset that it is about; none where it is about the network or a key.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Publish(publish) => Some(&publish.name),
            Self::Tag(tag) => Some(&tag.name),
            Self::Yank(yank) => Some(&yank.name),
            Self::Grant(grant) => Some(&grant.name),
            Self::StorageCommit(commit) => Some(&commit.name),
            _ => None,
        }
    }
}

/// One signed record of the log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// The network it is for; elsewhere it means nothing.
    #[n(0)]
    pub genesis: Genesis,
    #[n(1)]
    pub author: PublicKey,
    /// Larger than in every earlier executed entry of this author, so that none executes twice.
    #[n(2)]
    pub nonce: u64,
    #[n(3)]
    pub body: EntryBody,
    #[n(4)]
    pub signature: Signature,
}

impl Entry {
    /// Writes and signs an entry.
    pub fn sign(key: &SecretKey, genesis: Genesis, nonce: u64, body: EntryBody) -> Self {
        let author = key.public();
        let signature = key.sign(&message(genesis, &author, nonce, &body));
        Self { genesis, author, nonce, body, signature }
    }

    /// Whether the author signed this. Strict, hence the same verdict on every machine.
    pub fn verify(&self) -> Result<(), CryptoError> {
        self.claim().verify()
    }

    /// What the signature claims, to be checked with others.
    pub fn claim(&self) -> Claim {
        let message = message(self.genesis, &self.author, self.nonce, &self.body);
        Claim { key: self.author, message: message.into(), signature: self.signature }
    }

    /// Id of the entry, signature included.
    pub fn id(&self) -> EntryId {
        EntryId::of(&self.encode())
    }

    /// The canonical encoding: the leaf of the log's Merkle tree.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes foreign bytes. Says nothing about the signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("a log entry", bytes, MAX_ENTRY_LEN)
    }
}

fn message(genesis: Genesis, author: &PublicKey, nonce: u64, body: &EntryBody) -> Vec<u8> {
    tagged(ENTRY_TAG, &(genesis, author, nonce, body))
}

/// Bytes to sign: a tag, so that nothing signed for one purpose passes for another, and the encoding of what is said.
fn tagged<T: Encode<()>>(tag: &[u8; 16], said: &T) -> Vec<u8> {
    let mut bytes = tag.to_vec();
    bytes.extend(codec::encode(said));
    bytes
}
