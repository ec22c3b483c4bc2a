//! `bcai mount`.
//!
//! Owns: its arguments; staying in the foreground when asked to.
//! Must not know: FUSE.
//! Invariant: when it returns without -f, the directory can be read.
//! Trust: as `cli`. Threads: the main thread.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::{Context, output};
use crate::api::{Client, route};
use crate::node::report::{MountRequest, Mounted, Quorum, UnmountRequest};
use crate::node::{Error, Kind, Node};

const POLL: Duration = Duration::from_millis(10);

/// Mount a version of a dataset on a directory
///
/// Returns when the directory can be read; the node serves it in the background. Bytes are fetched when they are
/// read and verified before anyone sees them. Works with a whole bcai:// URI on a machine that has never run bcai.
///
/// A mount of NAME@latest or NAME@TAG follows the tag: when it names another version, files opened from then on are those of that
/// version, and open ones stay what they were. A mount of NAME, which is the newest version now, or of NAME@VERSION stays.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai mount photos@v1 /mnt/photos\n  bcai mount 'bcai://GENESIS/photos@v1?peer=/ip4/192.0.2.7/tcp/4001/p2p/PEER' /mnt/photos\n  bcai unmount /mnt/photos"
)]
pub struct Mount {
    /// NAME@VERSION, NAME@TAG, NAME, a snapshot id or a bcai:// URI
    #[arg(value_name = "REF")]
    reference: String,

    /// An empty directory
    dir: PathBuf,

    /// Stay in the foreground; Ctrl-C unmounts
    #[arg(short, long)]
    foreground: bool,

    /// Take the version that this machine knows of, however old its log is, and ask nobody about it
    #[arg(long)]
    offline: bool,

    /// Mount options; known: allow_other (let other users read), io=MODE (how contents reach their readers),
    /// fetch=STRATEGY (where they come from), readahead=SIZE (how far ahead)
    ///
    /// fetch=spread, the default (configuration key mount.fetch): from all peers that have them, and from origins what no peer has.
    /// best: from the one best peer, from others only what that one fails on. local: from nobody; what is not here cannot be
    /// read. quorum: as spread, but at least two connected peers must say first how far the log has come, so that no single one
    /// can hold back newer versions.
    ///
    /// readahead=auto, the default (configuration key mount.readahead), fetches as far ahead of each reader as is found to be of use:
    /// more when it had to wait, less when that was in vain. A size such as 8MiB: so much. 0: nothing before it is read.
    /// `bcai status` shows what came of it.
    ///
    /// io=auto, the default (configuration key mount.io), takes zero-open for small files and passthrough for large ones, and cached where this
    /// machine does not allow it. passthrough: the kernel reads large files by itself, from a second copy on disk
    /// that counts as cache; needs root and Linux 6.9. zero-open: opening a file costs no message; Linux 5.1.
    /// cached: works everywhere. `bcai status` says which one a mount uses, and why.
    #[arg(short, value_name = "OPTION", value_delimiter = ',')]
    options: Vec<String>,
}

impl Mount {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let mut request = request(ctx, self.reference, &self.dir)?;
        request.offline = self.offline;
        for option in &self.options {
            // What fstab adds to every line; a mount is read-only anyway.
            let idle = matches!(option.as_str(), "ro" | "rw" | "noauto" | "user" | "nofail" | "_netdev");
            if !apply(&mut request, option)? && !idle {
                return Err(Error::usage(format!("unknown mount option `{option}`; known: {OPTIONS}")));
            }
        }
        ctx.with_daemon(async |client| {
            let mounted: Mounted = client.post(route::MOUNT, &request).await?;
            ctx.output.confirm(&mounted, describe);
            if self.foreground { stay(ctx, &client, &mounted).await } else { Ok(()) }
        })
    }
}

/// The options of a mount.
pub(super) const OPTIONS: &str = "allow_other, io=MODE, fetch=STRATEGY, readahead=SIZE";

/// A mount as the settings have it.
pub(super) fn request(ctx: &Context, reference: String, dir: &Path) -> Result<MountRequest, Error> {
    let absolute = std::path::absolute(dir).map_err(|error| Error::io("cannot use", dir, error))?;
    Ok(MountRequest {
        reference,
        dir: absolute,
        allow_other: false,
        io: ctx.config.io,
        fetch: ctx.config.fetch,
        readahead: ctx.config.readahead,
        offline: false,
    })
}

/// Takes one option into account; false if it is none of ours.
pub(super) fn apply(request: &mut MountRequest, option: &str) -> Result<bool, Error> {
    if let Some(mode) = option.strip_prefix("io=") {
        request.io = mode.parse().map_err(Error::usage)?;
    } else if let Some(strategy) = option.strip_prefix("fetch=") {
        request.fetch = strategy.parse().map_err(Error::usage)?;
    } else if let Some(size) = option.strip_prefix("readahead=") {
        request.readahead = size.parse().map_err(Error::usage)?;
    } else if option == "allow_other" {
        request.allow_other = true;
    } else {
        return Ok(false);
    }
    Ok(true)
}

pub(super) fn describe(mounted: &Mounted) -> String {
    describe_with(mounted, "")
}

/// What is mounted where, with a `note` behind; and in a line of its own, that it was withdrawn.
pub(super) fn describe_with(mounted: &Mounted, note: &str) -> String {
    let withdrawn = mounted.withdrawn.as_ref().map_or(String::new(), |reason| {
        format!("\nwarning: this version was withdrawn: {}", output::safe(reason))
    });
    let what = match &mounted.version {
        Some(version) => format!("{}@{} (height {})", version.name, version.version, version.height),
        None => format!("snapshot {}", mounted.snapshot),
    };
    let dir = output::safe(&mounted.dir.display().to_string());
    let quorum = mounted.quorum.map_or(String::new(), |quorum| format!(", {}", agreement(quorum)));
    let follows = if mounted.follows { ", following the tag" } else { "" };
    format!(
        "{} on {dir}: {} inodes, {}{quorum}{follows}{note}{withdrawn}",
        output::safe(&what),
        mounted.inodes,
        output::size(mounted.bytes)
    )
}

/// Who has confirmed which version is meant.
pub(super) fn agreement(quorum: Quorum) -> String {
    format!("{} of {} peers at height {}", quorum.agreed, quorum.peers, quorum.height)
}

/// Whether another daemon has taken the place of the one that did not answer any more.
async fn comes_back(ctx: &Context, client: &Client) -> Result<bool, Error> {
    while Node::running(&ctx.paths)?.is_some() {
        if client.is_up().await {
            return Ok(true);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(false)
}

/// Waits until the mount has ended, whichever daemon serves it; Ctrl-C ends it.
async fn stay(ctx: &Context, client: &Client, mounted: &Mounted) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let install = |kind| {
        signal(kind).map_err(|error| Error::new(Kind::Failed, format!("cannot wait for signals: {error}")))
    };
    let (mut interrupt, mut terminate) =
        (install(SignalKind::interrupt())?, install(SignalKind::terminate())?);
    let request = UnmountRequest { dir: mounted.dir.clone(), lazy: false };
    loop {
        let asked = async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        };
        tokio::select! {
            ended = client.post::<()>(route::MOUNT_WAIT, &request) => match ended {
                Err(error) if error.kind == Kind::Unreachable && comes_back(ctx, client).await? => {}
                ended => return ended,
            },
            () = asked => {
                match client.post::<()>(route::UNMOUNT, &request).await {
                    // Whoever holds the mount is named; the next Ctrl-C tries again.
                    Err(error) if error.kind == Kind::Busy => eprintln!("bcai: {error}"),
                    ended => return ended,
                }
            }
        }
    }
}
