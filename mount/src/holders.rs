//! Who keeps a mount busy, found in `/proc`.
//!
//! Owns: the search for processes with a working directory, root, program, open file or mapping below a directory.
//! Must not know: how mounts are made or ended.
//! Invariant: only links and text of `/proc` are read, never a file below the mount, so that a mount which does
//! not answer cannot hold up the search.
//! Trust: a process may end or change while it is looked at, and may forbid the look; both are passed over.
//! Threads: any; takes milliseconds per hundred processes.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::Holder;
use crate::mountpoint::unescape;

/// One line for each process that uses something at or below `dir`, which must be a canonical path.
pub(crate) fn holders(dir: &Path) -> Vec<Holder> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<Holder> = processes
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let process = PathBuf::from(format!("/proc/{pid}"));
            let path = held_path(&process, dir)?;
            let command = fs::read(process.join("comm")).unwrap_or_default();
            Some(Holder { pid, command: String::from_utf8_lossy(&command).trim_end().to_owned(), path })
        })
        .collect();
    found.sort_by_key(|holder| holder.pid);
    found
}

fn held_path(process: &Path, dir: &Path) -> Option<PathBuf> {
    let below = |link: PathBuf| fs::read_link(link).ok().filter(|path| path.starts_with(dir));
    let own = ["cwd", "root", "exe"].into_iter().find_map(|name| below(process.join(name)));
    own.or_else(|| fs::read_dir(process.join("fd")).ok()?.flatten().find_map(|fd| below(fd.path())))
        .or_else(|| mapped_path(&fs::read(process.join("maps")).ok()?, dir))
}

/// A file below `dir` in the text of `/proc/PID/maps`, see proc_pid_maps(5).
fn mapped_path(maps: &[u8], dir: &Path) -> Option<PathBuf> {
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        let start = line.iter().position(|byte| *byte == b'/')?;
        let path = PathBuf::from(OsString::from_vec(unescape(&line[start..])));
        path.starts_with(dir).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_files_are_found() {
        let maps = b"55d0-55d2 r--p 00000000 fe:00 1234   [heap]\n7f00-7f10 r--p 00000000 00:2a 7   /mnt/a\\012b c\n";
        assert_eq!(mapped_path(maps, Path::new("/mnt")), Some(PathBuf::from("/mnt/a\nb c")));
        assert_eq!(mapped_path(maps, Path::new("/mn")), None);
    }

    #[test]
    fn this_process_is_found_by_an_open_file() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        assert_eq!(holders(&dir), []);
        let file = fs::File::create(dir.join("held")).unwrap();
        let found = holders(&dir);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].pid, &found[0].path), (std::process::id(), &dir.join("held")));
        drop(file);
    }
}
