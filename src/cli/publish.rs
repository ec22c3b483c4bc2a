//! `bcai publish`.
//!
//! Owns: its arguments and its summary.
//! Must not know: how versions are decided.
//! Invariant: when it succeeds, the version is certified and on disk.
//! Trust: as `cli`. Threads: the main thread.

use std::path::Path;

use clap::Args;

use super::snapshot::{IngestArgs, summary};
use super::{Context, output};
use crate::api::route;
use crate::id::SnapshotId;
use crate::node::Error;
use crate::node::report::{Ack, PublishRequest, Published, Source};
use crate::origin::OriginUrl;

/// Publish a directory or a snapshot as a version of a dataset
///
/// Stores and signs it, commits it to the network's log, and prints the URI to share. A version never changes:
/// publishing the same content again succeeds, other content is refused. An interrupted publish resumes when it is
/// run again.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai publish ./photos photos@v1\n  bcai publish $(bcai snapshot ./photos) photos@v1\n  bcai publish ./photos photos@v1 --origin s3://bucket/prefix\n  bcai publish photos@v1 photos@v1 --origin file:///mnt/share/photos"
)]
pub struct Publish {
    /// A directory, a snapshot id, or a version that this node has published (NAME@VERSION)
    source: String,
    /// The dataset and the new version: NAME@VERSION
    target: String,
    /// Upload it to an object store as well: file:///FOLDER or s3://BUCKET/PREFIX
    ///
    /// Nodes ask it when no peer has something; the URI that is printed names it. What it has already, of this or of former
    /// versions of the dataset, is not sent again, and an interrupted upload goes on where it was. For S3 the daemon's
    /// environment says how to get in: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and for another service than
    /// Amazon's AWS_ENDPOINT, with AWS_ALLOW_HTTP=true if that is not encrypted.
    #[arg(long, value_name = "URL")]
    origin: Option<String>,
    /// Encrypt it, so that only those read it whom `bcai keys grant KEY reader --dataset NAME` gives the key
    ///
    /// Later versions of the dataset are encrypted without asking. Names, sizes and contents of files are not to be seen by nodes
    /// that only store or pass it on; how many objects there are, and how long each is, is. The key is in dataset.keys, beside
    /// identity.key: back up both, without them nobody can be given the key any more.
    #[arg(long)]
    encrypt: bool,
    /// Publish in plain, for everybody to read, though earlier versions are encrypted
    #[arg(long, conflicts_with = "encrypt")]
    plaintext: bool,
    /// Have it held by this many storage nodes besides this one: 3, or as many as the network has
    ///
    /// A node stores for the network when an admin has given it the role: bcai keys grant KEY storage. Nodes that are lost
    /// are replaced by others, as long as there are any; bcai status shows what is on too few.
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// How many of them must have it on disk before it is published: one, quorum (more than half) or all
    #[arg(long, value_enum, default_value_t = AckArg::Quorum)]
    ack: AckArg,
    #[command(flatten)]
    ingest: IngestArgs,
}

/// How many storage nodes are waited for.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum AckArg {
    One,
    Quorum,
    All,
}

impl From<AckArg> for Ack {
    fn from(ack: AckArg) -> Self {
        match ack {
            AckArg::One => Self::One,
            AckArg::Quorum => Self::Quorum,
            AckArg::All => Self::All,
        }
    }
}

impl Publish {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let source = match self.source.parse::<SnapshotId>() {
            Ok(id) => Source::Snapshot(id.to_string()),
            // A directory goes first: its name may look like a version's.
            Err(_) if self.source.contains('@') && !Path::new(&self.source).exists() => {
                Source::Version(self.source)
            }
            Err(_) => Source::Dir(self.ingest.request(ctx, self.source.as_ref())?),
        };
        // A mistake in it is told before anything is read.
        let origin = self.origin.map(|url| url.parse::<OriginUrl>()).transpose()?;
        let origin = origin.map(|url| url.to_string());
        let (encrypt, plaintext) = (self.encrypt, self.plaintext);
        let request = PublishRequest {
            source,
            target: self.target,
            origin,
            encrypt,
            plaintext,
            replicas: self.replicas,
            ack: self.ack.into(),
        };
        let mut meter = ctx.output.progress();
        let done: Published = ctx
            .with_daemon(async |client| client.job(route::PUBLISH, &request, |now| meter.show(now)).await)?;
        drop(meter);
        if let Some(ingest) = &done.ingest {
            summary(ctx, ingest);
        }
        if let Some(upload) = done.upload.as_ref().filter(|_| !ctx.output.json) {
            ctx.output.note(&match upload.already {
                true => format!("{} has all of it already", output::safe(&upload.origin)),
                false => format!(
                    "{} has all of it: {} sent in {} of {} new packs, {:.1} s",
                    output::safe(&upload.origin),
                    output::size(upload.sent_bytes),
                    upload.sent_packs,
                    upload.packs,
                    upload.seconds
                ),
            });
        }
        if done.copies > 0 && !ctx.output.json {
            ctx.output
                .note(&format!("{} of {} storage nodes have it on disk", done.acknowledged, done.copies));
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
