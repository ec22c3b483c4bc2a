//! One log on this machine: the ledger in memory, its blocks on disk, and everyone who waits for the next height.
//!
//! Owns: the order "check, execute, persist, publish", the replay at start, and the registry of logs by network.
//! Must not know: who decided a block or sent it.
//! Invariant: a ledger that anybody can see has been checked in full and is on disk.
//! Trust: blocks are foreign and go through `Ledger::apply`; the file is this machine's own, and is still checked in
//! full whenever it is opened.
//! Threads: callable from any; `commit`, `blocks` and `open` block on the disk. One commit runs at a time.
//! A crash leaves the log at a whole height: the block and the light client's state are one write of the store.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;

use crate::crypto::PublicKey;
use crate::id::{Genesis, HeaderId};
use crate::log::light::{Trusted, Update};
use crate::log::shown::{Question, Shown};
use crate::log::{Block, GenesisDoc, GenesisError, Ledger, LogError};
use crate::store::{LogStore, StoreError};

/// How much of the log is checked at once when it is opened, in encoded bytes.
const REPLAY_BYTES: usize = 4 << 20;

/// Why a log could not be opened or a block not committed.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The disk's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The founder's mistake.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The operator's mistake: two networks share a file.
    #[error("{file} holds the log of network {found}, not of {expected}")]
    OtherNetwork { file: String, expected: Genesis, found: Genesis },
    /// Corrupt: the file must be replaced.
    #[error(
        "the log in {file} is damaged at height {height}: {cause}; move the file away and the log is fetched again \
         from peers (on the only validator of a network, restore it from a backup)"
    )]
    Damaged { file: String, height: u64, cause: String },
    /// The sender's fault: the block is junk, or comes too early (`LogError::Height`).
    #[error(transparent)]
    Refused(#[from] LogError),
    /// Validators broke the rules: stop following, tell people.
    #[error(
        "the log has forked at height {height}: {held} is committed here, and a quorum also signed {offered}; validators have \
         broken the rules, trust neither and tell the operators"
    )]
    Fork { height: u64, held: HeaderId, offered: HeaderId },
}

/// A log that grows.
pub struct Chain {
    genesis: Genesis,
    document: GenesisDoc,
    store: LogStore,
    ledger: watch::Sender<Arc<Ledger>>,
    committing: Mutex<()>,
}

impl Chain {
    /// Opens the log in `store`, which is empty or holds the network of `document`, and replays it.
    pub fn open(store: LogStore, document: &GenesisDoc) -> Result<Self, ChainError> {
        let genesis = document.id();
        let encoded = document.encode();
        match store.genesis()? {
            None => store.set_genesis(&encoded)?,
            Some(held) if held == encoded => {}
            Some(held) => {
                let (file, found) = (store.path().display().to_string(), Genesis::of(&held));
                return Err(ChainError::OtherNetwork { file, expected: genesis, found });
            }
        }
        let ledger = replay(&store, Ledger::genesis(document)?, store.tip()?)?;
        check_trust(&store, &ledger)?;
        let ledger = watch::Sender::new(Arc::new(ledger));
        Ok(Self { genesis, document: document.clone(), store, ledger, committing: Mutex::new(()) })
    }

    /// The network.
    pub fn genesis(&self) -> Genesis {
        self.genesis
    }

    /// What the network began with.
    pub fn document(&self) -> &GenesisDoc {
        &self.document
    }

    /// The log as of the newest committed height.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.ledger.borrow().clone()
    }

    /// Sees every newest ledger; heights may be skipped by a slow reader.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Ledger>> {
        self.ledger.subscribe()
    }

    /// Checks a decided block, makes it durable, and only then shows it to others. A block that is already
    /// committed is accepted and changes nothing, even with another certificate.
    pub fn commit(&self, block: Block) -> Result<Arc<Ledger>, ChainError> {
        // A commit that panicked has published nothing, so the ledger is as good as before.
        let _one_at_a_time = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let ledger = self.ledger();
        if (1..=ledger.height()).contains(&block.header.height) {
            self.check_held(&ledger, &block)?;
            return Ok(ledger);
        }
        let next = Arc::new(ledger.apply(&block)?);
        self.store.append(next.height(), &block.encode(), &next.trusted().encode())?;
        self.ledger.send_replace(next.clone());
        Ok(next)
    }

    /// Encoded blocks from height `from` on, as many as fit `max_bytes`, but at least one if there is one.
    pub fn blocks(&self, from: u64, max_bytes: usize) -> Result<Vec<Vec<u8>>, ChainError> {
        let tip = self.ledger().height();
        let (mut blocks, mut total) = (Vec::new(), 0);
        for height in from.max(1)..=tip {
            let block = self.stored(height)?;
            total += block.len();
            if total > max_bytes && !blocks.is_empty() {
                break;
            }
            blocks.push(block);
        }
        Ok(blocks)
    }

    /// The block at a committed height.
    pub fn block(&self, height: u64) -> Result<Block, ChainError> {
        decode_stored(&self.store, height, &self.stored(height)?)
    }

    /// What a light client needs to believe the header at a committed height.
    pub fn update(&self, height: u64) -> Result<Update, ChainError> {
        let block = self.block(height)?;
        self.ledger().update(&block).ok_or_else(|| damaged(&self.store, height, "it is of another height"))
    }

    /// What a name means by the newest head, proven to who has no log. None before the first height.
    pub fn show(&self, question: &Question) -> Result<Option<Shown>, ChainError> {
        let ledger = self.ledger();
        if ledger.height() == 0 {
            return Ok(None);
        }
        let head = ledger.update(&self.block(ledger.height())?);
        Ok(head.map(|head| Shown::of(&ledger, head, question)))
    }

    /// Checks everything on disk again, from the genesis document up to `height`: every certificate, entry and root.
    pub fn verify(&self, height: u64) -> Result<(), ChainError> {
        replay(&self.store, Ledger::genesis(&self.document)?, height.min(self.ledger().height())).map(|_| ())
    }

    fn check_held(&self, ledger: &Ledger, block: &Block) -> Result<(), ChainError> {
        let height = block.header.height;
        let held = decode_stored(&self.store, height, &self.stored(height)?)?;
        let (held, offered) = (held.header.id(), block.header.id());
        if held == offered {
            return Ok(());
        }
        let Some(validators) = ledger.validators_at(height) else {
            let (expected, found) = (ledger.height() + 1, height);
            return Err(LogError::Height { expected, found }.into());
        };
        let verdict = block.certificate.verify(self.genesis, validators, height, offered);
        verdict.map_err(|cause| LogError::Certificate { height, cause })?;
        tracing::error!(height, %held, %offered, "the log has forked: a quorum signed two headers");
        Err(ChainError::Fork { height, held, offered })
    }

    fn stored(&self, height: u64) -> Result<Vec<u8>, ChainError> {
        stored(&self.store, height)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({} at height {})", self.genesis.short(), self.ledger().height())
    }
}

fn stored(store: &LogStore, height: u64) -> Result<Vec<u8>, ChainError> {
    store.block(height)?.ok_or_else(|| damaged(store, height, "its block is missing"))
}

fn decode_stored(store: &LogStore, height: u64, bytes: &[u8]) -> Result<Block, ChainError> {
    Block::decode(bytes).map_err(|error| damaged(store, height, error))
}

fn damaged(store: &LogStore, height: u64, cause: impl ToString) -> ChainError {
    ChainError::Damaged { file: store.path().display().to_string(), height, cause: cause.to_string() }
}

/// Checks what is stored, from the ledger's height up to `tip`.
fn replay(store: &LogStore, mut ledger: Ledger, tip: u64) -> Result<Ledger, ChainError> {
    while ledger.height() < tip {
        let (mut run, mut bytes) = (Vec::new(), 0);
        for height in ledger.height() + 1..=tip {
            let block = stored(store, height)?;
            bytes += block.len();
            run.push(decode_stored(store, height, &block)?);
            if bytes >= REPLAY_BYTES {
                break;
            }
        }
        ledger = ledger.replay(&run).map_err(|(height, error)| damaged(store, height, error))?;
    }
    Ok(ledger)
}

/// The light client's state must be that of the last block: if it is ahead, blocks were lost.
fn check_trust(store: &LogStore, ledger: &Ledger) -> Result<(), ChainError> {
    let held = store.trust()?.map(|bytes| Trusted::decode(&bytes)).transpose();
    let held = held.map_err(|error| damaged(store, ledger.height(), error))?;
    match held {
        None if ledger.height() == 0 => Ok(()),
        Some(trusted) if trusted == ledger.trusted() => Ok(()),
        Some(trusted) => {
            let cause = format!(
                "height {} was committed before, but the blocks end at {}",
                trusted.height(),
                ledger.height()
            );
            Err(damaged(store, ledger.height(), cause))
        }
        None => Err(damaged(store, ledger.height(), "the light client's state is missing")),
    }
}

/// The logs of this machine, by network. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<RwLock<BTreeMap<Genesis, Arc<Chain>>>>);

impl Registry {
    /// Adds a log, in place of an earlier one of the same network.
    pub fn insert(&self, chain: Arc<Chain>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(chain.genesis(), chain);
    }

    /// The log of this network.
    pub fn get(&self, genesis: &Genesis) -> Option<Arc<Chain>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(genesis).cloned()
    }

    /// Whether the holder of this key may be shown what is here: there is a network for everybody, or none yet, or one that
    /// it is a member of. No key is a stranger's.
    pub fn admits(&self, key: Option<&PublicKey>) -> bool {
        let all = self.all();
        let open = |chain: &Arc<Chain>| {
            let ledger = chain.ledger();
            !ledger.params().members_only() || key.is_some_and(|key| ledger.admits(key))
        };
        all.is_empty() || all.iter().any(open)
    }

    /// All logs, in the order of their networks' ids.
    pub fn all(&self) -> Vec<Arc<Chain>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
