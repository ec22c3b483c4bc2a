//! Four validators in four processes, set up as `docs/OPERATIONS.md` says: what is published while they are killed, cut
//! off, restarted and robbed of their files is neither lost nor reordered.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Site, wait_until};
use serde_json::Value;

struct Four {
    sites: Vec<Site>,
    /// Versions of `data` whose publishing was answered, in this order.
    published: Vec<String>,
    source: PathBuf,
    genesis: String,
}

fn signal(site: &Site, name: &str) {
    let pid = site.pid().expect("a daemon runs").to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

/// The commands in a chapter of `docs/OPERATIONS.md`: one list for each block of them.
fn commands(chapter: &str) -> Vec<Vec<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, text) = text.split_once(&format!("\n## {chapter}\n")).expect("there is such a chapter");
    let text = text.split("\n## ").next().unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(|block| block.lines().map(str::to_owned).collect()).collect()
}

/// Runs lines of the manual on a node, with the names in capitals replaced. Returns what the last of them printed.
fn run(site: &Site, lines: &[String], names: &[(String, String)]) -> String {
    let word = |word: &str| {
        let plain = word.trim_matches('\'').to_owned();
        names.iter().fold(plain, |word, (name, value)| word.replace(name, value))
    };
    let run_one = |line: &String| {
        let words = line.strip_prefix("bcai ").expect("a command of ours").split_whitespace();
        site.ok(words.map(word))
    };
    lines.iter().fold(String::new(), |_, line| run_one(line))
}

/// What `bcai status` shows behind a word, as somebody would read it off.
fn shown(status: &str, what: &str) -> String {
    let line =
        status.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_else(|| panic!("{what}: {status}"));
    line.trim().trim_end_matches(',').split([' ', ',']).next().unwrap().to_owned()
}

impl Four {
    /// Does what the manual says, and nothing else.
    fn new() -> Four {
        let sites: Vec<Site> = (0..4).map(|_| Site::new()).collect();
        let [each, first, others] = commands("A network of four validators").try_into().unwrap();
        let mut names = Vec::new();
        for (at, site) in sites.iter().enumerate() {
            let status = run(site, &each, &names);
            names.push((format!("KEY{}", at + 1), shown(&status, "key ")));
        }
        let status = run(&sites[0], &first, &names);
        let genesis = shown(&status, "network ");
        names.extend([("GENESIS".into(), genesis.clone()), ("ADDRESS".into(), shown(&status, "listens "))]);
        for site in &sites[1..] {
            run(site, &others, &names);
        }
        for site in &sites {
            assert_eq!(site.status()["networks"][0]["validator"], true);
            wait_until("all are connected", || {
                site.ok(["validator"]).contains("votes; connected with 3 of 3 others")
            });
        }
        let source = sites[0].dir("source");
        Four { sites, published: Vec::new(), source, genesis }
    }

    fn file(&self, site: usize, end: &str) -> PathBuf {
        let mut found = Vec::new();
        let mut dirs = vec![self.sites[site].home.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                match entry.path() {
                    path if path.is_dir() => dirs.push(path),
                    path if path.ends_with(format!("{}.{end}", self.genesis)) => found.push(path),
                    _ => {}
                }
            }
        }
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    fn publish(&mut self, site: usize) {
        let version = format!("data@v{}", self.published.len() + 1);
        std::fs::write(self.source.join("file"), &version).unwrap();
        self.sites[site].publish(&self.source, &version);
        self.published.push(version);
    }

    /// The versions of `data` as one node's log has them, the oldest first, each with the header that it is under.
    fn log(&self, site: usize) -> Vec<(String, String)> {
        let log = self.sites[site].json(["log", "data"]);
        let mut rows: Vec<Value> = log.as_array().unwrap().clone();
        rows.sort_by_key(|row| row["height"].as_u64());
        let entries = rows.iter().flat_map(|row| {
            let summaries = row["entries"].as_array().unwrap().iter();
            summaries.map(|entry| (entry["summary"].as_str().unwrap(), row["header"].as_str().unwrap()))
        });
        let version = |summary: &str| summary.split(' ').nth(1).unwrap_or_default().to_owned();
        entries.map(|(summary, header)| (version(summary), header.to_owned())).collect()
    }

    fn agree(&self) {
        for site in 0..4 {
            wait_until("a log holds everything", || self.log(site).len() >= self.published.len());
            let log = self.log(site);
            assert_eq!(log, self.log(0), "of validator {site}");
            let versions: Vec<String> = log.into_iter().map(|(version, _)| version).collect();
            assert_eq!(versions, self.published, "of validator {site}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn four_validators_lose_nothing() {
    let mut four = Four::new();
    for _ in 0..3 {
        four.publish(0);
    }
    four.agree();

    // Killed, and started again while others publish.
    for round in 0..3 {
        four.sites[3].kill_at_once();
        four.publish(0);
        wait_until("the killed daemon is gone", || four.sites[3].run(["status"]).code == 10);
        four.sites[3].ok(["daemon"]);
        four.publish(0);
        assert_eq!(four.published.len(), 5 + 2 * round);
    }
    four.agree();

    // Cut off without a word.
    signal(&four.sites[2], "-STOP");
    four.publish(0);
    four.publish(0);
    let pid = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let cmdline = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        cmdline.contains(four.sites[2].home.to_str()?).then(|| entry.file_name().into_string().ok())?
    });
    for pid in pid {
        assert!(Command::new("kill").args(["-CONT", &pid]).status().unwrap().success());
    }
    four.agree();

    // All at once.
    for site in &four.sites {
        site.kill_at_once();
    }
    for site in &four.sites {
        wait_until("the killed daemon is gone", || site.run(["status"]).code == 10);
    }
    for site in &four.sites {
        site.ok(["daemon"]);
    }
    four.publish(0);
    four.agree();

    // One without its write-ahead log.
    four.sites[1].ok(["stop"]);
    std::fs::remove_file(four.file(1, "wal")).unwrap();
    four.publish(0);
    four.sites[1].ok(["daemon"]);
    four.publish(0);
    four.agree();
    wait_until("it decides again", || four.sites[1].status()["networks"][0]["validator"] == true);

    // One with an old copy of its home.
    four.sites[1].ok(["stop"]);
    let (home, old) = (four.sites[1].home.clone(), four.sites[1].home.with_extension("old"));
    copy(&home, &old);
    four.sites[1].ok(["daemon"]);
    four.publish(0);
    four.publish(0);
    four.sites[1].kill();
    std::fs::remove_dir_all(&home).unwrap();
    std::fs::rename(&old, &home).unwrap();
    four.publish(0);
    four.sites[1].ok(["daemon"]);
    four.publish(0);
    four.agree();
}
