//! An object store as a source of objects, for when no peer has them: a folder, a server of static files, or a bucket.
//!
//! Owns: fetching objects from an origin (`Origin`), uploading a snapshot to one (`upload`), the layout of its files
//! (`catalogue`, and packs as in `pack::file`), and how requests for neighbours are merged (`gather`).
//! Must not know: peers, logs, names of datasets.
//! Invariant: what is fetched hashes to the id that it was asked for by. Files are only ever added, and their names
//! follow from their content or from a snapshot id, so that any number of nodes may upload at once.
//! Trust: none in the store. Everything read is bounded before it is kept, and proven by its hash before it is used.
//! Threads: async, on tokio; hashing of all but small objects runs on the blocking pool.
//! A crash during an upload leaves packs that no catalogue names; the next upload of the same snapshot uses them.

mod catalogue;
mod error;
mod gather;
mod memory;
mod places;
mod remote;
mod upload;
mod url;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::fetch::{ChunkSource, FetchError};
use crate::id::{ObjectId, SnapshotId};
use crate::pack::{Checked, Packed};
use crate::swarm::Class;
use gather::Gather;
use places::{Places, pack_name};
use remote::Remote;

pub use error::OriginError;
pub use remote::Traffic;
pub use upload::{Counts, Upload, Uploaded};
pub use url::{OriginUrl, UrlError};

/// Objects of up to so many bytes are verified where they arrive: that takes about as long as handing them to another
/// thread and back.
const AT_ONCE: u32 = 32 << 10;

/// How long one try to get an object may take in all, with the look-up of its place.
fn attempt(class: Class) -> Duration {
    Duration::from_secs(match class {
        Class::Fault => 10,
        Class::Readahead => 20,
        Class::Prefetch => 60,
        Class::Replicate => 120,
    })
}

/// One origin.
pub struct Origin {
    remote: Arc<Remote>,
    places: Places,
    gather: Arc<Gather>,
}

impl Origin {
    /// Asks nobody yet. Fails if the URL means something that cannot be, such as a bucket of a bad name.
    pub fn open(url: OriginUrl) -> Result<Arc<Self>, OriginError> {
        Ok(Self::over(Remote::open(url)?))
    }

    fn over(remote: Remote) -> Arc<Self> {
        let remote = Arc::new(remote);
        let (places, gather) = (Places::new(remote.clone()), Gather::new(remote.clone()));
        Arc::new(Self { remote, places, gather })
    }

    pub fn url(&self) -> &OriginUrl {
        self.remote.url()
    }

    /// Objects of this snapshot are looked for from now on. An origin is found by names alone, and the names follow from
    /// the snapshot; of many, those that were used least recently are forgotten.
    pub fn attend(&self, snapshot: SnapshotId) {
        self.places.attend(snapshot);
    }

    /// What was asked of it since the start.
    pub fn traffic(&self) -> Traffic {
        self.remote.traffic()
    }

    async fn get(&self, id: ObjectId, class: Class) -> Result<Checked, FetchError> {
        let found = self.places.find(&id).await.map_err(|error| error.of(id))?;
        let found = found.ok_or(FetchError::NotFound { id })?;
        let bytes = self.gather.fetch(&found, class).await.map_err(|error| error.of(id))?;
        let header = found.entry.header;
        let verify = move || Packed::from_parts(header.codec as u8, header.plain_len, bytes)?.verify(&id);
        let verified = if header.plain_len <= AT_ONCE {
            verify()
        } else {
            // Cancelled only by the end of the runtime.
            tokio::task::spawn_blocking(verify)
                .await
                .map_err(|error| FetchError::Unreachable { id, cause: error.to_string() })?
        };
        verified.map_err(|error| {
            let error = self.remote.damaged(&pack_name(&found.pack.hash), error);
            tracing::warn!(%id, %error, "an origin has wrong bytes");
            error.of(id)
        })
    }
}

impl ChunkSource for Origin {
    /// `NotFound` if no snapshot that it was told of ([`Origin::attend`]) has the object there, `Unreachable` and
    /// `TimedOut` if it could not be asked or refuses access, `Corrupt` if what it has is not the object.
    fn fetch(&self, id: ObjectId, class: Class) -> BoxFuture<'_, Result<Checked, FetchError>> {
        Box::pin(async move {
            let after = attempt(class);
            let got = tokio::time::timeout(after, self.get(id, class)).await;
            got.unwrap_or(Err(FetchError::TimedOut { id, after }))
        })
    }
}
