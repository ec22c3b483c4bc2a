//! Tells the tests how this machine can mount, so that those which cannot run on it are reported as ignored.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

fn main() {
    println!(
        "cargo::rustc-check-cfg=cfg(fuse_available, fuse_as_root, fuse_by_both_ways, fuse_passthrough, user_namespaces)"
    );
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=/dev/fuse");
    let root = fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
    let as_root = root && OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    // `fusermount3` opens the device as the user who calls it.
    let for_all = fs::metadata("/dev/fuse").is_ok_and(|meta| meta.mode() & 0o006 == 0o006);
    let by_helper = for_all
        && std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("fusermount3").exists()));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let namespaces = Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).status();
    let ways = [
        ("fuse_available", as_root || (by_helper && !root)),
        ("fuse_as_root", as_root),
        ("fuse_by_both_ways", as_root && by_helper),
        ("fuse_passthrough", as_root && kernel >= (6, 9)),
        ("user_namespaces", as_root && namespaces.is_ok_and(|status| status.success())),
    ];
    for (cfg, _) in ways.iter().filter(|(_, present)| *present) {
        println!("cargo::rustc-cfg={cfg}");
    }
}
