//! Two machines on one network, which find each other without being told an address.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;

use bcai_lan::Lan;
use common::{Site, assert_same_tree};

#[test]
#[cfg_attr(not(all(fuse_available, root)), ignore = "needs /dev/fuse, and root to make network namespaces")]
fn a_uri_without_an_address_is_enough_on_one_network() {
    let lan = Lan::new(2, None).unwrap();
    let [publisher, reader] = [0, 1].map(|node| {
        let mut site = Site::at(&lan, node);
        // Everywhere, with discovery.
        site.settings = vec![("BCAI_NET_LISTEN".into(), "/ip4/0.0.0.0/tcp/0".into())];
        site
    });
    publisher.ok(["init"]);
    let source = publisher.dir("source");
    fs::write(source.join("file"), common::noise(1, 3 << 20)).unwrap();
    let uri = publisher.publish(&source, "data@v1");
    assert!(uri.contains("/ip4/192.0.2.1/tcp/"), "{uri}");
    let mounted = reader.mount(uri.split_once('?').unwrap().0, "mnt");
    assert_same_tree(&source, &mounted);
}
