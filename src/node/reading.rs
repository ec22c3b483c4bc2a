//! Looking into a dataset without mounting it.
//!
//! Owns: `ls` and the reads behind `cat`.
//! Must not know: terminals.
//! Invariant: only what is asked for is fetched.
//! Trust: paths are the user's; names from datasets are escaped before they leave. Threads: the runtime.

use std::sync::Arc;

use bcai_mount::{Attr, DirEntry, FileKind};
use bytes::Bytes;

use super::Node;
use super::error::{Error, Kind};
use super::report::{Listed, PathRequest, ReadRequest, Resolved};
use super::text::{escape, unescape};
use crate::fetch::Fetcher;
use crate::view::{self, Globs, View, ViewError};

/// Directory entries asked for at a time.
const BATCH: usize = 1024;
/// Rows of one answer. A dataset may hold more names than fit in memory, on purpose or not.
const ROWS_MAX: usize = 500_000;
/// Largest single read; larger requests are answered with less.
const READ_MAX: u32 = 4 << 20;

impl Node {
    pub(super) async fn view(&self, reference: &str) -> Result<(Arc<View>, Resolved), Error> {
        let resolved = self.resolve(reference).await?;
        Ok((self.open(&resolved, self.fetcher.clone()).await?, resolved))
    }

    /// `fetcher` gets what is read.
    pub(super) async fn open(&self, resolved: &Resolved, fetcher: Fetcher) -> Result<Arc<View>, Error> {
        let version = resolved.version.as_ref().map(|version| view::Version {
            name: format!("{}@{}", version.name, version.version),
            height: version.height,
        });
        let options = view::Options { version, ..view::Options::default() };
        let snapshot = resolved.snapshot.parse()?;
        self.origins.attend(snapshot);
        let opened = View::open(fetcher.clone(), self.nodes.clone(), snapshot, options.clone()).await;
        let Err(ViewError::Sealed { key, generation, .. }) = opened else { return Ok(opened?) };
        let options = view::Options { keys: Some(self.keyring(resolved, generation, &key)?), ..options };
        Ok(View::open(fetcher, self.nodes.clone(), snapshot, options).await?)
    }

    /// The same, for who fetches, counts or keeps what the patterns mean, and reads none of it. Who means all of an encrypted
    /// dataset needs no key for that.
    pub(super) async fn open_to_keep(&self, resolved: &Resolved, globs: &Globs) -> Result<Arc<View>, Error> {
        if !globs.is_all() {
            return self.open(resolved, self.fetcher.clone()).await;
        }
        self.open_stored(resolved).await
    }

    /// As it is stored, whoever may read it.
    pub(super) async fn open_stored(&self, resolved: &Resolved) -> Result<Arc<View>, Error> {
        let snapshot = resolved.snapshot.parse()?;
        self.origins.attend(snapshot);
        Ok(View::open_stored(self.fetcher.clone(), self.nodes.clone(), snapshot).await?)
    }

    /// The rows of a directory, or of one file.
    pub async fn ls(&self, request: &PathRequest) -> Result<Vec<Listed>, Error> {
        let (view, _) = self.view(&request.reference).await?;
        let path = unescape(&request.path);
        let attr = view.attr_of(&view.resolve(&path).await?);
        if attr.kind != FileKind::Dir {
            return Ok(vec![listed(&view, &path, &attr).await?]);
        }
        let mut rows = Vec::new();
        let mut pending = vec![(Vec::new(), attr.ino)];
        while let Some((prefix, dir)) = pending.pop() {
            let mut below = Vec::new();
            for entry in list(&view, dir).await? {
                let path = join(&prefix, &entry.name);
                if rows.len() == ROWS_MAX {
                    return Err(Error::new(Kind::Failed, format!("more than {ROWS_MAX} names"))
                        .hint("list a directory further down, or mount it and use find"));
                }
                rows.push(listed(&view, &path, &entry.attr).await?);
                if request.recursive && entry.attr.kind == FileKind::Dir {
                    below.push((path, entry.attr.ino));
                }
            }
            pending.extend(below.into_iter().rev());
        }
        Ok(rows)
    }

    /// At most `len` bytes of a file; empty at its end.
    pub async fn read(&self, request: &ReadRequest) -> Result<Bytes, Error> {
        let (view, _) = self.view(&request.reference).await?;
        let attr = view.attr_of(&view.resolve(&unescape(&request.path)).await?);
        if attr.kind == FileKind::Dir {
            return Err(Error::usage(format!("{} is a directory", request.path)).hint("`bcai ls` lists it"));
        }
        Ok(view.read(attr.ino, request.offset, request.len.min(READ_MAX)).await?)
    }
}

/// All entries of a directory.
pub(super) async fn list(view: &View, dir: u64) -> Result<Vec<DirEntry>, Error> {
    let mut entries: Vec<DirEntry> = Vec::new();
    loop {
        let from = entries.last().map_or(0, |entry| entry.next);
        let batch = view.read_dir(dir, from, BATCH).await?.entries;
        if batch.is_empty() {
            return Ok(entries);
        }
        entries.extend(batch);
    }
}

pub(super) fn join(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

async fn listed(view: &View, path: &[u8], attr: &Attr) -> Result<Listed, Error> {
    let (kind, target) = match attr.kind {
        FileKind::File => ("-", None),
        FileKind::Dir => ("dir", None),
        FileKind::Symlink => ("link", Some(escape(&view.read_link(attr.ino).await?))),
    };
    Ok(Listed {
        path: escape(path),
        kind: kind.into(),
        mode: attr.mode.into(),
        size: attr.size,
        mtime_s: attr.mtime.0,
        mtime_ns: attr.mtime.1,
        target,
    })
}
