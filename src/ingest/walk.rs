//! The second pass: the tree in order, handed out in batches, and put together again.
//!
//! Owns: batches of files, the order of entries, positions of hard links, the tree objects.
//! Must not know: how a file is read.
//! Invariant: entries reach the tree builders in the order of the walk, whatever order the readers finish in.
//! Trust: none in the tree. Threads: runs on the caller's thread.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use rustix::fs::{FileType, Stat};

use super::outbox::Outbox;
use super::scan::{Inode, Scan};
use super::source::{Dir, file_type, special};
use super::{IngestError, Run};
use crate::manifest::{Entry, MAX_DEPTH, Meta, Name, Node, Snapshot, TreeBuilder};
use crate::store::DirId;

/// Most steps (batches, and beginnings and ends of directories) that wait for an earlier one.
pub(super) const WINDOW: usize = 256;
/// A batch is closed when it has this many names or bytes.
const BATCH_NAMES: usize = 256;
const BATCH_BYTES: u64 = 1 << 20;

/// Neighbours in one directory, for one reader.
pub(super) struct Job {
    pub number: u64,
    pub dir: Arc<Dir>,
    pub items: Vec<Item>,
}

pub(super) struct Item {
    pub name: Name,
    pub what: What,
}

pub(super) enum What {
    File { stat: Stat, nlink: u32 },
    Symlink { stat: Stat, nlink: u32 },
    Link { first: u64 },
}

/// The entries of a job, in its order.
pub(super) struct Read {
    pub number: u64,
    pub entries: Vec<Entry>,
}

/// What the walk made. The snapshot object itself goes into the store when all else is there.
pub(super) struct Built {
    pub snapshot: Snapshot,
    pub skipped: Vec<PathBuf>,
    /// The directories of the tree.
    pub dirs: HashSet<DirId>,
}

/// One thing to do to the tree under construction, in order.
enum Step {
    /// A job whose entries are not back yet.
    Waiting,
    Entries(Vec<Entry>),
    Begin(Name, Meta),
    End,
}

/// Walks the tree below `root` and makes the snapshot object. All others have left the outboxes when it returns.
pub(super) fn walk(
    run: &Run<'_>,
    root: Dir,
    scan: &Scan,
    jobs: Sender<Job>,
    reads: &Receiver<Result<Read, IngestError>>,
    outbox: Outbox<'_>,
) -> Result<Built, IngestError> {
    let meta = root.meta()?;
    let root = Arc::new(root);
    let mut walk = Walk {
        run,
        scan,
        jobs,
        reads,
        batch: Vec::new(),
        batch_bytes: 0,
        steps: VecDeque::new(),
        first_step: 0,
        next_position: 2,
        links: HashMap::new(),
        tree: Assembly { outbox, open: Vec::new(), root: TreeBuilder::new() },
        skipped: Vec::new(),
    };
    walk.directory(&root, 0)?;
    while !walk.steps.is_empty() {
        walk.wait()?;
    }
    scan.unchanged(run, &root)?;
    // Otherwise a directory has changed within one tick of the file system's clock.
    if walk.links.len() != scan.links.len()
        || walk.links.iter().any(|(inode, met)| scan.links.get(inode) != Some(&met.names))
    {
        return Err(IngestError::Changed { path: root.path().to_owned(), what: "names came or went" });
    }
    let Walk { tree: Assembly { mut outbox, root: builder, .. }, skipped, .. } = walk;
    let (tree, totals) = builder.finish(&mut |kind, bytes| outbox.store(kind, bytes.into()))?;
    outbox.flush()?;
    let snapshot = Snapshot { root: meta, tree, totals, chunking: run.options.chunking, sealed: None };
    Ok(Built { snapshot, skipped, dirs: scan.dirs().collect() })
}

/// What the walk knows of a hard-linked inode: the position of its first name, and the number of its names.
struct Met {
    first: u64,
    names: u32,
}

struct Walk<'a> {
    run: &'a Run<'a>,
    scan: &'a Scan,
    jobs: Sender<Job>,
    reads: &'a Receiver<Result<Read, IngestError>>,
    batch: Vec<Item>,
    batch_bytes: u64,
    steps: VecDeque<Step>,
    /// Number of the step at the front; a job has the number of its step.
    first_step: u64,
    next_position: u64,
    /// The hard-linked inodes that have been met.
    links: HashMap<Inode, Met>,
    tree: Assembly<'a>,
    skipped: Vec<PathBuf>,
}

impl Walk<'_> {
    fn directory(&mut self, dir: &Arc<Dir>, depth: usize) -> Result<(), IngestError> {
        for name in dir.list()? {
            self.run.check()?;
            let stat = dir.stat_of(&name)?;
            match file_type(&stat) {
                FileType::Directory if depth >= MAX_DEPTH => {
                    return Err(IngestError::TooDeep { path: dir.path_of(&name) });
                }
                FileType::Directory => {
                    self.send_batch(dir)?;
                    let below = Arc::new(dir.open_dir(&name)?);
                    self.next_position += 1;
                    self.step(Step::Begin(name, below.meta()?))?;
                    self.directory(&below, depth + 1)?;
                    self.step(Step::End)?;
                }
                kind => match special(kind) {
                    Some(_) if self.run.options.skip_special => self.skipped.push(dir.path_of(&name)),
                    Some(kind) => return Err(IngestError::Special { path: dir.path_of(&name), kind }),
                    None => self.file(dir, name, kind, stat)?,
                },
            }
        }
        self.send_batch(dir)
    }

    fn file(&mut self, dir: &Arc<Dir>, name: Name, kind: FileType, stat: Stat) -> Result<(), IngestError> {
        let what = self.what(kind, stat);
        if let What::File { stat, .. } = &what {
            // Sizes are never negative.
            self.batch_bytes += stat.st_size as u64;
        }
        self.batch.push(Item { name, what });
        let full = self.batch.len() >= BATCH_NAMES || self.batch_bytes >= BATCH_BYTES;
        if full { self.send_batch(dir) } else { Ok(()) }
    }

    /// The first name of an inode gets a position and is read; further ones only refer to it.
    fn what(&mut self, kind: FileType, stat: Stat) -> What {
        let inode = (stat.st_dev, stat.st_ino);
        let nlink = self.scan.links.get(&inode).copied().unwrap_or(1);
        if nlink > 1 {
            let met = self.links.entry(inode).or_insert(Met { first: self.next_position, names: 0 });
            met.names += 1;
            if met.names > 1 {
                return What::Link { first: met.first };
            }
        }
        self.next_position += 1;
        match kind {
            FileType::Symlink => What::Symlink { stat, nlink },
            _ => What::File { stat, nlink },
        }
    }

    fn send_batch(&mut self, dir: &Arc<Dir>) -> Result<(), IngestError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.batch_bytes = 0;
        let items = std::mem::take(&mut self.batch);
        let number = self.first_step + self.steps.len() as u64;
        self.steps.push_back(Step::Waiting);
        // The readers end early only when the run has failed.
        let sent = self.jobs.send(Job { number, dir: Arc::clone(dir), items });
        sent.map_err(|_| IngestError::Cancelled)?;
        self.catch_up()
    }

    fn step(&mut self, step: Step) -> Result<(), IngestError> {
        self.steps.push_back(step);
        self.catch_up()
    }

    /// Takes what the readers have finished; waits for them only when too many steps do.
    fn catch_up(&mut self) -> Result<(), IngestError> {
        while let Ok(read) = self.reads.try_recv() {
            self.accept(read?);
        }
        self.apply()?;
        while self.steps.len() >= WINDOW {
            self.wait()?;
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), IngestError> {
        let read = self.reads.recv().map_err(|_| IngestError::Cancelled)?;
        self.accept(read?);
        self.apply()
    }

    fn accept(&mut self, read: Read) {
        // A step leaves the queue only after its job is back, so the number is in it.
        if let Some(step) = self.steps.get_mut((read.number - self.first_step) as usize) {
            *step = Step::Entries(read.entries);
        }
    }

    fn apply(&mut self) -> Result<(), IngestError> {
        while let Some(step) = self.steps.pop_front_if(|step| !matches!(step, Step::Waiting)) {
            self.first_step += 1;
            self.tree.apply(step)?;
        }
        Ok(())
    }
}

/// The tree under construction.
struct Assembly<'a> {
    outbox: Outbox<'a>,
    root: TreeBuilder,
    /// The directories between the root and the present one.
    open: Vec<(Name, Meta, TreeBuilder)>,
}

impl Assembly<'_> {
    fn apply(&mut self, step: Step) -> Result<(), IngestError> {
        match step {
            Step::Waiting => Ok(()),
            Step::Begin(name, meta) => {
                self.open.push((name, meta, TreeBuilder::new()));
                Ok(())
            }
            Step::Entries(entries) => entries.into_iter().try_for_each(|entry| self.push(entry)),
            Step::End => {
                let Some((name, meta, builder)) = self.open.pop() else { return Ok(()) };
                let outbox = &mut self.outbox;
                let (tree, totals) =
                    builder.finish(&mut |kind, bytes: Vec<u8>| outbox.store(kind, bytes.into()))?;
                self.push(Entry { name, node: Node::Dir { meta, tree, totals } })
            }
        }
    }

    fn push(&mut self, entry: Entry) -> Result<(), IngestError> {
        let builder = self.open.last_mut().map_or(&mut self.root, |(_, _, builder)| builder);
        let outbox = &mut self.outbox;
        builder.push(entry, &mut |kind, bytes: Vec<u8>| outbox.store(kind, bytes.into()))
    }
}
