//! Large files, written to the store as one file each so that the kernel can read them by itself.
//!
//! Owns: when that is worth it, and the copying of verified chunks into a blob file.
//! Must not know: how blob files are kept, FUSE.
//! Invariant: nothing is fetched for it but the last few chunks of a file that was read to its end. A file is copied
//! by one task at a time, and one file of a mount at a time.
//! Trust: that of `view`; each chunk is verified when it is copied.
//! Threads: tasks of the runtime; the disk is waited for on its blocking pool, a batch of chunks at a time, and
//! between two batches the end of the mount ends the copy. A crash leaves what `store` says about blob files.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bcai_mount::Backing;
use futures::stream::{self, StreamExt, TryStreamExt};
use lru::LruCache;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Inode, View, ViewError};
use crate::fetch::{Class, FetchError};
use crate::id::{BlobId, ObjectId};
use crate::manifest::{Content, Extent, Node};
use crate::store::{BlobWriter, Keep, Store, StoreError};

/// The least length of a file that gets a blob file, in bytes.
const LARGE: u64 = 8 << 20;

/// Bytes that may be fetched of a file that was read to its end: what is on the way, and a chunk that was evicted.
const LAST_FEW: u64 = 32 << 20;

/// Chunks fetched at a time.
const CONCURRENT: usize = 16;

/// Chunks copied between two looks at whether the mount has ended.
const BATCH: usize = 256;

/// Files that wait to be copied.
const MAX_WAITING: usize = 256;

/// Files that were opened without a blob file, which are watched for being read to their end.
const WATCHED: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// The large files of one mount.
pub(super) struct LargeFiles {
    store: Store,
    one_at_a_time: Arc<Semaphore>,
    state: Mutex<State>,
    /// Cancelled when the mount has ended.
    ended: CancellationToken,
    _end: DropGuard,
}

struct State {
    /// By inode, what may be fetched for it, in bytes.
    waiting: HashMap<u64, u64>,
    without: LruCache<u64, Large>,
}

/// A file that is large enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Large {
    ino: u64,
    blob: BlobId,
    size: u64,
}

/// A file of which the last bytes are being read.
pub(super) struct LastRead {
    files: Arc<LargeFiles>,
    large: Large,
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Too much of the file is elsewhere.
    NotWhole,
    /// There is one already, or it does not fit, or the mount has ended.
    NotNow,
}

impl LastRead {
    /// What is missing of it must be very little now.
    pub(super) fn was_read_to_its_end(self, view: Arc<View>, runtime: &Handle) {
        self.files.start(view, runtime, self.large, LAST_FEW);
    }
}

impl LargeFiles {
    pub(super) fn new(store: Store) -> Arc<Self> {
        let ended = CancellationToken::new();
        let state = State { waiting: HashMap::new(), without: LruCache::new(WATCHED) };
        Arc::new(Self {
            store,
            one_at_a_time: Arc::new(Semaphore::new(1)),
            state: Mutex::new(state),
            _end: ended.clone().drop_guard(),
            ended,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A blob file with the content of `inode`. If there is none, but could be, it is made in the background.
    pub(super) fn backing(
        self: &Arc<Self>,
        view: &Arc<View>,
        runtime: &Handle,
        inode: &Inode,
    ) -> Option<Backing> {
        let Node::File { size, content: Content::Blob { id, .. }, .. } = inode.node else { return None };
        if size < LARGE {
            return None;
        }
        let large = Large { ino: inode.ino, blob: id, size };
        match self.store.blob_file(&large.blob) {
            // Of another length if the snapshot is wrong about the file; then reading fails, and says why.
            Ok(Some(found)) if found.len == size => {
                Some(Backing { file: found.file, size, lease: Arc::new(found.lease) })
            }
            Ok(Some(_)) => None,
            Ok(None) => {
                self.state().without.put(large.ino, large);
                self.start(Arc::clone(view), runtime, large, 0);
                None
            }
            Err(error) => {
                tracing::warn!(ino = inode.ino, %error, "a blob file cannot be used");
                None
            }
        }
    }

    /// The file, if it was opened without a blob file and a read up to `end` is the last of it.
    pub(super) fn last_read(self: &Arc<Self>, ino: u64, end: u64) -> Option<LastRead> {
        let large = *self.state().without.peek(&ino).filter(|large| end >= large.size)?;
        Some(LastRead { files: Arc::clone(self), large })
    }

    /// Copies a file in the background, unless it waits for that already.
    fn start(self: &Arc<Self>, view: Arc<View>, runtime: &Handle, large: Large, may_fetch: u64) {
        {
            let mut state = self.state();
            if let Some(granted) = state.waiting.get_mut(&large.ino) {
                *granted = may_fetch.max(*granted);
                return;
            }
            if state.waiting.len() >= MAX_WAITING {
                return;
            }
            state.waiting.insert(large.ino, may_fetch);
        }
        let files = Arc::downgrade(self);
        let (store, ended, turn) = (self.store.clone(), self.ended.clone(), Arc::clone(&self.one_at_a_time));
        runtime.spawn(async move {
            let Ok(_turn) = turn.acquire_owned().await else { return };
            let copy = Copy { view, store, ended, large };
            let mut may_fetch = may_fetch;
            loop {
                let outcome = copy.run(may_fetch).await;
                // None of this matters any more when the mount has ended.
                let Some(files) = files.upgrade() else { return };
                match files.settle(large.ino, may_fetch, outcome) {
                    Some(more) => may_fetch = more,
                    None => return,
                }
            }
        });
    }

    /// Takes note of what became of a copy. What may be fetched for another try, if that has grown meanwhile.
    fn settle(&self, ino: u64, may_fetch: u64, outcome: Result<Outcome, ViewError>) -> Option<u64> {
        let mut state = self.state();
        let granted = state.waiting.get(&ino).copied().filter(|granted| *granted > may_fetch);
        match outcome {
            Ok(Outcome::NotWhole) if granted.is_some() => return granted,
            Ok(Outcome::NotWhole) => {}
            Ok(Outcome::Done | Outcome::NotNow) => drop(state.without.pop(&ino)),
            Err(error) => tracing::warn!(ino, %error, "a large file was not copied"),
        }
        state.waiting.remove(&ino);
        None
    }
}

/// The making of one blob file.
struct Copy {
    view: Arc<View>,
    store: Store,
    ended: CancellationToken,
    large: Large,
}

impl Copy {
    /// Fetches no more than `may_fetch` bytes for it.
    async fn run(&self, may_fetch: u64) -> Result<Outcome, ViewError> {
        let Some(absent) = self.absent(may_fetch).await? else { return Ok(Outcome::NotWhole) };
        stream::iter(absent)
            .map(|extent| async move {
                let Some(chunk) = extent.chunk else { return Ok(()) };
                self.view.nodes.chunk(chunk, extent.len, false, Class::Prefetch).await.map(drop)
            })
            .buffer_unordered(CONCURRENT)
            .try_for_each(|()| async { Ok::<_, ViewError>(()) })
            .await?;
        let (store, large) = (self.store.clone(), self.large);
        let begun = on_disk(move || store.begin_blob_file(large.blob, large.size)).await?;
        let Some(writer) = begun else { return Ok(Outcome::NotNow) };
        let Some(writer) = self.copy_all(writer).await? else { return Ok(Outcome::NotNow) };
        on_disk(move || writer.finish()).await?;
        tracing::info!(ino = large.ino, bytes = large.size, blob = %large.blob, "a large file can be passed through");
        Ok(Outcome::Done)
    }

    /// What of the file is not here; `None` if it is more than may be fetched.
    async fn absent(&self, may_fetch: u64) -> Result<Option<Vec<Extent>>, ViewError> {
        let file = self.view.file(self.large.ino).await?;
        let (mut next, mut bytes, mut absent) = (0, 0u64, Vec::new());
        while next < file.size && !self.ended.is_cancelled() {
            let run = self.view.run(&file, next, Class::Prefetch).await?;
            let chunks: Vec<Extent> = run
                .extents_from(0)
                .map(|(_, extent)| extent)
                .filter(|extent| extent.chunk.is_some())
                .collect();
            let ids: Vec<ObjectId> =
                chunks.iter().filter_map(|extent| extent.chunk).map(Into::into).collect();
            let store = self.store.clone();
            let missing: HashSet<ObjectId> =
                on_disk(move || store.missing(&ids, Keep::Cache)).await?.into_iter().collect();
            let is_missing = |extent: &Extent| extent.chunk.is_some_and(|id| missing.contains(&id.into()));
            for extent in chunks.into_iter().filter(is_missing) {
                bytes = bytes.saturating_add(extent.len);
                if bytes > may_fetch {
                    return Ok(None);
                }
                absent.push(extent);
            }
            next = run.end().max(next.saturating_add(1));
        }
        Ok(Some(absent))
    }

    /// `None` if the mount ended, or a chunk is gone again.
    async fn copy_all(&self, mut writer: BlobWriter) -> Result<Option<BlobWriter>, ViewError> {
        let file = self.view.file(self.large.ino).await?;
        let mut next = 0;
        while next < file.size {
            let run = self.view.run(&file, next, Class::Prefetch).await?;
            let extents: Vec<Extent> = run.extents_from(0).map(|(_, extent)| extent).collect();
            for batch in extents.chunks(BATCH) {
                if self.ended.is_cancelled() {
                    return Ok(None);
                }
                let (view, batch) = (Arc::clone(&self.view), batch.to_vec());
                let copied = blocking(move || copy_batch(&view, writer, &batch)).await?;
                let Some(copied) = copied else { return Ok(None) };
                writer = copied;
            }
            next = run.end().max(next.saturating_add(1));
        }
        Ok(Some(writer))
    }
}

fn copy_batch(
    view: &View,
    mut writer: BlobWriter,
    batch: &[Extent],
) -> Result<Option<BlobWriter>, ViewError> {
    for extent in batch {
        let Some(id) = extent.chunk else {
            writer.skip(extent.len).map_err(unavailable)?;
            continue;
        };
        let Some(chunk) = view.nodes.local_chunk(id)? else { return Ok(None) };
        if chunk.plain().len() as u64 != extent.len {
            return Err(ViewError::unfit(id, "it is not as long as its file says"));
        }
        writer.write(&chunk).map_err(unavailable)?;
    }
    Ok(Some(writer))
}

fn unavailable(error: StoreError) -> ViewError {
    ViewError::Unavailable(FetchError::Store(Arc::new(error)))
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ViewError> {
    blocking(work).await.map_err(unavailable)
}

/// Runs what waits for the disk where that holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // Blocking tasks are not cancelled once begun, except while the runtime ends; then nobody polls this.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
