//! The manifest against junk and against naive lists.

mod rules;

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::chunking::Chunking;
use crate::id::{BlobId, ChunkId, FileHash, ID_LEN, KeyId, Kind, ObjectId, TreeId};

/// Where builders put nodes in these tests.
#[derive(Default)]
struct Nodes(HashMap<ObjectId, Vec<u8>>);

impl Nodes {
    fn sink(&mut self) -> impl FnMut(Kind, Vec<u8>) -> Result<[u8; ID_LEN], ManifestError> {
        |kind, bytes| {
            assert!(bytes.len() <= MAX_NODE_LEN);
            let id = ObjectId::of(kind, &bytes);
            self.0.insert(id, bytes);
            Ok(id.hash)
        }
    }

    fn tree(&self, id: TreeId) -> TreeNode {
        TreeNode::decode(&self.0[&id.into()]).unwrap()
    }

    fn blob(&self, id: BlobId) -> BlobNode {
        BlobNode::decode(&self.0[&id.into()]).unwrap()
    }

    fn build_tree(&mut self, entries: &[Entry]) -> (TreeId, Totals) {
        let mut builder = TreeBuilder::new();
        let mut sink = self.sink();
        for entry in entries {
            builder.push(entry.clone(), &mut sink).unwrap();
        }
        builder.finish(&mut sink).unwrap()
    }

    fn build_blob(&mut self, extents: &[Extent]) -> BlobChild {
        let mut builder = BlobBuilder::new();
        let mut sink = self.sink();
        for extent in extents {
            builder.push(*extent, &mut sink).unwrap();
        }
        builder.finish(&mut sink).unwrap()
    }

    /// Follows `step` from the root of a directory down to an entry: the entry, its index and its offset.
    fn walk(
        &self,
        root: TreeId,
        step: impl Fn(&IndexedTree, u64, u64) -> Option<TreeStep<'_>>,
    ) -> Option<(Entry, u64, u64)> {
        let (mut tree, mut indices, mut positions) = (root, 0, 0);
        for _ in 0..MAX_LEVELS {
            let node = IndexedTree::new(self.tree(tree));
            match step(&node, indices, positions)? {
                TreeStep::Entry { entry, index, offset } => {
                    return Some((entry.clone(), indices + index, positions + offset));
                }
                TreeStep::Child { child, index, offset } => {
                    let below = self.tree(child.tree);
                    assert_eq!((below.entries(), below.totals().unwrap()), (child.entries, child.totals));
                    tree = child.tree;
                    indices += index;
                    positions += offset;
                }
            }
        }
        panic!("more levels than the format allows");
    }

    fn extent_at(&self, root: BlobId, offset: u64) -> Option<(Extent, u64)> {
        let (mut blob, mut before) = (root, 0);
        for _ in 0..MAX_LEVELS {
            match IndexedBlob::new(self.blob(blob)).at_byte(offset - before)? {
                BlobStep::Extent { extent, start } => return Some((*extent, before + start)),
                BlobStep::Child { child, start } => {
                    assert_eq!(self.blob(child.blob).totals().unwrap(), (child.bytes, child.chunks));
                    blob = child.blob;
                    before += start;
                }
            }
        }
        panic!("more levels than the format allows");
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn file(text: &str) -> Entry {
    let content = Content::Chunk { id: ChunkId::of(text.as_bytes()), hash: None };
    let meta = Meta { mode: 0o644, mtime_s: 1_700_000_000, mtime_ns: 5, ..Meta::default() };
    Entry { name: name(text), node: Node::File { meta, nlink: 1, size: 100_000, content } }
}

fn chunk(number: u64, len: u64) -> Extent {
    Extent { len, chunk: Some(ChunkId::of(&number.to_le_bytes())) }
}

fn any_id() -> impl Strategy<Value = [u8; ID_LEN]> {
    any::<u64>().prop_map(|seed| *ChunkId::of(&seed.to_le_bytes()).as_bytes())
}

fn any_name() -> impl Strategy<Value = Name> {
    prop::collection::vec(any::<u8>(), 1..20)
        .prop_filter_map("rules of names", |bytes| Name::new(&bytes).ok())
}

fn any_totals() -> impl Strategy<Value = Totals> {
    (0..1u64 << 40, 0..1u64 << 40, 0..1u64 << 40).prop_map(|(inodes, chunks, bytes)| Totals {
        inodes,
        chunks,
        bytes,
    })
}

fn any_meta() -> impl Strategy<Value = Meta> {
    let xattrs =
        prop::collection::btree_map("user\\.[a-z]{1,4}", prop::collection::vec(any::<u8>(), 0..8), 0..3);
    (0u32..=0o7777, any::<i64>(), 0u32..1_000_000_000, any::<u32>(), any::<u32>(), xattrs).prop_map(
        |(mode, mtime_s, mtime_ns, uid, gid, xattrs)| {
            let xattrs =
                xattrs.into_iter().map(|(name, value)| Xattr { name: name.into_bytes(), value }).collect();
            Meta { mode, mtime_s, mtime_ns, uid, gid, xattrs }
        },
    )
}

fn any_content() -> impl Strategy<Value = (u64, Content)> {
    prop_oneof![
        Just((0, Content::Empty)),
        (1u64..=4 << 20, any_id(), prop::option::of(any_id())).prop_map(|(size, id, hash)| {
            let hash = hash.filter(|hash| *hash != id).map(FileHash::from_bytes);
            (size, Content::Chunk { id: ChunkId::from_bytes(id), hash })
        }),
        (1u64..1 << 40, any_id(), any_id(), any::<u64>()).prop_map(|(size, id, hash, chunks)| {
            let chunks = chunks % (size + 1);
            (size, Content::Blob { id: BlobId::from_bytes(id), chunks, hash: FileHash::from_bytes(hash) })
        }),
    ]
}

fn any_node() -> impl Strategy<Value = Node> {
    prop_oneof![
        (any_meta(), 1u32.., any_content()).prop_map(|(meta, nlink, (size, content))| Node::File {
            meta,
            nlink,
            size,
            content
        }),
        (any_meta(), any_id(), any_totals()).prop_map(|(meta, tree, totals)| Node::Dir {
            meta,
            tree: TreeId::from_bytes(tree),
            totals
        }),
        (any_meta(), 1u32.., prop::collection::vec(1u8.., 1..30))
            .prop_map(|(meta, nlink, target)| Node::Symlink { meta, nlink, target }),
        (2u64..).prop_map(|first| Node::Link { first }),
    ]
}

fn any_entries(most: usize) -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::btree_map(any_name(), any_node(), 0..most)
        .prop_map(|map| map.into_iter().map(|(name, node)| Entry { name, node }).collect())
}

fn any_tree_node() -> impl Strategy<Value = TreeNode> {
    let child = (any_id(), 1u64..1 << 40, any_totals());
    prop_oneof![
        any_entries(8).prop_map(TreeNode::Leaf),
        prop::collection::btree_map(any_name(), child, 2..8).prop_map(|map| {
            let child = |(first, (tree, entries, totals))| TreeChild {
                first,
                tree: TreeId::from_bytes(tree),
                entries,
                totals,
            };
            TreeNode::Branch(map.into_iter().map(child).collect())
        }),
    ]
}

/// Extents with a hole now and then, never two in a row.
fn any_extents(most: usize) -> impl Strategy<Value = Vec<Extent>> {
    prop::collection::vec((1u64..300_000, any_id(), prop::bool::weighted(0.2)), 1..most).prop_map(|parts| {
        let mut extents: Vec<Extent> = Vec::new();
        for (len, id, hole) in parts {
            let hole = hole && extents.last().is_none_or(|last| last.chunk.is_some());
            extents.push(Extent { len, chunk: (!hole).then(|| ChunkId::from_bytes(id)) });
        }
        extents
    })
}

fn any_blob_node() -> impl Strategy<Value = BlobNode> {
    prop_oneof![
        any_extents(8).prop_map(BlobNode::Leaf),
        prop::collection::vec((any_id(), 1u64..1 << 40, any::<u64>()), 2..8).prop_map(|parts| {
            let child = |(blob, bytes, chunks)| BlobChild {
                blob: BlobId::from_bytes(blob),
                bytes,
                chunks: chunks % (bytes + 1),
            };
            BlobNode::Branch(parts.into_iter().map(child).collect())
        }),
    ]
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let chunking = prop_oneof![
        (14u32..=20).prop_map(|bits| Chunking::Cdc { average: 1 << bits }),
        (14u32..=20).prop_map(|bits| Chunking::Auto { average: 1 << bits }),
        (16u32..=22).prop_map(|bits| Chunking::Fixed { size: 1 << bits }),
    ];
    let sealed = (any_id(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..99));
    let sealed = sealed.prop_map(|(key, generation, snapshot)| Sealed {
        key: KeyId::from_bytes(key),
        generation,
        snapshot: snapshot.into(),
    });
    (any_meta(), any_id(), any_totals(), chunking, prop::option::of(sealed)).prop_map(
        |(root, tree, totals, chunking, sealed)| Snapshot {
            root,
            tree: TreeId::from_bytes(tree),
            totals,
            chunking,
            sealed,
        },
    )
}

/// Whatever is accepted has one spelling.
fn accepted_only_as_written(bytes: &[u8]) {
    if let Ok(node) = TreeNode::decode(bytes) {
        assert_eq!(node.encode(), bytes);
    }
    if let Ok(node) = BlobNode::decode(bytes) {
        assert_eq!(node.encode(), bytes);
    }
    if let Ok(snapshot) = Snapshot::decode(bytes) {
        assert_eq!(snapshot.encode(), bytes);
    }
}

proptest! {
    #[test]
    fn tree_nodes_round_trip(node in any_tree_node()) {
        prop_assert_eq!(TreeNode::decode(&node.encode()), Ok(node));
    }

    #[test]
    fn blob_nodes_round_trip(node in any_blob_node()) {
        prop_assert_eq!(BlobNode::decode(&node.encode()), Ok(node));
    }

    #[test]
    fn snapshots_round_trip(snapshot in any_snapshot()) {
        prop_assert_eq!(Snapshot::decode(&snapshot.encode()), Ok(snapshot));
    }

    #[test]
    fn junk_is_no_object(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        accepted_only_as_written(&bytes);
    }

    #[test]
    fn damage_is_refused_or_is_another_object(
        tree in any_tree_node(),
        blob in any_blob_node(),
        snapshot in any_snapshot(),
        at: prop::sample::Index,
        byte: u8,
        how in 0u8..4,
    ) {
        for mut bytes in [tree.encode(), blob.encode(), snapshot.encode()] {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] ^= byte.max(1),
                1 => bytes.truncate(at),
                2 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
            accepted_only_as_written(&bytes);
        }
    }

    #[test]
    fn an_entry_weighs_more_than_its_encoding(mut entries in any_entries(4), long in 1usize..=255) {
        entries.push(Entry { name: Name::new(&vec![b'x'; long]).unwrap(), node: Node::Link { first: u64::MAX } });
        for entry in entries {
            prop_assert!(codec::encode(&entry).len() <= entry.weight());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_built_directory_equals_the_list(entries in any_entries(3000)) {
        let mut nodes = Nodes::default();
        let (root, totals) = nodes.build_tree(&entries);
        let mut offset = 0;
        for (entry, index) in entries.iter().zip(0..) {
let span = entry.node.span();
            // Each look-up decodes its nodes, so a sample must do.
            if index % 29 == 0 || index + 1 == entries.len() as u64 {
                let expected = Some((entry.clone(), index, offset));
                let by_name = nodes.walk(root, |node, _, _| node.find(entry.name.as_bytes()));
                prop_assert_eq!(&by_name, &expected);
                prop_assert_eq!(&nodes.walk(root, |node, at, _| node.at_index(index - at)), &expected);
                let (first, last) = (offset, offset + span.max(1) - 1);
                for position in [first, last].into_iter().filter(|_| span > 0) {
                    let found = nodes.walk(root, |node, _, at| node.at_position(position - at));
                    prop_assert_eq!(&found, &expected);
                }
            }
            offset += span;
        }
        prop_assert_eq!(totals.inodes, offset);
        prop_assert_eq!(nodes.walk(root, |node, _, at| node.at_position(offset - at)), None);
        prop_assert_eq!(nodes.walk(root, |node, at, _| node.at_index(entries.len() as u64 - at)), None);
        prop_assert_eq!(nodes.walk(root, |node, _, _| node.find(b"\xff is in no list")), None);
        prop_assert_eq!(nodes.walk(root, |node, _, _| node.find(b"\0")), None);
    }

    #[test]
    fn a_built_file_equals_the_list(extents in any_extents(3000)) {
        let mut nodes = Nodes::default();
        let root = nodes.build_blob(&extents);
        let mut start = 0;
        for (number, extent) in extents.iter().enumerate() {
            for offset in [start, start + extent.len - 1].into_iter().filter(|_| number % 29 == 0) {
                prop_assert_eq!(nodes.extent_at(root.blob, offset), Some((*extent, start)));
            }
            start += extent.len;
        }
        prop_assert_eq!(root.bytes, start);
        prop_assert_eq!(root.chunks, extents.iter().filter(|extent| extent.chunk.is_some()).count() as u64);
        prop_assert_eq!(nodes.extent_at(root.blob, start), None);
    }
}

#[test]
fn one_entry_more_rewrites_few_nodes_of_a_large_directory() {
    let mut entries: Vec<Entry> =
        (0..100_000).map(|number| file(&format!("image-{number:08}.jpg"))).collect();
    let mut before = Nodes::default();
    before.build_tree(&entries);
    for (at, added) in [(0, "a"), (50_000, "image-00049999.jpg-more"), (100_000, "z")] {
        entries.insert(at, file(added));
        let mut after = Nodes::default();
        after.build_tree(&entries);
        let new: Vec<_> = after.0.iter().filter(|(id, _)| !before.0.contains_key(id)).collect();
        let bytes: usize = new.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(
            new.len() <= 8 && bytes < 400 << 10,
            "{} nodes, {bytes} bytes of {}",
            new.len(),
            after.0.len()
        );
        entries.remove(at);
    }
    assert!(before.0.len() > 200);
}

#[test]
fn one_chunk_more_rewrites_few_nodes_of_a_large_file() {
    let mut extents: Vec<Extent> = (0..100_000).map(|number| chunk(number, 65_536)).collect();
    let mut before = Nodes::default();
    before.build_blob(&extents);
    extents.insert(50_000, chunk(1_000_000, 10));
    let mut after = Nodes::default();
    after.build_blob(&extents);
    let new = after.0.keys().filter(|id| !before.0.contains_key(id)).count();
    assert!(new <= 8, "{new} of {} nodes", after.0.len());
}

#[test]
fn equal_chunks_and_heavy_entries_stay_within_the_limits() {
    let mut nodes = Nodes::default();
    let root = nodes.build_blob(&vec![chunk(0, 1); 5000]);
    assert_eq!((root.bytes, root.chunks), (5000, 5000));
    let mut entries: Vec<Entry> = (0..200).map(|number| file(&format!("{number:0255}"))).collect();
    for entry in &mut entries {
        if let Node::File { meta, .. } = &mut entry.node {
            meta.xattrs = vec![Xattr { name: b"user.x".to_vec(), value: vec![7; MAX_XATTRS_LEN - 14] }];
        }
    }
    // The sink asserts the length of each node.
    let (root, totals) = nodes.build_tree(&entries);
    assert_eq!(totals.inodes, 200);
    assert_eq!(nodes.walk(root, |node, at, _| node.at_index(150 - at)).unwrap().0, entries[150]);
}

#[test]
fn an_empty_directory_is_one_empty_leaf_and_an_empty_file_no_blob() {
    let mut nodes = Nodes::default();
    let (root, totals) = nodes.build_tree(&[]);
    assert_eq!((nodes.tree(root), totals), (TreeNode::Leaf(vec![]), Totals::default()));
    assert!(BlobBuilder::new().finish(&mut nodes.sink()).is_err());
}

#[test]
fn the_builder_refuses_disorder() {
    for second in ["a", "b"] {
        let mut builder = TreeBuilder::new();
        let mut nodes = Nodes::default();
        builder.push(file("b"), &mut nodes.sink()).unwrap();
        assert!(builder.push(file(second), &mut nodes.sink()).is_err());
    }
}

#[test]
fn a_million_small_files_take_little() {
    // The design allows 60 MB for the metadata of 1,000,000 files, stored (that is, compressed).
    let entries: Vec<Entry> = (0..10_000).map(|number| file(&format!("image-{number:08}.jpg"))).collect();
    let mut nodes = Nodes::default();
    nodes.build_tree(&entries);
    let plain: usize = nodes.0.values().map(Vec::len).sum();
    assert!(plain / entries.len() < 90, "{} bytes a file", plain / entries.len());
}
