//! Certificates: the proof that a quorum decided one header.
//!
//! Owns: the bytes that validators sign, and the check of a certificate against a validator set.
//! Must not know: how votes travel or when they are cast.
//! Invariant: what `verify` accepts was signed by members holding more than two thirds of the set's weight.
//! Trust: a certificate is foreign until verified against a set that is itself trusted. Threads: pure values.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::digest::{Digest, Of};
use super::validators::ValidatorSet;
use crate::codec::{self, CodecError};
use crate::crypto::{self, Claim, CryptoError, PublicKey, Signature};
use crate::id::{Genesis, HeaderId, ID_LEN};

/// Longest encoded certificate, in bytes: `MAX_VALIDATORS` signatures and a bitmap.
pub const MAX_CERTIFICATE_LEN: usize = 80 << 10;
/// Precedes what a validator signs as its vote, so that it can never be taken for an entry.
const VOTE_TAG: &[u8; 16] = b"bcai vote v1\0\0\0\0";
/// Precedes what a proposer signs.
const PROPOSAL_TAG: &[u8; 21] = b"bcai 2026 proposal v1";

/// Why a certificate was refused: junk or a lie, except `Quorum`, which more votes can mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("the certificate is of height {found}, the header of height {expected}")]
    Height { expected: u64, found: u64 },
    #[error("the certificate is of header {found}, not of {expected}")]
    Header { expected: HeaderId, found: HeaderId },
    #[error("the signer bitmap is {found} bytes long, but {validators} validators need {expected}")]
    Bitmap { validators: usize, expected: usize, found: usize },
    #[error("the signer bitmap names validator {index} of {validators}")]
    Signer { index: usize, validators: usize },
    #[error("{signatures} signatures for {signers} signers")]
    Count { signers: usize, signatures: usize },
    #[error("the signers weigh {weight} of {total}, which is not more than two thirds")]
    Quorum { weight: u64, total: u64 },
    #[error("a vote in the certificate is not genuine: {0}")]
    Signature(#[from] CryptoError),
    #[error("{0} is not a validator of this height")]
    NotAValidator(PublicKey),
}

/// The two votes of Tendermint. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
#[repr(u8)]
pub enum VoteKind {
    #[n(1)]
    Prevote = 1,
    #[n(2)]
    Precommit = 2,
}

/// What a validator signs: tag (16 bytes), genesis (32), kind (1), height (8, big-endian), round (4, big-endian),
/// header id (32; zeros for a vote for nothing). The voter's own key is left out so that
/// the signatures of one certificate are all over the same bytes.
pub fn vote_bytes(
    genesis: Genesis,
    kind: VoteKind,
    height: u64,
    round: u32,
    header: Option<HeaderId>,
) -> Vec<u8> {
    let id = header.map_or([0; ID_LEN], |id| *id.as_bytes());
    let mut bytes = Vec::with_capacity(93);
    bytes.extend_from_slice(VOTE_TAG);
    bytes.extend_from_slice(genesis.as_bytes());
    bytes.push(kind as u8);
    bytes.extend_from_slice(&height.to_be_bytes());
    bytes.extend_from_slice(&round.to_be_bytes());
    bytes.extend_from_slice(&id);
    bytes
}

/// What a proposer signs: tag (21 bytes), genesis (32), height (8, big-endian), round (4, big-endian), the earlier
/// round in which it was locked on this header (8, big-endian, signed; -1 for none), header id (32).
pub fn proposal_bytes(
    genesis: Genesis,
    height: u64,
    round: u32,
    locked: Option<u32>,
    header: HeaderId,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PROPOSAL_TAG.len() + 20 + 2 * ID_LEN);
    bytes.extend_from_slice(PROPOSAL_TAG);
    bytes.extend_from_slice(genesis.as_bytes());
    bytes.extend_from_slice(&height.to_be_bytes());
    bytes.extend_from_slice(&round.to_be_bytes());
    bytes.extend_from_slice(&locked.map_or(-1, i64::from).to_be_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes
}

/// Precommits of a quorum for one header.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Certificate {
    #[n(0)]
    pub height: u64,
    #[n(1)]
    pub round: u32,
    #[n(2)]
    pub header: HeaderId,
    /// Bit `i % 8` of byte `i / 8`, counted from the lowest, says whether member `i` of the set signed.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub signers: Vec<u8>,
    /// In the order of the bitmap.
    #[n(4)]
    pub signatures: Vec<Signature>,
}

impl Certificate {
    /// Puts votes together, one for each key. The votes are not checked: verify them when they arrive, or the whole here after.
    pub fn assemble(
        set: &ValidatorSet,
        height: u64,
        round: u32,
        header: HeaderId,
        votes: impl IntoIterator<Item = (PublicKey, Signature)>,
    ) -> Result<Self, CertificateError> {
        let mut signed = vec![None; set.members().len()];
        for (key, signature) in votes {
            let at = set.position(&key).ok_or(CertificateError::NotAValidator(key))?;
            signed[at] = Some(signature);
        }
        let mut signers = vec![0; signed.len().div_ceil(8)];
        for (at, _) in signed.iter().enumerate().filter(|(_, vote)| vote.is_some()) {
            signers[at / 8] |= 1 << (at % 8);
        }
        Ok(Self { height, round, header, signers, signatures: signed.into_iter().flatten().collect() })
    }

    /// Positions in the set of those who signed, ascending, as the bitmap claims.
    pub fn signers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.signers.len() * 8).filter(|at| self.signers[at / 8] & (1 << (at % 8)) != 0)
    }

    /// Checks that members holding more than two thirds of `set` signed `header` at `height` in network
    /// `genesis`.
    pub fn verify(
        &self,
        genesis: Genesis,
        set: &ValidatorSet,
        height: u64,
        header: HeaderId,
    ) -> Result<(), CertificateError> {
        Ok(crypto::verify_batch(&self.claims(genesis, set, height, header)?)?)
    }

    /// Checks all that `verify` does but the signatures, which are returned to be checked with others.
    pub fn claims(
        &self,
        genesis: Genesis,
        set: &ValidatorSet,
        height: u64,
        header: HeaderId,
    ) -> Result<Vec<Claim>, CertificateError> {
        if self.height != height {
            return Err(CertificateError::Height { expected: height, found: self.height });
        }
        if self.header != header {
            return Err(CertificateError::Header { expected: header, found: self.header });
        }
        let keys = self.signing_keys(set)?;
        let message = vote_bytes(genesis, VoteKind::Precommit, height, self.round, Some(header));
        let message: Arc<[u8]> = message.into();
        let claim = |(key, signature): (PublicKey, &Signature)| Claim {
            key,
            message: message.clone(),
            signature: *signature,
        };
        Ok(keys.into_iter().zip(&self.signatures).map(claim).collect())
    }

    /// Everything about the signers but their signatures.
    fn signing_keys(&self, set: &ValidatorSet) -> Result<Vec<PublicKey>, CertificateError> {
        let validators = set.members().len();
        let (expected, found) = (validators.div_ceil(8), self.signers.len());
        if expected != found {
            return Err(CertificateError::Bitmap { validators, expected, found });
        }
        let signers: Vec<usize> = self.signers().collect();
        if let Some(&index) = signers.last().filter(|&&at| at >= validators) {
            return Err(CertificateError::Signer { index, validators });
        }
        if signers.len() != self.signatures.len() {
            let (signers, signatures) = (signers.len(), self.signatures.len());
            return Err(CertificateError::Count { signers, signatures });
        }
        let members = set.members();
        let weight = signers.iter().map(|&at| members[at].weight).sum();
        if !set.is_quorum(weight) {
            return Err(CertificateError::Quorum { weight, total: set.total_weight() });
        }
        Ok(signers.into_iter().map(|at| members[at].key).collect())
    }

    /// What the next header says of this certificate.
    pub fn digest(&self) -> Digest {
        Digest::of(Of::Certificate, &self.encode())
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes foreign bytes. Says nothing about the signatures.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("a certificate", bytes, MAX_CERTIFICATE_LEN)
    }
}
