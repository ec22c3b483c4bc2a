//! What is in `deploy/`, held against the program and, where they are installed, against the tools that it is for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Done, Running, Site, done};
use serde_json::{Value, json};

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

#[test]
#[cfg_attr(not(systemd), ignore = "no systemd-analyze here")]
fn the_units_are_what_systemd_takes() {
    let dir = tempfile::tempdir().unwrap();
    for unit in ["bcai.service", "bcai-user.service", "mnt-photos.mount"] {
        let text = fs::read_to_string(deploy("systemd").join(unit)).unwrap();
        // Where the package puts the program there may be none here.
        let here = text.replace("/usr/bin/bcai ", &format!("{} ", env!("CARGO_BIN_EXE_bcai")));
        fs::write(dir.path().join(unit), here).unwrap();
        let scope = if unit.contains("user") { "--user" } else { "--system" };
        let checked = Command::new("systemd-analyze")
            .args(["verify", "--man=no", scope])
            .arg(dir.path().join(unit))
            .env("XDG_RUNTIME_DIR", dir.path())
            .env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display()))
            .output()
            .unwrap();
        let checked = done(checked);
        // What it has to say of other units of this machine is none of ours.
        let ours = checked.stderr.lines().filter(|line| line.contains("bcai") || line.contains("mnt-photos"));
        assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new(), "{}", checked.stderr);
        assert_eq!(checked.code, 0, "{unit}: {}", checked.stderr);
    }
}

/// Completions are in the tree so that a package can be made without running what it is made of.
#[test]
fn completions_are_those_of_the_program() {
    let site = Site::new();
    for (shell, file) in [("bash", "bcai.bash"), ("zsh", "_bcai"), ("fish", "bcai.fish")] {
        let committed = fs::read_to_string(deploy("completions").join(file)).unwrap_or_default();
        let current = site.ok(["completions", shell]);
        assert!(committed == current, "deploy/completions/{file} is out of date: bcai completions {shell}");
    }
}

/// What `cargo deb` packs is there.
#[test]
fn the_package_names_files_of_this_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest: toml::Table = fs::read_to_string(root.join("Cargo.toml")).unwrap().parse().unwrap();
    let package = &manifest["package"]["metadata"]["deb"];
    let sources = package["assets"].as_array().unwrap().iter().filter_map(|asset| asset.get(0)?.as_str());
    for source in sources.filter(|source| !source.starts_with("target/")) {
        let (dir, name) = source.rsplit_once('/').unwrap_or((".", source));
        let (before, after) = name.split_once('*').unwrap_or((name, ""));
        let found = fs::read_dir(root.join(dir)).unwrap().any(|entry| {
            let entry = entry.unwrap().file_name().into_string().unwrap();
            entry.starts_with(before) && entry.ends_with(after)
        });
        assert!(found, "nothing matches {source}");
    }
    let scripts = root.join(package["maintainer-scripts"].as_str().unwrap());
    for script in ["postinst", "prerm", "postrm", "smoke"] {
        let checked = Command::new("bash").arg("-n").arg(scripts.join(script)).status().unwrap();
        assert!(checked.success(), "{script}");
    }
}

/// `Type=notify` waits for this word.
#[test]
fn a_daemon_says_that_it_is_ready_and_that_it_ends() {
    let site = Site::new();
    let path = site.dir("notify").join("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(common::DEADLINE)).unwrap();
    let hear = || {
        let mut word = [0; 64];
        let len = socket.recv(&mut word).expect("a word");
        String::from_utf8(word[..len].to_vec()).unwrap()
    };
    let daemon = site.command(["daemon", "--foreground"]).env("NOTIFY_SOCKET", &path).spawn().unwrap();
    let mut daemon = Running(daemon);
    assert_eq!(hear(), "READY=1");
    assert!(site.pid().is_some(), "it said that it was ready");
    site.ok(["stop"]);
    assert_eq!(hear(), "STOPPING=1");
    assert!(daemon.0.wait().unwrap().success());
}

/// Runs the program under another name, the way mount(8) runs a helper.
fn helper(site: &Site, name: &str, args: &[&str]) -> Done {
    let link = site.dir("sbin").join(name);
    let _ = symlink(env!("CARGO_BIN_EXE_bcai"), &link);
    let mut command = Command::new(link);
    command.args(args).env("BCAI_HOME", "/nonexistent").envs(site.settings.iter().cloned());
    done(command.env_remove("BCAI_HOME").output().unwrap())
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn mount_8_mounts_by_the_helper() {
    let site = Site::initialised();
    let source = site.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    site.publish(&source, "data@v1");
    let home = format!("home={}", site.home.display());
    for name in ["mount.bcai", "mount.fuse.bcai"] {
        let dir = site.dir(name);
        let at = dir.to_str().unwrap();
        let options =
            format!("rw,relatime,noauto,user,noexec,nosuid,nodev,x-systemd.requires=a,io=cached,{home}");
        let mounted = helper(&site, name, &["data@v1", at, "-n", "-o", &options]);
        assert_eq!(mounted.code, 0, "{}", mounted.stderr);
        assert!(mounted.stderr.contains("noexec"), "{}", mounted.stderr);
        assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "content");
        let status = site.status();
        let mount = status["mounts"].as_array().unwrap().iter().find(|mount| mount["dir"] == at).unwrap();
        assert_eq!(mount["io"], "cached");
        // As `mount -a` does.
        let again = helper(&site, name, &["data@v1", at, "-o", &options]);
        assert_eq!(again.code, 0, "{}", again.stderr);
        let other = helper(&site, name, &["data@latest", at, "-o", &options]);
        assert!(other.code == 32 && other.stderr.contains("already"), "{}", other.stderr);
        site.ok(["unmount", at]);
    }
    let dir = site.dir("mnt");
    let at = dir.to_str().unwrap();
    for (code, args) in [
        (1, &["data@v1"][..]),
        (1, &["data@v1", at, "-o", "sync"]),
        (1, &["data@v1", at, "-o", "noexec"]),
        (1, &["data@v1", at, "-o", "io=quick"]),
        (32, &["data@v9", at, "-o", &home]),
        (0, &["data@v1", at, "-f", "-o", &home]),
        (0, &["data@v1", at, "-f", "-s", "-o", &format!("sync,{home}")]),
    ] {
        let answered = helper(&site, "mount.bcai", args);
        assert_eq!(answered.code, code, "{args:?}: {}", answered.stderr);
        assert!(code == 0 || !answered.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(site.status()["mounts"].as_array().unwrap().len(), 0, "with -f nothing is mounted");
}

/// Each line of the example is one that the helper takes. Without `nofail` systemd ordered a mount before the node that it
/// needs, as soon as it was reloaded, and gave up stopping the node when the machine was shut down.
#[test]
fn the_lines_for_fstab_are_understood() {
    let site = Site::new();
    let text = fs::read_to_string(deploy("systemd/fstab")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut checked = 0;
    for line in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [reference, dir, "bcai", options, "0", "0"] = fields[..] else { panic!("{line}") };
        let options = format!("{options},home={}", site.home.display());
        let answered = helper(&site, "mount.bcai", &[reference, dir, "-f", "-o", &options]);
        assert_eq!(answered.code, 0, "{line}: {}", answered.stderr);
        assert!(options.split(',').any(|option| option == "nofail"), "{line}");
        checked += 1;
    }
    assert!(checked > 0);
    let unit = fs::read_to_string(deploy("systemd/mnt-photos.mount")).unwrap();
    let options = unit.lines().find_map(|line| line.strip_prefix("Options=")).unwrap();
    assert!(options.split(',').any(|option| option == "nofail"), "{options}");
}

fn promtool(args: &[&str], file: &Path) {
    let checked = Command::new("promtool").args(args).arg(file).output();
    let checked = done(checked.unwrap());
    assert_eq!(checked.code, 0, "{}{}", checked.stdout, checked.stderr);
}

#[test]
#[cfg_attr(not(promtool), ignore = "no promtool here")]
fn the_alert_rules_fire_when_something_is_wrong_and_only_then() {
    promtool(&["check", "rules"], &deploy("prometheus/alerts.yml"));
    promtool(&["test", "rules"], &deploy("prometheus/alerts.test.yml"));
}

/// Names of metrics in a text, without what Prometheus adds for the parts of a histogram.
fn metrics(text: &str) -> std::collections::BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("bcai_"));
    let parts = ["_bucket", "_count", "_sum"];
    let whole =
        |name: &str| parts.iter().find_map(|part| name.strip_suffix(*part)).unwrap_or(name).to_owned();
    names.map(whole).collect()
}

/// A rule over a metric that nobody serves never fires.
#[test]
fn rules_and_dashboard_are_over_metrics_that_there_are() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `bcai_")).collect();
    let documented = metrics(&rows.join("\n"));
    for file in ["prometheus/alerts.yml", "prometheus/alerts.test.yml", "grafana/bcai.json"] {
        let used = metrics(&fs::read_to_string(deploy(file)).unwrap());
        assert!(used.len() > 8, "{used:?}");
        let unknown: Vec<_> = used.difference(&documented).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

/// What Grafana would put in the place of its variables.
const VARIABLES: [(&str, &str); 3] = [("$instance", ".*"), ("$__rate_interval", "5m"), ("$__range", "3h")];

#[test]
#[cfg_attr(not(promtool), ignore = "no promtool here")]
fn the_dashboard_asks_what_prometheus_understands() {
    let text = fs::read_to_string(deploy("grafana/bcai.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let rules: Vec<Value> = targets
        .enumerate()
        .map(|(number, target)| {
            let asked = target["expr"].as_str().unwrap().to_owned();
            let asked = VARIABLES.iter().fold(asked, |asked, (name, value)| asked.replace(name, value));
            json!({ "record": format!("asked:{number}"), "expr": asked })
        })
        .collect();
    assert!(rules.len() > 20, "{}", rules.len());
    let dir = tempfile::tempdir().unwrap();
    // JSON is YAML.
    let file = dir.path().join("rules.yml");
    fs::write(&file, json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string()).unwrap();
    promtool(&["check", "rules"], &file);
}
