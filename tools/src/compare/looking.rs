//! What looking on costs: the share of a node's processor time, in an epoch that it answers, that goes to those who watch.
//!
//! Owns: the epoch and the questions. Must not know: how the node answers either.
//! Invariant: both are measured as processor time of the daemon: on a shared machine the time of an epoch differs from run to run by
//! far more than is looked for. Trust: as `compare`. Threads: two readers.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, ensure};

use super::epochs::Folder;
use super::rows::Row;
use super::{Bench, Report};
use crate::measure::{back, in_order, median, seconds};
use crate::scratch::say;

const RUNS: usize = 5;
/// Questions of each kind, since processor time is counted in hundredths of a second.
const QUESTIONS: u32 = 500;
/// What watchers ask in a second: a Prometheus that comes each second (most come every 15), `bcai top`, and the page, which asks
/// every other second.
const ASKED: [(&str, f64); 2] = [("/metrics", 1.0), ("/v1/status", 1.5)];

pub fn run(bench: &Bench, folder: &Folder, report: &mut Report) -> anyhow::Result<()> {
    say("an epoch that is watched");
    let daemon = Daemon::of(folder)?;
    let mut a_second = 0.0;
    for (route, often) in ASKED {
        let before = daemon.processor_seconds()?;
        for _ in 0..QUESTIONS {
            bench.scratch.stop.check()?;
            daemon.ask(route)?;
        }
        a_second += often * (daemon.processor_seconds()? - before) / f64::from(QUESTIONS);
    }
    let mut shares = Vec::new();
    for _ in 0..RUNS {
        let (mounted, _, _) = folder.site.mount("small@v1")?;
        for pack in folder.site.packs()? {
            in_order(&pack)?;
        }
        back(folder.bytes)?;
        let before = daemon.processor_seconds()?;
        let (_, took) = seconds(|| folder.epoch(bench, &mounted))?;
        let epoch = daemon.processor_seconds()? - before;
        ensure!(
            epoch > 0.0,
            "the epoch is too short for a clock of hundredths of a second: take a larger --scale"
        );
        shares.push(100.0 * a_second * took / epoch);
        folder.site.unmount(&mounted)?;
    }
    report.value(Row::LookingOn, median(&shares));
    report.note(Row::LookingOn, format!("{:.2} ms of processor a second", a_second * 1e3));
    Ok(())
}

/// The daemon of a folder's publisher.
struct Daemon {
    stat: PathBuf,
    socket: PathBuf,
}

impl Daemon {
    fn of(folder: &Folder) -> anyhow::Result<Self> {
        let pid = folder.site.status()?["pid"].as_u64().context("no daemon runs")?;
        Ok(Self { stat: format!("/proc/{pid}/stat").into(), socket: folder.site.home().join("run/api.sock") })
    }

    /// In user and in kernel mode, as proc(5) has it.
    fn processor_seconds(&self) -> anyhow::Result<f64> {
        let stat =
            fs::read_to_string(&self.stat).with_context(|| format!("cannot read {}", self.stat.display()))?;
        // The second field, in brackets, may hold anything; user and system time are the 14th and the 15th.
        let (_, rest) = stat.rsplit_once(')').context("/proc has another form than expected")?;
        let ticks: u64 =
            rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    fn ask(&self, route: &str) -> anyhow::Result<()> {
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("nobody answers at {}", self.socket.display()))?;
        stream.write_all(format!("GET {route} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains(" 200 "), "{route}: {}", answer.lines().next().unwrap_or_default());
        Ok(())
    }
}
