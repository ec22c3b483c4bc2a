//! `bcai publish`.
//!
//! Owns: its arguments and its summary.
//! Must not know: how versions are decided.
//! Invariant: when it succeeds, the version is certified and on disk.
//! Trust: as `cli`. Threads: the main thread.

use clap::Args;

use super::snapshot::{IngestArgs, summary};
use super::{Context, output};
use crate::api::route;
use crate::id::SnapshotId;
use crate::node::Error;
use crate::node::report::{PublishRequest, Published, Source};

/// Publish a directory or a snapshot as a version of a dataset
///
/// Stores and signs it, commits it to the network's log, and prints the URI to share. A version never changes:
/// publishing the same content again succeeds, other content is refused. An interrupted publish resumes when it is
/// run again.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai publish ./photos photos@v1\n  bcai publish $(bcai snapshot ./photos) photos@v1"
)]
pub struct Publish {
    /// A directory, or a snapshot id
    source: String,
    /// The dataset and the new version: NAME@VERSION
    target: String,
    #[command(flatten)]
    ingest: IngestArgs,
}

impl Publish {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let source = match self.source.parse::<SnapshotId>() {
            Ok(id) => Source::Snapshot(id.to_string()),
            Err(_) => Source::Dir(self.ingest.request(ctx, self.source.as_ref())?),
        };
        let request = PublishRequest { source, target: self.target };
        let mut meter = ctx.output.progress();
        let done: Published = ctx
            .with_daemon(async |client| client.job(route::PUBLISH, &request, |now| meter.show(now)).await)?;
        drop(meter);
        if let Some(ingest) = &done.ingest {
            summary(ctx, ingest);
        }
        if !ctx.output.json {
            let what = if done.already { "was already published" } else { "published" };
            ctx.output.note(&format!(
                "{}@{} {what}: height {}, {} signature(s), {:.1} ms",
                output::safe(&done.name),
                output::safe(&done.version),
                done.height,
                done.signers,
                done.commit_ms
            ));
        }
        ctx.output.result(&done, |done| done.uri.clone());
        Ok(())
    }
}
