//! Versions carried in a file, to machines that no network reaches.
//!
//! Owns: `bundle export` and `bundle import`: what goes into the file (`export`, `writing`), what of a snapshot another one
//! has not (`walk`), and what is believed of a file (`import`) and kept of it (`keeping`, `reading`).
//! Must not know: the bytes of the file (`pack::bundle`), how objects are stored, terminals.
//! Invariant: a file has its name only when it is whole. Of a file nothing is kept but blocks that carry their quorum and
//! objects that belong to a version of that log.
//! Trust: a file is anybody's; the network's id is the user's.
//! Threads: one blocking thread each reads and writes, a second one reads ahead; the log is taken over on the runtime.
//! A crash leaves a file that ends in `.partial`, or objects in the cache: the next run goes on from there.

mod export;
mod import;
mod keeping;
mod reading;
mod walk;
mod writing;

use std::fmt;
use std::path::{Path, PathBuf};

use super::error::{Error, Kind};
use super::report::BundledVersion;
use crate::id::Genesis;
use crate::log::Ledger;
use crate::pack::bundle::{BundleError, Carried, Contents};

/// What a file is called until it is whole.
fn partial_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// What is wrong with a file, and where in it.
fn broken(file: &Path, at: u64, cause: impl fmt::Display) -> Error {
    Error::new(Kind::Corrupt, format!("{} at byte {at}: {cause}", file.display())).hint(
        "copy the file again and compare it with `cmp`, or have it exported again; what came before this place is kept, and is not read again",
    )
}

/// The same of how it begins.
fn unreadable(file: &Path, error: &BundleError) -> Error {
    let text = format!("{}: {error}", file.display());
    match error {
        BundleError::Version { .. } => Error::new(Kind::Failed, text).hint("upgrade bcai on this machine"),
        BundleError::Foreign(_) => {
            Error::new(Kind::Corrupt, text).hint("name a file that `bcai bundle export` has written")
        }
        _ => Error::new(Kind::Corrupt, text)
            .hint("copy the file again and compare it with `cmp`, or have it exported again"),
    }
}

fn name_of(version: &Carried) -> String {
    format!("{}@{}", version.name, version.label)
}

/// What a bundle is of, for people.
fn described(contents: &Contents) -> String {
    let names: Vec<String> = contents.versions.iter().map(name_of).collect();
    let since = contents.since.as_ref().map(|since| format!(" since {}", name_of(since)));
    format!("{}{} of network {}", names.join(", "), since.unwrap_or_default(), contents.genesis())
}

/// The versions as a log tells of them.
fn reported(ledger: &Ledger, genesis: &Genesis, versions: &[Carried]) -> Vec<BundledVersion> {
    let row = |carried: &Carried| {
        let version = ledger.resolve(&carried.name, Some(&carried.label)).ok();
        BundledVersion {
            reference: name_of(carried),
            uri: format!("bcai://{genesis}/{}", name_of(carried)),
            snapshot: carried.snapshot.to_string(),
            bytes: version.map_or(0, |version| version.bytes),
            withdrawn: version
                .and_then(|version| version.yanked.as_ref())
                .map(|yanked| yanked.reason.to_string()),
        }
    };
    versions.iter().map(row).collect()
}
