//! What was fetched and is still to be written to the cache, so that no reader waits for the disk.
//!
//! Owns: the queue between flights and the store, its bound in bytes, and the one task that empties it.
//! Must not know: who waits for an object, or where it came from.
//! Invariant: what is in the queue is found until it is in the store. The queue holds at most [`QUEUE`] bytes; what
//! does not fit is not cached, unless its getter waits for room.
//! Trust: objects are `Checked`.
//! Threads: any; the store is written to on the blocking pool, by one task at a time.
//! A crash loses the queue; it is fetched again.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::id::ObjectId;
use crate::pack::Checked;
use crate::store::{Keep, Store};

/// Bytes that wait at most to be written.
pub(super) const QUEUE: usize = 32 << 20;
/// Bytes of one permit. An object takes as many as it needs, and one more.
const UNIT: usize = 1 << 10;
/// Objects given to the store at a time.
const BATCH: usize = 64;
/// So much is written at once; less is collected for a moment, as a thread that is woken for each object costs as much as writing it.
const ENOUGH: usize = 1 << 20;
const COLLECT: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Queue {
    objects: HashMap<ObjectId, (Checked, OwnedSemaphorePermit)>,
    order: VecDeque<ObjectId>,
    /// Objects ever added.
    added: u64,
    /// A task is emptying the queue.
    writing: bool,
}

pub(super) struct Behind {
    store: Store,
    queue: Mutex<Queue>,
    room: Arc<Semaphore>,
    /// What is in the queue is to be written without waiting for more.
    enough: Notify,
    /// Objects ever given to the store.
    written: watch::Sender<u64>,
    bypassed: AtomicU64,
    /// That the disk does not keep up has been said, and the queue has not been empty since.
    slow: AtomicBool,
    /// Holds the writing up, as a slow disk would.
    #[cfg(test)]
    pub(super) gate: Mutex<()>,
}

impl Behind {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            queue: Mutex::default(),
            room: Arc::new(Semaphore::new(QUEUE / UNIT)),
            enough: Notify::new(),
            written: watch::Sender::new(0),
            bypassed: AtomicU64::new(0),
            slow: AtomicBool::new(false),
            #[cfg(test)]
            gate: Mutex::default(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No operation on the queue can leave it half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object, if it waits to be written.
    pub(super) fn get(&self, id: &ObjectId) -> Option<Checked> {
        self.queue().objects.get(id).map(|(object, _)| object.clone())
    }

    /// Those of `ids` that do not wait to be written.
    pub(super) fn without(&self, ids: &[ObjectId]) -> Vec<ObjectId> {
        let queue = self.queue();
        ids.iter().filter(|id| !queue.objects.contains_key(id)).copied().collect()
    }

    /// Objects that found the queue full.
    pub(super) fn bypassed(&self) -> u64 {
        self.bypassed.load(Ordering::Relaxed)
    }

    /// Has the object written, if there is room for it; says whether.
    pub(super) fn try_add(self: &Arc<Self>, object: &Checked) -> bool {
        match self.room.clone().try_acquire_many_owned(cost(object)) {
            Ok(permit) => {
                self.push(object.clone(), permit);
                true
            }
            Err(_) => false,
        }
    }

    /// Has the object written when there is room for it.
    pub(super) async fn add(self: &Arc<Self>, object: &Checked) {
        // The semaphore is never closed.
        if let Ok(permit) = self.room.clone().acquire_many_owned(cost(object)).await {
            self.push(object.clone(), permit);
        }
    }

    /// Counts an object that is not cached, because the disk does not keep up.
    pub(super) fn bypass(&self) {
        self.bypassed.fetch_add(1, Ordering::Relaxed);
        if !self.slow.swap(true, Ordering::Relaxed) {
            tracing::warn!("the disk is slower than the peers; some of what is fetched is not cached");
        }
    }

    /// Waits until everything that was added before has been given to the store.
    pub(super) async fn flush(&self) {
        let added = self.queue().added;
        self.enough.notify_one();
        // The sender lives as long as `self`.
        let _ = self.written.subscribe().wait_for(|written| *written >= added).await;
    }

    fn push(self: &Arc<Self>, object: Checked, permit: OwnedSemaphorePermit) {
        let mut queue = self.queue();
        let id = object.id();
        if queue.objects.insert(id, (object, permit)).is_some() {
            return;
        }
        queue.order.push_back(id);
        queue.added += 1;
        if !std::mem::replace(&mut queue.writing, true) {
            tokio::spawn(Arc::clone(self).write_soon());
        }
        if QUEUE - self.room.available_permits() * UNIT >= ENOUGH {
            self.enough.notify_one();
        }
    }

    async fn write_soon(self: Arc<Self>) {
        let _ = timeout(COLLECT, self.enough.notified()).await;
        tokio::task::spawn_blocking(move || self.write());
    }

    /// Empties the queue. An object stays in it until it is in the store, so that it is found all the time.
    fn write(&self) {
        loop {
            let batch: Vec<Checked> = {
                let mut queue = self.queue();
                let next = queue.order.iter().take(BATCH);
                let batch: Vec<_> =
                    next.filter_map(|id| queue.objects.get(id)).map(|(object, _)| object.clone()).collect();
                queue.writing = !batch.is_empty();
                batch
            };
            if batch.is_empty() {
                self.slow.store(false, Ordering::Relaxed);
                return;
            }
            // Also if the store panics: nobody is to wait for a queue that nobody empties.
            let _leave = Leave { behind: self, batch: &batch };
            #[cfg(test)]
            drop(self.gate.lock());
            if let Err(error) = self.store.put(&batch, Keep::Cache) {
                tracing::warn!(%error, "fetched objects could not be stored");
            }
        }
    }
}

/// Takes a batch out of the queue, once the store has had it.
struct Leave<'a> {
    behind: &'a Behind,
    batch: &'a [Checked],
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut queue = self.behind.queue();
        for object in self.batch {
            queue.order.pop_front();
            queue.objects.remove(&object.id());
        }
        if std::thread::panicking() {
            queue.writing = false;
        }
        self.behind.written.send_modify(|written| *written += self.batch.len() as u64);
    }
}

/// What an object takes of the room, in permits.
fn cost(object: &Checked) -> u32 {
    let bytes = object.plain().len() + object.packed().stored().len();
    // An object has a few MiB at most.
    (bytes / UNIT + 1) as u32
}
