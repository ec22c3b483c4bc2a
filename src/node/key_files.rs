//! The files that secret keys are in.
//!
//! Owns: their two forms, plain and locked with a passphrase; that nobody else can read them; writing them whole.
//! Must not know: which key is used for what (`keys`).
//! Invariant: a file that anyone else can read is never used, and none is ever overwritten but by the same key in another form. Where
//! the identity is locked, so is every file that is written.
//! Trust: our own files, still checked.
//! Threads: any; a passphrase takes a fraction of a second the first time. A crash leaves each file whole, absent, or of before.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::error::{Error, Kind};
use crate::crypto::SecretKey;
use crate::crypto::vault::{NONCE_LEN, Parameters, SALT_LEN, Vault, VaultError};

/// First line of a key file; the second is the 32 secret bytes in hex, the third the public key, by which damage shows.
const HEADER: &str = "bcai identity 1";
/// The same of a locked one; the second line says how the passphrase is used, the third is what is locked.
const LOCKED: &str = "bcai identity 2";

/// What the user knows and nobody else.
pub type Passphrase = Zeroizing<String>;

/// How key files are read and written.
pub(super) struct KeyFiles {
    passphrase: Option<Passphrase>,
    /// New files are locked.
    locking: bool,
    /// What the passphrase became last: files that were written together have the same parameters.
    vault: Mutex<Option<Vault>>,
}

impl KeyFiles {
    /// Those of a node with this identity: files are locked if that is.
    pub fn of(identity: &Path, passphrase: Option<Passphrase>) -> Self {
        Self { passphrase, locking: is_locked(identity), vault: Mutex::default() }
    }

    /// Files that are locked with a passphrase, or plain without one.
    pub fn locked_with(passphrase: Option<Passphrase>) -> Self {
        Self { locking: passphrase.is_some(), passphrase, vault: Mutex::default() }
    }

    /// The key in a file; nothing if there is no such file.
    pub fn read(&self, path: &Path) -> Result<Option<SecretKey>, Error> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("cannot read", path, error)),
        };
        check_mode(path)?;
        let damaged = || {
            Error::new(Kind::Corrupt, format!("{} is not an identity file", path.display()))
                .hint("restore it from a backup; without it this node cannot sign for names it owns")
        };
        let lines: Vec<&str> = text.trim_end().split('\n').collect();
        match lines[..] {
            [HEADER, secret, public] => {
                let key = secret_of(secret).map(|secret| SecretKey::from_bytes(*secret));
                key.filter(|key| key.public().to_string() == public).ok_or_else(damaged)
            }
            [LOCKED, parameters, locked] => {
                let locked = HEXLOWER.decode(locked.as_bytes()).map_err(|_| damaged())?;
                self.unlock(path, parameters, &locked)
            }
            _ => Err(damaged()),
        }
        .map(Some)
    }

    fn unlock(&self, path: &Path, parameters: &str, locked: &[u8]) -> Result<SecretKey, Error> {
        let Some(passphrase) = &self.passphrase else {
            let message = format!("{} is locked with a passphrase, and none was given", path.display());
            return Err(Error::new(Kind::Denied, message).hint(
                "start the node from a terminal (bcai daemon), or set BCAI_PASSPHRASE, or BCAI_PASSPHRASE_FILE to a file that holds it",
            ));
        };
        let failed = |error: VaultError| {
            let is_refused = error == VaultError::Refused;
            let kind = if is_refused { Kind::Denied } else { Kind::Failed };
            let failed = Error::new(kind, format!("{}: {error}", path.display()));
            match is_refused {
                true => failed.hint(
                    "give the right one: at the terminal, in BCAI_PASSPHRASE, or in the file that BCAI_PASSPHRASE_FILE names; if the file is damaged, restore it from a backup",
                ),
                false => failed,
            }
        };
        let parameters: Parameters = parameters.parse().map_err(failed)?;
        let mut vault = self.vault.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = vault.as_ref().is_some_and(|vault| *vault.parameters() == parameters);
        if !fits {
            *vault = Some(parameters.derive(passphrase.as_bytes()).map_err(failed)?);
        }
        let opened = vault.as_ref().map(|vault| vault.open(locked)).unwrap_or(Err(VaultError::Refused));
        opened.map(|secret| SecretKey::from_bytes(*secret)).map_err(failed)
    }

    /// Makes a key where there is none.
    pub fn create(&self, path: &Path) -> Result<SecretKey, Error> {
        let key = SecretKey::from_bytes(random()?);
        self.write(path, &key)?;
        Ok(key)
    }

    /// Writes a key where there is none.
    pub fn write(&self, path: &Path, key: &SecretKey) -> Result<(), Error> {
        let text = self.text(path, key)?;
        put(path, &text, |file| file.persist_noclobber(path).map(drop))
    }

    /// Writes the key that is in a file in the form of these files.
    pub fn rewrite(&self, path: &Path, key: &SecretKey) -> Result<(), Error> {
        let text = self.text(path, key)?;
        put(path, &text, |file| file.persist(path).map(drop))
    }

    fn text(&self, path: &Path, key: &SecretKey) -> Result<Zeroizing<String>, Error> {
        let secret = Zeroizing::new(key.to_bytes());
        let Some(passphrase) = self.passphrase.as_ref().filter(|_| self.locking) else {
            let (secret, public) = (HEXLOWER.encode(&*secret), key.public());
            return Ok(Zeroizing::new(format!("{HEADER}\n{secret}\n{public}\n")));
        };
        let mut vault = self.vault.lock().unwrap_or_else(PoisonError::into_inner);
        if vault.is_none() {
            let parameters = Parameters::new(random::<SALT_LEN>()?);
            let derived = parameters.derive(passphrase.as_bytes());
            *vault = Some(
                derived.map_err(|error| Error::new(Kind::Failed, format!("{}: {error}", path.display())))?,
            );
        }
        let nonce = random::<NONCE_LEN>()?;
        let text = vault.as_ref().map(|vault| {
            format!("{LOCKED}\n{}\n{}\n", vault.parameters(), HEXLOWER.encode(&vault.lock(&secret, nonce)))
        });
        Ok(Zeroizing::new(text.unwrap_or_default()))
    }
}

/// Whether a key file needs a passphrase.
pub fn is_locked(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| Zeroizing::new(text).starts_with(LOCKED))
}

fn secret_of(hex: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(HEXLOWER.decode(hex.as_bytes()).ok()?);
    let secret: [u8; 32] = bytes.as_slice().try_into().ok()?;
    Some(Zeroizing::new(secret))
}

/// Puts a file in its place, whole and on disk.
pub(super) fn put(
    path: &Path,
    text: &str,
    persist: impl FnOnce(tempfile::NamedTempFile) -> Result<(), tempfile::PersistError>,
) -> Result<(), Error> {
    let write = || {
        // Temporary files are created 0600, so a key is never readable by others, not even for a moment.
        let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        persist(file)?;
        sync_dir(path)
    };
    write().map_err(|error| Error::io("cannot write", path, error))
}

pub(super) fn check_mode(path: &Path) -> Result<(), Error> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::io("cannot read", path, error))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::new(
            Kind::Denied,
            format!("{} can be read by other users (mode {mode:03o})", path.display()),
        )
        .hint(format!("chmod 600 {}", path.display())));
    }
    Ok(())
}

/// Random bytes for a key.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Kind::Failed, format!("the kernel gave no random bytes: {error}")))?;
    Ok(bytes)
}

pub(super) fn sync_dir(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
