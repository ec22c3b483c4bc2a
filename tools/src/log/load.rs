//! How many entries four validators decide in a second.
//!
//! Owns: the authors, each with a name of its own, who submit one entry after the other over the network.
//! Must not know: how entries are decided.
//! Invariant: an entry counts when a validator has answered that it is decided, which is when it is on that one's disk.
//! No validator is asked more at a time than it answers.
//! Trust: the program is the one under test. Threads: a runtime of two threads, on the processors of the validators.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bcai::chain::Registry;
use bcai::crypto::SecretKey;
use bcai::id::{Genesis, SnapshotId};
use bcai::log::{Entry, EntryBody, Publish};
use bcai::net::{Net, Options};
use bcai::store::Store;
use futures::future::join_all;

use super::rows::Row;
use super::{Report, Settings};
use crate::scratch::{Scratch, say};

/// Nodes that submit, and how much each has open with each validator: together what a validator answers at a time, as
/// docs/PROTOCOL.md says.
const CLIENTS: u8 = 7;
const EACH: u16 = 8;

/// One who publishes version after version.
struct Author {
    key: SecretKey,
    name: String,
    net: Arc<Net>,
    validator: String,
}

/// What all authors came to.
#[derive(Default)]
struct Tally {
    decided: AtomicU64,
    failed: AtomicU64,
    newest: AtomicU64,
}

pub fn run(
    scratch: &Scratch,
    settings: Settings,
    genesis: &str,
    validators: &[String],
    report: &mut Report,
) -> anyhow::Result<()> {
    say("many entries");
    let genesis: Genesis = genesis.parse().context("bcai printed no network")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let time = Duration::from_secs(u64::from(settings.seconds));
    let (tally, seconds, authors) = runtime.block_on(submit(scratch, genesis, validators, time))?;
    let decided = tally.decided.into_inner();
    ensure!(decided > 0, "nothing was decided");
    report.value(Row::Entries, decided as f64 / seconds);
    report.note(
        Row::Entries,
        format!(
            "{decided} entries of {authors} authors in {seconds:.1} s, up to height {}; {} were not answered",
            tally.newest.into_inner(),
            tally.failed.into_inner()
        ),
    );
    Ok(())
}

async fn submit(
    scratch: &Scratch,
    genesis: Genesis,
    validators: &[String],
    time: Duration,
) -> anyhow::Result<(Tally, f64, usize)> {
    let (tally, mut authors) = (Tally::default(), Vec::new());
    let mut nets = Vec::new();
    for client in 0..CLIENTS {
        let net = Arc::new(client_of(scratch, client).await?);
        for (at, address) in validators.iter().enumerate() {
            let validator = net.connect(address).await?;
            authors.extend((0..EACH).map(|number| Author {
                key: key(client, at as u8, number as u8),
                name: format!("load/{client}-{at}-{number}"),
                net: net.clone(),
                validator: validator.clone(),
            }));
        }
        nets.push(net);
    }
    let begun = Instant::now();
    join_all(authors.iter().map(|author| author.write(genesis, begun + time, scratch, &tally))).await;
    let seconds = begun.elapsed().as_secs_f64();
    for net in nets {
        net.shutdown().await;
    }
    Ok((tally, seconds, authors.len()))
}

async fn client_of(scratch: &Scratch, number: u8) -> anyhow::Result<Net> {
    let dir = scratch.dir.join(format!("client{number}"));
    let store = Store::open(&dir, bcai::store::Options { cache_max_bytes: 1 << 30 })?;
    let listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
    let options = Options { mdns: false, ..Options::new(key(number, u8::MAX, 0), listen) };
    let (submissions, _) = tokio::sync::mpsc::channel(1);
    Ok(Net::start(options, store, Registry::default(), submissions).await?)
}

/// A key that nobody else has.
fn key(client: u8, validator: u8, number: u8) -> SecretKey {
    let mut bytes = [0x10; 32];
    bytes[..3].copy_from_slice(&[client, validator, number]);
    SecretKey::from_bytes(bytes)
}

impl Author {
    /// Submits until `end`, and counts.
    async fn write(&self, genesis: Genesis, end: Instant, scratch: &Scratch, tally: &Tally) {
        for number in 1.. {
            if Instant::now() >= end || scratch.stop.check().is_err() {
                return;
            }
            let Ok(entry) = self.entry(genesis, number) else { return };
            match self.net.submit(&self.validator, genesis, entry.encode()).await {
                Ok(submitted) => {
                    tally.decided.fetch_add(1, Ordering::Relaxed);
                    tally.newest.fetch_max(submitted.height, Ordering::Relaxed);
                }
                Err(_) => {
                    tally.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn entry(&self, genesis: Genesis, number: u64) -> anyhow::Result<Entry> {
        let publish = Publish {
            name: self.name.parse()?,
            version: format!("v{number}").parse()?,
            snapshot: SnapshotId::of(format!("{} {number}", self.name).as_bytes()),
            bytes: 1,
            inodes: 1,
            parent: None,
            replicas: Vec::new(),
            copies: None,
        };
        Ok(Entry::sign(&self.key, genesis, number, EntryBody::Publish(publish)))
    }
}
