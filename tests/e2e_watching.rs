//! Looking on while nodes are used: metrics, `bcai trace`, `bcai top`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use common::{Running, Site, noise, wait_until};
use serde_json::Value;

const FILES: u64 = 12;
const FILE: usize = 100_000;

/// A publisher, and a reader that has its dataset mounted.
fn mounted() -> (Site, Site, std::path::PathBuf) {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    for n in 0..FILES {
        fs::write(source.join(format!("{n:02}")), noise(n, FILE)).unwrap();
    }
    let uri = publisher.publish(&source, "data@v1");
    let dir = reader.mount(&uri, "mnt");
    (publisher, reader, dir)
}

/// The metrics as Prometheus gets them: each series with its value.
fn metrics(site: &Site) -> BTreeMap<String, f64> {
    let mut stream = UnixStream::connect(site.home.join("run/api.sock")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 ") && head.contains("application/openmetrics-text"), "{head}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut described = std::collections::BTreeSet::new();
    let mut series = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ") {
            assert!(described.insert(name.split(' ').next().unwrap().to_owned()), "twice: {line}");
        }
        if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(name.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
        }
    }
    series
}

/// What the series of answered reads that end so come to.
fn reads(series: &BTreeMap<String, f64>, end: &str) -> f64 {
    let name = format!("bcai_fuse_operation_seconds_{end}{{");
    let reads = series.iter().filter(|(of, _)| of.starts_with(&name) && of.contains("operation=\"read\""));
    reads.map(|(_, value)| value).sum()
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn metrics_tell_what_status_tells_and_how_long_answers_took() {
    let (_publisher, reader, dir) = mounted();
    let before = metrics(&reader);
    for n in 0..FILES {
        assert_eq!(fs::read(dir.join(format!("{n:02}"))).unwrap().len(), FILE);
    }
    fs::metadata(dir.join("nothing")).unwrap_err();
    // Each file is read once at least; whether it was fetched or read ahead in time, the answers are as many. The last is counted
    // when its reader has it.
    wait_until("every read is counted", || reads(&metrics(&reader), "count") >= FILES as f64);
    let after = metrics(&reader);
    let status = reader.status();
    let rose = |name: &str| after[name] - before.get(name).copied().unwrap_or(0.0);
    let all = (FILES as usize * FILE) as f64;
    assert!(rose("bcai_object_bytes_total{source=\"elsewhere\"}") >= all, "{after:?}");
    assert!(rose("bcai_peer_bytes_total{direction=\"in\"}") >= all, "{after:?}");
    assert_eq!(
        after["bcai_objects_got_total{source=\"elsewhere\"}"],
        status["fetch"]["fetched"].as_f64().unwrap()
    );
    assert_eq!(after["bcai_cache_max_bytes"], status["cache"]["max_bytes"].as_f64().unwrap());
    let genesis = status["networks"][0]["genesis"].as_str().unwrap();
    assert_eq!(after[&format!("bcai_log_height{{network=\"{genesis}\"}}")], 1.0);
    assert_eq!(after["bcai_mounts{io=\"zero-open\"}"], 1.0);
    assert!(reads(&after, "sum") > 0.0, "{after:?}");
    let told: u64 =
        status["answers"].as_array().unwrap().iter().map(|row| row["answers"].as_u64().unwrap()).sum();
    assert!(told as f64 >= reads(&after, "count"), "{status}");
    // A histogram ends with all of its answers.
    for (name, count) in after.iter().filter(|(name, _)| name.contains("seconds_count{")) {
        let last = name.replace("_count{", "_bucket{le=\"+Inf\",");
        assert_eq!(after[&last], *count, "{last}");
    }
    for (name, value) in before.iter().filter(|(name, _)| name.contains("_total")) {
        assert!(after[name] >= *value, "{name} went back");
    }
    assert!(after.len() < 400, "{}", after.len());
    // What the kernel keeps is read without asking.
    let asked = reads(&after, "count");
    for n in 0..FILES {
        fs::read(dir.join(format!("{n:02}"))).unwrap();
    }
    let again = metrics(&reader);
    let reads = again.iter().filter(|(name, _)| {
        name.starts_with("bcai_fuse_operation_seconds_count{") && name.contains("operation=\"read\"")
    });
    assert_eq!(reads.map(|(_, value)| value).sum::<f64>(), asked);
}

/// A trace that has begun, or is about to, and its rows as they come.
fn trace(site: &Site, dir: &Path) -> (Running, Receiver<Value>) {
    let mut command = site.command(["--json", "trace", dir.to_str().unwrap()]);
    let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    wait_until("somebody watches", || {
        let status = site.status();
        status["transfers"].as_array().unwrap().iter().any(|job| job["kind"] == "trace")
    });
    let lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let (sender, rows) = channel();
    // Ends with the trace.
    std::thread::spawn(move || {
        lines.for_each(|line| drop(sender.send(serde_json::from_str(&line.unwrap()).unwrap())));
    });
    (running, rows)
}

/// Reads of what was mounted before were shown under the names of what is mounted now.
#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_trace_gives_no_file_the_name_of_another_version() {
    const LEN: usize = 16 << 20;
    let site = Site::initialised();
    for (dir, name, version) in [("one", "old", "data@v1"), ("two", "new", "data@v2")] {
        let source = site.dir(dir);
        fs::write(source.join(name), noise(7, LEN)).unwrap();
        site.publish(&source, version);
    }
    let dir = site.dir("mnt");
    let text = dir.to_str().unwrap();
    site.ok(["mount", "data@v1", text, "-o", "io=cached"]);
    let old = fs::File::open(dir.join("old")).unwrap();
    site.ok(["remount", text, "data@v2"]);
    let (_running, rows) = trace(&site, &dir);
    let (mut seen, mut at) = (Vec::new(), 0);
    wait_until("a read is seen", || {
        // Further on each time, where nothing has been read ahead.
        at = (at + (5 << 20) + 4096) % LEN as u64;
        old.read_at(&mut [0; 1], at).unwrap();
        seen.extend(rows.try_iter());
        seen.iter().any(|row: &Value| row["operation"] == "read")
    });
    let reads = seen.iter().filter(|row| row["operation"] == "read");
    assert!(reads.into_iter().all(|row| row["path"].as_str().unwrap().starts_with("inode ")), "{seen:?}");
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_trace_shows_what_is_read_from_where_until_the_mount_ends() {
    let (_publisher, reader, dir) = mounted();
    let message = reader.fails(10, ["trace", "/"]);
    assert!(message.contains("bcai status"), "{message}");
    let (mut running, rows) = trace(&reader, &dir);
    // The job is listed a moment before it watches.
    let mut seen: Vec<Value> = Vec::new();
    let mut n = 0;
    wait_until("a read is seen", || {
        if n < FILES {
            fs::read(dir.join(format!("{n:02}"))).unwrap();
            n += 1;
        }
        seen.extend(rows.try_iter());
        seen.iter().any(|row| row["operation"] == "read" && row["source"] == "elsewhere")
    });
    let read = seen.iter().find(|row| row["operation"] == "read").unwrap();
    let path = read["path"].as_str().unwrap();
    assert!(path.len() == 2 && path.parse::<u64>().is_ok_and(|n| n < FILES), "{read}");
    assert!(read["len"].as_u64().unwrap() > 0 && read["micros"].as_u64().unwrap() > 0, "{read}");
    assert!(seen.iter().all(|row| row.get("missed").is_none()), "{seen:?}");
    reader.ok(["unmount", dir.to_str().unwrap()]);
    assert!(running.0.wait().unwrap().success());
    let status = reader.status();
    assert!(status["transfers"].as_array().unwrap().is_empty(), "{status}");
}

/// It read from a terminal that was gone, as fast as it could and for ever.
#[test]
fn top_ends_with_its_terminal() {
    let site = Site::initialised();
    let pid = site.home.join("top.pid");
    let (home, program) = (site.home.display(), site.program.display());
    // It is the one that the kernel tells, as when a connection of ssh breaks.
    let top = format!("stty rows 24 cols 80; echo $$ > {}; exec {program} --home {home} top", pid.display());
    let mut script = Command::new("script");
    script.args(["-qec", &top, "/dev/null"]).env("TERM", "xterm");
    let mut running =
        Running(script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut output = running.0.stdout.take().unwrap();
    let (seen, shows) = channel();
    std::thread::spawn(move || {
        let (mut shown, mut some) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = output.read(&mut some) {
            shown.extend_from_slice(&some[..read]);
            if String::from_utf8_lossy(&shown).contains("READS") {
                let _ = seen.send(());
            }
        }
    });
    shows.recv_timeout(common::DEADLINE).expect("it shows something");
    running.0.kill().unwrap();
    let top = fs::read_to_string(pid).unwrap();
    let proc = Path::new("/proc").join(top.trim());
    wait_until("it has ended", || !proc.exists());
}

#[test]
fn top_fills_a_terminal_and_gives_it_back() {
    let site = Site::initialised();
    let message = site.fails(2, ["top"]);
    assert!(message.contains("needs a terminal"), "{message}");
    let home = site.home.display();
    let top =
        format!("stty rows 24 cols 80; timeout --foreground 60 {} --home {home} top", site.program.display());
    let mut script = Command::new("script");
    script.args(["-qec", &top, "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", "1");
    let mut running =
        Running(script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut output = running.0.stdout.take().unwrap();
    let mut text = Vec::new();
    // Between words the cursor is moved, so that there are no blanks.
    while !String::from_utf8_lossy(&text).contains("decides,") {
        let mut some = [0; 4096];
        let read = output.read(&mut some).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&some[..read]);
    }
    running.0.stdin.as_mut().unwrap().write_all(b"q").unwrap();
    output.read_to_end(&mut text).unwrap();
    assert!(running.0.wait().unwrap().success());
    let text = String::from_utf8_lossy(&text);
    // Into the other screen and back, and no colours.
    assert!(text.contains("\x1b[?1049h") && text.contains("\x1b[?1049l"), "{text:?}");
    assert!(!text.contains("\x1b[33m") && !text.contains("\x1b[38;5;3m"), "{text:?}");
}
