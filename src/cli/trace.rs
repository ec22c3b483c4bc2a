//! `bcai trace`.
//!
//! Owns: its argument and its lines.
//! Must not know: how a mount is watched.
//! Invariant: never starts a node just to look at it. What came too fast to be shown is told in numbers.
//! Trust: as `cli`; paths are escaped by the daemon and again here. Threads: the main thread.

use std::path::PathBuf;

use clap::Args;

use super::{Context, output};
use crate::api::{Client, route};
use crate::node::report::{TraceRequest, TraceRow, Traced};
use crate::node::{Error, Kind, Node};

/// Show what programs ask of a mount, as it happens
///
/// One line for each answer: the time of day, what was asked, how long the answer took, whether it was here or had to be fetched
/// from elsewhere, and about which file. What the kernel answers by itself, out of the pages, names and attributes that it keeps, is
/// not seen: a second look at the same file shows nothing. It ends with the mount, or with Ctrl-C. Readers never wait for it, but it
/// takes processor time, about 12 us an answer; when they are faster than can be shown, it says how much was left out.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai trace /mnt/photos\n  bcai trace /mnt/photos --json | jq 'select(.source == \"elsewhere\")'"
)]
pub struct Trace {
    /// The directory
    #[arg(value_name = "MOUNT")]
    dir: PathBuf,
}

impl Trace {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        if Node::running(&ctx.paths)?.is_none() {
            return Err(Error::new(Kind::NotFound, "no node is running").hint("start it with `bcai daemon`"));
        }
        let dir =
            std::path::absolute(&self.dir).map_err(|error| Error::io("cannot use", &self.dir, error))?;
        let client = Client::new(&ctx.paths.socket());
        let json = ctx.output.json;
        let show = |rows: Vec<TraceRow>| {
            for row in rows {
                if row.missed > 0 && !json {
                    ctx.output.note_always(&format!("{} answers were too fast to be shown", row.missed));
                }
                let text = match json {
                    // Reports hold strings and numbers only: they always serialise.
                    true => serde_json::to_string(&row).unwrap_or_default(),
                    false => line(&row),
                };
                if !output::print(&text) {
                    // The daemon ends the job when nobody listens.
                    std::process::exit(0);
                }
            }
        };
        let request = TraceRequest { dir };
        let done: Traced =
            ctx.block_on(async { client.job_with_rows(route::TRACE, &request, |_| (), show).await })?;
        ctx.output.note(&format!(
            "the mount has ended: {} answers, {} of them not shown",
            done.answers, done.missed
        ));
        Ok(())
    }
}

fn line(row: &TraceRow) -> String {
    let clock = output::time(row.time_ms);
    let clock = clock.split(' ').next_back().unwrap_or_default();
    let range = match (row.operation.as_str(), row.len) {
        ("read", len) => format!(" {len} bytes at {}", row.offset),
        ("lseek" | "readdir", _) => format!(" at {}", row.offset),
        _ => String::new(),
    };
    let error = row.error.as_ref().map(|error| format!(": {}", output::safe(error)));
    format!(
        "{clock}.{:03} {:9} {:>10} {:9} {}{range}{}",
        row.time_ms % 1000,
        row.operation,
        took(row.micros),
        row.source,
        if row.path.is_empty() { "/".into() } else { output::safe(&row.path) },
        error.unwrap_or_default()
    )
}

/// A time for people, in the unit that suits it.
pub fn took(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_took_how_long_from_where() {
        let row = TraceRow {
            time_ms: 1_700_000_000_123,
            operation: "read".into(),
            path: "train/a\x1b.jpg".into(),
            ino: 7,
            offset: 4096,
            len: 131_072,
            micros: 12_340,
            source: "elsewhere".into(),
            error: Some("the content could not be had in time".into()),
            missed: 0,
        };
        let line = line(&row);
        assert!(line.contains(".123 read "), "{line}");
        assert!(
            line.ends_with(
                "12.3 ms elsewhere train/a\\u{1b}.jpg 131072 bytes at 4096: the content could not be had in time"
            ),
            "{line}"
        );
        assert_eq!((took(999), took(2_500_000)), ("999 us".into(), "2.5 s".into()));
    }
}
