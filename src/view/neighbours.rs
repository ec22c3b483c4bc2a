//! Reading ahead across files: small files that are read one after the other, in the order of the walk.
//!
//! Owns: how such readers are recognised, and how far ahead of each files are fetched.
//! Must not know: FUSE; how a file is fetched.
//! Invariant: nothing is asked for twice for one reader, and never more than [`WINDOW_MAX`] files ahead of it; a reader
//! that jumps about causes nothing.
//! Trust: that of `view`. Threads: pure values behind the caller's lock; fetching is a task of the runtime.

use futures::{StreamExt, stream};

use super::{View, ViewError};
use crate::manifest::Node;

/// Files fetched ahead of a reader: at first, and at most. The number doubles each time.
const WINDOW_MIN: u64 = 8;
const WINDOW_MAX: u64 = 256;
/// Positions that a reader may skip, such as directories, links and empty files, and still be in order.
const SLACK: u64 = 8;
/// Readers recognised at a time: the workers of a loader, each in a part of its own.
const READERS: usize = 16;
/// Larger files are read ahead on their own.
const FILE_MAX: u64 = 1 << 20;
/// Bytes fetched for one window at most.
const WINDOW_BYTES: u64 = 16 << 20;
/// Files of one window fetched at a time.
const CONCURRENT: usize = 16;

/// One reader that goes from file to file. An inode number is a position in the walk, so "the next file" is the
/// next number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reader {
    /// The position expected next.
    next: u64,
    /// Up to where files have been asked for.
    until: u64,
    window: u64,
}

/// The readers of one mount, the one that read last at the end.
#[derive(Debug, Default)]
pub(super) struct Neighbours(Vec<Reader>);

impl Neighbours {
    /// Takes note that a file was opened by a read of its start. Which positions to fetch ahead, if any.
    pub(super) fn advance(&mut self, ino: u64, was_here: bool) -> Option<(u64, u64)> {
        let known = self.0.iter().position(|reader| (reader.next..=reader.next + SLACK).contains(&ino));
        let Some(known) = known else {
            // Only one that had to wait is worth watching.
            if !was_here {
                if self.0.len() == READERS {
                    self.0.remove(0);
                }
                self.0.push(Reader { next: ino + 1, until: ino + 1, window: WINDOW_MIN });
            }
            return None;
        };
        let mut reader = self.0.remove(known);
        reader.next = ino + 1;
        let ahead = reader.until.saturating_sub(reader.next);
        let fetch = (ahead <= reader.window / 2).then(|| {
            let from = reader.until.max(reader.next);
            reader.until = reader.next + reader.window;
            reader.window = (reader.window * 2).min(WINDOW_MAX);
            (from, reader.until)
        });
        self.0.push(reader);
        fetch.filter(|(from, to)| from < to)
    }
}

impl View {
    /// Brings the small files at the positions from `from` up to `to` here.
    pub(super) async fn fetch_files(&self, from: u64, to: u64) -> Result<(), ViewError> {
        let mut files = Vec::new();
        let mut bytes = 0;
        for position in from..to.min(self.snapshot().totals.inodes.saturating_add(2)) {
            if let Node::File { size, .. } = self.inode(position).await?.node
                && size <= FILE_MAX
            {
                bytes += size;
                files.push(self.read_ahead(position, 0, size));
            }
            if bytes > WINDOW_BYTES {
                break;
            }
        }
        // One that cannot be had is not in the way of the others; its reader will hear why.
        stream::iter(files).buffer_unordered(CONCURRENT).for_each(|_| async {}).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_order_are_fetched_further_and_further_ahead_and_none_twice() {
        let mut neighbours = Neighbours::default();
        assert_eq!(neighbours.advance(10, false), None);
        let asked: Vec<_> = (11..2000).filter_map(|ino| neighbours.advance(ino, true)).collect();
        assert_eq!(asked[0], (12, 12 + WINDOW_MIN));
        assert!(asked.windows(2).all(|pair| pair[0].1 == pair[1].0), "{asked:?}");
        assert!(asked.iter().all(|(from, to)| to - from <= WINDOW_MAX));
        assert!(asked.last().unwrap().1 >= 2000);
    }

    #[test]
    fn directories_between_files_do_not_stop_a_reader() {
        let mut neighbours = Neighbours::default();
        neighbours.advance(10, false);
        assert!(neighbours.advance(13, true).is_some());
    }

    #[test]
    fn several_readers_are_told_apart_and_one_who_jumps_causes_nothing() {
        let mut neighbours = Neighbours::default();
        for start in [1_000, 2_000, 3_000] {
            neighbours.advance(start, false);
        }
        for step in 1..20 {
            for start in [1_000, 2_000, 3_000] {
                if let Some((from, to)) = neighbours.advance(start + step, true) {
                    assert!(from > start && to < start + 1_000);
                }
            }
        }
        let jumps =
            (0..1_000u64).filter_map(|n| neighbours.advance(10_000 + n * 7_919 % 100_003 * 40, false));
        assert_eq!(jumps.count(), 0);
        assert!(neighbours.0.len() <= READERS);
    }
}
