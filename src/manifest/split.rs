//! How a long directory or file becomes a tree of nodes.
//!
//! Owns: the rule that says where a node ends, and the bookkeeping of the levels.
//! Must not know: what the items are, beyond a mark and a weight for each.
//! Invariant: the nodes depend on the sequence of items alone, and an item added or removed changes only
//! the nodes near it and their ancestors.
//! Trust: items are our own. Threads: pure values; finished nodes go to a closure of the caller, which says by what hash they
//! are found: their own, or that of what they were sealed to.
//!
//! The rule, part of the format. Items are taken in order. On each level a node ends
//! - after an item with which it has at least `MIN_ITEMS` and whose mark has the 8 bits of the level all
//!   zero (bits 0-7 on level 0, the leaves; 8-15 on level 1; … ; level 8 begins again at bit 0), or
//! - after `MAX_NODE_ITEMS` items, or
//! - before an item with which its weight would exceed `MAX_WEIGHT`.
//!
//! At the end of the sequence the started nodes are ended from level 0 up; a started branch of one child is
//! not made: its child moves up in its place. The only child left on the top level is the root.

use super::{MAX_NODE_ITEMS, ManifestError};
use crate::id::{ID_LEN, Kind};

const MIN_ITEMS: usize = 64;
const MAX_WEIGHT: usize = 256 << 10;
const MARK_BITS: usize = 8;

/// An item of a leaf, or a child in a branch.
pub(super) trait Part {
    /// 64 bits that look random and stay the same when the part's neighbours change.
    fn mark(&self) -> u64;
    /// An upper bound of the encoded length, in bytes.
    fn weight(&self) -> usize;
}

/// A node type that sequences are split into.
pub(super) trait SplitNode: Sized {
    type Item: Part;
    type Child: Part;
    fn leaf(items: Vec<Self::Item>) -> Self;
    fn branch(children: Vec<Self::Child>) -> Self;
    const KIND: Kind;
    /// Checks and encodes the node.
    fn bytes(&self) -> Result<Vec<u8>, ManifestError>;
    /// Describes the node, which is called `hash`, to its parent.
    fn described(&self, hash: [u8; ID_LEN]) -> Result<Self::Child, ManifestError>;
}

struct Run<P> {
    parts: Vec<P>,
    weight: usize,
}

impl<P: Part> Run<P> {
    fn new() -> Self {
        Self { parts: Vec::new(), weight: 0 }
    }

    fn has_room_for(&self, part: &P) -> bool {
        self.parts.is_empty() || self.weight + part.weight() <= MAX_WEIGHT
    }

    fn push(&mut self, part: P) {
        self.weight += part.weight();
        self.parts.push(part);
    }

    fn is_complete(&self, level: usize) -> bool {
        let shift = (level * MARK_BITS) % u64::BITS as usize;
        let marked =
            self.parts.last().is_some_and(|part| (part.mark() >> shift).trailing_zeros() >= MARK_BITS as u32);
        self.parts.len() as u64 >= MAX_NODE_ITEMS || (marked && self.parts.len() >= MIN_ITEMS)
    }

    fn take(&mut self) -> Vec<P> {
        self.weight = 0;
        std::mem::take(&mut self.parts)
    }
}

/// Splits one sequence. Holds at most one unfinished node for each level.
pub(super) struct Splitter<N: SplitNode> {
    leaf: Run<N::Item>,
    /// Index 0 is level 1.
    branches: Vec<Run<N::Child>>,
}

impl<N: SplitNode> Splitter<N> {
    pub(super) fn new() -> Self {
        Self { leaf: Run::new(), branches: Vec::new() }
    }

    /// Takes the next item; nodes that it completes go to `sink`.
    pub(super) fn push<E, S>(&mut self, item: N::Item, sink: &mut S) -> Result<(), E>
    where
        E: From<ManifestError>,
        S: FnMut(Kind, Vec<u8>) -> Result<[u8; ID_LEN], E>,
    {
        if !self.leaf.has_room_for(&item) {
            self.end_leaf(sink)?;
        }
        self.leaf.push(item);
        if self.leaf.is_complete(0) { self.end_leaf(sink) } else { Ok(()) }
    }

    /// Ends the sequence and describes its root node; `None` if there was no item.
    pub(super) fn finish<E, S>(mut self, sink: &mut S) -> Result<Option<N::Child>, E>
    where
        E: From<ManifestError>,
        S: FnMut(Kind, Vec<u8>) -> Result<[u8; ID_LEN], E>,
    {
        if !self.leaf.parts.is_empty() {
            self.end_leaf(sink)?;
        }
        let mut level = 1;
        while level <= self.branches.len() {
            let run = &mut self.branches[level - 1];
            if run.parts.len() > 1 {
                self.end_branch(level, sink)?;
            } else if let Some(only) = run.take().pop() {
                if level == self.branches.len() {
                    return Ok(Some(only));
                }
                self.push_child(level + 1, only, sink)?;
            }
            level += 1;
        }
        Ok(None)
    }

    fn end_leaf<E, S>(&mut self, sink: &mut S) -> Result<(), E>
    where
        E: From<ManifestError>,
        S: FnMut(Kind, Vec<u8>) -> Result<[u8; ID_LEN], E>,
    {
        let node = N::leaf(self.leaf.take());
        let child = node.described(sink(N::KIND, node.bytes()?)?)?;
        self.push_child(1, child, sink)
    }

    fn end_branch<E, S>(&mut self, level: usize, sink: &mut S) -> Result<(), E>
    where
        E: From<ManifestError>,
        S: FnMut(Kind, Vec<u8>) -> Result<[u8; ID_LEN], E>,
    {
        let node = N::branch(self.branches[level - 1].take());
        let child = node.described(sink(N::KIND, node.bytes()?)?)?;
        self.push_child(level + 1, child, sink)
    }

    fn push_child<E, S>(&mut self, level: usize, child: N::Child, sink: &mut S) -> Result<(), E>
    where
        E: From<ManifestError>,
        S: FnMut(Kind, Vec<u8>) -> Result<[u8; ID_LEN], E>,
    {
        if self.branches.len() < level {
            self.branches.push(Run::new());
        }
        if !self.branches[level - 1].has_room_for(&child) {
            self.end_branch(level, sink)?;
        }
        self.branches[level - 1].push(child);
        if self.branches[level - 1].is_complete(level) { self.end_branch(level, sink) } else { Ok(()) }
    }
}
