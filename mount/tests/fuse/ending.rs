//! How mounts end: asked to, from outside, by force, and by the death of their process.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use bcai_mount::{Io, Mount, MountError, Options, check_mountpoint, is_dead, recover};

use crate::memory::Memory;
use crate::{DEADLINE, Mounted, child_with_mount, mount, table};

fn hello() -> Mounted {
    Mounted::new(|tree| {
        tree.file("hello", b"hello");
    })
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn unmounting_ends_it_and_the_directory_can_be_used_again() {
    let mounted = hello();
    mounted.mount.unmount().unwrap();
    assert!(mounted.mount.has_ended());
    mounted.ended.try_recv().expect("the callback has run when unmount returns");
    assert_eq!(table(mounted.temp.path()), Vec::<String>::new());
    mounted.mount.unmount().expect("a second time is no error");
    let (again, _ended) = mount(mounted.tree.clone(), mounted.temp.path(), Io::Cached);
    assert_eq!(fs::read(mounted.path("hello")).unwrap(), b"hello");
    // The old mount is not mistaken for the new one.
    mounted.mount.unmount_lazy().unwrap();
    assert_eq!(fs::read(mounted.path("hello")).unwrap(), b"hello");
    again.unmount().unwrap();
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn a_busy_mount_says_who_holds_it_and_goes_on() {
    let mounted = hello();
    let mut file = File::open(mounted.path("hello")).unwrap();
    let error = mounted.mount.unmount().unwrap_err();
    let MountError::Busy { holders, .. } = &error else { panic!("{error}") };
    let found: Vec<_> = holders.iter().map(|holder| (holder.pid, &holder.path)).collect();
    assert_eq!(found, [(std::process::id(), &mounted.path("hello"))], "{error}");
    assert!(!holders[0].command.is_empty());
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    assert_eq!(content, b"hello", "it still answers");
    assert_eq!(table(mounted.temp.path()).len(), 1);
    drop(file);
    mounted.mount.unmount().unwrap();
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn umount_in_a_shell_ends_it_too() {
    let mounted = hello();
    let root = rustix::process::getuid().is_root();
    let mut umount = if root { Command::new("umount") } else { Command::new("fusermount3") };
    let status = umount.args(if root { &[][..] } else { &["-u"] }).arg(mounted.temp.path()).status();
    assert!(status.unwrap().success());
    mounted.ended.recv_timeout(DEADLINE).expect("told of the end");
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn a_lazy_unmount_frees_the_directory_at_once_and_ends_with_the_last_file() {
    let mounted = hello();
    let mut file = File::open(mounted.path("hello")).unwrap();
    mounted.mount.unmount_lazy().unwrap();
    assert_eq!(table(mounted.temp.path()), Vec::<String>::new());
    assert!(!mounted.mount.has_ended());
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    assert_eq!(content, b"hello", "what is open stays readable");
    // A new mount on the same directory survives the end of the old one.
    let (_again, _) = mount(mounted.tree.clone(), mounted.temp.path(), Io::Cached);
    drop(file);
    mounted.ended.recv_timeout(DEADLINE).expect("told of the end");
    assert_eq!(fs::read(mounted.path("hello")).unwrap(), b"hello");
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn dropping_leaves_no_mount_even_while_it_is_busy() {
    let Mounted { ended, mount, temp, .. } = hello();
    let file = File::open(temp.path().join("hello")).unwrap();
    drop(mount);
    assert_eq!(table(temp.path()), Vec::<String>::new());
    drop(file);
    ended.recv_timeout(DEADLINE).expect("told of the end");
}

#[test]
#[cfg_attr(not(fuse_as_root), ignore = "only root may unmount by force")]
fn an_aborted_connection_leaves_no_dead_mount() {
    let mounted = hello();
    let _held = File::open(mounted.path("hello")).unwrap();
    // Aborts the connection, and then finds that the mount is busy.
    let forced = rustix::mount::unmount(mounted.temp.path(), rustix::mount::UnmountFlags::FORCE);
    assert_eq!(forced, Err(rustix::io::Errno::BUSY));
    mounted.ended.recv_timeout(DEADLINE).expect("told of the end");
    assert_eq!(table(mounted.temp.path()), Vec::<String>::new());
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "this machine cannot mount: no usable /dev/fuse")]
fn a_dead_mount_is_recognised_and_removed() {
    let temp = tempfile::tempdir().unwrap();
    let mut child = child_with_mount(temp.path(), |_| ());
    assert_eq!(fs::read(temp.path().join("hello")).unwrap(), b"hello");
    assert!(!is_dead(temp.path()));
    let taken = check_mountpoint(temp.path()).unwrap_err();
    assert!(matches!(&taken, MountError::AlreadyMounted { what, .. } if what == "bcai"), "{taken}");

    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_dead(temp.path()));
    assert!(matches!(check_mountpoint(temp.path()), Err(MountError::Dead(_))));
    let start = Mount::start(Arc::new(Memory::new()), temp.path(), &Options::default(), || ());
    assert!(matches!(start, Err(MountError::Dead(_))));
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join("link");
    std::os::unix::fs::symlink(temp.path(), &link).unwrap();
    assert!(recover(&link).unwrap());
    assert!(!is_dead(temp.path()));
    let (again, _ended) = mount(Arc::new(Memory::new()), temp.path(), Io::Cached);
    again.unmount().unwrap();
}

#[test]
#[cfg_attr(
    not(fuse_by_both_ways),
    ignore = "needs root, to become another user, `fusermount3`, and a /dev/fuse open to all"
)]
fn a_user_without_privileges_mounts_by_fusermount3() {
    const NOBODY: u32 = 65534;
    let temp = tempfile::tempdir().unwrap();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The build directory may be closed to other users.
    let program = temp.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let dir = temp.path().join("mnt");
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut child = child_with_mount(&dir, |command| {
        let mut other = Command::new(&program);
        other.args(command.get_args());
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        other.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        other.uid(NOBODY).gid(NOBODY);
        *command = other;
    });
    let line = table(&dir).pop().unwrap();
    assert!(line.starts_with("bcai ") && line.contains(" fuse.bcai ro,nosuid,nodev"), "{line}");
    // The child's own unmount, by fusermount3 too, ends it.
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(table(&dir), Vec::<String>::new());
}
