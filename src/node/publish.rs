//! From a directory to a certified version.
//!
//! Owns: `snapshot` and `publish`: their order of steps, and the URI to share.
//! Must not know: how a directory is cut or a height decided.
//! Invariant: an entry is submitted only after everything it names is on disk for good.
//! Trust: the request is the user's. Threads: ingest runs on the blocking pool, the rest on the runtime.
//! A crash before the entry is decided leaves a kept snapshot and no version, one before that what was read so far;
//! running it again goes on from there.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::RwLockReadGuard;

use super::error::{Error, Kind};
use super::job::{Job, cancelled};
use super::replicas::Subject;
use super::report::{Progress, PublishRequest, Published, SnapshotRequest, Snapshotted, Source};
use super::text::escape;
use super::{Named, Node, Reference, Uri, now_ms, off};
use crate::chain::Chain;
use crate::crypto::SecretKey;
use crate::crypto::dataset::Keyring;
use crate::id::{Genesis, SnapshotId};
use crate::ingest;
use crate::log::{Admission, Entry, EntryBody, Label, Name, Publish, Role};
use crate::manifest;
use crate::origin::OriginUrl;
use crate::store::SnapshotRecord;

const REPORT_EVERY: Duration = Duration::from_millis(100);
/// How long the newest blocks are waited for when an entry was refused.
const CATCH_UP: Duration = Duration::from_secs(5);

impl Node {
    /// Builds a snapshot of a directory; publishes nothing.
    pub async fn snapshot(
        self: &Arc<Self>,
        request: &SnapshotRequest,
        job: &Job,
    ) -> Result<Snapshotted, Error> {
        let _kept = job.run(self.unswept(job)).await?;
        self.build(request, None, job).await
    }

    /// What is put while this is held is not taken for something left over.
    async fn unswept(&self, job: &Job) -> Result<RwLockReadGuard<'_, ()>, Error> {
        if let Ok(held) = self.sweeping.try_read() {
            return Ok(held);
        }
        job.set(Progress { phase: "waiting for gc".into(), ..Progress::default() });
        Ok(self.sweeping.read().await)
    }

    /// Builds a snapshot, encrypted if there are keys.
    async fn build(
        self: &Arc<Self>,
        request: &SnapshotRequest,
        keys: Option<Arc<Keyring>>,
        job: &Job,
    ) -> Result<Snapshotted, Error> {
        let options = ingest::Options { keys, ..ingest_options(request)? };
        let progress = Arc::new(ingest::Progress::default());
        let started = Instant::now();
        let mut work = tokio::task::spawn_blocking({
            let (dir, store, progress) = (request.dir.clone(), self.store.clone(), progress.clone());
            move || ingest::snapshot(&dir, &store, &options, &progress)
        });
        let stop = job.cancellation();
        let done = loop {
            tokio::select! {
                ended = &mut work => break ended,
                () = tokio::time::sleep(REPORT_EVERY) => job.set(shown(&progress)),
                () = stop.cancelled() => {
                    progress.cancel();
                    // Workers see the flag between two files or buffers; only then is the store quiet.
                    let _ = work.await;
                    return Err(cancelled());
                }
            }
        };
        let done = done
            .map_err(|panic| Error::new(Kind::Failed, format!("reading the directory failed: {panic}")))??;
        self.join_kept_swarms();
        Ok(Snapshotted {
            snapshot: done.snapshot.to_string(),
            inodes: done.totals.inodes,
            chunks: done.totals.chunks,
            bytes: done.totals.bytes,
            new_objects: done.new_objects,
            new_bytes: done.new_bytes,
            in_place_files: done.placed.in_place,
            cloned_files: done.placed.cloned,
            copied_files: done.placed.copied,
            unchanged: done.unchanged,
            skipped: done.skipped.iter().map(|path| escape(path.as_os_str().as_bytes())).collect(),
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Makes a directory or snapshot a version, and waits for its certificate.
    pub async fn publish(self: &Arc<Self>, request: &PublishRequest, job: &Job) -> Result<Published, Error> {
        let (name, version) = target(&request.target)?;
        let origin: Option<OriginUrl> = request.origin.as_deref().map(str::parse).transpose()?;
        let chain = self.networks.default_network()?;
        self.check_owner(&chain, &name)?;
        self.check_replicas(&chain, (&name, &version), request)?;
        let _kept = job.run(self.unswept(job)).await?;
        let keys = self.sealing_keys(&chain, &name, request).await?;
        let (snapshot, ingest) = match &request.source {
            Source::Dir(dir) => {
                let done = self.build(dir, keys.clone(), job).await?;
                (done.snapshot.parse()?, Some(done))
            }
            Source::Snapshot(id) => (id.parse()?, None),
            Source::Version(version) => (self.resolve(version).await?.snapshot.parse()?, None),
        };
        let stored = self.stored_snapshot(snapshot)?;
        self.check_sealed(&name, &stored, keys.as_deref())?;
        job.check()?;
        // Before the version is announced: who reads of it finds it there.
        let upload = match &origin {
            Some(url) => Some(self.upload(url, &chain, &name, snapshot, &stored, job).await?),
            None => None,
        };
        let subject = Subject { name: &name, version: &version, snapshot, bytes: stored.totals.bytes };
        let (replicas, copies) = match self.is_published(&chain, subject) {
            true => (Vec::new(), 0),
            false => self.replicate(&chain, subject, request, job).await?,
        };
        let acknowledged = replicas.len();
        job.set(Progress { phase: "commit".into(), ..job.progress() });
        let started = Instant::now();
        let body = EntryBody::Publish(Publish {
            name: name.clone(),
            version: version.clone(),
            snapshot,
            bytes: stored.totals.bytes,
            inodes: stored.totals.inodes,
            parent: chain
                .ledger()
                .dataset(name.as_str())
                .and_then(|known| known.latest().map(|v| v.label.clone())),
            replicas,
            copies: (copies > 0).then_some(copies as u32),
        });
        let (height, round, already) = {
            let _one_at_a_time = self.publishing.lock().await;
            self.check_generation(&chain, &name, keys.as_deref())?;
            off(|| self.note_submitted(snapshot, chain.genesis()))?;
            self.decide_next(&chain, body).await?
        };
        let commit_ms = started.elapsed().as_secs_f64() * 1e3;
        Ok(Published {
            signers: off(|| chain.block(height))?.certificate.signers().count(),
            uri: self.uri(&chain, &name, &version, origin.into_iter().collect()),
            genesis: chain.genesis().to_string(),
            name: name.to_string(),
            version: version.to_string(),
            snapshot: snapshot.to_string(),
            height,
            round,
            already,
            commit_ms,
            ingest,
            upload,
            copies,
            acknowledged,
        })
    }

    /// A name that is somebody else's is refused before hours of reading, not after.
    fn check_owner(&self, chain: &Chain, name: &Name) -> Result<(), Error> {
        let ledger = chain.ledger();
        let own = self.keys.author(&ledger).public();
        match ledger.dataset(name.as_str()) {
            Some(dataset) if !ledger.allows(name.as_str(), &own, Role::Publisher) => {
                Err(crate::log::Refusal::NotOwner { name: name.clone(), owner: dataset.owner, author: own }
                    .into())
            }
            _ => Ok(()),
        }
    }

    /// A version that was sealed before a rotation of the key would be open to those for whose sake it was rotated.
    fn check_generation(&self, chain: &Chain, name: &Name, keys: Option<&Keyring>) -> Result<(), Error> {
        let Some(keys) = keys else { return Ok(()) };
        let is_newest =
            self.dataset_key(chain, name)?.is_none_or(|key| key.generation() == keys.generation());
        if is_newest {
            return Ok(());
        }
        Err(Error::new(
            Kind::Busy,
            format!("the key of {name} was rotated meanwhile, and what was read is sealed with the old one"),
        )
        .hint("publish again: what has not changed is not read again"))
    }

    /// Writes down that a version of a snapshot may exist from now on, whatever this node hears of it.
    fn note_submitted(&self, snapshot: SnapshotId, genesis: Genesis) -> Result<(), Error> {
        let Some(record) = self.store.snapshots()?.into_iter().find(|record| record.id == snapshot) else {
            return Ok(());
        };
        let mut submitted = record.submitted.clone().unwrap_or_default();
        if submitted.contains(&genesis) {
            return Ok(());
        }
        submitted.push(genesis);
        Ok(self.store.keep_snapshot(SnapshotRecord { submitted: Some(submitted), ..record })?)
    }

    /// The snapshot object of a snapshot that was built here. What was only fetched may be incomplete and evicted, and
    /// what is published must be served from here.
    fn stored_snapshot(&self, id: SnapshotId) -> Result<manifest::Snapshot, Error> {
        let built = off(|| self.store.snapshots())?.iter().any(|record| record.id == id);
        let object = if built { off(|| self.fetcher.local(&id.into()))? } else { None };
        match object {
            Some(object) => Ok(manifest::Snapshot::decode(object.plain())?),
            None => Err(Error::not_found(format!("snapshot {id} was not built on this machine")).hint(
                "bcai snapshot DIR builds one and prints its id; bcai export writes out what was fetched",
            )),
        }
    }

    /// Has an entry decided. Returns height and round, and whether an earlier entry had done the same.
    pub(super) async fn decide(&self, chain: &Chain, body: EntryBody) -> Result<(u64, u32, bool), Error> {
        let _one_at_a_time = self.publishing.lock().await;
        self.decide_next(chain, body).await
    }

    /// The same, for who holds `publishing`. By the key that counts in the log, which may not have told this node yet that
    /// another has taken its place.
    pub(super) async fn decide_next(
        &self,
        chain: &Chain,
        body: EntryBody,
    ) -> Result<(u64, u32, bool), Error> {
        let key = self.keys.author(&chain.ledger());
        let refused = match self.decide_as(chain, &key, body.clone()).await {
            Err(refused) => refused,
            decided => return decided,
        };
        let _ = tokio::time::timeout(CATCH_UP, self.networks.catch_up(chain)).await;
        let newer = self.keys.author(&chain.ledger());
        if newer.public() == key.public() {
            return Err(refused);
        }
        self.decide_as(chain, &newer, body).await
    }

    /// The same by the key that is given, for who holds `publishing`.
    pub(super) async fn decide_as(
        &self,
        chain: &Chain,
        key: &SecretKey,
        body: EntryBody,
    ) -> Result<(u64, u32, bool), Error> {
        let ledger = chain.ledger();
        // By the clock, so that two nodes with one key, or one restored from a backup, rarely collide.
        let nonce = now_ms().max(ledger.nonce(&key.public()) + 1);
        let entry = Entry::sign(key, chain.genesis(), nonce, body);
        if let Admission::Already { height, .. } = ledger.admit(&entry)? {
            // There is no block 0: the genesis document says it.
            let round = if height == 0 { 0 } else { off(|| chain.block(height))?.certificate.round };
            return Ok((height, round, true));
        }
        let decided = self.networks.submit(chain, entry).await?;
        Ok((decided.height, decided.round, false))
    }

    /// What to give to a machine that has never seen this network: where this node is for others, by TCP if there is a
    /// choice, which is the fastest and enough to be found.
    fn uri(&self, chain: &Chain, name: &Name, version: &Label, origins: Vec<OriginUrl>) -> String {
        let mut peers = self.net.addresses();
        let elsewhere =
            |address: &String| !address.starts_with("/ip4/127.") && !address.starts_with("/ip6/::1/");
        let tcp = |address: &String| address.contains("/tcp/") && !address.contains("/ws");
        for better in [&elsewhere as &dyn Fn(&String) -> bool, &tcp] {
            if peers.iter().any(better) {
                peers.retain(better);
            }
        }
        let named = Named { name: name.to_string(), selector: Some(version.to_string()) };
        Reference::Uri(Uri { genesis: chain.genesis(), pin: None, named, peers, origins }).to_string()
    }
}

fn ingest_options(request: &SnapshotRequest) -> Result<ingest::Options, Error> {
    let mistake = |flag: &str, error: &dyn std::fmt::Display| Error::usage(format!("{flag}: {error}"));
    Ok(ingest::Options {
        chunking: request.chunking.parse().map_err(|error| mistake("--chunking", &error))?,
        compression: request.compress.parse().map_err(|error| mistake("--compress", &error))?,
        skip_special: request.skip_special,
        in_place: request.in_place,
        paranoid: request.paranoid,
        keys: None,
    })
}

/// `NAME@VERSION`, both given and both well-formed.
pub(super) fn target(text: &str) -> Result<(Name, Label), Error> {
    let named: Named = text.parse()?;
    let Some(version) = named.selector else {
        return Err(Error::usage(format!("`{text}` names no version")).hint(format!("for example {text}@v1")));
    };
    Ok((named.name.parse()?, version.parse()?))
}

fn shown(progress: &ingest::Progress) -> Progress {
    let now = progress.counts();
    // Nothing is read before the whole tree has been listed; until then the totals still grow.
    if now.files_done == 0 && now.bytes_done == 0 {
        return Progress { phase: "listing".into(), files_done: now.files_found, ..Progress::default() };
    }
    Progress {
        phase: "reading".into(),
        files_done: now.files_done,
        files_total: now.files_found,
        bytes_done: now.bytes_done,
        bytes_total: now.bytes_found,
    }
}
