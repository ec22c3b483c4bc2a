//! In which order a prefetch asks for what it needs.

use std::sync::Mutex;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::fetch::{ChunkSource, FetchError};
use crate::id::{Kind as ObjectKind, SnapshotId};
use crate::ingest;
use crate::pack::Checked;
use crate::store::{Options, Store};
use crate::view::{Cache, Contents, Globs};

const FILES: usize = 12;

/// Gives what another store has. What names the chunks of files is given in the opposite of the order in which it was asked for, when
/// all of it has been.
struct Backwards {
    store: Store,
    asked: Mutex<Vec<ObjectId>>,
    names: watch::Sender<usize>,
}

impl ChunkSource for Backwards {
    fn fetch(&self, id: ObjectId, _: Class) -> BoxFuture<'_, Result<Checked, FetchError>> {
        let place = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(id);
            asked.iter().filter(|id| id.kind == ObjectKind::Blob).count()
        };
        async move {
            if id.kind == ObjectKind::Blob {
                if place == FILES {
                    self.names.send_replace(FILES);
                }
                self.names.subscribe().wait_for(|next| *next == place).await.unwrap();
                self.names.send_replace(place - 1);
            }
            Ok(self.store.get(&id).unwrap().unwrap().verify(&id).unwrap())
        }
        .boxed()
    }
}

/// Gives what another store has, but one object not before another was asked for.
struct Withholding {
    store: Store,
    held: ObjectId,
    until: ObjectId,
    asked: watch::Sender<bool>,
}

impl ChunkSource for Withholding {
    fn fetch(&self, id: ObjectId, _: Class) -> BoxFuture<'_, Result<Checked, FetchError>> {
        async move {
            if id == self.until {
                self.asked.send_replace(true);
            }
            if id == self.held {
                self.asked.subscribe().wait_for(|asked| *asked).await.unwrap();
            }
            Ok(self.store.get(&id).unwrap().unwrap().verify(&id).unwrap())
        }
        .boxed()
    }
}

fn store(dir: &TempDir) -> Store {
    Store::open(&dir.path().join("store"), Options { cache_max_bytes: 64 << 20 }).unwrap()
}

/// A dataset of so many files of so many bytes.
fn published(dir: &TempDir, files: usize, len: usize) -> (Store, SnapshotId) {
    let (tree, store) = (dir.path().join("tree"), store(dir));
    std::fs::create_dir(&tree).unwrap();
    for file in 0..files {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&[file as u8]).finalize_xof().fill(&mut bytes);
        std::fs::write(tree.join(format!("{file:02}")), bytes).unwrap();
    }
    let progress = ingest::Progress::default();
    let done = ingest::snapshot(&tree, &store, &ingest::Options::default(), &progress).unwrap();
    (store, done.snapshot)
}

async fn opened(fetcher: &Fetcher, snapshot: SnapshotId) -> (Arc<View>, Vec<FileContent>) {
    let view = View::open(fetcher.clone(), Cache::default(), snapshot, Default::default()).await.unwrap();
    let mut contents = Contents::new(view.clone(), Globs::new(&[]).unwrap(), Some(Class::Prefetch));
    let files = contents.next().await.unwrap().unwrap().files;
    (view, files)
}

/// Each piece of a large file was waited for to its last chunk, while a crowd that brings it had nothing to give to each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_piece_of_a_file_begins_before_the_last_is_whole() {
    let (there, here) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (store_there, snapshot) = published(&there, 1, 16 << 20);
    let (view, files) = opened(&Fetcher::new(store_there.clone(), None), snapshot).await;
    let pieces: Vec<Piece> = pieces(&view, &files[0], u64::MAX, Class::Prefetch).try_collect().await.unwrap();
    // Each begins with what names it.
    let mut with_chunks = pieces.iter().filter(|piece| piece.len() > 1);
    let (held, until) =
        (with_chunks.next().unwrap().last().unwrap().0, with_chunks.next().unwrap().last().unwrap().0);
    let asked = watch::Sender::new(false);
    let source = Arc::new(Withholding { store: store_there, held, until, asked });
    let fetcher = Fetcher::new(store(&here), Some(source));
    let (view, files) = opened(&fetcher, snapshot).await;
    let bringer = Bringer::new(fetcher, Class::Prefetch);
    let all = bringer.beginning(&view, &files[0], u64::MAX);
    let brought =
        tokio::time::timeout(Duration::from_secs(20), all).await.expect("the second piece is asked for");
    // What names the chunks was fetched to see them.
    assert!(brought.unwrap() >= 16 << 20);
}

/// The chunks were asked for in the order in which what names them came, which is another on each node of a crowd: each of
/// eight wanted something else, and they had nothing to give to each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_asked_for_in_their_order_whenever_their_names_come() {
    let (there, here) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (store_there, snapshot) = published(&there, FILES, 1500 << 10);
    let names = watch::Sender::new(0);
    let source = Arc::new(Backwards { store: store_there, asked: Mutex::default(), names });
    let fetcher = Fetcher::new(store(&here), Some(source.clone()));
    let (view, files) = opened(&fetcher, snapshot).await;
    assert_eq!(files.len(), FILES);

    // Room for one file and a little.
    let room = Arc::new(Semaphore::new(1600));
    let bringer = Bringer { fetcher, room, class: Class::Prefetch };
    let (met, mut pieces) = mpsc::channel(16);
    let mut row = Row::new(view.clone(), bringer, met);
    files.iter().for_each(|file| row.add(file.clone()));
    let bring = async {
        while row.has_waiting() {
            row.begin().await;
        }
        while let Some(brought) = row.tasks.join_next().await {
            brought.unwrap().unwrap();
        }
    };
    let met = async { while pieces.recv().await.is_some() {} };
    tokio::select! {
        () = bring => {}
        () = met => unreachable!("the row has a sender"),
    }

    let mut file_of = std::collections::HashMap::new();
    for (number, file) in files.iter().enumerate() {
        let mut objects = file.objects();
        while let Some(piece) = objects.next(&view, Class::Prefetch).await.unwrap() {
            file_of.extend(piece.into_iter().map(|(id, _)| (id, number)));
        }
    }
    let asked = source.asked.lock().unwrap();
    let order: Vec<usize> =
        asked.iter().filter(|id| id.kind == ObjectKind::Chunk).map(|id| file_of[id]).collect();
    assert!(order.len() > 3 * FILES, "{order:?}");
    // The last chunks of one are still looked for here while the next ones begin.
    let (mut latest, mut behind) = (0, 0);
    for file in &order {
        latest = latest.max(*file);
        behind = behind.max(latest - file);
    }
    assert!(behind <= 3, "{order:?}");
}
