//! What one session watches, seen by the side that asks.
//!
//! Owns: the numbers of watches, and which object each stands for.
//! Must not know: what becomes of an answer.
//! Invariant: of the latest [`MAX`] watches those are remembered of which there may be news; an answer to another one is ignored, one to a watch
//! that was never made is a [`Violation`].
//! Trust: answers come from a stranger.
//! Threads: a pure value; the caller locks it.

use std::collections::BTreeMap;

use super::Violation;
use super::wire::{Have, Presence, Watch};
use crate::id::ObjectId;

/// Watches remembered; as many as the other side keeps.
const MAX: usize = 4096;

/// The watches of one session.
#[derive(Debug, Default)]
pub struct Watching {
    /// Number of the next.
    next: u64,
    objects: BTreeMap<u64, ObjectId>,
}

impl Watching {
    /// Watches `objects`: 1 to [`super::wire::MAX_NAMED`] of them.
    pub fn begin(&mut self, objects: Vec<ObjectId>) -> Watch {
        let first = self.next;
        self.objects.extend((first..).zip(objects.iter().copied()));
        self.next += objects.len() as u64;
        while self.objects.len() > MAX {
            self.objects.pop_first();
        }
        Watch { first, objects }
    }

    /// The objects that an answer speaks of. One that is here is the last word on them.
    pub fn answered(&mut self, have: &Have) -> Result<Vec<ObjectId>, Violation> {
        if let Some(never) = have.watches.iter().find(|number| **number >= self.next) {
            return Err(Violation::UnknownWatch(*never));
        }
        let objects = have.watches.iter().filter_map(|number| match have.presence {
            Presence::Here => self.objects.remove(number),
            Presence::Coming | Presence::Absent => self.objects.get(number).copied(),
        });
        Ok(objects.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Kind;

    #[test]
    fn answers_name_the_latest_watches_and_no_others() {
        let objects = |from: u64| (from..from + 1024).map(|n| ObjectId::of(Kind::Chunk, &n.to_le_bytes()));
        let mut watching = Watching::default();
        let absent = |watches: &[u64]| Have { presence: Presence::Absent, watches: watches.to_vec() };
        assert_eq!(watching.answered(&absent(&[0])), Err(Violation::UnknownWatch(0)));
        for from in (0..6 * 1024).step_by(1024) {
            assert_eq!(watching.begin(objects(from).collect()).first, from);
        }
        let named = watching.answered(&absent(&[0, 2047, 2048, 6143])).unwrap();
        assert_eq!(named, [objects(2048).next().unwrap(), objects(6143).next().unwrap()]);
        assert_eq!(watching.answered(&absent(&[1, 6144])), Err(Violation::UnknownWatch(6144)));
        // Nothing is news of what is here, and it is not remembered.
        let here = Have { presence: Presence::Here, watches: (0..6 * 1024).collect() };
        assert_eq!(watching.answered(&here).unwrap().len(), MAX);
        assert!(watching.answered(&here).unwrap().is_empty() && watching.objects.is_empty());
    }
}
