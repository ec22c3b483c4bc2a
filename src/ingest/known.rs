//! What earlier snapshots found out about files, so that unchanged ones are not read again.
//!
//! Owns: the rows that the store keeps of a directory's files (its listings), and when one may be believed.
//! Must not know: how a file is read.
//! Invariant: a file counts as unchanged only if what is remembered of it was true of the very state of the inode
//! that has just been listed, and all that its content needs is published in the store now. Whatever is wrong with a
//! row, the worst that comes of it is that files are read.
//! Trust: rows come from an index that may be damaged. They carry a hash, and are decoded as foreign bytes are.
//! Threads: functions called by the readers. A crash leaves: the rows of the last commit of the store.
//!
//! Why it is right. A row says: at the moment when the inode had this stamp, its content was this. The stamp has the
//! inode's change time, which the kernel sets at each change of content, attributes, owner or mode, and which no program
//! can set back. A row is written only of a stamp so old, when it was taken, that any later change has another
//! (`Stamp::is_final`); the content was read after that moment, and the stamp was the same afterwards. So whoever meets
//! the stamp again meets the content, and the moment at which it is met is that of the listing: the file was so during
//! the snapshot, as a file that is read was so while it was read. A change between the listing and the end of the
//! snapshot is one that a file read early may have undergone too. That the name is still in the directory, and that
//! none was added, is for `Scan::unchanged` to find out, for all files alike. Two things escape: a file system without
//! change times, and a program that writes through a memory mapping, whose stores show only when the kernel next
//! write-protects the page. Against those there is `--paranoid`.

use std::collections::HashSet;

use minicbor::{Decode, Encode};

use super::inventory::stored;
use super::source::{Stamp, meta};
use super::walk::{Item, Job, What};
use super::{IngestError, Run};
use crate::chunking::Chunking;
use crate::codec;
use crate::id::{BlobId, ID_LEN, KeyId, Kind, ObjectId};
use crate::manifest::{BlobNode, Content, Meta, Name, Node, Xattr};
use crate::pack::sealed;
use crate::store::{DirId, Keep, Listing, PutOutside, StoreError};

/// The version of the rows, and of the rule by which files become chunks: if either changes, so does this number.
const VERSION: u32 = 2;
/// The longest row that is decoded. What a job has at most is below it.
const MAX_ROW_LEN: usize = 1 << 20;
/// A file with attributes that take more than this is read each time.
const MAX_XATTRS_LEN: usize = 1 << 10;

/// One row: some files of one directory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Row {
    #[n(0)]
    version: u32,
    #[n(1)]
    chunking: Chunking,
    /// Sorted by name, names unique.
    #[n(2)]
    files: Vec<Fact>,
    /// The first generation of the key that the contents are sealed with: what one key has sealed, another cannot use.
    #[n(3)]
    key: Option<KeyId>,
}

/// What a file was when its inode had `stamp`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Fact {
    #[n(0)]
    pub name: Name,
    #[n(1)]
    pub stamp: Stamp,
    #[n(2)]
    pub xattrs: Vec<Xattr>,
    #[n(3)]
    pub content: Content,
}

impl Row {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = codec::encode(self);
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    /// `None` for whatever is not a sound row of this version.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, hash) = bytes.split_at_checked(bytes.len().checked_sub(ID_LEN)?)?;
        let sound = blake3::hash(body).as_bytes() == hash;
        let row: Self = sound.then(|| codec::decode("a listing", body, MAX_ROW_LEN).ok())??;
        let sorted = row.files.windows(2).all(|pair| pair[0].name < pair[1].name);
        (row.version == VERSION && sorted).then_some(row)
    }
}

/// The facts that hold for the files of `job`, one place for each item. None with `--paranoid`.
pub(super) fn recall(run: &Run<'_>, job: &Job) -> Result<Vec<Option<Fact>>, IngestError> {
    let mut facts: Vec<Option<Fact>> = Vec::new();
    facts.resize_with(job.items.len(), || None);
    let is_file = |item: &Item| matches!(item.what, What::File { .. });
    let (Some(first), Some(last)) = (job.items.first(), job.items.last()) else { return Ok(facts) };
    if run.options.paranoid || !job.items.iter().any(is_file) {
        return Ok(facts);
    }
    let rows = run.store.listings(run.tree, job.dir.id(), first.name.as_bytes(), last.name.as_bytes())?;
    for row in rows.iter().filter_map(|bytes| Row::decode(bytes)) {
        if row.chunking == run.options.chunking && row.key == key(run) {
            matching(&job.items, row.files, &mut facts);
        }
    }
    only_whole(run, &mut facts)?;
    Ok(facts)
}

/// What tells apart the keys that files are sealed with.
fn key(run: &Run<'_>) -> Option<KeyId> {
    run.options.keys.as_ref().map(|keys| keys.first())
}

/// Puts each fact to the item that it is about. Both are sorted by name.
fn matching(items: &[Item], known: Vec<Fact>, facts: &mut [Option<Fact>]) {
    let mut at = 0;
    for fact in known {
        at += items[at..].partition_point(|item| item.name < fact.name);
        let Some(item) = items.get(at) else { return };
        if let What::File { stat, .. } = &item.what
            && item.name == fact.name
            && fact.stamp == Stamp::of(stat)
            && fact.node(meta(stat), 1).check().is_ok()
        {
            facts[at] = Some(fact);
        }
    }
}

/// Drops the facts whose contents the store does not have, or does not keep as this snapshot is to keep them.
fn only_whole(run: &Run<'_>, facts: &mut [Option<Fact>]) -> Result<(), IngestError> {
    let chunk = |fact: &Fact| match &fact.content {
        Content::Chunk { id, .. } => Some(ObjectId::from(*id)),
        Content::Empty | Content::Blob { .. } => None,
    };
    let ids: Vec<ObjectId> = match run.in_place {
        // Those are asked for file by file.
        Some(_) => Vec::new(),
        None => facts.iter().flatten().filter_map(chunk).collect(),
    };
    let missing: HashSet<ObjectId> = run.store.missing(&ids, Keep::Published)?.into_iter().collect();
    for place in facts {
        let Some(fact) = place else { continue };
        let mut placed = PutOutside::default();
        let whole = match (&fact.content, &run.in_place) {
            (Content::Empty, _) => true,
            (Content::Chunk { id, .. }, None) => !missing.contains(&(*id).into()),
            (Content::Chunk { id, .. }, Some(_)) => are_kept(run, &[(*id).into()], &mut placed)?,
            (Content::Blob { id, chunks, .. }, _) => {
                blob_is_whole(run, *id, fact.stamp.size, *chunks, &mut placed)?
            }
        };
        match &run.in_place {
            _ if !whole => *place = None,
            Some(sources) => sources.count(&placed),
            None => {}
        }
    }
    Ok(())
}

/// Whether chunks are kept as this snapshot is to keep them; adds to `placed` where.
fn are_kept(run: &Run<'_>, chunks: &[ObjectId], placed: &mut PutOutside) -> Result<bool, IngestError> {
    if run.in_place.is_none() {
        return Ok(run.store.missing(chunks, Keep::Published)?.is_empty());
    }
    let Some(more) = run.store.placed(chunks)? else { return Ok(false) };
    placed.in_place += more.in_place;
    placed.cloned += more.cloned;
    Ok(true)
}

/// Whether a blob of `bytes` bytes in `chunks` chunks is published here with all of its nodes and chunks.
fn blob_is_whole(
    run: &Run<'_>,
    id: BlobId,
    bytes: u64,
    chunks: u64,
    placed: &mut PutOutside,
) -> Result<bool, IngestError> {
    // Each node has at least two children, none of them empty, and they make up what it promised: this ends.
    let mut nodes = vec![(id, bytes, chunks)];
    while let Some((id, bytes, chunks)) = nodes.pop() {
        run.check()?;
        let Some(node) = blob_node(run, id)? else { return Ok(false) };
        if node.totals() != Ok((bytes, chunks)) {
            return Ok(false);
        }
        let below: Vec<ObjectId> = match &node {
            BlobNode::Leaf(extents) => {
                extents.iter().filter_map(|extent| Some(extent.chunk?.into())).collect()
            }
            BlobNode::Branch(children) => {
                nodes.extend(children.iter().map(|child| (child.blob, child.bytes, child.chunks)));
                Vec::new()
            }
        };
        if !are_kept(run, &below, placed)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A published node that is sound; `None` for any other.
fn blob_node(run: &Run<'_>, id: BlobId) -> Result<Option<BlobNode>, IngestError> {
    let keys = run.options.keys.as_deref();
    let id = stored(keys, id.into());
    if !run.store.missing(&[id], Keep::Published)?.is_empty() {
        return Ok(None);
    }
    let packed = match run.store.get(&id) {
        // Reading the file mends nothing, but the error, if it is one, is then that of whoever needs the node.
        Ok(None) | Err(StoreError::Corrupt { .. }) => return Ok(None),
        Ok(Some(packed)) => packed,
        Err(error) => return Err(error.into()),
    };
    let Ok(object) = packed.verify(&id) else { return Ok(None) };
    let plain = match keys {
        None => object.plain().clone(),
        Some(keys) => match sealed::open(keys, Kind::Blob, &id, object.plain()) {
            Ok(plain) => plain,
            Err(_) => return Ok(None),
        },
    };
    Ok(BlobNode::decode(&plain).ok())
}

/// Has the store remember what a job found out; `facts` are sorted by name. Nothing is written when nothing is new.
pub(super) fn remember(
    run: &Run<'_>,
    dir: DirId,
    names: (&Name, &Name),
    files: Vec<Fact>,
) -> Result<(), IngestError> {
    let row = Row { version: VERSION, chunking: run.options.chunking, files, key: key(run) }.encode();
    if row.len() > MAX_ROW_LEN {
        return Ok(());
    }
    let (first, last) = (names.0.as_bytes().to_vec(), names.1.as_bytes().to_vec());
    Ok(run.store.keep_listing(run.tree, Listing { dir, first, last, bytes: row })?)
}

impl Fact {
    /// What may be remembered of a file just read; `None` for a file that has to be read each time.
    pub(super) fn of(name: &Name, stamp: Option<Stamp>, node: &Node) -> Option<Self> {
        let (Some(stamp), Node::File { meta, content, .. }) = (stamp, node) else { return None };
        let len: usize = meta.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
        let fact =
            || Self { name: name.clone(), stamp, xattrs: meta.xattrs.clone(), content: content.clone() };
        (len <= MAX_XATTRS_LEN).then(fact)
    }

    /// The file as an entry has it, of an inode that has `nlink` names in the tree.
    pub(super) fn node(&self, meta: Meta, nlink: u32) -> Node {
        Node::File {
            meta: Meta { xattrs: self.xattrs.clone(), ..meta },
            nlink,
            size: self.stamp.size,
            content: self.content.clone(),
        }
    }
}
