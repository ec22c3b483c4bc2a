//! Rows about encrypted datasets, beside the same in plain.
//!
//! Owns: the two publishers, the edit, and the rotation of a key.
//! Must not know: how anything is sealed.
//! Invariant: both sides publish and read the same bytes, in turn, each from a store of its own.
//! Trust: as `compare`. Threads: two readers.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::epochs::READERS;
use super::rows::Row;
use super::{Bench, Report};
use crate::corpus::bytes::Random;
use crate::corpus::{self, Kind};
use crate::measure::{MIB, back, epoch, in_order, median, seconds};
use crate::scratch::{remove, say};
use crate::site::Site;

const RUNS: usize = 5;
/// Of so many files one is changed.
const EDITED: usize = 100;
/// Bytes of the dataset whose key is rotated, and who is given the new one.
const ROTATED: u64 = 100_000_000_000;
const GRANTED: usize = 10;

pub fn run(bench: &Bench, wanted: &BTreeSet<Row>, report: &mut Report) -> anyhow::Result<()> {
    if wanted.contains(&Row::EncryptedIngest) {
        ingest(bench, report)?;
    }
    let epochs = [Row::EncryptedFirst, Row::EncryptedSecond, Row::EncryptedCold];
    if epochs.iter().any(|row| wanted.contains(row)) {
        read(bench, wanted, report)?;
    }
    if wanted.contains(&Row::EncryptedEdit) {
        edit(bench, report)?;
    }
    if wanted.contains(&Row::KeyRotation) {
        rotation(bench, report)?;
    }
    Ok(())
}

/// Publishes a folder, encrypted or not; seconds that it takes.
fn publish(site: &Site, dir: &Path, target: &str, encrypt: bool) -> anyhow::Result<f64> {
    let mut args = vec![OsStr::new("publish"), dir.as_os_str(), OsStr::new(target)];
    if encrypt {
        args.push(OsStr::new("--encrypt"));
    }
    Ok(seconds(|| site.json(&args))?.1)
}

fn ingest(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    say("publishing, encrypted and not");
    let path = bench.corpus(Kind::Mixed)?;
    let (files, bytes) = corpus::files(&path)?;
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        for (encrypt, figures) in [(true, &mut ours), (false, &mut plain)] {
            let site = Site::publisher(&bench.scratch, "e")?;
            rustix::fs::sync();
            back(2 * bytes)?;
            for file in &files {
                in_order(&path.join(file))?;
            }
            figures.push(bytes as f64 / MIB / publish(&site, &path, "mixed@v1", encrypt)?);
        }
    }
    report.pair(Row::EncryptedIngest, median(&ours), "bcai in plain", median(&plain));
    report.note(Row::EncryptedIngest, format!("{:.0} MiB", bytes as f64 / MIB));
    Ok(())
}

/// Epochs over the folder of images; each first one has a mount of its own.
fn read(bench: &Bench, wanted: &BTreeSet<Row>, report: &mut Report) -> anyhow::Result<()> {
    say("epochs, encrypted and not");
    let path = bench.corpus(Kind::Small)?;
    let (mut files, bytes) = corpus::files(&path)?;
    Random::of(bench.size.seed, 0).shuffle(&mut files);
    let sites = [("ee", true), ("ep", false)];
    let sites: Vec<Site> = sites
        .into_iter()
        .map(|(name, encrypt)| {
            let site = Site::publisher(&bench.scratch, name)?;
            publish(&site, &path, "small@v1", encrypt)?;
            Ok(site)
        })
        .collect::<anyhow::Result<_>>()?;
    let once =
        |top: &Path| Ok::<_, anyhow::Error>(epoch(top, &files, bytes, READERS, &bench.scratch.stop)? / MIB);
    // By row, and by site.
    let mut figures = [Row::EncryptedFirst, Row::EncryptedSecond, Row::EncryptedCold]
        .map(|row| (row, [Vec::new(), Vec::new()]));
    for _ in 0..RUNS {
        for (at, site) in sites.iter().enumerate() {
            let (mounted, _, _) = site.mount("small@v1")?;
            for pack in site.packs()? {
                in_order(&pack)?;
            }
            back(bytes)?;
            figures[0].1[at].push(once(&mounted)?);
            figures[1].1[at].push(once(&mounted)?);
            site.unmount(&mounted)?;
            if wanted.contains(&Row::EncryptedCold) {
                let (mounted, _, _) = site.mount("small@v1")?;
                bench.cold()?;
                figures[2].1[at].push(once(&mounted)?);
                site.unmount(&mounted)?;
            }
        }
    }
    for (row, [ours, plain]) in figures {
        if wanted.contains(&row) {
            report.pair(row, median(&ours), "bcai in plain", median(&plain));
        }
    }
    Ok(())
}

/// What a second version adds in which one file of a hundred is another.
fn edit(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    say("an edit of an encrypted dataset");
    let (corpus, copy) = (bench.corpus(Kind::Small)?, Copied::of(bench)?);
    let (files, _) = corpus::files(&corpus)?;
    for file in &files {
        copy.write(file, &fs::read(corpus.join(file)).context("cannot read the corpus")?)?;
    }
    let site = Site::publisher(&bench.scratch, "x")?;
    let published = |site: &Site| {
        Ok::<_, anyhow::Error>(site.status()?["store"]["published_bytes"].as_f64().unwrap_or(f64::NAN))
    };
    publish(&site, &copy.0, "small@v1", true)?;
    let first = published(&site)?;
    for (number, file) in files.iter().step_by(EDITED).enumerate() {
        let len = fs::metadata(copy.0.join(file)).context("cannot examine a file")?.len() as usize;
        let bytes = Random::of(bench.size.seed + 1, number as u64).noise(len);
        copy.write(file, &bytes)?;
    }
    publish(&site, &copy.0, "small@v2", false)?;
    report.value(Row::EncryptedEdit, (published(&site)? - first) / first * 100.0);
    report.note(
        Row::EncryptedEdit,
        format!("{:.0} MiB, {} of {} files", first / MIB, files.len().div_ceil(EDITED), files.len()),
    );
    Ok(())
}

/// How long a rotation takes until everybody has the new key.
fn rotation(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    say("the rotation of a key");
    let copy = Copied::of(bench)?;
    let bytes = bench.size.of(ROTATED, 1 << 20);
    // Holes: what is stored does not matter to it.
    let file = File::create(copy.0.join("sparse")).context("cannot create a file")?;
    file.set_len(bytes).context("cannot make a large file")?;
    let site = Site::publisher(&bench.scratch, "r")?;
    publish(&site, &copy.0, "large@v1", true)?;
    for number in 0..GRANTED {
        let reader = Site::new(&bench.scratch, &format!("r{number}"))?;
        let key = reader.json(&["keys", "new"])?;
        let key = key["key"].as_str().context("a node has no key")?;
        site.json(&["keys", "grant", key, "reader", "--dataset", "large"])?;
    }
    let mut figures = Vec::new();
    for _ in 0..RUNS {
        figures.push(seconds(|| site.json(&["keys", "rotate", "--dataset", "large"]))?.1 * 1e3);
    }
    report.value(Row::KeyRotation, median(&figures));
    report.note(
        Row::KeyRotation,
        format!(
            "{:.0} GB, sparse; {GRANTED} readers are given the new key, in as many entries",
            bytes as f64 / 1e9
        ),
    );
    Ok(())
}

/// A folder that is removed with its contents.
struct Copied(PathBuf);

impl Copied {
    fn of(bench: &Bench) -> anyhow::Result<Self> {
        let dir = bench.scratch.dir.join("copied");
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self(dir))
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.0.join(file);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        remove(&self.0);
    }
}
