//! What one session watches, seen by the side that asks.
//!
//! Owns: the numbers of watches, and which object each stands for.
//! Must not know: what becomes of an answer.
//! Invariant: the latest [`MAX`] watches are remembered; an answer to an older one is ignored, one to a watch that was never made is a
//! [`Violation`].
//! Trust: answers come from a stranger.
//! Threads: a pure value; the caller locks it.

use std::collections::VecDeque;

use super::Violation;
use super::wire::Watch;
use crate::id::ObjectId;

/// Watches remembered; as many as the other side keeps.
const MAX: usize = 4096;

/// The watches of one session.
#[derive(Debug, Default)]
pub struct Watching {
    /// Number of the first that is remembered.
    first: u64,
    objects: VecDeque<ObjectId>,
}

impl Watching {
    /// Watches `objects`: 1 to [`super::wire::MAX_NAMED`] of them.
    pub fn begin(&mut self, objects: Vec<ObjectId>) -> Watch {
        let first = self.first + self.objects.len() as u64;
        self.objects.extend(&objects);
        let over = self.objects.len().saturating_sub(MAX);
        self.objects.drain(..over);
        self.first += over as u64;
        Watch { first, objects }
    }

    /// The objects that an answer speaks of.
    pub fn objects(&self, watches: &[u64]) -> Result<Vec<ObjectId>, Violation> {
        let next = self.first + self.objects.len() as u64;
        if let Some(never) = watches.iter().find(|number| **number >= next) {
            return Err(Violation::UnknownWatch(*never));
        }
        let known = watches.iter().filter_map(|number| number.checked_sub(self.first));
        Ok(known.filter_map(|index| self.objects.get(index as usize).copied()).collect())
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
        assert_eq!(watching.objects(&[0]), Err(Violation::UnknownWatch(0)));
        for from in (0..6 * 1024).step_by(1024) {
            assert_eq!(watching.begin(objects(from).collect()).first, from);
        }
        let named = watching.objects(&[0, 2047, 2048, 6143]).unwrap();
        assert_eq!(named, [objects(2048).next().unwrap(), objects(6143).next().unwrap()]);
        assert_eq!(watching.objects(&[1, 6144]), Err(Violation::UnknownWatch(6144)));
    }
}
