//! Two machines at home, each behind a router that lets nobody in, and a relay that both can reach.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;

use bcai_lan::Lan;
use common::{Site, assert_same_tree, noise, wait_until};
use serde_json::Value;

/// Of one file. What is said beside it is far less.
const SIZE: usize = 4 << 20;

fn connected(site: &Site) -> Vec<Value> {
    let peers = site.status()["peers"].as_array().cloned().unwrap_or_default();
    peers.into_iter().filter(|peer| peer["state"] == "connected").collect()
}

#[test]
#[cfg_attr(
    not(all(fuse_available, nat)),
    ignore = "needs /dev/fuse, root to make network namespaces, and nft (nftables) to make routers of them"
)]
fn two_machines_behind_routers_come_to_a_direct_connection_through_a_relay() {
    let mut lan = Lan::new(4, None).unwrap();
    let homes = [1, 2].map(|router| lan.behind(router).unwrap());
    let mut relay = Site::at(&lan, 0);
    relay.settings.push(("BCAI_NET_RELAY".into(), "true".into()));
    relay.ok(["daemon"]);
    let at_relay = relay.status()["addresses"][0].as_str().unwrap().to_owned();
    let [source, reader] = homes.map(|home| {
        let mut site = Site::at(&lan, home);
        site.settings.push(("BCAI_NET_RELAYS".into(), at_relay.clone()));
        site
    });

    source.ok(["init"]);
    let via_relay = || {
        let addresses = source.status()["addresses"].as_array().cloned().unwrap_or_default();
        addresses.iter().any(|address| address.as_str().unwrap().contains("/p2p-circuit"))
    };
    wait_until("the source has its place at the relay", via_relay);
    let folder = source.dir("source");
    fs::write(folder.join("file"), noise(1, SIZE)).unwrap();
    let uri = source.publish(&folder, "data@v1");
    assert!(uri.contains("p2p-circuit"), "{uri}");

    reader.ok(["init", "--join", &uri]);
    let id = source.status()["peer_id"].as_str().unwrap().to_owned();
    let is_direct =
        || connected(&reader).iter().any(|peer| peer["peer_id"] == id && peer["relayed"] == false);
    wait_until("a direct connection", is_direct);
    // Neither knows of the other's machine but what its router shows.
    let shown = connected(&reader).into_iter().find(|peer| peer["peer_id"] == id).unwrap();
    assert!(shown.to_string().contains(&format!("/ip4/{}/", lan.address(1))), "{shown}");

    // Each knows whether others reach it, since others have tried.
    let tried = |site: &Site, reached: bool| {
        let trials = site.status()["trials"].as_array().cloned().unwrap_or_default();
        !trials.is_empty() && trials.iter().any(|trial| trial["reached"] == true) == reached
    };
    wait_until("the source is tried in vain", || tried(&source, false));
    let doctor = source.ok(["doctor"]);
    assert!(doctor.contains("nobody outside can connect") && doctor.contains("through a relay"), "{doctor}");
    let open = Site::at(&lan, 3);
    open.ok(["init", "--join", &uri]);
    wait_until("one without a router before it is reached", || tried(&open, true));
    assert!(open.ok(["doctor"]).contains("reach      others connect to"));

    let before = lan.sent(0).unwrap();
    let mounted = reader.mount(&uri, "mnt");
    assert_same_tree(&folder, &mounted);
    let relayed = lan.sent(0).unwrap() - before;
    assert!(relayed < SIZE as u64 / 4, "{relayed} bytes went through the relay");
}
