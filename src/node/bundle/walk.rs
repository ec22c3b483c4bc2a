//! The objects of a snapshot that a file, or another snapshot, does not have.
//!
//! Owns: the walk, and what it remembers. Must not know: what is done with the objects.
//! Invariant: every object that is not known is met, a node before what it names; the same snapshots give the same order on
//! every machine and at every time, so that an interrupted export goes on where it was. Memory: [`MOST`] short ids in each of
//! four sets, and the ways down; what no longer fits is met again.
//! Trust: objects are what their ids say; what a publisher put into them is decoded with bounds.
//! Threads: a blocking one, which waits for the runtime when something has to be fetched.

use std::collections::HashSet;

use tokio::runtime::Handle;

use crate::fetch::{Class, Fetcher};
use crate::id::{Kind, ObjectId, SnapshotId};
use crate::manifest::{Child, children};
use crate::node::error::Error;
use crate::node::job::Job;
use crate::pack::Checked;

/// The first half of a hash: enough to know an object by.
type Short = [u8; 16];

/// Ids in one set: as many as a table of 2^19 places takes, about 9 MiB.
const MOST: usize = (1 << 19) / 8 * 7;
/// Plain bytes fetched at a time.
const FETCHED: u64 = 16 << 20;
/// What a node counts for there.
const NODE: u64 = 64 << 10;

fn short(id: &ObjectId) -> Short {
    let mut short = Short::default();
    short.copy_from_slice(&id.hash[..16]);
    short
}

/// Where objects are read from: here, or else from peers and origins.
pub(super) struct Objects {
    pub fetcher: Fetcher,
    pub runtime: Handle,
    pub job: Job,
}

impl Objects {
    pub fn load(&self, id: &ObjectId) -> Result<Checked, Error> {
        self.job.check()?;
        if let Some(object) = self.fetcher.local(id)? {
            return Ok(object);
        }
        self.runtime.block_on(self.job.run(async { Ok(self.fetcher.get(*id, Class::Prefetch).await?) }))
    }

    /// Fetches those that are not here, many at a time. They are cached; one that does not stay is fetched again.
    pub fn bring(&self, objects: &[Child]) -> Result<(), Error> {
        let mut rest = objects;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |(_, len): &&Child| {
                let fits = bytes < FETCHED;
                bytes += len.max(&NODE);
                fits
            };
            let (group, behind) = rest.split_at(rest.iter().take_while(fits).count());
            let ids: Vec<ObjectId> = group.iter().map(|(id, _)| *id).collect();
            let missing = self.fetcher.missing(&ids)?;
            if !missing.is_empty() {
                let fetched = async { Ok(self.fetcher.get_many(&missing, Class::Prefetch).await?) };
                self.runtime.block_on(self.job.run(fetched))?;
            }
            rest = behind;
        }
        Ok(())
    }

    /// The same of the nodes among them.
    pub fn bring_nodes(&self, objects: &[Child]) -> Result<(), Error> {
        let nodes: Vec<Child> = objects.iter().filter(|(id, _)| id.kind != Kind::Chunk).copied().collect();
        self.bring(&nodes)
    }
}

/// What need not be met again.
#[derive(Default)]
pub(super) struct Known {
    /// Met lately: the latest, and those before.
    young: HashSet<Short>,
    old: HashSet<Short>,
    /// What the other snapshot has. Below a node of it nothing is new.
    base: HashSet<Short>,
}

impl Known {
    /// From now on what `base` has counts as known, in a walk over `target`.
    pub fn set_base(
        &mut self,
        objects: &Objects,
        base: Option<SnapshotId>,
        target: SnapshotId,
    ) -> Result<(), Error> {
        self.base = HashSet::new();
        if let Some(base) = base {
            self.base = shared(objects, base, target)?;
        }
        Ok(())
    }

    fn has(&self, id: &ObjectId) -> bool {
        let id = short(id);
        self.young.contains(&id) || self.old.contains(&id) || self.base.contains(&id)
    }

    fn add(&mut self, id: &ObjectId) {
        if self.young.len() == MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(short(id));
    }
}

/// An object that was not known.
pub(super) enum Met {
    /// With what it names and is not known.
    Node(Checked, Vec<Child>),
    /// With its plain bytes, or what its parent says that they are.
    Chunk(ObjectId, u64),
}

/// A walk over a snapshot.
pub(super) struct Walk<'a> {
    objects: &'a Objects,
    known: &'a mut Known,
    /// The next at the end.
    pending: Vec<Child>,
}

impl<'a> Walk<'a> {
    pub fn new(objects: &'a Objects, known: &'a mut Known, snapshot: SnapshotId) -> Self {
        Self { objects, known, pending: vec![(snapshot.into(), 0)] }
    }

    /// The next object; nothing at the end.
    pub fn next(&mut self) -> Result<Option<Met>, Error> {
        while let Some((id, len)) = self.pending.pop() {
            if self.known.has(&id) {
                continue;
            }
            self.known.add(&id);
            if id.kind == Kind::Chunk {
                return Ok(Some(Met::Chunk(id, len)));
            }
            let object = self.objects.load(&id)?;
            let mut below = children(id.kind, object.plain())?;
            below.retain(|(id, _)| !self.known.has(id));
            self.pending.extend(below.iter().rev());
            return Ok(Some(Met::Node(object, below)));
        }
        Ok(None)
    }
}

/// What `base` has that a walk over `target` may come by: its nodes, and the chunks below those of its nodes that the target
/// has not. Of very large snapshots the first ones.
fn shared(objects: &Objects, base: SnapshotId, target: SnapshotId) -> Result<HashSet<Short>, Error> {
    let mut nodes = HashSet::new();
    let mut known = Known::default();
    let mut walk = Walk::new(objects, &mut known, target);
    while nodes.len() < MOST
        && let Some(met) = walk.next()?
    {
        if let Met::Node(object, below) = met {
            objects.bring_nodes(&below)?;
            nodes.insert(short(&object.id()));
        }
    }
    let (mut found, mut pending) = (HashSet::new(), vec![ObjectId::from(base)]);
    while found.len() < MOST
        && let Some(id) = pending.pop()
    {
        // Below a node that both have the walk never gets.
        if !found.insert(short(&id)) || id.kind == Kind::Chunk || nodes.contains(&short(&id)) {
            continue;
        }
        let below = children(id.kind, objects.load(&id)?.plain())?;
        objects.bring_nodes(&below)?;
        pending.extend(below.into_iter().rev().map(|(id, _)| id));
    }
    Ok(found)
}
