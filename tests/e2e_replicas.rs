//! What is published is on as many storage nodes as it should be, whoever is lost; and storing it earns a score.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Site, assert_same_tree, noise, wait_until};
use serde_json::Value;

fn key(site: &Site) -> String {
    site.json(["keys"])["key"].as_str().unwrap().to_owned()
}

/// A publisher, which decides the log, and nodes to which it has given the role storage.
struct Network {
    publisher: Site,
    nodes: Vec<Site>,
    source: PathBuf,
}

/// Nodes count as lost after four seconds.
fn hasty(zone: &str) -> Site {
    let mut site = Site::new();
    site.settings.push(("BCAI_REPLICAS_LOST_AFTER".into(), "4".into()));
    site.settings.push(("BCAI_REPLICAS_ZONE".into(), zone.into()));
    site
}

impl Network {
    fn new(zones: &[&str]) -> Network {
        let publisher = hasty("");
        publisher.ok(["init"]);
        let status = publisher.status();
        let genesis = status["networks"][0]["genesis"].as_str().unwrap().to_owned();
        let address = status["addresses"][0].as_str().unwrap().to_owned();
        let join = |zone: &&str| {
            let site = hasty(zone);
            site.ok(["init", "--join", &format!("bcai://{genesis}/any?peer={address}")]);
            publisher.ok(["keys", "grant", &key(&site), "storage"]);
            site
        };
        let nodes: Vec<Site> = zones.iter().map(join).collect();
        let source = publisher.dir("source");
        fs::create_dir(source.join("deep")).unwrap();
        for at in 0..40u64 {
            fs::write(source.join(format!("deep/{at}")), noise(at, 20_000)).unwrap();
        }
        fs::write(source.join("large"), noise(99, 9 << 20)).unwrap();
        Network { publisher, nodes, source }
    }

    fn publish(&self, args: &[&str]) -> Value {
        let mut all = vec!["publish", self.source.to_str().unwrap()];
        all.extend(args);
        self.publisher.json(all)
    }

    /// How many nodes hold everything, as they say themselves.
    fn holding(&self) -> Vec<usize> {
        let holds = |site: &Site| {
            let done = site.run(["--json", "status"]);
            let status: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
            status["replicas"][0]["here"].as_u64().unwrap_or(0) as usize
        };
        self.nodes.iter().map(holds).collect()
    }

    /// Bytes that the nodes have taken over from others.
    fn taken_over(&self) -> u64 {
        let bytes =
            |site: &Site| site.status()["replicas"][0]["taken_over_bytes"].as_u64().unwrap_or_default();
        self.nodes.iter().map(bytes).sum()
    }

    fn under(&self) -> Vec<String> {
        let under = self.publisher.status()["replicas"][0]["under"].as_array().cloned().unwrap_or_default();
        under.iter().map(|row| row["version"].as_str().unwrap().to_owned()).collect()
    }
}

fn read_by_a_stranger(uri: &str, through: &Site, source: &Path) {
    let (head, _) = uri.split_once('?').unwrap();
    let address = through.status()["addresses"][0].as_str().unwrap().to_owned();
    let reader = Site::new();
    let mounted = reader.mount(&format!("{head}?peer={address}"), "mounted");
    assert_same_tree(source, &mounted);
    reader.ok(["unmount", mounted.to_str().unwrap()]);
}

#[test]
fn two_of_five_storage_nodes_and_the_publisher_are_lost_and_nothing_else() {
    let mut network = Network::new(&["a", "a", "b", "b", "c"]);
    let published = network.publish(&["data@v1", "--replicas", "3", "--ack", "all"]);
    assert_eq!((&published["copies"], &published["acknowledged"]), (&3.into(), &3.into()));
    let uri = published["uri"].as_str().unwrap().to_owned();
    // They look every second, and show what they saw.
    wait_until("all three show it", || network.holding().iter().sum::<usize>() == 3);
    let holding = network.holding();
    // One in each zone.
    assert_eq!((holding[0] + holding[1], holding[2] + holding[3], holding[4]), (1, 1, 1));
    assert_eq!(network.under(), Vec::<String>::new());

    let bytes = 40 * 20_000 + (9 << 20);
    for _ in 0..2 {
        let lost = network.holding().iter().position(|held| *held == 1).unwrap();
        network.nodes[lost].kill();
        network.nodes.remove(lost);
        let before = network.taken_over();
        wait_until("others have taken over", || network.holding().iter().sum::<usize>() == 3);
        wait_until("the publisher knows", || network.under().is_empty());
        assert_eq!(network.taken_over() - before, bytes, "by one, and once");
    }

    // With one more gone there are too few, and that is said.
    network.nodes.pop().unwrap().kill();
    wait_until("that there are too few is said", || {
        let shown = network.publisher.ok(["status"]);
        shown.contains("data@v1: 2 of 3 copies") && shown.contains("alert     warning under-replicated:")
    });

    // The publisher's disk is gone, and one who has never heard of any of them reads.
    network.publisher.kill();
    read_by_a_stranger(&uri, &network.nodes[0], &network.source);
}

#[test]
fn a_version_is_not_published_with_fewer_copies_than_it_was_to_have() {
    let network = Network::new(&["", ""]);
    let source = network.source.to_str().unwrap();
    let publisher = &network.publisher;
    let message = publisher.fails(2, ["publish", source, "data@v1", "--replicas", "3"]);
    assert!(message.contains("there are 2") && message.contains("keys grant KEY storage"), "{message}");
    assert_eq!(publisher.status()["store"]["objects"], 0, "it is said before anything is read");
    network.nodes[1].kill();
    let message = publisher.fails(14, ["publish", source, "data@v1", "--replicas", "2", "--ack", "all"]);
    assert!(message.contains("2 storage nodes must acknowledge"), "{message}");
    assert!(publisher.run(["cat", "data@v1/large"]).code == 10, "it was not published");
    // With one it is, and the other takes its copy when it is back.
    let published = network.publish(&["data@v1", "--replicas", "2", "--ack", "one"]);
    assert_eq!((&published["copies"], &published["acknowledged"]), (&2.into(), &1.into()));
    network.nodes[1].ok(["daemon"]);
    wait_until("the other has it too", || network.holding() == [1, 1]);
    // More than there can be; and then as many as there are.
    publisher.ok(["validator", "params", "--replicas", "3"]);
    let message = publisher.fails(2, ["publish", source, "data@v2"]);
    assert!(message.contains("this network demands 3 replica(s)"), "{message}");
    // A network that demands acknowledgements gets them without being asked twice.
    publisher.ok(["validator", "params", "--replicas", "2"]);
    fs::write(network.source.join("more"), "more").unwrap();
    let published = network.publish(&["data@v2", "--replicas", "0"]);
    assert_eq!((&published["copies"], &published["acknowledged"]), (&2.into(), &2.into()));
}

#[test]
fn a_replica_outlives_sigkill_and_is_let_go_after_the_version_is_withdrawn() {
    let mut network = Network::new(&[""]);
    network.nodes[0].settings.push(("BCAI_REPLICAS_KEEP_WITHDRAWN".into(), "0".into()));
    network.publish(&["data@v1", "--ack", "all"]);
    network.nodes[0].kill();
    network.nodes[0].ok(["daemon"]);
    wait_until("it still holds it", || network.holding() == [1]);
    let id = network.nodes[0].json(["cache"])["pins"][0]["reference"].as_str().unwrap().to_owned();
    assert!(
        network.nodes[0].fails(10, ["unpin", &id]).contains("not pinned"),
        "it is not the user's to unpin"
    );
    network.publisher.ok(["yank", "data@v1", "--reason", "wrong labels"]);
    wait_until("it is let go", || network.holding() == [0]);
    wait_until("nothing is held", || network.nodes[0].json(["cache"])["pinned_bytes"].as_u64() == Some(0));
}

#[test]
fn who_stores_for_the_network_earns_a_score() {
    let network = Network::new(&["", ""]);
    let publisher = &network.publisher;
    let stored = key(&network.nodes[0]);
    publisher.ok(["keys", "grant", &stored, "storage", "validator"]);
    network.publish(&["data@v1", "--replicas", "2", "--ack", "all"]);
    // Nor need they be able to read it.
    let sealed = network.publish(&["sealed@v1", "--encrypt", "--replicas", "2", "--ack", "all"]);
    publisher.ok(["validator", "params", "--policy", "useful-work", "--epoch", "2", "--heartbeat", "1"]);
    wait_until("the role is known there", || network.nodes[0].run(["validator", "join"]).code == 0);
    let score = || {
        let shown = publisher.json(["validator"]);
        let rows = shown["validators"].as_array().unwrap();
        rows.iter()
            .find(|row| row["operator_key"] == stored)
            .and_then(|row| row["score"].as_u64())
            .unwrap_or(0)
    };
    wait_until("challenges were answered", || score() > 0);
    let snapshot = sealed["snapshot"].as_str().unwrap();
    let proven = format!("prove storage of {snapshot}");
    wait_until("storing what is encrypted is proven too", || publisher.ok(["log"]).contains(&proven));
    network.nodes[0].fails(12, ["ls", "sealed@v1"]);
}
