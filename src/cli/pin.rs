//! `bcai pin` and `bcai unpin`.
//!
//! Owns: their arguments and reports.
//! Must not know: how anything is held.
//! Invariant: when `pin` succeeds, all of it is here and stays.
//! Trust: as `cli`. Threads: the main thread.

use clap::Args;

use super::{Context, output};
use crate::api::route;
use crate::node::Error;
use crate::node::report::{Pin as Report, PinRequest, Unpinned};

/// Fetch a dataset, or a part of it, and keep it from being evicted
///
/// What is pinned counts in the budget of the cache, of which pins may take four fifths; one that does not fit is
/// refused before anything is fetched. Interrupted, it is no pin; what has come is cached, and not fetched again when it
/// is run again.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai pin photos@v1\n  bcai pin photos@v1 --path 'train/**' --path labels.json\n  bcai cache"
)]
pub struct Pin {
    /// NAME@VERSION, NAME@TAG, NAME (the newest version as it is now), a snapshot id or a bcai:// URI
    #[arg(value_name = "REF")]
    reference: String,
    /// Only what matches this pattern of paths (see `bcai prefetch --help`); may be given more than once
    #[arg(long = "path", value_name = "GLOB")]
    paths: Vec<String>,
}

/// Let what was pinned be evicted again
///
/// What is published here, or belongs to another pin, stays.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai unpin photos@v1\n  bcai unpin photos@v1 --path 'train/**' --path labels.json"
)]
pub struct Unpin {
    /// As it was pinned, or as `bcai cache` shows it
    #[arg(value_name = "REF")]
    reference: String,
    /// Only the pin of exactly these patterns; without any, every pin of the snapshot
    #[arg(long = "path", value_name = "GLOB")]
    paths: Vec<String>,
}

impl Pin {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let request = PinRequest { reference: self.reference, paths: self.paths };
        let mut meter = ctx.output.progress();
        let done: Report =
            ctx.with_daemon(async |client| client.job(route::PIN, &request, |now| meter.show(now)).await)?;
        drop(meter);
        ctx.output.confirm(&done, |pin| {
            format!("pinned {}: {} files, {}", name(pin), pin.files, output::size(pin.bytes))
        });
        Ok(())
    }
}

impl Unpin {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let request = PinRequest { reference: self.reference, paths: self.paths };
        let done: Unpinned =
            ctx.with_daemon(async |client| client.job(route::UNPIN, &request, |_| ()).await)?;
        ctx.output.confirm(&done, |done| {
            let names: Vec<String> = done.removed.iter().map(name).collect();
            let released = output::size(done.released_bytes);
            format!("unpinned {}: {released} may be evicted again", names.join(", "))
        });
        Ok(())
    }
}

/// How a pin is called: the reference, and the patterns.
pub fn name(pin: &Report) -> String {
    let paths: Vec<String> = pin.paths.iter().map(|path| output::safe(path)).collect();
    let reference = output::safe(&pin.reference);
    if paths.is_empty() { reference } else { format!("{reference} ({})", paths.join(", ")) }
}
