//! Contents of datasets brought here, counted and dropped without being read: what `prefetch` and `pin` rest on.
//!
//! Owns: the bounds of such work, its progress, and the look at what is here already.
//! Must not know: how objects are stored or fetched.
//! Invariant: what is here is not fetched. At most [`OBJECTS`] objects and [`IN_FLIGHT`] bytes are on their way at a
//! time, and nothing grows with the number of files.
//! Trust: that of `view`. Threads: tasks of the runtime; look-ups in the index in blocking sections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::error::{Error, Kind};
use super::job::{Job, cancelled};
use super::report::Progress;
use super::{Node, off};
use crate::fetch::{Class, Fetcher};
use crate::id::ObjectId;
use crate::view::{Contents, FileContent, Globs, View, ViewError};

/// Objects on their way at a time.
const OBJECTS: usize = 64;
/// Plain bytes on their way at a time.
const IN_FLIGHT: u64 = 32 << 20;
/// Bytes of one permit. An object takes a 64th of all permits at the least.
const UNIT: u64 = 1 << 10;
/// Objects, and their bytes, after which what was fetched is held.
const HOLD_OBJECTS: usize = 4096;
const HOLD_BYTES: u64 = 64 << 20;
/// How often an object is fetched that does not stay in the cache until it is held.
const HOLD_TRIES: usize = 3;

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
            let permits = (len / UNIT).clamp(IN_FLIGHT / UNIT / OBJECTS as u64, IN_FLIGHT / UNIT) as u32;
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
        met: impl Fn(&[(ObjectId, u64)]),
    ) -> Result<u64, ViewError> {
        let (mut objects, mut seen, mut fetched) = (file.objects(), 0, 0);
        while let Some(batch) = if seen < max { objects.next(view, self.class).await? } else { None } {
            let within = batch.iter().take_while(|(_, len)| {
                let begins = seen;
                seen += len;
                begins < max
            });
            let within = within.count();
            fetched += self.bring(&batch[..within]).await?;
            met(&batch[..within]);
        }
        Ok(fetched)
    }
}

/// Objects that are here and are to be held.
#[derive(Default)]
struct ToHold {
    ids: Vec<ObjectId>,
    bytes: u64,
}

/// One piece of such work on one dataset.
pub(super) struct Warming<'a> {
    node: &'a Node,
    view: Arc<View>,
    globs: Globs,
    job: &'a Job,
    phase: &'static str,
    expected: Sum,
}

impl<'a> Warming<'a> {
    /// Of a dataset whose totals are enough to know what there is to do.
    pub fn over(node: &'a Node, view: Arc<View>, globs: Globs, job: &'a Job) -> Self {
        let totals = view.snapshot().totals;
        let expected = Sum { files: totals.inodes, bytes: totals.bytes };
        Self { node, view, globs, job, phase: "listing", expected }
    }

    /// Where not everything is meant, the directories are looked through first, for what there is to do.
    pub async fn plan(node: &'a Node, view: Arc<View>, globs: Globs, job: &'a Job) -> Result<Self, Error> {
        let mut warming = Self::over(node, view, globs, job);
        if !warming.globs.is_all() {
            let mut sum = Sum::default();
            let mut contents = warming.contents(Some(Class::Prefetch));
            while let Some(files) = contents.next().await? {
                job.check()?;
                sum.files += files.files.len() as u64;
                sum.bytes += files.files.iter().map(|file| file.size).sum::<u64>();
                warming.show(sum.files, 0, 0);
            }
            warming.expected = sum;
        }
        Ok(warming)
    }

    /// What it is about. Of everything, the files are all inodes: counting them needs every directory.
    pub fn expected(&self) -> Sum {
        self.expected
    }

    fn contents(&self, class: Option<Class>) -> Contents {
        Contents::new(self.view.clone(), self.globs.clone(), class)
    }

    fn show(&self, files_done: u64, bytes_done: u64, bytes_total: u64) {
        let files_total = if bytes_total > 0 && !self.globs.is_all() { self.expected.files } else { 0 };
        self.job.set(Progress { phase: self.phase.into(), files_done, files_total, bytes_done, bytes_total });
    }

    /// Brings everything here, and with `hold` keeps it from being evicted.
    pub async fn fetch(&mut self, hold: bool) -> Result<Sum, Error> {
        self.phase = if hold { "pinning" } else { "fetching" };
        let token = self.job.cancellation();
        match token.run_until_cancelled(self.fetch_all(hold)).await {
            Some(done) => done,
            None => Err(cancelled()),
        }
    }

    async fn fetch_all(&self, hold: bool) -> Result<Sum, Error> {
        let bringer = Bringer::new(self.node.fetcher.clone(), Class::Prefetch);
        let (files, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let to_hold = Arc::new(Mutex::new(ToHold::default()));
        let note = {
            let to_hold = to_hold.clone();
            move |objects: &[(ObjectId, u64)]| {
                if hold {
                    let mut to_hold = to_hold.lock().unwrap_or_else(PoisonError::into_inner);
                    to_hold.ids.extend(objects.iter().map(|(id, _)| *id));
                    to_hold.bytes += objects.iter().map(|(_, len)| len).sum::<u64>();
                }
            }
        };
        note(&[(self.view.id().into(), 0)]);
        let mut tasks: JoinSet<Result<(), ViewError>> = JoinSet::new();
        let mut contents = self.contents(Some(Class::Prefetch));
        while let Some(found) = contents.next().await? {
            let trees: Vec<_> = found.trees.into_iter().map(|id| (id, 0)).collect();
            bringer.bring(&trees).await?;
            note(&trees);
            for file in self.skip_what_is_here(found.files, &files, &bytes, &note)? {
                tasks.spawn(bring_file(
                    (self.view.clone(), bringer.clone(), file),
                    (files.clone(), bytes.clone()),
                    note.clone(),
                ));
                while tasks.len() >= OBJECTS {
                    self.next_task(&mut tasks).await?;
                    self.show_and_hold(&files, &bytes, &to_hold, false).await?;
                }
            }
            self.show_and_hold(&files, &bytes, &to_hold, false).await?;
        }
        while !tasks.is_empty() {
            self.next_task(&mut tasks).await?;
            self.show_and_hold(&files, &bytes, &to_hold, false).await?;
        }
        self.show_and_hold(&files, &bytes, &to_hold, true).await?;
        Ok(Sum { files: files.load(Ordering::Relaxed), bytes: self.expected.bytes })
    }

    /// Passes over the files of which all is here and can be seen at once.
    fn skip_what_is_here(
        &self,
        found: Vec<FileContent>,
        files: &AtomicU64,
        bytes: &AtomicU64,
        note: &impl Fn(&[(ObjectId, u64)]),
    ) -> Result<Vec<FileContent>, Error> {
        let single = found.iter().filter(|file| file.is_one_object()).filter_map(FileContent::first);
        let single: Vec<ObjectId> = single.collect();
        let missing = off(|| self.node.fetcher.missing(&single))?;
        let mut missing = missing.into_iter().peekable();
        let is_absent = |file: &FileContent| match file.first() {
            None => false,
            Some(_) if !file.is_one_object() => true,
            Some(first) => {
                let absent = missing.next_if_eq(&first).is_some();
                if !absent {
                    note(&[(first, file.size)]);
                }
                absent
            }
        };
        let all = found.len() as u64;
        let size: u64 = found.iter().map(|file| file.size).sum();
        let rest: Vec<FileContent> = found.into_iter().filter(is_absent).collect();
        files.fetch_add(all - rest.len() as u64, Ordering::Relaxed);
        bytes.fetch_add(size - rest.iter().map(|file| file.size).sum::<u64>(), Ordering::Relaxed);
        Ok(rest)
    }

    async fn next_task(&self, tasks: &mut JoinSet<Result<(), ViewError>>) -> Result<(), Error> {
        match tasks.join_next().await {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error.into()),
            Some(Err(panic)) => Err(Error::new(Kind::Failed, format!("fetching failed: {panic}"))),
        }
    }

    async fn show_and_hold(
        &self,
        files: &AtomicU64,
        bytes: &AtomicU64,
        to_hold: &Mutex<ToHold>,
        last: bool,
    ) -> Result<(), Error> {
        let bytes = bytes.load(Ordering::Relaxed).min(self.expected.bytes);
        self.show(files.load(Ordering::Relaxed), bytes, self.expected.bytes);
        let ids = {
            let mut to_hold = to_hold.lock().unwrap_or_else(PoisonError::into_inner);
            let due = to_hold.ids.len() >= HOLD_OBJECTS || to_hold.bytes >= HOLD_BYTES;
            if due || last { std::mem::take(&mut *to_hold).ids } else { Vec::new() }
        };
        self.hold(ids).await
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
        let mut contents = self.contents(None);
        while let Some(found) = contents.next().await? {
            ids.extend(found.trees);
            for file in &found.files {
                ids.extend(self.local_objects(file).await?.into_iter().map(|(id, _)| id));
                if ids.len() >= HOLD_OBJECTS {
                    off(|| self.node.store.hold(&std::mem::take(&mut ids)))?;
                }
            }
        }
        off(|| self.node.store.hold(&ids))?;
        Ok(())
    }

    /// The objects of a file as far as they can be named by what is here, with their bytes.
    async fn local_objects(&self, file: &FileContent) -> Result<Vec<(ObjectId, u64)>, Error> {
        let (mut objects, mut all) = (file.objects(), Vec::new());
        loop {
            if let Some(needed) = objects.needs()
                && !off(|| self.node.fetcher.missing(&[needed]))?.is_empty()
            {
                objects.skip();
                continue;
            }
            match objects.next(&self.view, Class::Fault).await? {
                Some(more) => all.extend(more),
                None => return Ok(all),
            }
        }
    }

    /// How much of the files is here, whole files and bytes; only directories are fetched.
    pub async fn check(&mut self) -> Result<(Sum, Sum), Error> {
        self.phase = "checking";
        let (mut all, mut here) = (Sum::default(), Sum::default());
        let mut contents = self.contents(Some(Class::Fault));
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
        let mut contents = self.contents(None);
        while let Some(found) = contents.next().await? {
            for file in &found.files {
                self.job.check()?;
                ids.extend(self.local_objects(file).await?.into_iter().map(|(id, _)| id));
                if ids.len() >= HOLD_OBJECTS {
                    evicted += off(|| self.node.store.evict(&std::mem::take(&mut ids)))?;
                }
                (files, bytes) = (files + 1, bytes + file.size);
            }
            self.show(files, bytes.min(self.expected.bytes), self.expected.bytes);
        }
        Ok(evicted + off(|| self.node.store.evict(&ids))?)
    }
}

/// Brings one file here, and counts it.
async fn bring_file(
    (view, bringer, file): (Arc<View>, Bringer, FileContent),
    (files, bytes): (Arc<AtomicU64>, Arc<AtomicU64>),
    note: impl Fn(&[(ObjectId, u64)]),
) -> Result<(), ViewError> {
    let met = |objects: &[(ObjectId, u64)]| {
        note(objects);
        bytes.fetch_add(objects.iter().map(|(_, len)| len).sum(), Ordering::Relaxed);
    };
    bringer.file(&view, &file, u64::MAX, met).await?;
    files.fetch_add(1, Ordering::Relaxed);
    Ok(())
}
