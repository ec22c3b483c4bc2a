//! Ed25519 keys and signatures: who wrote an entry, who voted, who is at the other end. Below, what is secret: the keys of
//! datasets (`dataset`), these wrapped for somebody (`wrap`), and a key locked with a passphrase (`vault`).
//!
//! Owns: the newtypes, their 32- and 64-byte encodings, and the one rule by which a signature counts.
//! Must not know: what is signed. Callers put a tag of their own in front of every message.
//! Invariant: a `PublicKey` is a point of the curve and not one of the few weak ones for which anybody can sign.
//! Trust: keys and signatures are foreign bytes; only `verify` and `verify_batch` say anything about them.
//! A secret key is never printed; its memory is wiped when it is dropped.
//! Threads: pure values. No randomness: whoever makes a key brings its 32 random bytes.

pub mod dataset;
#[cfg(test)]
pub mod memory;
pub mod vault;
pub mod wrap;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use minicbor::{Decoder, Encoder, decode, encode};
use zeroize::Zeroizing;

/// Length of a public and of a secret key, in bytes.
pub const KEY_LEN: usize = 32;
/// Length of a signature, in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// From this many signatures on, one batch costs less than checking each (about half at ten).
const BATCH_FROM: usize = 4;

/// Why a key or a signature was refused. Foreign bytes that are wrong stay wrong: never retry them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    #[error("`{0}` is not a public key: expected 64 hexadecimal digits")]
    NotHex(String),
    #[error("{0} is not a usable Ed25519 public key")]
    BadKey(String),
    #[error("the signature by {0} is not valid")]
    BadSignature(PublicKey),
}

/// Signs. Made from 32 random bytes that the caller keeps safe.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key whose seed is `seed` (RFC 8032, section 5.1.5).
    pub fn from_bytes(seed: [u8; KEY_LEN]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The seed, to be stored where nobody else can read it.
    pub fn to_bytes(&self) -> [u8; KEY_LEN] {
        self.0.to_bytes()
    }

    /// The X25519 key by which what is wrapped for `public` is unwrapped.
    fn to_x25519(&self) -> Zeroizing<[u8; KEY_LEN]> {
        Zeroizing::new(self.0.to_scalar_bytes())
    }

    /// What others check this key's signatures with.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`; the same message always gets the same signature.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public().short())
    }
}

/// Names an author or a validator. Ordered by its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// Refuses bytes that are no point of the curve, and points of small order.
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Result<Self, CryptoError> {
        #[cfg(test)]
        if memory::knows_key(bytes) {
            return Ok(Self(*bytes));
        }
        match VerifyingKey::from_bytes(bytes) {
            Ok(key) if !key.is_weak() => {
                #[cfg(test)]
                memory::learn_key(bytes);
                Ok(Self(*bytes))
            }
            _ => Err(CryptoError::BadKey(HEXLOWER_PERMISSIVE.encode(bytes))),
        }
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The first ten hex digits, for tables and log lines.
    pub fn short(&self) -> String {
        self.to_string()[..10].to_owned()
    }

    /// The X25519 key that belongs to the same secret (RFC 7748, section 4.1).
    fn to_x25519(self) -> [u8; KEY_LEN] {
        // It was a point of the curve when it became a `PublicKey`; zeros, which nothing is wrapped for, otherwise.
        VerifyingKey::from_bytes(&self.0).map_or([0; KEY_LEN], |key| key.to_montgomery().to_bytes())
    }

    /// Whether this key signed `message`, by the strict rule (RFC 8032 without cofactor, no small-order
    /// points, no second spelling of a signature).
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), CryptoError> {
        #[cfg(test)]
        if memory::knows(self, message, signature) {
            return Ok(());
        }
        // The point is found again for every signature: a tenth of the cost of a check, for keys
        // of 32 bytes instead of 192.
        let key = VerifyingKey::from_bytes(&self.0);
        let bytes = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.and_then(|key| key.verify_strict(message, &bytes))
            .map_err(|_| CryptoError::BadSignature(*self))?;
        #[cfg(test)]
        memory::learn(self, message, signature);
        Ok(())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER_PERMISSIVE.encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.short())
    }
}

impl FromStr for PublicKey {
    type Err = CryptoError;

    fn from_str(text: &str) -> Result<Self, CryptoError> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        let bytes: Option<[u8; KEY_LEN]> = bytes.and_then(|b| b.try_into().ok());
        match bytes {
            Some(bytes) => Self::from_bytes(&bytes),
            None => Err(CryptoError::NotHex(text.chars().take(80).collect())),
        }
    }
}

impl<C> minicbor::Encode<C> for PublicKey {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(self.as_bytes())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for PublicKey {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let bytes = d.bytes()?.try_into();
        let bytes = bytes.map_err(|_| decode::Error::message("a public key is 32 bytes"))?;
        Self::from_bytes(bytes).map_err(decode::Error::message)
    }
}

/// 64 bytes that claim to be a signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature([u8; SIGNATURE_LEN]);

impl Signature {
    /// Takes any 64 bytes; they mean nothing until verified.
    pub const fn from_bytes(bytes: [u8; SIGNATURE_LEN]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; SIGNATURE_LEN] {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", HEXLOWER_PERMISSIVE.encode(&self.0[..5]))
    }
}

impl<C> minicbor::Encode<C> for Signature {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Signature {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let bytes = d.bytes()?.try_into();
        bytes.map(Self).map_err(|_| decode::Error::message("a signature is 64 bytes"))
    }
}

/// That `key` signed `message`.
#[derive(Debug, Clone)]
pub struct Claim {
    pub key: PublicKey,
    /// Shared, because the signatures of one certificate are all over the same bytes.
    pub message: Arc<[u8]>,
    pub signature: Signature,
}

impl Claim {
    /// Checks it by the strict rule of `PublicKey::verify`.
    pub fn verify(&self) -> Result<(), CryptoError> {
        self.key.verify(&self.message, &self.signature)
    }
}

/// Checks many claims at once, naming the first bad one.
///
/// Whatever `Claim::verify` accepts one by one, this accepts. The reverse holds but for signatures that a key's own
/// holder has bent by a torsion point: the batch equation may let those pass. They cannot be made
/// without the secret key, so nobody is impersonated; where every machine must reach the same verdict on the
/// same entry, use `Claim::verify`.
pub fn verify_batch(claims: &[Claim]) -> Result<(), CryptoError> {
    #[cfg(test)]
    if claims.iter().all(|claim| memory::knows(&claim.key, &claim.message, &claim.signature)) {
        return Ok(());
    }
    if claims.len() >= BATCH_FROM && passes_as_batch(claims).is_ok() {
        return Ok(());
    }
    // A small batch, or a bad one, whose culprit is to be named.
    claims.iter().try_for_each(Claim::verify)
}

fn passes_as_batch(claims: &[Claim]) -> Result<(), ed25519_dalek::SignatureError> {
    let messages: Vec<&[u8]> = claims.iter().map(|claim| &claim.message[..]).collect();
    let signatures: Vec<_> =
        claims.iter().map(|claim| ed25519_dalek::Signature::from_bytes(&claim.signature.0)).collect();
    let keys: Result<Vec<_>, _> = claims.iter().map(|claim| VerifyingKey::from_bytes(&claim.key.0)).collect();
    ed25519_dalek::verify_batch(&messages, &signatures, &keys?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_bytes([seed; KEY_LEN])
    }

    #[test]
    fn agrees_with_the_test_vector_of_rfc_8032() {
        // Section 7.1, test 2: one byte, 0x72.
        let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
        let seed = HEXLOWER_PERMISSIVE.decode(seed.as_bytes()).unwrap().try_into().unwrap();
        let secret = SecretKey::from_bytes(seed);
        let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(secret.public().to_string(), public);
        let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        assert_eq!(secret.sign(&[0x72]).to_string(), expected);
        assert_eq!(secret.public().verify(&[0x72], &secret.sign(&[0x72])), Ok(()));
    }

    #[test]
    fn another_message_key_or_signature_is_refused() {
        let (a, b) = (key(1), key(2));
        let signature = a.sign(b"vote");
        assert_eq!(a.public().verify(b"veto", &signature), Err(CryptoError::BadSignature(a.public())));
        assert_eq!(b.public().verify(b"vote", &signature), Err(CryptoError::BadSignature(b.public())));
        let mut bent = *signature.as_bytes();
        bent[40] ^= 1;
        assert!(a.public().verify(b"vote", &Signature::from_bytes(bent)).is_err());
    }

    #[test]
    fn weak_and_broken_keys_are_refused() {
        // The neutral element: any signature of a certain shape would verify under it.
        let mut neutral = [0; KEY_LEN];
        neutral[0] = 1;
        assert!(matches!(PublicKey::from_bytes(&neutral), Err(CryptoError::BadKey(_))));
        // y = 2 is not on the curve.
        let mut off_curve = [0; KEY_LEN];
        off_curve[0] = 2;
        assert!(matches!(PublicKey::from_bytes(&off_curve), Err(CryptoError::BadKey(_))));
        assert!(matches!("12".parse::<PublicKey>(), Err(CryptoError::NotHex(_))));
        assert_eq!(key(1).public().to_string().parse(), Ok(key(1).public()));
    }

    #[test]
    fn a_batch_names_the_culprit() {
        let keys: Vec<SecretKey> = (1..=9).map(key).collect();
        let claim =
            |k: &SecretKey| Claim { key: k.public(), message: Arc::from(&b"m"[..]), signature: k.sign(b"m") };
        let mut claims: Vec<Claim> = keys.iter().map(claim).collect();
        assert_eq!(verify_batch(&claims), Ok(()));
        assert_eq!(verify_batch(&claims[..2]), Ok(()));
        claims[5].signature = keys[5].sign(b"n");
        assert_eq!(verify_batch(&claims), Err(CryptoError::BadSignature(keys[5].public())));
    }

    #[test]
    fn a_secret_key_does_not_print_itself() {
        let secret = key(7);
        let seed = HEXLOWER_PERMISSIVE.encode(&secret.to_bytes());
        assert!(!format!("{secret:?}").contains(&seed[..10]));
    }
}
