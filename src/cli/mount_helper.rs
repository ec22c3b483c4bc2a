//! This program as `mount.bcai`, by which mount(8) and fstab mount.
//!
//! Owns: the arguments that mount(8) hands to the helper of a file system, and the codes that it expects.
//! Must not know: FUSE.
//! Invariant: what an option asks for is done, or does not matter to a read-only mount, or is refused; never passed over.
//! Trust: as `cli`. Threads: the main thread.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use super::mount::{OPTIONS, apply, describe, request};
use super::output::Output;
use super::{Context, report};
use crate::api::{Client, route};
use crate::node::report::{MountRequest, Mounted, Status};
use crate::node::{Error, Kind};

/// Under these names it is called as a helper: for `-t bcai` and `-t fuse.bcai`.
const NAMES: [&str; 2] = ["mount.bcai", "mount.fuse.bcai"];
/// What mount(8) takes a helper's exit codes for (its RETURN CODES).
const USAGE: u8 = 1;
const FAILURE: u8 = 32;

/// Mount a version of a dataset, as mount(8) asks for it
///
/// mount(8) runs this program for the type bcai, by hand or for a line of /etc/fstab. It asks the node of the user who runs
/// it, which as root is that of /etc/bcai and /var/lib/bcai, and starts it if it does not run.
#[derive(Debug, Parser)]
#[command(
    name = "mount.bcai",
    version,
    max_term_width = 100,
    after_help = "Examples:\n  mount -t bcai photos@v1 /mnt/photos\n  mount -t bcai -o allow_other 'bcai://GENESIS/photos@v1?peer=/ip4/192.0.2.7/tcp/4001/p2p/PEER' /mnt/photos"
)]
pub struct Helper {
    /// NAME@VERSION, NAME@TAG, NAME, a snapshot id or a bcai:// URI
    #[arg(value_name = "REF")]
    reference: String,

    /// An empty directory
    dir: PathBuf,

    /// Options, separated by commas
    ///
    /// allow_other, io=MODE, fetch=STRATEGY and readahead=SIZE are those of bcai-mount(1); offline is its --offline; home=DIR is the
    /// folder of the node that is to be asked. Options of mount(8) that a read-only mount without set-user-ID programs and devices keeps
    /// anyway are accepted. noexec is refused unless mount(8) adds it by itself, for user, users, owner or group: it is not kept then, and a warning says so.
    #[arg(short, value_name = "OPTIONS", value_delimiter = ',')]
    options: Vec<String>,

    /// Pass over options that are not known
    #[arg(short)]
    sloppy: bool,

    /// Check the arguments and mount nothing
    #[arg(short)]
    fake: bool,

    /// Accepted: there is no /etc/mtab to leave alone
    #[arg(short)]
    no_mtab: bool,

    /// Say what was mounted
    #[arg(short)]
    verbose: bool,

    /// The type, which is known
    #[arg(short = 't', value_name = "TYPE", hide = true)]
    kind: Option<String>,
}

/// Whether this process was started as a helper, and what became of it.
pub fn main() -> Option<ExitCode> {
    let called = std::env::args_os().next()?;
    let name = Path::new(&called).file_name()?;
    if !NAMES.iter().any(|helper| name == OsStr::new(helper)) {
        return None;
    }
    let helper = match Helper::try_parse() {
        Ok(helper) => helper,
        Err(error) => {
            // Whom this cannot be told, the code tells.
            let _ = error.print();
            return Some(if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS });
        }
    };
    let output = Output { json: false, quiet: !helper.verbose };
    Some(match helper.run(output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&output, &error);
            ExitCode::from(if error.kind == Kind::Usage { USAGE } else { FAILURE })
        }
    })
}

impl Helper {
    fn run(self, output: Output) -> Result<(), Error> {
        let home = self.options.iter().find_map(|option| option.strip_prefix("home=")).map(Path::new);
        let ctx = Context::load(home, Vec::new(), output)?;
        let mut request = request(&ctx, self.reference, &self.dir)?;
        let by_user = self.options.iter().any(|option| BY_USER.contains(&option.as_str()));
        for option in &self.options {
            let known = take(&mut request, option)?;
            if option == "noexec" && by_user {
                ctx.output.note_always("mount.bcai: noexec is not kept: programs in the mount can be run");
            } else if !known && !self.sloppy {
                return Err(Error::usage(format!(
                    "mount option `{option}` means nothing here; known: {OPTIONS}, offline, home=DIR"
                )));
            }
        }
        if self.fake {
            return Ok(());
        }
        ctx.with_daemon(async |client| {
            let mounted = match client.post(route::MOUNT, &request).await {
                Err(error) if error.kind == Kind::Busy => there(&client, &request).await?.ok_or(error)?,
                mounted => mounted?,
            };
            ctx.output.confirm(&mounted, describe);
            Ok(())
        })
    }
}

/// What is asked for, if it is mounted there already: `mount -a` cannot see that by itself.
async fn there(client: &Client, request: &MountRequest) -> Result<Option<Mounted>, Error> {
    let status: Status = client.get(route::STATUS).await?;
    let same = |mount: &Mounted| mount.dir == request.dir && mount.reference == request.reference;
    Ok(status.mounts.into_iter().find(same))
}

/// With these mount(8) adds `noexec` by itself.
const BY_USER: [&str; 4] = ["user", "users", "owner", "group"];

/// Takes one option into account. False if it asks for something that is neither ours nor so anyway.
fn take(request: &mut MountRequest, option: &str) -> Result<bool, Error> {
    let name = option.split_once('=').map_or(option, |(name, _)| name);
    if option == "offline" {
        request.offline = true;
        return Ok(true);
    }
    let is_so = match name {
        // Whom fstab speaks to with these: mount(8), systemd, a desktop.
        "defaults" | "auto" | "noauto" | "nouser" | "nofail" | "_netdev" | "comment" | "home" => true,
        // A mount is read-only, never has set-user-ID programs or devices, and keeps times as they were published.
        "ro" | "rw" | "nosuid" | "nodev" | "exec" | "async" | "atime" | "noatime" | "diratime"
        | "nodiratime" | "relatime" | "norelatime" | "strictatime" | "nostrictatime" | "lazytime"
        | "nolazytime" => true,
        _ => BY_USER.contains(&name) || name.starts_with("x-") || name.starts_with("X-"),
    };
    Ok(is_so || apply(request, option)?)
}
