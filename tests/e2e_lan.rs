//! Two machines on one network, which find each other without being told an address.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::process::Command;

use common::{Site, assert_same_tree};

/// Two network namespaces joined by a cable. They go with the test.
struct Lan {
    names: [String; 2],
}

impl Lan {
    fn new() -> Self {
        let own = std::process::id();
        let lan = Self { names: [format!("bcai-a-{own}"), format!("bcai-b-{own}")] };
        let [a, b] = &lan.names;
        for name in [a, b] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        ip(&format!("-n {a} link add cable type veth peer name cable netns {b}"));
        for (name, address) in [(a, "192.0.2.1/24"), (b, "192.0.2.2/24")] {
            ip(&format!("-n {name} addr add {address} dev cable"));
            ip(&format!("-n {name} link set cable up"));
            ip(&format!("-n {name} route add 224.0.0.0/4 dev cable"));
        }
        lan
    }

    /// A node whose commands run on one side. Only the network is another: mounts are seen everywhere.
    fn site(&self, side: usize) -> Site {
        let mut site = Site::new();
        site.settings = vec![("BCAI_NET_LISTEN".into(), "/ip4/0.0.0.0/tcp/0".into())];
        site.prefix = vec!["nsenter".into(), format!("--net=/run/netns/{}", self.names[side])];
        site
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[cfg_attr(not(all(fuse_available, root)), ignore = "needs /dev/fuse, and root to make network namespaces")]
fn a_uri_without_an_address_is_enough_on_one_network() {
    let lan = Lan::new();
    let (publisher, reader) = (lan.site(0), lan.site(1));
    publisher.ok(["init"]);
    let source = publisher.dir("source");
    fs::write(source.join("file"), common::noise(1, 3 << 20)).unwrap();
    let uri = publisher.publish(&source, "data@v1");
    assert!(uri.contains("/ip4/192.0.2.1/tcp/"), "{uri}");
    let mounted = reader.mount(uri.split_once('?').unwrap().0, "mnt");
    assert_same_tree(&source, &mounted);
}
