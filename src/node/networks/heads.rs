//! The heads of others against our own log: how far it has come, and whether somebody was shown another.
//!
//! Owns: proving a peer's head before its blocks are fetched; what becomes of a fork.
//! Must not know: what entries mean.
//! Invariant: of a network whose log has forked nothing new is believed, over restarts too, until the operator of this
//! node has taken the evidence away.
//! Trust: peers are strangers; `log::light` judges what they send.
//! Threads: the runtime; a fork is written down before anybody is told of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::Networks;
use crate::chain::Chain;
use crate::codec;
use crate::id::Genesis;
use crate::log::light::{Climb, Fork, LightError, MAX_UPDATE_LEN, Pin, Trusted, Update};
use crate::log::{Entry, EntryBody};
use crate::net::Head;
use crate::node::error::{Error, Kind};
use crate::node::{now_ms, off};

/// How the file of a fork ends, after the network's id.
const FORK_FILE: &str = "fork";

/// The forks that this node has seen.
#[derive(Default)]
pub(super) struct Forks(Mutex<BTreeMap<Genesis, Error>>);

impl Forks {
    /// Those that were written down.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let mut forks = BTreeMap::new();
        for file in std::fs::read_dir(dir).map_err(|error| Error::io("cannot list", dir, error))? {
            let path = file.map_err(|error| Error::io("cannot list", dir, error))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let (true, Ok(genesis)) = (path.extension().is_some_and(|end| end == FORK_FILE), stem.parse())
            else {
                continue;
            };
            let bytes = std::fs::read(&path).map_err(|error| Error::io("cannot read", &path, error))?;
            let fork = codec::decode::<Fork>("a fork", &bytes, 2 * MAX_UPDATE_LEN);
            // Even of a damaged file so much is clear, that there was a fork.
            let text =
                fork.map_or_else(|error| error.to_string(), |fork| LightError::Fork(fork.into()).to_string());
            forks.insert(genesis, described(&path, text));
        }
        Ok(Self(Mutex::new(forks)))
    }

    fn get(&self, genesis: &Genesis) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(genesis).cloned()
    }

    fn add(&self, genesis: Genesis, error: Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(genesis, error);
    }
}

fn described(path: &Path, text: String) -> Error {
    Error::new(Kind::Corrupt, text).hint(format!(
        "both headers are in {}; what was known here before can be mounted with --offline. When the operators have \
         settled which log goes on, move that file away, and the log file beside it if this node has the other one",
        path.display()
    ))
}

impl Networks {
    /// Whether this node decides a network.
    pub(in crate::node) fn decides(&self, genesis: &Genesis) -> bool {
        self.lock_validators().contains_key(genesis)
    }

    /// Fails if the log of a network was seen to have forked.
    pub(in crate::node) fn check_whole(&self, genesis: &Genesis) -> Result<(), Error> {
        self.forks.get(genesis).map_or(Ok(()), Err)
    }

    /// Checks what a peer says of the head of a log: that it is ours, or a later one that its validators have signed. A
    /// peer may be behind.
    pub(super) async fn check_head(&self, chain: &Chain, peer: &str, head: &Head) -> Result<(), Error> {
        self.check_whole(&chain.genesis())?;
        let Some(claimed) = head.header else { return Ok(()) };
        let ledger = chain.ledger();
        if head.height <= ledger.height() {
            let ours = match ledger.head() {
                Some(newest) if newest.height == head.height => newest.id(),
                _ => off(|| chain.block(head.height))?.header.id(),
            };
            return if ours == claimed { Ok(()) } else { self.judge(chain, peer, head.height).await };
        }
        let mut climb = Climb::new(ledger.trusted(), head.height);
        while let Some(height) = climb.wants() {
            let update = self.ask_for_update(chain.genesis(), peer, height).await?;
            climb.offer(update).map_err(|error| refused(peer, &error))?;
        }
        Ok(())
    }

    /// Compares the header that a peer has at a height that is committed here with our own.
    pub(super) async fn judge(&self, chain: &Chain, peer: &str, height: u64) -> Result<(), Error> {
        if height == 0 {
            return Ok(());
        }
        let own = off(|| chain.update(height))?;
        let pin = Pin { height, header: own.signed.header.id() };
        let trusted = Trusted::at_pin(chain.document(), pin, &own).map_err(|error| refused(peer, &error))?;
        let theirs = self.ask_for_update(chain.genesis(), peer, height).await?;
        match trusted.advance(&theirs) {
            Ok(_) => Ok(()),
            Err(LightError::Fork(fork)) => Err(self.on_fork(chain, *fork).await),
            Err(error) => Err(refused(peer, &error)),
        }
    }

    pub(super) async fn ask_for_update(
        &self,
        genesis: Genesis,
        peer: &str,
        height: u64,
    ) -> Result<Update, Error> {
        let bytes = self.net.update(peer, genesis, height).await?;
        Ok(Update::decode(&bytes)?)
    }

    /// Writes both headers down, tells the operator of this node and the validators.
    pub(super) async fn on_fork(&self, chain: &Chain, fork: Fork) -> Error {
        let genesis = chain.genesis();
        let path = self.dir.join(format!("{genesis}.{FORK_FILE}"));
        if let Err(error) = off(|| write(&self.dir, &path, &codec::encode(&fork))) {
            tracing::error!(%error, path = %path.display(), "the evidence of a fork cannot be written");
        }
        let evidence = fork.evidence();
        let error = described(&path, LightError::Fork(fork.into()).to_string());
        tracing::error!(%genesis, %error, "the log has forked; nothing new of it is believed");
        self.forks.add(genesis, error.clone());
        let ledger = chain.ledger();
        let key = self.keys.author(&ledger);
        let first = now_ms().max(ledger.nonce(&key.public()) + 1);
        for (nonce, evidence) in (first..).zip(evidence) {
            let entry = Entry::sign(&key, genesis, nonce, EntryBody::Evidence(evidence)).encode();
            for peer in self.connected() {
                match self.net.submit(&peer.id, genesis, entry.clone()).await {
                    Ok(_) => break,
                    Err(error) => tracing::debug!(peer = peer.id, %error, "evidence is not taken here"),
                }
            }
        }
        error
    }
}

/// Whether a log has led to the head that a user was told of.
pub(in crate::node) fn check_pin(chain: &Chain, pin: Option<Pin>) -> Result<(), Error> {
    let Some(pin) = pin else { return Ok(()) };
    let height = chain.ledger().height();
    if pin.height > height {
        let text = format!(
            "the log is known here up to height {height}, and the pin in the URI is of height {}",
            pin.height
        );
        return Err(Error::new(Kind::Unreachable, text)
            .hint("if it is still being fetched, try again in a moment; else connect to a peer that has more of it: a URI that ends in ?peer=ADDRESS"));
    }
    let found = off(|| chain.block(pin.height))?.header.id();
    match found == pin.header {
        true => Ok(()),
        false => Err(Error::new(Kind::Corrupt, LightError::Pinned { pin, found }.to_string())),
    }
}

pub(super) fn refused(peer: &str, error: &LightError) -> Error {
    Error::new(Kind::Corrupt, format!("peer {peer} shows a head of the log that is not believed: {error}"))
}

pub(super) fn write(dir: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(dir)?.sync_all()
}
