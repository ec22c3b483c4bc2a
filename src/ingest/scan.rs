//! The first pass: what is there, which names share an inode, and the proof at the end that it stayed so.
//!
//! Owns: the totals of the progress bar, the table of hard links, the stamp of every directory.
//! Must not know: contents.
//! Invariant: if `unchanged` agrees, every directory has been as `scan` met it all the time between the two.
//! Trust: none in the tree. Threads: runs on the caller's thread before the others start, and again after.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{FileType, Stat};

use super::source::{Dir, Stamp, file_type, special};
use super::{IngestError, Run};
use crate::manifest::{MAX_DEPTH, Name};

/// Device and inode number: what names of one file have in common.
pub(super) type Inode = (u64, u64);

pub(super) struct Scan {
    /// The inodes with two names or more in the tree, and how many.
    pub links: HashMap<Inode, u32>,
    root: Stamp,
    /// All other directories in the order of the walk.
    dirs: Vec<DirRecord>,
}

struct DirRecord {
    name: Name,
    /// Number of directories between this one and the root.
    depth: u8,
    stamp: Stamp,
}

/// Lists the whole tree, and refuses special files before any work is done.
pub(super) fn scan(run: &Run<'_>, root: &Dir) -> Result<Scan, IngestError> {
    // The stamp comes before the listing: a change in between shows in the stamp at the end.
    let stamp = root.stamp_now()?;
    let mut scan = Scan { links: HashMap::new(), root: stamp, dirs: Vec::new() };
    scan.directory(run, root, 0)?;
    scan.links.retain(|_, names| *names > 1);
    Ok(scan)
}

impl Scan {
    fn directory(&mut self, run: &Run<'_>, dir: &Dir, depth: usize) -> Result<(), IngestError> {
        for name in dir.list()? {
            run.check()?;
            let stat = dir.stat_of(&name)?;
            match file_type(&stat) {
                FileType::Directory => {
                    if depth >= MAX_DEPTH {
                        return Err(IngestError::TooDeep { path: dir.path_of(&name) });
                    }
                    let below = dir.open_dir(&name)?;
                    let stamp = below.stamp();
                    // `MAX_DEPTH` fits.
                    self.dirs.push(DirRecord { name, depth: depth as u8, stamp });
                    self.directory(run, &below, depth + 1)?;
                }
                kind => match special(kind) {
                    Some(_) if run.options.skip_special => {}
                    Some(kind) => return Err(IngestError::Special { path: dir.path_of(&name), kind }),
                    None => self.file(run, kind, &stat),
                },
            }
        }
        Ok(())
    }

    fn file(&mut self, run: &Run<'_>, kind: FileType, stat: &Stat) {
        run.progress.files_found.fetch_add(1, Relaxed);
        if stat.st_nlink > 1 {
            let names = self.links.entry((stat.st_dev, stat.st_ino)).or_default();
            *names = names.saturating_add(1);
            if *names > 1 {
                return;
            }
        }
        if kind == FileType::RegularFile {
            run.progress.bytes_found.fetch_add(stat.st_size as u64, Relaxed);
        }
    }

    /// The directories of the tree.
    pub(super) fn dirs(&self) -> impl Iterator<Item = Inode> {
        let all = self.dirs.iter().map(|record| &record.stamp).chain([&self.root]);
        all.map(|stamp| (stamp.dev, stamp.ino))
    }

    /// Looks at every directory once more.
    pub(super) fn unchanged(&self, run: &Run<'_>, root: &Dir) -> Result<(), IngestError> {
        same(&self.root, root)?;
        // The open directories between the root and the last record.
        let mut open: Vec<Dir> = Vec::new();
        for record in &self.dirs {
            run.check()?;
            open.truncate(record.depth.into());
            let dir = open.last().unwrap_or(root).open_dir(&record.name)?;
            same(&record.stamp, &dir)?;
            open.push(dir);
        }
        Ok(())
    }
}

fn same(before: &Stamp, dir: &Dir) -> Result<(), IngestError> {
    match before.change(&dir.stamp_now()?) {
        Some(what) => Err(IngestError::Changed { path: dir.path().to_owned(), what }),
        None => Ok(()),
    }
}
