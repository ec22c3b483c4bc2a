//! The members of a tar.
//!
//! Owns: the layout of tar files (POSIX.1-2017 `pax`, ustar, GNU, the historic form) as far as it says where the
//! data of members is. Must not know: names, modes, what is in the data.
//! Invariant: each step goes forward. A header counts only if its checksum is right.
//! Trust: none in the bytes. Threads: those of `chunking`.
//!
//! A piece is the data of one member without its padding. Headers of all kinds, extended ones with their data
//! included, are no pieces. The data of a sparse member is stored without its holes, and is a piece as stored.

use std::ops::Range;

use super::part::{Look, Part, Stop};

const BLOCK: usize = 512;
/// Blocks of zeros in a row after which nothing is expected any more. Writers pad to 20 blocks, some to more;
/// and tars that were put one behind the other are still read.
const MAX_ZERO_BLOCKS: u32 = 2048;
/// Extended headers are searched for the size of the member up to this length.
const MAX_PAX_LEN: u64 = 1 << 20;

pub(super) struct Tar<'a> {
    part: Part<'a>,
    /// Offset of the next header.
    at: u64,
    zero_blocks: u32,
    /// The size that an extended header gives for the member behind it.
    size: Option<u64>,
}

impl<'a> Tar<'a> {
    pub(super) fn begins(front: &[u8; BLOCK]) -> bool {
        front[0] != 0 && checksum_is_right(front)
    }

    pub(super) fn open(part: Part<'a>) -> Self {
        Self { part, at: 0, zero_blocks: 0, size: None }
    }

    /// The data of the next member. The end of the tar is one more thing that is not a header.
    pub(super) fn next(&mut self) -> Look<Range<u64>> {
        loop {
            let block = self.part.array::<BLOCK>(self.at)?;
            self.at += BLOCK as u64;
            if block.iter().all(|byte| *byte == 0) {
                self.zero_blocks += 1;
                if self.zero_blocks > MAX_ZERO_BLOCKS {
                    return Err(Stop::Wrong);
                }
                continue;
            }
            self.zero_blocks = 0;
            if !checksum_is_right(&block) {
                return Err(Stop::Wrong);
            }
            if let Some(piece) = self.member(&block)? {
                return Ok(piece);
            }
        }
    }

    /// Goes past what the header in `block` stands before; returns it if it is the data of a member.
    fn member(&mut self, block: &[u8; BLOCK]) -> Look<Option<Range<u64>>> {
        let size = number(&block[124..136]).ok_or(Stop::Wrong)?;
        match block[156] {
            b'x' => {
                self.size = self.pax_size(size)?;
                self.pass(size)?;
                Ok(None)
            }
            // Extended headers for all members, and GNU's long names.
            b'g' | b'L' | b'K' => self.pass(size).map(|_| None),
            // Links, devices, directories and FIFOs have no data, whatever their size says.
            b'1'..=b'6' => {
                self.size = None;
                Ok(None)
            }
            kind => {
                // More of the map of a GNU sparse member.
                let mut more = kind == b'S' && block[482] != 0;
                while more {
                    more = self.part.array::<BLOCK>(self.at)?[504] != 0;
                    self.at += BLOCK as u64;
                }
                let size = self.size.take().unwrap_or(size);
                self.pass(size).map(Some)
            }
        }
    }

    /// Goes past `size` bytes and their padding; returns where they were.
    fn pass(&mut self, size: u64) -> Look<Range<u64>> {
        let end = self.at.checked_add(size).filter(|end| *end <= self.part.len()).ok_or(Stop::Wrong)?;
        let piece = self.at..end;
        self.at = end.checked_next_multiple_of(BLOCK as u64).ok_or(Stop::Wrong)?;
        Ok(piece)
    }

    /// What the records of the extended header here, `LENGTH KEYWORD=VALUE\n` each, say of the size.
    fn pax_size(&mut self, len: u64) -> Look<Option<u64>> {
        let mut size = None;
        let end = self.at.checked_add(len.min(MAX_PAX_LEN)).ok_or(Stop::Wrong)?;
        let mut at = self.at;
        while at < end {
            // The longest record of a size is `27 size=` with 19 digits.
            let shown = (end - at).min(32) as usize;
            let record = self.part.get(at, shown)?;
            let Some(space) = record.iter().position(|byte| *byte == b' ') else { break };
            let Some(length) = decimal(&record[..space]).filter(|length| *length > space as u64) else {
                break;
            };
            if let Some(value) = record[space + 1..].strip_prefix(b"size=") {
                let digits = value.iter().position(|byte| *byte == b'\n').map(|end| &value[..end]);
                size = digits.and_then(decimal);
            }
            at = at.checked_add(length).ok_or(Stop::Wrong)?;
        }
        Ok(size)
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A number of a header: octal digits between spaces and NULs, or, for large ones, big-endian binary behind a
/// first byte of 0x80.
fn number(field: &[u8]) -> Option<u64> {
    if let Some(binary) = field.strip_prefix(&[0x80]) {
        return binary.iter().try_fold(0u64, |sum, byte| sum.checked_mul(256)?.checked_add((*byte).into()));
    }
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let (digits, rest) =
        field[start..].split_at(field[start..].iter().position(blank).unwrap_or(field.len() - start));
    let octal = |sum: u64, digit: &u8| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add((digit - b'0').into()),
        _ => None,
    };
    if rest.iter().all(blank) { digits.iter().try_fold(0, octal) } else { None }
}

/// Whether the sum of all bytes, with the sum's own field as spaces, is what the field says.
fn checksum_is_right(block: &[u8; BLOCK]) -> bool {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    number(&block[148..156]) == Some(sum(&block[..148]) + 8 * u64::from(b' ') + sum(&block[156..]))
}
