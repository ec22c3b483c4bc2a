//! What this node has mounted.
//!
//! Owns: mounting, unmounting, restoring after a crash; what of the list (`mount_list`) is in the state file.
//! Must not know: FUSE or chunks.
//! Invariant: a mount is in the list exactly while the kernel has it; the state file holds these and those still to
//! be restored.
//! Trust: requests are the user's; mountpoints are checked by `bcai_mount`.
//! Threads: system calls that may wait run on the blocking pool. A crash leaves mounts that the next daemon goes on with
//! (`keeping`), or, where nobody has kept them, dead mountpoints that the next start restores and the next `mount` cleans.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::error::{Error, Kind};
use super::keeping::{Inherited, Keeping};
use super::mount_list::Active;
use super::report::{MountRequest, Mounted, Quorum, Resolved, UnmountRequest};
use super::text::size;
use super::{Node, off};
use crate::config::{Fetch, Io, Readahead};
use crate::manifest::Totals;
use crate::net::SwarmGuard;
use crate::view::{MountedView, View};

/// How long a reader waits at most. Fetching gives up earlier, with its own reason in the log.
pub(super) const READ_DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two tries to restore a mount whose peers do not answer.
const RESTORE_EVERY: Duration = Duration::from_secs(5);

/// A directory under the name that the kernel has for it. A dead mountpoint does not resolve itself, but what it is in does.
fn settled(dir: &Path) -> PathBuf {
    let beside = || Some(dir.parent()?.canonicalize().ok()?.join(dir.file_name()?));
    dir.canonicalize().ok().or_else(beside).unwrap_or_else(|| dir.to_owned())
}

/// Below this mean size of a file, in bytes, what an open costs counts for more than what a read costs.
const SMALL_FILES: u64 = 1 << 20;

/// A version with all that it takes to mount it.
pub(super) struct Ready {
    pub snapshot: String,
    pub view: Arc<View>,
    swarm: Option<Arc<SwarmGuard>>,
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
        Io::Auto => format!("files have {} on average", size(mean)),
        _ => "as asked for".to_owned(),
    };
    (io, reason)
}

/// The same for an encrypted snapshot: passthrough reads files on disk, where nothing of it is in plain.
fn io_of_encrypted(wish: Io) -> (bcai_mount::Io, String) {
    let io = match wish {
        Io::Auto | Io::ZeroOpen => bcai_mount::Io::ZeroOpen,
        Io::Passthrough | Io::Cached => bcai_mount::Io::Cached,
    };
    let reason = match wish {
        Io::Auto | Io::Passthrough => "encrypted: nothing of it is on disk in plain".to_owned(),
        Io::ZeroOpen | Io::Cached => "as asked for".to_owned(),
    };
    (io, reason)
}

impl Node {
    /// Mounts what a reference means; when this returns, the directory can be read.
    pub async fn mount(self: &Arc<Self>, request: &MountRequest) -> Result<Mounted, Error> {
        let request = MountRequest { dir: off(|| settled(&request.dir)), ..request.clone() };
        let _claim = self.mounts.claim_in_turn(&request.dir).await?;
        let mounted = match self.mounts.take_restored(&request) {
            Some(mounted) => mounted,
            None => self.mount_in_turn(&request).await?,
        };
        Ok(self.with_withdrawal(mounted))
    }

    /// What is mounted, each as it is now.
    pub(super) fn mounted(&self) -> Vec<Mounted> {
        self.mounts.list().into_iter().map(|mounted| self.with_withdrawal(mounted)).collect()
    }

    /// The same by who has reserved the directory.
    async fn mount_in_turn(self: &Arc<Self>, request: &MountRequest) -> Result<Mounted, Error> {
        if let Some(mounted) = self.mounts.report(&request.dir) {
            let dir = request.dir.display();
            let message = format!("{} is already mounted on {dir}", mounted.reference);
            return Err(Error::new(Kind::Busy, message).hint(format!(
                "`bcai remount {dir} NAME@VERSION` shows another version there, and `bcai unmount {dir}` ends it"
            )));
        }
        // Until it is listed, a gc would not know that it is used.
        let _kept = self.sweeping.read().await;
        // A mountpoint left dead by a killed daemon is taken away only when its successor is ready: until then its
        // readers must not find an empty directory.
        let dir = request.dir.clone();
        if !off(|| bcai_mount::is_dead(&dir)) {
            blocking(move || bcai_mount::check_mountpoint(&dir)).await?;
        }
        let (resolved, quorum) = self.resolve_for(request).await?;
        let ready = self.prepare(request, resolved.clone()).await?;
        let view = ready.view.clone();
        let dir = request.dir.clone();
        let dir =
            blocking(move || bcai_mount::recover(&dir).and_then(|_| bcai_mount::check_mountpoint(&dir)))
                .await?;
        let (io, io_reason) = match view.is_unsealed() {
            true => io_of_encrypted(request.io),
            false => suitable_io(request.io, view.snapshot().totals),
        };
        let options = bcai_mount::Options { allow_other: request.allow_other, io, ..Default::default() };
        let request = MountRequest { dir: dir.clone(), ..request.clone() };
        let (tree, on_end, ended) = (self.tree(&ready, &dir, request.readahead), dir.clone(), Arc::default());
        let on_end = self.on_end(on_end, &ended);
        let (mount, connection) =
            blocking(move || bcai_mount::Mount::start(tree, &dir, &options, on_end)).await?;
        let keeping = connection.and_then(|connection| {
            let kept_as = (self.mounts.keeper(), self.mounts.next_id());
            Keeping::begin(kept_as, &request, (io, &io_reason), &resolved, connection)
        });
        let report = self.list(request, resolved, quorum, (view, Arc::new(mount), ended), io_reason, keeping);
        tracing::info!(dir = %report.dir.display(), snapshot = report.snapshot, io = report.io, "mounted");
        Ok(report)
    }

    /// What is done when a mount has ended.
    pub(super) fn on_end(
        self: &Arc<Self>,
        dir: PathBuf,
        ended: &Arc<AtomicBool>,
    ) -> impl FnOnce() + Send + 'static {
        let (node, ended) = (Arc::downgrade(self), ended.clone());
        move || {
            ended.store(true, Ordering::Release);
            if let Some(node) = node.upgrade() {
                node.forget_ended(&dir);
            }
        }
    }

    /// Puts a mount on the list.
    pub(super) fn list(
        self: &Arc<Self>,
        request: MountRequest,
        resolved: Resolved,
        quorum: Option<Quorum>,
        (view, mount, ended): (Arc<View>, Arc<bcai_mount::Mount>, Arc<AtomicBool>),
        io_reason: String,
        keeping: Option<Keeping>,
    ) -> Mounted {
        let dir = request.dir.clone();
        let report = Mounted {
            dir: dir.clone(),
            reference: request.reference.clone(),
            snapshot: resolved.snapshot,
            inodes: view.snapshot().totals.inodes,
            bytes: view.snapshot().totals.bytes,
            version: resolved.version,
            io: String::new(),
            io_reason: String::new(),
            fetch: request.fetch,
            ahead: None,
            follows: false,
            kept: false,
            withdrawn: None,
            quorum,
        };
        let followed = self.follow(&dir, &request, report.version.as_ref());
        let before = BTreeSet::new();
        let active = Active { report, io_reason, request, view, mount, before, followed, keeping, ended };
        let report = active.report();
        {
            let mut list = self.mounts.lock();
            list.lost.remove(&dir);
            list.active.insert(dir.clone(), active);
        }
        if !self.forget_ended(&dir) {
            self.save_mounts();
        }
        report
    }

    /// What the reference of a mount means, by its way of fetching.
    pub(super) async fn resolve_for(
        &self,
        request: &MountRequest,
    ) -> Result<(Resolved, Option<Quorum>), Error> {
        match request.fetch {
            _ if request.offline => Ok((self.resolve_here(&request.reference)?, None)),
            Fetch::Local => Ok((self.resolve_here(&request.reference)?, None)),
            Fetch::Best | Fetch::Spread => Ok((self.resolve(&request.reference).await?, None)),
            Fetch::Quorum => self.resolve_by_quorum(&request.reference).await,
        }
    }

    /// Opens what a reference has turned out to mean, and joins those who have it.
    pub(super) async fn prepare(&self, request: &MountRequest, resolved: Resolved) -> Result<Ready, Error> {
        let fetcher = match request.fetch {
            Fetch::Local => self.fetcher.with_source(None),
            Fetch::Best => self.fetcher.with_source(Some(self.net.source_best())),
            Fetch::Spread | Fetch::Quorum => self.fetcher.clone(),
        };
        let snapshot = resolved.snapshot.parse()?;
        let swarm = (request.fetch != Fetch::Local).then(|| Arc::new(self.join_swarm(&snapshot)));
        let view = self.open(&resolved, fetcher).await?;
        Ok(Ready { snapshot: resolved.snapshot, view, swarm })
    }

    /// A version as what is mounted. The node stays in its swarm as long as anybody uses it.
    pub(super) fn tree(&self, ready: &Ready, dir: &Path, readahead: Readahead) -> Arc<MountedView> {
        let tree = MountedView::new(ready.view.clone(), tokio::runtime::Handle::current(), READ_DEADLINE)
            .reading_ahead(readahead.fixed())
            .watched(self.mounts.watches().of(dir));
        // The copies that the kernel reads would be in plain on disk.
        let tree = match ready.view.is_unsealed() {
            true => tree,
            false => tree.passing_through(self.store.clone()),
        };
        Arc::new(match &ready.swarm {
            Some(swarm) => tree.keeping(swarm.clone()),
            None => tree,
        })
    }

    /// Takes a mount that has ended off the list. Called when the kernel says so, and once after a mount is listed,
    /// since it may have ended before.
    fn forget_ended(&self, dir: &Path) -> bool {
        let ended = {
            let mut list = self.mounts.lock();
            let ended = list.active.get(dir).is_some_and(|active| active.ended.load(Ordering::Acquire));
            if ended { list.active.remove(dir) } else { None }
        };
        if ended.is_some() {
            tracing::info!(dir = %dir.display(), "unmounted");
            self.save_mounts();
            self.mounts.ended.notify_waiters();
        }
        ended.is_some()
    }

    /// Writes down what to restore. A node that is stopping leaves that to `unmount_all`. A list that could not be
    /// written costs a mount after the next crash; what was just done is done all the same.
    pub(super) fn save_mounts(&self) {
        if self.stop.is_cancelled() {
            return;
        }
        let requests: Vec<_> = {
            let list = self.mounts.lock();
            list.active.values().map(|active| &active.request).chain(list.lost.values()).cloned().collect()
        };
        if let Err(error) = self.state.update(|facts| facts.mounts = requests) {
            tracing::warn!(%error, "the list of mounts is not up to date");
        }
    }

    /// Detaches a mount; one in use only when `lazy`.
    pub async fn unmount(self: &Arc<Self>, request: &UnmountRequest) -> Result<(), Error> {
        let dir = off(|| request.dir.canonicalize()).unwrap_or_else(|_| request.dir.clone());
        let _claim = self.mounts.claim_in_turn(&dir).await?;
        let mount = self.mounts.lock().active.get(&dir).map(|active| active.mount.clone());
        let Some(mount) = mount else { return self.unmount_lost(dir).await };
        let lazy = request.lazy;
        blocking(move || if lazy { mount.unmount_lazy() } else { mount.unmount() }).await?;
        // A lazy one may live on for those who have it open; to everyone else it is gone.
        self.mounts.lock().active.remove(&dir);
        self.mounts.ended.notify_waiters();
        off(|| self.save_mounts());
        Ok(())
    }

    /// A directory that is not on our list: perhaps left dead by an earlier daemon.
    async fn unmount_lost(&self, dir: PathBuf) -> Result<(), Error> {
        let was_lost = self.mounts.lock().lost.remove(&dir).is_some();
        let dead = dir.clone();
        if blocking(move || bcai_mount::recover(&dead)).await? || was_lost {
            off(|| self.save_mounts());
            return Ok(());
        }
        Err(Error::not_found(format!("nothing is mounted by this node at {}", dir.display()))
            .hint("`bcai status` lists its mounts"))
    }

    /// Returns once nothing of ours is mounted at `dir`, and nothing is to be.
    pub async fn wait_unmounted(&self, dir: &Path) -> Result<(), Error> {
        let is_here = || {
            let list = self.mounts.lock();
            list.active.contains_key(dir) || list.lost.contains_key(dir)
        };
        loop {
            let ended = self.mounts.ended.notified();
            if !is_here() {
                return Ok(());
            }
            tokio::select! {
                () = ended => {}
                () = self.stop.cancelled() => return match self.restarts() {
                    true => Err(Error::new(Kind::Unreachable, "another daemon goes on with this mount")),
                    false => Ok(()),
                },
            }
        }
    }

    /// In the background, goes on with the mounts of the last daemon that were kept, and mounts the others again.
    pub(super) fn restore_mounts(self: &Arc<Self>, kept: Vec<Inherited>) {
        let mut lost: BTreeMap<_, _> =
            self.state.get().mounts.into_iter().map(|request| (request.dir.clone(), request)).collect();
        let known = kept.iter().map(|kept| (kept.request().dir.clone(), kept.request().clone()));
        lost.extend(known);
        self.mounts.lock().lost.extend(lost.clone());
        // Before anybody can ask for anything there.
        self.mounts.claim_lost(kept.iter().map(|kept| kept.request().dir.clone()));
        for kept in kept {
            lost.remove(&kept.request().dir);
            let going_on = self.clone().go_on_or_restore(kept);
            tokio::spawn(self.stop.clone().run_until_cancelled_owned(going_on));
        }
        for request in lost.into_values() {
            let node = self.clone();
            let stop = self.stop.clone();
            tokio::spawn(stop.run_until_cancelled_owned(async move { node.restore(request).await }));
        }
    }

    /// Tries until it works, until it cannot ever work, or until somebody unmounts the directory.
    pub(super) async fn restore(self: Arc<Self>, request: MountRequest) {
        while self.mounts.lock().lost.contains_key(&request.dir) {
            match self.mount_again(&request).await {
                Ok(()) => tracing::info!(dir = %request.dir.display(), "mount restored"),
                Err(error) if matches!(error.kind, Kind::Unreachable | Kind::Busy) => {
                    tracing::warn!(dir = %request.dir.display(), %error, "cannot restore this mount yet");
                    tokio::time::sleep(RESTORE_EVERY).await;
                }
                Err(error) => {
                    tracing::error!(dir = %request.dir.display(), %error, "cannot restore this mount");
                    self.mounts.lock().lost.remove(&request.dir);
                    self.mounts.ended.notify_waiters();
                    off(|| self.save_mounts());
                }
            }
        }
    }

    async fn mount_again(self: &Arc<Self>, request: &MountRequest) -> Result<(), Error> {
        let _claim = self.mounts.claim(&request.dir)?;
        self.mount_in_turn(request).await?;
        self.mounts.was_restored(&request.dir);
        Ok(())
    }

    /// Detaches everything at the end of the node. What is in use is detached lazily.
    pub(super) async fn unmount_all(self: &Arc<Self>) {
        let active = std::mem::take(&mut self.mounts.lock().active);
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
        if let Err(error) = off(|| self.state.update(|facts| facts.mounts.clear())) {
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
