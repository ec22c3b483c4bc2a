//! What peers and transfers add to a node's resident memory.
//!
//! Owns: the node that is watched, and what it does meanwhile.
//! Must not know: what its memory is used for.
//! Invariant: the node has run before it is weighed idle, with all it has published; all that comes on top counts, whatever it is.
//! Trust: as `swarm`; the kernel says how much memory a process has. Threads: the main thread watches, another one fetches.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::field::{self, Helper};
use super::rows::Row;
use super::{Report, Settings};
use crate::measure::{Resident, median, resident};
use crate::scratch::{Scratch, number, say};
use crate::site::Site;

/// Peers that are connected.
const PEERS: u32 = 64;
/// Requests that each of them has open: more than 1,000 in all.
const EACH: u32 = 16;
/// Files of each dataset, and their bytes.
const FILES: u64 = 1_000;
const FILE: u64 = 16_000;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

pub fn run(
    scratch: &Scratch,
    settings: Settings,
    _: &BTreeSet<Row>,
    report: &mut Report,
) -> anyhow::Result<()> {
    say("memory");
    // Others may begin three quarters of the connections.
    let node = Site::with(scratch, "n", &[format!("net.max_peers={}", PEERS * 2)])?;
    let source = Site::publisher(scratch, "s")?;
    node.json(&["init"])?;
    let theirs = field::files(scratch, "theirs", 1, FILES, FILE)?;
    let ours = field::files(scratch, "ours", 2, FILES, FILE)?;
    let (uri, serve) = field::publish(&source, &theirs, "theirs@v1")?;
    let (_, want) = field::publish(&node, &ours, "ours@v1")?;
    node.stop()?;
    node.json(&["daemon"])?;
    let pid = number(&node.status()?, "/pid")? as u32;
    let idle = resident(pid)?;

    let dir = scratch.dir.join("crowd");
    fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let (at, from) = (field::address(&node)?, field::address(&source)?);
    let (peers, each, dir) = (PEERS.to_string(), EACH.to_string(), dir.display().to_string());
    let args = ["crowd", "--node", &at, "--source", &from, "--serve", &serve, "--want", &want];
    let more = ["--peers", &peers, "--each", &each, "--dir", &dir];
    let mut crowd = Helper::start(&[], &[&args[..], &more].concat())?;
    crowd.line()?;

    let done = AtomicBool::new(false);
    let (samples, rounds) = thread::scope(|scope| {
        let fetching = scope.spawn(|| fetch_again(&node, &uri, &done));
        let samples = watch(scratch, pid, Duration::from_secs(60 * u64::from(settings.minutes)));
        done.store(true, Ordering::Relaxed);
        (samples, fetching.join())
    });
    let (samples, peak) = samples?;
    let Ok(rounds) = rounds else { bail!("fetching panicked") };
    let (rounds, connected) = rounds?;
    let served = number(&crowd.end()?, "/fetched")?;
    let program = peak.of_files - idle.of_files;
    report.value(Row::Memory, (peak.most - idle.now) / 1e6);
    let (first, last) = halves(&samples);
    report.note(
        Row::Memory,
        format!(
            "{connected} peers connected, {} requests open; the node served {served} objects and fetched {} files {rounds} times",
            PEERS * EACH,
            FILES
        ),
    );
    report.note(
        Row::Memory,
        format!(
            "idle {:.1} MB, peak {:.1} MB, of which {:.1} MB more of the program than at first; median of the first half {:.1} MB, of the second {:.1} MB",
            idle.now / 1e6,
            peak.most / 1e6,
            program / 1e6,
            first / 1e6,
            last / 1e6
        ),
    );
    Ok(())
}

/// Fetches a dataset from the crowd and drops it, until `done`. Returns how often, and the most peers that were connected.
fn fetch_again(node: &Site, uri: &str, done: &AtomicBool) -> anyhow::Result<(u64, usize)> {
    let (mut rounds, mut most) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        node.json(&["prefetch", uri])?;
        rounds += 1;
        let status = node.status()?;
        let peers = status["peers"].as_array().map_or(&[][..], Vec::as_slice);
        most = most.max(peers.iter().filter(|peer| peer["state"] == "connected").count());
        node.json(&["prefetch", uri, "--evict"])?;
    }
    Ok((rounds, most))
}

/// Looks at a process for at least a moment and for so long; returns what it had, in bytes, and how it stood at last.
fn watch(scratch: &Scratch, pid: u32, time: Duration) -> anyhow::Result<(Vec<f64>, Resident)> {
    let begun = Instant::now();
    let mut samples = Vec::new();
    loop {
        scratch.stop.check()?;
        thread::sleep(LOOK);
        let found = resident(pid)?;
        samples.push(found.now);
        if begun.elapsed() >= time {
            return Ok((samples, found));
        }
    }
}

/// The medians of both halves of what was seen, without the first fifth, in which everything is new.
fn halves(samples: &[f64]) -> (f64, f64) {
    let settled = &samples[samples.len() / 5..];
    let (first, last) = settled.split_at(settled.len() / 2);
    (median(first), median(last))
}
