//! The node's own key: who it is to peers and in the log.
//!
//! Owns: the identity file.
//! Must not know: what the key signs.
//! Invariant: a key file readable by anyone else is never used.
//! Trust: our own file, still checked.
//! Threads: called once at start. A crash leaves either no file or a whole one.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use data_encoding::HEXLOWER;

use super::error::{Error, Kind};
use crate::crypto::SecretKey;

/// First line of the file; the second is the 32 secret bytes in hex.
const HEADER: &str = "bcai identity 1";

/// Reads the key at `path`, or makes one when there is none and the node is `new`. A node that has a past and no key
/// is not given another one: it would be a stranger to the names it owns.
pub fn load_or_create(path: &Path, new: bool) -> Result<SecretKey, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            check_mode(path)?;
            parse(&text).ok_or_else(|| {
                Error::new(Kind::Corrupt, format!("{} is not an identity file", path.display()))
                    .hint("restore it from a backup; without it this node cannot sign for names it owns")
            })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && new => create(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::not_found(format!("the identity of this node, {}, is gone", path.display())).hint(
                "restore it from a backup; or move state.json away to become a new node, which owns no names",
            ))
        }
        Err(error) => Err(Error::io("cannot read", path, error)),
    }
}

fn check_mode(path: &Path) -> Result<(), Error> {
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

fn parse(text: &str) -> Option<SecretKey> {
    let (header, secret) = text.trim_end().split_once('\n')?;
    let secret: [u8; 32] = HEXLOWER.decode(secret.as_bytes()).ok()?.try_into().ok()?;
    (header == HEADER).then(|| SecretKey::from_bytes(secret))
}

fn create(path: &Path) -> Result<SecretKey, Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)
        .map_err(|error| Error::new(Kind::Failed, format!("the kernel gave no random bytes: {error}")))?;
    write(path, &secret).map_err(|error| Error::io("cannot write", path, error))?;
    Ok(SecretKey::from_bytes(secret))
}

fn write(path: &Path, secret: &[u8; 32]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    // Temporary files are created 0600, so the key is never readable by others, not even for a moment.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    writeln!(file, "{HEADER}\n{}", HEXLOWER.encode(secret))?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_made_once_and_refused_when_others_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        assert_eq!(load_or_create(&path, false).err().unwrap().kind, Kind::NotFound);
        let first = load_or_create(&path, true).unwrap();
        let again = load_or_create(&path, false).unwrap();
        assert_eq!(first.public(), again.public());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_create(&path, false).err().unwrap();
        assert_eq!(error.kind, Kind::Denied);
        assert!(error.hint.unwrap().starts_with("chmod 600"));
    }

    #[test]
    fn a_damaged_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        std::fs::write(&path, "junk").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(load_or_create(&path, true).err().unwrap().kind, Kind::Corrupt);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "junk");
    }
}
