//! The mounts that outlive the daemon.
//!
//! Owns: what the next daemon has to know of a mount, how it goes on with one, and the end of a daemon that makes room for it.
//! Must not know: how the kernel is made to wait and to ask again (`bcai_mount`), who keeps it meanwhile (`supervisor`).
//! Invariant: what the supervisor has is what the kernel was told: a version that is about to be mounted is written down before
//! anybody can see it, and no number is told of one that is not.
//! Trust: our own description, perhaps of an older version of this program. One that does not parse is given up: then the mount
//! is a dead one, and restored as such.
//! Threads: descriptions are sent while the list of mounts is locked, which the supervisor answers at once or, after seconds, not
//! at all. A crash leaves a description that is ahead of the mount by one switch, and says so.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bcai_mount::{Connection, Greeting};
use data_encoding::HEXLOWER;
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::Node;
use super::error::{Error, Kind};
use super::mounts::{READ_DEADLINE, Ready, blocking};
use super::report::{MountRequest, Resolved};
use crate::config::Io;
use crate::id::SnapshotId;
use crate::supervisor::{Keeper, Kept};

/// Pause between two tries to open a version whose objects are not here.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a version is waited for that is mounted no more. Its users get ESTALE then.
const OLD_PATIENCE: Duration = Duration::from_secs(5);

/// What the next daemon has to know. Fields are only ever added.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Description {
    request: MountRequest,
    /// What was asked of the kernel, and why.
    io: Io,
    io_reason: String,
    device: String,
    /// The greeting of the kernel and its answer, in hex.
    said: String,
    answered: String,
    /// The versions that somebody may use, by their slots, and that of the mounted one.
    trees: BTreeMap<u64, Resolved>,
    current: u64,
    /// The mounted one is about to take its place.
    unsettled: bool,
}

/// What the supervisor keeps of a mount, until this is dropped.
pub(super) struct Keeping {
    keeper: Arc<Keeper>,
    id: u64,
    description: Description,
}

/// A mount of an earlier daemon. When this is dropped it is still kept: a daemon that does not come as far as going on with it leaves it to
/// the next one.
pub(super) struct Inherited {
    id: u64,
    description: Description,
    fds: Vec<OwnedFd>,
}

fn io_asked(io: bcai_mount::Io) -> Io {
    match io {
        bcai_mount::Io::ZeroOpen => Io::ZeroOpen,
        bcai_mount::Io::Passthrough => Io::Passthrough,
        bcai_mount::Io::Cached => Io::Cached,
    }
}

impl Keeping {
    /// Has a new mount kept. None if that did not work: then it ends with this daemon.
    pub fn begin(
        (keeper, id): (Arc<Keeper>, u64),
        request: &MountRequest,
        (io, io_reason): (bcai_mount::Io, &str),
        resolved: &Resolved,
        connection: Connection,
    ) -> Option<Self> {
        let Connection { greeting, device, requests, open_files } = connection;
        let description = Description {
            request: request.clone(),
            io: io_asked(io),
            io_reason: io_reason.to_owned(),
            device,
            said: HEXLOWER.encode(&greeting.said),
            answered: HEXLOWER.encode(&greeting.answered),
            trees: BTreeMap::from([(0, resolved.clone())]),
            current: 0,
            unsettled: false,
        };
        let keeping = Self { keeper, id, description };
        let fds = std::iter::once(requests).chain(open_files).collect();
        match keeping.send(&keeping.description, fds) {
            Ok(()) => Some(keeping),
            Err(error) => {
                tracing::warn!(dir = %request.dir.display(), %error, "this mount will end with the daemon");
                None
            }
        }
    }

    fn send(&self, description: &Description, fds: Vec<OwnedFd>) -> io::Result<()> {
        let bytes = serde_json::to_vec(description)?;
        self.keeper.keep(self.id, bytes, fds).map_err(io::Error::other)
    }

    /// The snapshots that its users may see.
    pub fn snapshots(&self) -> impl Iterator<Item = SnapshotId> {
        self.description.trees.values().filter_map(|resolved| resolved.snapshot.parse().ok())
    }

    /// Whether somebody does keep it.
    pub fn is_kept(&self) -> bool {
        self.keeper.is_there()
    }

    /// A version is about to take the place of what is mounted; `slots` are those in use. Unless this works it must not.
    pub fn announce(&mut self, slot: u64, resolved: &Resolved, slots: &[u64]) -> io::Result<()> {
        if !self.is_kept() {
            // Nobody will go on with this mount, so nobody has to know.
            return Ok(());
        }
        let mut next = self.description.clone();
        next.trees.retain(|slot, _| slots.contains(slot));
        next.trees.insert(slot, resolved.clone());
        (next.current, next.unsettled) = (slot, true);
        self.send(&next, Vec::new())?;
        self.description = next;
        Ok(())
    }

    /// What is mounted is in its place, by this request.
    pub fn settle(&mut self, request: &MountRequest, slots: &[u64]) {
        self.description.request = request.clone();
        self.description.trees.retain(|slot, _| slots.contains(slot));
        self.description.unsettled = false;
        if self.is_kept()
            && let Err(error) = self.send(&self.description, Vec::new())
        {
            tracing::warn!(dir = %request.dir.display(), %error, "what is kept of this mount is not up to date");
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if self.is_kept()
            && let Err(error) = self.keeper.give_up(self.id)
        {
            tracing::debug!(%error, "a mount that has ended may still be kept");
        }
    }
}

impl Inherited {
    /// What the supervisor has kept, as far as it makes sense.
    pub fn parse(keeper: &Arc<Keeper>, kept: Kept) -> Option<Self> {
        let Kept { id, bytes, fds } = kept;
        match serde_json::from_slice(&bytes) {
            Ok(description) => Some(Self { id, description, fds }),
            Err(error) => {
                tracing::error!(%error, "what was kept of a mount is not understood");
                // What cannot be given up stays until the supervisor ends.
                let _ = keeper.give_up(id);
                None
            }
        }
    }

    pub fn request(&self) -> &MountRequest {
        &self.description.request
    }
}

/// The connection of a mount, from its description and its descriptors.
fn connection(description: &Description, fds: Vec<OwnedFd>) -> Option<Connection> {
    let mut fds = fds.into_iter();
    let hex = |text: &String| HEXLOWER.decode(text.as_bytes()).ok();
    let greeting = Greeting { said: hex(&description.said)?, answered: hex(&description.answered)? };
    let (requests, open_files) = (fds.next()?, fds.next());
    Some(Connection { greeting, device: description.device.clone(), requests, open_files })
}

impl Node {
    /// Asks the node to end so that the supervisor starts another at once, which goes on with the mounts.
    pub fn request_restart(&self) -> Result<(), Error> {
        if !self.mounts.keeper().is_there() {
            return Err(Error::new(
                Kind::Failed,
                "the supervisor of this node is gone, so nobody would start it again",
            )
            .hint("`bcai stop` ends it, with its mounts; the next command starts one with a supervisor"));
        }
        if let Some(dir) = self.mounts.not_kept().first() {
            let dir = dir.display();
            return Err(Error::new(
                Kind::Busy,
                format!("the mount on {dir} would not survive: that needs Linux 6.9"),
            )
            .hint(format!("`bcai unmount {dir}` first, or `bcai stop`, which ends all mounts")));
        }
        if let Some(dir) = self.mounts.at_work() {
            return Err(Error::new(Kind::Busy, format!("another command is at work on {}", dir.display()))
                .hint("try again"));
        }
        self.restarts.store(true, Ordering::Release);
        self.stop.cancel();
        Ok(())
    }

    /// Whether the node ends to be started again.
    pub fn restarts(&self) -> bool {
        self.restarts.load(Ordering::Acquire)
    }

    /// Writes what a new daemon would have to fetch or to replay, and leaves the rest as it is: whoever reads a mount is answered until
    /// this process ends. After this it has to end at once.
    pub async fn hand_over(self: &Arc<Self>) {
        self.networks.stop().await;
        self.fetcher.flush().await;
        if let Err(error) = self.store.commit() {
            tracing::error!(%error, "the last commit of the store failed; cached chunks may be fetched again");
        }
        self.mounts.leave();
        tracing::info!("node hands over");
    }

    /// Goes on with a mount of an earlier daemon. Where that is impossible its users have waited for nothing, and it is mounted anew.
    /// Its directory is claimed.
    pub(super) async fn go_on_or_restore(self: Arc<Self>, inherited: Inherited) {
        let (request, id) = (inherited.request().clone(), inherited.id);
        let result = {
            let _claim = self.mounts.claimed(&request.dir);
            self.go_on(inherited).await
        };
        match result {
            Ok(()) => tracing::info!(dir = %request.dir.display(), "goes on with a mount"),
            Err(error) => {
                tracing::error!(dir = %request.dir.display(), %error, "cannot go on with a mount");
                // What cannot be given up stays until the supervisor ends.
                let _ = self.mounts.keeper().give_up(id);
                self.restore(request).await;
            }
        }
    }

    async fn go_on(self: &Arc<Self>, inherited: Inherited) -> Result<(), Error> {
        let _kept = self.sweeping.read().await;
        let Inherited { id, description, fds } = inherited;
        let known = description.clone();
        let unknown = || Error::new(Kind::Corrupt, "what was kept of the mount makes no sense");
        let connection = connection(&description, fds).ok_or_else(unknown)?;
        let resolved = description.trees.get(&description.current).ok_or_else(unknown)?.clone();
        let request = description.request;
        let ready = self.prepare_in_time(&request, &resolved).await?;
        let old = description.trees.into_iter().filter(|(slot, _)| *slot != description.current);
        let old = join_all(old.map(async |(slot, resolved)| {
            let ready = tokio::time::timeout(OLD_PATIENCE, self.prepare(&request, resolved)).await;
            ready.ok()?.ok().map(|ready| (slot, ready))
        }));
        let versions = old.await.into_iter().flatten().chain([(description.current, ready)]);
        let (mut trees, mut view) = (BTreeMap::new(), None);
        for (slot, ready) in versions {
            let tree = self.tree(&ready, &request.dir, request.readahead);
            trees.insert(slot, tree as Arc<dyn bcai_mount::Tree>);
            // The mounted one is the last.
            view = Some(ready.view);
        }
        let view = view.ok_or_else(unknown)?;
        let io = match description.io {
            Io::Passthrough => bcai_mount::Io::Passthrough,
            Io::ZeroOpen => bcai_mount::Io::ZeroOpen,
            Io::Cached | Io::Auto => bcai_mount::Io::Cached,
        };
        let options = bcai_mount::Options { allow_other: request.allow_other, io, ..Default::default() };
        let inherited =
            bcai_mount::Inherited { trees, current: description.current, unsettled: description.unsettled };
        let (dir, ended) = (request.dir.clone(), Arc::default());
        let on_end = self.on_end(dir.clone(), &ended);
        let mount =
            blocking(move || bcai_mount::Mount::go_on(inherited, &dir, &options, connection, on_end)).await?;
        let at_work = (view, Arc::new(mount), ended);
        let mut keeping = Keeping { keeper: self.mounts.keeper(), id, description: known };
        if description.unsettled {
            keeping.settle(&request, &at_work.1.slots());
        }
        self.list(request, resolved, None, at_work, description.io_reason, Some(keeping));
        Ok(())
    }

    /// Opens a version, for which its users do not wait for longer than for any other answer.
    async fn prepare_in_time(&self, request: &MountRequest, resolved: &Resolved) -> Result<Ready, Error> {
        let started = Instant::now();
        loop {
            match self.prepare(request, resolved.clone()).await {
                Err(error) if error.kind == Kind::Unreachable && started.elapsed() < READ_DEADLINE => {
                    tokio::time::sleep(AGAIN).await;
                }
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by this version and kept by a supervisor of it: later ones must understand it.
    const DESCRIPTION: &str = r#"{"request":{"reference":"photos@v1","dir":"/mnt","allow_other":true,"io":"auto","fetch":"spread","offline":false},
        "io":"passthrough","io_reason":"files have 2048 KiB on average","device":"0:52","said":"00ff","answered":"01",
        "trees":{"0":{"snapshot":"aa","version":null},"3":{"snapshot":"bb","version":{"genesis":"cc","name":"photos","version":"v1","height":4,"as_of":5}}},
        "current":3,"unsettled":true}"#;

    #[test]
    fn the_description_of_an_earlier_version_is_understood() {
        let description: Description = serde_json::from_str(DESCRIPTION).unwrap();
        assert_eq!((description.current, description.unsettled), (3, true));
        assert_eq!(description.trees[&3].snapshot, "bb");
        assert!(connection(&description, Vec::new()).is_none(), "without its descriptor");
        let fds = vec![std::fs::File::open("/dev/null").unwrap().into()];
        let connection = connection(&description, fds).unwrap();
        assert_eq!((connection.greeting.said, connection.open_files.is_none()), (vec![0, 255], true));
    }
}
