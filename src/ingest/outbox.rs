//! Finished objects on their way into the store.
//!
//! Owns: the question whether the store has an object already, the batches, compression, and the writer.
//! Must not know: files or directories.
//! Invariant: an object goes in once, however many readers meet it at the same time.
//! Trust: objects are our own. Threads: an `Outbox` belongs to one thread; `compressor` and `writer` are
//! bodies of threads.
//! A crash leaves objects up to the last commit; no snapshot refers to them.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};

use super::{IngestError, Run};
use crate::crypto::dataset::Keyring;
use crate::id::{ID_LEN, Kind, ObjectId};
use crate::pack::sealed::Plain;
use crate::pack::{Checked, Compression};
use crate::store::{Keep, StoreError};

/// A batch is closed when it has this many plain bytes or objects.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_OBJECTS: usize = 256;
/// A batch with less than this is copied out of the readers' buffers.
const SPARSE_BYTES: usize = 128 << 10;
/// The writer puts at once what is ready, up to this many plain bytes.
const PUT_BYTES: usize = 16 << 20;
/// A commit is due each time that the store has grown by this much, so that commits stay short and a crash during a
/// long snapshot costs little. Half of what makes the store commit by itself, so that the writer seldom waits for it.
const COMMIT_BYTES: u64 = 32 << 20;
/// The same in objects: a commit of few among very many rewrites most of the index.
const COMMIT_OBJECTS: u64 = 32 << 10;

/// Generations before the newest that an object is looked for in: each costs the sealing of it. Files that have not changed
/// are not looked at, and stay sealed as they are however often the key was rotated.
const EARLIER: u32 = 4;

/// Objects that the store lacks, with their bytes.
pub(super) type Batch = Vec<(ObjectId, Bytes)>;

/// The objects between an outbox and the store. As many as the bounded channels hold.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashSet<ObjectId>>);

impl Claims {
    /// Keeps in `batch` what nobody else has claimed.
    fn claim(&self, batch: &mut Batch) {
        let mut claimed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        batch.retain(|(id, _)| claimed.insert(*id));
    }

    fn release<'a>(&self, ids: impl Iterator<Item = &'a ObjectId>) {
        let mut claimed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            claimed.remove(id);
        }
    }
}

/// Where one thread drops finished objects.
pub(super) struct Outbox<'a> {
    run: &'a Run<'a>,
    packs: Sender<Batch>,
    batch: Batch,
    bytes: usize,
}

impl<'a> Outbox<'a> {
    pub(super) fn new(run: &'a Run<'a>, packs: Sender<Batch>) -> Self {
        Self { run, packs, batch: Vec::new(), bytes: 0 }
    }

    /// Takes an object, and says by which hash it is found: its own, or that of what it is sealed to.
    pub(super) fn store(&mut self, kind: Kind, plain: Bytes) -> Result<[u8; ID_LEN], IngestError> {
        let (id, bytes) = match &self.run.options.keys {
            None => (ObjectId::of(kind, &plain), plain),
            Some(keys) => self.seal(keys, kind, &plain)?,
        };
        self.add(id, bytes)?;
        Ok(id.hash)
    }

    /// The object sealed with the newest generation of the keys, or with an earlier one if the store has that: a rotation
    /// is no reason to send again what has not changed.
    fn seal(&self, keys: &Keyring, kind: Kind, plain: &Bytes) -> Result<(ObjectId, Bytes), IngestError> {
        let too_long = || IngestError::TooLongToSeal(self.run.options.chunking);
        let plain = Plain::new(kind, plain, self.run.options.compression).ok_or_else(too_long)?;
        let newest = keys.generation();
        let sealed = |generation| {
            let bytes = plain.seal(keys, generation).ok_or_else(too_long)?;
            Ok::<_, IngestError>((ObjectId::of(Kind::Chunk, &bytes), bytes))
        };
        let here =
            |id: &ObjectId| Ok::<_, StoreError>(self.run.store.missing(&[*id], Keep::Published)?.is_empty());
        let now = sealed(newest)?;
        if newest == 0 || here(&now.0)? {
            return Ok(now);
        }
        for generation in (newest.saturating_sub(EARLIER)..newest).rev() {
            let before = sealed(generation)?;
            if here(&before.0)? {
                return Ok(before);
            }
        }
        Ok(now)
    }

    /// Takes an object that hashes to `id`.
    fn add(&mut self, id: ObjectId, plain: Bytes) -> Result<(), IngestError> {
        self.bytes += plain.len();
        self.batch.push((id, plain));
        let full = self.bytes >= BATCH_BYTES || self.batch.len() >= BATCH_OBJECTS;
        if full { self.flush() } else { Ok(()) }
    }

    /// Passes on what has gathered.
    pub(super) fn flush(&mut self) -> Result<(), IngestError> {
        self.run.check()?;
        self.bytes = 0;
        let mut batch = std::mem::take(&mut self.batch);
        self.run.claims.claim(&mut batch);
        let ids: Vec<ObjectId> = batch.iter().map(|(id, _)| *id).collect();
        let missing: HashSet<ObjectId> = self.run.store.missing(&ids, Keep::Published)?.into_iter().collect();
        self.run.claims.release(ids.iter().filter(|id| !missing.contains(id)));
        batch.retain(|(id, _)| missing.contains(id));
        if batch.is_empty() {
            return Ok(());
        }
        // A few small chunks must not keep the buffers alive that they are parts of.
        if batch.iter().map(|(_, plain)| plain.len()).sum::<usize>() < SPARSE_BYTES {
            batch.iter_mut().for_each(|(_, plain)| *plain = Bytes::copy_from_slice(plain));
        }
        // The compressors end early only when the run has failed, cancellation included.
        self.packs.send(batch).map_err(|_| IngestError::Cancelled)
    }
}

/// Compresses batches until there are no more senders. Whoever leaves a batch undone fails the run, or the snapshot
/// would be recorded without what was in it.
pub(super) fn compressor(run: &Run<'_>, packs: &Receiver<Batch>, puts: &Sender<Vec<Checked>>) {
    // What is sealed was compressed before.
    let compression = if run.options.keys.is_some() { Compression::None } else { run.options.compression };
    for batch in packs {
        let pack = |(id, plain)| Checked::with_id(id, plain, compression);
        let sent = run.check().and_then(|()| {
            puts.send(batch.into_iter().map(pack).collect()).map_err(|_| IngestError::Cancelled)
        });
        if let Err(error) = sent {
            return run.fail(error);
        }
    }
}

/// What went into the store.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stored {
    pub objects: u64,
    pub bytes: u64,
}

/// Puts batches into the store until there are no more senders, and says when a commit is due. Like [`compressor`], it
/// leaves nothing undone in silence.
pub(super) fn writer(run: &Run<'_>, puts: &Receiver<Vec<Checked>>, due: &Sender<()>) -> Stored {
    let (mut stored, mut committed) = (Stored::default(), Stored::default());
    while let Ok(mut objects) = puts.recv() {
        if let Err(error) = run.check() {
            run.fail(error);
            break;
        }
        let mut bytes: usize = objects.iter().map(|object| object.plain().len()).sum();
        while bytes < PUT_BYTES
            && let Ok(more) = puts.try_recv()
        {
            bytes += more.iter().map(|object| object.plain().len()).sum::<usize>();
            objects.extend(more);
        }
        if let Err(error) = put(run, &objects, &mut stored) {
            run.fail(error.into());
            break;
        }
        let grown = stored.bytes - committed.bytes >= COMMIT_BYTES
            || stored.objects - committed.objects >= COMMIT_OBJECTS;
        // The commit before may be under way still; then the next batch asks again.
        if grown && due.try_send(()).is_ok() {
            committed = stored;
        }
    }
    stored
}

/// Commits whenever it is told to, beside the writer, who need not wait for the disk.
pub(super) fn committer(run: &Run<'_>, due: &Receiver<()>) {
    for () in due {
        if let Err(error) = run.store.commit() {
            return run.fail(error.into());
        }
    }
}

fn put(run: &Run<'_>, objects: &[Checked], stored: &mut Stored) -> Result<(), StoreError> {
    let put = run.store.put(objects, Keep::Published)?;
    let ids: Vec<ObjectId> = objects.iter().map(Checked::id).collect();
    run.claims.release(ids.iter());
    stored.objects += put.objects;
    stored.bytes += put.stored_bytes;
    run.progress.stored_bytes.fetch_add(put.stored_bytes, Relaxed);
    Ok(())
}
