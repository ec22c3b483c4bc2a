//! Contents of datasets brought here, counted and dropped without being read: what `prefetch` and `pin` rest on.
//!
//! Owns: such work as a whole, its progress, and the look at what is here already; what is on its way is the matter of `bringer`.
//! Must not know: how objects are stored or fetched.
//! Invariant: what is here is not fetched. Nothing grows with the number of files, or of the chunks of one.
//! Trust: that of `view`. Threads: tasks of the runtime; look-ups in the index in blocking sections.

mod bringer;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Interval;

pub(super) use bringer::{Bringer, Piece};
use bringer::{OBJECTS, Row};

use super::error::{Error, Kind};
use super::job::Job;
use super::report::Progress;
use super::{Node, off};
use crate::fetch::Class;
use crate::id::ObjectId;
use crate::view::{Contents, FileContent, Globs, Objects, View, ViewError};

/// Objects, and their bytes, after which what was fetched is held.
const HOLD_OBJECTS: usize = 4096;
const HOLD_BYTES: u64 = 64 << 20;
/// Pieces of files whose objects are here and have not been counted and held yet.
const PIECES: usize = 16;
/// How often is shown how far it is.
const SHOW_EVERY: Duration = Duration::from_millis(250);
/// How often an object is fetched that does not stay in the cache until it is held.
const HOLD_TRIES: usize = 3;

/// Files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub files: u64,
    pub bytes: u64,
}

/// One piece of such work on one dataset.
pub(super) struct Warming<'a> {
    node: &'a Node,
    view: Arc<View>,
    globs: Globs,
    job: &'a Job,
    /// How directories are fetched; `None` if only what is here is looked at.
    class: Option<Class>,
    phase: &'static str,
    expected: Sum,
    /// Every directory could be looked into so far.
    complete: bool,
}

impl<'a> Warming<'a> {
    /// Of a dataset whose totals are enough to know what there is to do. Directories are fetched as `class`, or passed
    /// over if they are not here and it is `None`.
    pub fn over(node: &'a Node, view: Arc<View>, globs: Globs, class: Option<Class>, job: &'a Job) -> Self {
        let totals = view.snapshot().totals;
        let expected = Sum { files: totals.inodes, bytes: totals.bytes };
        Self { node, view, globs, job, class, phase: "listing", expected, complete: true }
    }

    /// Where not everything is meant, the directories are looked through first, for what there is to do.
    pub async fn plan(
        node: &'a Node,
        view: Arc<View>,
        globs: Globs,
        class: Option<Class>,
        job: &'a Job,
    ) -> Result<Self, Error> {
        let mut warming = Self::over(node, view, globs, class, job);
        if !warming.globs.is_all() {
            let mut sum = Sum::default();
            let mut contents = warming.contents();
            while let Some(files) = contents.next().await? {
                job.check()?;
                sum.files += files.files.len() as u64;
                sum.bytes += files.files.iter().map(|file| file.size).sum::<u64>();
                warming.show(sum.files, 0, 0);
            }
            warming.expected = sum;
            warming.complete = !contents.has_passed_over();
        }
        Ok(warming)
    }

    /// What it is about. Of everything, the files are all inodes: counting them needs every directory.
    pub fn expected(&self) -> Sum {
        self.expected
    }

    /// Whether `expected` was counted with every directory.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    fn contents(&self) -> Contents {
        Contents::new(self.view.clone(), self.globs.clone(), self.class)
    }

    fn show(&self, files_done: u64, bytes_done: u64, bytes_total: u64) {
        let files_total = if bytes_total > 0 && !self.globs.is_all() { self.expected.files } else { 0 };
        self.job.set(Progress { phase: self.phase.into(), files_done, files_total, bytes_done, bytes_total });
    }

    /// Brings everything here, and with `hold` keeps it from being evicted.
    pub async fn fetch(&mut self, hold: bool) -> Result<Sum, Error> {
        self.phase = if hold { "pinning" } else { "fetching" };
        let bringer = Bringer::new(self.node.fetcher.clone(), Class::Prefetch);
        let (met, pieces) = mpsc::channel(PIECES);
        let mut coming = Coming::new(self, hold, pieces);
        let mut row = Row::new(self.view.clone(), bringer.clone(), met);
        coming.take(&[(self.view.id().into(), 0)]).await?;
        let mut contents = self.contents();
        while let Some(found) = coming.during(contents.next()).await?? {
            let trees: Vec<_> = found.trees.into_iter().map(|id| (id, 0)).collect();
            coming.during(bringer.bring(trees.clone())).await??;
            coming.take(&trees).await?;
            for file in coming.skip_what_is_here(found.files).await? {
                row.add(file);
                while row.is_due() {
                    coming.begin(&mut row).await?;
                }
            }
        }
        while row.has_waiting() {
            coming.begin(&mut row).await?;
        }
        while !row.tasks.is_empty() {
            coming.next_task(&mut row.tasks).await?;
        }
        drop(row);
        coming.end().await
    }

    /// Holds what is here; what has gone again since it came is fetched once more.
    async fn hold(&self, mut ids: Vec<ObjectId>) -> Result<(), Error> {
        for _ in 0..HOLD_TRIES {
            if ids.is_empty() {
                return Ok(());
            }
            self.node.fetcher.flush().await;
            ids = off(|| self.node.store.hold(&ids))?;
            let again: Vec<_> = ids.iter().map(|id| (*id, 0)).collect();
            Bringer::new(self.node.fetcher.clone(), Class::Prefetch).bring(again).await?;
        }
        self.node.fetcher.flush().await;
        if off(|| self.node.store.hold(&ids))?.is_empty() {
            return Ok(());
        }
        let message = "what is fetched does not stay in the cache long enough to be pinned";
        Err(Error::new(Kind::Failed, message).hint(
            "free space on its disk, or raise cache.max_bytes, and run it again: it goes on where it stopped",
        ))
    }

    /// Holds what is here of it, and fetches nothing.
    pub async fn hold_local(&self) -> Result<(), Error> {
        let mut ids = vec![ObjectId::from(self.view.id())];
        let mut contents = self.contents();
        while let Some(found) = contents.next().await? {
            ids.extend(found.trees);
            for file in &found.files {
                let mut objects = file.objects();
                while let Some(more) = self.local_objects(&mut objects).await? {
                    self.job.check()?;
                    ids.extend(more.into_iter().map(|(id, _)| id));
                    if ids.len() >= HOLD_OBJECTS {
                        off(|| self.node.store.hold(&std::mem::take(&mut ids)))?;
                    }
                }
            }
        }
        off(|| self.node.store.hold(&ids))?;
        Ok(())
    }

    /// The next objects of a file that can be named by what is here, with their bytes.
    async fn local_objects(&self, objects: &mut Objects) -> Result<Option<Piece>, Error> {
        while let Some(needed) = objects.needs()
            && !off(|| self.node.fetcher.missing(&[needed]))?.is_empty()
        {
            objects.skip();
        }
        Ok(objects.next(&self.view, Class::Fault).await?)
    }

    /// How much of the files is here, whole files and bytes; none of their contents is fetched.
    pub async fn check(&mut self) -> Result<(Sum, Sum), Error> {
        self.phase = "checking";
        let (mut all, mut here) = (Sum::default(), Sum::default());
        let mut contents = self.contents();
        while let Some(found) = contents.next().await? {
            for file in found.files.iter() {
                self.job.check()?;
                let absent = self.absent_bytes(file).await?;
                all.files += 1;
                all.bytes += file.size;
                here.files += u64::from(absent == 0);
                here.bytes += file.size.saturating_sub(absent);
            }
            self.show(all.files, all.bytes.min(self.expected.bytes), self.expected.bytes);
        }
        Ok((all, here))
    }

    async fn absent_bytes(&self, file: &FileContent) -> Result<u64, Error> {
        let (mut objects, mut absent) = (file.objects(), 0);
        loop {
            if let Some(needed) = objects.needs()
                && !off(|| self.node.fetcher.missing(&[needed]))?.is_empty()
            {
                absent += objects.skip();
                continue;
            }
            let Some(batch) = objects.next(&self.view, Class::Fault).await? else { return Ok(absent) };
            let ids: Vec<ObjectId> = batch.iter().map(|(id, _)| *id).collect();
            let mut missing = off(|| self.node.fetcher.missing(&ids))?.into_iter().peekable();
            for (id, len) in batch {
                absent += if missing.next_if_eq(&id).is_some() { len } else { 0 };
            }
        }
    }

    /// Drops the files from the cache, as far as they can be named by what is here; returns the bytes as stored.
    pub async fn evict(&mut self) -> Result<u64, Error> {
        self.phase = "evicting";
        self.node.fetcher.flush().await;
        let (mut ids, mut evicted, mut files, mut bytes) = (Vec::new(), 0, 0, 0);
        let mut contents = self.contents();
        while let Some(found) = contents.next().await? {
            for file in &found.files {
                let mut objects = file.objects();
                while let Some(more) = self.local_objects(&mut objects).await? {
                    self.job.check()?;
                    ids.extend(more.into_iter().map(|(id, _)| id));
                    if ids.len() >= HOLD_OBJECTS {
                        evicted += off(|| self.node.store.evict(&std::mem::take(&mut ids)))?;
                    }
                }
                (files, bytes) = (files + 1, bytes + file.size);
            }
            self.show(files, bytes.min(self.expected.bytes), self.expected.bytes);
        }
        Ok(evicted + off(|| self.node.store.evict(&ids))?)
    }
}

/// What comes while everything is brought here, counted, shown and held.
struct Coming<'a> {
    warming: &'a Warming<'a>,
    hold: bool,
    pieces: mpsc::Receiver<Piece>,
    show: Interval,
    done: Sum,
    to_hold: Vec<ObjectId>,
    /// Bytes of `to_hold`.
    bytes: u64,
}

impl<'a> Coming<'a> {
    fn new(warming: &'a Warming<'a>, hold: bool, pieces: mpsc::Receiver<Piece>) -> Self {
        let show = tokio::time::interval(SHOW_EVERY);
        Self { warming, hold, pieces, show, done: Sum::default(), to_hold: Vec::new(), bytes: 0 }
    }

    /// Waits for `work`, and meanwhile takes what the tasks have met.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut work = pin!(work);
        loop {
            self.warming.job.check()?;
            tokio::select! {
                done = &mut work => return Ok(done),
                Some(piece) = self.pieces.recv() => self.take(&piece).await?,
                _ = self.show.tick() => self.show(),
            }
        }
    }

    /// Begins with the first file of a row, when no more than [`OBJECTS`] others are at work.
    async fn begin(&mut self, row: &mut Row) -> Result<(), Error> {
        self.during(row.begin()).await?;
        while row.tasks.len() >= OBJECTS {
            self.next_task(&mut row.tasks).await?;
        }
        Ok(())
    }

    async fn next_task(&mut self, tasks: &mut JoinSet<Result<(), ViewError>>) -> Result<(), Error> {
        match self.during(tasks.join_next()).await? {
            None => {}
            Some(Ok(file)) => {
                file?;
                self.done.files += 1;
            }
            Some(Err(panic)) => return Err(Error::new(Kind::Failed, format!("fetching failed: {panic}"))),
        }
        Ok(())
    }

    /// Counts objects that are here now, and holds them when they are many.
    async fn take(&mut self, piece: &[(ObjectId, u64)]) -> Result<(), Error> {
        let bytes = piece.iter().map(|(_, len)| len).sum::<u64>();
        self.done.bytes += bytes;
        if !self.hold {
            return Ok(());
        }
        self.to_hold.extend(piece.iter().map(|(id, _)| *id));
        self.bytes += bytes;
        if self.to_hold.len() >= HOLD_OBJECTS || self.bytes >= HOLD_BYTES {
            self.bytes = 0;
            self.warming.hold(std::mem::take(&mut self.to_hold)).await?;
        }
        Ok(())
    }

    /// Passes over the files of which all is here and can be seen at once.
    async fn skip_what_is_here(&mut self, found: Vec<FileContent>) -> Result<Vec<FileContent>, Error> {
        let single = found.iter().filter(|file| file.is_one_object()).filter_map(FileContent::first);
        let single: Vec<ObjectId> = single.collect();
        let missing = off(|| self.warming.node.fetcher.missing(&single))?;
        let mut missing = missing.into_iter().peekable();
        let (mut here, all) = (Vec::new(), found.len());
        let is_absent = |file: &FileContent| match file.first() {
            None => false,
            Some(_) if !file.is_one_object() => true,
            Some(first) => {
                let absent = missing.next_if_eq(&first).is_some();
                if !absent {
                    here.push((first, file.size));
                }
                absent
            }
        };
        let rest: Vec<FileContent> = found.into_iter().filter(is_absent).collect();
        self.done.files += (all - rest.len()) as u64;
        self.take(&here).await?;
        Ok(rest)
    }

    fn show(&self) {
        let total = self.warming.expected.bytes;
        self.warming.show(self.done.files, self.done.bytes.min(total), total);
    }

    /// After all tasks have ended: takes what they have met last.
    async fn end(mut self) -> Result<Sum, Error> {
        while let Some(piece) = self.pieces.recv().await {
            self.take(&piece).await?;
        }
        self.warming.hold(std::mem::take(&mut self.to_hold)).await?;
        self.show();
        Ok(Sum { files: self.done.files, bytes: self.warming.expected.bytes })
    }
}
