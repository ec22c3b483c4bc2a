//! What has just come, in memory, to be given to others.
//!
//! Owns: the packed objects that were verified last, and their bound in bytes.
//! Must not know: who wants them.
//! Invariant: every object here was verified when it came; all together have at most [`MAX`] bytes.
//! Trust: what is put here is taken for verified.
//! Threads: any; the lock is held for bookkeeping only.
//!
//! In a crowd that fetches the same thing every object is passed on to several others in the second after it came.
//! Taken from here it is neither read from the disk nor hashed again. (The bytes are those that wait to be written to
//! the cache, so that they lie in memory once.)

use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::id::ObjectId;
use crate::pack::Packed;

/// Bytes kept at most, as stored.
const MAX: usize = 8 << 20;

pub(super) struct Hot(Mutex<State>);

struct State {
    objects: LruCache<ObjectId, Packed>,
    bytes: usize,
}

impl Hot {
    pub(super) fn new() -> Hot {
        Hot(Mutex::new(State { objects: LruCache::unbounded(), bytes: 0 }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // At worst the count of bytes is off by one object, whatever panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an object that was verified; those used longest ago make room for it.
    pub(super) fn keep(&self, id: ObjectId, packed: &Packed) {
        let mut state = self.state();
        state.bytes += cost(packed);
        if let Some(before) = state.objects.put(id, packed.clone()) {
            state.bytes -= cost(&before);
        }
        while state.bytes > MAX
            && let Some((_, least)) = state.objects.pop_lru()
        {
            state.bytes -= cost(&least);
        }
    }

    pub(super) fn get(&self, id: &ObjectId) -> Option<Packed> {
        self.state().objects.get(id).cloned()
    }

    pub(super) fn has(&self, id: &ObjectId) -> bool {
        self.state().objects.contains(id)
    }
}

/// Bytes that an object takes, those of its row included.
fn cost(packed: &Packed) -> usize {
    packed.stored().len() + 128
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Kind;
    use crate::pack::{Checked, Compression};

    #[test]
    fn the_latest_are_kept_within_the_bound() {
        let hot = Hot::new();
        let object = |n: u32| Checked::pack(Kind::Chunk, vec![n as u8; 1 << 20].into(), Compression::None);
        let objects: Vec<_> = (0..40).map(object).collect();
        for object in &objects {
            hot.keep(object.id(), object.packed());
            // One that is asked for stays.
            assert!(hot.get(&objects[0].id()).is_some());
        }
        let kept: Vec<_> = objects.iter().map(|object| hot.has(&object.id())).collect();
        assert_eq!(kept.iter().filter(|kept| **kept).count(), 7);
        assert!(kept[0] && !kept[1] && kept[39]);
        assert!(hot.state().bytes <= MAX);
        // Again is no second copy.
        let before = hot.state().bytes;
        hot.keep(objects[39].id(), objects[39].packed());
        assert_eq!(hot.state().bytes, before);
    }
}
