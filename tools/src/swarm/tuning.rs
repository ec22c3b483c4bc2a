//! What reading ahead comes to over links of other rates and delays: as it follows what is measured, as it was fixed before, and not at all.
//!
//! Owns: the links, and how a mount is read.
//! Must not know: how far ahead anything is fetched.
//! Invariant: every figure is that of a node that has never run, whose only way to the publisher leads over the link. Both listen on the
//! loopback of a network namespace of their own, so that neither finds another way to the other.
//! Trust: as `swarm`. Threads: the main thread reads; one more reads in order where that is to be beside.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bcai_lan::{Lan, Rate};
use serde_json::Value;

use super::field::{self, Helper};
use super::rows::Row;
use super::{Report, Settings};
use crate::corpus::bytes::Random;
use crate::measure::{count, percentile};
use crate::report::Row as _;
use crate::scratch::{Scratch, say};
use crate::site::Site;

/// A link: its rate, milliseconds there and back.
type Link = (Rate, u32);

const FAT: Link = (Rate::mbit(1000), 80);
const MIDDLE: Link = (Rate::mbit(200), 20);
const SLOW: Link = (Rate::mbit(10), 40);

/// How reading ahead is set: as it is unless one says otherwise, as far as it ever went before it followed anything, and off.
const WAYS: [&str; 3] = ["auto", "8MiB", "0"];
/// How long is read at most; what came by then counts.
const LONG: Duration = Duration::from_secs(15);
/// The large file, and the small ones.
const LARGE: u64 = 512 << 20;
const FILES: u64 = 8_000;
const FILE: u64 = 16 << 10;
/// Files of which only the beginning is read, and how much.
const LEFT: u64 = 40;
const LEFT_FILE: u64 = 8 << 20;
const LEFT_READ: u64 = 1 << 20;
/// Reads on the idle link, and beside a reader.
const FAULTS: u64 = 300;

/// A publisher, and whoever reads from it over a link.
struct Pair<'a> {
    scratch: &'a Scratch,
    lan: Lan,
    source: Site<'a>,
}

impl<'a> Pair<'a> {
    fn new(scratch: &'a Scratch) -> anyhow::Result<Self> {
        let lan = Lan::new(2, None)?;
        let source = site(scratch, &lan, 0)?;
        source.json(&["init"])?;
        Ok(Self { scratch, lan, source })
    }

    /// Publishes a folder; its URI, by which it is found over the link.
    fn publish(&self, dir: &Path, target: &str) -> anyhow::Result<String> {
        let (uri, _) = field::publish(&self.source, dir, target)?;
        let far = format!("/ip4/{}/tcp/4002", self.lan.address(0));
        ensure!(uri.contains(&near(0)), "{uri} does not name the publisher's address");
        Ok(uri.replace(&near(0), &far))
    }

    /// Lets the publisher be reached over this link as long as it is held.
    fn open(&self, (rate, rtt): Link) -> anyhow::Result<Helper> {
        let listen = format!("{}:4002", self.lan.address(0));
        let (rate, rtt) = (rate.to_string(), rtt.to_string());
        let args =
            ["distance", "--listen", &listen, "--to", "127.0.0.1:4100", "--rate", &rate, "--rtt", &rtt];
        let mut link = Helper::start(&self.lan.enter(0), &args)?;
        link.line()?;
        Ok(link)
    }

    /// What `read` makes of a dataset that a new node has mounted.
    fn mounted<T>(
        &self,
        uri: &str,
        way: &str,
        read: impl FnOnce(&Site, &Path) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let reader = site(self.scratch, &self.lan, 1)?;
        let option = format!("readahead={way}");
        let (dir, _, _) = reader.mount_with(uri, &["-o", &option])?;
        // Directories are fetched by this.
        count(&dir, &self.scratch.stop)?;
        let result = read(&reader, &dir)?;
        reader.unmount(&dir)?;
        Ok(result)
    }
}

fn near(node: usize) -> String {
    format!("/ip4/127.0.0.1/tcp/{}", 4100 + node)
}

fn site<'a>(scratch: &'a Scratch, lan: &Lan, node: usize) -> anyhow::Result<Site<'a>> {
    let settings = vec![format!("net.listen={}", near(node)), "net.mdns=false".to_owned()];
    Site::elsewhere(scratch, &format!("n{node}"), lan.enter(node), settings)
}

pub fn run(
    scratch: &Scratch,
    _: Settings,
    wanted: &BTreeSet<Row>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let pair = Pair::new(scratch)?;
    let any = |rows: &[Row]| rows.iter().any(|row| wanted.contains(row));
    let orders = [(Row::OrderFat, FAT), (Row::OrderMiddle, MIDDLE), (Row::OrderSlow, SLOW)];
    let smalls = [(Row::SmallFat, FAT), (Row::SmallMiddle, MIDDLE), (Row::SmallSlow, SLOW)];
    if any(&orders.map(|(row, _)| row)) || wanted.contains(&Row::AheadFault) {
        let uri = pair.publish(&field::files(scratch, "large", 5, 1, LARGE)?, "large@v1")?;
        for (row, link) in orders.into_iter().filter(|(row, _)| wanted.contains(row)) {
            compare(&pair, (row, link), &uri, report, |dir| {
                let (bytes, seconds) = in_order(&dir.join("00000.bin"), LARGE, &pair)?;
                Ok(bytes as f64 / 1e6 / seconds)
            })?;
        }
        if wanted.contains(&Row::AheadFault) {
            faults(&pair, &uri, report)?;
        }
    }
    if any(&smalls.map(|(row, _)| row)) {
        let uri = pair.publish(&field::files(scratch, "small", 6, FILES, FILE)?, "small@v1")?;
        for (row, link) in smalls.into_iter().filter(|(row, _)| wanted.contains(row)) {
            compare(&pair, (row, link), &uri, report, |dir| {
                let (begun, mut read) = (Instant::now(), 0);
                while read < FILES && begun.elapsed() < LONG {
                    scratch.stop.check()?;
                    one(&file(dir, read), FILE)?;
                    read += 1;
                }
                Ok(read as f64 / begun.elapsed().as_secs_f64())
            })?;
        }
    }
    if any(&[Row::LeftBytes, Row::LeftTime]) {
        left(&pair, wanted, report)?;
    }
    Ok(())
}

fn file(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:05}.bin"))
}

/// A row in which a dataset is read in each way.
fn compare(
    pair: &Pair,
    (row, link): (Row, Link),
    uri: &str,
    report: &mut Report,
    read: impl Fn(&Path) -> anyhow::Result<f64>,
) -> anyhow::Result<()> {
    say(&row.name());
    let _link = pair.open(link)?;
    let (mut figures, mut ahead) = (Vec::new(), Value::Null);
    for way in WAYS {
        figures.push(pair.mounted(uri, way, |site, dir| {
            let figure = read(dir)?;
            if way == WAYS[0] {
                // An earlier program tells nothing of it.
                ahead = site.status()?.pointer("/mounts/0/ahead").cloned().unwrap_or_default();
            }
            Ok(figure)
        })?);
    }
    report.pair(row, figures[0], WAYS[1], figures[1]);
    report.note(row, format!("off {:.1}; at the end of auto: {ahead}", figures[2]));
    Ok(())
}

/// Reads `len` bytes of a file in order, as far as that takes no longer than [`LONG`]; bytes and seconds.
fn in_order(path: &Path, len: u64, pair: &Pair) -> anyhow::Result<(u64, f64)> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let (mut buffer, mut read, begun) = (vec![0; 1 << 20], 0, Instant::now());
    while read < len && begun.elapsed() < LONG {
        pair.scratch.stop.check()?;
        let bytes = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(bytes > 0, "{} is too short", path.display());
        read += bytes as u64;
    }
    Ok((read, begun.elapsed().as_secs_f64()))
}

/// Reads a whole file; milliseconds.
fn one(path: &Path, len: u64) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(bytes.len() as u64 == len, "{} has {} bytes", path.display(), bytes.len());
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Rows in which large files are opened, and left after their first bytes.
fn left(pair: &Pair, wanted: &BTreeSet<Row>, report: &mut Report) -> anyhow::Result<()> {
    say(&Row::LeftBytes.name());
    let uri = pair.publish(&field::files(pair.scratch, "left", 7, LEFT, LEFT_FILE)?, "left@v1")?;
    let _link = pair.open(SLOW)?;
    let mut figures = Vec::new();
    for way in WAYS {
        figures.push(pair.mounted(&uri, way, |site, dir| {
            let (before, begun) = (fetched(site)?, Instant::now());
            for number in 0..LEFT {
                let path = file(dir, number);
                let mut part = vec![0; LEFT_READ as usize];
                let mut file =
                    File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
                file.read_exact(&mut part).with_context(|| format!("cannot read {}", path.display()))?;
            }
            let seconds = begun.elapsed().as_secs_f64();
            let read = (LEFT * LEFT_READ) as f64;
            Ok(((settled(site)? - before) / read, seconds))
        })?);
    }
    // The kernel itself reads ahead, up to 1 MiB, whatever we do.
    let kernel = figures[2].0;
    figures.iter_mut().for_each(|figure| figure.0 -= kernel);
    for (row, of) in
        [(Row::LeftBytes, (|figure| figure.0) as fn(&(f64, f64)) -> f64), (Row::LeftTime, |figure| figure.1)]
    {
        if wanted.contains(&row) {
            report.pair(row, of(&figures[0]), WAYS[1], of(&figures[1]));
        }
    }
    report.note(Row::LeftBytes, format!("off, the kernel asks for {kernel:.2} × what is read"));
    report.note(Row::LeftTime, format!("off {:.1} s", figures[2].1));
    Ok(())
}

fn fetched(site: &Site) -> anyhow::Result<f64> {
    let status = site.status()?;
    status.pointer("/fetch/fetched_bytes").and_then(Value::as_f64).context("the status has no bytes")
}

/// The same when nothing more comes.
fn settled(site: &Site) -> anyhow::Result<f64> {
    let mut before = fetched(site)?;
    loop {
        thread::sleep(Duration::from_secs(2));
        let now = fetched(site)?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
}

/// How long reads at random take beside one in order.
fn faults(pair: &Pair, large: &str, report: &mut Report) -> anyhow::Result<()> {
    say(&Row::AheadFault.name());
    let uri = pair.publish(&field::files(pair.scratch, "faults", 8, 4 * FAULTS, 64 << 10)?, "faults@v1")?;
    let _link = pair.open(MIDDLE)?;
    let (mut figures, mut notes) = (Vec::new(), Vec::new());
    for way in WAYS {
        let (idle, busy, rate) = pair.mounted(&uri, way, |site, dir| {
            let option = format!("readahead={way}");
            let (beside, _, _) = site.mount_with(large, &["-o", &option])?;
            let mut order: Vec<u64> = (0..4 * FAULTS).collect();
            Random::of(8, FAULTS).shuffle(&mut order);
            let mut order = order.into_iter().map(|number| file(dir, number));
            let idle = order.by_ref().take(FAULTS as usize).map(|path| one(&path, 64 << 10));
            let idle = idle.collect::<Result<Vec<_>, _>>()?;
            let (mut busy, done) = (Vec::new(), AtomicBool::new(false));
            let (bytes, seconds) = thread::scope(|scope| {
                let reading = scope.spawn(|| {
                    let read = in_order(&beside.join("00000.bin"), LARGE, pair);
                    done.store(true, Ordering::Relaxed);
                    read
                });
                for path in order {
                    let took = one(&path, 64 << 10)?;
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    busy.push(took);
                }
                reading.join().unwrap_or_else(|_| bail!("the reader panicked"))
            })?;
            site.unmount(&beside)?;
            Ok((idle, busy, bytes as f64 / seconds / MIDDLE.0.bytes_per_second()))
        })?;
        ensure!(busy.len() >= 100, "only {} reads beside a reader in order", busy.len());
        let p = |values: &[f64], share| percentile(values, share);
        notes.push(format!(
            "{way}: idle p50 {:.1}, p99 {:.1}; beside p50 {:.1}, p99 {:.1} ({} reads), the reader in order had {rate:.2} of the link",
            p(&idle, 50.0),
            p(&idle, 99.0),
            p(&busy, 50.0),
            p(&busy, 99.0),
            busy.len()
        ));
        figures.push(p(&busy, 99.0));
    }
    report.pair(Row::AheadFault, figures[0], WAYS[1], figures[1]);
    report.note(Row::AheadFault, notes.join("; "));
    Ok(())
}
