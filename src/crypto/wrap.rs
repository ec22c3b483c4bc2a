//! A dataset's key, wrapped for one reader.
//!
//! Owns: the layout of a wrap, and what it is bound to. Must not know: where wraps are kept, who may be given one.
//! Invariant: a wrap opens for the key that it names, and only as the key of the dataset that it was made for.
//! Trust: wraps are foreign bytes; one that opens was made by somebody who knew the reader's public key, which is everybody. Who
//! made it is for the log to say, whose entry it stands in. Threads: pure values. Whoever wraps brings 32 random bytes.
//!
//! HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. A reader's X25519 key is that of their
//! Ed25519 identity by the birational map, so that a key can be granted to anybody who is in the log, with nothing from them. That
//! the two uses of one key do not weaken each other is shown for this KEM by Thormarker, "On using the same key pair for
//! Ed25519 and an X25519 based KEM" (2021); for the authenticated modes of HPKE it is not, which is why they are not used.

use std::convert::Infallible;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use super::dataset::DatasetKey;
use super::{KEY_LEN, PublicKey, SecretKey};
use crate::id::Genesis;

/// Precedes what a wrap is bound to.
const CONTEXT: &[u8] = b"bcai 2026 dataset key wrap v1";
const VERSION: u8 = 1;
const GENERATION_LEN: usize = 4;
const ENCAPPED_LEN: usize = 32;
const TAG_LEN: usize = 16;
/// Length of a wrap, in bytes.
pub const WRAP_LEN: usize = 1 + GENERATION_LEN + 2 * KEY_LEN + ENCAPPED_LEN + KEY_LEN + TAG_LEN;

/// Why a wrap gave no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    #[error("not the wrapped key of a dataset: {0}")]
    Malformed(&'static str),
    #[error("the key is wrapped for {for_whom}")]
    NotForThis { for_whom: PublicKey },
    #[error("the wrapped key does not open: it is damaged, or was wrapped for another dataset or network")]
    Refused,
}

/// A wrap, as far as it can be read by everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrap {
    /// Of the key that is in it.
    pub generation: u32,
    pub from: PublicKey,
    pub to: PublicKey,
    encapped: [u8; ENCAPPED_LEN],
    sealed: [u8; KEY_LEN + TAG_LEN],
}

/// What a key is the key of.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub genesis: Genesis,
    pub name: &'a str,
}

impl Wrap {
    /// Wraps `key` for `to`. `random` is used once and for nothing else.
    pub fn new(
        key: &DatasetKey,
        subject: Subject<'_>,
        from: PublicKey,
        to: PublicKey,
        random: [u8; KEY_LEN],
    ) -> Result<Self, WrapError> {
        let mut random = Random { seed: Zeroizing::new(random), drawn: 0 };
        let reader = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&to.to_x25519());
        let reader = reader.map_err(|_| WrapError::Malformed("its reader has no usable key"))?;
        let generation = key.generation();
        let (encapped, sealed) =
            hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &reader,
                &info(subject, generation, &from, &to),
                key.state(),
                &[],
                &mut random,
            )
            .map_err(|_| WrapError::Malformed("its reader has no usable key"))?;
        let encapped = encapped.to_bytes().into();
        // A message of 32 bytes with its tag.
        let sealed = sealed.try_into().map_err(|_| WrapError::Malformed("its length is another"))?;
        Ok(Self { generation, from, to, encapped, sealed })
    }

    /// The key in it.
    pub fn open(&self, subject: Subject<'_>, secret: &SecretKey) -> Result<DatasetKey, WrapError> {
        if secret.public() != self.to {
            return Err(WrapError::NotForThis { for_whom: self.to });
        }
        let scalar = secret.to_x25519();
        let reader = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&*scalar);
        let encapped = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&self.encapped);
        let (Ok(reader), Ok(encapped)) = (reader, encapped) else { return Err(WrapError::Refused) };
        let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &reader,
            &encapped,
            &info(subject, self.generation, &self.from, &self.to),
            &self.sealed,
            &[],
        );
        let opened = Zeroizing::new(opened.map_err(|_| WrapError::Refused)?);
        let mut state = Zeroizing::new([0; KEY_LEN]);
        state.copy_from_slice(opened.get(..KEY_LEN).ok_or(WrapError::Refused)?);
        DatasetKey::from_parts(self.generation, *state).ok_or(WrapError::Refused)
    }

    /// The bytes that stand in a grant.
    pub fn encode(&self) -> Vec<u8> {
        let generation = self.generation.to_le_bytes();
        let parts: [&[u8]; 6] =
            [&[VERSION], &generation, self.from.as_bytes(), self.to.as_bytes(), &self.encapped, &self.sealed];
        parts.concat()
    }

    /// Reads foreign bytes. Says nothing about what is in them.
    pub fn decode(bytes: &[u8]) -> Result<Self, WrapError> {
        let bytes: &[u8; WRAP_LEN] =
            bytes.try_into().map_err(|_| WrapError::Malformed("its length is another"))?;
        if bytes[0] != VERSION {
            return Err(WrapError::Malformed("its version is another: upgrade bcai"));
        }
        let mut rest = &bytes[1..];
        let generation = u32::from_le_bytes(take(&mut rest));
        let (from, to) = (take(&mut rest), take(&mut rest));
        let key = |bytes| PublicKey::from_bytes(bytes).map_err(|_| WrapError::Malformed("it names no key"));
        let (from, to) = (key(&from)?, key(&to)?);
        Ok(Self { generation, from, to, encapped: take(&mut rest), sealed: take(&mut rest) })
    }
}

/// The next `N` bytes, of which there are as many as the lengths of all parts say.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let mut part = [0; N];
    let (first, others) = rest.split_at(N);
    part.copy_from_slice(first);
    *rest = others;
    part
}

/// What a wrap is bound to. The name comes last, so that no two subjects read the same.
fn info(subject: Subject<'_>, generation: u32, from: &PublicKey, to: &PublicKey) -> Vec<u8> {
    let generation = generation.to_le_bytes();
    let parts: [&[u8]; 6] = [
        CONTEXT,
        subject.genesis.as_bytes(),
        &generation,
        from.as_bytes(),
        to.as_bytes(),
        subject.name.as_bytes(),
    ];
    parts.concat()
}

/// What HPKE draws from: the caller's random bytes, spread.
struct Random {
    seed: Zeroizing<[u8; KEY_LEN]>,
    drawn: u64,
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for piece in bytes.chunks_mut(KEY_LEN) {
            self.drawn += 1;
            let block = Zeroizing::new(*blake3::keyed_hash(&self.seed, &self.drawn.to_le_bytes()).as_bytes());
            piece.copy_from_slice(&block[..piece.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Random {}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(seed: u8) -> SecretKey {
        SecretKey::from_bytes([seed; KEY_LEN])
    }

    fn subject(name: &str) -> Subject<'_> {
        Subject { genesis: Genesis::of(b"network"), name }
    }

    fn wrap(to: &SecretKey) -> Wrap {
        let key = DatasetKey::root([9; KEY_LEN]).at(2).unwrap();
        Wrap::new(&key, subject("photos"), secret(1).public(), to.public(), [3; KEY_LEN]).unwrap()
    }

    #[test]
    fn opens_for_its_reader_and_dataset_alone() {
        let (reader, other) = (secret(2), secret(3));
        let made = wrap(&reader);
        let read = Wrap::decode(&made.encode()).unwrap();
        assert_eq!(read, made);
        let key = read.open(subject("photos"), &reader).unwrap();
        assert_eq!(key, DatasetKey::root([9; KEY_LEN]).at(2).unwrap());
        assert!(matches!(read.open(subject("photos"), &other), Err(WrapError::NotForThis { .. })));
        assert_eq!(read.open(subject("photo"), &reader), Err(WrapError::Refused), "another dataset");
        let elsewhere = Subject { genesis: Genesis::of(b"other"), name: "photos" };
        assert_eq!(read.open(elsewhere, &reader), Err(WrapError::Refused), "another network");
        // Copied into a grant for somebody else, by whoever can write one.
        let stolen = Wrap { to: other.public(), ..read };
        assert_eq!(stolen.open(subject("photos"), &other), Err(WrapError::Refused));
    }

    #[test]
    fn no_changed_or_cut_wrap_opens() {
        let reader = secret(2);
        let bytes = wrap(&reader).encode();
        assert_eq!(bytes.len(), WRAP_LEN);
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            let opened = Wrap::decode(&bent).and_then(|wrap| wrap.open(subject("photos"), &reader));
            assert!(opened.is_err(), "byte {at}");
            assert!(Wrap::decode(&bytes[..at]).is_err());
        }
        assert!(Wrap::decode(&[bytes, vec![0]].concat()).is_err());
    }

    #[test]
    fn the_keys_of_both_kinds_belong_together() {
        let secret = secret(4);
        let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&*secret.to_x25519()).unwrap();
        let public = X25519HkdfSha256::sk_to_pk(&private);
        assert_eq!(public.to_bytes().as_slice(), &secret.public().to_x25519());
    }
}
