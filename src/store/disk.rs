//! The one place that changes packs and directories on disk.
//!
//! Owns: every system call that creates, writes, clones, syncs, cuts, punches, renames or removes, and the opening of redb's files;
//! but for the text in the lock, which is for people.
//! Must not know: what the bytes mean.
//! Invariant: nothing here buffers; when a call returns, the kernel has been told.
//! Trust: paths come from the store itself.
//! Threads: any; all calls block.
//! A crash leaves: whatever the kernel had; only `sync` and `sync_dir` promise anything about power loss.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError};
use rustix::buffer::spare_capacity;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Granularity in which file systems free space.
pub(super) const BLOCK: u64 = 4096;

/// Pieces that one system call takes (Linux's `IOV_MAX`).
const MAX_PIECES: usize = 1024;

/// What a store is written to: [`Real`], or in tests a disk that keeps account of what a power cut would leave of it,
/// and fails when it is told to.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// Creates a file that must not exist.
    fn create(&self, path: &Path) -> io::Result<File>;

    /// Opens an existing file to be written.
    fn open_for_writing(&self, path: &Path) -> io::Result<File>;

    /// Writes the pieces one behind the other.
    fn write_pieces(&self, file: &File, pieces: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;

    fn truncate(&self, file: &File, len: u64) -> io::Result<()>;

    /// Makes a file's content and length durable.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes everything durable on the file system that `file` is on, whoever wrote it.
    fn sync_file_system(&self, file: BorrowedFd<'_>) -> io::Result<()>;

    /// Creates a file at `path` that shares the blocks of `source` from then on, where the file system can do that.
    fn clone_file(&self, source: BorrowedFd<'_>, path: &Path) -> io::Result<File>;

    /// Gives the blocks of a range back to the file system; the range then reads as zeros.
    fn punch(&self, file: &File, offset: u64, len: u64) -> io::Result<()>;

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; one that is already gone is no error.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Up to `len` bytes from `offset` on; fewer if the file ends before.
    fn read(&self, file: &File, len: usize, offset: u64) -> io::Result<Vec<u8>>;

    /// Bytes that may still be written below `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Opens a file of redb's, making it if need be.
    fn database(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError>;

    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_pieces(file, &mut [IoSlice::new(bytes)], offset)
    }

    /// Creates `dir` and its parents, and makes the last of them durable.
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => Ok(()),
        }
    }

    /// Renames a file to the first free of `path.broken-1`, `path.broken-2`, and so on, and says which.
    fn set_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let mut number = 1u32;
        loop {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".broken-{number}"));
            let aside = PathBuf::from(name);
            if !aside.try_exists()? {
                self.rename(path, &aside)?;
                return Ok(aside);
            }
            number += 1;
        }
    }
}

/// The file systems of this machine.
#[derive(Debug)]
pub(super) struct Real;

impl Disk for Real {
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    fn open_for_writing(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn write_pieces(&self, file: &File, mut pieces: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        // An empty piece at the front would look like a write of nothing.
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            match rustix::io::pwritev(file, &pieces[..pieces.len().min(MAX_PIECES)], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut pieces, written);
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn sync_file_system(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        Ok(rustix::fs::syncfs(file)?)
    }

    fn clone_file(&self, source: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
        let file = self.create(path)?;
        match rustix::fs::ioctl_ficlone(&file, source) {
            Ok(()) => Ok(file),
            Err(error) => {
                self.remove(path)?;
                Err(error.into())
            }
        }
    }

    fn punch(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(file, mode, offset, len)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn read(&self, file: &File, len: usize, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            // The allocator may have given more room than was asked for, so that more comes than that.
            match rustix::io::pread(file, spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn database(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
        builder.create(path)
    }
}

/// Bytes a file occupies, holes not counted; never more than its length in whole blocks.
pub(super) fn occupied(stat: &Metadata) -> u64 {
    (stat.blocks() * 512).min(stat.len().next_multiple_of(BLOCK))
}

/// Whether the error says that the disk, or the user's share of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads until `buffer` is full or the file ends; says how much was read.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
