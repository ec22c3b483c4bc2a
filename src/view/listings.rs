//! Reading ahead across directories: walks through a whole tree, such as those of `find`, `ls -R` or a loader that lists
//! its files.
//!
//! Owns: how such walkers are recognised, and how far ahead of each the nodes of directories are fetched.
//! Must not know: FUSE; how an object is fetched.
//! Invariant: at most [`WINDOW_MAX`] directories ahead of a walker are fetched, and one window at a time; who lists a
//! directory here and one there causes nothing.
//! Trust: that of `view`. Threads: pure values behind the caller's lock; fetching is a task of the runtime.

use std::collections::VecDeque;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::nodes::TreePromise;
use super::{View, ViewError};
use crate::fetch::Class;
use crate::id::TreeId;
use crate::manifest::{MAX_LEVELS, Node, Totals, TreeStep};

/// Directories fetched ahead of a walker: at first, and at most. The number doubles each time.
const WINDOW_MIN: usize = 8;
const WINDOW_MAX: usize = 512;
/// Walkers recognised at a time.
const WALKERS: usize = 8;
/// Positions that may lie between two directories of a walk: the files of the first.
const SLACK: u64 = 1 << 16;
/// Directories in one that is fetched as a whole, at most.
const WHOLE_MAX: usize = 1 << 16;
/// Directories fetched at a time, and nodes of one directory.
const CONCURRENT: usize = 64;
const CONCURRENT_NODES: usize = 8;

/// One reader that lists directory after directory, in the order of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Walker {
    number: u64,
    /// The directory listed last.
    last: u64,
    /// The directories up to this position have been fetched.
    until: u64,
    /// When the walker comes here, more are fetched.
    renew: u64,
    window: usize,
    /// A window is being fetched.
    busy: bool,
}

/// The walkers of one mount, the one that listed last at the end.
#[derive(Debug, Default)]
pub(super) struct Listings {
    walkers: Vec<Walker>,
    met: u64,
    /// The directory that was fetched as a whole last.
    whole: u64,
}

/// What to fetch for a walker: the next `count` directories after the one at `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    walker: u64,
    pub(super) after: u64,
    pub(super) count: usize,
}

impl Listings {
    /// Takes note that the directory `ino` was listed from its beginning. What to fetch ahead, if anything; then the
    /// caller reports with [`fetched`](Self::fetched).
    pub(super) fn advance(&mut self, ino: u64, was_here: bool) -> Option<Window> {
        let follows = |walker: &Walker| walker.last < ino && ino <= walker.last.max(walker.until) + SLACK;
        let Some(known) = self.walkers.iter().position(follows) else {
            // Only one that had to wait is worth watching.
            if !was_here {
                if self.walkers.len() == WALKERS {
                    self.walkers.remove(0);
                }
                self.met += 1;
                let (number, window, busy) = (self.met, WINDOW_MIN, false);
                self.walkers.push(Walker { number, last: ino, until: ino, renew: ino, window, busy });
            }
            return None;
        };
        let mut walker = self.walkers.remove(known);
        walker.last = ino;
        let due = !walker.busy && ino >= walker.renew;
        let window = Window { walker: walker.number, after: ino.max(walker.until), count: walker.window };
        walker.busy |= due;
        self.walkers.push(walker);
        due.then_some(window)
    }

    /// Takes note that the directory `ino` was listed beyond its first entries. Whether to fetch all of it.
    pub(super) fn goes_on(&mut self, ino: u64, was_here: bool) -> bool {
        let due = !was_here && self.whole != ino;
        if due {
            self.whole = ino;
        }
        due
    }

    /// Takes note of the positions of the directories that were fetched for `window`; none if that failed.
    pub(super) fn fetched(&mut self, window: Window, directories: &[u64]) {
        let Some(walker) = self.walkers.iter_mut().find(|walker| walker.number == window.walker) else {
            return;
        };
        walker.busy = false;
        if let (Some(middle), Some(last)) = (directories.get(directories.len() / 2), directories.last()) {
            (walker.renew, walker.until) = (*middle, *last);
            walker.window = (walker.window * 2).min(WINDOW_MAX);
        }
    }
}

/// A directory that was come to.
struct Dir {
    ino: u64,
    tree: TreeId,
    totals: Totals,
}

/// Directories of one parent in order, of which the first ones have been fetched, each with those in it.
#[derive(Default)]
struct Siblings {
    fetched: VecDeque<(u64, Vec<Dir>)>,
    waiting: VecDeque<Dir>,
}

/// Which directories of a parent are looked for.
#[derive(Clone, Copy)]
struct Range {
    /// They lie behind this position, or lead to it.
    after: u64,
    most: usize,
}

impl View {
    /// Brings the nodes of the next `count` directories after the position `after` here; says which. What is fetched
    /// together are siblings: of what is below them nothing is known before.
    pub(super) async fn fetch_listings(&self, after: u64, count: usize) -> Result<Vec<u64>, ViewError> {
        let totals = self.snapshot().totals;
        let root = Dir { ino: super::ROOT, tree: self.snapshot().tree, totals };
        let mut levels = vec![Siblings { fetched: VecDeque::new(), waiting: VecDeque::from([root]) }];
        let (mut done, mut budget) = (Vec::new(), count);
        while let Some(level) = levels.last_mut() {
            if level.fetched.is_empty() {
                let batch = level.waiting.len().min(CONCURRENT).min(budget.max(1));
                let loads = level.waiting.drain(..batch).map(|dir| async move {
                    let promise = TreePromise::of_directory(dir.tree, dir.totals);
                    // One more than can be used: the one that leads to `after`.
                    let range = Range { after, most: count + 1 };
                    let below =
                        self.directories(promise, dir.ino.saturating_add(1), range, MAX_LEVELS).await?;
                    Ok::<_, ViewError>((dir.ino, below))
                });
                level.fetched = stream::iter(loads).buffered(CONCURRENT).try_collect().await?;
            }
            let Some((ino, below)) = level.fetched.pop_front() else {
                levels.pop();
                continue;
            };
            // Those on the way down to `after` do not count.
            if ino > after {
                done.push(ino);
                budget -= 1;
                if budget == 0 {
                    break;
                }
            }
            levels.push(Siblings { fetched: VecDeque::new(), waiting: below.into() });
        }
        Ok(done)
    }

    /// Brings all nodes of the directory `ino` here.
    pub(super) async fn fetch_directory(&self, ino: u64) -> Result<(), ViewError> {
        let Node::Dir { tree, totals, .. } = self.inode(ino).await?.node else { return Ok(()) };
        let promise = TreePromise::of_directory(tree, totals);
        let range = Range { after: ino, most: WHOLE_MAX };
        self.directories(promise, ino.saturating_add(1), range, MAX_LEVELS).await.map(drop)
    }

    /// The directories of `range` in a node of a directory and in the nodes below it, of which there are at most
    /// `levels`. `first` is the position of the node's first inode.
    fn directories(
        &self,
        promise: TreePromise,
        first: u64,
        range: Range,
        levels: usize,
    ) -> BoxFuture<'_, Result<Vec<Dir>, ViewError>> {
        async move {
            let node = self.nodes.tree(&promise, Class::Readahead).await?;
            let leads = |start: u64, inodes: u64| start.saturating_add(inodes) > range.after;
            let (mut here, mut children) = (Vec::new(), Vec::new());
            for step in node.index.steps() {
                match step {
                    TreeStep::Entry { entry, offset, .. } => {
                        let ino = first.saturating_add(offset);
                        if let Node::Dir { tree, totals, .. } = entry.node
                            && leads(ino, totals.inodes)
                        {
                            here.push(Dir { ino, tree, totals });
                        }
                    }
                    TreeStep::Child { child, offset, .. } => {
                        let start = first.saturating_add(offset);
                        // The position after the last one is that of no directory in it.
                        if leads(start, child.totals.inodes.saturating_sub(1)) && levels > 0 {
                            children.push((promise.of_child(node.branch(), child), start));
                        }
                    }
                }
            }
            let below = children
                .into_iter()
                .map(|(promise, start)| self.directories(promise, start, range, levels - 1));
            let mut below = stream::iter(below).buffered(CONCURRENT_NODES);
            while here.len() < range.most
                && let Some(dirs) = below.try_next().await?
            {
                here.extend(dirs);
            }
            here.truncate(range.most);
            Ok(here)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks over directories at every tenth position, as if each window were fetched at once; how often the walker
    /// was ahead of what was fetched, and the windows.
    fn walk(listings: &mut Listings, directories: u64) -> (usize, Vec<Window>) {
        let (mut until, mut late, mut windows) = (0, 0, Vec::new());
        for ino in (10..=10 * directories).step_by(10) {
            let was_here = ino <= until;
            late += usize::from(!was_here);
            if let Some(window) = listings.advance(ino, was_here) {
                let fetched: Vec<u64> =
                    (1..=window.count as u64).map(|n| window.after / 10 * 10 + 10 * n).collect();
                until = *fetched.last().unwrap();
                listings.fetched(window, &fetched);
                windows.push(window);
            }
        }
        (late, windows)
    }

    #[test]
    fn a_walk_waits_twice_and_is_then_ahead_of_its_reader() {
        let (late, windows) = walk(&mut Listings::default(), 5_000);
        assert_eq!(late, 2, "{windows:?}");
        assert!(windows.iter().all(|window| window.count <= WINDOW_MAX));
        assert_eq!(windows.last().unwrap().count, WINDOW_MAX);
    }

    #[test]
    fn one_window_at_a_time_and_after_a_failure_another_try() {
        let mut listings = Listings::default();
        assert_eq!(listings.advance(10, false), None);
        let window = listings.advance(20, false).unwrap();
        assert_eq!(listings.advance(30, false), None, "one is under way");
        listings.fetched(window, &[]);
        assert_eq!(listings.advance(40, false).map(|window| window.count), Some(WINDOW_MIN));
    }

    #[test]
    fn who_lists_here_and_there_causes_nothing() {
        let mut listings = Listings::default();
        let far = (0..1_000u64)
            .map(|n| 1_000_000_000 - n * 1_000_003)
            .filter_map(|ino| listings.advance(ino, false));
        assert_eq!(far.count(), 0);
        assert!(listings.walkers.len() <= WALKERS);
        assert_eq!(Listings::default().advance(10, true), None, "nor who finds all here");
    }

    #[test]
    fn a_long_directory_is_fetched_as_a_whole_once() {
        let mut listings = Listings::default();
        assert!(!listings.goes_on(10, true), "it is here");
        assert!(listings.goes_on(10, false));
        assert!(!listings.goes_on(10, false));
        assert!(listings.goes_on(20, false));
    }
}
