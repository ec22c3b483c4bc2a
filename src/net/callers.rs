//! How many streams of strangers are served at a time.
//!
//! Owns: taking them as they come, and the count, in all and of each peer.
//! Must not know: what is asked.
//! Invariant: no peer has more than its share; what has been let in is counted until its [`Caller`] is dropped.
//! Trust: none; any peer may ask as often as it likes.
//! Threads: any.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libp2p::{PeerId, Stream};

use super::shared::Shared;
use super::streams::Incoming;

struct Callers {
    max: usize,
    max_each: usize,
    counts: Mutex<HashMap<PeerId, usize>>,
}

/// A request that is being answered.
struct Caller {
    callers: Arc<Callers>,
    peer: PeerId,
}

impl Callers {
    fn new(max: usize, max_each: usize) -> Arc<Callers> {
        Arc::new(Callers { max, max_each, counts: Mutex::default() })
    }

    /// Counts one more request of `peer`, if there is room for it.
    fn enter(self: &Arc<Self>, peer: PeerId) -> Option<Caller> {
        let mut counts = self.counts();
        let (all, of_peer) = (counts.values().sum::<usize>(), counts.get(&peer).copied().unwrap_or(0));
        if all >= self.max || of_peer >= self.max_each {
            return None;
        }
        counts.insert(peer, of_peer + 1);
        Some(Caller { callers: self.clone(), peer })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<PeerId, usize>> {
        // One number is changed at a time.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut counts = self.callers.counts();
        counts.entry(self.peer).and_modify(|count| *count -= 1);
        counts.retain(|_, count| *count > 0);
    }
}

/// Has `serve` serve each stream that comes, in a task of its own that ends with the node, `max` at a time and `max_each` of any one
/// peer. Whoever is dropped here tries again.
pub(super) async fn each<F>(
    shared: Arc<Shared>,
    mut incoming: Incoming,
    (max, max_each): (usize, usize),
    serve: impl Fn(Arc<Shared>, PeerId, Stream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let callers = Callers::new(max, max_each);
    while let Some((peer, stream)) = incoming.next().await {
        let Some(caller) = callers.enter(peer) else { continue };
        let served = serve(shared.clone(), peer, stream);
        shared.tasks.spawn(shared.stop.clone().run_until_cancelled_owned(async move {
            let _caller = caller;
            served.await;
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_than_a_share() {
        let callers = Callers::new(3, 2);
        let [a, b] = [(); 2].map(|()| PeerId::random());
        let first = callers.enter(a).unwrap();
        let second = callers.enter(a).unwrap();
        assert!(callers.enter(a).is_none());
        let third = callers.enter(b).unwrap();
        assert!(callers.enter(b).is_none(), "no room at all");
        drop(first);
        assert!(callers.enter(a).is_some());
        drop((second, third));
        assert!(callers.counts().is_empty());
    }
}
