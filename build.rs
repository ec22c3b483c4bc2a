//! Names the commit in the version of a release, and tells the tests what this machine can do, so that one that cannot run here is reported as ignored, with the
//! reason, instead of passing. The tools and the networks of tests have the same build script.

use std::env;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rustc-env=PROGRAM_VERSION={}", version());
    println!(
        "cargo::rustc-check-cfg=cfg(as_user, chromium, faketime, fuse_available, nat, passthrough, promtool, python, reflink, root, systemd, torch)"
    );
    println!("cargo::rerun-if-changed=/dev/fuse");
    // Debian's python3-torch and python3-torchvision.
    let torch = ["torch", "torchvision"].map(|name| Path::new("/usr/lib/python3/dist-packages").join(name));
    for module in &torch {
        println!("cargo::rerun-if-changed={}", module.display());
    }
    // Debian's nftables.
    let nft = Path::new("/usr/sbin/nft");
    println!("cargo::rerun-if-changed={}", nft.display());
    // Debian's xfsprogs.
    let mkfs = Path::new("/usr/sbin/mkfs.xfs");
    println!("cargo::rerun-if-changed={}", mkfs.display());
    // Debian's chromium.
    let chromium = Path::new("/usr/bin/chromium");
    println!("cargo::rerun-if-changed={}", chromium.display());
    // Debian's faketime, prometheus, python3 and systemd.
    let [faketime, promtool, python, systemd] =
        ["/usr/bin/faketime", "/usr/bin/promtool", "/usr/bin/python3", "/usr/bin/systemd-analyze"]
            .map(Path::new);
    for program in [faketime, promtool, python, systemd] {
        println!("cargo::rerun-if-changed={}", program.display());
    }
    let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    // `fusermount3` opens the device as the user who calls it.
    let for_all = fs::metadata("/dev/fuse").is_ok_and(|meta| meta.mode() & 0o006 == 0o006);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let by_helper = std::env::split_paths(&path).any(|dir| dir.join("fusermount3").exists());
    let present = [
        ("chromium", chromium.exists()),
        ("as_user", root && fuse && for_all && by_helper),
        ("faketime", faketime.exists()),
        ("fuse_available", fuse),
        ("nat", root && nft.exists()),
        ("passthrough", fuse && root && kernel() >= (6, 9)),
        ("promtool", promtool.exists()),
        ("python", python.exists()),
        ("reflink", root && mkfs.exists() && Path::new("/dev/loop-control").exists() && knows("xfs")),
        ("root", root),
        ("systemd", systemd.exists()),
        ("torch", torch.iter().all(|module| module.is_dir())),
    ];
    for (cfg, _) in present.iter().filter(|(_, present)| *present) {
        println!("cargo::rustc-cfg={cfg}");
    }
}

/// The version; of a release build with its commit and the day of that. Nothing of the machine or the time of the build is in
/// it: the same source gives the same text. A package of source names its commit in a file of cargo's; what has no commit, and
/// what is built for development and so often that naming it would build everything anew each time, has the version alone.
fn version() -> String {
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    if env::var("PROFILE").as_deref() != Ok("release") {
        return version;
    }
    // One that is not there would count as changed each time.
    let files = [".cargo_vcs_info.json", ".git/HEAD", ".git/logs/HEAD"].into_iter();
    for file in files.filter(|file| Path::new(file).exists()) {
        println!("cargo::rerun-if-changed={file}");
    }
    let packaged = fs::read_to_string(".cargo_vcs_info.json").ok().and_then(|info| {
        let (_, rest) = info.split_once("\"sha1\": \"")?;
        Some(rest.get(..10)?.to_owned())
    });
    match packaged.or_else(committed) {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    }
}

/// The commit that is checked out, and its day.
fn committed() -> Option<String> {
    // Without a repository of its own, the source is in somebody else's.
    Path::new(".git").exists().then_some(())?;
    let git = Command::new("git").args(["log", "-1", "--abbrev=10", "--format=%h %cs"]).output().ok()?;
    let said = String::from_utf8(git.stdout).ok()?.trim().to_owned();
    (git.status.success() && !said.is_empty()).then_some(said)
}

/// Whether the running kernel has a file system.
fn knows(file_system: &str) -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split_whitespace().next_back() == Some(file_system))
}

/// Version of the running kernel.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
