//! Trees that panic, forget to answer, or take their time.

use std::fs::{self, File};
use std::io::Read;
use std::sync::mpsc::channel;

use bcai_mount::ROOT;
use rustix::io::Errno;

use crate::memory::Content;
use crate::{DEADLINE, Mounted, wait_until};

fn read_errno(mounted: &Mounted, name: &str) -> Option<Errno> {
    Errno::from_io_error(&fs::read(mounted.path(name)).unwrap_err())
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn a_tree_that_panics_or_forgets_is_an_error_and_the_mount_goes_on() {
    let mounted = Mounted::new(|tree| {
        tree.add(ROOT, "panics", Content::Panics);
        tree.add(ROOT, "forgets", Content::Forgets);
        tree.add(ROOT, "late", Content::TimesOut);
        tree.file("good", b"good");
    });
    // More often than there are event loops: one that dies would be missed.
    for _ in 0..8 {
        assert_eq!(read_errno(&mounted, "panics"), Some(Errno::IO));
    }
    assert_eq!(read_errno(&mounted, "forgets"), Some(Errno::IO));
    assert_eq!(read_errno(&mounted, "late"), Some(Errno::TIMEDOUT));
    assert_eq!(fs::read(mounted.path("good")).unwrap(), b"good");
    mounted.mount.unmount().unwrap();
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn a_slow_answer_holds_up_nobody_else() {
    let mounted = Mounted::new(|tree| {
        for i in 0..8 {
            tree.add(ROOT, format!("slow-{i}"), Content::Waits);
        }
        tree.file("quick", b"quick");
    });
    let (sender, receiver) = channel();
    // Four times as many as there are event loops.
    let readers: Vec<_> = (0..8)
        .map(|i| {
            let (path, sender) = (mounted.path(&format!("slow-{i}")), sender.clone());
            std::thread::spawn(move || {
                let mut content = Vec::new();
                File::open(path).and_then(|mut file| file.read_to_end(&mut content)).unwrap();
                sender.send(content).unwrap();
            })
        })
        .collect();
    wait_until("all slow reads have reached the tree", || mounted.tree.asked("read") == 8);
    assert_eq!(fs::read(mounted.path("quick")).unwrap(), b"quick");
    assert!(receiver.try_recv().is_err());
    let waiting = mounted.tree.take_waiting();
    assert_eq!(waiting.len(), 8);
    let answering = std::thread::spawn(move || {
        for answer in waiting {
            answer.send(Ok(b"slow!"));
        }
    });
    for _ in 0..8 {
        assert_eq!(receiver.recv_timeout(DEADLINE).unwrap(), b"slow!");
    }
    answering.join().unwrap();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}
