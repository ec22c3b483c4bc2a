//! `bcai cache`.
//!
//! Owns: how the figures of the cache are shown.
//! Must not know: how they are gathered.
//! Invariant: never starts a node just to look at it.
//! Trust: as `cli`. Threads: the main thread.

use clap::Args;

use super::{Context, output, pin};
use crate::api::{Client, route};
use crate::node::report::{CacheStatus, Held};
use crate::node::{Error, Kind, Node};

/// Show what fills the cache, what is pinned, and what the cache was good for
///
/// Counts are since the start of the node. Reads that the kernel answers from its own memory, and large files that it
/// reads by itself, are seen by nobody and not counted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bcai cache\n  bcai cache --json | jq .hit_ratio")]
pub struct Cache {}

impl Cache {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        if Node::running(&ctx.paths)?.is_none() {
            return Err(Error::new(Kind::NotFound, "no node is running").hint("start it with `bcai daemon`"));
        }
        let client = Client::new(&ctx.paths.socket());
        let report: CacheStatus = ctx.block_on(async { client.get(route::CACHE).await })?;
        ctx.output.result(&report, text);
        Ok(())
    }
}

fn text(cache: &CacheStatus) -> String {
    let size = output::size;
    let ratio = cache.hit_ratio.map_or("-".into(), |ratio| format!("{:.1}%", ratio * 100.0));
    let mut lines = vec![
        format!(
            "budget     {} of {} used ({:.1}%), {} until eviction",
            size(cache.used_bytes),
            size(cache.max_bytes),
            output::percent(cache.used_bytes, cache.max_bytes),
            size(cache.free_bytes)
        ),
        format!("cached     {}", size(cache.cached_bytes)),
        format!(
            "pinned     {} of {} that pins may take",
            size(cache.pinned_bytes),
            size(cache.pins_max_bytes)
        ),
        format!("blob files {} in {} files", size(cache.blob_file_bytes), cache.blob_files),
        format!(
            "published  {}, not in the budget; {} more was there already or compressed",
            size(cache.published_bytes),
            size(cache.deduplicated_bytes)
        ),
        format!(
            "reads      {} objects were here, {} had to be waited for: {ratio} hits; {} did not have to be fetched",
            cache.hits,
            cache.misses,
            size(cache.saved_bytes)
        ),
        format!(
            "evicted    {} objects, {}; {} fetched and not cached",
            cache.evicted,
            size(cache.evicted_bytes),
            cache.bypassed
        ),
    ];
    let waiting = cache.snapshots.iter().filter(|row| row.held != Held::Published).count();
    if waiting > 0 {
        let all = cache.snapshots.len();
        lines.push(format!(
            "snapshots  {all}, {waiting} of them withdrawn or in no version: see `bcai gc --dry-run`"
        ));
    }
    if cache.in_place_bytes > 0 {
        // After what is published, which it is counted apart from.
        let line = format!("in place   {} in published files, not in the budget", size(cache.in_place_bytes));
        lines.insert(5, line);
    }
    let hints = &cache.hints;
    if hints.hints > 0 {
        lines.push(format!(
            "hints      {} of {} files fetched ahead ({}), {} were here, {} unknown, {} dropped, {} failed",
            hints.fetched,
            hints.paths,
            size(hints.fetched_bytes),
            hints.here,
            hints.unknown,
            hints.dropped,
            hints.failed
        ));
    }
    lines.extend(cache.pins.iter().map(|row| {
        let state = if row.whole { "" } else { ", not all here yet" };
        let what = if row.replica { "replica    " } else { "pin        " };
        format!("{what}{}: {}{state}", pin::name(row), size(row.bytes))
    }));
    lines.join("\n")
}
