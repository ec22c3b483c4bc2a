//! Checking again what was checked when it was stored.
//!
//! Owns: which objects a dataset consists of, and what to do with those that fail.
//! Must not know: how they are stored or fetched.
//! Invariant: "no corruption" is said only after every local object was hashed again.
//! Trust: nothing on this machine's disk is believed. Threads: hashing in blocking sections of one task.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use lru::LruCache;

use super::error::{Error, Kind};
use super::job::Job;
use super::report::{Progress, Verified, VerifyRequest};
use super::scrub::Repaired;
use super::{Node, off};
use crate::fetch::{Class, FetchError};
use crate::id::{self, ObjectId, SnapshotId};
use crate::manifest::{Snapshot, children};
use crate::pack::Checked;
use crate::store::{Corrupt, StoreError};

/// Objects remembered as looked at; one that is met again later is looked at again.
const SEEN: NonZeroUsize = NonZeroUsize::new(1 << 18).expect("is not zero");

impl Node {
    /// Checks one dataset, or everything in the store.
    pub async fn verify(&self, request: &VerifyRequest, job: &Job) -> Result<Verified, Error> {
        // What waits to be written would be counted as absent.
        self.fetcher.flush().await;
        match &request.reference {
            Some(reference) => self.verify_reference(reference, request.repair, job).await,
            None => self.verify_store(request.repair, job).await,
        }
    }

    async fn verify_store(&self, repair: bool, job: &Job) -> Result<Verified, Error> {
        let (store, watched) = (self.store.clone(), job.clone());
        let mut objects = 0;
        let corrupt = tokio::task::spawn_blocking(move || {
            let mut step = |done, total| {
                objects = total;
                watched.set(Progress {
                    phase: "verifying".into(),
                    files_done: done,
                    files_total: total,
                    ..Progress::default()
                });
                match watched.check() {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            };
            store.verify_all(&mut step).map(|found| (found, objects))
        });
        let ((corrupt, removed), objects) = corrupt
            .await
            .map_err(|panic| Error::new(Kind::Failed, format!("verifying failed: {panic}")))??;
        job.check()?;
        let looked = match repair {
            true => job.run(async { Ok(self.repair(corrupt).await) }).await?,
            false => Repaired {
                left: corrupt.iter().map(|bad| (bad.id, text(bad))).collect(),
                ..Repaired::default()
            },
        };
        let repaired = (looked.repaired.len() + removed.len()) as u64;
        let corrupt = looked.left.iter().map(|(_, text)| text.clone()).collect();
        self.scrub.found_all(looked);
        let stats = self.store.stats()?;
        Ok(Verified {
            height: None,
            objects,
            bytes: stats.published_bytes + stats.outside_bytes + stats.cached_bytes,
            absent: 0,
            corrupt,
            repaired,
            removed: removed.iter().map(|path| path.display().to_string()).collect(),
        })
    }

    /// Fetches what is damaged from those who have it. After a try that found nobody to ask, no other is made.
    pub(super) async fn repair(&self, corrupt: Vec<Corrupt>) -> Repaired {
        let (mut looked, mut reachable) = (Repaired::default(), true);
        for bad in corrupt {
            let fetched = match reachable {
                true => Some(self.fetcher.get(bad.id, Class::Prefetch).await),
                false => None,
            };
            match fetched {
                Some(Ok(_)) => {
                    tracing::warn!(damage = text(&bad), "a damaged object was replaced");
                    looked.repaired.push(bad.id);
                }
                other => {
                    use FetchError::{TimedOut, Unreachable};
                    reachable &= !matches!(other, Some(Err(Unreachable { .. } | TimedOut { .. })));
                    looked.left.push((bad.id, text(&bad)));
                }
            }
        }
        looked
    }

    async fn verify_reference(&self, reference: &str, repair: bool, job: &Job) -> Result<Verified, Error> {
        let resolved = self.resolve(reference).await?;
        let height = match &resolved.version {
            Some(version) => {
                self.verify_certificates(&version.genesis, version.height)?;
                Some(version.height)
            }
            None => None,
        };
        let snapshot: SnapshotId = resolved.snapshot.parse()?;
        self.origins.attend(snapshot);
        let built_here = off(|| self.store.snapshots())?.iter().any(|record| record.id == snapshot);
        let mut walk = Walk {
            node: self,
            job,
            repair,
            pending: vec![snapshot.into()],
            seen: LruCache::new(SEEN),
            built_here,
            expected_bytes: 0,
            report: Verified {
                height,
                objects: 0,
                bytes: 0,
                absent: 0,
                corrupt: Vec::new(),
                repaired: 0,
                removed: Vec::new(),
            },
        };
        walk.run().await?;
        Ok(walk.report)
    }

    /// Checks the whole chain of certificates up to the height, from the genesis document on.
    fn verify_certificates(&self, genesis: &str, height: u64) -> Result<(), Error> {
        let chain = self.networks.get(&genesis.parse()?);
        let chain =
            chain.ok_or_else(|| Error::not_found(format!("network {genesis} is not followed here")))?;
        off(|| chain.verify(height))?;
        Ok(())
    }
}

struct Walk<'a> {
    node: &'a Node,
    job: &'a Job,
    repair: bool,
    pending: Vec<ObjectId>,
    /// What was looked at lately; with a bound, since a snapshot may name any number of objects.
    seen: LruCache<ObjectId, ()>,
    /// The snapshot was built on this machine, which therefore has all of it.
    built_here: bool,
    expected_bytes: u64,
    report: Verified,
}

impl Walk<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        while let Some(id) = self.pending.pop() {
            self.job.check()?;
            if self.seen.put(id, ()).is_some() {
                continue;
            }
            if let Some(object) = self.load(&id).await? {
                self.report.objects += 1;
                self.report.bytes += object.plain().len() as u64;
                self.descend(&object)?;
                self.progress();
            }
        }
        Ok(())
    }

    /// The object, checked against its id; absent and damaged ones are noted, or fetched again.
    async fn load(&mut self, id: &ObjectId) -> Result<Option<Checked>, Error> {
        let damage = match off(|| self.node.store.get(id).map(|found| found.map(|packed| packed.verify(id))))
        {
            Ok(Some(Ok(object))) => return Ok(Some(object)),
            Ok(Some(Err(cause))) => Some(cause.to_string()),
            // What the disk cannot give is as good as damaged, and no reason not to look at the rest.
            Err(error) if error.is_damage() || matches!(error, StoreError::Io { .. }) => {
                Some(error.to_string())
            }
            Err(error) => return Err(error.into()),
            Ok(None) => None,
        };
        if self.repair
            && let Some(object) = self.fetch(id).await
        {
            self.report.repaired += 1;
            return Ok(Some(object));
        }
        match damage {
            Some(cause) => self.report.corrupt.push(format!("{id}: {cause}")),
            None if self.built_here => {
                self.report.corrupt.push(format!("{id}: gone, though it was stored here"))
            }
            None => self.report.absent += 1,
        }
        Ok(None)
    }

    /// Fetches an object in place of the damaged or absent one. After a try that found nobody to ask, no other is made.
    async fn fetch(&mut self, id: &ObjectId) -> Option<Checked> {
        match self.node.fetcher.get(*id, Class::Fault).await {
            Ok(object) => Some(object),
            Err(error) => {
                self.repair = !matches!(error, FetchError::Unreachable { .. } | FetchError::TimedOut { .. });
                None
            }
        }
    }

    /// Queues what an object refers to.
    fn descend(&mut self, object: &Checked) -> Result<(), Error> {
        if object.id().kind == id::Kind::Snapshot {
            self.expected_bytes = Snapshot::decode(object.plain())?.totals.bytes;
        }
        let below = children(object.id().kind, object.plain())?;
        self.pending.extend(below.into_iter().map(|(id, _)| id));
        Ok(())
    }

    fn progress(&self) {
        self.job.set(Progress {
            phase: "verifying".into(),
            files_done: self.report.objects,
            files_total: 0,
            bytes_done: self.report.bytes.min(self.expected_bytes),
            bytes_total: self.expected_bytes,
        });
    }
}

fn text(bad: &Corrupt) -> String {
    format!("{} in {} at byte {}: {}", bad.id, bad.path.display(), bad.offset, bad.cause)
}
