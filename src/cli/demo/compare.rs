//! Two directory trees, name by name and byte by byte.
//!
//! Owns: what "equal" means for the demonstration: names, kinds, content, mode, times to the nanosecond, link targets,
//! hard links and extended attributes of users.
//! Must not know: bcai.
//! Invariant: a tree that could not be read whole is an error, never "equal".
//! Trust: both trees are ours to read. Threads: the script's.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::node::{Error, Kind};

const BUFFER: usize = 1 << 20;
/// Differences told apart; further ones add nothing.
const DIFFERENCES_MAX: usize = 100;

/// What a comparison found.
pub struct Compared {
    pub files: u64,
    pub bytes: u64,
    pub differences: Vec<String>,
}

/// Compares `right` with `left`; `stop` ends it early with an error.
pub fn compare(left: &Path, right: &Path, stop: &AtomicBool) -> Result<Compared, Error> {
    let mut found = Compared { files: 0, bytes: 0, differences: Vec::new() };
    let mut buffers = (vec![0; BUFFER], vec![0; BUFFER]);
    // The number of the first name of each inode: hard links are the same on both sides if these are.
    let (mut first_a, mut first_b) = (HashMap::new(), HashMap::new());
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Failed, "interrupted"));
        }
        if found.differences.len() >= DIFFERENCES_MAX {
            break;
        }
        found.files += 1;
        let (a, b) = (left.join(&relative), right.join(&relative));
        let meta = stat(&a)?;
        match stat(&b) {
            Ok(other) => {
                found.differences.extend(attributes(&relative, &meta, &other));
                let same_file = first_a.entry(meta.ino()).or_insert(found.files)
                    == first_b.entry(other.ino()).or_insert(found.files);
                if !same_file {
                    found.differences.push(format!("{}: linked to another file", relative.display()));
                }
                if xattrs(&a)? != xattrs(&b)? {
                    found.differences.push(format!("{}: other extended attributes", relative.display()));
                }
            }
            Err(error) => {
                found.differences.push(format!("{}: {error}", relative.display()));
                continue;
            }
        }
        if meta.is_dir() {
            let names = names(&a)?;
            if names != self::names(&b)? {
                found.differences.push(format!("{}: other names", relative.display()));
            }
            // Depth first, in order: as most programs read, and as a snapshot is laid out.
            pending.extend(names.into_iter().rev().map(|name| relative.join(name)));
        } else if meta.is_symlink() {
            if read_link(&a)? != read_link(&b)? {
                found.differences.push(format!("{}: other link target", relative.display()));
            }
        } else {
            found.bytes += meta.len();
            if !same_content(&a, &b, &mut buffers)? {
                found.differences.push(format!("{}: other content", relative.display()));
            }
        }
    }
    Ok(found)
}

/// At most `max` regular files below `dir`.
pub fn regular_files(dir: &Path, max: usize) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = stat(&path)?;
        if meta.is_dir() {
            pending.extend(names(&path)?.into_iter().map(|name| path.join(name)));
        } else if meta.is_file() {
            files.push(path);
        }
        if files.len() == max {
            break;
        }
    }
    Ok(files)
}

fn attributes(path: &Path, a: &Metadata, b: &Metadata) -> Option<String> {
    let size = |m: &Metadata| if m.is_dir() { 0 } else { m.size() };
    // A link's own permissions mean nothing on Linux; setuid bits are dropped by design.
    let mode = |m: &Metadata| m.mode() & if m.is_symlink() { 0o170000 } else { 0o171777 };
    let seen = |m: &Metadata| (mode(m), m.mtime(), m.mtime_nsec(), size(m));
    (seen(a) != seen(b))
        .then(|| format!("{}: (mode, mtime, ns, size) {:?} is {:?}", path.display(), seen(a), seen(b)))
}

fn same_content(a: &Path, b: &Path, buffers: &mut (Vec<u8>, Vec<u8>)) -> Result<bool, Error> {
    let open = |path: &Path| File::open(path).map_err(|error| Error::io("cannot open", path, error));
    let (mut file_a, mut file_b) = (open(a)?, open(b)?);
    loop {
        let n = fill(&mut file_a, &mut buffers.0).map_err(|error| Error::io("cannot read", a, error))?;
        let m = fill(&mut file_b, &mut buffers.1).map_err(|error| Error::io("cannot read", b, error))?;
        if buffers.0[..n] != buffers.1[..m] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// The attributes that a snapshot keeps: those of users. The ones about bcai itself are only in the mount.
fn xattrs(path: &Path) -> Result<BTreeMap<OsString, Option<Vec<u8>>>, Error> {
    let failed = |error| Error::io("cannot read the attributes of", path, error);
    let kept = |name: &OsString| {
        let name = name.as_encoded_bytes();
        name.starts_with(b"user.") && !name.starts_with(b"user.bcai.")
    };
    let names = xattr::list(path).map_err(failed)?.filter(kept);
    names.map(|name| Ok((name.clone(), xattr::get(path, &name).map_err(failed)?))).collect()
}

fn stat(path: &Path) -> Result<Metadata, Error> {
    fs::symlink_metadata(path).map_err(|error| Error::io("cannot stat", path, error))
}

fn read_link(path: &Path) -> Result<PathBuf, Error> {
    fs::read_link(path).map_err(|error| Error::io("cannot read", path, error))
}

fn names(dir: &Path) -> Result<Vec<OsString>, Error> {
    let read = || fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>();
    let mut names = read().map_err(|error| Error::io("cannot list", dir, error))?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The comparison is what tells a user that bcai works, so it has to notice everything itself.
    #[test]
    fn every_kind_of_difference_is_noticed() {
        let compare_after = |change: &dyn Fn(&Path)| {
            let root = tempfile::tempdir().unwrap();
            let (a, b) = (root.path().join("a"), root.path().join("b"));
            fs::create_dir_all(a.join("dir")).unwrap();
            fs::write(a.join("dir/file"), "content").unwrap();
            std::os::unix::fs::symlink("target", a.join("link")).unwrap();
            super::super::copy(&a, &b).unwrap();
            change(&b);
            compare(&a, &b, &AtomicBool::new(false)).unwrap().differences.len()
        };
        assert_eq!(compare_after(&|_| {}), 0);
        let changes: [&dyn Fn(&Path); 7] = [
            &|b| xattr::set(b.join("dir/file"), "user.colour", b"red").unwrap(),
            &|b| fs::hard_link(b.join("dir/file"), b.join("dir/file2")).unwrap(),
            &|b| fs::write(b.join("dir/file"), "CONTENT").unwrap(),
            &|b| fs::remove_file(b.join("dir/file")).unwrap(),
            &|b| fs::write(b.join("dir/more"), "").unwrap(),
            &|b| {
                fs::remove_file(b.join("link")).unwrap();
                std::os::unix::fs::symlink("elsewhere", b.join("link")).unwrap();
            },
            &|b| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                fs::set_permissions(b.join("dir/file"), mode).unwrap();
            },
        ];
        for (i, change) in changes.iter().enumerate() {
            assert!(compare_after(change) > 0, "change {i}");
        }
    }
}
