//! What can be told of a node that does not run.
//!
//! Owns: what has to be right for it to start: its keys, its facts, its ports; and how it failed last.
//! Must not know: who asks.
//! Invariant: nothing is changed, and nothing started. Trust: our own files, still checked.
//! Threads: the caller's; deriving a key from a passphrase takes a fraction of a second.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::error::{Error, Kind};
use super::key_files::{KeyFiles, check_mode};
use super::state::{Facts, State};
use super::{Passphrase, is_key_locked, now_ms, on_kept_port};
use crate::config::{Config, Paths};
use crate::net::{self, Mode};

/// Bytes at the end of the log in which the last start is looked for.
const TAIL: u64 = 64 << 10;
/// What a daemon logs when it has started.
pub(super) const READY: &str = "node is ready";
/// Corrections of a clock, as NTP makes them, are no more than this, in milliseconds.
const CLOCK_SLACK_MS: u64 = 60_000;

/// Something that was looked at, and what was found: how it is, or what is wrong.
#[derive(Debug)]
pub struct Finding {
    pub name: &'static str,
    pub found: Result<String, Error>,
}

/// Looks at all of it but the keys.
pub fn examine(paths: &Paths, config: &Config) -> Vec<Finding> {
    let state = State::open(&paths.state());
    let mut findings = Vec::new();
    match state.map(|state| state.get()) {
        Ok(facts) => {
            findings.push(Finding { name: "ports", found: ports(config, &facts) });
            findings.push(Finding { name: "clock", found: clock(facts.clock_ms, now_ms()) });
        }
        Err(error) => findings.push(Finding { name: "state", found: Err(error) }),
    }
    if let Some(error) = last_failure(&paths.daemon_log()) {
        findings.push(Finding { name: "last failure", found: Err(error) });
    }
    findings
}

/// References and directories that the node would go on with.
pub fn remembered(paths: &Paths) -> Vec<String> {
    let facts = State::open(&paths.state()).map(|state| state.get()).unwrap_or_default();
    let mounts = facts.mounts.into_iter();
    let mounts = mounts.flat_map(|mount| [mount.reference, mount.dir.display().to_string()]);
    mounts.chain(facts.unfinished.into_iter().map(|job| job.subject)).collect()
}

/// The key of the node. With `passphrase`, one that is locked is opened.
pub fn examine_identity(paths: &Paths, passphrase: Option<Passphrase>) -> Result<String, Error> {
    let path = paths.identity();
    let is_new = State::open(&paths.state()).is_ok_and(|state| state.is_new());
    if is_key_locked(paths) && passphrase.is_none() {
        check_mode(&path)?;
        return Ok(format!("{}, locked with a passphrase", path.display()));
    }
    match KeyFiles::of(&path, passphrase).read(&path)? {
        Some(key) => Ok(format!("{} is {}", path.display(), key.public())),
        None if is_new => Ok("none yet; the first start makes it".into()),
        None => Err(Error::not_found(format!("{} is gone", path.display())).hint(
            "restore it from a backup; or move state.json away to become a new node, which owns no names",
        )),
    }
}

/// Whether the ports that the node will listen on are free: those that are set, and those that it chose before.
fn ports(config: &Config, facts: &Facts) -> Result<String, Error> {
    if config.mode == Mode::Anonymous {
        return Ok("none: an anonymous node listens nowhere".into());
    }
    for address in &config.listen {
        let kept = on_kept_port(&facts.ports, address);
        if let Err(cause) = net::try_to_listen(kept.as_ref().unwrap_or(address)) {
            let hint = match kept {
                Some(_) => {
                    "end the program that has it (`ss -lnp`); otherwise another port is chosen, and URIs that were given out do not find this node"
                }
                None => "end the program that has it (`ss -lnp`), or set net.listen to another port",
            };
            let message = format!("cannot listen on {}: {cause}", kept.as_ref().unwrap_or(address));
            return Err(Error::new(Kind::Busy, message).hint(hint));
        }
    }
    Ok(match &config.listen[..] {
        [] => "the node listens nowhere: net.listen is empty".into(),
        _ => "free".into(),
    })
}

fn clock(last_ms: u64, now_ms: u64) -> Result<String, Error> {
    let back_s = last_ms.saturating_sub(now_ms.saturating_add(CLOCK_SLACK_MS)) / 1000;
    if back_s == 0 {
        return Ok("not before the node ran last".into());
    }
    Err(Error::new(Kind::Failed, format!("this machine's clock is {back_s} s before what it showed when the node ran last")).hint(
        "set it, with NTP (`timedatectl set-ntp true`); if it was wrong then and is right now, remove clock_ms and the last line from state.json",
    ))
}

/// What the daemon said when it last failed, unless it has started since.
fn last_failure(log: &Path) -> Option<Error> {
    let mut file = File::open(log).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let since = text.rfind(READY).map_or(&*text, |at| &text[at..]);
    let error = last_words(since)?;
    let elsewhere = error.hint.is_none().then(|| format!("see {}", log.display()));
    Some(Error { hint: error.hint.or(elsewhere), ..error })
}

/// The error that a daemon ended with, in what it has written: as every command prints one, with what to do next in the line
/// below.
pub fn last_words(said: &str) -> Option<Error> {
    let mut lines = said.lines().skip_while(|line| !line.starts_with("bcai: "));
    let message = lines.next()?.trim_start_matches("bcai: ");
    let hint = lines.next().filter(|line| line.starts_with("  ")).map(|hint| hint.trim().to_owned());
    Some(Error { hint, ..Error::new(Kind::Failed, message) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(log: &str) -> Option<(String, Option<String>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        std::fs::write(&path, log).unwrap();
        last_failure(&path).map(|error| (error.message, error.hint))
    }

    #[test]
    fn only_a_failure_after_the_last_start_counts() {
        assert!(last_failure(Path::new("/nowhere/daemon.log")).is_none());
        assert_eq!(said("INFO node is ready\nWARN bcai: no\n"), None);
        let failed = "bcai: the port is taken\n  end the program that has it\n";
        let expected = Some(("the port is taken".to_owned(), Some("end the program that has it".to_owned())));
        assert_eq!(said(&format!("INFO node is ready\n{failed}")), expected);
        assert_eq!(said(&format!("{}\n{failed}", "x".repeat(2 * TAIL as usize))), expected);
        assert_eq!(said(&format!("{failed}INFO node is ready\n")), None);
        let (message, hint) = said("bcai: it broke\n").unwrap();
        assert!(message == "it broke" && hint.unwrap().contains("daemon.log"));
    }

    #[test]
    fn a_clock_that_was_set_back_is_named() {
        const HOUR: u64 = 3_600_000;
        assert!(clock(0, 1).is_ok() && clock(HOUR, HOUR).is_ok());
        assert!(clock(HOUR + CLOCK_SLACK_MS, HOUR).is_ok());
        let error = clock(3 * HOUR, HOUR).unwrap_err();
        assert!(error.message.contains("7140 s before"), "{error}");
    }
}
