//! The light client: believes a head because of who signed it, without executing what led there.
//!
//! Owns: the trusted state, the rule by which it advances, its stored form, and the proof of a fork.
//! Must not know: where headers come from, the time of day, or entries.
//! Invariant: trust starts at a genesis document and moves only upwards in height and time, each step signed by more
//! than two thirds of the header's own validators and more than one third of those already trusted.
//! Trust: an `Update` is foreign. The stored form is this machine's own, but is checked like foreign bytes.
//! Threads: pure values.

use minicbor::{Decode, Encode};

use super::block::Header;
use super::certificate::{Certificate, CertificateError, MAX_CERTIFICATE_LEN};
use super::digest::Digest;
use super::genesis::{GenesisDoc, LOG_VERSION, MAX_GENESIS_LEN};
use super::validators::ValidatorSet;
use crate::codec::{self, CodecError};
use crate::id::{Genesis, HeaderId, StateRoot};

/// Longest encoded `Trusted` or `Update`, in bytes: two full sets, a header and a certificate.
pub const MAX_TRUSTED_LEN: usize = 2 * MAX_GENESIS_LEN + MAX_CERTIFICATE_LEN;
/// Version of the stored form.
const TRUSTED_VERSION: u32 = 1;

/// A header with the proof that it was decided.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Signed {
    #[n(0)]
    pub header: Header,
    #[n(1)]
    pub certificate: Certificate,
    /// The set that the certificate is of.
    #[n(2)]
    pub validators: ValidatorSet,
}

/// A later head, with what it takes to check it and the one after it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Update {
    #[n(0)]
    pub signed: Signed,
    /// Who votes on the next height.
    #[n(1)]
    pub next: ValidatorSet,
}

impl Update {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes foreign bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("a light-client update", bytes, MAX_TRUSTED_LEN)
    }
}

/// Two decided headers of one height: proof that more than a third of the validators' weight broke the rules.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Fork {
    #[n(0)]
    pub trusted: Signed,
    #[n(1)]
    pub offered: Signed,
}

/// Why a head was not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LightError {
    /// Upgrade.
    #[error(
        "height {height} has log format {found}; this version of bcai reads format {LOG_VERSION}: upgrade bcai"
    )]
    Version { height: u64, found: u32 },
    /// The peer serves another network, or lies.
    #[error("the header is of network {found}, not of {expected}")]
    OtherNetwork { expected: Genesis, found: Genesis },
    /// The peer is behind, or wants this machine to go back: ask another.
    #[error("height {offered} is below height {trusted}, which is already trusted")]
    Older { trusted: u64, offered: u64 },
    /// A lie: clocks of a quorum do not run backwards.
    #[error("height {height}: time {found} ms is before {floor} ms, which is already trusted")]
    Time { height: u64, floor: u64, found: u64 },
    /// Junk or a lie.
    #[error("height {height}: the {which} do not match the header, which says {expected}")]
    Set { height: u64, which: &'static str, expected: Digest },
    /// Junk or a lie.
    #[error("height {height}: {cause}")]
    Certificate { height: u64, cause: CertificateError },
    /// A lie, or a fork whose other side this machine does not hold.
    #[error("height {height} does not follow the trusted height before it")]
    NotNext { height: u64 },
    /// Ask for a height in between.
    #[error(
        "height {height} is too far ahead: of the validators trusted at height {trusted}, only {weight} of {total} \
         signed it"
    )]
    TooFar { height: u64, trusted: u64, weight: u64, total: u64 },
    /// Stop, keep both, and tell people.
    #[error(
        "the log has forked at height {}: headers {} and {} are both signed by a quorum; validators have broken the \
         rules, trust neither and tell the operators",
        .0.trusted.header.height, .0.trusted.header.id(), .0.offered.header.id()
    )]
    Fork(Box<Fork>),
    /// The stored state is damaged: start again from the genesis.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// What a light client believes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Trusted {
    /// `TRUSTED_VERSION`.
    #[n(0)]
    version: u32,
    #[n(1)]
    genesis: Genesis,
    /// The genesis document's time, in milliseconds since 1970.
    #[n(2)]
    genesis_time_ms: u64,
    /// Who votes on the next height.
    #[n(3)]
    next: ValidatorSet,
    /// The newest head: with its height and time it is also the floor below which nothing is accepted.
    #[n(4)]
    head: Option<Signed>,
}

impl Trusted {
    /// Trust at its root. `doc` must be the document of the network that the user named.
    pub fn at_genesis(doc: &GenesisDoc) -> Self {
        Self::new(doc.id(), doc.time_ms, doc.validators.clone(), None)
    }

    pub(super) fn new(
        genesis: Genesis,
        genesis_time_ms: u64,
        next: ValidatorSet,
        head: Option<Signed>,
    ) -> Self {
        Self { version: TRUSTED_VERSION, genesis, genesis_time_ms, next, head }
    }

    /// The network.
    pub fn genesis(&self) -> Genesis {
        self.genesis
    }

    /// The newest head; none before height 1.
    pub fn head(&self) -> Option<&Signed> {
        self.head.as_ref()
    }

    /// The floor of heights; 0 before the first.
    pub fn height(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.header.height)
    }

    /// The floor of times, in milliseconds since 1970.
    pub fn time_ms(&self) -> u64 {
        self.head.as_ref().map_or(self.genesis_time_ms, |head| head.header.time_ms)
    }

    /// What proofs about the state are checked against; none before height 1.
    pub fn state_root(&self) -> Option<StateRoot> {
        self.head.as_ref().map(|head| head.header.state_root)
    }

    /// The trust after `update`, or why it is not believed. The head already trusted is accepted and changes nothing.
    pub fn advance(&self, update: &Update) -> Result<Self, LightError> {
        let Update { signed, next } = update;
        let header = &signed.header;
        let height = header.height;
        self.check_place(header)?;
        if header.validators != signed.validators.digest() {
            return Err(LightError::Set { height, which: "validators", expected: header.validators });
        }
        if header.next_validators != next.digest() {
            return Err(LightError::Set {
                height,
                which: "next validators",
                expected: header.next_validators,
            });
        }
        let id = header.id();
        match &self.head {
            Some(head) if head.header == *header => return Ok(self.clone()),
            Some(head) if head.header.height == height => return Err(self.fork(head, signed, id)),
            head if height == self.height() + 1 => {
                let follows = header.previous == head.as_ref().map(|head| head.header.id());
                if !follows || header.validators != self.next.digest() {
                    return Err(LightError::NotNext { height });
                }
            }
            _ => self.check_overlap(signed, &self.next)?,
        }
        self.check_certificate(signed, id)?;
        Ok(Self { next: next.clone(), head: Some(signed.clone()), ..*self })
    }

    fn check_place(&self, header: &Header) -> Result<(), LightError> {
        let height = header.height;
        if header.version != LOG_VERSION {
            return Err(LightError::Version { height, found: header.version });
        }
        if header.genesis != self.genesis {
            return Err(LightError::OtherNetwork { expected: self.genesis, found: header.genesis });
        }
        // There is no height 0 to offer.
        if height < self.height().max(1) {
            return Err(LightError::Older { trusted: self.height(), offered: height });
        }
        let is_later = height > self.height();
        if is_later && header.time_ms < self.time_ms() {
            return Err(LightError::Time { height, floor: self.time_ms(), found: header.time_ms });
        }
        Ok(())
    }

    fn check_certificate(&self, signed: &Signed, id: HeaderId) -> Result<(), LightError> {
        let height = signed.header.height;
        let verdict = signed.certificate.verify(self.genesis, &signed.validators, height, id);
        verdict.map_err(|cause| LightError::Certificate { height, cause })
    }

    /// Whether more than a third of the weight of `trusted` is among the signers.
    fn check_overlap(&self, signed: &Signed, trusted: &ValidatorSet) -> Result<(), LightError> {
        let members = signed.validators.members();
        let signers = signed.certificate.signers().filter_map(|at| members.get(at));
        let weight = signers.filter_map(|v| trusted.get(&v.key)).map(|v| v.weight).sum();
        if trusted.is_honest(weight) {
            return Ok(());
        }
        let (height, total) = (signed.header.height, trusted.total_weight());
        Err(LightError::TooFar { height, trusted: self.height(), weight, total })
    }

    /// Another header at the trusted height: evidence if it is genuinely signed, else merely wrong.
    fn fork(&self, head: &Signed, offered: &Signed, id: HeaderId) -> LightError {
        let genuine =
            self.check_overlap(offered, &head.validators).and_then(|()| self.check_certificate(offered, id));
        match genuine {
            Ok(()) => LightError::Fork(Box::new(Fork { trusted: head.clone(), offered: offered.clone() })),
            Err(error) => error,
        }
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the stored form back and checks that it holds together, the certificate included.
    pub fn decode(bytes: &[u8]) -> Result<Self, LightError> {
        let trusted: Self = codec::decode("the light client's state", bytes, MAX_TRUSTED_LEN)?;
        if trusted.version != TRUSTED_VERSION {
            return Err(LightError::Version { height: trusted.height(), found: trusted.version });
        }
        if let Some(head) = &trusted.head {
            let (header, height) = (&head.header, head.header.height);
            if header.genesis != trusted.genesis {
                return Err(LightError::OtherNetwork { expected: trusted.genesis, found: header.genesis });
            }
            let sets = [
                ("validators", header.validators, &head.validators),
                ("next validators", header.next_validators, &trusted.next),
            ];
            for (which, expected, set) in sets {
                if expected != set.digest() {
                    return Err(LightError::Set { height, which, expected });
                }
            }
            trusted.check_certificate(head, header.id())?;
        }
        Ok(trusted)
    }
}
