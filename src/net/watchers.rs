//! Who is to be told when an object comes.
//!
//! Owns: what the readers of this node watch, and the news that they have not been sent.
//! Must not know: where objects come from, streams.
//! Invariant: a session has at most [`MAX_EACH`] watches, of which the oldest are forgotten, and news of these only. Every watch is answered
//! once when it is made; after that only by better news, and forgotten when there can be none.
//! Trust: watches come from strangers; they cost a fixed few bytes each.
//! Threads: any; the lock is held for bookkeeping only.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::id::ObjectId;
use crate::swarm::wire::{Have, MAX_NAMED, Presence, Watch};

/// Watches of one session.
const MAX_EACH: usize = 4096;

#[derive(Default)]
pub(super) struct Watchers(Mutex<State>);

#[derive(Default)]
struct State {
    readers: u64,
    by_object: HashMap<ObjectId, Vec<Watching>>,
    by_reader: HashMap<u64, Watched>,
}

struct Watching {
    reader: u64,
    number: u64,
}

/// What one reader watches.
struct Watched {
    /// By their numbers, which are in the order in which they were made.
    objects: BTreeMap<u64, ObjectId>,
    news: BTreeMap<Presence, Vec<u64>>,
    wake: Arc<Notify>,
}

impl Watchers {
    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic could leave is a watch that is not answered.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session that may watch; `wake` is notified of news. It ends when the reader is dropped.
    pub(super) fn reader(self: &Arc<Self>, wake: Arc<Notify>) -> Reader {
        let mut state = self.state();
        state.readers += 1;
        let number = state.readers;
        state.by_reader.insert(number, Watched { objects: BTreeMap::new(), news: BTreeMap::new(), wake });
        Reader { watchers: self.clone(), number }
    }

    /// An object can be had here from now on.
    pub(super) fn here(&self, object: ObjectId) {
        let mut state = self.state();
        for Watching { reader, number } in state.by_object.remove(&object).unwrap_or_default() {
            state.tell(reader, Presence::Here, number);
            state.forget(reader, number, &object);
        }
    }

    /// An object is wanted here from now on.
    pub(super) fn coming(&self, object: ObjectId) {
        let mut state = self.state();
        let Some(watching) = state.by_object.get(&object) else { return };
        for (reader, number) in watching.iter().map(|w| (w.reader, w.number)).collect::<Vec<_>>() {
            state.tell(reader, Presence::Coming, number);
        }
    }
}

impl State {
    fn tell(&mut self, reader: u64, presence: Presence, number: u64) {
        if let Some(watched) = self.by_reader.get_mut(&reader) {
            watched.news.entry(presence).or_default().push(number);
            watched.wake.notify_one();
        }
    }

    /// Forgets a watch.
    fn forget(&mut self, reader: u64, number: u64, object: &ObjectId) {
        self.by_reader.get_mut(&reader).and_then(|watched| watched.objects.remove(&number));
        self.unlist(reader, number, object);
    }

    /// Forgets a watch that its reader has not any more.
    fn unlist(&mut self, reader: u64, number: u64, object: &ObjectId) {
        if let Some(watching) = self.by_object.get_mut(object) {
            watching.retain(|watching| (watching.reader, watching.number) != (reader, number));
            if watching.is_empty() {
                self.by_object.remove(object);
            }
        }
    }
}

/// One session that watches.
pub(super) struct Reader {
    watchers: Arc<Watchers>,
    number: u64,
}

impl Reader {
    /// Takes up watches, before anybody looks whether the objects are here: what comes meanwhile is not missed.
    pub(super) fn watch(&self, watch: &Watch) {
        let mut state = self.watchers.state();
        for (number, object) in (watch.first..).zip(&watch.objects) {
            let Some(watched) = state.by_reader.get_mut(&self.number) else { return };
            // Numbers are a stranger's: one that comes again stands for the latest object.
            let before = watched.objects.insert(number, *object);
            let oldest = if watched.objects.len() > MAX_EACH { watched.objects.pop_first() } else { None };
            for (number, object) in before.map(|before| (number, before)).into_iter().chain(oldest) {
                state.unlist(self.number, number, &object);
            }
            state.by_object.entry(*object).or_default().push(Watching { reader: self.number, number });
        }
    }

    /// Says that none of it is here, and never will be.
    pub(super) fn deny(&self, watch: &Watch) {
        let mut state = self.watchers.state();
        for (number, _) in (watch.first..).zip(&watch.objects) {
            state.tell(self.number, Presence::Absent, number);
        }
    }

    /// Answers watches, as far as better news has not answered them.
    pub(super) fn answer(&self, watch: &Watch, presence: impl Fn(&ObjectId) -> Presence) {
        for (number, object) in (watch.first..).zip(&watch.objects) {
            let presence = presence(object);
            let mut state = self.watchers.state();
            let mine = |watching: &Watching| watching.reader == self.number && watching.number == number;
            if state.by_object.get(object).is_some_and(|watching| watching.iter().any(mine)) {
                if presence == Presence::Here {
                    state.forget(self.number, number, object);
                }
                state.tell(self.number, presence, number);
            }
        }
    }

    /// What is to be sent now.
    pub(super) fn news(&self) -> Vec<Have> {
        let mut state = self.watchers.state();
        let Some(watched) = state.by_reader.get_mut(&self.number) else { return Vec::new() };
        let news = std::mem::take(&mut watched.news).into_iter();
        let haves = news.flat_map(|(presence, watches)| {
            let messages = watches.chunks(MAX_NAMED).map(|part| Have { presence, watches: part.to_vec() });
            messages.collect::<Vec<_>>()
        });
        // The worst first: what is said last about a watch holds.
        haves.rev().collect()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.watchers.state();
        if let Some(watched) = state.by_reader.remove(&self.number) {
            for (number, object) in &watched.objects {
                state.unlist(self.number, *number, object);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Kind;

    fn object(n: u64) -> ObjectId {
        ObjectId::of(Kind::Chunk, &n.to_le_bytes())
    }

    fn have(presence: Presence, watches: &[u64]) -> Have {
        Have { presence, watches: watches.to_vec() }
    }

    #[test]
    fn each_watch_is_answered_and_then_told_better_news_once() {
        let watchers = Arc::new(Watchers::default());
        let reader = watchers.reader(Arc::default());
        let watch = Watch { first: 5, objects: vec![object(1), object(2), object(3)] };
        reader.watch(&watch);
        // It comes while it is looked for.
        watchers.here(object(3));
        let presence = |o: &ObjectId| if *o == object(1) { Presence::Here } else { Presence::Absent };
        reader.answer(&watch, presence);
        assert_eq!(reader.news(), [have(Presence::Absent, &[6]), have(Presence::Here, &[7, 5])]);
        watchers.coming(object(2));
        assert_eq!(reader.news(), [have(Presence::Coming, &[6])]);
        watchers.here(object(2));
        watchers.here(object(2));
        watchers.here(object(1));
        assert_eq!(reader.news(), [have(Presence::Here, &[6])]);
        // Nothing more can be said of any of them.
        assert!(watchers.state().by_object.is_empty());
        assert!(watchers.state().by_reader.values().all(|watched| watched.objects.is_empty()));
        drop(reader);
        assert!(watchers.state().by_reader.is_empty());
    }

    #[test]
    fn a_number_that_comes_again_leaves_nothing_behind() {
        let watchers = Arc::new(Watchers::default());
        let reader = watchers.reader(Arc::default());
        for n in 1..4 {
            reader.watch(&Watch { first: 9, objects: vec![object(n)] });
        }
        watchers.here(object(1));
        watchers.here(object(3));
        assert_eq!(reader.news(), [have(Presence::Here, &[9])]);
        reader.watch(&Watch { first: 9, objects: vec![object(4)] });
        drop(reader);
        assert!(watchers.state().by_object.is_empty());
    }

    #[test]
    fn the_oldest_watches_are_forgotten() {
        let watchers = Arc::new(Watchers::default());
        let reader = watchers.reader(Arc::default());
        for first in (0..MAX_EACH as u64 + 1024).step_by(1024) {
            reader.watch(&Watch { first, objects: (first..first + 1024).map(object).collect() });
        }
        assert_eq!(watchers.state().by_object.len(), MAX_EACH);
        watchers.here(object(0));
        watchers.here(object(MAX_EACH as u64 + 1));
        assert_eq!(reader.news(), [have(Presence::Here, &[MAX_EACH as u64 + 1])]);
    }
}
