//! What a tree says of files and directories, in the terms of the kernel.
//!
//! Owns: the conversion of attributes, times and listings.
//! Must not know: requests.
//! Invariant: every attribute that a tree can give has a form, also times before 1970 and beyond the range.
//! Trust, threads: pure values.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, Generation, INodeNo, ReplyDirectoryPlus};

use crate::tree::{Attr, FileKind, Listing};
use crate::trees::{Place, Telling};

/// `st_blksize`, and the unit of `statfs`. Programs size their buffers by it; this is what ext4 says.
pub(crate) const BLOCK: u32 = 4096;

/// Any `i64` of seconds has a `SystemTime` on Linux; the epoch stands in for what has none elsewhere.
fn system_time((seconds, nanoseconds): (i64, u32)) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let start = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    let exact = start.and_then(|time| time.checked_add(Duration::from_nanos(nanoseconds.into())));
    exact.unwrap_or(UNIX_EPOCH)
}

pub(crate) fn file_attr(attr: &Attr) -> FileAttr {
    let mtime = system_time(attr.mtime);
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: match attr.kind {
            FileKind::File => FileType::RegularFile,
            FileKind::Dir => FileType::Directory,
            FileKind::Symlink => FileType::Symlink,
        },
        perm: attr.mode & 0o7777,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

/// What a name that does not exist is answered with: inode 0 is cached, ENOENT is not.
pub(crate) fn negative() -> FileAttr {
    let none =
        Attr { ino: 0, kind: FileKind::File, size: 0, mode: 0, nlink: 0, uid: 0, gid: 0, mtime: (0, 0) };
    file_attr(&none)
}

/// A directory as its caller sees it: `.` is entry 0, `..` entry 1, the tree's offsets are two less. None if the tree
/// gives a number for which there is no room.
pub(crate) fn fill_directory(
    reply: &mut ReplyDirectoryPlus,
    (place, offset): (&Place, u64),
    listing: &Listing,
    telling: &Telling<'_>,
) -> Option<()> {
    let ttl = telling.ttl();
    // The kernel takes the inode number and the type of these two, and nothing else.
    let dots = |ino| FileAttr { ino: INodeNo(ino), kind: FileType::Directory, ..negative() };
    for (position, name, dot) in [(0, ".", place.ino), (1, "..", listing.parent)] {
        let (dot, next) = (place.number(dot)?, place.offset(position + 1)?);
        let full = offset <= position && reply.add(INodeNo(dot), next, name, &ttl, &dots(dot), Generation(0));
        if full {
            return Some(());
        }
    }
    for entry in &listing.entries {
        let attr = file_attr(&place.seen(&entry.attr)?);
        let next = place.offset(entry.next.saturating_add(2))?;
        if reply.add(attr.ino, next, OsStr::from_bytes(&entry.name), &ttl, &attr, Generation(0)) {
            return Some(());
        }
        // Nothing is told before the whole is sent.
        telling.holds(&entry.attr);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_at_the_ends_of_the_range() {
        assert_eq!(system_time((-2, 800_000_000)), UNIX_EPOCH - Duration::new(1, 200_000_000));
        assert_eq!(system_time((5, 7)), UNIX_EPOCH + Duration::new(5, 7));
        for seconds in [i64::MIN, i64::MAX] {
            assert_ne!(system_time((seconds, 999_999_999)), UNIX_EPOCH, "{seconds}");
        }
    }
}
