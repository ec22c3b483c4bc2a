//! Fetching a dataset before it is read, saying how much of it is here, and dropping it.
//!
//! Owns: what `prefetch` answers. Must not know: how contents are walked (`warming`).
//! Invariant: checking and evicting fetch no contents of files; what is said to be here is here at the end.
//! Trust: patterns are the user's. Threads: one task of the runtime for each request.

use std::time::Instant;

use super::Node;
use super::error::Error;
use super::job::Job;
use super::report::{Prefetch, PrefetchRequest, Prefetched};
use super::warming::Warming;
use crate::view::Globs;

impl Node {
    /// Fetches, counts or drops what the request means.
    pub async fn prefetch(&self, request: &PrefetchRequest, job: &Job) -> Result<Prefetched, Error> {
        let started = Instant::now();
        let globs = Globs::new(&request.globs)?;
        let (view, resolved) = self.view(&request.reference).await?;
        let selected = !globs.is_all();
        let mut warming = Warming::plan(self, view, globs, job).await?;
        if selected && warming.expected().files == 0 {
            return Err(Error::not_found(format!("no file of {} matches", request.reference)).hint(
                "patterns are matched against paths from the root of the dataset, as `bcai ls -R` shows them",
            ));
        }
        let mut done = Prefetched {
            snapshot: resolved.snapshot,
            files: 0,
            bytes: 0,
            files_here: 0,
            bytes_here: 0,
            evicted_bytes: 0,
            seconds: 0.0,
        };
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
