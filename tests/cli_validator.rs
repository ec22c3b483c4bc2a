//! Validators come and go, and rights are given and taken, by commands alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;

use common::{Site, wait_until};
use serde_json::Value;

/// A network that one node decides, in epochs of a second, and a node that follows it.
fn two() -> (Site, Site) {
    let first = Site::initialised();
    let source = first.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    let uri = first.publish(&source, "data@v1");
    first.ok(["validator", "params", "--epoch", "1", "--heartbeat", "1", "--block-time", "20"]);
    assert_eq!(first.json(["validator"])["params"]["block_ms"], 20);
    first.fails(2, ["validator", "params", "--block-time", "9999999"]);
    let second = Site::new();
    second.ok(["init", "--join", &uri]);
    (first, second)
}

fn key(site: &Site) -> String {
    site.json(["keys"])["key"].as_str().unwrap().to_owned()
}

fn status(site: &Site) -> Value {
    site.json(["validator"])
}

/// The row of a node's key, as another node shows it.
fn row(shown_by: &Site, operator: &str) -> Value {
    let rows = status(shown_by)["validators"].as_array().unwrap().clone();
    rows.into_iter().find(|row| row["operator_key"] == operator).unwrap_or_default()
}

#[test]
fn a_node_joins_the_validators_votes_and_leaves() {
    let (first, second) = two();
    let (founder, newcomer) = (key(&first), key(&second));
    // What the genesis document says was once taken for a damaged log: there is no block 0.
    assert_eq!(first.json(["validator", "join"])["height"], 0);
    assert_eq!(first.json(["keys", "grant", &founder, "validator"])["already"], true);
    let message = second.fails(12, ["validator", "join"]);
    assert!(message.contains("needs the role validator"), "{message}");
    assert!(message.contains(&format!("bcai keys grant {newcomer} validator")), "{message}");
    let granted = first.json(["keys", "grant", &newcomer, "validator"]);
    assert_eq!((&granted["roles"], &granted["already"]), (&serde_json::json!(["validator"]), &false.into()));
    assert_eq!(second.run(["validator", "leave"]).code, 1, "it is none yet");
    wait_until("the role is known there", || second.run(["validator", "join"]).code == 0);
    let joined = second.json(["validator", "join"]);
    assert_eq!(joined["already"], true);
    wait_until("it votes", || status(&second)["own"]["deciding"] == true);
    wait_until("it is heard", || row(&first, &newcomer)["signed"].as_u64().unwrap_or_default() > 0);
    let shown = first.ok(["validator", "status"]);
    for part in [&founder, &newcomer, "policy    equal", "this node votes; connected with 1 of 1 others"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(row(&second, &founder)["connected"], true);
    wait_until("both decide the same", || status(&second)["validators"].as_array().unwrap().len() == 2);
    let source = second.dir("source");
    fs::write(source.join("file"), "of the newcomer").unwrap();
    second.publish(&source, "theirs@v1");
    wait_until("the first has it", || first.run(["cat", "theirs/file"]).stdout == "of the newcomer");

    // A proof leads through all sets of validators that there were since the genesis.
    let file = first.dir("proofs").join("data");
    let proven = first.json(["log", "--proof", "data@v1", "-o", file.to_str().unwrap()])["proven"].clone();
    assert_eq!(proven["head"]["validators"], 2);
    let genesis = proven["genesis"].as_str().unwrap();
    let checked = Site::new().json(["verify", "--offline", file.to_str().unwrap(), "--genesis", genesis]);
    assert_eq!(checked, proven);

    second.ok(["validator", "leave"]);
    assert!(second.fails(1, ["validator", "leave"]).contains("not an operator"));
    wait_until("it votes no more", || status(&first)["validators"].as_array().unwrap().len() == 1);
    wait_until("it knows", || status(&second)["own"]["seated"] == false);
    assert!(second.ok(["validator"]).contains("this node follows"));
    second.publish(&source, "theirs@v1");
    // The last one cannot end the network.
    first.ok(["validator", "leave"]);
    let epoch = status(&first)["epoch"].as_u64().unwrap();
    wait_until("the network goes on", || status(&first)["epoch"].as_u64().unwrap() > epoch + 3);
    assert_eq!(status(&first)["own"]["deciding"], true);
}

#[test]
fn a_validator_whose_key_was_replaced_votes_by_the_old_one_until_it_has_left() {
    let (first, second) = two();
    let old = key(&second);
    first.ok(["keys", "grant", &old, "validator"]);
    wait_until("it may join", || second.run(["validator", "join"]).code == 0);
    wait_until("it votes", || row(&first, &old)["signed"].as_u64().unwrap_or_default() > 0);
    let new = second.json(["keys", "rotate"])["new"].as_str().unwrap().to_owned();
    second.ok(["stop"]);
    second.ok(["daemon"]);
    wait_until("it votes by its old key", || status(&second)["own"]["deciding"] == true);
    assert_eq!(status(&second)["own"]["voter"], old.as_str());
    wait_until("the new one stands for it", || row(&first, &new)["voter"] == old.as_str());
    let signed = row(&first, &new)["could_sign"].as_u64().unwrap();
    wait_until("it is heard", || {
        let row = row(&first, &new);
        row["could_sign"].as_u64().unwrap() > signed + 1 && row["signed"].as_u64().unwrap() > 1
    });

    second.ok(["validator", "leave"]);
    wait_until("it has no seat", || status(&second)["validators"].as_array().unwrap().len() == 1);
    assert!(second.home.join("voting.key").exists());
    second.ok(["stop"]);
    assert!(!second.home.join("voting.key").exists());
    wait_until("it is back", || second.run(["validator", "join"]).code == 0);
    assert_eq!(status(&second)["own"]["voter"], new.as_str());
    wait_until("it votes by its new key", || {
        let row = row(&first, &new);
        row["voter"] == new.as_str() && row["signed"].as_u64().unwrap() > 0
    });
}

#[test]
fn stake_is_given_by_admins_and_counts_where_its_holder_puts_it() {
    let (first, second) = two();
    let (founder, holder) = (key(&first), key(&second));
    assert!(second.fails(12, ["validator", "stake", &holder, "5"]).contains("an admin"));
    let given = first.ok(["--json", "validator", "stake", &holder, "5"]);
    assert!(given.contains(r#""policy":"equal""#), "{given}");
    let note = first.run(["validator", "stake", &holder, "7"]).stderr;
    assert!(note.contains("does not count under this network's policy, equal"), "{note}");
    assert_eq!(first.json(["validator", "stake", &holder, "7"])["already"], true);
    assert_eq!(row(&first, &founder)["stake"], 1, "its first weight");
    wait_until("the stake is known there", || status(&second)["own"]["stake"] == 7);
    second.ok(["validator", "delegate", &founder]);
    wait_until("it is known at the first", || row(&first, &founder)["stake"] == 8);
    assert_eq!(status(&second)["own"]["behind"], founder.as_str());
    second.ok(["validator", "delegate", &holder]);
    wait_until("it is known at the first", || row(&first, &founder)["stake"] == 1);
    first.ok(["validator", "params", "--policy", "delegated", "--seats", "7"]);
    let params = &status(&first)["params"];
    assert_eq!(
        (&params["policy"], &params["seats"], &params["epoch_ms"]),
        (&"delegated".into(), &7.into(), &1000.into())
    );

    for (code, site, args) in [
        (2, &first, &["validator", "stake", "zz", "1"][..]),
        (2, &first, &["validator", "params", "--policy", "lottery"]),
        (2, &first, &["validator", "params", "--epoch", "0"]),
        (1, &first, &["validator", "release", &founder]),
        (1, &first, &["validator", "delegate", &holder]),
        (12, &second, &["validator", "release", &founder]),
        (12, &second, &["validator", "params", "--seats", "1"]),
    ] {
        let message = site.fails(code, args);
        assert!(message.len() > 20, "{args:?}: {message}");
    }
}

#[test]
fn rights_are_given_in_the_network_and_with_one_dataset_and_taken_back() {
    let (first, second) = two();
    let theirs = key(&second);
    let source = second.dir("source");
    fs::write(source.join("file"), "second").unwrap();
    let publish = ["publish", source.to_str().unwrap(), "data@v2"];
    wait_until("the name is known there", || second.fails(12, publish).contains("ask its owner for a grant"));
    let granted = first.json(["keys", "grant", &theirs, "publisher", "--dataset", "data"]);
    assert_eq!(granted["roles"], serde_json::json!(["publisher"]));
    wait_until("the grant is known there", || second.run(publish).code == 0);
    let known = second.json(["keys"]);
    assert_eq!(
        known["networks"][0]["granted"],
        serde_json::json!([{"name": "data", "roles": ["publisher"]}])
    );
    let roles = |args: &[&str]| first.json(args)["roles"].clone();
    assert_eq!(
        roles(&["keys", "grant", &theirs, "reader", "--dataset", "data"]),
        serde_json::json!(["reader", "publisher"])
    );
    assert_eq!(
        roles(&["keys", "revoke", &theirs, "publisher", "--dataset", "data"]),
        serde_json::json!(["reader"])
    );
    fs::write(source.join("file"), "third").unwrap();
    let third = ["publish", source.to_str().unwrap(), "data@v3"];
    wait_until("it is known there", || second.run(third).code == 12);
    assert_eq!(roles(&["keys", "revoke", &theirs, "--dataset", "data"]), serde_json::json!([]));

    assert_eq!(
        roles(&["keys", "grant", &theirs, "storage", "admin"]),
        serde_json::json!(["storage", "admin"])
    );
    wait_until("an admin may", || second.run(["keys", "grant", &key(&first), "storage"]).code == 0);
    assert_eq!(roles(&["keys", "revoke", &theirs]), serde_json::json!([]));
    assert_eq!(first.json(["keys", "revoke", &theirs])["already"], true);
    for (code, args) in [
        (2, &["keys", "grant", &theirs, "root"][..]),
        (2, &["keys", "grant", "zz", "reader"]),
        (2, &["keys", "grant", &theirs, "reader", "--dataset", "a b"]),
        (10, &["keys", "grant", &theirs, "reader", "--dataset", "nothing"]),
        (1, &["keys", "revoke", &key(&first), "admin"]),
    ] {
        let message = first.fails(code, args);
        assert!(message.len() > 20, "{args:?}: {message}");
    }
}
