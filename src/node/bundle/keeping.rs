//! The objects of a file, read, verified and stored.
//!
//! Owns: what is read of a file at all, which object belongs to its versions, and whether all of them are here at the end.
//! Must not know: the log, or who asked.
//! Invariant: an object is stored only if it hashes to its id and a version, or an object before it, names that id. A version
//! becomes a pin only when everything that it consists of is here and held.
//! Trust: none in the file. Memory: four times [`READ_BYTES`] and an object of plain bytes, and the objects that were named and
//! have not come.
//! Threads: one blocking thread reads and verifies, a second one stores.
//! A crash leaves objects in the cache.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::export::show;
use super::import::pin_of;
use super::reading::{Place, Reader};
use super::walk::{Known, Met, Objects, Walk};
use super::{broken, name_of};
use crate::id::{Kind as Object, ObjectId, SnapshotId};
use crate::manifest::{Snapshot, children};
use crate::node::error::{Error, Kind};
use crate::node::job::Job;
use crate::pack::Checked;
use crate::pack::bundle::{Carried, Contents, End, SegmentKind};
use crate::pack::file::RecordHeader;
use crate::store::{Keep, PinRecord, Put, Store};

/// Objects that were named and have not come yet. In the order of the walk a few thousand are.
const MOST_WANTED: usize = 1 << 20;
/// Bytes and objects after which what was stored is held.
const HOLD_BYTES: u64 = 64 << 20;
const HOLD_OBJECTS: usize = 4096;
/// Plain bytes, with those stored, that are read of a segment at a time: a small segment may be a large one, compressed.
const READ_BYTES: u64 = 8 << 20;

/// What was read of a file.
pub(super) enum Read {
    /// Objects of one segment, each with its place and, unless it is here and names nothing, itself.
    Objects(Vec<(u64, RecordHeader, Option<Checked>)>),
    End(End),
}

/// Reads and verifies what is not here, up to the end of the file, which is returned; nothing if nobody takes any more.
pub(super) fn read_objects(
    mut reader: Reader,
    store: &Store,
    job: &Job,
    sender: &mpsc::Sender<Result<Read, Error>>,
) -> Result<Option<Read>, Error> {
    let (mut objects, mut stored_bytes, log_end) = (0, 0, reader.at);
    let mut digest = reader.digest_of_contents();
    reader.at = reader.first;
    loop {
        let begins = reader.at;
        let Some(place) = reader.segment()? else {
            let cause = "the file ends before its end: it was cut off, or its export is not finished";
            return Err(reader.broken(begins, cause));
        };
        match place.segment.kind {
            SegmentKind::Log if place.at < log_end => {}
            SegmentKind::Log => return Err(reader.broken(place.at, "blocks stand behind the end of the log")),
            SegmentKind::Objects => {
                let records = reader.records(&place)?;
                objects += records.len() as u64;
                stored_bytes += records.iter().map(|record| u64::from(record.stored_len)).sum::<u64>();
                if !read_segment(&reader, &place, records, store, job, sender)? {
                    return Ok(None);
                }
            }
            SegmentKind::End => {
                let found = End { objects, stored_bytes, digest: *digest.finalize().as_bytes() };
                reader.check_end(&place, &found)?;
                return Ok(Some(Read::End(found)));
            }
        }
        digest.update(&place.segment.encode());
    }
}

/// Reads the objects of a segment, some at a time; false if nobody takes any more.
fn read_segment(
    reader: &Reader,
    place: &Place,
    records: Vec<RecordHeader>,
    store: &Store,
    job: &Job,
    sender: &mpsc::Sender<Result<Read, Error>>,
) -> Result<bool, Error> {
    let ids: Vec<ObjectId> = records.iter().map(|record| record.id).collect();
    let missing: HashSet<ObjectId> = store.missing(&ids, Keep::Cache)?.into_iter().collect();
    let mut at = Reader::first_object(place);
    let (mut read, mut bytes) = (Vec::new(), 0);
    for record in records {
        job.check()?;
        let is_needed = record.id.kind != Object::Chunk || missing.contains(&record.id);
        let object = if is_needed { Some(reader.object(&record, at)?) } else { None };
        at += u64::from(record.stored_len);
        if is_needed {
            bytes += u64::from(record.plain_len) + u64::from(record.stored_len);
        }
        read.push((at - u64::from(record.stored_len), record, object));
        if bytes >= READ_BYTES {
            bytes = 0;
            if sender.blocking_send(Ok(Read::Objects(std::mem::take(&mut read)))).is_err() {
                return Ok(false);
            }
        }
    }
    Ok(read.is_empty() || sender.blocking_send(Ok(Read::Objects(read))).is_ok())
}

/// Stores what belongs to the versions.
pub(super) struct Keeper {
    store: Store,
    file: PathBuf,
    contents: Contents,
    objects: Objects,
    /// Named, and not here yet.
    wanted: HashSet<ObjectId>,
    to_hold: Vec<ObjectId>,
    bytes: u64,
    put: Put,
    /// Objects and plain bytes of chunks that have come by.
    done: (u64, u64),
}

impl Keeper {
    pub fn new(objects: Objects, store: Store, file: &Path, contents: Contents) -> Self {
        let (file, wanted, to_hold) = (file.to_owned(), HashSet::new(), Vec::new());
        Self { store, file, contents, objects, wanted, to_hold, bytes: 0, put: Put::default(), done: (0, 0) }
    }

    pub fn run(&mut self, mut segments: mpsc::Receiver<Result<Read, Error>>) -> Result<(End, Put), Error> {
        let roots: Vec<ObjectId> =
            self.contents.versions.iter().map(|version| version.snapshot.into()).collect();
        self.want(&roots, 0)?;
        while let Some(read) = segments.blocking_recv() {
            let end = match read? {
                Read::Objects(segment) => {
                    self.take(segment)?;
                    let (all, bytes) = (self.contents.objects, self.contents.bytes);
                    show(&self.objects.job, "importing", (self.done.0, all), (self.done.1, bytes));
                    continue;
                }
                Read::End(end) => end,
            };
            self.hold()?;
            for version in self.contents.versions.clone() {
                self.settle(&version)?;
            }
            return Ok((end, self.put));
        }
        Err(Error::new(Kind::Failed, "the bundle is not read any more, for no reason that is known"))
    }

    /// Stores objects of one segment.
    fn take(&mut self, segment: Vec<(u64, RecordHeader, Option<Checked>)>) -> Result<(), Error> {
        let mut new = Vec::new();
        let ids: Vec<ObjectId> = segment.iter().map(|(_, record, _)| record.id).collect();
        let absent: HashSet<ObjectId> = self.store.missing(&ids, Keep::Cache)?.into_iter().collect();
        for (at, record, object) in segment {
            let id = record.id;
            self.done.0 += 1;
            if id.kind == Object::Chunk {
                self.done.1 += u64::from(record.plain_len);
            }
            // What is here already may have been named by what is here as well.
            if !self.wanted.remove(&id) && absent.contains(&id) {
                let cause = format!("{id} belongs to none of the versions that the file is of");
                return Err(broken(&self.file, at, cause).hint(
                    "do not trust whoever made this file; what was taken over before this place was verified",
                ));
            }
            let Some(object) = object else { continue };
            if id.kind != Object::Chunk {
                let below: Vec<ObjectId> =
                    children(id.kind, object.plain())?.into_iter().map(|(id, _)| id).collect();
                self.want(&below, at)?;
            }
            new.push(object);
        }
        self.bytes += new.iter().map(|object| object.packed().stored().len() as u64).sum::<u64>();
        let put = self.store.put(&new, Keep::Cache)?;
        self.put.objects += put.objects;
        self.put.stored_bytes += put.stored_bytes;
        self.to_hold.extend(ids);
        if self.bytes >= HOLD_BYTES || self.to_hold.len() >= HOLD_OBJECTS { self.hold() } else { Ok(()) }
    }

    /// These are named. Those that are here are held, so that they do not go again before the end.
    fn want(&mut self, ids: &[ObjectId], at: u64) -> Result<(), Error> {
        self.wanted.extend(self.store.hold(ids)?);
        if self.wanted.len() > MOST_WANTED {
            return Err(broken(
                &self.file,
                at,
                "more objects are named than come: they are in no order that a bundle has",
            ));
        }
        Ok(())
    }

    /// Keeps what was stored from being evicted.
    fn hold(&mut self) -> Result<(), Error> {
        self.bytes = 0;
        let gone = self.store.hold(&std::mem::take(&mut self.to_hold))?;
        match gone.first() {
            None => Ok(()),
            Some(id) => Err(no_room(id)),
        }
    }

    /// Holds everything that a version consists of, whether it was in the file or here, and makes it a pin.
    fn settle(&mut self, version: &Carried) -> Result<(), Error> {
        show(&self.objects.job, "checking", (0, 0), (0, 0));
        if let Some(id) = first_missing(&self.objects, &self.store, version.snapshot, true)? {
            let text = format!("{} has not all of {}: {id} is absent", self.file.display(), name_of(version));
            return Err(
                Error::new(Kind::Corrupt, text).hint("have it exported again; what was in it is cached")
            );
        }
        let totals = Snapshot::decode(self.objects.load(&version.snapshot.into())?.plain())?.totals;
        let pin = PinRecord { whole: true, bytes: totals.bytes, files: totals.inodes, ..pin_of(version) };
        Ok(self.store.set_pin(&pin)?)
    }
}

fn no_room(id: &ObjectId) -> Error {
    let text =
        format!("{id} does not stay in the cache: its disk is full, or others fill the cache meanwhile");
    Error::new(Kind::Failed, text)
        .hint("free space, or raise cache.max_bytes, and run it again: what is here is not read again")
}

/// The first object of a snapshot that is not here, as far as what is here names them. With `hold` the others are kept from
/// being evicted.
pub(super) fn first_missing(
    objects: &Objects,
    store: &Store,
    snapshot: SnapshotId,
    hold: bool,
) -> Result<Option<ObjectId>, Error> {
    let root = ObjectId::from(snapshot);
    let (mut known, mut batch) = (Known::default(), vec![root]);
    if !store.missing(&batch, Keep::Cache)?.is_empty() {
        return Ok(Some(root));
    }
    let mut walk = Walk::new(objects, &mut known, snapshot);
    while let Some(met) = walk.next()? {
        let Met::Node(_, below) = met else { continue };
        let below: Vec<ObjectId> = below.into_iter().map(|(id, _)| id).collect();
        if let Some(absent) = store.missing(&below, Keep::Cache)?.first() {
            return Ok(Some(*absent));
        }
        if hold {
            batch.extend(below);
        }
        if batch.len() >= HOLD_OBJECTS
            && let Some(gone) = store.hold(&std::mem::take(&mut batch))?.first()
        {
            return Ok(Some(*gone));
        }
    }
    Ok(if hold { store.hold(&batch)?.first().copied() } else { None })
}
