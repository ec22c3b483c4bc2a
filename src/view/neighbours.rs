//! Reading ahead across files: small files that are read one after the other, in the order of the walk.
//!
//! Owns: how such readers are recognised, and the fetching of files ahead of them. How far is decided by `pace`.
//! Must not know: FUSE; how a file is fetched.
//! Invariant: nothing is asked for twice for one reader; a reader that jumps about causes nothing.
//! Trust: that of `view`. Threads: pure values behind the caller's lock; fetching is a task of the runtime.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};

use super::ahead::Tally;
use super::pace::{Pacing, Reader, Rule};
use super::{View, ViewError};
use crate::manifest::Node;

/// How many files are fetched ahead of a reader. With 2,048 files of 4 KiB a link of 1 Gbit/s is full for 65 ms.
pub(super) const RULE: Rule = Rule { least: 4, first: 8, most: 2048, together: 4096, step: 1 };
/// The same where bytes were fixed by hand.
pub(super) const FIXED: u64 = 256;
/// Positions that a reader may skip, such as directories, links and empty files, and still be in order.
const SLACK: u64 = 8;
/// Readers recognised at a time: the workers of a loader, each in a part of its own.
const READERS: usize = 16;
/// Larger files are read ahead on their own.
const FILE_MAX: u64 = 1 << 20;
/// Files fetched at a time: all, but for the longest windows.
const CONCURRENT: usize = 512;

/// The readers of one mount that go from file to file, the one that read last at the end. An inode number is a position
/// in the walk, so "the next file" is the next number.
#[derive(Debug)]
pub(super) struct Neighbours {
    readers: Vec<Reader>,
    /// The position after the last.
    end: u64,
}

impl Neighbours {
    /// Of a snapshot whose positions end before `end`.
    pub(super) fn new(end: u64) -> Self {
        Self { readers: Vec::new(), end }
    }

    /// The reader that has opened a file by a read of its start, if it is known: one that had to wait is from now on.
    pub(super) fn reader(
        &mut self,
        pacing: &mut Pacing,
        ino: u64,
        was_here: bool,
        now: impl Fn() -> Duration,
    ) -> Option<&mut Reader> {
        let is_next = |reader: &Reader| (reader.next..=reader.next.saturating_add(SLACK)).contains(&ino);
        if let Some(known) = self.readers.iter().position(is_next) {
            let reader = self.readers.remove(known);
            self.readers.push(reader);
            return self.readers.last_mut();
        }
        // Only one that had to wait is worth watching.
        if !was_here {
            if self.readers.len() == READERS {
                pacing.leave(&mut self.readers.remove(0));
            }
            self.readers.push(pacing.begin(now(), ino + 1, self.end));
        }
        None
    }

    /// Whether a file was asked for ahead of somebody.
    pub(super) fn have_asked(&self, ino: u64) -> bool {
        self.readers.iter().any(|reader| reader.covers(ino))
    }

    pub(super) fn readers(&mut self) -> impl Iterator<Item = &mut Reader> {
        self.readers.iter_mut()
    }
}

impl View {
    /// Brings the small files at these positions here: `most` bytes, and the file that is one too much.
    pub(super) async fn fetch_files(
        &self,
        positions: Range<u64>,
        most: u64,
        tally: &Tally,
    ) -> Result<(), ViewError> {
        let bytes = AtomicU64::new(0);
        let fetches = stream::iter(positions).map(|position| {
            let bytes = &bytes;
            async move {
                match self.inode(position).await?.node {
                    Node::File { size, .. }
                        if size <= FILE_MAX && bytes.fetch_add(size, Ordering::Relaxed) <= most =>
                    {
                        self.read_ahead(position, (0, size), tally).await
                    }
                    _ => Ok::<_, ViewError>(()),
                }
            }
        });
        // One that cannot be had is not in the way of the others; its reader will hear why.
        fetches.buffer_unordered(CONCURRENT).for_each(|_| async {}).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u64 = 1 << 40;

    /// Opens a file; what is fetched ahead then.
    fn open(
        neighbours: &mut Neighbours,
        pacing: &mut Pacing,
        ino: u64,
        was_here: bool,
    ) -> Option<(u64, u64)> {
        let reader = neighbours.reader(pacing, ino, was_here, || Duration::ZERO)?;
        pacing.advance(reader, Duration::ZERO, (ino + 1, !was_here), None)
    }

    #[test]
    fn files_in_order_are_fetched_further_and_further_ahead_and_none_twice() {
        let (mut neighbours, mut pacing) = (Neighbours::new(END), Pacing::new(RULE, None));
        assert_eq!(open(&mut neighbours, &mut pacing, 10, false), None);
        let asked: Vec<_> =
            (11..5000).filter_map(|ino| open(&mut neighbours, &mut pacing, ino, false)).collect();
        assert_eq!(asked[0], (12, 12 + RULE.first));
        assert!(asked.windows(2).all(|pair| pair[0].1 == pair[1].0), "{asked:?}");
        assert!(asked.last().unwrap().1 >= 5000 + RULE.most / 2, "{asked:?}");
        assert!(neighbours.have_asked(5000) && !neighbours.have_asked(5000 + RULE.most + 1));
    }

    #[test]
    fn directories_between_files_do_not_stop_a_reader() {
        let (mut neighbours, mut pacing) = (Neighbours::new(END), Pacing::new(RULE, None));
        open(&mut neighbours, &mut pacing, 10, false);
        assert!(open(&mut neighbours, &mut pacing, 13, true).is_some());
    }

    #[test]
    fn several_readers_are_told_apart_and_one_who_jumps_causes_nothing() {
        let (mut neighbours, mut pacing) = (Neighbours::new(END), Pacing::new(RULE, None));
        for start in [1_000, 2_000, 3_000] {
            open(&mut neighbours, &mut pacing, start, false);
        }
        for step in 1..20 {
            for start in [1_000, 2_000, 3_000] {
                if let Some((from, to)) = open(&mut neighbours, &mut pacing, start + step, true) {
                    assert!(from > start && to < start + 1_000);
                }
            }
        }
        let jumps = (0..1_000u64)
            .filter_map(|n| open(&mut neighbours, &mut pacing, 10_000 + n * 7_919 % 100_003 * 40, false));
        assert_eq!(jumps.count(), 0);
        assert!(neighbours.readers.len() <= READERS);
    }
}
