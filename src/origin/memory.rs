//! What was read of an origin's files about its packs, kept for the next look.
//!
//! Owns: one loading per key however many wait, and the bound in bytes.
//! Must not know: what is kept.
//! Invariant: what is kept weighs at most the bound, but for the newest. What failed to load is not kept.
//! Trust: the weight of a value is what its maker says; the values were bounded when they were read.
//! Threads: async; the lock is held for bookkeeping only.

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tokio::sync::OnceCell;

use super::error::OriginError;

/// A value being loaded, or loaded.
type Cell<V> = Arc<OnceCell<Arc<V>>>;

pub(super) struct Memory<K, V> {
    max: usize,
    kept: Mutex<Kept<K, V>>,
}

struct Kept<K, V> {
    /// With the bytes of each; 0 until it is loaded.
    cells: LruCache<K, (Cell<V>, usize)>,
    bytes: usize,
}

impl<K: Hash + Eq + Copy, V> Memory<K, V> {
    /// Keeps at most `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        Self { max, kept: Mutex::new(Kept { cells: LruCache::unbounded(), bytes: 0 }) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept<K, V>> {
        // No operation on it can leave it half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, loaded if need be, by one of those who want it at the time. `load` gives its bytes with it.
    pub(super) async fn get(
        &self,
        key: K,
        load: impl Future<Output = Result<(V, usize), OriginError>>,
    ) -> Result<Arc<V>, OriginError> {
        let cell = self.kept().cells.get_or_insert(key, || (Cell::default(), 0)).0.clone();
        let loaded = async {
            let (value, bytes) = load.await?;
            self.weigh(&key, &cell, bytes);
            Ok(Arc::new(value))
        };
        let outcome = cell.get_or_try_init(|| loaded).await.cloned();
        if outcome.is_err() {
            let mut kept = self.kept();
            // Whoever else waits for it has it still, and tries for themselves.
            if kept
                .cells
                .peek(&key)
                .is_some_and(|(known, _)| !known.initialized() && Arc::ptr_eq(known, &cell))
            {
                kept.cells.pop(&key);
            }
        }
        outcome
    }

    /// Forgets a value, so that it is loaded anew.
    pub(super) fn forget(&self, key: &K) {
        let mut kept = self.kept();
        if let Some((_, bytes)) = kept.cells.pop(key) {
            kept.bytes -= bytes;
        }
    }

    fn weigh(&self, key: &K, cell: &Cell<V>, bytes: usize) {
        let mut kept = self.kept();
        match kept.cells.get_mut(key) {
            Some((known, weight)) if Arc::ptr_eq(known, cell) => *weight = bytes,
            // Pushed out while it was loaded.
            _ => return,
        }
        kept.bytes += bytes;
        while kept.bytes > self.max && kept.cells.len() > 1 {
            let Some((_, (_, gone))) = kept.cells.pop_lru() else { return };
            kept.bytes -= gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(memory: &Memory<u32, u32>, key: u32, bytes: usize, loads: &Mutex<u32>) -> u32 {
        let load = async {
            *loads.lock().unwrap() += 1;
            Ok((key * 10, bytes))
        };
        *memory.get(key, load).await.unwrap()
    }

    #[tokio::test]
    async fn it_loads_once_and_stays_within_its_bound() {
        let (memory, loads) = (Memory::new(100), Mutex::new(0));
        for _ in 0..3 {
            assert_eq!(get(&memory, 1, 60, &loads).await, 10);
        }
        assert_eq!(*loads.lock().unwrap(), 1);
        assert_eq!(get(&memory, 2, 60, &loads).await, 20);
        assert_eq!(memory.kept().bytes, 60);
        assert_eq!(get(&memory, 1, 60, &loads).await, 10);
        assert_eq!(*loads.lock().unwrap(), 3);
        memory.forget(&1);
        assert_eq!(memory.kept().bytes, 0);
    }

    #[tokio::test]
    async fn what_failed_is_tried_again() {
        let (memory, loads) = (Memory::new(100), Mutex::new(0));
        let url: crate::origin::OriginUrl = "s3://bucket".parse().unwrap();
        let failing = async { Err(OriginError::Cancelled { url }) };
        assert!(memory.get(1, failing).await.is_err());
        assert_eq!(memory.kept().cells.len(), 0);
        assert_eq!(get(&memory, 1, 1, &loads).await, 10);
    }
}
