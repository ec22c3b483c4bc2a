//! `bcai demo`: the whole product on this machine, in a minute.
//!
//! Owns: the script of the demonstration: two nodes, a publish, a mount elsewhere, a comparison, a second version.
//! Must not know: how any step works; it runs this very program as a user would.
//! Invariant: it fails if one byte, name or attribute differs, and leaves nothing behind either way.
//! Trust: DIR is only read; everything is written to a temporary folder.
//! Threads: a blocking worker; the main thread waits for it or for a signal. After SIGKILL the temporary folder and
//! the two daemons remain.

mod compare;
mod site;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::{Context, output};
use crate::node::report::{LogRow, Mounted, Published, Status};
use crate::node::{Error, Kind};
use compare::{Compared, compare};
use site::Site;

/// Show it all: two nodes on this machine, one publishes, the other mounts and reads
///
/// Publishes DIR on one node, mounts it by URI on a second one, reads everything through the mount and compares it
/// byte for byte; then changes a few files and publishes a second version. Fails on any difference.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bcai demo\n  bcai demo ./photos")]
pub struct Demo {
    /// What to publish [default: the sources in cargo's registry, or else the Rust toolchain]
    dir: Option<PathBuf>,
}

/// One row of the demonstration's table.
#[derive(Debug, Serialize)]
struct Row {
    step: String,
    seconds: f64,
    bytes: u64,
    note: String,
}

#[derive(Debug, Serialize)]
struct Report {
    dir: PathBuf,
    rows: Vec<Row>,
    network_bytes_v1: u64,
    network_bytes_v2: u64,
    log_height: u64,
    certificate: String,
}

impl Demo {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let dir = self.dir.map_or_else(something_real, Ok)?;
        let dir = dir.canonicalize().map_err(|error| Error::io("cannot use", &dir, error))?;
        let stop = Arc::new(AtomicBool::new(false));
        let script = Script { output: ctx.output, stop: stop.clone() };
        let report = ctx.block_on(async {
            let interrupted = interrupted()?;
            let mut work = tokio::task::spawn_blocking(move || script.play(&dir));
            // The running step then ends early and the script cleans up as after any failure.
            let ended = tokio::select! {
                ended = &mut work => ended,
                () = interrupted => {
                    stop.store(true, Ordering::Relaxed);
                    work.await
                }
            };
            ended.unwrap_or_else(|panic| Err(Error::new(Kind::Failed, format!("the demo failed: {panic}"))))
        })?;
        ctx.output.result(&report, text);
        Ok(())
    }
}

/// Ends on Ctrl-C, on a polite kill, and when the terminal is closed.
fn interrupted() -> Result<impl Future<Output = ()>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let install = |kind| {
        signal(kind).map_err(|error| Error::new(Kind::Failed, format!("cannot wait for signals: {error}")))
    };
    let (mut interrupt, mut terminate) =
        (install(SignalKind::interrupt())?, install(SignalKind::terminate())?);
    let mut hangup = install(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

fn text(report: &Report) -> String {
    let rows = report.rows.iter().map(|row| {
        vec![
            row.step.clone(),
            format!("{:.2} s", row.seconds),
            if row.bytes > 0 { output::size(row.bytes) } else { String::new() },
            if row.bytes > 0 { output::rate(row.bytes, row.seconds) } else { String::new() },
            row.note.clone(),
        ]
    });
    format!(
        "{}\n\nover the network: {} for v1, {} more for v2\nlog: height {}, {}\nevery byte, name and attribute read \
         through the mounts equals {}",
        output::table(&["STEP", "TIME", "SIZE", "RATE", ""], rows),
        output::size(report.network_bytes_v1),
        output::size(report.network_bytes_v2),
        report.log_height,
        report.certificate,
        output::safe(&report.dir.display().to_string()),
    )
}

/// Something sizeable that a machine which has just built this program has.
fn something_real() -> Result<PathBuf, Error> {
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let sources = cargo_home.map(|home| home.join("registry/src")).filter(|dir| dir.is_dir());
    let toolchain = || {
        let found = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
        Some(PathBuf::from(String::from_utf8(found.stdout).ok()?.trim()).join("lib"))
            .filter(|dir| dir.is_dir())
    };
    sources.or_else(toolchain).ok_or_else(|| {
        Error::not_found("no cargo sources and no Rust toolchain here").hint("name a folder: bcai demo DIR")
    })
}

struct Script {
    output: output::Output,
    stop: Arc<AtomicBool>,
}

impl Script {
    fn play(&self, dir: &Path) -> Result<Report, Error> {
        let temp = tempfile::Builder::new()
            .prefix("bcai-demo-")
            .tempdir()
            .map_err(|error| Error::io("cannot create a folder in", &std::env::temp_dir(), error))?;
        let source = temp.path().join("source");
        self.say(&format!("copying {} to a temporary folder", dir.display()));
        copy(dir, &source)?;
        let publisher = Site::new(temp.path().join("publisher"));
        let reader = Site::new(temp.path().join("reader"));
        let report = self.show(dir, &source, &publisher, &reader);
        // A step that Ctrl-C cut short reports whatever broke; the user wants to hear what they did.
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Failed, "interrupted"));
        }
        report
    }

    fn say(&self, text: &str) {
        self.output.note(&output::safe(text));
    }

    fn show(&self, dir: &Path, source: &Path, publisher: &Site, reader: &Site) -> Result<Report, Error> {
        let mut rows = Vec::new();
        publisher.run(&["init"])?;

        self.say("publishing it on the first node");
        let first = self.publish(publisher, source, "demo@v1", &mut rows)?;
        self.say("mounting it by URI on the second node, which has never run");
        let mount = reader.dir("v1")?;
        self.mount(reader, &first.uri, &mount, &mut rows)?;
        self.say("reading everything through the mount");
        let cold = self.read("read and compare, cold", source, &mount, &mut rows)?;
        let warm = self.read("read and compare, warm", source, &mount, &mut rows)?;
        let fetched_v1 = received(reader)?;

        let edits = edit(source)?;
        self.say("publishing a second version with a few changes");
        let second = self.publish(publisher, source, "demo@v2", &mut rows)?;
        let mount = reader.dir("v2")?;
        self.mount(reader, &second.uri, &mount, &mut rows)?;
        let changed = self.read(&format!("read and compare v2 ({edits})"), source, &mount, &mut rows)?;
        let fetched_v2 = received(reader)?.saturating_sub(fetched_v1);

        let log: Vec<LogRow> = reader.json(&["log"])?;
        let head = log.last().ok_or_else(|| Error::new(Kind::Corrupt, "the reader's log is empty"))?;
        let differences = [cold, warm, changed].concat();
        if let Some(difference) = differences.first() {
            let message = format!("{} difference(s), the first: {difference}", differences.len());
            return Err(Error::new(Kind::Corrupt, message));
        }
        Ok(Report {
            dir: dir.into(),
            rows,
            network_bytes_v1: fetched_v1,
            network_bytes_v2: fetched_v2,
            log_height: head.height,
            certificate: format!(
                "header {} signed by {} of {} validator(s) in round {}",
                &head.header[..10.min(head.header.len())],
                head.signers,
                head.validators,
                head.round
            ),
        })
    }

    fn publish(
        &self,
        site: &Site,
        source: &Path,
        target: &str,
        rows: &mut Vec<Row>,
    ) -> Result<Published, Error> {
        let started = Instant::now();
        let done: Published = site.json(&["publish".as_ref(), source.as_os_str(), target.as_ref()])?;
        let seconds = started.elapsed().as_secs_f64();
        let ingest = done.ingest.as_ref().ok_or_else(|| Error::new(Kind::Failed, "publish read nothing"))?;
        rows.push(Row {
            step: format!("publish {target}"),
            seconds,
            bytes: ingest.bytes,
            note: format!(
                "{} inodes; {} new in the store; final in {:.1} ms at height {}",
                ingest.inodes,
                output::size(ingest.new_bytes),
                done.commit_ms,
                done.height
            ),
        });
        Ok(done)
    }

    fn mount(&self, site: &Site, uri: &str, dir: &Path, rows: &mut Vec<Row>) -> Result<(), Error> {
        let started = Instant::now();
        let mounted: Mounted = site.json(&["mount".as_ref(), uri.as_ref(), dir.as_os_str()])?;
        rows.push(Row {
            step: "mount by URI".into(),
            seconds: started.elapsed().as_secs_f64(),
            bytes: 0,
            note: mounted
                .version
                .map(|v| format!("log checked up to height {}", v.height))
                .unwrap_or_default(),
        });
        Ok(())
    }

    fn read(
        &self,
        step: &str,
        source: &Path,
        mount: &Path,
        rows: &mut Vec<Row>,
    ) -> Result<Vec<String>, Error> {
        let started = Instant::now();
        let Compared { files, bytes, differences } = compare(source, mount, &self.stop)?;
        rows.push(Row {
            step: step.into(),
            seconds: started.elapsed().as_secs_f64(),
            bytes,
            note: format!("{files} names, {} difference(s)", differences.len()),
        });
        Ok(differences)
    }
}

/// Bytes of objects that have come from peers, as they travelled.
fn received(site: &Site) -> Result<u64, Error> {
    Ok(site.json::<Status>(&["status"])?.peers.iter().map(|peer| peer.bytes_in).sum())
}

/// Copies with every attribute; `cp` knows them all and shares blocks where the file system can.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let done = Command::new("cp")
        .args(["-a", "--reflink=auto", "--"])
        .args([from, to])
        .output()
        .map_err(|error| Error::io("cannot run", Path::new("cp"), error))?;
    if done.status.success() {
        return make_writable(to);
    }
    Err(Error::not_found(format!(
        "cannot copy {}: {}",
        from.display(),
        String::from_utf8_lossy(&done.stderr).trim()
    )))
}

/// Opens the copy to its owner: datasets are often read-only, and the copy is to be changed and removed.
fn make_writable(dir: &Path) -> Result<(), Error> {
    let done = Command::new("chmod").args(["-R", "u+rwX", "--"]).arg(dir).status();
    match done {
        Ok(status) if status.success() => Ok(()),
        _ => Err(Error::new(Kind::Failed, format!("cannot make {} writable", dir.display()))),
    }
}

/// Appends to three files, removes one and adds one; tells what it did.
fn edit(dir: &Path) -> Result<String, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| Error::io("cannot change", &path, error)
    };
    let mut files = compare::regular_files(dir, 200)?;
    files.sort();
    let removed = if files.len() > 4 { files.pop() } else { None };
    let step = (files.len() / 3).max(1);
    let appended: Vec<_> = files.iter().step_by(step).take(3).collect();
    for path in &appended {
        use std::io::Write;
        let file = std::fs::OpenOptions::new().append(true).open(path);
        file.and_then(|mut file| file.write_all(b"\none more line\n")).map_err(failed(path))?;
    }
    if let Some(path) = &removed {
        std::fs::remove_file(path).map_err(failed(path))?;
    }
    let added = dir.join("added by bcai demo");
    std::fs::write(&added, b"a new file\n").map_err(failed(&added))?;
    Ok(format!("{} changed, {} removed, 1 added", appended.len(), usize::from(removed.is_some())))
}
