//! A read-only FUSE adapter over any immutable tree.
//!
//! Owns: everything that speaks to the kernel about a mount: attaching, answering, detaching, and cleaning
//! up after a process that died. What is mounted is whatever implements [`Tree`].
//! Must not know: chunks, snapshots, networks, async runtimes.
//! Invariant: every request is answered exactly once, whatever the tree does, and no thread that reads
//! requests ever waits for a tree.
//! Trust: the kernel is believed; the tree may be slow, forget to answer or panic.
//! Threads: a mount runs one thread that waits for its end and [`Options::threads`] event loops.

mod adapter;
mod attach;
mod attributes;
mod error;
mod greeting;
mod holders;
mod io;
mod mount;
mod mountpoint;
mod passthrough;
mod record;
mod switch;
mod tree;
mod trees;

pub use error::{Holder, MountError};
pub use greeting::Greeting;
pub use io::{Io, IoInUse};
pub use mount::{Connection, Inherited, Mount, Options};
pub use mountpoint::{check_mountpoint, dead_mounts, is_dead, recover};
pub use tree::{
    Answer, Attr, Backing, DirEntry, FileKind, Lease, Listing, ROOT, Seek, StatFs, Tree, TreeError,
};
