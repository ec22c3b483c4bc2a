//! The bytes of a catalogue: what an origin has of one snapshot, and in which packs.
//!
//! Owns: the layout below and its checks.
//! Must not know: where catalogues are, or what is in a pack.
//! Invariant: a decoder accepts only lengths that fit the file. A row is a hint: the pack that it names has the truth.
//! Trust: none in what is decoded; nothing is allocated by a count before so many bytes are there.
//! Threads: pure functions.
//!
//! ```text
//!  +--------+----------------------+-------------------------------+-------+----------------------+
//!  | header | packs, 40 B for each | starts, 4 B for each shard +1 | check | rows, 12 B for each  |
//!  |  32 B  |                      |                               |  8 B  | object, sorted       |
//!  +--------+----------------------+-------------------------------+-------+----------------------+
//!
//!  header   0          8         12      16        20     24      32
//!           | bcaicata | version | packs | objects | bits | zeros |
//!
//!  pack     0                       32       36      40
//!           | BLAKE3 of the file    | length | start |
//!
//!  row      0                             8      12
//!           | first 8 bytes of the hash   | pack |
//! ```
//!
//! Numbers are little-endian. A shard holds the rows whose hashes begin with the same `bits` bits; start *i* is the number
//! of the first row of shard *i*, and the last start is the number of rows. The check is the first eight bytes of the
//! BLAKE3 of all before it.

use std::ops::Range;

use crate::id::ID_LEN;

const MAGIC: &[u8; 8] = b"bcaicata";
const VERSION: u32 = 1;
pub(super) const HEADER_LEN: usize = 32;
const PACK_LEN: usize = 40;
const ROW_LEN: usize = 12;
const CHECK_LEN: usize = 8;
/// The most packs of one catalogue: 8 TiB in packs of the usual size, in 10 MiB of rows.
pub(super) const MAX_PACKS: u32 = 1 << 18;
const MAX_BITS: u32 = 16;
/// Rows in a shard, about.
const SHARD_ROWS: usize = 2048;
/// More rows than that are refused: 768 KiB.
const MAX_SHARD_ROWS: u32 = 1 << 16;
/// Packs looked into for one object. More rows begin alike only if somebody made them so.
const MAX_CANDIDATES: usize = 8;

/// A pack of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackRow {
    pub hash: [u8; ID_LEN],
    /// Of the file.
    pub len: u32,
    /// Where its records end and its trailer begins.
    pub start: u32,
}

/// The start of an object's hash, and the number of its pack among those of the catalogue.
pub(super) type Row = ([u8; 8], u32);

/// Where a catalogue's parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    packs: u32,
    objects: u32,
    bits: u32,
}

/// Everything of a catalogue but its rows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Front {
    pub packs: Vec<PackRow>,
    starts: Vec<u32>,
    bits: u32,
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn check_of(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECK_LEN]);
    check
}

/// The shard of a hash among `1 << bits`.
fn shard_of(prefix: &[u8; 8], bits: u32) -> u32 {
    // `bits` is 16 at most, so all of the shard is in the first two bytes.
    u32::from(u16::from_be_bytes([prefix[0], prefix[1]])) >> (MAX_BITS - bits)
}

/// The first bytes of a hash, by which rows are sorted.
pub(super) fn prefix_of(hash: &[u8; ID_LEN]) -> [u8; 8] {
    let mut prefix = [0; 8];
    prefix.copy_from_slice(&hash[..8]);
    prefix
}

/// A whole catalogue; sorts `rows`.
pub(super) fn encode(packs: &[PackRow], rows: &mut [Row]) -> Vec<u8> {
    rows.sort_unstable();
    let wanted = rows.len().div_ceil(SHARD_ROWS).next_power_of_two();
    let bits = wanted.trailing_zeros().min(MAX_BITS);
    let mut bytes = Vec::with_capacity(HEADER_LEN + packs.len() * PACK_LEN + (rows.len() + 1) * ROW_LEN);
    bytes.extend_from_slice(MAGIC);
    for field in [VERSION, packs.len() as u32, rows.len() as u32, bits, 0, 0] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    for pack in packs {
        bytes.extend_from_slice(&pack.hash);
        bytes.extend_from_slice(&pack.len.to_le_bytes());
        bytes.extend_from_slice(&pack.start.to_le_bytes());
    }
    for shard in 0..=1u32 << bits {
        let start = rows.partition_point(|(prefix, _)| shard_of(prefix, bits) < shard);
        bytes.extend_from_slice(&(start as u32).to_le_bytes());
    }
    let check = check_of(&bytes);
    bytes.extend_from_slice(&check);
    for (prefix, pack) in rows {
        bytes.extend_from_slice(prefix);
        bytes.extend_from_slice(&pack.to_le_bytes());
    }
    bytes
}

impl Header {
    /// `bytes` is the start of the file.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes = bytes.get(..HEADER_LEN).ok_or("it is too short")?;
        if &bytes[..8] != MAGIC {
            return Err("it does not begin with `bcaicata`");
        }
        if number(bytes, 8) != VERSION {
            return Err("its format is of another version of bcai");
        }
        let header = Self { packs: number(bytes, 12), objects: number(bytes, 16), bits: number(bytes, 20) };
        if header.packs > MAX_PACKS || header.bits > MAX_BITS || bytes[24..] != [0; 8] {
            return Err("its header is damaged");
        }
        Ok(header)
    }

    /// Bytes from the start of the file to the first row; at most 11 MiB.
    pub(super) fn front_len(&self) -> usize {
        HEADER_LEN + self.packs as usize * PACK_LEN + ((1 << self.bits) + 1) * 4 + CHECK_LEN
    }
}

impl Front {
    /// `bytes` is the start of the file, with all of the front.
    pub(super) fn decode(header: &Header, bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes = bytes.get(..header.front_len()).ok_or("it is too short")?;
        let (body, check) = bytes.split_at(bytes.len() - CHECK_LEN);
        if check_of(body) != check {
            return Err("its tables are damaged");
        }
        let (packs, starts) = body[HEADER_LEN..].split_at(header.packs as usize * PACK_LEN);
        let pack = |row: &[u8]| {
            let mut hash = [0; ID_LEN];
            hash.copy_from_slice(&row[..ID_LEN]);
            PackRow { hash, len: number(row, 32), start: number(row, 36) }
        };
        let packs = packs.chunks_exact(PACK_LEN).map(pack).collect();
        let starts: Vec<u32> = starts.chunks_exact(4).map(|start| number(start, 0)).collect();
        let fits = starts.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] - pair[0] <= MAX_SHARD_ROWS);
        if !fits || starts.first() != Some(&0) || starts.last() != Some(&header.objects) {
            return Err("its shards do not fit its rows");
        }
        Ok(Self { packs, starts, bits: header.bits })
    }

    /// Bytes that this takes in memory, about.
    pub(super) fn weight(&self) -> usize {
        self.packs.len() * PACK_LEN + self.starts.len() * 4
    }

    pub(super) fn shard(&self, hash: &[u8; ID_LEN]) -> u32 {
        shard_of(&prefix_of(hash), self.bits)
    }

    /// Where the rows of a shard are in the file, whose front ends at `front_len`; at most 768 KiB.
    pub(super) fn rows_of(&self, shard: u32, front_len: usize) -> Range<u64> {
        let place = |start: u32| front_len as u64 + u64::from(start) * ROW_LEN as u64;
        let shard = shard as usize;
        // There is one start more than shards, and `shard` comes from `self.shard`.
        place(self.starts[shard])..place(self.starts[shard + 1])
    }

    /// The packs that the rows of its shard name for an object.
    pub(super) fn candidates(&self, hash: &[u8; ID_LEN], rows: &[u8]) -> Vec<PackRow> {
        let prefix = prefix_of(hash);
        let row = |at: usize| &rows[at * ROW_LEN..(at + 1) * ROW_LEN];
        let (mut from, mut to) = (0, rows.len() / ROW_LEN);
        while from < to {
            let middle = from + (to - from) / 2;
            if row(middle)[..8] < prefix[..] { from = middle + 1 } else { to = middle }
        }
        let named = (from..rows.len() / ROW_LEN).map(row).take_while(|row| row[..8] == prefix[..]);
        let packs = named.take(MAX_CANDIDATES).filter_map(|row| self.packs.get(number(row, 8) as usize));
        packs.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash(n: u32) -> [u8; ID_LEN] {
        *blake3::hash(&n.to_le_bytes()).as_bytes()
    }

    fn packs(count: u32) -> Vec<PackRow> {
        (0..count).map(|n| PackRow { hash: hash(1_000_000 + n), len: 1000 + n, start: 500 + n }).collect()
    }

    fn encoded(objects: u32) -> Vec<u8> {
        let mut rows: Vec<Row> = (0..objects).map(|n| (prefix_of(&hash(n)), n % 7)).collect();
        encode(&packs(7), &mut rows)
    }

    #[test]
    fn every_object_is_found_and_no_other() {
        for objects in [0, 1, 100, 2048, 2049, 20_000] {
            let bytes = encoded(objects);
            let header = Header::decode(&bytes).unwrap();
            assert_eq!(header.front_len() + objects as usize * ROW_LEN, bytes.len());
            let front = Front::decode(&header, &bytes).unwrap();
            assert_eq!(front.packs, packs(7));
            let find = |n| {
                let range = front.rows_of(front.shard(&hash(n)), header.front_len());
                front.candidates(&hash(n), &bytes[range.start as usize..range.end as usize])
            };
            for n in 0..objects {
                assert_eq!(find(n), [packs(7)[n as usize % 7]]);
            }
            assert!(find(objects).is_empty());
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = encode(&packs(1), &mut [([2; 8], 0), ([1; 8], 0)]);
        assert_eq!(bytes.len(), HEADER_LEN + PACK_LEN + 8 + CHECK_LEN + 2 * ROW_LEN);
        assert_eq!(&bytes[..32], b"bcaicata\x01\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(bytes[32..64], hash(1_000_000));
        assert_eq!(&bytes[64..80], b"\xe8\x03\0\0\xf4\x01\0\0\0\0\0\0\x02\0\0\0");
        assert_eq!(bytes[80..88], blake3::hash(&bytes[..80]).as_bytes()[..8]);
        assert_eq!(
            &bytes[88..],
            b"\x01\x01\x01\x01\x01\x01\x01\x01\0\0\0\0\x02\x02\x02\x02\x02\x02\x02\x02\0\0\0\0"
        );
    }

    #[test]
    fn a_pack_number_that_does_not_exist_is_passed_over() {
        let bytes = encode(&packs(1), &mut [(prefix_of(&hash(5)), 9)]);
        let header = Header::decode(&bytes).unwrap();
        let front = Front::decode(&header, &bytes).unwrap();
        assert!(front.candidates(&hash(5), &bytes[header.front_len()..]).is_empty());
    }

    proptest! {
        #[test]
        fn damage_is_refused_or_harmless(at in any::<prop::sample::Index>(), bit in 0u8..8, keep in any::<prop::sample::Index>()) {
            let mut bytes = encoded(3000);
            let front_len = Header::decode(&bytes).unwrap().front_len();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            bytes.truncate(keep.index(bytes.len()) + 1);
            if let Ok(header) = Header::decode(&bytes)
                && let Ok(front) = Front::decode(&header, &bytes)
            {
                prop_assert!(at >= front_len, "damage of the front was not seen");
                for n in 0..20 {
                    let rows = front.rows_of(front.shard(&hash(n)), front_len);
                    let rows = bytes.get(rows.start as usize..(rows.end as usize).min(bytes.len())).unwrap_or_default();
                    prop_assert!(front.candidates(&hash(n), rows).len() <= MAX_CANDIDATES);
                }
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if bytes.len() > 12 {
                bytes[..8].copy_from_slice(MAGIC);
                bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
            }
            if let Ok(header) = Header::decode(&bytes) {
                let _ = Front::decode(&header, &bytes);
            }
        }
    }
}
