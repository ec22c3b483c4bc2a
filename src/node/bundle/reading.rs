//! A bundle as it is read, from its beginning to its end.
//!
//! Owns: the file, the position in it, and the text for what does not fit there.
//! Must not know: what is believed or kept. Invariant: nothing is allocated by a length that the file gives, above the bounds
//! of `pack::bundle`; what cannot be read is an error that names file and place.
//! Trust: none in the file. Threads: one blocking thread. Writes nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{broken, unreadable};
use crate::node::error::{Error, Kind};
use crate::pack::bundle::{
    Contents, END_LEN, End, HEADER_LEN, Header, SEGMENT_HEAD_LEN, Segment, SegmentKind,
};
use crate::pack::file::RecordHeader;
use crate::pack::{Checked, Packed};

/// A bundle that is being read.
pub(super) struct Reader {
    file: File,
    path: PathBuf,
    pub contents: Contents,
    /// Where the first segment begins.
    pub first: u64,
    /// Where the next one does.
    pub at: u64,
}

/// A segment, and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub at: u64,
    pub segment: Segment,
}

impl Place {
    fn body(&self) -> u64 {
        self.at + SEGMENT_HEAD_LEN as u64
    }

    pub fn end(&self) -> u64 {
        self.body() + self.segment.len
    }
}

impl Reader {
    /// Opens a file, and reads what it says of itself.
    pub fn begin(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| Error::io("cannot read", path, error))?;
        let failed = |error| Error::io("cannot read", path, error);
        let mut header = [0; HEADER_LEN];
        let read = read_up_to(&file, &mut header, 0).map_err(failed)?;
        let header = Header::decode(&header[..read]).map_err(|error| unreadable(path, &error))?;
        let mut contents = vec![0; header.contents_len];
        let read = read_up_to(&file, &mut contents, HEADER_LEN as u64).map_err(failed)?;
        let contents =
            Contents::decode(&header, &contents[..read]).map_err(|error| unreadable(path, &error))?;
        let at = (HEADER_LEN + header.contents_len) as u64;
        Ok(Self { file, path: path.to_owned(), contents, first: at, at })
    }

    /// What is wrong at a place.
    pub fn broken(&self, at: u64, cause: impl std::fmt::Display) -> Error {
        broken(&self.path, at, cause)
    }

    /// The next segment, over which the position moves; nothing at the end of the file.
    pub fn segment(&mut self) -> Result<Option<Place>, Error> {
        let mut head = [0; SEGMENT_HEAD_LEN];
        let read = self.read(&mut head, self.at)?;
        if read == 0 {
            return Ok(None);
        }
        let segment = Segment::decode(&head[..read]).map_err(|error| self.broken(self.at, error))?;
        let place = Place { at: self.at, segment };
        // Its last byte is there, so all of it is.
        if segment.len > 0 && self.read(&mut [0], place.end() - 1)? == 0 {
            return Err(self.broken(self.at, "the segment that begins here is cut short"));
        }
        self.at = place.end();
        Ok(Some(place))
    }

    /// Whether the body of a segment is what was written.
    pub fn is_intact(&self, place: &Place) -> bool {
        self.body(place).is_ok_and(|body| *blake3::hash(&body).as_bytes() == place.segment.hash)
    }

    /// The blocks of a log segment.
    pub fn blocks(&self, place: &Place) -> Result<Vec<Vec<u8>>, Error> {
        let body = self.body(place)?;
        let blocks = place.segment.blocks(&body).map_err(|error| self.broken(place.at, error))?;
        Ok(blocks.into_iter().map(<[u8]>::to_vec).collect())
    }

    /// The index of an objects segment.
    pub fn records(&self, place: &Place) -> Result<Vec<RecordHeader>, Error> {
        let mut index = vec![0; place.segment.index_len()];
        let read = self.read(&mut index, place.body())?;
        place.segment.records(&index[..read]).map_err(|error| self.broken(place.at, error))
    }

    /// What an end segment says.
    pub fn end(&self, place: &Place) -> Result<End, Error> {
        let mut body = [0; END_LEN];
        match self.read(&mut body, place.body())? {
            END_LEN if *blake3::hash(&body).as_bytes() == place.segment.hash => Ok(End::decode(&body)),
            _ => Err(self.broken(place.at, "its end is damaged")),
        }
    }

    /// Where the stored bytes of the first object of a segment begin.
    pub fn first_object(place: &Place) -> u64 {
        place.body() + place.segment.index_len() as u64
    }

    /// The object whose stored bytes begin at `at`, verified.
    pub fn object(&self, record: &RecordHeader, at: u64) -> Result<Checked, Error> {
        // A record says 4 MiB at most.
        let mut stored = vec![0; record.stored_len as usize];
        let read = self.read(&mut stored, at)?;
        if read < stored.len() {
            return Err(self.broken(at, format!("{} is cut short", record.id)));
        }
        let packed = Packed::from_parts(record.codec as u8, record.plain_len, Bytes::from(stored));
        packed.and_then(|packed| packed.verify(&record.id)).map_err(|error| self.broken(at, error))
    }

    /// The digest of the end, as far as header and contents go.
    pub fn digest_of_contents(&self) -> blake3::Hasher {
        let mut digest = blake3::Hasher::new();
        digest.update(&self.contents.encode());
        digest
    }

    /// That of an end that fits what was read.
    pub fn check_end(&self, place: &Place, found: &End) -> Result<(), Error> {
        if place.segment.kind == SegmentKind::End && self.end(place)? == *found {
            return Ok(());
        }
        Err(self.broken(place.at, "what stands before its end is not what was written there"))
    }

    fn body(&self, place: &Place) -> Result<Vec<u8>, Error> {
        // `Segment::decode` bounds it.
        let mut body = vec![0; place.segment.len as usize];
        let read = self.read(&mut body, place.body())?;
        body.truncate(read);
        Ok(body)
    }

    fn read(&self, into: &mut [u8], at: u64) -> Result<usize, Error> {
        read_up_to(&self.file, into, at).map_err(|error| {
            let text = format!("cannot read {} at byte {at}: {error}", self.path.display());
            Error::new(Kind::Failed, text).hint("run it again; if it fails there again, copy the file anew")
        })
    }
}

/// As many bytes as there are, up to the length of `into`.
fn read_up_to(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
