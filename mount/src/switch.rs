//! Another tree in place of the one that is mounted, at one moment for everybody.
//!
//! Owns: the order in which the kernel is made to forget what it knows of the root, and the trees change places.
//! Must not know: what trees are of.
//! Invariant: a path that is looked up finds its first name in the old tree before the moment and in the new one after
//! it, never in both; what is open, mapped or worked in stays what it was.
//! Trust: that of `Tree`. A switch that fails leaves the old tree mounted.
//! Threads: one switch of a mount at a time, on a thread that may wait: the kernel answers a notification about the root
//! only when the look-ups under way in it have been answered, so never on an event loop.
//!
//! Only the root keeps its number, so only what is known of it and of the names in it has to be forgotten: everything
//! below is reached through those. First the kernel is told nothing more of the root that it may keep; then it is made
//! to forget what it kept; only then do the trees change places. A notification about a name in the root waits for the
//! look-ups and listings in it: an old answer that is under way has arrived before it returns.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::mpsc;

use fuser::{INodeNo, Notifier};

use crate::tree::{Answer, Listing, ROOT, Tree, TreeError};
use crate::trees::Trees;

/// Names asked for at a time.
const BATCH: usize = 1024;
/// No directory has it as a name of its own, so a notification about it does nothing but wait.
const NO_NAME: &[u8] = b".";

/// Why the old tree stays mounted.
#[derive(Debug)]
pub(crate) enum SwitchError {
    /// Another switch is under way.
    Busy,
    /// A directory of the old or the new tree.
    Tree(&'static str, TreeError),
    Kernel(io::Error),
    Announce(io::Error),
}

/// Puts `tree` in place of what is mounted. `announce` is told the slot of the tree just before: whoever goes on with this mount after
/// this process has to know it. If it fails the old tree stays.
pub(crate) fn switch(
    trees: &Trees,
    tree: Arc<dyn Tree>,
    kernel: &Notifier,
    announce: impl FnOnce(u64) -> io::Result<()>,
) -> Result<(), SwitchError> {
    // What the root of either says must be at hand: while the kernel forgets the names, look-ups wait for each other.
    let old = trees.at(ROOT).ok_or(SwitchError::Busy)?.tree;
    each_name(&*tree, ROOT, |_| Ok(())).map_err(|error| error.of("new"))?;
    each_name(&*old, ROOT, |_| Ok(())).map_err(|error| error.of("old"))?;
    let slot = trees.begin_switch().ok_or(SwitchError::Busy)?;
    let forgotten = forget_absent(&*tree, kernel)
        .and_then(|()| forget_root(&*old, kernel))
        .and_then(|()| announce(slot).map_err(SwitchError::Announce));
    trees.end_switch(forgotten.is_ok().then_some((slot, tree)));
    forgotten?;
    // What was told meanwhile is asked for anew whenever it is used, but what is not used would keep the old tree; and
    // the names in a listing are kept whatever was said of them.
    forget_root(&*old, kernel)
}

/// Ends a switch after which an earlier process may not have done so. Nothing but the mounted tree is in use by those that it is
/// told of now.
pub(crate) fn finish(trees: &Trees, kernel: &Notifier) -> Result<(), SwitchError> {
    trees.old_ones().iter().try_for_each(|old| forget_root(&**old, kernel))
}

/// The names of a tree that comes: the kernel may remember of each that there was none. What neither tree has, there is none of.
fn forget_absent(new: &dyn Tree, kernel: &Notifier) -> Result<(), SwitchError> {
    let forget = |name: &[u8]| kernel.inval_entry(INodeNo(ROOT), OsStr::from_bytes(name));
    each_name(new, ROOT, forget).map_err(|error| error.of("new"))
}

/// The names in the root of `old`, and the root itself.
fn forget_root(old: &dyn Tree, kernel: &Notifier) -> Result<(), SwitchError> {
    let forget = |name: &[u8]| kernel.inval_entry(INodeNo(ROOT), OsStr::from_bytes(name));
    each_name(old, ROOT, forget).map_err(|error| error.of("old"))?;
    // Attributes and listing, once nothing old is under way any more.
    forget(NO_NAME).and_then(|()| kernel.inval_inode(INodeNo(ROOT), 0, 0)).map_err(SwitchError::Kernel)
}

/// Makes the kernel forget the names in old trees, so that a tree goes when the last file of it is closed. What was in
/// use when its way from the root was forgotten keeps its directories, and they what they hold, until memory is short.
pub(crate) fn forget_old(trees: &Trees, kernel: &Notifier) -> Result<(), SwitchError> {
    for (place, number) in trees.old_directories() {
        let forget = |name: &[u8]| kernel.inval_entry(INodeNo(number), OsStr::from_bytes(name));
        each_name(&*place.tree, place.ino, forget).map_err(|error| error.of("old"))?;
    }
    Ok(())
}

enum EachError {
    Tree(TreeError),
    Kernel(io::Error),
}

impl EachError {
    fn of(self, which: &'static str) -> SwitchError {
        match self {
            Self::Tree(error) => SwitchError::Tree(which, error),
            Self::Kernel(error) => SwitchError::Kernel(error),
        }
    }
}

/// Does something for each name in the directory `ino` of a tree.
fn each_name(
    tree: &dyn Tree,
    ino: u64,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), EachError> {
    let mut offset = 0;
    loop {
        let (sender, receiver) = mpsc::sync_channel(1);
        let answer = Answer::new(move |listing: Result<&Listing, _>| {
            // Nobody but the caller below holds the other end, and it waits.
            let _ = sender.send(listing.cloned());
        });
        tree.read_dir(ino, offset, BATCH, answer);
        let listing = receiver.recv().unwrap_or(Err(TreeError::Io)).map_err(EachError::Tree)?;
        let Some(last) = listing.entries.last() else { return Ok(()) };
        offset = last.next;
        listing.entries.iter().try_for_each(|entry| each(&entry.name)).map_err(EachError::Kernel)?;
    }
}
