//! Training scripts read through the mount as they are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use common::Site;

/// Debian's interpreter: the one its python3-torch belongs to.
const PYTHON: &str = "/usr/bin/python3";

fn python(args: &[&Path], mode: &str) -> String {
    run("imagefolder.py", &[&[Path::new(mode)], args].concat())
}

fn run(script: &str, args: &[&Path]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/loaders").join(script);
    let output = Command::new(PYTHON).arg("-B").arg(script).args(args).output().unwrap();
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

#[test]
#[cfg_attr(not(all(fuse_available, torch)), ignore = "needs /dev/fuse and Debian's python3-torch")]
fn what_a_sampler_hints_is_here_before_it_is_opened() {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    let mut bytes = 0;
    for number in 0..120u64 {
        let dir = source.join(format!("class{}", number % 4));
        std::fs::create_dir_all(&dir).unwrap();
        // Files of one chunk and of several.
        let len = if number % 10 == 0 { 400_000 } else { 10_000 };
        bytes += len as u64;
        // Names are bytes.
        let name = if number == 7 { b"7\\x41\xff".to_vec() } else { format!("{number:03}").into_bytes() };
        std::fs::write(dir.join(OsStr::from_bytes(&name)), common::noise(number, len)).unwrap();
    }
    let uri = publisher.publish(&source, "data@v1");
    let mounted = reader.mount(&uri, "mnt");
    let said = run("hinted.py", &[&mounted, &source, &reader.home.join("run/api.sock")]);
    assert!(said.contains(&format!("120 files equal, {bytes} bytes")), "{said}");
    let hints = reader.json(["cache"])["hints"].clone();
    assert_eq!((&hints["hints"], &hints["paths"], &hints["fetched"]), (&1.into(), &120.into(), &120.into()));
    assert_eq!((&hints["unknown"], &hints["failed"], &hints["dropped"]), (&0.into(), &0.into(), &0.into()));
    // Chunks came for the hints, and nothing came for the readers but the snapshot and its directories.
    let fetched = reader.status()["fetch"]["fetched_bytes"].as_u64().unwrap();
    let ahead = hints["fetched_bytes"].as_u64().unwrap();
    assert!(ahead >= bytes && fetched - ahead < 64 << 10, "{ahead} of {fetched} bytes");
}
