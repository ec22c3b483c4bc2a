//! The README's first command.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;

use common::{Site, done, noise};

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn the_demo_shows_everything_and_leaves_nothing() {
    let site = Site::new();
    let source = site.dir("source");
    let temp = site.dir("temp");
    for i in 0..20 {
        fs::write(source.join(format!("{i}")), noise(i, 100 << 10)).unwrap();
    }
    let mut demo = site.command(["--json", "demo", source.to_str().unwrap()]);
    let shown = done(demo.env("TMPDIR", &temp).output().unwrap());
    assert_eq!(shown.code, 0, "{}{}", shown.stdout, shown.stderr);
    let report: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(report["log_height"], 2, "{report}");
    let (first, second) =
        (report["network_bytes_v1"].as_u64().unwrap(), report["network_bytes_v2"].as_u64().unwrap());
    assert!(first > 2_000_000 && second > 0 && second < first / 4, "{report}");
    assert_eq!(fs::read_dir(&temp).unwrap().count(), 0, "it left something behind");
}
