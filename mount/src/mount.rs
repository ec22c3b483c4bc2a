//! One mount, from the moment it is attached to the moment it has ended, by whatever means.
//!
//! Owns: the life of a mount: its threads, its unmounting, the word that it has ended, and the clean-up.
//! Must not know: how requests are answered.
//! Invariant: as long as the event loops run the mount may be in the mount table; when they are gone it is not.
//! Trust: anyone with the right may unmount or abort the mount from outside; that is an end like any other.
//! Threads: one waits for the event loops of a session and runs the callback; `Mount` may be used from any.
//! A crash leaves a dead mount, which `recover` removes.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fuser::{Config, Notifier, Session, SessionACL};

use crate::adapter::Adapter;
use crate::attach::{Detach, attach, detach};
use crate::error::MountError;
use crate::holders::holders;
use crate::io::{Io, IoInUse, Way};
use crate::mountpoint::{check_mountpoint, is_dead, mounted_on, mounts};
use crate::passthrough::probe;
use crate::switch::{SwitchError, forget_old, switch};
use crate::tree::Tree;
use crate::trees::Trees;

/// Pages that the kernel reads ahead of a sequential reader, in KiB; unasked it is 128.
const READ_AHEAD_KIB: &str = "1024";

/// How long `unmount` waits for the event loops to see that they are done; they do at once, unless another
/// mount namespace still has a copy of the mount.
const END_WAIT: Duration = Duration::from_secs(5);

/// Trees that one mount may have besides the mounted one, for those who still use them.
const MAX_OLD: usize = 64;

/// How to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Let other users in as well. Unless root mounts, `/etc/fuse.conf` must say `user_allow_other`.
    pub allow_other: bool,
    /// Event loops, at least 1.
    pub threads: usize,
    /// How contents reach their readers, if the machine lets us.
    pub io: Io,
}

impl Default for Options {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(2, |cores| cores.get());
        Self { allow_other: false, threads: cores.clamp(2, 8), io: Io::Cached }
    }
}

#[derive(Debug, Default)]
struct End {
    reached: Mutex<bool>,
    changed: Condvar,
}

impl End {
    fn reach(&self) {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn is_reached(&self) -> bool {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, timeout: Duration) -> bool {
        let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(reached, timeout, |reached| !*reached);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A mounted tree. Dropping it detaches it lazily: what is open stays readable until it is closed.
pub struct Mount {
    dir: PathBuf,
    /// `major:minor` of this mount, unlike that of every other as long as it exists.
    device: String,
    end: Arc<End>,
    way: Way,
    trees: Arc<Trees>,
    /// Taken away when the event loops are gone: it keeps the connection, and callers would wait for ever.
    kernel: Arc<Mutex<Option<Notifier>>>,
}

impl Mount {
    /// Mounts `tree` on `dir`; when this returns the mount answers. `on_end` is called once when the mount has
    /// ended by whatever means, also `umount` in a shell, and nothing of it is left.
    pub fn start(
        tree: Arc<dyn Tree>,
        dir: &Path,
        options: &Options,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<Self, MountError> {
        let dir = check_mountpoint(dir)?;
        let requests = attach(&dir, options.allow_other)?;
        // From here on a failure must take the mount off again.
        let started = begin(tree, &dir, options, requests, on_end);
        if started.is_err() {
            let _ = detach(&dir, Detach::Lazy);
        }
        started
    }

    /// The mountpoint, as a canonical path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How contents reach their readers now.
    pub fn io(&self) -> IoInUse {
        self.way.get()
    }

    /// How often the kernel has asked to open a file.
    pub fn opens(&self) -> u64 {
        self.way.opens()
    }

    /// Puts `tree` in place of what is mounted, at one moment: from then on every path leads to the new tree, while files
    /// and directories that are open stay what they were. The old tree is dropped when nobody uses it any more (see
    /// `forget_old`). Waits for the trees to list their roots and for look-ups under way in the old one. After an
    /// error the old tree stays.
    pub fn switch(&self, tree: Arc<dyn Tree>) -> Result<(), MountError> {
        self.with_kernel(|kernel| forget_old(&self.trees, kernel))?;
        if self.trees() > MAX_OLD {
            return Err(MountError::TooManyInUse(self.trees(), self.dir.clone()));
        }
        self.with_kernel(|kernel| switch(&self.trees, tree, kernel))
    }

    /// Makes the kernel forget what it keeps of old trees without need. Called now and then while there are any, it
    /// bounds how long one lives after its last use. A listing of an old root that is still under way then, or when
    /// the next switch but one is done, ends with ESTALE.
    pub fn forget_old(&self) -> Result<(), MountError> {
        self.with_kernel(|kernel| forget_old(&self.trees, kernel))?;
        self.trees.let_last_go();
        Ok(())
    }

    fn with_kernel(
        &self,
        action: impl FnOnce(&Notifier) -> Result<(), SwitchError>,
    ) -> Result<(), MountError> {
        let dir = || self.dir.clone();
        let kernel = self.kernel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kernel = kernel.ok_or_else(|| MountError::Ended(dir()))?;
        action(&kernel).map_err(|error| match error {
            SwitchError::Busy => MountError::Switching(dir()),
            SwitchError::Tree(which, cause) => MountError::NoListing { which, dir: dir(), cause },
            SwitchError::Kernel(_) if self.has_ended() => MountError::Ended(dir()),
            SwitchError::Kernel(cause) => {
                MountError::Io { doing: "the kernel does not forget what was mounted on", dir: dir(), cause }
            }
        })
    }

    /// Trees that somebody uses, the mounted one among them.
    pub fn trees(&self) -> usize {
        self.trees.len()
    }

    /// Whether the mount has ended.
    pub fn has_ended(&self) -> bool {
        self.end.is_reached()
    }

    /// Unmounts, unless somebody uses the mount: then it goes on working, and `Busy` says who. When this returns
    /// `Ok` the callback of `start` has run, except while a copy of the mount lives in another namespace.
    pub fn unmount(&self) -> Result<(), MountError> {
        match self.detach(Detach::Idle) {
            Err(MountError::Busy { dir, .. }) => {
                let inside = mounts().unwrap_or_default().into_iter().map(|line| line.point);
                let mounts = inside.filter(|point| point.starts_with(&dir) && *point != dir).collect();
                Err(MountError::Busy { holders: holders(&dir), mounts, dir })
            }
            Err(error) => Err(error),
            Ok(()) => {
                if !self.end.wait(END_WAIT) {
                    tracing::warn!(dir = %self.dir.display(), "unmounted, but still in use elsewhere");
                }
                Ok(())
            }
        }
    }

    /// Takes the mount off its directory at once. Whoever uses it keeps what is open, and the mount ends
    /// when the last of it is closed.
    pub fn unmount_lazy(&self) -> Result<(), MountError> {
        self.detach(Detach::Lazy)
    }

    fn detach(&self, how: Detach) -> Result<(), MountError> {
        if self.end.is_reached() || !is_on(&self.dir, &self.device) {
            return Ok(());
        }
        match detach(&self.dir, how) {
            // Somebody else was quicker.
            Err(MountError::NotUnmounted { .. }) if !is_on(&self.dir, &self.device) => Ok(()),
            other => other,
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.unmount_lazy() {
            tracing::error!(%error, "a mount is left behind");
        }
    }
}

/// Whether what is mounted on `dir` is this mount, and not one that came after it.
fn is_on(dir: &Path, device: &str) -> bool {
    matches!(mounted_on(dir), Ok(Some(line)) if line.device == device)
}

fn begin(
    tree: Arc<dyn Tree>,
    dir: &Path,
    options: &Options,
    requests: OwnedFd,
    on_end: impl FnOnce() + Send + 'static,
) -> Result<Mount, MountError> {
    let failed = |doing| move |cause| MountError::Io { doing, dir: dir.to_owned(), cause };
    let line = mounted_on(dir).and_then(|line| line.ok_or_else(|| io::ErrorKind::NotFound.into()));
    let device = line.map_err(failed("cannot find in /proc/self/mountinfo the mount on"))?.device;
    let acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    let mut config = Config::default();
    config.acl = acl;
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    let way = Way::new(options.io);
    let device_too = requests.try_clone().map_err(failed("cannot share the device of the mount on"))?;
    let trees = Arc::new(Trees::new(tree));
    let session = Session::from_fd(Adapter::new(Arc::clone(&trees), way.clone()), requests, acl, config)
        .map_err(failed("the kernel did not greet the mount on"))?;
    probe(device_too, &way);
    let kernel = Arc::new(Mutex::new(Some(session.notifier())));
    let mount =
        Mount { dir: dir.to_owned(), device: device.clone(), end: Arc::default(), way, trees, kernel };
    let (dir, end, kernel) = (mount.dir.clone(), Arc::clone(&mount.end), Arc::clone(&mount.kernel));
    thread::Builder::new()
        .name("bcai-mount".to_owned())
        .spawn(move || {
            run(session, &dir, &device, &kernel);
            end_with(on_end, &end);
        })
        .map_err(failed("no thread can be started for the mount on"))?;
    raise_read_ahead(&mount.device);
    Ok(mount)
}

fn run(session: Session<Adapter>, dir: &Path, device: &str, kernel: &Mutex<Option<Notifier>>) {
    let result = session.run();
    kernel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Err(error) = &result {
        tracing::error!(dir = %dir.display(), %error, "the event loops of a mount failed");
    }
    // Unmounted, as a rule. But a connection may also be aborted through /sys/fs/fuse/connections or fail,
    // and then the directory would stay dead.
    if is_on(dir, device)
        && (result.is_err() || is_dead(dir))
        && let Err(error) = detach(dir, Detach::Lazy)
    {
        tracing::error!(%error, "a dead mount is left behind");
    }
}

fn end_with(on_end: impl FnOnce(), end: &End) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(on_end)).is_err() {
        tracing::error!("the callback for the end of a mount panicked");
    }
    end.reach();
}

/// Larger reads, where root may ask for them: the FUSE handshake can only lower the kernel's default.
fn raise_read_ahead(device: &str) {
    if let Err(error) = std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), READ_AHEAD_KIB) {
        tracing::debug!(%error, "reads stay at the kernel's default size");
    }
}
