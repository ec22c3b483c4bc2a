//! The tables of listings: what earlier snapshots found out about the files of a directory.
//!
//! Owns: `listings.v1` and `trees.v1`, and the rule by which old rows go.
//! Must not know: what a row says.
//! Invariant: each listing belongs to a tree in `trees.v1`, of which there are at most `MAX_TREES`; no two rows of a
//! directory end with the same name.
//! Trust: as `index`; whoever reads a row checks it. Threads, crash: as `index`.

use redb::{ReadableTable, ReadableTableMetadata, TableError};

use super::{IndexResult, LISTINGS, Tables, View};
use crate::store::listings::{DirId, Waiting};

/// Device and inode number of a directory.
pub(super) type DirKey = (u64, u64);
/// Root of the tree, directory, and the last name that the row is about: so that the rows for a run of names begin
/// with the first row at or after the first of them.
pub(super) type ListingKey<'a> = (u64, u64, u64, u64, &'a [u8]);

/// Trees that have listings. The one that has not been used for longest gives way to the next.
const MAX_TREES: u64 = 64;

/// Keys held in memory while rows are removed.
const REMOVE_BATCH: usize = 1024;

const fn key<'a>(tree: DirId, dir: DirId, name: &'a [u8]) -> ListingKey<'a> {
    (tree.0, tree.1, dir.0, dir.1, name)
}

/// Greater than every name: none has 256 bytes.
const PAST_NAMES: &[u8] = &[0xff; 256];

impl View {
    /// The rows that may know names from `first` to `last` of a directory, in their order.
    pub(in crate::store) fn listings(
        &self,
        tree: DirId,
        dir: DirId,
        first: &[u8],
        last: &[u8],
    ) -> IndexResult<Vec<Vec<u8>>> {
        let table = match self.txn.open_table(LISTINGS) {
            Ok(table) => table,
            // An index from before there were listings.
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut rows = Vec::new();
        for row in table.range(key(tree, dir, first)..key(tree, dir, PAST_NAMES))? {
            let (found, bytes) = row?;
            rows.push(bytes.value().to_vec());
            if found.value().4 >= last {
                break;
            }
        }
        Ok(rows)
    }

    /// The directories of a tree that have listings, each once.
    pub(in crate::store) fn listed_dirs(&self, tree: DirId) -> IndexResult<Vec<DirId>> {
        let table = match self.txn.open_table(LISTINGS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut dirs: Vec<DirId> = Vec::new();
        for row in table.range(key(tree, (0, 0), &[])..=key(tree, (u64::MAX, u64::MAX), PAST_NAMES))? {
            let (found, _) = row?;
            let (_, _, dev, ino, _) = found.value();
            if dirs.last() != Some(&(dev, ino)) {
                dirs.push((dev, ino));
            }
        }
        Ok(dirs)
    }
}

impl Tables<'_> {
    /// Keeps new rows, in the place of what was known of the same names.
    pub(in crate::store) fn keep_listings(&mut self, rows: &Waiting) -> IndexResult<()> {
        let mut tree = None;
        for (of, row) in rows.rows() {
            if tree != Some(*of) {
                self.use_tree(*of)?;
                tree = Some(*of);
            }
            self.remove_listings(key(*of, row.dir, &row.first), key(*of, row.dir, &row.last))?;
            self.listings.insert(key(*of, row.dir, &row.last), row.bytes.as_slice())?;
        }
        Ok(())
    }

    /// Notes that a tree is in use, and forgets the one that has not been for longest when there are too many.
    pub(in crate::store) fn use_tree(&mut self, tree: DirId) -> IndexResult<()> {
        let uses = self.meta.get("tree_uses")?.map_or(0, |value| value.value()) + 1;
        self.set("tree_uses", uses)?;
        self.trees.insert(tree, uses)?;
        while self.trees.len()? > MAX_TREES {
            let mut oldest = None;
            for row in self.trees.iter()? {
                let (tree, used) = row?;
                oldest = oldest.into_iter().chain([(used.value(), tree.value())]).min();
            }
            let Some((_, oldest)) = oldest else { break };
            self.trees.remove(oldest)?;
            self.forget_listings(oldest, (0, 0), (u64::MAX, u64::MAX))?;
        }
        Ok(())
    }

    /// Removes the rows of a tree for the directories from `from` to `to`.
    pub(in crate::store) fn forget_listings(
        &mut self,
        tree: DirId,
        from: DirId,
        to: DirId,
    ) -> IndexResult<()> {
        self.remove_listings(key(tree, from, &[]), key(tree, to, PAST_NAMES))
    }

    /// Removes the rows between two keys. One by one and a few at a time: redb's own removal of a range looks at the
    /// whole table, and a tree may have very many rows.
    fn remove_listings(&mut self, from: ListingKey<'_>, to: ListingKey<'_>) -> IndexResult<()> {
        loop {
            let mut found = Vec::new();
            for row in self.listings.range(from..=to)?.take(REMOVE_BATCH) {
                let (row, _) = row?;
                let (tree_dev, tree_ino, dev, ino, name) = row.value();
                found.push(((tree_dev, tree_ino), (dev, ino), name.to_vec()));
            }
            for (tree, dir, name) in &found {
                self.listings.remove(key(*tree, *dir, name))?;
            }
            if found.len() < REMOVE_BATCH {
                return Ok(());
            }
        }
    }
}
