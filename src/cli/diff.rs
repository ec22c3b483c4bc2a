//! `bcai diff`.
//!
//! Owns: which two versions are meant, and how differences are shown.
//! Must not know: trees.
//! Invariant: rows are printed as they come; nothing is collected.
//! Trust: names come from datasets; they are escaped. Threads: the main thread.

use clap::Args;

use super::{Context, output};
use crate::api::route;
use crate::id::SnapshotId;
use crate::node::Error;
use crate::node::report::{DiffNew, DiffRequest, DiffRow, DiffSide, DiffTotals};

/// Show what is different between two versions of a dataset
///
/// One line for each name: + added, - removed, ~ changed, with what of it changed. Directories that are the same are not
/// read, and of contents nothing is fetched, so this is quick however large the versions are. A change of a file with several names
/// (hard links) is shown at its first one at least. The exit code is 0 whether there are differences or not.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai diff photos@v1 photos@v2\n  bcai diff photos@v1 v2 --stat\n  bcai --json diff photos@v1 v2 | jq -r .path"
)]
pub struct Diff {
    /// The earlier version
    #[arg(value_name = "REF")]
    before: String,
    /// The later one: a reference, or a version or tag of the same dataset
    #[arg(value_name = "REF|VERSION")]
    after: String,
    /// Only the totals, with the bytes that are new in the later version
    ///
    /// New is what is in chunks that no file which was removed or changed had: so much at least has to be fetched by somebody
    /// who has the earlier version, if nothing else has it.
    #[arg(long)]
    stat: bool,
}

impl Diff {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let after = beside(&self.before, &self.after);
        let request = DiffRequest { before: self.before, after, stat: self.stat };
        let mut meter = ctx.output.progress();
        let show = |rows: Vec<DiffRow>| {
            for row in rows {
                let text = match ctx.output.json {
                    // Reports hold strings, numbers and lists only: they always serialise.
                    true => serde_json::to_string(&row).unwrap_or_default(),
                    false => line(&row),
                };
                if !output::print(&text) {
                    // The daemon ends the job when nobody listens.
                    std::process::exit(0);
                }
            }
        };
        let totals: DiffTotals = ctx.with_daemon(async |client| {
            client.job_with_rows(route::DIFF, &request, |now| meter.show(now), show).await
        })?;
        drop(meter);
        match request.stat {
            true => ctx.output.result(&totals, text),
            false if !ctx.output.json => ctx.output.note(&text(&totals)),
            false => {}
        }
        Ok(())
    }
}

/// The second reference: a mere version or tag is one of the dataset of the first.
fn beside(before: &str, after: &str) -> String {
    let is_whole = after.contains('@') || after.contains("://") || after.parse::<SnapshotId>().is_ok();
    match before.split_once('@') {
        Some((name, rest)) if !is_whole => {
            let query = rest.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
            format!("{name}@{after}{query}")
        }
        _ => after.to_owned(),
    }
}

fn line(row: &DiffRow) -> String {
    let is_dir = row.after.as_ref().or(row.before.as_ref()).is_some_and(|side| side.kind == "dir");
    let path = format!("{}{}", output::safe(&row.path), if is_dir { "/" } else { "" });
    match (&row.before, &row.after) {
        (Some(before), Some(after)) => {
            let aspects: Vec<String> =
                row.aspects.iter().map(|aspect| changed(aspect, before, after)).collect();
            format!("~ {path}  {}", aspects.join(", "))
        }
        (None, _) => format!("+ {path}"),
        (_, None) => format!("- {path}"),
    }
}

fn changed(aspect: &str, before: &DiffSide, after: &DiffSide) -> String {
    match aspect {
        "content" => match (before.size, after.size) {
            (Some(before), Some(after)) if before != after => {
                format!("content {} -> {}", output::size(before), output::size(after))
            }
            _ => "content".to_owned(),
        },
        "mode" => format!("mode {:03o} -> {:03o}", before.mode, after.mode),
        "owner" => format!("owner {}:{} -> {}:{}", before.uid, before.gid, after.uid, after.gid),
        "target" => {
            let target = |side: &DiffSide| output::safe(side.target.as_deref().unwrap_or_default());
            format!("target {} -> {}", target(before), target(after))
        }
        other => other.to_owned(),
    }
}

fn text(totals: &DiffTotals) -> String {
    let names = format!("{} added, {} removed, {} changed", totals.added, totals.removed, totals.changed);
    let sizes =
        format!("{} before, {} after", output::size(totals.bytes_before), output::size(totals.bytes_after));
    let new = totals.new.map(|DiffNew { chunks, bytes, at_most }| {
        let most = if at_most { "at most " } else { "" };
        format!("; new: {most}{} in {chunks} chunks", output::size(bytes))
    });
    format!("{names}; files that differ: {sizes}{}", new.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mere_version_is_one_of_the_same_dataset() {
        let id = "ab".repeat(32);
        for (before, after, means) in [
            ("photos@v1", "v2", "photos@v2"),
            ("photos@v1", "photos@v2", "photos@v2"),
            ("photos@v1", "other@v2", "other@v2"),
            ("photos", "other", "other"),
            ("photos@v1", &id, &id),
            ("bcai://ab/photos@v1?peer=/x", "v2", "bcai://ab/photos@v2?peer=/x"),
            ("photos@v1", "bcai://ab/photos?peer=/x", "bcai://ab/photos?peer=/x"),
        ] {
            assert_eq!(beside(before, after), means);
        }
    }
}
