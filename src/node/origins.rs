//! The origins of this node.
//!
//! Owns: which origins there are (settings, URIs, what was published to), what they are told, and uploading to one.
//! Must not know: what an origin consists of; when one is asked (that is the scheduler's).
//! Invariant: they are asked one after the other, those of the settings first. At most [`MAX`] origins.
//! Trust: URIs come from strangers, and so may origins: what comes from one is verified like everything else.
//! Threads: the runtime. A crash loses nothing: what is remembered is in `state.json`.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use lru::LruCache;

use super::error::Error;
use super::job::Job;
use super::report::{OriginStatus, Progress, UploadReport};
use super::state::State;
use super::{Node, off};
use crate::chain::Chain;
use crate::config::Config;
use crate::fetch::{ChunkSource, Class, FetchError};
use crate::id::{Genesis, ObjectId, SnapshotId};
use crate::log::Name;
use crate::manifest::Snapshot;
use crate::origin::{Origin, OriginUrl, Upload};
use crate::pack::Checked;

/// Origins of a node; more are passed over with a line in the daemon's log.
const MAX: usize = 16;
/// Origins remembered of one network.
const KEPT: usize = 4;
/// Former versions of a dataset that an upload looks for.
const FORMER: usize = 8;
/// Snapshots that origins named later are told of.
const SNAPSHOTS: NonZeroUsize = NonZeroUsize::new(64).expect("is not zero");
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// All origins.
pub(super) struct Origins(Mutex<Known>);

struct Known {
    all: Vec<Arc<Origin>>,
    /// What is open or was lately, for origins that are named afterwards.
    snapshots: LruCache<SnapshotId, ()>,
}

impl Origins {
    /// Those of the settings, and those remembered.
    pub fn new(config: &Config, state: &State) -> Arc<Self> {
        let known = Known { all: Vec::new(), snapshots: LruCache::new(SNAPSHOTS) };
        let origins = Self(Mutex::new(known));
        config.origins.iter().for_each(|url| origins.add(url));
        for url in state.get().origins.values().flatten() {
            match url.parse() {
                Ok(url) => origins.add(&url),
                Err(error) => tracing::warn!(%error, "a remembered origin cannot be used"),
            }
        }
        Arc::new(origins)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // No operation on it can leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, those of the settings first.
    pub fn all(&self) -> Vec<Arc<Origin>> {
        self.lock().all.clone()
    }

    /// What to ask, if there is any.
    pub fn source(self: &Arc<Self>) -> Option<Arc<dyn ChunkSource>> {
        let is_empty = self.lock().all.is_empty();
        (!is_empty).then(|| self.clone() as Arc<dyn ChunkSource>)
    }

    fn add(&self, url: &OriginUrl) {
        let mut known = self.lock();
        if known.all.iter().any(|origin| origin.url() == url) {
            return;
        }
        match Origin::open(url.clone()) {
            Ok(origin) if known.all.len() < MAX => {
                known.snapshots.iter().rev().for_each(|(snapshot, ())| origin.attend(*snapshot));
                known.all.push(origin);
            }
            Ok(_) => tracing::warn!(%url, "there are {MAX} origins already: this one is not asked"),
            Err(error) => tracing::warn!(%error, "this origin is not asked"),
        }
    }

    /// Objects of this snapshot may be asked for.
    pub fn attend(&self, snapshot: SnapshotId) {
        let mut known = self.lock();
        known.snapshots.put(snapshot, ());
        known.all.iter().for_each(|origin| origin.attend(snapshot));
    }

    pub fn status(&self) -> Vec<OriginStatus> {
        let status = |origin: &Arc<Origin>| {
            let traffic = origin.traffic();
            OriginStatus {
                url: origin.url().to_string(),
                requests: traffic.requests,
                failed: traffic.failed,
                bytes_in: traffic.bytes_in,
            }
        };
        self.all().iter().map(status).collect()
    }
}

impl ChunkSource for Origins {
    fn fetch(&self, id: ObjectId, class: Class) -> BoxFuture<'_, Result<Checked, FetchError>> {
        Box::pin(async move {
            let mut failed = FetchError::NotFound { id };
            for origin in self.all() {
                match origin.fetch(id, class).await {
                    Ok(object) => return Ok(object),
                    Err(error) => failed = failed.or_worse(error),
                }
            }
            Err(failed)
        })
    }
}

impl Node {
    /// Asks these origins from now on, and after the next start.
    pub(super) fn know_origins(&self, genesis: Genesis, origins: &[OriginUrl]) -> Result<(), Error> {
        origins.iter().for_each(|url| self.origins.add(url));
        self.net.set_origin(self.origins.source());
        let genesis = genesis.to_string();
        let known = self.state.get().origins.remove(&genesis).unwrap_or_default();
        let urls: Vec<String> = origins.iter().map(OriginUrl::to_string).collect();
        if known.starts_with(&urls) {
            return Ok(());
        }
        let others = known.into_iter().filter(|url| !urls.contains(url));
        let kept: Vec<String> = urls.iter().cloned().chain(others).take(KEPT).collect();
        off(|| self.state.update(|facts| _ = facts.origins.insert(genesis, kept)))
    }

    /// Uploads a snapshot that was built here, less what former versions of the dataset have brought.
    pub(super) async fn upload(
        &self,
        url: &OriginUrl,
        chain: &Chain,
        name: &Name,
        id: SnapshotId,
        snapshot: &Snapshot,
        job: &Job,
    ) -> Result<UploadReport, Error> {
        let started = Instant::now();
        let ledger = chain.ledger();
        let dataset = ledger.dataset(name.as_str());
        let versions = dataset.into_iter().flat_map(|dataset| dataset.versions.iter().rev());
        let former =
            versions.map(|version| version.snapshot).filter(|former| *former != id).take(FORMER).collect();
        let upload = Upload::new(url.clone(), self.store.clone(), id, former, job.cancellation())?;
        let show = || {
            job.set(Progress {
                phase: "uploading".into(),
                files_done: upload.counts().objects,
                files_total: 0,
                bytes_done: upload.counts().bytes,
                bytes_total: snapshot.totals.bytes.max(upload.counts().bytes),
            });
        };
        let mut run = std::pin::pin!(upload.clone().run());
        let done = loop {
            tokio::select! {
                done = &mut run => break done?,
                () = tokio::time::sleep(REPORT_EVERY) => show(),
            }
        };
        job.check()?;
        self.know_origins(chain.genesis(), std::slice::from_ref(url))?;
        Ok(UploadReport {
            origin: url.to_string(),
            already: done.objects == 0,
            objects: done.objects,
            packs: done.packs,
            sent_packs: done.sent_packs,
            sent_bytes: done.sent_bytes,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}
