//! One origin as a place of named files: the requests, and nothing about what is in the files.
//!
//! Owns: the client of the object store, how many requests run at a time, retries, counters, and the translation of
//! failures.
//! Must not know: packs, catalogues, objects.
//! Invariant: at most [`REQUESTS`] reads run at a time, and [`SPARE`] of them are free of what nobody waits for. What is
//! read of an answer is bounded by what was asked for.
//! Trust: none in the server. Threads: async, on tokio. A crash during a `put` leaves the whole file or none.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::ready;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt,
    RetryConfig,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::OriginError;
use super::url::{OriginUrl, Place};
use crate::swarm::Class;

/// Reads at a time.
pub(super) const REQUESTS: usize = 32;
/// Of those, how many are kept for readers who wait.
const SPARE: usize = 8;
const CONNECT: Duration = Duration::from_secs(5);
/// How long one request may take with its body: a whole pack goes up in that time at 110 KB/s. Whoever waits for an object
/// has a patience of their own.
const REQUEST: Duration = Duration::from_secs(300);
/// Retries of one request, and from when on none is begun any more.
const RETRIES: usize = 3;
const RETRY_FOR: Duration = Duration::from_secs(10);

/// The variables that say where credentials of S3 come from. Without any, requests are not signed: a public bucket
/// needs no key, and asking a cloud's metadata service for one takes many seconds where there is none.
const CREDENTIALS: [&str; 6] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_METADATA_ENDPOINT",
    "AWS_SKIP_SIGNATURE",
];

/// What was asked of an origin since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub requests: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Requests that failed, but for those that found no such file.
    pub failed: u64,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    failed: AtomicU64,
}

pub(super) struct Remote {
    url: OriginUrl,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    room: Semaphore,
    /// What must also be had for what nobody waits for.
    patient_room: Semaphore,
    counters: Counters,
}

/// The right to have one read running.
pub(super) struct Turn<'a> {
    _room: Option<SemaphorePermit<'a>>,
    _patient: Option<SemaphorePermit<'a>>,
}

impl Remote {
    /// Asks nobody yet.
    pub(super) fn open(url: OriginUrl) -> Result<Self, OriginError> {
        let unusable = |cause: String| OriginError::Unusable { url: url.clone(), cause };
        let wrong = |error: object_store::Error| unusable(error.to_string());
        let path = |prefix: &str| Path::parse(prefix).map_err(|error| unusable(error.to_string()));
        let (store, prefix): (Arc<dyn ObjectStore>, Path) = match url.place() {
            // From the root on, so that a folder that is mounted later is found then.
            Place::Folder(dir) => {
                let prefix = Path::from_absolute_path(dir).map_err(|error| unusable(error.to_string()))?;
                (Arc::new(LocalFileSystem::new().with_fsync(true)), prefix)
            }
            Place::Web(text) => {
                let web =
                    HttpBuilder::new().with_url(text).with_retry(retries()).with_client_options(client());
                (Arc::new(web.build().map_err(wrong)?), Path::default())
            }
            Place::Bucket { bucket, prefix } => {
                // Asked anew for each origin: the environment is that of the daemon.
                let unsigned = CREDENTIALS.iter().all(|name| std::env::var_os(name).is_none());
                let allow_http = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|value| value == "true");
                let mut s3 = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_retry(retries())
                    .with_client_options(client().with_allow_http(allow_http));
                if unsigned {
                    s3 = s3.with_skip_signature(true);
                }
                (Arc::new(s3.build().map_err(wrong)?), path(prefix)?)
            }
        };
        Ok(Self::over(url, store, prefix))
    }

    pub(super) fn over(url: OriginUrl, store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self {
            url,
            store,
            prefix,
            room: Semaphore::new(REQUESTS),
            patient_room: Semaphore::new(REQUESTS - SPARE),
            counters: Counters::default(),
        }
    }

    pub(super) fn url(&self) -> &OriginUrl {
        &self.url
    }

    pub(super) fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            requests: read(&self.counters.requests),
            bytes_in: read(&self.counters.bytes_in),
            bytes_out: read(&self.counters.bytes_out),
            failed: read(&self.counters.failed),
        }
    }

    /// Waits for the right to read. Readers who wait go past whoever fetches for later.
    pub(super) async fn turn(&self, class: Class) -> Turn<'_> {
        // Neither semaphore is ever closed.
        let patient = match class {
            Class::Fault => None,
            _ => self.patient_room.acquire().await.ok(),
        };
        Turn { _room: self.room.acquire().await.ok(), _patient: patient }
    }

    /// The bytes of a file in `range`, as they arrive; fewer if it ends before. `None` if there is no such file. What
    /// arrives is no more than what was asked for.
    pub(super) async fn stream(
        &self,
        name: &str,
        range: Range<u64>,
    ) -> Result<Option<BoxStream<'_, Result<Bytes, OriginError>>>, OriginError> {
        let most = range.end - range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let Some(answer) = self.counted(name, self.store.get_opts(&self.path(name), options).await)? else {
            return Ok(None);
        };
        // A file of our own is read at once: in pieces, each would be a call to another thread.
        let pieces = match &answer.payload {
            GetResultPayload::File(..) => {
                let bytes = self.counted(name, answer.bytes().await)?;
                stream::iter(bytes.map(Ok)).boxed()
            }
            GetResultPayload::Stream(_) => answer.into_stream(),
        };
        let name = name.to_owned();
        let mut left = most;
        let pieces = pieces.map(move |piece| match piece {
            Ok(bytes) => {
                self.counters.bytes_in.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                left = left
                    .checked_sub(bytes.len() as u64)
                    .ok_or_else(|| self.damaged(&name, "the server sends more than it was asked for"))?;
                Ok(bytes)
            }
            Err(error) => {
                Err(self.failed(&name, &error).unwrap_or_else(|| self.damaged(&name, "it has gone")))
            }
        });
        // After the first failure nothing more is of use.
        let mut over = false;
        let pieces = pieces.take_while(move |piece| ready(!std::mem::replace(&mut over, piece.is_err())));
        Ok(Some(pieces.boxed()))
    }

    /// Like `stream`, all of it at once.
    pub(super) async fn read(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, OriginError> {
        let Some(mut pieces) = self.stream(name, range).await? else { return Ok(None) };
        let mut all = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(Some(all.freeze()))
    }

    /// Whether files that are not found may be there at another time: a folder whose file system is not mounted.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.url.place(), Place::Folder(dir) if !dir.is_dir())
    }

    /// The length of a file, if there is one.
    pub(super) async fn len(&self, name: &str) -> Result<Option<u64>, OriginError> {
        let meta = self.counted(name, self.store.head(&self.path(name)).await)?;
        Ok(meta.map(|meta| meta.size))
    }

    /// Makes a file, or replaces it.
    pub(super) async fn put(&self, name: &str, bytes: Bytes) -> Result<(), OriginError> {
        let len = bytes.len() as u64;
        let put = self.counted(name, self.store.put(&self.path(name), bytes.into()).await)?;
        match put {
            Some(_) => {
                self.counters.bytes_out.fetch_add(len, Ordering::Relaxed);
                Ok(())
            }
            None => {
                let cause = "there is no such bucket or folder to put it into".to_owned();
                Err(OriginError::Unusable { url: self.url.clone(), cause })
            }
        }
    }

    /// An error about what is in a file.
    pub(super) fn damaged(&self, name: &str, cause: impl ToString) -> OriginError {
        OriginError::Damaged { url: self.url.clone(), name: name.to_owned(), cause: cause.to_string() }
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn counted<T>(
        &self,
        name: &str,
        outcome: Result<T, object_store::Error>,
    ) -> Result<Option<T>, OriginError> {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.failed(name, &error).map_or(Ok(None), Err),
        }
    }

    fn failed(&self, name: &str, error: &object_store::Error) -> Option<OriginError> {
        let failed = OriginError::of_request(&self.url, name, error);
        if failed.is_some() {
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
        }
        failed
    }
}

fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(2),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_FOR }
}

fn client() -> ClientOptions {
    // There may be one already, of another origin or of the network: any will do.
    let _ = futures_rustls::rustls::crypto::ring::default_provider().install_default();
    ClientOptions::new()
        .with_connect_timeout(CONNECT)
        .with_timeout(REQUEST)
        .with_pool_max_idle_per_host(REQUESTS)
        .with_allow_http(true)
}
