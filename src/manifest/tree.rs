//! Tree nodes: the entries of one directory.
//!
//! Owns: `TreeNode`, its rules, `TreeBuilder`.
//! Must not know: how the other nodes of the directory are got.
//! Invariant, trust, threads: those of `manifest`.

use minicbor::{Decode, Encode};

use super::split::{Part, SplitNode, Splitter};
use super::{
    Entry, FORMAT_VERSION, MAX_TOTAL, ManifestError, Name, Totals, decode_items, decode_node, encode_object,
    require,
};
use crate::id::{ID_LEN, Kind, TreeId};

const WHAT: &str = "a tree node";
/// More than the encoding of a `TreeChild` without its name.
const CHILD_OVERHEAD: usize = 160;

/// A run of a directory's entries, or the nodes that hold them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum TreeNode {
    /// Entries sorted by name, bytewise; names unique. Empty only for an empty directory.
    #[n(0)]
    Leaf(#[cbor(n(0), decode_with = "decode_items")] Vec<Entry>),
    /// At least two children, sorted by `first`.
    #[n(1)]
    Branch(#[cbor(n(0), decode_with = "decode_items")] Vec<TreeChild>),
}

/// A tree node as its parent describes it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TreeChild {
    /// The name of its first entry.
    #[n(0)]
    pub first: Name,
    #[n(1)]
    pub tree: TreeId,
    /// Number of the directory's entries in and below it, hard links included; at least 1.
    #[n(2)]
    pub entries: u64,
    /// All that these entries and the directories among them hold.
    #[n(3)]
    pub totals: Totals,
}

/// Where in a node the way to something leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeStep<'a> {
    /// The entry itself. `index` entries and `offset` positions of the node come before it.
    Entry { entry: &'a Entry, index: u64, offset: u64 },
    /// A child to go on in. `index` entries and `offset` positions of the node come before those of the child.
    Child { child: &'a TreeChild, index: u64, offset: u64 },
}

impl TreeNode {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        encode_object(FORMAT_VERSION, self)
    }

    /// Decodes and checks a node. Everything that the node alone can show is checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let node: Self = decode_node(WHAT, bytes)?;
        node.check()?;
        Ok(node)
    }

    /// The node's id.
    pub fn id(&self) -> TreeId {
        TreeId::of(&self.encode())
    }

    /// Number of the directory's entries in and below this node.
    pub fn entries(&self) -> u64 {
        match self {
            Self::Leaf(entries) => entries.len() as u64,
            // Bounded by `check`; a node made by hand may saturate.
            Self::Branch(children) => children.iter().fold(0, |sum, child| sum.saturating_add(child.entries)),
        }
    }

    /// The sum over the node. A reader compares it with what the node's parent promised.
    pub fn totals(&self) -> Result<Totals, ManifestError> {
        match self {
            Self::Leaf(entries) => Totals::sum(WHAT, entries.iter().map(|entry| entry.node.totals())),
            Self::Branch(children) => Totals::sum(WHAT, children.iter().map(|child| Some(child.totals))),
        }
    }

    fn check(&self) -> Result<(), ManifestError> {
        self.totals()?;
        match self {
            Self::Leaf(entries) => {
                let sorted = entries.windows(2).all(|pair| pair[0].name < pair[1].name);
                require(sorted, WHAT, "names are sorted and unique")?;
                entries.iter().try_for_each(|entry| entry.node.check())
            }
            Self::Branch(children) => {
                require(children.len() >= 2, WHAT, "a branch has at least two children")?;
                let sorted = children.windows(2).all(|pair| pair[0].first < pair[1].first);
                require(sorted, WHAT, "children are sorted")?;
                require(children.iter().all(|child| child.entries > 0), WHAT, "no child is empty")?;
                let entries = children.iter().try_fold(0u64, |sum, child| sum.checked_add(child.entries));
                require(entries.is_some_and(|sum| sum <= MAX_TOTAL), WHAT, "totals stay below 2^63")
            }
        }
    }
}

/// The first 8 bytes, little-endian, of the BLAKE3 of a name.
fn mark_of(name: &Name) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(name.as_bytes()).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl Part for Entry {
    fn mark(&self) -> u64 {
        mark_of(&self.name)
    }

    fn weight(&self) -> usize {
        Self::weight(self)
    }
}

impl Part for TreeChild {
    // The name, not the id: a changed file must not move the borders between nodes.
    fn mark(&self) -> u64 {
        mark_of(&self.first)
    }

    fn weight(&self) -> usize {
        CHILD_OVERHEAD + self.first.as_bytes().len()
    }
}

impl SplitNode for TreeNode {
    type Item = Entry;
    type Child = TreeChild;

    fn leaf(items: Vec<Entry>) -> Self {
        Self::Leaf(items)
    }

    fn branch(children: Vec<TreeChild>) -> Self {
        Self::Branch(children)
    }

    const KIND: Kind = Kind::Tree;

    fn bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        Ok(self.encode())
    }

    fn described(&self, hash: [u8; ID_LEN]) -> Result<TreeChild, ManifestError> {
        let first = match self {
            Self::Leaf(entries) => entries.first().map(|entry| &entry.name),
            Self::Branch(children) => children.first().map(|child| &child.first),
        };
        let first = first.cloned().ok_or(ManifestError::Rule { what: WHAT, rule: "no child is empty" })?;
        let tree = TreeId::from_bytes(hash);
        Ok(TreeChild { first, tree, entries: self.entries(), totals: self.totals()? })
    }
}

/// Builds the nodes of one directory from its entries in order. Holds a few nodes at most.
pub struct TreeBuilder {
    splitter: Splitter<TreeNode>,
    last: Option<Name>,
}

impl TreeBuilder {
    /// A directory without entries so far.
    #[expect(clippy::new_without_default, reason = "there is no default directory")]
    pub fn new() -> Self {
        Self { splitter: Splitter::new(), last: None }
    }

    /// Adds the next entry; its name must be greater than the last one. Finished nodes go to `sink`, which returns the
    /// hash by which each is found.
    pub fn push<E, S>(&mut self, entry: Entry, sink: &mut S) -> Result<(), E>
    where
        E: From<ManifestError>,
        S: FnMut(Kind, Vec<u8>) -> Result<[u8; ID_LEN], E>,
    {
        let ascends = self.last.as_ref().is_none_or(|last| *last < entry.name);
        require(ascends, WHAT, "names are sorted and unique")?;
        self.last = Some(entry.name.clone());
        self.splitter.push(entry, sink)
    }

    /// Ends the directory: the id of its root node and the totals of all that it holds, itself not counted.
    pub fn finish<E, S>(self, sink: &mut S) -> Result<(TreeId, Totals), E>
    where
        E: From<ManifestError>,
        S: FnMut(Kind, Vec<u8>) -> Result<[u8; ID_LEN], E>,
    {
        if let Some(root) = self.splitter.finish(sink)? {
            return Ok((root.tree, root.totals));
        }
        let hash = sink(Kind::Tree, TreeNode::Leaf(Vec::new()).encode())?;
        Ok((TreeId::from_bytes(hash), Totals::default()))
    }
}
