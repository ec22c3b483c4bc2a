//! A secret key locked with a passphrase.
//!
//! Owns: how a passphrase becomes a key, and what that key encrypts.
//! Must not know: files, terminals.
//! Invariant: a secret is given back only if passphrase, parameters and bytes are those it was locked with.
//! Trust: parameters come from a file that somebody may have changed; they are bounded before memory is taken by them.
//! Threads: pure, but slow and hungry on purpose: not for an async task. Whoever locks brings random bytes.
//!
//! Argon2id (RFC 9106) with what its section 4 recommends where memory is scarce, but for one lane, since there is one thread;
//! XChaCha20-Poly1305.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::KEY_LEN;

pub const SALT_LEN: usize = 16;
pub const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
/// What is believed of a file at most: a GiB of memory, and some seconds.
const MAX_COST: (u32, u32, u32) = (1 << 20, 16, 16);
const COST: (u32, u32, u32) = (64 << 10, 3, 1);

/// Why a secret was not given back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// Damage, or a newer program.
    #[error("it is not known how the passphrase is to be used")]
    Parameters,
    /// The user's mistake, or damage.
    #[error("the passphrase is wrong, or the file is damaged")]
    Refused,
    /// Retry when the machine has memory to give.
    #[error("the passphrase could not be used: {0}")]
    Derive(String),
}

/// How a passphrase becomes a key. Its text stands before what is locked, and is authenticated with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: [u8; SALT_LEN],
}

impl Parameters {
    /// Those of today.
    pub fn new(salt: [u8; SALT_LEN]) -> Self {
        let (memory_kib, passes, lanes) = COST;
        Self { memory_kib, passes, lanes, salt }
    }

    /// The key: a fifth of a second and 64 MiB, by those of today.
    pub fn derive(self, passphrase: &[u8]) -> Result<Vault, VaultError> {
        let failed = |error: argon2::Error| VaultError::Derive(error.to_string());
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY_LEN)).map_err(failed)?;
        let mut key = Zeroizing::new([0; KEY_LEN]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, &self.salt, &mut *key)
            .map_err(failed)?;
        Ok(Vault { parameters: self, key })
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_kib, passes, lanes, salt } = self;
        write!(f, "argon2id {memory_kib} {passes} {lanes} {}", HEXLOWER.encode(salt))
    }
}

impl FromStr for Parameters {
    type Err = VaultError;

    fn from_str(text: &str) -> Result<Self, VaultError> {
        let words: Vec<&str> = text.split(' ').collect();
        let [name, memory_kib, passes, lanes, salt] = words[..] else { return Err(VaultError::Parameters) };
        let number = |text: &str, max: u32| text.parse().ok().filter(|number| *number <= max);
        let salt = HEXLOWER.decode(salt.as_bytes()).ok().and_then(|salt| salt.try_into().ok());
        let numbers = (number(memory_kib, MAX_COST.0), number(passes, MAX_COST.1), number(lanes, MAX_COST.2));
        match (name, numbers, salt) {
            ("argon2id", (Some(memory_kib), Some(passes), Some(lanes)), Some(salt)) => {
                Ok(Self { memory_kib, passes, lanes, salt })
            }
            _ => Err(VaultError::Parameters),
        }
    }
}

/// What a passphrase has become.
pub struct Vault {
    parameters: Parameters,
    key: Zeroizing<[u8; KEY_LEN]>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({})", self.parameters)
    }
}

impl Vault {
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.key).into())
    }

    /// Locks a secret. `nonce` is random.
    pub fn lock(&self, secret: &[u8; KEY_LEN], nonce: [u8; NONCE_LEN]) -> Vec<u8> {
        let context = self.parameters.to_string();
        let message = Payload { msg: secret, aad: context.as_bytes() };
        let locked = self.cipher().encrypt(&XNonce::from(nonce), message);
        // The cipher refuses only what is longer than 256 GiB.
        [&nonce[..], &locked.unwrap_or_default()].concat()
    }

    /// The secret.
    pub fn open(&self, locked: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, VaultError> {
        let (nonce, locked) = locked.split_first_chunk::<NONCE_LEN>().ok_or(VaultError::Refused)?;
        if locked.len() != KEY_LEN + TAG_LEN {
            return Err(VaultError::Refused);
        }
        let context = self.parameters.to_string();
        let message = Payload { msg: locked, aad: context.as_bytes() };
        let opened =
            self.cipher().decrypt(&XNonce::from(*nonce), message).map_err(|_| VaultError::Refused)?;
        let opened = Zeroizing::new(opened);
        let mut secret = Zeroizing::new([0; KEY_LEN]);
        // The tag holds, and the length is that of a secret.
        secret.copy_from_slice(&opened);
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cheap, so that tests are quick.
    fn parameters() -> Parameters {
        format!("argon2id 64 1 1 {}", "5a".repeat(SALT_LEN)).parse().unwrap()
    }

    #[test]
    fn opens_with_the_passphrase_alone() {
        let vault = parameters().derive(b"correct horse").unwrap();
        let locked = vault.lock(&[7; KEY_LEN], [1; NONCE_LEN]);
        assert!(!locked.windows(4).any(|window| window == [7; 4]));
        let again = vault.parameters().to_string().parse::<Parameters>().unwrap();
        assert_eq!(*again.derive(b"correct horse").unwrap().open(&locked).unwrap(), [7; KEY_LEN]);
        let other = parameters().derive(b"battery staple").unwrap();
        assert_eq!(other.open(&locked).err(), Some(VaultError::Refused));
        for at in 0..locked.len() {
            let mut bent = locked.clone();
            bent[at] ^= 1;
            assert!(vault.open(&bent).is_err() && vault.open(&locked[..at]).is_err(), "byte {at}");
        }
        assert!(!format!("{vault:?}").contains("key"));
    }

    #[test]
    fn parameters_are_bounded_and_junk_is_refused() {
        let salt = "00".repeat(SALT_LEN);
        for text in [
            String::new(),
            "argon2id".into(),
            format!("scrypt 64 1 1 {salt}"),
            format!("argon2id 1048577 1 1 {salt}"),
            format!("argon2id 64 17 1 {salt}"),
            format!("argon2id 64 1 17 {salt}"),
            format!("argon2id 64 1 1 {salt}00"),
            format!("argon2id 64 1 1 {salt} x"),
            format!("argon2id -1 1 1 {salt}"),
        ] {
            assert_eq!(text.parse::<Parameters>(), Err(VaultError::Parameters), "{text}");
        }
        assert_eq!(Parameters::new([0; SALT_LEN]).to_string(), format!("argon2id 65536 3 1 {salt}"));
        let useless = format!("argon2id 0 0 0 {salt}").parse::<Parameters>().unwrap();
        assert!(matches!(useless.derive(b""), Err(VaultError::Derive(_))));
    }
}
