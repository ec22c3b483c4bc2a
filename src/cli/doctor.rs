//! `bcai doctor`.
//!
//! Owns: what a machine must have, and the remedy for each thing it lacks.
//! Must not know: how a node uses any of it.
//! Invariant: it never hangs and never changes anything; it does not start a node.
//! Trust: as `cli`. Threads: the main thread, and one for a question that a mount may not answer.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::Context;
use super::output::{self, Output};
use crate::api::{Client, route};
use crate::node::report::Status;
use crate::node::{Error, Node};

/// Free space below which a store cannot do much.
const FREE_MIN: u64 = 1 << 30;
/// Open files below which a daemon with many peers and packs runs out.
const FILES_MIN: u64 = 1024;
/// A running node that does not answer within this time is in trouble.
const ANSWER: Duration = Duration::from_secs(5);

/// Check this machine and print the remedy for what is wrong
///
/// Also shows every effective setting and where it came from.
#[derive(Debug, Args)]
pub struct Doctor {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), remedy: None }
    }

    fn bad(
        name: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, verdict, found: found.into(), remedy: Some(remedy.into()) }
    }
}

#[derive(Serialize)]
struct Report {
    checks: Vec<Check>,
    settings: Vec<(String, String, String)>,
}

impl Doctor {
    /// Takes settings that may be broken: that is one more thing to find.
    pub fn run(self, ctx: Result<Context, Error>, output: Output) -> Result<ExitCode, Error> {
        let mut checks = vec![kernel(), device(), mounting(), open_files(), dead_mounts()];
        let mut settings = Vec::new();
        match ctx {
            Ok(ctx) => {
                checks.extend([Check::ok("settings", "all understood"), disk(&ctx)]);
                checks.extend(node(&ctx));
                let all = ctx.config.settings();
                settings =
                    all.map(|(name, s)| (name.to_owned(), s.value.clone(), s.origin.to_string())).collect();
            }
            Err(error) => checks.push(Check::bad(
                "settings",
                Verdict::Fail,
                error.message,
                "mend it and run this again",
            )),
        }
        let report = Report { checks, settings };
        output.result(&report, text);
        let failed = report.checks.iter().any(|check| check.verdict == Verdict::Fail);
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    for check in &report.checks {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        lines.push(format!("{verdict:5} {:10} {}", check.name, output::safe(&check.found)));
        lines.extend(check.remedy.iter().map(|remedy| format!("{:17}{}", "", output::safe(remedy))));
    }
    lines.push(String::new());
    let rows =
        report.settings.iter().map(|(key, value, origin)| vec![key.clone(), value.clone(), origin.clone()]);
    lines.push(output::table(&["SETTING", "VALUE", "FROM"], rows));
    lines.join("\n")
}

fn kernel() -> Check {
    judge(&rustix::system::uname().release().to_string_lossy())
}

/// What a kernel of this release can do.
fn judge(release: &str) -> Check {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 4) {
        return Check::bad("kernel", Verdict::Fail, release, "bcai needs Linux 5.4 or newer");
    }
    if version < (6, 9) {
        let found = format!("{release}; mounts do not survive the end of their daemon");
        let remedy =
            "Linux 6.9 lets the next daemon go on with them; here, close their files before an upgrade";
        return Check::bad("kernel", Verdict::Warn, found, remedy);
    }
    Check::ok("kernel", format!("{release}; mounts survive the end of their daemon"))
}

fn device() -> Check {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Check::ok("fuse", "/dev/fuse can be opened"),
        Err(error) => Check::bad(
            "fuse",
            Verdict::Fail,
            format!("/dev/fuse: {error}"),
            "load the module (modprobe fuse); in a container pass --device /dev/fuse --cap-add SYS_ADMIN",
        ),
    }
}

/// Bit of CAP_SYS_ADMIN in the sets of `/proc/self/status` (linux/capability.h).
const CAP_SYS_ADMIN: u64 = 1 << 21;

fn mounting() -> Check {
    if rustix::process::geteuid().is_root() {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let capable = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        return match capable {
            Some(set) if set & CAP_SYS_ADMIN == 0 => Check::bad(
                "mounting",
                Verdict::Fail,
                "root without the capability to mount",
                "in a container pass --cap-add SYS_ADMIN",
            ),
            _ => Check::ok("mounting", "as root, without a helper"),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find(|file| file.exists());
    let Some(found) = found else {
        return Check::bad("mounting", Verdict::Fail, "no fusermount3 in PATH", "install the package fuse3");
    };
    let allows = fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|conf| conf.lines().any(|line| line.trim() == "user_allow_other"));
    if allows {
        return Check::ok("mounting", format!("{}, user_allow_other set", found.display()));
    }
    Check::bad(
        "mounting",
        Verdict::Warn,
        format!("{}; `-o allow_other` is not permitted", found.display()),
        "add the line user_allow_other to /etc/fuse.conf if other users shall read your mounts",
    )
}

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit >= FILES_MIN {
        Check::ok("files", format!("{limit} open files allowed"))
    } else {
        let remedy = format!("ulimit -n {}", FILES_MIN * 4);
        Check::bad("files", Verdict::Warn, format!("only {limit} open files allowed"), remedy)
    }
}

fn disk(ctx: &Context) -> Check {
    let store = ctx.paths.store();
    let existing = store.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    if rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_err() {
        let found = format!("{} cannot be written", existing.display());
        return Check::bad("disk", Verdict::Fail, found, "give the node a folder of yours, with --home");
    }
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{} free for {}", output::size(free), store.display());
            if free >= FREE_MIN {
                Check::ok("disk", found)
            } else {
                Check::bad("disk", Verdict::Warn, found, "free some space, or move the node with --home")
            }
        }
        Err(error) => Check::bad(
            "disk",
            Verdict::Fail,
            format!("{}: {error}", existing.display()),
            "give the node a folder that can be written, with --home",
        ),
    }
}

fn dead_mounts() -> Check {
    let (sender, receiver) = std::sync::mpsc::channel();
    // A mount whose daemon is about to be started again answers when that is done, or never.
    std::thread::spawn(move || sender.send(bcai_mount::dead_mounts().unwrap_or_default()));
    let Ok(dead) = receiver.recv_timeout(ANSWER) else {
        let remedy = "see daemon.log for why its daemon does not start; bcai stop ends the waiting";
        return Check::bad("mounts", Verdict::Fail, "one does not answer", remedy);
    };
    let dead: Vec<String> = dead.iter().map(|dir| dir.display().to_string()).collect();
    if dead.is_empty() {
        return Check::ok("mounts", "none is dead");
    }
    let remedy = format!("bcai mount repairs the directory it is given; or: umount -l {}", dead.join(" "));
    Check::bad("mounts", Verdict::Warn, format!("left by a killed daemon: {}", dead.join(", ")), remedy)
}

/// The node, and how each of its mounts is read.
fn node(ctx: &Context) -> Vec<Check> {
    match Node::running(&ctx.paths) {
        Ok(None) => return vec![Check::ok("node", "not running; commands start it when they need it")],
        Err(error) => {
            return vec![Check::bad("node", Verdict::Fail, error.message, error.hint.unwrap_or_default())];
        }
        Ok(Some(_)) => {}
    }
    let client = Client::new(&ctx.paths.socket());
    let asked = ctx.block_on(async {
        let status = tokio::time::timeout(ANSWER, client.get::<Status>(route::STATUS)).await;
        status.unwrap_or_else(|_| Err(Error::new(crate::node::Kind::Unreachable, "it does not answer")))
    });
    match asked {
        Ok(status) => {
            let mounts = status.mounts.iter().map(|mount| {
                Check::ok("mount io", format!("{}: {} ({})", mount.dir.display(), mount.io, mount.io_reason))
            });
            let page = page(&status);
            [running(&status), supervised(&status)].into_iter().chain(mounts).chain(page).collect()
        }
        Err(error) => vec![Check::bad(
            "node",
            Verdict::Fail,
            error.message,
            format!("see {}; bcai stop: nothing is lost", ctx.paths.daemon_log().display()),
        )],
    }
}

/// What happens to the mounts of a node that dies.
fn supervised(status: &Status) -> Check {
    match status.supervisor {
        Some(pid) => Check::ok("supervisor", format!("pid {pid}")),
        None => Check::bad(
            "supervisor",
            Verdict::Warn,
            "gone: when the node dies, its mounts do",
            "bcai stop; the next command starts a node with a supervisor",
        ),
    }
}

/// The web page, if one is wanted.
fn page(status: &Status) -> Option<Check> {
    let page = status.web.as_ref()?;
    let remedy = "set web.listen to a port that is free, or end the program that has it (`ss -ltnp`)";
    if let Some(error) = &page.error {
        return Some(Check::bad(
            "web page",
            Verdict::Warn,
            format!("not at {}: {error}", page.address),
            remedy,
        ));
    }
    let local = page.address.parse().is_ok_and(|at: std::net::SocketAddr| at.ip().is_loopback());
    Some(match local {
        true => Check::ok("web page", format!("http://{}/", page.address)),
        false => Check::bad(
            "web page",
            Verdict::Warn,
            format!("{}: everybody who reaches it can see this node", page.address),
            "set web.listen to 127.0.0.1:7117 and come through `ssh -L 7117:127.0.0.1:7117`, or keep others out with a firewall",
        ),
    })
}

fn running(status: &Status) -> Check {
    if status.networks.is_empty() {
        let found = format!("running, pid {}, in no network", status.pid);
        return Check::bad("node", Verdict::Warn, found, "bcai init, or bcai init --join URI");
    }
    let (peers, mounts) = (status.peers.len(), status.mounts.len());
    Check::ok("node", format!("running, pid {}, {peers} peer(s), {mounts} mount(s)", status.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_named_with_what_it_lacks() {
        for (release, verdict) in [
            ("4.19.0-25-amd64", Verdict::Fail),
            ("5.15.0-91-generic", Verdict::Warn),
            ("6.8.0", Verdict::Warn),
            ("6.9.1", Verdict::Ok),
            ("7.0.0-rc1", Verdict::Ok),
        ] {
            let check = judge(release);
            assert_eq!(
                (check.verdict, check.remedy.is_some()),
                (verdict, verdict != Verdict::Ok),
                "{release}"
            );
        }
    }
}
