//! From inode numbers, names and paths to files: the arithmetic of positions over many nodes.
//!
//! Owns: the descent from the root to an entry by position, by name and by index, and the listing of directories.
//! Must not know: what files contain.
//! Invariant: an inode number is a position in the walk of the snapshot (see `manifest`); the same for ever and on
//! every machine. It is found from the root by prefix sums; nothing is remembered of it.
//! Trust: that of `view`: a descent is bounded in depth whatever a publisher wrote.
//! Threads: that of `view`.

use std::sync::Arc;

use super::nodes::{Nodes, Tree, TreePromise};
use super::{Attr, DirEntry, Listing, ROOT, View, ViewError, at};
use crate::fetch::{Class, FetchError};
use crate::id::{ObjectId, TreeId};
use crate::manifest::{Entry, IndexedTree, MAX_DEPTH, MAX_LEVELS, Node, Totals, TreeStep};

/// A file, directory or symbolic link that has been found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its position.
    pub ino: u64,
    /// Position of the directory it was found in; the root is its own.
    pub parent: u64,
    /// Never a `Link`.
    pub node: Node,
}

/// A directory on the way.
#[derive(Debug, Clone, Copy)]
struct Dir {
    ino: u64,
    parent: u64,
    tree: TreeId,
    totals: Totals,
}

impl Dir {
    /// The number of the inode that is `offset` positions after the first below this directory.
    fn ino_below(&self, offset: u64) -> u64 {
        // Neither exceeds 2^63 in checked nodes; more would name no inode.
        self.ino.saturating_add(offset).saturating_add(1)
    }
}

/// An entry of a directory, in its leaf.
struct Slot {
    leaf: Arc<Tree>,
    /// Place in the leaf.
    place: usize,
    /// Positions in the directory before it.
    offset: u64,
}

impl Slot {
    fn entry(&self) -> &Entry {
        &self.leaf.leaf()[self.place]
    }
}

/// The tree nodes that a descent reads.
pub(super) struct Way {
    /// As what they are brought here; `None` if the descent ends at the first that is not here.
    class: Option<Class>,
    pub(super) trees: Vec<ObjectId>,
    is_cut: bool,
}

impl Way {
    /// Before a node is read; says whether to go on.
    async fn enter(&mut self, nodes: &Nodes, id: ObjectId) -> Result<bool, FetchError> {
        match self.class {
            Some(class) => {
                nodes.bring(id, class).await?;
            }
            None => self.is_cut = !nodes.is_here(&id)?,
        }
        self.trees.push(id);
        Ok(!self.is_cut)
    }
}

/// Where a step leads, freed from the node it was found in.
enum Next {
    Slot { place: usize, offset: u64 },
    Child { promise: TreePromise, index: u64, offset: u64 },
}

impl Next {
    fn new(promise: &TreePromise, tree: &Tree, step: TreeStep<'_>) -> Self {
        match step {
            // In a leaf the index of an entry, at most 1023, is its place.
            TreeStep::Entry { index, offset, .. } => Self::Slot { place: index as usize, offset },
            TreeStep::Child { child, index, offset } => {
                Self::Child { promise: promise.of_child(tree.branch(), child), index, offset }
            }
        }
    }
}

impl View {
    /// The root directory.
    pub fn root(&self) -> Inode {
        let (meta, tree, totals) = (self.snapshot.root.clone(), self.snapshot.tree, self.snapshot.totals);
        Inode { ino: ROOT, parent: ROOT, node: Node::Dir { meta, tree, totals } }
    }

    /// The inode with the number `ino`.
    pub async fn inode(&self, ino: u64) -> Result<Inode, ViewError> {
        self.trace(ino, None, |_| ()).await
    }

    /// The inode `ino` and the tree nodes on the way to it, which are here then, also if they were kept in memory. With
    /// no class nothing is fetched, and there is no answer if one of them is not here.
    pub(super) async fn inode_and_way(
        &self,
        ino: u64,
        class: Option<Class>,
    ) -> Result<Option<(Inode, Vec<ObjectId>)>, ViewError> {
        let mut way = Way { class, trees: Vec::new(), is_cut: false };
        let found = self.trace(ino, Some(&mut way), |_| ()).await;
        if way.is_cut { Ok(None) } else { Ok(Some((found?, way.trees))) }
    }

    /// The path of `ino` below the root; of several, the first.
    pub async fn path(&self, ino: u64) -> Result<Vec<u8>, ViewError> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        self.trace(ino, None, |entry| names.push(entry.name.as_bytes().to_vec())).await?;
        Ok(names.join(&b'/'))
    }

    /// Goes down to `ino`, and shows each entry on the way to `visit`, its own the last.
    async fn trace(
        &self,
        ino: u64,
        mut way: Option<&mut Way>,
        mut visit: impl FnMut(&Entry),
    ) -> Result<Inode, ViewError> {
        let root = self.root();
        if ino == ROOT {
            return Ok(root);
        }
        let mut dir = self.dir(&root)?;
        for _ in 0..=MAX_DEPTH {
            let missing = || ViewError::NotFound(at(ino));
            let target = ino.checked_sub(dir.ino_below(0)).ok_or_else(missing)?;
            let slot = self.descend(&dir, way.as_deref_mut(), |node, _, start| {
                node.at_position(target.checked_sub(start)?)
            });
            let slot = slot.await?;
            let slot = slot.ok_or_else(missing)?;
            visit(slot.entry());
            let (below, node) = (dir.ino_below(slot.offset), slot.entry().node.clone());
            let found = Inode { ino: below, parent: dir.ino, node };
            if below == ino {
                return Ok(found);
            }
            dir = self.dir(&found)?;
        }
        Err(ViewError::unfit(self.id, format!("its directories are deeper than {MAX_DEPTH}")))
    }

    /// The entry of the directory `parent` called `name`. `None` only if the snapshot says that there is none.
    pub async fn find(&self, parent: u64, name: &[u8]) -> Result<Option<Inode>, ViewError> {
        let dir = self.dir(&self.inode(parent).await?)?;
        let slot = self.descend(&dir, None, |node, _, _| node.find(name)).await?;
        match slot {
            None => Ok(None),
            Some(slot) => Ok(Some(self.named(&dir, slot.entry(), slot.offset).await?)),
        }
    }

    /// The attributes of what is called `name` in the directory `parent`.
    pub async fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>, ViewError> {
        Ok(self.find(parent, name).await?.map(|inode| self.attr_of(&inode)))
    }

    /// The inode at `path`, names separated by slashes from the root. Symbolic links are not followed.
    pub async fn resolve(&self, path: &[u8]) -> Result<Inode, ViewError> {
        let shown = || String::from_utf8_lossy(path).into_owned();
        let mut inode = self.root();
        for name in path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, [] | [b'.'])) {
            if name == b".." {
                return Err(ViewError::BadPath(shown()));
            }
            let found = match self.find(inode.ino, name).await {
                Err(ViewError::NotADirectory(_)) => Err(ViewError::NotADirectory(shown())),
                other => other,
            };
            inode = found?.ok_or_else(|| ViewError::NotFound(shown()))?;
        }
        Ok(inode)
    }

    /// Up to `max` entries of the directory `ino`, from the entry number `offset` on.
    pub async fn read_dir(&self, ino: u64, offset: u64, max: usize) -> Result<Listing, ViewError> {
        let dir = self.dir(&self.inode(ino).await?)?;
        let mut listing = Listing { parent: dir.parent, entries: Vec::new() };
        let mut next = offset;
        while listing.entries.len() < max {
            let slot =
                self.descend(&dir, None, |node, start, _| node.at_index(next.checked_sub(start)?)).await?;
            let Some(slot) = slot else { break };
            let mut position = slot.offset;
            for entry in slot.leaf.leaf()[slot.place..].iter().take(max - listing.entries.len()) {
                next = next.saturating_add(1);
                let attr = match entry.node {
                    Node::Link { .. } => self.attr_of(&self.named(&dir, entry, position).await?),
                    _ => self.attr_of_node(dir.ino_below(position), &entry.node),
                };
                position = position.saturating_add(entry.node.span());
                listing.entries.push(DirEntry { name: entry.name.as_bytes().to_vec(), next, attr });
            }
        }
        Ok(listing)
    }

    /// What an entry names: a hard link is followed to its first name.
    async fn named(&self, dir: &Dir, entry: &Entry, offset: u64) -> Result<Inode, ViewError> {
        let Node::Link { first } = entry.node else {
            return Ok(Inode { ino: dir.ino_below(offset), parent: dir.ino, node: entry.node.clone() });
        };
        let unfit = || ViewError::unfit(dir.tree, format!("{:?} links to no file", entry.name));
        match self.inode(first).await {
            Ok(inode) if matches!(inode.node, Node::File { .. } | Node::Symlink { .. }) => Ok(inode),
            Ok(_) | Err(ViewError::NotFound(_)) => Err(unfit()),
            Err(error) => Err(error),
        }
    }

    fn dir(&self, inode: &Inode) -> Result<Dir, ViewError> {
        match inode.node {
            Node::Dir { tree, totals, .. } => Ok(Dir { ino: inode.ino, parent: inode.parent, tree, totals }),
            _ => Err(ViewError::NotADirectory(at(inode.ino))),
        }
    }

    /// Goes down the nodes of one directory to an entry. `pick` is given a node and how many entries and positions
    /// of the directory come before it.
    async fn descend(
        &self,
        dir: &Dir,
        mut way: Option<&mut Way>,
        pick: impl for<'a> Fn(&'a IndexedTree, u64, u64) -> Option<TreeStep<'a>>,
    ) -> Result<Option<Slot>, ViewError> {
        let mut promise = TreePromise::of_directory(dir.tree, dir.totals);
        let (mut indices, mut positions) = (0u64, 0u64);
        for _ in 0..MAX_LEVELS {
            if let Some(way) = &mut way
                && !way.enter(&self.nodes, self.nodes.stored(promise.tree)).await?
            {
                return Ok(None);
            }
            let tree = self.nodes.tree(&promise, Class::Fault).await?;
            let Some(step) = pick(&tree.index, indices, positions) else { return Ok(None) };
            match Next::new(&promise, &tree, step) {
                Next::Slot { place, offset } => {
                    let offset = positions.saturating_add(offset);
                    return Ok(Some(Slot { leaf: tree, place, offset }));
                }
                Next::Child { promise: child, index, offset } => {
                    indices = indices.saturating_add(index);
                    positions = positions.saturating_add(offset);
                    promise = child;
                }
            }
        }
        Err(ViewError::unfit(dir.tree, format!("its nodes are deeper than {MAX_LEVELS}")))
    }
}
