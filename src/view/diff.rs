//! What is different between two snapshots, name by name.
//!
//! Owns: the walk over both trees at once, and what makes two files the same.
//! Must not know: what is done with a difference.
//! Invariant: names come in the order of a walk, each once. Nothing below two nodes with one id is read: they are the same.
//! Memory: one promise for each node on the way down, and the entries of a tree node of each side.
//! Trust, threads: those of `view`.
//!
//! A file with several names is compared where its names are met, and below nodes that are the same, none is. So a change of
//! it shows at its first name, and at the others only where their entries differ (they hold the position of the first).

use std::cmp::Ordering;
use std::sync::Arc;

use super::nodes::TreePromise;
use super::{View, ViewError};
use crate::fetch::Class;
use crate::manifest::{Content, Entry, MAX_DEPTH, MAX_LEVELS, Meta, Name, Node, TreeNode};

/// A reader waits, but not in a read.
pub(super) const CLASS: Class = Class::Readahead;

/// In what two files of one name differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    Content,
    Target,
    Mode,
    Owner,
    Time,
    Attributes,
}

/// One name that is not the same on both sides. Neither node is a `Link`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// From the root; empty for the root itself.
    pub path: Vec<u8>,
    pub before: Option<Node>,
    pub after: Option<Node>,
    /// Empty if one side is missing.
    pub aspects: Vec<Aspect>,
}

/// A part of a directory that is still to be compared.
enum Item {
    Node { promise: TreePromise, first: Option<Name>, entries: u64, level: usize },
    Entry(Entry),
}

/// One side of a directory.
struct Side {
    view: Arc<View>,
    /// The next part at the end.
    parts: Vec<Item>,
}

/// A directory that is being compared.
struct Level {
    path: Vec<u8>,
    before: Side,
    after: Side,
}

/// A comparison under way.
pub struct Diff {
    before: Arc<View>,
    after: Arc<View>,
    levels: Vec<Level>,
    /// What was found and not given out yet, the next at the end.
    found: Vec<Difference>,
}

impl Diff {
    pub fn new(before: Arc<View>, after: Arc<View>) -> Self {
        let (a, b) = (before.snapshot(), after.snapshot());
        let aspects = meta_aspects(&a.root, &b.root);
        let root = |snapshot: &crate::manifest::Snapshot| Node::Dir {
            meta: snapshot.root.clone(),
            tree: snapshot.tree,
            totals: snapshot.totals,
        };
        let (a, b) = (root(a), root(b));
        let mut diff = Self { before, after, levels: Vec::new(), found: Vec::new() };
        diff.levels.extend(diff.level(Vec::new(), Some(&a), Some(&b)));
        if !aspects.is_empty() {
            diff.found.push(Difference { path: Vec::new(), before: Some(a), after: Some(b), aspects });
        }
        diff
    }

    /// The next difference; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Difference>, ViewError> {
        loop {
            if let Some(found) = self.found.pop() {
                return Ok(Some(found));
            }
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            match level.step().await? {
                None => _ = self.levels.pop(),
                Some((before, after)) => self.compare(before, after).await?,
            }
        }
    }

    /// Compares what one name stands for on both sides.
    async fn compare(&mut self, before: Option<Entry>, after: Option<Entry>) -> Result<(), ViewError> {
        let Some(name) = before.as_ref().or(after.as_ref()).map(|entry| entry.name.clone()) else {
            return Ok(());
        };
        let mut path = self.levels.last().map(|level| level.path.clone()).unwrap_or_default();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        let before = file(&self.before, before).await?;
        let after = file(&self.after, after).await?;
        let below = self.level(path.clone(), before.as_ref(), after.as_ref());
        if below.is_some() && self.levels.len() > MAX_DEPTH {
            let deep = format!("its directories are deeper than {MAX_DEPTH}");
            return Err(ViewError::unfit(self.before.id(), deep));
        }
        self.levels.extend(below);
        match (before, after) {
            (Some(before), Some(after)) if is_one_kind(&before, &after) => {
                let aspects = aspects(&before, &after);
                if !aspects.is_empty() {
                    let (before, after) = (Some(before), Some(after));
                    self.found.push(Difference { path, before, after, aspects });
                }
            }
            // What it was goes first.
            (before, after) => {
                let one_side =
                    |before, after| Difference { path: path.clone(), before, after, aspects: Vec::new() };
                self.found.extend(after.map(|after| one_side(None, Some(after))));
                self.found.extend(before.map(|before| one_side(Some(before), None)));
            }
        }
        Ok(())
    }

    /// The comparison of what is below a name, if a directory is on one side and not the same on the other.
    fn level(&self, path: Vec<u8>, before: Option<&Node>, after: Option<&Node>) -> Option<Level> {
        let part = |node: Option<&Node>| match node {
            Some(Node::Dir { tree, totals, .. }) => {
                let promise = TreePromise::of_directory(*tree, *totals);
                Some(Item::Node { promise, first: None, entries: u64::MAX, level: 0 })
            }
            _ => None,
        };
        let (a, b) = (part(before), part(after));
        let is_same = matches!((&a, &b), (Some(Item::Node { promise: a, .. }), Some(Item::Node { promise: b, .. })) if a.tree == b.tree);
        if is_same || (a.is_none() && b.is_none()) {
            return None;
        }
        let side = |view: &Arc<View>, part: Option<Item>| Side {
            view: view.clone(),
            parts: part.into_iter().collect(),
        };
        Some(Level { path, before: side(&self.before, a), after: side(&self.after, b) })
    }
}

impl Level {
    /// The entries of the next name that may differ; `None` at the end.
    async fn step(&mut self) -> Result<Option<(Option<Entry>, Option<Entry>)>, ViewError> {
        loop {
            let (before, after) = match (self.before.parts.last(), self.after.parts.last()) {
                (None, None) => return Ok(None),
                (Some(Item::Node { promise: a, .. }), Some(Item::Node { promise: b, .. }))
                    if a.tree == b.tree =>
                {
                    self.before.parts.pop();
                    self.after.parts.pop();
                    continue;
                }
                (before, after) => (before, after),
            };
            match which(before, after) {
                Open::Before => self.before.open().await?,
                Open::After => self.after.open().await?,
                Open::Both => {
                    self.before.open().await?;
                    self.after.open().await?;
                }
                Open::Neither(order) => {
                    let before = if order == Ordering::Greater { None } else { self.before.entry() };
                    let after = if order == Ordering::Less { None } else { self.after.entry() };
                    if before != after {
                        return Ok(Some((before, after)));
                    }
                    // The same entry may be a link to what differs: that shows at its first name.
                }
            }
        }
    }
}

/// Which side's next part has to be read, before names can be compared.
enum Open {
    Before,
    After,
    Both,
    /// Both are entries, or missing: how their names compare.
    Neither(Ordering),
}

fn which(before: Option<&Item>, after: Option<&Item>) -> Open {
    match (before, after) {
        (Some(Item::Entry(a)), Some(Item::Entry(b))) => Open::Neither(a.name.cmp(&b.name)),
        (Some(Item::Entry(_)) | None, None) => Open::Neither(Ordering::Less),
        (None, Some(Item::Entry(_))) => Open::Neither(Ordering::Greater),
        (Some(Item::Node { .. }), None) => Open::Before,
        (None, Some(Item::Node { .. })) => Open::After,
        // An entry before all that is in the other's node is on its side alone.
        (Some(Item::Entry(a)), Some(Item::Node { first: Some(b), .. })) if a.name < *b => {
            Open::Neither(Ordering::Less)
        }
        (Some(Item::Node { first: Some(a), .. }), Some(Item::Entry(b))) if b.name < *a => {
            Open::Neither(Ordering::Greater)
        }
        (Some(Item::Entry(_)), Some(Item::Node { .. })) => Open::After,
        (Some(Item::Node { .. }), Some(Item::Entry(_))) => Open::Before,
        // The one that begins earlier is read, so that the other may meet its like; of two that begin alike the larger.
        (Some(Item::Node { first: a, entries: n, .. }), Some(Item::Node { first: b, entries: m, .. })) => {
            match a.cmp(b).then(m.cmp(n)) {
                Ordering::Less => Open::Before,
                Ordering::Greater => Open::After,
                Ordering::Equal => Open::Both,
            }
        }
    }
}

impl Side {
    fn entry(&mut self) -> Option<Entry> {
        match self.parts.pop()? {
            Item::Entry(entry) => Some(entry),
            node => {
                self.parts.push(node);
                None
            }
        }
    }

    /// Reads the next part, which is a node, and puts what is in it in its place.
    async fn open(&mut self) -> Result<(), ViewError> {
        let Some(Item::Node { promise, level, .. }) = self.parts.pop() else { return Ok(()) };
        if level > MAX_LEVELS {
            return Err(ViewError::unfit(promise.tree, format!("its nodes are deeper than {MAX_LEVELS}")));
        }
        let tree = self.view.nodes.tree(&promise, CLASS).await?;
        match tree.index.node() {
            TreeNode::Leaf(entries) => self.parts.extend(entries.iter().rev().cloned().map(Item::Entry)),
            TreeNode::Branch(children) => self.parts.extend(children.iter().rev().map(|child| Item::Node {
                promise: promise.of_child(children, child),
                first: Some(child.first.clone()),
                entries: child.entries,
                level: level + 1,
            })),
        }
        Ok(())
    }
}

/// What an entry stands for: of a further name of a file, that file.
async fn file(view: &View, entry: Option<Entry>) -> Result<Option<Node>, ViewError> {
    match entry.map(|entry| entry.node) {
        Some(Node::Link { first }) => Ok(Some(view.inode(first).await?.node)),
        node => Ok(node),
    }
}

fn is_one_kind(a: &Node, b: &Node) -> bool {
    matches!(
        (a, b),
        (Node::File { .. }, Node::File { .. })
            | (Node::Dir { .. }, Node::Dir { .. })
            | (Node::Symlink { .. }, Node::Symlink { .. })
    )
}

/// In what two of one kind differ, apart from what is below them. Files are the same by the hash of their content, however
/// they were cut.
fn aspects(a: &Node, b: &Node) -> Vec<Aspect> {
    let mut aspects = Vec::new();
    match (a, b) {
        (Node::File { content: a, .. }, Node::File { content: b, .. }) if !is_same_content(a, b) => {
            aspects.push(Aspect::Content);
        }
        (Node::Symlink { target: a, .. }, Node::Symlink { target: b, .. }) if a != b => {
            aspects.push(Aspect::Target)
        }
        _ => {}
    }
    if let (Some(a), Some(b)) = (a.meta(), b.meta()) {
        aspects.extend(meta_aspects(a, b));
    }
    aspects
}

fn is_same_content(a: &Content, b: &Content) -> bool {
    a.file_hash() == b.file_hash()
}

fn meta_aspects(a: &Meta, b: &Meta) -> Vec<Aspect> {
    let differ = [
        (a.mode != b.mode, Aspect::Mode),
        ((a.uid, a.gid) != (b.uid, b.gid), Aspect::Owner),
        ((a.mtime_s, a.mtime_ns) != (b.mtime_s, b.mtime_ns), Aspect::Time),
        (a.xattrs != b.xattrs, Aspect::Attributes),
    ];
    differ.into_iter().filter_map(|(differ, aspect)| differ.then_some(aspect)).collect()
}
