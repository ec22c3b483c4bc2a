//! Training scripts read through the mount as they are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;
use std::process::Command;

use common::Site;

/// Debian's interpreter: the one its python3-torch belongs to.
const PYTHON: &str = "/usr/bin/python3";

fn python(args: &[&Path], mode: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/loaders/imagefolder.py");
    let output = Command::new(PYTHON).arg(script).arg(mode).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[cfg_attr(
    not(all(fuse_available, torch)),
    ignore = "needs /dev/fuse and Debian's python3-torch, python3-torchvision"
)]
fn a_data_loader_with_workers_reads_an_image_folder() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let images = publisher.dir("images");
    python(&[&images], "make");
    let uri = publisher.publish(&images, "images@v1");
    let mounted = reader.mount(&uri, "mnt");
    assert!(python(&[&mounted, &images], "read").contains("100 images"));
}
