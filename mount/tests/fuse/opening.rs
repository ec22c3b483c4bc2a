//! The ways to open files, and what each of them costs.

use std::fs::{self, OpenOptions};

use bcai_mount::Io;
use rustix::io::Errno;

use crate::Mounted;
use crate::memory::Content;

const FILES: usize = 200;

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn a_second_epoch_over_small_files_sends_no_message() {
    let mounted = Mounted::with(Io::ZeroOpen, |tree| {
        let dir = tree.dir("dir");
        for i in 0..FILES {
            tree.add(dir, format!("{i}"), Content::Bytes(vec![i as u8; 20_000 + i]));
        }
    });
    assert_eq!((mounted.mount.io().io, mounted.mount.io().refusal), (Io::ZeroOpen, None));
    let epoch = || {
        assert_eq!(fs::read_dir(mounted.path("dir")).unwrap().count(), FILES);
        for i in 0..FILES {
            let content = fs::read(mounted.path("dir").join(i.to_string())).unwrap();
            assert!(content.len() == 20_000 + i && content.iter().all(|byte| *byte == i as u8), "{i}");
        }
    };
    let counts = || ["lookup", "attr", "read_dir", "read"].map(|operation| mounted.tree.asked(operation));
    epoch();
    assert!(counts()[3] >= FILES as u64);
    assert_eq!(mounted.mount.opens(), 1, "the kernel learns from the first");
    let asked = counts();
    epoch();
    assert_eq!((counts(), mounted.mount.opens()), (asked, 1));
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn zero_open_writes_nothing_either() {
    let mounted = Mounted::with(Io::ZeroOpen, |tree| {
        tree.file("file", b"1");
    });
    // Before and after the kernel has learnt that it need not ask.
    for _ in 0..2 {
        let refused = OpenOptions::new().write(true).open(mounted.path("file")).unwrap_err();
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::ROFS));
        assert_eq!(fs::read(mounted.path("file")).unwrap(), b"1");
        fs::read(mounted.path("missing")).unwrap_err();
    }
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn a_cached_mount_is_asked_about_each_open() {
    let mounted = Mounted::with(Io::Cached, |tree| {
        tree.file("file", b"1");
    });
    for opens in 1..4 {
        assert_eq!(fs::read(mounted.path("file")).unwrap(), b"1");
        assert_eq!(mounted.mount.opens(), opens);
    }
}
