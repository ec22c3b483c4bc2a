//! A file's versions into this node, which keeps them.
//!
//! Owns: what has to be true before anything of a file is kept, and the order of that: the network is the one that is meant,
//! the log carries its certificates, the versions are in it, each object belongs to one of them.
//! Must not know: the bytes of the file, or how objects are held.
//! Invariant: an object is stored only if it hashes to its id and an object before it, or the version, names that id. When the
//! import succeeds, everything of the versions is here and pinned.
//! Trust: none in the file but for the network's id, which the user vouches for or this node knows.
//! Threads: the log on the runtime; then one blocking thread reads and verifies, a second one stores.
//! A crash leaves a log that ends earlier, objects in the cache, and pins that are not whole: the next run passes over what is
//! here.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::export::show;
use super::reading::{Place, Reader};
use super::walk::{Known, Met, Objects, Walk};
use super::{described, name_of, reported};
use crate::chain::Chain;
use crate::id::{Kind as Object, ObjectId, SnapshotId};
use crate::manifest::{Snapshot, children};
use crate::node::error::{Error, Kind};
use crate::node::job::Job;
use crate::node::networks::check_pin;
use crate::node::report::{BundleHead, BundleImportRequest, BundleImported};
use crate::node::{Node, Reference, Uri, now_ms, off};
use crate::pack::Checked;
use crate::pack::bundle::{Carried, Contents, End, SegmentKind};
use crate::pack::file::RecordHeader;
use crate::store::{Keep, PinRecord, Put, Store};

/// Objects that were named and have not come yet. In the order of the walk a few thousand are.
const MOST_WANTED: usize = 1 << 20;
/// Segments that were read and are not stored yet.
const AHEAD: usize = 2;
/// Bytes and objects after which what was stored is held.
const HOLD_BYTES: u64 = 64 << 20;
const HOLD_OBJECTS: usize = 4096;
/// What an object takes beyond its content, about.
const OVERHEAD: u64 = 400;

impl Node {
    /// Takes over the log and the objects of a file, and pins its versions.
    pub async fn import_bundle(
        self: &Arc<Self>,
        request: &BundleImportRequest,
        job: &Job,
    ) -> Result<BundleImported, Error> {
        let started = Instant::now();
        let file = &request.file;
        let mut reader = off(|| Reader::begin(file))?;
        let expected = request.expected.as_deref().map(expectation).transpose()?;
        self.check_network(file, &reader.contents, expected.as_ref())?;
        let contents = reader.contents.clone();
        let (chain, was_known) = self.networks.carry_in(contents.genesis(), &contents.document).await?;
        let before = chain.ledger().height();
        self.take_log(&chain, file, &mut reader, job).await?;
        let new_blocks = chain.ledger().height().saturating_sub(before);
        check_versions(&chain, file, &contents, expected.as_ref().and_then(|(_, uri)| uri.as_ref()))?;
        self.networks.make_default(chain.genesis())?;
        let _turn = self.pin_turn().await?;
        let imported = self.keep_versions(file, reader, job).await;
        self.join_kept_swarms();
        self.resume_pins();
        let (end, put) = imported?;
        let ledger = chain.ledger();
        let head = off(|| chain.block(contents.head))?.header;
        Ok(BundleImported {
            log: BundleHead {
                genesis: contents.genesis().to_string(),
                height: head.height,
                time_ms: head.time_ms,
                blocks: (contents.head + 1).saturating_sub(contents.first),
                members_only: ledger.params().members_only(),
            },
            new_network: !was_known,
            new_blocks,
            height: ledger.height(),
            versions: reported(&ledger, &contents.genesis(), &contents.versions),
            objects: end.objects,
            new_objects: put.objects,
            new_bytes: put.stored_bytes,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Whether the file is of a network that its reader means, and goes on where the log here ends.
    fn check_network(
        &self,
        file: &Path,
        contents: &Contents,
        expected: Option<&(crate::id::Genesis, Option<Uri>)>,
    ) -> Result<(), Error> {
        let genesis = contents.genesis();
        let known = self.networks.get(&genesis);
        match expected {
            Some((meant, _)) if *meant != genesis => {
                let text = format!("{} is of network {genesis}, not of {meant}", file.display());
                return Err(Error::new(Kind::Corrupt, text)
                    .hint("it is not the file that you were promised, or the id is another network's"));
            }
            None if known.is_none() => {
                let text = format!(
                    "{} is of network {genesis}, which this node does not belong to, and a file cannot vouch for itself",
                    file.display()
                );
                return Err(Error::usage(text).hint(format!(
                    "compare this id with what the publisher told you by another way (it is the first part of every bcai:// URI of theirs); if it is the same: bcai bundle import {} --genesis {genesis}",
                    file.display()
                )));
            }
            _ => {}
        }
        let height = known.map_or(0, |chain| chain.ledger().height());
        if contents.first <= height + 1 {
            return Ok(());
        }
        let since = contents.since.as_ref().map_or_else(|| "an earlier bundle".to_owned(), name_of);
        let text = format!(
            "the log in {} begins at height {}, and the log here ends at {height}",
            file.display(),
            contents.first
        );
        Err(Error::not_found(text)
            .hint(format!("import the bundle of {since} first, or have it exported without --since")))
    }

    /// Takes over the blocks; the reader stands behind them then.
    async fn take_log(
        &self,
        chain: &Chain,
        file: &Path,
        reader: &mut Reader,
        job: &Job,
    ) -> Result<(), Error> {
        let contents = reader.contents.clone();
        let from = file.display().to_string();
        let mut next = contents.first;
        while next <= contents.head {
            let begins = reader.at;
            let place = off(|| reader.segment())?.filter(|place| place.segment.kind == SegmentKind::Log);
            let Some(place) = place else {
                return Err(reader.broken(begins, "the log ends before its head"));
            };
            for block in off(|| reader.blocks(&place))? {
                job.check()?;
                let taken = self.networks.carry_block(chain, &block, contents.head, &from).await;
                taken.map_err(|error| Error {
                    message: format!("{from} at byte {}, height {next}: {}", place.at, error.message),
                    ..error
                })?;
                next += 1;
                show(job, "log", (next - contents.first, contents.head + 1 - contents.first), (0, 0));
            }
        }
        let is_known = chain.ledger().height() >= contents.head;
        if is_known && off(|| chain.block(contents.head))?.header.id() == contents.header {
            return Ok(());
        }
        Err(reader.broken(
            reader.at,
            format!(
                "the log does not lead to the head that the file announces, {} at height {}",
                contents.header, contents.head
            ),
        ))
    }

    /// Stores the objects, and keeps what they make up.
    async fn keep_versions(
        self: &Arc<Self>,
        file: &Path,
        reader: Reader,
        job: &Job,
    ) -> Result<(End, Put), Error> {
        let contents = reader.contents.clone();
        self.check_base(file, &contents, job).await?;
        self.check_pins_have_room(&contents)?;
        let known = off(|| self.store.pins())?;
        let mut begun = Vec::new();
        for version in &contents.versions {
            let pin = pin_of(version);
            // Nothing is taken away from one that is whole, whatever happens now.
            if !known.iter().any(|known| known.whole && known.is_same(&pin)) {
                off(|| self.store.set_pin(&pin))?;
                begun.push(pin);
            }
        }
        let taken = self.take_objects(file, reader, job).await;
        // As with `bcai pin`: what was given up is cached like anything, and what a stop interrupts is gone on with.
        if taken.is_err() && !self.stop.is_cancelled() {
            for pin in begun {
                off(|| self.store.remove_pin(&pin))?;
            }
        }
        taken
    }

    async fn take_objects(
        self: &Arc<Self>,
        file: &Path,
        reader: Reader,
        job: &Job,
    ) -> Result<(End, Put), Error> {
        let contents = reader.contents.clone();
        let (sender, segments) = mpsc::channel(AHEAD);
        let reading = tokio::task::spawn_blocking({
            let (store, job) = (self.store.clone(), job.clone());
            move || {
                let last = read_objects(reader, &store, &job, &sender).transpose();
                // Whoever takes no more has said why.
                last.map(|last| sender.blocking_send(last))
            }
        });
        let mut keeper = Keeper::new(self.local_objects(job), self.store.clone(), file, contents);
        let keeping = tokio::task::spawn_blocking(move || keeper.run(segments));
        let failed = |panic| Error::new(Kind::Failed, format!("reading the bundle failed: {panic}"));
        let kept = keeping.await.map_err(failed)?;
        reading.await.map_err(failed)?;
        kept
    }

    /// What is here, and nothing else.
    fn local_objects(&self, job: &Job) -> Objects {
        Objects { fetcher: self.fetcher.with_source(None), runtime: Handle::current(), job: job.clone() }
    }

    /// Whether what the file leaves out is here.
    async fn check_base(self: &Arc<Self>, file: &Path, contents: &Contents, job: &Job) -> Result<(), Error> {
        let Some(since) = contents.since.clone() else { return Ok(()) };
        let (objects, store, snapshot) = (self.local_objects(job), self.store.clone(), since.snapshot);
        let looked = tokio::task::spawn_blocking(move || first_missing(&objects, &store, snapshot, false));
        let looked =
            looked.await.map_err(|panic| Error::new(Kind::Failed, format!("looking failed: {panic}")))?;
        let Some(id) = looked? else { return Ok(()) };
        let name = name_of(&since);
        Err(Error::not_found(format!(
            "{} holds only what {name} has not, and {name} is not whole on this node: {id} is absent",
            file.display()
        ))
        .hint(format!("import the bundle of {name} first, or have it exported without --since {name}")))
    }

    /// Refuses what pins have no room for, before anything is stored.
    fn check_pins_have_room(&self, contents: &Contents) -> Result<(), Error> {
        let published = off(|| self.store.snapshots())?;
        let is_published = |version: &Carried| published.iter().any(|known| known.id == version.snapshot);
        if contents.versions.iter().all(is_published) {
            return Ok(());
        }
        let needed = contents.bytes.saturating_add(contents.objects.saturating_mul(OVERHEAD));
        let names: Vec<String> = contents.versions.iter().map(name_of).collect();
        let snapshots: Vec<SnapshotId> = contents.versions.iter().map(|version| version.snapshot).collect();
        self.check_pin_room(&names.join(", "), needed, &snapshots, "")
    }
}

/// The network that is meant, and what else the user expects of the file.
fn expectation(text: &str) -> Result<(crate::id::Genesis, Option<Uri>), Error> {
    if let Ok(genesis) = text.parse() {
        return Ok((genesis, None));
    }
    match text.parse() {
        Ok(Reference::Uri(uri)) => Ok((uri.genesis, Some(uri))),
        _ => Err(Error::usage(format!("`{text}` names no network"))
            .hint("give its id, which is the first part of every bcai:// URI, or such a URI")),
    }
}

/// Whether the log says of the versions what the file says, and the one that is expected is among them.
fn check_versions(
    chain: &Chain,
    file: &Path,
    contents: &Contents,
    expected: Option<&Uri>,
) -> Result<(), Error> {
    let ledger = chain.ledger();
    let all = contents.versions.iter().chain(&contents.since);
    for version in all {
        let found = ledger.resolve(&version.name, Some(&version.label)).ok().map(|found| found.snapshot);
        if found != Some(version.snapshot) {
            let text = format!(
                "{} says that {} is snapshot {}, and its own log does not",
                file.display(),
                name_of(version),
                version.snapshot
            );
            return Err(Error::new(Kind::Corrupt, text)
                .hint("nothing of it was kept but the log; have it exported again"));
        }
    }
    let Some(uri) = expected else { return Ok(()) };
    check_pin(chain, uri.pin)?;
    let meant = ledger.resolve(&uri.named.name, uri.named.selector.as_deref())?;
    let is_here = |carried: &Carried| carried.name == uri.named.name && carried.snapshot == meant.snapshot;
    if contents.versions.iter().any(is_here) {
        return Ok(());
    }
    let text = format!("{} is not in {}, which is of {}", uri.named, file.display(), described(contents));
    Err(Error::not_found(text).hint("nothing of it was kept but the log"))
}

/// What was read of a file.
enum Read {
    /// The objects of a segment, each with its place and, unless it is here and names nothing, itself.
    Objects(Vec<(u64, RecordHeader, Option<Checked>)>),
    End(End),
}

/// Reads and verifies what is not here, up to the end of the file, which is returned; nothing if nobody takes any more.
fn read_objects(
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
                let read = read_segment(&reader, &place, records, store, job)?;
                if sender.blocking_send(Ok(read)).is_err() {
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

fn read_segment(
    reader: &Reader,
    place: &Place,
    records: Vec<RecordHeader>,
    store: &Store,
    job: &Job,
) -> Result<Read, Error> {
    let ids: Vec<ObjectId> = records.iter().map(|record| record.id).collect();
    let missing: HashSet<ObjectId> = store.missing(&ids, Keep::Cache)?.into_iter().collect();
    let mut at = Reader::first_object(place);
    let mut read = Vec::with_capacity(records.len());
    for record in records {
        job.check()?;
        let is_needed = record.id.kind != Object::Chunk || missing.contains(&record.id);
        let object = if is_needed { Some(reader.object(&record, at)?) } else { None };
        read.push((at, record, object));
        at += u64::from(record.stored_len);
    }
    Ok(Read::Objects(read))
}

/// Stores what belongs to the versions.
struct Keeper {
    store: Store,
    file: std::path::PathBuf,
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
    fn new(objects: Objects, store: Store, file: &Path, contents: Contents) -> Self {
        let (file, wanted, to_hold) = (file.to_owned(), HashSet::new(), Vec::new());
        Self { store, file, contents, objects, wanted, to_hold, bytes: 0, put: Put::default(), done: (0, 0) }
    }

    fn run(&mut self, mut segments: mpsc::Receiver<Result<Read, Error>>) -> Result<(End, Put), Error> {
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

    /// Stores one segment.
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
                return Err(super::broken(&self.file, at, cause).hint(
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

    fn want(&mut self, ids: &[ObjectId], at: u64) -> Result<(), Error> {
        self.wanted.extend(self.store.missing(ids, Keep::Cache)?);
        if self.wanted.len() > MOST_WANTED {
            return Err(super::broken(
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

/// The pin of a version, before anything of it is held.
fn pin_of(version: &Carried) -> PinRecord {
    PinRecord {
        snapshot: version.snapshot,
        paths: Vec::new(),
        reference: name_of(version),
        whole: false,
        bytes: 0,
        files: 0,
        pinned_unix_ms: now_ms(),
        replica_of: None,
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
fn first_missing(
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
