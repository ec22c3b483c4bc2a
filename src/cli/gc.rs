//! `bcai gc`.
//!
//! Owns: its arguments and its report.
//! Must not know: what keeps a snapshot.
//! Invariant: with --dry-run nothing changes.
//! Trust: as `cli`. Threads: the main thread.

use clap::Args;

use super::{Context, output};
use crate::api::route;
use crate::node::Error;
use crate::node::report::{Collected, GcRequest, Held, KeptSnapshot};

/// Take away what was published here and is no longer wanted
///
/// A snapshot stays while a version of it is not withdrawn, and gc.keep_withdrawn days longer; one that is in no version
/// stays gc.keep_unpublished days from when it was built. What is pinned or mounted stays in any case. Nothing is taken
/// away without this command; what is only cached goes by itself. Interrupted, it goes on when it is run again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bcai gc --dry-run\n  bcai gc")]
pub struct Gc {
    /// Show every snapshot and when it goes, and take nothing away
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let request = GcRequest { dry_run: self.dry_run };
        let mut meter = ctx.output.progress();
        let done: Collected =
            ctx.with_daemon(async |client| client.job(route::GC, &request, |now| meter.show(now)).await)?;
        drop(meter);
        ctx.output.result(&done, text);
        Ok(())
    }
}

fn text(done: &Collected) -> String {
    let shown = done.snapshots.iter().filter(|row| done.dry_run || row.goes);
    let mut lines: Vec<String> = shown.map(|row| line(row, done.dry_run)).collect();
    let (size, kept) = (output::size(done.bytes), output::size(done.kept_bytes));
    let verb = if done.dry_run { "would free" } else { "freed" };
    lines.push(format!("{verb} {size} in {} objects; {kept} in {} stay", done.objects, done.kept_objects));
    if done.in_place_bytes > 0 {
        let size = output::size(done.in_place_bytes);
        lines.push(format!(
            "{size} more are parts of files that were published in place, which nobody removes"
        ));
    }
    lines.join("\n")
}

fn line(row: &KeptSnapshot, dry_run: bool) -> String {
    let name = match row.versions.is_empty() {
        true => format!("{} of {}", row.snapshot, output::safe(&row.source)),
        false => row.versions.iter().map(|name| output::safe(name)).collect::<Vec<_>>().join(", "),
    };
    let why = match row.held {
        Held::Published => "published",
        Held::Submitted => "submitted, and in no version that is known here",
        Held::Withdrawn => "withdrawn",
        Held::Unpublished => "in no version",
    };
    let fate = match row.goes_unix_ms {
        None => "stays".into(),
        Some(_) if row.goes && dry_run => "would go now".into(),
        Some(_) if row.goes => "gone".into(),
        Some(time) => format!("stays until {}", output::time(time)),
    };
    format!("{name}: {}, {why}, {fate}", output::size(row.bytes))
}
