//! `bcai log`.
//!
//! Owns: how the history is shown, and where proofs of it go.
//! Must not know: how it was decided or is proven.
//! Invariant: newest last, as it grew. A file that is written is whole or not there.
//! Trust: names come from the log; they are escaped. Threads: the main thread.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use data_encoding::BASE64;
use serde::Serialize;

use super::{Context, output};
use crate::api::route;
use crate::node::report::{
    CheckpointRequest, CosignRequest, LogRow, Proof, ProofRequest, Proven, SignedCheckpoint,
};
use crate::node::{Error, Kind};

/// Show the signed history of the network, or of one dataset; prove it to others
///
/// With --proof it writes a file from which anybody who has the network's id, and nothing else, can check what the log says
/// of a version: bcai verify --offline.
///
/// With --checkpoint it writes the size and the root of the log's tree as a note that other transparency logs' witnesses
/// understand (C2SP tlog-checkpoint), signed by this node. With --cosign this node is the witness: it adds its signature to a
/// checkpoint of a network that it follows, if that is the very head that it holds itself, and never goes back behind one
/// that it has cosigned. The key that checks the signature is printed; `bcai verify --checkpoint` and any program for signed
/// notes take it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai log photos\n  bcai log --proof photos@v1 -o photos-v1.proof\n  bcai log --checkpoint -o head\n  bcai log --cosign head -o head.cosigned",
    group = clap::ArgGroup::new("what").args(["proof", "checkpoint", "cosign"])
)]
pub struct Log {
    /// Only heights that concern this dataset, by name or URI; with --checkpoint, the network: its id or a URI
    #[arg(value_name = "NAME|URI", conflicts_with_all = ["proof", "cosign"])]
    name: Option<String>,
    /// Prove that a version was published, whether it was withdrawn and what `latest` means
    #[arg(long, value_name = "REF")]
    proof: Option<String>,
    /// Sign the head of the log
    #[arg(long)]
    checkpoint: bool,
    /// Add this node's signature to the checkpoint in this file
    #[arg(long, value_name = "FILE")]
    cosign: Option<PathBuf>,
    /// Where to write it; without, to stdout
    #[arg(short, long, value_name = "FILE", requires = "what")]
    output: Option<PathBuf>,
}

impl Log {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let file = self.output.as_deref();
        if let Some(reference) = self.proof {
            return prove(ctx, &ProofRequest { reference }, file);
        }
        if let Some(checkpoint) = &self.cosign {
            let note = std::fs::read_to_string(checkpoint);
            let note = note.map_err(|error| Error::io("cannot read", checkpoint, error))?;
            return sign(ctx, route::COSIGN, &CosignRequest { note }, file);
        }
        if self.checkpoint {
            return sign(ctx, route::CHECKPOINT, &CheckpointRequest { network: self.name }, file);
        }
        let rows: Vec<LogRow> = ctx.with_daemon(async |client| client.post(route::LOG, &self.name).await)?;
        ctx.output.result(&rows, |rows| text(rows));
        Ok(())
    }
}

/// Has a checkpoint signed or cosigned.
fn sign(ctx: &Context, route: &str, request: &impl Serialize, file: Option<&Path>) -> Result<(), Error> {
    let done: SignedCheckpoint = ctx.with_daemon(async |client| client.post(route, request).await)?;
    match file {
        Some(path) => write(path, done.note.as_bytes())?,
        None if !ctx.output.json => _ = output::print(done.note.trim_end_matches('\n')),
        None => {}
    }
    let text = |done: &SignedCheckpoint| format!("{} entries; key {}", done.entries, done.key);
    match (ctx.output.json, file) {
        (true, _) => ctx.output.json_line(&done),
        // The note alone is what was asked for on stdout.
        (false, None) => ctx.output.note(&text(&done)),
        (false, Some(_)) => _ = output::print(&text(&done)),
    }
    Ok(())
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

fn prove(ctx: &Context, request: &ProofRequest, file: Option<&Path>) -> Result<(), Error> {
    let mut done: Proof = ctx.with_daemon(async |client| client.post(route::LOG_PROOF, request).await)?;
    if file.is_none() && ctx.output.json {
        ctx.output.json_line(&done);
        return Ok(());
    }
    let bytes = BASE64.decode(done.proof.as_bytes());
    let bytes = bytes
        .map_err(|error| Error::new(Kind::Failed, format!("the daemon's proof is no base64: {error}")))?;
    done.proof.clear();
    match file {
        Some(path) => {
            write(path, &bytes)?;
            ctx.output.confirm(&done, |done| {
                let genesis = &done.proven.genesis;
                format!(
                    "{}\nto check it: bcai verify --offline FILE --genesis {genesis}",
                    proven(&done.proven)
                )
            });
        }
        None => {
            to_stdout(&bytes)?;
            ctx.output.note(&proven(&done.proven));
        }
    }
    Ok(())
}

fn to_stdout(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    if stdout.is_terminal() {
        return Err(Error::usage("a proof is no text for a terminal").hint("name a file: -o FILE"));
    }
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| Error::new(Kind::Failed, format!("cannot write to stdout: {error}")))
}

/// Writes a file, in place of one that is there.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut whole = tempfile::Builder::new().permissions(mode()).tempfile_in(dir)?;
        whole.write_all(bytes)?;
        whole.as_file().sync_all()?;
        whole.persist(path)?;
        Ok(())
    };
    write().map_err(|error| Error::io("cannot write", path, error))
}

/// It is made to be given away.
fn mode() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

/// What a proof says, for people.
pub fn proven(proven: &Proven) -> String {
    let Proven { head, .. } = proven;
    let withdrawn = match &proven.withdrawn {
        Some(withdrawn) => format!(
            "height {}, {}: {}",
            withdrawn.height,
            output::time(withdrawn.time_ms),
            output::safe(&withdrawn.reason)
        ),
        None => "no".to_owned(),
    };
    let lines = [
        ("version", format!("{}@{}", proven.name, proven.version)),
        ("snapshot", proven.snapshot.clone()),
        ("published", format!("height {}, {}", proven.height, output::time(proven.time_ms))),
        ("by", proven.author.clone()),
        ("owner", proven.owner.clone()),
        ("withdrawn", withdrawn),
        ("latest", proven.latest.clone().unwrap_or_else(|| "none, all were withdrawn".to_owned())),
        ("network", proven.genesis.clone()),
        ("as of", format!("height {}, {}", head.height, output::time(head.time_ms))),
        ("header", head.header.clone()),
        ("signed by", format!("{} of {} validators", head.signers, head.validators)),
    ];
    lines.map(|(what, value)| format!("{what:10} {value}")).join("\n")
}
