//! One process per store: an exclusive `flock` on `lock`, which holds the owner's process id as text.
//!
//! Owns: that file. Must not know: anything else in the directory.
//! Invariant: while a `StoreLock` lives, no other can be made for the same directory, in any process.
//! Trust: the id in the file is only for the message; the kernel's lock decides.
//! Threads: any. A crash leaves: the file, unlocked by the kernel.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::store::disk;
use crate::store::error::StoreError;

/// Digits of the longest process id, so that the text is replaced in one write and never seen half done.
const PID_WIDTH: usize = 10;

pub(super) struct StoreLock {
    /// Closing the file releases the lock.
    _file: File,
}

impl StoreLock {
    pub(super) fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked { path: dir.to_owned(), pid: owner(&file) });
            }
            Err(errno) => return Err(StoreError::io("lock", &path)(errno.into())),
        }
        let text = format!("{:<PID_WIDTH$}\n", std::process::id());
        file.write_all_at(text.as_bytes(), 0).map_err(StoreError::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// The id in the file; 0 if the owner has not written it yet.
fn owner(file: &File) -> u32 {
    let mut text = [0; PID_WIDTH];
    let read = disk::read_up_to(file, &mut text, 0).unwrap_or(0);
    std::str::from_utf8(&text[..read]).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
