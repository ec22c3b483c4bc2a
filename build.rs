//! Tells the tests what this machine can do, so that one that cannot run here is reported as ignored, with the
//! reason, instead of passing.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(fuse_available, root, torch)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=/dev/fuse");
    // Debian's python3-torch and python3-torchvision.
    let torch = ["torch", "torchvision"].map(|name| Path::new("/usr/lib/python3/dist-packages").join(name));
    for module in &torch {
        println!("cargo::rerun-if-changed={}", module.display());
    }
    let present = [
        ("fuse_available", OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok()),
        ("root", fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)),
        ("torch", torch.iter().all(|module| module.is_dir())),
    ];
    for (cfg, _) in present.iter().filter(|(_, present)| *present) {
        println!("cargo::rustc-cfg={cfg}");
    }
}
