//! One simulated machine: its files, which outlive a crash, and its driver, which does not.

use std::path::PathBuf;
use std::sync::Arc;

use arc_malachitebft_core_types::LinearTimeouts;
use tokio::sync::{mpsc, oneshot};

use super::plan::End;
use crate::chain::Chain;
use crate::crypto::{PublicKey, SecretKey};
use crate::log::GenesisDoc;
use crate::store::LogStore;
use crate::validator::driver::{Driver, Event};
use crate::validator::link::Outgoing;
use crate::validator::{Committed, Now, ValidatorError, WalError};

/// As many messages as one turn of the largest network lets out.
const OUTGOING: usize = 4096;

pub type Answer = oneshot::Receiver<Result<Committed, ValidatorError>>;

pub struct Machine {
    key: SecretKey,
    pub id: PublicKey,
    pub honest: bool,
    /// What is committed is on disk, so that the chain itself can stand for the file.
    pub chain: Arc<Chain>,
    wal: PathBuf,
    driver: Option<Driver>,
    out: mpsc::Receiver<Outgoing>,
    /// Whether the process runs. It may run without a driver: not every machine is a validator.
    pub up: bool,
    pub skew_ms: i64,
    /// Which submission waits for which answer.
    pub awaited: Vec<(usize, Answer)>,
    /// Counts the times that a moment to wake was set; only the last one counts.
    pub alarm: u64,
}

impl Machine {
    pub fn new(key: SecretKey, honest: bool, doc: &GenesisDoc, wal: PathBuf, skew_ms: i64) -> Self {
        let chain = Arc::new(Chain::open(LogStore::in_memory(), doc).unwrap());
        let (id, out) = (key.public(), mpsc::channel(1).1);
        Self {
            key,
            id,
            honest,
            chain,
            wal,
            driver: None,
            out,
            up: true,
            skew_ms,
            awaited: Vec::new(),
            alarm: 0,
        }
    }

    pub fn is_member(&self) -> bool {
        self.chain.ledger().validators().get(&self.id).is_some()
    }

    pub fn decides(&self) -> bool {
        self.driver.is_some()
    }

    /// Opens the driver if there is none, on what the last one has left.
    pub fn open(&mut self, now: Now) -> Result<(), ValidatorError> {
        if self.driver.is_none() {
            let (outgoing, out) = mpsc::channel(OUTGOING);
            let timeouts = LinearTimeouts::default();
            let (key, chain) = (self.key.clone(), self.chain.clone());
            self.driver = Some(Driver::open(key, chain, &self.wal, outgoing, timeouts, now)?);
            self.out = out;
        }
        Ok(())
    }

    /// One turn; whether it was survived.
    pub fn turn(&mut self, events: Vec<Event>, now: Now) -> Result<bool, ValidatorError> {
        let Some(driver) = &mut self.driver else { return Ok(true) };
        match driver.turn(events, now) {
            Ok(()) => Ok(true),
            Err(ValidatorError::Wal(error)) if matches!(&*error, WalError::Io { action: "write", .. }) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    pub fn idle_for(&self, now: Now) -> Option<std::time::Duration> {
        self.driver.as_ref().and_then(|driver| driver.idle_for(now))
    }

    /// What the last turn has let out.
    pub fn sent(&mut self) -> Option<Outgoing> {
        self.out.try_recv().ok()
    }

    pub fn sign(&self, bytes: &[u8]) -> crate::crypto::Signature {
        self.key.sign(bytes)
    }

    pub fn secret(&self) -> &SecretKey {
        &self.key
    }

    /// Ends the process. What it had not flushed and whoever waits for it lose.
    pub fn crash(&mut self) {
        (self.driver, self.up) = (None, false);
        self.awaited.clear();
        self.alarm += 1;
    }

    /// Takes back that it is to end.
    pub fn spare(&mut self) {
        if let Some(driver) = &mut self.driver {
            driver.tear_at(None);
        }
    }

    /// Has it end so, at once or in a later turn.
    pub fn doom(&mut self, end: End) {
        match (end, &mut self.driver) {
            (End::Torn(tear), Some(driver)) => {
                driver.tear_at(Some(tear));
            }
            (end, _) => {
                self.crash();
                if matches!(end, End::Robbed) {
                    // There is none yet if it has never been a validator.
                    let _ = std::fs::remove_file(&self.wal);
                }
            }
        }
    }
}
