//! Which key opens or seals a dataset, who is given it, and putting another in its place.
//!
//! Owns: the choice of the key, what is said to who has none, and the order of steps of a rotation.
//! Must not know: where keys are kept (`dataset_keys`), or how anything is sealed.
//! Invariant: a dataset of which anything was encrypted gets no further version in plain unless that is asked for. A key is taken into use before it
//! is given to anybody, so that nobody can be given one that is about to be withheld from somebody else.
//! Trust: the log says who owns a dataset and whom a wrap is for. Threads: async. A crash amid a rotation leaves readers who have not been
//! given the new key; rotating again gives it to all.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::{Error, Kind};
use super::report::{PublishRequest, Resolved, RotatedDataset};
use super::{Node, off};
use crate::chain::Chain;
use crate::crypto::PublicKey;
use crate::crypto::dataset::{DatasetKey, Keyring};
use crate::crypto::wrap::Wrap;
use crate::fetch::Class;
use crate::id::{Genesis, KeyId, SnapshotId};
use crate::log::{Dataset, EntryBody, Grant, Ledger, Name, Refusal, Role, RoleSet};
use crate::manifest::Snapshot;

/// Datasets remembered that could not be opened, and for how long.
const LOCKED: usize = 16;
const LOCKED_FOR: Duration = Duration::from_secs(3600);

/// Whether who has these roles with a dataset needs its key. Who stores it does not.
fn needs_key(roles: RoleSet) -> bool {
    [Role::Reader, Role::Publisher, Role::Admin].into_iter().any(|role| roles.has(role))
}

/// Encrypted datasets that were asked for here and could not be opened for want of a key, the latest [`LOCKED`] of the last
/// [`LOCKED_FOR`].
#[derive(Default)]
pub(super) struct Locked(Mutex<VecDeque<Refused>>);

/// One of them.
#[derive(Clone)]
struct Refused {
    genesis: Genesis,
    name: Name,
    /// The newest key that was had of it.
    had: Option<u32>,
    at: Instant,
    error: Error,
}

impl Locked {
    fn list(&self) -> MutexGuard<'_, VecDeque<Refused>> {
        // One is added or taken away at a time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, refused: Refused) {
        let mut list = self.list();
        list.retain(|known| (known.genesis, &known.name) != (refused.genesis, &refused.name));
        list.push_back(refused);
        let old = list.len().saturating_sub(LOCKED);
        list.drain(..old);
    }
}

impl Node {
    /// Those that are still locked: their names, what was said, and the remedy.
    pub(super) fn locked(&self) -> Vec<(String, Error)> {
        // Whether there is a key now may be a question for the disk.
        let known: Vec<Refused> = self.locked.list().iter().cloned().collect();
        let (left, over): (Vec<_>, Vec<_>) = known
            .into_iter()
            .partition(|refused| refused.at.elapsed() < LOCKED_FOR && !self.has_got_key(refused));
        self.locked.list().retain(|refused| over.iter().all(|gone| gone.at != refused.at));
        left.into_iter()
            .map(|refused| (format!("{}/{}", refused.genesis, refused.name), refused.error))
            .collect()
    }

    fn has_got_key(&self, refused: &Refused) -> bool {
        let Some(chain) = self.networks.get(&refused.genesis) else { return true };
        let key = self.dataset_key(&chain, &refused.name).ok().flatten();
        key.map(|key| key.generation()) != refused.had
    }

    /// The key in use of a dataset: this node's own, or the one that it was granted.
    pub(super) fn dataset_key(&self, chain: &Chain, name: &Name) -> Result<Option<DatasetKey>, Error> {
        let place = (chain.genesis(), name.clone());
        if self.dataset_keys.can_rotate(&place) {
            return Ok(self.dataset_keys.get(&place));
        }
        let granted = off(|| self.dataset_keys.granted(&place, &chain.ledger()))?;
        Ok(granted.or_else(|| self.dataset_keys.get(&place)))
    }

    /// What opens an encrypted snapshot: its dataset's key, or one that is found by the key's id.
    pub(super) fn keyring(
        &self,
        resolved: &Resolved,
        generation: u32,
        id: &KeyId,
    ) -> Result<Arc<Keyring>, Error> {
        let named = match &resolved.version {
            Some(version) => Some((version.genesis.parse::<Genesis>()?, version.name.parse::<Name>()?)),
            None => self.name_of(&resolved.snapshot.parse()?),
        };
        let chain = named.as_ref().and_then(|(genesis, _)| self.networks.get(genesis));
        let key = match (&named, &chain) {
            (Some((_, name)), Some(chain)) => self.dataset_key(chain, name)?,
            _ => None,
        };
        let key = key.or_else(|| self.dataset_keys.by_id(generation, id));
        let newest = key.as_ref().map(DatasetKey::generation);
        let keys = key.map(Keyring::new).filter(|keys| keys.has(generation, id));
        keys.map(Arc::new).ok_or_else(|| {
            self.no_key(resolved, named.map(|(_, name)| name), chain.as_deref(), generation, newest)
        })
    }

    /// The dataset of which a snapshot is a version, as far as the logs here say.
    fn name_of(&self, snapshot: &SnapshotId) -> Option<(Genesis, Name)> {
        self.networks.all().iter().find_map(|chain| {
            let ledger = chain.ledger();
            let mut datasets = ledger.datasets();
            let found = datasets
                .find(|dataset| dataset.versions.iter().any(|version| version.snapshot == *snapshot))?;
            Some((chain.genesis(), found.name.clone()))
        })
    }

    fn no_key(
        &self,
        resolved: &Resolved,
        name: Option<Name>,
        chain: Option<&Chain>,
        generation: u32,
        newest: Option<u32>,
    ) -> Error {
        let what = match &resolved.version {
            Some(version) => format!("{}@{}", version.name, version.version),
            None => format!("snapshot {}", resolved.snapshot),
        };
        let message = match newest {
            Some(newest) if newest < generation => format!(
                "no key for this dataset: {what} is encrypted with generation {generation} of its key, and this node was given generation {newest}"
            ),
            Some(_) => format!(
                "wrong key for this dataset: {what} is encrypted with another key than the one that this node has"
            ),
            None => format!("no key for this dataset: {what} is encrypted"),
        };
        let error = Error::new(Kind::Denied, message);
        let (Some(name), Some(chain)) = (name, chain) else {
            return error
                .hint("ask its owner to run `bcai keys grant` for this node; `bcai keys` shows its key");
        };
        let ledger = chain.ledger();
        let own = self.keys.author(&ledger).public();
        let owner =
            ledger.dataset(name.as_str()).map_or("its owner".into(), |dataset| dataset.owner.to_string());
        let error = error.hint(format!("ask {owner} to run `bcai keys grant {own} reader --dataset {name}`"));
        let genesis = chain.genesis();
        self.locked.note(Refused { genesis, name, had: newest, at: Instant::now(), error: error.clone() });
        error
    }

    /// What a new version of a dataset is to be sealed with; nothing if it is published in plain.
    pub(super) async fn sealing_keys(
        &self,
        chain: &Chain,
        name: &Name,
        request: &PublishRequest,
    ) -> Result<Option<Arc<Keyring>>, Error> {
        if request.plaintext {
            return Ok(None);
        }
        if let Some(key) = self.dataset_key(chain, name)? {
            return Ok(Some(Arc::new(Keyring::new(key))));
        }
        let ledger = chain.ledger();
        let own = self.keys.author(&ledger).public();
        let dataset = ledger.dataset(name.as_str());
        let owns =
            dataset.is_none_or(|dataset| ledger.acting(&own).is_ok_and(|first| first == dataset.owner));
        let encrypted = match dataset {
            Some(dataset) => self.is_encrypted(dataset).await?,
            None => false,
        };
        match (encrypted, request.encrypt) {
            (false, false) => Ok(None),
            (false, true) if owns => {
                let key = off(|| self.dataset_keys.create(&(chain.genesis(), name.clone())))?;
                Ok(Some(Arc::new(Keyring::new(key))))
            }
            _ => {
                let error = Error::new(
                    Kind::Denied,
                    format!(
                        "no key for this dataset: {name} is to be encrypted, and its key is not on this node"
                    ),
                );
                let owner = dataset.map(|dataset| dataset.owner.to_string()).unwrap_or_default();
                Err(match owns {
                    true => error.hint("restore dataset.keys from a backup, or publish under a new name; --plaintext publishes for everybody to read"),
                    false => error.hint(format!("ask {owner} to run `bcai keys grant {own} publisher --dataset {name}`")),
                })
            }
        }
    }

    /// Whether anything of a dataset is encrypted, as far as can be seen without its key.
    async fn is_encrypted(&self, dataset: &Dataset) -> Result<bool, Error> {
        if dataset.grants.values().any(|granted| granted.wrap.is_some()) {
            return Ok(true);
        }
        // What others see of an encrypted version is one file, so one that counts more is in plain. To look at the rest takes
        // somebody who has them.
        let mut maybe = dataset.versions.iter().rev().filter(|version| version.inodes == 1);
        let Some(latest) = maybe.next() else { return Ok(false) };
        let object = self.fetcher.get(latest.snapshot.into(), Class::Fault).await.map_err(|error| {
            Error::from(error).hint(format!(
                "the snapshot object of {}@{} says whether the dataset is encrypted; --plaintext publishes for everybody to read",
                dataset.name, latest.label
            ))
        })?;
        Ok(Snapshot::decode(object.plain())?.sealed.is_some())
    }

    /// Refuses to make a snapshot that was built before a version of a dataset whose readers could not open it, or of one that is
    /// encrypted while it is not.
    pub(super) fn check_sealed(
        &self,
        name: &Name,
        snapshot: &Snapshot,
        keys: Option<&Keyring>,
    ) -> Result<(), Error> {
        let usage = |message: String, hint: &str| Err(Error::usage(message).hint(hint));
        match (&snapshot.sealed, keys) {
            (None, None) => Ok(()),
            (Some(sealed), Some(keys)) if keys.has(sealed.generation, &sealed.key) => Ok(()),
            (Some(_), _) => usage(
                format!(
                    "this snapshot is encrypted, and not with the key of {name}: nobody who reads {name} could open it"
                ),
                "publish the directory that it was made from",
            ),
            (None, Some(_)) => usage(
                format!("this snapshot is in plain, and {name} is encrypted"),
                "publish the directory that it was made from; --plaintext publishes for everybody to read",
            ),
        }
    }

    /// The key for a grant of these roles, wrapped; the wrap that is there already if it still is the right one.
    pub(super) fn wrap_for(
        &self,
        chain: &Chain,
        name: &Name,
        to: PublicKey,
        roles: RoleSet,
    ) -> Result<Option<Vec<u8>>, Error> {
        if !needs_key(roles) {
            return Ok(None);
        }
        let Some(key) = self.dataset_key(chain, name)? else { return Ok(None) };
        let ledger = chain.ledger();
        let first = ledger.acting(&to).unwrap_or(to);
        let held = ledger.dataset(name.as_str()).and_then(|dataset| dataset.grants.get(&first)?.wrap.clone());
        let good = |bytes: &[u8]| {
            Wrap::decode(bytes).is_ok_and(|wrap| wrap.to == to && wrap.generation == key.generation())
        };
        if let Some(held) = held.filter(|held| good(held)) {
            return Ok(Some(held.to_vec()));
        }
        self.wrap(&key, chain, name, to).map(Some)
    }

    fn wrap(&self, key: &DatasetKey, chain: &Chain, name: &Name, to: PublicKey) -> Result<Vec<u8>, Error> {
        let from = self.keys.author(&chain.ledger()).public();
        Ok(self.dataset_keys.wrap(key, &(chain.genesis(), name.clone()), from, to)?.encode())
    }

    /// Whether taking `roles` down from what somebody holds closes later versions to them, so that the key has to be rotated.
    pub(super) fn loses_key(&self, ledger: &Ledger, name: &Name, first: &PublicKey, roles: RoleSet) -> bool {
        let held = ledger.dataset(name.as_str()).and_then(|dataset| dataset.grants.get(first));
        held.is_some_and(|held| held.wrap.is_some()) && !needs_key(roles)
    }

    /// Whether this node can put another key in the place of a dataset's.
    pub(super) fn can_rotate_dataset(&self, chain: &Chain, name: &Name) -> bool {
        self.dataset_keys.can_rotate(&(chain.genesis(), name.clone()))
    }

    /// Takes the next generation of a dataset's key into use, and gives it to all who have a right to it.
    pub async fn rotate_dataset(&self, name: &str) -> Result<RotatedDataset, Error> {
        let chain = self.networks.default_network()?;
        let name: Name = name.parse()?;
        let ledger = chain.ledger();
        let dataset =
            ledger.dataset(name.as_str()).ok_or_else(|| Refusal::NoDataset { name: name.to_string() })?;
        if self.dataset_keys.get(&(chain.genesis(), name.clone())).is_none()
            && !self.is_encrypted(dataset).await?
        {
            return Err(Error::usage(format!("nothing of {name} is encrypted: it has no key"))
                .hint("`bcai publish --encrypt` begins a dataset that has one"));
        }
        let _one_at_a_time = self.publishing.lock().await;
        Ok(self.rotate_dataset_key(&chain, &name, None).await?.1)
    }

    /// The same, for who holds `publishing`. `revoked` is decided between the two steps: at which height and round, and whether it
    /// was before.
    pub(super) async fn rotate_dataset_key(
        &self,
        chain: &Chain,
        name: &Name,
        revoked: Option<Grant>,
    ) -> Result<(Option<(u64, u32, bool)>, RotatedDataset), Error> {
        let started = Instant::now();
        let key = off(|| self.dataset_keys.rotate(&(chain.genesis(), name.clone())))?;
        let author = self.keys.author(&chain.ledger());
        let decided = match revoked {
            Some(grant) => Some(self.decide_as(chain, &author, EntryBody::Grant(grant)).await?),
            None => None,
        };
        let ledger = chain.ledger();
        let dataset = ledger.dataset(name.as_str());
        let mut readers = 0;
        for (first, granted) in dataset.iter().flat_map(|dataset| dataset.grants.iter()) {
            if !needs_key(granted.roles) {
                continue;
            }
            let to = ledger.current(first);
            let wrap = self.wrap(&key, chain, name, to)?;
            let grant = Grant { name: name.clone(), to, roles: granted.roles, wrap: Some(wrap.into()) };
            self.decide_as(chain, &author, EntryBody::Grant(grant)).await?;
            readers += 1;
        }
        let (generation, seconds) = (key.generation(), started.elapsed().as_secs_f64());
        Ok((decided, RotatedDataset { name: name.to_string(), generation, readers, seconds }))
    }
}
