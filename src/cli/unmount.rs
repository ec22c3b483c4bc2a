//! `bcai unmount`.
//!
//! Owns: its arguments.
//! Must not know: FUSE.
//! Invariant: a busy mount keeps working unless --lazy is given.
//! Trust: as `cli`. Threads: the main thread.

use std::path::PathBuf;

use clap::Args;

use super::{Context, output};
use crate::api::route;
use crate::node::Error;
use crate::node::report::UnmountRequest;

/// Detach a mounted dataset
///
/// Refuses when the mount is in use and says by whom.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bcai unmount /mnt/photos\n  bcai unmount --lazy /mnt/photos")]
pub struct Unmount {
    /// The directory
    dir: PathBuf,
    /// Detach now and let those who use it finish
    #[arg(long)]
    lazy: bool,
}

impl Unmount {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let dir =
            std::path::absolute(&self.dir).map_err(|error| Error::io("cannot use", &self.dir, error))?;
        let request = UnmountRequest { dir, lazy: self.lazy };
        let () = ctx.with_daemon(async |client| client.post(route::UNMOUNT, &request).await)?;
        ctx.output.confirm(&serde_json::json!({ "unmounted": request.dir }), |_| {
            format!("unmounted {}", output::safe(&request.dir.display().to_string()))
        });
        Ok(())
    }
}
