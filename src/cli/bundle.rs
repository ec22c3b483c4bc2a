//! `bcai bundle`.
//!
//! Owns: its arguments and summaries.
//! Must not know: what is in a bundle.
//! Invariant: when `import` succeeds, everything of the versions is here and stays.
//! Trust: as `cli`. Threads: the main thread.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Context, output};
use crate::api::route;
use crate::node::Error;
use crate::node::report::{
    BundleExportRequest, BundleExported, BundleHead, BundleImportRequest, BundleImported, BundledVersion,
};

/// Carry versions in one file to machines that no network reaches
///
/// A bundle holds the network's log and everything that the versions consist of. Whoever imports it checks both as if they came
/// from a peer: the log by its certificates, from the genesis document on, and each object by its id.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai bundle export photos@v1 /media/stick/photos.bundle\n  bcai bundle import /media/stick/photos.bundle --genesis 'bcai://GENESIS/photos@v1'"
)]
pub struct Bundle {
    #[command(subcommand)]
    command: BundleCommand,
}

#[derive(Debug, Subcommand)]
enum BundleCommand {
    Export(BundleExport),
    Import(BundleImport),
}

/// Write versions, and the log that says so, into one file
///
/// Until it is whole the file is called FILE.partial. Interrupted, by Ctrl-C, a crash or a full disk, the same command goes on
/// where it stopped. What is not on this machine is fetched from peers. An encrypted version is carried as it is, and its key
/// is not: whoever was granted it reads it there too.
///
/// Whoever has the file can read what is in it, also of a network that is for members only.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai bundle export photos@v1 photos@v2 labels@v7 /media/stick/photos.bundle\n  bcai bundle export photos@v3 /media/stick/v3.bundle --since photos@v2"
)]
struct BundleExport {
    /// NAME@VERSION, NAME@TAG, NAME or a bcai:// URI, all of one network
    #[arg(value_name = "REF", required = true)]
    versions: Vec<String>,
    /// The file to write; an existing one is never overwritten
    file: PathBuf,
    /// Leave out what this version has: the machine that imports the file must have all of it already
    #[arg(long, value_name = "REF")]
    since: Option<String>,
}

/// Take over the versions of a bundle, and pin them
///
/// What is imported counts in the budget of the cache and stays until `bcai unpin`. Interrupted, the same command goes on where
/// it stopped: what is here is not read again. A file that is damaged, cut off or not what it says is refused with the place;
/// nothing of it is kept that was not verified.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai bundle import /media/stick/photos.bundle --genesis 'bcai://GENESIS/photos@v1'\n  bcai bundle import /media/stick/v3.bundle\n  bcai mount photos@v1 /mnt/photos"
)]
struct BundleImport {
    /// The file
    file: PathBuf,
    /// The id of the network that it must be of, or a URI of a version that must be in it
    ///
    /// Needed when this node does not belong to the network yet. It is what everything else is checked against, so it has to come
    /// from the publisher by another way than the file.
    #[arg(long, value_name = "GENESIS|URI")]
    genesis: Option<String>,
}

impl Bundle {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        match self.command {
            BundleCommand::Export(command) => command.run(ctx),
            BundleCommand::Import(command) => command.run(ctx),
        }
    }
}

fn absolute(file: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(file).map_err(|error| Error::io("cannot use", file, error))
}

impl BundleExport {
    fn run(self, ctx: &Context) -> Result<(), Error> {
        let file = absolute(&self.file)?;
        let request = BundleExportRequest { versions: self.versions, file, since: self.since };
        let mut meter = ctx.output.progress();
        let done: BundleExported = ctx.with_daemon(async |client| {
            client.job(route::BUNDLE_EXPORT, &request, |now| meter.show(now)).await
        })?;
        drop(meter);
        ctx.output.confirm(&done, |done| {
            let file = output::safe(&done.file.display().to_string());
            let head = match (done.already, done.resumed_bytes) {
                (true, _) => format!("{file} was whole already; remove it to have a newer log in it"),
                (false, 0) => format!("{file}: {}, {:.1} s", output::size(done.file_bytes), done.seconds),
                (false, before) => format!(
                    "{file}: {}, of which {} were there already, {:.1} s",
                    output::size(done.file_bytes),
                    output::size(before),
                    done.seconds
                ),
            };
            let mut lines = vec![head];
            lines.extend(versions(&done.versions));
            if let Some(since) = &done.since {
                lines.push(format!("only what {} has not", output::safe(since)));
            }
            lines.push(log(&done.log));
            if done.log.members_only {
                lines.push(
                    "this network is for members only; whoever has the file reads it all the same".into(),
                );
            }
            lines.push(format!("there: bcai bundle import FILE --genesis {}", done.log.genesis));
            lines.join("\n")
        });
        Ok(())
    }
}

impl BundleImport {
    fn run(self, ctx: &Context) -> Result<(), Error> {
        let request = BundleImportRequest { file: absolute(&self.file)?, expected: self.genesis };
        let mut meter = ctx.output.progress();
        let done: BundleImported = ctx.with_daemon(async |client| {
            client.job(route::BUNDLE_IMPORT, &request, |now| meter.show(now)).await
        })?;
        drop(meter);
        ctx.output.confirm(&done, |done| {
            let mut lines = vec![format!(
                "pinned: {} of {} objects were new, {}, {:.1} s",
                done.new_objects,
                done.objects,
                output::size(done.new_bytes),
                done.seconds
            )];
            lines.extend(versions(&done.versions));
            lines.push(log(&done.log));
            if done.height > done.log.height {
                lines.push(format!("the log here has come further, to height {}", done.height));
            }
            if done.new_network {
                lines.push(format!("this node belongs to network {} now", done.log.genesis));
            }
            lines.join("\n")
        });
        Ok(())
    }
}

fn versions(versions: &[BundledVersion]) -> impl Iterator<Item = String> {
    versions.iter().map(|version| {
        let withdrawn =
            version.withdrawn.as_ref().map(|reason| format!(", withdrawn: {}", output::safe(reason)));
        format!(
            "  {}, {}{}",
            output::safe(&version.reference),
            output::size(version.bytes),
            withdrawn.unwrap_or_default()
        )
    })
}

fn log(head: &BundleHead) -> String {
    format!("log up to height {} of {}, {} blocks", head.height, output::time(head.time_ms), head.blocks)
}
