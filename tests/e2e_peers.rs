//! What a user sees of peers and orders about them, limits, transfers and alerts, with real nodes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Running, Site, done, noise, wait_until};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// A publisher, and a reader that knows its dataset; the version of `mib` MiB in files of 1 MiB.
fn pair(mib: u64) -> (Site, Site, String) {
    let (publisher, reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    for number in 0..mib {
        fs::write(source.join(format!("{number:02}")), noise(number, MIB as usize)).unwrap();
    }
    let uri = publisher.publish(&source, "data@v1");
    reader.ok(["ls", &uri]);
    (publisher, reader, uri)
}

fn id_of(site: &Site) -> String {
    site.status()["peer_id"].as_str().unwrap().to_owned()
}

/// The row of `peer` in `bcai peers`, or null.
fn row(site: &Site, peer: &str) -> Value {
    let rows = site.json(["peers"]);
    rows.as_array().unwrap().iter().find(|row| row["peer_id"] == peer).cloned().unwrap_or_default()
}

/// The alert `id` in `bcai alerts list --all`, or null.
fn alert(site: &Site, id: &str) -> Value {
    let alerts = site.json(["alerts", "list", "--all"]);
    alerts.as_array().unwrap().iter().find(|alert| alert["id"] == id).cloned().unwrap_or_default()
}

#[test]
fn peers_see_each_other_and_are_blocked_and_allowed() {
    let (publisher, reader, uri) = pair(2);
    let (one, other) = (id_of(&publisher), id_of(&reader));
    for (site, peer) in [(&reader, &one), (&publisher, &other)] {
        wait_until("both have measured a round trip", || row(site, peer)["rtt_ms"].is_number());
        let row = row(site, peer);
        assert_eq!(row["state"], "connected");
        let grades = ["excellent", "good", "fair", "poor", "critical"];
        assert!(grades.contains(&row["grade"].as_str().unwrap()), "{row}");
        assert!((0.0..=1.0).contains(&row["score"].as_f64().unwrap()), "{row}");
        assert!(site.ok(["peers", "list"]).contains(peer.as_str()));
    }
    reader.ok(["cat", "data@v1/00"]);
    let seen = row(&reader, &one);
    assert!(seen["bytes_in"].as_u64().unwrap() >= MIB && seen["failures"] == 0, "{seen}");
    assert!(row(&publisher, &other)["bytes_out"].as_u64().unwrap() >= MIB);

    // By the end of its id: disconnected, refused, and so after a restart.
    let end = &one[one.len() - 8..];
    assert_eq!(reader.json(["peers", "block", end])["peer_id"], one.as_str());
    wait_until("the publisher has lost the reader", || row(&publisher, &other)["state"] != "connected");
    assert_eq!(row(&reader, &one)["state"], "blocked");
    let failed = reader.fails(14, ["cat", "data@v1/01"]);
    assert!(failed.contains("no peer is connected"), "{failed}");
    let address = uri.split_once("peer=").unwrap().1.to_owned();
    let refused = reader.fails(12, ["peers", "add", &address]);
    assert!(refused.contains("blocked") && refused.contains("bcai peers allow"), "{refused}");
    reader.ok(["stop"]);
    reader.ok(["daemon"]);
    assert_eq!(row(&reader, &one)["state"], "blocked");
    reader.ok(["peers", "allow", end]);
    reader.ok(["peers", "add", &address]);
    reader.ok(["cat", "data@v1/01"]);
    assert_eq!(row(&reader, &one)["state"], "connected");

    // Added once, it is connected again by the next start.
    reader.ok(["stop"]);
    reader.ok(["daemon"]);
    wait_until("the added peer is back", || row(&reader, &one)["state"] == "connected");
}

#[test]
fn a_peer_that_cannot_be_meant_is_refused() {
    let site = Site::initialised();
    let unknown = site.fails(10, ["peers", "block", "nobody"]);
    assert!(unknown.contains("`nobody`") && unknown.contains("bcai peers"), "{unknown}");
    site.fails(10, ["peers", "allow", "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"]);
    let bad = site.fails(2, ["peers", "add", "nonsense"]);
    assert!(bad.contains("`nonsense` is no address"), "{bad}");
    site.fails(2, ["peers", "block", &id_of(&site)]);
    assert_eq!(site.run(["peers", "limit", "--upload", "fast"]).code, 2);
    assert_eq!(site.run(["peers", "limit", "--upload", "1KiB"]).code, 2);
    // Two that were never met, by their whole ids; what both end with names neither.
    for peer in [
        "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
        "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo",
    ] {
        site.ok(["peers", "block", peer]);
        assert_eq!(row(&site, peer)["state"], "blocked");
    }
    let both = site.fails(2, ["peers", "allow", "12D3KooW"]);
    assert!(both.contains("2 peers"), "{both}");
    site.ok(["peers", "allow", "12D3KooWD"]);
    assert_eq!(site.json(["peers"]).as_array().unwrap().len(), 1);
    site.fails(10, ["alerts", "ack", "nothing"]);
}

#[test]
fn limits_hold_change_and_are_kept() {
    let mut site = Site::initialised();
    assert_eq!(site.json(["peers", "limit"])["upload"], Value::Null);
    let set = site.json(["peers", "limit", "--upload", "2MiB", "--download", "1MiB"]);
    assert_eq!((&set["upload"], &set["download"]), (&(2 * MIB).into(), &MIB.into()));
    let one = site.json(["peers", "limit", "--download", "unlimited"]);
    assert_eq!((&one["upload"], &one["download"]), (&(2 * MIB).into(), &Value::Null));
    site.ok(["stop"]);
    assert!(site.ok(["peers", "limit"]).contains("upload 2.0 MiB/s, download unlimited"));
    // A setting wins at the start, and says so when it is overruled for now.
    site.ok(["stop"]);
    site.settings.push(("BCAI_NET_UPLOAD_LIMIT".into(), "5MiB".into()));
    assert_eq!(site.json(["peers", "limit"])["upload"], 5 * MIB);
    let done = site.run(["peers", "limit", "--upload", "unlimited"]);
    assert!(done.code == 0 && done.stderr.contains("net.upload_limit is set"), "{}", done.stderr);
    assert_eq!(site.status()["limits"]["upload"], Value::Null);
    site.ok(["stop"]);
    assert_eq!(site.json(["peers", "limit"])["upload"], 5 * MIB);
}

/// No faster than the limit, which is a bound from below on the time and no measurement; and as soon as it is lifted,
/// the rest comes.
#[test]
fn a_limit_holds_a_prefetch_and_lifting_it_lets_it_end() {
    for side in ["--download", "--upload"] {
        let (publisher, reader, uri) = pair(32);
        let limited = if side == "--download" { &reader } else { &publisher };
        limited.ok(["peers", "limit", side, "2MiB"]);
        let begun = Instant::now();
        let child = reader.command(["prefetch", &uri]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut prefetch = Running(child.unwrap());
        let job = || reader.status()["transfers"].as_array().unwrap().first().cloned().unwrap_or_default();
        wait_until("some of it is here", || job()["bytes_done"].as_u64() >= Some(6 * MIB));
        // What may pass at once, 150 ms' worth, is not waited for.
        assert!(begun.elapsed() > Duration::from_millis(2700), "6 MiB at 2 MiB/s: {:?}", begun.elapsed());
        assert!(prefetch.0.try_wait().unwrap().is_none());
        let seen = job();
        assert_eq!((&seen["kind"], &seen["subject"]), (&"prefetch".into(), &uri.as_str().into()));
        assert_eq!(seen["bytes_total"], 32 * MIB);
        assert!(seen["rate"].as_f64().unwrap() > 0.0 && seen["eta_s"].as_f64().unwrap() > 0.0, "{seen}");
        let shown = reader.ok(["status"]);
        assert!(shown.contains("transfer  prefetch") && shown.contains("of 32.0 MiB"), "{shown}");

        // So low that the rest would take minutes, and then lifted.
        limited.ok(["peers", "limit", side, "64KiB"]);
        assert!(prefetch.0.try_wait().unwrap().is_none());
        limited.ok(["peers", "limit", side, "unlimited"]);
        assert!(prefetch.0.wait().unwrap().success());
        assert_eq!(done(reader.command(["prefetch", "--check", &uri]).output().unwrap()).code, 0);
        assert!(reader.status()["transfers"].as_array().unwrap().is_empty());
    }
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn an_alert_comes_is_noted_clears_and_comes_back() {
    let (publisher, reader, uri) = pair(1);
    let mounted = reader.mount(&uri, "mnt");
    assert_eq!(alert(&reader, "no-peers"), Value::Null);
    publisher.kill();
    wait_until("the alert", || alert(&reader, "no-peers")["state"] == "active");
    let text = alert(&reader, "no-peers")["text"].as_str().unwrap().to_owned();
    assert!(text.contains(mounted.to_str().unwrap()), "{text}");
    let shown = reader.ok(["status"]);
    assert!(shown.contains("alert     error no-peers") && shown.contains("bcai peers add"), "{shown}");

    reader.ok(["alerts", "ack", "no-peers"]);
    assert_eq!(alert(&reader, "no-peers")["state"], "acknowledged");
    let status = reader.status();
    assert!(!status["alerts"].to_string().contains("no-peers"), "{status}");
    assert!(status["alerts_acknowledged"].as_u64() >= Some(1), "{status}");

    publisher.ok(["daemon"]);
    wait_until("the publisher is back", || alert(&reader, "no-peers")["state"] == "cleared");
    assert!(!reader.ok(["alerts"]).contains("no-peers"));
    assert_eq!(fs::read(mounted.join("00")).unwrap(), noise(0, MIB as usize));

    publisher.kill();
    wait_until("it is news again", || alert(&reader, "no-peers")["state"] == "active");
    assert_eq!(alert(&reader, "no-peers")["count"], 2);
    assert!(reader.json(["alerts", "ack", "--all"])["alerts"].as_u64() >= Some(1));
    assert_eq!(alert(&reader, "no-peers")["state"], "acknowledged");
}
