//! Versions and their log into a file.
//!
//! Owns: which versions and blocks go into it, and in which order. Must not know: the bytes of the file.
//! Invariant: the log comes first, then the objects of each version, a node before what it names; what an earlier version in
//! the file, or the one that the reader has, brings is left out. The same versions give the same objects in the same order.
//! Trust: the request is the user's; objects are verified as they are read.
//! Threads: one blocking thread; memory is bounded by `walk`. A crash leaves `FILE.partial`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

use super::walk::{Known, Met, Objects, Walk};
use super::writing::{Opened, Output, taken};
use super::{described, name_of, reported};
use crate::chain::Chain;
use crate::id::SnapshotId;
use crate::log::Ledger;
use crate::node::error::{Error, Kind};
use crate::node::job::Job;
use crate::node::report::{BundleExportRequest, BundleExported, BundleHead, Progress, VersionOf};
use crate::node::{Node, off};
use crate::pack::Checked;
use crate::pack::bundle::{Carried, Contents, End, MAX_VERSIONS};

/// Bytes of blocks read at a time.
const BLOCKS: usize = 8 << 20;

/// What is to be exported.
struct Plan {
    chain: Arc<Chain>,
    versions: Vec<Carried>,
    since: Option<Carried>,
    /// Height at which the version that the reader has became final.
    since_height: u64,
}

impl Node {
    /// Writes versions into a file, or goes on with that.
    pub async fn export_bundle(
        self: &Arc<Self>,
        request: &BundleExportRequest,
        job: &Job,
    ) -> Result<BundleExported, Error> {
        let plan = job.run(self.plan_bundle(request)).await?;
        let (file, fetcher, job) = (request.file.clone(), self.fetcher.clone(), job.clone());
        for version in &plan.versions {
            self.origins.attend(version.snapshot);
        }
        let runtime = Handle::current();
        let work = move || plan.write(&file, &Objects { fetcher, runtime, job });
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|panic| Error::new(Kind::Failed, format!("writing the bundle failed: {panic}")))?
    }

    async fn plan_bundle(&self, request: &BundleExportRequest) -> Result<Plan, Error> {
        let mut versions: Vec<Carried> = Vec::new();
        let mut network = None;
        for text in &request.versions {
            let (of, carried) = self.carried(text).await?;
            if network.get_or_insert_with(|| of.genesis.clone()) != &of.genesis {
                return Err(Error::usage(format!(
                    "{text} is of another network than {}",
                    name_of(&versions[0])
                ))
                .hint("a bundle carries one log: export to a file for each network"));
            }
            if !versions.contains(&carried) {
                versions.push(carried);
            }
        }
        if versions.is_empty() || versions.len() > MAX_VERSIONS {
            return Err(Error::usage(format!("a bundle holds 1 to {MAX_VERSIONS} versions")));
        }
        let mut since = None;
        let mut since_height = 0;
        if let Some(text) = &request.since {
            let (of, carried) = self.carried(text).await?;
            if network.as_ref() != Some(&of.genesis) {
                return Err(Error::usage(format!(
                    "{text} is of another network than {}",
                    name_of(&versions[0])
                )));
            }
            (since, since_height) = (Some(carried), of.height);
        }
        let genesis = network.unwrap_or_default().parse()?;
        self.networks.check_whole(&genesis)?;
        let chain = self.networks.get(&genesis);
        let chain =
            chain.ok_or_else(|| Error::not_found(format!("network {genesis} is not followed here")))?;
        let ledger = chain.ledger();
        let all = versions.iter().chain(&since);
        if let Some(absent) = all.into_iter().find(|version| find(&ledger, version).is_none()) {
            let text = format!(
                "the log of network {genesis} is still being fetched, and ends before {} at height {}",
                name_of(absent),
                ledger.height()
            );
            return Err(Error::new(Kind::Unreachable, text)
                .hint("try again in a while; `bcai status` shows its height"));
        }
        Ok(Plan { chain, versions, since, since_height })
    }

    /// What a reference means, as a bundle names it.
    async fn carried(&self, text: &str) -> Result<(VersionOf, Carried), Error> {
        let resolved = self.resolve(text).await?;
        let Some(of) = resolved.version else {
            return Err(Error::usage(format!("a snapshot such as {text} is in no log by itself"))
                .hint("name a version: bcai bundle export NAME@VERSION FILE"));
        };
        let snapshot = resolved.snapshot.parse()?;
        let carried = Carried { name: of.name.clone(), label: of.version.clone(), snapshot };
        Ok((of, carried))
    }
}

fn find<'a>(ledger: &'a Ledger, version: &Carried) -> Option<&'a crate::log::Version> {
    ledger.resolve(&version.name, Some(&version.label)).ok()
}

impl Plan {
    fn write(&self, file: &Path, objects: &Objects) -> Result<BundleExported, Error> {
        let started = Instant::now();
        match Output::open(file, || self.contents(objects))? {
            Opened::Whole(contents, end) => {
                if !self.is_of(&contents) {
                    return Err(taken(file, &format!("a bundle of {}", described(&contents))));
                }
                let len =
                    std::fs::metadata(file).map_err(|error| Error::io("cannot read", file, error))?.len();
                Ok(BundleExported { already: true, ..self.report(file, &contents, (end, len), started)? })
            }
            Opened::Begun(mut output) => {
                output.check_is(self.is_of(&output.contents))?;
                let resumed_bytes = output.resumed_bytes;
                self.write_log(&mut output, &objects.job)?;
                self.write_objects(&mut output, objects)?;
                let contents = output.contents.clone();
                let ended = output.finish()?;
                Ok(BundleExported { resumed_bytes, ..self.report(file, &contents, ended, started)? })
            }
        }
    }

    /// Whether a file is of the same, and of a log that ours goes on from.
    fn is_of(&self, contents: &Contents) -> bool {
        contents.genesis() == self.chain.genesis()
            && contents.versions == self.versions
            && contents.since == self.since
            && self.chain.block(contents.head).is_ok_and(|block| block.header.id() == contents.header)
    }

    /// What a new file says of itself. The snapshots are walked through for it, their chunks not being read.
    fn contents(&self, objects: &Objects) -> Result<Contents, Error> {
        let ledger = self.chain.ledger();
        let head = ledger.head().ok_or_else(|| Error::not_found("the log has no block yet"))?;
        let (mut number, mut bytes) = (0, 0);
        self.walk(objects, &mut |met| {
            number += 1;
            match met {
                Met::Node(_, below) => objects.bring_nodes(below)?,
                Met::Chunk(_, len) => bytes += len,
            }
            show(&objects.job, "listing", (number, 0), (0, 0));
            Ok(())
        })?;
        Ok(Contents {
            document: self.chain.document().encode().into(),
            versions: self.versions.clone(),
            since: self.since.clone(),
            first: self.since_height + 1,
            head: head.height,
            header: head.id(),
            objects: number,
            bytes,
        })
    }

    /// Calls `meet` with every object that is to be in the file, in its order.
    fn walk(&self, objects: &Objects, meet: &mut dyn FnMut(&Met) -> Result<(), Error>) -> Result<(), Error> {
        let mut known = Known::default();
        for (at, version) in self.versions.iter().enumerate() {
            known.set_base(objects, self.base(at), version.snapshot)?;
            let mut walk = Walk::new(objects, &mut known, version.snapshot);
            while let Some(met) = walk.next()? {
                meet(&met)?;
            }
        }
        Ok(())
    }

    /// What the reader has when the objects of a version come: the one before it of the same dataset.
    fn base(&self, at: usize) -> Option<SnapshotId> {
        let earlier = self.versions[..at].iter().rev().find(|version| version.name == self.versions[at].name);
        earlier.or(self.since.as_ref()).map(|version| version.snapshot)
    }

    fn write_log(&self, output: &mut Output, job: &Job) -> Result<(), Error> {
        let Contents { first, head, .. } = output.contents;
        let mut next = first + output.blocks;
        while next <= head {
            job.check()?;
            show(job, "log", (next - first, head + 1 - first), (0, 0));
            let mut blocks = off(|| self.chain.blocks(next, BLOCKS))?;
            blocks.truncate((head + 1 - next) as usize);
            if blocks.is_empty() {
                return Err(Error::new(Kind::Failed, format!("the log has no block of height {next}")));
            }
            next += blocks.len() as u64;
            output.add_blocks(&blocks)?;
        }
        Ok(())
    }

    fn write_objects(&self, output: &mut Output, objects: &Objects) -> Result<(), Error> {
        let Contents { objects: all, bytes: total, .. } = output.contents;
        let (mut number, mut bytes) = (0, 0);
        self.walk(objects, &mut |met| {
            objects.job.check()?;
            match met {
                Met::Node(object, below) if output.has_next(&object.id())? => objects.bring_nodes(below)?,
                Met::Node(object, below) => {
                    // What follows is fetched many at a time, if it has to be.
                    objects.bring(below)?;
                    output.add(object)?;
                }
                Met::Chunk(id, len) => {
                    bytes += len;
                    if !output.has_next(id)? {
                        let object: Checked = objects.load(id)?;
                        output.add(&object)?;
                    }
                }
            }
            number += 1;
            show(&objects.job, "writing", (number, all), (bytes, total));
            Ok(())
        })
    }

    fn report(
        &self,
        file: &Path,
        contents: &Contents,
        (end, file_bytes): (End, u64),
        started: Instant,
    ) -> Result<BundleExported, Error> {
        let ledger = self.chain.ledger();
        let head = self.chain.block(contents.head)?.header;
        Ok(BundleExported {
            file: file.to_owned(),
            file_bytes,
            log: BundleHead {
                genesis: contents.genesis().to_string(),
                height: head.height,
                time_ms: head.time_ms,
                blocks: (contents.head + 1).saturating_sub(contents.first),
                members_only: ledger.params().members_only(),
            },
            versions: reported(&ledger, &contents.genesis(), &contents.versions),
            since: contents.since.as_ref().map(name_of),
            objects: end.objects,
            stored_bytes: end.stored_bytes,
            already: false,
            resumed_bytes: 0,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// How far it is: objects or blocks, and bytes, each done and in all.
pub(super) fn show(job: &Job, phase: &str, files: (u64, u64), bytes: (u64, u64)) {
    job.set(Progress {
        phase: phase.into(),
        files_done: files.0,
        files_total: files.1,
        bytes_done: bytes.0,
        bytes_total: bytes.1,
    });
}
