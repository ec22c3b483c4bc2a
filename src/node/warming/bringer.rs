//! Objects on their way here for later use, and the files that they belong to.
//!
//! Owns: the bounds of what is on its way, and the order in which files begin.
//! Must not know: what the files are brought for.
//! Invariant: at most [`OBJECTS`] objects and [`IN_FLIGHT`] bytes are on their way at a time for all clones of a [`Bringer`]. Files of a [`Row`]
//! take their room in their order.
//! Trust: that of `view`. Threads: tasks of the runtime; look-ups in the index in blocking sections.

use std::collections::VecDeque;
use std::future::ready;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::super::off;
use crate::fetch::{Class, Fetcher};
use crate::id::ObjectId;
use crate::view::{FileContent, View, ViewError};

/// Objects on their way at a time.
pub(super) const OBJECTS: usize = 512;
/// Plain bytes on their way at a time.
const IN_FLIGHT: u64 = 32 << 20;
/// Bytes of one permit, and how many of them an object takes at the least, so that they are enough for [`OBJECTS`].
const UNIT: u64 = 1 << 10;
const LEAST: u32 = (IN_FLIGHT / UNIT / OBJECTS as u64) as u32;
/// Plain bytes for which a file takes room before it begins, at most.
const RESERVED: u64 = 4 << 20;
/// Objects that are told of at a time.
const TOLD: usize = 64;
/// Files for which what names their objects is fetched ahead.
const NAMED: usize = 64;

#[cfg(test)]
mod tests;

/// Objects of one file with the bytes of it that are in each: those of one blob node at most.
pub(in super::super) type Piece = Vec<(ObjectId, u64)>;

/// Brings objects here within bounds. Clones share the bounds.
#[derive(Clone)]
pub(in super::super) struct Bringer {
    fetcher: Fetcher,
    room: Arc<Semaphore>,
    class: Class,
}

/// Room that a file has taken before it began.
#[derive(Default)]
struct Reserved(Mutex<Option<OwnedSemaphorePermit>>);

impl Reserved {
    /// So many permits of it. If there are fewer, these are given back: whoever waits for more holds none.
    fn take(&self, permits: u32) -> Option<OwnedSemaphorePermit> {
        // It has a permit or not, whatever panics.
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = held.as_mut().and_then(|held| held.split(permits as usize));
        if taken.is_none() {
            *held = None;
        }
        taken
    }
}

impl Bringer {
    pub fn new(fetcher: Fetcher, class: Class) -> Self {
        Self { fetcher, room: Arc::new(Semaphore::new((IN_FLIGHT / UNIT) as usize)), class }
    }

    /// Fetches those of `objects` that are not here; each comes with its plain bytes, or 0 if they are not known.
    pub async fn bring(&self, objects: Piece) -> Result<(), ViewError> {
        let pieces = stream::iter([Ok(objects)]);
        pin!(self.bring_pieces(pieces, &Reserved::default())).try_for_each(|_| ready(Ok(()))).await
    }

    /// Brings the first `max` bytes of a file here, and what shares objects with them. Returns how many bytes were fetched.
    pub async fn beginning(&self, view: &View, file: &FileContent, max: u64) -> Result<u64, ViewError> {
        let reserved = Reserved::default();
        let brought = self.bring_pieces(pieces(view, file, max, self.class), &reserved);
        brought.try_fold(0, |sum, (_, fetched)| ready(Ok(sum + fetched))).await
    }

    /// Brings a file here in room that was taken before, as far as that goes. `met` is told of every object of it, when it is here.
    async fn file(
        &self,
        view: &View,
        file: &FileContent,
        reserved: Reserved,
        met: &mpsc::Sender<Piece>,
    ) -> Result<(), ViewError> {
        let brought = self.bring_pieces(pieces(view, file, u64::MAX, self.class), &reserved);
        let mut brought = pin!(brought.map_ok(|(object, _)| object).try_chunks(TOLD));
        while let Some(piece) = brought.try_next().await.map_err(|error| error.1)? {
            // Nobody is to be told any more when the work was given up.
            let _ = met.send(piece).await;
        }
        Ok(())
    }

    /// Fetches what is not here of `pieces`, begun in their order, the next one before the last is whole. Gives each object when it is
    /// here, with the bytes that were fetched for it.
    fn bring_pieces<'a>(
        &'a self,
        pieces: impl Stream<Item = Result<Piece, ViewError>> + 'a,
        reserved: &'a Reserved,
    ) -> impl Stream<Item = Result<((ObjectId, u64), u64), ViewError>> + 'a {
        let gets = pieces.map(move |piece| {
            let piece = piece?;
            let ids: Vec<ObjectId> = piece.iter().map(|(id, _)| *id).collect();
            // In the order of the piece, so that one look at the next of them is enough.
            let mut missing = off(|| self.fetcher.missing(&ids))?.into_iter().peekable();
            let gets = piece.into_iter().map(move |object| {
                let is_missing = missing.next_if_eq(&object.0).is_some();
                Ok(async move {
                    let fetched = if is_missing { self.get(object, reserved).await? } else { 0 };
                    Ok((object, fetched))
                })
            });
            Ok::<_, ViewError>(stream::iter(gets))
        });
        gets.try_flatten().try_buffer_unordered(OBJECTS)
    }

    /// Fetches one object when there is room for it. Returns its bytes.
    async fn get(&self, (id, len): (ObjectId, u64), reserved: &Reserved) -> Result<u64, ViewError> {
        let permits = permits(len, IN_FLIGHT);
        let _permit = match reserved.take(permits) {
            // The semaphore is never closed.
            None => self.room.clone().acquire_many_owned(permits).await.ok(),
            taken => taken,
        };
        Ok(self.fetcher.get(id, self.class).await?.plain().len() as u64)
    }
}

/// The objects of a file that hold something of its first `max` bytes, in their order.
fn pieces(
    view: &View,
    file: &FileContent,
    max: u64,
    class: Class,
) -> impl Stream<Item = Result<Piece, ViewError>> {
    stream::try_unfold((file.objects(), 0), move |(mut objects, mut seen)| async move {
        if seen >= max {
            return Ok(None);
        }
        let Some(mut piece) = objects.next(view, class).await? else { return Ok(None) };
        let within = piece.iter().take_while(|(_, len)| {
            let begins = seen;
            seen += len;
            begins < max
        });
        let within = within.count();
        piece.truncate(within);
        Ok(Some((piece, (objects, seen))))
    })
}

/// What so many bytes take of the room, but no more than `most` bytes do.
fn permits(bytes: u64, most: u64) -> u32 {
    (bytes / UNIT).clamp(LEAST.into(), most / UNIT) as u32
}

/// The files that are brought, begun one after the other in the order in which they were found: nodes that bring the same at the same
/// time then want the same of it at every moment, and have it from each other.
pub(super) struct Row {
    view: Arc<View>,
    bringer: Bringer,
    met: mpsc::Sender<Piece>,
    /// Those that have not begun, each with the task that fetches what names its objects.
    waiting: VecDeque<(FileContent, Option<AbortOnDropHandle<()>>)>,
    /// Those that have.
    pub(super) tasks: JoinSet<Result<(), ViewError>>,
}

impl Row {
    /// `met` is told of every object of the files, once it is here.
    pub(super) fn new(view: Arc<View>, bringer: Bringer, met: mpsc::Sender<Piece>) -> Self {
        Self { view, bringer, met, waiting: VecDeque::new(), tasks: JoinSet::new() }
    }

    /// Adds a file at the end.
    pub(super) fn add(&mut self, file: FileContent) {
        let names = file.first().filter(|_| !file.is_one_object());
        let naming = names.map(|names| {
            let (fetcher, class) = (self.bringer.fetcher.clone(), self.bringer.class);
            // Who needs it next says why it did not come.
            AbortOnDropHandle::new(tokio::spawn(async move { drop(fetcher.get(names, class).await) }))
        });
        self.waiting.push_back((file, naming));
    }

    /// Whether some have not begun.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the first can begin, or there are enough behind it.
    pub(super) fn is_due(&self) -> bool {
        let is_named = |naming: &Option<AbortOnDropHandle<()>>| {
            naming.as_ref().is_none_or(|naming| naming.is_finished())
        };
        self.waiting.len() > NAMED || self.waiting.front().is_some_and(|(_, naming)| is_named(naming))
    }

    /// Begins with the first, as soon as there is room for it.
    pub(super) async fn begin(&mut self) {
        let Some((file, naming)) = self.waiting.pop_front() else { return };
        if let Some(naming) = naming {
            // It ends without a result, however it ends.
            let _ = naming.await;
        }
        // The semaphore is never closed, and fair: what waits already goes first.
        let room = self.bringer.room.clone().acquire_many_owned(permits(file.size, RESERVED)).await;
        let reserved = Reserved(Mutex::new(room.ok()));
        let (view, bringer, met) = (self.view.clone(), self.bringer.clone(), self.met.clone());
        self.tasks.spawn(async move { bringer.file(&view, &file, reserved, &met).await });
    }
}
