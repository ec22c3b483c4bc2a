//! Hints of loaders that know in which order they will read.
//!
//! Owns: whose hints are being followed, how far ahead, and the counts of what became of them.
//! Must not know: loaders.
//! Invariant: of one client, only the newest hint is followed, and of one hint, no more than [`MAX_BYTES`] and an eighth
//! of the cache are fetched. A hint never fails a reader.
//! Trust: paths are the user's; unknown ones are counted. Threads: one task of the runtime for each client.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{FuturesUnordered, StreamExt};
use lru::LruCache;
use tokio_util::sync::CancellationToken;

use super::Node;
use super::error::{Error, Kind};
use super::report::{HintRequest, HintStatus, Hinted};
use super::text::unescape;
use super::warming::Bringer;
use crate::fetch::Class;
use crate::view::{View, ViewError};

/// Bytes fetched for one hint at most.
const MAX_BYTES: u64 = 64 << 20;
/// Paths of one hint.
const MAX_PATHS: usize = 65_536;
/// Clients whose hints are followed; the one that was heard of least recently goes first.
const CLIENTS: NonZeroUsize = NonZeroUsize::new(64).expect("is not zero");
const MAX_CLIENT_LEN: usize = 64;
/// Files of one hint fetched at a time.
const FILES: usize = 16;

/// The hints being followed.
pub(super) struct Hints {
    clients: Mutex<LruCache<String, CancellationToken>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    hints: AtomicU64,
    paths: AtomicU64,
    fetched: AtomicU64,
    fetched_bytes: AtomicU64,
    here: AtomicU64,
    unknown: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Default for Hints {
    fn default() -> Self {
        Self { clients: Mutex::new(LruCache::new(CLIENTS)), counts: Arc::default() }
    }
}

impl Hints {
    pub fn status(&self) -> HintStatus {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        HintStatus {
            hints: read(&counts.hints),
            paths: read(&counts.paths),
            fetched: read(&counts.fetched),
            fetched_bytes: read(&counts.fetched_bytes),
            here: read(&counts.here),
            unknown: read(&counts.unknown),
            dropped: read(&counts.dropped),
            failed: read(&counts.failed),
        }
    }

    /// Takes the place of what the client said before.
    fn replace(&self, client: &str, token: CancellationToken) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, former)) = clients.push(client.to_owned(), token) {
            former.cancel();
        }
    }
}

impl Node {
    /// Begins to fetch the files, in their order, and answers at once.
    pub async fn hint(self: &Arc<Self>, request: HintRequest) -> Result<Hinted, Error> {
        if request.paths.len() > MAX_PATHS {
            let found = request.paths.len();
            return Err(Error::usage(format!("{found} paths in one hint are more than {MAX_PATHS}"))
                .hint("hint what is read next, and the rest when that has been read"));
        }
        if request.client.len() > MAX_CLIENT_LEN {
            return Err(Error::usage(format!("the name of a client has at most {MAX_CLIENT_LEN} bytes")));
        }
        let view = match (&request.dir, &request.reference) {
            (Some(dir), None) => self.mounts.view(dir).ok_or_else(|| {
                Error::not_found(format!("nothing is mounted by this node at {}", dir.display()))
                    .hint("`bcai status` lists its mounts")
            })?,
            (None, Some(reference)) => self.view(reference).await?.0,
            _ => return Err(Error::new(Kind::Usage, "a hint names either a mount (`dir`) or a `reference`")),
        };
        let paths: Vec<Vec<u8>> =
            request.paths.iter().map(|path| inside(path, request.dir.as_deref())).collect();
        let max_bytes = MAX_BYTES.min(self.store.stats()?.cache_max_bytes / 8);
        let token = self.stop.child_token();
        self.hints.replace(&request.client, token.clone());
        let hinted = Hinted { paths: paths.len(), max_bytes };
        let counts = self.hints.counts.clone();
        counts.hints.fetch_add(1, Ordering::Relaxed);
        counts.paths.fetch_add(paths.len() as u64, Ordering::Relaxed);
        let bringer = Bringer::new(view.fetcher().clone(), Class::Readahead);
        tokio::spawn(async move {
            let mut left = Left { counts: counts.clone(), paths: paths.len() as u64 };
            let follow = follow(&view, &bringer, &paths, max_bytes, &counts, &mut left);
            token.run_until_cancelled(follow).await;
        });
        Ok(hinted)
    }
}

/// Paths of a hint that nothing has become of yet; counted as dropped when it ends.
struct Left {
    counts: Arc<Counts>,
    paths: u64,
}

impl Drop for Left {
    fn drop(&mut self) {
        self.counts.dropped.fetch_add(self.paths, Ordering::Relaxed);
    }
}

/// A path from the root of the dataset, out of one in the text form of `text` that may be below `dir`.
fn inside(path: &str, dir: Option<&Path>) -> Vec<u8> {
    let path = unescape(path);
    let below = dir.and_then(|dir| Path::new(OsStr::from_bytes(&path)).strip_prefix(dir).ok());
    below.map(|below| below.as_os_str().as_bytes().to_vec()).unwrap_or(path)
}

async fn follow(
    view: &Arc<View>,
    bringer: &Bringer,
    paths: &[Vec<u8>],
    max_bytes: u64,
    counts: &Counts,
    left: &mut Left,
) {
    let mut room = max_bytes;
    let mut running = FuturesUnordered::new();
    let add = |count: &AtomicU64, more: u64| count.fetch_add(more, Ordering::Relaxed);
    let mut paths = paths.iter();
    loop {
        let next = if room > 0 && running.len() < FILES { paths.next() } else { None };
        let Some(path) = next else {
            let Some(done) = running.next().await else { return };
            left.paths -= 1;
            match done {
                Ok(0) => add(&counts.here, 1),
                Ok(bytes) => {
                    add(&counts.fetched_bytes, bytes);
                    add(&counts.fetched, 1)
                }
                Err(error) => {
                    tracing::debug!(%error, "a hinted file could not be fetched");
                    add(&counts.failed, 1)
                }
            };
            continue;
        };
        let file = match view.resolve(path).await {
            Ok(inode) => view.content(inode.ino).await,
            Err(error) => Err(error),
        };
        match file {
            Ok(file) => {
                let within = file.size.min(room);
                room -= within;
                running.push(async move { bringer.beginning(view, &file, within).await });
            }
            Err(error) => {
                left.paths -= 1;
                let count = if is_unknown(&error) { &counts.unknown } else { &counts.failed };
                add(count, 1);
            }
        }
    }
}

/// Whether the snapshot says that there is no such file.
fn is_unknown(error: &ViewError) -> bool {
    !matches!(error, ViewError::Unavailable(_) | ViewError::Unfit { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hinted_paths_are_escaped_and_may_be_below_the_mount() {
        let dir = Path::new("/mnt/a\\b");
        for (path, expected) in [
            ("train/1", b"train/1".as_slice()),
            ("/mnt/a\\\\b/train/\\xff\\\\", b"train/\xff\\"),
            ("/mnt/a\\b/x", b"x"),
            ("/mnt/other", b"/mnt/other"),
        ] {
            assert_eq!(inside(path, Some(dir)), expected, "{path}");
        }
        assert_eq!(inside("/mnt/x", None), b"/mnt/x");
    }
}
