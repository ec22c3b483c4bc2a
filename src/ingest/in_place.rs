//! Files whose chunks stay where they are.
//!
//! Owns: which files these are, their paths, and the handing of their chunks to the store.
//! Must not know: how a file is read and cut, or how the store keeps such chunks.
//! Invariant: a chunk is given to the store only while its file is as it was before its first byte was read.
//! Trust: none in the file. Threads: an `InPlace` belongs to the reader of its file.
//! A crash leaves chunks that no snapshot refers to.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fs::Stat;

use super::outbox::Stored;
use super::{IngestError, Run};
use crate::id::ChunkId;
use crate::store::{OutsideChunk, OutsideFile, PutOutside};

/// A smaller file is packed like any other: where it is costs a row of its own, which is a good part of what it saves.
const LEAST: u64 = 16 << 10;

/// Chunks given to the store at a time; with 64 KiB each, a gibibyte of the file.
const BATCH: usize = 16 << 10;

/// What all files of a snapshot in place have in common.
pub(super) struct Sources {
    /// The directory as its user calls it, and without symlinks, so that it is found again.
    dir: PathBuf,
    real: PathBuf,
    in_place: AtomicU64,
    cloned: AtomicU64,
    copied: AtomicU64,
    objects: AtomicU64,
}

/// Files of a snapshot by where their content is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placed {
    /// Read from where they are.
    pub in_place: u64,
    /// Read from a clone in the store that shares its blocks with the file.
    pub cloned: u64,
    /// Large enough, but put into packs now, since the store does not keep files of their file system in place.
    pub copied: u64,
}

impl Sources {
    pub(super) fn new(dir: &Path) -> Result<Self, IngestError> {
        let unreadable = |source| IngestError::Unreadable { path: dir.to_owned(), source };
        let real = dir.canonicalize().map_err(unreadable)?;
        let zero = || AtomicU64::new(0);
        let (in_place, cloned, copied, objects) = (zero(), zero(), zero(), zero());
        Ok(Self { dir: dir.to_owned(), real, in_place, cloned, copied, objects })
    }

    /// Counts a file by where its chunks are.
    pub(super) fn count(&self, chunks: &PutOutside) {
        self.in_place.fetch_add(u64::from(chunks.in_place > 0), Relaxed);
        self.cloned.fetch_add(u64::from(chunks.in_place == 0 && chunks.cloned > 0), Relaxed);
    }

    /// Adds what was kept in place to what was put into packs, and says where the files are.
    pub(super) fn finish(&self, stored: &mut Stored) -> Placed {
        stored.objects += self.objects.load(Relaxed);
        let count = |files: &AtomicU64| files.load(Relaxed);
        Placed { in_place: count(&self.in_place), cloned: count(&self.cloned), copied: count(&self.copied) }
    }
}

/// One file while it is read.
pub(super) struct InPlace<'a> {
    sources: &'a Sources,
    path: PathBuf,
    file: OutsideFile<'a>,
    chunks: Vec<OutsideChunk>,
    put: PutOutside,
}

impl<'a> InPlace<'a> {
    /// `None` if the chunks of this file go into packs.
    pub(super) fn begin(
        run: &'a Run<'_>,
        path: impl FnOnce() -> PathBuf,
        fd: &'a OwnedFd,
        stat: &Stat,
    ) -> Result<Option<Self>, IngestError> {
        let Some(sources) = &run.in_place else { return Ok(None) };
        // Sizes are never negative.
        if (stat.st_size as u64) < LEAST {
            return Ok(None);
        }
        let path = path();
        // Every path of the walk begins with the directory.
        let below = path.strip_prefix(&sources.dir).unwrap_or(&path);
        let file = run.store.outside_file(sources.real.join(below), fd.as_fd(), stat)?;
        sources.copied.fetch_add(u64::from(file.is_none()), Relaxed);
        Ok(file.map(|file| Self { sources, path, file, chunks: Vec::new(), put: PutOutside::default() }))
    }

    /// Takes the chunk of `len` bytes, 4 MiB at most, that begins at `offset`.
    pub(super) fn add(&mut self, id: ChunkId, offset: u64, len: usize) -> Result<(), IngestError> {
        self.chunks.push(OutsideChunk { id, offset, len: len as u32 });
        if self.chunks.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), IngestError> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        let what = "it was written to";
        let changed = || IngestError::Changed { path: self.path.clone(), what };
        let put = self.file.put(&self.chunks)?.ok_or_else(changed)?;
        self.chunks.clear();
        self.put.objects += put.objects;
        self.put.in_place += put.in_place;
        self.put.cloned += put.cloned;
        Ok(())
    }

    /// Hands over the last chunks.
    pub(super) fn finish(mut self) -> Result<(), IngestError> {
        self.flush()?;
        self.sources.objects.fetch_add(self.put.objects, Relaxed);
        self.sources.count(&self.put);
        Ok(())
    }
}
