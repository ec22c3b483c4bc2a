//! `bcai doctor`.
//!
//! Owns: the list of what is looked at, and how it is shown.
//! Must not know: what a machine or a node must have: that is in `machine`, `home` and `running`.
//! Invariant: it never hangs and never changes anything; it does not start a node.
//! Trust: as `cli`. Threads: the main thread, and one for a question that a mount may not answer.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::Context;
use super::output::{self, Output};
use crate::node::report::Severity;
use crate::node::{Error, Node};

mod home;
mod machine;
mod running;

/// What does not answer within this time is in trouble.
const ANSWER: Duration = Duration::from_secs(5);

/// Check this machine and this node, and print the remedy for what is wrong
///
/// Looks at the kernel, FUSE, limits, mounts, settings, the disk, the keys, ports and the clock; of a node that runs also at
/// who reaches it, its peers, the age of its logs, who decides them, its store, and everything that `bcai alerts` shows.
/// Also shows every effective setting and where it came from. Starts nothing and changes nothing.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai doctor\n  bcai doctor --json | jq '.checks[] | select(.verdict != \"ok\")'"
)]
pub struct Doctor {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl From<Severity> for Verdict {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Info => Self::Ok,
            Severity::Warning => Self::Warn,
            Severity::Error | Severity::Critical => Self::Fail,
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), remedy: None }
    }

    fn bad(
        name: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, verdict, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn failed(name: &'static str, error: Error) -> Self {
        Self { name, verdict: Verdict::Fail, found: error.message, remedy: error.hint }
    }
}

/// Whether keys are looked at, for which they have to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    Read,
    /// What is found is for others.
    Untouched,
}

/// What was found, and the settings.
#[derive(Debug, Serialize)]
pub struct Report {
    checks: Vec<Check>,
    /// Key, value, and where it came from.
    settings: Vec<(String, String, String)>,
}

impl Doctor {
    /// Takes settings that may be broken: that is one more thing to find.
    pub fn run(self, ctx: Result<Context, Error>, output: Output) -> Result<ExitCode, Error> {
        let report = Report::of(ctx.as_ref(), Keys::Read);
        output.result(&report, Report::text);
        let failed = report.checks.iter().any(|check| check.verdict == Verdict::Fail);
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

impl Report {
    /// Looks at everything.
    pub fn of(ctx: Result<&Context, &Error>, keys: Keys) -> Self {
        let mut checks = machine::checks();
        let mut settings = Vec::new();
        match ctx {
            Ok(ctx) => {
                checks.extend([Check::ok("settings", "all understood"), home::disk(ctx)]);
                checks.extend(node(ctx, keys));
                let all = ctx.config.settings();
                settings =
                    all.map(|(name, s)| (name.to_owned(), s.value.clone(), s.origin.to_string())).collect();
            }
            Err(error) => checks.push(Check::bad(
                "settings",
                Verdict::Fail,
                &error.message,
                "mend it and run this again",
            )),
        }
        Self { checks, settings }
    }

    /// A line for each, with its remedy below, and the settings.
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for check in &self.checks {
            let verdict = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            lines.push(format!("{verdict:5} {:10} {}", check.name, output::safe(&check.found)));
            lines.extend(check.remedy.iter().map(|remedy| format!("{:17}{}", "", output::safe(remedy))));
        }
        lines.push(String::new());
        let rows =
            self.settings.iter().map(|(key, value, origin)| vec![key.clone(), value.clone(), origin.clone()]);
        lines.push(output::table(&["SETTING", "VALUE", "FROM"], rows));
        lines.join("\n")
    }
}

/// The node as it runs, or what it will need to start.
fn node(ctx: &Context, keys: Keys) -> Vec<Check> {
    match Node::running(&ctx.paths) {
        Ok(Some(_)) => running::checks(ctx, keys),
        Ok(None) => {
            let not_running = Check::ok("node", "not running; commands start it when they need it");
            home::checks(ctx, keys).into_iter().chain([not_running]).collect()
        }
        Err(error) => vec![Check::failed("node", error)],
    }
}
