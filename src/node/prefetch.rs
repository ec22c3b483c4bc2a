//! Fetching a dataset before it is read, saying how much of it is here, and dropping it.
//!
//! Owns: what `prefetch` answers. Must not know: how contents are walked (`warming`).
//! Invariant: checking fetches directories and no contents of files, evicting fetches nothing; what is said to be here
//! is here at the end.
//! Trust: patterns are the user's. Threads: one task of the runtime for each request.

use std::time::Instant;

use super::error::{Error, Kind};
use super::job::Job;
use super::report::{Prefetch, PrefetchRequest, Prefetched};
use super::warming::Warming;
use super::{Node, off};
use crate::fetch::Class;
use crate::id::SnapshotId;
use crate::view::Globs;

impl Node {
    /// Fetches, counts or drops what the request means.
    pub async fn prefetch(&self, request: &PrefetchRequest, job: &Job) -> Result<Prefetched, Error> {
        job.run(self.prefetch_all(request, job)).await
    }

    async fn prefetch_all(&self, request: &PrefetchRequest, job: &Job) -> Result<Prefetched, Error> {
        let started = Instant::now();
        let globs = Globs::new(&request.globs)?;
        let resolved = self.resolve(&request.reference).await?;
        let mut done = Prefetched {
            snapshot: resolved.snapshot.clone(),
            files: 0,
            bytes: 0,
            files_here: 0,
            bytes_here: 0,
            evicted_bytes: 0,
            seconds: 0.0,
        };
        let class = match request.what {
            Prefetch::Fetch | Prefetch::Check => Some(Class::Prefetch),
            Prefetch::Evict => None,
        };
        // What cannot be named by what is here cannot be dropped.
        let snapshot = resolved.snapshot.parse::<SnapshotId>()?;
        if class.is_none() && !off(|| self.fetcher.missing(&[snapshot.into()]))?.is_empty() {
            return Ok(done);
        }
        let _swarm = class.map(|_| self.join_swarm(&snapshot));
        let view = match self.open(&resolved, self.fetcher.clone()).await {
            // Without the key, all of it or nothing.
            Err(error) if error.kind == Kind::Denied && globs.is_all() => {
                self.open_to_keep(&resolved, &globs).await?
            }
            opened => opened?,
        };
        let selected = !globs.is_all();
        let mut warming = Warming::plan(self, view, globs, class, job).await?;
        if selected && warming.expected().files == 0 && warming.is_complete() {
            return Err(Error::not_found(format!("no file of {} matches", request.reference)).hint(
                "patterns are matched against paths from the root of the dataset, as `bcai ls -R` shows them",
            ));
        }
        match request.what {
            Prefetch::Fetch => warming.fetch(false).await.map(drop)?,
            Prefetch::Check => {}
            Prefetch::Evict => done.evicted_bytes = warming.evict().await?,
        }
        // Also after fetching: what was fetched first may have had to go for what came last.
        self.fetcher.flush().await;
        let (all, here) = warming.check().await?;
        (done.files, done.bytes, done.files_here, done.bytes_here) =
            (all.files, all.bytes, here.files, here.bytes);
        done.seconds = started.elapsed().as_secs_f64();
        Ok(done)
    }
}
