//! Directories as places to mount on: fit, taken, or left dead by a process that was killed.
//!
//! Owns: the reading of `/proc/self/mountinfo`, the checks before a mount, and the removal of dead ones.
//! Must not know: fuser, trees.
//! Invariant: only a mount whose process is gone is ever removed by `recover`.
//! Trust: `/proc` is believed; lines of it that cannot be read are passed over.
//! Threads: any; may wait for whatever file system is mounted on the directory in question.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::attach::{Detach, NAME, detach};
use crate::error::MountError;

/// Dead mounts may lie on top of each other; nobody has more than this.
const MAX_STACK: usize = 64;

/// One line of `/proc/self/mountinfo`, see proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountLine {
    /// `major:minor` of the file system, in decimal.
    pub(crate) device: String,
    pub(crate) point: PathBuf,
    pub(crate) source: String,
}

/// Undoes the kernel's octal escapes of blank, tab, newline and backslash in paths.
pub(crate) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                after
            }
            _ => {
                plain.push(*first);
                tail
            }
        };
    }
    plain
}

fn parse(line: &[u8]) -> Option<MountLine> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = String::from_utf8_lossy(fields.nth(2)?).into_owned();
    let point = PathBuf::from(std::ffi::OsString::from_vec(unescape(fields.nth(1)?)));
    // Options, then any number of tags, end with a dash; then type and source.
    fields.by_ref().find(|field| *field == b"-")?;
    let source = String::from_utf8_lossy(fields.nth(1)?).into_owned();
    Some(MountLine { device, point, source })
}

/// All mounts that this process sees, the later over the earlier.
pub(crate) fn mounts() -> io::Result<Vec<MountLine>> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// What is mounted on exactly `dir`, which must be a canonical path.
pub(crate) fn mounted_on(dir: &Path) -> io::Result<Option<MountLine>> {
    Ok(mounts()?.into_iter().rfind(|line| line.point == dir))
}

/// Whether `dir` is a mount whose process is gone: every access to it fails with ENOTCONN.
pub fn is_dead(dir: &Path) -> bool {
    // Not `stat`, which the kernel may answer from what it kept.
    matches!(rustix::fs::statfs(dir), Err(Errno::NOTCONN))
}

/// Every mount of this program whose process is gone.
pub fn dead_mounts() -> io::Result<Vec<PathBuf>> {
    let ours = mounts()?.into_iter().filter(|line| line.source == NAME);
    Ok(ours.map(|line| line.point).filter(|dir| is_dead(dir)).collect())
}

/// Removes the dead mounts on `dir`. Whether there were any.
pub fn recover(dir: &Path) -> Result<bool, MountError> {
    // Unmounting follows no links; where they lead can be told without asking the dead mount.
    let resolved = dir.canonicalize();
    let dir = resolved.as_deref().unwrap_or(dir);
    for removed in 0..MAX_STACK {
        if !is_dead(dir) {
            return Ok(removed > 0);
        }
        detach(dir, Detach::Lazy)?;
    }
    Err(MountError::Dead(dir.to_owned()))
}

/// Whether something can be mounted on `dir`. Gives its canonical path.
pub fn check_mountpoint(dir: &Path) -> Result<PathBuf, MountError> {
    let failed = |doing| move |cause| MountError::Io { doing, dir: dir.to_owned(), cause };
    match rustix::fs::statfs(dir) {
        Ok(_) => {}
        Err(Errno::NOTCONN) => return Err(MountError::Dead(dir.to_owned())),
        Err(Errno::NOENT) => return Err(MountError::Missing(dir.to_owned())),
        Err(Errno::NOTDIR) => return Err(MountError::NotADirectory(dir.to_owned())),
        Err(errno) => return Err(failed("cannot look at")(errno.into())),
    }
    let canonical = dir.canonicalize().map_err(failed("cannot resolve"))?;
    if !canonical.is_dir() {
        return Err(MountError::NotADirectory(canonical));
    }
    if let Some(line) = mounted_on(&canonical).map_err(failed("cannot read /proc/self/mountinfo for"))? {
        return Err(MountError::AlreadyMounted { dir: canonical, what: line.source });
    }
    if fs::read_dir(&canonical).map_err(failed("cannot list"))?.next().is_some() {
        return Err(MountError::NotEmpty(canonical));
    }
    Ok(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_understood() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402\134x rw,noatime master:1 shared:2 - fuse.bcai bc\040ai rw,user_id=0";
        let expected =
            MountLine { device: "98:0".into(), point: r"/mnt 2\x".into(), source: r"bc\040ai".into() };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 98:0 /mnt1 /mnt rw"), None);
    }

    #[test]
    fn only_whole_escapes_are_undone() {
        assert_eq!(unescape(br"a\012b\9\04"), b"a\nb\\9\\04");
    }

    #[test]
    fn unfit_mountpoints_are_told_apart() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(check_mountpoint(&temp.path().join("no")), Err(MountError::Missing(_))));
        assert!(matches!(check_mountpoint(&file), Err(MountError::NotADirectory(_))));
        assert!(matches!(check_mountpoint(&file.join("below")), Err(MountError::NotADirectory(_))));
        assert!(matches!(check_mountpoint(temp.path()), Err(MountError::NotEmpty(_))));
        assert!(matches!(check_mountpoint(Path::new("/proc")), Err(MountError::AlreadyMounted { .. })));
        let empty = temp.path().join("empty");
        fs::create_dir(&empty).unwrap();
        std::os::unix::fs::symlink(&empty, temp.path().join("link")).unwrap();
        let resolved = check_mountpoint(&temp.path().join("link")).unwrap();
        assert_eq!(resolved, empty.canonicalize().unwrap());
    }

    #[test]
    fn a_living_directory_is_not_recovered() {
        let temp = tempfile::tempdir().unwrap();
        assert!(!is_dead(temp.path()));
        assert!(!recover(temp.path()).unwrap());
        assert!(!recover(&temp.path().join("missing")).unwrap());
    }
}
