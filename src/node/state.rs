//! The few facts that must outlive the daemon and are nobody else's.
//!
//! Owns: `state.json`: the default network, where its peers were last, the origins of each network, the port once chosen,
//! the mounts to restore, what a user has said about peers and limits, which heads were cosigned, and which jobs run.
//! Must not know: what any of them is for.
//! Invariant: the file on disk is always a whole one; an update replaces it by rename after fsync.
//! Trust: our own file; one that does not parse is refused by name and never overwritten.
//! Threads: behind one mutex. A crash leaves the previous state.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::error::{Error, Kind};
use super::interrupted::Unfinished;
use super::report::MountRequest;
use super::scrub::Round;
use super::witness::Cosigned;

/// Begins the last line, which has the BLAKE3 of all before it: a flipped bit must not go for a fact.
const CHECK: &str = "blake3 ";

/// What is remembered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Network that plain names are looked up in.
    pub default_network: Option<String>,
    /// Addresses that have been useful, by network.
    pub peers: BTreeMap<String, Vec<String>>,
    /// Origins that URIs and publishing named, by network.
    pub origins: BTreeMap<String, Vec<String>>,
    /// Where peers were reached last, whichever network they belong to.
    pub reached: Vec<String>,
    /// Listening addresses with the ports once chosen, by the configured address with port 0.
    pub ports: BTreeMap<String, u16>,
    /// The cache budget once worked out from the disk. Worked out anew at each start it would shrink as the cache
    /// grows, since the cache itself takes what was free.
    pub cache_max_bytes: Option<u64>,
    /// What was mounted, so that a daemon that was killed can restore it.
    pub mounts: Vec<MountRequest>,
    /// Addresses that a user has added, the latest last.
    pub added: Vec<String>,
    /// Ids of peers that a user has blocked.
    pub blocked: BTreeSet<String>,
    /// Bytes a second that a user has limited sending and receiving to.
    pub upload_limit: Option<u64>,
    pub download_limit: Option<u64>,
    /// The latest that this machine's clock has shown, give or take an hour, in milliseconds since 1970: a clock that is
    /// set back makes no log look fresh.
    pub clock_ms: u64,
    /// How far the scrub has come.
    pub scrub: Round,
    /// What was vouched for as a witness, by network.
    pub cosigned: BTreeMap<String, Cosigned>,
    /// Jobs that ran when this was written.
    pub unfinished: Vec<Unfinished>,
}

/// `Facts` and the file they live in.
pub struct State {
    path: PathBuf,
    facts: Mutex<Facts>,
}

impl State {
    /// Reads the file; a file that does not exist is an empty state.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let facts = match std::fs::read(path) {
            Ok(bytes) => parse(&bytes).map_err(|cause| {
                Error::new(Kind::Corrupt, format!("{} is damaged: {cause}", path.display()))
                    .hint("move the file away; mounts and known peers are forgotten, no data is lost")
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Facts::default(),
            Err(error) => return Err(Error::io("cannot read", path, error)),
        };
        Ok(Self { path: path.into(), facts: Mutex::new(facts) })
    }

    /// Whether nothing was ever written down: the node has no past.
    pub fn is_new(&self) -> bool {
        !self.path.exists()
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        // Facts are replaced whole, so a panic elsewhere cannot have left them half-changed.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self) -> Facts {
        self.lock().clone()
    }

    /// Changes the facts and writes them out; on an error neither has changed.
    pub fn update(&self, change: impl FnOnce(&mut Facts)) -> Result<(), Error> {
        let mut facts = self.lock();
        let mut next = facts.clone();
        change(&mut next);
        self.write(&next).map_err(|error| Error::io("cannot write", &self.path, error))?;
        *facts = next;
        Ok(())
    }

    fn write(&self, facts: &Facts) -> std::io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        let mut text = serde_json::to_string_pretty(facts)?;
        text.push('\n');
        let check = blake3::hash(text.as_bytes());
        writeln!(file, "{text}{CHECK}{check}")?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        std::fs::File::open(dir)?.sync_all()
    }
}

/// The facts in a file. One without a last line that checks the rest was written by hand.
fn parse(bytes: &[u8]) -> Result<Facts, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let (json, check) = match text.rfind(CHECK) {
        Some(at) => (&text[..at], Some(text[at + CHECK.len()..].trim_end())),
        None => (text, None),
    };
    let sound = check.is_none_or(|check| blake3::hash(json.as_bytes()).to_hex().as_str() == check);
    match sound {
        true => serde_json::from_str(json).map_err(|error| error.to_string()),
        false => {
            Err("its last line is the hash of another text (without that line it is believed as it is)"
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_survive_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        State::open(&path).unwrap().update(|facts| facts.default_network = Some("g".into())).unwrap();
        assert_eq!(State::open(&path).unwrap().get().default_network.as_deref(), Some("g"));
        // Any bit of it.
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let facts = State::open(&path).map(|state| state.get());
            assert!(
                facts.is_err() || facts.is_ok_and(|facts| facts.default_network.as_deref() == Some("g")),
                "{at}"
            );
        }
        std::fs::write(&path, b"{").unwrap();
        let error = State::open(&path).err().unwrap();
        assert_eq!(error.kind, Kind::Corrupt);
        assert!(error.message.contains("state.json"));
    }
}
