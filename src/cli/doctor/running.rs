//! What a node that runs is like.
//!
//! Owns: which of its figures and alerts make up which line.
//! Must not know: what is worth an alert. Invariant, trust and threads: those of `doctor`.

use std::collections::BTreeMap;

use super::super::{Context, output};
use super::{ANSWER, Check, Keys, Verdict, home};
use crate::api::{Client, route};
use crate::config::{Origin, Setting};
use crate::node::report::{Alert, AlertState, PeerStatus, Status};
use crate::node::{Error, Kind};

/// Lines, and how the names of the alerts begin that belong into them.
const LINES: [(&str, &[&str]); 7] = [
    ("clock", &["clock-off", "clock-skew"]),
    ("peers", &["no-peers", "corrupt-peer", "unusual-latency", "unusual-failures"]),
    ("log", &["stale-log", "forked-log", "unserved-network", "no-quorum", "validator-away"]),
    ("store", &["damaged-objects", "cache-bypassed"]),
    ("replicas", &["under-replicated"]),
    ("keys", &["no-key"]),
    ("versions", &["withdrawn"]),
];
/// Alerts that other lines show already.
const ELSEWHERE: [&str; 2] = ["disk-nearly-full", "no-web-page"];

pub(super) fn checks(ctx: &Context, keys: Keys) -> Vec<Check> {
    let client = Client::new(&ctx.paths.socket());
    let asked = ctx.block_on(async {
        let all = async {
            let status: Status = client.get(route::STATUS).await?;
            let alerts: Vec<Alert> = client.get(route::ALERTS).await?;
            // A node of an older program, before `bcai restart`, does not tell them.
            let settings = client.get::<BTreeMap<String, String>>(route::SETTINGS).await.ok();
            Ok((status, alerts, settings))
        };
        let answer = tokio::time::timeout(ANSWER, all).await;
        answer.unwrap_or_else(|_| Err(Error::new(Kind::Unreachable, "it does not answer")))
    });
    match asked {
        Ok((status, alerts, settings)) => {
            let mut checks = of_node(&status, alerts);
            checks.extend(settings.iter().flat_map(|settings| other_settings(ctx, settings)));
            checks
        }
        Err(error) => {
            let remedy = format!("see {}; bcai stop: nothing is lost", ctx.paths.daemon_log().display());
            // Its ports are its own.
            let is_why = |check: &Check| check.verdict != Verdict::Ok && check.name != "ports";
            let why = home::checks(ctx, keys).into_iter().filter(is_why);
            [Check::bad("node", Verdict::Fail, error.message, remedy)].into_iter().chain(why).collect()
        }
    }
}

fn of_node(status: &Status, mut alerts: Vec<Alert>) -> Vec<Check> {
    alerts.retain(|alert| alert.state != AlertState::Cleared && !ELSEWHERE.contains(&kind(alert)));
    let mut checks = vec![node(status), supervised(status)];
    checks.extend(status.mounts.iter().map(|mount| {
        Check::ok("mount io", format!("{}: {} ({})", mount.dir.display(), mount.io, mount.io_reason))
    }));
    checks.extend(page(status));
    checks.extend(reach(status));
    for (name, kinds) in LINES {
        let about: Vec<Alert> = alerts.extract_if(.., |alert| kinds.contains(&kind(alert))).collect();
        match about.is_empty() {
            true => checks.extend(sound(name, status).map(|found| Check::ok(name, found))),
            false => checks.extend(about.into_iter().map(|alert| of_alert(name, alert))),
        }
    }
    checks.extend(alerts.into_iter().map(|alert| of_alert("alert", alert)));
    checks
}

/// Settings that have changed since the node was started.
fn other_settings(ctx: &Context, running: &BTreeMap<String, String>) -> Vec<Check> {
    let changed = ctx.config.settings().filter(|(key, set)| running.get(*key) != Some(&set.value));
    let check = |(key, set): (&str, &Setting)| {
        let value = running.get(key).map_or("unknown", String::as_str);
        let found =
            format!("{key} is `{}` in {}, and `{value}` in the node that runs", set.value, set.origin);
        let remedy = match set.origin {
            Origin::File(_) => "bcai restart: the node reads its files again",
            Origin::Default => {
                "bcai restart, if it was in a file; what was in the node's environment or on its command line stays until bcai stop"
            }
            Origin::Environment(_) | Origin::Flag => "bcai stop, and start the node with it",
        };
        Check::bad("settings", Verdict::Warn, found, remedy)
    };
    changed.map(check).collect()
}

fn kind(alert: &Alert) -> &str {
    alert.id.split(':').next().unwrap_or_default()
}

fn of_alert(name: &'static str, alert: Alert) -> Check {
    Check::bad(name, alert.severity.into(), alert.text, alert.remedy)
}

/// What a line says when there is nothing wrong with what it is about.
fn sound(name: &str, status: &Status) -> Option<String> {
    match name {
        "clock" => status.clock.map(|clock| {
            let off = clock.ahead_ms.unsigned_abs() as f64 / 1e3;
            format!("within {off:.1} s of that of {} peer(s)", clock.peers)
        }),
        "peers" => Some(peers(&status.peers)),
        "log" => {
            let of_each = status.networks.iter().map(|network| {
                let age =
                    network.head_age_s.map_or("empty".into(), |age| format!("newest block {age} s old"));
                format!("{}: height {}, {age}", network.genesis, network.height)
            });
            (!status.networks.is_empty()).then(|| of_each.collect::<Vec<_>>().join("; "))
        }
        "store" => Some(format!(
            "{} objects, none known to be damaged{}",
            status.store.objects,
            match status.scrub.whole_unix_ms {
                Some(time) => format!("; what there was then was hashed again by {}", output::time(time)),
                None => String::new(),
            }
        )),
        _ => None,
    }
}

fn peers(peers: &[PeerStatus]) -> String {
    let connected: Vec<&PeerStatus> = peers.iter().filter(|peer| peer.state == "connected").collect();
    let nearest = connected.iter().filter_map(|peer| peer.rtt_ms).min_by(f64::total_cmp);
    match (connected.len(), nearest) {
        (0, _) => "none connected, and nothing here needs one now".into(),
        (count, None) => format!("{count} connected"),
        (count, Some(ms)) => format!("{count} connected, the nearest in {ms:.1} ms"),
    }
}

/// Whether others reach this node from outside, where somebody has tried.
fn reach(status: &Status) -> Option<Check> {
    let last = status.trials.last()?;
    if let Some(reached) = status.trials.iter().rfind(|trial| trial.reached) {
        return Some(Check::ok("reach", format!("others connect to {}", reached.address)));
    }
    let found = format!("nobody outside can connect to this node: tried {} in vain", last.address);
    let relayed = status.addresses.iter().find(|address| address.contains("/p2p-circuit"));
    Some(match relayed {
        Some(_) => Check::ok("reach", format!("{found}; they come through a relay")),
        None if status.store.published_bytes == 0 => {
            Check::ok("reach", format!("{found}; reading does not need it"))
        }
        None => Check::bad(
            "reach",
            Verdict::Warn,
            found,
            "forward the port of net.listen to this machine, or name a relay in net.relays: readers outside cannot fetch what is published here",
        ),
    })
}

fn node(status: &Status) -> Check {
    if status.networks.is_empty() {
        let found = format!("running, pid {}, in no network", status.pid);
        return Check::bad("node", Verdict::Warn, found, "bcai init, or bcai init --join URI");
    }
    Check::ok("node", format!("running, pid {}, {} mount(s)", status.pid, status.mounts.len()))
}

/// What happens to the mounts of a node that dies.
fn supervised(status: &Status) -> Check {
    match status.supervisor {
        Some(pid) => Check::ok("supervisor", format!("pid {pid}")),
        None => Check::bad(
            "supervisor",
            Verdict::Warn,
            "gone: when the node dies, its mounts do",
            "bcai stop; the next command starts a node with a supervisor",
        ),
    }
}

/// The web page, if one is wanted.
fn page(status: &Status) -> Option<Check> {
    let page = status.web.as_ref()?;
    let remedy = "set web.listen to a port that is free, or end the program that has it (`ss -ltnp`)";
    if let Some(error) = &page.error {
        return Some(Check::bad(
            "web page",
            Verdict::Warn,
            format!("not at {}: {error}", page.address),
            remedy,
        ));
    }
    let local = page.address.parse().is_ok_and(|at: std::net::SocketAddr| at.ip().is_loopback());
    Some(match local {
        true => Check::ok("web page", format!("http://{}/", page.address)),
        false => Check::bad(
            "web page",
            Verdict::Warn,
            format!("{}: everybody who reaches it can see this node", page.address),
            "set web.listen to 127.0.0.1:7117 and come through `ssh -L 7117:127.0.0.1:7117`, or keep others out with a firewall",
        ),
    })
}
