//! What a tree looks like, read the plain way from disk and from a snapshot, to be compared.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::id::{ChunkId, ObjectId, SnapshotId, TreeId};
use crate::manifest::{BlobNode, Content, Entry, Meta, Node, Snapshot, Totals, TreeNode, Xattr};
use crate::store::Store;

/// One name of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub meta: Meta,
    pub body: Body,
    pub nlink: u32,
    /// The name of the same inode that comes first in the walk.
    pub first: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    File(Vec<u8>),
    Dir,
    Symlink(Vec<u8>),
}

/// By path below the root; the root itself is the empty path.
pub type Tree = BTreeMap<PathBuf, Seen>;

/// The tree on disk. Only `user.*` attributes; hard links counted among the names of the tree.
pub fn on_disk(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut inodes: HashMap<(u64, u64), Vec<PathBuf>> = HashMap::new();
    disk_entry(root, Path::new(""), &mut tree, &mut inodes);
    for names in inodes.values() {
        for name in names {
            let seen = tree.get_mut(name).unwrap();
            seen.first.clone_from(&names[0]);
            seen.nlink = names.len() as u32;
        }
    }
    tree
}

fn disk_entry(root: &Path, path: &Path, tree: &mut Tree, inodes: &mut HashMap<(u64, u64), Vec<PathBuf>>) {
    let full = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) };
    let stat = full.symlink_metadata().unwrap();
    let mut xattrs: Vec<Xattr> = xattr::list(&full)
        .unwrap()
        .filter(|name| name.as_bytes().starts_with(b"user.") && !stat.is_symlink())
        .map(|name| Xattr { value: xattr::get(&full, &name).unwrap().unwrap(), name: name.into_vec() })
        .collect();
    xattrs.sort();
    let meta = Meta {
        mode: stat.mode() & 0o7777,
        mtime_s: stat.mtime(),
        mtime_ns: stat.mtime_nsec() as u32,
        uid: stat.uid(),
        gid: stat.gid(),
        xattrs,
    };
    let body = if stat.is_dir() {
        Body::Dir
    } else if stat.is_symlink() {
        Body::Symlink(full.read_link().unwrap().into_os_string().into_vec())
    } else {
        Body::File(std::fs::read(&full).unwrap())
    };
    if !stat.is_dir() {
        inodes.entry((stat.dev(), stat.ino())).or_default().push(path.to_owned());
    }
    let is_dir = body == Body::Dir;
    tree.insert(path.to_owned(), Seen { meta, body, nlink: 1, first: path.to_owned() });
    if is_dir {
        let mut names: Vec<_> = full.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for name in names {
            disk_entry(root, &path.join(name), tree, inodes);
        }
    }
}

/// The plain bytes of an object, verified.
pub fn load(store: &Store, id: impl Into<ObjectId>) -> Vec<u8> {
    let id = id.into();
    let packed = store.get(&id).unwrap().unwrap_or_else(|| panic!("{id} is not in the store"));
    packed.verify(&id).unwrap().plain().to_vec()
}

/// All entries of a directory, from all its nodes.
pub fn entries(store: &Store, tree: TreeId) -> Vec<Entry> {
    match TreeNode::decode(&load(store, tree)).unwrap() {
        TreeNode::Leaf(entries) => entries,
        TreeNode::Branch(children) => children.iter().flat_map(|child| entries(store, child.tree)).collect(),
    }
}

/// The extents of a file: length, and bytes unless it is a hole.
pub fn extents(store: &Store, content: &Content) -> Vec<(u64, Option<Vec<u8>>)> {
    let chunk = |id: &ChunkId| load(store, *id);
    match content {
        Content::Empty => vec![],
        Content::Chunk { id, .. } => vec![(chunk(id).len() as u64, Some(chunk(id)))],
        Content::Blob { id, .. } => blob_extents(store, *id)
            .iter()
            .map(|extent| (extent.len, extent.chunk.as_ref().map(chunk)))
            .collect(),
    }
}

fn blob_extents(store: &Store, id: crate::id::BlobId) -> Vec<crate::manifest::Extent> {
    match BlobNode::decode(&load(store, id)).unwrap() {
        BlobNode::Leaf(extents) => extents,
        BlobNode::Branch(children) => {
            children.iter().flat_map(|child| blob_extents(store, child.blob)).collect()
        }
    }
}

fn file_bytes(store: &Store, size: u64, content: &Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (len, data) in extents(store, content) {
        match data {
            Some(data) => bytes.extend_from_slice(&data),
            None => bytes.resize(bytes.len() + len as usize, 0),
        }
    }
    assert_eq!(bytes.len() as u64, size);
    assert_eq!(blake3::hash(&bytes).as_bytes(), content.file_hash().as_bytes());
    bytes
}

/// The tree in a snapshot. Checks positions and totals on the way.
pub fn in_store(store: &Store, id: SnapshotId) -> Tree {
    let snapshot = Snapshot::decode(&load(store, id)).unwrap();
    let mut reader = Reader { store, tree: Tree::new(), firsts: HashMap::new(), next_position: 2 };
    let root = Seen { meta: snapshot.root, body: Body::Dir, nlink: 1, first: PathBuf::new() };
    reader.tree.insert(PathBuf::new(), root);
    assert_eq!(reader.directory(Path::new(""), snapshot.tree), snapshot.totals);
    assert_eq!(reader.next_position, snapshot.totals.inodes + 2);
    reader.tree
}

struct Reader<'a> {
    store: &'a Store,
    tree: Tree,
    /// Path of the first name at each position.
    firsts: HashMap<u64, PathBuf>,
    next_position: u64,
}

impl Reader<'_> {
    fn directory(&mut self, path: &Path, tree: TreeId) -> Totals {
        let mut sum = Totals::default();
        for Entry { name, node } in entries(self.store, tree) {
            let path = path.join(name.as_os_str());
            sum = sum.checked_add(node.totals().unwrap()).unwrap();
            if let Node::Link { first } = node {
                let seen = self.tree[&self.firsts[&first]].clone();
                self.tree.insert(path, seen);
                continue;
            }
            self.firsts.insert(self.next_position, path.clone());
            self.next_position += 1;
            let (meta, body, nlink, below) = match node {
                Node::File { meta, nlink, size, content } => {
                    (meta, Body::File(file_bytes(self.store, size, &content)), nlink, None)
                }
                Node::Symlink { meta, nlink, target } => (meta, Body::Symlink(target), nlink, None),
                Node::Dir { meta, tree, totals } => (meta, Body::Dir, 1, Some((tree, totals))),
                Node::Link { .. } => unreachable!(),
            };
            self.tree.insert(path.clone(), Seen { meta, body, nlink, first: path.clone() });
            if let Some((tree, totals)) = below {
                assert_eq!(self.directory(&path, tree), totals);
            }
        }
        sum
    }
}
