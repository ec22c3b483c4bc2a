//! What the kernel says first on a connection, and how a session comes into being when it was said long ago.
//!
//! Owns: the bytes of FUSE_INIT and of its answer, the notification that makes the kernel send requests again.
//! Must not know: what is mounted; who keeps the bytes from one process to the next.
//! Invariant: a session that is given a connection on which the greeting is over has answered that greeting with the same
//! bytes: the kernel and it agree about what they may do.
//! Trust: the kernel. Bytes that another process has kept are checked for their form.
//! Threads: those of the caller; it waits for the kernel, which sends the greeting as soon as a mount is made.
//!
//! `fuser` insists on reading the greeting and on answering it. So it is given one end of a pair of sockets, on which the greeting
//! waits; when it has answered, the connection takes the place of the socket under the same number.

#![allow(unsafe_code, reason = "the two places where `fuser` has no safe way; each says why it is sound")]

use std::io::{self, IoSlice};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use fuser::{BackingId, Config, Filesystem, InitFlags, ReplyOpen, Session, SessionACL};
use rustix::io::{DupFlags, Errno, dup3};
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType};

/// The kernel reads into no smaller buffer (`FUSE_MIN_READ_BUFFER`, linux/fuse.h).
const BUFFER: usize = 8192;
/// `fuse_in_header`, linux/fuse.h: length, opcode and, from byte 8 on, what tells one request from another.
const HEADER: usize = 40;
const OPCODE: usize = 4;
const FUSE_INIT: u32 = 26;
/// Behind the header, `fuse_init_in`: the version of the protocol, and two words of flags.
const MAJOR: usize = HEADER;
const FLAGS: usize = HEADER + 12;
const FLAGS_2: usize = HEADER + 16;
/// The only version of the protocol that there has been since 2006.
const KERNEL_MAJOR: u32 = 7;
/// `fuse_out_header` with the code of FUSE_NOTIFY_RESEND and no request: length, code, request.
const NOTIFY_RESEND: i32 = 7;

/// The greeting of a connection, and what it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    pub said: Vec<u8>,
    pub answered: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// What the kernel says it can do. None if these are not the bytes of a greeting that `fuser` understands.
fn flags(said: &[u8]) -> Option<InitFlags> {
    let fits = word(said, 0) == u32::try_from(said.len()).ok();
    let is_greeting =
        fits && word(said, OPCODE) == Some(FUSE_INIT) && word(said, MAJOR) == Some(KERNEL_MAJOR);
    let flags = is_greeting.then_some(u64::from(word(said, FLAGS)?))?;
    match InitFlags::from_bits_retain(flags).contains(InitFlags::FUSE_INIT_EXT) {
        true => Some(InitFlags::from_bits_retain(flags | u64::from(word(said, FLAGS_2)?) << 32)),
        false => Some(InitFlags::from_bits_retain(flags)),
    }
}

/// Whether the kernel that said this sends requests again which a process had read and not answered: Linux 6.9.
pub(crate) fn can_resend(said: &[u8]) -> bool {
    flags(said).is_some_and(|flags| flags.contains(InitFlags::FUSE_HAS_RESEND))
}

fn unfit() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not the greeting of a kernel")
}

/// Reads the greeting of a new connection.
pub(crate) fn receive(connection: impl AsFd) -> io::Result<Vec<u8>> {
    let mut said = vec![0; BUFFER];
    let len = loop {
        match rustix::io::read(&connection, &mut said) {
            Ok(len) => break len,
            // As `fuser` goes on after these.
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    said.truncate(len);
    flags(&said).map(|_| said).ok_or_else(unfit)
}

/// A session for a connection whose greeting is `said`, and its answer, which the kernel has not been told.
pub(crate) fn greet<F: Filesystem>(
    filesystem: F,
    connection: impl AsFd,
    acl: SessionACL,
    config: Config,
    said: &[u8],
) -> io::Result<(Session<F>, Vec<u8>)> {
    flags(said).ok_or_else(unfit)?;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::send(&ours, said, SendFlags::NOSIGNAL)?;
    // A session that wants to read on finds the end of the conversation instead of waiting.
    rustix::net::shutdown(&ours, Shutdown::Write)?;
    let session = Session::from_fd(filesystem, theirs, acl, config)?;
    let mut answered = vec![0; BUFFER];
    let (len, _) = rustix::net::recv(&ours, &mut answered[..], rustix::net::RecvFlags::DONTWAIT)?;
    answered.truncate(len);
    put_in_place(&session, connection)?;
    Ok((session, answered))
}

/// Tells the kernel the answer to its greeting.
pub(crate) fn answer(connection: impl AsFd, answered: &[u8]) -> io::Result<()> {
    Ok(rustix::io::writev(connection, &[IoSlice::new(answered)]).map(drop)?)
}

/// From here on the session reads from the connection.
fn put_in_place<F: Filesystem>(session: &Session<F>, connection: impl AsFd) -> io::Result<()> {
    // SAFETY: the number is that of a descriptor which the session owns and which is open as long as `session` is borrowed. It is
    // never closed here: `ManuallyDrop`, and `dup3` puts another file under it in one step. Nobody reads or writes it meanwhile:
    // the session is not running yet, and has given nobody a copy.
    let place = unsafe { OwnedFd::from_raw_fd(session.as_fd().as_raw_fd()) };
    Ok(dup3(connection, &mut ManuallyDrop::new(place), DupFlags::CLOEXEC)?)
}

/// Makes the kernel send everything again that was read from the connection and not answered.
pub(crate) fn resend(connection: impl AsFd) -> io::Result<()> {
    let mut notification = [0; 16];
    notification[..4].copy_from_slice(&16u32.to_ne_bytes());
    notification[4..8].copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
    Ok(rustix::io::write(connection, &notification).map(drop)?)
}

/// A backing file by its number, which this or an earlier process has registered on the connection of `reply`.
pub(crate) fn inherited(reply: &ReplyOpen, id: u32) -> BackingId {
    // SAFETY: `fuser` wants a number that is registered on this connection and that nobody else gives back. It comes from `fuser` itself
    // or from the record of open files, which an earlier process wrote when it registered the number and which goes with the
    // connection; that process is gone, and `OpenFiles` makes one `BackingId` of each. For a wrong one the kernel answers with an
    // error: it is no matter of memory.
    unsafe { reply.wrap_backing(id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The greeting of a kernel that can do this.
    fn greeting(flags: InitFlags) -> Vec<u8> {
        let mut said = vec![0; HEADER + 64];
        let mut set = |at: usize, word: u32| said[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        set(0, HEADER as u32 + 64);
        set(OPCODE, FUSE_INIT);
        set(MAJOR, KERNEL_MAJOR);
        set(MAJOR + 4, 45);
        set(FLAGS, flags.bits() as u32);
        set(FLAGS_2, (flags.bits() >> 32) as u32);
        said
    }

    #[test]
    fn a_kernel_older_than_6_9_does_not_say_that_it_resends() {
        let older = InitFlags::FUSE_INIT_EXT | InitFlags::FUSE_PASSTHROUGH;
        assert!(can_resend(&greeting(older | InitFlags::FUSE_HAS_RESEND)));
        assert!(!can_resend(&greeting(older)));
        // The second word counts only where the first says so.
        assert!(!can_resend(&greeting(InitFlags::FUSE_HAS_RESEND)));
    }

    #[test]
    fn what_is_no_greeting_is_refused() {
        let said = greeting(InitFlags::FUSE_INIT_EXT | InitFlags::FUSE_HAS_RESEND);
        for len in 0..said.len() {
            assert!(!can_resend(&said[..len]), "{len}");
        }
        for (at, other) in [(OPCODE, 27u32), (MAJOR, 8)] {
            let mut said = said.clone();
            said[at..at + 4].copy_from_slice(&other.to_ne_bytes());
            assert!(!can_resend(&said));
        }
    }
}
