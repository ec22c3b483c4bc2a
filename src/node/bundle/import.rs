//! A file's versions into this node, which keeps them.
//!
//! Owns: what has to be true before anything of a file is kept, and the order of that: the network is the one that is meant,
//! the log carries its certificates, the versions are in it, each object belongs to one of them.
//! Must not know: the bytes of the file, or how objects are held.
//! Invariant: nothing is kept of a file whose network is not the one that is meant; no object before its log has been checked.
//! When the import succeeds, everything of the versions is here and pinned.
//! Trust: none in the file but for the network's id, which the user vouches for or this node knows.
//! Threads: the runtime; the objects are read and stored on two blocking threads (`keeping`).
//! A crash leaves a log that ends earlier, objects in the cache, and pins that are not whole: the next run passes over what is
//! here.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::export::show;
use super::keeping::{Keeper, first_missing, read_objects};
use super::reading::Reader;
use super::walk::Objects;
use super::{described, name_of, reported};
use crate::chain::Chain;
use crate::id::{Genesis, SnapshotId};
use crate::node::error::{Error, Kind};
use crate::node::job::Job;
use crate::node::networks::check_pin;
use crate::node::report::{BundleHead, BundleImportRequest, BundleImported};
use crate::node::{Node, Reference, Uri, now_ms, off};
use crate::pack::bundle::{Carried, Contents, End, SegmentKind};
use crate::store::{PinRecord, Put};

/// Segments that were read and are not stored yet.
const AHEAD: usize = 2;
/// What an object takes beyond its content, about.
const OVERHEAD: u64 = 400;

impl Node {
    /// Takes over the log and the objects of a file, and pins its versions.
    pub async fn import_bundle(
        self: &Arc<Self>,
        request: &BundleImportRequest,
        job: &Job,
    ) -> Result<BundleImported, Error> {
        let started = Instant::now();
        let file = &request.file;
        let mut reader = off(|| Reader::begin(file))?;
        let expected = request.expected.as_deref().map(expectation).transpose()?;
        self.check_network(file, &reader.contents, expected.as_ref())?;
        let contents = reader.contents.clone();
        let (chain, was_known) = self.networks.carry_in(contents.genesis(), &contents.document).await?;
        let before = chain.ledger().height();
        self.take_log(&chain, file, &mut reader, job).await?;
        let new_blocks = chain.ledger().height().saturating_sub(before);
        check_versions(&chain, file, &contents, expected.as_ref().and_then(|(_, uri)| uri.as_ref()))?;
        self.networks.make_default(chain.genesis())?;
        let _turn = self.pin_turn().await?;
        let imported = self.keep_versions(file, reader, job).await;
        self.join_kept_swarms();
        self.resume_pins();
        let (end, put) = imported?;
        let ledger = chain.ledger();
        let head = off(|| chain.block(contents.head))?.header;
        Ok(BundleImported {
            log: BundleHead {
                genesis: contents.genesis().to_string(),
                height: head.height,
                time_ms: head.time_ms,
                blocks: (contents.head + 1).saturating_sub(contents.first),
                members_only: ledger.params().members_only(),
            },
            new_network: !was_known,
            new_blocks,
            height: ledger.height(),
            versions: reported(&ledger, &contents.genesis(), &contents.versions),
            objects: end.objects,
            new_objects: put.objects,
            new_bytes: put.stored_bytes,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Whether the file is of a network that its reader means, and goes on where the log here ends.
    fn check_network(
        &self,
        file: &Path,
        contents: &Contents,
        expected: Option<&(Genesis, Option<Uri>)>,
    ) -> Result<(), Error> {
        let genesis = contents.genesis();
        let known = self.networks.get(&genesis);
        match expected {
            Some((meant, _)) if *meant != genesis => {
                let text = format!("{} is of network {genesis}, not of {meant}", file.display());
                return Err(Error::new(Kind::Corrupt, text)
                    .hint("it is not the file that you were promised, or the id is another network's"));
            }
            None if known.is_none() => {
                let text = format!(
                    "{} is of network {genesis}, which this node does not belong to, and a file cannot vouch for itself",
                    file.display()
                );
                return Err(Error::usage(text).hint(format!(
                    "compare this id with what the publisher told you by another way (it is the first part of every bcai:// URI of theirs); if it is the same: bcai bundle import {} --genesis {genesis}",
                    file.display()
                )));
            }
            _ => {}
        }
        let height = known.map_or(0, |chain| chain.ledger().height());
        if contents.first <= height + 1 {
            return Ok(());
        }
        let since = contents.since.as_ref().map_or_else(|| "an earlier bundle".to_owned(), name_of);
        let text = format!(
            "the log in {} begins at height {}, and the log here ends at {height}",
            file.display(),
            contents.first
        );
        Err(Error::not_found(text)
            .hint(format!("import the bundle of {since} first, or have it exported without --since")))
    }

    /// Takes over the blocks; the reader stands behind them then.
    async fn take_log(
        &self,
        chain: &Chain,
        file: &Path,
        reader: &mut Reader,
        job: &Job,
    ) -> Result<(), Error> {
        let contents = reader.contents.clone();
        let from = file.display().to_string();
        let mut next = contents.first;
        while next <= contents.head {
            let begins = reader.at;
            let place = off(|| reader.segment())?.filter(|place| place.segment.kind == SegmentKind::Log);
            let Some(place) = place else {
                return Err(reader.broken(begins, "the log ends before its head"));
            };
            for block in off(|| reader.blocks(&place))? {
                job.check()?;
                let taken = self.networks.carry_block(chain, &block, contents.head, &from).await;
                taken.map_err(|error| Error {
                    message: format!("{from} at byte {}, height {next}: {}", place.at, error.message),
                    ..error
                })?;
                next += 1;
                show(job, "log", (next - contents.first, contents.head + 1 - contents.first), (0, 0));
            }
        }
        let is_known = chain.ledger().height() >= contents.head;
        if is_known && off(|| chain.block(contents.head))?.header.id() == contents.header {
            return Ok(());
        }
        Err(reader.broken(
            reader.at,
            format!(
                "the log does not lead to the head that the file announces, {} at height {}",
                contents.header, contents.head
            ),
        ))
    }

    /// Stores the objects, and keeps what they make up.
    async fn keep_versions(
        self: &Arc<Self>,
        file: &Path,
        reader: Reader,
        job: &Job,
    ) -> Result<(End, Put), Error> {
        let contents = reader.contents.clone();
        self.check_base(file, &contents, job).await?;
        self.check_pins_have_room(&contents)?;
        let known = off(|| self.store.pins())?;
        let mut begun = Vec::new();
        for version in &contents.versions {
            let pin = pin_of(version);
            // Nothing is taken away from one that is whole, whatever happens now.
            match known.iter().find(|known| known.is_same(&pin)) {
                Some(known) if known.whole => {}
                // One that was begun before goes on being made, whatever happens now.
                Some(_) => off(|| self.store.set_pin(&pin))?,
                None => {
                    off(|| self.store.set_pin(&pin))?;
                    begun.push(pin);
                }
            }
        }
        let taken = self.take_objects(file, reader, job).await;
        // As with `bcai pin`: what was given up is cached like anything, and what a stop interrupts is gone on with.
        if taken.is_err() && !self.stop.is_cancelled() {
            for pin in begun {
                off(|| self.store.remove_pin(&pin))?;
            }
        }
        taken
    }

    async fn take_objects(
        self: &Arc<Self>,
        file: &Path,
        reader: Reader,
        job: &Job,
    ) -> Result<(End, Put), Error> {
        let contents = reader.contents.clone();
        let (sender, segments) = mpsc::channel(AHEAD);
        let reading = tokio::task::spawn_blocking({
            let (store, job) = (self.store.clone(), job.clone());
            move || {
                let last = read_objects(reader, &store, &job, &sender).transpose();
                // Whoever takes no more has said why.
                last.map(|last| sender.blocking_send(last))
            }
        });
        let mut keeper = Keeper::new(self.local_objects(job), self.store.clone(), file, contents);
        let keeping = tokio::task::spawn_blocking(move || keeper.run(segments));
        let failed = |panic| Error::new(Kind::Failed, format!("reading the bundle failed: {panic}"));
        let kept = keeping.await.map_err(failed)?;
        reading.await.map_err(failed)?;
        kept
    }

    /// What is here, and nothing else.
    fn local_objects(&self, job: &Job) -> Objects {
        Objects { fetcher: self.fetcher.with_source(None), runtime: Handle::current(), job: job.clone() }
    }

    /// Whether what the file leaves out is here.
    async fn check_base(self: &Arc<Self>, file: &Path, contents: &Contents, job: &Job) -> Result<(), Error> {
        let Some(since) = contents.since.clone() else { return Ok(()) };
        let (objects, store, snapshot) = (self.local_objects(job), self.store.clone(), since.snapshot);
        let looked = tokio::task::spawn_blocking(move || first_missing(&objects, &store, snapshot, false));
        let looked =
            looked.await.map_err(|panic| Error::new(Kind::Failed, format!("looking failed: {panic}")))?;
        let Some(id) = looked? else { return Ok(()) };
        let name = name_of(&since);
        Err(Error::not_found(format!(
            "{} holds only what {name} has not, and {name} is not whole on this node: {id} is absent",
            file.display()
        ))
        .hint(format!("import the bundle of {name} first, or have it exported without --since {name}")))
    }

    /// Refuses what pins have no room for, before anything is stored.
    fn check_pins_have_room(&self, contents: &Contents) -> Result<(), Error> {
        let (published, pins) = off(|| Ok::<_, Error>((self.store.snapshots()?, self.store.pins()?)))?;
        // What an interrupted import began was found to have room, and what it holds by now must not count against it.
        let is_kept = |version: &Carried| {
            published.iter().any(|known| known.id == version.snapshot)
                || pins.iter().any(|pin| pin.is_same(&pin_of(version)))
        };
        if contents.versions.iter().all(is_kept) {
            return Ok(());
        }
        let needed = contents.bytes.saturating_add(contents.objects.saturating_mul(OVERHEAD));
        let names: Vec<String> = contents.versions.iter().map(name_of).collect();
        let snapshots: Vec<SnapshotId> = contents.versions.iter().map(|version| version.snapshot).collect();
        self.check_pin_room(&names.join(", "), needed, &snapshots, "")
    }
}

/// The network that is meant, and what else the user expects of the file.
fn expectation(text: &str) -> Result<(Genesis, Option<Uri>), Error> {
    if let Ok(genesis) = text.parse() {
        return Ok((genesis, None));
    }
    match text.parse() {
        Ok(Reference::Uri(uri)) => Ok((uri.genesis, Some(uri))),
        _ => Err(Error::usage(format!("`{text}` names no network"))
            .hint("give its id, which is the first part of every bcai:// URI, or such a URI")),
    }
}

/// Whether the log says of the versions what the file says, and the one that is expected is among them.
fn check_versions(
    chain: &Chain,
    file: &Path,
    contents: &Contents,
    expected: Option<&Uri>,
) -> Result<(), Error> {
    let ledger = chain.ledger();
    let all = contents.versions.iter().chain(&contents.since);
    for version in all {
        let found = ledger.resolve(&version.name, Some(&version.label)).ok().map(|found| found.snapshot);
        if found != Some(version.snapshot) {
            let text = format!(
                "{} says that {} is snapshot {}, and its own log does not",
                file.display(),
                name_of(version),
                version.snapshot
            );
            return Err(Error::new(Kind::Corrupt, text)
                .hint("nothing of it was kept but the log; have it exported again"));
        }
    }
    let Some(uri) = expected else { return Ok(()) };
    check_pin(chain, uri.pin)?;
    let meant = ledger.resolve(&uri.named.name, uri.named.selector.as_deref())?;
    let is_here = |carried: &Carried| carried.name == uri.named.name && carried.snapshot == meant.snapshot;
    if contents.versions.iter().any(is_here) {
        return Ok(());
    }
    let text = format!("{} is not in {}, which is of {}", uri.named, file.display(), described(contents));
    Err(Error::not_found(text).hint("nothing of it was kept but the log"))
}

/// The pin of a version, before anything of it is held.
pub(super) fn pin_of(version: &Carried) -> PinRecord {
    PinRecord {
        snapshot: version.snapshot,
        paths: Vec::new(),
        reference: name_of(version),
        whole: false,
        bytes: 0,
        files: 0,
        pinned_unix_ms: now_ms(),
        replica_of: None,
    }
}
