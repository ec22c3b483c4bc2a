//! Datasets that are to stay on this machine.
//!
//! Owns: making, resuming and removing pins; the refusal of one that does not fit.
//! Must not know: how objects are held (`store`), or walked (`warming`).
//! Invariant: a pin that is said to be made has all its objects here and held. Pins are made and removed one at a time.
//! Trust: the sizes that a publisher states only serve to refuse early; the store counts what it really holds.
//! Threads: tasks of the runtime. A crash leaves a pin that is not whole, which the next start goes on with, or objects
//! that are held for nobody, which the next start releases.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::error::{Error, Kind};
use super::job::Job;
use super::report::{Pin, PinRequest, Resolved, Unpinned};
use super::text::size;
use super::transfers::JobKind;
use super::warming::Warming;
use super::{Node, now_ms, off, replicas};
use crate::fetch::Class;
use crate::id::SnapshotId;
use crate::store::{Options, PinRecord};
use crate::view::{Globs, View};

/// How long a command waits for the pin that goes on in the background to stop.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two rounds over the pins whose peers do not answer.
const RESUME_EVERY: Duration = Duration::from_secs(5);
/// Bytes of the patterns of one pin. The store takes records of 64 KiB, which also name the dataset.
const PATTERNS_MAX: usize = 60 << 10;
/// Bytes that a chunk and an inode take beyond their content, about: records, rows of trees and blobs.
const CHUNK_OVERHEAD: u64 = 150;
const INODE_OVERHEAD: u64 = 250;

/// Who may change the pins.
#[derive(Default)]
pub(super) struct Pins {
    turn: tokio::sync::Mutex<()>,
    /// Ends what goes on in the background.
    resuming: Mutex<CancellationToken>,
}

impl Node {
    /// Fetches what the request means, and keeps it. What a pin that failed held is released in the background.
    pub async fn pin(self: &Arc<Self>, request: &PinRequest, job: &Job) -> Result<Pin, Error> {
        let _turn = self.pin_turn().await?;
        let made = self.make_pin(request, job).await;
        self.join_kept_swarms();
        self.resume_pins();
        made
    }

    async fn make_pin(&self, request: &PinRequest, job: &Job) -> Result<Pin, Error> {
        let (paths, globs) = patterns(&request.paths)?;
        let planned = async {
            let resolved = self.resolve(&request.reference).await?;
            let view = self.open_to_keep(&resolved, &globs).await?;
            let warming = Warming::plan(self, view.clone(), globs, Some(Class::Prefetch), job).await?;
            Ok::<_, Error>((view, resolved, warming))
        };
        let (view, resolved, mut warming) = job.run(planned).await?;
        if !paths.is_empty() && warming.expected().files == 0 {
            return Err(Error::not_found(format!("no file of {} matches", request.reference)).hint(
                "patterns are matched against paths from the root of the dataset, as `bcai ls -R` shows them",
            ));
        }
        let record = PinRecord {
            snapshot: view.id(),
            paths,
            reference: name_of(&resolved),
            whole: false,
            bytes: warming.expected().bytes,
            files: warming.expected().files,
            pinned_unix_ms: now_ms(),
            replica_of: None,
        };
        let known = off(|| self.store.pins())?;
        let is_made = known.iter().any(|pin| pin.whole && pin.is_same(&record));
        if is_made {
            // Nothing is taken away from it, whatever happens now.
            return self.fill_pin(&mut warming, record, job).await;
        }
        self.check_room(&record, &view)?;
        off(|| self.store.set_pin(&record))?;
        self.join_kept_swarms();
        let made = self.fill_pin(&mut warming, record.clone(), job).await;
        // A pin that the end of the node interrupts is gone on with, like one that a crash does. One that fails, or
        // that its user gives up, is none; what has come of it is cached like anything.
        if made.is_err() && !self.stop.is_cancelled() {
            off(|| self.store.remove_pin(&record))?;
        }
        made
    }

    /// Brings all of it here and holds it; only then it is a pin.
    async fn fill_pin(&self, warming: &mut Warming<'_>, record: PinRecord, job: &Job) -> Result<Pin, Error> {
        let files = job.run(warming.fetch(true)).await?.files;
        let record = PinRecord { whole: true, files, ..record };
        off(|| self.store.set_pin(&record))?;
        tracing::info!(reference = record.reference, paths = ?record.paths, "pinned");
        Ok(report(&record))
    }

    /// Refuses what will not fit, before anything is fetched.
    fn check_room(&self, record: &PinRecord, view: &View) -> Result<(), Error> {
        let (pins, published) = off(|| Ok::<_, Error>((self.store.pins()?, self.store.snapshots()?)))?;
        // Published objects are kept anyway. What was begun is counted while it is held.
        if published.iter().any(|known| known.id == record.snapshot)
            || pins.iter().any(|pin| pin.is_same(record))
        {
            return Ok(());
        }
        let totals = view.snapshot().totals;
        let chunks = match record.paths.is_empty() {
            true => totals.chunks,
            false => record.files.saturating_add(record.bytes >> 16).min(totals.chunks),
        };
        let overhead = chunks.saturating_mul(CHUNK_OVERHEAD) + record.files.saturating_mul(INODE_OVERHEAD);
        let needed = record.bytes.saturating_add(overhead);
        let what = if record.paths.is_empty() { "" } else { "this part of " };
        self.check_pin_room(
            &format!("{what}{}", record.reference),
            needed,
            &[record.snapshot],
            "pin less with --path, ",
        )
    }

    /// Refuses pins of `what` that need so many bytes, if there is no room for them. `less` says how to need less.
    pub(super) fn check_pin_room(
        &self,
        what: &str,
        needed: u64,
        snapshots: &[SnapshotId],
        less: &str,
    ) -> Result<(), Error> {
        let (pins, stats) = off(|| Ok::<_, Error>((self.store.pins()?, self.store.stats()?)))?;
        let max = Options { cache_max_bytes: stats.cache_max_bytes }.pins_max_bytes();
        // Pins of parts of the same snapshots hold some of it already.
        let shared: u64 =
            pins.iter().filter(|pin| snapshots.contains(&pin.snapshot)).map(|pin| pin.bytes).sum();
        let free = max.saturating_sub(stats.pinned_bytes.saturating_sub(shared));
        if needed <= free {
            return Ok(());
        }
        let message = format!(
            "{what} needs up to {}, and {} are free for pins: they may hold {}, four fifths of the cache of {}, and hold {}",
            size(needed),
            size(free),
            size(max),
            size(stats.cache_max_bytes),
            size(stats.pinned_bytes),
        );
        // What pins would hold is four fifths of it; rounded up, since it is shown rounded.
        let budget = ((needed - free).saturating_add(max) / 4).saturating_mul(5);
        let budget = (budget >> 20).saturating_add(1) << 20;
        Err(Error::new(Kind::Failed, message).hint(format!(
            "set cache.max_bytes to {} at least, {less}or unpin something; `bcai cache` shows the pins",
            size(budget)
        )))
    }

    /// Gives up pins; what they held may be evicted, unless it is published or another pin holds it.
    pub async fn unpin(self: &Arc<Self>, request: &PinRequest, job: &Job) -> Result<Unpinned, Error> {
        let _turn = self.pin_turn().await?;
        let removed = job.run(self.remove_pins(request, job)).await;
        self.join_kept_swarms();
        self.resume_pins();
        removed
    }

    async fn remove_pins(&self, request: &PinRequest, job: &Job) -> Result<Unpinned, Error> {
        let (paths, _) = patterns(&request.paths)?;
        let mut pins = off(|| self.store.pins())?;
        // What this node has promised to others is not the user's to give up by name.
        pins.retain(|pin| pin.replica_of.is_none());
        let meant = |pin: &&PinRecord| paths.is_empty() || pin.paths == paths;
        // By the name it was pinned as or by its snapshot, which needs no peer; and by what that name means.
        let named = |pin: &&PinRecord| {
            pin.reference == request.reference || pin.snapshot.to_string() == request.reference
        };
        let mut chosen: Vec<_> = pins.iter().filter(named).filter(meant).collect();
        let snapshots: BTreeSet<String> = chosen.iter().map(|pin| pin.snapshot.to_string()).collect();
        if snapshots.len() > 1 {
            let listed = snapshots.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Error::usage(format!(
                "{} is the name of pins of several snapshots, of different networks: {listed}",
                request.reference
            ))
            .hint("name the snapshot instead: `bcai unpin SNAPSHOT`"));
        }
        if chosen.is_empty() {
            let snapshot = self.resolve(&request.reference).await?.snapshot;
            chosen = pins.iter().filter(|pin| pin.snapshot.to_string() == snapshot).filter(meant).collect();
        }
        if chosen.is_empty() {
            return Err(Error::not_found(format!("{} is not pinned so", request.reference))
                .hint("`bcai cache` shows the pins and their paths"));
        }
        let before = off(|| self.store.stats())?.pinned_bytes;
        for pin in &chosen {
            off(|| self.store.remove_pin(pin))?;
        }
        self.release_unpinned(job).await?;
        let after = off(|| self.store.stats())?.pinned_bytes;
        let removed = chosen.into_iter().map(report).collect();
        Ok(Unpinned { removed, released_bytes: before.saturating_sub(after) })
    }

    /// Holds again what the remaining pins are of, and releases the rest.
    async fn release_unpinned(&self, job: &Job) -> Result<(), Error> {
        for pin in off(|| self.store.pins())? {
            job.check()?;
            let snapshot = pin.snapshot.into();
            if off(|| self.fetcher.missing(&[snapshot]))?.is_empty() {
                let resolved = Resolved { snapshot: pin.snapshot.to_string(), version: None };
                let globs = Globs::new(&pin.paths)?;
                let view = self.open_to_keep(&resolved, &globs).await?;
                Warming::over(self, view, globs, None, job).hold_local().await?;
            }
        }
        while off(|| self.store.release_stale())? {
            job.check()?;
        }
        Ok(())
    }

    /// Waits until nobody else changes the pins; what goes on in the background is stopped for it.
    pub(super) async fn pin_turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Error> {
        let mut turn = pin!(self.pins.turn.lock());
        // In the queue first: what another command begins in the background from now on comes after this one.
        if let Poll::Ready(turn) = futures::poll!(turn.as_mut()) {
            return Ok(turn);
        }
        self.pins.resuming.lock().unwrap_or_else(PoisonError::into_inner).cancel();
        tokio::time::timeout(PATIENCE, turn).await.map_err(|_| {
            Error::new(Kind::Busy, "another pin is being made or removed")
                .hint("wait until it is done, or interrupt it: it goes on when it is asked for again")
        })
    }

    /// Goes on, in the background, with what a crash or an interruption has left half done.
    pub(super) fn resume_pins(self: &Arc<Self>) {
        let unfinished = off(|| {
            let begun = self.store.pins()?.iter().any(|pin| !pin.whole);
            Ok::<_, Error>(begun || self.store.has_stale_marks()?)
        });
        match unfinished {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => tracing::warn!(%error, "the pins cannot be read"),
        }
        let token = self.stop.child_token();
        // Of two that end in turn, the second finds the task of the first waiting for its turn.
        let mut slot = self.pins.resuming.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *slot, token.clone()).cancel();
        drop(slot);
        let node = self.clone();
        tokio::spawn(async move {
            // First lets go of what no pin holds.
            let job = node.transfers.begin(&token, JobKind::Unpin, "what no pin holds");
            token.run_until_cancelled(node.resume(job)).await;
        });
    }

    async fn resume(&self, job: Job) {
        let _turn = self.pins.turn.lock().await;
        // That walks all pins: only if there is something to let go of.
        if off(|| self.store.has_stale_marks()).unwrap_or(true)
            && let Err(error) = self.release_unpinned(&job).await
        {
            tracing::warn!(%error, "what was unpinned is not released yet");
        }
        let stop = job.cancellation();
        drop(job);
        let mut pins = off(|| self.store.pins()).unwrap_or_default();
        pins.retain(|pin| !pin.whole);
        // Each in its turn: one whose content nobody has must not keep the others waiting.
        loop {
            let mut again = Vec::new();
            for pin in pins {
                let (kind, subject) = match pin.replica_of {
                    None => (JobKind::Pin, pin.reference.clone()),
                    Some(_) => {
                        let subject = format!("{} {}", pin.reference, replicas::subject(&pin.snapshot));
                        (JobKind::Replicate, subject)
                    }
                };
                let job = self.transfers.begin(&stop, kind, &subject);
                let begun = Instant::now();
                match self.resume_one(&pin, &job).await {
                    Ok(()) => {
                        let seconds = begun.elapsed().as_secs_f64();
                        tracing::info!(reference = pin.reference, bytes = pin.bytes, seconds, "held whole");
                        job.end(None);
                        self.replicas.ended(pin.snapshot, None);
                    }
                    Err(error) if error.kind == Kind::Unreachable => {
                        tracing::debug!(reference = pin.reference, %error, "cannot go on with this pin yet");
                        again.push(pin);
                    }
                    Err(error) => {
                        tracing::warn!(reference = pin.reference, %error, "cannot go on with this pin");
                        job.end(Some(&error));
                        if pin.replica_of.is_some() {
                            self.replicas.ended(pin.snapshot, Some(error));
                        }
                    }
                }
            }
            if again.is_empty() {
                return;
            }
            pins = again;
            tokio::time::sleep(RESUME_EVERY).await;
        }
    }

    async fn resume_one(&self, pin: &PinRecord, job: &Job) -> Result<(), Error> {
        let resolved = Resolved { snapshot: pin.snapshot.to_string(), version: None };
        let globs = Globs::new(&pin.paths)?;
        let view = self.open_to_keep(&resolved, &globs).await?;
        let mut warming = Warming::plan(self, view, globs, Some(Class::Prefetch), job).await?;
        self.fill_pin(&mut warming, pin.clone(), job).await.map(drop)
    }

    /// All pins, in the order of their names.
    pub(super) fn pins(&self) -> Result<Vec<Pin>, Error> {
        let mut pins: Vec<Pin> = self.store.pins()?.iter().map(report).collect();
        pins.sort_by(|a, b| (&a.reference, &a.paths).cmp(&(&b.reference, &b.paths)));
        Ok(pins)
    }
}

/// Patterns in the order in which pins keep them.
fn patterns(paths: &[String]) -> Result<(Vec<String>, Globs), Error> {
    let mut paths: Vec<String> = paths.iter().map(|path| path.trim_matches('/').to_owned()).collect();
    paths.sort();
    paths.dedup();
    let bytes: usize = paths.iter().map(String::len).sum();
    if bytes > PATTERNS_MAX {
        return Err(Error::usage(format!(
            "patterns of {bytes} bytes are more than a pin has room for: {PATTERNS_MAX}"
        ))
        .hint("use `*`, `**` or `{a,b}` to say the same in fewer"));
    }
    let globs = Globs::new(&paths)?;
    Ok((paths, globs))
}

fn name_of(resolved: &Resolved) -> String {
    match &resolved.version {
        Some(version) => format!("{}@{}", version.name, version.version),
        None => resolved.snapshot.clone(),
    }
}

fn report(pin: &PinRecord) -> Pin {
    Pin {
        reference: pin.reference.clone(),
        snapshot: pin.snapshot.to_string(),
        paths: pin.paths.clone(),
        files: pin.files,
        bytes: pin.bytes,
        whole: pin.whole,
        time_ms: pin.pinned_unix_ms,
        replica: pin.replica_of.is_some(),
    }
}
