//! A small tree in memory that counts what it is asked, and misbehaves when told to.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bcai_mount::{Answer, Attr, Backing, DirEntry, FileKind, Listing, ROOT, Seek, StatFs, Tree, TreeError};

pub const MTIME: (i64, u32) = (1_700_000_000, 123_456_789);
pub const OLD_MTIME: (i64, u32) = (-86_400, 5);

#[derive(Debug, Clone)]
pub enum Content {
    Bytes(Vec<u8>),
    /// A hole of this many bytes, then the data.
    HoleThen(u64, Vec<u8>),
    Target(Vec<u8>),
    Dir {
        parent: u64,
        names: BTreeMap<Vec<u8>, u64>,
    },
    /// Reading it panics.
    Panics,
    /// Reading it drops the answer.
    Forgets,
    /// Reading it fails in time.
    TimesOut,
    /// Reading it is answered when the test says so.
    Waits,
}

#[derive(Debug)]
struct Node {
    attr: Attr,
    content: Content,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Default)]
pub struct Memory {
    /// Files on disk for some inodes, with the length they are said to have.
    backings: Mutex<HashMap<u64, (PathBuf, u64)>>,
    /// What all leases are clones of.
    pub lease: Arc<()>,
    nodes: HashMap<u64, Node>,
    asked: Mutex<HashMap<&'static str, u64>>,
    waiting: Mutex<Vec<Answer<[u8]>>>,
}

impl Memory {
    pub fn new() -> Self {
        let mut memory = Self::default();
        memory.insert(ROOT, Content::Dir { parent: ROOT, names: BTreeMap::new() });
        memory
    }

    fn insert(&mut self, ino: u64, content: Content) {
        let (kind, size) = match &content {
            Content::Bytes(bytes) => (FileKind::File, bytes.len() as u64),
            Content::HoleThen(hole, bytes) => (FileKind::File, hole + bytes.len() as u64),
            Content::Target(target) => (FileKind::Symlink, target.len() as u64),
            Content::Dir { .. } => (FileKind::Dir, 0),
            Content::Panics | Content::Forgets | Content::TimesOut | Content::Waits => (FileKind::File, 5),
        };
        let mode = if kind == FileKind::Dir { 0o755 } else { 0o644 };
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let attr = Attr { ino, kind, size, mode, nlink: 1, uid, gid, mtime: MTIME };
        self.nodes.insert(ino, Node { attr, content, xattrs: BTreeMap::new() });
    }

    /// Adds `name` to the directory `parent`, and gives its inode number.
    pub fn add(&mut self, parent: u64, name: impl AsRef<[u8]>, content: Content) -> u64 {
        let ino = self.nodes.len() as u64 + 1;
        self.insert(ino, content);
        match &mut self.nodes.get_mut(&parent).expect("parent exists").content {
            Content::Dir { names, .. } => names.insert(name.as_ref().to_vec(), ino),
            other => panic!("{other:?} is not a directory"),
        };
        ino
    }

    pub fn file(&mut self, name: &str, bytes: &[u8]) -> u64 {
        self.add(ROOT, name, Content::Bytes(bytes.to_vec()))
    }

    pub fn dir(&mut self, name: &str) -> u64 {
        self.add(ROOT, name, Content::Dir { parent: ROOT, names: BTreeMap::new() })
    }

    pub fn attr_mut(&mut self, ino: u64) -> &mut Attr {
        &mut self.nodes.get_mut(&ino).expect("inode exists").attr
    }

    pub fn set_xattr(&mut self, ino: u64, name: &str, value: &[u8]) {
        let node = self.nodes.get_mut(&ino).expect("inode exists");
        node.xattrs.insert(name.into(), value.to_vec());
    }

    /// From now on `ino` can be read from `path`, which is said to have `size` bytes.
    pub fn set_backing(&self, ino: u64, path: &Path, size: u64) {
        self.backings.lock().unwrap().insert(ino, (path.to_owned(), size));
    }

    /// How many files are kept from being taken away.
    pub fn leases(&self) -> usize {
        Arc::strong_count(&self.lease) - 1
    }

    /// How often `operation` was asked for.
    pub fn asked(&self, operation: &str) -> u64 {
        self.asked.lock().unwrap().get(operation).copied().unwrap_or(0)
    }

    /// Answers of reads that wait, taken out.
    pub fn take_waiting(&self) -> Vec<Answer<[u8]>> {
        std::mem::take(&mut self.waiting.lock().unwrap())
    }

    fn node(&self, operation: &'static str, ino: u64) -> Result<&Node, TreeError> {
        *self.asked.lock().unwrap().entry(operation).or_default() += 1;
        self.nodes.get(&ino).ok_or(TreeError::NotFound)
    }

    fn find(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>, TreeError> {
        match &self.node("lookup", parent)?.content {
            Content::Dir { names, .. } => Ok(names.get(name).map(|ino| self.nodes[ino].attr.clone())),
            _ => Err(TreeError::NotDir),
        }
    }

    fn list(&self, ino: u64, offset: u64, max: usize) -> Result<Listing, TreeError> {
        let Content::Dir { parent, names } = &self.node("read_dir", ino)?.content else {
            return Err(TreeError::NotDir);
        };
        let entries = names.iter().enumerate().skip(offset as usize).take(max);
        let entries = entries.map(|(position, (name, ino))| DirEntry {
            name: name.clone(),
            next: position as u64 + 1,
            attr: self.nodes[ino].attr.clone(),
        });
        Ok(Listing { parent: *parent, entries: entries.collect() })
    }

    fn flat(content: &Content) -> Result<Vec<u8>, TreeError> {
        match content {
            Content::Bytes(bytes) => Ok(bytes.clone()),
            Content::HoleThen(hole, bytes) => Ok([&vec![0; *hole as usize], &bytes[..]].concat()),
            Content::Dir { .. } => Err(TreeError::IsDir),
            Content::TimesOut => Err(TreeError::TimedOut),
            _ => Err(TreeError::Invalid),
        }
    }
}

fn give<T: ?Sized, O: std::borrow::Borrow<T>>(answer: Answer<T>, result: Result<O, TreeError>) {
    match result {
        Ok(value) => answer.send(Ok(value.borrow())),
        Err(error) => answer.send(Err(error)),
    }
}

impl Tree for Memory {
    fn lookup(&self, parent: u64, name: &[u8], answer: Answer<Option<Attr>>) {
        give(answer, self.find(parent, name));
    }

    fn attr(&self, ino: u64, answer: Answer<Attr>) {
        give(answer, self.node("attr", ino).map(|node| node.attr.clone()));
    }

    fn read_link(&self, ino: u64, answer: Answer<[u8]>) {
        let target = self.node("read_link", ino).and_then(|node| match &node.content {
            Content::Target(target) => Ok(target.clone()),
            _ => Err(TreeError::Invalid),
        });
        give(answer, target);
    }

    fn read_dir(&self, ino: u64, offset: u64, max: usize, answer: Answer<Listing>) {
        give(answer, self.list(ino, offset, max));
    }

    fn read(&self, ino: u64, offset: u64, len: u32, answer: Answer<[u8]>) {
        let node = self.node("read", ino).expect("a file that was opened exists");
        match &node.content {
            Content::Panics => panic!("told to"),
            Content::Forgets => drop(answer),
            Content::Waits => self.waiting.lock().unwrap().push(answer),
            content => give(
                answer,
                Self::flat(content).map(|bytes| {
                    let start = bytes.len().min(offset as usize);
                    bytes[start..bytes.len().min(start + len as usize)].to_vec()
                }),
            ),
        }
    }

    fn backing(&self, ino: u64, answer: Answer<Option<Backing>>) {
        let node = self.node("backing", ino).expect("a file that is opened exists");
        if matches!(node.content, Content::Panics) {
            panic!("told to");
        }
        let backing = self.backings.lock().unwrap().get(&ino).map(|(path, size)| Backing {
            file: File::open(path).unwrap(),
            size: *size,
            lease: self.lease.clone(),
        });
        answer.send(Ok(&backing));
    }

    fn xattr(&self, ino: u64, name: &[u8], answer: Answer<[u8]>) {
        let value =
            self.node("xattr", ino).and_then(|node| node.xattrs.get(name).cloned().ok_or(TreeError::NoXattr));
        give(answer, value);
    }

    fn list_xattrs(&self, ino: u64, answer: Answer<[Vec<u8>]>) {
        let names = self.node("list_xattrs", ino).map(|node| node.xattrs.keys().cloned().collect::<Vec<_>>());
        give(answer, names);
    }

    fn seek(&self, ino: u64, offset: u64, what: Seek, answer: Answer<u64>) {
        let found = self.node("seek", ino).and_then(|node| {
            let hole = if let Content::HoleThen(hole, _) = node.content { hole } else { 0 };
            match what {
                _ if offset >= node.attr.size => Err(TreeError::PastEnd),
                Seek::Data => Ok(offset.max(hole)),
                Seek::Hole if offset < hole => Ok(offset),
                Seek::Hole => Ok(node.attr.size),
            }
        });
        give(answer, found);
    }

    fn stat_fs(&self, answer: Answer<StatFs>) {
        answer.send(Ok(&StatFs { bytes: 1 << 30, inodes: self.nodes.len() as u64 }));
    }
}
