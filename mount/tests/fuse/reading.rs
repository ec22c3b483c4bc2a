//! What a reader sees, and what the kernel keeps so that the tree is not asked twice.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, IsTerminal, Read, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use bcai_mount::ROOT;
use rustix::io::Errno;

use crate::memory::{Content, MTIME, OLD_MTIME};
use crate::{Mounted, table};

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).expect("an error of the system")
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn contents_and_attributes() {
    let big: Vec<u8> = (0..5_000_000u32).map(|i| (i * 7 / 3) as u8).collect();
    let mounted = Mounted::new(|tree| {
        tree.file("hello", b"hello, world");
        tree.file("big", &big);
        tree.file("empty", b"");
        let tool = tree.file("tool", b"#!/bin/sh\n");
        tree.attr_mut(tool).mode = 0o755;
        tree.attr_mut(tool).nlink = 3;
        tree.attr_mut(tool).mtime = OLD_MTIME;
        let dir = tree.dir("dir");
        tree.add(dir, "below", Content::Bytes(b"below".to_vec()));
        tree.add(ROOT, "link", Content::Target(b"dir/below".to_vec()));
        tree.add(ROOT, b"\xffname\n", Content::Bytes(b"odd".to_vec()));
    });
    assert_eq!(fs::read(mounted.path("hello")).unwrap(), b"hello, world");
    assert_eq!(fs::read(mounted.path("big")).unwrap(), big);
    assert_eq!(fs::read(mounted.path("empty")).unwrap(), b"");
    assert_eq!(fs::read(mounted.path("dir/below")).unwrap(), b"below");
    assert_eq!(
        fs::read(mounted.temp.path().join(std::ffi::OsStr::from_bytes(b"\xffname\n"))).unwrap(),
        b"odd"
    );
    assert_eq!(fs::read_link(mounted.path("link")).unwrap(), Path::new("dir/below"));
    assert_eq!(fs::read(mounted.path("link")).unwrap(), b"below");
    let mut middle = [0; 10];
    File::open(mounted.path("big")).unwrap().read_exact_at(&mut middle, 4_321_000).unwrap();
    assert_eq!(middle, big[4_321_000..4_321_010]);

    let hello = fs::metadata(mounted.path("hello")).unwrap();
    assert_eq!((hello.len(), hello.mtime(), hello.mtime_nsec()), (12, MTIME.0, MTIME.1.into()));
    let tool = fs::metadata(mounted.path("tool")).unwrap();
    assert_eq!((tool.permissions().mode() & 0o7777, tool.nlink()), (0o755, 3));
    assert_eq!((tool.mtime(), tool.mtime_nsec()), (OLD_MTIME.0, OLD_MTIME.1.into()));
    assert_eq!(fs::metadata(mounted.temp.path()).unwrap().ino(), ROOT);
    let table = table(mounted.temp.path()).pop().unwrap();
    assert!(table.starts_with("bcai ") && table.contains(" fuse.bcai ro,nosuid,nodev"), "{table}");
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn extended_attributes() {
    let value = vec![b'x'; 60_000];
    let mounted = Mounted::new(|tree| {
        let file = tree.file("file", b"1");
        tree.set_xattr(file, "user.short", b"value");
        tree.set_xattr(file, "user.long", &value);
        tree.set_xattr(file, "user.empty", b"");
    });
    let file = mounted.path("file");
    assert_eq!(xattr::get(&file, "user.short").unwrap().unwrap(), b"value");
    assert_eq!(xattr::get(&file, "user.long").unwrap().unwrap(), value);
    assert_eq!(xattr::get(&file, "user.empty").unwrap().unwrap(), b"");
    assert_eq!(xattr::get(&file, "user.none").unwrap(), None);
    let names: Vec<_> = xattr::list(&file).unwrap().collect();
    assert_eq!(names, ["user.empty", "user.long", "user.short"]);
    assert_eq!(xattr::list(mounted.temp.path()).unwrap().count(), 0);
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn a_large_directory_is_listed_once_and_fills_the_kernels_cache() {
    let mounted = Mounted::new(|tree| {
        let dir = tree.dir("dir");
        for i in 0..10_000 {
            tree.add(dir, format!("file-{i:05}"), Content::Bytes(vec![b'x'; i % 10]));
        }
    });
    let list = || -> BTreeSet<String> {
        let entries = fs::read_dir(mounted.path("dir")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let names = list();
    assert_eq!(names.len(), 10_000);
    assert!(names.contains("file-00000") && names.contains("file-09999"));
    let asked = mounted.tree.asked("read_dir");
    assert_eq!(list(), names);
    assert_eq!(mounted.tree.asked("read_dir"), asked, "the second listing comes from the kernel");
    // The names came with their attributes, so this needs neither lookups nor attributes.
    let (lookups, attrs) = (mounted.tree.asked("lookup"), mounted.tree.asked("attr"));
    for name in names.iter().step_by(97) {
        let size = fs::metadata(mounted.path("dir").join(name)).unwrap().len();
        assert_eq!(size, name[5..].parse::<u64>().unwrap() % 10, "{name}");
    }
    assert_eq!((mounted.tree.asked("lookup"), mounted.tree.asked("attr")), (lookups, attrs));
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn dots_have_the_right_inodes() {
    let mounted = Mounted::new(|tree| {
        let dir = tree.dir("dir");
        tree.add(dir, "file", Content::Bytes(vec![]));
    });
    let dir = File::open(mounted.path("dir")).unwrap();
    let entries = rustix::fs::Dir::read_from(&dir).unwrap();
    let found: Vec<(String, u64)> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().to_str().unwrap().to_owned(), entry.ino()))
        .collect();
    assert_eq!(found, [(".".into(), 2), ("..".into(), ROOT), ("file".into(), 3)]);
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn a_missing_name_is_asked_for_once() {
    let mounted = Mounted::new(|tree| {
        tree.file("there", b"1");
    });
    for _ in 0..5 {
        assert_eq!(fs::metadata(mounted.path("missing")).unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(mounted.tree.asked("lookup"), 1);
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn a_file_read_twice_is_read_from_the_tree_once() {
    let content = vec![b'y'; 300_000];
    let mounted = Mounted::new(|tree| {
        tree.file("file", &content);
    });
    assert_eq!(fs::read(mounted.path("file")).unwrap(), content);
    let counts = || ["lookup", "attr", "read"].map(|operation| mounted.tree.asked(operation));
    let asked = counts();
    assert!(asked[2] > 0);
    assert_eq!(fs::read(mounted.path("file")).unwrap(), content);
    assert_eq!(counts(), asked);
}

#[test]
#[cfg_attr(not(fuse_as_root), ignore = "only root may raise the kernel's read-ahead")]
fn a_sequential_reader_is_served_in_large_reads() {
    let content = vec![b'z'; 32 << 20];
    let mounted = Mounted::new(|tree| {
        tree.file("file", &content);
    });
    assert_eq!(fs::read(mounted.path("file")).unwrap().len(), content.len());
    // At the kernel's default of 128 KiB it would be 256.
    let reads = mounted.tree.asked("read");
    assert!(reads <= 64, "{reads} reads");
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn holes_are_found() {
    let mounted = Mounted::new(|tree| {
        tree.add(ROOT, "sparse", Content::HoleThen(8192, b"data".to_vec()));
    });
    let mut file = File::open(mounted.path("sparse")).unwrap();
    let seek = |from| rustix::fs::seek(&file, from);
    assert_eq!(seek(rustix::fs::SeekFrom::Data(0)), Ok(8192));
    assert_eq!(seek(rustix::fs::SeekFrom::Hole(0)), Ok(0));
    assert_eq!(seek(rustix::fs::SeekFrom::Hole(8193)), Ok(8196));
    assert_eq!(seek(rustix::fs::SeekFrom::Data(8196)), Err(Errno::NXIO));
    file.seek(SeekFrom::Start(8190)).unwrap();
    let mut end = Vec::new();
    file.read_to_end(&mut end).unwrap();
    assert_eq!(end, b"\0\0data");
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn every_write_is_refused() {
    let mounted = Mounted::new(|tree| {
        tree.file("file", b"1");
        tree.dir("dir");
    });
    let file = mounted.path("file");
    let new = mounted.path("new");
    let refusals = [
        ("open to write", errno(OpenOptions::new().write(true).open(&file))),
        ("truncate", errno(OpenOptions::new().write(true).truncate(true).open(&file))),
        ("create", errno(File::create(&new))),
        ("mkdir", errno(fs::create_dir(&new))),
        ("unlink", errno(fs::remove_file(&file))),
        ("rmdir", errno(fs::remove_dir(mounted.path("dir")))),
        ("rename", errno(fs::rename(&file, &new))),
        ("link", errno(fs::hard_link(&file, &new))),
        ("symlink", errno(std::os::unix::fs::symlink("a", &new))),
        ("chmod", errno(fs::set_permissions(&file, fs::Permissions::from_mode(0o600)))),
        ("setxattr", errno(xattr::set(&file, "user.a", b"1"))),
        ("removexattr", errno(xattr::remove(&file, "user.a"))),
    ];
    for (operation, errno) in refusals {
        assert_eq!(errno, Errno::ROFS, "{operation}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"1");
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn terminals_and_df() {
    let mounted = Mounted::new(|tree| {
        tree.file("file", b"1");
    });
    let file = File::open(mounted.path("file")).unwrap();
    assert!(!file.is_terminal());
    let stat = rustix::fs::statvfs(mounted.temp.path()).unwrap();
    assert_eq!((stat.f_blocks * stat.f_frsize, stat.f_files, stat.f_bavail), (1 << 30, 2, 0));
}
