//! Taking away what was published and is no longer wanted.
//!
//! Owns: what keeps a snapshot (versions, a time after they were withdrawn, pins, mounts), and the walk that marks what stays.
//! Nothing is judged by a log that is not here.
//! Must not know: how the store frees anything.
//! Invariant: nothing goes that a snapshot which stays refers to. If one that stays cannot be followed to its end,
//! nothing goes at all.
//! Trust: the log, for what is published; nothing on this machine's disk, which is hashed as it is followed.
//! Threads: one blocking task; nothing is snapshotted or published meanwhile (`sweeping`), nor pinned.
//! A crash leaves: what `store::gc` leaves.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;

use super::error::{Error, Kind};
use super::job::Job;
use super::report::{Collected, GcRequest, Held, KeptSnapshot, Progress};
use super::{Node, now_ms, off};
use crate::id::{self, ObjectId, SnapshotId};
use crate::manifest::children;
use crate::pack::Checked;
use crate::store::{Marks, SnapshotRecord, Store, StoreError, Swept};

/// Tree and blob nodes remembered as followed; one that is met again later is followed again.
const FOLLOWED: NonZeroUsize = NonZeroUsize::new(1 << 18).expect("is not zero");

/// Names and fates of the versions that a snapshot is.
#[derive(Default)]
struct Versions {
    names: Vec<String>,
    /// One of them is not withdrawn.
    live: bool,
    /// When the last of them was, in milliseconds since 1970.
    withdrawn_ms: u64,
}

impl Node {
    /// Takes away what no version, pin or mount has needed for as long as the settings say.
    pub async fn gc(self: &Arc<Self>, request: &GcRequest, job: &Job) -> Result<Collected, Error> {
        let _alone = self.sweeping.try_write().map_err(|_| {
            Error::new(Kind::Busy, "a snapshot, a publish, a mount or another gc is under way, and gc cannot tell its data from what is left over")
                .hint("`bcai status` shows it; run gc again when it is done")
        })?;
        self.check_logs()?;
        // What a pin that is being made has found here must not go before it is held. Those in the background go on afterwards.
        let turn = self.pin_turn().await?;
        let collected = self.collect_alone(request.dry_run, job).await;
        drop(turn);
        // What is gone is not to be had here any more.
        self.join_kept_swarms();
        self.resume_pins();
        collected
    }

    /// Which versions exist only their logs say.
    fn check_logs(&self) -> Result<(), Error> {
        let Some(genesis) = self.networks.absent().first().copied() else { return Ok(()) };
        let text =
            format!("the log of network {genesis} is not here, so gc cannot know which versions exist");
        Err(Error::new(Kind::Busy, text).hint(
            "wait until it is fetched again, or put networks/ back from a backup; `bcai init --join URI` fetches it from the peer in the URI",
        ))
    }

    async fn collect_alone(self: &Arc<Self>, dry_run: bool, job: &Job) -> Result<Collected, Error> {
        self.fetcher.flush().await;
        let snapshots = off(|| {
            if !dry_run {
                self.begin_times()?;
            }
            self.kept_snapshots()
        })?;
        let used = self.mounts.snapshots_in_use()?;
        let (node, job) = (self.clone(), job.clone());
        let done = tokio::task::spawn_blocking(move || {
            let swept = node.collect(&snapshots, &used, dry_run, &job)?;
            Ok((snapshots, swept))
        });
        let done: Result<_, Error> =
            done.await.map_err(|panic| Error::new(Kind::Failed, format!("gc failed: {panic}")))?;
        let (snapshots, swept) = done?;
        let Swept { objects, bytes, outside_bytes, kept_objects, kept_bytes } = swept;
        tracing::info!(dry_run, objects, bytes, kept_objects, kept_bytes, "gc is done");
        Ok(Collected {
            dry_run,
            snapshots,
            objects,
            bytes,
            in_place_bytes: outside_bytes,
            kept_objects,
            kept_bytes,
        })
    }

    /// Every snapshot that was built here, with what holds it.
    pub(super) fn kept_snapshots(&self) -> Result<Vec<KeptSnapshot>, Error> {
        let mut versions = self.versions_by_snapshot();
        let now = now_ms();
        let mut kept = Vec::new();
        for record in self.store.snapshots()? {
            let versions = versions.remove(&record.id).unwrap_or_default();
            kept.push(self.judge(&record, versions, now));
        }
        Ok(kept)
    }

    fn versions_by_snapshot(&self) -> BTreeMap<SnapshotId, Versions> {
        let mut all: BTreeMap<SnapshotId, Versions> = BTreeMap::new();
        for chain in self.networks.all() {
            let ledger = chain.ledger();
            for dataset in ledger.datasets() {
                for version in &dataset.versions {
                    let known = all.entry(version.snapshot).or_default();
                    known.names.push(format!("{}@{}", dataset.name, version.label));
                    match &version.yanked {
                        None => known.live = true,
                        Some(yanked) => known.withdrawn_ms = known.withdrawn_ms.max(yanked.stamp.time_ms),
                    }
                }
            }
        }
        all
    }

    /// When a snapshot was built that was found again after the index was lost is not known: its time begins with this gc.
    fn begin_times(&self) -> Result<(), Error> {
        for record in self.store.snapshots()?.into_iter().filter(|record| record.created_unix_ms == 0) {
            self.store.keep_snapshot(SnapshotRecord { created_unix_ms: now_ms(), ..record })?;
        }
        Ok(())
    }

    fn judge(&self, record: &SnapshotRecord, versions: Versions, now: u64) -> KeptSnapshot {
        let after = |time_ms: u64, time: Duration| {
            time_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        let created = if record.created_unix_ms == 0 { now } else { record.created_unix_ms };
        let (held, goes_unix_ms) = match &versions {
            Versions { live: true, .. } => (Held::Published, None),
            // The log may not have come to it yet, here.
            Versions { names, .. } if names.is_empty() && record.submitted.is_some() => {
                (Held::Submitted, None)
            }
            Versions { names, .. } if names.is_empty() => {
                (Held::Unpublished, Some(after(created, self.retention.unpublished)))
            }
            // It may also have been built again since.
            Versions { withdrawn_ms, .. } => {
                let last = created.max(*withdrawn_ms);
                (Held::Withdrawn, Some(after(last, self.retention.withdrawn)))
            }
        };
        KeptSnapshot {
            snapshot: record.id.to_string(),
            source: record.source.clone(),
            bytes: record.bytes,
            versions: versions.names,
            held,
            goes_unix_ms,
            goes: goes_unix_ms.is_some_and(|time| time <= now),
        }
    }

    fn collect(
        &self,
        snapshots: &[KeptSnapshot],
        used: &[SnapshotId],
        dry_run: bool,
        job: &Job,
    ) -> Result<Swept, Error> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt)
            .map_err(|error| Error::new(Kind::Failed, format!("no random bytes: {error}")))?;
        let mut marking = Marking {
            store: &self.store,
            marks: self.store.marks(salt)?,
            followed: LruCache::new(FOLLOWED),
            objects: 0,
            job,
        };
        let mut gone: Vec<SnapshotId> = Vec::new();
        for kept in snapshots {
            let id = kept.snapshot.parse()?;
            match kept.goes {
                true => gone.push(id),
                false => marking.follow(id, Some(kept))?,
            }
        }
        // What is only fetched need not be whole; and of what is pinned or mounted, parts may be published.
        let pins = self.store.pins()?.into_iter().map(|pin| pin.snapshot);
        for id in pins.chain(used.iter().copied()).collect::<Vec<SnapshotId>>() {
            marking.follow(id, None)?;
        }
        let mut step = |done, total| {
            let phase = if dry_run { "counting" } else { "sweeping" };
            job.set(Progress {
                phase: phase.into(),
                files_done: done,
                files_total: total,
                ..Progress::default()
            });
            if job.check().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let swept = match dry_run {
            true => self.store.count_unmarked(&marking.marks, &mut step)?,
            false => self.store.sweep(&marking.marks, &gone, &mut step)?,
        };
        job.check()?;
        Ok(swept)
    }
}

/// The walk over all that stays.
struct Marking<'a> {
    store: &'a Store,
    marks: Marks,
    /// What was followed lately; with a bound, since snapshots may name any number of objects.
    followed: LruCache<ObjectId, ()>,
    objects: u64,
    job: &'a Job,
}

impl Marking<'_> {
    /// Marks all that a snapshot refers to. One that was built here is whole, or nothing may go; of any other that much
    /// is marked as is here.
    fn follow(&mut self, snapshot: SnapshotId, built: Option<&KeptSnapshot>) -> Result<(), Error> {
        let mut pending = vec![ObjectId::from(snapshot)];
        while let Some(id) = pending.pop() {
            if self.followed.put(id, ()).is_some() {
                continue;
            }
            self.job.check()?;
            let object = match self.load(&id)? {
                Ok(Some(object)) => object,
                Ok(None) if built.is_none() => continue,
                Ok(None) => return Err(broken(snapshot, built, &id, "it is not here")),
                // What it refers to may be here, and nobody can say what that is.
                Err(cause) => return Err(broken(snapshot, built, &id, &cause)),
            };
            self.mark(&id);
            let below = match (children(id.kind, object.plain()), built) {
                (Ok(below), _) => below,
                (Err(error), Some(_)) => return Err(broken(snapshot, built, &id, &error.to_string())),
                // Nobody can follow it, wherever it is.
                (Err(_), None) => continue,
            };
            for (id, _) in below {
                match id.kind {
                    id::Kind::Chunk => self.mark(&id),
                    _ => pending.push(id),
                }
            }
        }
        Ok(())
    }

    fn mark(&mut self, id: &ObjectId) {
        self.marks.insert(id);
        self.objects += 1;
        if self.objects.is_multiple_of(1024) {
            self.job.set(Progress {
                phase: "marking".into(),
                files_done: self.objects,
                ..Progress::default()
            });
        }
    }

    /// The object, if it is here, or what is wrong with it.
    fn load(&self, id: &ObjectId) -> Result<Result<Option<Checked>, String>, Error> {
        match self.store.get(id) {
            Ok(Some(packed)) => Ok(packed.verify(id).map(Some).map_err(|error| error.to_string())),
            Ok(None) => Ok(Ok(None)),
            Err(error) if error.is_damage() || matches!(error, StoreError::Io { .. }) => {
                Ok(Err(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn broken(snapshot: SnapshotId, built: Option<&KeptSnapshot>, id: &ObjectId, cause: &str) -> Error {
    let name = built.and_then(|kept| kept.versions.first().cloned()).unwrap_or_else(|| snapshot.to_string());
    Error::new(
        Kind::Corrupt,
        format!("{name} stays and cannot be followed to its end, so nothing was removed: {id}: {cause}"),
    )
    .hint(format!("`bcai verify {name} --repair` fetches what is damaged; then run gc again"))
}
