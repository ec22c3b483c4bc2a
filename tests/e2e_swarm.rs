//! Several machines that want the same dataset at the same moment, on links of a modest rate, with peers among them that
//! mean ill.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bcai_lan::{Lan, Rate};
use common::{Running, Site, assert_same_tree, noise, wait_until};
use serde_json::Value;

/// How long nothing comes through a cable that is pulled.
const SILENCE: Duration = Duration::from_secs(10);

/// Node 0 publishes, the last node is for a hostile peer, those between are receivers.
struct Swarm {
    // Before the network, so that they end on it.
    source: Site,
    receivers: Vec<Site>,
    lan: Lan,
    folder: PathBuf,
    uri: String,
}

impl Swarm {
    /// `mib` MiB in many files and a large one, published, and receivers whose daemons are up.
    fn new(receivers: usize, rate: Rate, mib: usize) -> Self {
        let lan = Lan::new(receivers + 2, Some(rate)).unwrap();
        let source = Site::at(&lan, 0);
        source.ok(["init"]);
        let folder = source.dir("source");
        fs::write(folder.join("large"), noise(0, (mib << 20) / 2)).unwrap();
        fs::create_dir(folder.join("small")).unwrap();
        for number in 0..2 * mib {
            fs::write(folder.join(format!("small/{number:03}")), noise(1 + number as u64, 256 << 10))
                .unwrap();
        }
        let uri = source.publish(&folder, "data@v1");
        let receivers: Vec<Site> = (1..=receivers).map(|node| Site::at(&lan, node)).collect();
        for receiver in &receivers {
            receiver.ok(["daemon"]);
        }
        Self { source, receivers, lan, folder, uri }
    }

    /// A peer of this kind, connected to all nodes; with its id.
    fn hostile(&self, kind: &str) -> (Running, String) {
        let program = Path::new(env!("CARGO_BIN_EXE_bcai")).with_file_name("bcai-tools");
        assert!(program.is_file(), "{} is not built: cargo build -p bcai-tools", program.display());
        let words = self.lan.enter(self.receivers.len() + 1);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program).args(["peer", kind]);
        for site in self.receivers.iter().chain([&self.source]) {
            command.arg("--dial").arg(site.status()["addresses"][0].as_str().unwrap());
        }
        // Its input ends with this value, and so does it.
        let mut peer = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(peer.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let who: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        (peer, who["peer_id"].as_str().unwrap().to_owned())
    }

    /// All receivers fetch at the same moment, and have all of it, byte for byte.
    fn fan_out(&self) {
        thread::scope(|scope| {
            for receiver in &self.receivers {
                scope.spawn(|| receiver.ok(["prefetch", &self.uri]));
            }
        });
        for receiver in &self.receivers {
            receiver.ok(["verify", &self.uri]);
            let copy = receiver.dir("copies").join("copy");
            receiver.ok([Path::new("export"), Path::new(&self.uri), &copy]);
            assert_same_tree(&self.folder, &copy);
        }
    }

    /// What each receiver says of a peer, by its state; `None` if it does not know it.
    fn states_of(&self, peer: &str) -> Vec<Option<String>> {
        self.receivers.iter().map(|receiver| state_of(receiver, peer)).collect()
    }

    fn assert_honest_are_kept(&self) {
        let source = self.source.status()["peer_id"].as_str().unwrap().to_owned();
        for site in self.receivers.iter().chain([&self.source]) {
            let honest =
                self.receivers.iter().map(|other| other.status()["peer_id"].as_str().unwrap().to_owned());
            for peer in honest.chain([source.clone()]) {
                assert_ne!(state_of(site, &peer).as_deref(), Some("banned"), "{}", site.daemon_log());
            }
        }
    }
}

fn state_of(site: &Site, peer: &str) -> Option<String> {
    let status = site.status();
    let known = status["peers"].as_array().unwrap().iter().find(|known| known["peer_id"] == peer)?;
    Some(known["state"].as_str().unwrap().to_owned())
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to make network namespaces")]
fn many_receivers_at_once_have_all_of_it() {
    let swarm = Swarm::new(5, Rate::mbit(100), 8);
    swarm.fan_out();
    swarm.assert_honest_are_kept();
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to make network namespaces")]
fn a_liar_is_banned_and_nothing_wrong_is_read() {
    let swarm = Swarm::new(3, Rate::mbit(100), 8);
    let (_liar, who) = swarm.hostile("liar");
    swarm.fan_out();
    // Who was never told a lie bans nobody; but somebody was.
    let states = swarm.states_of(&who);
    assert!(states.iter().any(|state| state.as_deref() == Some("banned")), "{states:?}");
    swarm.assert_honest_are_kept();
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to make network namespaces")]
fn a_peer_that_trickles_does_not_keep_a_receiver_from_the_end() {
    let swarm = Swarm::new(2, Rate::mbit(100), 8);
    let (_slow, _) = swarm.hostile("slow");
    swarm.fan_out();
    swarm.assert_honest_are_kept();
}

/// It announced objects of 4 MiB and trickled them: eight of them held the whole receive budget, for a minute at a time,
/// and the prefetch ran out of patience beside an honest source that had everything.
#[test]
#[cfg_attr(not(root), ignore = "needs root, to make network namespaces")]
fn a_peer_that_hoards_credit_does_not_keep_a_receiver_from_the_end() {
    let swarm = Swarm::new(2, Rate::mbit(100), 8);
    let (_hoarding, _) = swarm.hostile("hoarding");
    swarm.fan_out();
    swarm.assert_honest_are_kept();
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to make network namespaces")]
fn a_peer_that_never_answers_does_not_keep_a_receiver_from_the_end() {
    let swarm = Swarm::new(2, Rate::mbit(100), 8);
    let (_stalling, _) = swarm.hostile("stalling");
    swarm.fan_out();
    swarm.assert_honest_are_kept();
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to make network namespaces")]
fn a_peer_that_floods_takes_nothing_from_the_others() {
    let swarm = Swarm::new(2, Rate::mbit(100), 8);
    let (_flooding, _) = swarm.hostile("flooding");
    swarm.fan_out();
    swarm.assert_honest_are_kept();
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to make network namespaces")]
fn a_prefetch_goes_on_when_its_cable_is_back() {
    let swarm = Swarm::new(1, Rate::mbit(20), 8);
    let receiver = &swarm.receivers[0];
    let fetched = || receiver.status()["fetch"]["fetched_bytes"].as_u64().unwrap();
    thread::scope(|scope| {
        let prefetch = scope.spawn(|| receiver.ok(["prefetch", &swarm.uri]));
        wait_until("half of it is here", || fetched() > 4 << 20);
        swarm.lan.plug(1, false).unwrap();
        // What was on its way may still come.
        let (mut seen, mut since) = (fetched(), Instant::now());
        wait_until("nothing comes any more", || {
            if fetched() != seen {
                (seen, since) = (fetched(), Instant::now());
            }
            since.elapsed() > SILENCE
        });
        assert!(!prefetch.is_finished(), "it was done before the cable was pulled");
        swarm.lan.plug(1, true).unwrap();
    });
    swarm.fan_out();
}
