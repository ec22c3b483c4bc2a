//! The tensors of a safetensors file.
//!
//! Owns: the layout of safetensors files (a length of eight bytes, a JSON object of that length, data). Must not
//! know: types and shapes. Invariant, threads: those of `chunking`.
//! Trust: none in the bytes. Memory: the longest name of a tensor, which the header's limit bounds.
//!
//! A piece is the data of one tensor. The header is no piece.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::borders::{Gather, MAX_METADATA_LEN, Span, Spans};
use super::part::{Look, Part, Stop};

/// Length of the header's length.
const PREFIX_LEN: u64 = 8;
/// The one key of the header that is no tensor.
const METADATA: &str = "__metadata__";

pub(super) struct Safetensors<'a> {
    part: Part<'a>,
    /// Where the data begins.
    data: u64,
    tensors: Spans,
}

impl<'a> Safetensors<'a> {
    pub(super) fn begins(front: &[u8; 512]) -> bool {
        header_len(front) <= MAX_METADATA_LEN && front[8] == b'{'
    }

    pub(super) fn open(mut part: Part<'a>) -> Look<Self> {
        let data = PREFIX_LEN + header_len(&part.array(0)?);
        Ok(Self { part, data, tensors: Spans::default() })
    }

    pub(super) fn next(&mut self, from: u64, least: u64) -> Look<Option<Range<u64>>> {
        let walk = |gather: &mut Gather| {
            let header = Header { part: self.part.wide(), at: PREFIX_LEN, end: self.data };
            let mut json = serde_json::Deserializer::from_reader(header);
            let done = json.deserialize_map(Walk { data: self.data, gather });
            done.map_err(|error| if error.is_io() { Stop::Io(error.into()) } else { Stop::Wrong })
        };
        let tensor = self.tensors.next(from, least, walk)?;
        Ok(tensor.map(|tensor| tensor.start..tensor.start.saturating_add(tensor.len)))
    }
}

/// At most `MAX_METADATA_LEN` once `begins` has agreed.
fn header_len(front: &[u8; 512]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *front;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

struct Header<'a> {
    part: Part<'a>,
    at: u64,
    end: u64,
}

impl Read for Header<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // No longer than the buffer, so that it fits.
        let len = (buffer.len() as u64).min(self.end - self.at).min(1 << 10) as usize;
        match self.part.get(self.at, len) {
            Ok(bytes) => buffer[..len].copy_from_slice(bytes),
            Err(Stop::Io(error)) => return Err(error),
            // The file is shorter than the header says.
            Err(Stop::Wrong) => return Ok(0),
        }
        self.at += len as u64;
        Ok(len)
    }
}

/// What is of interest in the description of a tensor.
#[derive(serde::Deserialize)]
struct Tensor {
    /// From the start of the data.
    data_offsets: (u64, u64),
}

/// Offers each tensor as its description is met.
struct Walk<'g> {
    data: u64,
    gather: &'g mut Gather,
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let (start, end) = map.next_value::<Tensor>()?.data_offsets;
            if let (Some(start), Some(len)) = (self.data.checked_add(start), end.checked_sub(start)) {
                self.gather.offer(Span { start, len });
            }
        }
        Ok(())
    }
}
