//! A snapshot of the local store put into an origin: what is not there yet, in packs, and a catalogue of all of it.
//!
//! Owns: the walk over a snapshot's objects, what goes into which pack, and the order of writing.
//! Must not know: names of datasets, the log.
//! Invariant: a catalogue is written only after every pack that it names is there. The same snapshot over the same
//! former ones gives the same packs, so that an upload which was interrupted goes on where it was.
//! Trust: nothing on the local disk is believed; objects are hashed before they go out.
//! Threads: one blocking thread reads and packs, the runtime uploads up to [`AT_A_TIME`] packs. Memory: those, three that
//! are made or wait, and about 50 bytes for each object of the snapshot.
//! A crash leaves packs that no catalogue names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::catalogue::{self, PackRow, Row, prefix_of};
use super::error::OriginError;
use super::places::{Found, catalogue_name, pack_name};
use super::{Origin, OriginUrl};
use crate::id::{ID_LEN, Kind, ObjectId, SnapshotId};
use crate::manifest::children;
use crate::pack::Checked;
use crate::pack::file::{self, FileHeader, Keep, RecordHeader, record_len};
use crate::store::Store;

/// Bytes of the records of a pack, about. A pack goes up with one request, and so far is how much a retry repeats.
const PACK: usize = 32 << 20;
/// Packs on their way at a time.
const AT_A_TIME: usize = 3;
/// Packs of a former upload looked for at a time.
const LOOKS: usize = 8;

/// The file that says that a place is an origin, and of which format.
const MARK: &str = "bcai-origin.json";
const MARK_TEXT: &[u8] = b"{\"bcai-origin\":1}\n";
/// The longest mark that is read.
const MARK_MAX: u64 = 1 << 10;

/// How far an upload is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Objects looked at so far.
    pub objects: u64,
    /// Plain bytes of the chunks among them.
    pub bytes: u64,
}

/// What an upload did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// Objects of the snapshot; 0 if all of it was there already.
    pub objects: u64,
    /// Packs made of what was in no former snapshot, and those of them that had to be sent.
    pub packs: u64,
    pub sent_packs: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

/// An upload to be made; whoever watches it holds it, too.
pub struct Upload {
    origin: Arc<Origin>,
    store: Store,
    snapshot: SnapshotId,
    /// Former snapshots that may be in the origin; what they have there is not sent again.
    former: Vec<SnapshotId>,
    cancelled: CancellationToken,
    objects: AtomicU64,
    bytes: AtomicU64,
}

/// A pack ready to go.
struct Pack {
    row: PackRow,
    bytes: Bytes,
}

impl Upload {
    /// Of `snapshot`, which is in `store`. Fails like [`Origin::open`].
    pub fn new(
        url: OriginUrl,
        store: Store,
        snapshot: SnapshotId,
        former: Vec<SnapshotId>,
        cancelled: CancellationToken,
    ) -> Result<Arc<Self>, OriginError> {
        // One of its own, which remembers nothing: files may have been removed since somebody has looked.
        let origin = Origin::open(url)?;
        let (objects, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Arc::new(Self { origin, store, snapshot, former, cancelled, objects, bytes }))
    }

    /// How far it is.
    pub fn counts(&self) -> Counts {
        Counts { objects: self.objects.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    fn url(&self) -> OriginUrl {
        self.origin.url().clone()
    }

    fn check(&self) -> Result<(), OriginError> {
        if self.cancelled.is_cancelled() { Err(OriginError::Cancelled { url: self.url() }) } else { Ok(()) }
    }

    /// Uploads. Afterwards all of the snapshot can be read from the origin.
    pub async fn run(self: Arc<Self>) -> Result<Uploaded, OriginError> {
        let remote = &self.origin.remote;
        if !self.origin.url().is_writable() {
            let cause = "files are not put onto a web server over HTTP: upload to the folder or bucket that it serves";
            return Err(OriginError::Unusable { url: self.url(), cause: cause.into() });
        }
        match remote.read(MARK, 0..MARK_MAX).await? {
            None => remote.put(MARK, Bytes::from_static(MARK_TEXT)).await?,
            Some(mark) if mark == MARK_TEXT => {}
            Some(_) => return Err(remote.damaged(MARK, "it is of another format than this bcai writes")),
        }
        if self.is_there().await? {
            return Ok(Uploaded::default());
        }
        for former in self.former.iter().rev() {
            self.origin.attend(*former);
        }
        let (packs, mut ready) = mpsc::channel::<Pack>(1);
        let builder = tokio::task::spawn_blocking({
            let (upload, handle) = (self.clone(), Handle::current());
            move || Builder::new(&upload, handle, packs).build()
        });
        let ready = stream::poll_fn(move |context| ready.poll_recv(context));
        let sent = ready.map(|pack| self.send(pack)).buffer_unordered(AT_A_TIME);
        let sent = sent.try_fold(Uploaded::default(), async |mut sum, sent| {
            sum.packs += 1;
            sum.sent_packs += u64::from(sent > 0);
            sum.sent_bytes += sent;
            Ok(sum)
        });
        // If sending fails, the builder finds nobody to give its packs to.
        let sent = self.cancelled.run_until_cancelled(sent).await;
        let mut sent = sent.unwrap_or_else(|| Err(OriginError::Cancelled { url: self.url() }))?;
        let built = builder.await.map_err(|error| self.unfit(self.snapshot.into(), error))??;
        let (catalogue, objects) = built;
        self.check()?;
        sent.objects = objects;
        sent.sent_bytes += catalogue.len() as u64;
        remote.put(&catalogue_name(&self.snapshot), catalogue).await?;
        Ok(sent)
    }

    /// Whether the origin has the catalogue and all packs that it names, each as long as it should be. What is not whole
    /// is uploaded anew.
    async fn is_there(&self) -> Result<bool, OriginError> {
        let packs = match self.origin.places.packs(self.snapshot).await {
            Err(OriginError::Damaged { .. }) => None,
            packs => packs?,
        };
        let Some(packs) = packs else { return Ok(false) };
        let checks = packs.into_iter().map(|pack| async move {
            let len = self.origin.remote.len(&pack_name(&pack.hash)).await?;
            Ok::<_, OriginError>(len == Some(pack.len.into()))
        });
        stream::iter(checks).buffer_unordered(LOOKS).try_fold(true, async |all, one| Ok(all && one)).await
    }

    /// Puts a pack where it is not yet; returns the bytes sent.
    async fn send(&self, pack: Pack) -> Result<u64, OriginError> {
        let (name, len) = (pack_name(&pack.row.hash), pack.bytes.len() as u64);
        if self.origin.remote.len(&name).await? == Some(len) {
            return Ok(0);
        }
        self.origin.remote.put(&name, pack.bytes).await?;
        Ok(len)
    }

    fn unfit(&self, id: ObjectId, cause: impl ToString) -> OriginError {
        OriginError::Unfit { id, cause: cause.to_string() }
    }

    /// The object as it is in the local store, verified.
    fn load(&self, id: &ObjectId) -> Result<Checked, OriginError> {
        match self.store.get(id) {
            Ok(Some(packed)) => packed.verify(id).map_err(|error| self.unfit(*id, error)),
            Ok(None) => Err(OriginError::Absent { id: *id }),
            Err(error) if error.is_damage() => Err(self.unfit(*id, error)),
            Err(error) => Err(Arc::new(error).into()),
        }
    }
}

/// The first half of a hash: enough to know an object by.
type Short = [u8; 16];

/// Goes through a snapshot, and makes packs of what is new.
struct Builder<'a> {
    upload: &'a Upload,
    runtime: Handle,
    ready: mpsc::Sender<Pack>,
    /// Every object met so far.
    known: HashSet<Short>,
    rows: Vec<Row>,
    packs: Vec<PackRow>,
    numbers: HashMap<[u8; ID_LEN], u32>,
    /// The pack that is being made.
    bytes: Vec<u8>,
    entries: Vec<file::Entry>,
    number_of_new: u32,
}

impl<'a> Builder<'a> {
    fn new(upload: &'a Upload, runtime: Handle, ready: mpsc::Sender<Pack>) -> Self {
        Self {
            upload,
            runtime,
            ready,
            known: HashSet::new(),
            rows: Vec::new(),
            packs: Vec::new(),
            numbers: HashMap::new(),
            bytes: Vec::new(),
            entries: Vec::new(),
            number_of_new: 0,
        }
    }

    /// The catalogue, and how many objects it is of. All packs have been handed over then.
    fn build(mut self) -> Result<(Bytes, u64), OriginError> {
        // In the order of the walk: readers come by in it, and find neighbours side by side.
        let mut pending = vec![ObjectId::from(self.upload.snapshot)];
        while let Some(id) = pending.pop() {
            self.upload.check()?;
            if self.known.contains(&short(&id)) {
                continue;
            }
            let found = self.find(&id)?;
            // A chunk that is there need not be read; everything else says what is below it.
            let object = match (id.kind, found) {
                (Kind::Chunk, Some(_)) => None,
                _ => Some(self.upload.load(&id)?),
            };
            match (found, &object) {
                (Some(found), _) => {
                    let number = self.number(found.pack)?;
                    self.record(&id, number);
                }
                (None, Some(object)) => self.add(object)?,
                (None, None) => {}
            }
            if let Some(object) = &object {
                let below =
                    children(id.kind, object.plain()).map_err(|error| self.upload.unfit(id, error))?;
                pending.extend(below.into_iter().rev().map(|(child, _)| child));
            }
            self.upload.objects.fetch_add(1, Ordering::Relaxed);
            if id.kind == Kind::Chunk {
                let there = found.map_or(0, |found| found.entry.header.plain_len as u64);
                let len = object.map_or(there, |object| object.plain().len() as u64);
                self.upload.bytes.fetch_add(len, Ordering::Relaxed);
            }
        }
        self.seal()?;
        let catalogue = catalogue::encode(&self.packs, &mut self.rows);
        Ok((catalogue.into(), self.rows.len() as u64))
    }

    /// Where the object is in the origin, if it is. In a damaged file, nothing is.
    fn find(&self, id: &ObjectId) -> Result<Option<Found>, OriginError> {
        match self.runtime.block_on(self.upload.origin.places.find(id)) {
            Err(OriginError::Damaged { .. }) => Ok(None),
            found => found,
        }
    }

    fn record(&mut self, id: &ObjectId, pack: u32) {
        self.known.insert(short(id));
        self.rows.push((prefix_of(&id.hash), pack));
    }

    /// The number of a pack that is in the origin already.
    fn number(&mut self, pack: PackRow) -> Result<u32, OriginError> {
        if let Some(number) = self.numbers.get(&pack.hash) {
            return Ok(*number);
        }
        let number = self.next_number()?;
        self.packs.push(pack);
        self.numbers.insert(pack.hash, number);
        Ok(number)
    }

    fn next_number(&self) -> Result<u32, OriginError> {
        let number = self.packs.len() as u32;
        if number < catalogue::MAX_PACKS {
            return Ok(number);
        }
        let cause = format!("the snapshot needs more than {} packs", catalogue::MAX_PACKS);
        Err(OriginError::Unusable { url: self.upload.url(), cause })
    }

    /// Puts an object into the pack that is being made.
    fn add(&mut self, object: &Checked) -> Result<(), OriginError> {
        let packed = object.packed();
        let stored_len = packed.stored().len() as u32;
        let full = self.bytes.len() as u64 + record_len(stored_len) > PACK as u64
            || self.entries.len() == file::MAX_RECORDS as usize;
        if full {
            self.seal()?;
        }
        if self.bytes.is_empty() {
            // At once, so that it does not double as it grows.
            self.bytes.reserve_exact(PACK + (4 << 20));
            self.bytes.extend_from_slice(&FileHeader { keep: Keep::Published, number: 0 }.encode());
        }
        let id = object.id();
        if self.entries.is_empty() {
            self.number_of_new = self.next_number()?;
            // Its place in the list, until it has a name.
            self.packs.push(PackRow { hash: [0; ID_LEN], len: 0, start: 0 });
        }
        let header = RecordHeader { id, codec: packed.codec(), stored_len, plain_len: packed.plain_len() };
        self.entries.push(file::Entry { header, offset: self.bytes.len() as u32 });
        self.bytes.extend_from_slice(&header.encode());
        self.bytes.extend_from_slice(packed.stored());
        self.record(&id, self.number_of_new);
        Ok(())
    }

    /// Ends the pack that is being made, if one is, and hands it over.
    fn seal(&mut self) -> Result<(), OriginError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let start = self.bytes.len() as u32;
        let trailer = file::encode_trailer(&mut self.entries, start.into());
        self.bytes.extend_from_slice(&trailer);
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        self.entries.clear();
        let hash = *blake3::hash(&bytes).as_bytes();
        let row = PackRow { hash, len: bytes.len() as u32, start };
        self.packs[self.number_of_new as usize] = row;
        self.numbers.insert(hash, self.number_of_new);
        // Nobody takes packs any more after one could not be sent, which is what is told then.
        self.ready
            .blocking_send(Pack { row, bytes })
            .map_err(|_| OriginError::Cancelled { url: self.upload.url() })
    }
}

fn short(id: &ObjectId) -> Short {
    let mut short = Short::default();
    short.copy_from_slice(&id.hash[..16]);
    short
}
