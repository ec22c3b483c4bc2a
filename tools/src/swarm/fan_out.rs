//! Rows in which one source is fetched from by many at the same moment.
//!
//! Owns: who starts when, and what can go wrong meanwhile: a liar, a receiver that is killed.
//! Must not know: who fetches what from whom.
//! Invariant: every receiver of every run has never run before, its daemon is up before the start, and it counts only if all it
//! fetched is here at the end.
//! Trust: as `swarm`. Threads: one for each receiver, gone when a run is over.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::field::{self, Field, SOURCE};
use super::rows::Row;
use super::{Report, Settings, http};
use crate::measure::{median, seconds};
use crate::report::Row as _;
use crate::scratch::{Scratch, number, say};
use crate::site::Site;

/// How long the receiver that is killed may take to have half of the data.
const HALF_WAY: Duration = Duration::from_secs(600);

/// What receivers fetch.
pub struct Data {
    pub uri: String,
    pub bytes: f64,
}

/// What one start came to.
#[derive(Debug, Default)]
struct Outcome {
    /// Of each receiver, from the common start to its end.
    seconds: Vec<f64>,
    /// Bytes that went out of the source.
    sent: f64,
}

impl Outcome {
    fn last(&self) -> f64 {
        self.seconds.iter().copied().fold(0.0, f64::max)
    }
}

pub fn run(
    scratch: &Scratch,
    settings: Settings,
    wanted: &BTreeSet<Row>,
    report: &mut Report,
) -> anyhow::Result<()> {
    // The source, the receivers, and one that may be hostile.
    let field = Field::new(scratch, settings.receivers as usize + 2, Some(settings.rate))?;
    let source = field.source()?;
    let any = |rows: &[Row]| rows.iter().any(|row| wanted.contains(row));
    let small = [Row::OneLink, Row::FanOut, Row::FanOutCopies, Row::FanOutLiar, Row::FanOutChurn];
    if any(&small) {
        let dir = field::megabytes(scratch, "files", 1, settings.size)?;
        let data = Data { uri: field::publish(&source, &dir, "files@v1")?.0, bytes: settings.size as f64 };
        let (alone, rate) = alone(&field, settings, &data)?;
        if wanted.contains(&Row::OneLink) {
            report.value(Row::OneLink, rate);
            report.note(Row::OneLink, format!("{alone:.2} s"));
        }
        fan_out([Row::FanOut, Row::FanOutCopies], &field, settings, &data, alone, wanted, report)?;
        if wanted.contains(&Row::FanOutLiar) {
            liar(&field, &source, settings, &data, alone, report)?;
        }
        if wanted.contains(&Row::FanOutChurn) {
            churn(&field, settings, &data, alone, report)?;
        }
    }
    if any(&[Row::FanOutLarge, Row::FanOutLargeCopies, Row::FanOutHttp]) {
        let dir = field::files(scratch, "large", 2, 1, settings.size)?;
        if any(&[Row::FanOutLarge, Row::FanOutLargeCopies]) {
            let uri = field::publish(&source, &dir, "large@v1")?.0;
            let data = Data { uri, bytes: settings.size as f64 };
            let (alone, _) = alone(&field, settings, &data)?;
            let rows = [Row::FanOutLarge, Row::FanOutLargeCopies];
            fan_out(rows, &field, settings, &data, alone, wanted, report)?;
        }
        if wanted.contains(&Row::FanOutHttp) {
            say(&Row::FanOutHttp.name());
            let (alone, all) = http::run(scratch, &field, settings, &dir)?;
            report.value(Row::FanOutHttp, all / alone);
            report.note(Row::FanOutHttp, format!("{all:.2} s, alone {alone:.2} s"));
        }
    }
    Ok(())
}

/// The time of one receiver alone, and its payload in parts of the link's rate.
fn alone(field: &Field, settings: Settings, data: &Data) -> anyhow::Result<(f64, f64)> {
    say("one receiver");
    let mut taken = Vec::new();
    for _ in 0..settings.runs {
        taken.push(start(field, &receivers(field, 1)?, |site| prefetch(site, data))?.last());
    }
    let seconds = median(&taken);
    Ok((seconds, data.bytes / seconds / settings.rate.bytes_per_second()))
}

/// All receivers at once: a row for the time and one for what the source sent.
fn fan_out(
    [time, copies]: [Row; 2],
    field: &Field,
    settings: Settings,
    data: &Data,
    alone: f64,
    wanted: &BTreeSet<Row>,
    report: &mut Report,
) -> anyhow::Result<()> {
    if !wanted.contains(&time) && !wanted.contains(&copies) {
        return Ok(());
    }
    say(&time.name());
    let mut outcomes = Vec::new();
    for _ in 0..settings.runs {
        let sites = receivers(field, settings.receivers)?;
        outcomes.push(start(field, &sites, |site| prefetch(site, data))?);
    }
    if wanted.contains(&time) {
        let last: Vec<f64> = outcomes.iter().map(Outcome::last).collect();
        report.value(time, median(&last) / alone);
        report.note(time, format!("alone {alone:.2} s"));
        for outcome in &outcomes {
            report.note(time, each(&outcome.seconds));
        }
    }
    if wanted.contains(&copies) {
        let sent: Vec<f64> = outcomes.iter().map(|outcome| outcome.sent / data.bytes).collect();
        report.value(copies, median(&sent));
    }
    Ok(())
}

/// Receivers that have never run, with their daemons up.
fn receivers<'a>(field: &Field<'a>, count: u8) -> anyhow::Result<Vec<Site<'a>>> {
    let start = |node| {
        let site = field.site(node, &[])?;
        site.json(&["daemon"])?;
        Ok(site)
    };
    (1..=usize::from(count)).map(start).collect()
}

fn prefetch(site: &Site, data: &Data) -> anyhow::Result<()> {
    site.json(&["prefetch", &data.uri]).map(drop)
}

/// Lets receivers fetch at the same moment, each as `fetch` says, and waits for the last.
fn start(
    field: &Field,
    receivers: &[Site],
    fetch: impl Fn(&Site) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Outcome> {
    let begin = Barrier::new(receivers.len());
    let before = field.lan.sent(SOURCE)?;
    let one = |site| {
        begin.wait();
        Ok(seconds(|| fetch(site))?.1)
    };
    let seconds = thread::scope(|scope| {
        let threads: Vec<_> = receivers.iter().map(|site| scope.spawn(|| one(site))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, anyhow::Result<f64>>| {
            thread.join().unwrap_or_else(|_| bail!("a receiver's thread panicked"))
        };
        threads.into_iter().map(join).collect::<anyhow::Result<Vec<f64>>>()
    })?;
    Ok(Outcome { seconds, sent: (field.lan.sent(SOURCE)? - before) as f64 })
}

fn each(seconds: &[f64]) -> String {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let shown: Vec<String> = sorted.iter().map(|seconds| format!("{seconds:.2}")).collect();
    format!("each receiver: {} s", shown.join(" "))
}

/// A peer that answers wants of chunks with wrong bytes, known to everybody.
fn liar(
    field: &Field,
    source: &Site,
    settings: Settings,
    data: &Data,
    alone: f64,
    report: &mut Report,
) -> anyhow::Result<()> {
    say(&Row::FanOutLiar.name());
    let (mut last, mut notes) = (Vec::new(), Vec::new());
    for _ in 0..settings.runs {
        let sites = receivers(field, settings.receivers)?;
        let mut dial = Vec::new();
        for site in sites.iter().chain([source]) {
            dial.push(format!("--dial={}", field::address(site)?));
        }
        let args = [vec!["peer", "liar"], dial.iter().map(String::as_str).collect()].concat();
        let mut helper = field.helper(settings.receivers as usize + 1, &args)?;
        let who = helper.line()?["peer_id"].as_str().context("a liar without a name")?.to_owned();
        let outcome = start(field, &sites, |site| prefetch(site, data))?;
        let mut banned = 0;
        for site in &sites {
            site.json(&["verify", &data.uri])?;
            let status = site.status()?;
            let is_banned = |peer: &Value| peer["peer_id"] == who.as_str() && peer["state"] == "banned";
            banned +=
                usize::from(status["peers"].as_array().is_some_and(|peers| peers.iter().any(is_banned)));
        }
        last.push(outcome.last());
        notes.push(format!(
            "all {} receivers complete and verified, {banned} have banned the liar; {}",
            sites.len(),
            each(&outcome.seconds)
        ));
    }
    report.value(Row::FanOutLiar, median(&last) / alone);
    for note in notes {
        report.note(Row::FanOutLiar, note);
    }
    Ok(())
}

/// One of the receivers is killed when it has half of the data, and started again at once.
fn churn(
    field: &Field,
    settings: Settings,
    data: &Data,
    alone: f64,
    report: &mut Report,
) -> anyhow::Result<()> {
    say(&Row::FanOutChurn.name());
    let (mut last, mut notes) = (Vec::new(), Vec::new());
    for _ in 0..settings.runs {
        let sites = receivers(field, settings.receivers)?;
        let victim = sites.first().context("a fan-out to nobody")?;
        let outcome = start(field, &sites, |site| {
            if std::ptr::eq(site, victim) {
                thread::scope(|scope| {
                    let first = scope.spawn(|| prefetch(victim, data));
                    kill_half_way(victim, data.bytes / 2.0)?;
                    // It fails with its daemon.
                    let _ = first.join();
                    anyhow::Ok(())
                })?;
            }
            prefetch(site, data)
        })?;
        for site in &sites {
            site.json(&["verify", &data.uri])?;
        }
        last.push(outcome.last());
        notes.push(format!("the killed one {:.2} s; {}", outcome.seconds[0], each(&outcome.seconds)));
    }
    report.value(Row::FanOutChurn, median(&last) / alone);
    for note in notes {
        report.note(Row::FanOutChurn, note);
    }
    Ok(())
}

/// SIGKILLs a daemon when it has fetched `half`.
fn kill_half_way(victim: &Site, half: f64) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let status = victim.status()?;
        if number(&status, "/fetch/fetched_bytes")? >= half {
            let pid = Pid::from_raw(number(&status, "/pid")? as i32).context("a daemon without a number")?;
            return kill_process(pid, Signal::KILL).context("cannot kill a daemon");
        }
        ensure!(begun.elapsed() < HALF_WAY, "the receiver to be killed never had half of the data");
    }
}
