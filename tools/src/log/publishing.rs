//! How long a version takes to be final, with one validator and with four.
//!
//! Owns: the networks, and what is published in them.
//! Must not know: how entries are decided.
//! Invariant: every publish is of new content under a new version, and is beside an fdatasync of as many bytes as a block
//! of one version has, on the same file system.
//! Trust: the program is the one under test. Threads: the main thread.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

use super::load;
use super::rows::Row;
use super::{Report, Settings};
use crate::measure::{median, percentile, seconds};
use crate::scratch::{Scratch, number, say};
use crate::site::Site;

/// A block of one version, with its certificate.
const BLOCK: usize = 1_500;
/// Publishes that are not counted: connections come about, and files grow.
const FIRST: usize = 4;

pub fn alone(
    scratch: &Scratch,
    settings: Settings,
    _: &BTreeSet<Row>,
    report: &mut Report,
) -> anyhow::Result<()> {
    say("one validator");
    let site = Site::publisher(scratch, "one")?;
    publish(scratch, &[&site], settings, Row::OneValidator, report)
}

pub fn together(
    scratch: &Scratch,
    settings: Settings,
    wanted: &BTreeSet<Row>,
    report: &mut Report,
) -> anyhow::Result<()> {
    say("four validators");
    let sites: Vec<Site> =
        ["a", "b", "c", "d"].iter().map(|name| Site::new(scratch, name)).collect::<Result<_, _>>()?;
    let mut keys = Vec::new();
    for site in &sites {
        site.json(&["daemon"])?;
        keys.push(text(&site.status()?, "/public_key")?);
    }
    let genesis = text(&sites[0].json(&["init", "--validators", &keys.join(",")])?, "/genesis")?;
    let mut addresses = vec![text(&sites[0].status()?, "/addresses/0")?];
    for site in &sites[1..] {
        let uri = format!("bcai://{genesis}/any?peer={}", addresses[0]);
        site.json(&["init", "--join", &uri])?;
        addresses.push(text(&site.status()?, "/addresses/0")?);
    }
    if wanted.contains(&Row::FourValidators) {
        publish(scratch, &sites.iter().collect::<Vec<_>>(), settings, Row::FourValidators, report)?;
    }
    if wanted.contains(&Row::Entries) {
        load::run(scratch, settings, &genesis, &addresses, report)?;
    }
    Ok(())
}

fn text(json: &serde_json::Value, path: &str) -> anyhow::Result<String> {
    let text = json.pointer(path).and_then(serde_json::Value::as_str);
    Ok(text.with_context(|| format!("bcai printed no {path}: {json}"))?.to_owned())
}

/// Has the nodes publish in turn.
fn publish(
    scratch: &Scratch,
    sites: &[&Site],
    settings: Settings,
    row: Row,
    report: &mut Report,
) -> anyhow::Result<()> {
    let source = scratch.dir.join("source");
    std::fs::create_dir_all(&source).with_context(|| format!("cannot create {}", source.display()))?;
    let (mut taken, mut synced) = (Vec::new(), Vec::new());
    for (at, site) in (0..usize::from(settings.publishes) + FIRST).zip(sites.iter().cycle()) {
        scratch.stop.check()?;
        let file = source.join("file");
        std::fs::write(&file, format!("{row:?} {at}"))
            .with_context(|| format!("cannot write {}", file.display()))?;
        // Each validator has a dataset of its own: a name belongs to who published it first.
        let (published, _) = site.publish(&source, &format!("data{}@v{at}", at % sites.len()))?;
        let sync = fdatasync(scratch.dir.join("synced"))?;
        if at >= FIRST {
            taken.push(number(&published, "/commit_ms")?);
            synced.push(sync);
        }
    }
    report.pair(row, median(&taken), "fdatasync", median(&synced));
    let (p90, most) = (percentile(&taken, 90.0), percentile(&taken, 100.0));
    report.note(row, format!("p90 {p90:.1} ms, at most {most:.1} ms, of {}", taken.len()));
    Ok(())
}

/// Milliseconds to append a block to a file and have it on the disk.
fn fdatasync(path: PathBuf) -> anyhow::Result<f64> {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let written = seconds(|| Ok(file.write_all(&[7; BLOCK]).and_then(|()| file.sync_data())?));
    Ok(written.with_context(|| format!("cannot write {}", path.display()))?.1 * 1e3)
}
