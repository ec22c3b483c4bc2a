//! `bcai prefetch`.
//!
//! Owns: its arguments, its report and its exit code.
//! Must not know: objects.
//! Invariant: exit code 0 from fetching and `--check` only when all that was meant is on this machine.
//! Trust: as `cli`. Threads: the main thread.

use std::process::ExitCode;

use clap::Args;

use super::{Context, exit_code, output};
use crate::api::route;
use crate::node::report::{Prefetch as What, PrefetchRequest, Prefetched};
use crate::node::{Error, Kind};

/// Fetch a dataset, or a part of it, before it is read
///
/// Readers go first. Interrupted, it goes on where it was when it is run again: what is here is not fetched. What was
/// fetched may be evicted like anything in the cache; `bcai pin` keeps it.
#[derive(Debug, Args)]
#[command(
    after_help = "Patterns are of paths from the root of the dataset: `*` and `?` stay within a name, `**` goes over directories, and a directory means all that is in it.\n\nExamples:\n  bcai prefetch photos@v1\n  bcai prefetch photos@v1 train '**/*.json'\n  bcai prefetch photos@v1 train --check && ./train.py"
)]
pub struct Prefetch {
    /// NAME@VERSION, NAME@TAG, NAME, a snapshot id or a bcai:// URI
    #[arg(value_name = "REF")]
    reference: String,
    /// Only what matches one of these patterns
    #[arg(value_name = "GLOB")]
    globs: Vec<String>,
    /// Say how much of it is here, and fetch directories only; exit code 1 if something is missing
    #[arg(long, conflicts_with = "evict")]
    check: bool,
    /// Drop it from the cache, as far as directories that are here name it, and fetch nothing; what is published,
    /// pinned, or open as a large file stays
    #[arg(long)]
    evict: bool,
}

impl Prefetch {
    pub fn run(self, ctx: &Context) -> Result<ExitCode, Error> {
        let what = match (self.check, self.evict) {
            (true, _) => What::Check,
            (_, true) => What::Evict,
            _ => What::Fetch,
        };
        let request = PrefetchRequest { reference: self.reference, globs: self.globs, what };
        let mut meter = ctx.output.progress();
        let done: Prefetched = ctx
            .with_daemon(async |client| client.job(route::PREFETCH, &request, |now| meter.show(now)).await)?;
        drop(meter);
        ctx.output.result(&done, |done| text(done, what));
        let whole = done.files_here == done.files && done.bytes_here == done.bytes;
        if what == What::Fetch && !whole {
            ctx.output.note(
                "not all of it stayed in the cache: raise cache.max_bytes, free its disk, or prefetch less; see `bcai cache`",
            );
        }
        Ok(if whole || what == What::Evict { ExitCode::SUCCESS } else { exit_code(Kind::Failed) })
    }
}

fn text(done: &Prefetched, what: What) -> String {
    let here = format!(
        "{} of {} files, {} of {} ({:.1}%) are here",
        done.files_here,
        done.files,
        output::size(done.bytes_here),
        output::size(done.bytes),
        output::percent(done.bytes_here, done.bytes)
    );
    match what {
        What::Fetch => format!("{here}, after {:.1} s", done.seconds),
        What::Check => here,
        What::Evict => format!("{} dropped; {here}", output::size(done.evicted_bytes)),
    }
}
