//! Why a mount could not be made or ended, in words for the person who asked.
//!
//! Owns: the error of this crate and its texts, each of which names the remedy.
//! Must not know: how the failures come about.
//! Invariant: every path a person needs to act on is in the text.
//! Trust: command names come from other processes; they are shown, never interpreted.
//! Threads: plain values.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::tree::TreeError;

/// A process that keeps a mount busy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    /// The name the kernel has for it: at most 15 bytes of the program's.
    pub command: String,
    /// One path below the mountpoint that it has open, mapped, or works in.
    pub path: PathBuf,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}) with {}", self.command, self.pid, self.path.display())
    }
}

/// Why a mount could not be made or ended. Unless said otherwise it is for the user to put right.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("/dev/fuse cannot be opened ({cause}); {}", device_remedy(cause))]
    NoDevice { cause: io::Error },
    #[error(
        "only root may mount without the program `fusermount3`, which cannot be run ({0}); install the package `fuse3`"
    )]
    NoHelper(#[source] io::Error),
    #[error("{0} does not exist; create it with `mkdir -p`")]
    Missing(PathBuf),
    #[error("{0} is not a directory; a mountpoint must be an empty directory")]
    NotADirectory(PathBuf),
    #[error("{0} is not empty, and mounting would hide what is in it; choose an empty directory")]
    NotEmpty(PathBuf),
    #[error("`{what}` is already mounted on {dir}; unmount that first, or choose another directory")]
    AlreadyMounted { dir: PathBuf, what: String },
    /// [`recover`](crate::recover) puts it right.
    #[error("the mount on {0} is dead: its process is gone; remove it with `umount -l {0}`")]
    Dead(PathBuf),
    /// Worth a retry when those that hold it are done.
    #[error("{dir} is in use{}; it stays mounted", in_use(holders, mounts))]
    Busy {
        dir: PathBuf,
        /// As far as this process may look into others.
        holders: Vec<Holder>,
        /// Other file systems mounted below.
        mounts: Vec<PathBuf>,
    },
    #[error("mounting on {dir} was refused: {cause}")]
    Refused { dir: PathBuf, cause: String },
    #[error("unmounting {dir} failed: {cause}")]
    NotUnmounted { dir: PathBuf, cause: String },
    /// It is over in a moment.
    #[error("another version is being put in place on {0}; try again in a moment")]
    Switching(PathBuf),
    #[error("nothing is mounted on {0} any more")]
    Ended(PathBuf),
    #[error(
        "{0} versions of what was mounted on {1} are still in use; close their files, or unmount and mount again"
    )]
    TooManyInUse(usize, PathBuf),
    /// What is mounted stays as it is; worth a retry.
    #[error("a directory of the {which} version for {dir} cannot be listed: {cause}")]
    NoListing { which: &'static str, dir: PathBuf, cause: TreeError },
    /// The machine's trouble, not the user's.
    #[error("{doing} {dir}: {cause}")]
    Io { doing: &'static str, dir: PathBuf, cause: io::Error },
}

fn device_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "it must be open to everyone: `chmod 666 /dev/fuse` as root",
        _ => {
            "load the kernel module with `modprobe fuse`, or give this container the device with `--device /dev/fuse`"
        }
    }
}

fn in_use(holders: &[Holder], mounts: &[PathBuf]) -> String {
    /// Enough to act on; the rest is counted.
    const NAMED: usize = 10;
    let held = holders.iter().map(|holder| format!("by {holder}"));
    let mounted = mounts.iter().map(|path| format!("by a mount on {}", path.display()));
    let all: Vec<String> = held.chain(mounted).collect();
    match all.len() {
        0 => " by a process that cannot be seen from here".to_owned(),
        len if len > NAMED => format!(" {} and {} more", all[..NAMED].join(", "), len - NAMED),
        _ => format!(" {}", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(processes: u32) -> String {
        let holder = |pid| Holder { pid, command: "cat".into(), path: "/mnt/a".into() };
        let holders = (1..=processes).map(holder).collect();
        MountError::Busy { dir: "/mnt".into(), holders, mounts: vec![] }.to_string()
    }

    #[test]
    fn a_busy_mount_names_who_holds_it() {
        assert_eq!(busy(1), "/mnt is in use by cat (pid 1) with /mnt/a; it stays mounted");
        assert!(busy(0).contains("cannot be seen"));
        assert!(busy(25).ends_with("and 15 more; it stays mounted"));
    }
}
