//! A dataset written out as ordinary files.
//!
//! Owns: the order of writing, and which attributes are restored.
//! Must not know: chunks.
//! Invariant: only a new or empty directory is written to, and nothing outside of it: names were checked when the
//! trees were decoded, and no symbolic link is ever followed.
//! Trust: names and content are a publisher's. Threads: file IO in blocking sections of one task.
//! A crash leaves a partial export; what is complete cannot be told from what is not, so it is exported anew.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use bcai_mount::{Attr, FileKind, ROOT, Seek};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::error::{Error, Kind};
use super::job::Job;
use super::reading::list;
use super::report::{ExportRequest, Exported, Progress};
use super::{Node, off};
use crate::view::{View, ViewError};

/// Bytes fetched and written at a time.
const STEP: u32 = 4 << 20;
/// Warnings kept; the rest says nothing new.
const WARNINGS_MAX: usize = 20;

impl Node {
    /// Writes what a reference means into `dir`.
    pub async fn export(&self, request: &ExportRequest, job: &Job) -> Result<Exported, Error> {
        let started = Instant::now();
        off(|| prepare(&request.dir))?;
        let (view, resolved) = self.view(&request.reference).await?;
        let mut export =
            Export { view: &view, job, links: HashMap::new(), warnings: Vec::new(), done: (0, 0) };
        export.tree(&request.dir).await?;
        Ok(Exported {
            dir: request.dir.clone(),
            snapshot: resolved.snapshot,
            inodes: view.snapshot().totals.inodes,
            bytes: view.snapshot().totals.bytes,
            warnings: export.warnings,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

fn prepare(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|error| Error::io("cannot create", dir, error))?;
    let mut inside = fs::read_dir(dir).map_err(|error| Error::io("cannot list", dir, error))?;
    match inside.next() {
        None => Ok(()),
        Some(_) => Err(Error::new(Kind::Busy, format!("{} is not empty", dir.display()))
            .hint("name a directory that is empty or does not exist; nothing is ever overwritten")),
    }
}

struct Export<'a> {
    view: &'a View,
    job: &'a Job,
    /// Where each inode with several names was written first.
    links: HashMap<u64, PathBuf>,
    warnings: Vec<String>,
    /// Names and bytes written.
    done: (u64, u64),
}

impl Export<'_> {
    async fn tree(&mut self, top: &Path) -> Result<(), Error> {
        // Directories get their attributes last: writing into them changes their times, and they may be read-only.
        let mut finished = vec![(top.to_owned(), self.view.attr(ROOT).await?)];
        let mut pending = vec![(top.to_owned(), ROOT)];
        while let Some((path, ino)) = pending.pop() {
            for entry in list(self.view, ino).await? {
                self.job.check()?;
                let path = path.join(OsStr::from_bytes(&entry.name));
                let size = entry.attr.size;
                if entry.attr.kind == FileKind::Dir {
                    off(|| fs::create_dir(&path))
                        .map_err(|error| Error::io("cannot create", &path, error))?;
                    pending.push((path.clone(), entry.attr.ino));
                    finished.push((path, entry.attr));
                } else {
                    self.leaf(&path, &entry.attr).await?;
                }
                self.progress(size);
            }
        }
        for (path, attr) in finished.iter().rev() {
            self.attributes(path, attr).await?;
        }
        Ok(())
    }

    async fn leaf(&mut self, path: &Path, attr: &Attr) -> Result<(), Error> {
        if let Some(first) = self.links.get(&attr.ino) {
            return off(|| fs::hard_link(first, path)).map_err(|error| Error::io("cannot link", path, error));
        }
        if attr.nlink > 1 {
            self.links.insert(attr.ino, path.to_owned());
        }
        if attr.kind == FileKind::Symlink {
            let target = self.view.read_link(attr.ino).await?;
            off(|| std::os::unix::fs::symlink(OsStr::from_bytes(&target), path))
                .map_err(|error| Error::io("cannot create", path, error))?;
        } else {
            self.content(path, attr).await?;
        }
        self.attributes(path, attr).await
    }

    /// Writes the data and leaves the holes.
    async fn content(&self, path: &Path, attr: &Attr) -> Result<(), Error> {
        let failed = |error| Error::io("cannot write", path, error);
        let create = || File::create_new(path).and_then(|file| file.set_len(attr.size).map(|()| file));
        let file = off(create).map_err(failed)?;
        let mut offset = 0;
        while offset < attr.size {
            let data = match self.view.seek(attr.ino, offset, Seek::Data).await {
                Err(ViewError::PastEnd) => break,
                found => found?,
            };
            let end = self.view.seek(attr.ino, data, Seek::Hole).await?;
            offset = data;
            while offset < end {
                self.job.check()?;
                let len = u64::from(STEP).min(end - offset) as u32;
                let bytes = self.view.read(attr.ino, offset, len).await?;
                off(|| file.write_all_at(&bytes, offset)).map_err(failed)?;
                offset += bytes.len() as u64;
            }
        }
        Ok(())
    }

    async fn attributes(&mut self, path: &Path, attr: &Attr) -> Result<(), Error> {
        for name in self.view.list_xattrs(attr.ino).await? {
            if name.starts_with(b"user.bcai.") {
                continue;
            }
            let value = self.view.xattr(attr.ino, &name).await?;
            if let Err(error) = off(|| xattr::set(path, OsStr::from_bytes(&name), &value)) {
                self.warn(path, &String::from_utf8_lossy(&name), &error);
            }
        }
        if attr.kind != FileKind::Symlink {
            let mode = fs::Permissions::from_mode(u32::from(attr.mode));
            fs::set_permissions(path, mode)
                .map_err(|error| Error::io("cannot change the mode of", path, error))?;
        }
        let time = Timespec { tv_sec: attr.mtime.0, tv_nsec: attr.mtime.1.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        off(|| utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|error| Error::io("cannot set the time of", path, error.into()))
    }

    fn warn(&mut self, path: &Path, what: &str, error: &std::io::Error) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(format!("{}: {what} could not be set: {error}", path.display()));
        }
    }

    fn progress(&mut self, bytes: u64) {
        self.done.0 += 1;
        self.done.1 += bytes;
        let totals = self.view.snapshot().totals;
        self.job.set(Progress {
            phase: "writing".into(),
            files_done: self.done.0,
            files_total: totals.inodes,
            bytes_done: self.done.1,
            bytes_total: totals.bytes,
        });
    }
}
