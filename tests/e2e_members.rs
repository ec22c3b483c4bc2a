//! A network for members only: who has no part in it learns nothing of it, and gets nothing from its nodes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;

use common::{Site, assert_same_tree, noise, wait_until};

fn key(site: &Site) -> String {
    site.json(["keys", "new"])["key"].as_str().unwrap().to_owned()
}

#[test]
fn a_stranger_gets_neither_log_nor_content_and_a_member_both() {
    let publisher = Site::initialised();
    let source = publisher.dir("source");
    for at in 0..20u64 {
        fs::write(source.join(format!("{at}")), noise(at, 30_000)).unwrap();
    }
    let published = publisher.json(["publish", source.to_str().unwrap(), "data@v1"]);
    let uri = published["uri"].as_str().unwrap().to_owned();
    publisher.ok(["validator", "params", "--members-only", "true"]);
    assert_eq!(publisher.json(["validator"])["params"]["members_only"], true);

    let stranger = Site::new();
    let message = stranger.fails(10, ["mount", &uri, stranger.dir("mounted").to_str().unwrap()]);
    assert!(message.contains("members only") && message.contains("keys grant KEY reader"), "{message}");
    // Nor does it help to know a snapshot.
    let address = publisher.status()["addresses"][0].as_str().unwrap().to_owned();
    stranger.ok(["peers", "add", &address]);
    let snapshot = published["snapshot"].as_str().unwrap();
    let message = stranger.fails(14, ["ls", snapshot]);
    assert!(!message.contains("members"), "as of what does not exist: {message}");

    let member = Site::new();
    publisher.ok(["keys", "grant", &key(&member), "reader"]);
    let mounted = member.mount(&uri, "mounted");
    assert_same_tree(&source, &mounted);
    // What it was given it does not pass on either.
    let address = member.status()["addresses"][0].as_str().unwrap().to_owned();
    let other = Site::new();
    other.ok(["peers", "add", &address]);
    assert_eq!(other.run(["ls", snapshot]).code, 14);

    // From then on it is a stranger like any.
    member.ok(["unmount", mounted.to_str().unwrap()]);
    publisher.ok(["keys", "revoke", member.json(["keys"])["key"].as_str().unwrap()]);
    fs::write(source.join("more"), "more").unwrap();
    publisher.publish(&source, "data@v2");
    wait_until("it is shown nothing more", || member.run(["ls", "data@v2"]).code != 0);
    let latest = member.json(["list"])[0]["versions"].as_array().unwrap().len();
    assert_eq!(latest, 1, "it knows what it was told before");
}
