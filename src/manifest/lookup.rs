//! Finding one entry of a tree node, or one extent of a blob node, among up to a thousand.
//!
//! Owns: running sums beside a decoded node, by which a position, an index or an offset is found by halving.
//! Must not know: how the other nodes are got.
//! Invariant: the sums are those of the node they are beside, which does not change.
//! Trust: that of `manifest`. Threads: pure values.

use super::{BlobNode, BlobStep, TreeNode, TreeStep};

/// For each item, the sum of all before it; and the sum of all at the end.
struct Sums(Vec<u64>);

impl Sums {
    fn of(sizes: impl Iterator<Item = u64>) -> Self {
        // No sum can overflow in a checked node; one made by hand must not panic here.
        let ends = sizes.scan(0u64, |end, size| {
            *end = end.saturating_add(size);
            Some(*end)
        });
        Self([0].into_iter().chain(ends).collect())
    }

    fn before(&self, item: usize) -> u64 {
        self.0[item]
    }

    /// The item that `offset` falls into. Empty items hold nothing, so that of several with one beginning it is the
    /// last.
    fn holding(&self, offset: u64) -> Option<usize> {
        let after = self.0.partition_point(|start| *start <= offset);
        // `0` is before everything, so that `after` is at least 1; behind the last sum is nothing.
        if after == self.0.len() { None } else { Some(after - 1) }
    }
}

/// A tree node, ready for many look-ups.
pub struct IndexedTree {
    node: TreeNode,
    /// Positions that each entry or child takes.
    offsets: Sums,
    /// Entries of the directory in and below each child; nothing in a leaf, where it is one each.
    indices: Sums,
}

impl IndexedTree {
    pub fn new(node: TreeNode) -> Self {
        let (offsets, indices) = match &node {
            TreeNode::Leaf(entries) => {
                (Sums::of(entries.iter().map(|entry| entry.node.span())), Sums(Vec::new()))
            }
            TreeNode::Branch(children) => (
                Sums::of(children.iter().map(|child| child.totals.inodes)),
                Sums::of(children.iter().map(|child| child.entries)),
            ),
        };
        Self { node, offsets, indices }
    }

    pub fn node(&self) -> &TreeNode {
        &self.node
    }

    /// Bytes of memory besides the node.
    pub fn weight(&self) -> usize {
        size_of_val(self.offsets.0.as_slice()) + size_of_val(self.indices.0.as_slice())
    }

    /// The entry or child with this number, counted from 0.
    fn step(&self, item: usize) -> Option<TreeStep<'_>> {
        Some(match &self.node {
            TreeNode::Leaf(entries) => {
                let entry = entries.get(item)?;
                TreeStep::Entry { entry, index: item as u64, offset: self.offsets.before(item) }
            }
            TreeNode::Branch(children) => {
                let child = children.get(item)?;
                let (index, offset) = (self.indices.before(item), self.offsets.before(item));
                TreeStep::Child { child, index, offset }
            }
        })
    }

    /// All entries or children in order, with what comes before each.
    pub fn steps(&self) -> impl Iterator<Item = TreeStep<'_>> {
        (0..).map_while(|item| self.step(item))
    }

    /// The way to the entry called `name`; `None` if the node has none.
    pub fn find(&self, name: &[u8]) -> Option<TreeStep<'_>> {
        let item = match &self.node {
            TreeNode::Leaf(entries) => {
                entries.binary_search_by(|entry| entry.name.as_bytes().cmp(name)).ok()?
            }
            TreeNode::Branch(children) => {
                children.partition_point(|child| child.first.as_bytes() <= name).checked_sub(1)?
            }
        };
        self.step(item)
    }

    /// The way to the inode `offset` positions after the node's first: to the entry that takes the position,
    /// or to the directory above it.
    pub fn at_position(&self, offset: u64) -> Option<TreeStep<'_>> {
        self.step(self.offsets.holding(offset)?)
    }

    /// The way to the entry before which the node has `index` others.
    pub fn at_index(&self, index: u64) -> Option<TreeStep<'_>> {
        match &self.node {
            TreeNode::Leaf(_) => self.step(usize::try_from(index).ok()?),
            TreeNode::Branch(_) => self.step(self.indices.holding(index)?),
        }
    }
}

/// A blob node, ready for many look-ups.
pub struct IndexedBlob {
    node: BlobNode,
    /// Bytes of each extent or child.
    starts: Sums,
}

impl IndexedBlob {
    pub fn new(node: BlobNode) -> Self {
        let starts = match &node {
            BlobNode::Leaf(extents) => Sums::of(extents.iter().map(|extent| extent.len)),
            BlobNode::Branch(children) => Sums::of(children.iter().map(|child| child.bytes)),
        };
        Self { node, starts }
    }

    pub fn node(&self) -> &BlobNode {
        &self.node
    }

    /// Bytes of memory besides the node.
    pub fn weight(&self) -> usize {
        size_of_val(self.starts.0.as_slice())
    }

    /// The extents or children from the one that holds the byte at `offset` on, each with the number of bytes of the
    /// node before it. None past the end of the node.
    pub fn steps_from(&self, offset: u64) -> impl Iterator<Item = BlobStep<'_>> {
        let first = self.starts.holding(offset).unwrap_or(self.starts.0.len());
        (first..).map_while(|item| {
            Some(match &self.node {
                BlobNode::Leaf(extents) => {
                    BlobStep::Extent { extent: extents.get(item)?, start: self.starts.before(item) }
                }
                BlobNode::Branch(children) => {
                    BlobStep::Child { child: children.get(item)?, start: self.starts.before(item) }
                }
            })
        })
    }

    /// The way to the byte at `offset` from the node's first; `None` past its end.
    pub fn at_byte(&self, offset: u64) -> Option<BlobStep<'_>> {
        self.steps_from(offset).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_offset_is_held_by_the_item_that_it_falls_into(sizes in proptest::collection::vec(0u64..4, 0..40)) {
            let sums = Sums::of(sizes.iter().copied());
            let mut offset = 0;
            for (item, size) in sizes.iter().enumerate() {
                prop_assert_eq!(sums.before(item), offset);
                for _ in 0..*size {
                    prop_assert_eq!(sums.holding(offset), Some(item));
                    offset += 1;
                }
            }
            prop_assert_eq!(sums.holding(offset), None);
            prop_assert_eq!(sums.holding(u64::MAX), None);
        }
    }
}
