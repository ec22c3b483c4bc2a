//! The light client: believes a head because of who signed it, without executing what led there.
//!
//! Owns: the trusted state, the rule by which it advances, its stored form; the way to a head, floors, pins and forks are
//! in the modules below. Must not know: where headers come from, the time of day, or who reads.
//! Invariant: trust starts at a genesis document and moves only upwards in height and time, each step signed by more
//! than two thirds of the header's own validators and more than one third of those already trusted.
//! Trust: an `Update` is foreign. The stored form is this machine's own, but is checked like foreign bytes.
//! Threads: pure values.

use minicbor::{Decode, Encode};

use super::block::Header;
use super::certificate::{Certificate, CertificateError, MAX_CERTIFICATE_LEN};
use super::digest::Digest;
use super::genesis::{GenesisDoc, LOG_VERSION, MAX_GENESIS_LEN};
use super::sparse::{ProofError, StateProof};
use super::state::{Item, StateKey};
use super::validators::ValidatorSet;
use crate::codec::{self, CodecError};
use crate::id::{Genesis, HeaderId, StateRoot};

mod climb;
mod floors;
mod fork;
mod pin;

pub use climb::Climb;
pub use floors::{Floors, MAX_FLOORS};
pub use fork::Fork;
pub use pin::{ParsePinError, Pin};

/// Longest encoded `Update`, in bytes: two full sets, a header and a certificate.
pub const MAX_UPDATE_LEN: usize = 2 * MAX_GENESIS_LEN + MAX_CERTIFICATE_LEN;
/// Longest encoded `Trusted`, in bytes.
pub const MAX_TRUSTED_LEN: usize = MAX_UPDATE_LEN + floors::MAX_FLOORS_LEN;
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
        codec::decode("a light-client update", bytes, MAX_UPDATE_LEN)
    }
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
    /// The peer answers what was not asked.
    #[error("height {height} was offered, but height {wanted} was asked for")]
    NotAsked { wanted: u64, height: u64 },
    /// A wrong pin, or a peer of another log.
    #[error("height {} of the log has header {found}, not {}, which was pinned: check where the pin comes from", .pin.height, .pin.header)]
    Pinned { pin: Pin, found: HeaderId },
    /// Nothing can be proven before the first height.
    #[error("no height of network {0} is known yet: connect to a peer that has its log")]
    NoHead(Genesis),
    /// Junk or a lie.
    #[error("what the peer says of {what} is not what the log says: {cause}")]
    Proof { what: String, cause: ProofError },
    /// Junk or a lie.
    #[error("what the peer says of {what} is not what the log says")]
    Item { what: String },
    /// Stop, and tell people: a quorum signed a state that goes back.
    #[error(
        "{what} has moved backwards: it is older than, or another than, what this machine saw at height {seen}; the validators \
         have rewritten the log, trust nothing new from it and tell the operators"
    )]
    Backwards { what: String, seen: u64 },
    /// Likewise.
    #[error(
        "{what} is gone, although this machine saw it at height {seen} and nothing is ever deleted; the validators have \
         rewritten the log, trust nothing new from it and tell the operators"
    )]
    Gone { what: String, seen: u64 },
    /// Ask more peers; go on only if the user says so.
    #[error(
        "the newest head that this machine knows (height {height}) is {} old, which is more than {}; the validators may have \
         stopped, or the peers hold back what is newer: ask other peers (?peer=…), or use what is here with --offline",
        span(*age_ms), span(*max_ms)
    )]
    Stale { height: u64, age_ms: u64, max_ms: u64 },
    /// The stored state is damaged: start again from the genesis.
    #[error("{0} floors are more than the limit of {MAX_FLOORS}")]
    Floors(usize),
    /// The same.
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
    /// What was seen under it and earlier ones.
    #[n(5)]
    floors: Floors,
    /// The latest that this machine's clock has shown, in milliseconds since 1970: a clock that is set back makes no
    /// head look fresh.
    #[n(6)]
    clock_ms: u64,
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
        let (floors, clock_ms) = (Floors::default(), 0);
        Self { version: TRUSTED_VERSION, genesis, genesis_time_ms, next, head, floors, clock_ms }
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
        check_sets(signed, next)?;
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
        Ok(Self { next: next.clone(), head: Some(signed.clone()), floors: self.floors.clone(), ..*self })
    }

    /// Trust in the head that `pin` names, which `update` must be of: the user's word stands for all that led there.
    pub fn at_pin(doc: &GenesisDoc, pin: Pin, update: &Update) -> Result<Self, LightError> {
        let start = Self::at_genesis(doc);
        let Update { signed, next } = update;
        let found = signed.header.id();
        if signed.header.height != pin.height || found != pin.header {
            return Err(LightError::Pinned { pin, found });
        }
        start.check_place(&signed.header)?;
        check_sets(signed, next)?;
        start.check_certificate(signed, found)?;
        Ok(Self { next: next.clone(), head: Some(signed.clone()), ..start })
    }

    /// Believes that `item`, or nothing, is at `key` under the trusted head, if `proof` shows it and it does not go back
    /// behind what was seen before, and remembers it: persist this before use.
    pub fn observe(
        &mut self,
        key: &StateKey,
        item: Option<&Item>,
        proof: &StateProof,
    ) -> Result<(), LightError> {
        let root = self.state_root().ok_or(LightError::NoHead(self.genesis))?;
        let proven = proof.verify(root, &key.digest());
        let proven = proven.map_err(|cause| LightError::Proof { what: floors::subject(key), cause })?;
        if proven != item.map(Item::digest) {
            return Err(LightError::Item { what: floors::subject(key) });
        }
        self.floors.raise(key, item, self.height())
    }

    /// The trust in `head`, which this machine has executed itself, with the floors of this one.
    #[must_use]
    pub fn raised_to(&self, head: &Self) -> Self {
        Self { floors: self.floors.clone(), clock_ms: self.clock_ms, ..head.clone() }
    }

    /// This trust, with the clock's floor raised to `now_ms`.
    #[must_use]
    pub fn at_time(&self, now_ms: u64) -> Self {
        Self { clock_ms: self.clock_ms.max(now_ms), ..self.clone() }
    }

    /// Whether the newest head is at most `max_ms` old. Time that the clock or a header has already shown counts as past,
    /// whatever `now_ms` is.
    pub fn check_fresh(&self, now_ms: u64, max_ms: u64) -> Result<(), LightError> {
        let age_ms = now_ms.max(self.clock_ms).saturating_sub(self.time_ms());
        match age_ms > max_ms {
            true => Err(LightError::Stale { height: self.height(), age_ms, max_ms }),
            false => Ok(()),
        }
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
            let header = &head.header;
            if header.genesis != trusted.genesis {
                return Err(LightError::OtherNetwork { expected: trusted.genesis, found: header.genesis });
            }
            check_sets(head, &trusted.next)?;
            trusted.check_certificate(head, header.id())?;
        }
        if trusted.floors.len() > MAX_FLOORS {
            return Err(LightError::Floors(trusted.floors.len()));
        }
        Ok(trusted)
    }
}

/// Whether the sets are those that the header names.
fn check_sets(signed: &Signed, next: &ValidatorSet) -> Result<(), LightError> {
    let Header { height, validators, next_validators, .. } = signed.header;
    let sets = [("validators", validators, &signed.validators), ("next validators", next_validators, next)];
    match sets.into_iter().find(|(_, expected, set)| *expected != set.digest()) {
        Some((which, expected, _)) => Err(LightError::Set { height, which, expected }),
        None => Ok(()),
    }
}

/// A duration for people: the largest unit of which it has two or more.
fn span(ms: u64) -> String {
    let units = [(86_400_000, "days"), (3_600_000, "hours"), (60_000, "minutes")];
    let fits = units.into_iter().find(|(unit, _)| ms >= 2 * unit);
    fits.map_or(format!("{} s", ms / 1000), |(unit, name)| format!("{} {name}", ms / unit))
}
