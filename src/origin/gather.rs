//! Objects that lie near each other in a pack and are wanted at about the same time come with one request.
//!
//! Owns: which wants of a pack go into one range, and handing out its bytes as they arrive.
//! Must not know: what the bytes are worth.
//! Invariant: every want is answered once, or given up by whoever asked. A range is at most [`RANGE`] bytes and passes
//! over at most [`GAP`] between two objects; of what arrives, no more than one object is held at a time.
//! Trust: none in the server; places were checked to lie within the pack.
//! Threads: a task for each want. It asks for its own object and its neighbours, or finds that a neighbour's task has.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::StreamExt;
use tokio::sync::oneshot;

use super::error::OriginError;
use super::places::{Found, pack_name};
use super::remote::Remote;
use crate::id::ID_LEN;
use crate::pack::file::{Entry, RECORD_HEADER_LEN};
use crate::swarm::Class;

/// The most bytes of one request.
const RANGE: u64 = 4 << 20;
/// The most bytes between two objects that are fetched to save a request. Less than most chunks: what lies between is often
/// left to another node, and would come twice.
const GAP: u64 = 32 << 10;
/// How long a want that no reader waits for stays open to its neighbours.
const WINDOW: Duration = Duration::from_millis(2);

type Reply = oneshot::Sender<Result<Bytes, OriginError>>;

/// The wants of one pack, by where their stored bytes begin.
type Wants = BTreeMap<u64, Want>;

struct Want {
    entry: Entry,
    /// Everybody who wants it.
    replies: Vec<Reply>,
}

impl Want {
    fn range(&self) -> Range<u64> {
        body_of(&self.entry)
    }

    fn is_given_up(&self) -> bool {
        self.replies.iter().all(Reply::is_closed)
    }

    fn answer(self, outcome: &Result<Bytes, OriginError>) {
        for reply in self.replies {
            // Whoever has given up needs no answer.
            let _ = reply.send(outcome.clone());
        }
    }
}

/// Where the stored bytes of a record are in its pack.
fn body_of(entry: &Entry) -> Range<u64> {
    let start = u64::from(entry.offset) + RECORD_HEADER_LEN as u64;
    start..start + u64::from(entry.header.stored_len)
}

pub(super) struct Gather {
    remote: Arc<Remote>,
    packs: Mutex<HashMap<[u8; ID_LEN], Wants>>,
}

impl Gather {
    pub(super) fn new(remote: Arc<Remote>) -> Arc<Self> {
        Arc::new(Self { remote, packs: Mutex::default() })
    }

    fn packs(&self) -> MutexGuard<'_, HashMap<[u8; ID_LEN], Wants>> {
        // No operation on it can leave it half done.
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stored bytes of an object.
    pub(super) async fn fetch(self: &Arc<Self>, found: &Found, class: Class) -> Result<Bytes, OriginError> {
        let at = body_of(&found.entry);
        if at.is_empty() {
            return Ok(Bytes::new());
        }
        let (reply, answer) = oneshot::channel();
        {
            let mut packs = self.packs();
            let wants = packs.entry(found.pack.hash).or_default();
            let want = wants.entry(at.start).or_insert(Want { entry: found.entry, replies: Vec::new() });
            want.replies.push(reply);
        }
        tokio::spawn(self.clone().serve(found.pack.hash, at.start, class));
        answer.await.unwrap_or_else(|_| {
            let cause = "the request was dropped".into();
            Err(OriginError::Unreachable {
                url: self.remote.url().clone(),
                name: pack_name(&found.pack.hash),
                cause,
            })
        })
    }

    /// Gets the object at `at` with what is near it, unless somebody else does.
    async fn serve(self: Arc<Self>, pack: [u8; ID_LEN], at: u64, class: Class) {
        match class {
            // Whoever asks for several at once has done so when every task has had its turn.
            Class::Fault => tokio::task::yield_now().await,
            _ => tokio::time::sleep(WINDOW).await,
        }
        if !self.packs().get(&pack).is_some_and(|wants| wants.contains_key(&at)) {
            return;
        }
        let _turn = self.remote.turn(class).await;
        let Some(wants) = self.take(&pack, at) else { return };
        self.run(&pack, wants).await;
    }

    /// Takes the want at `at`, and those around it that fit into its range.
    fn take(&self, pack: &[u8; ID_LEN], at: u64) -> Option<Wants> {
        let mut packs = self.packs();
        let wants = packs.get_mut(pack)?;
        let taken = take_around(wants, at);
        if wants.is_empty() {
            packs.remove(pack);
        }
        taken
    }

    async fn run(&self, pack: &[u8; ID_LEN], mut wants: Wants) {
        wants.retain(|_, want| !want.is_given_up());
        let name = pack_name(pack);
        if let Err(error) = self.stream(&name, &mut wants).await {
            for want in wants.into_values() {
                want.answer(&Err(error.clone()));
            }
        }
    }

    /// Answers the wants in their order, while the bytes arrive; those that are left in `wants` were not answered.
    async fn stream(&self, name: &str, wants: &mut Wants) -> Result<(), OriginError> {
        let Some((&first, _)) = wants.first_key_value() else { return Ok(()) };
        let end = wants.values().map(|want| want.range().end).max().unwrap_or(first);
        let mut at = first;
        let Some(mut pieces) = self.remote.stream(name, first..end).await? else {
            return Err(self.remote.damaged(name, "a catalogue names it, but it is not there"));
        };
        let mut held = BytesMut::new();
        while let Some((start, want)) = wants.pop_first() {
            let end = want.range().end;
            if start < at {
                want.answer(&Err(self.remote.damaged(name, "its records overlap")));
                continue;
            }
            while at + (held.len() as u64) < end {
                // Nobody waits for the rest either, if these have all gone.
                if want.is_given_up() && wants.values().all(Want::is_given_up) {
                    return Ok(());
                }
                match pieces.next().await {
                    Some(Ok(piece)) => held.extend_from_slice(&piece),
                    failed => {
                        wants.insert(start, want);
                        let short = || Err(self.remote.damaged(name, "it ends before its records do"));
                        return failed.unwrap_or_else(short).map(drop);
                    }
                }
                // What lies between two objects is let go of at once.
                let passed = (start.saturating_sub(at) as usize).min(held.len());
                held.advance(passed);
                at += passed as u64;
            }
            let passed = (start.saturating_sub(at) as usize).min(held.len());
            held.advance(passed);
            let body = held.split_to((end - start) as usize).freeze();
            at = end;
            want.answer(&Ok(body));
        }
        Ok(())
    }
}

/// The range of the want at `at` and of its neighbours on both sides; those behind it first, which are read next.
fn range_around(wants: &Wants, at: u64) -> Option<Range<u64>> {
    let mut range = wants.get(&at)?.range();
    for want in wants.range(at + 1..).map(|(_, want)| want.range()) {
        if want.start > range.end + GAP || want.end.max(range.end) - range.start > RANGE {
            break;
        }
        range.end = range.end.max(want.end);
    }
    for want in wants.range(..at).rev().map(|(_, want)| want.range()) {
        if want.end + GAP < range.start || range.end - want.start > RANGE {
            break;
        }
        range.start = want.start;
    }
    Some(range)
}

/// Takes the wants of that range out. Records do not overlap, unless somebody lies: what ends behind it stays.
fn take_around(wants: &mut Wants, at: u64) -> Option<Wants> {
    let range = range_around(wants, at)?;
    let mut behind = wants.split_off(&range.start);
    wants.append(&mut behind.split_off(&range.end));
    let (taken, rest): (Wants, Wants) =
        behind.into_iter().partition(|(_, want)| want.range().end <= range.end);
    wants.extend(rest);
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Kind, ObjectId};
    use crate::pack::Codec;
    use crate::pack::file::RecordHeader;
    use proptest::prelude::*;

    fn wants(places: &[(u32, u32)]) -> Wants {
        let want = |&(offset, stored_len)| {
            let id = ObjectId::of(Kind::Chunk, b"");
            let header = RecordHeader { id, codec: Codec::Raw, stored_len, plain_len: stored_len };
            let want = Want { entry: Entry { header, offset }, replies: Vec::new() };
            (want.range().start, want)
        };
        places.iter().map(want).collect()
    }

    #[test]
    fn neighbours_are_taken_and_strangers_are_not() {
        const K: u32 = 1 << 10;
        let header = RECORD_HEADER_LEN as u64;
        let near = wants(&[(0, K), (2 * K, K), (60 * K, K), (900 * K, K)]);
        let k = u64::from(K);
        assert_eq!(range_around(&near, 2 * k + header), Some(header..3 * k + header));
        assert_eq!(range_around(&near, 900 * k + header), Some(900 * k + header..901 * k + header));
        let near = wants(&[(0, K), (30 * K, K), (60 * K, K)]);
        assert_eq!(range_around(&near, 60 * k + header), Some(header..61 * k + header));
        assert_eq!(range_around(&near, 5), None);
    }

    proptest! {
        #[test]
        fn a_range_holds_its_want_and_keeps_to_its_bounds(
            places in proptest::collection::vec((0u32..16 << 20, 1u32..4 << 20), 1..40), at in any::<prop::sample::Index>(),
        ) {
            let mut wants = wants(&places);
            let (all, at) = (wants.len(), *wants.keys().nth(at.index(wants.len())).unwrap());
            let range = range_around(&wants, at).unwrap();
            prop_assert!(range.end - range.start <= RANGE);
            let taken = take_around(&mut wants, at).unwrap();
            prop_assert!(taken.contains_key(&at));
            prop_assert_eq!(taken.len() + wants.len(), all);
            for want in taken.values() {
                prop_assert!(range.start <= want.range().start && want.range().end <= range.end);
            }
        }
    }
}
