//! Keys: shown, made once, and replaced without a moment in which the node owns nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use common::{Running, Site, sigkill, wait_until};
use serde_json::Value;

struct Author {
    site: Site,
    source: PathBuf,
    versions: u32,
}

impl Author {
    fn new(site: Site) -> Self {
        let source = site.dir("source");
        Self { site, source, versions: 0 }
    }

    /// Publishes the next version of `data`, and returns its URI.
    fn publish(&mut self) -> String {
        self.versions += 1;
        fs::write(self.source.join("file"), self.versions.to_string()).unwrap();
        self.site.publish(&self.source, &format!("data@v{}", self.versions))
    }

    fn keys(&self) -> Value {
        self.site.json(["keys"])
    }

    /// Who wrote the newest entry about `data`.
    fn author(&self) -> String {
        let log = self.site.json(["log", "data"]);
        log.as_array().unwrap().last().unwrap()["entries"][0]["author"].as_str().unwrap().to_owned()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.site.home.join(name)
    }
}

/// A network with one validator, and an author in it who has published.
fn author() -> (Site, Author) {
    let first = Site::initialised();
    let source = first.dir("source");
    fs::write(source.join("file"), "theirs").unwrap();
    let uri = first.publish(&source, "other@v1");
    let mut author = Author::new(Site::new());
    author.site.ok(["init", "--join", &uri]);
    author.publish();
    (first, author)
}

#[test]
fn a_key_is_made_once_and_looking_makes_none() {
    let site = Site::new();
    assert!(site.fails(10, ["keys"]).contains("bcai keys new"));
    assert!(!site.home.exists());
    let key = site.json(["keys", "new"])["key"].as_str().unwrap().to_owned();
    let file = site.home.join("identity.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let held = fs::read_to_string(&file).unwrap();
    assert!(site.fails(1, ["keys", "new"]).contains(&key));
    assert_eq!(fs::read_to_string(&file).unwrap(), held);
    assert!(site.fails(1, ["keys", "rotate"]).contains("no network"));
    site.ok(["init"]);
    let keys = site.json(["keys", "show"]);
    assert_eq!(
        (&keys["key"], &keys["running"], &keys["next"]),
        (&key.clone().into(), &key.clone().into(), &Value::Null)
    );
    assert_eq!(keys["networks"][0]["roles"], serde_json::json!(["validator", "admin"]));
    let secret = held.lines().nth(1).unwrap();
    for shown in [keys.to_string(), site.ok(["keys"]), site.daemon_log()] {
        assert!(!shown.contains(secret), "a secret was shown");
    }
    // A node that has a past and lost its key is not given another.
    site.ok(["stop"]);
    fs::remove_file(&file).unwrap();
    assert!(site.fails(10, ["keys", "new"]).contains("is gone"));
}

#[test]
fn a_new_key_takes_over_the_names_and_the_peer_id_of_an_author() {
    let (first, mut author) = author();
    let before = author.keys();
    let done = author.site.json(["keys", "rotate"]);
    assert_eq!(
        (&done["old"], &done["votes"], &done["changes_at_start"]),
        (&before["key"], &false.into(), &true.into())
    );
    let new = done["new"].as_str().unwrap();
    author.publish();
    assert_eq!(author.author(), new);
    author.site.ok(["stop"]);
    author.publish();
    let after = author.keys();
    assert_eq!((after["key"].as_str(), &after["running"]), (Some(new), &after["key"]));
    assert_ne!(after["peer_id"], before["peer_id"]);
    assert_eq!(after["networks"][0]["first"], before["key"], "what it owns is recorded under the first key");
    assert_eq!(after["networks"][0]["owns"], serde_json::json!(["data"]));
    assert_eq!(author.site.json(["tag", "data", "stable", "v1"])["already"], false);
    wait_until("the others follow", || first.run(["cat", "data@v3/file"]).stdout == "3");
    // And once more.
    let second = author.site.json(["keys", "rotate"])["new"].as_str().unwrap().to_owned();
    author.site.ok(["stop"]);
    author.publish();
    assert_eq!(author.author(), second);
    assert_eq!(author.keys()["networks"][0]["first"], before["key"]);
    // No key was lost.
    for key in [&before["key"], &after["key"]] {
        let name = format!("identity.key.{}", &key.as_str().unwrap()[..10]);
        assert!(author.file(&name).exists(), "{name}");
    }
    assert!(!author.file("identity.key.next").exists() && !author.file("voting.key").exists());
}

#[test]
fn the_old_key_of_a_validator_goes_on_voting() {
    let mut author = Author::new(Site::initialised());
    author.publish();
    let before = author.keys();
    let done = author.site.json(["keys", "rotate"]);
    assert_eq!((&done["votes"], &done["changes_at_start"]), (&true.into(), &false.into()));
    for _ in 0..2 {
        author.publish();
        assert_eq!(author.author(), done["new"].as_str().unwrap());
        let after = author.keys();
        assert_eq!((&after["running"], &after["peer_id"]), (&before["key"], &before["peer_id"]));
        assert_eq!(author.site.status()["networks"][0]["validator"], true);
        author.site.ok(["stop"]);
    }
    author.site.ok(["keys", "rotate"]);
    author.site.kill();
    author.publish();
    assert_eq!(author.keys()["running"], before["key"]);
    assert_eq!(author.site.ok(["cat", "data/file"]), author.versions.to_string());
}

#[test]
fn what_cannot_be_decided_now_goes_on_later_with_the_same_key() {
    let (first, mut author) = author();
    first.ok(["stop"]);
    let failed = author.site.run(["--json", "keys", "rotate"]);
    assert_eq!(failed.code, 14, "{}{}", failed.stdout, failed.stderr);
    let failed: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!(
        (failed["networks"].as_array().unwrap().len(), failed["failed"].as_array().unwrap().len()),
        (0, 1)
    );
    assert_eq!(author.keys()["next"], failed["new"]);
    author.site.ok(["stop"]);
    first.ok(["daemon"]);
    // Until then the old one counts.
    author.site.ok(["daemon"]);
    wait_until("they are connected again", || author.site.run(["tag", "data", "t", "v1"]).code == 0);
    author.publish();
    assert_eq!(author.author(), failed["old"].as_str().unwrap());
    assert_eq!(author.site.json(["keys", "rotate"])["new"], failed["new"]);
    author.publish();
    assert_eq!(author.author(), failed["new"].as_str().unwrap());
}

#[test]
fn in_each_network_the_key_counts_that_its_log_knows() {
    let (_first, mut author) = author();
    let old = author.keys()["key"].as_str().unwrap().to_owned();
    // A second network, in which the author has a role and nothing else.
    let other = Site::initialised();
    let source = other.dir("source");
    let uri = other.publish(&source, "empty@v1");
    author.site.ok(["init", "--join", &uri]);
    other.ok(["keys", "grant", &old, "storage"]);
    let in_other = |author: &Author| {
        let networks = author.keys()["networks"].as_array().unwrap().clone();
        networks.into_iter().find(|network| network["default"] == false).unwrap()
    };
    wait_until("the role is known", || in_other(&author)["roles"] == serde_json::json!(["storage"]));
    other.ok(["stop"]);
    let done = author.site.run(["--json", "keys", "rotate"]);
    assert_eq!(done.code, 14, "{}{}", done.stdout, done.stderr);
    let done: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(
        (done["networks"].as_array().unwrap().len(), done["failed"].as_array().unwrap().len()),
        (1, 1)
    );
    let new = done["new"].as_str().unwrap();
    for _ in 0..2 {
        author.publish();
        assert_eq!(author.author(), new);
        assert_eq!((&in_other(&author)["key"], &author.keys()["next"]), (&old.clone().into(), &new.into()));
        author.site.kill();
    }
    other.ok(["daemon"]);
    wait_until("the other network is told too", || author.site.run(["keys", "rotate"]).code == 0);
    let known = in_other(&author);
    assert_eq!((&known["key"], &known["first"]), (&new.into(), &old.clone().into()));
    assert_eq!(known["roles"], serde_json::json!(["storage"]));
    assert_eq!(author.keys()["next"], Value::Null);
    author.publish();
    assert_eq!(author.author(), new);
}

#[test]
fn a_key_is_not_replaced_while_it_is_not_known_what_it_owns() {
    let (first, mut author) = author();
    author.site.ok(["stop"]);
    first.ok(["stop"]);
    let (logs, aside) = (author.file("networks"), author.site.dir("aside").join("networks"));
    fs::rename(&logs, &aside).unwrap();
    let message = author.site.fails(1, ["keys", "rotate"]);
    assert!(message.contains("is not here") && message.contains("nothing was changed"), "{message}");
    assert!(!author.file("identity.key.next").exists());
    author.site.ok(["stop"]);
    fs::remove_dir_all(&logs).unwrap();
    fs::rename(&aside, &logs).unwrap();
    first.ok(["daemon"]);
    wait_until("they are connected again", || author.site.run(["keys", "rotate"]).code == 0);
    author.publish();
    assert_eq!(author.author(), author.keys()["key"].as_str().unwrap());
}

/// Kills the node while it replaces its key, as soon as there is a file of this name; then the node must own its names.
fn killed_at(author: &mut Author, name: impl Fn(&Author) -> PathBuf) {
    // On a busy machine the file may have come and gone before it was seen: then another key is replaced.
    let mut seen = false;
    while !seen {
        let (watched, pid) = (name(author), author.site.pid().unwrap());
        // Nobody starts another one while the files are looked at.
        if let Some(supervisor) = author.site.status()["supervisor"].as_u64() {
            sigkill(supervisor as u32);
        }
        let mut rotating = author.site.command(["keys", "rotate"]);
        let mut rotating = Running(rotating.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait_until("the file is there, or was", || {
            seen = watched.exists();
            seen || rotating.0.try_wait().unwrap().is_some()
        });
        if seen {
            // At once: asking for its process id would take longer than what shall be interrupted.
            sigkill(pid);
        }
    }
    wait_until("the daemon is gone", || author.site.run(["status"]).code == 10);
    author.publish();
    author.site.ok(["keys", "rotate"]);
    author.publish();
    assert_eq!(author.author(), author.keys()["key"].as_str().unwrap());
    assert_eq!(author.keys()["next"], Value::Null);
}

#[test]
fn a_node_that_is_killed_while_it_replaces_its_key_owns_what_it_owned() {
    let (_first, mut author) = author();
    killed_at(&mut author, |author| author.file("identity.key.next"));
    killed_at(&mut author, |author| {
        let key = author.keys()["key"].as_str().unwrap()[..10].to_owned();
        author.file(&format!("identity.key.{key}"))
    });
    let mut lone = Author::new(Site::initialised());
    lone.publish();
    killed_at(&mut lone, |lone| lone.file("voting.key"));

    // Between the decision and the change of the files, with and without the copy of the old key.
    for copied in [false, true] {
        let done = author.site.json(["keys", "rotate"]);
        author.site.ok(["stop"]);
        let old = author.file(&format!("identity.key.{}", &done["old"].as_str().unwrap()[..10]));
        fs::rename(author.file("identity.key"), author.file("identity.key.next")).unwrap();
        fs::hard_link(&old, author.file("identity.key")).unwrap();
        if !copied {
            fs::remove_file(&old).unwrap();
        }
        author.publish();
        assert_eq!(author.author(), done["new"].as_str().unwrap());
        assert_eq!(author.keys()["key"], done["new"]);
        assert!(old.exists() && !author.file("identity.key.next").exists());
    }
}

#[test]
fn a_locked_key_starts_no_node_without_its_passphrase() {
    let mut site = Site::new();
    // Without a terminal, wherever the test runs.
    site.prefix = ["setsid", "--wait"].map(str::to_owned).to_vec();
    let set = |site: &mut Site, name: &str, value: &str| {
        site.settings.retain(|(name, _)| !name.starts_with("BCAI_PASSPHRASE"));
        site.settings.push((name.to_owned(), value.to_owned()));
    };
    let message = site.fails(12, ["init", "--passphrase"]);
    assert!(message.contains("no terminal") && message.contains("BCAI_PASSPHRASE"), "{message}");
    set(&mut site, "BCAI_PASSPHRASE", "correct horse");
    site.ok(["init", "--passphrase"]);
    let source = site.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    site.ok(["publish", "--encrypt", source.to_str().unwrap(), "data@v1"]);
    let done = site.json(["keys", "rotate"]);
    let message = site.fails(11, ["keys", "passphrase", "--remove"]);
    assert!(message.contains("bcai stop"), "{message}");
    site.ok(["stop"]);
    for file in fs::read_dir(&site.home).unwrap().flatten().map(|file| file.path()) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if name.contains(".key") && !name.contains("dataset") {
            assert!(fs::read_to_string(&file).unwrap().starts_with("bcai identity 2\nargon2id"), "{name}");
        }
    }
    set(&mut site, "BCAI_PASSPHRASE", "battery staple");
    assert!(site.fails(12, ["list"]).contains("passphrase is wrong"));
    site.settings.pop();
    assert!(site.fails(12, ["list"]).contains("no terminal"));
    let message = site.fails(12, ["daemon", "--foreground"]);
    assert!(message.contains("is locked") && message.contains("BCAI_PASSPHRASE_FILE"), "{message}");
    let file = site.dir("outside").join("passphrase");
    fs::write(&file, "correct horse\n").unwrap();
    set(&mut site, "BCAI_PASSPHRASE_FILE", file.to_str().unwrap());
    assert_eq!(site.json(["keys"])["key"], done["new"]);
    assert_eq!(site.ok(["cat", "data@v1/file"]), "content");
    site.ok(["stop"]);
    site.ok(["keys", "passphrase", "--remove"]);
    site.settings.pop();
    assert_eq!(site.ok(["cat", "data@v1/file"]), "content");
}
