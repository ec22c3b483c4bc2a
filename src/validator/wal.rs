//! The write-ahead log: what this validator has seen and signed at the height in progress.
//!
//! Owns: two files. `PATH` holds the records; `PATH.lock` is locked by the one process that may vote, and says
//! whose log this is and that it has existed.
//! Must not know: what the records mean to the engine.
//! Invariant: what `flush` has returned for survives a crash, whole and in order. Nothing signed may leave
//! this machine before.
//! Trust: the files are ours, but disks lie and people delete: every frame is checked, and a log that is
//! missing or damaged is reported as `Past::Lost`, never as empty.
//! Threads: the driver's. A crash leaves at most one torn frame at the end, whose records had not been flushed;
//! the next `open` cuts it off.
//!
//! ```text
//! file  = frame*                  the first frame begins with Record::Owner
//! frame = magic     4 bytes      "bcW1"
//!         sequence  u64 LE       one more than in the frame before
//!         length    u32 LE       of the payload
//!         checksum  16 bytes     BLAKE3 of sequence, length and payload, cut short
//!         payload                canonical CBOR: a list of records, all written by one flush
//! ```
//!
//! A frame is written only after the one before it has reached the disk. So a bad frame with a good one behind it
//! was once whole: the log is damaged. A bad frame with nothing behind it was torn by a crash. Damage to the
//! very last frame looks like that too; nothing short of a second device would tell them apart.
//!
//! Heights follow one another in the same file. When a height begins and the file is longer than
//! `ROTATE_AT`, a new file replaces it in one rename. That the log existed is known from `PATH.lock`, which
//! is written after the first `PATH` is safely on disk: `PATH.lock` with an owner but no readable `PATH` means
//! that a log was lost.

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::wire::Record;
use crate::codec;
use crate::crypto::PublicKey;
use crate::id::Genesis;

const MAGIC: &[u8; 4] = b"bcW1";
const FRAME_HEAD: usize = 4 + 8 + 4 + CHECKSUM;
const CHECKSUM: usize = 16;
/// Longest payload that is read back. One flush holds a few votes and at most a block or two.
const MAX_PAYLOAD: usize = 64 << 20;
/// From this length on, in bytes, the next height begins a new file.
const ROTATE_AT: u64 = 1 << 20;

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The user's mistake, or a daemon that is still stopping: retry once it has gone.
    #[error("{} is in use by another process; a validator's key must not vote from two", path.display())]
    Locked { path: PathBuf },
    /// The user's mistake.
    #[error("{} belongs to validator {key} of network {genesis}; each validator needs its own", path.display())]
    Foreign { path: PathBuf, genesis: Genesis, key: PublicKey },
    /// The disk's fault. After a failed write nothing more is signed until a restart has read the log back.
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// What `open` found.
#[derive(Debug, PartialEq, Eq)]
pub enum Past {
    /// No log has ever been here, or it holds no height.
    New,
    /// The last height begun, whether we vote at it, and what was recorded since.
    Height { height: u64, voting: bool, records: Vec<Record> },
    /// A log has been here. What this validator has signed at the next height is not known.
    Lost,
}

/// The log, open for appending and locked.
#[derive(Debug)]
pub struct Wal {
    path: PathBuf,
    file: File,
    // Held for as long as the log is open.
    _lock: File,
    owner: (Genesis, PublicKey),
    sequence: u64,
    len: u64,
    /// The height to name before the next record, if that has not been done.
    heading: Option<Record>,
    unwritten: Vec<Record>,
    #[cfg(test)]
    tear: Option<Tear>,
}

/// The crash that a test wants: it comes with a later flush, of which only so much reaches the disk.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub struct Tear {
    /// Flushes that still succeed.
    pub after: u32,
    /// Bytes that the one after them writes; as many as there are if that is less.
    pub bytes: usize,
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WalError {
    move |source| WalError::Io { action, path: path.to_owned(), source }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn checksum(sequence: u64, payload: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(&(payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    let mut short = [0; CHECKSUM];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM]);
    short
}

fn frame(sequence: u64, records: &Vec<Record>) -> Vec<u8> {
    let payload = codec::encode(records);
    let mut bytes = Vec::with_capacity(FRAME_HEAD + payload.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&checksum(sequence, &payload));
    bytes.extend_from_slice(&payload);
    bytes
}

/// The frame at the start of `bytes`: its sequence number, payload and whole length.
fn split_frame(bytes: &[u8]) -> Option<(u64, &[u8], usize)> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<CHECKSUM>()?;
    let (sequence, len) = (u64::from_le_bytes(*sequence), u32::from_le_bytes(*len) as usize);
    let payload = rest.get(..len)?;
    (magic == MAGIC && *sum == checksum(sequence, payload)).then_some((sequence, payload, FRAME_HEAD + len))
}

/// What a file's bytes say.
struct Parsed {
    records: Vec<Record>,
    /// Length of the good part.
    len: usize,
    /// Sequence number of the last good frame.
    sequence: u64,
    damaged: bool,
}

fn parse(bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed { records: Vec::new(), len: 0, sequence: 0, damaged: false };
    while let Some((sequence, payload, len)) = split_frame(&bytes[parsed.len..]) {
        let in_order = parsed.len == 0 || sequence == parsed.sequence + 1;
        match read_records(payload) {
            Some(records) if in_order => parsed.records.extend(records),
            // Whole, yet not what we write: another program, or frames swapped.
            _ => return Parsed { damaged: true, ..parsed },
        }
        parsed.sequence = sequence;
        parsed.len += len;
    }
    let rest = &bytes[parsed.len..];
    parsed.damaged = (1..rest.len()).any(|at| rest[at..].starts_with(MAGIC) && is_good_frame(&rest[at..]));
    parsed
}

// An empty list of records is never written, but 32 bytes that look like one fit into a published id.
fn is_good_frame(bytes: &[u8]) -> bool {
    split_frame(bytes).and_then(|(_, payload, _)| read_records(payload)).is_some_and(|list| !list.is_empty())
}

fn read_records(payload: &[u8]) -> Option<Vec<Record>> {
    codec::decode("a write-ahead frame", payload, MAX_PAYLOAD).ok()
}

/// Locks `path` for this process and returns its text.
fn lock(path: &Path) -> Result<(File, String), WalError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io("open", path))?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => WalError::Locked { path: path.to_owned() },
        TryLockError::Error(source) => WalError::Io { action: "lock", path: path.to_owned(), source },
    })?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(io("read", path))?;
    Ok((file, text))
}

/// Whose log a lock file says this is. Text that a crash cut short says nothing.
fn parse_owner(text: &str) -> Option<(Genesis, PublicKey)> {
    let (genesis, key) = text.strip_suffix('\n')?.split_once(' ')?;
    Some((genesis.parse().ok()?, key.parse().ok()?))
}

fn sync_directory_of(path: &Path) -> Result<(), WalError> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(io("sync the directory of", path))
}

/// Puts a file with `bytes` in the place of `path`, at once and durably.
fn replace(path: &Path, bytes: &[u8]) -> Result<File, WalError> {
    let fresh = with_suffix(path, ".new");
    let mut file = File::create(&fresh).map_err(io("create", &fresh))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", &fresh))?;
    std::fs::rename(&fresh, path).map_err(io("replace", path))?;
    sync_directory_of(path)?;
    Ok(file)
}

fn check_owner(
    path: &Path,
    found: Option<(Genesis, PublicKey)>,
    owner: (Genesis, PublicKey),
) -> Result<(), WalError> {
    match found {
        Some((genesis, key)) if (genesis, key) != owner => {
            Err(WalError::Foreign { path: path.to_owned(), genesis, key })
        }
        _ => Ok(()),
    }
}

/// Sorts the records of an intact file into what the driver asks for: the last height and what follows it.
fn last_height(records: Vec<Record>) -> Past {
    let mut past = Past::New;
    for record in records {
        match (record, &mut past) {
            (Record::Height(height, voting), _) => {
                past = Past::Height { height, voting, records: Vec::new() };
            }
            (Record::Owner(..), _) => {}
            (record, Past::Height { records, .. }) => records.push(record),
            // Records of no height are never written.
            (_, Past::New | Past::Lost) => {}
        }
    }
    past
}

impl Wal {
    /// Opens or creates the log of `owner`, the network and the validator's key, when `next` is the height to be
    /// decided next. If a log was lost, the new one says that we must not vote at `next`.
    pub fn open(path: &Path, owner: (Genesis, PublicKey), next: u64) -> Result<(Self, Past), WalError> {
        let lock_path = with_suffix(path, ".lock");
        let (mut lock, text) = lock(&lock_path)?;
        let known = parse_owner(&text);
        check_owner(&lock_path, known, owner)?;

        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(WalError::Io { action: "read", path: path.to_owned(), source }),
        };
        let parsed = parse(&bytes);
        let written_by = match parsed.records.first() {
            Some(Record::Owner(genesis, key)) => Some((*genesis, *key)),
            _ => None,
        };
        check_owner(path, written_by, owner)?;

        let intact = written_by.is_some() && !parsed.damaged;
        let (file, sequence, len, past) = if intact {
            let mut file = OpenOptions::new().write(true).open(path).map_err(io("open", path))?;
            let cut = file.set_len(parsed.len as u64).and_then(|()| file.seek(SeekFrom::End(0)));
            cut.and_then(|_| file.sync_all()).map_err(io("cut the torn end of", path))?;
            (file, parsed.sequence, parsed.len as u64, last_height(parsed.records))
        } else {
            if parsed.damaged {
                std::fs::rename(path, with_suffix(path, ".damaged")).map_err(io("set aside", path))?;
            }
            // A file that holds no frame at all, where none is known to have been, was being created.
            let lost = known.is_some() || parsed.damaged;
            let mut first = vec![Record::Owner(owner.0, owner.1)];
            first.extend(lost.then_some(Record::Height(next, false)));
            let bytes = frame(0, &first);
            let file = replace(path, &bytes)?;
            (file, 0, bytes.len() as u64, if lost { Past::Lost } else { Past::New })
        };
        if known.is_none() {
            let text = format!("{} {}\n", owner.0, owner.1);
            let written =
                lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(text.as_bytes()));
            written.and_then(|()| lock.sync_all()).map_err(io("write", &lock_path))?;
            sync_directory_of(&lock_path)?;
        }
        let path = path.to_owned();
        let wal = Self {
            path,
            file,
            _lock: lock,
            owner,
            sequence,
            len,
            heading: None,
            unwritten: Vec::new(),
            #[cfg(test)]
            tear: None,
        };
        Ok((wal, past))
    }

    /// Begins `height`. Nothing is written until there is something to record, unless we must not vote at it
    /// or the file has grown too long.
    pub fn begin(&mut self, height: u64, voting: bool) -> Result<(), WalError> {
        self.unwritten.clear();
        self.heading = None;
        if self.len >= ROTATE_AT {
            let first = vec![Record::Owner(self.owner.0, self.owner.1), Record::Height(height, voting)];
            let bytes = frame(self.sequence + 1, &first);
            self.file = replace(&self.path, &bytes)?;
            self.sequence += 1;
            self.len = bytes.len() as u64;
            return Ok(());
        }
        if voting {
            self.heading = Some(Record::Height(height, true));
            return Ok(());
        }
        self.unwritten.push(Record::Height(height, false));
        self.flush()
    }

    /// Adds a record to the next flush.
    pub fn append(&mut self, record: Record) {
        self.unwritten.extend(self.heading.take());
        self.unwritten.push(record);
    }

    /// Writes what was appended, and returns when it would survive a power cut.
    pub fn flush(&mut self) -> Result<(), WalError> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let bytes = frame(self.sequence + 1, &self.unwritten);
        #[cfg(test)]
        self.tear(&bytes)?;
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.map_err(io("write", &self.path))?;
        self.unwritten.clear();
        self.sequence += 1;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Has a later flush end in a crash.
    #[cfg(test)]
    pub fn tear_at(&mut self, tear: Option<Tear>) {
        self.tear = tear;
    }

    #[cfg(test)]
    fn tear(&mut self, bytes: &[u8]) -> Result<(), WalError> {
        match &mut self.tear {
            None => Ok(()),
            Some(Tear { after: 0, bytes: most }) => {
                let written = self.file.write_all(&bytes[..bytes.len().min(*most)]);
                let torn = written.and(Err(io::ErrorKind::Interrupted.into()));
                torn.map_err(io("write", &self.path))
            }
            Some(tear) => {
                tear.after -= 1;
                Ok(())
            }
        }
    }
}
