//! Folders of files to measure with.
//!
//! Owns: what each kind of corpus is made of, and where it lies.
//! Must not know: what is measured.
//! Invariant: names, bytes, modes and times of all files depend on kind, seed and scale alone. A corpus that has its
//! final name is complete.
//! Trust: developers only; whoever can write to the folder can change a corpus.
//! Threads: the caller's; other processes may make the same at the same time. A killed one leaves a folder that ends in
//! `-PID.partial`, which the next attempt removes.

pub mod bytes;
mod tar;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::stop::Stop;
use bytes::{Language, Random};

/// 2020-01-01, UTC, in seconds since 1970: of all files.
const MTIME: u64 = 1_577_836_800;

const MIB: u64 = 1 << 20;
/// Records in a shard.
const SHARD: usize = 250;
/// Numbers from here on are records that only the second version of the shards has.
const FIRST_NEW: u64 = 1 << 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// 30,000 files of 70 to 150 KB in 100 folders: incompressible, as images
    Small,
    /// 1,000,000 files of 50 to 400 bytes in 1,000 folders: text
    Million,
    /// One file of 4 GiB: token ids of 16 bits, compresses by a few per cent
    Large,
    /// 10,000 of the images of `small`, each with a label, in tar files of 250
    ShardsV1,
    /// The same with 1% of new records between the others, so that most records move
    ShardsV2,
    /// 1 GiB: a third images of 110 KB, a third text of 1 KB to 1 MB, a third one file of token ids
    Mixed,
}

/// How much of it, and which.
#[derive(Debug, Clone, Copy, PartialEq, Args, Serialize)]
pub struct Size {
    /// Another seed gives other bytes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// 1.0 is full size
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    pub scale: f64,
}

fn scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if (0.0001..=100.0).contains(&scale) => Ok(scale),
        _ => Err("a number from 0.0001 to 100".into()),
    }
}

impl Size {
    /// So much of `full`, but at least `least`.
    pub fn of(&self, full: u64, least: u64) -> u64 {
        // Counts of files and bytes, far below 2^53.
        ((full as f64 * self.scale) as u64).max(least)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scale {}, seed {}.", self.scale, self.seed)
    }
}

/// A corpus on disk.
pub struct Corpus {
    pub path: PathBuf,
    /// It was there before.
    pub found: bool,
}

impl Kind {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Where a corpus in `dir` lies.
pub fn path(kind: Kind, dir: &Path, size: Size) -> PathBuf {
    dir.join(format!("{}-{}-{}", kind.name(), size.seed, size.scale))
}

/// Makes a corpus in a folder of its own in `dir`, or finds it there.
pub fn make(kind: Kind, dir: &Path, size: Size, stop: &Stop) -> anyhow::Result<Corpus> {
    let path = path(kind, dir, size);
    if path.exists() {
        return Ok(Corpus { path, found: true });
    }
    remove_abandoned(kind, dir)?;
    let partial = dir.join(format!("{}-{}.partial", kind.name(), std::process::id()));
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let maker = Maker { top: partial.clone(), size, stop };
    let made = match kind {
        Kind::Small => maker.small(),
        Kind::Million => maker.million(),
        Kind::Large => maker.large(),
        Kind::ShardsV1 => maker.shards(false),
        Kind::ShardsV2 => maker.shards(true),
        Kind::Mixed => maker.mixed(),
    };
    let made = made.and_then(|()| fs::rename(&partial, &path).map_err(anyhow::Error::from));
    if made.is_err() && path.exists() {
        // Another process was faster, and has made the same.
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
        return Ok(Corpus { path, found: true });
    }
    if made.is_err() {
        // What failed is the news; what it leaves is removed by the next attempt at the latest.
        let _ = fs::remove_dir_all(&partial);
    }
    made.with_context(|| format!("cannot make the corpus {}", path.display()))?;
    Ok(Corpus { path, found: false })
}

/// Removes what processes have left in `dir` that are no more.
fn remove_abandoned(kind: Kind, dir: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(&format!("{}-", kind.name())).and_then(|n| n.strip_suffix(".partial"));
        let Some(pid) = maker.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        // One process makes one after the other, so that its own is left from a process of before.
        if pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists() {
            let path = entry.path();
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Records of the first version of the shards.
fn records(size: Size) -> u64 {
    size.of(10_000, 100)
}

/// Files of the folder of images; the records are the first of them.
fn images(size: Size) -> u64 {
    size.of(30_000, 300).max(records(size))
}

/// The bytes of one image.
fn image(size: Size, number: u64) -> Vec<u8> {
    let mut random = Random::of(size.seed, number);
    let len = random.between(70_000, 150_000);
    random.noise(len as usize)
}

/// The numbers of the new records of the second version, each with the place that it comes before.
fn new_records(size: Size) -> BTreeMap<u64, Vec<u64>> {
    let mut random = Random::of(size.seed, FIRST_NEW - 1);
    let mut places: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for number in 0..records(size) / 100 {
        places.entry(random.below(records(size))).or_default().push(FIRST_NEW + number);
    }
    places
}

/// Bytes of the images of the new records.
pub fn new_record_bytes(size: Size) -> u64 {
    new_records(size).into_values().flatten().map(|number| image(size, number).len() as u64).sum()
}

struct Maker<'a> {
    top: PathBuf,
    size: Size,
    stop: &'a Stop,
}

impl Maker<'_> {
    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        self.stop.check()?;
        let mut file = File::create(self.top.join(name)).with_context(|| format!("cannot create {name}"))?;
        file.write_all(bytes).with_context(|| format!("cannot write {name}"))?;
        set_time(&file)
    }

    fn folder(&self, name: &str) -> anyhow::Result<()> {
        fs::create_dir(self.top.join(name)).with_context(|| format!("cannot create {name}"))
    }

    fn small(&self) -> anyhow::Result<()> {
        let (files, folders) = (images(self.size), self.size.of(100, 3));
        for folder in 0..folders {
            self.folder(&format!("class{folder:03}"))?;
        }
        for number in 0..files {
            let name = format!("class{:03}/{number:06}.jpg", number % folders);
            self.write(&name, &image(self.size, number))?;
        }
        Ok(())
    }

    fn million(&self) -> anyhow::Result<()> {
        let folders = self.size.of(1_000, 1);
        let language = Language::new(self.size.seed);
        for folder in 0..folders {
            if folder % 10 == 0 {
                self.folder(&format!("{:03}", folder / 10))?;
            }
            let path = format!("{:03}/{:03}", folder / 10, folder % 10);
            self.folder(&path)?;
            for number in 0..1_000 {
                let mut random = Random::of(self.size.seed, folder * 1_000 + number);
                let len = random.between(50, 400);
                let text = language.text(&mut random, len as usize);
                self.write(&format!("{path}/{number:04}.txt"), &text)?;
            }
        }
        Ok(())
    }

    fn large(&self) -> anyhow::Result<()> {
        self.tokens("tokens.bin", self.size.of(4 << 30, 16 * MIB))
    }

    fn tokens(&self, name: &str, len: u64) -> anyhow::Result<()> {
        let mut file = File::create(self.top.join(name)).with_context(|| format!("cannot create {name}"))?;
        let mut random = Random::of(self.size.seed, u64::MAX - 1);
        let mut left = len;
        while left > 0 {
            self.stop.check()?;
            let part = left.min(MIB);
            // At most 1 MiB.
            file.write_all(&random.tokens(part as usize)).with_context(|| format!("cannot write {name}"))?;
            left -= part;
        }
        set_time(&file)
    }

    fn shards(&self, second: bool) -> anyhow::Result<()> {
        let new = if second { new_records(self.size) } else { BTreeMap::new() };
        let mut numbers = Vec::new();
        for number in 0..records(self.size) {
            numbers.extend(new.get(&number).into_iter().flatten().copied());
            numbers.push(number);
        }
        for (shard, numbers) in numbers.chunks(SHARD).enumerate() {
            let name = format!("shard-{shard:05}.tar");
            let file = File::create(self.top.join(&name)).with_context(|| format!("cannot create {name}"))?;
            let mut out = BufWriter::new(file);
            for number in numbers {
                self.stop.check()?;
                tar::append(&mut out, &format!("{number:012x}.jpg"), &image(self.size, *number))?;
                let label = Random::of(self.size.seed ^ 1, *number).below(1_000).to_string();
                tar::append(&mut out, &format!("{number:012x}.cls"), label.as_bytes())?;
            }
            tar::finish(&mut out)?;
            let file = out.into_inner().map_err(|error| error.into_error())?;
            set_time(&file)?;
        }
        Ok(())
    }

    fn mixed(&self) -> anyhow::Result<()> {
        let third = self.size.of(1 << 30, 6 * MIB) / 3;
        let language = Language::new(self.size.seed);
        for folder in ["images", "text", "tokens"] {
            self.folder(folder)?;
        }
        for number in 0..third.div_ceil(110_000) {
            self.write(&format!("images/{number:06}.jpg"), &image(self.size, FIRST_NEW * 2 + number))?;
        }
        let (mut left, mut number) = (third, 0);
        while left > 0 {
            let mut random = Random::of(self.size.seed, FIRST_NEW * 3 + number);
            // Most files are short and most bytes in long ones: each length class from 1 KB on as likely.
            let len = (1_000 << random.below(11)).min(left);
            self.write(&format!("text/{number:06}.txt"), &language.text(&mut random, len as usize))?;
            (left, number) = (left - len, number + 1);
        }
        self.tokens("tokens/train.bin", third)
    }
}

fn set_time(file: &File) -> anyhow::Result<()> {
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(MTIME)).context("cannot set a file's time")
}

/// Regular files below `top`, in the order of a walk by name, as paths from it; and the sum of their lengths.
pub fn files(top: &Path) -> anyhow::Result<(Vec<PathBuf>, u64)> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let path = top.join(&relative);
        let meta =
            fs::symlink_metadata(&path).with_context(|| format!("cannot examine {}", path.display()))?;
        if meta.is_dir() {
            let mut names = Vec::new();
            for entry in fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))? {
                names.push(entry?.file_name());
            }
            names.sort();
            pending.extend(names.into_iter().rev().map(|name| relative.join(name)));
        } else {
            bytes += meta.len();
            found.push(relative);
        }
    }
    ensure!(!found.is_empty(), "{} has no files", top.display());
    Ok((found, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(kind: Kind, seed: u64) -> Vec<(PathBuf, Vec<u8>)> {
        let dir = tempfile::tempdir().expect("a folder");
        let size = Size { seed, scale: 0.0001 };
        let corpus = make(kind, dir.path(), size, &Stop::default()).expect("is made");
        assert!(!corpus.found);
        assert!(make(kind, dir.path(), size, &Stop::default()).expect("is found").found);
        let (files, _) = files(&corpus.path).expect("is walked");
        files
            .into_iter()
            .map(|file| (file.clone(), fs::read(corpus.path.join(file)).expect("reads")))
            .collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_corpus() {
        for kind in Kind::value_variants() {
            let first = made(*kind, 5);
            assert!(first == made(*kind, 5), "{kind:?}");
            assert!(first != made(*kind, 6), "{kind:?}");
        }
    }

    #[test]
    fn the_second_shards_hold_one_record_more_in_a_hundred() {
        let (one, two) = (made(Kind::ShardsV1, 5), made(Kind::ShardsV2, 5));
        let bytes =
            |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        let added = bytes(&two) - bytes(&one);
        let new = new_record_bytes(Size { seed: 5, scale: 0.0001 });
        // Two headers, the label's block, and what pads the image.
        assert!((new + 1_536..new + 2_048 + 512).contains(&added), "{added} {new}");
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_another_makes_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        // No process id is as high; the first process runs always.
        for name in ["large-4294967295.partial", "large-1.partial"] {
            fs::create_dir(dir.path().join(name)).expect("a folder");
        }
        remove_abandoned(Kind::Large, dir.path()).expect("removes");
        let left = fs::read_dir(dir.path()).expect("lists").map(|entry| entry.expect("an entry").file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["large-1.partial"]);
    }

    #[test]
    fn an_interrupted_corpus_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let stop = Stop::default();
        stop.now();
        let size = Size { seed: 1, scale: 0.0001 };
        assert!(make(Kind::Small, dir.path(), size, &stop).is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 0);
    }
}
