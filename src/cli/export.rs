//! `bcai export`.
//!
//! Owns: its arguments and its summary.
//! Must not know: how files are written.
//! Invariant: an existing file is never overwritten.
//! Trust: as `cli`. Threads: the main thread.

use std::path::PathBuf;

use clap::Args;

use super::{Context, output};
use crate::api::route;
use crate::node::Error;
use crate::node::report::{ExportRequest, Exported};

/// Write a dataset out as ordinary files
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bcai export photos@v1 ./photos")]
pub struct Export {
    /// NAME@VERSION, NAME@TAG, NAME, a snapshot id or a bcai:// URI
    #[arg(value_name = "REF")]
    reference: String,
    /// A directory that is empty or does not exist yet
    dir: PathBuf,
}

impl Export {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let dir =
            std::path::absolute(&self.dir).map_err(|error| Error::io("cannot use", &self.dir, error))?;
        let request = ExportRequest { reference: self.reference, dir };
        let mut meter = ctx.output.progress();
        let done: Exported =
            ctx.with_daemon(async |client| client.job(route::EXPORT, &request, |now| meter.show(now)).await)?;
        drop(meter);
        for warning in &done.warnings {
            ctx.output.note_always(&format!("bcai: {}", output::safe(warning)));
        }
        ctx.output.confirm(&done, |done| {
            let dir = output::safe(&done.dir.display().to_string());
            format!("{dir}: {} inodes, {}, {:.1} s", done.inodes, output::size(done.bytes), done.seconds)
        });
        Ok(())
    }
}
