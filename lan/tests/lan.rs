//! Networks come, carry bytes, and go.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use bcai_lan::{Lan, Rate};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A program at a node.
fn at(lan: &Lan, node: usize, words: &[&str]) -> Command {
    let enter = lan.enter(node);
    let mut command = Command::new(&enter[0]);
    command.args(&enter[1..]).args(words);
    command
}

fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether something is plugged in at the other end of a node's cable.
fn has_carrier(lan: &Lan, node: usize) -> bool {
    !printed(&mut at(lan, node, &["ip", "link", "show", "cable"])).contains("NO-CARRIER")
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to make network namespaces")]
fn a_network_is_gone_with_its_value() {
    let names = {
        let (one, two) = (Lan::new(2, Some(Rate::mbit(10))).unwrap(), Lan::new(1, None).unwrap());
        [one.namespace(0), one.namespace(1), two.namespace(0)].map(str::to_owned)
    };
    for name in &names {
        assert!(!Path::new("/run/netns").join(name).exists(), "{name}");
    }
    assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to make network namespaces")]
fn a_cable_can_be_pulled_and_put_in_again() {
    let lan = Lan::new(2, None).unwrap();
    assert!(has_carrier(&lan, 0) && has_carrier(&lan, 1));
    lan.plug(1, false).unwrap();
    assert!(has_carrier(&lan, 0) && !has_carrier(&lan, 1));
    lan.plug(1, true).unwrap();
    assert!(has_carrier(&lan, 1));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to make network namespaces")]
fn both_ends_of_every_cable_are_shaped() {
    let lan = Lan::new(2, Some(Rate::mbit(50))).unwrap();
    for node in 0..2 {
        let shown = printed(&mut at(&lan, node, &["tc", "qdisc", "show", "dev", "cable"]));
        assert!(shown.contains("tbf") && shown.contains("rate 50Mbit"), "{shown}");
        let bridge = lan.namespace(0).replace("-0", "-bridge");
        let bridge = bridge.as_str();
        let port = format!("port{node}");
        let shown = printed(Command::new("tc").args(["-n", bridge, "qdisc", "show", "dev", &port]));
        assert!(shown.contains("tbf") && shown.contains("rate 50Mbit"), "{shown}");
    }
}

/// Does something on a node's network.
fn inside<T: Send>(lan: &Lan, node: usize, work: impl FnOnce() -> T + Send) -> T {
    let work = || {
        let namespace = File::open(Path::new("/run/netns").join(lan.namespace(node))).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}

#[test]
#[cfg_attr(not(root), ignore = "needs root, to make network namespaces")]
fn what_a_node_sends_is_counted() {
    const BYTES: usize = 1 << 20;
    let lan = Lan::new(2, Some(Rate::mbit(1000))).unwrap();
    let before = lan.sent(0).unwrap();
    let listener = inside(&lan, 1, || TcpListener::bind((lan.address(1), 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let mut sender = inside(&lan, 0, || TcpStream::connect((lan.address(1), port)).unwrap());
    let (mut receiver, from) = listener.accept().unwrap();
    assert_eq!(from.ip().to_string(), lan.address(0));
    let sending = thread::spawn(move || sender.write_all(&vec![7; BYTES]).unwrap());
    let mut come = Vec::new();
    receiver.read_to_end(&mut come).unwrap();
    sending.join().unwrap();
    assert_eq!(come.len(), BYTES);
    let sent = (lan.sent(0).unwrap() - before) as usize;
    // Headers come on top, and little has to be sent again.
    assert!((BYTES..BYTES + BYTES / 5).contains(&sent), "{sent}");
}

#[test]
#[cfg_attr(
    not(nat),
    ignore = "needs root, to make network namespaces, and nft (nftables), to make routers of them"
)]
fn who_is_behind_a_router_gets_out_and_nobody_gets_in() {
    let mut lan = Lan::new(2, None).unwrap();
    let home = lan.behind(1).unwrap();
    let outside = inside(&lan, 0, || TcpListener::bind((lan.address(0), 0)).unwrap());
    let port = outside.local_addr().unwrap().port();
    let out = inside(&lan, home, || TcpStream::connect((lan.address(0), port)).unwrap());
    let (_, from) = outside.accept().unwrap();
    assert_eq!(from.ip().to_string(), lan.address(1), "it is seen as its router");
    // Not even to the port that it has just come from.
    let back = inside(&lan, 0, || TcpStream::connect_timeout(&from, Duration::from_millis(300)));
    assert!(back.is_err());
    drop(out);
}
