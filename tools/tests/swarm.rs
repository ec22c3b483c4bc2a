//! The measurements of the swarm run, clean up, and say what they found: few nodes and little data, with the programs just
//! built.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The tool at work in `dir`, on little data.
fn swarm(dir: &Path, rows: &[&str]) -> Command {
    let tools = Path::new(env!("CARGO_BIN_EXE_bcai-tools"));
    let bcai = tools.with_file_name("bcai");
    assert!(bcai.is_file(), "{} is not built: cargo build -p bcai", bcai.display());
    let mut command = Command::new(tools);
    command.args([
        "swarm",
        "--json",
        "--receivers",
        "2",
        "--rate",
        "100mbit",
        "--size",
        "8MB",
        "--runs",
        "1",
    ]);
    command.arg("--dir").arg(dir).arg("--bcai").arg(bcai).args(rows);
    command
}

/// Fails if anything is left of the tool with this process id, whose folder was `dir`.
fn assert_nothing_left(dir: &Path, pid: u32) {
    assert_eq!(fs::read_dir(dir).expect("lists").count(), 0);
    let namespaces = fs::read_dir("/run/netns").expect("lists");
    let names = namespaces.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let left: Vec<String> = names.filter(|name| name.starts_with(&format!("bcai-{pid}-"))).collect();
    assert_eq!(left, Vec::<String>::new());
    let dir = dir.to_str().expect("UTF-8");
    for process in fs::read_dir("/proc").expect("lists") {
        let line = fs::read(process.expect("an entry").path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        assert!(!line.contains(dir), "still runs: {}", line.replace('\0', " "));
    }
}

#[test]
#[cfg_attr(not(all(fuse_available, root)), ignore = "needs /dev/fuse, and root to make network namespaces")]
fn rows_are_measured_and_nothing_is_left() {
    let dir = tempfile::tempdir().expect("a folder");
    let rows = ["fan-out", "fan-out-copies", "fan-out-liar", "one-link", "set-up"];
    let child = swarm(dir.path(), &rows).stdout(Stdio::piped()).spawn().expect("runs");
    let pid = child.id();
    let done = child.wait_with_output().expect("ends");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let lines = report["rows"].as_array().expect("rows");
    let figures: BTreeMap<&str, f64> = lines
        .iter()
        .map(|line| (line["row"].as_str().expect("a name"), line["bcai"].as_f64().expect("a figure")))
        .collect();
    assert_eq!(figures.keys().copied().collect::<Vec<_>>(), rows);
    // A link carries no more than it can, but for what may go at once, and somebody has to send all of it once.
    assert!((0.0..1.05).contains(&figures["one-link"]), "{figures:?}");
    assert!(figures["fan-out-copies"] > 0.99, "{figures:?}");
    assert_nothing_left(dir.path(), pid);
}

#[test]
#[cfg_attr(not(all(fuse_available, root)), ignore = "needs /dev/fuse, and root to make network namespaces")]
fn an_interruption_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut child = swarm(dir.path(), &["fan-out"]).spawn().expect("runs");
    let pid = child.id();
    let second_receiver = || dir.path().join(format!("run-{pid}/n2/h/run")).exists();
    while !second_receiver() {
        assert!(child.try_wait().expect("waits").is_none(), "it ended before anything ran");
        std::thread::yield_now();
    }
    assert!(Command::new("kill").args(["-TERM", &pid.to_string()]).status().expect("runs").success());
    assert!(!child.wait().expect("ends").success());
    assert_nothing_left(dir.path(), pid);
}
