//! The daemon's end: what it was given at its start, and what it wants kept.
//!
//! Owns: the socket to the supervisor, which is the standard input of the daemon.
//! Must not know: what is kept.
//! Invariant: when `keep` returns, the next daemon will be given the thing, if there is one.
//! Trust: as `supervisor`.
//! Threads: any. A supervisor that does not read for `PATIENCE` counts as gone.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use zeroize::Zeroizing;

use super::SupervisorError;
use super::wire::{self, Kept, Message};

const PATIENCE: Duration = Duration::from_secs(5);

/// What a daemon is told when it starts.
pub struct Hello {
    /// Holds the lock of the node's folders.
    pub lock: OwnedFd,
    /// What unlocks its keys.
    pub secret: Option<Zeroizing<Vec<u8>>>,
    /// What daemons before it wanted kept.
    pub kept: Vec<Kept>,
    /// How the one before it ended. None for the first.
    pub before: Option<String>,
}

/// The way to the supervisor.
pub struct Keeper {
    socket: OwnedFd,
}

impl Keeper {
    /// Takes over the standard input, from which nothing else reads any more, and waits for what the supervisor has to say.
    pub fn begin() -> Result<(Self, Hello), SupervisorError> {
        let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 0).map_err(io::Error::from)?;
        // No process that this one starts is to have it.
        let nothing = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(nothing).map_err(io::Error::from)?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE)).map_err(|errno| match errno {
            rustix::io::Errno::NOTSOCK => SupervisorError::NoSupervisor,
            other => SupervisorError::Io(other.into()),
        })?;
        let hello = hello(&socket)?;
        Ok((Self { socket }, hello))
    }

    /// Keeps a thing, or other bytes with one that is kept: its files stay if none come.
    pub fn keep(&self, id: u64, bytes: Vec<u8>, fds: Vec<OwnedFd>) -> Result<(), SupervisorError> {
        wire::send(&self.socket, &Message::Keep(Kept { id, bytes, fds }))
    }

    /// Keeps a thing no longer.
    pub fn give_up(&self, id: u64) -> Result<(), SupervisorError> {
        wire::send(&self.socket, &Message::Drop(id))
    }

    /// The daemon does its work: if it ends now that is no failure to start.
    pub fn ready(&self) -> Result<(), SupervisorError> {
        wire::send(&self.socket, &Message::Ready)
    }

    /// Whether there is still a supervisor.
    pub fn is_there(&self) -> bool {
        let mut sockets = [PollFd::new(&self.socket, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // It never says anything after its hello.
        matches!(poll(&mut sockets, Some(&now)), Ok(0))
    }
}

fn hello(socket: &OwnedFd) -> Result<Hello, SupervisorError> {
    let (mut lock, mut before, mut secret, mut kept) = (None, None, None, Vec::new());
    loop {
        match wire::receive(socket)?.ok_or(SupervisorError::NoSupervisor)? {
            Message::Hello(hello) => {
                lock = hello.fds.into_iter().next();
                let text = String::from_utf8_lossy(&hello.bytes).into_owned();
                before = Some(text).filter(|text| !text.is_empty());
            }
            Message::Secret(bytes) => secret = Some(Zeroizing::new(bytes)),
            Message::Keep(thing) => kept.push(thing),
            Message::Drop(_) => return Err(SupervisorError::Malformed),
            Message::Ready => break,
        }
    }
    Ok(Hello { lock: lock.ok_or(SupervisorError::Malformed)?, secret, kept, before })
}
