//! The keys of this node: who it is in the log, and who it is to peers.
//!
//! Owns: which key files there are, which key is used for what, and in which order the files change when a key takes another's place.
//! Must not know: how an entry is decided, or what a key file looks like (`key_files`).
//! Invariant: a key file that anyone else can read is never used, and none is ever overwritten or lost: a key is replaced
//! only where every log that knows it says so.
//! Trust: our own files, still checked.
//! Threads: loaded at the start; afterwards behind one lock. A crash leaves each file whole or absent, and every state of the
//! files has one meaning:
//!
//! | `identity.key` | who the node is in the log, and to peers too unless there is a `voting.key` |
//! | `identity.key.next` | the key that shall take its place, or has in some logs already; which ones, they say themselves |
//! | `identity.key.DIGITS` | a key that was replaced, by the first digits of its public key |
//! | `voting.key` | the key by which the node is known to peers, because it votes, or shall, in some network |

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::error::{Error, Kind};
use super::key_files::{KeyFiles, Passphrase, is_locked, sync_dir};
use crate::chain::Chain;
use crate::config::Paths;
use crate::crypto::{PublicKey, SecretKey};
use crate::log::{Ledger, Standing};

/// Digits of a public key by which the file of a key that was replaced is called.
const RETIRED_LEN: usize = 10;

/// The keys of a node that runs.
pub struct Keys {
    files: KeyFiles,
    identity: PathBuf,
    next: PathBuf,
    voting: PathBuf,
    networks: PathBuf,
    /// Who this run of the node is to peers, and by which it votes.
    running: SecretKey,
    held: RwLock<Held>,
}

#[derive(Clone)]
struct Held {
    identity: SecretKey,
    next: Option<SecretKey>,
    /// Those that were replaced.
    retired: Vec<SecretKey>,
}

impl Keys {
    /// Reads the keys, or makes one when there is none and the node is `new`. A node that has a past and no key is not
    /// given another one: it would be a stranger to the names it owns.
    pub fn load(paths: &Paths, new: bool, passphrase: Option<Passphrase>) -> Result<Self, Error> {
        Self::load_from(KeyFiles::of(&paths.identity(), passphrase), paths, new)
    }

    fn load_from(files: KeyFiles, paths: &Paths, new: bool) -> Result<Self, Error> {
        let (identity, next, voting) = (paths.identity(), paths.next_identity(), paths.voting_key());
        let held = match files.read(&identity)? {
            Some(key) => key,
            None if new => files.create(&identity)?,
            None => {
                return Err(Error::not_found(format!("the identity of this node, {}, is gone", identity.display()))
                    .hint(
                        "restore it from a backup; or move state.json away to become a new node, which owns no names",
                    ));
            }
        };
        let running = files.read(&voting)?.unwrap_or_else(|| held.clone());
        let mut retired = Vec::new();
        for file in retired_files(&identity)? {
            match files.read(&file) {
                Ok(key) => retired.extend(key),
                // It is no reason not to start: only what was wrapped for it cannot be opened.
                Err(error) => tracing::warn!(%error, "a key that was replaced cannot be read"),
            }
        }
        let held = RwLock::new(Held { identity: held, next: files.read(&next)?, retired });
        let keys = Self { files, identity, next, voting, networks: paths.networks(), running, held };
        keys.part_with_votes_of_old_keys()?;
        Ok(keys)
    }

    /// The keys of a node that has this one.
    #[cfg(test)]
    pub fn of(paths: &Paths, key: SecretKey) -> Arc<Self> {
        let (identity, next, voting) = (paths.identity(), paths.next_identity(), paths.voting_key());
        let held = RwLock::new(Held { identity: key.clone(), next: None, retired: Vec::new() });
        let files = KeyFiles::of(&identity, None);
        Arc::new(Self { files, identity, next, voting, networks: paths.networks(), running: key, held })
    }

    /// Who this run of the node is to peers, and by which it votes.
    pub fn running(&self) -> &SecretKey {
        &self.running
    }

    /// Who the node is in logs that know it by no other key.
    pub fn identity(&self) -> SecretKey {
        self.held().identity
    }

    /// The key that is about to take the identity's place.
    pub fn next(&self) -> Option<SecretKey> {
        self.held().next
    }

    /// The key that this node writes with in a log: of those that the log knows, the latest that may write there.
    pub fn author(&self, ledger: &Ledger) -> SecretKey {
        let Held { identity, next, .. } = self.held();
        if next.is_none() && identity.public() == self.running.public() {
            return identity;
        }
        let keys = next.into_iter().chain([identity.clone(), self.running.clone()]);
        let mut known =
            keys.filter(|key| ledger.knows(&key.public()) && ledger.acting(&key.public()).is_ok());
        known.next().unwrap_or(identity)
    }

    /// All keys that this node has or had, the newest first: what was wrapped for an earlier one still opens.
    pub fn all(&self) -> Vec<SecretKey> {
        let Held { identity, next, retired } = self.held();
        next.into_iter().chain([identity, self.running.clone()]).chain(retired).collect()
    }

    fn held(&self) -> Held {
        // Replaced whole, so a panic elsewhere has left it as it was.
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key to put in the identity's place: the one of an earlier try, or a new one. It is on disk when this returns, and
    /// if the identity votes in one of these logs, so is a copy of it that goes on voting.
    pub fn prepare(&self, chains: &[Arc<Chain>]) -> Result<SecretKey, Error> {
        let Held { identity, next, .. } = self.held();
        if votes_in_any(chains, &identity.public()) && !self.voting.exists() {
            self.files.write(&self.voting, &identity)?;
        }
        if let Some(next) = next {
            return Ok(next);
        }
        let next = self.files.create(&self.next)?;
        self.held.write().unwrap_or_else(PoisonError::into_inner).next = Some(next.clone());
        Ok(next)
    }

    /// Puts the next key in the identity's place if all logs of this node that know the identity have done so. Returns
    /// whether no next key is left. To be called only when `chains` are all.
    pub fn settle(&self, chains: &[Arc<Chain>]) -> Result<bool, Error> {
        let Held { identity, next, mut retired } = self.held();
        let Some(next) = next else { return Ok(true) };
        if chains.iter().any(|chain| holds(&chain.ledger(), &identity, &next)) {
            return Ok(false);
        }
        let failed = |error| Error::io("cannot replace", &self.identity, error);
        match std::fs::hard_link(&self.identity, retired_file(&self.identity, &identity.public())) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        std::fs::rename(&self.next, &self.identity)
            .and_then(|()| sync_dir(&self.identity))
            .map_err(failed)?;
        tracing::info!(old = %identity.public(), new = %next.public(), "the key of this node was replaced");
        retired.push(identity);
        let held = Held { identity: next, next: None, retired };
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(true)
    }

    /// Parts with the voting key, from the next start on, if it votes nowhere any more. To be called only when `chains` are all.
    pub fn retire_voting_key(&self, chains: &[Arc<Chain>]) -> Result<(), Error> {
        let key = self.running.public();
        if !self.voting.exists() || votes_in_any(chains, &key) {
            return Ok(());
        }
        // A copy of it was kept when another took its place as the identity; if none did, it is the identity.
        std::fs::remove_file(&self.voting)
            .and_then(|()| sync_dir(&self.voting))
            .map_err(|error| Error::io("cannot remove", &self.voting, error))?;
        tracing::info!(%key, "the old key votes nowhere any more: the next start of this node has another peer id");
        Ok(())
    }

    /// Whether the node is known to peers by another key from its next start on.
    pub fn changes_at_start(&self) -> bool {
        !self.voting.exists() && self.held().identity.public() != self.running.public()
    }

    /// Sets write-ahead logs aside that belong to a key which was replaced and votes no more, so that they are not in the
    /// way of the one that votes now.
    fn part_with_votes_of_old_keys(&self) -> Result<(), Error> {
        let dir = &self.networks;
        let files = std::fs::read_dir(dir).map_err(|error| Error::io("cannot list", dir, error))?;
        for lock in files.flatten().map(|file| file.path()) {
            let text = match lock.to_str() {
                Some(path) if path.ends_with(".wal.lock") => {
                    std::fs::read_to_string(&lock).unwrap_or_default()
                }
                _ => continue,
            };
            // GENESIS KEY
            let owner = text.trim_end().split_once(' ').and_then(|(_, key)| key.parse::<PublicKey>().ok());
            let Some(owner) = owner.filter(|owner| *owner != self.running.public()) else { continue };
            if !retired_file(&self.identity, &owner).exists() {
                continue;
            }
            for file in [lock.clone(), lock.with_extension("")] {
                let aside = suffixed(&file, &owner.short());
                match std::fs::rename(&file, &aside) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("cannot move", &file, error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Makes the key of a node that has none, and has never run; locked, if there is a passphrase.
pub fn new_key(paths: &Paths, passphrase: Option<Passphrase>) -> Result<PublicKey, Error> {
    let path = paths.identity();
    if is_locked(&path) {
        return Err(Error::new(Kind::Failed, format!("there is a key: {}, which is locked", path.display()))
            .hint("`bcai keys` shows it; `bcai keys passphrase` changes its passphrase"));
    }
    let files = KeyFiles::locked_with(passphrase);
    if let Some(key) = files.read(&path)? {
        return Err(Error::new(
            Kind::Failed,
            format!("there is a key: {} is {}", path.display(), key.public()),
        )
        .hint("`bcai keys rotate` puts another in its place, `bcai keys passphrase` locks it"));
    }
    paths.create()?;
    Ok(Keys::load_from(files, paths, !paths.state().exists())?.identity().public())
}

/// Whether the keys of a node are locked with a passphrase.
pub fn is_key_locked(paths: &Paths) -> bool {
    is_locked(&paths.identity())
}

/// Locks all key files of a node with another passphrase, or with none. The node must not be running: it would go on with the old
/// one. After a crash some files have the one and some the other; doing it again with the same two changes the rest.
pub fn change_passphrase(
    paths: &Paths,
    old: Option<Passphrase>,
    new: Option<Passphrase>,
) -> Result<usize, Error> {
    let (before, after) = (KeyFiles::locked_with(old), KeyFiles::locked_with(new));
    // The identity last: it says how the others are to be taken.
    let mut files = vec![paths.next_identity(), paths.voting_key()];
    files.extend(retired_files(&paths.identity())?);
    files.push(paths.identity());
    let mut changed = 0;
    for path in files {
        match before.read(&path) {
            // Changed by an earlier try.
            Err(error) if error.kind == Kind::Denied && after.read(&path).is_ok() => {}
            key => {
                let Some(key) = key? else { continue };
                after.rewrite(&path, &key)?;
                changed += 1;
            }
        }
    }
    Ok(changed)
}

/// Whether there is a key.
pub fn has_key(paths: &Paths) -> bool {
    paths.identity().exists()
}

/// Whether what belongs to `identity` in a log has not gone over to `next` yet.
pub fn holds(ledger: &Ledger, identity: &SecretKey, next: &SecretKey) -> bool {
    let successor = ledger.identity(&identity.public()).and_then(|identity| identity.successor);
    ledger.knows(&identity.public()) && successor != Some(next.public())
}

/// Whether this key votes or is to vote in a network.
pub fn votes(ledger: &Ledger, key: &PublicKey) -> bool {
    let sets = [ledger.validators(), &ledger.epochs().next];
    let active = |voter: &PublicKey, standing| voter == key && standing == Standing::Active;
    sets.iter().any(|set| set.get(key).is_some())
        || ledger.operators().any(|(_, operator)| active(&operator.voter, operator.standing))
}

fn votes_in_any(chains: &[Arc<Chain>], key: &PublicKey) -> bool {
    chains.iter().any(|chain| votes(&chain.ledger(), key))
}

/// Where a key is kept after another took its place.
fn retired_file(identity: &Path, key: &PublicKey) -> PathBuf {
    suffixed(identity, &key.short())
}

/// The files of all keys that were replaced.
fn retired_files(identity: &Path) -> Result<Vec<PathBuf>, Error> {
    let Some(dir) = identity.parent() else { return Ok(Vec::new()) };
    let files = std::fs::read_dir(dir).map_err(|error| Error::io("cannot list", dir, error))?;
    let is_retired = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let end = name.strip_prefix("identity.key.").unwrap_or_default();
        end.len() == RETIRED_LEN && end.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    Ok(files.flatten().map(|file| file.path()).filter(is_retired).collect())
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn paths() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::under(dir.path()).unwrap();
        paths.create().unwrap();
        (dir, paths)
    }

    #[test]
    fn is_made_once_and_refused_when_others_can_read_it() {
        let (_dir, paths) = paths();
        assert_eq!(Keys::load(&paths, false, None).err().unwrap().kind, Kind::NotFound);
        let first = Keys::load(&paths, true, None).unwrap();
        let again = Keys::load(&paths, false, None).unwrap();
        assert_eq!(first.running().public(), again.identity().public());
        assert!(new_key(&paths, None).unwrap_err().message.contains("there is a key"));
        std::fs::set_permissions(paths.identity(), std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keys::load(&paths, false, None).err().unwrap();
        assert_eq!(error.kind, Kind::Denied);
        assert!(error.hint.unwrap().starts_with("chmod 600"));
    }

    #[test]
    fn a_damaged_file_is_not_replaced() {
        let (_dir, paths) = paths();
        std::fs::write(paths.identity(), "junk").unwrap();
        std::fs::set_permissions(paths.identity(), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Keys::load(&paths, true, None).err().unwrap().kind, Kind::Corrupt);
        assert_eq!(std::fs::read_to_string(paths.identity()).unwrap(), "junk");
    }

    #[test]
    fn only_the_write_ahead_log_of_a_key_that_was_replaced_is_set_aside() {
        let (_dir, paths) = paths();
        let keys = Keys::load(&paths, true, None).unwrap();
        let old = SecretKey::from_bytes([7; 32]).public();
        let [wal, lock] = ["wal", "wal.lock"].map(|end| paths.networks().join(format!("ab.{end}")));
        let set_up = |owner: PublicKey| {
            std::fs::write(&wal, "votes").unwrap();
            std::fs::write(&lock, format!("ab {owner}\n")).unwrap();
        };
        // Of a stranger, as after somebody put back another identity: what it has signed must stay known.
        set_up(old);
        Keys::load(&paths, false, None).unwrap();
        assert!(wal.exists() && lock.exists());
        std::fs::write(retired_file(&paths.identity(), &old), "").unwrap();
        Keys::load(&paths, false, None).unwrap();
        assert!(!wal.exists() && !lock.exists());
        assert_eq!(std::fs::read_to_string(suffixed(&wal, &old.short())).unwrap(), "votes");
        set_up(keys.running().public());
        Keys::load(&paths, false, None).unwrap();
        assert!(wal.exists() && lock.exists());
    }

    #[test]
    fn a_passphrase_locks_every_file_and_opens_it_again() {
        let (_dir, paths) = paths();
        let phrase = |text: &str| Some(Passphrase::new(text.to_owned()));
        let key = new_key(&paths, phrase("one")).unwrap();
        assert!(is_key_locked(&paths) && new_key(&paths, None).unwrap_err().message.contains("locked"));
        let error = Keys::load(&paths, false, None).err().unwrap();
        assert!(error.kind == Kind::Denied && error.hint.unwrap().contains("BCAI_PASSPHRASE"));
        let error = Keys::load(&paths, false, phrase("two")).err().unwrap();
        assert!(error.kind == Kind::Denied && error.message.contains("passphrase is wrong"), "{error}");
        let keys = Keys::load(&paths, false, phrase("one")).unwrap();
        assert_eq!(keys.identity().public(), key);
        // Two rotations of a key that no log knows.
        let first = keys.identity();
        keys.prepare(&[]).unwrap();
        assert!(is_locked(&paths.next_identity()));
        assert!(keys.settle(&[]).unwrap());
        keys.prepare(&[]).unwrap();
        assert!(keys.all().iter().any(|key| key.public() == first.public()));
        assert_eq!(change_passphrase(&paths, phrase("one"), phrase("two")).unwrap(), 3);
        let again = Keys::load(&paths, false, phrase("two")).unwrap();
        let publics = |keys: &Keys| keys.all().iter().map(SecretKey::public).collect::<Vec<_>>();
        assert_eq!(again.all().len(), 4, "next, identity, running and the one before");
        assert_eq!(again.identity().public(), keys.identity().public());
        assert!(publics(&again).contains(&first.public()));
        assert!(change_passphrase(&paths, phrase("one"), None).is_err());
        change_passphrase(&paths, phrase("two"), None).unwrap();
        assert!(!is_key_locked(&paths));
        assert_eq!(publics(&Keys::load(&paths, false, None).unwrap()), publics(&again));
        for file in [paths.identity(), paths.next_identity()] {
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
