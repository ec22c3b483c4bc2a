//! Reading ahead across directories: walks through a whole tree, such as those of `find`, `ls -R` or a loader that lists
//! its files.
//!
//! Owns: how such walkers are recognised, and how far ahead of each the nodes of directories are fetched.
//! Must not know: FUSE; how an object is fetched.
//! Invariant: at most [`WINDOW_MAX`] directories ahead of a walker are fetched, with [`NODES_MAX`] nodes at most, and one
//! window at a time; who lists a directory here and one there causes nothing. Memory is bounded by the same, whatever a
//! publisher wrote.
//! Trust: that of `view`. Threads: pure values behind the caller's lock; fetching is a task of the runtime.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;

use super::nodes::TreePromise;
use super::{View, ViewError};
use crate::fetch::Class;
use crate::id::TreeId;
use crate::manifest::{MAX_DEPTH, MAX_LEVELS, Node, Totals, TreeStep};

/// Directories fetched ahead of a walker: at first, and at most. The number doubles each time.
const WINDOW_MIN: usize = 8;
const WINDOW_MAX: usize = 512;
/// Walkers recognised at a time.
const WALKERS: usize = 8;
/// Positions that may lie between two directories of a walk: the files of the first.
const SLACK: u64 = 1 << 16;
/// Directories in one that is fetched as a whole, at most.
const WHOLE_MAX: usize = 1 << 16;
/// Nodes of directories fetched for one window.
const NODES_MAX: usize = 4096;
/// Nodes fetched at a time, and children of one of them.
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
        let (middle, last) = (directories.get(directories.len() / 2), directories.last());
        let (Some(middle), Some(last)) = (middle, last) else { return };
        (walker.renew, walker.until) = (*middle, *last);
        walker.window = (walker.window * 2).min(WINDOW_MAX);
        if directories.len() < window.count {
            // Behind these are no more, or such as are too long to be fetched ahead.
            walker.renew = last.saturating_add(1);
        }
    }
}

/// A directory that was come to.
struct Dir {
    ino: u64,
    tree: TreeId,
    totals: Totals,
}

/// A directory in its place among its siblings.
enum Sibling {
    Waiting(Dir),
    /// Its nodes are here; those in it.
    Fetched(u64, Vec<Dir>),
}

impl Sibling {
    /// How many directories it stands for.
    fn count(&self) -> usize {
        match self {
            Self::Waiting(_) => 1,
            Self::Fetched(_, below) => 1 + below.len(),
        }
    }
}

/// One window being fetched.
struct Pass {
    /// Directories behind this position are looked for, and those that lead to it.
    after: u64,
    /// Directories of one parent at most.
    most: usize,
    /// Nodes that may still be fetched.
    nodes: AtomicUsize,
    /// Nodes that are fetched at a time.
    gate: Semaphore,
}

impl Pass {
    fn new(after: u64, most: usize) -> Self {
        Self { after, most, nodes: AtomicUsize::new(NODES_MAX), gate: Semaphore::new(CONCURRENT) }
    }

    /// Whether one more node may be fetched.
    fn take(&self) -> bool {
        self.nodes.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Cuts what lies behind the first `budget` directories. `levels` are the siblings of each directory on the way down,
/// so that the innermost come first.
fn cut(levels: &mut [VecDeque<Sibling>], mut budget: usize) {
    for level in levels.iter_mut().rev() {
        let mut fits = |sibling: &Sibling| {
            let fits = budget > 0;
            budget = budget.saturating_sub(sibling.count());
            fits
        };
        let kept = level.iter().map_while(|sibling| fits(sibling).then_some(())).count();
        level.truncate(kept);
        level.shrink_to_fit();
    }
}

impl View {
    /// Brings the nodes of the next `count` directories after the position `after` here; says which: fewer, if there are
    /// no more, or if they have very many nodes. What is fetched together are siblings: of what is below them nothing is
    /// known before.
    pub(super) async fn fetch_listings(&self, after: u64, count: usize) -> Result<Vec<u64>, ViewError> {
        // One more than can be used: the one that leads to `after`.
        let pass = Pass::new(after, count + 1);
        let totals = self.snapshot().totals;
        let root = Dir { ino: super::ROOT, tree: self.snapshot().tree, totals };
        let mut levels = vec![VecDeque::from([Sibling::Waiting(root)])];
        let mut done = Vec::new();
        while let Some(level) = levels.last_mut() {
            if let Some(Sibling::Waiting(_)) = level.front() {
                self.fetch_siblings(level, &pass).await?;
                cut(&mut levels, pass.most - done.len());
                continue;
            }
            let Some(Sibling::Fetched(ino, below)) = level.pop_front() else {
                levels.pop();
                continue;
            };
            // Those on the way down to `after` do not count.
            if ino > after {
                done.push(ino);
                if done.len() == count {
                    break;
                }
            }
            if levels.len() <= MAX_DEPTH {
                levels.push(below.into_iter().map(Sibling::Waiting).collect());
            }
        }
        Ok(done)
    }

    /// Fetches the first of those who wait, some together.
    async fn fetch_siblings(&self, level: &mut VecDeque<Sibling>, pass: &Pass) -> Result<(), ViewError> {
        let batch = level.len().min(CONCURRENT);
        let loads = level.drain(..batch).map(|sibling| async move {
            let Sibling::Waiting(dir) = sibling else { return Ok(sibling) };
            let promise = TreePromise::of_directory(dir.tree, dir.totals);
            let below = self.directories(promise, dir.ino.saturating_add(1), pass, MAX_LEVELS).await?;
            Ok::<_, ViewError>(Sibling::Fetched(dir.ino, below))
        });
        let loads: Vec<_> = loads.collect();
        let fetched: Vec<Sibling> = stream::iter(loads).buffered(CONCURRENT).try_collect().await?;
        for sibling in fetched.into_iter().rev() {
            level.push_front(sibling);
        }
        Ok(())
    }

    /// Brings the nodes of the directory `ino` here, or a good part of them.
    pub(super) async fn fetch_directory(&self, ino: u64) -> Result<(), ViewError> {
        let Node::Dir { tree, totals, .. } = self.inode(ino).await?.node else { return Ok(()) };
        let promise = TreePromise::of_directory(tree, totals);
        let pass = Pass::new(ino, WHOLE_MAX);
        self.directories(promise, ino.saturating_add(1), &pass, MAX_LEVELS).await.map(drop)
    }

    /// The directories that `pass` looks for in a node of a directory and in the nodes below it, of which there are at
    /// most `levels`. `first` is the position of the node's first inode.
    fn directories<'a>(
        &'a self,
        promise: TreePromise,
        first: u64,
        pass: &'a Pass,
        levels: usize,
    ) -> BoxFuture<'a, Result<Vec<Dir>, ViewError>> {
        async move {
            if !pass.take() {
                return Ok(Vec::new());
            }
            let node = {
                // It is never closed.
                let _permit = pass.gate.acquire().await;
                self.nodes.tree(&promise, Class::Readahead).await?
            };
            let leads = |start: u64, inodes: u64| start.saturating_add(inodes) > pass.after;
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
                .map(|(promise, start)| self.directories(promise, start, pass, levels - 1));
            let mut below = stream::iter(below).buffered(CONCURRENT_NODES);
            while here.len() < pass.most
                && let Some(dirs) = below.try_next().await?
            {
                here.extend(dirs);
            }
            here.truncate(pass.most);
            here.shrink_to_fit();
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
