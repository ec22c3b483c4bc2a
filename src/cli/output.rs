//! How results, progress and notes reach the user.
//!
//! Owns: tables, JSON, progress bars, the escaping of foreign names.
//! Must not know: any command.
//! Invariant: stdout carries results only, so it can be piped; a closed pipe ends the command quietly.
//! Trust: everything printed may hold foreign names; control characters never reach a terminal raw.
//! Threads: the main thread.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::node::report::Progress;

/// The user's choice of form.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub json: bool,
    pub quiet: bool,
}

impl Output {
    /// Prints a result: as JSON when asked for, otherwise as the text that `text` makes of it.
    pub fn result<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) {
        if self.json {
            self.json_line(value);
        } else {
            print(&text(value));
        }
    }

    /// Says that something was done: as JSON on stdout when asked for, otherwise on stderr, unless `--quiet`.
    pub fn confirm<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) {
        if self.json {
            self.json_line(value);
        } else {
            self.note(&text(value));
        }
    }

    /// One line of JSON on stdout.
    pub fn json_line(&self, value: &impl Serialize) {
        // Reports hold strings, numbers and lists only: they always serialise.
        print(&serde_json::to_string(value).unwrap_or_default());
    }

    /// A confirmation on stderr, unless `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.note_always(text);
        }
    }

    /// A message on stderr that `--quiet` does not silence.
    pub fn note_always(&self, text: &str) {
        // A stderr that is gone leaves nobody to tell.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// A bar on a terminal, JSON lines once a second with `--json`, otherwise nothing.
    pub fn progress(&self) -> Meter {
        let bar = (!self.json && !self.quiet && io::stderr().is_terminal()).then(new_bar);
        Meter { json: self.json && !self.quiet, bar, last_line: None }
    }
}

const BAR: &str = "{msg:10} {wide_bar} {decimal_bytes:>10}/{decimal_total_bytes:10} {decimal_bytes_per_sec:>12} eta {eta:>4}";

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    // The template is a constant that a test parses; should it be wrong all the same, the default bar does.
    if let Ok(style) = ProgressStyle::with_template(BAR) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// Shows how far a job is.
pub struct Meter {
    json: bool,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Meter {
    pub fn show(&mut self, now: Progress) {
        if let Some(bar) = &self.bar {
            if now.bytes_total > 0 {
                bar.set_length(now.bytes_total);
                bar.set_position(now.bytes_done);
                bar.set_message(now.phase);
            } else {
                bar.set_message(format!("{} {}", now.phase, now.files_done));
            }
        } else if self.json && self.last_line.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            self.last_line = Some(Instant::now());
            let line = serde_json::to_string(&serde_json::json!({ "progress": now })).unwrap_or_default();
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Writes one line to stdout, and says whether somebody still reads. A reader that has had enough, as `head`, is no
/// failure; a full disk is.
pub fn print(text: &str) -> bool {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => false,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bcai: cannot write to stdout: {error}");
            std::process::exit(1);
        }
    }
}

/// A table without borders: readable by people, cuttable by scripts.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// A size for people: `3.1 GiB`.
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// `part` of `whole`, in percent; all of nothing is 100.
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 100.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// A rate for people: `120.5 MiB/s`.
pub fn rate(bytes: u64, seconds: f64) -> String {
    format!("{}/s", size((bytes as f64 / seconds.max(1e-9)) as u64))
}

/// A span of time for people: `45 s`, `12 min`, `3 h 5 min`.
pub fn span(seconds: f64) -> String {
    match seconds.ceil() as u64 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A moment for people, in the local time zone: `2026-11-21 08:15:02`.
pub fn time(unix_ms: u64) -> String {
    let moment = jiff::Timestamp::from_millisecond(unix_ms as i64).unwrap_or_default();
    moment.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Foreign text made harmless for a terminal: control characters become escapes.
pub fn safe(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// The same for a message of several lines, as a TOML error is.
pub fn safe_lines(text: &str) -> String {
    text.lines().map(safe).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_names_cannot_drive_the_terminal() {
        assert_eq!(safe("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(safe("ünï"), "ünï");
    }

    #[test]
    fn the_bar_is_well_formed() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(
            (span(0.2), span(121.0), span(11_100.0)),
            ("1 s".into(), "3 min".into(), "3 h 5 min".into())
        );
        assert_eq!(table(&["a", "b"], [vec!["1".into(), "2".into()]]).lines().count(), 2);
    }
}
