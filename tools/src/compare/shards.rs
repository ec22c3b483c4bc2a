//! Rows about what a further dataset adds to the store.
//!
//! Owns: the order: folder, shards made of it, shards with new records.
//! Must not know: where bcai cuts.
//! Invariant: what is added is counted by the store, after compression; the data is incompressible.
//! Trust: as `compare`. Threads: the main thread.

use std::collections::BTreeSet;

use super::Bench;
use super::Report;
use super::epochs::Folder;
use super::rows::Row;
use crate::corpus::{self, Kind};
use crate::measure::MIB;
use crate::scratch::{number, say};

pub fn run(
    bench: &Bench,
    folder: &Folder,
    wanted: &BTreeSet<Row>,
    report: &mut Report,
) -> anyhow::Result<()> {
    say("tar shards");
    let first = bench.corpus(Kind::ShardsV1)?;
    let (_, bytes) = corpus::files(&first)?;
    let (published, _) = folder.site.publish(&first, "shards@v1")?;
    if wanted.contains(&Row::ShardsOfFolder) {
        let added = number(&published, "/ingest/new_bytes")?;
        report.value(Row::ShardsOfFolder, added / bytes as f64 * 100.0);
        let note = format!("{:.1} MiB added by {:.0} MiB of shards", added / MIB, bytes as f64 / MIB);
        report.note(Row::ShardsOfFolder, note);
    }
    if wanted.contains(&Row::ShardsSecond) {
        let second = bench.corpus(Kind::ShardsV2)?;
        let new = corpus::new_record_bytes(bench.size) as f64;
        let (published, _) = folder.site.publish(&second, "shards@v2")?;
        let added = number(&published, "/ingest/new_bytes")?;
        report.value(Row::ShardsSecond, added / new);
        let note = format!("{:.2} MiB added for {:.2} MiB of new images", added / MIB, new / MIB);
        report.note(Row::ShardsSecond, note);
    }
    Ok(())
}
