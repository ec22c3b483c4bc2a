//! One mount, from the moment it is attached to the moment it has ended, by whatever means.
//!
//! Owns: the life of a mount: its threads, its unmounting, the word that it has ended, and the clean-up.
//! Must not know: how requests are answered.
//! Invariant: as long as the event loops run the mount may be in the mount table; when they are gone it is not.
//! Trust: anyone with the right may unmount or abort the mount from outside; that is an end like any other.
//! Threads: one waits for the event loops of a session and runs the callback; `Mount` may be used from any.
//! A crash leaves a dead mount, which `recover` removes, unless somebody keeps its [`Connection`]: then the mount waits for a process
//! that goes on with it, and nobody who uses it notices more than a pause.

use std::collections::BTreeMap;
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
use crate::greeting::{self, Greeting};
use crate::holders::holders;
use crate::io::{Io, IoInUse, Way};
use crate::mountpoint::{check_mountpoint, is_dead, mounted_on, mounts};
use crate::passthrough::{OpenFiles, probe};
use crate::record::Record;
use crate::switch::{SwitchError, finish, forget_old, switch};
use crate::tree::{Answer, Backing, Lease, Tree};
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

/// What a process needs to go on with the mount of another one, which is gone.
#[derive(Debug)]
pub struct Connection {
    pub greeting: Greeting,
    /// `major:minor` of the mount.
    pub device: String,
    /// Where the requests of the kernel come from.
    pub requests: OwnedFd,
    /// Which files are open, where that matters.
    pub open_files: Option<OwnedFd>,
}

/// The trees of a mount, as a process that goes on with it has to know them.
pub struct Inherited {
    /// By the slots that [`Mount::switch`] announced; that of the first tree is 0.
    pub trees: BTreeMap<u64, Arc<dyn Tree>>,
    /// The slot of the mounted one.
    pub current: u64,
    /// The other process may have been gone before the last switch was over.
    pub unsettled: bool,
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

/// The trees of a mount and what is open of them, before there is a session.
struct Contents {
    trees: Arc<Trees>,
    way: Way,
    open_files: Option<Arc<OpenFiles>>,
}

impl Mount {
    /// Mounts `tree` on `dir`; when this returns the mount answers. `on_end` is called once when the mount has
    /// ended by whatever means, also `umount` in a shell, and nothing of it is left.
    ///
    /// Also gives what another process needs to go on with the mount. None where the kernel lets no one do that: before Linux 6.9.
    pub fn start(
        tree: Arc<dyn Tree>,
        dir: &Path,
        options: &Options,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<(Self, Option<Connection>), MountError> {
        let dir = check_mountpoint(dir)?;
        let requests = attach(&dir, options.allow_other)?;
        // From here on a failure must take the mount off again.
        let started = begin(tree, &dir, options, requests, on_end);
        if started.is_err() {
            let _ = detach(&dir, Detach::Lazy);
        }
        started
    }

    /// Goes on with the mount on `dir` of a process that is gone, with the options that it had. Whoever waits for an answer of
    /// that process gets it from this one; nothing that is open, mapped or worked in changes. After an error nothing has changed: as
    /// long as somebody has the connection, its users wait.
    pub fn go_on(
        inherited: Inherited,
        dir: &Path,
        options: &Options,
        connection: Connection,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<Self, MountError> {
        let failed = |doing| move |cause| MountError::Io { doing, dir: dir.to_owned(), cause };
        let Connection { greeting, device, requests, open_files } = connection;
        if !is_on(dir, &device) {
            return Err(MountError::Ended(dir.to_owned()));
        }
        let Inherited { trees, current, unsettled } = inherited;
        let trees = Trees::inherited(trees, current).ok_or(io::ErrorKind::NotFound.into());
        let trees = Arc::new(trees.map_err(failed("nobody knows what is mounted on"))?);
        let way = Way::new(options.io);
        let open_files = open_files.map(|record| {
            OpenFiles::go_on(way.clone(), record, |number| lease(&trees, number)).map(Arc::new)
        });
        let open_files = open_files.transpose().map_err(failed("cannot tell which files are open on"))?;
        let contents = Contents { trees, way, open_files };
        let (session, answered) = greet(&contents, options, &requests, &greeting.said)
            .map_err(failed("cannot go on with the mount on"))?;
        if answered != greeting.answered {
            // The kernel does what it was told then.
            let cause =
                io::Error::new(io::ErrorKind::Unsupported, "this version asks other things of the kernel");
            return Err(failed("cannot go on with the mount on")(cause));
        }
        probe(&requests, &contents.way);
        greeting::resend(&requests).map_err(failed("cannot go on with the mount on"))?;
        let mount = run(session, contents, dir, device, on_end)?;
        if unsettled && let Err(error) = mount.with_kernel(|kernel| finish(&mount.trees, kernel)) {
            // That is no reason to take it from its users.
            tracing::warn!(dir = %dir.display(), %error, "some names may still lead to what was mounted before");
        }
        Ok(mount)
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
    /// error the old tree stays. `announce` is told the slot of the tree before anybody sees it, for [`Inherited`].
    pub fn switch(
        &self,
        tree: Arc<dyn Tree>,
        announce: impl FnOnce(u64) -> io::Result<()>,
    ) -> Result<(), MountError> {
        self.with_kernel(|kernel| forget_old(&self.trees, kernel))?;
        if self.trees() > MAX_OLD {
            self.trees.let_inherited_go();
        }
        if self.trees() > MAX_OLD {
            return Err(MountError::TooManyInUse(self.trees(), self.dir.clone()));
        }
        self.with_kernel(|kernel| switch(&self.trees, tree, kernel, announce))
    }

    /// The slots of the trees that somebody uses.
    pub fn slots(&self) -> Vec<u64> {
        self.trees.slots()
    }

    /// Leaves the mount as it is, for a process that goes on with it: from here on nothing detaches it but its users.
    pub fn leave(self: Arc<Self>) {
        // Also the event loops go on, until this process ends.
        std::mem::forget(self);
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
            SwitchError::Announce(cause) => {
                MountError::Io { doing: "the supervisor cannot be told what comes on", dir: dir(), cause }
            }
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

/// What keeps the blob file of an inode, if the tree still has one.
fn lease(trees: &Trees, number: u64) -> Option<Lease> {
    let place = trees.at(number)?;
    let found = Arc::new(Mutex::new(None));
    let keep = found.clone();
    let answer = Answer::new(move |backing: Result<&Option<Backing>, _>| {
        let lease = backing.ok().and_then(Option::as_ref).map(|backing| backing.lease.clone());
        *keep.lock().unwrap_or_else(PoisonError::into_inner) = lease;
    });
    place.tree.backing(place.ino, answer);
    // One that comes later comes too late.
    found.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn greet(
    contents: &Contents,
    options: &Options,
    requests: &OwnedFd,
    said: &[u8],
) -> io::Result<(Session<Adapter>, Vec<u8>)> {
    let acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    let mut config = Config::default();
    config.acl = acl;
    config.n_threads = Some(options.threads.max(1));
    // All event loops read from one descriptor: what is read from a clone of it dies with the process.
    config.clone_fd = false;
    let Contents { trees, way, open_files } = contents;
    let adapter = Adapter::new(Arc::clone(trees), way.clone(), open_files.clone());
    greeting::greet(adapter, requests, acl, config, said)
}

fn begin(
    tree: Arc<dyn Tree>,
    dir: &Path,
    options: &Options,
    requests: OwnedFd,
    on_end: impl FnOnce() + Send + 'static,
) -> Result<(Mount, Option<Connection>), MountError> {
    let failed = |doing| move |cause| MountError::Io { doing, dir: dir.to_owned(), cause };
    let line = mounted_on(dir).and_then(|line| line.ok_or_else(|| io::ErrorKind::NotFound.into()));
    let device = line.map_err(failed("cannot find in /proc/self/mountinfo the mount on"))?.device;
    let said = greeting::receive(&requests).map_err(failed("the kernel did not greet the mount on"))?;
    let can_go_on = greeting::can_resend(&said);
    let way = Way::new(options.io);
    let open_files = way.is(Io::Passthrough).then(|| {
        let record = if can_go_on { Record::new().map(Some) } else { Ok(None) };
        record.map(|record| Arc::new(OpenFiles::new(way.clone(), record)))
    });
    let open_files = open_files.transpose().map_err(failed("no memory for the open files of"))?;
    let record = open_files.as_ref().and_then(|files| files.share_record().transpose()).transpose();
    let record = record.map_err(failed("cannot share the open files of"))?;
    let contents = Contents { trees: Arc::new(Trees::new(tree)), way, open_files };
    let (session, answered) = greet(&contents, options, &requests, &said)
        .and_then(|(session, answered)| greeting::answer(&requests, &answered).map(|()| (session, answered)))
        .map_err(failed("the kernel did not greet the mount on"))?;
    probe(&requests, &contents.way);
    let mount = run(session, contents, dir, device.clone(), on_end)?;
    raise_read_ahead(&device);
    let greeting = Greeting { said, answered };
    let connection = Connection { greeting, device, requests, open_files: record };
    Ok((mount, can_go_on.then_some(connection)))
}

/// Starts the event loops.
fn run(
    session: Session<Adapter>,
    contents: Contents,
    dir: &Path,
    device: String,
    on_end: impl FnOnce() + Send + 'static,
) -> Result<Mount, MountError> {
    let kernel = Arc::new(Mutex::new(Some(session.notifier())));
    let Contents { trees, way, .. } = contents;
    let mount =
        Mount { dir: dir.to_owned(), device: device.clone(), end: Arc::default(), way, trees, kernel };
    let (on, end, kernel) = (mount.dir.clone(), Arc::clone(&mount.end), Arc::clone(&mount.kernel));
    thread::Builder::new()
        .name("bcai-mount".to_owned())
        .spawn(move || {
            wait(session, &on, &device, &kernel);
            end_with(on_end, &end);
        })
        .map_err(|cause| MountError::Io {
            doing: "no thread can be started for the mount on",
            dir: dir.to_owned(),
            cause,
        })?;
    Ok(mount)
}

fn wait(session: Session<Adapter>, dir: &Path, device: &str, kernel: &Mutex<Option<Notifier>>) {
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
