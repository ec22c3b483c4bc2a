//! The objects that files of a snapshot consist of, in the order of positions, for whoever fetches, counts or drops
//! them without reading.
//!
//! Owns: the walk over tree nodes and blob nodes, and which of them and of the chunks a file needs.
//! Must not know: what is done with the objects.
//! Invariant: all files that match are met, each hard link as its file, in the order of positions. Memory: one promise
//! for each node on the way down, the files of one tree node, and what a [`Scout`] knows.
//! Trust: that of `view`; nodes keep the promises of their parents, so that a walk ends.
//! Threads: that of `view`.

use std::sync::Arc;

use super::globs::Globs;
use super::nodes::{BlobPromise, TreePromise};
use super::scout::Scout;
use super::{View, ViewError};
use crate::fetch::Class;
use crate::id::{BlobId, ChunkId, ObjectId};
use crate::manifest::{BlobNode, Content, Entry, MAX_DEPTH, MAX_LEVELS, Node, TreeNode};

/// The files of one tree node or of a part of it, and the objects that were needed to find them.
#[derive(Debug, Default)]
pub struct Files {
    /// Tree nodes that were met for the first time, and those on the ways to the first names of hard links.
    pub trees: Vec<ObjectId>,
    pub files: Vec<FileContent>,
}

/// What one file consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// In bytes.
    pub size: u64,
    content: Content,
    sealed: bool,
}

impl FileContent {
    /// The object that everything else hangs on; an empty file has none.
    pub fn first(&self) -> Option<ObjectId> {
        match self.content {
            Content::Empty => None,
            Content::Chunk { id, .. } => Some(id.into()),
            Content::Blob { id, .. } => Some(stored(self.sealed, id)),
        }
    }

    /// Whether the first object is all there is.
    pub fn is_one_object(&self) -> bool {
        !matches!(self.content, Content::Blob { .. })
    }

    /// All objects, some at a time.
    pub fn objects(&self) -> Objects {
        let mut pending = Vec::new();
        let mut chunk = None;
        match self.content {
            Content::Empty => {}
            Content::Chunk { id, .. } => chunk = Some((id.into(), self.size)),
            Content::Blob { id, chunks, .. } => {
                pending.push((BlobPromise { blob: id, bytes: self.size, chunks }, 0));
            }
        }
        Objects { chunk, pending, sealed: self.sealed }
    }
}

/// What a blob node is stored as: a chunk, if it is sealed.
fn stored(sealed: bool, id: BlobId) -> ObjectId {
    if sealed { ChunkId::from_bytes(*id.as_bytes()).into() } else { id.into() }
}

/// The objects of one file: an iterator that may have to wait for blob nodes.
#[derive(Debug)]
pub struct Objects {
    chunk: Option<(ObjectId, u64)>,
    /// Blob nodes to come, the next at the end, and how deep each is.
    pending: Vec<(BlobPromise, usize)>,
    sealed: bool,
}

impl Objects {
    /// The blob node that `next` would need, if it is one.
    pub fn needs(&self) -> Option<ObjectId> {
        self.pending.last().map(|(promise, _)| stored(self.sealed, promise.blob))
    }

    /// Passes over the next blob node and all below it; says how many bytes of the file that is.
    pub fn skip(&mut self) -> u64 {
        self.pending.pop().map_or(0, |(promise, _)| promise.bytes)
    }

    /// The next objects, each with the bytes of the file that are in it; `None` at the end. Blob nodes come before
    /// what they name, and count no bytes.
    pub async fn next(
        &mut self,
        view: &View,
        class: Class,
    ) -> Result<Option<Vec<(ObjectId, u64)>>, ViewError> {
        if let Some(chunk) = self.chunk.take() {
            return Ok(Some(vec![chunk]));
        }
        let Some((promise, level)) = self.pending.pop() else { return Ok(None) };
        if level > MAX_LEVELS {
            return Err(ViewError::unfit(promise.blob, format!("its nodes are deeper than {MAX_LEVELS}")));
        }
        let blob = view.nodes.blob(promise, class).await?;
        let mut objects = vec![(stored(self.sealed, promise.blob), 0)];
        match blob.index.node() {
            BlobNode::Leaf(extents) => {
                let chunks = extents.iter().filter_map(|extent| Some((extent.chunk?.into(), extent.len)));
                objects.extend(chunks);
            }
            BlobNode::Branch(children) => {
                let below = children.iter().rev().map(|child| {
                    let (blob, bytes, chunks) = (child.blob, child.bytes, child.chunks);
                    (BlobPromise { blob, bytes, chunks }, level + 1)
                });
                self.pending.extend(below);
            }
        }
        Ok(Some(objects))
    }
}

/// A tree node on the way down.
struct Frame {
    promise: TreePromise,
    /// Which of its entries or children comes next.
    next: usize,
    /// Length of the path of the directory.
    path: usize,
    /// The directory matches, and so all below it.
    whole: bool,
}

/// A walk over the contents of a snapshot.
pub struct Contents {
    view: Arc<View>,
    globs: Globs,
    class: Class,
    /// Only what is here is looked at.
    local: bool,
    passed_over: bool,
    /// The tree nodes on the way to the file that was linked to last: the next is often beside it.
    way: Vec<ObjectId>,
    frames: Vec<Frame>,
    path: Vec<u8>,
    /// Fetches what is below a directory of which everything matches, before the walk comes to it.
    scout: Option<Scout>,
    /// Frames down to that directory.
    scouted: usize,
}

impl Contents {
    /// Begins at the root. Nodes are fetched as `class`, or passed over if they are not here and it is `None`.
    pub fn new(view: Arc<View>, globs: Globs, class: Option<Class>) -> Self {
        let promise = TreePromise::of_directory(view.snapshot.tree, view.snapshot.totals);
        let root = Frame { promise, next: 0, path: 0, whole: globs.is_all() };
        let local = class.is_none();
        let class = class.unwrap_or(Class::Fault);
        Self {
            view,
            globs,
            class,
            local,
            passed_over: false,
            way: Vec::new(),
            frames: vec![root],
            path: Vec::new(),
            scout: None,
            scouted: 0,
        }
    }

    /// Whether something was passed over because it is not here.
    pub fn has_passed_over(&self) -> bool {
        self.passed_over
    }

    /// The next files; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Files>, ViewError> {
        let mut found = Files::default();
        loop {
            self.send_scout();
            let Some(frame) = self.frames.last_mut() else { break };
            let id = self.view.nodes.stored(frame.promise.tree);
            if frame.next == 0 {
                if self.local && !self.view.nodes.is_here(&id)? {
                    self.passed_over = true;
                    self.frames.pop();
                    continue;
                }
                self.view.nodes.bring(id, self.class).await?;
                found.trees.push(id);
            }
            let tree = self.view.nodes.tree(&frame.promise, self.class).await?;
            self.path.truncate(frame.path);
            match tree.index.node() {
                TreeNode::Branch(children) => {
                    let Some(child) = children.get(frame.next) else {
                        self.frames.pop();
                        continue;
                    };
                    frame.next += 1;
                    let promise = frame.promise.of_child(children, child);
                    let below = Frame { promise, next: 0, path: frame.path, whole: frame.whole };
                    self.push(below)?;
                }
                TreeNode::Leaf(entries) => {
                    // At least one step is taken, so that an empty leaf is not met for the first time twice.
                    let from = frame.next;
                    let until = self.leaf(&entries[from.min(entries.len())..], &mut found).await?;
                    if until.is_none() {
                        self.frames.pop();
                    }
                    // As many files as one leaf has, or none.
                    if !found.files.is_empty() {
                        return Ok(Some(found));
                    }
                }
            }
            if found.trees.len() >= TREES {
                return Ok(Some(found));
            }
        }
        Ok(if found.trees.is_empty() { None } else { Some(found) })
    }

    /// Sees to it, when a node is met for the first time, that a scout is ahead where everything matches.
    fn send_scout(&mut self) {
        let Some(frame) = self.frames.last().filter(|frame| frame.next == 0) else { return };
        match &self.scout {
            Some(scout) if self.frames.len() > self.scouted => scout.met(),
            _ => {
                let wanted = frame.whole && !self.local;
                self.scout = wanted.then(|| Scout::new(self.view.clone(), frame.promise.clone(), self.class));
                self.scouted = self.frames.len();
            }
        }
    }

    /// Takes up the files of a leaf up to the first directory that is to be looked into, which is then the next
    /// frame, or until many tree nodes were met; `None` at the end of the leaf.
    async fn leaf(&mut self, entries: &[Entry], found: &mut Files) -> Result<Option<()>, ViewError> {
        let Some(frame) = self.frames.last() else { return Ok(None) };
        let (base, whole) = (frame.path, frame.whole);
        for entry in entries {
            if let Some(frame) = self.frames.last_mut() {
                frame.next += 1;
            }
            self.path.truncate(base);
            if !self.globs.is_all() {
                if base > 0 {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(entry.name.as_bytes());
            }
            let meant = whole || self.globs.matches(&self.path);
            match &entry.node {
                Node::File { size, content, .. } if meant => {
                    found.files.push(FileContent {
                        size: *size,
                        content: content.clone(),
                        sealed: self.view.is_unsealed(),
                    });
                }
                // Where everything is meant, its first name is met too.
                Node::Link { first } if meant && !self.globs.is_all() => {
                    self.linked(*first, found).await?;
                    if found.trees.len() >= TREES {
                        return Ok(Some(()));
                    }
                }
                Node::Dir { tree, totals, .. } if meant || self.globs.may_match_below(&self.path) => {
                    let promise = TreePromise::of_directory(*tree, *totals);
                    self.push(Frame { promise, next: 0, path: self.path.len(), whole: meant })?;
                    return Ok(Some(()));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Takes up the file that a hard link is to, with the tree nodes through which a reader of the link finds it.
    async fn linked(&mut self, first: u64, found: &mut Files) -> Result<(), ViewError> {
        let class = (!self.local).then_some(self.class);
        let Some((inode, way)) = self.view.inode_and_way(first, class).await? else {
            self.passed_over = true;
            return Ok(());
        };
        found.trees.extend(way.iter().filter(|id| !self.way.contains(id)));
        self.way = way;
        // Symbolic links have hard links too.
        if let Node::File { size, content, .. } = inode.node {
            found.files.push(FileContent { size, content, sealed: self.view.is_unsealed() });
        }
        Ok(())
    }

    fn push(&mut self, frame: Frame) -> Result<(), ViewError> {
        if self.frames.len() > MAX_DEPTH * MAX_LEVELS {
            let cause = format!("its directories are deeper than {MAX_DEPTH}");
            return Err(ViewError::unfit(self.view.id, cause));
        }
        self.frames.push(frame);
        Ok(())
    }
}

/// Tree nodes without files that are told of at a time.
const TREES: usize = 256;
impl View {
    /// The content of the file `ino`.
    pub async fn content(&self, ino: u64) -> Result<FileContent, ViewError> {
        let file = self.file(ino).await?;
        Ok(FileContent { size: file.size, content: file.content, sealed: self.is_unsealed() })
    }
}
