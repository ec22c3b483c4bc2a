//! The entries of a zip.
//!
//! Owns: the layout of zip files (PKWARE's APPNOTE 6.3) as far as it says where the data of entries is. Must not
//! know: names, methods, what is in the data. Invariant, threads: those of `chunking`.
//! Trust: none in the bytes. An entry that is not where the directory says is no entry.
//!
//! A piece is the data of one entry as it stands in the file: of a stored entry the very file, of a compressed
//! one what the next version of the archive is likely to repeat. Local headers, data descriptors and the
//! directory are no pieces. Sizes come from the directory, since local headers may leave them out.

use std::ops::Range;

use super::borders::{Gather, MAX_METADATA_LEN, Span, Spans};
use super::part::{Look, Part, Stop};

const LOCAL: &[u8; 4] = b"PK\x03\x04";
const LOCAL_LEN: usize = 30;
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
const CENTRAL_LEN: usize = 46;
const END: &[u8; 4] = b"PK\x05\x06";
const END_LEN: usize = 22;
const END_64: &[u8; 4] = b"PK\x06\x06";
const LOCATOR_64: &[u8; 4] = b"PK\x06\x07";
const LOCATOR_64_LEN: u64 = 20;
/// The id of the extra field with the numbers that did not fit.
const EXTRA_64: u16 = 1;
/// Stands for a number that did not fit.
const ELSEWHERE: u32 = u32::MAX;

pub(super) struct Zip<'a> {
    part: Part<'a>,
    directory: Range<u64>,
    /// For each entry the offset of its local header and the length of its data.
    entries: Spans,
}

impl<'a> Zip<'a> {
    pub(super) fn begins(front: &[u8]) -> bool {
        front.starts_with(LOCAL)
    }

    pub(super) fn open(mut part: Part<'a>) -> Look<Self> {
        let directory = find_directory(&mut part)?;
        Ok(Self { part, directory, entries: Spans::default() })
    }

    pub(super) fn next(&mut self, from: u64, least: u64) -> Look<Option<Range<u64>>> {
        loop {
            let walk = |gather: &mut Gather| walk(self.part.wide(), self.directory.clone(), gather);
            let Some(entry) = self.entries.next(from, least, walk)? else { return Ok(None) };
            let header = match self.part.array::<LOCAL_LEN>(entry.start) {
                Ok(header) if header.starts_with(LOCAL) => header,
                Ok(_) | Err(Stop::Wrong) => continue,
                Err(error) => return Err(error),
            };
            let (name, extra) = (u16_at(&header, 26), u16_at(&header, 28));
            // The header has been read, so it ends within the file.
            let start = entry.start + LOCAL_LEN as u64 + u64::from(name) + u64::from(extra);
            if let Some(end) = start.checked_add(entry.len) {
                return Ok(Some(start..end));
            }
        }
    }
}

/// Where the central directory is.
fn find_directory(part: &mut Part<'_>) -> Look<Range<u64>> {
    // The end record, and behind it a comment whose length has 16 bits.
    let tail_len = part.len().min((END_LEN + usize::from(u16::MAX)) as u64);
    let tail_at = part.len() - tail_len;
    // At most 64 KiB and a bit.
    let tail = part.get(tail_at, tail_len as usize)?;
    let is_end = |record: &[u8], at: usize| {
        record.starts_with(END) && usize::from(u16_at(record, 20)) == tail.len() - at - END_LEN
    };
    let (at, record) = tail
        .windows(END_LEN)
        .enumerate()
        .rev()
        .find(|(at, record)| is_end(record, *at))
        .ok_or(Stop::Wrong)?;
    let (mut len, mut start) = (u64::from(u32_at(record, 12)), u64::from(u32_at(record, 16)));
    let end_at = tail_at + at as u64;
    if (u32_at(record, 12) == ELSEWHERE || u32_at(record, 16) == ELSEWHERE)
        && let Some(locator_at) = end_at.checked_sub(LOCATOR_64_LEN)
        && let locator = part.array::<{ LOCATOR_64_LEN as usize }>(locator_at)?
        && locator.starts_with(LOCATOR_64)
    {
        let record = part.array::<56>(u64_at(&locator, 8))?;
        if !record.starts_with(END_64) {
            return Err(Stop::Wrong);
        }
        (len, start) = (u64_at(&record, 40), u64_at(&record, 48));
    }
    let end = start.checked_add(len).filter(|end| *end <= end_at).ok_or(Stop::Wrong)?;
    if len > MAX_METADATA_LEN { Err(Stop::Wrong) } else { Ok(start..end) }
}

fn walk(mut part: Part<'_>, directory: Range<u64>, gather: &mut Gather) -> Look<()> {
    let mut at = directory.start;
    // Sums of offsets within the file and 16-bit lengths: they fit.
    while at + CENTRAL_LEN as u64 <= directory.end {
        let record = part.array::<CENTRAL_LEN>(at)?;
        if !record.starts_with(CENTRAL) {
            return Err(Stop::Wrong);
        }
        let [name, extra, comment] = [28, 30, 32].map(|field| u64::from(u16_at(&record, field)));
        let extra_at = at + CENTRAL_LEN as u64 + name;
        gather.offer(span(&mut part, &record, extra_at..extra_at + extra)?);
        at = extra_at + extra + comment;
    }
    Ok(())
}

/// What a directory record says of its entry.
fn span(part: &mut Part<'_>, record: &[u8; CENTRAL_LEN], extra: Range<u64>) -> Look<Span> {
    let [len, plain_len, start] = [20, 24, 42].map(|field| u32_at(record, field));
    let mut span = Span { start: start.into(), len: len.into() };
    if len != ELSEWHERE && start != ELSEWHERE {
        return Ok(span);
    }
    let mut at = extra.start;
    while at + 4 <= extra.end {
        let field = part.array::<4>(at)?;
        let (id, field_len) = (u16_at(&field, 0), u16_at(&field, 2));
        at += 4;
        if id == EXTRA_64 {
            // Those that did not fit, in this order.
            if plain_len == ELSEWHERE {
                at += 8;
            }
            if len == ELSEWHERE {
                span.len = u64_at(&part.array::<8>(at)?, 0);
                at += 8;
            }
            if start == ELSEWHERE {
                span.start = u64_at(&part.array::<8>(at)?, 0);
            }
            return Ok(span);
        }
        at += u64::from(field_len);
    }
    Ok(span)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
