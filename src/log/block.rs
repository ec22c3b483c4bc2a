//! Headers and blocks: what is decided at one height.
//!
//! Owns: their encodings and bounds. Must not know: the state they are executed on, or who decided them.
//! Invariant: a header's id covers all of it, and through its hashes the body and the whole past.
//! Trust: decoded blocks are foreign until `Ledger` has applied them. Threads: pure values.

use minicbor::{Decode, Encode};

use super::certificate::{Certificate, MAX_CERTIFICATE_LEN};
use super::digest::{Digest, Of};
use super::entry::{Entry, EntryBody};
use crate::codec::{self, CodecError};
use crate::crypto::PublicKey;
use crate::id::{EntryId, Genesis, HeaderId, LogRoot, StateRoot};

/// Longest encoded header, in bytes.
pub const MAX_HEADER_LEN: usize = 1 << 10;
/// Most entries in one body.
pub const MAX_BODY_ENTRIES: usize = 4096;
/// Most bytes of encoded entries in one body.
pub const MAX_BODY_ENTRY_BYTES: usize = 1 << 20;
/// Longest encoded body, in bytes: the entries and the previous certificate.
pub const MAX_BODY_LEN: usize = MAX_BODY_ENTRY_BYTES + MAX_CERTIFICATE_LEN + 64;
/// Longest encoded block, in bytes.
pub const MAX_BLOCK_LEN: usize = MAX_HEADER_LEN + MAX_BODY_LEN + MAX_CERTIFICATE_LEN + 64;

/// What validators vote on, by its id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// `LOG_VERSION`.
    #[n(0)]
    pub version: u32,
    #[n(1)]
    pub genesis: Genesis,
    /// The first is 1.
    #[n(2)]
    pub height: u64,
    /// In which the body is executed.
    #[n(3)]
    pub epoch: u64,
    /// Milliseconds since 1970, as the proposer's clock had it; never less than in the previous header.
    #[n(4)]
    pub time_ms: u64,
    /// None at height 1.
    #[n(5)]
    pub previous: Option<HeaderId>,
    /// Digest of the certificate of the previous header that the body carries; `Digest::NONE` at height 1.
    #[n(6)]
    pub previous_certificate: Digest,
    /// Entries in the log, those of this body included.
    #[n(7)]
    pub log_size: u64,
    /// RFC 6962 root over these entries.
    #[n(8)]
    pub log_root: LogRoot,
    #[n(9)]
    pub body: Digest,
    /// Root of the state map after the body was executed.
    #[n(10)]
    pub state_root: StateRoot,
    /// Who votes on this header.
    #[n(11)]
    pub validators: Digest,
    /// Who votes on the next one.
    #[n(12)]
    pub next_validators: Digest,
    /// The parameters after the body was executed.
    #[n(13)]
    pub params: Digest,
    /// Over the ids of the entries in the body that carry evidence; `Digest::NONE` of none.
    #[n(14)]
    pub evidence_root: Digest,
    #[n(15)]
    pub proposer: PublicKey,
}

impl Header {
    /// What is voted on.
    pub fn id(&self) -> HeaderId {
        HeaderId::of(&self.encode())
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes foreign bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("a header", bytes, MAX_HEADER_LEN)
    }
}

/// What a header's `body` digest covers.
///
/// Two machines may hold different certificates of the same header (other signers, a later round). The body settles
/// which one counts: it carries the previous header's certificate as its proposer held it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Body {
    /// None at height 1.
    #[n(0)]
    pub previous: Option<Certificate>,
    /// In the order of execution.
    #[n(1)]
    pub entries: Vec<Entry>,
}

impl Body {
    /// What the header says of this body.
    pub fn digest(&self) -> Digest {
        Digest::of(Of::Body, &self.encode())
    }

    /// What the header says of the evidence in this body.
    pub fn evidence_root(&self) -> Digest {
        let evidence = self.entries.iter().filter(|entry| matches!(entry.body, EntryBody::Evidence(_)));
        let ids: Vec<EntryId> = evidence.map(Entry::id).collect();
        if ids.is_empty() { Digest::NONE } else { Digest::of(Of::Evidence, &codec::encode(&ids)) }
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes foreign bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("a block body", bytes, MAX_BODY_LEN)
    }
}

/// A decided height: header, body, and a certificate of this header.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Block {
    #[n(0)]
    pub header: Header,
    #[n(1)]
    pub body: Body,
    #[n(2)]
    pub certificate: Certificate,
}

impl Block {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes foreign bytes. Says nothing about whether it was decided.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("a block", bytes, MAX_BLOCK_LEN)
    }
}
