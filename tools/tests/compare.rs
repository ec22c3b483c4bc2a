//! The comparison runs, cleans up, and says what it found: at a tiny scale, with the programs just built.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output};

use serde_json::Value;

fn tools() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bcai-tools"))
}

/// Runs `compare` on `rows` in `dir`, with the daemon that is built beside the tools.
fn compare(dir: &Path, rows: &[&str]) -> Output {
    let bcai = Path::new(env!("CARGO_BIN_EXE_bcai-tools")).with_file_name("bcai");
    assert!(bcai.is_file(), "{} is not built: cargo build -p bcai", bcai.display());
    let mut command = tools();
    command.args(["compare", "--json", "--scale", "0.001", "--dir"]).arg(dir).arg("--bcai").arg(bcai);
    command.args(rows).output().expect("runs")
}

fn left_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("lists");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// Fails if anything below `dir` is mounted or has a daemon.
fn assert_quiet(dir: &Path) {
    let dir = dir.to_str().expect("UTF-8");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("reads");
    assert!(!mounts.contains(dir), "{mounts}");
    for process in fs::read_dir("/proc").expect("lists") {
        let line = fs::read(process.expect("an entry").path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        assert!(!line.contains(dir), "still runs: {}", line.replace('\0', " "));
    }
}

#[test]
#[cfg_attr(not(all(fuse_available, root)), ignore = "needs /dev/fuse and root")]
fn rows_are_measured_and_nothing_is_left() {
    let dir = tempfile::tempdir().expect("a folder");
    let rows = [
        "mmap-random",
        "epoch-second",
        "budget-disk",
        "shards-second",
        "ingest",
        "encrypted-edit",
        "key-rotation",
        "mount-million",
    ];
    let done = compare(dir.path(), &rows);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let lines = report["rows"].as_array().expect("rows");
    let figures: BTreeMap<&str, f64> = lines
        .iter()
        .map(|line| (line["row"].as_str().expect("a name"), line["bcai"].as_f64().expect("a figure")))
        .collect();
    assert_eq!(figures.keys().copied().collect::<Vec<_>>(), {
        let mut rows = rows;
        rows.sort_unstable();
        rows
    });
    assert!(figures.values().all(|figure| *figure > 0.0), "{figures:?}");
    // One record in a hundred is new; it cannot cost less than itself, nor what a whole shard does.
    assert!((0.9..20.0).contains(&figures["shards-second"]), "{figures:?}");
    assert_eq!(left_in(dir.path()), Vec::<String>::new());
    assert_quiet(dir.path());
}

#[test]
#[cfg_attr(not(all(fuse_available, root)), ignore = "needs /dev/fuse and root")]
fn a_program_that_fails_is_reported_and_a_corpus_that_was_there_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let made = tools().args(["corpus", "large", "--scale", "0.001"]).arg(dir.path()).output().expect("runs");
    let corpus = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    assert!(Path::new(&corpus).join("tokens.bin").is_file(), "{corpus}");
    let mut command = tools();
    command.args(["compare", "seq-warm", "--scale", "0.001", "--bcai", "/bin/false", "--dir"]);
    let done = command.arg(dir.path()).output().expect("runs");
    assert!(!done.status.success());
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(said.contains("seq-warm: failed: bcai init"), "{said}");
    assert_eq!(left_in(dir.path()), ["large-1-0.001"]);
}

/// The tool at work. A test that fails lets it clean up.
struct Running(Child);

impl Running {
    fn interrupt(&self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("runs").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.interrupt();
            let _ = self.0.wait();
        }
    }
}

#[test]
#[cfg_attr(not(all(fuse_available, root)), ignore = "needs /dev/fuse and root")]
fn an_interruption_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let bcai = Path::new(env!("CARGO_BIN_EXE_bcai-tools")).with_file_name("bcai");
    let mut command = tools();
    command.args(["compare", "epoch-second", "--scale", "0.02", "--dir"]).arg(dir.path());
    let mut running = Running(command.arg("--bcai").arg(bcai).spawn().expect("runs"));
    let top = dir.path().to_str().expect("UTF-8").to_owned();
    let mounted = || fs::read_to_string("/proc/self/mountinfo").expect("reads").contains(&top);
    while !mounted() {
        assert!(running.0.try_wait().expect("waits").is_none(), "it ended before anything was mounted");
        std::thread::yield_now();
    }
    running.interrupt();
    assert!(!running.0.wait().expect("waits").success());
    assert_eq!(left_in(dir.path()), Vec::<String>::new());
    assert_quiet(dir.path());
}
