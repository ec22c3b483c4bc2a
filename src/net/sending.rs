//! Objects on their way out: from the store into memory, and into frames.
//!
//! Owns: reading and checking what is asked for, its place in memory until it is sent, and what is under way after that.
//! Must not know: who asks, what credit there is.
//! Invariant: every object here was verified after it was read from the disk, or when it came.
//! Trust: the disk may be damaged.
//! Threads: async; the store is read on the blocking pool.

use std::collections::{HashSet, VecDeque};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::io::{AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use tokio::sync::{Notify, SemaphorePermit};

use super::shared::{Shared, blocking};
use crate::fetch::Lookups;
use crate::id::ObjectId;
use crate::pack::Packed;
use crate::store::{Store, StoreError};
use crate::swarm::uplink::Uplink;
use crate::swarm::wire::{DATA_HEAD_LEN, DataHead, Header};

/// Bytes of small objects that are read at a time, and objects at most.
const READ: usize = 256 << 10;
const MAX_READ: usize = 8;
/// What was found when an object was looked for.
pub(super) type Found = Result<Option<Packed>, StoreError>;

/// A session, by the peer that has begun it and its number.
pub(super) type ReaderId = (PeerId, u64);

/// What is under way to all readers.
pub(super) struct UnderWay {
    uplink: Mutex<Uplink<ReaderId>>,
    /// Wakes all who wait until less is under way: what each of them waits to send may also have been given to somebody else.
    pub(super) less: Notify,
    started: Instant,
}

impl UnderWay {
    /// Nothing is; time is counted from `started`.
    pub(super) fn new(started: Instant) -> UnderWay {
        UnderWay { uplink: Mutex::default(), less: Notify::new(), started }
    }

    /// Runs `change` on it, with the time.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Uplink<ReaderId>, Duration) -> T) -> T {
        let now = self.started.elapsed();
        // Each change is one step; a panic leaves no half of one.
        change(&mut self.uplink.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

/// A request to be answered with its object, which has a place in memory.
pub(super) struct Wanted<'a> {
    pub(super) request: u64,
    pub(super) object: ObjectId,
    /// Held until the object is sent.
    pub(super) _place: SemaphorePermit<'a>,
}

/// The same, and the object.
pub(super) struct Loaded<'a> {
    pub(super) wanted: Wanted<'a>,
    pub(super) packed: Packed,
}

/// Looks for objects in memory and in the store, for all of them at a time. Each is told with its request.
pub(super) async fn look<'a>(shared: &Shared, wanted: Vec<Wanted<'a>>) -> Vec<(Wanted<'a>, Found)> {
    let mut found: Vec<Found> = wanted.iter().map(|wanted| Ok(shared.hot.get(&wanted.object))).collect();
    let is_cold = |found: &Found| matches!(found, Ok(None));
    let cold = wanted.iter().zip(&found).filter(|(_, found)| is_cold(found));
    let cold: Vec<ObjectId> = cold.map(|(wanted, _)| wanted.object).collect();
    if !cold.is_empty() {
        let store = shared.store.clone();
        let read = move || cold.iter().map(|object| verified(&store, object)).collect::<Vec<_>>();
        let missing = found.iter_mut().filter(|found| is_cold(found));
        missing.zip(blocking(read).await).for_each(|(found, read)| *found = read);
    }
    wanted.into_iter().zip(found).collect()
}

/// How many objects are read at a time, so that they are not too much, by what the last ones had.
pub(super) fn at_once(loaded: &VecDeque<Loaded<'_>>) -> usize {
    let bytes = loaded.iter().map(|loaded| loaded.packed.stored().len()).sum::<usize>();
    (READ * loaded.len() / bytes.max(1)).clamp(1, MAX_READ)
}

/// Data frames that are written together: their heads, and the bytes of objects where they lie.
#[derive(Default)]
pub(super) struct Frames {
    heads: Vec<u8>,
    /// Where each head ends, and the bytes that follow it.
    parts: Vec<(usize, Bytes)>,
    /// Bytes of content.
    content: usize,
}

impl Frames {
    /// Adds the frame with `len` bytes of an object from byte `sent` on.
    pub(super) fn push(&mut self, request: u64, packed: &Packed, sent: u32, len: u32) {
        let first = sent == 0;
        let head_len = if first { DATA_HEAD_LEN as u32 } else { 0 };
        self.heads.extend_from_slice(&Header::data(request, first, head_len + len).encode());
        if first {
            let stored_len = packed.stored().len() as u32;
            let head = DataHead { codec: packed.codec() as u8, plain_len: packed.plain_len(), stored_len };
            self.heads.extend_from_slice(&head.encode());
        }
        // `take` stays within the length that `found` was told, which is that of these bytes.
        self.parts.push((self.heads.len(), packed.stored().slice(sent as usize..(sent + len) as usize)));
        self.content += len as usize;
    }

    /// Bytes of content.
    pub(super) fn content(&self) -> usize {
        self.content
    }

    /// Bytes in all.
    pub(super) fn len(&self) -> usize {
        self.heads.len() + self.content
    }

    pub(super) async fn write(self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let starts = std::iter::once(0).chain(self.parts.iter().map(|(end, _)| *end));
        let frames = starts.zip(&self.parts).flat_map(|(start, (end, content))| {
            [IoSlice::new(&self.heads[start..*end]), IoSlice::new(content)]
        });
        let mut slices: Vec<IoSlice<'_>> = frames.collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match stream.write_vectored(left).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut left, written),
            }
        }
        stream.flush().await
    }
}

/// Those of `objects` that the store has not, or cannot find, and perhaps others that it has not.
pub(super) async fn missing(lookups: &Arc<Lookups>, objects: Vec<ObjectId>) -> Arc<HashSet<ObjectId>> {
    lookups.missing(objects.clone()).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the index cannot say what is here");
        Arc::new(objects.into_iter().collect())
    })
}

/// An object of the store, checked: one rotten sector must not make a liar of an honest node, whom every reader
/// would ban. What is here but is not the object is as good as missing.
fn verified(store: &Store, id: &ObjectId) -> Result<Option<Packed>, StoreError> {
    let cause = match store.get(id).map(|found| found.map(|packed| packed.verify(id))) {
        Ok(None) => return Ok(None),
        Ok(Some(Ok(checked))) => return Ok(Some(checked.packed().clone())),
        Ok(Some(Err(cause))) => cause.to_string(),
        Err(error) if error.is_damage() => error.to_string(),
        Err(error) => return Err(error),
    };
    tracing::error!(object = %id, %cause, "a stored object is damaged; `bcai verify` finds what it belongs to");
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use crate::id::Kind;
    use crate::pack::{Checked, Compression};

    /// Takes a few bytes at a time, other numbers of them again and again.
    struct Sips(Vec<u8>, usize);

    impl AsyncWrite for Sips {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            this.1 = (this.1 * 7 + 3) % 1009;
            let len = bytes.len().min(1 + this.1);
            this.0.extend_from_slice(&bytes[..len]);
            Poll::Ready(Ok(len))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn frames_are_written_whole_however_little_is_taken_at_a_time() {
        let plain: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
        let packed = Checked::pack(Kind::Chunk, plain.clone().into(), Compression::None).packed().clone();
        let parts = [(7, 0, 3000), (7, 3000, 2000), (8, 0, 1), (9, 4999, 1), (10, 0, 0)];
        let (mut frames, mut expected) = (Frames::default(), Vec::new());
        for (request, sent, len) in parts {
            frames.push(request, &packed, sent, len);
            let head = DataHead { codec: packed.codec() as u8, plain_len: 5000, stored_len: 5000 }.encode();
            let head = if sent == 0 { &head[..] } else { &[] };
            expected.extend(Header::data(request, sent == 0, head.len() as u32 + len).encode());
            expected.extend(head);
            expected.extend(&plain[sent as usize..(sent + len) as usize]);
        }
        assert_eq!((frames.len(), frames.content()), (expected.len(), 5002));
        let mut written = Sips(Vec::new(), 5);
        frames.write(&mut written).await.unwrap();
        assert!(written.0 == expected);
    }
}
