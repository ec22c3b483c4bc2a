//! One daemon per set of folders.
//!
//! Owns: the lock file. The supervisor takes the lock and gives each daemon a share of it.
//! Must not know: what is locked.
//! Invariant: the kernel releases the lock when the supervisor and the daemon have both ended, however they end; the process ids
//! in the file are only for messages: that of the daemon, and that of the supervisor.
//! Trust: our own file. Threads: called at start and by short-lived commands. A crash leaves an unlocked file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::{Error, Kind};

/// A command that asks who holds the lock holds it for a moment itself; a starting daemon waits that moment out.
const PATIENCE: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(5);

/// The held lock.
pub struct Lock {
    file: File,
}

fn open(path: &Path) -> Result<File, Error> {
    let opened = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path);
    opened.map_err(|error| Error::io("cannot open", path, error))
}

fn read_pid(file: &mut File) -> u32 {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text.lines().next().and_then(|pid| pid.parse().ok()).unwrap_or(0)
}

fn write_pids(file: &mut File, supervisor: u32) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("{}\n{supervisor}\n", std::process::id()).as_bytes())
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
        write_pids(&mut file, std::process::id()).map_err(|error| Error::io("cannot write", path, error))?;
        Ok(Self { file })
    }

    /// The lock as its supervisor gives it to a daemon.
    pub fn share(self) -> OwnedFd {
        self.file.into()
    }

    /// The lock that a supervisor holds, as well as this daemon from now on.
    pub fn shared(file: OwnedFd, path: &Path, supervisor: u32) -> Result<Self, Error> {
        let mut file = File::from(file);
        write_pids(&mut file, supervisor).map_err(|error| Error::io("cannot write", path, error))?;
        Ok(Self { file })
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

/// The supervisor that holds the lock, if one does. The file may name a process that is gone, and whose number another one has now; this
/// one has the lock file open.
pub fn supervisor(path: &Path) -> Option<OwnedFd> {
    let text = std::fs::read_to_string(path).ok()?;
    let pid: i32 = text.lines().nth(1)?.parse().ok()?;
    // Opened before it is looked at, so that the one that is given is the one that was seen.
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let mut open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let holds = open.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == path));
    holds.then_some(process)
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

    #[test]
    fn a_lock_is_held_as_long_as_one_of_the_two_lives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let supervisor = Lock::take(&path).unwrap().share();
        let daemon = Lock::shared(supervisor.try_clone().unwrap(), &path, 1).unwrap();
        drop(supervisor);
        assert_eq!(holder(&path).unwrap(), Some(std::process::id()));
        assert!(super::supervisor(&path).is_none(), "process 1 does not hold it");
        std::fs::write(&path, format!("1\n{}\n", std::process::id())).unwrap();
        assert!(super::supervisor(&path.canonicalize().unwrap()).is_some(), "this one does");
        assert!(Lock::take(&path).is_err());
        drop(daemon);
        assert_eq!(holder(&path).unwrap(), None);
    }
}
