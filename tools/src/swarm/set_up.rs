//! How long it takes until nodes know each other.
//!
//! Owns: joining by URI, and discovery on a local network.
//! Must not know: how either works.
//! Invariant: each attempt has a node that has never run.
//! Trust: as `swarm`. Threads: the main thread.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::field::{Field, files, publish};
use super::rows::Row;
use super::{Report, Settings};
use crate::measure::{median, seconds};
use crate::scratch::{Scratch, say};

/// What is waited for comes within this time or not at all.
const DEADLINE: Duration = Duration::from_secs(30);

pub fn run(
    scratch: &Scratch,
    settings: Settings,
    wanted: &BTreeSet<Row>,
    report: &mut Report,
) -> anyhow::Result<()> {
    say("connections");
    let field = Field::new(scratch, 2, Some(settings.rate))?;
    let source = field.site(0, &["net.mdns=true"])?;
    source.json(&["init"])?;
    let (uri, _) = publish(&source, &files(scratch, "one", 1, 1, 1)?, "one@v1")?;
    if wanted.contains(&Row::SetUp) {
        let mut taken = Vec::new();
        for _ in 0..settings.runs {
            let node = field.site(1, &[])?;
            node.json(&["daemon"])?;
            taken.push(seconds(|| node.json(&["init", "--join", &uri]))?.1 * 1e3);
        }
        report.value(Row::SetUp, median(&taken));
    }
    if wanted.contains(&Row::Discovery) {
        let mut taken = Vec::new();
        for _ in 0..settings.runs {
            let node = field.site(1, &["net.mdns=true"])?;
            let begun = Instant::now();
            node.json(&["daemon"])?;
            let found = || -> anyhow::Result<bool> {
                let status = node.status()?;
                let peers = status["peers"].as_array().map_or(&[][..], Vec::as_slice);
                Ok(peers.iter().any(|peer| peer["state"] == "connected"))
            };
            while !found()? {
                ensure!(begun.elapsed() < DEADLINE, "the nodes do not find each other");
            }
            taken.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        report.value(Row::Discovery, median(&taken));
    }
    Ok(())
}
