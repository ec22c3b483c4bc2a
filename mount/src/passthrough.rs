//! Files that the kernel reads by itself, from a file that the tree names.
//!
//! Owns: which inodes are open and how, and the registration of backing files with the kernel.
//! Must not know: where backing files come from.
//! Invariant: all opens of an inode at a time are of one kind, and those that are passed through share one backing
//! id: the kernel answers anything else with EIO. An open is counted before its reply and until its RELEASE, which the
//! kernel sends when the last descriptor and mapping are gone; so the count is never lower than the kernel's own.
//! Trust: the tree may name an unfit file; whatever the kernel refuses, or is not as long as the tree says, is served
//! by the mount instead.
//! Threads: the lock is held for a look-up and, by the first open of an inode, for one system call.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};
use rustix::io::Errno;

use crate::io::{Io, Way};
use crate::tree::{Backing, Lease};

/// A file that is passed through.
struct Passed {
    id: BackingId,
    /// Given back after the id.
    _lease: Lease,
}

/// The opens of one inode: all of them passed through, or none.
struct Opened {
    count: u64,
    passed: Option<Arc<Passed>>,
}

/// The inodes that are open.
pub(crate) struct OpenFiles {
    way: Way,
    opened: Mutex<HashMap<u64, Opened>>,
}

impl OpenFiles {
    pub(crate) fn new(way: Way) -> Self {
        Self { way, opened: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it matters if there is a backing file: only the first open of an inode decides.
    pub(crate) fn wants_backing(&self, ino: u64) -> bool {
        self.way.is(Io::Passthrough) && !self.lock().contains_key(&ino)
    }

    /// Opens an inode, in the way in which it is open already, else from `backing` if there is one.
    pub(crate) fn open(&self, ino: u64, backing: Option<&Backing>, reply: ReplyOpen) {
        let passed = {
            let mut opened = self.lock();
            let entry = opened.entry(ino).or_insert_with(|| {
                let passed = backing.and_then(|backing| self.register(ino, backing, &reply));
                Opened { count: 0, passed }
            });
            entry.count += 1;
            entry.passed.clone()
        };
        match passed {
            // No other flag goes with it: the pages are those of the backing file.
            Some(passed) => reply.opened_passthrough(FileHandle(0), FopenFlags::empty(), &passed.id),
            None => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    pub(crate) fn release(&self, ino: u64) {
        let mut opened = self.lock();
        let Some(entry) = opened.get_mut(&ino) else { return };
        entry.count -= 1;
        let last = if entry.count == 0 { opened.remove(&ino) } else { None };
        drop(opened);
        // The kernel is told without the lock.
        drop(last);
    }

    fn register(&self, ino: u64, backing: &Backing, reply: &ReplyOpen) -> Option<Arc<Passed>> {
        if !self.way.is(Io::Passthrough) {
            return None;
        }
        // The kernel reads as far as the backing file goes, whatever the attributes say.
        let len = backing.file.metadata().map(|meta| meta.len());
        if !matches!(len, Ok(len) if len == backing.size) {
            tracing::error!(ino, ?len, size = backing.size, "a backing file has the wrong length; not used");
            return None;
        }
        match reply.open_backing(&backing.file) {
            Ok(id) => Some(Arc::new(Passed { id, _lease: Arc::clone(&backing.lease) })),
            Err(error) => {
                self.refused(ino, &error);
                None
            }
        }
    }

    /// What will not get better is not tried again.
    fn refused(&self, ino: u64, error: &io::Error) {
        tracing::warn!(ino, %error, "the kernel does not pass this file through; the mount serves it");
        match Errno::from_io_error(error) {
            Some(Errno::PERM) => self.way.refuse(NO_RIGHT),
            Some(Errno::LOOP) => {
                self.way
                    .refuse("no passthrough: the store lies on an overlay or another stacked file system");
            }
            Some(Errno::OPNOTSUPP | Errno::INVAL) => {
                self.way.refuse("no passthrough: the file system of the store cannot be passed through");
            }
            _ => {}
        }
    }
}

/// For a kernel without it.
pub(crate) const NO_KERNEL: &str = "no passthrough: it needs Linux 6.9";

const NO_RIGHT: &str = "no passthrough: it needs root (CAP_SYS_ADMIN)";

/// Finds out, after the handshake, whether backing files may be registered at all.
pub(crate) fn probe(device: impl AsFd, way: &Way) {
    if !way.is(Io::Passthrough) {
        return;
    }
    // A directory is refused in any case, but the right to ask is looked at first.
    let asked = File::open("/").and_then(|dir| BackingId::create_raw(device, dir));
    if asked.err().and_then(|error| Errno::from_io_error(&error)) == Some(Errno::PERM) {
        // A kernel that knows passthrough knows this too.
        way.refuse_passthrough(true, NO_RIGHT);
    }
}
