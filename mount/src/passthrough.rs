//! Files that the kernel reads by itself, from a file that the tree names.
//!
//! Owns: which inodes are open and how, and the registration of backing files with the kernel.
//! Must not know: where backing files come from.
//! Invariant: all opens of an inode at a time are of one kind, and those that are passed through share one backing
//! id: the kernel answers anything else with EIO. An open is counted before its reply and until its RELEASE, which the
//! kernel sends when the last descriptor and mapping are gone; so the count is never lower than the kernel's own, also not on
//! record, where a process that takes the place of a killed one finds it.
//! Trust: the tree may name an unfit file; whatever the kernel refuses, or is not as long as the tree says, is served
//! by the mount instead.
//! Threads: the lock is held for a look-up and for system calls that do not wait: the row in the record, and the registration by
//! the first open of an inode. A crash leaves the id of an open that was not answered registered until the mount ends.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};
use rustix::io::Errno;

use crate::greeting::inherited;
use crate::io::{Io, Way};
use crate::record::{Record, Row};
use crate::tree::{Backing, Lease};

/// A file that is passed through.
struct Passed {
    /// What the kernel has registered it as.
    number: u32,
    /// None as long as only an earlier process has met it: the next reply to an open makes one.
    id: Option<BackingId>,
    /// Given back after the id. An earlier process may have had one for a blob file that is gone.
    lease: Option<Lease>,
}

/// The opens of one inode: all of them passed through, or none.
struct Opened {
    count: u32,
    passed: Option<Arc<Passed>>,
    /// Of its row in the record.
    place: u32,
}

#[derive(Default)]
struct State {
    opened: HashMap<u64, Opened>,
    /// Where another process may go on with the mount.
    record: Option<Record>,
    /// Registered by an earlier process and no longer in use. The next open gives them back.
    leftover: Vec<u32>,
}

impl State {
    fn put_on_record(&mut self, ino: u64) {
        let (Some(record), Some(opened)) = (&mut self.record, self.opened.get(&ino)) else { return };
        let backing = opened.passed.as_ref().map(|passed| passed.number);
        record.write(opened.place, Row { ino, backing, count: opened.count });
    }
}

/// The inodes that are open.
pub(crate) struct OpenFiles {
    way: Way,
    state: Mutex<State>,
}

impl OpenFiles {
    /// Nothing is open yet. On a `record`, another process can go on with it.
    pub(crate) fn new(way: Way, record: Option<Record>) -> Self {
        Self { way, state: Mutex::new(State { record, ..State::default() }) }
    }

    /// Goes on with what an earlier process had open. `lease` gives what keeps the blob file of an inode, if that is still there.
    pub(crate) fn go_on(way: Way, record: OwnedFd, lease: impl Fn(u64) -> Option<Lease>) -> io::Result<Self> {
        let (record, rows) = Record::read(record)?;
        let opened = rows.into_iter().map(|(place, Row { ino, backing, count })| {
            let passed = |number| Arc::new(Passed { number, id: None, lease: lease(ino) });
            (ino, Opened { count, passed: backing.map(passed), place })
        });
        let opened = opened.collect();
        Ok(Self { way, state: Mutex::new(State { opened, record: Some(record), leftover: Vec::new() }) })
    }

    /// The record, for whoever goes on with it.
    pub(crate) fn share_record(&self) -> io::Result<Option<OwnedFd>> {
        self.lock().record.as_ref().map(Record::share).transpose()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an inode if it does not matter whether there is a backing file: only the first open of an inode decides.
    /// Else the reply comes back, for [`OpenFiles::open`]. The look and the open are one: after a look of its own, the
    /// last of those that were open could be gone, and this the first one.
    pub(crate) fn open_without_backing(&self, ino: u64, reply: ReplyOpen) -> Option<ReplyOpen> {
        let state = self.lock();
        if self.way.is(Io::Passthrough) && !state.opened.contains_key(&ino) {
            return Some(reply);
        }
        let passed = self.count(state, ino, None, &reply);
        answer(reply, passed);
        None
    }

    /// Opens an inode, in the way in which it is open already, else from `backing` if there is one.
    pub(crate) fn open(&self, ino: u64, backing: Option<&Backing>, reply: ReplyOpen) {
        let passed = self.count(self.lock(), ino, backing, &reply);
        answer(reply, passed);
    }

    /// Counts an open of an inode, and says how it is passed through. Gives the lock back.
    fn count(
        &self,
        mut state: MutexGuard<'_, State>,
        ino: u64,
        backing: Option<&Backing>,
        reply: &ReplyOpen,
    ) -> Option<Arc<Passed>> {
        // Made and dropped: that gives them back.
        state.leftover.drain(..).for_each(|number| drop(inherited(reply, number)));
        if !state.opened.contains_key(&ino) {
            let passed = backing.and_then(|backing| self.register(ino, backing, reply));
            let place = state.record.as_mut().map_or(0, Record::place);
            state.opened.insert(ino, Opened { count: 0, passed, place });
        }
        let passed = state.opened.get_mut(&ino).and_then(|opened| {
            opened.count += 1;
            if let Some(passed) = opened.passed.as_mut().filter(|passed| passed.id.is_none()) {
                let (number, lease) = (passed.number, passed.lease.clone());
                *passed = Arc::new(Passed { number, id: Some(inherited(reply, number)), lease });
            }
            opened.passed.clone()
        });
        // Before the kernel is told: what it has open is never missing.
        state.put_on_record(ino);
        passed
    }

    /// Called when the kernel has its answer: a process that is killed in between leaves one open too many on record, never one
    /// too few.
    pub(crate) fn release(&self, ino: u64) {
        let mut state = self.lock();
        let Some(opened) = state.opened.get_mut(&ino) else { return };
        opened.count = opened.count.saturating_sub(1);
        let is_last = opened.count == 0;
        state.put_on_record(ino);
        let last = if is_last { state.opened.remove(&ino) } else { None };
        if let Some(passed) = last.as_ref().and_then(|last| last.passed.as_ref())
            && passed.id.is_none()
        {
            state.leftover.push(passed.number);
        }
        drop(state);
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
            Ok(id) => {
                // Only so does `fuser` tell the number.
                let number = id.into_raw();
                let id = Some(inherited(reply, number));
                Some(Arc::new(Passed { number, id, lease: Some(Arc::clone(&backing.lease)) }))
            }
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

fn answer(reply: ReplyOpen, passed: Option<Arc<Passed>>) {
    match passed.as_ref().and_then(|passed| passed.id.as_ref()) {
        // No other flag goes with it: the pages are those of the backing file.
        Some(id) => reply.opened_passthrough(FileHandle(0), FopenFlags::empty(), id),
        None => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
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
