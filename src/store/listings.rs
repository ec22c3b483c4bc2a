//! Listings: what earlier snapshots found out about the files of a directory, so that they need not be read again.
//!
//! Owns: the rows that wait for the next commit, and when rows go.
//! Must not know: what a row says, or whether it is right. Rows are hints.
//! Invariant: at most 64 trees have rows, and after a snapshot of a tree none for directories that it no longer has.
//! Trust: rows come out as they are in the index, which may be damaged; whoever uses one checks it.
//! Threads: any. A crash leaves: the rows of the last commit. An index that is rebuilt from the packs has none.

use super::{Shared, Store, StoreError, lock};

/// A directory as its file system names it: device and inode number.
pub type DirId = (u64, u64);

/// Rows that come to this many bytes are committed by themselves, so that their memory stays bounded.
const MAX_WAITING: usize = 4 << 20;
/// More than a row costs beside its bytes and names.
const ROW_OVERHEAD: usize = 128;

/// What is to be remembered of the files from `first` to `last` of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub dir: DirId,
    /// A file name, at most 255 bytes, as is `last`.
    pub first: Vec<u8>,
    pub last: Vec<u8>,
    pub bytes: Vec<u8>,
}

/// Rows that are not in the index yet, each with the root of its tree.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    rows: Vec<(DirId, Listing)>,
    bytes: usize,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn rows(&self) -> &[(DirId, Listing)] {
        &self.rows
    }
}

impl Store {
    /// The rows that may know of the files from `first` to `last` of the directory `dir` in the tree below `tree`, in
    /// the order of their names. Only what has been committed is found.
    pub fn listings(
        &self,
        tree: DirId,
        dir: DirId,
        first: &[u8],
        last: &[u8],
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let shared = self.shared();
        let rows = shared.view()?.listings(tree, dir, first, last);
        rows.map_err(StoreError::index(&shared.index_path))
    }

    /// Remembers a row from the next commit on, which is soon, in the place of what was known of the same names.
    pub fn keep_listing(&self, tree: DirId, row: Listing) -> Result<(), StoreError> {
        let shared = self.shared();
        let full = {
            let mut waiting = lock(&shared.listings);
            waiting.bytes += row.first.len() + row.last.len() + row.bytes.len() + ROW_OVERHEAD;
            waiting.rows.push((tree, row));
            waiting.bytes >= MAX_WAITING
        };
        if full { self.commit() } else { Ok(()) }
    }

    /// Marks the tree below `tree` as used now, and forgets the rows of directories that it no longer has.
    pub fn tidy_listings(&self, tree: DirId, has: impl Fn(DirId) -> bool) -> Result<(), StoreError> {
        let shared = self.shared();
        let turn = shared.turn();
        shared.commit(&turn)?;
        shared.tidy_listings(&turn, tree, has)
    }
}

impl Shared {
    fn tidy_listings(
        &self,
        turn: &super::commit::Turn<'_>,
        tree: DirId,
        has: impl Fn(DirId) -> bool,
    ) -> Result<(), StoreError> {
        let mut gone = self.view()?.listed_dirs(tree).map_err(StoreError::index(&self.index_path))?;
        gone.retain(|dir| !has(*dir));
        self.change_index(turn, |tables| {
            tables.use_tree(tree)?;
            gone.iter().try_for_each(|dir| tables.forget_listings(tree, *dir, *dir))
        })
    }
}
