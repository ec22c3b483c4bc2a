//! Pack files on disk: reading records out of them, appending to the current one, sealing it.
//!
//! Owns: `packs/NNNNNNNN.pack`, the bounded set of open files, and the current pack of each class.
//! Must not know: the index; it hands out places and a list of what was not committed yet.
//! Invariant: the bytes before a pack's length never change, except that a cache record becomes zeros.
//! Trust: whatever is read may be damaged. Lengths are bounded before they are allocated; content is
//! verified by the callers.
//! Threads: any. Reading takes a lock only to find the open file, never while it waits for the disk.
//! A crash leaves: records after the last commit, the last of them perhaps torn; `recover` deals with them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use lru::LruCache;

use crate::id::ObjectId;
use crate::pack::file::{
    self, Entry, FILE_HEADER_LEN, FOOTER_LEN, FileHeader, Footer, Keep, MAX_RECORDS, RECORD_HEADER_LEN,
    RecordHeader, record_len,
};
use crate::pack::{Checked, Codec, MAX_OBJECT_LEN, PackError, Packed};
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::index::{OUTSIDE, OutsideRow, Place};
use crate::store::{disk, lock};

const OPEN_FILES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// How far a scan looks ahead at a time for the next record behind damage.
const SCAN_WINDOW: usize = 64 << 10;

/// `NNNNNNNN.pack` in `dir`.
pub(super) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.pack"))
}

/// The number in a pack's file name; `None` for other files.
pub(super) fn number_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_suffix(".pack")?;
    digits.parse().ok().filter(|number| *number < OUTSIDE && format!("{number:08}") == digits)
}

/// Open pack files, for reading.
pub(super) struct PackFiles {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    open: Mutex<LruCache<u32, Arc<File>>>,
}

impl PackFiles {
    pub(super) fn new(dir: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { dir, disk, open: Mutex::new(LruCache::new(OPEN_FILES)) }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, number: u32) -> PathBuf {
        path(&self.dir, number)
    }

    pub(super) fn file(&self, number: u32) -> io::Result<Arc<File>> {
        if let Some(file) = lock(&self.open).get(&number) {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(self.path(number))?);
        lock(&self.open).put(number, file.clone());
        // The file may have been removed between opening and remembering it. A remembered descriptor
        // would keep its blocks from being freed.
        if file.metadata()?.nlink() == 0 {
            lock(&self.open).pop(&number);
        }
        Ok(file)
    }

    /// Removes a pack file and its open descriptor.
    pub(super) fn remove(&self, number: u32) -> io::Result<()> {
        self.disk.remove(&self.path(number))?;
        lock(&self.open).pop(&number);
        Ok(())
    }

    /// The object at `place`; the inner error is one of damage.
    pub(super) fn read(
        &self,
        id: &ObjectId,
        place: &Place,
    ) -> Result<Result<Packed, StoreError>, StoreError> {
        let path = self.path(place.pack);
        let record = match self.record(place) {
            // A pack that was taken away under the store is damage to every object in it, no more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Bytes::new(),
            record => record.map_err(StoreError::io("read", &path))?,
        };
        Ok(unpack(id, record).map_err(|cause| StoreError::Corrupt { path, cause }))
    }

    /// The record at `place`: header and body, or as much of them as the file has.
    fn record(&self, place: &Place) -> io::Result<Bytes> {
        let body = (place.stored_len as usize).min(MAX_OBJECT_LEN);
        let file = self.file(place.pack)?;
        Ok(self.disk.read(&file, RECORD_HEADER_LEN + body, place.offset.into())?.into())
    }

    /// All records of a pack whose committed length is `len`, from its trailer or, failing that, a scan.
    pub(super) fn entries(&self, number: u32, len: u64) -> io::Result<Vec<Entry>> {
        let file = self.file(number)?;
        match read_trailer(&file)? {
            Ok((entries, _)) => Ok(entries),
            Err(_) => scan(&file, FILE_HEADER_LEN as u64, len.min(file.metadata()?.len())),
        }
    }
}

/// What a record says it holds. Where its header is damaged or another's, the body is passed on as it is:
/// it will not verify, and the caller deals with that as with any other damage.
fn unpack(id: &ObjectId, record: Bytes) -> Result<Packed, PackError> {
    let body = record.slice(RECORD_HEADER_LEN.min(record.len())..);
    match RecordHeader::decode(&record) {
        Ok(header) if header.id == *id && header.stored_len as usize == body.len() => {
            Packed::from_parts(header.codec as u8, header.plain_len, body)
        }
        _ => Packed::from_parts(Codec::Raw as u8, body.len() as u32, body),
    }
}

/// The entries of a sealed pack, and where its records end.
pub(super) fn read_trailer(file: &File) -> io::Result<Result<(Vec<Entry>, u64), PackError>> {
    let len = file.metadata()?.len();
    let mut footer = [0; FOOTER_LEN];
    let Some(footer_at) = len.checked_sub(FOOTER_LEN as u64) else {
        return Ok(Err(PackError::BadTrailer("the file is too short")));
    };
    file.read_exact_at(&mut footer, footer_at)?;
    let footer = match Footer::decode(&footer, len) {
        Ok(footer) => footer,
        Err(error) => return Ok(Err(error)),
    };
    let mut entries = vec![0; footer.entries_len()];
    file.read_exact_at(&mut entries, footer.start())?;
    Ok(footer.decode_entries(&entries).map(|entries| (entries, footer.start())))
}

/// The header at `offset`, if there is one.
pub(super) fn header_at(file: &File, offset: u64) -> io::Result<Option<RecordHeader>> {
    let mut header = [0; RECORD_HEADER_LEN];
    let read = disk::read_up_to(file, &mut header, offset)?;
    Ok(RecordHeader::decode(&header[..read]).ok())
}

/// Finds the records between two offsets by their headers, past holes and damage; at most [`MAX_RECORDS`].
/// The bodies are not looked at.
pub(super) fn scan(file: &File, from: u64, to: u64) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut at = from;
    while at + RECORD_HEADER_LEN as u64 <= to && entries.len() < MAX_RECORDS as usize {
        match header_at(file, at)? {
            Some(header) if at + record_len(header.stored_len) <= to => {
                // A pack is far shorter than 4 GiB; what lies beyond cannot be named and is no record.
                let Ok(offset) = u32::try_from(at) else { break };
                entries.push(Entry { header, offset });
                at += record_len(header.stored_len);
            }
            _ => at = next_header(file, at + 1, to)?,
        }
    }
    Ok(entries)
}

/// Offset of the first record header from `from` on, or `to`.
fn next_header(file: &File, mut from: u64, to: u64) -> io::Result<u64> {
    let mut window = vec![0; SCAN_WINDOW];
    loop {
        let want = window.len().min(to.saturating_sub(from) as usize);
        let read = disk::read_up_to(file, &mut window[..want], from)?;
        if let Some(found) = RecordHeader::find(&window[..read]) {
            return Ok(from + found as u64);
        }
        if read < RECORD_HEADER_LEN || read < SCAN_WINDOW {
            return Ok(to);
        }
        // A header may straddle the end of this window.
        from += (read - RECORD_HEADER_LEN + 1) as u64;
    }
}

/// Writes the trailer of a pack whose records end at `len`; says how long the file is now. On an error the
/// file is as it was, or cannot be cut back.
pub(super) fn seal(disk: &dyn Disk, file: &File, len: u64) -> Result<u64, WriteFailure> {
    let mut entries = scan(file, FILE_HEADER_LEN as u64, len).map_err(WriteFailure::Broken)?;
    let trailer = file::encode_trailer(&mut entries, len);
    write_or_cut(disk, file, &mut [IoSlice::new(&trailer)], len)?;
    Ok(len + trailer.len() as u64)
}

/// How an append failed.
#[derive(Debug)]
pub(super) enum WriteFailure {
    /// No space; the file was cut back to what it was.
    Full,
    /// No pack file could be created, for want of file descriptors for one. Nothing was written, and nothing is
    /// wrong with what was written before: the next try may succeed.
    NotBegun(io::Error),
    /// Anything else: the state on disk is unknown.
    Broken(io::Error),
}

fn write_or_cut(
    disk: &dyn Disk,
    file: &File,
    pieces: &mut [IoSlice<'_>],
    at: u64,
) -> Result<(), WriteFailure> {
    match disk.write_pieces(file, pieces, at) {
        Ok(()) => Ok(()),
        Err(error) if disk::is_full(&error) => {
            disk.truncate(file, at).map_err(WriteFailure::Broken)?;
            Err(WriteFailure::Full)
        }
        Err(error) => Err(WriteFailure::Broken(error)),
    }
}

/// What stands before an object in a pack.
fn header_of(object: &Checked) -> RecordHeader {
    let packed = object.packed();
    // The length is at most `MAX_OBJECT_LEN`.
    let stored_len = packed.stored().len() as u32;
    RecordHeader { id: object.id(), codec: packed.codec(), stored_len, plain_len: packed.plain_len() }
}

/// A pack that is being appended to.
#[derive(Clone)]
pub(super) struct Current {
    pub number: u32,
    pub file: Arc<File>,
    pub len: u64,
    pub records: u32,
}

/// A pack that has grown since the last commit.
pub(super) struct Grown {
    pub keep: Keep,
    pub file: Arc<File>,
    pub len: u64,
    pub records: u32,
    pub sealed: bool,
    /// Bytes to add to what it occupies.
    pub disk: u64,
}

/// Everything written since the last commit.
#[derive(Default)]
pub(super) struct Uncommitted {
    pub packs: BTreeMap<u32, Grown>,
    pub places: Vec<(ObjectId, Place)>,
    pub bytes: u64,
    /// What lies in files outside; and one file of each file system they are on, by its device number.
    pub outside: BTreeMap<u32, Arc<OutsideRow>>,
    pub file_systems: BTreeMap<u64, (OwnedFd, PathBuf)>,
    /// Whether a pack file was created, so that the directory has to be synced too.
    pub new_files: bool,
}

/// The current pack of each class. One thread at a time appends.
pub(super) struct Writer {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    current: [Option<Current>; 2],
    next_number: u32,
    /// Length at which a pack of each class is sealed.
    full_len: [u64; 2],
    pub uncommitted: Uncommitted,
    /// What cache packs have grown by since somebody last took this number.
    pub cache_growth: u64,
}

impl Writer {
    pub(super) fn new(
        dir: PathBuf,
        disk: Arc<dyn Disk>,
        current: [Option<Current>; 2],
        next_number: u32,
        full_len: [u64; 2],
    ) -> Self {
        let uncommitted = Uncommitted::default();
        Self { dir, disk, current, next_number, full_len, uncommitted, cache_growth: 0 }
    }

    pub(super) fn next_number(&self) -> u32 {
        self.next_number
    }

    /// Whether a record of this length ends the current pack.
    fn is_full(&self, current: &Current, keep: Keep, record: u64) -> bool {
        current.records >= MAX_RECORDS || current.len + record > self.full_len[keep as usize]
    }

    /// Bytes that the disk use of the class grows by when such an object is appended now: the record, and
    /// where it begins a new pack, the trailer of the old and the first block of the new.
    pub(super) fn cost(&self, object: &Checked, keep: Keep) -> u64 {
        let record = record_len(object.packed().stored().len() as u32);
        let overhead = match &self.current[keep as usize] {
            Some(current) if !self.is_full(current, keep, record) => 0,
            Some(current) => file::trailer_len(current.records) + disk::BLOCK,
            None => disk::BLOCK,
        };
        record + overhead
    }

    /// Appends objects to the current pack of their class: the first, and as many of the others as it has room for, in
    /// one write. Says where they lie. `tick` is 0 for published ones.
    pub(super) fn append(
        &mut self,
        objects: &[&Checked],
        keep: Keep,
        tick: u64,
    ) -> Result<Vec<Place>, WriteFailure> {
        let headers: Vec<RecordHeader> = objects.iter().map(|object| header_of(object)).collect();
        let Some(first) = headers.first().map(|header| record_len(header.stored_len)) else {
            return Ok(Vec::new());
        };
        if self.current[keep as usize].as_ref().is_some_and(|current| self.is_full(current, keep, first)) {
            self.seal_current(keep)?;
        }
        let before = match self.current[keep as usize].take() {
            Some(current) => current,
            None => self.begin(keep)?,
        };
        let mut after = before.clone();
        let mut places = Vec::with_capacity(objects.len());
        let mut encoded = Vec::with_capacity(objects.len());
        for (object, header) in objects.iter().zip(&headers) {
            let record = record_len(header.stored_len);
            if !places.is_empty() && self.is_full(&after, keep, record) {
                break;
            }
            // A pack is shorter than 4 GiB: `full_len` is at most 256 MiB.
            let (pack, offset) = (after.number, after.len as u32);
            places.push((object.id(), Place { pack, offset, stored_len: header.stored_len, tick }));
            encoded.push(header.encode());
            after.len += record;
            after.records += 1;
        }
        let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(2 * places.len());
        for (object, header) in objects.iter().zip(&encoded) {
            pieces.extend([IoSlice::new(header), IoSlice::new(object.packed().stored())]);
        }
        let written = write_or_cut(&*self.disk, &before.file, &mut pieces, before.len);
        if let Err(failure) = written {
            self.current[keep as usize] = Some(before);
            return Err(failure);
        }
        let bytes = after.len - before.len;
        self.grew(&after, keep, false, bytes);
        self.uncommitted.places.extend_from_slice(&places);
        self.uncommitted.bytes += bytes;
        self.current[keep as usize] = Some(after);
        Ok(places.into_iter().map(|(_, place)| place).collect())
    }

    fn grew(&mut self, current: &Current, keep: Keep, sealed: bool, bytes: u64) {
        let grown = self.uncommitted.packs.entry(current.number).or_insert_with(|| Grown {
            keep,
            file: current.file.clone(),
            len: 0,
            records: 0,
            sealed: false,
            disk: 0,
        });
        grown.len = current.len;
        grown.records = current.records;
        grown.sealed = sealed;
        grown.disk += bytes;
        self.cache_growth += if keep == Keep::Cache { bytes } else { 0 };
    }

    fn begin(&mut self, keep: Keep) -> Result<Current, WriteFailure> {
        let number = self.next_number;
        let path = path(&self.dir, number);
        let file = self.disk.create(&path).map_err(|error| match disk::is_full(&error) {
            true => WriteFailure::Full,
            false => WriteFailure::NotBegun(error),
        })?;
        if let Err(failure) =
            write_or_cut(&*self.disk, &file, &mut [IoSlice::new(&FileHeader { keep, number }.encode())], 0)
        {
            self.disk.remove(&path).map_err(WriteFailure::Broken)?;
            return Err(failure);
        }
        self.next_number += 1;
        self.uncommitted.new_files = true;
        let current = Current { number, file: Arc::new(file), len: FILE_HEADER_LEN as u64, records: 0 };
        self.grew(&current, keep, false, disk::BLOCK);
        Ok(current)
    }

    /// Seals the current pack of a class, if there is one; the next append begins another.
    pub(super) fn seal_current(&mut self, keep: Keep) -> Result<(), WriteFailure> {
        let Some(mut current) = self.current[keep as usize].take() else { return Ok(()) };
        match seal(&*self.disk, &current.file, current.len) {
            Ok(len) => {
                let trailer = len - current.len;
                current.len = len;
                self.grew(&current, keep, true, trailer);
                Ok(())
            }
            Err(failure) => {
                self.current[keep as usize] = Some(current);
                Err(failure)
            }
        }
    }

    /// Stops appending to the current cache pack without sealing it, because it is about to be dropped.
    pub(super) fn retire_cache(&mut self) {
        if let Some(current) = self.current[Keep::Cache as usize].take() {
            self.grew(&current, Keep::Cache, true, 0);
        }
    }
}
