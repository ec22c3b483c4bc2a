//! `bcai snapshot`.
//!
//! Owns: its arguments and its summary.
//! Must not know: how a snapshot is built.
//! Invariant: nothing is published.
//! Trust: as `cli`. Threads: the main thread.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Context, output};
use crate::api::route;
use crate::node::Error;
use crate::node::report::{SnapshotRequest, Snapshotted};

/// Build a snapshot of a directory in the local store
///
/// Prints its id; publishes nothing. The same directory always has the same id. A file that changes while it is
/// read fails the snapshot with its name. Files that have not changed since an earlier snapshot are not read again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bcai snapshot ./photos")]
pub struct Snapshot {
    /// The directory
    dir: PathBuf,
    #[command(flatten)]
    ingest: IngestArgs,
}

/// How a directory is read; shared with `publish`.
#[derive(Debug, Args)]
pub struct IngestArgs {
    /// How files are cut: auto (cdc:64K that knows tar, zip, safetensors and Parquet), cdc:64K, cdc:256K, cdc:1M, fixed:1M, fixed:2M or fixed:4M
    #[arg(long, value_name = "MODE")]
    chunking: Option<String>,

    /// How chunks are compressed: none, lz4 or zstd:LEVEL
    #[arg(long, value_name = "CODEC")]
    compress: Option<String>,

    /// Leave out sockets, FIFOs and devices instead of refusing the directory
    #[arg(long)]
    skip_special: bool,

    /// Serve larger files from where they are instead of storing their content; they must not be changed from then on
    ///
    /// For data that is too large to be kept twice. Where the file system can do it (XFS, btrfs), the store clones such
    /// files, which takes no space, and later changes of them do no harm. Otherwise a file that is changed, moved or
    /// removed can no longer be read from this node: nobody is given other bytes for it.
    #[arg(long)]
    in_place: bool,
    /// Read all files, also those that have not changed since an earlier snapshot
    ///
    /// A file counts as unchanged when inode number, size, modification time and change time are what they were, and all
    /// of its content is in the store. Programs that write through a memory mapping can evade that.
    #[arg(long)]
    paranoid: bool,
}

impl IngestArgs {
    /// The request for `dir`, whose path the daemon can use from its own working directory. What no flag says is as
    /// configured here and now: the daemon may have been started with other settings.
    pub fn request(self, ctx: &Context, dir: &Path) -> Result<SnapshotRequest, Error> {
        let dir = std::path::absolute(dir).map_err(|error| Error::io("cannot use", dir, error))?;
        Ok(SnapshotRequest {
            dir,
            chunking: self.chunking.unwrap_or_else(|| ctx.config.chunking.to_string()),
            compress: self.compress.unwrap_or_else(|| ctx.config.compression.to_string()),
            skip_special: self.skip_special,
            in_place: self.in_place,
            paranoid: self.paranoid,
        })
    }
}

impl Snapshot {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let request = self.ingest.request(ctx, &self.dir)?;
        let mut meter = ctx.output.progress();
        let done: Snapshotted = ctx
            .with_daemon(async |client| client.job(route::SNAPSHOT, &request, |now| meter.show(now)).await)?;
        drop(meter);
        summary(ctx, &done);
        ctx.output.result(&done, |done| done.snapshot.clone());
        Ok(())
    }
}

/// Says on stderr what was read and what of it was new.
pub fn summary(ctx: &Context, done: &Snapshotted) {
    if ctx.output.json {
        return;
    }
    for path in &done.skipped {
        ctx.output.note(&format!("skipped {}", output::safe(path)));
    }
    let unchanged = match done.unchanged {
        0 => String::new(),
        files => format!("; {files} file(s) unchanged"),
    };
    ctx.output.note(&format!(
        "{} inodes, {} in {} chunks{unchanged}; {} new in the store; {:.1} s, {}",
        done.inodes,
        output::size(done.bytes),
        done.chunks,
        output::size(done.new_bytes),
        done.seconds,
        output::rate(done.bytes, done.seconds),
    ));
    if done.cloned_files > 0 {
        ctx.output.note(&format!("{} files are kept as clones that share their space", done.cloned_files));
    }
    if done.copied_files > 0 {
        ctx.output.note_always(&format!(
            "{} files are stored in full: files on FUSE are not served in place",
            done.copied_files
        ));
    }
    if done.in_place_files > 0 {
        let files = done.in_place_files;
        ctx.output.note_always(&format!(
            "{files} files are served from where they are: do not change, move or remove them"
        ));
    }
}
