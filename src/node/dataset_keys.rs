//! The keys of encrypted datasets that this node has: as their owner, or by a grant.
//!
//! Owns: the file in which they are kept, wrapped for this node's own key; which of them opens what.
//! Must not know: how anything is sealed, or how an entry is decided.
//! Invariant: a key is on disk before anything that was sealed with it is in a log, and is never replaced by an earlier generation. On disk it is of
//! no use to who has not the identity of this node too.
//! Trust: our own file, still checked; wraps in the log are from admins of the dataset, and worth no more than what they open.
//! Threads: any; behind one lock. A crash leaves the file of before, or of after.
//!
//! A key that was granted is kept too: who loses the right to later versions keeps what opens those of before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::HEXLOWER;

use super::error::{Error, Kind};
use super::key_files::{check_mode, put, random};
use super::keys::Keys;
use crate::config::Paths;
use crate::crypto::dataset::{DatasetKey, MAX_GENERATION};
use crate::crypto::wrap::{Subject, Wrap};
use crate::crypto::{PublicKey, SecretKey};
use crate::id::{Genesis, KeyId};
use crate::log::{Dataset, Ledger, Name};

/// First line of the file; each other is the network, the dataset, the generation in use and the wrapped key.
const HEADER: &str = "bcai dataset keys 1";

/// A dataset in a network.
type Place = (Genesis, Name);

/// What is had of one dataset's key: of its owner, the last generation; of others, the newest that they were given.
#[derive(Clone)]
struct Held {
    key: DatasetKey,
    /// The one in use.
    generation: u32,
}

impl Held {
    fn current(&self) -> Option<DatasetKey> {
        self.key.at(self.generation)
    }

    fn can_rotate(&self) -> bool {
        self.key.generation() > self.generation
    }
}

/// The keys of the datasets of one node.
pub(super) struct DatasetKeys {
    path: PathBuf,
    keys: Arc<Keys>,
    held: Mutex<BTreeMap<Place, Held>>,
}

impl DatasetKeys {
    /// Reads them.
    pub fn load(paths: &Paths, keys: Arc<Keys>) -> Result<Self, Error> {
        let path = paths.dataset_keys();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("{HEADER}\n"),
            Err(error) => return Err(Error::io("cannot read", &path, error)),
        };
        if path.exists() {
            check_mode(&path)?;
        }
        let damaged = |line: usize, cause: &str| {
            let message = format!("{}: line {line} is damaged: {cause}", path.display());
            Error::new(Kind::Corrupt, message).hint(
                "restore the file from a backup; without it what it opens can no longer be read from here",
            )
        };
        let mut held = BTreeMap::new();
        let secrets = keys.all();
        let mut lines = text.lines();
        // An empty file is one that was cut, and no file without keys.
        if lines.next() != Some(HEADER) {
            return Err(damaged(1, "another bcai wrote it, or it is no file of keys"));
        }
        for (number, line) in (2..).zip(lines) {
            let (place, entry) = parse(line, &secrets).map_err(|cause| damaged(number, &cause))?;
            held.insert(place, entry);
        }
        Ok(Self { path, keys, held: Mutex::new(held) })
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Place, Held>> {
        // Replaced as a whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key in use of a dataset.
    pub fn get(&self, place: &Place) -> Option<DatasetKey> {
        self.held().get(place)?.current()
    }

    /// Whether this node can put another key in the place of the one in use.
    pub fn can_rotate(&self, place: &Place) -> bool {
        self.held().get(place).is_some_and(Held::can_rotate)
    }

    /// The keys that open what was sealed with the key `id`: the newest of its dataset that is here.
    pub fn by_id(&self, generation: u32, id: &KeyId) -> Option<DatasetKey> {
        let held = self.held();
        let opens = |held: &&Held| held.key.at(generation).is_some_and(|key| key.id() == *id);
        held.values().find(opens)?.current().filter(|key| key.generation() >= generation)
    }

    /// Makes the key of a dataset that has none.
    pub fn create(&self, place: &Place) -> Result<DatasetKey, Error> {
        let held = self.held();
        let entry = match held.get(place) {
            Some(known) => known.clone(),
            None => Held { key: DatasetKey::root(random()?), generation: 0 },
        };
        let current = entry.current();
        self.keep(held, place, entry)?;
        // A key has every generation up to its own.
        current.ok_or_else(|| Error::new(Kind::Failed, "a dataset key has no first generation"))
    }

    /// Takes the next generation into use. Afterwards only it is given out.
    pub fn rotate(&self, place: &Place) -> Result<DatasetKey, Error> {
        let held = self.held();
        let name = &place.1;
        let entry = held.get(place).filter(|held| held.can_rotate()).ok_or_else(|| {
            Error::new(Kind::Denied, format!("the key of {name} cannot be rotated on this node")).hint(
                format!(
                    "the node that published {name} first can; and it can be rotated {MAX_GENERATION} times"
                ),
            )
        })?;
        let entry = Held { generation: entry.generation + 1, ..entry.clone() };
        let current = entry.current();
        self.keep(held, place, entry)?;
        current.ok_or_else(|| Error::new(Kind::Failed, "a dataset key has no next generation"))
    }

    /// The key of a dataset that was granted to this node, which is kept from then on if it is newer than what is here.
    pub fn granted(&self, place: &Place, ledger: &Ledger) -> Result<Option<DatasetKey>, Error> {
        let Some(dataset) = ledger.dataset(place.1.as_str()) else { return Ok(None) };
        let Some(key) = self.opened(place, ledger, dataset)? else { return Ok(None) };
        let held = self.held();
        let is_newer = held.get(place).is_none_or(|held| held.key.generation() < key.generation());
        if is_newer {
            self.keep(held, place, Held { generation: key.generation(), key: key.clone() })?;
        }
        Ok(Some(key))
    }

    fn opened(&self, place: &Place, ledger: &Ledger, dataset: &Dataset) -> Result<Option<DatasetKey>, Error> {
        let own = self.keys.author(ledger).public();
        let first = ledger.acting(&own).unwrap_or(own);
        let Some(bytes) = dataset.grants.get(&first).and_then(|granted| granted.wrap.as_ref()) else {
            return Ok(None);
        };
        let subject = Subject { genesis: place.0, name: place.1.as_str() };
        // It was wrapped for the key that this node had then.
        let opened = Wrap::decode(bytes).and_then(|wrap| {
            let secret = self.keys.all().into_iter().find(|key| key.public() == wrap.to);
            let secret = secret.ok_or(crate::crypto::wrap::WrapError::NotForThis { for_whom: wrap.to })?;
            wrap.open(subject, &secret)
        });
        opened.map(Some).map_err(|cause| {
            Error::new(Kind::Denied, format!("the key of {} that was granted to this node: {cause}", place.1))
                .hint(format!(
                    "ask its owner, {}, to run `bcai keys grant {own} reader --dataset {}` again",
                    dataset.owner, place.1
                ))
        })
    }

    /// Wraps a key for somebody, as a grant has it.
    pub fn wrap(
        &self,
        key: &DatasetKey,
        place: &Place,
        from: PublicKey,
        to: PublicKey,
    ) -> Result<Wrap, Error> {
        let subject = Subject { genesis: place.0, name: place.1.as_str() };
        let wrap = Wrap::new(key, subject, from, to, random()?);
        wrap.map_err(|error| Error::new(Kind::Failed, format!("cannot wrap the key of {}: {error}", place.1)))
    }

    /// Has an entry on disk, and only then in memory: what cannot be kept must not seal anything.
    fn keep(
        &self,
        mut held: MutexGuard<'_, BTreeMap<Place, Held>>,
        place: &Place,
        entry: Held,
    ) -> Result<(), Error> {
        let mut changed = held.clone();
        changed.insert(place.clone(), entry);
        self.save(&changed)?;
        *held = changed;
        Ok(())
    }

    fn save(&self, held: &BTreeMap<Place, Held>) -> Result<(), Error> {
        let own = self.keys.identity().public();
        let mut text = format!("{HEADER}\n");
        for (place, Held { key, generation }) in held {
            let wrap = self.wrap(key, place, own, own)?;
            let (genesis, name) = place;
            text.push_str(&format!("{genesis} {name} {generation} {}\n", HEXLOWER.encode(&wrap.encode())));
        }
        put(&self.path, &text, |file| file.persist(&self.path).map(drop))
    }
}

/// One line of the file; what is wrong with it, otherwise.
fn parse(line: &str, secrets: &[SecretKey]) -> Result<(Place, Held), String> {
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or("a word is missing");
    let genesis: Genesis = word()?.parse().map_err(|_| "it names no network")?;
    let name: Name = word()?.parse().map_err(|_| "it names no dataset")?;
    let generation: u32 = word()?.parse().map_err(|_| "it has no generation")?;
    let bytes = HEXLOWER.decode(word()?.as_bytes()).map_err(|_| "its key is not in hex")?;
    if words.next().is_some() {
        return Err("it goes on behind its key".into());
    }
    let wrap = Wrap::decode(&bytes).map_err(|error| error.to_string())?;
    let secret = secrets.iter().find(|secret| secret.public() == wrap.to);
    let secret = secret
        .ok_or_else(|| format!("its key is wrapped for {}, which is not a key of this node", wrap.to))?;
    let subject = Subject { genesis, name: name.as_str() };
    let key = wrap.open(subject, secret).map_err(|error| error.to_string())?;
    if generation > key.generation() {
        return Err("its generation is later than its key".into());
    }
    Ok(((genesis, name), Held { key, generation }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn home() -> (tempfile::TempDir, Paths, Arc<Keys>) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::under(dir.path()).unwrap();
        paths.create().unwrap();
        let keys = Arc::new(Keys::load(&paths, true, None).unwrap());
        (dir, paths, keys)
    }

    fn place(name: &str) -> Place {
        (Genesis::of(b"network"), name.parse().unwrap())
    }

    #[test]
    fn are_there_again_after_a_restart_and_in_nobody_elses_hands() {
        let (_dir, paths, keys) = home();
        let made = DatasetKeys::load(&paths, keys.clone()).unwrap();
        assert_eq!(made.get(&place("photos")), None);
        let first = made.create(&place("photos")).unwrap();
        assert_eq!(made.create(&place("photos")).unwrap(), first, "it is never replaced");
        let second = made.rotate(&place("photos")).unwrap();
        assert_eq!((first.generation(), second.generation()), (0, 1));
        assert_eq!(second.at(0), Some(first.clone()));
        let again = DatasetKeys::load(&paths, keys).unwrap();
        assert_eq!(again.get(&place("photos")), Some(second.clone()));
        assert!(again.can_rotate(&place("photos")) && !again.can_rotate(&place("other")));
        assert_eq!(again.by_id(0, &first.id()), Some(second));
        assert_eq!(again.by_id(1, &first.id()), None);
        let text = std::fs::read_to_string(paths.dataset_keys()).unwrap();
        assert!(!text.contains(&HEXLOWER.encode(first.state())));
        let mode = std::fs::metadata(paths.dataset_keys()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_and_one_of_another_node_are_refused() {
        let (_dir, paths, keys) = home();
        DatasetKeys::load(&paths, keys.clone()).unwrap().create(&place("photos")).unwrap();
        let file = paths.dataset_keys();
        let text = std::fs::read_to_string(&file).unwrap();
        let (_other, others, other_keys) = home();
        std::fs::copy(&file, others.dataset_keys()).unwrap();
        let error = DatasetKeys::load(&others, other_keys).err().unwrap();
        assert!(error.kind == Kind::Corrupt && error.message.contains("not a key of this node"), "{error}");
        let longer = text.trim_end().to_owned() + " more\n";
        for bad in ["", "junk\n", &text.replace("photos", "fotos"), &text[..text.len() - 3], &longer] {
            std::fs::write(&file, bad).unwrap();
            let error = DatasetKeys::load(&paths, keys.clone()).err();
            assert!(error.is_some_and(|error| error.kind == Kind::Corrupt), "{bad}");
        }
        std::fs::write(&file, &text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(DatasetKeys::load(&paths, keys).err().unwrap().kind, Kind::Denied);
    }

    /// Once a key that could not be written was in use all the same: what it sealed could be opened until the next start.
    #[test]
    fn a_key_that_cannot_be_kept_is_not_used() {
        let (_dir, paths, keys) = home();
        let made = DatasetKeys::load(&paths, keys).unwrap();
        let first = made.create(&place("photos")).unwrap();
        // Nothing takes the place of a folder.
        std::fs::remove_file(paths.dataset_keys()).unwrap();
        std::fs::create_dir(paths.dataset_keys()).unwrap();
        assert!(made.create(&place("other")).is_err());
        assert_eq!(made.get(&place("other")), None);
        assert!(made.rotate(&place("photos")).is_err());
        assert_eq!(made.get(&place("photos")), Some(first));
    }
}
