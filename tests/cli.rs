//! The command line as users and scripts meet it: messages, exit codes, pages.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use common::{Site, done};

fn published() -> (Site, String) {
    let site = Site::initialised();
    let source = site.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    let uri = site.publish(&source, "data@v1");
    (site, uri)
}

#[test]
fn manual_pages_are_those_of_the_code() {
    let pages = bcai::cli::pages().unwrap();
    for (name, page) in &pages {
        let committed =
            fs::read_to_string(format!("{}/man/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap_or_default();
        assert!(committed == *page, "man/{name} is out of date: cargo run -p bcai-tools -- man");
    }
    let files = fs::read_dir(format!("{}/man", env!("CARGO_MANIFEST_DIR"))).unwrap().count();
    assert_eq!(files, pages.len(), "man/ holds a page of no command");
}

#[test]
fn completions_know_every_command() {
    let site = Site::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = site.ok(["completions", shell]);
        for (page, _) in bcai::cli::pages().unwrap() {
            let Some(command) = page.strip_prefix("bcai-") else { continue };
            for word in command.trim_end_matches(".1").split('-') {
                assert!(script.contains(word), "{shell} does not complete {word}");
            }
        }
    }
    assert!(site.ok(["man", "publish"]).contains(".SH"));
}

#[test]
fn usage_mistakes_exit_with_2() {
    let site = Site::new();
    for args in
        [&["nonsense"][..], &["publish", "one"], &["-c", "net.mdsn=false", "list"], &["-c", "x", "list"]]
    {
        assert_eq!(site.run(args).code, 2, "{args:?}");
    }
    let (site, _) = published();
    site.fails(2, ["ls", "bcai://nonsense/data@v1"]);
    site.fails(2, ["ls", "data@"]);
    site.fails(2, ["cat", "data@v1"]);
    let source = site.dir("source");
    for target in ["data", "data@latest", "Data@v1", "../data@v1", "data@v 1"] {
        site.fails(2, [OsStr::new("publish"), source.as_os_str(), OsStr::new(target)]);
    }
}

#[test]
fn an_unknown_key_is_named_with_its_file() {
    let site = Site::new();
    fs::create_dir_all(&site.home).unwrap();
    fs::write(site.home.join("config.toml"), "[cache]\nmax_byte = \"1GB\"\n").unwrap();
    let message = site.fails(2, ["list"]);
    assert!(message.contains("cache.max_byte") && message.contains("config.toml"), "{message}");
    assert!(message.contains("cache.max_bytes"), "{message}");
}

#[test]
fn what_does_not_exist_exits_with_10() {
    let (site, _) = published();
    let message = site.fails(10, ["ls", "data@v9"]);
    assert!(message.contains("v9") && message.contains("latest version is v1"), "{message}");
    assert!(site.fails(10, ["ls", "nothing"]).contains("no dataset `nothing`"));
    assert!(site.fails(10, ["cat", "data@v1/none"]).contains("none"));
    assert!(site.fails(10, ["publish", "/does/not/exist", "data@v2"]).contains("/does/not/exist"));
    assert!(site.fails(10, ["mount", "data", "/does/not/exist"]).contains("/does/not/exist"));
    assert!(Site::new().fails(10, ["status"]).contains("no node is running"));
    let lonely = Site::new();
    assert!(lonely.fails(10, ["ls", "data"]).contains("no network"));
}

#[test]
fn a_version_never_changes() {
    let (site, uri) = published();
    let source = site.dir("source");
    let publish = [OsStr::new("publish"), source.as_os_str(), OsStr::new("data@v1")];
    assert_eq!(site.json(publish)["already"], true);
    fs::write(source.join("file"), "other").unwrap();
    let message = site.fails(1, publish);
    assert!(message.contains("already published") && message.contains("new version"), "{message}");
    assert_eq!(
        site.ok([
            "cat",
            &format!("{}/file?{}", uri.split_once('?').unwrap().0, uri.split_once('?').unwrap().1)
        ]),
        "content"
    );
}

/// `stop` in the moment between a daemon's lock and its socket said that no daemon answers, and left it running.
#[test]
fn stop_waits_for_a_daemon_that_is_starting() {
    let site = Site::new();
    let mut daemon = site.command(["daemon", "--foreground"]).spawn().unwrap();
    while site.json(["stop"])["stopped"].is_null() {
        assert!(daemon.try_wait().unwrap().is_none(), "the daemon has ended by itself");
    }
    assert!(daemon.wait().unwrap().success());
}

/// A key that stood only in the long line of `--json` was all that an operator of a new validator had to go by.
#[test]
fn status_shows_the_key_that_init_takes() {
    let site = Site::new();
    site.ok(["daemon"]);
    let status = site.ok(["status"]);
    let key =
        status.lines().find_map(|line| line.strip_prefix("key ")).expect("a line for it").trim().to_owned();
    assert_eq!(site.status()["public_key"], key.as_str());
    let message = site.fails(2, ["--quiet", "init", "--validators", &format!("{key},zz")]);
    assert!(message.contains("`zz` is not a public key"), "{message}");
    assert_eq!(site.json(["init", "--validators", &key])["new"], true);
}

#[test]
fn a_tag_moves_and_a_withdrawn_version_is_passed_over_and_stays_readable() {
    let (site, _) = published();
    let source = site.dir("source");
    fs::write(source.join("file"), "second").unwrap();
    site.ok([OsStr::new("publish"), source.as_os_str(), OsStr::new("data@v2")]);
    assert_eq!(site.json(["tag", "data", "stable", "v1"])["already"], false);
    assert_eq!(site.json(["tag", "data", "stable", "v1"])["already"], true);
    assert_eq!(site.ok(["cat", "data@stable/file"]), "content");
    site.ok(["tag", "data", "stable", "v2"]);
    assert_eq!(site.ok(["cat", "data@stable/file"]), "second");

    let yank = ["yank", "data@v2", "--reason", "wrong labels"];
    assert_eq!(site.json(yank)["already"], false);
    assert_eq!(site.json(yank)["already"], true);
    assert_eq!(site.ok(["cat", "data/file"]), "content");
    assert_eq!(site.ok(["cat", "data@v2/file"]), "second");
    assert!(site.ok(["list"]).contains("yanked: wrong labels"));

    for (code, args) in [
        (10, &["tag", "data", "stable", "v9"][..]),
        (10, &["tag", "other", "stable", "v1"]),
        (2, &["tag", "data", "a b", "v1"]),
        (10, &["yank", "data@v9", "--reason", "x"]),
        (2, &["yank", "data", "--reason", "x"]),
    ] {
        let message = site.fails(code, args);
        assert!(message.len() > 20, "{args:?}: {message}");
    }
}

#[test]
fn a_directory_that_cannot_be_kept_is_refused_by_name() {
    let site = Site::initialised();
    let source = site.dir("source");
    let publish = [OsStr::new("publish"), source.as_os_str(), OsStr::new("data@v1")];
    let socket = UnixListener::bind(source.join("socket")).unwrap();
    assert!(Command::new("mkfifo").arg(source.join("pipe")).status().unwrap().success());
    let message = site.fails(1, publish);
    assert!(message.contains("pipe") || message.contains("socket"), "{message}");
    assert!(message.contains("--skip-special"), "{message}");
    drop(socket);
    let skipped = site.json([&publish[..], &[OsStr::new("--skip-special")]].concat());
    assert_eq!(skipped["ingest"]["skipped"].as_array().unwrap().len(), 2);
    let file = source.join("a file");
    fs::write(&file, "").unwrap();
    assert!(site.fails(1, [OsStr::new("snapshot"), file.as_os_str()]).contains("not a directory"));
    let link = source.join("link");
    symlink(&source, &link).unwrap();
    assert!(site.fails(1, [OsStr::new("snapshot"), link.as_os_str()]).contains("is a symlink"));
}

#[test]
fn a_network_that_is_not_there_exits_with_10_or_14() {
    let (site, uri) = published();
    let stranger = Site::new();
    let genesis = uri.split('/').nth(2).unwrap();
    let wrong = uri.replace(genesis, &"ab".repeat(32));
    let message = stranger.fails(10, ["ls", &wrong]);
    assert!(message.contains("abab"), "{message}");
    site.ok(["stop"]);
    let message = Site::new().fails(14, ["ls", &uri]);
    assert!(message.contains("127.0.0.1"), "{message}");
    let message = Site::new().fails(14, ["ls", uri.split_once('?').unwrap().0]);
    assert!(message.contains("peer="), "{message}");
    let message =
        Site::new().fails(2, ["ls", &format!("{}?peer=/nonsense/1", uri.split_once('?').unwrap().0)]);
    assert!(message.contains("/nonsense/1"), "{message}");
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_mountpoint_must_be_an_empty_directory() {
    let (site, _) = published();
    let full = site.dir("full");
    fs::write(full.join("something"), "").unwrap();
    assert!(
        site.fails(11, [OsStr::new("mount"), OsStr::new("data"), full.as_os_str()]).contains("not empty")
    );
    let file = full.join("something");
    assert!(
        site.fails(1, [OsStr::new("mount"), OsStr::new("data"), file.as_os_str()])
            .contains("not a directory")
    );
    let mounted = site.mount("data", "mnt");
    let message = site.fails(11, [OsStr::new("mount"), OsStr::new("data"), mounted.as_os_str()]);
    assert!(message.contains("already"), "{message}");
    let empty = site.dir("empty");
    assert!(site.fails(10, [OsStr::new("unmount"), empty.as_os_str()]).contains("nothing is mounted"));
}

#[test]
fn doctor_never_starts_a_node_and_shows_every_setting() {
    let site = Site::new();
    let done = done(site.command(["--json", "doctor"]).env("BCAI_NET_MAX_PEERS", "7").output().unwrap());
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let settings = report["settings"].to_string();
    assert!(settings.contains(r#"["net.max_peers","7","$BCAI_NET_MAX_PEERS"]"#), "{settings}");
    assert!(settings.contains(r#"["net.mdns","false","$BCAI_NET_MDNS"]"#), "{settings}");
    assert!(!site.home.join("run").exists());
}

#[test]
fn json_goes_to_stdout_even_when_it_is_an_error() {
    let site = Site::new();
    let done = site.run(["--json", "status"]);
    assert_eq!(done.code, 10);
    let error: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(error["error"]["kind"], "not_found");
}

/// A result that could not be written was once reported as success, and an error message was lost with it.
#[test]
fn a_full_stdout_is_a_failure_and_a_closed_one_is_not() {
    let (site, _) = published();
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(site.command(["list"]).stdout(full()).status().unwrap().code(), Some(1));
    let lost = done(site.command(["--json", "ls", "nothing"]).stdout(full()).output().unwrap());
    assert!(lost.code != 0 && lost.stderr.contains("no dataset `nothing`"), "{}", lost.stderr);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(site.command(["list"]).stdout(writer).status().unwrap().code(), Some(0));
}

/// One variable that is not UTF-8 made every command panic.
#[test]
fn foreign_environment_variables_are_no_concern_of_ours() {
    let site = Site::new();
    let odd = OsStr::from_bytes(b"\xff");
    assert_eq!(site.command(["man"]).env("OTHER", odd).output().unwrap().status.code(), Some(0));
    let refused = done(site.command(["list"]).env("BCAI_LOG_LEVEL", odd).output().unwrap());
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("BCAI_LOG_LEVEL"), "{}", refused.stderr);
    // One that is empty is none; it was a usage error, even with --home.
    assert_eq!(site.command(["doctor"]).env("BCAI_HOME", "").output().unwrap().status.code(), Some(0));
    let typo = done(site.command(["list"]).env("BCAI_NET_MDSN", "false").output().unwrap());
    assert!(typo.code == 2 && typo.stderr.contains("BCAI_NET_MDSN"), "{}", typo.stderr);
}

#[test]
fn doctor_finds_settings_that_keep_everything_else_from_running() {
    let site = Site::new();
    fs::create_dir_all(&site.home).unwrap();
    fs::write(site.home.join("config.toml"), "nonsense = 1\n").unwrap();
    let found = site.run(["doctor"]);
    assert!(found.code == 1 && found.stdout.contains("nonsense"), "{}", found.stdout);
}

#[test]
fn what_a_node_keeps_is_closed_to_other_users() {
    let (site, _) = published();
    for dir in ["store", "run", "networks"] {
        let mode = fs::metadata(site.home.join(dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{dir}");
    }
}
