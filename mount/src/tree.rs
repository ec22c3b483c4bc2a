//! What can be mounted: a read-only, immutable tree of files.
//!
//! Owns: the trait between a tree and the adapter, and the types that cross it.
//! Must not know: FUSE, errno values, how a tree gets its bytes.
//! Invariant: an [`Answer`] is given exactly once; one that is dropped answers [`TreeError::Io`].
//! Trust: none needed; these are plain values.
//! Threads: a tree is called from several event loops at once and may answer from any thread.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::sync::Arc;

/// The inode number of the root directory of every tree.
pub const ROOT: u64 = 1;

/// Why a tree cannot answer. The adapter alone decides which errno each one becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    #[error("no such inode")]
    NotFound,
    #[error("not a directory")]
    NotDir,
    #[error("is a directory")]
    IsDir,
    #[error("no such extended attribute")]
    NoXattr,
    #[error("nothing of the kind at or after this offset")]
    PastEnd,
    #[error("not meaningful for this kind of file")]
    Invalid,
    #[error("the content could not be had in time")]
    TimedOut,
    #[error("the content could not be had")]
    Io,
}

/// The kinds of file a tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    File,
    Dir,
    Symlink,
}

/// What `stat` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    /// Never 0, below 2⁴⁸; [`ROOT`] for the root; the same for the same file as long as the tree is mounted.
    pub ino: u64,
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// The twelve permission bits.
    pub mode: u16,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970, and nanoseconds below 10⁹ to add to them.
    pub mtime: (i64, u32),
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    pub name: Vec<u8>,
    /// Where to go on after this entry: what to pass as `offset` of [`Tree::read_dir`]. Below 2⁴⁷.
    pub next: u64,
    pub attr: Attr,
}

/// A run of a directory's entries, without `.` and `..`; empty at the end of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Inode of the directory above; the root is its own.
    pub parent: u64,
    pub entries: Vec<DirEntry>,
}

/// What `lseek` looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    Data,
    Hole,
}

/// What `df` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatFs {
    pub bytes: u64,
    pub inodes: u64,
}

/// Keeps something from being taken away as long as it exists.
pub type Lease = Arc<dyn Any + Send + Sync>;

/// A file on disk with the very bytes of a file of the tree at the same offsets, and no others.
pub struct Backing {
    /// Open for reading, on a file system that is not stacked on another. It need not stay open.
    pub file: File,
    /// Bytes; a file of another length is not used.
    pub size: u64,
    /// Kept until the last user has closed the file.
    pub lease: Lease,
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backing({} bytes)", self.size)
    }
}

type Reply<T> = Box<dyn FnOnce(Result<&T, TreeError>) + Send>;

/// The obligation to answer one request, now or later, from any thread.
pub struct Answer<T: ?Sized>(Option<Reply<T>>);

impl<T: ?Sized> Answer<T> {
    /// An answer that is handed to `reply`.
    pub fn new(reply: impl FnOnce(Result<&T, TreeError>) + Send + 'static) -> Self {
        Self(Some(Box::new(reply)))
    }

    /// Answers.
    pub fn send(mut self, result: Result<&T, TreeError>) {
        if let Some(reply) = self.0.take() {
            reply(result);
        }
    }
}

impl<T: ?Sized> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply(Err(TreeError::Io));
        }
    }
}

impl<T: ?Sized> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Answer(owed)" } else { "Answer(given)" })
    }
}

/// A tree of files that never changes while it is mounted. The kernel keeps every answer for years, so
/// an error that may pass must be an error, never a made-up `None` or an empty directory.
///
/// No method may block: one that has to wait keeps its `answer` and gives it later.
pub trait Tree: Send + Sync + 'static {
    /// The file called `name` in the directory `parent`. `None`: there is none, and never will be.
    fn lookup(&self, parent: u64, name: &[u8], answer: Answer<Option<Attr>>);
    fn attr(&self, ino: u64, answer: Answer<Attr>);
    /// The target of a symbolic link.
    fn read_link(&self, ino: u64, answer: Answer<[u8]>);
    /// At most `max` entries, from `offset`: 0, or what an entry gave as `next`.
    fn read_dir(&self, ino: u64, offset: u64, max: usize, answer: Answer<Listing>);
    /// The bytes at `offset`: exactly `len`, or what is left before the end of the file.
    fn read(&self, ino: u64, offset: u64, len: u32, answer: Answer<[u8]>);
    /// A file from which the kernel may read `ino` by itself, without verifying anything. `None` if there is none
    /// at this moment. Asked when a file is opened that is not open yet, where passthrough is in use.
    fn backing(&self, ino: u64, answer: Answer<Option<Backing>>);
    /// The value of one extended attribute.
    fn xattr(&self, ino: u64, name: &[u8], answer: Answer<[u8]>);
    /// The names of all extended attributes.
    fn list_xattrs(&self, ino: u64, answer: Answer<[Vec<u8>]>);
    /// The first byte at or after `offset` that is data, or a hole; the end of a file is a hole.
    fn seek(&self, ino: u64, offset: u64, what: Seek, answer: Answer<u64>);
    fn stat_fs(&self, answer: Answer<StatFs>);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn an_answer_is_given_exactly_once() {
        let (sender, receiver) = channel();
        let answer = Answer::<u64>::new(move |result| sender.send(result.copied()).expect("receiver lives"));
        answer.send(Ok(&7));
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [Ok(7)]);
    }

    #[test]
    fn a_dropped_answer_is_an_error() {
        let (sender, receiver) = channel();
        drop(Answer::<u64>::new(move |result| sender.send(result.copied()).expect("receiver lives")));
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [Err(TreeError::Io)]);
    }
}
