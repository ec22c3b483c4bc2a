//! A view as a tree that can be mounted.
//!
//! Owns: how a question of the kernel becomes a future, where that runs and for how long, what its failure is called, and that
//! it is counted (`watching`).
//! Must not know: FUSE; how files are found and read.
//! Invariant: every question is answered within the deadline. What could not be had is never "not found".
//! Trust: that of `view`.
//! Threads: a future is polled once on the FUSE thread that asks, where local objects are read at once; what then
//! still waits goes on as a task of the runtime, where nothing blocks.

use std::borrow::Borrow;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bcai_mount::{Answer, Attr, Backing, Lease, Listing, Seek, StatFs, Tree, TreeError};
use tokio::runtime::Handle;

use super::ahead::{Ahead, Read};
use super::materialise::LargeFiles;
use super::watching::{Answered, Operation, Source, Watch};
use super::{Inode, View, ViewError, at};
use crate::fetch::FetchError;
use crate::id::SnapshotId;
use crate::store::Store;

/// How long the path of a file may take to find for a message about it.
const NAMING: Duration = Duration::from_secs(1);

tokio::task_local! {
    static ON_FUSE_THREAD: ();
}

/// Whether the future being polled may wait for the local disk.
pub(super) fn may_block() -> bool {
    ON_FUSE_THREAD.try_with(|()| ()).is_ok()
}

/// A view that can be mounted.
pub struct MountedView {
    view: Arc<View>,
    runtime: Handle,
    deadline: Duration,
    ahead: Arc<Ahead>,
    large_files: Option<Arc<LargeFiles>>,
    /// Kept for those who use the view.
    kept: Option<Lease>,
    watch: Arc<Watch>,
}

/// A question of the kernel.
#[derive(Clone, Copy)]
struct Asked {
    operation: Operation,
    ino: u64,
    offset: u64,
    len: u32,
}

impl Asked {
    /// About all of a file or directory.
    fn about(operation: Operation, ino: u64) -> Self {
        Self { operation, ino, offset: 0, len: 0 }
    }
}

impl MountedView {
    /// What waits for longer than `deadline` is answered with a time-out. Work goes on in `runtime`.
    pub fn new(view: Arc<View>, runtime: Handle, deadline: Duration) -> Self {
        let ahead = Arc::new(Ahead::new(Arc::clone(&view), runtime.clone(), None));
        Self { view, runtime, deadline, ahead, large_files: None, kept: None, watch: Arc::default() }
    }

    /// Lets the kernel read large files by itself, from blob files that are written to `store` in the background.
    pub fn passing_through(mut self, store: Store) -> Self {
        self.large_files = Some(LargeFiles::new(store));
        self
    }

    /// Keeps something as long as the view is mounted, or used after another has taken its place.
    pub fn keeping(mut self, kept: Lease) -> Self {
        self.kept = Some(kept);
        self
    }

    /// Fetches so many bytes ahead of each reader instead of what is found to be right; nothing at all if that is 0.
    pub fn reading_ahead(mut self, fixed: Option<u64>) -> Self {
        self.ahead = Arc::new(Ahead::new(Arc::clone(&self.view), self.runtime.clone(), fixed));
        self
    }

    /// Counts, and tells whoever watches, what is answered, and from now on what was fetched ahead.
    pub fn watched(mut self, watch: Arc<Watch>) -> Self {
        watch.reads_ahead(&self.ahead);
        self.watch = watch;
        self
    }

    /// What is known of the inode `ino` without waiting for the network.
    fn inode_at_once(&self, ino: u64) -> Option<Inode> {
        let _runtime = self.runtime.enter();
        let mut inode = pin!(self.view.inode(ino));
        let mut nobody = Context::from_waker(Waker::noop());
        match ON_FUSE_THREAD.sync_scope((), || inode.as_mut().poll(&mut nobody)) {
            Poll::Ready(Ok(inode)) => Some(inode),
            _ => None,
        }
    }

    /// Answers with what `future` gives; at once if it can, else later. Whether it was at once.
    fn serve<T, O>(
        &self,
        asked: Asked,
        future: impl Future<Output = Result<O, ViewError>> + Send + 'static,
        answer: Answer<T>,
    ) -> bool
    where
        T: ?Sized + 'static,
        O: Borrow<T> + Send + 'static,
    {
        let begun = Instant::now();
        let mut future = Box::pin(future);
        let _runtime = self.runtime.enter();
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready(result) = ON_FUSE_THREAD.sync_scope((), || future.as_mut().poll(&mut nobody)) {
            let error = give(&self.view, asked.ino, result, answer);
            note(&self.watch, self.view.id(), asked, begun, Source::Here, error);
            return true;
        }
        let (view, watch, deadline) = (Arc::clone(&self.view), Arc::clone(&self.watch), self.deadline);
        let snapshot = view.id();
        self.runtime.spawn(async move {
            let error = match tokio::time::timeout(deadline, future).await {
                Ok(result) => give(&view, asked.ino, result, answer),
                Err(_) => {
                    answer.send(Err(TreeError::TimedOut));
                    // A task of its own, since finding the file's name may take a while.
                    tokio::spawn(complain(view, asked.ino, format!("no answer within {deadline:?}")));
                    Some(TreeError::TimedOut)
                }
            };
            note(&watch, snapshot, asked, begun, Source::Elsewhere, error);
        });
        false
    }
}

/// Counts an answer.
fn note(
    watch: &Watch,
    snapshot: SnapshotId,
    asked: Asked,
    begun: Instant,
    source: Source,
    error: Option<TreeError>,
) {
    let Asked { operation, ino, offset, len } = asked;
    watch.answered(Answered { operation, snapshot, ino, offset, len, took: begun.elapsed(), source, error });
}

/// Answers; what it has to say if there is nothing to give.
fn give<T: ?Sized, O: Borrow<T>>(
    view: &Arc<View>,
    ino: u64,
    result: Result<O, ViewError>,
    answer: Answer<T>,
) -> Option<TreeError> {
    match result {
        Ok(value) => {
            answer.send(Ok(value.borrow()));
            None
        }
        Err(error) => {
            let told = tree_error(&error);
            answer.send(Err(told));
            if matches!(error, ViewError::Unavailable(_) | ViewError::Unfit { .. }) {
                // Both callers of this are inside the runtime.
                tokio::spawn(complain(Arc::clone(view), ino, error.to_string()));
            }
            Some(told)
        }
    }
}

/// The one line in the log about something that could not be had.
async fn complain(view: Arc<View>, ino: u64, error: String) {
    let path = tokio::time::timeout(NAMING, view.path(ino)).await;
    let file =
        path.ok().and_then(Result::ok).map_or_else(|| at(ino), |path| String::from_utf8_lossy(&path).into());
    tracing::warn!(snapshot = %view.id(), ino, file, error, "a read of the mount failed");
}

fn tree_error(error: &ViewError) -> TreeError {
    match error {
        ViewError::NotFound(_) => TreeError::NotFound,
        ViewError::NotADirectory(_) => TreeError::NotDir,
        ViewError::IsADirectory(_) => TreeError::IsDir,
        ViewError::NotAFile(_) | ViewError::NotASymlink(_) | ViewError::BadPath(_) => TreeError::Invalid,
        ViewError::NoXattr => TreeError::NoXattr,
        ViewError::PastEnd => TreeError::PastEnd,
        ViewError::Unavailable(FetchError::TimedOut { .. } | FetchError::Unreachable { .. }) => {
            TreeError::TimedOut
        }
        ViewError::Unavailable(_) | ViewError::Sealed { .. } | ViewError::Unfit { .. } => TreeError::Io,
    }
}

impl Tree for MountedView {
    fn lookup(&self, parent: u64, name: &[u8], answer: Answer<Option<Attr>>) {
        let (view, name) = (Arc::clone(&self.view), name.to_vec());
        self.serve(
            Asked::about(Operation::Lookup, parent),
            async move { view.lookup(parent, &name).await },
            answer,
        );
    }

    fn attr(&self, ino: u64, answer: Answer<Attr>) {
        let view = Arc::clone(&self.view);
        self.serve(Asked::about(Operation::Attr, ino), async move { view.attr(ino).await }, answer);
    }

    fn read_link(&self, ino: u64, answer: Answer<[u8]>) {
        let view = Arc::clone(&self.view);
        self.serve(Asked::about(Operation::ReadLink, ino), async move { view.read_link(ino).await }, answer);
    }

    fn read_dir(&self, ino: u64, offset: u64, max: usize, answer: Answer<Listing>) {
        let view = Arc::clone(&self.view);
        let asked = Asked { offset, ..Asked::about(Operation::ReadDir, ino) };
        let was_here = self.serve(asked, async move { view.read_dir(ino, offset, max).await }, answer);
        self.ahead.was_listed(ino, offset, was_here);
    }

    fn read(&self, ino: u64, offset: u64, len: u32, answer: Answer<[u8]>) {
        let end = offset.saturating_add(len.into());
        let answer = match self.large_files.as_ref().and_then(|large| large.last_read(ino, end)) {
            None => answer,
            Some(file) => {
                let (view, runtime) = (Arc::clone(&self.view), self.runtime.clone());
                Answer::new(move |result: Result<&[u8], _>| {
                    answer.send(result);
                    file.was_read_to_its_end(view, &runtime);
                })
            }
        };
        let (view, ahead) = (Arc::clone(&self.view), Arc::clone(&self.ahead));
        let asked = Asked { offset, len, ..Asked::about(Operation::Read, ino) };
        let unasked = Arc::new(AtomicBool::new(false));
        let (begun, was_unasked) = (Instant::now(), Arc::clone(&unasked));
        // All of a long read takes as long as the link needs for it.
        let first = move || {
            if was_unasked.load(Ordering::Relaxed) {
                ahead.took(begun.elapsed());
            }
        };
        let read = async move { view.read_telling(ino, offset, len, first).await };
        let was_here = self.serve(asked, read, answer);
        let size = || Some(self.view.attr_of(&self.inode_at_once(ino)?).size);
        if self.ahead.was_read(Read { ino, offset, end, was_here }, size) {
            unasked.store(true, Ordering::Relaxed);
        }
    }

    fn backing(&self, ino: u64, answer: Answer<Option<Backing>>) {
        let backing = self.large_files.as_ref().and_then(|large| {
            let inode = self.inode_at_once(ino)?;
            large.backing(&self.view, &self.runtime, &inode)
        });
        answer.send(Ok(&backing));
    }

    fn xattr(&self, ino: u64, name: &[u8], answer: Answer<[u8]>) {
        let (view, name) = (Arc::clone(&self.view), name.to_vec());
        self.serve(Asked::about(Operation::Xattr, ino), async move { view.xattr(ino, &name).await }, answer);
    }

    fn list_xattrs(&self, ino: u64, answer: Answer<[Vec<u8>]>) {
        let view = Arc::clone(&self.view);
        self.serve(
            Asked::about(Operation::ListXattrs, ino),
            async move { view.list_xattrs(ino).await },
            answer,
        );
    }

    fn seek(&self, ino: u64, offset: u64, what: Seek, answer: Answer<u64>) {
        let view = Arc::clone(&self.view);
        let asked = Asked { offset, ..Asked::about(Operation::Seek, ino) };
        self.serve(asked, async move { view.seek(ino, offset, what).await }, answer);
    }

    fn stat_fs(&self, answer: Answer<StatFs>) {
        answer.send(Ok(&self.view.stat_fs()));
    }
}
