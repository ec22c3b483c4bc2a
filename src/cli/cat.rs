//! `bcai cat`.
//!
//! Owns: copying a file of a dataset to stdout.
//! Must not know: chunks.
//! Invariant: on an error nothing wrong has been written, only less.
//! Trust: content is written as it is. Threads: the main thread.

use std::io::Write;

use clap::Args;

use super::{Context, ls};
use crate::api::route;
use crate::node::report::{ReadRequest, Resolved};
use crate::node::{Error, Kind};

/// Bytes asked for at a time.
const STEP: u32 = 4 << 20;

/// Print a file of a dataset
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bcai cat photos@v1/README")]
pub struct Cat {
    /// REF/PATH
    #[arg(value_name = "REF/PATH")]
    target: String,
}

impl Cat {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let (reference, path) = ls::split(&self.target);
        if path.is_empty() {
            return Err(Error::usage(format!("`{}` names no file: expected REF/PATH", self.target)));
        }
        ctx.with_daemon(async |client| {
            // Settled once: a tag that moves meanwhile must not mix two versions.
            let Resolved { snapshot, .. } = client.post(route::RESOLVE, &reference).await?;
            let mut request = ReadRequest { reference: snapshot, path, offset: 0, len: STEP };
            loop {
                let bytes = client.post_bytes(route::READ, &request).await?;
                let mut stdout = std::io::stdout().lock();
                match stdout.write_all(&bytes).and_then(|()| stdout.flush()) {
                    Ok(()) if bytes.is_empty() => return Ok(()),
                    Ok(()) => request.offset += bytes.len() as u64,
                    // The reader has had enough, as with `| head`.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                    Err(error) => {
                        return Err(Error::new(Kind::Failed, format!("cannot write to stdout: {error}")));
                    }
                }
            }
        })
    }
}
