//! Another tree in place of the mounted one, as those see it who are using the mount.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bcai_mount::{Io, MountError, ROOT};
use rustix::io::Errno;

use crate::memory::{Content, Memory};
use crate::{Mounted, wait_until};

/// `v` and `dir/v` say which version it is, as does the name of one file; `shared` is in all.
fn version(number: u64) -> Arc<Memory> {
    let mut tree = Memory::new();
    fill(&mut tree, number);
    Arc::new(tree)
}

fn fill(tree: &mut Memory, number: u64) {
    let text = number.to_string();
    let dir = tree.dir("dir");
    tree.add(dir, "v", Content::Bytes(text.clone().into()));
    tree.file("v", text.as_bytes());
    tree.file("shared", b"the same");
    tree.file(&format!("only-in-{number}"), b"");
    tree.attr_mut(ROOT).mode = 0o700 + number as u16 % 8;
}

/// Nobody goes on with the mounts of these tests.
fn told(_: u64) -> std::io::Result<()> {
    Ok(())
}

fn names(dir: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

fn said(path: &Path) -> u64 {
    fs::read_to_string(path).unwrap().parse().unwrap()
}

fn each_way(test: impl Fn(Mounted)) {
    for io in [Io::Cached, Io::ZeroOpen, Io::Passthrough] {
        test(Mounted::with(io, |tree| fill(tree, 1)));
    }
}

#[test]
fn paths_lead_to_the_new_tree_and_what_is_open_stays() {
    each_way(|mounted| {
        let (root, file, below) = (mounted.temp.path(), mounted.path("v"), mounted.path("dir/v"));
        // The kernel knows all that can be known, also what there is not.
        assert_eq!((said(&file), said(&below)), (1, 1));
        assert_eq!(names(root), names(root));
        assert!(!mounted.path("only-in-2").exists());
        let (open, dir) = (File::open(&file).unwrap(), File::open(mounted.path("dir")).unwrap());
        let before = fs::metadata(&file).unwrap().ino();
        mounted.mount.switch(version(2), told).unwrap();
        assert_eq!((said(&file), said(&below)), (2, 2));
        assert!(mounted.path("only-in-2").exists());
        assert!(!mounted.path("only-in-1").exists());
        assert!(names(root).contains("only-in-2") && !names(root).contains("only-in-1"));
        assert_eq!(fs::metadata(root).unwrap().mode() & 0o777, 0o702);
        assert_ne!(fs::metadata(&file).unwrap().ino(), before, "another file");
        let mut old = [0; 1];
        open.read_exact_at(&mut old, 0).unwrap();
        assert_eq!(&old, b"1");
        let in_dir = rustix::fs::openat(&dir, "v", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
        let mut text = String::new();
        File::from(in_dir.unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "1", "a directory that is open is the old one too");
        assert_eq!(open.metadata().unwrap().ino(), before);
    });
}

#[test]
fn an_old_tree_is_dropped_when_nobody_uses_it() {
    each_way(|Mounted { tree, mount, temp, ended: _ended }| {
        let file = temp.path().join("v");
        let (open, old) = (File::open(&file).unwrap(), Arc::downgrade(&tree));
        drop(tree);
        mount.switch(version(2), told).unwrap();
        assert_eq!(said(&file), 2);
        assert!(old.upgrade().is_some() && mount.trees() == 2);
        drop(open);
        mount.forget_old().unwrap();
        wait_until("the old tree is gone", || old.upgrade().is_none() && mount.trees() == 1);
        for number in 3..100 {
            mount.switch(version(number), told).unwrap();
            assert_eq!(said(&file), number);
        }
        mount.forget_old().unwrap();
        wait_until("all old ones are gone", || mount.trees() == 1);
    });
}

/// Whoever has seen a version never sees an older one again, and each look at the root is of one version.
#[test]
fn readers_meet_one_version_after_the_other() {
    each_way(|mounted| {
        const LAST: u64 = 40;
        let (done, at_least) = (AtomicBool::new(false), AtomicU64::new(1));
        let (mount, root) = (&mounted.mount, mounted.temp.path());
        // A listing that two switches overtake is stale.
        let listed = || {
            let entries: Result<Vec<_>, _> = fs::read_dir(root).unwrap().collect();
            let entries = match entries {
                Err(error) if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) => return None,
                entries => entries.unwrap(),
            };
            let names = entries.iter().map(|entry| entry.file_name().into_string().unwrap());
            let only: Vec<_> = names.filter(|name| name.contains("only")).collect();
            assert_eq!(only.len(), 1, "{only:?}");
            only[0].trim_start_matches("only-in-").parse().ok()
        };
        let reader = |turn: usize| {
            let mut seen = 1;
            while !done.load(Ordering::Acquire) {
                let known = at_least.load(Ordering::Acquire);
                let now = match turn {
                    0 => said(&root.join("v")),
                    1 => said(&root.join("dir/v")),
                    _ => match listed() {
                        Some(version) => version,
                        None => continue,
                    },
                };
                assert!(now >= seen.max(known), "{now} after {seen} and {known}");
                seen = now;
            }
        };
        std::thread::scope(|scope| {
            for turn in 0..3 {
                let reader = &reader;
                scope.spawn(move || reader(turn));
            }
            let switched = (2..=LAST).try_for_each(|number| {
                let switched = mount.switch(version(number), told);
                at_least.store(number, Ordering::Release);
                switched
            });
            done.store(true, Ordering::Release);
            switched.unwrap();
        });
        // What was in use at a switch.
        mount.forget_old().unwrap();
        wait_until("the old trees are gone", || mount.trees() == 1);
    });
}

#[test]
fn a_listing_under_way_is_of_one_tree() {
    let of = |number: u64| {
        move |tree: &mut Memory| {
            for n in 0..2000 {
                tree.file(&format!("{number}-{n:05}"), b"");
            }
        }
    };
    let mounted = Mounted::new(of(1));
    let mut listing = fs::read_dir(mounted.temp.path()).unwrap();
    let first = listing.next().unwrap().unwrap().file_name();
    assert!(first.to_str().unwrap().starts_with("1-"));
    let mut second = Memory::new();
    of(2)(&mut second);
    mounted.mount.switch(Arc::new(second), told).unwrap();
    let rest: Vec<_> = listing.map_while(Result::ok).map(|entry| entry.file_name()).collect();
    assert!(rest.iter().all(|name| name.to_str().unwrap().starts_with("1-")), "{:?}", rest.last());
    let all = names(mounted.temp.path());
    assert!(all.len() == 2000 && all.iter().all(|name| name.starts_with("2-")), "{}", all.len());
}

#[test]
fn a_tree_that_cannot_be_listed_takes_no_place() {
    let mounted = Mounted::new(|tree| fill(tree, 1));
    let error = mounted.mount.switch(Arc::new(Memory::default()), told).unwrap_err();
    assert!(matches!(error, MountError::NoListing { which: "new", .. }), "{error}");
    assert_eq!(said(&mounted.path("v")), 1);
    assert_eq!(mounted.mount.trees(), 1);
    mounted.mount.unmount().unwrap();
    assert!(matches!(mounted.mount.switch(version(2), told), Err(MountError::Ended(_))));
}
