//! The list of what this node has mounted.
//!
//! Owns: the list in memory, which request is at work on which directory, and what is known of each mount.
//! Must not know: how anything is mounted or unmounted (`mounts`).
//! Invariant: one request at a time is carried out for a directory.
//! Trust: none needed; what is listed was checked by whoever listed it.
//! Threads: behind one lock, which is held for bookkeeping, and for a message to the supervisor (`keeping`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::DropGuard;

use super::error::{Error, Kind};
use super::keeping::Keeping;
use super::mounts::Ready;
use super::off;
use super::report::{AheadStatus, MountRequest, Mounted, Resolved, VersionOf};
use super::watches::Watches;
use crate::id::SnapshotId;
use crate::manifest::Totals;
use crate::supervisor::Keeper;
use crate::view::{AheadFigures, View};

/// How long a mount waits for another request for its directory: a node that starts mounts again what was mounted.
const TURN: Duration = Duration::from_secs(30);

/// A mount that the kernel has.
pub(super) struct Active {
    pub report: Mounted,
    /// Why the mount was asked for its kind of IO.
    pub io_reason: String,
    pub request: MountRequest,
    pub view: Arc<View>,
    pub mount: Arc<bcai_mount::Mount>,
    /// What was mounted here before, and may be in use still.
    pub before: BTreeSet<SnapshotId>,
    /// Ends, when dropped, what keeps up with the name of the mount.
    pub followed: Option<DropGuard>,
    /// What the supervisor keeps of it, until this is dropped. None where the kernel or the supervisor cannot.
    pub keeping: Option<Keeping>,
    /// Set when the kernel has let go of it.
    pub ended: Arc<AtomicBool>,
}

impl Active {
    /// The snapshots that its users may see.
    fn view_ids(&self) -> Vec<SnapshotId> {
        let before = self.before.iter().copied().filter(|_| self.mount.trees() > 1);
        let kept = self.keeping.iter().flat_map(Keeping::snapshots);
        before.chain(kept).chain([self.view.id()]).collect()
    }

    /// What the mount is like at this moment.
    pub fn report(&self) -> Mounted {
        let in_use = self.mount.io();
        let io_reason = in_use.refusal.unwrap_or_else(|| self.io_reason.clone());
        let follows = self.followed.is_some();
        let kept = self.keeping.as_ref().is_some_and(Keeping::is_kept);
        Mounted { io: in_use.io.to_string(), io_reason, follows, kept, ..self.report.clone() }
    }
}

#[derive(Default)]
pub(super) struct List {
    pub active: BTreeMap<PathBuf, Active>,
    /// Directories that a request is being carried out for.
    claimed: BTreeSet<PathBuf>,
    /// What a killed daemon had mounted and is not back yet.
    pub lost: BTreeMap<PathBuf, MountRequest>,
    /// Those of them that are, and that nobody has asked for since.
    restored: BTreeSet<PathBuf>,
}

/// The mounts of a node, by directory.
pub(super) struct Mounts {
    list: Mutex<List>,
    /// Woken whenever a mount has ended.
    pub ended: Notify,
    /// Woken whenever a request for a directory is done.
    done: Notify,
    keeper: Arc<Keeper>,
    next_id: AtomicU64,
    watches: Watches,
}

impl Mounts {
    /// What the supervisor keeps already has numbers below `next_id`.
    pub fn new(keeper: Keeper, next_id: u64) -> Self {
        let (list, ended, done, keeper) = (Mutex::default(), Notify::new(), Notify::new(), Arc::new(keeper));
        Self { list, ended, done, keeper, next_id: next_id.into(), watches: Watches::default() }
    }

    /// The way to the supervisor.
    pub fn keeper(&self) -> Arc<Keeper> {
        self.keeper.clone()
    }

    /// What the supervisor shall know another mount by.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub fn lock(&self) -> MutexGuard<'_, List> {
        // Every change of the list is one statement, so a panic elsewhere cannot have left it half-changed.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn list(&self) -> Vec<Mounted> {
        let mut mounts: Vec<_> = self.lock().active.values().map(Active::report).collect();
        for mount in &mut mounts {
            mount.ahead = self.watches.of(&mount.dir).ahead().map(ahead);
        }
        mounts
    }

    /// Directories on which a killed daemon had something mounted that is not back yet.
    pub fn lost(&self) -> Vec<PathBuf> {
        self.lock().lost.keys().cloned().collect()
    }

    /// What is mounted on a directory.
    pub fn view(&self, dir: &Path) -> Option<Arc<View>> {
        let of = |dir: &Path| self.lock().active.get(dir).map(|active| active.view.clone());
        of(dir).or_else(|| of(&off(|| dir.canonicalize()).ok()?))
    }

    /// All that somebody may read through a mount: also what was mounted before, and is still open. Busy while a mount of an
    /// earlier daemon is not back yet.
    pub fn snapshots_in_use(&self) -> Result<Vec<SnapshotId>, Error> {
        let list = self.lock();
        if let Some(dir) = list.lost.keys().next() {
            let text =
                format!("the mount on {}, of a daemon before this one, is not back yet", dir.display());
            return Err(Error::new(Kind::Busy, text)
                .hint("run it again in a moment, or unmount it: `bcai status` shows the mounts"));
        }
        let mut used = Vec::new();
        for active in list.active.values() {
            used.extend(active.view_ids());
        }
        Ok(used)
    }

    /// How long their answers take, and who looks on.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// What was asked for on a directory.
    pub fn request(&self, dir: &Path) -> Option<MountRequest> {
        self.lock().active.get(dir).map(|active| active.request.clone())
    }

    pub fn report(&self, dir: &Path) -> Option<Mounted> {
        self.lock().active.get(dir).map(Active::report)
    }

    pub fn mount(&self, dir: &Path) -> Option<Arc<bcai_mount::Mount>> {
        self.lock().active.get(dir).map(|active| active.mount.clone())
    }

    /// Another version is about to take the place of what is mounted on a directory.
    pub fn announce(&self, dir: &Path, slot: u64, resolved: &Resolved) -> std::io::Result<()> {
        let mut list = self.lock();
        let Some(active) = list.active.get_mut(dir) else { return Err(std::io::ErrorKind::NotFound.into()) };
        match &mut active.keeping {
            Some(keeping) => keeping.announce(slot, resolved, &active.mount.slots()),
            None => Ok(()),
        }
    }

    /// Reserves directories whose mounts an earlier daemon had.
    pub fn claim_lost(&self, dirs: impl Iterator<Item = PathBuf>) {
        self.lock().claimed.extend(dirs);
    }

    /// One of them.
    pub fn claimed(&self, dir: &Path) -> Claim<'_> {
        Claim { mounts: self, dir: dir.to_owned() }
    }

    /// A directory for which a request is being carried out.
    pub fn at_work(&self) -> Option<PathBuf> {
        self.lock().claimed.first().cloned()
    }

    /// Those whose users would notice the end of this daemon.
    pub fn not_kept(&self) -> Vec<PathBuf> {
        let list = self.lock();
        let reports = list.active.values().map(Active::report).filter(|report| !report.kept);
        reports.map(|report| report.dir).collect()
    }

    /// Leaves all mounts as they are, for the next daemon.
    pub fn leave(&self) {
        for active in std::mem::take(&mut self.lock().active).into_values() {
            active.mount.leave();
            // What is dropped is kept no longer.
            std::mem::forget(active.keeping);
        }
    }

    /// Those that have something else than what is mounted now in use.
    pub fn changed_ones(&self) -> Vec<Arc<bcai_mount::Mount>> {
        let list = self.lock();
        let mounts = list.active.values().map(|active| &active.mount);
        mounts.filter(|mount| mount.trees() > 1).cloned().collect()
    }

    /// Something else is mounted on a directory, or the same under another name. Without `followed` whatever keeps up
    /// with the name of the mount goes on if the name is the same. None if nothing is mounted there any more.
    pub fn changed(
        &self,
        dir: &Path,
        request: MountRequest,
        version: Option<VersionOf>,
        ready: Option<Ready>,
        followed: Option<DropGuard>,
    ) -> Option<Mounted> {
        let mut list = self.lock();
        let active = list.active.get_mut(dir)?;
        if followed.is_some() || active.request.reference != request.reference {
            active.followed = followed;
        }
        active.report.reference = request.reference.clone();
        (active.report.version, active.request) = (version, request);
        if let Some(Ready { snapshot, view, .. }) = ready {
            let Totals { inodes, bytes, .. } = view.snapshot().totals;
            active.before.insert(active.view.id());
            active.report = Mounted { snapshot, inodes, bytes, quorum: None, ..active.report.clone() };
            active.view = view;
        }
        if let Some(keeping) = &mut active.keeping {
            keeping.settle(&active.request, &active.mount.slots());
        }
        Some(active.report())
    }

    /// What a killed daemon had mounted on a directory is mounted again.
    pub fn was_restored(&self, dir: &Path) {
        self.lock().restored.insert(dir.to_owned());
    }

    /// The mount that is asked for, if it was restored before anybody asked: whoever starts a node by mounting again what
    /// was mounted has what they want. Once only: after that it is mounted already.
    pub fn take_restored(&self, request: &MountRequest) -> Option<Mounted> {
        let mut list = self.lock();
        let was_restored = list.restored.remove(&request.dir);
        let active = list.active.get(&request.dir);
        active.filter(|active| was_restored && active.request == *request).map(Active::report)
    }

    /// Reserves a directory when those who have it are done, which is not waited for longer than [`TURN`].
    pub async fn claim_in_turn(&self, dir: &Path) -> Result<Claim<'_>, Error> {
        let in_turn = async {
            loop {
                let done = self.done.notified();
                match self.claim(dir) {
                    Ok(claim) => return claim,
                    Err(_) => done.await,
                }
            }
        };
        match tokio::time::timeout(TURN, in_turn).await {
            Ok(claim) => Ok(claim),
            Err(_) => self.claim(dir),
        }
    }

    /// Reserves a directory, so that two requests for it cannot overtake each other.
    pub fn claim(&self, dir: &Path) -> Result<Claim<'_>, Error> {
        if self.lock().claimed.insert(dir.to_owned()) {
            return Ok(Claim { mounts: self, dir: dir.to_owned() });
        }
        Err(Error::new(Kind::Busy, format!("another command is at work on {}", dir.display()))
            .hint("try again"))
    }
}

fn ahead(figures: AheadFigures) -> AheadStatus {
    AheadStatus {
        fixed_bytes: figures.fixed,
        window_bytes: figures.window,
        window_files: figures.files,
        readers: figures.readers,
        latency_ms: figures.latency.map(|latency| latency.as_secs_f64() * 1e3),
        fetched_bytes: figures.fetched,
        unread_bytes: figures.unread,
    }
}

pub(super) struct Claim<'a> {
    mounts: &'a Mounts,
    dir: PathBuf,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.mounts.lock().claimed.remove(&self.dir);
        self.mounts.done.notify_waiters();
    }
}
