//! Looking for objects in the store's index, for all who ask at the same time.
//!
//! Owns: what is asked and not answered, and the one thread that answers them.
//! Must not know: who asks, or what the objects contain.
//! Invariant: one thread looks at a time; a question is answered by a look that began after it was asked.
//! Trust: that of the store.
//! Threads: any; the index is read on the blocking pool.
//!
//! To wake a thread for one object costs several times what looking it up does. So whoever asks while a thread looks, or
//! is about to, is answered by its next look, together with all others: the busier the machine, the more of them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::threads::blocking;
use crate::id::ObjectId;
use crate::store::{Keep, Store, StoreError};

/// Objects that are not in the store: those that were asked for, and what others asked for in the same look.
type Missing = Result<Arc<HashSet<ObjectId>>, Arc<StoreError>>;

/// The index of one store, for many who ask.
pub struct Lookups {
    store: Store,
    state: Mutex<State>,
}

/// What the next look is for.
#[derive(Default)]
struct State {
    ids: Vec<ObjectId>,
    replies: Vec<oneshot::Sender<Missing>>,
    /// A thread looks, or is about to.
    looking: bool,
}

impl Lookups {
    /// For the objects of `store`, published and cached ones.
    pub fn new(store: Store) -> Arc<Lookups> {
        Arc::new(Lookups { store, state: Mutex::default() })
    }

    /// Those of `ids` that are not in the store, and perhaps others that are not.
    pub async fn missing(self: &Arc<Self>, ids: Vec<ObjectId>) -> Missing {
        if ids.is_empty() {
            return Ok(Arc::default());
        }
        let (reply, answer) = oneshot::channel();
        let begin = {
            let mut state = self.state();
            state.ids.extend(&ids);
            state.replies.push(reply);
            !std::mem::replace(&mut state.looking, true)
        };
        if begin {
            let lookups = self.clone();
            tokio::task::spawn_blocking(move || lookups.look());
        }
        match answer.await {
            Ok(missing) => missing,
            // The thread that was to look has panicked. Whoever asked meets what it met.
            Err(_) => {
                let lookups = self.clone();
                blocking(move || lookups.missing_of(&ids)).await
            }
        }
    }

    /// Answers until nothing is asked.
    fn look(&self) {
        let _rest = Rest(self);
        loop {
            let (ids, replies) = {
                let mut state = self.state();
                state.looking = !state.replies.is_empty();
                (std::mem::take(&mut state.ids), std::mem::take(&mut state.replies))
            };
            if replies.is_empty() {
                return;
            }
            let missing = self.missing_of(&ids);
            for reply in replies {
                // Whoever has gone needs no answer.
                let _ = reply.send(missing.clone());
            }
        }
    }

    fn missing_of(&self, ids: &[ObjectId]) -> Missing {
        let missing = self.store.missing(ids, Keep::Cache).map_err(Arc::new)?;
        Ok(Arc::new(missing.into_iter().collect()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock can be left half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets another thread look after one that has panicked, and those whom it has not answered know.
struct Rest<'a>(&'a Lookups);

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.state() = State::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::Kind;
    use crate::pack::{Checked, Compression};
    use crate::store::Options;

    /// Ten objects, of which the store has the first five.
    fn five_of_ten() -> (tempfile::TempDir, Arc<Lookups>, Vec<ObjectId>) {
        let dir = tempfile::TempDir::new().unwrap();
        let store = Store::open(dir.path(), Options { cache_max_bytes: 64 << 20 }).unwrap();
        let object = |n: u8| Checked::pack(Kind::Chunk, vec![n; 100].into(), Compression::None);
        let objects: Vec<Checked> = (0..10).map(object).collect();
        store.put(&objects[..5], Keep::Cache).unwrap();
        (dir, Lookups::new(store), objects.iter().map(Checked::id).collect())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everybody_is_answered_about_what_they_asked() {
        let (_dir, lookups, ids) = five_of_ten();
        let ask = |n: usize| {
            let (lookups, asked) = (lookups.clone(), vec![ids[n % 10], ids[(n + 3) % 10]]);
            tokio::spawn(async move { (lookups.missing(asked.clone()).await.unwrap(), asked) })
        };
        for answer in (0..500).map(ask).collect::<Vec<_>>() {
            let (missing, asked) = answer.await.unwrap();
            assert!(asked.iter().all(|id| missing.contains(id) != ids[..5].contains(id)));
        }
        assert!(lookups.missing(Vec::new()).await.unwrap().is_empty());
        // The thread that looks has answered before it finds nothing more to do.
        let rests = async {
            while lookups.state().looking {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), rests).await.expect("the thread ends");
    }

    #[tokio::test]
    async fn those_who_ask_before_a_thread_looks_are_answered_by_one_look() {
        let (_dir, lookups, ids) = five_of_ten();
        lookups.state().looking = true;
        let mut waiting: Vec<_> = ids.iter().map(|id| Box::pin(lookups.missing(vec![*id]))).collect();
        for asked in &mut waiting {
            assert!(futures::poll!(asked).is_pending());
        }
        lookups.look();
        let answers = futures::future::try_join_all(waiting).await.unwrap();
        assert!(answers.iter().all(|answer| Arc::ptr_eq(answer, &answers[0]) && answer.len() == 5));
    }

    #[tokio::test]
    async fn a_thread_that_panics_leaves_nobody_waiting() {
        let (_dir, lookups, ids) = five_of_ten();
        lookups.state().looking = true;
        let mut asked = Box::pin(lookups.missing(ids.clone()));
        assert!(futures::poll!(&mut asked).is_pending());
        let broken = lookups.clone();
        let thread = std::thread::spawn(move || {
            let _rest = Rest(&broken);
            panic!("a test");
        });
        assert!(thread.join().is_err());
        assert_eq!(asked.await.unwrap().len(), 5);
        assert_eq!(lookups.missing(ids).await.unwrap().len(), 5);
    }
}
