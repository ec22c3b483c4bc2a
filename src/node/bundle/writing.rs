//! A bundle as it is written: appended to, and gone on with after an interruption.
//!
//! Owns: the file `NAME.partial`, when it is synced, what of an earlier run is taken over, and its end as `NAME`.
//! Must not know: which objects are written.
//! Invariant: nothing but whole segments is taken over; what was written last, and may not have reached the disk before a
//! power cut, is hashed again first. A file that is not ours is never written to, and none is replaced.
//! Trust: the file may be another program's, or of an earlier run of ours over other versions.
//! Threads: one blocking thread. A crash leaves whole segments and perhaps a torn one, which the next run cuts off.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::reading::{Place, Reader};
use super::{broken, described, partial_of};
use crate::id::ObjectId;
use crate::node::error::{Error, Kind};
use crate::pack::Checked;
use crate::pack::bundle::{BundleError, Contents, END_LEN, End, MAX_COUNT, Segment, SegmentKind, push_block};
use crate::pack::file::RecordHeader;

/// A segment is written when its body has so many bytes. One more object still fits into the longest that is allowed.
const SEGMENT: usize = 8 << 20;
/// Bytes after which the file is synced: so much is hashed again when it is gone on with.
const SYNC_EVERY: u64 = 64 << 20;

/// A file that is being written.
pub(super) struct Output {
    file: File,
    /// What it is called now, and what it will be called.
    partial: PathBuf,
    target: PathBuf,
    pub contents: Contents,
    /// Where the next segment begins.
    at: u64,
    synced: u64,
    digest: blake3::Hasher,
    objects: u64,
    stored_bytes: u64,
    /// Blocks of the log that are in the file.
    pub blocks: u64,
    /// What an earlier run has written: bytes in all, and the objects of it that have not come by yet.
    pub resumed_bytes: u64,
    held: Held,
    index: Vec<u8>,
    bodies: Vec<u8>,
    count: u32,
}

/// The objects that are in the file already, in their order.
struct Held {
    reader: Reader,
    /// Those of the segment that was read last.
    next: VecDeque<RecordHeader>,
    /// Where whole segments end.
    end: u64,
}

/// What a file is found to be.
pub(super) enum Opened {
    /// It has its name already, so it is whole.
    Whole(Box<Contents>, End),
    /// To be written, from the beginning or from where an earlier run stopped.
    Begun(Box<Output>),
}

impl Output {
    /// Opens what is to become `target`. Only if nothing of it is there yet, `contents` says what it is to be of.
    pub fn open(target: &Path, contents: impl FnOnce() -> Result<Contents, Error>) -> Result<Opened, Error> {
        if target.try_exists().map_err(|error| Error::io("cannot use", target, error))? {
            return whole(target).map(|(contents, end)| Opened::Whole(Box::new(contents), end));
        }
        let partial = partial_of(target);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&partial).map_err(|error| Error::io("cannot write", &partial, error))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::new(Kind::Busy, format!("{} is being written already", partial.display()))
                .hint("`bcai status` shows how far it is"));
        }
        match Reader::begin(&partial) {
            Ok(reader) => Self::resume(file, partial, target, reader),
            // Of what an earlier run began no more is there than its first write was to bring.
            Err(_) if is_barely_begun(&file) => {
                let contents = contents()?;
                let begin = contents.encode();
                let write = file
                    .set_len(0)
                    .and_then(|()| file.write_all_at(&begin, 0))
                    .and_then(|()| file.sync_all());
                write.map_err(|error| write_error(&partial, error))?;
                let reader = Reader::begin(&partial)?;
                Self::resume(file, partial, target, reader)
            }
            Err(error) => Err(error.hint(format!(
                "{} is what an unfinished export is called: move that file away, or name another one",
                partial.display()
            ))),
        }
    }

    /// Takes over the whole segments that are there.
    fn resume(file: File, partial: PathBuf, target: &Path, mut reader: Reader) -> Result<Opened, Error> {
        let contents = reader.contents.clone();
        let first = reader.first;
        let (mut blocks, mut recent, mut is_ended) = (0, VecDeque::new(), false);
        // Whatever does not fit is where the earlier run was interrupted.
        while let Ok(Some(place)) = reader.segment() {
            recent.push_back(place);
            while recent.front().is_some_and(|old: &Place| place.end() - old.at > 2 * SYNC_EVERY) {
                recent.pop_front();
            }
            match place.segment.kind {
                SegmentKind::Log => blocks += u64::from(place.segment.count),
                SegmentKind::Objects => {}
                SegmentKind::End => is_ended = true,
            }
        }
        let torn = recent.iter().find(|place| !reader.is_intact(place)).copied();
        if let Some(torn) = torn {
            let lost =
                recent.iter().filter(|place| place.at >= torn.at && place.segment.kind == SegmentKind::Log);
            blocks -= lost.map(|place| u64::from(place.segment.count)).sum::<u64>();
            is_ended = false;
        }
        let mut end = torn.map_or(reader.at, |torn| torn.at);
        if is_ended {
            // It is written again, by the sums of this run.
            end = recent.back().map_or(end, |last| last.at);
        }
        let mut digest = reader.digest_of_contents();
        reader.at = first;
        while reader.at < end {
            // It has been read a moment ago.
            let Some(place) = reader.segment()? else { break };
            digest.update(&place.segment.encode());
        }
        file.set_len(end).map_err(|error| Error::io("cannot cut", &partial, error))?;
        reader.at = first;
        let resumed_bytes = if end > first { end } else { 0 };
        Ok(Opened::Begun(Box::new(Self {
            file,
            partial,
            target: target.to_owned(),
            contents,
            at: end,
            synced: end,
            digest,
            objects: 0,
            stored_bytes: 0,
            blocks,
            resumed_bytes,
            held: Held { reader, next: VecDeque::new(), end },
            index: Vec::new(),
            bodies: Vec::new(),
            count: 0,
        })))
    }

    /// Fails if an earlier run was about something else.
    pub fn check_is(&self, same: bool) -> Result<(), Error> {
        if same {
            return Ok(());
        }
        let text =
            format!("{} was begun for something else: {}", self.partial.display(), described(&self.contents));
        Err(Error::new(Kind::Busy, text).hint(format!(
            "export the same again to go on with it, remove {} to give it up, or name another file",
            self.partial.display()
        )))
    }

    /// Adds blocks of the log to the file, which has no objects yet.
    pub fn add_blocks(&mut self, blocks: &[Vec<u8>]) -> Result<(), Error> {
        let mut body = Vec::new();
        blocks.iter().for_each(|block| push_block(&mut body, block));
        let count = blocks.len() as u32;
        self.blocks += u64::from(count);
        self.write_segment(SegmentKind::Log, count, &[&body])
    }

    /// Whether the next object is in the file already, which must be this one then.
    pub fn has_next(&mut self, id: &ObjectId) -> Result<bool, Error> {
        let held = &mut self.held;
        while held.next.is_empty() && held.reader.at < held.end {
            let Some(place) = held.reader.segment()? else { break };
            if place.segment.kind == SegmentKind::Objects {
                held.next = held.reader.records(&place)?.into();
            }
        }
        let Some(record) = held.next.pop_front() else { return Ok(false) };
        if record.id != *id {
            let cause = format!("{} stands where {id} is to be", record.id);
            return Err(broken(&self.partial, held.reader.at, cause)
                .hint(format!("remove {}: it cannot be gone on with", self.partial.display())));
        }
        self.objects += 1;
        self.stored_bytes += u64::from(record.stored_len);
        Ok(true)
    }

    /// Adds an object behind all that are there.
    pub fn add(&mut self, object: &Checked) -> Result<(), Error> {
        let packed = object.packed();
        // An object has 4 MiB at most.
        let stored_len = packed.stored().len() as u32;
        let record = RecordHeader {
            id: object.id(),
            codec: packed.codec(),
            stored_len,
            plain_len: packed.plain_len(),
        };
        self.index.extend_from_slice(&record.encode());
        self.bodies.extend_from_slice(packed.stored());
        self.count += 1;
        self.objects += 1;
        self.stored_bytes += u64::from(stored_len);
        let is_full = self.index.len() + self.bodies.len() >= SEGMENT || self.count == MAX_COUNT;
        if is_full { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.count == 0 {
            return Ok(());
        }
        let (index, bodies) = (std::mem::take(&mut self.index), std::mem::take(&mut self.bodies));
        self.write_segment(SegmentKind::Objects, self.count, &[&index, &bodies])?;
        (self.index, self.bodies, self.count) = (index, bodies, 0);
        self.index.clear();
        self.bodies.clear();
        Ok(())
    }

    fn write_segment(&mut self, kind: SegmentKind, count: u32, body: &[&[u8]]) -> Result<(), Error> {
        let segment = Segment::of(kind, count, body);
        let head = segment.encode();
        let mut pieces: Vec<IoSlice<'_>> = vec![IoSlice::new(&head)];
        pieces.extend(body.iter().map(|part| IoSlice::new(part)));
        self.write(&mut pieces).map_err(|error| write_error(&self.partial, error))?;
        self.digest.update(&head);
        self.at += head.len() as u64 + segment.len;
        if self.at - self.synced >= SYNC_EVERY {
            self.file.sync_data().map_err(|error| write_error(&self.partial, error))?;
            self.synced = self.at;
        }
        Ok(())
    }

    fn write(&self, pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut file = &self.file;
        io::Seek::seek(&mut file, io::SeekFrom::Start(self.at))?;
        let (mut rest, mut left) = (pieces, true);
        while left {
            let written = file.write_vectored(rest)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut rest, written);
            left = !rest.is_empty();
        }
        Ok(())
    }

    /// Ends the file and gives it its name; returns what its end says and its length.
    pub fn finish(mut self) -> Result<(End, u64), Error> {
        self.flush()?;
        let digest = *self.digest.finalize().as_bytes();
        let end = End { objects: self.objects, stored_bytes: self.stored_bytes, digest };
        self.write_segment(SegmentKind::End, 0, &[&end.encode()])?;
        self.file.sync_all().map_err(|error| write_error(&self.partial, error))?;
        if self.target.exists() {
            return Err(taken(&self.target, "somebody has made it meanwhile"));
        }
        let rename = std::fs::rename(&self.partial, &self.target);
        rename.map_err(|error| Error::io("cannot rename to", &self.target, error))?;
        if let Some(dir) = self.target.parent() {
            // Not every file system that sticks come with can.
            let _ = File::open(dir).and_then(|dir| dir.sync_all());
        }
        Ok((end, self.at))
    }
}

/// Whether a file has less than its header in it.
fn is_barely_begun(file: &File) -> bool {
    let mut begin = [0; crate::pack::bundle::HEADER_LEN];
    let Ok(meta) = file.metadata() else { return false };
    if meta.len() == 0 {
        return true;
    }
    let read = file.read_at(&mut begin, 0).unwrap_or(0);
    let header = crate::pack::bundle::Header::decode(&begin[..read]);
    match header {
        Ok(header) => meta.len() < (begin.len() + header.contents_len) as u64,
        Err(BundleError::Header(_)) => meta.len() < begin.len() as u64,
        Err(_) => false,
    }
}

/// What is in a file that has its name already.
fn whole(target: &Path) -> Result<(Contents, End), Error> {
    let reader = Reader::begin(target).map_err(|error| {
        let text = format!("{} exists and is no bundle: nothing is overwritten", target.display());
        Error { message: text, kind: Kind::Busy, ..error }.hint("name another file, or remove that one")
    })?;
    let len = std::fs::metadata(target).map_err(|error| Error::io("cannot read", target, error))?.len();
    let at = len.saturating_sub((crate::pack::bundle::SEGMENT_HEAD_LEN + END_LEN) as u64).max(reader.at);
    let contents = reader.contents.clone();
    let mut last = reader;
    last.at = at;
    match last.segment() {
        Ok(Some(place)) if place.segment.kind == SegmentKind::End && last.is_intact(&place) => {
            Ok((contents, last.end(&place)?))
        }
        _ => {
            Err(taken(target, "and ends before its end: it is a bundle that was cut off when it was copied"))
        }
    }
}

pub(super) fn taken(target: &Path, what: &str) -> Error {
    Error::new(Kind::Busy, format!("{} exists, {what}; nothing is overwritten", target.display()))
        .hint("name another file, or remove that one")
}

/// What is to be done when a file cannot be written.
fn write_error(path: &Path, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space and run the same again: it goes on where it stopped"
        }
        io::ErrorKind::FileTooLarge => {
            "the file system takes no file of this length (FAT ends at 4 GiB): use one that does, such as exFAT or ext4"
        }
        _ => "run the same again when the disk works: it goes on where it stopped",
    };
    Error::io("cannot write", path, error).hint(hint)
}
