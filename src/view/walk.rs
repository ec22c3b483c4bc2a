//! Everything below a directory, in the order of positions.
//!
//! Owns: the walk. Must not know: what is done with what it finds.
//! Invariant: a directory comes before what is in it, names of a directory in order, each name exactly once.
//! Memory: a batch of entries for each directory on the way down.
//! Trust, threads: those of `view`.

use std::sync::Arc;
use std::vec::IntoIter;

use super::{Attr, DirEntry, FileKind, View, ViewError};
use crate::manifest::MAX_DEPTH;

/// Entries read at a time.
const BATCH: usize = 256;

/// One name met on a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Path below the directory where the walk began.
    pub path: Vec<u8>,
    pub attr: Attr,
}

struct Level {
    ino: u64,
    path: Vec<u8>,
    next: u64,
    batch: IntoIter<DirEntry>,
}

/// A walk under way.
pub struct Walk {
    view: Arc<View>,
    levels: Vec<Level>,
}

impl Walk {
    /// Begins below the directory `ino`, which is not itself part of the walk.
    pub fn new(view: Arc<View>, ino: u64) -> Self {
        let start = Level { ino, path: Vec::new(), next: 0, batch: Vec::new().into_iter() };
        Self { view, levels: vec![start] }
    }

    /// The next name; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Found>, ViewError> {
        while let Some(level) = self.levels.last_mut() {
            if let Some(entry) = level.batch.next() {
                level.next = entry.next;
                let mut path = level.path.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(&entry.name);
                self.enter(&entry.attr, &path)?;
                return Ok(Some(Found { path, attr: entry.attr }));
            }
            let entries = self.view.read_dir(level.ino, level.next, BATCH).await?.entries;
            if entries.is_empty() {
                self.levels.pop();
            } else {
                level.batch = entries.into_iter();
            }
        }
        Ok(None)
    }

    fn enter(&mut self, attr: &Attr, path: &[u8]) -> Result<(), ViewError> {
        if attr.kind != FileKind::Dir {
            return Ok(());
        }
        if self.levels.len() > MAX_DEPTH {
            return Err(ViewError::unfit(
                self.view.id(),
                format!("its directories are deeper than {MAX_DEPTH}"),
            ));
        }
        let batch = Vec::new().into_iter();
        self.levels.push(Level { ino: attr.ino, path: path.to_vec(), next: 0, batch });
        Ok(())
    }
}
