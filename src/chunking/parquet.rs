//! The pages of a Parquet file.
//!
//! Owns: the layout of Parquet files (apache/parquet-format: `parquet.thrift`, in Thrift's compact protocol) as
//! far as it says where row groups, column chunks and pages are. Must not know: schemas, encodings, values.
//! Invariant: each column chunk is walked once, forward. Trust: none in the bytes. Threads: those of `chunking`.
//!
//! A piece is a page with its header, or what is left of a column chunk from a page header on that cannot be
//! read. Row groups and column chunks begin and end with pages. The footer and the indexes are no pieces.

use std::ops::Range;

use super::borders::{Gather, MAX_METADATA_LEN, Span, Spans};
use super::part::{Look, Part, Stop};

const MAGIC: &[u8; 4] = b"PAR1";
/// The length of the footer's metadata, and the magic.
const TAIL_LEN: u64 = 8;
/// Structs within structs that are skipped. The format has fewer.
const MAX_NESTING: u8 = 12;

// Types of the compact protocol, as they stand in the headers of fields and lists.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

pub(super) struct Parquet<'a> {
    part: Part<'a>,
    footer: Range<u64>,
    columns: Spans,
    /// What is left of the column chunk whose pages are being named.
    column: Range<u64>,
}

impl<'a> Parquet<'a> {
    pub(super) fn begins(front: &[u8]) -> bool {
        front.starts_with(MAGIC)
    }

    pub(super) fn open(mut part: Part<'a>) -> Look<Self> {
        let end = part.len().checked_sub(TAIL_LEN).ok_or(Stop::Wrong)?;
        let [a, b, c, d, magic @ ..] = part.array::<{ TAIL_LEN as usize }>(end)?;
        let len = u64::from(u32::from_le_bytes([a, b, c, d]));
        let start = end.checked_sub(len).ok_or(Stop::Wrong)?;
        if magic != *MAGIC || len > MAX_METADATA_LEN {
            return Err(Stop::Wrong);
        }
        Ok(Self { part, footer: start..end, columns: Spans::default(), column: 0..0 })
    }

    pub(super) fn next(&mut self, from: u64, least: u64) -> Look<Option<Range<u64>>> {
        while self.column.is_empty() {
            let walk = |gather: &mut Gather| {
                let mut part = self.part.wide();
                Thrift { part: &mut part, at: self.footer.start, end: self.footer.end }.file(gather)
            };
            // Not before the end of the last one, or its pages would be walked again.
            let from = from.max(self.column.end);
            let Some(column) = self.columns.next(from, least, walk)? else { return Ok(None) };
            if let Some(end) = column.start.checked_add(column.len).filter(|end| *end <= self.footer.start) {
                self.column = column.start..end;
            }
        }
        let start = self.column.start;
        let mut page = Thrift { part: &mut self.part, at: start, end: self.column.end };
        let end = match page.page() {
            Ok(end) => end,
            Err(Stop::Wrong) => self.column.end,
            Err(error) => return Err(error),
        };
        self.column.start = end;
        Ok(Some(start..end))
    }
}

/// Reads Thrift's compact protocol up to `end`.
struct Thrift<'p, 'a> {
    part: &'p mut Part<'a>,
    at: u64,
    end: u64,
}

impl Thrift<'_, '_> {
    /// `FileMetaData`.
    fn file(&mut self, gather: &mut Gather) -> Look<()> {
        self.fields(|this, id, kind| match (id, kind) {
            (4, LIST) => this.structs(|this| this.row_group(gather)),
            _ => this.skip(kind, 0),
        })
    }

    fn row_group(&mut self, gather: &mut Gather) -> Look<()> {
        self.fields(|this, id, kind| match (id, kind) {
            (1, LIST) => this.structs(|this| this.column_chunk(gather)),
            _ => this.skip(kind, 0),
        })
    }

    fn column_chunk(&mut self, gather: &mut Gather) -> Look<()> {
        let (mut here, mut span) = (true, None);
        self.fields(|this, id, kind| match (id, kind) {
            (1, BINARY) => {
                here = false;
                this.skip(kind, 0)
            }
            (3, STRUCT) => this.column_metadata().map(|found| span = found),
            _ => this.skip(kind, 0),
        })?;
        if let Some(span) = span.filter(|_| here) {
            gather.offer(span);
        }
        Ok(())
    }

    fn column_metadata(&mut self) -> Look<Option<Span>> {
        let (mut len, mut data, mut dictionary) = (None, None, None);
        self.fields(|this, id, kind| {
            let field = match (id, kind) {
                (7, I64) => &mut len,
                (9, I64) => &mut data,
                (11, I64) => &mut dictionary,
                _ => return this.skip(kind, 0),
            };
            *field = u64::try_from(this.integer()?).ok();
            Ok(())
        })?;
        // Some writers give 0 for a dictionary that is not there.
        let dictionary = dictionary.filter(|offset| *offset > 0);
        let start = data.map(|data| dictionary.map_or(data, |dictionary| data.min(dictionary)));
        Ok(start.zip(len).map(|(start, len)| Span { start, len }))
    }

    /// Where the page ends whose header starts here.
    fn page(&mut self) -> Look<u64> {
        let mut len = None;
        self.fields(|this, id, kind| match (id, kind) {
            (3, I32) => this.integer().map(|value| len = u64::try_from(value).ok()),
            _ => this.skip(kind, 0),
        })?;
        self.pass(len.ok_or(Stop::Wrong)?)?;
        Ok(self.at)
    }

    /// Calls `field` with the id and the type of each field of a struct; it must read the value.
    fn fields(&mut self, mut field: impl FnMut(&mut Self, i64, u8) -> Look<()>) -> Look<()> {
        let mut id = 0i64;
        loop {
            let header = self.byte()?;
            let (delta, kind) = (header >> 4, header & 15);
            if kind == 0 {
                return Ok(());
            }
            id = if delta == 0 { self.integer()? } else { id.saturating_add(delta.into()) };
            field(self, id, kind)?;
        }
    }

    /// Calls `each` at each struct of a list; it must read it.
    fn structs(&mut self, mut each: impl FnMut(&mut Self) -> Look<()>) -> Look<()> {
        let (count, kind) = self.list()?;
        if kind != STRUCT && count > 0 {
            return Err(Stop::Wrong);
        }
        (0..count).try_for_each(|_| each(self))
    }

    /// The header of a list or set: how many, of what type.
    fn list(&mut self) -> Look<(u64, u8)> {
        let header = self.byte()?;
        let count = if header >> 4 == 15 { self.varint()? } else { u64::from(header >> 4) };
        Ok((count, header & 15))
    }

    /// Goes past a value of a field.
    fn skip(&mut self, kind: u8, nesting: u8) -> Look<()> {
        if nesting > MAX_NESTING {
            return Err(Stop::Wrong);
        }
        match kind {
            // The value of a field that is a boolean is its type.
            TRUE | FALSE => Ok(()),
            BYTE => self.pass(1),
            I16 | I32 | I64 => self.varint().map(drop),
            DOUBLE => self.pass(8),
            UUID => self.pass(16),
            BINARY => self.varint().and_then(|len| self.pass(len)),
            STRUCT => self.fields(|this, _, kind| this.skip(kind, nesting + 1)),
            LIST | SET => {
                let (count, kind) = self.list()?;
                (0..count).try_for_each(|_| self.skip_item(kind, nesting + 1))
            }
            MAP => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.skip_item(kinds >> 4, nesting + 1)?;
                    self.skip_item(kinds & 15, nesting + 1)
                })
            }
            _ => Err(Stop::Wrong),
        }
    }

    /// Goes past a value in a list, set or map. Each takes at least a byte, so that a count that is a lie soon
    /// meets the end.
    fn skip_item(&mut self, kind: u8, nesting: u8) -> Look<()> {
        if kind == TRUE || kind == FALSE { self.pass(1) } else { self.skip(kind, nesting) }
    }

    fn byte(&mut self) -> Look<u8> {
        let at = self.at;
        self.pass(1)?;
        Ok(self.part.get(at, 1)?[0])
    }

    fn pass(&mut self, len: u64) -> Look<()> {
        self.at = self.at.checked_add(len).filter(|at| *at <= self.end).ok_or(Stop::Wrong)?;
        Ok(())
    }

    fn varint(&mut self) -> Look<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Stop::Wrong)
    }

    /// A signed integer of any width.
    fn integer(&mut self) -> Look<i64> {
        let value = self.varint()?;
        // Zigzag; both halves fit.
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}
