//! Each rule of the format, and an object that breaks it.

use super::*;

#[test]
fn names_obey_the_rules() {
    for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
        assert!(Name::new(bad).is_err(), "{bad:?}");
    }
    for good in [&b"..."[..], b"\n", b"\xff\xfe", b" ", &[b'x'; 255]] {
        assert_eq!(Name::new(good).unwrap().as_bytes(), good);
    }
}

/// Encodes without checking, then decodes: the rule that refused it.
fn refusal(node: &TreeNode) -> &'static str {
    match TreeNode::decode(&node.encode()) {
        Err(ManifestError::Rule { rule, .. }) => rule,
        other => panic!("not refused by a rule: {other:?}"),
    }
}

fn with_node(node: Node) -> TreeNode {
    TreeNode::Leaf(vec![Entry { name: name("x"), node }])
}

fn with_meta(meta: Meta) -> TreeNode {
    with_node(Node::Dir { meta, tree: TreeId::of(b""), totals: Totals::default() })
}

fn with_content(size: u64, content: Content) -> TreeNode {
    with_node(Node::File { meta: Meta::default(), nlink: 1, size, content })
}

#[test]
fn every_rule_of_entries_is_enforced() {
    let xattr = |name: &[u8], len: usize| Xattr { name: name.to_vec(), value: vec![0; len] };
    let with_xattrs = |xattrs| with_meta(Meta { xattrs, ..Meta::default() });
    let symlink = |nlink, target: &[u8]| {
        with_node(Node::Symlink { meta: Meta::default(), nlink, target: target.to_vec() })
    };
    let id = ChunkId::of(b"x");
    let hash = FileHash::from_bytes(*id.as_bytes());
    let blob = |chunks| Content::Blob { id: BlobId::of(b""), chunks, hash };
    let too_many = Totals { inodes: MAX_TOTAL, ..Totals::default() };
    let cases = [
        (with_meta(Meta { mode: 0o10000, ..Meta::default() }), "12 bits"),
        (with_meta(Meta { mtime_ns: 1_000_000_000, ..Meta::default() }), "nanoseconds"),
        (with_xattrs(vec![xattr(b"", 0)]), "1 to 255 bytes"),
        (with_xattrs(vec![xattr(b"a\0", 0)]), "no NUL"),
        (with_xattrs(vec![xattr(&[b'a'; 256], 0)]), "1 to 255 bytes"),
        (with_xattrs(vec![xattr(b"b", 0), xattr(b"a", 0)]), "sorted"),
        (with_xattrs(vec![xattr(b"a", 0), xattr(b"a", 1)]), "unique"),
        (with_xattrs(vec![xattr(b"a", MAX_XATTRS_LEN - 8)]), "64 KiB"),
        (symlink(0, b"t"), "one name"),
        (symlink(1, b""), "1 to 4095"),
        (symlink(1, b"a\0"), "no NUL"),
        (symlink(1, &[b'a'; 4096]), "1 to 4095"),
        (with_node(Node::Link { first: 1 }), "no directory"),
        (with_content(1, Content::Empty), "empty file"),
        (with_content(0, Content::Chunk { id, hash: None }), "1 byte to 4 MiB"),
        (with_content((4 << 20) + 1, Content::Chunk { id, hash: None }), "1 byte to 4 MiB"),
        (with_content(1, Content::Chunk { id, hash: Some(hash) }), "left out"),
        (with_content(0, blob(0)), "1 to 2^63"),
        (with_content(5, blob(6)), "no more chunks"),
        (
            with_node(Node::File { meta: Meta::default(), nlink: 0, size: 0, content: Content::Empty }),
            "one name",
        ),
        (
            with_node(Node::Dir { meta: Meta::default(), tree: TreeId::of(b""), totals: too_many }),
            "below 2^63",
        ),
        (with_content(u64::MAX, blob(0)), "below 2^63"),
    ];
    for (node, rule) in cases {
        let refused = refusal(&node);
        assert!(refused.contains(rule), "`{refused}` for {node:?}, expected `{rule}`");
    }
}

#[test]
fn every_rule_of_nodes_is_enforced() {
    let child = |first, entries, inodes| TreeChild {
        first: name(first),
        tree: TreeId::of(b""),
        entries,
        totals: Totals { inodes, ..Totals::default() },
    };
    assert!(refusal(&TreeNode::Leaf(vec![file("b"), file("a")])).contains("sorted"));
    assert!(refusal(&TreeNode::Leaf(vec![file("a"), file("a")])).contains("unique"));
    for (children, rule) in [
        (vec![], "two children"),
        (vec![child("a", 1, 1)], "two children"),
        (vec![child("b", 1, 1), child("a", 1, 1)], "sorted"),
        (vec![child("a", 1, 1), child("a", 1, 1)], "sorted"),
        (vec![child("a", 0, 1), child("b", 1, 1)], "empty"),
        (vec![child("a", MAX_TOTAL, 1), child("b", 1, 1)], "below 2^63"),
        (vec![child("a", 1, MAX_TOTAL), child("b", 1, 1)], "below 2^63"),
    ] {
        assert!(refusal(&TreeNode::Branch(children)).contains(rule), "{rule}");
    }
    let hole = |len| Extent { len, chunk: None };
    let blob = |bytes, chunks| BlobChild { blob: BlobId::of(b""), bytes, chunks };
    for (node, rule) in [
        (BlobNode::Leaf(vec![]), "has an extent"),
        (BlobNode::Leaf(vec![chunk(1, 0)]), "1 byte"),
        (BlobNode::Leaf(vec![hole(0)]), "1 byte"),
        (BlobNode::Leaf(vec![chunk(1, (4 << 20) + 1)]), "4 MiB"),
        (BlobNode::Leaf(vec![hole(1), hole(1)]), "are one"),
        (BlobNode::Leaf(vec![hole(MAX_TOTAL), chunk(1, 1)]), "below 2^63"),
        (BlobNode::Branch(vec![blob(1, 1)]), "two children"),
        (BlobNode::Branch(vec![blob(1, 1), blob(0, 0)]), "1 byte"),
        (BlobNode::Branch(vec![blob(1, 1), blob(1, 2)]), "no more chunks"),
        (BlobNode::Branch(vec![blob(MAX_TOTAL, 1), blob(1, 1)]), "below 2^63"),
    ] {
        let refused = BlobNode::decode(&node.encode());
        assert!(
            matches!(refused, Err(ManifestError::Rule { rule: r, .. }) if r.contains(rule)),
            "{refused:?}"
        );
    }
}

#[test]
fn every_rule_of_snapshots_is_enforced() {
    let good = Snapshot {
        root: Meta::default(),
        tree: TreeId::of(b""),
        totals: Totals::default(),
        chunking: Chunking::default(),
        sealed: None,
    };
    assert_eq!(Snapshot::decode(&good.encode()), Ok(good.clone()));
    for bad in [
        Snapshot { root: Meta { mode: 1 << 12, ..Meta::default() }, ..good.clone() },
        Snapshot { totals: Totals { bytes: MAX_TOTAL + 1, ..Totals::default() }, ..good.clone() },
        Snapshot { chunking: Chunking::Cdc { average: 65_537 }, ..good.clone() },
        Snapshot { chunking: Chunking::Fixed { size: 8 << 20 }, ..good.clone() },
    ] {
        assert!(matches!(Snapshot::decode(&bad.encode()), Err(ManifestError::Rule { .. })), "{bad:?}");
    }
}

#[test]
fn a_newer_version_is_named_as_such() {
    let mut bytes = TreeNode::Leaf(vec![]).encode();
    assert_eq!(bytes[..2], [0x82, 1]);
    bytes[1] = 2;
    let refused = TreeNode::decode(&bytes);
    assert_eq!(refused, Err(ManifestError::Version { what: "a tree node", found: 2 }));
}

#[test]
fn a_node_does_not_expand() {
    let links = |count: u64| {
        let link = |number| Entry { name: name(&format!("{number:05}")), node: Node::Link { first: 2 } };
        TreeNode::Leaf((0..count).map(link).collect())
    };
    assert!(TreeNode::decode(&links(MAX_NODE_ITEMS).encode()).is_ok());
    assert!(TreeNode::decode(&links(MAX_NODE_ITEMS + 1).encode()).is_err());
    assert!(matches!(
        TreeNode::decode(&vec![0; MAX_NODE_LEN + 1]),
        Err(ManifestError::Codec(CodecError::TooLong { .. }))
    ));
}
