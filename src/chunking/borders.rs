//! Where the format of a file asks for cuts.
//!
//! Owns: telling which format a file has, the stack of formats within formats, and the rules that hold for all
//! of them. Must not know: how any of them is laid out.
//! Invariant: borders ascend and lie within the file, whatever the formats say. A format names *pieces*; each
//! piece of at least a sixteenth of the average gets a border before and behind it, and what lies between two
//! pieces (headers, padding, pieces that are too small) is one segment. A piece is looked into as a file is.
//! Trust: none in the bytes; what a format says is checked here. Memory: a window and a batch of spans for each
//! level, of which there are `MAX_DEPTH`. Threads: those of `chunking`.

use std::collections::BinaryHeap;
use std::io;
use std::ops::Range;

use super::parquet::Parquet;
use super::part::{Look, Part, ReadAt, Stop};
use super::safetensors::Safetensors;
use super::tar::Tar;
use super::zip::Zip;

/// Formats within formats that are looked into; the outermost counts.
const MAX_DEPTH: usize = 3;
/// Metadata that a format may spread over one file, in bytes. A file with more is cut without it.
pub(super) const MAX_METADATA_LEN: u64 = 64 << 20;
/// Spans that are held at once; the list is read again for those that come later.
const BATCH: usize = 1 << 15;

/// The borders of one file, in ascending order.
pub(super) struct Borders<'a> {
    read: &'a ReadAt<'a>,
    /// Shorter pieces have no borders.
    least_piece: u64,
    /// Longer pieces are looked into: they may be cut.
    one_chunk: u64,
    /// The last border; all pieces before it are done.
    at: u64,
    /// The file, the piece of it that is being looked into, the piece of that, and so on.
    open: Vec<Piece<'a>>,
    /// Until the file itself has been looked into: its length.
    unopened: Option<u64>,
}

struct Piece<'a> {
    start: u64,
    end: u64,
    format: Format<'a>,
}

/// How the inside of a piece is divided.
enum Format<'a> {
    /// Not at all.
    Plain,
    Tar(Tar<'a>),
    Zip(Zip<'a>),
    Safetensors(Safetensors<'a>),
    Parquet(Parquet<'a>),
}

impl<'a> Format<'a> {
    fn of(part: Part<'a>) -> io::Result<Self> {
        match Self::look(part) {
            Ok(format) => Ok(format),
            Err(Stop::Wrong) => Ok(Self::Plain),
            Err(Stop::Io(error)) => Err(error),
        }
    }

    fn look(mut part: Part<'a>) -> Look<Self> {
        // Shorter ones hold nothing worth a border.
        let front = part.array::<512>(0)?;
        // The checksum of a tar says more than four letters, which may be the name of its first member.
        if Tar::begins(&front) {
            Ok(Self::Tar(Tar::open(part)))
        } else if Zip::begins(&front) {
            Ok(Self::Zip(Zip::open(part)?))
        } else if Parquet::begins(&front) {
            Ok(Self::Parquet(Parquet::open(part)?))
        } else if Safetensors::begins(&front) {
            Ok(Self::Safetensors(Safetensors::open(part)?))
        } else {
            Ok(Self::Plain)
        }
    }

    /// The next piece. `from`: all before it is done; `least`: shorter pieces need not be named.
    fn next(&mut self, from: u64, least: u64) -> Look<Option<Range<u64>>> {
        match self {
            Self::Plain => Ok(None),
            Self::Tar(tar) => tar.next().map(Some),
            Self::Zip(zip) => zip.next(from, least),
            Self::Safetensors(safetensors) => safetensors.next(from, least),
            Self::Parquet(parquet) => parquet.next(from, least),
        }
    }
}

impl<'a> Borders<'a> {
    /// Those of a file of `len` bytes. Nothing is read before the first is asked for.
    pub(super) fn new(read: &'a ReadAt<'a>, len: u64, average: u32) -> Self {
        let average = u64::from(average);
        let (least_piece, one_chunk) = (average / 16, average * 2);
        Self { read, least_piece, one_chunk, at: 0, open: Vec::new(), unopened: Some(len) }
    }

    /// The next border; `None` when there are no more.
    pub(super) fn next(&mut self) -> io::Result<Option<u64>> {
        if let Some(len) = self.unopened.take() {
            self.enter(0..len)?;
        }
        while let Some(piece) = self.inner_piece()? {
            let border = match piece {
                Some(inner) => {
                    let start = inner.start;
                    self.enter(inner)?;
                    start
                }
                // The loop condition has found an open piece.
                None => self.open.pop().map_or(0, |done| done.end),
            };
            if border > self.at {
                self.at = border;
                return Ok(Some(border));
            }
        }
        Ok(None)
    }

    fn enter(&mut self, piece: Range<u64>) -> io::Result<()> {
        let len = piece.end - piece.start;
        let format = if self.open.len() < MAX_DEPTH && len > self.one_chunk {
            Format::of(Part::new(self.read, piece.start, len))?
        } else {
            Format::Plain
        };
        self.open.push(Piece { start: piece.start, end: piece.end, format });
        Ok(())
    }

    /// The next piece in the innermost open one, in offsets of the file: `None` if nothing is open,
    /// `Some(None)` if it has no more.
    fn inner_piece(&mut self) -> io::Result<Option<Option<Range<u64>>>> {
        let Some(outer) = self.open.last_mut() else { return Ok(None) };
        let from = self.at.max(outer.start) - outer.start;
        let len = outer.end - outer.start;
        loop {
            let piece = match outer.format.next(from, self.least_piece) {
                Ok(Some(piece)) => piece,
                Ok(None) | Err(Stop::Wrong) => return Ok(Some(None)),
                Err(Stop::Io(error)) => return Err(error),
            };
            let long = piece.end.checked_sub(piece.start).is_some_and(|len| len >= self.least_piece);
            if long && piece.start >= from && piece.end <= len {
                return Ok(Some(Some(outer.start + piece.start..outer.start + piece.end)));
            }
        }
    }
}

/// Where something is and how long it is. What `start` is the start of, the format knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub start: u64,
    pub len: u64,
}

/// A list of spans that may be long and in any order, taken in ascending order a batch at a time.
#[derive(Default)]
pub(super) struct Spans {
    /// Descending, so that the next is the last.
    batch: Vec<Span>,
    taken: Option<Span>,
    complete: bool,
}

/// What a walk through the list is to offer its spans to.
pub(super) struct Gather {
    after: Option<Span>,
    from: u64,
    least: u64,
    /// The lowest so far, the highest of them on top.
    lowest: BinaryHeap<Span>,
    complete: bool,
}

impl Gather {
    pub(super) fn offer(&mut self, span: Span) {
        if span.start < self.from || span.len < self.least || Some(span) <= self.after {
            return;
        }
        self.lowest.push(span);
        if self.lowest.len() > BATCH {
            self.lowest.pop();
            self.complete = false;
        }
    }
}

impl Spans {
    /// The next span that starts at `from` or later and is at least `least` long. `walk` offers the whole list;
    /// should it stop halfway, the list ends there.
    pub(super) fn next(
        &mut self,
        from: u64,
        least: u64,
        mut walk: impl FnMut(&mut Gather) -> Look<()>,
    ) -> Look<Option<Span>> {
        loop {
            while let Some(span) = self.batch.pop() {
                self.taken = Some(span);
                if span.start >= from {
                    return Ok(Some(span));
                }
            }
            if self.complete {
                return Ok(None);
            }
            let mut gather =
                Gather { after: self.taken, from, least, lowest: BinaryHeap::new(), complete: true };
            if let Err(Stop::Io(error)) = walk(&mut gather) {
                return Err(error.into());
            }
            self.complete = gather.complete;
            self.batch = gather.lowest.into_sorted_vec();
            self.batch.reverse();
        }
    }
}
