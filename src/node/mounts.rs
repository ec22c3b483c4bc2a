//! What this node has mounted.
//!
//! Owns: the list of mounts, in memory and in the state file; mounting, unmounting, restoring after a crash.
//! Must not know: FUSE or chunks.
//! Invariant: a mount is in the list exactly while the kernel has it; the state file follows.
//! Trust: requests are the user's; mountpoints are checked by `bcai_mount`.
//! Threads: system calls that may wait run on the blocking pool. A crash leaves dead mountpoints that the next start
//! restores and the next `mount` cleans.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Node;
use super::error::{Error, Kind};
use super::report::{Io, MountRequest, Mounted, UnmountRequest};
use crate::manifest::Totals;
use crate::view::{MountedView, View};

/// How long a reader waits at most. Fetching gives up earlier, with its own reason in the log.
const READ_DEADLINE: Duration = Duration::from_secs(60);

/// Below this mean size of a file, in bytes, what an open costs counts for more than what a read costs.
const SMALL_FILES: u64 = 1 << 20;

struct Active {
    report: Mounted,
    /// Why the mount was asked for its kind of IO.
    io_reason: String,
    request: MountRequest,
    mount: bcai_mount::Mount,
    /// Set when the kernel has let go of it.
    ended: Arc<AtomicBool>,
}

impl Active {
    /// What the mount is like at this moment.
    fn report(&self) -> Mounted {
        let in_use = self.mount.io();
        let io_reason = in_use.refusal.unwrap_or_else(|| self.io_reason.clone());
        Mounted { io: in_use.io.to_string(), io_reason, ..self.report.clone() }
    }
}

/// The kind of IO that suits a snapshot, unless one is asked for; and why.
fn suitable_io(wish: Io, totals: Totals) -> (bcai_mount::Io, String) {
    let mean = totals.bytes / totals.inodes.max(1);
    let io = match wish {
        Io::Auto if mean < SMALL_FILES => bcai_mount::Io::ZeroOpen,
        Io::Auto | Io::Passthrough => bcai_mount::Io::Passthrough,
        Io::ZeroOpen => bcai_mount::Io::ZeroOpen,
        Io::Cached => bcai_mount::Io::Cached,
    };
    let reason = match wish {
        Io::Auto => format!("files have {} KiB on average", mean >> 10),
        _ => "as asked for".to_owned(),
    };
    (io, reason)
}

/// The mounts of a node, by directory.
#[derive(Default)]
pub(super) struct Mounts {
    active: Arc<Mutex<BTreeMap<PathBuf, Active>>>,
    /// Woken whenever a mount has ended.
    ended: Arc<Notify>,
}

impl Mounts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn list(&self) -> Vec<Mounted> {
        self.lock().values().map(Active::report).collect()
    }
}

impl Node {
    /// Mounts what a reference means; when this returns, the directory can be read.
    pub async fn mount(self: &Arc<Self>, request: &MountRequest) -> Result<Mounted, Error> {
        let dir = request.dir.clone();
        let dir = blocking(move || {
            // A daemon that was killed left it; whoever mounts there again wants it gone.
            bcai_mount::recover(&dir)?;
            bcai_mount::check_mountpoint(&dir)
        })
        .await?;
        let resolved = self.resolve(&request.reference).await?;
        let view = self.open(&resolved).await?;
        let report = Mounted {
            dir: dir.clone(),
            reference: request.reference.clone(),
            snapshot: resolved.snapshot.to_string(),
            inodes: view.snapshot().totals.inodes,
            bytes: view.snapshot().totals.bytes,
            version: resolved.version,
            io: String::new(),
            io_reason: String::new(),
        };
        let (io, io_reason) = suitable_io(request.io, view.snapshot().totals);
        let options = bcai_mount::Options { allow_other: request.allow_other, io, ..Default::default() };
        let ended = Arc::new(AtomicBool::new(false));
        let mount = self.attach(view, &dir, options, ended.clone()).await?;
        let request = MountRequest { dir: dir.clone(), ..request.clone() };
        let active = Active { report, io_reason, request, mount, ended };
        let report = active.report();
        self.mounts.lock().insert(dir.clone(), active);
        self.forget_ended(&dir);
        self.save_mounts()?;
        tracing::info!(dir = %dir.display(), snapshot = report.snapshot, io = report.io, "mounted");
        Ok(report)
    }

    async fn attach(
        self: &Arc<Self>,
        view: Arc<View>,
        dir: &Path,
        options: bcai_mount::Options,
        ended: Arc<AtomicBool>,
    ) -> Result<bcai_mount::Mount, Error> {
        let (node, ended_dir, dir) = (Arc::downgrade(self), dir.to_owned(), dir.to_owned());
        let tree = MountedView::new(view, tokio::runtime::Handle::current(), READ_DEADLINE);
        let tree = Arc::new(tree.passing_through(self.store.clone()));
        let on_end = move || {
            ended.store(true, Ordering::Release);
            if let Some(node) = node.upgrade() {
                node.forget_ended(&ended_dir);
            }
        };
        blocking(move || bcai_mount::Mount::start(tree, &dir, &options, on_end)).await
    }

    /// Takes a mount that has ended off the list. Called when the kernel says so, and once after a mount is listed,
    /// since it may have ended before.
    fn forget_ended(&self, dir: &Path) {
        let ended = {
            let mut active = self.mounts.lock();
            let ended = active.get(dir).is_some_and(|active| active.ended.load(Ordering::Acquire));
            ended.then(|| active.remove(dir))
        };
        if ended.is_some() {
            tracing::info!(dir = %dir.display(), "unmounted");
            if let Err(error) = self.save_mounts() {
                tracing::warn!(%error, "the list of mounts is not up to date");
            }
        }
        self.mounts.ended.notify_waiters();
    }

    /// A node that is stopping, or was killed, leaves the list as it was: it says what to restore.
    fn save_mounts(&self) -> Result<(), Error> {
        if self.stop.is_cancelled() {
            return Ok(());
        }
        let requests: Vec<_> = self.mounts.lock().values().map(|active| active.request.clone()).collect();
        self.state.update(|facts| facts.mounts = requests)
    }

    /// Detaches a mount; one in use only when `lazy`.
    pub async fn unmount(self: &Arc<Self>, request: &UnmountRequest) -> Result<(), Error> {
        let dir = request.dir.canonicalize().unwrap_or_else(|_| request.dir.clone());
        if !self.mounts.lock().contains_key(&dir) {
            return self.unmount_foreign(dir).await;
        }
        let node = self.clone();
        let lazy = request.lazy;
        blocking(move || {
            // Taken off the list while the kernel is asked, so that the end of the mount can be noted meanwhile.
            let Some(active) = node.mounts.lock().remove(&dir) else { return Ok(()) };
            let detached = if lazy { active.mount.unmount_lazy() } else { active.mount.unmount() };
            if detached.is_err() {
                node.mounts.lock().insert(dir, active);
            }
            detached
        })
        .await?;
        self.mounts.ended.notify_waiters();
        self.save_mounts()
    }

    /// A directory that is not on our list: perhaps left dead by an earlier daemon.
    async fn unmount_foreign(&self, dir: PathBuf) -> Result<(), Error> {
        let dead = dir.clone();
        if blocking(move || bcai_mount::recover(&dead)).await? {
            return Ok(());
        }
        Err(Error::not_found(format!("nothing is mounted by this node at {}", dir.display()))
            .hint("`bcai status` lists its mounts"))
    }

    /// Returns once nothing of ours is mounted at `dir`.
    pub async fn wait_unmounted(&self, dir: &Path) {
        loop {
            let ended = self.mounts.ended.notified();
            if !self.mounts.lock().contains_key(dir) {
                return;
            }
            tokio::select! {
                () = ended => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Mounts again what was mounted when the last daemon was killed.
    pub(super) async fn restore_mounts(self: &Arc<Self>) {
        for request in self.state.get().mounts {
            match self.mount(&request).await {
                Ok(_) => tracing::info!(dir = %request.dir.display(), "mount restored"),
                Err(error) => {
                    tracing::warn!(dir = %request.dir.display(), %error, "cannot restore this mount");
                }
            }
        }
    }

    /// Detaches everything at the end of the node. What is in use is detached lazily.
    pub(super) async fn unmount_all(self: &Arc<Self>) {
        let active = std::mem::take(&mut *self.mounts.lock());
        let detach = move || {
            for (dir, active) in active {
                let detached = active.mount.unmount().or_else(|error| match error {
                    bcai_mount::MountError::Busy { .. } => active.mount.unmount_lazy(),
                    other => Err(other),
                });
                if let Err(error) = detached {
                    tracing::error!(dir = %dir.display(), %error, "cannot unmount");
                }
            }
            Ok::<(), Error>(())
        };
        if let Err(error) = blocking(detach).await {
            tracing::error!(%error, "cannot unmount");
        }
        // Stopped on purpose: the next start begins without mounts.
        if let Err(error) = self.state.update(|facts| facts.mounts.clear()) {
            tracing::warn!(%error, "the list of mounts is not up to date");
        }
    }
}

/// Runs what may wait for the kernel off the runtime's threads.
pub(super) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Error>
where
    T: Send + 'static,
    E: Into<Error> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(panic) => Err(Error::new(Kind::Failed, format!("an operation failed unexpectedly: {panic}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_opened_for_nothing_and_large_ones_passed_through() {
        let totals = |inodes, bytes| Totals { inodes, chunks: inodes, bytes };
        let auto = |totals| suitable_io(Io::Auto, totals).0;
        assert_eq!(auto(totals(30_000, 30_000 * 110_000)), bcai_mount::Io::ZeroOpen);
        assert_eq!(auto(totals(4, 4 << 30)), bcai_mount::Io::Passthrough);
        assert_eq!(auto(totals(0, 0)), bcai_mount::Io::ZeroOpen);
        assert_eq!(
            suitable_io(Io::Cached, totals(4, 4 << 30)),
            (bcai_mount::Io::Cached, "as asked for".into())
        );
    }
}
