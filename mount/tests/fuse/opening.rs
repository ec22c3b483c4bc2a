//! The ways to open files, and what each of them costs.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use bcai_mount::Io;
use rustix::io::Errno;

use crate::memory::Content;
use crate::{Mounted, wait_until};

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

/// A file of the tree and the same on disk.
struct Large {
    mounted: Mounted,
    ino: u64,
    content: Vec<u8>,
    disk: tempfile::NamedTempFile,
}

impl Large {
    fn new(content: Vec<u8>) -> Self {
        let mut ino = 0;
        let mounted = Mounted::with(Io::Passthrough, |tree| {
            ino = tree.file("large", &content);
            tree.attr_mut(ino).mode = 0o755;
        });
        assert_eq!((mounted.mount.io().io, mounted.mount.io().refusal), (Io::Passthrough, None));
        let disk = tempfile::NamedTempFile::new().unwrap();
        fs::write(disk.path(), &content).unwrap();
        Self { mounted, ino, content, disk }
    }

    fn patterned() -> Self {
        Self::new((0..9_000_123u32).map(|i| (i * 13 / 7) as u8).collect())
    }

    fn set_backing(&self) {
        self.mounted.tree.set_backing(self.ino, self.disk.path(), self.content.len() as u64);
    }

    fn open(&self) -> File {
        File::open(self.mounted.path("large")).unwrap()
    }

    fn leases(&self) -> usize {
        self.mounted.tree.leases()
    }

    fn reads(&self) -> u64 {
        self.mounted.tree.asked("read")
    }

    /// All of the file by one descriptor.
    fn check(&self, file: &File) {
        let mut bytes = vec![0; self.content.len()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == self.content);
        assert_eq!(file.read_at(&mut bytes, self.content.len() as u64).unwrap(), 0);
    }
}

#[test]
#[cfg_attr(not(fuse_passthrough), ignore = "passthrough needs root and Linux 6.9")]
fn what_is_passed_through_is_never_asked_for() {
    let large = Large::patterned();
    large.set_backing();
    assert!(fs::read(large.mounted.path("large")).unwrap() == large.content);
    let file = large.open();
    for offset in (0..9_000_000usize).step_by(777_777).rev() {
        let mut bytes = [0; 5000];
        let len = bytes.len().min(large.content.len() - offset);
        file.read_exact_at(&mut bytes[..len], offset as u64).unwrap();
        assert!(bytes[..len] == large.content[offset..][..len], "{offset}");
    }
    wait_until("all share one lease", || large.leases() == 1);
    drop(file);
    wait_until("the backing file is given back", || large.leases() == 0);
    assert_eq!(large.reads(), 0);
    large.mounted.mount.unmount().unwrap();
}

#[test]
#[cfg_attr(not(fuse_passthrough), ignore = "passthrough needs root and Linux 6.9")]
fn opens_at_the_same_time_share_one_backing_file() {
    let large = Large::patterned();
    large.set_backing();
    let first = large.open();
    let others: Vec<File> = (0..5).map(|_| large.open()).collect();
    assert_eq!(large.mounted.tree.asked("backing"), 1);
    // The kernel may have its answer before the thread that gave it has dropped its own copy.
    wait_until("all share one lease", || large.leases() == 1);
    drop(first);
    others.iter().for_each(|file| large.check(file));
    drop(others);
    wait_until("the backing file is given back", || large.leases() == 0);
    // And when nobody can say who was first. A second backing id for an inode would be an EIO.
    let path = &large.mounted.path("large");
    let open_and_read = || assert_eq!(File::open(path).unwrap().read(&mut [0; 10]).unwrap(), 10);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..200).for_each(|_| open_and_read()));
        }
    });
    wait_until("the backing file is given back", || large.leases() == 0);
    assert_eq!(large.reads(), 0);
}

#[test]
#[cfg_attr(not(fuse_passthrough), ignore = "passthrough needs root and Linux 6.9")]
fn a_file_is_passed_through_when_nobody_reads_it_otherwise_any_more() {
    let large = Large::patterned();
    let mut first = large.open();
    assert_eq!(first.read(&mut [0; 10]).unwrap(), 10);
    large.set_backing();
    // The kernel would refuse to mix the two with an EIO.
    let second = large.open();
    large.check(&second);
    let served = large.reads();
    assert!(served > 0 && large.leases() == 0);
    drop(first);
    large.check(&large.open());
    drop(second);
    wait_until("it is passed through", || {
        let file = large.open();
        large.check(&file);
        large.leases() == 1
    });
    let served = large.reads();
    assert!(fs::read(large.mounted.path("large")).unwrap() == large.content);
    assert_eq!(large.reads(), served);
}

#[test]
#[cfg_attr(not(fuse_passthrough), ignore = "passthrough needs root and Linux 6.9")]
fn a_backing_file_that_is_removed_while_it_is_open_is_read_to_the_end() {
    let large = Large::patterned();
    large.set_backing();
    let file = large.open();
    fs::remove_file(large.disk.path()).unwrap();
    large.check(&file);
    assert_eq!(large.reads(), 0);
}

#[test]
#[cfg_attr(not(fuse_passthrough), ignore = "passthrough needs root and Linux 6.9")]
fn a_backing_file_of_another_length_is_not_used() {
    let large = Large::patterned();
    large.set_backing();
    for len in [large.content.len() as u64 - 1, large.content.len() as u64 + 4096] {
        File::options().write(true).open(large.disk.path()).unwrap().set_len(len).unwrap();
        assert!(fs::read(large.mounted.path("large")).unwrap() == large.content);
        assert_eq!(large.leases(), 0);
    }
    assert!(large.reads() > 0);
}

/// A program is mapped into memory, and stays so after the last descriptor is closed.
#[test]
#[cfg_attr(not(fuse_passthrough), ignore = "passthrough needs root and Linux 6.9")]
fn mapped_files_are_passed_through_and_hold_up_the_change_to_it() {
    let large = Large::new(fs::read("/bin/cat").unwrap());
    let cat = || {
        let mut command = Command::new(large.mounted.path("large"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    let output = |mut child: std::process::Child, words: &[u8]| {
        child.stdin.take().unwrap().write_all(words).unwrap();
        child.wait_with_output().unwrap().stdout
    };
    let served = cat();
    large.set_backing();
    let also_served = cat();
    assert_eq!(output(served, b"one"), b"one");
    large.check(&large.open());
    assert_eq!(output(also_served, b"two"), b"two");
    wait_until("it is passed through", || {
        let _file = large.open();
        large.leases() == 1
    });
    let reads = large.reads();
    let passed = cat();
    large.check(&large.open());
    assert_eq!(output(passed, b"three"), b"three");
    assert_eq!(large.reads(), reads);
}

#[test]
#[cfg_attr(not(user_namespaces), ignore = "this machine gives nobody a user namespace of their own")]
fn without_the_right_files_are_served_by_the_mount() {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]).arg(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "opening::child_tells_its_io"]);
    let output = command.output().unwrap();
    let words = String::from_utf8(output.stdout).unwrap();
    assert!(words.contains("zero-open, no passthrough: it needs root (CAP_SYS_ADMIN)"), "{words}");
    assert!(output.status.success(), "{words}");
}

#[test]
#[ignore = "on demand: another test runs it without privileges"]
fn child_tells_its_io() {
    let mounted = Mounted::with(Io::Passthrough, |tree| {
        tree.file("file", b"content");
    });
    let io = mounted.mount.io();
    println!("{}, {}", io.io, io.refusal.unwrap());
    assert_eq!(fs::read(mounted.path("file")).unwrap(), b"content");
    assert_eq!(mounted.tree.asked("backing"), 0);
}
