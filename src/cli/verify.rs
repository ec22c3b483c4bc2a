//! `bcai verify`.
//!
//! Owns: its arguments, its report and its exit code.
//! Must not know: hashes.
//! Invariant: exit code 0 only when everything looked at is right.
//! Trust: as `cli`. Threads: the main thread.

use std::process::ExitCode;

use clap::Args;

use super::{Context, exit_code, output};
use crate::api::route;
use crate::node::report::{Verified, VerifyRequest};
use crate::node::{Error, Kind};

/// Recheck certificate, manifests and every chunk
///
/// Objects that are not on this machine are counted, not fetched, unless --repair is given.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bcai verify photos@v1\n  bcai verify --all")]
pub struct Verify {
    /// What to check
    #[arg(value_name = "REF", required_unless_present = "all")]
    reference: Option<String>,
    /// Check everything in the store
    #[arg(long, conflicts_with = "reference")]
    all: bool,
    /// Fetch from peers what is damaged or absent
    #[arg(long, conflicts_with = "all")]
    repair: bool,
}

impl Verify {
    pub fn run(self, ctx: &Context) -> Result<ExitCode, Error> {
        let request = VerifyRequest { reference: self.reference, repair: self.repair };
        let mut meter = ctx.output.progress();
        let done: Verified =
            ctx.with_daemon(async |client| client.job(route::VERIFY, &request, |now| meter.show(now)).await)?;
        drop(meter);
        ctx.output.result(&done, text);
        if !done.corrupt.is_empty() && !request.repair {
            ctx.output.note("bcai verify REF --repair fetches what is damaged from peers");
        }
        Ok(if done.corrupt.is_empty() { ExitCode::SUCCESS } else { exit_code(Kind::Corrupt) })
    }
}

fn text(done: &Verified) -> String {
    let mut lines: Vec<String> =
        done.corrupt.iter().map(|bad| format!("corrupt: {}", output::safe(bad))).collect();
    if let Some(height) = done.height {
        lines.push(format!("certificate of height {height} is valid"));
    }
    lines.push(format!("{} objects, {} checked", done.objects, output::size(done.bytes)));
    if done.absent > 0 {
        lines.push(format!("{} objects are not on this machine; they are fetched when read", done.absent));
    }
    if done.repaired > 0 {
        lines.push(format!("{} objects fetched again", done.repaired));
    }
    lines.join("\n")
}
