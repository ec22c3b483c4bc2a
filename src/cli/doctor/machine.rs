//! What a machine must have, whatever node runs on it.
//!
//! Owns: the kernel, FUSE, the right to mount, limits, and mounts that were left behind.
//! Must not know: any node. Invariant, trust and threads: those of `doctor`.

use std::fs;

use super::{ANSWER, Check, Verdict};

/// Open files below which a daemon with many peers and packs runs out.
const FILES_MIN: u64 = 1024;

pub(super) fn checks() -> Vec<Check> {
    vec![kernel(), device(), mounting(), open_files(), dead_mounts()]
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
