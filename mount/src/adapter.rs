//! The kernel's requests, turned into questions to a [`Tree`].
//!
//! Owns: FUSE flags and lifetimes, the errno of every error, and the refusal of everything that writes.
//! Must not know: how a mount comes to be or ends.
//! Invariant: no request stays unanswered: an answer that is dropped, also by a panic, is EIO.
//! Trust: the kernel's requests are well-formed; the tree may panic or never answer.
//! Threads: called on the event loops; replies are sent from wherever the tree answers.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};

use crate::attributes::{BLOCK, file_attr, fill_directory, negative};
use crate::io::{Io, Way};
use crate::passthrough::{self, OpenFiles};
use crate::tree::{Answer, Attr, Backing, Seek, StatFs, Tree, TreeError};
use crate::trees::{Place, Telling, Trees};

/// Bytes in one read at most. The kernel sizes reads by the write limit.
const MAX_READ: u32 = 1 << 20;

/// Reads that the kernel may have under way for pages nobody waits for yet (its default is 12).
const MAX_BACKGROUND: u16 = 64;

/// Entries asked for at a time: what fits the 32 KiB that C libraries read a directory with.
const DIR_BATCH: usize = 160;

/// From `linux/fs.h`.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

pub(crate) struct Adapter {
    trees: Arc<Trees>,
    way: Way,
    /// Only where files may be passed through does it matter which are open.
    open_files: Option<Arc<OpenFiles>>,
    /// Whether the kernel can be told to open directories by itself.
    opens_directories: bool,
}

/// The one place where an errno is chosen.
fn errno(error: TreeError) -> Errno {
    match error {
        TreeError::NotFound => Errno::ENOENT,
        TreeError::NotDir => Errno::ENOTDIR,
        TreeError::IsDir => Errno::EISDIR,
        TreeError::NoXattr => Errno::NO_XATTR,
        TreeError::PastEnd => Errno::ENXIO,
        TreeError::Invalid => Errno::EINVAL,
        TreeError::TimedOut => Errno::ETIMEDOUT,
        TreeError::Io => Errno::EIO,
    }
}

/// An extended attribute or the list of their names, by the protocol of `getxattr(2)`: size 0 asks for the size.
fn reply_xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    match u32::try_from(value.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(value),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(_) => reply.error(Errno::E2BIG),
    }
}

impl Adapter {
    /// With `open_files` where files may be passed through.
    pub(crate) fn new(trees: Arc<Trees>, way: Way, open_files: Option<Arc<OpenFiles>>) -> Self {
        Self { trees, way, open_files, opens_directories: false }
    }

    /// Puts one question, about the file `ino`, to the tree that it is in. If that tree is gone the answer is dropped.
    fn ask(&self, operation: &'static str, ino: INodeNo, question: impl FnOnce(&dyn Tree, u64)) {
        if let Some(place) = self.trees.at(ino.0) {
            ask_at(operation, &place, |tree| question(tree, place.ino));
        }
    }
}

/// Puts one question to a tree. A panic would end this event loop, and when the last one is gone
/// every caller hangs; caught here, it has already dropped the answer, so its caller got EIO.
fn ask_at(operation: &'static str, place: &Place, question: impl FnOnce(&dyn Tree)) {
    if catch_unwind(AssertUnwindSafe(|| question(&*place.tree))).is_err() {
        tracing::error!(operation, ino = place.ino, "the mounted tree panicked; answered EIO");
    }
}

/// An answer about a file, or a name in it, with the right to tell it; `reply` gets the errno if there is none.
fn answer_of<T: ?Sized + 'static>(
    trees: &Arc<Trees>,
    place: Arc<Place>,
    reply: impl FnOnce(Result<(&T, &Place, &Telling<'_>), Errno>) + Send + 'static,
) -> Answer<T> {
    let trees = Arc::clone(trees);
    Answer::new(move |result: Result<&T, _>| match (result, trees.telling(&place)) {
        (Ok(value), Some(telling)) => reply(Ok((value, &place, &telling))),
        (Ok(_), None) => reply(Err(Errno::ESTALE)),
        (Err(error), _) => reply(Err(errno(error))),
    })
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Present since Linux 3.9; plain directory reading is not implemented.
        config
            .add_capabilities(InitFlags::FUSE_DO_READDIRPLUS)
            .map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        for wish in [InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_CACHE_SYMLINKS] {
            if config.add_capabilities(wish).is_err() {
                tracing::debug!(?wish, "this kernel does not have it");
            }
        }
        let can = |flag| config.capabilities().contains(flag);
        self.opens_directories = can(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        let zero_open = can(InitFlags::FUSE_NO_OPEN_SUPPORT);
        if self.way.is(Io::ZeroOpen) && !zero_open {
            self.way.refuse("this kernel cannot open files by itself");
        }
        if self.way.is(Io::Passthrough) {
            // One level: the mount can then be below an overlay, and the store not on one.
            let granted = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
                && config.set_max_stack_depth(1).is_ok();
            if !granted {
                self.way.refuse_passthrough(zero_open, passthrough::NO_KERNEL);
            }
        }
        // Both values are within the limits that `fuser` checks.
        let _ = config.set_max_write(MAX_READ);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Some(place) = self.trees.at(parent.0).map(Arc::new) else { return reply.error(Errno::ESTALE) };
        let answer = answer_of(&self.trees, place.clone(), move |result| match result {
            Ok((Some(attr), place, telling)) => match place.seen(attr) {
                Some(seen) => {
                    telling.holds(attr);
                    reply.entry(&telling.ttl(), &file_attr(&seen), Generation(0));
                }
                None => reply.error(Errno::EIO),
            },
            Ok((None, _, telling)) => reply.entry(&telling.ttl(), &negative(), Generation(0)),
            Err(errno) => reply.error(errno),
        });
        ask_at("lookup", &place, |tree| tree.lookup(place.ino, name.as_bytes(), answer));
    }

    fn forget(&self, _: &Request, ino: INodeNo, times: u64) {
        self.trees.forgotten(ino.0, times);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let Some(place) = self.trees.at(ino.0).map(Arc::new) else { return reply.error(Errno::ESTALE) };
        let answer = answer_of(&self.trees, place.clone(), |result: Result<(&Attr, _, _), _>| match result {
            Ok((attr, place, telling)) => match place.seen(attr) {
                Some(attr) => reply.attr(&telling.ttl(), &file_attr(&attr)),
                None => reply.error(Errno::EIO),
            },
            Err(errno) => reply.error(errno),
        });
        ask_at("attr", &place, |tree| tree.attr(place.ino, answer));
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let answer = Answer::new(move |result: Result<&[u8], _>| match result {
            Ok(target) => reply.data(target),
            Err(error) => reply.error(errno(error)),
        });
        self.ask("read_link", ino, |tree, ino| tree.read_link(ino, answer));
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.way.count_open();
        if self.way.is(Io::ZeroOpen) {
            // To the kernel this means: opened, pages kept, and no need to ask about any file again.
            return reply.error(Errno::ENOSYS);
        }
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        let Some(files) = self.open_files.clone() else {
            return reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        };
        let Some(reply) = files.open_without_backing(ino.0, reply) else { return };
        let answer = Answer::new(move |result: Result<&Option<Backing>, _>| {
            // Without one the mount serves the file: no reason to fail.
            files.open(ino.0, result.ok().and_then(Option::as_ref), reply);
        });
        self.ask("backing", ino, |tree, ino| tree.backing(ino, answer));
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
        if let Some(files) = &self.open_files {
            files.release(ino.0);
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let answer = Answer::new(move |result: Result<&[u8], _>| match result {
            // A longer answer than was asked for would be refused by the kernel as a whole.
            Ok(data) => reply.data(data.get(..size as usize).unwrap_or(data)),
            Err(error) => reply.error(errno(error)),
        });
        self.ask("read", ino, |tree, ino| tree.read(ino, offset, size, answer));
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.opens_directories {
            // As for `open`; what has been listed is kept then too.
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let Some((place, offset)) = self.trees.at_offset(ino.0, offset) else {
            return reply.error(Errno::ESTALE);
        };
        let place = Arc::new(place);
        let answer = answer_of(&self.trees, place.clone(), move |result| match result {
            Ok((listing, place, telling)) => {
                match fill_directory(&mut reply, (place, offset), listing, telling) {
                    Some(()) => reply.ok(),
                    None => reply.error(Errno::EIO),
                }
            }
            Err(errno) => reply.error(errno),
        });
        let from = offset.saturating_sub(2);
        ask_at("read_dir", &place, |tree| tree.read_dir(place.ino, from, DIR_BATCH, answer));
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let answer = Answer::new(move |result: Result<&StatFs, _>| match result {
            Ok(stat) => {
                let blocks = stat.bytes.div_ceil(BLOCK.into());
                reply.statfs(blocks, 0, 0, stat.inodes, 0, BLOCK, 255, BLOCK);
            }
            Err(error) => reply.error(errno(error)),
        });
        self.ask("stat_fs", ino, |tree, _| tree.stat_fs(answer));
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let answer = Answer::new(move |result: Result<&[u8], _>| match result {
            Ok(value) => reply_xattr(reply, size, value),
            Err(error) => reply.error(errno(error)),
        });
        self.ask("xattr", ino, |tree, ino| tree.xattr(ino, name.as_bytes(), answer));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let answer = Answer::new(move |result: Result<&[Vec<u8>], _>| match result {
            Ok(names) => {
                let list: Vec<u8> = names.iter().flat_map(|name| name.iter().copied().chain([0])).collect();
                reply_xattr(reply, size, &list);
            }
            Err(error) => reply.error(errno(error)),
        });
        self.ask("list_xattrs", ino, |tree, ino| tree.list_xattrs(ino, answer));
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let what = match whence {
            SEEK_DATA => Seek::Data,
            SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        let answer = Answer::new(move |result: Result<&u64, _>| match result.map(|at| i64::try_from(*at)) {
            Ok(Ok(at)) => reply.offset(at),
            Ok(Err(_)) => reply.error(Errno::EOVERFLOW),
            Err(error) => reply.error(errno(error)),
        });
        self.ask("seek", ino, |tree, ino| tree.seek(ino, offset, what, answer));
    }

    // Python asks every file it opens whether it is a terminal, and the kernel never keeps the answer.
    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    // ENOSYS to the next few means success, and that the kernel need not ask again.

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    // The kernel refuses writes to a file system mounted read-only before they come here; were it ever
    // remounted, these still do.

    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }
}
