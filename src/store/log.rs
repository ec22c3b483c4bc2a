//! One manifest log on disk: a redb file of blocks by height.
//!
//! Owns: that file. Must not know: what a block, a genesis document or a trust record means.
//! Invariant: heights run from 1 without gaps, no block is ever rewritten, and the genesis document, once
//! set, stays.
//! Trust: bytes go out as they came in; the reader checks them against signatures.
//! Threads: any; calls block for a disk sync.
//! A crash leaves: the log up to the last `append` that returned, or that one more.

use std::fmt;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use crate::store::disk::{Disk, Real};
use crate::store::error::StoreError;
use crate::store::index::{IndexResult, guarded};

/// height → encoded block.
const BLOCKS: TableDefinition<u64, &[u8]> = TableDefinition::new("blocks.v1");
/// "genesis", "trust" → encoded document.
const DOCUMENTS: TableDefinition<&str, &[u8]> = TableDefinition::new("documents.v1");

const CACHE_BYTES: usize = 1 << 20;

/// A manifest log's blocks, its genesis document, and how far it is trusted.
pub struct LogStore {
    /// `None` only while it is dropped.
    db: Option<Database>,
    path: PathBuf,
}

impl Drop for LogStore {
    fn drop(&mut self) {
        // After a write that panicked, closing panics too.
        let close = || {
            drop(self.db.take());
            Ok(())
        };
        if let Err(error) = guarded(close) {
            tracing::warn!(path = %self.path.display(), %error, "a log could not be closed");
        }
    }
}

impl fmt::Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogStore({})", self.path.display())
    }
}

/// What an append found instead of the tip it expected.
enum Appended {
    Done,
    OutOfOrder { expected: u64 },
}

impl LogStore {
    /// Opens the file at `path`, making it and its directory if need be.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(dir) = path.parent() {
            Real.create_dir(dir).map_err(StoreError::io("create", dir))?;
        }
        let open = || Ok(Database::builder().set_cache_size(CACHE_BYTES).create(path)?);
        let db = guarded(open).map_err(StoreError::log(path))?;
        Ok(Self { db: Some(db), path: path.to_owned() })
    }

    /// A log that is gone with its handle, for simulations of many.
    #[cfg(test)]
    pub fn in_memory() -> Self {
        let backend = redb::backends::InMemoryBackend::new();
        let db = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        Self { db: Some(db.expect("memory does not fail")), path: PathBuf::from("memory") }
    }

    /// Renames the file of a log that is damaged and not open, so that another can take its place; says to what.
    pub fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
        Real.set_aside(path).map_err(StoreError::io("rename", path))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn db(&self) -> IndexResult<&Database> {
        self.db.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    fn failed(&self) -> impl FnOnce(redb::Error) -> StoreError {
        StoreError::log(&self.path)
    }

    /// The encoded genesis document, if one was set.
    pub fn genesis(&self) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| self.document("genesis")).map_err(self.failed())
    }

    /// Sets the genesis document, durably. Setting the same one again is no error; another one is
    /// [`StoreError::OtherGenesis`].
    pub fn set_genesis(&self, document: &[u8]) -> Result<(), StoreError> {
        match self.genesis()? {
            Some(present) if present == document => Ok(()),
            Some(_) => Err(StoreError::OtherGenesis { path: self.path.clone() }),
            None => guarded(|| self.write_genesis(document)).map_err(self.failed()),
        }
    }

    fn write_genesis(&self, document: &[u8]) -> IndexResult<()> {
        let txn = self.begin()?;
        txn.open_table(DOCUMENTS)?.insert("genesis", document)?;
        Ok(txn.commit()?)
    }

    fn begin(&self) -> IndexResult<redb::WriteTransaction> {
        let mut txn = self.db()?.begin_write()?;
        // Opening after a crash must not depend on the length of the log.
        txn.set_quick_repair(true);
        Ok(txn)
    }

    /// Appends a block together with the trust record that goes with it, durably. `height` must be one more
    /// than [`LogStore::tip`], else [`StoreError::Height`].
    pub fn append(&self, height: u64, block: &[u8], trust: &[u8]) -> Result<(), StoreError> {
        match guarded(|| self.try_append(height, block, trust)).map_err(self.failed())? {
            Appended::Done => Ok(()),
            Appended::OutOfOrder { expected } => {
                Err(StoreError::Height { path: self.path.clone(), height, expected })
            }
        }
    }

    fn try_append(&self, height: u64, block: &[u8], trust: &[u8]) -> IndexResult<Appended> {
        let txn = self.begin()?;
        {
            let mut blocks = txn.open_table(BLOCKS)?;
            let expected = blocks.last()?.map_or(1, |(tip, _)| tip.value() + 1);
            if height != expected {
                return Ok(Appended::OutOfOrder { expected });
            }
            blocks.insert(height, block)?;
            txn.open_table(DOCUMENTS)?.insert("trust", trust)?;
        }
        txn.commit()?;
        Ok(Appended::Done)
    }

    /// The encoded block of a height, if there is one.
    pub fn block(&self, height: u64) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| self.find_block(height)).map_err(self.failed())
    }

    fn find_block(&self, height: u64) -> IndexResult<Option<Vec<u8>>> {
        match self.db()?.begin_read()?.open_table(BLOCKS) {
            Ok(blocks) => Ok(blocks.get(height)?.map(|block| block.value().to_vec())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The greatest height; 0 for an empty log.
    pub fn tip(&self) -> Result<u64, StoreError> {
        guarded(|| self.find_tip()).map_err(self.failed())
    }

    fn find_tip(&self) -> IndexResult<u64> {
        match self.db()?.begin_read()?.open_table(BLOCKS) {
            Ok(blocks) => Ok(blocks.last()?.map_or(0, |(tip, _)| tip.value())),
            Err(TableError::TableDoesNotExist(_)) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// The trust record of the last append, if there was one.
    pub fn trust(&self) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| self.document("trust")).map_err(self.failed())
    }

    fn document(&self, name: &str) -> IndexResult<Option<Vec<u8>>> {
        match self.db()?.begin_read()?.open_table(DOCUMENTS) {
            Ok(documents) => Ok(documents.get(name)?.map(|document| document.value().to_vec())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_what_was_appended_in_order_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("logs/net.redb");
        let log = LogStore::open(&path).expect("opens");
        assert_eq!(
            (log.tip().expect("reads"), log.block(1).expect("reads"), log.trust().expect("reads")),
            (0, None, None)
        );
        log.append(1, b"one", b"t1").expect("the first");
        log.append(2, b"two", b"t2").expect("the second");
        for (height, expected) in [(0, 3), (2, 3), (4, 3)] {
            let refused = log.append(height, b"x", b"x");
            assert!(
                matches!(refused, Err(StoreError::Height { height: h, expected: e, .. }) if (h, e) == (height, expected))
            );
        }
        drop(log);
        let log = LogStore::open(&path).expect("opens again");
        assert_eq!(log.tip().expect("reads"), 2);
        assert_eq!(log.block(2).expect("reads").as_deref(), Some(&b"two"[..]));
        assert_eq!(log.trust().expect("reads").as_deref(), Some(&b"t2"[..]));
        assert_eq!(log.block(3).expect("reads"), None);
    }

    #[test]
    fn a_genesis_document_is_set_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = LogStore::open(&dir.path().join("net.redb")).expect("opens");
        assert_eq!(log.genesis().expect("reads"), None);
        log.set_genesis(b"ours").expect("the first");
        log.set_genesis(b"ours").expect("the same again");
        assert!(matches!(log.set_genesis(b"theirs"), Err(StoreError::OtherGenesis { .. })));
        assert_eq!(log.genesis().expect("reads").as_deref(), Some(&b"ours"[..]));
    }

    #[test]
    fn a_file_that_is_no_log_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("net.redb");
        std::fs::write(&path, vec![7; 10_000]).expect("writes");
        assert!(matches!(LogStore::open(&path), Err(StoreError::Log { damaged: true, .. })));
    }
}
