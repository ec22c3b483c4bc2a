//! One daemon per set of folders.
//!
//! Owns: the daemon's lock file.
//! Must not know: what is locked.
//! Invariant: the kernel releases the lock when its holder ends, however it ends; the process id in the file is
//! only for messages.
//! Trust: our own file. Threads: called at start and by short-lived commands. A crash leaves an unlocked file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::{Error, Kind};

/// A command that asks who holds the lock holds it for a moment itself; a starting daemon waits that moment out.
const PATIENCE: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(5);

/// The held lock.
pub struct Lock {
    _file: File,
}

fn open(path: &Path) -> Result<File, Error> {
    let opened = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path);
    opened.map_err(|error| Error::io("cannot open", path, error))
}

fn read_pid(file: &mut File) -> u32 {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text.trim().parse().unwrap_or(0)
}

impl Lock {
    /// Takes the lock, or names its holder.
    pub fn take(path: &Path) -> Result<Self, Error> {
        let mut file = open(path)?;
        let started = Instant::now();
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(Error::io("cannot lock", path, error.into()));
            }
            if started.elapsed() > PATIENCE {
                let pid = read_pid(&mut file);
                return Err(Error::new(Kind::Busy, format!("already running, pid {pid}")));
            }
            std::thread::sleep(POLL);
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(|error| Error::io("cannot write", path, error))?;
        Ok(Self { _file: file })
    }
}

/// The process id of whoever holds the lock.
pub fn holder(path: &Path) -> Result<Option<u32>, Error> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("cannot open", path, error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => Ok(Some(read_pid(&mut file))),
        Err(error) => Err(Error::io("cannot lock", path, error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_was_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(holder(&path).unwrap(), None);
        let lock = Lock::take(&path).unwrap();
        assert_eq!(holder(&path).unwrap(), Some(std::process::id()));
        let error = Lock::take(&path).err().unwrap();
        assert_eq!(error.kind, Kind::Busy);
        assert!(error.message.contains(&std::process::id().to_string()));
        drop(lock);
        assert_eq!(holder(&path).unwrap(), None);
    }
}
