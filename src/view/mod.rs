//! A snapshot as a tree of files: what is where, what it is like, and what is in it.
//!
//! Owns: the way from a path or an inode number to a file, from an offset to chunks, and how a mounted snapshot
//! presents owners, permissions and the attributes of bcai itself.
//! Must not know: where objects come from, FUSE, datasets, the log.
//! Invariant: an answer is what the snapshot says or an error; that something is missing is never concluded from
//! what could not be fetched. What an object promises of its children is checked when they are read.
//! Trust: objects are what their ids say, but their publisher may have put nonsense into them.
//! Threads: async, any number at once; locks are never held across an await. In `mounted`, futures are polled on
//! FUSE threads, and only there may the local disk be waited for.

mod ahead;
mod content;
mod contents;
mod diff;
mod globs;
mod listings;
mod locate;
mod materialise;
mod mounted;
mod neighbours;
mod nodes;
mod novel;
mod nth;
mod pace;
mod scout;
#[cfg(test)]
mod tests;
mod walk;
mod watching;
mod xattrs;

use std::sync::Arc;

pub use bcai_mount::{Attr, DirEntry, FileKind, Listing, ROOT, Seek, StatFs};

pub use self::ahead::AheadFigures;
pub use self::contents::{Contents, FileContent, Files, Objects};
pub use self::diff::{Aspect, Diff, Difference};
pub use self::globs::{GlobError, Globs};
pub use self::locate::Inode;
pub use self::mounted::MountedView;
pub use self::nodes::Cache;
pub use self::novel::Novel;
pub use self::walk::{Found, Walk};
pub use self::watching::{Answered, Counts, Operation, Source, Timings, Watch, Watcher};
use crate::crypto::dataset::Keyring;
use crate::fetch::{FetchError, Fetcher};
use crate::id::{KeyId, ObjectId, SnapshotId};
use crate::manifest::{ManifestError, Meta, Node, Snapshot};

/// Why a view has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ViewError {
    /// The user's mistake: the snapshot has no such file. Final.
    #[error("there is no `{0}` in the snapshot")]
    NotFound(String),
    /// The user's mistake.
    #[error("`{0}` is not a directory")]
    NotADirectory(String),
    /// The user's mistake.
    #[error("`{0}` is a directory")]
    IsADirectory(String),
    /// The user's mistake.
    #[error("`{0}` is not a file")]
    NotAFile(String),
    /// The user's mistake.
    #[error("`{0}` is not a symbolic link")]
    NotASymlink(String),
    /// The user's mistake.
    #[error("`{0}` is no path in a snapshot: it may not contain `..`")]
    BadPath(String),
    /// Not a mistake: most files have none of most attributes.
    #[error("there is no such extended attribute")]
    NoXattr,
    /// Not a mistake: there is nothing more of the kind.
    #[error("nothing of the kind at or after this offset")]
    PastEnd,
    /// Whether a retry may help is the cause's to say.
    #[error(transparent)]
    Unavailable(#[from] FetchError),
    /// The user's to get: the key of the dataset.
    #[error("snapshot {id} is encrypted, and its key is not here")]
    Sealed { id: SnapshotId, key: KeyId, generation: u32 },
    /// Nonsense from whoever published the snapshot, or from a newer program. Final.
    #[error("{object} is not fit for this snapshot: {cause}")]
    Unfit { object: ObjectId, cause: String },
}

impl ViewError {
    fn unfit(object: impl Into<ObjectId>, cause: impl ToString) -> Self {
        Self::Unfit { object: object.into(), cause: cause.to_string() }
    }

    fn malformed(object: impl Into<ObjectId>) -> impl FnOnce(ManifestError) -> Self {
        let object = object.into();
        move |error| Self::unfit(object, error)
    }
}

/// Whom the files of a view belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// All to this user and group.
    One { uid: u32, gid: u32 },
    /// To those whom the snapshot names.
    Kept,
}

impl Default for Owner {
    /// The user and group of this process.
    fn default() -> Self {
        Self::One { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() }
    }
}

/// The version of a dataset that a snapshot is shown as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub name: String,
    /// Height in the manifest log at which it became final.
    pub height: u64,
}

/// How to show a snapshot.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub owner: Owner,
    /// Shown as `user.bcai.version` and `user.bcai.height`.
    pub version: Option<Version>,
    /// What opens it, if it is encrypted.
    pub keys: Option<Arc<Keyring>>,
}

/// A snapshot, open for reading.
#[derive(Debug)]
pub struct View {
    id: SnapshotId,
    snapshot: Snapshot,
    nodes: nodes::Nodes,
    options: Options,
}

impl View {
    /// Fetches the snapshot object; everything else is fetched when it is first needed. `cache` may be shared
    /// with other views. [`ViewError::Sealed`] if it is encrypted and the keys of the options do not open it.
    pub async fn open(
        fetcher: Fetcher,
        cache: Cache,
        id: SnapshotId,
        options: Options,
    ) -> Result<Arc<Self>, ViewError> {
        let mut nodes = nodes::Nodes::new(fetcher, cache);
        let stored = nodes.snapshot(id).await?;
        let snapshot = match &stored.sealed {
            None => stored,
            Some(sealed) => {
                let no_key = || ViewError::Sealed { id, key: sealed.key, generation: sealed.generation };
                let keys = options.keys.clone().filter(|keys| keys.has(sealed.generation, &sealed.key));
                nodes.unseal(id, (sealed, &stored.tree), keys.ok_or_else(no_key)?)?
            }
        };
        Ok(Arc::new(Self { id, snapshot, nodes, options }))
    }

    /// The snapshot as it is stored, for those who fetch, count and keep its objects: what is encrypted is not opened, and
    /// is to them one file that consists of all objects.
    pub async fn open_stored(fetcher: Fetcher, cache: Cache, id: SnapshotId) -> Result<Arc<Self>, ViewError> {
        let nodes = nodes::Nodes::new(fetcher, cache);
        let snapshot = nodes.snapshot(id).await?;
        Ok(Arc::new(Self { id, snapshot, nodes, options: Options::default() }))
    }

    /// Whether its objects are encrypted and opened by this view, so that nothing of its files is on disk in plain.
    pub fn is_unsealed(&self) -> bool {
        self.nodes.is_unsealing()
    }

    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// What gets its objects.
    pub fn fetcher(&self) -> &Fetcher {
        self.nodes.fetcher()
    }

    /// The snapshot object, with the totals of everything.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The attributes of the inode `ino`.
    pub async fn attr(&self, ino: u64) -> Result<Attr, ViewError> {
        Ok(self.attr_of(&self.inode(ino).await?))
    }

    /// The attributes of an inode that has been found.
    pub fn attr_of(&self, inode: &Inode) -> Attr {
        self.attr_of_node(inode.ino, &inode.node)
    }

    fn attr_of_node(&self, ino: u64, node: &Node) -> Attr {
        // A directory with one link tells `find` that nobody has counted its subdirectories.
        let (kind, size, nlink) = match node {
            Node::File { size, nlink, .. } => (FileKind::File, *size, *nlink),
            Node::Dir { .. } | Node::Link { .. } => (FileKind::Dir, 0, 1),
            Node::Symlink { target, nlink, .. } => (FileKind::Symlink, target.len() as u64, *nlink),
        };
        let nobody = Meta::default();
        let meta = node.meta().unwrap_or(&nobody);
        let (uid, gid) = match self.options.owner {
            Owner::One { uid, gid } => (uid, gid),
            Owner::Kept => (meta.uid, meta.gid),
        };
        // A publisher must not be able to lend anybody's rights: no set-user-id, no set-group-id.
        let mode = (meta.mode & 0o1777) as u16;
        Attr { ino, kind, size, mode, nlink, uid, gid, mtime: (meta.mtime_s, meta.mtime_ns) }
    }

    /// The target of the symbolic link `ino`.
    pub async fn read_link(&self, ino: u64) -> Result<Vec<u8>, ViewError> {
        match self.inode(ino).await?.node {
            Node::Symlink { target, .. } => Ok(target),
            _ => Err(ViewError::NotASymlink(at(ino))),
        }
    }

    /// Size of the snapshot as `df` shows it.
    pub fn stat_fs(&self) -> StatFs {
        let totals = self.snapshot.totals;
        StatFs { bytes: totals.bytes, inodes: totals.inodes.saturating_add(1) }
    }
}

/// How errors name a file of which only the position is known.
fn at(ino: u64) -> String {
    format!("position {ino}")
}
