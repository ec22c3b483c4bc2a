//! The bytes of the format, pinned.
//!
//! Each file in `tests/fixtures` holds one object. It must decode to the value built here, encode to the same
//! bytes, and have the id given here. A test that fails here means that existing datasets would no longer be
//! readable or no longer be deduplicated: the format needs a new version number, not new fixtures.

use bcai::chunking::Chunking;
use bcai::crypto::dataset::{DatasetKey, Keyring};
use bcai::crypto::wrap::{Subject, Wrap};
use bcai::crypto::{PublicKey, SecretKey};
use bcai::id::{BlobId, ChunkId, FileHash, Genesis, KeyId, Kind, ObjectId, SnapshotId, TreeId};
use bcai::log::Block;
use bcai::manifest::{
    BlobBuilder, BlobChild, BlobNode, Content, Entry, Extent, Inventory, ManifestError, Meta, Name, Node,
    Sealed, Snapshot, Totals, TreeBuilder, TreeChild, TreeNode, Xattr,
};
use bcai::pack::bundle::{Contents, End, HEADER_LEN, Header, SEGMENT_HEAD_LEN, Segment, SegmentKind};
use bcai::pack::sealed::{self, Plain};
use bcai::pack::{Compression, Packed};

/// The committed bytes of an object.
fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).expect("a name within the rules")
}

fn meta(mode: u32) -> Meta {
    Meta { mode, mtime_s: 1_700_000_000, mtime_ns: 123_456_789, uid: 1000, gid: 100, xattrs: vec![] }
}

fn totals(inodes: u64, chunks: u64, bytes: u64) -> Totals {
    Totals { inodes, chunks, bytes }
}

/// One entry of each kind.
fn tree_leaf() -> TreeNode {
    let xattr = |name: &str, value: &[u8]| Xattr { name: name.into(), value: value.to_vec() };
    let with_xattrs =
        Meta { mtime_s: -1, xattrs: vec![xattr("user.a", b""), xattr("user.b", b"\0\xff")], ..meta(0o4755) };
    let file = |meta, nlink, size, content| Node::File { meta, nlink, size, content };
    let id = ChunkId::of(b"chunk");
    let hash = FileHash::from_bytes(*ChunkId::of(b"file").as_bytes());
    let blob = Content::Blob { id: BlobId::of(b"blob"), chunks: 300, hash };
    let node_of = [
        (&b"\n\xff"[..], file(meta(0o600), 1, 0, Content::Empty)),
        (b"blob", file(with_xattrs, 2, 20_000_000, blob)),
        (b"chunk", file(meta(0o644), 1, 5, Content::Chunk { id, hash: None })),
        (b"dir", Node::Dir { meta: meta(0o1777), tree: TreeId::of(b"tree"), totals: totals(7, 8, 9) }),
        (b"link", Node::Link { first: 3 }),
        (b"sealed", file(meta(0), 1, 5, Content::Chunk { id, hash: Some(hash) })),
        (b"symlink", Node::Symlink { meta: meta(0o777), nlink: 1, target: b"../else\xffwhere".to_vec() }),
    ];
    TreeNode::Leaf(node_of.into_iter().map(|(bytes, node)| Entry { name: name(bytes), node }).collect())
}

fn tree_branch() -> TreeNode {
    let child = |first: &[u8], entries, totals| TreeChild {
        first: name(first),
        tree: TreeId::of(first),
        entries,
        totals,
    };
    TreeNode::Branch(vec![
        child(b"a", 64, totals(100, 1_000, 65_536_000)),
        child(b"image-00000064.jpg", 1024, totals(1024, 2_000, 5_000_000_000)),
    ])
}

fn blob_leaf() -> BlobNode {
    let extent = |len, chunk: Option<&[u8]>| Extent { len, chunk: chunk.map(ChunkId::of) };
    BlobNode::Leaf(vec![extent(65_536, Some(b"1")), extent(1 << 40, None), extent(1, Some(b"2"))])
}

fn blob_branch() -> BlobNode {
    let child = |seed: &[u8], bytes, chunks| BlobChild { blob: BlobId::of(seed), bytes, chunks };
    BlobNode::Branch(vec![child(b"1", 20_000_000, 300), child(b"2", 5_000_000_000, 0)])
}

fn snapshot() -> Snapshot {
    let chunking = Chunking::Cdc { average: 65_536 };
    Snapshot { root: meta(0o755), tree: TreeId::of(b"root"), totals: totals(1, 2, 3), chunking, sealed: None }
}

fn snapshot_auto() -> Snapshot {
    Snapshot { chunking: Chunking::Auto { average: 65_536 }, ..snapshot() }
}

fn snapshot_sealed() -> Snapshot {
    let sealed = Sealed { key: KeyId::of(&[7; 32]), generation: 3, snapshot: b"sealed"[..].to_vec().into() };
    Snapshot { root: Meta::default(), sealed: Some(sealed), ..snapshot_auto() }
}

macro_rules! golden {
    ($($test:ident: $type:ty = $value:expr, $file:literal, $id:literal;)*) => {$(
        #[test]
        fn $test() {
            let (value, bytes) = ($value, fixture($file));
            assert_eq!(<$type>::decode(&bytes), Ok(value.clone()));
            assert_eq!(value.encode(), bytes);
            assert_eq!(value.id().to_string(), $id);
        }
    )*};
}

golden! {
    a_tree_leaf: TreeNode = tree_leaf(), "tree-leaf.cbor", "e82cc5a7e27084a12e02fe91724fad4340847ea2d1d8b55183e005d194d38ba5";
    a_tree_branch: TreeNode = tree_branch(), "tree-branch.cbor", "b83f987f3ecc88411214110916c111b455fa3f98ab064fbe602ddf57b2d9df5a";
    a_blob_leaf: BlobNode = blob_leaf(), "blob-leaf.cbor", "12f69df2f9ca17a05a8f203aa9975ce7c6086af15dfeb00340df0a8facc84929";
    a_blob_branch: BlobNode = blob_branch(), "blob-branch.cbor", "79fb3a4474c895ee64fce07441d0bd67f39e5f559073e6cacc47677a808cc719";
    a_snapshot: Snapshot = snapshot(), "snapshot.cbor", "d920ff11381385537be167dd775ce374b53f30861c1dcaecb6b54b5dad9d3059";
    an_encrypted_snapshot: Snapshot = snapshot_sealed(), "snapshot-sealed.cbor", "484ce6a0296420827b98a7bc758184f306b61ced85e825d5b085e52922bcf5ec";
    a_snapshot_cut_by_format: Snapshot = snapshot_auto(), "snapshot-auto.cbor", "fdb7b2a3009554392d3f67605f6271b5c73f36df780b8fb1e0289f3b8ee58dfa";
}

/// Where nodes end is part of the format: otherwise the same directory would have two ids.
#[test]
fn the_division_into_nodes() {
    let mut nodes = 0;
    let mut count = |kind: Kind, bytes: Vec<u8>| -> Result<[u8; 32], ManifestError> {
        nodes += 1;
        Ok(ObjectId::of(kind, &bytes).hash)
    };
    let mut tree = TreeBuilder::new();
    let mut blob = BlobBuilder::new();
    for number in 0..5000u64 {
        let id = ChunkId::of(&number.to_le_bytes());
        let node =
            Node::File { meta: meta(0o644), nlink: 1, size: 5, content: Content::Chunk { id, hash: None } };
        tree.push(Entry { name: name(format!("{number:05}").as_bytes()), node }, &mut count).unwrap();
        blob.push(Extent { len: 1 + number, chunk: Some(id) }, &mut count).unwrap();
    }
    let (tree, sums) = tree.finish(&mut count).unwrap();
    assert_eq!(sums, totals(5000, 5000, 25_000));
    assert_eq!(tree.to_string(), "15eea7ef2be4fa29973dc5615dadab4d825604a39f87b1eee546a7b9b127bfdd");
    let blob = blob.finish(&mut count).unwrap();
    assert_eq!((blob.bytes, blob.chunks), (12_502_500, 5000));
    assert_eq!(blob.blob.to_string(), "9b5ed54ad1b3196aecfd504fd737ed0159ed3da68895d0649bc245ec12333226");
    assert_eq!(nodes, 34);
}

/// A snapshot is found by its id alone, so the id must be that of the object store's kind.
#[test]
fn ids_are_those_of_their_kind() {
    let bytes = fixture("snapshot.cbor");
    assert_eq!(ObjectId::from(SnapshotId::of(&bytes)), ObjectId::of(Kind::Snapshot, &bytes));
}

fn dataset_key(generation: u32) -> DatasetKey {
    DatasetKey::root([42; 32]).at(generation).expect("a generation that there is")
}

/// Sealed bytes must open for ever, and the same object must be sealed to the same bytes, or nothing is deduplicated any more.
#[test]
fn sealed_objects() {
    let keys = Keyring::new(dataset_key(3));
    let plain = b"the bytes of a chunk"[..].to_vec().into();
    for (generation, file) in [(3, "sealed-chunk.bin"), (0, "sealed-chunk-before.bin")] {
        let bytes = fixture(file);
        let id = ObjectId::of(Kind::Chunk, &bytes);
        assert_eq!(sealed::open(&keys, Kind::Chunk, &id, &bytes).as_ref(), Ok(&plain));
        let again = Plain::new(Kind::Chunk, &plain, Compression::None)
            .and_then(|plain| plain.seal(&keys, generation));
        assert_eq!(again.as_deref(), Some(&bytes[..]));
    }
    assert_eq!(
        dataset_key(3).id().to_string(),
        "602c6ece1cf5fef80c056eff5f873f93de337e10b6ad8bdd4807e8f084ce0753"
    );
}

#[test]
fn a_wrapped_key() {
    let [from, to] = [1, 2].map(|seed| SecretKey::from_bytes([seed; 32]));
    let subject = Subject { genesis: Genesis::from_bytes([3; 32]), name: "team/photos" };
    let bytes = fixture("wrap.bin");
    let wrap = Wrap::decode(&bytes).expect("a wrap");
    let parties: (PublicKey, PublicKey) = (from.public(), to.public());
    assert_eq!((wrap.generation, (wrap.from, wrap.to)), (3, parties));
    assert_eq!(wrap.open(subject, &to), Ok(dataset_key(3)));
    let again = Wrap::new(&dataset_key(3), subject, from.public(), to.public(), [4; 32]);
    assert_eq!(again.map(|wrap| wrap.encode()), Ok(bytes));
}

/// What everybody may see of an encrypted snapshot depends on its objects alone, or two versions would share nothing of it.
#[test]
fn the_inventory_of_sealed_objects() {
    let mut nodes = 0;
    let mut count = |kind: Kind, bytes: Vec<u8>| -> Result<[u8; 32], ManifestError> {
        nodes += 1;
        Ok(ObjectId::of(kind, &bytes).hash)
    };
    let mut inventory = Inventory::new();
    for number in 0..5000u64 {
        inventory.push(ChunkId::of(&number.to_le_bytes()), 57 + number, &mut count).unwrap();
    }
    let sealed = Sealed { key: KeyId::of(&[7; 32]), generation: 3, snapshot: Vec::new().into() };
    let shown = inventory.finish(|_| Ok(sealed), &mut count).unwrap();
    assert_eq!(shown.totals, totals(1, 5000, 12_782_500));
    assert_eq!(shown.id().to_string(), "e5ecd992a300d3488888262d8ba7b42354abcec30226ee65b47dd77231e25ce4");
    assert_eq!(nodes, 13);
}

/// A bundle of one small version, as the first program that wrote bundles did: all of it is still read, and would be written
/// again as it is.
#[test]
fn a_bundle() {
    let bytes = fixture("bundle.bin");
    let header = Header::decode(&bytes).unwrap();
    let mut at = HEADER_LEN + header.contents_len;
    let contents = Contents::decode(&header, &bytes[HEADER_LEN..at]).unwrap();
    assert_eq!(contents.encode(), bytes[..at]);
    assert_eq!(
        contents.genesis().to_string(),
        "f61d77002ea48e52b9b223005a0701f3b4b93dfa84f4f715ec03740a4cebc32b"
    );
    let names: Vec<_> = contents.versions.iter().map(|v| format!("{}@{}", v.name, v.label)).collect();
    assert_eq!((names, contents.first, contents.head), (vec!["tiny@v1".to_owned()], 1, 1));
    let mut digest = blake3::Hasher::new();
    digest.update(&bytes[..at]);
    let (mut kinds, mut objects, mut stored_bytes) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        let segment = Segment::decode(&bytes[at..]).unwrap();
        let head = &bytes[at..at + SEGMENT_HEAD_LEN];
        let body = &bytes[at + SEGMENT_HEAD_LEN..][..segment.len as usize];
        assert_eq!(Segment::of(segment.kind, segment.count, &[body]).encode(), head);
        match segment.kind {
            SegmentKind::Log => {
                let block = Block::decode(segment.blocks(body).unwrap()[0]).unwrap();
                assert_eq!((block.header.height, block.header.id()), (contents.head, contents.header));
            }
            SegmentKind::Objects => {
                let mut stored = &body[segment.index_len()..];
                for record in segment.records(&body[..segment.index_len()]).unwrap() {
                    let (own, rest) = stored.split_at(record.stored_len as usize);
                    let packed =
                        Packed::from_parts(record.codec as u8, record.plain_len, own.to_vec().into());
                    packed.unwrap().verify(&record.id).unwrap();
                    kinds.push(record.id.kind as u8);
                    (objects, stored_bytes) = (objects + 1, stored_bytes + own.len() as u64);
                    stored = rest;
                }
            }
            SegmentKind::End => {
                let end = End::decode(body.try_into().unwrap());
                assert_eq!(end, End { objects, stored_bytes, digest: *digest.finalize().as_bytes() });
            }
        }
        digest.update(head);
        at += SEGMENT_HEAD_LEN + body.len();
    }
    // The snapshot, its directory, and two files, in the order of the walk.
    assert_eq!(kinds, [3, 2, 0, 0]);
    assert_eq!(objects, contents.objects);
}
