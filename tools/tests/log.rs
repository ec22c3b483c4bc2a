//! The measurements of the log run, clean up, and say what they found: few versions, with the programs just built.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn rows_are_measured_and_nothing_is_left() {
    let tools = Path::new(env!("CARGO_BIN_EXE_bcai-tools"));
    let bcai = tools.with_file_name("bcai");
    assert!(bcai.is_file(), "{} is not built: cargo build -p bcai", bcai.display());
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(tools);
    command.args(["log", "--json", "--publishes", "4", "--seconds", "1"]);
    let done = command.arg("--dir").arg(dir.path()).arg("--bcai").arg(bcai).output().expect("runs");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));

    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let lines = report["rows"].as_array().expect("rows");
    let figures: BTreeMap<&str, f64> = lines
        .iter()
        .map(|line| (line["row"].as_str().expect("a name"), line["bcai"].as_f64().expect("a figure")))
        .collect();
    assert_eq!(figures.keys().copied().collect::<Vec<_>>(), ["entries", "four-validators", "one-validator"]);
    assert!(figures.values().all(|figure| *figure > 0.0), "{figures:?}");
    assert!(lines.iter().all(|line| line["met"].is_boolean()), "{said}");

    assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 0);
    let dir = dir.path().to_str().expect("UTF-8");
    for process in fs::read_dir("/proc").expect("lists") {
        let line = fs::read(process.expect("an entry").path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(dir), "a process is left");
    }
}
