//! `bcai yank`.
//!
//! Owns: its arguments.
//! Must not know: who may withdraw a version, or what a reader sees of it.
//! Invariant: the version is withdrawn, by a decided entry, when the command returns.
//! Trust: as `cli`. Threads: the main thread.

use clap::Args;

use super::{Context, output};
use crate::api::route;
use crate::node::Error;
use crate::node::report::{Decided, YankRequest};

/// Withdraw a version of a dataset, for a reason that everybody sees
///
/// The version stays listed, with the reason, and can be read by its own name; `latest` passes it over. This cannot be
/// taken back: publish the content under a new version.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bcai yank photos@v2 --reason 'labels of the second half are wrong'")]
pub struct Yank {
    /// The version
    #[arg(value_name = "NAME@VERSION")]
    target: String,
    /// Why, in one line
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Yank {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let request = YankRequest { target: self.target, reason: self.reason };
        let decided: Decided = ctx.with_daemon(async |client| client.post(route::YANK, &request).await)?;
        ctx.output.confirm(&decided, |decided| {
            let done = if decided.already { "was withdrawn before" } else { "withdrawn" };
            output::safe(&format!("{}: {done}, height {}", request.target, decided.height))
        });
        Ok(())
    }
}
