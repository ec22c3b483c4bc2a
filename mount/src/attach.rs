//! The system calls that put a FUSE file system on a directory and take it off.
//!
//! Owns: mount(2) and umount(2) where they are allowed, and the set-uid program `fusermount3` where they are not.
//! Must not know: trees, sessions, when to mount or unmount.
//! Invariant: a failed `attach` leaves nothing mounted.
//! Trust: `fusermount3` is whatever `PATH` finds; its words are passed on to the user.
//! Threads: any; `fusermount3` takes a few milliseconds.
//! A crash leaves a dead mount, which `recover` removes.

// `fuser` can mount too, but unmounts again whatever is on the directory when its session ends: after a lazy
// unmount that may be the next mount on the same directory.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::fs::{FileType, RawMode};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::error::MountError;

/// The type in mount tables is `fuse.bcai`, the source `bcai`.
pub(crate) const NAME: &str = "bcai";
const HELPER: &str = "fusermount3";

/// Mounts on `dir`, a canonical path, and gives the device that its requests come from.
pub(crate) fn attach(dir: &Path, allow_other: bool) -> Result<OwnedFd, MountError> {
    // Whoever may not open it is not helped by `fusermount3`, which opens it as its caller.
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(|cause| MountError::NoDevice { cause })?;
    match mount_directly(dir, &device, allow_other) {
        Ok(()) => Ok(device.into()),
        Err(Errno::PERM) => mount_by_helper(dir, allow_other),
        Err(errno) => Err(refused(dir, io::Error::from(errno))),
    }
}

fn refused(dir: &Path, cause: impl ToString) -> MountError {
    MountError::Refused { dir: dir.to_owned(), cause: cause.to_string() }
}

fn mount_directly(dir: &Path, device: &File, allow_other: bool) -> Result<(), Errno> {
    let mut options = format!(
        "fd={},rootmode={:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        FileType::Directory.as_raw_mode() as RawMode,
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if allow_other {
        options.push_str(",allow_other");
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount(NAME, dir, format!("fuse.{NAME}"), flags, options.as_c_str())
}

fn mount_by_helper(dir: &Path, allow_other: bool) -> Result<OwnedFd, MountError> {
    let socket = run_helper(dir, allow_other)?;
    let received = receive_device(&socket);
    // A device that is still under way in it goes with it.
    drop(socket);
    received_or_detach(dir, received)
}

/// Without its device a mount answers nobody, so it is taken off again.
fn received_or_detach(dir: &Path, received: io::Result<OwnedFd>) -> Result<OwnedFd, MountError> {
    received.map_err(|error| match detach(dir, Detach::Lazy) {
        Ok(()) => refused(dir, format!("{HELPER} sent no device: {error}")),
        Err(left) => refused(dir, format!("{HELPER} sent no device: {error}; {left}")),
    })
}

/// `fusermount3` mounts, and sends the device over the socket whose number is in `_FUSE_COMMFD`: this is its other
/// end.
fn run_helper(dir: &Path, allow_other: bool) -> Result<UnixStream, MountError> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| refused(dir, error))?;
    let mut options = format!("ro,nosuid,nodev,default_permissions,fsname={NAME},subtype={NAME}");
    if allow_other {
        options.push_str(",allow_other");
    }
    let output = Command::new(HELPER)
        .args(["-o", &options, "--"])
        .arg(dir)
        .env("_FUSE_COMMFD", "0")
        // As standard input the socket reaches this one program and no other that is started meanwhile.
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .output()
        .map_err(MountError::NoHelper)?;
    if !output.status.success() {
        return Err(refused(dir, words(&output)));
    }
    Ok(ours)
}

fn receive_device(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    let device = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut devices) => devices.next(),
        _ => None,
    });
    device.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn words(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    if text.trim().is_empty() { format!("{HELPER}: {}", output.status) } else { text.trim().to_owned() }
}

/// How to take a mount off its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detach {
    /// Only if nobody uses it.
    Idle,
    /// At once; those who use it keep what they have open.
    Lazy,
}

/// Takes the topmost mount off `dir`. `Busy` comes without the holders: finding them is another's business.
pub(crate) fn detach(dir: &Path, how: Detach) -> Result<(), MountError> {
    let flags = match how {
        Detach::Idle => UnmountFlags::NOFOLLOW,
        Detach::Lazy => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(dir, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(busy(dir)),
        Err(Errno::PERM) => detach_by_helper(dir, how),
        Err(errno) => Err(not_unmounted(dir, io::Error::from(errno))),
    }
}

fn detach_by_helper(dir: &Path, how: Detach) -> Result<(), MountError> {
    let mut command = Command::new(HELPER);
    command.arg("-u");
    if how == Detach::Lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(dir).stdin(Stdio::null()).output().map_err(MountError::NoHelper)?;
    if output.status.success() {
        return Ok(());
    }
    let words = words(&output);
    // Its words are the only difference between the failures of `fusermount3`; it never translates them.
    if words.contains("busy") { Err(busy(dir)) } else { Err(not_unmounted(dir, words)) }
}

fn busy(dir: &Path) -> MountError {
    MountError::Busy { dir: dir.to_owned(), holders: Vec::new(), mounts: Vec::new() }
}

fn not_unmounted(dir: &Path, cause: impl ToString) -> MountError {
    MountError::NotUnmounted { dir: dir.to_owned(), cause: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_mounted(dir: &Path) -> bool {
        let table = std::fs::read_to_string("/proc/mounts").unwrap();
        table.lines().any(|line| line.split(' ').nth(1) == dir.to_str())
    }

    /// `fusermount3` had mounted, but its device did not arrive. The error was reported, and the mount stayed: all
    /// that touched the directory got "transport endpoint is not connected".
    #[test]
    #[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
    fn a_mount_whose_device_does_not_arrive_is_taken_off() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        drop(run_helper(&dir, false).unwrap());
        assert!(is_mounted(&dir));
        let refused = received_or_detach(&dir, Err(io::ErrorKind::UnexpectedEof.into())).unwrap_err();
        assert!(!is_mounted(&dir));
        assert!(refused.to_string().contains("fusermount3 sent no device"), "{refused}");
        std::fs::write(dir.join("file"), b"usable again").unwrap();
    }
}
