//! The one place that changes packs and directories on disk.
//!
//! Owns: every system call that creates, writes, clones, syncs, cuts, punches, renames or removes. The index and
//! the logs are written by redb, which has its own.
//! Must not know: what the bytes mean.
//! Invariant: nothing here buffers; when a call returns, the kernel has been told.
//! Trust: paths come from the store itself.
//! Threads: any; all calls block.
//! A crash leaves: whatever the kernel had; only `sync` and `sync_dir` promise anything about power loss.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Granularity in which file systems free space.
pub(super) const BLOCK: u64 = 4096;

/// Pieces that one system call takes (Linux's `IOV_MAX`).
const MAX_PIECES: usize = 1024;

/// Creates `dir` and its parents, and makes the last of them durable.
pub(super) fn create_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// Creates a file that must not exist.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

/// Opens an existing file to be written.
pub(super) fn open_for_writing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

pub(super) fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// Writes the pieces one behind the other.
pub(super) fn write_pieces(file: &File, mut pieces: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
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

pub(super) fn truncate(file: &File, len: u64) -> io::Result<()> {
    file.set_len(len)
}

/// Makes a file's content and length durable.
pub(super) fn sync(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes everything durable on the file system that `file` is on, whoever wrote it.
pub(super) fn sync_file_system(file: &impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(file)?)
}

/// Creates a file at `path` that shares the blocks of `source` from then on, where the file system can do that.
pub(super) fn clone(source: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    let file = create(path)?;
    match rustix::fs::ioctl_ficlone(&file, source) {
        Ok(()) => Ok(file),
        Err(error) => {
            remove(path)?;
            Err(error.into())
        }
    }
}

/// Gives the blocks of a range back to the file system; the range then reads as zeros.
pub(super) fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, mode, offset, len)?)
}

/// Removes a file; one that is already gone is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Renames a file to the first free of `path.broken-1`, `path.broken-2`, and so on, and says which.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut number = 1u32;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".broken-{number}"));
        let aside = PathBuf::from(name);
        if !aside.try_exists()? {
            fs::rename(path, &aside)?;
            return Ok(aside);
        }
        number += 1;
    }
}

/// Bytes that may still be written below `dir`.
pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes a file occupies, holes not counted; never more than its length in whole blocks.
pub(super) fn occupied(stat: &Metadata) -> u64 {
    (stat.blocks() * 512).min(stat.len().next_multiple_of(BLOCK))
}

/// Whether the error says that the disk, or the user's share of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Up to `len` bytes from `offset` on; fewer if the file ends before.
pub(super) fn read(file: &File, len: usize, offset: u64) -> io::Result<Vec<u8>> {
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
