//! Where files are cut into chunks.
//!
//! Owns: the chunking parameters of a dataset, their text and encoded form, and the boundaries they yield;
//! for that it knows the outlines of a few file formats (`tar`, `zip`, `safetensors`, `parquet`), each in the
//! module of its name.
//! Must not know: files on disk, hashes, compression. Bytes are shown to it, or read through a function that
//! the caller gives.
//! Invariant: the boundaries depend on the parameters and the bytes alone, never on how the bytes were
//! buffered. They are part of the format: golden tests pin them. Each byte is in exactly one chunk, whatever a
//! file claims about its own structure.
//! Trust: parameters decoded from elsewhere are checked; the bytes to cut may be anything. A structure that is
//! broken or a lie moves boundaries and does nothing else; looking for one takes bounded memory, and time in
//! proportion to the file.
//! Threads: values that belong to one thread.

mod borders;
mod cutter;
mod parquet;
mod part;
mod safetensors;
mod tar;
#[cfg(test)]
pub(crate) mod tests;
mod zip;

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};

pub use self::cutter::Cutter;
pub use self::part::ReadAt;

/// The longest chunk any parameters can yield, in bytes.
pub const MAX_CHUNK_LEN: u32 = 4 << 20;

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;
const CDC_AVERAGE: std::ops::RangeInclusive<u32> = 16 * KIB..=MIB;
/// What `auto` without a size means.
const AUTO_AVERAGE: u32 = 64 * KIB;
const FIXED_SIZE: std::ops::RangeInclusive<u32> = 64 * KIB..=MAX_CHUNK_LEN;

/// Parameters that no chunker has. The user's mistake, or a foreign snapshot that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no chunking: use auto, auto:SIZE or cdc:SIZE with SIZE a power of two from 16K to 1M, \
     or fixed:SIZE with SIZE a power of two from 64K to 4M"
)]
pub struct ChunkingError(String);

/// How the files of a dataset are cut. Recorded in each snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(flat)]
pub enum Chunking {
    /// Content-defined: FastCDC v2020 (normalisation level 1, seed 0) with the minimum at a quarter of the
    /// average and the maximum at four times the average, in bytes. Data of at most twice the average stays
    /// in one chunk.
    #[n(0)]
    Cdc {
        #[n(0)]
        average: u32,
    },
    /// A cut each `size` bytes.
    #[n(1)]
    Fixed {
        #[n(0)]
        size: u32,
    },
    /// As `Cdc`, and cut too at the borders of what is packed in a file whose format is known: the members of
    /// a tar, the entries of a zip, the tensors of a safetensors file, the pages of a Parquet file.
    #[n(2)]
    Auto {
        #[n(0)]
        average: u32,
    },
}

impl Chunking {
    /// Says whether the parameters are within the limits of the format.
    pub fn check(&self) -> Result<(), ChunkingError> {
        let good = match self {
            Self::Cdc { average } | Self::Auto { average } => {
                average.is_power_of_two() && CDC_AVERAGE.contains(average)
            }
            Self::Fixed { size } => size.is_power_of_two() && FIXED_SIZE.contains(size),
        };
        if good { Ok(()) } else { Err(ChunkingError(self.to_string())) }
    }

    /// Whether `len` bytes stay in one chunk whatever they are. More bytes may happen to do so too.
    pub fn is_one_chunk(&self, len: u64) -> bool {
        match self {
            Self::Cdc { average } | Self::Auto { average } => len <= u64::from(*average) * 2,
            Self::Fixed { size } => len <= u64::from(*size),
        }
    }

    /// The longest chunk these parameters yield, in bytes.
    pub fn max_len(&self) -> usize {
        match self {
            Self::Cdc { average } | Self::Auto { average } => *average as usize * 4,
            Self::Fixed { size } => *size as usize,
        }
    }
}

impl Default for Chunking {
    fn default() -> Self {
        Self::Auto { average: AUTO_AVERAGE }
    }
}

impl fmt::Display for Chunking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, size) = match self {
            Self::Auto { average: AUTO_AVERAGE } => return f.write_str("auto"),
            Self::Auto { average } => ("auto", *average),
            Self::Cdc { average } => ("cdc", *average),
            Self::Fixed { size } => ("fixed", *size),
        };
        match size {
            size if size >= MIB && size % MIB == 0 => write!(f, "{name}:{}M", size / MIB),
            size if size >= KIB && size % KIB == 0 => write!(f, "{name}:{}K", size / KIB),
            size => write!(f, "{name}:{size}"),
        }
    }
}

impl FromStr for Chunking {
    type Err = ChunkingError;

    fn from_str(text: &str) -> Result<Self, ChunkingError> {
        let parsed = || {
            if text == "auto" {
                return Some(Self::default());
            }
            let (name, size) = text.split_once(':')?;
            let (digits, unit) = match size.as_bytes().last()? {
                b'K' => (&size[..size.len() - 1], KIB),
                b'M' => (&size[..size.len() - 1], MIB),
                _ => (size, 1),
            };
            // `u32::from_str` would take a leading plus sign.
            if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                return None;
            }
            let size = digits.parse::<u32>().ok()?.checked_mul(unit)?;
            match name {
                "auto" => Some(Self::Auto { average: size }),
                "cdc" => Some(Self::Cdc { average: size }),
                "fixed" => Some(Self::Fixed { size }),
                _ => None,
            }
        };
        parsed()
            .filter(|chunking| chunking.check().is_ok())
            .ok_or_else(|| ChunkingError(text.chars().take(80).collect()))
    }
}
