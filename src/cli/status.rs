//! `bcai status`.
//!
//! Owns: the node at a glance.
//! Must not know: how figures are gathered.
//! Invariant: never starts a node just to look at it.
//! Trust: as `cli`. Threads: the main thread.

use clap::Args;

use super::mount::agreement;
use super::{Context, output, peers};
use crate::api::{Client, route};
use crate::node::report::{
    AheadStatus, ClassStatus, Mounted, ReplicaStatus, Status as Report, TransferStatus,
};
use crate::node::{Error, Kind, Node};

/// Show the node at a glance
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bcai status\n  bcai status --json | jq '.alerts'")]
pub struct Status {}

impl Status {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        if Node::running(&ctx.paths)?.is_none() {
            return Err(Error::new(Kind::NotFound, "no node is running").hint("start it with `bcai daemon`"));
        }
        let client = Client::new(&ctx.paths.socket());
        let report: Report = ctx.block_on(async { client.get(route::STATUS).await })?;
        ctx.output.result(&report, text);
        Ok(())
    }
}

fn text(report: &Report) -> String {
    let mut lines = vec![format!(
        "node      {} pid {}, up {}, {} resident",
        report.version,
        report.pid,
        output::span(report.uptime_s as f64),
        output::size(report.resident_bytes)
    )];
    lines.push(match report.supervisor {
        Some(pid) => {
            let (kept, all) = (report.mounts.iter().filter(|mount| mount.kept).count(), report.mounts.len());
            format!("          supervisor pid {pid} starts it again when it dies, and keeps {kept} of {all} mount(s)")
        }
        None => "          its supervisor is gone: when the node dies its mounts do".into(),
    });
    lines.push(format!("peer id   {}", report.peer_id));
    lines.push(format!("key       {}", report.public_key));
    lines.extend(report.addresses.iter().map(|address| format!("listens   {address}")));
    lines.extend(report.web.as_ref().map(|page| match &page.error {
        None => format!("web page  http://{}/", page.address),
        Some(error) => format!("web page  not at {}: {}", page.address, output::safe(error)),
    }));
    for network in &report.networks {
        let role = if network.validator { "validator" } else { "follower" };
        let age = network.head_age_s.map_or("empty".into(), |age| format!("head {age} s old"));
        let mark = if network.default { " (default)" } else { "" };
        let role = if network.forked.is_some() { "FORKED, no longer followed" } else { role };
        lines.push(format!(
            "network   {}{mark}: {role}, height {}, {age}, {} dataset(s)",
            network.genesis, network.height, network.datasets
        ));
    }
    for mount in &report.mounts {
        let dir = output::safe(&mount.dir.display().to_string());
        let version = match (&mount.version, mount.follows) {
            (Some(version), true) => format!(" (now {}, follows the tag)", output::safe(&version.version)),
            (Some(version), false) if !mount.reference.contains('@') => {
                format!(" ({})", output::safe(&version.version))
            }
            _ => String::new(),
        };
        lines.push(format!(
            "mount     {dir}: {}{version}, {}, fetch {}, io {} ({})",
            output::safe(&name(mount)),
            output::size(mount.bytes),
            fetch(mount),
            mount.io,
            output::safe(&mount.io_reason)
        ));
        lines.extend(mount.ahead.as_ref().map(|ahead| read_ahead(&dir, ahead)));
    }
    let store = &report.store;
    let in_place = match store.in_place_bytes {
        0 => String::new(),
        bytes => format!(", {} in place", output::size(bytes)),
    };
    lines.push(format!(
        "store     {} objects, {} published{in_place}, {} of {} cache, {} evicted",
        store.objects,
        output::size(store.published_bytes),
        output::size(store.cached_bytes),
        output::size(store.cache_max_bytes),
        store.evicted
    ));
    if let Some(time) = report.scrub.whole_unix_ms {
        lines.push(format!("scrub     what there was then was hashed again by {}", output::time(time)));
    }
    lines.extend(report.scrub.damaged.iter().map(|bad| format!("damaged   {}", output::safe(bad))));
    lines.extend(store.in_place_changed.iter().map(|path| {
        format!("changed   {} is published in place: publish it again, or restore it", output::safe(path))
    }));
    let fetch = &report.fetch;
    lines.push(format!(
        "reads     {} local, {} fetched ({}), {} retried, {} corrupt",
        fetch.local_hits,
        fetch.fetched,
        output::size(fetch.fetched_bytes),
        fetch.retries,
        fetch.corrupt
    ));
    lines.extend(classes(&fetch.classes));
    lines.extend(report.transfers.iter().map(transfer));
    lines.extend(report.interrupted.iter().map(|job| {
        let hint = job.error.as_ref().and_then(|error| error.hint.as_deref()).unwrap_or_default();
        format!("cut off   {} {}, when the node ended: {hint}", job.kind, output::safe(&job.subject))
    }));
    if report.limits.upload.or(report.limits.download).is_some() {
        lines.push(format!("limits    {}", peers::limits(&report.limits)));
    }
    for peer in &report.peers {
        let rtt = peer.rtt_ms.map_or("-".into(), |ms| format!("{ms:.1} ms"));
        let window = peer.window_bytes.zip(peer.queueing_ms);
        let window = window.map_or(String::new(), |(bytes, ms)| {
            format!(", window {}, queueing {ms:.0} ms", output::size(bytes))
        });
        lines.push(format!(
            "peer      {} {}, {}, {rtt}, in {}, out {}{window}",
            peer.peer_id,
            peer.state,
            peer.grade,
            output::size(peer.bytes_in),
            output::size(peer.bytes_out)
        ));
    }
    for origin in &report.origins {
        lines.push(format!(
            "origin    {}: {} requests, {} failed, in {}",
            output::safe(&origin.url),
            origin.requests,
            origin.failed,
            output::size(origin.bytes_in)
        ));
    }
    lines.extend(report.replicas.iter().flat_map(replicas));
    lines.extend(report.alerts.iter().map(|alert| {
        let (id, text) = (output::safe(&alert.id), output::safe(&alert.text));
        format!("alert     {} {id}: {text}\n          {}", alert.severity, output::safe(&alert.remedy))
    }));
    if report.alerts.len() + report.alerts_acknowledged > 0 {
        let (active, noted) = (report.alerts.len(), report.alerts_acknowledged);
        lines.push(format!("alerts    {active} active, {noted} acknowledged; `bcai alerts` shows all"));
    }
    lines.join("\n")
}

/// What is on storage nodes, as far as this node has to do with it, and what is on too few.
fn replicas(report: &ReplicaStatus) -> Vec<String> {
    let taken_over = match report.taken_over {
        0 => String::new(),
        taken => format!(", {taken} taken over ({})", output::size(report.taken_over_bytes)),
    };
    let mut lines = vec![format!(
        "replicas  {} of {} storage nodes answer, {} versions on them, {} here ({}){taken_over}",
        report.alive,
        report.nodes,
        report.versions,
        report.here,
        output::size(report.here_bytes)
    )];
    lines.extend(report.under.iter().map(|under| {
        let coming = match under.coming {
            0 => String::new(),
            coming => format!(", {coming} coming"),
        };
        format!(
            "          {}: {} of {} copies{coming}",
            output::safe(&under.version),
            under.held,
            under.copies
        )
    }));
    lines
}

fn transfer(job: &TransferStatus) -> String {
    let done = match (job.bytes_total, job.files_total) {
        (0, 0) => format!("{} files", job.files_done),
        (0, total) => format!("{} of {total} files", job.files_done),
        (total, _) => format!("{} of {}", output::size(job.bytes_done), output::size(total)),
    };
    let rate =
        if job.rate > 0.0 { format!(", {}", output::rate(job.rate as u64, 1.0)) } else { String::new() };
    let left = job.eta_s.map_or(String::new(), |left| format!(", {} left", output::span(left)));
    format!("transfer  {} {}: {} {done}{rate}{left}", job.kind, output::safe(&job.subject), job.phase)
}

/// How far ahead of its readers a mount fetches.
fn read_ahead(dir: &str, ahead: &AheadStatus) -> String {
    let window = match ahead.fixed_bytes {
        Some(0) => "nothing is fetched before it is read".into(),
        Some(fixed) => format!("{}, fixed", output::size(fixed)),
        None => format!("{} or {} files", output::size(ahead.window_bytes), ahead.window_files),
    };
    let latency = ahead.latency_ms.map_or(String::new(), |ms| format!(", {ms:.0} ms latency"));
    let unread = match ahead.fetched_bytes {
        0 => String::new(),
        fetched => format!(
            ", {:.0}% of {} not read",
            output::percent(ahead.unread_bytes, fetched),
            output::size(fetched)
        ),
    };
    format!("ahead     {dir}: {window}, {} reader(s){latency}{unread}", ahead.readers)
}

/// What each class gets of what is fetched now; nothing if nothing is.
fn classes(classes: &[ClassStatus]) -> Option<String> {
    let all: f64 = classes.iter().map(|class| class.rate).sum();
    let shown = classes.iter().filter(|class| class.rate > 0.0);
    let shown: Vec<_> = shown
        .map(|class| {
            let part = class.rate / all * 100.0;
            format!("{} {} ({part:.0}%)", class.class, output::rate(class.rate as u64, 1.0))
        })
        .collect();
    (!shown.is_empty()).then(|| format!("fetching  {}", shown.join(", ")))
}

/// What is mounted, as its name goes in its network; of what was named by a URI, without the way to it.
fn name(mount: &Mounted) -> String {
    match &mount.version {
        Some(version) if mount.reference.starts_with("bcai://") => {
            format!("{}@{}", version.name, version.version)
        }
        _ => mount.reference.clone(),
    }
}

/// Where the contents of a mount come from.
fn fetch(mount: &Mounted) -> String {
    let name = mount.fetch.name();
    mount.quorum.map_or(name.to_owned(), |quorum| format!("{name} ({})", agreement(quorum)))
}
