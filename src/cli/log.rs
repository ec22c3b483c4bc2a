//! `bcai log`.
//!
//! Owns: how the history is shown.
//! Must not know: how it was decided.
//! Invariant: newest last, as it grew.
//! Trust: names come from the log; they are escaped. Threads: the main thread.

use clap::Args;

use super::{Context, output};
use crate::api::route;
use crate::node::Error;
use crate::node::report::LogRow;

/// Show the signed history of the network, or of one dataset
#[derive(Debug, Args)]
pub struct Log {
    /// Only heights that concern this dataset
    name: Option<String>,
}

impl Log {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let rows: Vec<LogRow> = ctx.with_daemon(async |client| client.post(route::LOG, &self.name).await)?;
        ctx.output.result(&rows, |rows| text(rows));
        Ok(())
    }
}

fn text(rows: &[LogRow]) -> String {
    let lines = rows.iter().flat_map(|row| {
        row.entries.iter().map(move |entry| {
            vec![
                row.height.to_string(),
                output::time(row.time_ms),
                format!("{}/{}", row.signers, row.validators),
                row.header[..10.min(row.header.len())].to_owned(),
                entry.author[..10.min(entry.author.len())].to_owned(),
                output::safe(&entry.summary),
            ]
        })
    });
    output::table(&["HEIGHT", "TIME", "SIGNED", "HEADER", "AUTHOR", "ENTRY"], lines)
}
