//! The fetcher against sources that count, wait, fail and lie.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::*;
use crate::id::Kind;
use crate::pack::Compression;
use crate::store::Options;

/// Serves `objects`; each call takes a permit from `gate` and works off one of `failures` first.
struct Fake {
    objects: HashMap<ObjectId, Checked>,
    calls: AtomicUsize,
    running: AtomicUsize,
    peak: AtomicUsize,
    gate: Semaphore,
    failures: Mutex<Vec<FetchError>>,
    classes: Mutex<Vec<Class>>,
}

impl Fake {
    fn new(objects: &[Checked], permits: usize) -> Arc<Fake> {
        let objects = objects.iter().map(|object| (object.id(), object.clone())).collect();
        Arc::new(Fake { objects, ..Fake::unshared(permits) })
    }

    fn unshared(permits: usize) -> Fake {
        Fake {
            objects: HashMap::new(),
            calls: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            gate: Semaphore::new(permits),
            failures: Mutex::default(),
            classes: Mutex::default(),
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// Counts a call as running until it ends or is dropped.
struct Running<'a>(&'a AtomicUsize);
impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ChunkSource for Fake {
    fn fetch(&self, id: ObjectId, class: Class) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            self.classes.lock().unwrap().push(class);
            let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            let _running = Running(&self.running);
            self.peak.fetch_max(now, Ordering::SeqCst);
            self.gate.acquire().await.unwrap().forget();
            if let Some(error) = self.failures.lock().unwrap().pop() {
                return Err(error);
            }
            self.objects.get(&id).cloned().ok_or(FetchError::NotFound { id })
        })
    }
}

fn object(text: &str) -> Checked {
    Checked::pack(Kind::Chunk, Bytes::from(text.repeat(100)), Compression::Lz4)
}

fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), Options { cache_max_bytes: 64 << 20 }).unwrap();
    (dir, store)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_waiters_make_one_request_and_the_result_is_cached() {
    let wanted = object("wanted");
    let fake = Fake::new(std::slice::from_ref(&wanted), 0);
    let (_dir, store) = store();
    let fetcher = Fetcher::new(store.clone(), Some(fake.clone()));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (fetcher, id) = (fetcher.clone(), wanted.id());
            tokio::spawn(async move { fetcher.get(id, Class::Fault).await })
        })
        .collect();
    until("the request", || fake.calls() == 1).await;
    fake.gate.add_permits(50);
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().plain(), wanted.plain());
    }
    assert_eq!(fake.calls(), 1);
    assert_eq!(fetcher.local(&wanted.id()).unwrap().unwrap().plain(), wanted.plain());
    fetcher.get(wanted.id(), Class::Fault).await.unwrap();
    assert_eq!(fake.calls(), 1, "now it is here");
    let stats = fetcher.stats();
    assert_eq!((stats.fetched, stats.fetched_bytes), (1, wanted.plain().len() as u64));
    assert!(fetcher.0.flights().by_object.is_empty());
}

#[tokio::test]
async fn a_waiter_that_leaves_takes_nobody_with_it_and_the_last_ends_the_request() {
    let wanted = object("wanted");
    let fake = Fake::new(std::slice::from_ref(&wanted), 0);
    let (_dir, store) = store();
    let fetcher = Fetcher::new(store, Some(fake.clone()));
    let spawn = || {
        let (fetcher, id) = (fetcher.clone(), wanted.id());
        tokio::spawn(async move { fetcher.get(id, Class::Fault).await })
    };
    // The first to come is the one that polls the request; it must not matter that it goes.
    let first = spawn();
    until("the request", || fake.calls() == 1).await;
    let second = spawn();
    until("the second waiter", || {
        let flights = fetcher.0.flights();
        flights.by_object.values().any(|flight| {
            flight.future.upgrade().and_then(|future| future.strong_count()).is_some_and(|count| count >= 3)
        })
    })
    .await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    fake.gate.add_permits(1);
    assert_eq!(second.await.unwrap().unwrap().plain(), wanted.plain());
    assert_eq!(fake.calls(), 1);

    let missing = object("missing").id();
    let lonely = tokio::spawn({
        let fetcher = fetcher.clone();
        async move { fetcher.get(missing, Class::Fault).await }
    });
    until("the request", || fake.calls() == 2).await;
    lonely.abort();
    until("the end of the request", || fake.running.load(Ordering::SeqCst) == 0).await;
    until("the landing", || fetcher.0.flights().by_object.is_empty()).await;
}

#[tokio::test]
async fn a_reader_hurries_what_was_only_prefetched() {
    let wanted = object("wanted");
    let fake = Fake::new(std::slice::from_ref(&wanted), 0);
    let (_dir, store) = store();
    let fetcher = Fetcher::new(store, Some(fake.clone()));
    let spawn = |class| {
        let (fetcher, id) = (fetcher.clone(), wanted.id());
        tokio::spawn(async move { fetcher.get(id, class).await })
    };
    let patient = spawn(Class::Prefetch);
    until("the request", || fake.calls() == 1).await;
    let urgent = spawn(Class::Fault);
    until("the second request", || fake.calls() == 2).await;
    let also = spawn(Class::Readahead);
    fake.gate.add_permits(1);
    for task in [patient, urgent, also] {
        task.await.unwrap().unwrap();
    }
    assert_eq!(*fake.classes.lock().unwrap(), [Class::Prefetch, Class::Fault]);
    assert_eq!(fake.peak.load(Ordering::SeqCst), 1, "one at a time");
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_will_not_is_told_at_once() {
    let wanted = object("wanted");
    let id = wanted.id();
    let fake = Fake::new(std::slice::from_ref(&wanted), 100);
    let (_dir, store) = store();
    let fetcher = Fetcher::new(store, Some(fake.clone()));
    *fake.failures.lock().unwrap() = vec![
        FetchError::TimedOut { id, after: Duration::from_secs(1) },
        FetchError::Unreachable { id, cause: "nobody".into() },
    ];
    assert_eq!(fetcher.get(id, Class::Fault).await.unwrap().plain(), wanted.plain());
    assert_eq!((fake.calls(), fetcher.stats().retries), (3, 2));

    let missing = object("missing").id();
    assert!(
        matches!(fetcher.get(missing, Class::Fault).await, Err(FetchError::NotFound { id }) if id == missing)
    );
    *fake.failures.lock().unwrap() = vec![FetchError::Corrupt { id: missing, cause: "a lie".into() }];
    assert!(matches!(fetcher.get(missing, Class::Fault).await, Err(FetchError::Corrupt { .. })));
    assert_eq!((fake.calls(), fetcher.stats().corrupt), (5, 1));
}

#[tokio::test]
async fn an_answer_that_is_another_object_is_an_error() {
    let (wanted, other) = (object("wanted"), object("other"));
    let fake = Arc::new(Fake { objects: HashMap::from([(wanted.id(), other)]), ..Fake::unshared(10) });
    let (_dir, store) = store();
    let fetcher = Fetcher::new(store, Some(fake));
    assert!(matches!(fetcher.get(wanted.id(), Class::Fault).await, Err(FetchError::Corrupt { .. })));
    assert!(fetcher.local(&wanted.id()).unwrap().is_none());
}

/// Flips a bit of `object`, which is stored raw, in the pack files below `dir`.
fn damage(dir: &std::path::Path, object: &Checked) {
    for file in std::fs::read_dir(dir.join("packs")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let plain = object.plain();
        if let Some(at) = bytes.windows(plain.len()).position(|window| window == plain) {
            bytes[at + plain.len() / 2] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("{} is in no pack", object.id());
}

/// A published object that was read wrong once was forgotten, and what came in its place was cached: the next
/// snapshot of a larger tree evicted it.
#[tokio::test]
async fn a_damaged_published_object_is_fetched_again_and_published_still() {
    let wanted = Checked::pack(Kind::Chunk, Bytes::from("wanted".repeat(50)), Compression::None);
    let fake = Fake::new(std::slice::from_ref(&wanted), 10);
    let (dir, store) = store();
    store.put(std::slice::from_ref(&wanted), Keep::Published).unwrap();
    store.commit().unwrap();
    let fetcher = Fetcher::new(store.clone(), Some(fake.clone()));
    assert!(fetcher.local(&wanted.id()).unwrap().is_some());
    damage(dir.path(), &wanted);
    assert!(fetcher.local(&wanted.id()).unwrap().is_none());
    assert!(store.contains(&wanted.id()).unwrap(), "it is still known to be wrong");
    for _ in 0..2 {
        assert_eq!(fetcher.get(wanted.id(), Class::Fault).await.unwrap().plain(), wanted.plain());
    }
    let stats = fetcher.stats();
    assert_eq!((stats.corrupt, stats.fetched, fake.calls()), (2, 1, 1));
    assert_eq!(store.missing(&[wanted.id()], Keep::Published).unwrap(), []);
    let stats = store.stats().unwrap();
    assert_eq!((stats.objects, stats.cached_bytes), (1, 0));
}

#[tokio::test]
async fn without_a_source_only_what_is_here_is_found() {
    let (_dir, store) = store();
    let here = object("here");
    store.put(std::slice::from_ref(&here), Keep::Published).unwrap();
    let missing = object("missing");
    let fake = Fake::new(std::slice::from_ref(&missing), 10);
    let asks = Fetcher::new(store, Some(fake.clone()));
    let fetcher = asks.with_source(None);
    assert_eq!(fetcher.get(here.id(), Class::Fault).await.unwrap().plain(), here.plain());
    let error = fetcher.get(missing.id(), Class::Fault).await.unwrap_err();
    assert!(matches!(error, FetchError::NotAsked { .. }) && error.to_string().contains("bcai prefetch"));
    assert!(fetcher.local(&missing.id()).unwrap().is_none());
    assert_eq!((fetcher.stats().local_hits, fake.calls()), (1, 0));
    // What the other brings is here for both, also before it is written.
    asks.get(missing.id(), Class::Fault).await.unwrap();
    assert_eq!(fetcher.get(missing.id(), Class::Fault).await.unwrap().plain(), missing.plain());
    assert_eq!((fetcher.stats(), fake.calls()), (asks.stats(), 1));
}

/// A whole epoch that was fetched ahead of its reader counted twice: as fetched, and as saved.
#[tokio::test]
async fn what_is_looked_for_ahead_is_neither_found_nor_waited_for() {
    let [ahead, needed] = ["ahead", "needed"].map(object);
    let fake = Fake::new(&[ahead.clone(), needed.clone()], 10);
    let (_dir, store) = store();
    let fetcher = Fetcher::new(store, Some(fake));
    let counts = || {
        let stats = fetcher.stats();
        (stats.local_hits, stats.awaited, stats.fetched)
    };
    fetcher.get(ahead.id(), Class::Readahead).await.unwrap();
    fetcher.get(ahead.id(), Class::Prefetch).await.unwrap();
    assert_eq!(counts(), (0, 0, 1));
    fetcher.get(ahead.id(), Class::Fault).await.unwrap();
    assert_eq!(counts(), (1, 0, 1));
    let waits = fetcher.get(needed.id(), Class::Fault);
    // It was on its way before anybody needed it, and is waited for all the same.
    let (first, second) = futures::join!(fetcher.get(needed.id(), Class::Readahead), waits);
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(counts(), (1, 1, 2));
}

#[tokio::test]
async fn get_many_keeps_the_order_and_its_bound() {
    let objects: Vec<_> = (0..200).map(|n| object(&format!("object {n}"))).collect();
    let fake = Fake::new(&objects, 1000);
    let (_dir, store) = store();
    let fetcher = Fetcher::new(store, Some(fake.clone()));
    let ids: Vec<_> = objects.iter().rev().map(Checked::id).collect();
    let got = fetcher.get_many(&ids, Class::Prefetch).await.unwrap();
    assert_eq!(got.iter().map(Checked::id).collect::<Vec<_>>(), ids);
    assert!(fake.peak.load(Ordering::SeqCst) <= CONCURRENT);
    let with_a_hole = [ids[0], object("missing").id()];
    assert!(fetcher.get_many(&with_a_hole, Class::Prefetch).await.is_err());
}

fn large(seed: u8) -> Checked {
    Checked::pack(Kind::Chunk, Bytes::from(vec![seed; 2 << 20]), Compression::None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_do_not_wait_for_a_slow_disk_and_what_it_cannot_take_is_not_cached() {
    // Each takes 4 MiB of the queue: once plain, once as stored.
    let objects: Vec<_> = (0..20).map(large).collect();
    let fake = Fake::new(&objects, 1000);
    let (_dir, store) = store();
    let fetcher = Fetcher::new(store.clone(), Some(fake.clone()));
    let fits = behind::QUEUE / (4 << 20) - 1;
    {
        let slow = fetcher.0.behind.gate.lock();
        for object in &objects {
            let class = if object.id() == objects[0].id() { Class::Fault } else { Class::Readahead };
            assert_eq!(fetcher.get(object.id(), class).await.unwrap().plain(), object.plain());
        }
        assert_eq!(fetcher.stats().bypassed, (objects.len() - fits) as u64);
        assert!(!store.contains(&objects[0].id()).unwrap(), "the disk has not taken it yet");
        // What waits to be written is here.
        assert!(fetcher.local(&objects[0].id()).unwrap().is_some());
        fetcher.get(objects[0].id(), Class::Fault).await.unwrap();
        assert_eq!(fake.calls(), objects.len());
        let ids: Vec<_> = objects.iter().map(Checked::id).collect();
        assert_eq!(fetcher.missing(&ids).unwrap(), ids[fits..]);
        drop(slow);
    }
    fetcher.flush().await;
    assert!(store.contains(&objects[0].id()).unwrap());
    fetcher.get(objects[19].id(), Class::Fault).await.unwrap();
    assert_eq!(fake.calls(), objects.len() + 1, "it was not cached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefetch_waits_for_the_disk_and_loses_nothing() {
    let objects: Vec<_> = (0..20).map(large).collect();
    let fake = Fake::new(&objects, 1000);
    let (_dir, store) = store();
    let fetcher = Fetcher::new(store.clone(), Some(fake.clone()));
    let tasks: Vec<_> = {
        let _slow = fetcher.0.behind.gate.lock();
        let tasks = objects.iter().map(|object| {
            let (fetcher, id) = (fetcher.clone(), object.id());
            tokio::spawn(async move { fetcher.get(id, Class::Prefetch).await })
        });
        let tasks: Vec<_> = tasks.collect();
        while fake.calls() < objects.len() {
            std::thread::yield_now();
        }
        assert!(tasks.iter().any(|task| !task.is_finished()));
        tasks
    };
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    fetcher.flush().await;
    assert!(objects.iter().all(|object| store.contains(&object.id()).unwrap()));
    assert_eq!(fetcher.stats().bypassed, 0);
}
