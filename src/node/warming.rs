//! Contents of datasets brought here, counted and dropped without being read: what `prefetch` and `pin` rest on.
//!
//! Owns: the bounds of such work, its progress, and the look at what is here already.
//! Must not know: how objects are stored or fetched.
//! Invariant: what is here is not fetched. At most [`OBJECTS`] objects and [`IN_FLIGHT`] bytes are on their way at a
//! time, and nothing grows with the number of files, or of the chunks of one.
//! Trust: that of `view`. Threads: tasks of the runtime; look-ups in the index in blocking sections.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Interval;
use tokio_util::task::AbortOnDropHandle;

use super::error::{Error, Kind};
use super::job::Job;
use super::report::Progress;
use super::{Node, off};
use crate::fetch::{Class, Fetcher};
use crate::id::ObjectId;
use crate::view::{Contents, FileContent, Globs, Objects, View, ViewError};

/// Objects on their way at a time.
const OBJECTS: usize = 512;
/// Plain bytes on their way at a time.
const IN_FLIGHT: u64 = 32 << 20;
/// Bytes of one permit, and how many of them an object takes at the least, so that they are enough for [`OBJECTS`].
const UNIT: u64 = 1 << 10;
const LEAST: u32 = (IN_FLIGHT / UNIT / OBJECTS as u64) as u32;
/// Files for which what names their objects is fetched ahead.
const NAMED: usize = 64;
/// Objects, and their bytes, after which what was fetched is held.
const HOLD_OBJECTS: usize = 4096;
const HOLD_BYTES: u64 = 64 << 20;
/// Pieces of files whose objects are here and have not been counted and held yet.
const PIECES: usize = 16;
/// How often is shown how far it is.
const SHOW_EVERY: Duration = Duration::from_millis(250);
/// How often an object is fetched that does not stay in the cache until it is held.
const HOLD_TRIES: usize = 3;

#[cfg(test)]
mod tests;

/// Files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub files: u64,
    pub bytes: u64,
}

/// Brings objects here within bounds. Clones share the bounds.
#[derive(Clone)]
pub(super) struct Bringer {
    fetcher: Fetcher,
    room: Arc<Semaphore>,
    class: Class,
}

impl Bringer {
    pub fn new(fetcher: Fetcher, class: Class) -> Self {
        Self { fetcher, room: Arc::new(Semaphore::new((IN_FLIGHT / UNIT) as usize)), class }
    }

    /// Waits until something more can be on its way.
    async fn has_room(&self) {
        // The semaphore is never closed, and fair: what waits already goes first.
        let _ = self.room.acquire_many(LEAST).await;
    }

    /// Fetches those of `objects` that are not here; each comes with its plain bytes, or 0 if they are not known.
    /// Returns how many bytes that was.
    async fn bring(&self, objects: &[(ObjectId, u64)]) -> Result<u64, ViewError> {
        let ids: Vec<ObjectId> = objects.iter().map(|(id, _)| *id).collect();
        let missing = off(|| self.fetcher.missing(&ids))?;
        // In their order, so that the sizes are found in one pass.
        let mut sizes = objects.iter();
        let missing = missing
            .into_iter()
            .map(|id| (id, sizes.find(|(known, _)| *known == id).map_or(0, |(_, len)| *len)));
        let gets = missing.map(|(id, len)| async move {
            let permits = (len / UNIT).clamp(LEAST.into(), IN_FLIGHT / UNIT) as u32;
            // The semaphore is never closed.
            let _permit = self.room.acquire_many(permits).await;
            self.fetcher.get(id, self.class).await.map(|object| object.plain().len() as u64)
        });
        let gets: Vec<_> = gets.collect();
        let lengths: Vec<u64> = stream::iter(gets).buffer_unordered(OBJECTS).try_collect().await?;
        Ok(lengths.into_iter().sum())
    }

    /// Brings the file here, or its first `max` bytes and what shares objects with them. `met` is told of every object
    /// of it, once it is here. Returns how many bytes were fetched.
    pub async fn file(
        &self,
        view: &View,
        file: &FileContent,
        max: u64,
        met: Option<&mpsc::Sender<Piece>>,
    ) -> Result<u64, ViewError> {
        let (mut objects, mut seen, mut fetched) = (file.objects(), 0, 0);
        while let Some(mut batch) = if seen < max { objects.next(view, self.class).await? } else { None } {
            let within = batch.iter().take_while(|(_, len)| {
                let begins = seen;
                seen += len;
                begins < max
            });
            let within = within.count();
            fetched += self.bring(&batch[..within]).await?;
            if let Some(met) = met {
                batch.truncate(within);
                // Nobody is to be told any more when the work was given up.
                let _ = met.send(batch).await;
            }
        }
        Ok(fetched)
    }
}

/// Objects of one file with the bytes of it that are in each: those of one blob node at most.
pub(super) type Piece = Vec<(ObjectId, u64)>;

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
            coming.during(bringer.bring(&trees)).await??;
            coming.take(&trees).await?;
            for file in coming.skip_what_is_here(found.files).await? {
                row.add(file);
                while row.is_due() {
                    coming.begin(&mut row).await?;
                }
            }
        }
        while !row.waiting.is_empty() {
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
            Bringer::new(self.node.fetcher.clone(), Class::Prefetch).bring(&again).await?;
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

/// The files that are brought, begun one after the other in the order in which they were found: nodes that bring the same at the same
/// time then want the same of it at every moment, and have it from each other.
struct Row {
    view: Arc<View>,
    bringer: Bringer,
    met: mpsc::Sender<Piece>,
    /// Those that have not begun, each with the task that fetches what names its objects.
    waiting: VecDeque<(FileContent, Option<AbortOnDropHandle<()>>)>,
    tasks: JoinSet<Result<(), ViewError>>,
}

impl Row {
    fn new(view: Arc<View>, bringer: Bringer, met: mpsc::Sender<Piece>) -> Self {
        Self { view, bringer, met, waiting: VecDeque::new(), tasks: JoinSet::new() }
    }

    /// Adds a file at the end.
    fn add(&mut self, file: FileContent) {
        let names = file.first().filter(|_| !file.is_one_object());
        let naming = names.map(|names| {
            let (fetcher, class) = (self.bringer.fetcher.clone(), self.bringer.class);
            // Who needs it next says why it did not come.
            AbortOnDropHandle::new(tokio::spawn(async move { drop(fetcher.get(names, class).await) }))
        });
        self.waiting.push_back((file, naming));
    }

    /// Whether the first can begin, or there are enough behind it.
    fn is_due(&self) -> bool {
        let is_named = |naming: &Option<AbortOnDropHandle<()>>| {
            naming.as_ref().is_none_or(|naming| naming.is_finished())
        };
        self.waiting.len() > NAMED || self.waiting.front().is_some_and(|(_, naming)| is_named(naming))
    }

    /// Begins with the first, as soon as there is room for it.
    async fn begin(&mut self) {
        let Some((file, naming)) = self.waiting.pop_front() else { return };
        if let Some(naming) = naming {
            // It ends without a result, however it ends.
            let _ = naming.await;
        }
        self.bringer.has_room().await;
        let (view, bringer, met) = (self.view.clone(), self.bringer.clone(), self.met.clone());
        self.tasks.spawn(async move { bringer.file(&view, &file, u64::MAX, Some(&met)).await.map(drop) });
    }
}
