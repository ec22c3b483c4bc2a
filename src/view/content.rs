//! The bytes of files: from offsets to chunks and holes, and the reading of them.
//!
//! Owns: the descent through blob nodes, reads, the search for holes and data, and reading ahead.
//! Must not know: how files are found.
//! Invariant: a read gives exactly the bytes asked for, as far as the file has them, or an error. The chunks of one
//! read are fetched at the same time, and no more than `CONCURRENT` of them.
//! Trust, threads: those of `view`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::ahead::Tally;
use super::nodes::{Blob, BlobPromise};
use super::{Seek, View, ViewError, at};
use crate::fetch::Class;
use crate::id::ChunkId;
use crate::manifest::{BlobStep, Content, Extent, MAX_LEVELS, Node};

/// Chunks of one read that are waited for at a time.
const CONCURRENT: usize = 16;

/// Chunks that are read ahead at a time: so many that windows decide what is under way.
const CONCURRENT_AHEAD: usize = 512;

/// Bytes set aside at once for the result of a read, whatever it asks for.
const MAX_RESERVE: usize = 4 << 20;

/// Leaves that a search for a hole looks through. It may say that there is none: the system call allows that.
const SEEK_LEAVES: usize = 64;

/// A file, reduced to where its bytes are.
#[derive(Debug)]
pub(super) struct File {
    pub(super) size: u64,
    pub(super) content: Content,
}

/// A run of extents that follow each other.
pub(super) struct Run {
    blob: Option<Arc<Blob>>,
    single: Option<Extent>,
    /// Offset in the file of the first.
    start: u64,
}

/// The part of one extent that a read needs.
struct Piece {
    extent: Extent,
    skip: u64,
    take: u64,
}

impl Run {
    /// The extents with their offsets in the file, from the one that holds the byte at `from` on.
    pub(super) fn extents_from(&self, from: u64) -> impl Iterator<Item = (u64, Extent)> {
        let steps =
            self.blob.iter().flat_map(move |blob| blob.index.steps_from(from.saturating_sub(self.start)));
        let many = steps.filter_map(|step| match step {
            BlobStep::Extent { extent, start } => Some((self.start.saturating_add(start), *extent)),
            BlobStep::Child { .. } => None,
        });
        self.single.iter().map(|extent| (self.start, *extent)).chain(many)
    }

    /// What a read of the bytes from `from` up to `to` needs of it.
    fn pieces(&self, from: u64, to: u64) -> Vec<Piece> {
        self.extents_from(from)
            .take_while(|(start, _)| *start < to)
            .map(|(start, extent)| {
                let skip = from.saturating_sub(start);
                let end = to.saturating_sub(start).min(extent.len);
                Piece { extent, skip, take: end - skip }
            })
            .collect()
    }

    /// Offset in the file after the last.
    pub(super) fn end(&self) -> u64 {
        let single = self.single.iter().map(|extent| extent.len);
        let bytes = single.chain(self.blob.iter().map(|blob| blob.bytes())).sum();
        self.start.saturating_add(bytes)
    }
}

impl View {
    /// The bytes of the file `ino` from `offset` on: `len` of them, or those before the end of the file.
    pub async fn read(&self, ino: u64, offset: u64, len: u32) -> Result<Bytes, ViewError> {
        self.read_telling(ino, offset, len, || {}).await
    }

    /// The same; says when the first chunk has come, and once only.
    pub(super) async fn read_telling(
        &self,
        ino: u64,
        offset: u64,
        len: u32,
        first: impl FnOnce(),
    ) -> Result<Bytes, ViewError> {
        let mut first = Some(first);
        let file = self.file(ino).await?;
        let end = offset.saturating_add(len.into()).min(file.size);
        let mut joined = BytesMut::new();
        let mut next = offset;
        while next < end {
            let run = self.run(&file, next, Class::Fault).await?;
            let pieces = run.pieces(next, end);
            let covered: u64 = pieces.iter().map(|piece| piece.take).sum();
            let mut parts = stream::iter(pieces).map(|piece| self.piece(piece)).buffered(CONCURRENT);
            while let Some(part) = parts.try_next().await? {
                if let Some(first) = first.take() {
                    first();
                }
                if part.len() as u64 == end - offset {
                    return Ok(part);
                }
                joined.reserve(((end - next) as usize).min(MAX_RESERVE));
                joined.extend_from_slice(&part);
            }
            next = next.saturating_add(covered);
            if covered == 0 {
                return Err(ViewError::unfit(self.id, format!("the file at {} is too short", at(ino))));
            }
        }
        Ok(joined.freeze())
    }

    /// The first byte of the file `ino` at or after `offset` that is data, or a hole. The end of a file is a hole.
    pub async fn seek(&self, ino: u64, offset: u64, what: Seek) -> Result<u64, ViewError> {
        let file = self.file(ino).await?;
        let mut next = offset;
        let mut leaves = 0;
        while next < file.size && leaves < SEEK_LEAVES {
            let run = self.run(&file, next, Class::Fault).await?;
            let wanted = |extent: &Extent| extent.chunk.is_some() == (what == Seek::Data);
            let here = run.extents_from(next).find(|(_, extent)| wanted(extent));
            if let Some((start, _)) = here {
                return Ok(start.max(next));
            }
            next = run.end().max(next.saturating_add(1));
            leaves += 1;
        }
        match what {
            Seek::Hole if offset < file.size => Ok(file.size),
            // After so many leaves of holes; holes are data too, if need be.
            Seek::Data if next < file.size => Ok(next),
            _ => Err(ViewError::PastEnd),
        }
    }

    /// Brings the chunks with the bytes from `from` up to `to` of the file `ino` here, in order.
    pub(super) async fn read_ahead(
        &self,
        ino: u64,
        (from, to): (u64, u64),
        tally: &Tally,
    ) -> Result<(), ViewError> {
        let file = self.file(ino).await?;
        let end = to.min(file.size);
        let mut next = from;
        while next < end {
            let run = self.run(&file, next, Class::Readahead).await?;
            let chunks = run.pieces(next, end).into_iter().filter_map(|piece| {
                let Extent { len, chunk } = piece.extent;
                let chunk = chunk?;
                Some(async move {
                    if self.nodes.bring(self.nodes.stored(chunk), Class::Readahead).await? {
                        tally.add(len);
                    }
                    Ok::<_, ViewError>(())
                })
            });
            stream::iter(chunks)
                .buffer_unordered(CONCURRENT_AHEAD)
                .try_for_each(|()| async { Ok(()) })
                .await?;
            next = run.end().max(next.saturating_add(1));
        }
        Ok(())
    }

    pub(super) async fn file(&self, ino: u64) -> Result<File, ViewError> {
        match self.inode(ino).await?.node {
            Node::File { size, content, .. } => Ok(File { size, content }),
            Node::Dir { .. } => Err(ViewError::IsADirectory(at(ino))),
            Node::Symlink { .. } | Node::Link { .. } => Err(ViewError::NotAFile(at(ino))),
        }
    }

    async fn piece(&self, piece: Piece) -> Result<Bytes, ViewError> {
        // A piece is no longer than a read, whose length is 32 bits.
        let (skip, take) = (piece.skip as usize, piece.take as usize);
        let Some(chunk) = piece.extent.chunk else { return Ok(BytesMut::zeroed(take).freeze()) };
        let again = piece.take < piece.extent.len;
        let bytes = self.nodes.chunk(chunk, piece.extent.len, again, Class::Fault).await?;
        Ok(bytes.slice(skip..skip + take))
    }

    /// The run of extents that holds the byte at `offset`, which is before the end of the file.
    pub(super) async fn run(&self, file: &File, offset: u64, class: Class) -> Result<Run, ViewError> {
        let single = |chunk: Option<ChunkId>| {
            let single = Some(Extent { len: file.size, chunk });
            Run { blob: None, single, start: 0 }
        };
        let mut promise = match file.content {
            Content::Empty => return Ok(single(None)),
            Content::Chunk { id, .. } => return Ok(single(Some(id))),
            Content::Blob { id, chunks, .. } => BlobPromise { blob: id, bytes: file.size, chunks },
        };
        let mut start = 0u64;
        for _ in 0..MAX_LEVELS {
            let blob = self.nodes.blob(promise, class).await?;
            match blob.index.at_byte(offset.saturating_sub(start)) {
                Some(BlobStep::Extent { .. }) => return Ok(Run { blob: Some(blob), single: None, start }),
                Some(BlobStep::Child { child, start: before }) => {
                    start = start.saturating_add(before);
                    promise = BlobPromise { blob: child.blob, bytes: child.bytes, chunks: child.chunks };
                }
                None => return Err(ViewError::unfit(promise.blob, "it is shorter than its file says")),
            }
        }
        Err(ViewError::unfit(promise.blob, format!("its nodes are deeper than {MAX_LEVELS}")))
    }
}
