//! The key of an encrypted dataset, and the sealing of its objects.
//!
//! Owns: how a key leads to the keys of earlier generations and to those that seal; the layout of sealed bytes.
//! Must not know: what is sealed, or who is given a key.
//! Invariant: no key of the cipher is ever used for two different messages: it is derived from a keyed hash of the very bytes that
//! it encrypts. Who has a key has those of all earlier generations, and of no later one.
//! Trust: sealed bytes come from anyone; nothing of them is returned unless their tag holds. Keys are never printed, and their
//! memory is wiped. Threads: pure values. No randomness: whoever makes a key brings its 32 random bytes.
//!
//! docs/FORMAT.md, "Encrypted datasets", says the same to the byte, with what it does not hide.

use std::fmt;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::KEY_LEN;
use crate::id::KeyId;

/// The last generation that a key can be rotated to.
pub const MAX_GENERATION: u32 = 4095;

// The contexts are part of the format.
const EARLIER: &str = "bcai 2026 dataset key earlier v1";
const IV: &str = "bcai 2026 dataset key iv v1";
const CIPHER: &str = "bcai 2026 dataset key cipher v1";

const GENERATION_LEN: usize = 4;
const IV_LEN: usize = 32;
const HEADER_LEN: usize = GENERATION_LEN + IV_LEN;
const TAG_LEN: usize = 16;
/// Bytes that sealing adds.
pub const SEAL_LEN: usize = HEADER_LEN + TAG_LEN;

/// Why sealed bytes were not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Damage, or not what it is taken for.
    #[error("{0} bytes are too few to be sealed")]
    TooShort(usize),
    /// Another key is needed, which its owner may give.
    #[error(
        "sealed with generation {found} of the dataset's key, and the newest that is known here is {newest}"
    )]
    Generation { found: u32, newest: u32 },
    /// Damage, another key, or sealed as an object of another kind.
    #[error("not sealed as such with the dataset's key, or changed since")]
    Refused,
}

/// A dataset's key as of one generation.
#[derive(Clone, PartialEq, Eq)]
pub struct DatasetKey {
    generation: u32,
    state: Zeroizing<[u8; KEY_LEN]>,
}

impl fmt::Debug for DatasetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatasetKey(generation {}, {:?})", self.generation, self.id())
    }
}

impl DatasetKey {
    /// The key of the last generation, from which its owner derives all that are given out.
    pub fn root(random: [u8; KEY_LEN]) -> Self {
        Self { generation: MAX_GENERATION, state: Zeroizing::new(random) }
    }

    /// The key of `generation` that consists of these bytes; nothing for a generation that no key has.
    pub fn from_parts(generation: u32, state: [u8; KEY_LEN]) -> Option<Self> {
        (generation <= MAX_GENERATION).then(|| Self { generation, state: Zeroizing::new(state) })
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The bytes, to be wrapped for somebody.
    pub fn state(&self) -> &[u8; KEY_LEN] {
        &self.state
    }

    /// The key of this or an earlier generation; nothing for a later one.
    pub fn at(&self, generation: u32) -> Option<Self> {
        if generation > self.generation {
            return None;
        }
        let mut key = self.clone();
        while key.generation > generation {
            key = key.earlier();
        }
        Some(key)
    }

    fn earlier(&self) -> Self {
        let state = Zeroizing::new(blake3::derive_key(EARLIER, &*self.state));
        Self { generation: self.generation - 1, state }
    }

    /// Whoever reads a snapshot compares it with that of their own key, so that nobody can make sealed bytes that are different
    /// things to two readers.
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.state)
    }

    fn sealing(&self) -> Sealing {
        Sealing { iv: blake3::derive_key(IV, &*self.state), cipher: blake3::derive_key(CIPHER, &*self.state) }
    }
}

/// What seals the objects of one generation.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Sealing {
    iv: [u8; KEY_LEN],
    cipher: [u8; KEY_LEN],
}

impl Sealing {
    /// The hash that names a message to the cipher.
    fn iv_of(&self, what: What<'_>, parts: &[&[u8]]) -> [u8; IV_LEN] {
        let mut hasher = blake3::Hasher::new_keyed(&self.iv);
        // All that is authenticated: a key of the cipher must not meet one message in two contexts either.
        hasher.update(&[what.kind]);
        hasher.update(what.bound_to);
        for part in parts {
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }

    /// The cipher for the one message whose hash is `iv`.
    fn cipher(&self, iv: &[u8; IV_LEN]) -> ChaCha20Poly1305 {
        let key = Zeroizing::new(*blake3::keyed_hash(&self.cipher, iv).as_bytes());
        ChaCha20Poly1305::new((&*key).into())
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy)]
pub struct What<'a> {
    pub kind: u8,
    /// What it goes with, and with nothing else. All messages of one kind are bound to as many bytes.
    pub bound_to: &'a [u8],
}

impl What<'_> {
    /// What is authenticated beside the message.
    fn context(self, generation: u32) -> Vec<u8> {
        [&[self.kind][..], &generation.to_le_bytes(), self.bound_to].concat()
    }
}

/// The keys of a dataset up to one generation, ready to seal and to open.
pub struct Keyring {
    key: DatasetKey,
    first: KeyId,
    /// By generation.
    sealing: Vec<Sealing>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({:?})", self.key)
    }
}

impl Keyring {
    /// All that follows from a key: a few microseconds for each generation.
    pub fn new(key: DatasetKey) -> Self {
        let mut sealing = vec![key.sealing()];
        let mut oldest = key.clone();
        while oldest.generation > 0 {
            oldest = oldest.earlier();
            sealing.push(oldest.sealing());
        }
        sealing.reverse();
        Self { first: oldest.id(), key, sealing }
    }

    /// The newest generation.
    pub fn generation(&self) -> u32 {
        self.key.generation
    }

    pub fn key(&self) -> &DatasetKey {
        &self.key
    }

    /// The id of the first generation's key, which stays the same however often the key is rotated.
    pub fn first(&self) -> KeyId {
        self.first
    }

    /// Whether this opens what was sealed with the key `id` of `generation`.
    pub fn has(&self, generation: u32, id: &KeyId) -> bool {
        self.key.at(generation).is_some_and(|key| key.id() == *id)
    }

    /// Seals a message, which is the concatenation of `parts`: [`SEAL_LEN`] bytes more. The same message gives the same
    /// bytes. Nothing for a generation that is later than the newest.
    pub fn seal(&self, generation: u32, what: What<'_>, parts: &[&[u8]]) -> Option<Vec<u8>> {
        let sealing = self.sealing.get(generation as usize)?;
        let iv = sealing.iv_of(what, parts);
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut sealed = Vec::with_capacity(len + SEAL_LEN);
        sealed.extend_from_slice(&generation.to_le_bytes());
        sealed.extend_from_slice(&iv);
        parts.iter().for_each(|part| sealed.extend_from_slice(part));
        let message = (&mut sealed[HEADER_LEN..]).into();
        let cipher = sealing.cipher(&iv);
        let tag = cipher.encrypt_inout_detached(&Nonce::default(), &what.context(generation), message);
        // The cipher refuses only what is longer than 256 GiB.
        sealed.extend_from_slice(&tag.ok()?);
        Some(sealed)
    }

    /// The message, if it was sealed as this.
    pub fn open(&self, what: What<'_>, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let short = SealError::TooShort(sealed.len());
        let (header, rest) = sealed.split_at_checked(HEADER_LEN).ok_or(short.clone())?;
        let (message, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(short)?;
        // `HEADER_LEN` is the sum of both.
        let [a, b, c, d] = [header[0], header[1], header[2], header[3]];
        let generation = u32::from_le_bytes([a, b, c, d]);
        let mut iv = [0; IV_LEN];
        iv.copy_from_slice(&header[GENERATION_LEN..]);
        let newest = self.generation();
        let sealing = self.sealing.get(generation as usize);
        let sealing = sealing.ok_or(SealError::Generation { found: generation, newest })?;
        let mut message = message.to_vec();
        let context = what.context(generation);
        sealing
            .cipher(&iv)
            .decrypt_inout_detached(
                &Nonce::default(),
                &context,
                message.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .map_err(|_| SealError::Refused)?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(generation: u32) -> Keyring {
        Keyring::new(DatasetKey::root([7; KEY_LEN]).at(generation).unwrap())
    }

    fn of(kind: u8) -> What<'static> {
        What { kind, bound_to: &[] }
    }

    #[test]
    fn what_was_sealed_opens_with_its_kind_and_key_alone() {
        let keys = ring(3);
        let sealed = keys.seal(3, of(0), &[b"he", b"llo"]).unwrap();
        assert_eq!(
            sealed,
            keys.seal(3, of(0), &[b"hello"]).unwrap(),
            "the same message gives the same bytes"
        );
        assert_eq!(sealed.len(), 5 + SEAL_LEN);
        assert_eq!(keys.open(of(0), &sealed).unwrap(), b"hello");
        assert_eq!(keys.open(of(2), &sealed), Err(SealError::Refused), "as another kind");
        assert_ne!(&sealed[4..36], &keys.seal(3, of(2), &[b"hello"]).unwrap()[4..36]);
        let bound = What { kind: 0, bound_to: b"x" };
        let elsewhere = keys.seal(3, bound, &[b"hello"]).unwrap();
        assert_eq!(keys.open(bound, &elsewhere).unwrap(), b"hello");
        assert_eq!(keys.open(of(0), &elsewhere), Err(SealError::Refused), "as what goes with something else");
        assert_ne!(&elsewhere[4..36], &sealed[4..36], "nor does the cipher have the same key");
        let other = Keyring::new(DatasetKey::root([8; KEY_LEN]).at(3).unwrap());
        assert_eq!(other.open(of(0), &sealed), Err(SealError::Refused), "with another key");
        assert_eq!(keys.seal(4, of(0), &[b"hello"]), None, "with a key that is not known yet");
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let keys = ring(0);
        let sealed = keys.seal(0, of(0), &[b"hello"]).unwrap();
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert!(keys.open(of(0), &bent).is_err(), "byte {at}");
            assert!(keys.open(of(0), &sealed[..at]).is_err(), "cut to {at}");
        }
        assert_eq!(keys.open(of(0), b"junk"), Err(SealError::TooShort(4)));
    }

    #[test]
    fn a_key_opens_earlier_generations_and_no_later_one() {
        let (before, after) = (ring(1), ring(2));
        let old = before.seal(1, of(0), &[b"x"]).unwrap();
        let new = after.seal(2, of(0), &[b"x"]).unwrap();
        assert_ne!(old[36..], new[36..]);
        assert_eq!(after.open(of(0), &old).unwrap(), b"x");
        assert_eq!(before.open(of(0), &new), Err(SealError::Generation { found: 2, newest: 1 }));
        // Whoever claims that it is of an earlier generation is found out.
        let mut relabelled = new;
        relabelled[0] = 1;
        assert_eq!(before.open(of(0), &relabelled), Err(SealError::Refused));
        assert_eq!(before.key().at(2), None);
        assert_eq!(before.first(), after.first());
        assert!(after.has(1, &before.key().id()) && !before.has(2, &after.key().id()));
        assert!(!before.has(1, &after.key().id()));
    }

    #[test]
    fn keys_do_not_print_themselves() {
        let key = DatasetKey::root([7; KEY_LEN]);
        assert!(!format!("{key:?} {:?}", Keyring::new(key.at(0).unwrap())).contains("7, 7"));
        assert_eq!(DatasetKey::from_parts(MAX_GENERATION + 1, [0; KEY_LEN]), None);
    }
}
