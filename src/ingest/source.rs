//! The tree on disk: opening, listing and describing, without ever following a symlink.
//!
//! Owns: the system calls, how their errors read, and what counts as a change.
//! Must not know: chunks, objects, threads.
//! Invariant: every open is relative to an open directory, of one name, with `O_NOFOLLOW`: a name swapped for
//! a symlink at any moment cannot lead out of the tree.
//! Trust: none in the tree. Threads: values that move between threads; all calls may block on the disk.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minicbor::{Decode, Encode};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::IngestError;
use crate::manifest::{MAX_XATTRS_LEN, ManifestError, Meta, Name, Xattr};
use crate::store::DirId;

/// The only attributes kept; the header of `ingest` says why.
const XATTR_PREFIX: &[u8] = b"user.";

/// Longest time in which the clock that a file system takes its stamps from may stand still: two ticks at 100 Hz.
/// A file system whose stamps are coarser, such as one of whole seconds, keeps no better promise than its stamps.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// The same for file systems that keep whole seconds, or two at a time as FAT does.
const COARSE_TICK: Duration = Duration::from_secs(3);

/// What tells one state of an inode from another, provided that it is older than a [`TICK`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Stamp {
    #[n(0)]
    pub dev: u64,
    #[n(1)]
    pub ino: u64,
    #[n(2)]
    pub size: u64,
    #[n(3)]
    mtime: (i64, u32),
    /// Set by the kernel at each change of content or metadata; programs cannot set it back.
    #[n(4)]
    ctime: (i64, u32),
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        // Sizes are never negative, and nanoseconds fit.
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: stat.st_size as u64,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
        }
    }

    /// How long after `now` the next change is sure to show: one within the same tick leaves the same stamp.
    /// `None` if it would show already. Nothing is gained by waiting for a clock that is far ahead of ours.
    pub(super) fn settles_in(&self, now: SystemTime) -> Option<Duration> {
        let seconds = Duration::from_secs(u64::try_from(self.ctime.0).ok()?);
        let changed = UNIX_EPOCH + seconds + Duration::from_nanos(self.ctime.1.into());
        let age = match now.duration_since(changed) {
            Ok(age) => age,
            Err(ahead) if ahead.duration() < TICK => Duration::ZERO,
            Err(_) => return None,
        };
        TICK.checked_sub(age).filter(|wait| !wait.is_zero())
    }

    /// Whether any change after `now` is sure to show, for as long as the file system lives. Stricter than
    /// [`Self::settles_in`], because who relies on it may come back after years: a clock that is ahead of ours says
    /// nothing, and a stamp of whole seconds may be that of a file system which keeps no finer ones.
    pub(super) fn is_final(&self, now: SystemTime) -> bool {
        let Ok(seconds) = u64::try_from(self.ctime.0) else { return false };
        let changed = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(self.ctime.1.into());
        let age = if self.ctime.1 == 0 { COARSE_TICK } else { TICK };
        now.duration_since(changed).is_ok_and(|past| past >= age)
    }

    /// What differs in `later`, in words; `None` if nothing does.
    pub(super) fn change(&self, later: &Self) -> Option<&'static str> {
        if (self.dev, self.ino) != (later.dev, later.ino) {
            Some("another file took its name")
        } else if self.size != later.size {
            Some("its size changed")
        } else if self.mtime != later.mtime {
            Some("its modification time changed")
        } else if self.ctime != later.ctime {
            Some("its status changed")
        } else {
            None
        }
    }
}

pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// What a special file is called, `None` for what a snapshot keeps.
pub(super) fn special(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile | FileType::Directory | FileType::Symlink => None,
        FileType::Fifo => Some("FIFO"),
        FileType::Socket => Some("socket"),
        FileType::CharacterDevice => Some("character device"),
        FileType::BlockDevice => Some("block device"),
        _ => Some("file of unknown type"),
    }
}

/// The metadata in `stat`, without attributes.
pub(super) fn meta(stat: &Stat) -> Meta {
    Meta {
        mode: stat.st_mode & 0o7777,
        mtime_s: stat.st_mtime,
        mtime_ns: stat.st_mtime_nsec as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        xattrs: Vec::new(),
    }
}

pub(super) fn unreadable(path: PathBuf, error: Errno) -> IngestError {
    match error {
        // It was listed a moment ago.
        Errno::NOENT => IngestError::Changed { path, what: "it was removed" },
        Errno::LOOP | Errno::NOTDIR => IngestError::Changed { path, what: "another file took its name" },
        error => IngestError::Unreadable { path, source: error.into() },
    }
}

/// An open directory, what it was like when it was opened, and the path it was reached by, which is for messages only.
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    opened: Stat,
}

impl Dir {
    pub(super) fn open_root(path: &Path) -> Result<Self, IngestError> {
        let owned = || path.to_owned();
        let stat = rustix::fs::lstat(path).map_err(|error| match error {
            Errno::NOENT => IngestError::Missing { path: owned() },
            Errno::NOTDIR => IngestError::NotADirectory { path: owned() },
            error => IngestError::Unreadable { path: owned(), source: error.into() },
        })?;
        match file_type(&stat) {
            FileType::Directory => {}
            FileType::Symlink => {
                let target = std::fs::canonicalize(path).or_else(|_| std::fs::read_link(path));
                let target = target.map_err(|source| IngestError::Unreadable { path: owned(), source })?;
                return Err(IngestError::RootIsSymlink { path: owned(), target });
            }
            _ => return Err(IngestError::NotADirectory { path: owned() }),
        }
        Self::new(rustix::fs::openat(CWD, path, Self::FLAGS, Mode::empty()), owned())
    }

    fn new(fd: Result<OwnedFd, Errno>, path: PathBuf) -> Result<Self, IngestError> {
        match fd.and_then(|fd| Ok((rustix::fs::fstat(&fd)?, fd))) {
            Ok((opened, fd)) => Ok(Self { fd, path, opened }),
            Err(error) => Err(unreadable(path, error)),
        }
    }

    const FLAGS: OFlags =
        OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

    /// The path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` in it.
    pub(super) fn path_of(&self, name: &Name) -> PathBuf {
        self.path.join(name.as_os_str())
    }

    pub(super) fn open_dir(&self, name: &Name) -> Result<Self, IngestError> {
        let fd = rustix::fs::openat(&self.fd, name.as_bytes(), Self::FLAGS, Mode::empty());
        Self::new(fd, self.path_of(name))
    }

    /// Opens a file for reading. Should it have become a FIFO, this does not wait for a writer.
    pub(super) fn open_file(&self, name: &Name) -> Result<OwnedFd, IngestError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name.as_bytes(), flags, Mode::empty())
            .map_err(|error| unreadable(self.path_of(name), error))
    }

    /// All names in it, sorted bytewise.
    pub(super) fn list(&self) -> Result<Vec<Name>, IngestError> {
        let failed = |error| unreadable(self.path.clone(), error);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let bytes = entry.file_name().to_bytes();
            if bytes != b"." && bytes != b".." {
                let unkeepable = |source| {
                    let path = self.path.join(OsStr::from_bytes(bytes));
                    IngestError::Unkeepable { path, source }
                };
                names.push(Name::new(bytes).map_err(unkeepable)?);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Describes `name` itself, not what it may link to.
    pub(super) fn stat_of(&self, name: &Name) -> Result<Stat, IngestError> {
        rustix::fs::statat(&self.fd, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| unreadable(self.path_of(name), error))
    }

    /// The directory as it was when it was opened, which is before it was listed.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp::of(&self.opened)
    }

    /// The directory as it is now.
    pub(super) fn stamp_now(&self) -> Result<Stamp, IngestError> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|error| unreadable(self.path.clone(), error))?;
        Ok(Stamp::of(&stat))
    }

    /// Device and inode number.
    pub(super) fn id(&self) -> DirId {
        (self.opened.st_dev, self.opened.st_ino)
    }

    /// The metadata of the directory when it was opened, with its attributes.
    pub(super) fn meta(&self) -> Result<Meta, IngestError> {
        let xattrs = xattrs(&self.fd, || self.path.clone())?;
        Ok(Meta { xattrs, ..meta(&self.opened) })
    }

    pub(super) fn read_link(&self, name: &Name) -> Result<Vec<u8>, IngestError> {
        let target = rustix::fs::readlinkat(&self.fd, name.as_bytes(), Vec::new());
        target.map(|target| target.into_bytes()).map_err(|error| match error {
            // Not a symlink any more.
            Errno::INVAL => {
                IngestError::Changed { path: self.path_of(name), what: "another file took its name" }
            }
            error => unreadable(self.path_of(name), error),
        })
    }
}

/// The attributes of an open file that are kept, sorted.
pub(super) fn xattrs(fd: &OwnedFd, path: impl Fn() -> PathBuf) -> Result<Vec<Xattr>, IngestError> {
    let failed = |error| match error {
        // Attributes came, grew or went between two calls.
        Errno::RANGE | Errno::NODATA => IngestError::Changed { path: path(), what: "its attributes changed" },
        error => IngestError::Unreadable { path: path(), source: io::Error::from(error) },
    };
    let len = match rustix::fs::flistxattr_query(fd) {
        // Most files have none, some file systems no notion of them.
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        len => len.map_err(failed)?,
    };
    let mut list = vec![0; len];
    let len = rustix::fs::flistxattr(fd, &mut list[..]).map_err(failed)?;
    let mut xattrs = Vec::new();
    let mut total = 0;
    for name in list[..len].split(|byte| *byte == 0).filter(|name| name.starts_with(XATTR_PREFIX)) {
        let len = rustix::fs::fgetxattr_query(fd, name).map_err(failed)?;
        total += name.len() + len;
        if total > MAX_XATTRS_LEN {
            let rule = "attributes take at most 64 KiB";
            let source = ManifestError::Rule { what: "metadata", rule };
            return Err(IngestError::Unkeepable { path: path(), source });
        }
        let mut value = vec![0; len];
        let got = rustix::fs::fgetxattr(fd, name, &mut value[..]).map_err(failed)?;
        value.truncate(got);
        xattrs.push(Xattr { name: name.to_vec(), value });
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}
