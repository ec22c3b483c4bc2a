//! Which conditions are alerts, and what becomes of an alert.

use super::conditions::{Condition, Seats, condition};
use super::*;
use crate::net::{PeerInfo, PeerState};
use crate::node::report::{ClockStatus, NetworkStatus, Severity};
use crate::swarm::health::Grade;

const G: &str = "a-network";

pub fn peer(id: &str, state: PeerState) -> PeerInfo {
    PeerInfo {
        beacon: None,
        id: id.into(),
        addresses: Vec::new(),
        rtt: None,
        bytes_in: 0,
        bytes_out: 0,
        objects_served: 0,
        rate_in: 0.0,
        rate_out: 0.0,
        failed: 0,
        failure_share: 0.0,
        relayed: false,
        grade: Grade::Good,
        score: 0.5,
        unusual_latency: false,
        unusual_failures: false,
        state,
    }
}

fn network(head_age_s: Option<u64>) -> NetworkStatus {
    NetworkStatus {
        genesis: G.into(),
        default: true,
        validator: false,
        height: 1,
        pin: None,
        head_age_s,
        head_ahead_ms: 0,
        heartbeat_s: 600,
        datasets: 1,
        forked: None,
    }
}

fn ids(observed: &Observed) -> Vec<String> {
    observed.conditions().into_iter().map(|condition| condition.id).collect()
}

#[test]
fn a_sound_node_has_no_alerts() {
    let observed = Observed {
        needs_peers: vec!["the mount /mnt".into()],
        peers: vec![
            peer("a", PeerState::Connected),
            peer("b", PeerState::Reconnecting),
            peer("c", PeerState::Blocked),
        ],
        disk: Some((100 << 30, 1 << 40)),
        networks: vec![network(Some(1700)), network(None)],
        ..Observed::default()
    };
    assert_eq!(ids(&observed), [""; 0]);
    // Nobody is connected, and nobody is needed.
    assert_eq!(
        ids(&Observed { peers: vec![peer("b", PeerState::Reconnecting)], ..Observed::default() }),
        [""; 0]
    );
}

#[test]
fn each_condition_has_its_alert() {
    let odd = PeerInfo { unusual_latency: true, unusual_failures: true, ..peer("b", PeerState::Connected) };
    let forked = NetworkStatus { forked: Some("it has forked".into()), ..network(Some(9_000)) };
    assert_eq!(ids(&Observed { networks: vec![forked], ..Observed::default() }), [format!("forked-log:{G}")]);
    let ahead = NetworkStatus { head_ahead_ms: 31_000, ..network(Some(0)) };
    for (observed, expected) in [
        (
            Observed {
                needs_peers: vec!["the mount /mnt".into()],
                peers: vec![peer("b", PeerState::Reconnecting)],
                ..Observed::default()
            },
            vec!["no-peers"],
        ),
        (
            Observed { peers: vec![peer("a", PeerState::Banned)], ..Observed::default() },
            vec!["corrupt-peer:a"],
        ),
        (Observed { disk: Some((15 << 30, 1 << 40)), ..Observed::default() }, vec!["disk-nearly-full"]),
        (Observed { bypassed: 3, bypasses: true, ..Observed::default() }, vec!["cache-bypassed"]),
        (
            Observed {
                locked: vec![("photos".into(), Error::not_found("no key").hint("ask the owner"))],
                ..Observed::default()
            },
            vec!["no-key:photos"],
        ),
        (
            Observed { networks: vec![network(Some(1801))], ..Observed::default() },
            vec!["stale-log:a-network"],
        ),
        (Observed { networks: vec![ahead], ..Observed::default() }, vec!["clock-skew:a-network"]),
        (
            Observed { peers: vec![odd.clone()], ..Observed::default() },
            vec!["unusual-latency:b", "unusual-failures:b"],
        ),
        // What we hold back ourselves comes late.
        (
            Observed { peers: vec![odd.clone()], limited: true, ..Observed::default() },
            vec!["unusual-failures:b"],
        ),
        // Who is away is not asked how it does.
        (
            Observed {
                peers: vec![PeerInfo { state: PeerState::Reconnecting, ..odd }],
                ..Observed::default()
            },
            vec![],
        ),
    ] {
        assert_eq!(ids(&observed), expected);
        assert!(observed.conditions().iter().all(|found| !found.text.is_empty() && !found.remedy.is_empty()));
    }
}

#[test]
fn clocks_differ_when_they_do_by_much() {
    let of = |ahead_ms| {
        let clock = Some(ClockStatus { ahead_ms, peers: 2 });
        let ahead = NetworkStatus { head_ahead_ms: 31_000, ..network(Some(0)) };
        Observed { clock, networks: vec![ahead], ..Observed::default() }
    };
    for ahead_ms in [-30_000, 0, 30_000] {
        assert_eq!(ids(&of(ahead_ms)), ["clock-skew:a-network"], "{ahead_ms}");
    }
    for (ahead_ms, says) in
        [(3_600_000, "3600 s ahead of"), (-31_000, "31 s behind"), (i64::MIN, "9223372036854775 s behind")]
    {
        // The block from the future is the same cause.
        let found = of(ahead_ms).conditions();
        assert!(matches!(&found[..], [one] if one.id == "clock-off" && one.text.contains(says)), "{found:?}");
    }
}

#[test]
fn validators_that_are_away_are_named_once_the_node_has_run_for_a_while() {
    let away: Vec<_> = ["x", "y"].map(|voter| (voter.to_owned(), 1)).into();
    let seats = |here, is_quorum| Seats {
        genesis: G.into(),
        here,
        total: 4,
        is_quorum,
        away: away[..4 - here as usize].to_vec(),
    };
    let of = |seats, uptime| ids(&Observed { seats: vec![seats], uptime, ..Observed::default() });
    let long = Duration::from_secs(10);
    assert_eq!(of(seats(4, true), long), [""; 0]);
    assert_eq!(of(seats(3, true), long), [format!("validator-away:{G}/x")]);
    let expected =
        [format!("validator-away:{G}/x"), format!("validator-away:{G}/y"), format!("no-quorum:{G}")];
    assert_eq!(of(seats(2, false), long), expected);
    assert_eq!(of(seats(2, false), long / 2), [""; 0], "they may be about to connect");
}

#[test]
fn a_disk_is_judged_by_share_and_by_bytes() {
    let severity = |free: u64, total: u64| {
        let observed = Observed { disk: Some((free, total)), ..Observed::default() };
        observed.conditions().first().map(|found| found.severity)
    };
    assert_eq!(severity(21 << 30, 1 << 40), None, "two hundredths of much are enough");
    assert_eq!(severity(1 << 30, 10 << 30), None, "and so is a tenth of little");
    assert_eq!(severity(400 << 20, 10 << 30), Some(Severity::Warning));
    assert_eq!(severity(50 << 20, 10 << 30), Some(Severity::Critical));
    assert_eq!(severity(0, 10 << 30), Some(Severity::Critical));
}

fn held(id: &str, severity: Severity) -> Condition {
    condition(id, severity, "text", "remedy")
}

#[test]
fn an_alert_is_noted_clears_and_comes_back_as_news() {
    let mut registry = Registry::default();
    let one = |registry: &Registry| registry.list().into_iter().find(|alert| alert.id == "a").unwrap();
    registry.settle(1, vec![held("a", Severity::Warning), held("b", Severity::Error)]);
    assert_eq!(registry.list().first().map(|alert| alert.id.clone()), Some("b".into()), "the worst first");
    assert_eq!(registry.acknowledge(&AckRequest::One("a".into())).unwrap().alerts, 1);
    registry.settle(2, vec![held("a", Severity::Warning)]);
    let alert = one(&registry);
    assert_eq!(
        (alert.state, alert.first_ms, alert.last_ms, alert.count),
        (AlertState::Acknowledged, 1, 2, 1)
    );
    registry.settle(3, vec![]);
    let alert = one(&registry);
    assert_eq!((alert.state, alert.last_ms), (AlertState::Cleared, 2));
    let gone = registry.acknowledge(&AckRequest::One("a".into())).unwrap_err();
    assert!(gone.kind == crate::node::Kind::NotFound && gone.message.contains("has cleared"), "{gone}");
    registry.settle(4, vec![held("a", Severity::Warning)]);
    let alert = one(&registry);
    assert_eq!((alert.state, alert.first_ms, alert.count), (AlertState::Active, 1, 2));
    // All of them, and none that is not there.
    assert_eq!(registry.acknowledge(&AckRequest::All).unwrap().alerts, 1);
    assert!(registry.acknowledge(&AckRequest::One("z".into())).is_err());
    // What gets worse is news.
    registry.settle(5, vec![held("a", Severity::Critical)]);
    assert_eq!((one(&registry).state, one(&registry).count), (AlertState::Active, 2));
}

#[test]
fn the_registry_is_bounded_and_keeps_what_holds() {
    let mut registry = Registry::default();
    registry.settle(1, vec![held("kept", Severity::Info)]);
    for n in 0..2 * ALERTS as u64 {
        registry.settle(n + 2, vec![held("kept", Severity::Info), held(&format!("{n}"), Severity::Error)]);
    }
    assert_eq!(registry.alerts.len(), ALERTS);
    assert_eq!(registry.alerts["kept"].state, AlertState::Active);
    let flood = || (0..2 * ALERTS).map(|n| held(&format!("flood{n}"), Severity::Error)).collect();
    registry.settle(10_000, flood());
    registry.settle(10_001, flood());
    assert_eq!(registry.alerts.len(), ALERTS);
    assert!(registry.alerts.values().all(|alert| alert.count == 1), "none pushes another out to come back");
}

#[test]
fn a_cache_counts_as_bypassed_for_a_while_after_the_last_time() {
    let mut registry = Registry::default();
    let begun = Instant::now();
    assert!(!registry.bypasses(0, begun));
    assert!(registry.bypasses(1, begun));
    assert!(registry.bypasses(1, begun + BYPASSED_FOR / 2));
    assert!(!registry.bypasses(1, begun + BYPASSED_FOR));
    assert!(registry.bypasses(2, begun + BYPASSED_FOR));
}
