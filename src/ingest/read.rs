//! One file becomes an entry and its chunks.
//!
//! Owns: reading in large pieces, holes, cutting, hashing, and the check that the file held still.
//! Must not know: the tree around the file.
//! Invariant: an entry is returned only if the file was one and the same from before its first byte was read
//! until after its last; of a large file only one buffer is held.
//! Trust: none in the file. Threads: `reader` is the body of a thread; several run side by side.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, SeekFrom, Stat};
use rustix::io::Errno;

use super::in_place::InPlace;
use super::known::{self, Fact};
use super::outbox::Outbox;
use super::source::{Dir, Stamp, file_type, meta, unreadable, xattrs};
use super::walk::{Job, Read, What};
use super::{IngestError, Run};
use crate::chunking::Cutter;
use crate::id::{ChunkId, FileHash, Kind};
use crate::manifest::{BlobBuilder, Content, Entry, Extent, Meta, Name, Node};

/// Least size of a read buffer. With the usual chunking an eighth of it at most is carried over to the next.
const BUFFER_LEN: usize = 1 << 20;
/// How often a file may turn out to have just been changed before it counts as changing.
const SETTLE_TRIES: usize = 10;
/// Holes are hashed as zeros in pieces of this size.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Works on jobs until there are no more, or until one fails.
pub(super) fn reader(
    run: &Run<'_>,
    jobs: &Receiver<Job>,
    reads: &Sender<Result<Read, IngestError>>,
    mut outbox: Outbox<'_>,
) {
    for job in jobs {
        let number = job.number;
        let entries = read_job(run, &mut outbox, job);
        // The walk waits for each job, so it must hear of a failure too.
        let failed = entries.is_err();
        let sent = reads.send(entries.map(|entries| Read { number, entries }));
        if failed || sent.is_err() {
            return;
        }
    }
    if let Err(error) = outbox.flush() {
        run.fail(error);
    }
}

/// The entries of a job, from what is known of its files or else from the files.
fn read_job(run: &Run<'_>, outbox: &mut Outbox<'_>, job: Job) -> Result<Vec<Entry>, IngestError> {
    let facts = known::recall(run, &job)?;
    let mut entries = Vec::with_capacity(job.items.len());
    // What to remember, which is done only when it is news.
    let mut found: Vec<Fact> = Vec::new();
    let mut news = false;
    for (item, fact) in job.items.into_iter().zip(facts) {
        run.check()?;
        let node = match (item.what, fact) {
            (What::Link { first }, _) => Node::Link { first },
            (What::Symlink { stat, nlink }, _) => symlink(&job.dir, &item.name, &stat, nlink)?,
            (What::File { stat, nlink }, Some(fact)) => {
                run.progress.unchanged.fetch_add(1, Relaxed);
                run.progress.bytes_done.fetch_add(fact.stamp.size, Relaxed);
                let node = fact.node(meta(&stat), nlink);
                found.push(fact);
                node
            }
            (What::File { stat, nlink }, None) => {
                let fd = job.dir.open_file(&item.name)?;
                let file = File { run, dir: &job.dir, name: &item.name, fd };
                let (node, stamp) = file.read(outbox, &Stamp::of(&stat), nlink)?;
                news = true;
                found.extend(Fact::of(&item.name, stamp, &node));
                node
            }
        };
        run.progress.files_done.fetch_add(1, Relaxed);
        entries.push(Entry { name: item.name, node });
    }
    if let (true, Some(first), Some(last)) = (news, entries.first(), entries.last()) {
        known::remember(run, job.dir.id(), (&first.name, &last.name), found)?;
    }
    Ok(entries)
}

fn symlink(dir: &Dir, name: &Name, stat: &Stat, nlink: u32) -> Result<Node, IngestError> {
    let target = dir.read_link(name)?;
    match Stamp::of(stat).change(&Stamp::of(&dir.stat_of(name)?)) {
        Some(what) => Err(IngestError::Changed { path: dir.path_of(name), what }),
        // Linux keeps no `user.*` attributes on symlinks.
        None => Ok(Node::Symlink { meta: meta(stat), nlink, target }),
    }
}

/// An open file.
struct File<'a> {
    run: &'a Run<'a>,
    dir: &'a Dir,
    name: &'a Name,
    fd: OwnedFd,
}

impl File<'_> {
    fn changed(&self, what: &'static str) -> IngestError {
        IngestError::Changed { path: self.dir.path_of(self.name), what }
    }

    fn failed(&self, error: Errno) -> IngestError {
        unreadable(self.dir.path_of(self.name), error)
    }

    fn stat(&self) -> Result<Stat, IngestError> {
        rustix::fs::fstat(&self.fd).map_err(|error| self.failed(error))
    }

    /// The description of the file, taken when any later change is sure to show in the next. For a tree at rest that
    /// is at once, for one just written after a tick; not at all for a file that is written all the time.
    /// The time comes with it. It is that of before: whoever was kept waiting between the two must not take the stamp
    /// for older than it was.
    fn settled(&self) -> Result<(Stat, SystemTime), IngestError> {
        for _ in 0..SETTLE_TRIES {
            let now = SystemTime::now();
            let stat = self.stat()?;
            match Stamp::of(&stat).settles_in(now) {
                None => return Ok((stat, now)),
                Some(wait) => std::thread::sleep(wait),
            }
            self.run.check()?;
        }
        Err(self.changed("it is being written"))
    }

    /// Reads the file. Its stamp comes with it if whoever meets it again may rely on it.
    fn read(
        &self,
        outbox: &mut Outbox<'_>,
        listed: &Stamp,
        nlink: u32,
    ) -> Result<(Node, Option<Stamp>), IngestError> {
        let (before, now) = self.settled()?;
        let stamp = Stamp::of(&before);
        // Content that is newer than the listing is as good; another inode is not, it may be hard-linked.
        if file_type(&before) != FileType::RegularFile || (stamp.dev, stamp.ino) != (listed.dev, listed.ino) {
            return Err(self.changed("another file took its name"));
        }
        let xattrs = xattrs(&self.fd, || self.dir.path_of(self.name))?;
        // Sizes are never negative.
        let size = before.st_size as u64;
        let path = || self.dir.path_of(self.name);
        let mut in_place = InPlace::begin(self.run, path, &self.fd, &before)?;
        let content = Reading::new(self, size, in_place.as_mut()).content(outbox)?;
        if let Some(what) = stamp.change(&Stamp::of(&self.stat()?)) {
            return Err(self.changed(what));
        }
        in_place.map(InPlace::finish).transpose()?;
        let node = Node::File { meta: Meta { xattrs, ..meta(&before) }, nlink, size, content };
        Ok((node, stamp.is_final(now).then_some(stamp)))
    }

    /// The first data at or after `at`, up to the next hole: start and end. `None` if only a hole follows.
    fn next_data(&self, at: u64, size: u64) -> Result<Option<(u64, u64)>, IngestError> {
        let start = match rustix::fs::seek(&self.fd, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // A file system without holes.
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok(Some((at, size))),
            Err(error) => return Err(self.failed(error)),
        };
        let end = rustix::fs::seek(&self.fd, SeekFrom::Hole(start)).map_err(|error| self.failed(error))?;
        // Both lie past `size` only if the file has just grown; the stamp will tell.
        Ok((start < size).then(|| (start, end.min(size))))
    }

    /// At most `len` bytes from `at` on, after `carried`.
    fn fill(&self, carried: &[u8], at: u64, len: usize) -> Result<Bytes, IngestError> {
        self.run.check()?;
        let whole = carried.len() + len;
        let mut buffer = Vec::with_capacity(whole);
        buffer.extend_from_slice(carried);
        while buffer.len() < whole {
            let done = (buffer.len() - carried.len()) as u64;
            match rustix::io::pread(&self.fd, spare_capacity(&mut buffer), at + done) {
                Ok(0) => return Err(self.changed("it became shorter")),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        self.run.progress.bytes_read.fetch_add(len as u64, Relaxed);
        // The allocator may have given more room than was asked for.
        buffer.truncate(whole);
        Ok(buffer.into())
    }

    /// Fills `buffer` from `at` on, as far as the file goes; for the cutter's look at the file's structure.
    fn look(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(&self.fd, &mut buffer[done..], at + done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    fn unreadable(&self, source: io::Error) -> IngestError {
        IngestError::Unreadable { path: self.dir.path_of(self.name), source }
    }
}

/// The content of one file while it is being read.
struct Reading<'a, 'b> {
    file: &'a File<'a>,
    size: u64,
    /// Takes the chunks instead of the outbox.
    in_place: Option<&'a mut InPlace<'b>>,
    /// Where the next extent begins.
    offset: u64,
    /// Hash of all bytes so far. A file of one chunk does without: the chunk's id is the same, if it is not sealed. Fed by the
    /// buffer and not by the chunk, which BLAKE3 does faster.
    hasher: blake3::Hasher,
    blob: BlobBuilder,
    extents: u64,
    last_chunk: Option<ChunkId>,
}

impl<'a, 'b> Reading<'a, 'b> {
    fn new(file: &'a File<'a>, size: u64, in_place: Option<&'a mut InPlace<'b>>) -> Self {
        let (hasher, blob) = (blake3::Hasher::new(), BlobBuilder::new());
        Self { file, size, in_place, offset: 0, hasher, blob, extents: 0, last_chunk: None }
    }

    fn content(mut self, outbox: &mut Outbox<'_>) -> Result<Content, IngestError> {
        let file = self.file;
        let look = |at: u64, buffer: &mut [u8]| file.look(at, buffer);
        let mut cutter = Cutter::new(file.run.options.chunking, self.size, &look)?;
        let mut at = 0;
        while at < self.size {
            let data = self.file.next_data(at, self.size)?;
            let (start, end) = data.unwrap_or((self.size, self.size));
            if start > at {
                self.hole(start - at, outbox)?;
            }
            if (start, end) == (0, self.size)
                && let Some(chunk) = self.only_chunk(outbox)?
            {
                return Ok(chunk);
            }
            self.data(&mut cutter, start, end, outbox)?;
            at = end;
        }
        match (self.extents, self.last_chunk) {
            (0, _) => return Ok(Content::Empty),
            // Longer than `only_chunk` takes, but without a cut all the same.
            (1, Some(id)) => {
                let hash = self.is_sealed().then(|| file_hash(self.hasher.finalize()));
                return Ok(Content::Chunk { id, hash });
            }
            _ => {}
        }
        let root = self.blob.finish(&mut |kind, bytes| outbox.store(kind, bytes.into()))?;
        let hash = file_hash(self.hasher.finalize());
        Ok(Content::Blob { id: root.blob, chunks: root.chunks, hash })
    }

    /// Reads a file without holes that is sure to be one chunk.
    fn only_chunk(&mut self, outbox: &mut Outbox<'_>) -> Result<Option<Content>, IngestError> {
        let chunking = self.file.run.options.chunking;
        if !chunking.is_one_chunk(self.size) {
            return Ok(None);
        }
        // One chunk has at most 4 MiB.
        let bytes = self.file.fill(&[], 0, self.size as usize)?;
        let hash = self.is_sealed().then(|| file_hash(blake3::hash(&bytes)));
        let id = self.keep(0, bytes, outbox)?;
        self.done(self.size);
        Ok(Some(Content::Chunk { id, hash }))
    }

    /// Whether a chunk's id is that of other bytes than its own.
    fn is_sealed(&self) -> bool {
        self.file.run.options.keys.is_some()
    }

    fn data(
        &mut self,
        cutter: &mut Cutter<'_>,
        start: u64,
        end: u64,
        outbox: &mut Outbox<'_>,
    ) -> Result<(), IngestError> {
        let file = self.file;
        let max_len = file.run.options.chunking.max_len();
        let buffer_len = BUFFER_LEN.max(2 * max_len);
        // One buffer holds all of it, and it may turn out to be one chunk.
        let may_be_one_chunk = (start, end) == (0, self.size) && self.size <= max_len as u64;
        let mut unhashed = Bytes::new();
        cutter.run(start, end).map_err(|error| file.unreadable(error))?;
        let mut rest = Bytes::new();
        let mut at = start;
        while cutter.remaining() > 0 {
            if rest.len() < cutter.wants() {
                let carried = rest.len();
                // At most a buffer, so that it fits.
                let len = (end - at).min((buffer_len - carried) as u64) as usize;
                rest = file.fill(&rest, at, len)?;
                if may_be_one_chunk {
                    unhashed = rest.clone();
                } else {
                    self.hasher.update(&rest[carried..]);
                }
                at += len as u64;
                self.done(len as u64);
            }
            while let Some(len) = cutter.next(&rest).map_err(|error| file.unreadable(error))? {
                self.chunk(rest.split_to(len), outbox)?;
            }
        }
        if self.extents > 1 || self.is_sealed() {
            self.hasher.update(&unhashed);
        }
        Ok(())
    }

    fn chunk(&mut self, bytes: Bytes, outbox: &mut Outbox<'_>) -> Result<(), IngestError> {
        let len = bytes.len() as u64;
        let id = self.keep(self.offset, bytes, outbox)?;
        self.extent(Extent { len, chunk: Some(id) }, outbox)
    }

    fn keep(&mut self, offset: u64, bytes: Bytes, outbox: &mut Outbox<'_>) -> Result<ChunkId, IngestError> {
        match &mut self.in_place {
            Some(in_place) => {
                let id = ChunkId::of(&bytes);
                in_place.add(id, offset, bytes.len()).map(|()| id)
            }
            None => outbox.store(Kind::Chunk, bytes).map(ChunkId::from_bytes),
        }
    }

    /// Holes are not read, but they count in the file's hash as the zeros that a reader sees.
    fn hole(&mut self, len: u64, outbox: &mut Outbox<'_>) -> Result<(), IngestError> {
        self.extent(Extent { len, chunk: None }, outbox)?;
        let mut left = len;
        while left > 0 {
            self.file.run.check()?;
            let piece = left.min(ZEROS.len() as u64);
            self.hasher.update(&ZEROS[..piece as usize]);
            left -= piece;
        }
        self.done(len);
        Ok(())
    }

    fn extent(&mut self, extent: Extent, outbox: &mut Outbox<'_>) -> Result<(), IngestError> {
        self.extents += 1;
        self.offset += extent.len;
        self.last_chunk = extent.chunk;
        self.blob.push(extent, &mut |kind, bytes: Vec<u8>| outbox.store(kind, bytes.into()))
    }

    fn done(&self, bytes: u64) {
        self.file.run.progress.bytes_done.fetch_add(bytes, Relaxed);
    }
}

fn file_hash(hash: blake3::Hash) -> FileHash {
    FileHash::from_bytes(*hash.as_bytes())
}
