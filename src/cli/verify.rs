//! `bcai verify`.
//!
//! Owns: its arguments, its report and its exit code.
//! Must not know: hashes.
//! Invariant: exit code 0 only when everything looked at is right.
//! Trust: as `cli`. Threads: the main thread.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::output::Output;
use super::{Context, exit_code, log, output};
use crate::api::route;
use crate::log::note::{MAX_NOTE_LEN, NoteKey};
use crate::log::proof::MAX_PROOF_LEN;
use crate::node::report::{CheckedCheckpoint, Verified, VerifyRequest};
use crate::node::{Error, Expected, Kind, check_checkpoint, check_proof};

/// Recheck certificate, manifests and every chunk
///
/// Objects that are not on this machine are counted, not fetched, unless --repair is given.
///
/// With --offline it checks a file that `bcai log --proof` wrote, with nothing but the file and the network's id: no node, no
/// log, nobody is asked. What no file can prove is that the log has not gone on since.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai verify photos@v1\n  bcai verify --all --repair\n  bcai verify --offline photos-v1.proof --genesis bcai://GENESIS/photos@v1"
)]
pub struct Verify {
    /// What to check
    #[arg(value_name = "REF", required_unless_present_any = ["all", "offline", "checkpoint"])]
    reference: Option<String>,
    /// Check everything in the store
    #[arg(long, conflicts_with = "reference")]
    all: bool,
    /// Fetch from peers what is damaged or absent
    #[arg(long)]
    repair: bool,
    /// Check the proof in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["reference", "all", "repair"], requires = "genesis")]
    offline: Option<PathBuf>,
    /// The network's id, or a URI of the version that the proof shall be of
    #[arg(long, value_name = "GENESIS|URI", requires = "offline")]
    genesis: Option<Expected>,
    /// Check that each --key has signed the checkpoint in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["reference", "all", "repair", "offline"], requires = "key")]
    checkpoint: Option<PathBuf>,
    /// A key as `bcai log --checkpoint`, `bcai log --cosign` or another log's witness prints it; may be repeated
    #[arg(long, value_name = "NAME+ID+KEY", requires = "checkpoint")]
    key: Vec<NoteKey>,
}

impl Verify {
    pub fn run(
        self,
        ctx: impl FnOnce() -> Result<Context, Error>,
        output: Output,
    ) -> Result<ExitCode, Error> {
        match (&self.offline, &self.genesis) {
            (Some(file), Some(expected)) => check_file(file, expected, output),
            _ => match &self.checkpoint {
                Some(file) => check_signatures(file, &self.key, output),
                None => self.check_store(&ctx()?),
            },
        }
    }

    fn check_store(self, ctx: &Context) -> Result<ExitCode, Error> {
        let request = VerifyRequest { reference: self.reference, repair: self.repair };
        let mut meter = ctx.output.progress();
        let done: Verified =
            ctx.with_daemon(async |client| client.job(route::VERIFY, &request, |now| meter.show(now)).await)?;
        drop(meter);
        ctx.output.result(&done, text);
        if !done.corrupt.is_empty() && !request.repair {
            ctx.output.note("with --repair what is damaged is fetched from peers");
        }
        Ok(if done.corrupt.is_empty() { ExitCode::SUCCESS } else { exit_code(Kind::Corrupt) })
    }
}

fn check_file(file: &Path, expected: &Expected, output: Output) -> Result<ExitCode, Error> {
    let proven = check_proof(&read(file, MAX_PROOF_LEN)?, expected)
        .map_err(|error| Error { message: format!("{}: {}", file.display(), error.message), ..error })?;
    output.result(&proven, |proven| {
        format!(
            "{}\nnot proven that the log ends there: who has a newer height may know more",
            log::proven(proven)
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn check_signatures(file: &Path, keys: &[NoteKey], output: Output) -> Result<ExitCode, Error> {
    let checked = check_checkpoint(&read(file, MAX_NOTE_LEN)?, keys)
        .map_err(|error| Error { message: format!("{}: {}", file.display(), error.message), ..error })?;
    output.result(&checked, |checked| {
        let CheckedCheckpoint { origin, entries, root, signatures } = checked;
        let signed = signatures.iter().map(|signature| match signature.time_ms {
            Some(time_ms) => {
                format!("cosigned by {} at {}", output::safe(&signature.key), output::time(time_ms))
            }
            None => format!("signed by {}", output::safe(&signature.key)),
        });
        let head = format!("{}: {entries} entries, root {root}", output::safe(origin));
        std::iter::once(head).chain(signed).collect::<Vec<_>>().join("\n")
    });
    Ok(ExitCode::SUCCESS)
}

/// The bytes of a file of at most `max` bytes; of a longer one so many that it is seen to be too long.
pub fn read(file: &Path, max: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(max as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| Error::io("cannot read", file, error))?;
    Ok(bytes)
}

fn text(done: &Verified) -> String {
    let mut lines: Vec<String> =
        done.corrupt.iter().map(|bad| format!("corrupt: {}", output::safe(bad))).collect();
    lines.extend(done.removed.iter().map(|path| {
        format!("damaged: {}, removed: it is made again from its chunks when it is read", output::safe(path))
    }));
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
