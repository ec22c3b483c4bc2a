//! Views whose objects are elsewhere: in time, too late, and not at all.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bcai_mount::{Answer, Tree, TreeError};
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::Barrier;

use super::*;
use crate::fetch::{ChunkSource, Class};
use crate::id::FileHash;
use crate::manifest::Content;
use crate::view::ahead::{Ahead, Read};

const LONG: Duration = Duration::from_secs(20);

/// Has objects, except those it lost; answers for some only when the test lets it.
pub(super) struct Source {
    objects: HashMap<ObjectId, Checked>,
    pub(super) asked: Mutex<Vec<ObjectId>>,
    /// Chunks are answered when so many are being asked for.
    together: Option<Barrier>,
    /// Nothing is answered while somebody has it for writing.
    gate: tokio::sync::RwLock<()>,
}

impl ChunkSource for Source {
    fn fetch(&self, id: ObjectId, _: Class) -> BoxFuture<'_, Result<Checked, FetchError>> {
        self.asked.lock().unwrap().push(id);
        async move {
            // Like any network, never at once.
            tokio::task::yield_now().await;
            drop(self.gate.read().await);
            if let (Kind::Chunk, Some(barrier)) = (id.kind, &self.together) {
                barrier.wait().await;
            }
            self.objects.get(&id).cloned().ok_or(FetchError::NotFound { id })
        }
        .boxed()
    }
}

const CHUNKS: usize = 8;

/// A directory with one file of eight chunks.
fn built() -> Built {
    let mut builder = Builder::new(100);
    let extents: Vec<Extent> = (0..CHUNKS).map(|i| builder.chunk(vec![i as u8; 1000])).collect();
    let top = builder.file(&extents);
    let content = Content::Blob { id: top.blob, chunks: top.chunks, hash: FileHash::from_bytes([0; 32]) };
    let file = Node::File { meta: meta(0o644), nlink: 1, size: top.bytes, content };
    let dir = builder.directory(&[entry("file", file)]);
    let dir = Node::Dir { meta: meta(0o755), tree: dir.tree, totals: dir.totals };
    builder.finish(meta(0o755), &[entry("dir", dir)])
}

pub(super) fn source(built: &Built, lost: impl Fn(ObjectId) -> bool, together: Option<usize>) -> Arc<Source> {
    let kept = built.objects.iter().filter(|object| !lost(object.id()));
    Arc::new(Source {
        objects: kept.map(|object| (object.id(), object.clone())).collect(),
        asked: Mutex::default(),
        together: together.map(Barrier::new),
        gate: tokio::sync::RwLock::default(),
    })
}

pub(super) async fn open(home: &Home, source: Arc<Source>, id: SnapshotId) -> Arc<View> {
    let fetcher = Fetcher::new(home.store.clone(), Some(source));
    View::open(fetcher, Cache::default(), id, Options::default()).await.unwrap()
}

fn mounted(view: &Arc<View>, deadline: Duration) -> MountedView {
    MountedView::new(view.clone(), tokio::runtime::Handle::current(), deadline)
}

fn answer<T: ToOwned + ?Sized>() -> (Answer<T>, Receiver<Result<T::Owned, TreeError>>)
where
    T::Owned: Send + 'static,
{
    let (sender, receiver) = channel();
    let answer = Answer::new(move |result: Result<&T, _>| {
        sender.send(result.map(ToOwned::to_owned)).expect("the test waits for the answer");
    });
    (answer, receiver)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chunks_of_one_read_are_fetched_together() {
    let (home, built) = (Home::new(), built());
    let source = source(&built, |_| false, Some(CHUNKS));
    let view = open(&home, source.clone(), built.id).await;
    let read = tokio::time::timeout(LONG, view.read(3, 0, 1 << 20)).await.expect("all asked for at once");
    assert_eq!(read.unwrap(), (0..CHUNKS).flat_map(|i| [i as u8; 1000]).collect::<Vec<_>>());
    let asked = source.asked.lock().unwrap().len();
    assert_eq!(view.read(3, 0, 1 << 20).await.unwrap().len(), 1000 * CHUNKS);
    assert_eq!(source.asked.lock().unwrap().len(), asked, "now they are here");
}

/// A walk that waited for each directory took 4 s for 351 of them beside a second peer, and half a second without: whom to ask is
/// found out for each, and takes some 10 ms.
#[tokio::test(flavor = "multi_thread")]
async fn the_directories_beside_each_other_are_fetched_together() {
    let (home, mut builder) = (Home::new(), Builder::new(100));
    let below = |n: usize, builder: &mut Builder| {
        let link = Node::Symlink { meta: meta(0o777), nlink: 1, target: n.to_string().into_bytes() };
        let dir = builder.directory(&[entry("link", link)]);
        entry(&format!("dir{n:02}"), Node::Dir { meta: meta(0o755), tree: dir.tree, totals: dir.totals })
    };
    let dirs: Vec<Entry> = (0..20).map(|n| below(n, &mut builder)).collect();
    let built = builder.finish(meta(0o755), &dirs);
    let source = source(&built, |_| false, None);
    let view = open(&home, source.clone(), built.id).await;
    let root = view.snapshot().tree;
    view.nodes.bring(view.nodes.stored(root), Class::Prefetch).await.unwrap();
    source.asked.lock().unwrap().clear();
    let closed = source.gate.write().await;
    let mut contents = Contents::new(view.clone(), Globs::new(&[]).unwrap(), Some(Class::Prefetch));
    let walk = tokio::spawn(async move {
        let mut trees = Vec::new();
        while let Some(found) = contents.next().await.unwrap() {
            trees.extend(found.trees);
        }
        trees
    });
    let all_asked = async {
        while source.asked.lock().unwrap().len() < 20 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, all_asked).await.expect("all are asked for before one has come");
    drop(closed);
    assert_eq!(tokio::time::timeout(LONG, walk).await.unwrap().unwrap().len(), 21);
    assert_eq!(source.asked.lock().unwrap().len(), 20, "each once");
}

/// A walk down into one directory after the other waited once for each that has others in it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_below_other_directories_is_fetched_before_the_walk_comes_to_it() {
    let (home, mut builder) = (Home::new(), Builder::new(100));
    let file = Node::File { meta: meta(0o644), nlink: 1, size: 0, content: Content::Empty };
    let below = |n: usize, builder: &mut Builder| {
        let mut inner = entry("file", file.clone());
        for depth in 0..3 {
            let dir = builder.directory(&[inner]);
            let node = Node::Dir { meta: meta(0o755), tree: dir.tree, totals: dir.totals };
            inner = entry(&format!("dir{n:02}.{depth}"), node);
        }
        inner
    };
    let dirs: Vec<Entry> = (0..20).map(|n| below(n, &mut builder)).collect();
    let built = builder.finish(meta(0o755), &dirs);
    let source = source(&built, |_| false, None);
    let view = open(&home, source.clone(), built.id).await;
    let mut contents = Contents::new(view, Globs::new(&[]).unwrap(), Some(Class::Prefetch));
    assert_eq!(
        contents.next().await.unwrap().unwrap().files.len(),
        1,
        "the walk stands in the first directory"
    );
    let trees = || source.asked.lock().unwrap().iter().filter(|id| id.kind == Kind::Tree).count();
    // Those of files are the same for all.
    let all = 1 + 1 + 20 * 2;
    let all_asked = async {
        while trees() < all {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, all_asked).await.expect("all are fetched while it stands there");
    while contents.next().await.unwrap().is_some() {}
    assert_eq!(trees(), all, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_is_answered_at_once_and_what_is_not_later() {
    let (home, built) = (Home::new(), built());
    let source = source(&built, |_| false, None);
    let mounted = mounted(&open(&home, source, built.id).await, LONG);
    let (sent, received) = answer();
    mounted.read(3, 500, 1000, sent);
    let read = received.recv_timeout(LONG).unwrap().unwrap();
    assert_eq!(read, [[0; 500], [1; 500]].concat());
    let (sent, received) = answer();
    mounted.read(3, 500, 1000, sent);
    assert_eq!(received.try_recv().expect("before `read` returned").unwrap(), read);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_never_missing() {
    let (home, built) = (Home::new(), built());
    let view = {
        let root = built.objects.iter().rev().find(|object| object.id().kind == Kind::Tree).unwrap().id();
        let source = source(&built, |id| id.kind == Kind::Tree && id != root, None);
        open(&home, source, built.id).await
    };
    let mounted = mounted(&view, LONG);
    assert!(matches!(view.resolve(b"dir/file").await, Err(ViewError::Unavailable(_))));
    let (sent, received) = answer();
    mounted.lookup(2, b"file", sent);
    assert_eq!(received.recv_timeout(LONG).unwrap(), Err(TreeError::Io));
    let (sent, received) = answer();
    mounted.read_dir(2, 0, 10, sent);
    assert_eq!(received.recv_timeout(LONG).unwrap(), Err(TreeError::Io));
    // What is known to be missing is.
    let (sent, received) = answer();
    mounted.lookup(ROOT, b"other", sent);
    assert_eq!(received.recv_timeout(LONG).unwrap(), Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_is_a_time_out() {
    let (home, built) = (Home::new(), built());
    // Nobody ever asks for so many.
    let source = source(&built, |_| false, Some(1000));
    let mounted = mounted(&open(&home, source, built.id).await, Duration::from_millis(50));
    let (sent, received) = answer();
    mounted.read(3, 0, 1000, sent);
    assert_eq!(received.recv_timeout(LONG).unwrap(), Err(TreeError::TimedOut));
}

/// Reads two chunks of the file one after the other. The first has to be waited for: a thread that stands still for a moment within
/// the call would find it here, and whoever finds everything is not read ahead for.
async fn read_the_beginning(mounted: &MountedView, source: &Source) {
    for offset in [0, 1000] {
        let (sent, received) = answer();
        let closed = source.gate.write().await;
        mounted.read(3, offset, 1000, sent);
        drop(closed);
        received.recv_timeout(LONG).unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_read_in_order_is_fetched_ahead() {
    let (home, built) = (Home::new(), built());
    let source = source(&built, |_| false, None);
    let mounted = mounted(&open(&home, source.clone(), built.id).await, LONG);
    read_the_beginning(&mounted, &source).await;
    let chunks = || source.asked.lock().unwrap().iter().filter(|id| id.kind == Kind::Chunk).count();
    let all = async {
        while chunks() < CHUNKS {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, all).await.expect("the rest of the file is asked for without being read");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_ahead_is_told_and_it_can_be_turned_off() {
    let built = built();
    for fixed in [None, Some(0)] {
        let (home, watch) = (Home::new(), Arc::new(Watch::default()));
        let source = source(&built, |_| false, None);
        let view = open(&home, source.clone(), built.id).await;
        let mounted = mounted(&view, LONG).reading_ahead(fixed).watched(watch.clone());
        read_the_beginning(&mounted, &source).await;
        let figures = || watch.ahead().unwrap();
        assert_eq!(figures().fixed, fixed);
        if fixed == Some(0) {
            let chunks = source.asked.lock().unwrap().iter().filter(|id| id.kind == Kind::Chunk).count();
            assert_eq!((chunks, figures().fetched, figures().readers, figures().window), (2, 0, 0, 0));
            continue;
        }
        // Before anything is waited for: a reader that has not read for three seconds has left.
        assert_eq!((figures().readers, figures().unread), (1, 0));
        let all = async {
            while figures().fetched < 1000 * (CHUNKS as u64 - 2) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, all).await.expect("all that was not read is fetched ahead");
    }
}

/// A thread that stood still with a read made a new reader of the one that had gone on meanwhile, twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_comes_late_is_no_jump() {
    const MIB: u64 = 1 << 20;
    let (home, built) = (Home::new(), built());
    let view = open(&home, source(&built, |_| false, None), built.id).await;
    let ahead = Ahead::new(view, tokio::runtime::Handle::current(), None);
    let read = |at: u64| {
        let read = Read { ino: 3, offset: at * MIB, end: (at + 1) * MIB, was_here: at > 0 };
        ahead.was_read(read, || Some(1 << 40));
    };
    (0..20).for_each(read);
    assert_eq!(ahead.figures().readers, 1);
    read(12);
    assert_eq!(ahead.figures().readers, 1, "it is still ahead of the same one");
    (20..25).for_each(read);
    // Who goes on from there has jumped, and has nothing ahead of it until it reads on.
    (5..14).for_each(read);
    assert_eq!(ahead.figures().readers, 0);
    read(14);
    assert_eq!(ahead.figures().readers, 1);
}

/// A disk that answered a read with an error was a reader's error too, though others had the object: the read ended
/// before anybody was asked.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_cannot_give_is_fetched() {
    let (home, built) = (Home::new(), built());
    let (id, source) = (built.id, source(&built, |_| false, None));
    home.put(built.objects);
    // A directory can be opened like a file, and not read.
    let pack = home.dir.path().join("packs/00000000.pack");
    std::fs::remove_file(&pack).unwrap();
    std::fs::create_dir(&pack).unwrap();
    let mounted = mounted(&open(&home, source.clone(), id).await, LONG);
    let (sent, received) = answer();
    mounted.read(3, 500, 1000, sent);
    assert_eq!(received.recv_timeout(LONG).unwrap().unwrap(), [[0; 500], [1; 500]].concat());
    assert!(!source.asked.lock().unwrap().is_empty());
}
