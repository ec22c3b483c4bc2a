//! Where files are cut into chunks.
//!
//! Owns: the chunking parameters of a dataset, their text and encoded form, and the boundaries they yield.
//! Must not know: files, hashes, compression, or where bytes come from.
//! Invariant: the boundaries depend on the parameters and the bytes alone, never on how the bytes were
//! buffered. They are part of the format: golden tests pin them.
//! Trust: parameters decoded from elsewhere are checked; the bytes to cut may be anything.
//! Threads: pure functions and values.

use std::fmt;
use std::str::FromStr;

use fastcdc::v2020::FastCDC;
use minicbor::{Decode, Encode};

/// The longest chunk any parameters can yield, in bytes.
pub const MAX_CHUNK_LEN: u32 = 4 << 20;

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;
const CDC_AVERAGE: std::ops::RangeInclusive<u32> = 16 * KIB..=MIB;
const FIXED_SIZE: std::ops::RangeInclusive<u32> = 64 * KIB..=MAX_CHUNK_LEN;

/// Parameters that no chunker has. The user's mistake, or a foreign snapshot that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no chunking: use cdc:SIZE with SIZE a power of two from 16K to 1M, \
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
}

impl Chunking {
    /// Says whether the parameters are within the limits of the format.
    pub fn check(&self) -> Result<(), ChunkingError> {
        let good = match self {
            Self::Cdc { average } => average.is_power_of_two() && CDC_AVERAGE.contains(average),
            Self::Fixed { size } => size.is_power_of_two() && FIXED_SIZE.contains(size),
        };
        if good { Ok(()) } else { Err(ChunkingError(self.to_string())) }
    }

    /// Whether `len` bytes stay in one chunk whatever they are. More bytes may happen to do so too.
    pub fn is_one_chunk(&self, len: u64) -> bool {
        match self {
            Self::Cdc { average } => len <= u64::from(*average) * 2,
            Self::Fixed { size } => len <= u64::from(*size),
        }
    }

    /// The longest chunk these parameters yield, in bytes.
    pub fn max_len(&self) -> usize {
        match self {
            Self::Cdc { average } => *average as usize * 4,
            Self::Fixed { size } => *size as usize,
        }
    }
}

impl Default for Chunking {
    fn default() -> Self {
        Self::Cdc { average: 64 * KIB }
    }
}

impl fmt::Display for Chunking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, size) = match self {
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

/// Cuts one run of bytes (a file, or the data between two holes of one) that arrives in pieces.
///
/// The caller holds the bytes: it shows what it has at the front of the run, takes off the chunk it is told
/// of, and reads more when told that this is not enough.
#[derive(Debug)]
pub struct Cutter {
    chunking: Chunking,
    whole: bool,
    remaining: u64,
}

impl Cutter {
    /// A cutter for a run of `len` bytes.
    pub fn new(chunking: Chunking, len: u64) -> Result<Self, ChunkingError> {
        chunking.check()?;
        Ok(Self { chunking, whole: chunking.is_one_chunk(len), remaining: len })
    }

    /// Bytes of the run that have not been cut off yet.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// How many bytes `next` must be shown to decide on the next chunk.
    pub fn wants(&self) -> usize {
        // `max_len` is at most 4 MiB, so the result fits.
        self.remaining.min(self.chunking.max_len() as u64) as usize
    }

    /// The length of the next chunk, which starts at the front of `data`; `None` when the run is at its end,
    /// or when `data` is shorter than [`Self::wants`]. `data` may go on past the chunk, even past the run.
    pub fn next(&mut self, data: &[u8]) -> Option<usize> {
        let wants = self.wants();
        if wants == 0 || data.len() < wants {
            return None;
        }
        let len = match self.chunking {
            Chunking::Cdc { average } if !self.whole => {
                let average = average as usize;
                FastCDC::new(&data[..wants], average / 4, average, average * 4).cut(0, wants).1
            }
            _ => wants,
        };
        self.remaining -= len as u64;
        Some(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that look random and never change: the BLAKE3 output stream of `seed`.
    fn noise(seed: &[u8], len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(seed).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cut_at_once(chunking: Chunking, data: &[u8]) -> Vec<usize> {
        let mut cutter = Cutter::new(chunking, data.len() as u64).unwrap();
        let mut rest = data;
        let mut lengths = Vec::new();
        while let Some(len) = cutter.next(rest) {
            lengths.push(len);
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
        assert_eq!(cutter.remaining(), 0);
        lengths
    }

    fn cut_in_pieces(chunking: Chunking, data: &[u8], pieces: &[usize]) -> Vec<usize> {
        let mut cutter = Cutter::new(chunking, data.len() as u64).unwrap();
        let (mut buffer, mut unread) = (Vec::new(), data);
        let mut lengths = Vec::new();
        for piece in pieces.iter().cycle() {
            while let Some(len) = cutter.next(&buffer) {
                lengths.push(len);
                buffer.drain(..len);
            }
            if unread.is_empty() {
                break;
            }
            let (now, later) = unread.split_at((*piece).min(unread.len()));
            buffer.extend_from_slice(now);
            unread = later;
        }
        assert!(buffer.is_empty());
        lengths
    }

    const CDC_16K: Chunking = Chunking::Cdc { average: 16 * KIB };

    #[test]
    fn golden_boundaries() {
        let data = noise(b"bcai chunking", 3 << 20);
        let lengths = |text: &str| cut_at_once(text.parse().unwrap(), &data);
        assert_eq!(lengths("cdc:64K"), GOLDEN_64K);
        assert_eq!(lengths("cdc:256K"), GOLDEN_256K);
        assert_eq!(lengths("cdc:1M"), GOLDEN_1M);
        assert_eq!(lengths("fixed:1M"), [1 << 20; 3]);
        assert_eq!(lengths("fixed:2M"), [2 << 20, 1 << 20]);
        assert_eq!(lengths("fixed:4M"), [3 << 20]);
    }

    const GOLDEN_64K: &[usize] = &[
        111734, 69754, 142434, 18714, 101793, 42964, 172722, 94623, 90196, 81343, 35104, 139479, 82244,
        26819, 104179, 69009, 90980, 102094, 39938, 41671, 115407, 82219, 25454, 53436, 66441, 109547,
        203123, 97783, 70961, 71812, 104415, 218532, 97363, 29526, 97718, 44197,
    ];
    const GOLDEN_256K: &[usize] = &[323922, 521012, 81343, 283646, 406200, 264751, 777518, 345421, 141915];
    const GOLDEN_1M: &[usize] = &[1657794, 1487934];

    #[test]
    fn little_data_is_one_chunk() {
        let data = noise(b"small", 128 * KIB as usize + 1);
        assert_eq!(cut_at_once(Chunking::default(), &[]), [0; 0]);
        assert_eq!(cut_at_once(Chunking::default(), &data[..1]), [1]);
        assert_eq!(cut_at_once(Chunking::default(), &data[..128 * KIB as usize]), [128 * KIB as usize]);
        assert!(cut_at_once(Chunking::default(), &data).len() > 1);
    }

    #[test]
    fn an_insertion_moves_few_boundaries() {
        let data = noise(b"edit", 4 << 20);
        let edited = [&data[..1_000_000], b"inserted", &data[1_000_000..]].concat();
        let chunks = |data: &[u8]| {
            let mut rest = data;
            let mut set = std::collections::HashSet::new();
            for len in cut_at_once(CDC_16K, data) {
                set.insert(blake3::hash(&rest[..len]));
                rest = &rest[len..];
            }
            set
        };
        let new = chunks(&edited).difference(&chunks(&data)).count();
        assert!((1..=4).contains(&new), "{new} new chunks");
    }

    #[test]
    fn text_form_round_trips_and_junk_is_refused() {
        for text in
            ["cdc:16K", "cdc:64K", "cdc:256K", "cdc:1M", "fixed:64K", "fixed:1M", "fixed:2M", "fixed:4M"]
        {
            assert_eq!(text.parse::<Chunking>().unwrap().to_string(), text);
        }
        assert_eq!("cdc:65536".parse(), Ok(Chunking::default()));
        for text in [
            "",
            "cdc",
            "cdc:",
            "cdc:K",
            "cdc:+64K",
            "cdc:64k",
            "cdc:8K",
            "cdc:2M",
            "cdc:65K",
            "fixed:8M",
            "cdc:0",
            "fixed:32K",
            "rabin:64K",
            "cdc:64K ",
            "cdc:99999999999",
            "cdc:4194304M",
        ] {
            assert!(text.parse::<Chunking>().is_err(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn pieces_do_not_matter(
            len in 0usize..600_000,
            seed: u64,
            period in 1usize..5000,
            periodic: bool,
            pieces in prop::collection::vec(1usize..300_000, 1..6),
        ) {
            let mut data = noise(&seed.to_le_bytes(), len);
            if periodic {
                for at in period..len {
                    data[at] = data[at - period];
                }
            }
            for chunking in [CDC_16K, Chunking::Fixed { size: 64 * KIB }] {
                let at_once = cut_at_once(chunking, &data);
                prop_assert!(at_once.iter().all(|len| *len <= chunking.max_len()));
                prop_assert_eq!(at_once, cut_in_pieces(chunking, &data, &pieces));
            }
        }
    }
}
