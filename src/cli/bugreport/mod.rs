//! `bcai bugreport`.
//!
//! Owns: what somebody who looks into a problem needs to see, in one file.
//! Must not know: what any of it means.
//! Invariant: no key and no passphrase is ever read for it; names of datasets, directories, users and machines are replaced
//! (`redact`). It never hangs, starts nothing, changes nothing, and overwrites no file.
//! Trust: as `cli`. Threads: the main thread.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::doctor::{Keys, Report};
use super::output::{self, Output};
use super::{Context, VERSION};
use crate::api::{Client, route};
use crate::node::{Error, Kind, Node, now_ms, remembered};
use redact::Redactor;

mod redact;

/// How long the node may take for each answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Bytes of the end of `daemon.log`.
const LOG_TAIL: u64 = 256 << 10;
/// What is asked of a node that runs.
const ASKED: [(&str, &str); 4] = [
    ("status", route::STATUS),
    ("alerts", route::ALERTS),
    ("jobs", route::JOBS),
    ("validators", route::VALIDATORS),
];

/// Collect what is needed to look into a problem, without secrets, in one text file
///
/// The file has the version, the machine, all that `bcai doctor` finds, the status, alerts, jobs and metrics of the node if it
/// runs, and the end of its log. Keys and passphrases are not read for it. Names of datasets, directories, users and machines,
/// and addresses, are replaced: <dataset-1> is the same dataset everywhere. Log lines can hold names of files: read it before you
/// send it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai bugreport\n  bcai bugreport /tmp/report.txt\n  bcai bugreport - | less"
)]
pub struct Bugreport {
    /// Where to write it, which must not exist; `-` is standard output [default: bcai-report-TIME.txt in this directory]
    file: Option<PathBuf>,
}

/// Where it was written.
#[derive(Debug, Serialize)]
struct Written {
    file: PathBuf,
    bytes: usize,
}

impl Bugreport {
    /// Takes settings that may be broken: that may be the problem.
    pub fn run(self, ctx: Result<Context, Error>, output: Output) -> Result<(), Error> {
        let mut redactor = Redactor::default();
        hide_user(&mut redactor);
        let mut sections = vec![("program", program()), ("machine", machine(&mut redactor))];
        sections.push(("doctor", Report::of(ctx.as_ref(), Keys::Untouched).text()));
        if let Ok(ctx) = &ctx {
            hide_places(&mut redactor, ctx);
            sections.extend(of_node(ctx, &mut redactor));
            let log = log_tail(&ctx.paths.daemon_log());
            hide_logged(&mut redactor, &log);
            sections.push(("the end of daemon.log", log));
        }
        let text = report(&sections, &mut redactor);
        if self.file.as_deref() == Some(Path::new("-")) {
            output::print(text.trim_end());
            return Ok(());
        }
        let file = self.file.unwrap_or_else(|| {
            format!("bcai-report-{}.txt", output::time(now_ms()).replace([' ', ':'], "-")).into()
        });
        write(&file, &text)?;
        output.confirm(&Written { file, bytes: text.len() }, |written| {
            format!(
                "{}: {}; read it before you send it",
                output::safe(&written.file.display().to_string()),
                output::size(written.bytes as u64)
            )
        });
        Ok(())
    }
}

/// All sections, with a line before them that says what was taken out.
fn report(sections: &[(&str, String)], redactor: &mut Redactor) -> String {
    let body: String = sections.iter().map(|(name, text)| format!("\n== {name}\n\n{text}\n")).collect();
    let body = redactor.clean(&body);
    let hidden: Vec<String> = redactor.counts().map(|(kind, count)| format!("{kind} {count}")).collect();
    let hidden = if hidden.is_empty() { "nothing".to_owned() } else { hidden.join(", ") };
    format!(
        "bcai bug report. Names were replaced by marks such as <dataset-1> ({hidden}); keys and passphrases were not read.\n{body}"
    )
}

fn program() -> String {
    let program = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    format!("bcai {VERSION}, {} on {}\n{program}", std::env::consts::ARCH, std::env::consts::OS)
}

/// The machine, and who has mounted what on it: also other nodes than this.
fn machine(redactor: &mut Redactor) -> String {
    let uname = rustix::system::uname();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut lines = vec![
        format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
        release.lines().find(|line| line.starts_with("PRETTY_NAME=")).unwrap_or("unknown system").to_owned(),
        format!("{} processors", std::thread::available_parallelism().map_or(0, usize::from)),
    ];
    lines.extend(memory.lines().take(3).map(str::to_owned));
    for line in mounts.lines().filter(|line| line.contains(" fuse.bcai ")) {
        line.split(' ').nth(1).into_iter().for_each(|dir| redactor.hide("path", dir));
        lines.push(line.to_owned());
    }
    lines.join("\n")
}

fn hide_user(redactor: &mut Redactor) {
    for (kind, variable) in [("home", "HOME"), ("user", "USER"), ("user", "LOGNAME"), ("user", "SUDO_USER")] {
        // Everybody's name for the administrator says nothing.
        let value = std::env::var(variable).ok().filter(|value| !["/", "/root", "root"].contains(&&**value));
        value.into_iter().for_each(|value| redactor.hide(kind, &value));
    }
    redactor.hide("machine", &rustix::system::uname().nodename().to_string_lossy());
}

fn hide_places(redactor: &mut Redactor, ctx: &Context) {
    ctx.paths.home.iter().for_each(|home| redactor.hide("path", &home.display().to_string()));
    ctx.config.origins.iter().for_each(|origin| redactor.hide("origin", &origin.to_string()));
    // Of a node that does not run, which is when most reports are written.
    remembered(&ctx.paths).iter().for_each(|subject| hide_subject(redactor, subject));
}

/// Takes note of the names of datasets that a log has as the values of its fields.
fn hide_logged(redactor: &mut Redactor, log: &str) {
    for field in ["dataset=", "reference=", "subject=", "target="] {
        for (at, _) in log.match_indices(field) {
            let value = &log[at + field.len()..];
            let value = match value.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next(),
                None => value.split_whitespace().next(),
            };
            value.into_iter().for_each(|subject| hide_subject(redactor, subject));
        }
    }
}

/// What a node that runs says of itself.
fn of_node(ctx: &Context, redactor: &mut Redactor) -> Vec<(&'static str, String)> {
    if !matches!(Node::running(&ctx.paths), Ok(Some(_))) {
        return Vec::new();
    }
    let client = Client::new(&ctx.paths.socket());
    let asked = ctx.block_on(async {
        let mut sections = Vec::new();
        for (name, route) in ASKED {
            let answer = within(client.get::<Value>(route)).await;
            if let Ok(value) = &answer {
                hide_names(redactor, value);
            }
            sections.push((name, answer.map_or_else(|error| error.message, |value| format!("{value:#}"))));
        }
        if let Ok(Value::Array(datasets)) = within(client.get::<Value>(route::DATASETS)).await {
            let names = datasets.iter().filter_map(|dataset| dataset["name"].as_str());
            names.for_each(|name| redactor.hide("dataset", name));
        }
        let metrics = within(client.get_text(route::METRICS)).await.unwrap_or_else(|error| error.message);
        sections.push(("metrics", metrics));
        Ok(sections)
    });
    asked.unwrap_or_default()
}

async fn within<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| Err(Error::new(Kind::Unreachable, "the node does not answer"));
    tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(late)
}

/// Takes note of the names in a report: paths, and others by the fields that they are in.
fn hide_names(redactor: &mut Redactor, value: &Value) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| hide_names(redactor, value)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("reference" | "subject", Value::String(subject)) => hide_subject(redactor, subject),
                    ("name", Value::String(name)) => redactor.hide("dataset", name),
                    ("url", Value::String(url)) => redactor.hide("origin", url),
                    _ => hide_names(redactor, value),
                }
            }
        }
        // Whole, since they may have blanks; a text shows only where a path begins. Addresses of nodes look alike.
        Value::String(path)
            if path.starts_with('/') && !path.contains("/tcp/") && !path.contains("/udp/") =>
        {
            redactor.hide("path", path);
        }
        _ => {}
    }
}

/// A reference, or a directory.
fn hide_subject(redactor: &mut Redactor, subject: &str) {
    let is_directory = subject.starts_with('/');
    let name = subject.split(['@', '?']).next().unwrap_or(subject);
    match name.strip_prefix("bcai://").and_then(|rest| rest.split_once('/')) {
        _ if is_directory => redactor.hide("path", subject),
        Some((_, name)) => redactor.hide("dataset", name),
        None => redactor.hide("dataset", name),
    }
}

fn log_tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok(output::safe_lines(&String::from_utf8_lossy(&bytes)))
    };
    read().unwrap_or_else(|error| format!("cannot be read: {error}"))
}

fn write(file: &Path, text: &str) -> Result<(), Error> {
    // Still nobody else's business.
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut opened| opened.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::new(Kind::Failed, format!("{} exists; nothing is overwritten", file.display()))
                .hint("name another file")
        }
        _ => Error::io("cannot write", file, error),
    })
}
