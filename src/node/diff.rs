//! Comparing two versions.
//!
//! Owns: what is said of a difference, and the totals.
//! Must not know: how trees are compared (`view`).
//! Invariant: only what differs is read, of directories, and of contents nothing but their lists of chunks, those only to
//! count what is new.
//! Trust: references are the user's; names from datasets are escaped before they leave. Threads: one task of the runtime.

use tokio::sync::mpsc;

use super::Node;
use super::error::Error;
use super::job::{Job, cancelled};
use super::report::{DiffNew, DiffRequest, DiffRow, DiffSide, DiffTotals, Progress};
use super::text::escape;
use crate::manifest::{self, Node as Inode};
use crate::view::{Aspect, Diff, Difference, Novel, View};
use std::sync::Arc;

/// Rows given out at a time, and the bytes of their paths from which on fewer are.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 256 << 10;

impl Node {
    /// Compares two versions: gives the differences to `rows` in the order of names, and returns their totals.
    pub async fn diff(
        &self,
        request: &DiffRequest,
        job: &Job,
        rows: mpsc::Sender<Vec<DiffRow>>,
    ) -> Result<DiffTotals, Error> {
        job.run(self.compare(request, job, rows)).await
    }

    async fn compare(
        &self,
        request: &DiffRequest,
        job: &Job,
        rows: mpsc::Sender<Vec<DiffRow>>,
    ) -> Result<DiffTotals, Error> {
        let (before, of_before) = self.view(&request.before).await?;
        let (after, of_after) = self.view(&request.after).await?;
        let mut totals =
            DiffTotals { before: of_before.snapshot, after: of_after.snapshot, ..DiffTotals::default() };
        let mut diff = Diff::new(before.clone(), after.clone());
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(found) = diff.next().await? {
            add(&mut totals, &found);
            if request.stat {
                continue;
            }
            bytes += found.path.len();
            batch.push(row(found));
            if batch.len() >= BATCH || bytes >= BATCH_BYTES {
                bytes = 0;
                rows.send(std::mem::take(&mut batch)).await.map_err(|_| cancelled())?;
                job.set(progress("comparing", &totals));
            }
        }
        if !batch.is_empty() {
            rows.send(batch).await.map_err(|_| cancelled())?;
        }
        if request.stat {
            totals.new = Some(new(&before, &after, job, &totals).await?);
        }
        Ok(totals)
    }
}

/// Counts what is new. First all that was there is remembered, since a file may have been moved either way.
async fn new(
    before: &Arc<View>,
    after: &Arc<View>,
    job: &Job,
    totals: &DiffTotals,
) -> Result<DiffNew, Error> {
    let mut novel = Novel::default();
    let differs = |found: &Difference| found.aspects.is_empty() || found.aspects.contains(&Aspect::Content);
    job.set(progress("counting", totals));
    let mut diff = Diff::new(before.clone(), after.clone());
    while let Some(found) = diff.next().await? {
        if differs(&found) {
            novel.remember_all(before, found.before.as_ref(), found.after.as_ref()).await?;
        }
    }
    let mut diff = Diff::new(before.clone(), after.clone());
    while let Some(found) = diff.next().await? {
        if differs(&found) {
            novel.count(after, found.before.as_ref(), found.after.as_ref()).await?;
        }
    }
    Ok(DiffNew { chunks: novel.chunks, bytes: novel.bytes, at_most: novel.overflowed })
}

fn progress(phase: &str, totals: &DiffTotals) -> Progress {
    let names = totals.added + totals.removed + totals.changed;
    Progress { phase: phase.into(), files_done: names, ..Progress::default() }
}

fn add(totals: &mut DiffTotals, found: &Difference) {
    let count = match (&found.before, &found.after) {
        (None, _) => &mut totals.added,
        (_, None) => &mut totals.removed,
        _ => &mut totals.changed,
    };
    *count += 1;
    if found.aspects.is_empty() || found.aspects.contains(&Aspect::Content) {
        let size = |node: &Option<Inode>| match node {
            Some(Inode::File { size, .. }) => *size,
            _ => 0,
        };
        totals.bytes_before = totals.bytes_before.saturating_add(size(&found.before));
        totals.bytes_after = totals.bytes_after.saturating_add(size(&found.after));
    }
}

fn row(found: Difference) -> DiffRow {
    let change = match (&found.before, &found.after) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    DiffRow {
        path: escape(&found.path),
        change: change.to_owned(),
        aspects: found.aspects.iter().map(|aspect| name(*aspect).to_owned()).collect(),
        before: found.before.as_ref().map(side),
        after: found.after.as_ref().map(side),
    }
}

fn side(node: &Inode) -> DiffSide {
    let nobody = manifest::Meta::default();
    let meta = node.meta().unwrap_or(&nobody);
    let (kind, size, hash, target) = match node {
        Inode::File { size, content, .. } => {
            ("file", Some(*size), Some(content.file_hash().to_string()), None)
        }
        Inode::Symlink { target, .. } => ("link", None, None, Some(escape(target))),
        Inode::Dir { .. } | Inode::Link { .. } => ("dir", None, None, None),
    };
    DiffSide {
        kind: kind.to_owned(),
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        mtime_s: meta.mtime_s,
        mtime_ns: meta.mtime_ns,
        size,
        hash,
        target,
    }
}

fn name(aspect: Aspect) -> &'static str {
    match aspect {
        Aspect::Content => "content",
        Aspect::Target => "target",
        Aspect::Mode => "mode",
        Aspect::Owner => "owner",
        Aspect::Time => "time",
        Aspect::Attributes => "attributes",
    }
}
