//! `bcai remount`.
//!
//! Owns: its arguments.
//! Must not know: FUSE.
//! Invariant: when it returns, every path below the directory leads to the version it names.
//! Trust: as `cli`. Threads: the main thread.

use std::path::PathBuf;

use clap::Args;

use super::{Context, mount, output};
use crate::api::route;
use crate::node::Error;
use crate::node::report::{RemountRequest, Remounted};

/// Put another version in place of what is mounted on a directory
///
/// The change happens at one moment and interrupts nobody: files that are open stay what they were, files opened from then on
/// are those of the new version. Without REF: what the mount's own reference means now, such as the newest version of a dataset.
///
/// A mount of NAME@latest or NAME@TAG changes by itself when the tag names another version, until it is given a version here.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai remount /mnt/photos\n  bcai remount /mnt/photos photos@v2\n  bcai remount /mnt/photos photos@latest"
)]
pub struct Remount {
    /// The directory
    dir: PathBuf,
    /// NAME@VERSION, NAME@TAG, NAME, a snapshot id or a bcai:// URI
    #[arg(value_name = "REF")]
    reference: Option<String>,
}

impl Remount {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let dir =
            std::path::absolute(&self.dir).map_err(|error| Error::io("cannot use", &self.dir, error))?;
        let request = RemountRequest { dir, reference: self.reference };
        let remounted: Remounted =
            ctx.with_daemon(async |client| client.post(route::REMOUNT, &request).await)?;
        ctx.output.confirm(&remounted, |remounted| {
            let before = match &remounted.before {
                _ if !remounted.changed => " (as before)".to_owned(),
                Some(before) => output::safe(&format!(" (was {}@{})", before.name, before.version)),
                None => format!(" (was snapshot {})", remounted.before_snapshot),
            };
            mount::describe_with(&remounted.mounted, &before)
        });
        Ok(())
    }
}
