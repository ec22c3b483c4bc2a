//! Reading of what lies in files outside of the packs.
//!
//! Owns: the opening of these files, and what is damage about them. Must not know: how objects came into them.
//! Invariant: a file that is not a plain one is not read from: a read could wait for ever, or for this very store.
//! Trust: none in the files. Threads: any; nothing is locked while a file is looked at.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{FUSE_SUPER_MAGIC, clone_path};
use crate::id::ObjectId;
use crate::pack::{Codec, MAX_OBJECT_LEN, Packed};
use crate::store::Shared;
use crate::store::error::StoreError;
use crate::store::index::{OutsideRow, Place, Stamp};

impl Shared {
    pub(super) fn outside_row(&self, number: u32) -> Result<Option<Arc<OutsideRow>>, StoreError> {
        let pending = self.outside.pending.read().unwrap_or_else(|broken| broken.into_inner());
        if let Some(row) = pending.get(&number) {
            return Ok(Some(Arc::clone(row)));
        }
        drop(pending);
        let row = self.view()?.outside(number).map_err(StoreError::index(&self.index_path))?;
        Ok(row.map(Arc::new))
    }

    /// The file that a place outside is in, and where in it, in bytes.
    pub(in crate::store) fn located_outside(&self, place: &Place) -> Result<(PathBuf, u64), StoreError> {
        let row = self.outside_row(place.pack)?;
        let offset = u64::from(place.offset);
        let known = row.map(|row| (self.dir.join(&row.path), row.base + offset));
        Ok(known.unwrap_or_else(|| (self.dir.join(clone_path(place.pack)), offset)))
    }

    /// What is at a place outside. Where the file is not as it was, that is hashed at once, so that the damage can be
    /// told with the name of the file; where it is, the caller will. `None` if the object lies elsewhere by now.
    pub(in crate::store) fn read_outside(
        &self,
        id: &ObjectId,
        place: &Place,
    ) -> Result<Option<Result<Packed, StoreError>>, StoreError> {
        let damage = |path: &Path, cause: &str| {
            self.outside.note(path, id, false);
            Ok(Some(Err(StoreError::Outside { path: path.to_owned(), cause: cause.to_owned() })))
        };
        let Some(row) = self.outside_row(place.pack)? else {
            // Perhaps a commit has put the last object of this part elsewhere since it was found here.
            if self.find(id)?.is_none_or(|now| !now.is_at(place)) {
                return Ok(None);
            }
            return damage(&self.dir.join(clone_path(place.pack)), "the index does not know what it was");
        };
        let path = self.dir.join(&row.path);
        let read = open(&path).and_then(|opened| {
            let Some((file, stamp)) = opened else { return Ok(None) };
            let len = (place.stored_len as usize).min(MAX_OBJECT_LEN);
            let bytes = self.disk.read(&file, len, row.base + u64::from(place.offset))?;
            Ok(Some((Bytes::from(bytes), stamp)))
        });
        let (bytes, stamp) = match read {
            Ok(Some(read)) => read,
            Ok(None) => return damage(&path, "something else has its name now"),
            Err(error) if is_gone(&error) => return damage(&path, "it is gone"),
            Err(error) if is_of_the_moment(&error) => return Err(StoreError::io("read", &path)(error)),
            Err(error) => return damage(&path, &format!("it cannot be read ({error})")),
        };
        if stamp != row.stamp {
            let sound = ObjectId::of(id.kind, &bytes) == *id;
            if sound {
                self.outside.note(&path, id, true);
            } else {
                return damage(&path, "it has changed since");
            }
        }
        let len = bytes.len() as u32;
        let packed = Packed::from_parts(Codec::Raw as u8, len, bytes);
        Ok(Some(packed.map_err(|cause| StoreError::Corrupt { path, cause })))
    }
}

/// Opens a regular file, and what else it may have become without waiting for it; `None` if it is something else.
fn open(path: &Path) -> io::Result<Option<(File, Stamp)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // A symlink, or a socket.
        Err(Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(file.as_fd())?;
    // None was on FUSE when it was published. A dataset may since have been mounted over its own files.
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && rustix::fs::fstatfs(file.as_fd())?.f_type != FUSE_SUPER_MAGIC;
    Ok(is_file.then(|| (file, Stamp::of(&stat))))
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, StaleNetworkFileHandle};
    matches!(error.kind(), NotFound | NotADirectory | StaleNetworkFileHandle)
}

/// Whether an error says nothing of the file: the next try may succeed. Any other stays until somebody does something
/// about it, and a copy from elsewhere is wanted meanwhile.
fn is_of_the_moment(error: &io::Error) -> bool {
    let of_the_moment = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR, Errno::IO];
    of_the_moment.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
