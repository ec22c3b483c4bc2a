//! Entries that wait to be decided, and those who wait for them.
//!
//! Owns: the bounded queue, in the order of arrival. Must not know: what an entry means, or how heights are decided.
//! Invariant: an entry waits once, however often it is submitted; whoever waits for it is answered exactly once:
//! when it is decided, when it is refused, or (the reply is dropped) when the validator stops.
//! Trust: only entries that the ledger has admitted come in. Threads: the driver's.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::oneshot;

use super::{Committed, ValidatorError};
use crate::id::EntryId;
use crate::log::{Entry, MAX_BODY_ENTRIES, MAX_BODY_ENTRY_BYTES};

/// Most entries that wait.
const MAX_ENTRIES: usize = 4 * MAX_BODY_ENTRIES;
/// Most bytes of encoded entries that wait.
const MAX_BYTES: usize = 8 * MAX_BODY_ENTRY_BYTES;

/// Where the answer to a submission goes.
pub type Reply = oneshot::Sender<Result<Committed, ValidatorError>>;

struct Waiting {
    entry: Entry,
    len: usize,
    replies: Vec<Reply>,
}

/// The queue.
#[derive(Default)]
pub struct Mempool {
    queue: BTreeMap<u64, Waiting>,
    places: HashMap<EntryId, u64>,
    bytes: usize,
    arrivals: u64,
}

impl Mempool {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds an entry, or one more who waits for it. Returns whether the entry is new here; a full queue answers
    /// `reply` at once.
    pub fn add(&mut self, entry: Entry, reply: Option<Reply>) -> bool {
        let id = entry.id();
        if let Some(waiting) = self.places.get(&id).and_then(|place| self.queue.get_mut(place)) {
            waiting.replies.extend(reply);
            return false;
        }
        let len = entry.encode().len();
        if self.queue.len() >= MAX_ENTRIES || self.bytes + len > MAX_BYTES {
            answer(reply, &Err(ValidatorError::Busy));
            return false;
        }
        self.places.insert(id, self.arrivals);
        self.queue.insert(self.arrivals, Waiting { entry, len, replies: reply.into_iter().collect() });
        self.arrivals += 1;
        self.bytes += len;
        true
    }

    /// As many entries as fit into one body, the oldest first; but each author's in the order of their numbers, so
    /// that two that overtook each other on the way here both execute.
    pub fn next_body(&self) -> Vec<Entry> {
        let mut bytes = 0;
        let fitting = self.queue.values().take(MAX_BODY_ENTRIES).take_while(|waiting| {
            bytes += waiting.len;
            bytes <= MAX_BODY_ENTRY_BYTES
        });
        let mut entries: Vec<Entry> = fitting.map(|waiting| waiting.entry.clone()).collect();
        entries.sort_by_key(|entry| (entry.author, entry.nonce));
        entries
    }

    /// Removes an entry and tells all who wait for it.
    pub fn settle(&mut self, id: &EntryId, outcome: &Result<Committed, ValidatorError>) {
        let Some(waiting) = self.places.remove(id).and_then(|place| self.queue.remove(&place)) else {
            return;
        };
        self.bytes -= waiting.len;
        answer(waiting.replies, outcome);
    }

    /// Removes every entry for which `judge`, given all of them, has an outcome in its place, and tells those who wait.
    pub fn review(
        &mut self,
        judge: impl FnOnce(&[&Entry]) -> Vec<Option<Result<Committed, ValidatorError>>>,
    ) {
        let entries: Vec<&Entry> = self.queue.values().map(|waiting| &waiting.entry).collect();
        let outcomes = judge(&entries);
        let settled: Vec<_> = entries
            .into_iter()
            .zip(outcomes)
            .filter_map(|(entry, outcome)| Some((entry.id(), outcome?)))
            .collect();
        for (id, outcome) in settled {
            self.settle(&id, &outcome);
        }
    }
}

/// Tells everyone in `replies`. Whoever has given up waiting is not listening any more, which is fine.
fn answer(replies: impl IntoIterator<Item = Reply>, outcome: &Result<Committed, ValidatorError>) {
    for reply in replies {
        let _ = reply.send(outcome.clone());
    }
}
